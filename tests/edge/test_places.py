"""Places that were reported: laws on random boxes and clocks, and what no dump can be."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from edge.places import SET_MS, KnownPlaces

QUIET_S = 3600.0
QUIET_MS = 3_600_000
NOW_MS = 1_800_000_000_000
BOX = (100.0, 50.0, 140.0, 130.0)

CORNER = st.floats(0, 4000, width=32)
SIDE = st.floats(1, 2000, width=32)
BOXES = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), CORNER, CORNER, SIDE, SIDE)
CLASSES = st.integers(0, 3)
CLOCK = st.integers(0, 4_000_000_000_000)


@given(st.lists(st.tuples(BOXES, CLASSES, CLOCK), max_size=40))
def test_what_was_just_remembered_is_known_and_no_more_than_the_most_are_held(steps) -> None:
    places = KnownPlaces(quiet_s=QUIET_S, most=5)
    for box, class_id, now_ms in steps:  # whatever the clock does in between
        places.remember(box, class_id, now_ms=now_ms)
        assert places.is_known(box, class_id, now_ms=now_ms)
        assert len(places) <= 5


@given(
    BOXES,
    st.integers(SET_MS, 4_000_000_000_000),
    st.integers(0, QUIET_MS - 1),
    st.integers(QUIET_MS, 10**12),
)
def test_known_within_the_quiet_time_and_not_behind_it(box, at_ms: int, within_ms: int, behind_ms: int) -> None:
    places = KnownPlaces(quiet_s=QUIET_S)
    places.remember(box, 0, now_ms=at_ms)
    assert places.is_known(box, 0, now_ms=at_ms + within_ms)
    assert not places.is_known(box, 0, now_ms=at_ms + behind_ms), "to ask renews nothing"


@given(st.lists(st.tuples(BOXES, CLASSES, CLOCK), max_size=12), BOXES, CLASSES, CLOCK)
def test_a_dump_that_is_loaded_gives_the_same_answers(steps, box, class_id: int, now_ms: int) -> None:
    places = KnownPlaces(quiet_s=QUIET_S, most=8)
    for step_box, step_class, step_ms in steps:
        places.remember(step_box, step_class, now_ms=step_ms)
    again = KnownPlaces(quiet_s=QUIET_S, most=8)
    again.load(msgspec.json.decode(msgspec.json.encode(places.dump())))
    assert again.dump() == places.dump()
    assert again.is_known(box, class_id, now_ms=now_ms) == places.is_known(box, class_id, now_ms=now_ms)


@given(st.lists(CLOCK, min_size=1, max_size=10))
def test_no_clock_makes_a_place_quiet_for_longer_than_its_time(clock: list[int]) -> None:
    places = KnownPlaces(quiet_s=QUIET_S)
    for now_ms in clock:
        places.remember(BOX, 0, now_ms=now_ms)
    places.is_known(BOX, 0, now_ms=NOW_MS)  # here the clock is right at last
    assert not places.is_known(BOX, 0, now_ms=NOW_MS + QUIET_MS)


@pytest.mark.parametrize(
    ("clock_ms", "known"),
    [
        ((NOW_MS, NOW_MS - 60_000), True),  # set back a little
        ((NOW_MS, NOW_MS - 10 * QUIET_MS), True),  # set back by hours
        ((NOW_MS, NOW_MS - 10 * QUIET_MS, NOW_MS - 9 * QUIET_MS), False),  # its time runs from where it was noticed
        ((NOW_MS, 5_000, NOW_MS + 60_000), True),  # a start in 1970 in between
        ((NOW_MS, 5_000, 5_000 + 2 * QUIET_MS), True),  # an unset clock does not let a place grow old
        ((5_000, NOW_MS), True),  # remembered in 1970, then the clock is set
        ((5_000, NOW_MS, NOW_MS + QUIET_MS), False),  # from there its time runs
        ((5_000, 5_000 + QUIET_MS), False),  # an unset clock runs, too: a recording's begins at 0
        ((2 * NOW_MS, NOW_MS, NOW_MS + QUIET_MS), False),  # remembered in 2084 by mistake
    ],
)
def test_a_clock_that_is_wrong_does_no_harm(clock_ms: tuple[int, ...], known: bool) -> None:
    first, *then = clock_ms
    places = KnownPlaces(quiet_s=QUIET_S)
    places.remember(BOX, 0, now_ms=first)
    answers = [places.is_known(BOX, 0, now_ms=now_ms) for now_ms in then]
    assert answers[-1] is known


@pytest.mark.parametrize(
    ("box", "class_id", "known"),
    [
        ((104.0, 50.0, 144.0, 130.0), 0, True),  # four pixels beside: IoU .82
        ((120.0, 50.0, 160.0, 130.0), 0, False),  # half beside: IoU .33
        ((100.0, 50.0, 140.0, 90.0), 0, False),  # its upper half: IoU .5
        (BOX, 1, False),  # another class
    ],
)
def test_what_is_the_same_place(box, class_id: int, known: bool) -> None:
    places = KnownPlaces(quiet_s=QUIET_S)
    assert not places.is_known(box, class_id, now_ms=NOW_MS)
    places.remember(BOX, 0, now_ms=NOW_MS)
    assert places.is_known(box, class_id, now_ms=NOW_MS) is known


def test_a_place_that_is_renewed_cannot_creep() -> None:
    places = KnownPlaces(quiet_s=QUIET_S)
    for step in range(20):
        places.remember((100.0 + step, 50.0, 140.0 + step, 130.0), 0, now_ms=NOW_MS)
    assert places.dump()[0].xyxy == BOX
    assert len(places) > 1, "what has moved away is another place"


def test_the_place_remembered_longest_ago_leaves_first() -> None:
    places = KnownPlaces(quiet_s=QUIET_S, most=2)
    for x, now_ms in ((0.0, 1), (100.0, 2), (0.0, 3), (200.0, 4)):
        places.remember((x, 0.0, x + 50, 50.0), 0, now_ms=NOW_MS + now_ms)
    assert [place.xyxy[0] for place in places.dump()] == [0.0, 200.0]


@pytest.mark.parametrize(
    "broken",
    [
        None,
        {},
        b"[]",
        [1],
        [{"class_id": 0, "xyxy": [0, 0, 10, 10]}],  # no time
        [{"class_id": 0, "xyxy": [0, 0, 10], "at_ms": 1}],  # three numbers
        [{"class_id": 0, "xyxy": [0, 0, 10, float("nan")], "at_ms": 1}],
        [{"class_id": 0, "xyxy": [0, 0, float("inf"), 10], "at_ms": 1}],
        [{"class_id": 0, "xyxy": [10, 0, 0, 10], "at_ms": 1}],  # corners the wrong way round
        [{"class_id": 0, "xyxy": [0, 0, 0, 10], "at_ms": 1}],  # no area
        [{"class_id": -1, "xyxy": [0, 0, 10, 10], "at_ms": 1}],
        [{"class_id": 0, "xyxy": [0, 0, 10, 10], "at_ms": -1}],
        [{"class_id": 0, "xyxy": [0, 0, 10, 10], "at_ms": 2**80}],
        [{"class_id": 0, "xyxy": [0, 0, 10, 10], "at_ms": 1, "more": 1}],
    ],
)
def test_what_is_broken_is_refused_and_changes_nothing(broken: object) -> None:
    places = KnownPlaces(quiet_s=QUIET_S)
    places.remember(BOX, 0, now_ms=NOW_MS)
    with pytest.raises(UnusableError):
        places.load(broken)
    assert places.is_known(BOX, 0, now_ms=NOW_MS)


def test_of_a_dump_that_is_too_long_the_newest_are_taken() -> None:
    places = KnownPlaces(quiet_s=QUIET_S, most=3)
    places.load([{"class_id": 0, "xyxy": [x, 0, x + 10, 10], "at_ms": NOW_MS} for x in range(0, 1000, 20)])
    assert [place.xyxy[0] for place in places.dump()] == [940.0, 960.0, 980.0]
