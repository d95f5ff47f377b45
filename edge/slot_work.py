"""An assignment on its way from the hub's word to what is confirmed or rolled back: steps of edge.slot_state's values.

assigned -> downloading -> verified -> staged -> golden -> shadow -> trial -> confirmed | rolled_back. Each function
takes a state and returns the next; what may not follow raises `ValueError`. The laws stand in edge.slot_state.
"""

from typing import Final

import msgspec

from edge.contract.release import SignedRelease
from edge.contract.rollout import Assignment, Phase, RolloutReport
from edge.contract.samples import plain_text
from edge.slot_state import (
    FACTORY,
    HELD_PHASES,
    Slot,
    Slots,
    Work,
    allowed_by,
    back_target,
    end_trial,
    leave,
    may_activate,
    refuse,
    step,
    told,
)

PROVING: Final[frozenset[Phase]] = frozenset({"shadow", "trial"})
_NEXT: Final[dict[Phase, Phase]] = {"downloading": "verified", "staged": "golden", "golden": "shadow"}


def nothing_assigned(model: str) -> Assignment:
    """Return what withdraws: an assignment of no rollout."""
    return Assignment(rollout="", action="install", model=model, release="", number=0, target="", at_ms=0)


def assign(slots: Slots, assignment: Assignment, *, now_ms: int, place: str = "") -> Slots:
    """Take an assignment; one that came before changes nothing, and a newer one ends what was unfinished.

    What can be said at once is ended at once: `back` is done in the state, and a release that is active is confirmed.
    One that is given anew is answered anew: who gives it may never have heard the answer. `place`: SITE/DEVICE of this
    device, to which it was given.
    """
    work = slots.work
    if work is not None and _key(work.assignment) == _key(assignment):
        if work.assignment == assignment:
            return slots
        again = msgspec.structs.replace(work, assignment=assignment, place=place)
        anew = work.assignment.at_ms != assignment.at_ms
        return told(slots, again) if anew else msgspec.structs.replace(slots, work=again)
    if work is not None and _goes_on(work, assignment):  # the same release under another rollout
        return told(slots, msgspec.structs.replace(work, assignment=assignment, place=place))
    if assignment.action == "back" and assignment.rollout and assignment.model == slots.model:
        return _send_back(slots, assignment, now_ms=now_ms, place=place)
    slots = _withdraw(slots)
    if not assignment.rollout:
        return slots
    refusal = slots.refused.get(str(assignment.number))
    if assignment.model != slots.model:
        ended: Phase | None = "rolled_back"
        reason = f"this device follows {slots.model}"
    elif assignment.action == "install" and assignment.number == slots.active:
        ended, reason = "confirmed", "it serves already"
    elif refusal is not None and refusal.rollout == assignment.rollout:
        ended, reason = "rolled_back", refusal.reason
    else:
        ended, reason = None, ""
    phase: Phase = ended or "assigned"
    work = Work(assignment=assignment, place=place, phase=phase, reason=plain_text(reason), since_ms=now_ms)
    return told(slots, work)


def rename(slots: Slots, place: str) -> Slots:
    """Return the state of a device that is called `place` now: the same unless it was called otherwise.

    What is unfinished was ordered under the other name, under which nobody can take it back any more: it is given up,
    and the hub orders it again by the name that it knows now. What has ended stays.
    """
    work = slots.work
    return slots if work is None or work.ended or work.place in {"", place} else _withdraw(slots)


def is_way_back(slots: Slots) -> bool:
    """Whether what is under way leaves a release that the hub calls bad for that release's own signed baseline.

    Nobody compares it with what is bad. Without that signature it is an order like any other.
    """
    work = slots.work
    if work is None or work.signed is None or work.ended:
        return False
    leaving = slots.slot(slots.previous if slots.on_trial else slots.active)
    named = leaving is not None and leaving.number == work.assignment.instead_of
    return leaving is not None and named and (leaving.baseline == work.signed.number or work.signed.back)


def accept(slots: Slots, signed: SignedRelease, *, now_ms: int) -> Slots:
    """`assigned` -> `downloading`: what is signed is what was assigned, and may be activated. Raises `ValueError`."""
    work = _unfinished(slots, "assigned")
    wanted = work.assignment
    if (signed.model, signed.number, signed.release) != (wanted.model, wanted.number, wanted.release):
        msg = f"{signed.model} {signed.number} is signed, {wanted.model} {wanted.number} was assigned"
        raise ValueError(msg)
    why_not = may_activate(slots, signed.number, back=signed.back)
    if why_not:
        raise ValueError(why_not)
    return step(slots, "downloading", now_ms=now_ms, signed=signed)


def advance(slots: Slots, phase: Phase, *, now_ms: int, frames: int = 0, reason: str = "") -> Slots:
    """Go to the next of downloading, verified | staged, golden, shadow; or tell more of the phase that it is in.

    A download begins anew, from `verified` too, where its file turned out to be no good. The other steps are `accept`,
    `hold`, `begin_trial`, `confirm` and `roll_back`. Raises `ValueError`.
    """
    work = _unfinished(slots)
    same = work.phase == phase
    again = phase == "downloading" and work.phase in {"downloading", "verified"}
    if not again and _NEXT.get(work.phase) != phase and not (same and phase in HELD_PHASES):
        msg = f"{work.phase} does not lead to {phase}"
        raise ValueError(msg)
    since_ms = work.since_ms if same else now_ms
    return step(slots, phase, now_ms=since_ms, frames=frames, reason=reason)


def hold(slots: Slots, *, now_ms: int) -> Slots:
    """`verified` -> `staged`: the release stands unpacked on the disk. Raises `ValueError`."""
    work = _unfinished(slots, "verified")
    signed = _signed(work)
    here = slots.slot(signed.number)
    slot = Slot(
        number=signed.number,
        release=signed.release,
        baseline=signed.baseline,
        back=signed.back,
        card_sha256=signed.card_sha256,
        proved=here is not None and here.proved,
    )
    held = (*(one for one in slots.held if one.number != slot.number), slot)
    slots = msgspec.structs.replace(slots, held=tuple(sorted(held, key=lambda one: one.number)))
    return step(slots, "staged", now_ms=now_ms)


def begin_trial(slots: Slots, *, now_ms: int) -> Slots:
    """`shadow` -> `trial`: the release becomes the active one. Raises `ValueError`."""
    signed = _signed(_unfinished(slots, "shadow"))
    why_not = may_activate(slots, signed.number, back=signed.back)
    if why_not:
        raise ValueError(why_not)
    below = "" if signed.number >= slots.highest else allowed_by(slots, signed.number, back=signed.back)
    slots = msgspec.structs.replace(
        slots, active=signed.number, previous=slots.active, earlier=slots.previous, below=below, starts=0
    )
    return step(slots, "trial", now_ms=now_ms)


def confirm(slots: Slots, *, now_ms: int, frames: int = 0) -> Slots:
    """`trial` -> `confirmed`: it is what a failed release goes back to from now on. Raises `ValueError`."""
    work = _unfinished(slots, "trial")
    number = work.assignment.number
    refused = {n: refusal for n, refusal in slots.refused.items() if n != str(number)}
    highest = max(slots.highest, number)
    held = tuple(msgspec.structs.replace(slot, proved=True) if slot.number == number else slot for slot in slots.held)
    slots = msgspec.structs.replace(slots, held=held, highest=highest, earlier=FACTORY, starts=0, refused=refused)
    return step(slots, "confirmed", now_ms=now_ms, frames=frames)


def roll_back(slots: Slots, reason: str, *, now_ms: int, frames: int = 0) -> Slots:
    """End what is unfinished as failed: what served before serves. Raises `ValueError` where nothing is unfinished."""
    work = _unfinished(slots)
    slots = refuse(end_trial(slots), work.assignment, reason)
    return step(slots, "rolled_back", now_ms=now_ms, frames=frames, reason=reason)


def report_of(slots: Slots, *, boot_id: str, serving: str, at_ms: int, no_frames: bool = False) -> RolloutReport | None:
    """Return what the hub is told; None where nothing was assigned. `serving` is the release that runs now."""
    work = slots.work
    if work is None:
        return None
    return RolloutReport(
        rollout=work.assignment.rollout,
        model=work.assignment.model,
        release=work.assignment.release,
        number=work.assignment.number,
        sequence=slots.sequence,
        boot_id=boot_id,
        phase=work.phase,
        reason=work.reason,
        frames=work.frames,
        no_frames=no_frames and work.phase in PROVING,
        serving=plain_text(serving),
        at_ms=at_ms,
    )


def _key(assignment: Assignment) -> tuple[str, str, str, int]:
    return assignment.rollout, assignment.action, assignment.model, assignment.number


def _goes_on(work: Work, assignment: Assignment) -> bool:
    """Whether the work at hand is what another rollout asks for, too."""
    now, then = assignment, work.assignment
    same = (now.action, now.model, now.release, now.number) == (then.action, then.model, then.release, then.number)
    return same and bool(now.rollout) and not work.ended


def _send_back(slots: Slots, assignment: Assignment, *, now_ms: int, place: str) -> Slots:
    """Do an assignment to go back from a release."""
    slots = _withdraw(slots)
    phase: Phase = "rolled_back"
    reason = "the hub sent it back"
    if assignment.number == slots.active:
        target = back_target(slots)
        if target is None:
            phase, reason = "confirmed", "nothing signed allows the way back"
        else:
            slots = leave(msgspec.structs.replace(slots, work=None), target, why=reason, now_ms=now_ms)
    return told(slots, Work(assignment=assignment, place=place, phase=phase, reason=reason, since_ms=now_ms))


def _withdraw(slots: Slots) -> Slots:
    """Give up what is unfinished. It did not fail: it may be tried again."""
    if slots.work is None or slots.work.ended:
        return slots
    return told(end_trial(slots), None)


def _unfinished(slots: Slots, phase: Phase | None = None) -> Work:
    work = slots.work
    if work is None or work.ended or (phase is not None and work.phase != phase):
        msg = f"the work is {work.phase if work is not None else 'none'}, not {phase or 'unfinished'}"
        raise ValueError(msg)
    return work


def _signed(work: Work) -> SignedRelease:
    if work.signed is None:
        msg = f"{work.assignment.number} is {work.phase} without a signed word"
        raise ValueError(msg)
    return work.signed
