"""Copies in the light of another moment: what the device itself measures of them, and the laws."""

import dataclasses
import hashlib
import statistics

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from edge.contract.samples import Light
from edge.detector.blur import edge_spreads
from edge.detector.light import is_grayscale, measure_light
from edge.tags import object_tags
from hub.datasets.measured_noise import MOMENT_MS, Blur, noise_of
from hub.datasets.noise import MAX_GAIN, noisy_copies, noisy_copy
from hub.datasets.version import Member, MemberBox
from tests.hub.datasets.lit import CAMERA, DAY_MS, NIGHT_MS, PLACE, WHOLE_FRAME, jpeg_of, seen, street, under

PLACES = (PLACE, (100.0, 300.0, 180.0, 420.0), (500.0, 50.0, 560.0, 160.0))
PEOPLE = (MemberBox(xyxy=PLACE, label="person", origin="person"),)


def member(jpeg, **changes):
    known = {
        "name": "day",
        "sha256": hashlib.sha256(jpeg).hexdigest(),
        "width": 768,
        "height": 576,
        "split": "train",
        "labels": ("person",),
        "by": "person",
        "camera": CAMERA,
        "captured_at_ms": NIGHT_MS + DAY_MS // 2,
        "boxes": PEOPLE,
    }
    return Member(**known | changes)


def camera(*conditions, regions=(WHOLE_FRAME,), images=2):
    """The figures of a camera that has seen each of these conditions for a moment."""
    rows = []
    for at, condition in enumerate(conditions):
        for i in range(images):
            for region in regions:
                image = under(street(20 * i), seed=i, **condition)
                rows.append(seen(len(rows), image, region=region, at_ms=NIGHT_MS + at * MOMENT_MS + i))
    return noise_of(CAMERA, rows, {})


def decoded(jpeg):
    return cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)


def light_of(image, region=WHOLE_FRAME):
    return measure_light(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), region)


def median_of(image, regions):
    """Light, each figure the median over the regions."""
    lights = [light_of(image, region) for region in regions]
    return Light(*(statistics.median(getattr(one, name) for one in lights) for name in Light.__struct_fields__))


def changed(noise, *, blurs=(), quality=None):
    """These figures, but with this blur and JPEG quality."""
    moments = tuple(dataclasses.replace(one, blurs=blurs, quality=quality) for one in noise.moments)
    return dataclasses.replace(noise, moments=moments)


def copy_of(noise, *, seed=0, image=None, quality=95, **changes):
    jpeg = jpeg_of(street(100) if image is None else image, quality)
    made = noisy_copy(member(jpeg, **changes), jpeg, noise=noise, seed=seed)
    assert made is not None
    copy, content = made
    assert hashlib.sha256(content).hexdigest() == copy.sha256
    return copy, decoded(content)


NIGHTS = (
    {"light": 0.22, "noise": 10},  # a dark street, a sensor at its limit
    {"light": 0.12, "noise": 14},  # so dark that black clips a part of the noise
    {"light": 0.6, "noise": 6},  # dusk
    {"light": 0.35, "noise": 8, "shot": 1.0},  # noise of the light itself
    {"light": 0.3, "noise": 9, "grey": True},  # infrared
)
FOG = {"light": 0.45, "veil": 90, "noise": 3}  # a veil is told by looks at the whole frame only


@pytest.mark.parametrize(
    ("condition", "regions"), [(one, at) for one in NIGHTS for at in ((WHOLE_FRAME,), PLACES)] + [(FOG, (WHOLE_FRAME,))]
)
def test_the_device_measures_of_the_copy_what_it_measured_of_the_night(condition, regions):
    copy, image = copy_of(camera(condition, regions=regions))
    real = under(street(100), seed=99, **condition)
    aimed, got = median_of(real, regions), median_of(image, regions)
    assert got.noise == pytest.approx(aimed.noise, rel=0.1, abs=0.3)
    assert got.brightness == pytest.approx(aimed.brightness, rel=0.05, abs=2)
    if regions == (WHOLE_FRAME,):  # of what stands at a place the contrast is its own
        assert got.contrast == pytest.approx(aimed.contrast, rel=0.15, abs=2)
    words = [
        {"dark", "noisy", "flat", "bright", "grayscale"}
        & set(object_tags(picture, WHOLE_FRAME, light=light_of(picture), input_scale=0.4, others=[]))
        for picture in (real, image)
    ]
    assert words[0] == words[1]
    assert [(box.xyxy, box.label) for box in copy.boxes] == [(PLACE, "person")]
    assert copy.copy_of == "day"


def test_the_words_say_what_was_done():
    noise = camera({"light": 0.25, "noise": 10, "grey": True})
    copy, _ = copy_of(noise)
    assert copy.noise[0] == "grey"
    kind, factor = copy.noise[1].split(" x")
    assert kind == "light"
    assert float(factor) == pytest.approx(0.25, abs=0.05)
    word, sigma = copy.noise[2].split()
    assert word == "noise"
    assert float(sigma) == pytest.approx(10, abs=1)


def test_a_copy_is_compressed_as_the_camera_does_and_keeps_its_noise_all_the_same():
    plain = camera({"light": 0.5, "noise": 4})
    coarse = changed(plain, quality=15)
    (_, fine), (copy, blocky) = copy_of(plain), copy_of(coarse)
    assert "jpeg 15" in copy.noise
    assert light_of(blocky).noise == pytest.approx(light_of(fine).noise, rel=0.1)
    steps = [np.abs(np.diff(one.astype(float).mean(axis=2), axis=1)).mean(axis=0) for one in (fine, blocky)]
    ratios = [one[7::8].mean() / np.delete(one, np.s_[7::8]).mean() for one in steps]
    assert ratios[1] > 1.03 * ratios[0]  # the edges of JPEG's blocks stand out under the noise
    copy, _ = copy_of(coarse, quality=10)  # what is compressed more than that already is not compressed again
    assert not any(word.startswith("jpeg") for word in copy.noise)


@pytest.mark.parametrize(
    ("degrees", "tag"), [(0, "motion_horizontal"), (90, "motion_vertical"), (45, "motion_diagonal")]
)
def test_the_device_tells_the_direction_of_an_objects_blur(degrees, tag):
    image = cv2.resize(street(100)[150:400, 200:530], (768, 576), interpolation=cv2.INTER_CUBIC)  # sharp and large
    place = (250.0, 100.0, 500.0, 420.0)
    blur = Blur("motion", float(degrees), 0.14, 250 / 768)
    dusk = camera({"light": 0.9, "noise": 3})
    moved = changed(dusk, blurs=(blur,))
    boxes = (MemberBox(xyxy=place, label="person", origin="person"),)
    copy, blurred = copy_of(moved, image=image, boxes=boxes)
    assert copy.noise[0] == f"blur 35 px at {degrees} deg on person"
    tags = object_tags(blurred, place, light=light_of(blurred, place), input_scale=0.4, others=[])
    assert tag in tags
    crops = [np.ascontiguousarray(cv2.cvtColor(one, cv2.COLOR_BGR2GRAY)[100:420, 250:500]) for one in (image, blurred)]
    before, after = (edge_spreads(crop, noise=3) for crop in crops)
    assert after[degrees // 45] > before[degrees // 45] + 1.5
    far = (slice(480, 570), slice(20, 200))
    assert light_of(blurred[far], (0, 0, 180, 90)).sharpness > 0.3 * light_of(image[far], (0, 0, 180, 90)).sharpness


def test_a_camera_that_shakes_blurs_the_whole_picture():
    blur = Blur("motion", 0.0, 0.1, 150 / 768)
    dusk = camera({"light": 0.5, "noise": 4})
    shaken = changed(dusk, blurs=(blur,) * 3)
    copy, _ = copy_of(shaken)
    assert copy.noise[0] == "blur 15 px at 0 deg"


@settings(max_examples=12, deadline=None)
@given(
    light=st.floats(0.08, 1.2),
    noise=st.floats(0, 20),
    grey=st.booleans(),
    own=st.floats(0, 12),
    seed=st.integers(0, 99),
)
def test_laws(light, noise, grey, own, seed):
    """Same bytes; boxes; never less noise, never brighter than the limit, never colours that were not there."""
    image = under(street(60)[:240, :320], noise=own, seed=1)
    jpeg = jpeg_of(image)
    of = member(jpeg, width=320, height=240)
    night = under(street(60)[:240, :320], light=light, noise=noise, grey=grey, seed=2)
    measured = noise_of(CAMERA, [seen(0, night, region=(0.0, 0.0, 320.0, 240.0))], {})
    first, again = (noisy_copy(of, jpeg, noise=measured, seed=seed) for _ in range(2))
    assert first == again
    if first is None:
        return
    copy, content = first
    copied = decoded(content)
    region = (0.0, 0.0, 320.0, 240.0)
    before, after = light_of(decoded(jpeg), region), light_of(copied, region)
    assert [box.xyxy for box in copy.boxes] == [box.xyxy for box in of.boxes]
    assert (copy.labels, copy.camera) == (of.labels, of.camera)
    assert after.brightness <= MAX_GAIN * before.brightness + 8  # clipped noise lifts black
    assert after.noise >= 0.85 * before.noise * min(1.0, after.brightness / before.brightness) - 0.6
    assert is_grayscale(copied) or not grey


def test_other_seeds_and_other_pictures_give_other_copies():
    noise = camera({"light": 0.3, "noise": 8}, {"light": 0.5, "noise": 4}, {"light": 0.15, "noise": 12})
    words = {copy_of(noise, seed=seed)[0].noise for seed in range(3)}
    assert len(words) > 1
    assert copy_of(noise)[0].sha256 != copy_of(noise, image=street(140))[0].sha256


def test_a_moment_that_differs_is_drawn_more_often_than_its_share():
    days = [{"light": 1.0, "noise": 3.0}] * 4
    noise = camera(*days, {"light": 0.2, "noise": 10}, images=1)
    nights = sum(light_of(copy_of(noise, seed=seed)[1]).brightness < 50 for seed in range(8))
    assert nights >= 4  # 1 or 2 by its share


@pytest.mark.parametrize(
    "condition",
    [
        {"light": 2.5, "noise": 3},  # brighter than a picture can be made
        {"light": 1.0, "noise": 0.0},  # less noise than there is
    ],
)
def test_what_cannot_be_made_is_not_made(condition):
    image = under(street(100), light=0.35, noise=12)
    jpeg = jpeg_of(image)
    rows = [seen(0, under(street(20), **condition))]
    assert noisy_copy(member(jpeg), jpeg, noise=noise_of(CAMERA, rows, {}), seed=0) is None


def test_what_no_moment_can_be_made_of_varies_as_its_own_light_does():
    image = under(street(100), light=0.3, noise=8, grey=True)
    jpeg = jpeg_of(image)
    rows = [  # nights of one night's noise, a little brighter and darker; the picture has more noise than all of them
        seen(i, under(street(20), light=0.3 * factor, noise=2, grey=True), at_ms=NIGHT_MS + i * MOMENT_MS)
        for i, factor in enumerate((0.9, 1.0, 1.1))
    ]
    made = noisy_copy(member(jpeg), jpeg, noise=noise_of(CAMERA, rows, {}), seed=3)
    assert made is not None
    copy, content = made
    assert [word.split()[0] for word in copy.noise] == ["light"]
    assert 0.8 <= light_of(decoded(content)).brightness / light_of(image).brightness <= 1.25


def test_who_gets_copies():
    """Originals of the train split that a person or a certified machine has labelled, of cameras with figures."""
    jpeg = jpeg_of(street(100))
    noise = {CAMERA: camera({"light": 0.3, "noise": 8})}
    cases = {
        "drawn": {},
        "reviewed": {"by": "review"},
        "certified": {"by": "machine"},
        "empty": {"boxes": ()},  # an image that somebody looked at and found nothing
        "taught": {"by": "self"},  # no: a label of the detector's own
        "replay": {"by": "", "labels": (), "boxes": ()},  # no: nobody looked
        "tested": {"split": "test"},  # no
        "chosen": {"split": "val"},  # no
        "copied": {"copy_of": "drawn"},  # no: a copy already
        "elsewhere": {"camera": "lab/box/yard"},  # no figures: named
        "nowhere": {"camera": ""},  # of no camera: named
    }
    heard = []
    members = [member(jpeg, name=name, **changes) for name, changes in cases.items()]
    made = noisy_copies(members, jpeg_of=lambda _: jpeg, measured=noise, seed=0, on_image=lambda: heard.append(1))
    assert [copy.name for copy, _ in made.copies] == ["drawn-noise", "reviewed-noise", "certified-noise", "empty-noise"]
    assert made.without == ("", "lab/box/yard")
    assert made.unreached == 0
    assert len(heard) == 6


def test_the_tags_of_the_originals_light_are_not_the_copys():
    noise = camera({"light": 0.3, "noise": 8})
    copy, _ = copy_of(noise, tags=("small", "bright", "motion_blur", "motion_diagonal", "camera:lab/box/door"))
    assert copy.tags == ("small", "camera:lab/box/door")


def test_a_picture_that_is_no_jpeg_is_named():
    with pytest.raises(UnusableError, match="JPEG"):
        noisy_copy(member(b"GIF89a"), b"GIF89a", noise=camera({"light": 0.3, "noise": 8}, images=1), seed=0)


HIDING = [
    # by dusk, with some noise: all are there
    ({"light": 0.5, "noise": 4}, 0),
    # dark, and a clean picture: lit up it is all there
    ({"light": 0.05, "noise": 0.5}, 0),
    # at 2 % of the light the noise is several times what is left of the people
    ({"light": 0.02, "noise": 8}, 2),
]


@pytest.mark.parametrize(("condition", "hidden"), HIDING)
def test_what_cannot_be_seen_any_more_is_ignored(condition, hidden):
    """Two people of the clip's frame 100; a flat place, where there was nothing to see before, stays as it is."""
    image = street(100).copy()
    image[400:500, 600:700] = 90
    people = [(588.0, 151.0, 617.0, 235.0), (491.0, 149.0, 517.0, 218.0)]
    boxes = tuple(
        MemberBox(xyxy=xyxy, label="person", origin="person") for xyxy in [*people, (620.0, 420.0, 680.0, 480.0)]
    )
    noise = camera(condition)
    copy, _ = copy_of(noise, image=image, boxes=boxes)
    assert sum(box.ignored for box in copy.boxes) == hidden
    assert not copy.boxes[-1].ignored
    uncertain = (msgspec.structs.replace(boxes[0], ignored=True),)
    assert all(box.ignored for box in copy_of(noise, image=image, boxes=uncertain)[0].boxes)
