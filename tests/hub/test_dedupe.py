"""The laws and rules of hub.dedupe."""

from dataclasses import replace
from enum import Enum
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.samples import Reason
from edge.detector.detections import box_iou
from hub.cells import cell_of, cells_around
from hub.curator import as_leader
from hub.dedupe import (
    BITS_OF_IOU,
    LOOK_BITS,
    SAME_FRAME_BITS,
    SAME_PLACE_IOU,
    UNTRACKED_BITS,
    WINDOW_S,
    DuplicateIndex,
    allowed_bits,
)
from hub.hashing import hamming
from hub.store_rows import FindingRow, FrameState

MINUTE_MS = 60_000
MOVED = {"region": (110.0, 100.0, 150.0, 200.0)}  # IoU .6 with the one before
DAY_MS = 24 * 60 * MINUTE_MS
NOON_MS = 19_000 * DAY_MS + DAY_MS // 2


def bits(count):
    """A hash with that many bits set: `count` bits from the blank one, and from bits(n) the difference."""
    return ((1 << count) - 1).to_bytes(32)


def row(number=1, **change) -> FindingRow:
    fitting = FindingRow(
        event_id=f"{number:032x}",
        site="north",
        device="pole-1",
        camera="door",
        reason=Reason.MISSED,
        severity=0.5,
        label="person",
        captured_at_ms=NOON_MS,
        region=(100.0, 100.0, 140.0, 200.0),
        width=640,
        height=480,
        track="",
        tags="",
        crop_hash=bits(100),
        frame_hash=bits(128),
        features=np.zeros(0, np.int8),
        model="m1",
        frame_state=FrameState.HELD,
        group_id=None,
        header=b"",
    )
    return replace(fitting, **change)


def group_all(rows, restart_every=0):
    """What the curator does: each finding joins, or leads a group of its own. A restart reads back what it stored."""
    index, groups, stored = DuplicateIndex(), [], {}
    for number, each in enumerate(rows, start=1):
        if restart_every and number % restart_every == 0:
            index = DuplicateIndex()
            for leader in stored.values():
                index.add_leader(leader)
        joined = index.match(each)
        if joined is None:
            stored[number] = as_leader(each, number)
            index.add_leader(stored[number])
        else:
            stored[joined.group_id] = with_member(stored[joined.group_id], each, joined)
        groups.append(number if joined is None else joined.group_id)
    return groups


def with_member(leader, member, joined):
    """What hub.store_groups stores of a group when a member joins it."""
    at_ms = member.captured_at_ms
    followed = {}
    if joined.tracked:
        since_ms = min(leader.track_at_ms, at_ms) if leader.track == member.track else at_ms
        followed = {"track": member.track, "track_at_ms": since_ms}
    return replace(
        leader,
        first_at_ms=min(leader.first_at_ms, at_ms),
        last_at_ms=max(leader.last_at_ms, at_ms),
        looks=joined.looks or leader.looks,
        **followed,
    )


@pytest.mark.parametrize(
    ("change", "joins"),
    [
        ({}, True),  # the same again
        ({"crop_hash": bits(100 + 94)}, True),  # the same walker a moment later
        ({"crop_hash": bits(100 + 95)}, False),
        ({"captured_at_ms": NOON_MS + 1500, "crop_hash": bits(100 + 70)}, True),
        ({"captured_at_ms": NOON_MS + 1500, "crop_hash": bits(100 + 71)}, False),  # the one who walks behind
        ({"captured_at_ms": NOON_MS + 3000, "crop_hash": bits(100 + 42)}, True),
        ({"captured_at_ms": NOON_MS + 3000, "crop_hash": bits(100 + 43)}, False),  # the next walker in the lane
        ({"captured_at_ms": NOON_MS + MINUTE_MS, "crop_hash": bits(100 + 42)}, True),  # it stands
        ({"captured_at_ms": NOON_MS + MINUTE_MS, "crop_hash": bits(100 + 43)}, False),
        ({"captured_at_ms": NOON_MS - MINUTE_MS, "crop_hash": bits(100 + 42)}, True),  # it came late
        ({**MOVED, "captured_at_ms": NOON_MS + MINUTE_MS, "crop_hash": bits(100 + 34)}, True),
        ({**MOVED, "captured_at_ms": NOON_MS + MINUTE_MS, "crop_hash": bits(100 + 35)}, False),  # not quite its place
        ({"captured_at_ms": NOON_MS + DAY_MS, "crop_hash": bits(100 + 34)}, True),  # a ghost of every noon
        ({"captured_at_ms": NOON_MS + DAY_MS, "crop_hash": bits(100 + 35)}, False),
        ({"captured_at_ms": NOON_MS + DAY_MS + 1}, False),  # too old, however alike
        ({"region": (110.0, 100.0, 150.0, 200.0)}, True),  # IoU .6
        ({"region": (116.0, 100.0, 156.0, 200.0)}, False),  # IoU .43: another place
        ({"region": (300.0, 100.0, 340.0, 200.0)}, False),
        ({"label": ""}, True),  # no label contradicts none
        ({"label": "dog", "crop_hash": bits(128)}, True),  # the label flickers on one and the same picture
        ({"label": "dog", "crop_hash": bits(129)}, False),
        ({"reason": Reason.LOW_CONFIDENCE}, True),  # missed, then unsure: one event
        ({"reason": Reason.CONTROL}, False),
        ({"frame_hash": bits(255)}, True),  # the whole frame does not count within a camera
        ({"features": np.ones(4, np.int8)}, True),  # nor do its features
        ({"camera": "gate", "frame_hash": bits(255)}, False),
        ({"device": "pole-2", "frame_hash": bits(255)}, False),  # the same camera name on another device
        ({"site": "south", "frame_hash": bits(255)}, False),
    ],
)
def test_what_joins_a_leader_of_the_same_camera(change, joins):
    assert group_all([row(1), row(2, **change)]) == ([1, 1] if joins else [1, 2])


@pytest.mark.parametrize(
    ("change", "joins"),
    [
        ({}, True),  # one stream registered twice
        ({"frame_hash": bits(128 + SAME_FRAME_BITS)}, True),
        ({"frame_hash": bits(128 + SAME_FRAME_BITS + 1)}, False),  # another scene
        ({"width": 320, "height": 240, "region": (50.0, 50.0, 70.0, 100.0)}, True),  # its sub-stream
        ({"region": (300.0, 100.0, 340.0, 200.0)}, False),  # another object in one picture
        ({"crop_hash": bits(100 + 73)}, False),  # another object in one place
        ({"label": "dog"}, False),
        ({"features": np.array([126, 3], np.int8)}, True),  # the model sees the same picture
        ({"features": np.array([120, 42], np.int8)}, False),  # the model sees another one: dark, or noisy
        ({"features": np.array([126, 3, 0], np.int8)}, False),  # vectors of two models
        ({"features": np.zeros(0, np.int8)}, True),  # a model without features
        ({"captured_at_ms": NOON_MS + 60 * MINUTE_MS}, True),
        ({"captured_at_ms": NOON_MS + 60 * MINUTE_MS + 1}, False),  # a copy is played at once, or is another matter
    ],
)
def test_what_joins_a_leader_of_another_camera(change, joins):
    first = row(1, features=np.array([127, 0], np.int8))
    second = replace(first, event_id="2" * 32, site="south", camera="copy")
    assert group_all([first, replace(second, **change)]) == ([1, 1] if joins else [1, 2])


def test_blank_frames_of_two_cameras_are_not_one_event():
    covered = row(1, frame_hash=bytes(32), crop_hash=bytes(32))
    assert group_all([covered, replace(covered, event_id="2" * 32, camera="gate")]) == [1, 2]
    assert group_all([covered, replace(covered, event_id="2" * 32)]) == [1, 1]


def test_the_best_leader_is_joined():
    index = DuplicateIndex()
    for number, crop in ((1, 60), (2, 90), (3, 140)):
        index.add_leader(as_leader(row(number, crop_hash=bits(crop)), number))
    assert index.match(row(4)).group_id == 2


@pytest.mark.parametrize(
    ("first", "second", "change", "joins"),
    [
        ("a", "a", {"captured_at_ms": NOON_MS + 1500, "crop_hash": bits(180)}, True),  # one track: the same walker
        ("a", "a", {"captured_at_ms": NOON_MS + 1500, "crop_hash": bits(181)}, False),  # the tracker swapped two people
        ("a", "a", {"captured_at_ms": NOON_MS + 600_000, "crop_hash": bits(156)}, True),  # it stands for ten minutes
        ("a", "a", {"region": (300.0, 100.0, 340.0, 200.0)}, False),  # it has walked on: another picture of it
        ("a", "b", {"captured_at_ms": NOON_MS + 3000, "crop_hash": bits(142)}, True),  # lost, and taken up again
        ("a", "b", {"captured_at_ms": NOON_MS + 500, "crop_hash": bits(151)}, False),  # would do without tracks
        ("a", "", {"captured_at_ms": NOON_MS + 500, "crop_hash": bits(151)}, True),  # a moving thing without a track
        ("a", "b", {"captured_at_ms": NOON_MS}, False),  # in one frame: two people, however alike
        ("a", "b", {"captured_at_ms": NOON_MS, "label": "dog", "crop_hash": bits(128)}, True),  # one thing, two names
    ],
)
def test_what_the_tracks_say(first, second, change, joins):
    assert group_all([row(1, track=first), row(2, track=second, **change)]) == ([1, 1] if joins else [1, 2])


def test_a_track_that_lived_beside_another_is_someone_else():
    # law 4: both were seen while the other was, elsewhere; later one of them comes to the other's place
    elsewhere = {"region": (300.0, 100.0, 340.0, 200.0)}
    rows = [row(1, track="a"), row(2, track="b", **elsewhere), row(3, track="a", captured_at_ms=NOON_MS + 2000)]
    comes = row(4, track="b", captured_at_ms=NOON_MS + 9000)
    assert group_all([*rows, comes]) == [1, 2, 1, 4]
    assert group_all([*rows, replace(comes, track="c")]) == [1, 2, 1, 1]  # nobody saw it while "a" lived


def test_a_late_finding_among_long_tracks_meets_the_same_groups_after_a_restart():
    """A track stood for a week; what was captured in the middle of it comes last."""
    stood = [row(i, track="a", captured_at_ms=NOON_MS + i * DAY_MS) for i in range(7)]
    elsewhere = {"region": (300.0, 100.0, 340.0, 200.0)}
    walked = row(8, track="a", captured_at_ms=NOON_MS + 3 * DAY_MS, **elsewhere)
    other = row(9, track="b", captured_at_ms=NOON_MS + 3 * DAY_MS + 3000, **elsewhere)
    rows = [*stood, walked, other]
    assert group_all(rows) == group_all(rows, restart_every=9) == [1] * 7 + [8, 9]


def test_a_late_finding_of_a_track_that_ended_before_the_other_began_may_join():
    assert group_all([row(1, track="b", captured_at_ms=NOON_MS + 5000), row(2, track="a")]) == [1, 1]


def test_a_group_does_not_follow_the_track_of_another_label():
    dog = row(2, label="dog", track="b")  # one thing, two names
    later = row(3, track="a", captured_at_ms=NOON_MS + 1500, crop_hash=bits(170))  # more bits than another track may
    assert group_all([row(1, track="a"), dog, later]) == group_all([row(1, track="a"), dog, later], 3) == [1, 1, 1]


def test_the_tracks_of_a_copy_say_nothing_here():
    first = row(1, track="a", features=np.array([127, 0], np.int8))
    copy = replace(first, camera="copy", track="b")
    assert group_all([first, copy, replace(first, captured_at_ms=NOON_MS + 1500, crop_hash=bits(170))]) == [1, 1, 1]


def test_looks_do_not_make_a_chain():
    # each differs from the one before in 30 bits: the second and third are looks, and then it is too far
    rows = [row(i, captured_at_ms=NOON_MS + i * MINUTE_MS, crop_hash=bits(10 + 30 * i)) for i in range(7)]
    groups = group_all(rows)
    assert groups[:2] == [1, 1]
    assert len(set(groups)) >= 2
    for each, group in zip(rows, groups, strict=True):
        assert hamming(each.crop_hash, rows[group - 1].crop_hash) <= LOOK_BITS + 42


def test_a_queue_does_not_become_one_event_by_moving_up():
    # each overlaps the next by IoU .67 and the one after that by .43: a chain would end in one group
    rows = [row(i, region=(100.0 + 8 * i, 100.0, 140.0 + 8 * i, 200.0)) for i in range(12)]
    groups = group_all(rows)
    assert groups == [1, 1, 3, 3, 5, 5, 7, 7, 9, 9, 11, 11]


def test_one_person_who_stands_for_ten_minutes_is_one_event():
    rng = np.random.default_rng(0)
    rows = []
    for i in range(30):
        flipped = np.zeros(256, np.uint8)
        flipped[rng.choice(256, 20, replace=False)] = 1  # so any two differ in 40 bits at most
        crop = np.frombuffer(bits(128), np.uint8) ^ np.packbits(flipped)
        rows.append(row(i, captured_at_ms=NOON_MS + i * 20_000, crop_hash=crop.tobytes()))
    assert set(group_all(rows)) == {1}


def test_a_group_seen_over_midnight_and_for_days_stays_known():
    # every six hours for five days: each is within the window of the one before, and nearly identical
    rows = [row(i, captured_at_ms=NOON_MS + i * DAY_MS // 4) for i in range(20)]
    assert set(group_all(rows)) == {1}
    late = [row(30 + i, captured_at_ms=NOON_MS - i * DAY_MS // 4) for i in range(20)]
    assert set(group_all(rows + late)) == {1}


def test_a_restart_knows_when_a_group_was_last_seen():
    index = DuplicateIndex()
    index.add_leader(replace(as_leader(row(1), 7), last_at_ms=NOON_MS + 3 * DAY_MS))
    later = row(2, captured_at_ms=NOON_MS + 3 * DAY_MS + 1000, crop_hash=bits(160))
    assert index.match(later).group_id == 7
    assert DuplicateIndex().match(later) is None


def test_control_findings_are_counted_units():
    whole = {"reason": Reason.CONTROL, "region": (0.0, 0.0, 640.0, 480.0), "label": ""}
    assert group_all([row(1, **whole), row(2, **whole), row(3, **whole)]) == [1, 2, 3]
    # nor does another finding join one
    assert group_all([row(1, **whole), row(2, **{**whole, "reason": Reason.SUSPECT})]) == [1, 2]


def test_a_region_without_area_joins_nothing():
    assert group_all([row(1, region=(5.0, 5.0, 5.0, 9.0)), row(2, region=(5.0, 5.0, 5.0, 9.0))]) == [1, 2]


class Kin(Enum):
    SAME = "one track"
    OTHER = "two tracks"
    UNKNOWN = "one of them has none"


findings = st.builds(
    row,
    track=st.sampled_from(["", "a", "b"]),
    number=st.integers(0, 99),
    camera=st.sampled_from(["door", "gate"]),
    reason=st.sampled_from(Reason),
    label=st.sampled_from(["", "person", "dog"]),
    captured_at_ms=st.integers(-2, 2).map(lambda day: NOON_MS + day * DAY_MS // 2),
    region=st.tuples(st.integers(0, 30), st.integers(1, 40)).map(lambda r: (r[0], 10.0, r[0] + r[1], 40.0)),
    crop_hash=st.integers(0, 256).map(bits),
    frame_hash=st.integers(0, 256).map(bits),
)


@given(st.lists(findings, max_size=15), st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_the_laws_hold_for_any_findings(rows, restart_every):
    groups = group_all(rows)
    assert groups == group_all(rows, restart_every)  # 3
    for number, (each, group) in enumerate(zip(rows, groups, strict=True), start=1):
        leader = rows[group - 1]
        assert groups[group - 1] == group <= number
        if group < number:
            assert each.reason is not Reason.CONTROL  # 2
            assert hamming(each.crop_hash, leader.crop_hash) <= UNTRACKED_BITS[0] + BITS_OF_IOU * 0.3 + LOOK_BITS  # 1
            overlap = box_iou(np.array([each.place], np.float32), np.array([leader.place], np.float32))[0, 0]
            assert overlap >= SAME_PLACE_IOU - 1e-4


walkers = st.builds(
    row,
    track=st.sampled_from("abc"),
    captured_at_ms=st.integers(0, 20).map(lambda step: NOON_MS + 500 * step),
    crop_hash=st.integers(60, 100).map(bits),
    region=st.sampled_from([(100.0, 100.0, 140.0, 200.0), (104.0, 100.0, 144.0, 200.0), (300.0, 100.0, 340.0, 200.0)]),
)


@given(st.lists(walkers, max_size=12).map(lambda rows: sorted(rows, key=lambda each: each.captured_at_ms)))
@settings(max_examples=200, deadline=None)
def test_two_tracks_that_live_together_never_share_a_group(rows):
    # law 4: each is first seen in a corner of its own; then they meet anywhere, with any looks
    homes = {"a": 300.0, "b": 400.0, "c": 500.0}
    begun = [row(track=track, region=(x, 300.0, x + 40, 400.0)) for track, x in homes.items()]
    met = [*begun, *rows]
    for restart_every in (0, 3):
        members = set(zip(group_all(met, restart_every), [each.track for each in met], strict=True))
        assert len({group for group, _ in members}) == len(members)


places = st.tuples(st.floats(0, 0.9), st.floats(0, 0.9), st.floats(0.001, 1), st.floats(0.001, 1)).map(
    lambda p: np.array([p[0], p[1], p[0] + p[2], p[1] + p[3]])
)


@given(places, st.tuples(*[st.floats(-0.5, 0.5)] * 4))
@settings(max_examples=500, deadline=None)
def test_a_place_that_overlaps_by_half_stands_in_a_cell_around(box, shift):
    other = box + np.array(shift) * np.tile(box[2:] - box[:2], 2)
    if other[2] > other[0] and other[3] > other[1] and box_iou(box[None], other[None])[0, 0] >= SAME_PLACE_IOU:
        assert cell_of(other) in cells_around(box)


@given(
    st.lists(st.floats(0, 2 * WINDOW_S), min_size=2, max_size=2).map(sorted), st.floats(0.5, 1), st.sampled_from(Kin)
)
def test_the_longer_the_gap_the_fewer_bits(gaps, iou, kin):
    same, other = np.array([kin is Kin.SAME] * 2), np.array([kin is Kin.OTHER] * 2)
    sooner, later = allowed_bits(np.array(gaps), np.array([iou, iou]), same_track=same, other_track=other)
    assert later <= sooner


def test_many_leaders_answer_at_once():
    # the benchmark gives times; here only that a busy day of a camera is no obstacle
    index = DuplicateIndex()
    rng = np.random.default_rng(0)
    for i in range(3000):
        x, y = rng.uniform(0, 400, 2).tolist()
        one = row(i, captured_at_ms=NOON_MS + i, crop_hash=rng.bytes(32), region=(x, y, x + 9, y + 9))
        index.add_leader(as_leader(one, i + 1))
    assert index.match(one).group_id == 3000
    assert len(index) == 3000


FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"


def test_on_real_footage_other_people_in_the_same_lane_stay_apart():
    """The rule on the annotated street without tracks; the benchmark has it with the tracker's."""
    if not (FOLDER / "vtest.avi").is_file():
        pytest.skip("the street video and its annotations are not beside this checkout")
    from tests.benchmarks.bench_dedupe import annotated, pairs, rule

    made = pairs(annotated(0.03))
    joined = rule(made)
    right, wrong = (joined & made.same).sum(), (joined & made.different).sum()
    assert right / (right + wrong) >= 0.95
    assert right / made.same.sum() >= 0.85
    assert wrong / made.different.sum() <= 0.01


@pytest.mark.parametrize("x", [0.155, 0.405, 0.655])
def test_a_place_twice_as_long_that_goes_on_to_one_side_stands_in_a_cell_around(x):
    # the centres are half a side apart, as far as IoU .5 allows, and a cell ends between them
    box, other = np.array([x, 0.2, x + 0.1, 0.4]), np.array([x, 0.2, x + 0.199, 0.4])
    assert cell_of(other) in cells_around(box)
    assert cell_of(box) in cells_around(other)
