import hashlib
from collections import Counter

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.card import InputSpec
from edge.detector.letterbox import Letterbox
from edge.detector.pictures import decode_jpeg
from hub.datasets.version import Member, MemberBox, make_version, read_jpeg, write_version
from hub.train.lessons import Lessons
from hub.train.recipe import Recipe

LABELS = ("person", "car", "dog")
SIZE = (96, 64)
SPEC = InputSpec(width=96, height=64)
RECIPE = Recipe(people=2, machine=2, replay=2)


def drawn(number, *, width=160, height=120):
    """A smooth picture, another for each number."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    picture = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def version_of(folder, members, jpegs):
    """Write members, given as dictionaries, with their pictures."""
    made = []
    for member in members:
        jpeg = jpegs[member["name"]]
        height, width = decode_jpeg(jpeg).shape[:2]
        known = {"sha256": hashlib.sha256(jpeg).hexdigest(), "width": width, "height": height, "split": "train"}
        made.append(Member(**known, **member))
    version = make_version(made, labels=LABELS, recipe={}, created_at_ms=0)
    write_version(version, folder, jpeg_of=lambda member: jpegs[member.name])
    return version


def a_mix(folder):
    """Five pictures of people's labels, six self-taught, seven for replay; two copies of the first."""
    members = [{"name": f"p{i}", "labels": ("person",), "by": "person"} for i in range(5)]
    members += [{"name": f"s{i}", "labels": LABELS, "by": "self"} for i in range(6)]
    members += [{"name": f"r{i}"} for i in range(7)]
    members += [{"name": f"p0-{i}", "labels": ("person",), "by": "person", "copy_of": "p0"} for i in range(2)]
    return version_of(folder, members, {one["name"]: drawn(i) for i, one in enumerate(members)})


def lessons_of(version, folder, *, spec=SPEC, size=SIZE, recipe=RECIPE, members=None, closer=False, **more):
    return Lessons(
        version.members if members is None else members,
        folder=folder,
        spec=spec,
        labels=LABELS,
        input_size=size,
        recipe=recipe,
        closer=closer,
        **more,
    )


@pytest.fixture(scope="module")
def mix(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mix") / "version"
    return a_mix(folder), folder


@pytest.mark.parametrize("letterbox", ["top_left", "center", "stretch"])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"color": "bgr", "pad_value": 0},
        {"layout": "nhwc", "mean": (123.7, 116.3, 103.5), "std": (58.4, 57.1, 57.4)},
    ],
)
def test_a_picture_is_what_the_device_feeds_its_model(mix, letterbox, change):
    version, folder = mix
    spec = msgspec.structs.replace(SPEC, letterbox=letterbox, **change)
    member = version.members[0]
    shown = lessons_of(version, folder, spec=spec).as_deployed([member.name]).lesson.images
    fed, _ = Letterbox(spec, input_size=SIZE)(decode_jpeg(read_jpeg(folder, member)))
    assert shown.shape == fed.shape
    apart = np.abs(shown - fed) * np.mean(spec.std)  # in grey levels
    assert apart.max() < 6
    assert apart.mean() < 0.5


@settings(max_examples=30, deadline=None)
@given(
    step=st.integers(0, 10_000), seed=st.integers(0, 1000), letterbox=st.sampled_from(["top_left", "center", "stretch"])
)
def test_a_box_goes_where_its_object_goes(tmp_path_factory, step, seed, letterbox):
    folder = tmp_path_factory.mktemp("box") / "version"
    picture = np.zeros((120, 160, 3), np.uint8)
    picture[40:90, 60:100] = 255
    jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes()
    box = MemberBox(xyxy=(60, 40, 100, 90), label="car", origin="person")
    member = {"name": "a", "labels": ("car",), "boxes": (box,), "by": "person"}
    version = version_of(folder, [member], {"a": jpeg})
    spec = msgspec.structs.replace(SPEC, letterbox=letterbox, pad_value=0)
    recipe = Recipe(people=1, machine=0, replay=0, seed=seed)
    lesson = lessons_of(version, folder, spec=spec, recipe=recipe).exercise(step).lesson
    assert lesson.class_id[0].tolist() == [1]
    bright = lesson.images[0].max(axis=0) > 100
    rows, columns = np.flatnonzero(bright.any(axis=1)), np.flatnonzero(bright.any(axis=0))
    x1, y1, x2, y2 = np.clip(lesson.boxes[0][0], 0, np.array(SIZE * 2))
    if x2 - x1 < 2 or y2 - y1 < 2:
        return
    seen = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    assert np.abs(seen - [x1, y1, x2, y2]).max() <= 1


def test_a_step_is_a_function_of_seed_and_number(mix):
    version, folder = mix

    def images(step, **recipe):
        lessons = lessons_of(version, folder, recipe=msgspec.structs.replace(RECIPE, **recipe))
        for earlier in range(2):
            lessons.exercise(earlier)
        return lessons.exercise(step).lesson.images

    assert np.array_equal(images(5), images(5))
    assert not np.array_equal(images(5), images(6))
    assert not np.array_equal(images(5), images(5, seed=1))


def names_of(lessons, steps):
    """What is shown, batch by batch; a copy under its own name."""
    found = []
    shown = lessons._exercise
    lessons._exercise = lambda names, views: found.append(list(names)) or shown(names, views)
    for step in range(steps):
        lessons.exercise(step)
    return found


def test_neither_kind_drowns_and_every_picture_is_shown_equally_often(mix):
    version, folder = mix
    batches = names_of(lessons_of(version, folder), 15)
    for batch in batches:
        assert Counter(name[0] for name in batch) == {"p": 2, "s": 2, "r": 2}
    shown = Counter(name.split("-")[0] for batch in batches for name in batch)
    assert {shown[f"p{i}"] for i in range(5)} == {6}
    assert {shown[f"s{i}"] for i in range(6)} == {5}
    assert {shown[f"r{i}"] for i in range(7)} <= {4, 5}


def test_a_noisy_copy_stands_in_for_its_original(mix):
    version, folder = mix
    members = [member for member in version.members if member.name.startswith("p0")]
    shown = Counter(name for batch in names_of(lessons_of(version, folder, members=members), 40) for name in batch)
    assert set(shown) == {"p0", "p0-0", "p0-1"}
    assert 0.35 < shown["p0"] / shown.total() < 0.65


@pytest.mark.parametrize(
    ("kinds", "places"),
    [
        ("psr", {"p": 2, "s": 2, "r": 2}),
        ("pr", {"p": 4, "r": 2}),  # no self-taught one: its places are people's
        ("sr", {"s": 4, "r": 2}),
        ("p", {"p": 4}),  # none for replay
    ],
)
def test_an_empty_kind_leaves_its_places(mix, kinds, places):
    version, folder = mix
    members = [member for member in version.members if member.name[0] in kinds]
    (batch,) = names_of(lessons_of(version, folder, members=members), 1)
    assert Counter(name[0] for name in batch) == places


def test_the_weak_spots_pictures_come_more_often(mix):
    version, folder = mix
    batches = names_of(lessons_of(version, folder, repeat={"p3": 6}), 10)
    shown = Counter(name.split("-")[0] for batch in batches for name in batch)
    assert shown["p3"] == 12  # of 20 places, six in ten
    assert {shown[f"p{i}"] for i in (0, 1, 2, 4)} == {2}


def test_the_old_model_looks_closer_only_where_something_was_not_looked_for(mix):
    version, folder = mix
    everything = [member for member in version.members if member.by == "self"]
    assert lessons_of(version, folder, members=everything, closer=True).exercise(0).closer is None
    exercise = lessons_of(version, folder, closer=True).exercise(0)
    known = exercise.lesson.looked_for.all(axis=1)
    assert known.sum() == 2
    assert exercise.closer.shape == (4, 3, 2 * SIZE[1], 2 * SIZE[0])
    for closer, shown in zip(exercise.closer, exercise.lesson.images[~known], strict=True):
        halved = closer.reshape(3, SIZE[1], 2, SIZE[0], 2).mean(axis=(2, 4))
        assert np.abs(halved - shown)[:, 4:-4, 4:-4].mean() < 3  # the same part of the same picture


def test_a_label_that_the_model_lacks_is_passed_over(tmp_path):
    member = {"name": "a", "labels": ("person", "dog"), "by": "person"}
    version = version_of(tmp_path / "v", [member], {"a": drawn(0)})
    lessons = Lessons(
        version.members,
        folder=tmp_path / "v",
        spec=SPEC,
        labels=("person", "car"),
        input_size=SIZE,
        recipe=RECIPE,
        closer=False,
    )
    assert lessons.exercise(0).lesson.looked_for[0].tolist() == [True, False]
