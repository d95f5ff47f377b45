"""The laws and rules of hub.dedupe."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.samples import Reason
from hub.dedupe import GAP_BITS, SAME_FRAME_BITS, WINDOW_S, DuplicateIndex, allowed_bits
from hub.store_rows import FindingRow, FrameState

MINUTE_MS = 60_000
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


def group_all(rows):
    """What the curator does: each finding joins, or leads a group of its own."""
    index, groups = DuplicateIndex(), []
    for number, each in enumerate(rows, start=1):
        group = index.match(each)
        if group is None:
            group = number
            index.add_leader(replace(each, group_id=number))
        groups.append(group)
    return groups


@pytest.mark.parametrize(
    ("change", "joins"),
    [
        ({}, True),  # the same again
        ({"crop_hash": bits(100 + 72)}, True),  # the same walker a moment later
        ({"crop_hash": bits(100 + 73)}, False),
        ({"captured_at_ms": NOON_MS + 3000, "crop_hash": bits(100 + 44)}, True),
        ({"captured_at_ms": NOON_MS + 3000, "crop_hash": bits(100 + 45)}, False),  # the next walker in the lane
        ({"captured_at_ms": NOON_MS + MINUTE_MS, "crop_hash": bits(100 + 40)}, True),
        ({"captured_at_ms": NOON_MS + MINUTE_MS, "crop_hash": bits(100 + 41)}, False),
        ({"captured_at_ms": NOON_MS - MINUTE_MS, "crop_hash": bits(100 + 40)}, True),  # it came late
        ({"captured_at_ms": NOON_MS + DAY_MS, "crop_hash": bits(100 + 28)}, True),  # a ghost of every noon
        ({"captured_at_ms": NOON_MS + DAY_MS, "crop_hash": bits(100 + 29)}, False),
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
        ({"captured_at_ms": NOON_MS + 3 * DAY_MS}, False),
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
    index.add_leader(row(1, group_id=1, crop_hash=bits(60)))
    index.add_leader(row(2, group_id=2, crop_hash=bits(90)))
    index.add_leader(row(3, group_id=3, crop_hash=bits(140)))
    assert index.match(row(4)) == 2


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
    index.add_leader(row(1, group_id=7), last_at_ms=NOON_MS + 3 * DAY_MS)
    later = row(2, captured_at_ms=NOON_MS + 3 * DAY_MS + 1000, crop_hash=bits(160))
    assert index.match(later) == 7
    assert DuplicateIndex().match(later) is None


def test_control_findings_are_counted_units():
    whole = {"reason": Reason.CONTROL, "region": (0.0, 0.0, 640.0, 480.0), "label": ""}
    assert group_all([row(1, **whole), row(2, **whole), row(3, **whole)]) == [1, 2, 3]
    # nor does another finding join one
    assert group_all([row(1, **whole), row(2, **{**whole, "reason": Reason.SUSPECT})]) == [1, 2]


def test_a_finding_without_a_group_leads_none():
    with pytest.raises(ValueError, match="has no group"):
        DuplicateIndex().add_leader(row(1))


def test_a_region_without_area_joins_nothing():
    assert group_all([row(1, region=(5.0, 5.0, 5.0, 9.0)), row(2, region=(5.0, 5.0, 5.0, 9.0))]) == [1, 2]


findings = st.builds(
    row,
    number=st.integers(0, 99),
    camera=st.sampled_from(["door", "gate"]),
    reason=st.sampled_from(Reason),
    label=st.sampled_from(["", "person", "dog"]),
    captured_at_ms=st.integers(-2, 2).map(lambda day: NOON_MS + day * DAY_MS // 2),
    region=st.tuples(st.integers(0, 30), st.integers(1, 40)).map(lambda r: (r[0], 10.0, r[0] + r[1], 40.0)),
    crop_hash=st.integers(0, 256).map(bits),
    frame_hash=st.integers(0, 256).map(bits),
)


@given(st.lists(findings, max_size=15))
@settings(max_examples=150, deadline=None)
def test_every_finding_is_grouped_by_its_leader_alone(rows):
    # laws 1 to 3
    groups = group_all(rows)
    assert groups == group_all(rows)
    for number, (each, group) in enumerate(zip(rows, groups, strict=True), start=1):
        leader = rows[group - 1]
        assert group <= number
        assert groups[group - 1] == group
        if group < number:
            assert each.reason is not Reason.CONTROL
            differing = int.from_bytes(each.crop_hash) ^ int.from_bytes(leader.crop_hash)
            assert differing.bit_count() <= GAP_BITS[0]


@given(st.lists(st.floats(0, 2 * WINDOW_S), min_size=2, max_size=2).map(sorted))
def test_the_longer_the_gap_the_fewer_bits(gaps):
    sooner, later = allowed_bits(np.array(gaps))
    assert later <= sooner <= GAP_BITS[0]


def test_many_leaders_answer_at_once():
    # the benchmark gives times; here only that a busy day of a camera is no obstacle
    index = DuplicateIndex()
    rng = np.random.default_rng(0)
    for i in range(3000):
        x, y = rng.uniform(0, 400, 2).tolist()
        leader = row(
            i, group_id=i + 1, captured_at_ms=NOON_MS + i, crop_hash=rng.bytes(32), region=(x, y, x + 9, y + 9)
        )
        index.add_leader(leader)
    assert index.match(leader) == 3000
    assert len(index) == 3000


FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"


def test_on_real_footage_other_people_in_the_same_lane_stay_apart():
    """The rule on the annotated street: precision >= .93 and recall >= .8 over pairs, boxes 3 % off."""
    if not (FOLDER / "vtest.avi").is_file():
        pytest.skip("the street video and its annotations are not beside this checkout")
    from tests.benchmarks.bench_dedupe import pairs, read_frames, read_sightings

    made = pairs(read_frames(), read_sightings(), jitter=0.03)
    joined = made.crop_bits <= allowed_bits(made.gap_s)
    right, wrong = (joined & made.same).sum(), (joined & made.different).sum()
    assert right / (right + wrong) >= 0.93
    assert right / made.same.sum() >= 0.8
    assert (joined & made.different & (made.gap_s > 3)).sum() / made.different.sum() <= 0.005
