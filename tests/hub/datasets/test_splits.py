"""Validation: neighbours never straddle, an image never changes sides, about a fifth."""

from hypothesis import given
from hypothesis import strategies as st

from hub.datasets.splits import DAY_MS, VAL_SHARE, side
from hub.testshare import APART_MS, BLOCK_MS

NOW = 1_700_000_000_000
CAMERAS = st.sampled_from(["lab/box/door", "lab/box/gate", "yard/other/front"])
TIMES = st.integers(NOW, NOW + 3 * DAY_MS)
APARTS = st.integers(-APART_MS, APART_MS)


@given(CAMERAS, TIMES, APARTS, TIMES)
def test_pictures_of_one_moment_are_never_on_both_sides(camera, at_ms, apart_ms, first_ms):
    sides = {side(camera, at_ms, first_ms=first_ms), side(camera, at_ms + apart_ms, first_ms=first_ms)}
    assert sides != {"train", "val"}


@given(CAMERAS, st.integers(1, 3), st.integers(-1, 400), st.integers(-APART_MS, APART_MS - 1))
def test_nor_at_the_edges_of_blocks_and_days(camera, day, block, apart_ms):
    """Around every edge: of 20 s blocks, and of midnight, where blocks and whole days meet."""
    first_ms = NOW
    edge_ms = (NOW // DAY_MS + day) * DAY_MS - block * BLOCK_MS
    sides = {side(camera, edge_ms - 1, first_ms=first_ms), side(camera, edge_ms + apart_ms, first_ms=first_ms)}
    assert sides != {"train", "val"}


@given(CAMERAS, TIMES, st.integers(0, DAY_MS - 1), st.integers(0, DAY_MS - 1))
def test_a_side_depends_on_camera_time_and_first_day_only(camera, at_ms, into_ms, other_ms):
    day_ms = NOW // DAY_MS * DAY_MS
    assert side(camera, at_ms, first_ms=day_ms + into_ms) == side(camera, at_ms, first_ms=day_ms + other_ms)


def test_the_first_day_goes_by_blocks_and_a_later_one_as_a_whole():
    first_ms = NOW // DAY_MS * DAY_MS
    inside = range(BLOCK_MS // 2, DAY_MS, BLOCK_MS)
    first = [side("lab/box/door", first_ms + at, first_ms=first_ms) for at in inside]
    assert abs(first.count("val") / len(first) - VAL_SHARE) < 0.03
    assert None not in first  # the middle of a block is beside nothing
    whole = set()
    for day in range(1, 101):
        sides = {side("lab/box/door", first_ms + day * DAY_MS + at, first_ms=first_ms) for at in inside[:50:7]}
        assert len(sides) == 1
        whole |= {(day, *sides)}
    assert 10 <= sum(one == "val" for _, one in whole) <= 30


def test_cameras_are_independent():
    first_ms = NOW // DAY_MS * DAY_MS
    times = [first_ms + number * BLOCK_MS for number in range(4000)]
    of = [[side(camera, at, first_ms=first_ms) == "val" for at in times] for camera in ("lab/box/door", "lab/box/gate")]
    both = sum(a and b for a, b in zip(*of, strict=True)) / len(times)
    assert abs(both - VAL_SHARE**2) < 0.02
