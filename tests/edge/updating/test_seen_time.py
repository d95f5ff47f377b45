"""The time in which cameras see, and whether what looks at them hangs: made clocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.detection import Looked
from edge.updating.seen_time import DARK_S, HANG_S, SURE_S, Pulse, SeenTime

MOVING = Looked(number=1, frames=10, failed=0, not_finite=0, moving=10)


@pytest.mark.parametrize(
    ("after", "dark"),
    [
        # a camera gives a frame, and the model fails on it
        (MOVING._replace(failed=1, moving=11), False),
        # another model has been taken up, with its first frame
        (MOVING._replace(number=2, frames=1, moving=1), False),
        # all cameras are frozen: frames, and nothing to judge by
        (MOVING._replace(frames=900), True),
        # something fails before there is a frame
        (MOVING._replace(failed=900), True),
        # nothing at all
        (MOVING, True),
    ],
)
def test_only_frames_that_can_be_judged_are_seen(after: Looked, dark: bool) -> None:
    now_s, looked = 100.0, MOVING
    seen = SeenTime(lambda: looked, clock=lambda: now_s)
    now_s += DARK_S - 1
    assert not seen.is_dark
    looked = after
    assert not seen.is_dark
    now_s += 1.0
    assert seen.is_dark is dark
    before_s = seen.now_s()
    now_s += 1.0
    assert seen.now_s() - before_s == (0.0 if dark else 1.0)


@given(turns=st.lists(st.tuples(st.floats(0, 40), st.booleans()), max_size=30))
def test_what_turns_hangs_not_and_what_does_not_is_found(turns: list[tuple[float, bool]]) -> None:
    """It is found no sooner than `HANG_S` after a beat, and at the first look `SURE_S` after one found it old."""
    now_s = beat_s = 0.0
    stale_since_s: float | None = None
    pulse = Pulse(lambda: beat_s, clock=lambda: now_s)
    for seconds, beats in turns:
        now_s += seconds
        if beats:
            beat_s, stale_since_s = now_s, None
        hangs = pulse.hangs()
        if now_s - beat_s >= HANG_S and stale_since_s is None:
            stale_since_s = now_s
        assert hangs == (stale_since_s is not None and now_s - stale_since_s >= SURE_S)


def test_a_device_that_stood_still_as_a_whole_goes_on() -> None:
    """Nobody had a turn for a minute. The first look afterwards finds an old beat, the next one a new one."""
    now_s = beat_s = 100.0
    pulse = Pulse(lambda: beat_s, clock=lambda: now_s)
    now_s += 60.0
    assert not pulse.hangs()
    now_s = beat_s = now_s + SURE_S
    assert not pulse.hangs()
    now_s += HANG_S
    assert not pulse.hangs(), "it is doubted anew"
    now_s += SURE_S
    assert pulse.hangs()
