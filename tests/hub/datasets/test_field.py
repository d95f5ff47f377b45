"""Frames of the field and pictures for replay: which are chosen, and which never."""

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from hub.datasets.field import Taken, choose, halving
from hub.datasets.replay import replay_of
from hub.datasets.splits import side
from hub.datasets.version import read_jpeg
from hub.store import Store
from hub.store_datasets import FieldFrame
from hub.testshare import APART_MS, is_beside_test, is_test
from tests.hub.datasets.frozen import AT_MS, labelled, people, times
from tests.hub.made import event_id, jpeg


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def field_frame(number, at_ms, *, camera="door", group=None, **changes):
    made = FieldFrame(
        event_id(number), "lab", "box", camera, "person", at_ms, (0.0, 0.0, 9.0, 9.0), 64, 48, "", group or number
    )
    return made._replace(**changes)


FRAMES = st.lists(
    st.builds(
        lambda number, at_s, camera, group: field_frame(number, AT_MS + at_s * 500, camera=camera, group=group),
        st.integers(0, 10**6),
        st.integers(0, 4000),
        st.sampled_from(["door", "gate", "yard"]),
        st.integers(1, 40),
    ),
    max_size=80,
    unique_by=lambda one: one.event_id,
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(FRAMES, st.integers(1, 30), st.lists(st.integers(0, 4000), max_size=5))
def test_frames_that_are_chosen_measure_nothing_and_show_one_moment_once(frames, count, labelled_at):
    """The test share is never in train; nor is one moment, or one group, of anything twice."""
    taken = Taken()
    for at_s in labelled_at:
        taken.add("lab/box/door", AT_MS + at_s * 500, 1)

    def side_of(frame):
        return side(frame.camera_path, frame.captured_at_ms, first_ms=AT_MS)

    chosen = choose(frames, count, taken=taken, side_of=side_of)
    assert len(chosen) <= count
    assert len({one.group_id for one in chosen}) == len(chosen)
    for one in chosen:
        where = {"site": "lab", "device": "box", "camera": one.camera, "captured_at_ms": one.captured_at_ms}
        assert not is_test(**where)
        assert not is_beside_test(**where)
        assert side_of(one) is not None
        others = [o.captured_at_ms for o in chosen if o.camera == one.camera and o is not one]
        if one.camera == "door":
            others += [AT_MS + at_s * 500 for at_s in labelled_at]
        assert all(abs(other - one.captured_at_ms) > APART_MS for other in others)
        assert not labelled_at or one.group_id != 1
    assert chosen == choose(frames[::-1], count, taken=_taken(labelled_at), side_of=side_of)


def _taken(labelled_at):
    taken = Taken()
    for at_s in labelled_at:
        taken.add("lab/box/door", AT_MS + at_s * 500, 1)
    return taken


def test_chosen_frames_are_spread_over_cameras_and_time_those_of_the_weak_spot_first():
    moments = {name: times("train", 40, camera=f"lab/box/{name}") for name in ("door", "gate")}
    frames = [
        field_frame(100 * turn + at, at_ms, camera=name)
        for turn, name in enumerate(("door", "gate"), 1)
        for at, at_ms in enumerate(moments[name])
    ]

    def side_of(_):
        return "train"

    chosen = choose(frames, 10, taken=Taken(), side_of=side_of)
    assert len(chosen) == 8  # two would be validation
    for name in ("door", "gate"):
        own = sorted(moments[name].index(one.captured_at_ms) for one in chosen if one.camera == name)
        assert len(own) == 4
        assert own[-1] - own[0] >= 25
    weak = {frames[3].event_id, frames[60].event_id}
    first = choose(frames, 10, taken=Taken(), side_of=side_of, is_first=lambda one: one.event_id in weak)
    assert {one.event_id for one in first[:2]} == weak


@given(st.integers(0, 300))
def test_halving_has_each_once(count):
    assert sorted(halving(count)) == list(range(count))


# Replay from a folder


def pictures(folder, count):
    (folder / "deep").mkdir(parents=True)
    for number in range(count):
        (folder / "deep" / f"{number}.JPG").write_bytes(jpeg(number, noise=True))
    return folder


def test_replay_pictures_are_drawn_by_the_seed_and_some_are_validation(tmp_path):
    folder = pictures(tmp_path / "any", 30)
    one, again, other = (replay_of(folder, 20, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert {m.name for m in one.members} != {m.name for m in other.members}
    assert len(one.members) == 20
    assert 4 <= sum(member.split == "val" for member in one.members) <= 10
    assert all(member.labels == () and member.boxes == () for member in one.members)


def test_what_is_broken_or_huge_is_named_and_left_out(tmp_path):
    folder = pictures(tmp_path / "any", 2)
    (folder / "cut.jpg").write_bytes(jpeg(7)[:200])
    (folder / "text.jpg").write_text("no picture")
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (30_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    (folder / "bomb.png").write_bytes(bomb)
    (folder / "half.png").write_bytes(cv2.imencode(".png", np.zeros((9, 9, 3), np.uint8))[1].tobytes()[:50])
    (folder / "notes.txt").write_text("not asked")
    found = replay_of(folder, 200, seed=0)
    assert len(found.members) == 2
    left = "\n".join(found.left_out)
    assert {line.rpartition("any/")[2].split(" ")[0] for line in found.left_out} == {
        "cut.jpg",
        "text.jpg",
        "bomb.png",
        "half.png",
    }
    assert "30000x30000 pixels" in left


def test_a_png_becomes_a_jpeg_and_a_twin_counts_once(store, tmp_path):
    folder = pictures(tmp_path / "any", 1)
    (folder / "twin.jpg").write_bytes(jpeg(0, noise=True))
    rng = np.random.default_rng(1)
    assert cv2.imwrite(str(folder / "grey16.png"), rng.integers(0, 65535, (20, 30), np.uint16))
    labelled(store)
    done = people(store, replay=folder)
    replay = [one for one in done.version.members if not one.labels]
    assert sorted((one.width, one.height) for one in replay) == [(30, 20), (64, 48)]
    assert all(read_jpeg(done.folder, one).startswith(b"\xff\xd8\xff") for one in replay)
    assert all(not one.event_id for one in replay)


def test_a_test_image_is_no_replay_picture(store, tmp_path):
    folder = pictures(tmp_path / "any", 1)
    (folder / "known.jpg").write_bytes(jpeg(7))  # the test image's
    labelled(store)
    done = people(store, replay=folder)
    assert len([one for one in done.version.members if not one.labels]) == 1


def test_a_folder_without_pictures_is_refused(store, tmp_path):
    labelled(store)
    (tmp_path / "empty").mkdir()
    for folder, says in ((tmp_path / "empty", "has no JPEG or PNG"), (tmp_path / "none", "there is no folder")):
        with pytest.raises(UnusableError, match=says):
            people(store, replay=folder)
    assert store.datasets.all() == []
