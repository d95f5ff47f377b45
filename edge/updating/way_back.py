"""The way back by an order: a signed baseline takes the place of a release that the hub calls bad.

Laws:

1. It is not compared with what is known to be bad: beside one that "sees" everything each good one has too few boxes.
   It was held against its golden set before, where it has one; now it must work: numbers that are finite, no frame
   that it fails on.
2. It serves at once: each frame more that the bad one looks at is a frame lost.
"""

from edge.detection import Looked
from edge.slot_state import Slots
from edge.slot_work import begin_trial, confirm, roll_back
from edge.updating.proving import fault_of


def turn_back(slots: Slots, looked: Looked, *, now_ms: int) -> Slots:
    """Return the state that follows, the same where it is to go on. `looked`: what the model that serves has done.

    The state is `is_way_back`, in `shadow` or `trial`, and what is active serves.
    """
    work = slots.work
    assert work is not None
    if work.phase == "shadow":
        return begin_trial(slots, now_ms=now_ms)
    if fault := fault_of(looked):
        return roll_back(slots, fault, now_ms=now_ms, frames=looked.frames)
    if looked.frames >= work.assignment.plan.trial_frames:
        return confirm(slots, now_ms=now_ms, frames=looked.frames)
    return slots
