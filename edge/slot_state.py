"""Which model a device runs, and which it may go back to: values, no disk and no clock. The way to it: edge.slot_work.

Slot 0 is the factory's: the model that edge.toml names, or the starter. It is always there and is no release. Every
other slot is a release that was unpacked whole. What is active here is what is to serve: the daemon follows, and a
state is on the disk before anything acts on it.

Laws (5, 6 and 7 of the house):

1. Exactly one slot is active, and it is the factory's or held. A release is held only after it was verified.
2. Only a release that went through every phase before it comes to trial; a failed trial leaves what was before it.
   One that was never confirmed here becomes active by its trial only.
3. Three starts of a release that none counted as good revert before anything is loaded.
4. No release below the highest ever confirmed is activated, unless what is left names it as its signed baseline, it
   is signed as `back`, or it served before the trial that ended. The factory's is no release: it is the last resort
   of a device that cannot start, and a person's choice, but nothing that a hub may order without such a signature.
5. A release that failed here under a rollout is not tried again under the same one.

`faults` says which of them a state breaks, for states that were read.
"""

from typing import Annotated, Final

import msgspec

from edge.contract.release import SignedRelease
from edge.contract.rollout import ENDED, Assignment, Phase
from edge.contract.samples import SCHEMA, Count, Text, plain_text

FACTORY: Final = 0
STARTS: Final = 3
STARTS_APART: Final = 1000
"""So much does a start raise the sequence: what was told and could not be written has a lower one."""
HELD_PHASES: Final[frozenset[Phase]] = frozenset({"staged", "golden", "shadow", "trial"})
_MOST_REFUSED: Final = 32

Number = Annotated[int, msgspec.Meta(ge=0, le=999_999)]


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A release that this device holds, as it was signed: see `SignedRelease`. `proved`: it was confirmed here."""

    number: Annotated[int, msgspec.Meta(ge=1, le=999_999)]
    release: str
    baseline: Number
    back: bool
    card_sha256: str
    proved: bool = False


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a release failed here, and under which rollout."""

    rollout: Text
    reason: Text


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """The assignment that is being done, or the last one that was.

    Attributes:
        place: SITE/DEVICE that it was given to; "" is not known.
        signed: what the repository says of the release; None until it was asked.
        frames: judged in this phase.
        since_ms: when the phase began, UTC.
    """

    assignment: Assignment
    place: str = ""
    phase: Phase
    signed: SignedRelease | None = None
    reason: Text = ""
    frames: Count = 0
    since_ms: Count

    @property
    def ended(self) -> bool:
        """Whether nothing is left to do."""
        return self.phase in ENDED

    @property
    def installing(self) -> int | None:
        """The number that is being installed; None where that has ended."""
        return None if self.ended else self.assignment.number


class _Remains(msgspec.Struct, frozen=True):
    """What is to be kept of a state that cannot be used otherwise."""

    model: str
    highest: Number = 0
    sequence: Count = 0
    others: dict[str, Number] = {}


class Slots(msgspec.Struct, frozen=True, kw_only=True):
    """The whole state.

    Attributes:
        model: the line; numbers of another line mean nothing here.
        active: the number that is to serve.
        previous: what served before it.
        earlier: while `active` is on trial: what `previous` was before.
        held: the releases on the disk, by number.
        highest: the highest number ever confirmed.
        below: why `active` may be below `highest`; "" where it is not.
        starts: of `active`, since one was counted as good.
        sequence: rises with everything that a report tells.
        refused: number -> why it is not tried again.
        others: line -> highest, of lines followed before.
    """

    schema: int = SCHEMA
    model: str
    active: Number = FACTORY
    previous: Number = FACTORY
    earlier: Number = FACTORY
    held: tuple[Slot, ...] = ()
    highest: Number = 0
    below: str = ""
    starts: Count = 0
    sequence: Count = 0
    work: Work | None = None
    refused: dict[str, Refusal] = {}
    others: dict[str, Number] = {}

    def slot(self, number: int) -> Slot | None:
        """Return a held release; None for the factory's and for what is not here."""
        return next((slot for slot in self.held if slot.number == number), None)

    def has(self, number: int) -> bool:
        """Whether it can be loaded here."""
        return number == FACTORY or self.slot(number) is not None

    @property
    def on_trial(self) -> bool:
        """Whether what is active has yet to prove itself."""
        return self.work is not None and self.work.phase == "trial"


def follow(slots: Slots, model: str) -> Slots:
    """Return the state for a line: the same, or a new one where edge.toml now names another line's model."""
    if slots.model == model:
        return slots
    others = {**slots.others, slots.model: slots.highest}
    highest = others.pop(model, 0)
    below = "" if highest == 0 else f"edge.toml came back to {model}"
    return Slots(model=model, highest=highest, below=below, sequence=slots.sequence + 1, others=others)


def remains(content: bytes, model: str) -> Slots:
    """Return a new state, with what one that cannot be used still tells: law 4 outlives a broken file."""
    try:
        found = msgspec.json.decode(content, type=_Remains)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Slots(model=model)
    before = Slots(
        model=found.model,
        highest=found.highest,
        below="the state before could not be used" if found.highest else "",
        sequence=found.sequence + STARTS_APART,
        others=found.others,
    )
    return Slots(model=model) if found.highest == found.sequence == 0 else follow(before, model)


def may_activate(slots: Slots, number: int, *, back: bool = False) -> str:
    """Return why `number` may not take the place of what is active, by law 4; "" where it may.

    `back`: it is signed as one to go back to.
    """
    leaving = slots.slot(slots.active)
    if number >= slots.highest or back or (leaving is not None and leaving.baseline == number):
        return ""
    if slots.on_trial and number == slots.previous:
        return ""
    return f"{number} is below {slots.highest}, and nothing signed allows it"


def back_target(slots: Slots) -> int | None:
    """Return where the active release may go back to: what served before, else its baseline; None is nowhere."""
    leaving = slots.slot(slots.active)
    if leaving is None:
        return None
    return next((n for n in (slots.previous, leaving.baseline) if not why_not_back(slots, n)), None)


def why_not_back(slots: Slots, number: int) -> str:
    """Return why the active release may not be left for `number`; "" where it may."""
    slot = slots.slot(number)
    if number == slots.active:
        return f"{number} serves already"
    if not slots.has(number):
        return f"{number} is not held here"
    if slot is not None and not slot.proved:
        return f"{number} has yet to prove itself here"
    return may_activate(slots, number, back=slot is not None and slot.back)


def revert(slots: Slots, *, to: int, why: str, now_ms: int) -> Slots:
    """Leave the active release for `to`, by hand. Raises `ValueError` where `to` is not here or law 4 forbids it."""
    why_not = why_not_back(slots, to)
    if why_not and not (to == FACTORY != slots.active):
        raise ValueError(why_not)
    return leave(slots, to, why=why, now_ms=now_ms, below=why if why_not else "")


# A start of the daemon.


def start(slots: Slots, *, now_ms: int) -> tuple[Slots, int]:
    """Count a start, and return the number that is to be loaded: law 3. It is written before anything is loaded."""
    if slots.active != FACTORY and slots.starts >= STARTS:
        slots = fall(slots, f"it failed {slots.starts} starts", now_ms=now_ms)
    if slots.active == FACTORY:
        return slots, FACTORY
    return msgspec.structs.replace(slots, starts=slots.starts + 1, sequence=slots.sequence + STARTS_APART), slots.active


def settled(slots: Slots) -> Slots:
    """Count the start as good."""
    return slots if slots.starts == 0 else msgspec.structs.replace(slots, starts=0)


def fall(slots: Slots, reason: str, *, now_ms: int) -> Slots:
    """Leave an active release that cannot run for the one it may go back to, else for the factory's.

    Raises `ValueError` where the factory's is active.
    """
    if slots.active == FACTORY:
        msg = "below the factory's model there is none"
        raise ValueError(msg)
    target = back_target(slots)
    if target is None:
        return leave(slots, FACTORY, why=reason, now_ms=now_ms, below="nothing else here could start")
    return leave(slots, target, why=reason, now_ms=now_ms)


def lose(slots: Slots, number: int, *, now_ms: int) -> Slots:
    """Give up a release whose folder is gone: what needs it falls back, and what was installing it begins anew."""
    if number == slots.active:
        slots = fall(slots, "its folder is gone", now_ms=now_ms)
    slots = forget(slots, number)
    work = slots.work
    if work is not None and work.installing == number and work.phase in HELD_PHASES:
        slots = step(slots, "downloading", now_ms=now_ms)
    return slots


# What is held.


def surplus(slots: Slots) -> tuple[int, ...]:
    """Return the held numbers that nothing here can need again."""
    needed = {slots.active, slots.previous, slots.earlier}
    active = slots.slot(slots.active)
    if active is not None:
        needed.add(active.baseline)
    if slots.work is not None:
        needed.add(slots.work.installing or FACTORY)
    return tuple(slot.number for slot in slots.held if slot.number not in needed)


def forget(slots: Slots, number: int) -> Slots:
    """Hold a release no more. Raises `ValueError` for the active one."""
    if number == slots.active:
        msg = f"{number} is active"
        raise ValueError(msg)
    return msgspec.structs.replace(
        slots,
        held=tuple(slot for slot in slots.held if slot.number != number),
        previous=FACTORY if slots.previous == number else slots.previous,
        earlier=FACTORY if slots.earlier == number else slots.earlier,
    )


def faults(slots: Slots) -> list[str]:
    """Return a sentence for each law that a state breaks, as far as a state can show it."""
    numbers = [slot.number for slot in slots.held]
    active, highest = slots.active, slots.highest
    named = (("active", active), ("previous", slots.previous), ("earlier", slots.earlier))
    checks = (
        (len(set(numbers)) != len(numbers), "a release is held twice"),
        *((not slots.has(number), f"the {name} release {number} is not held") for name, number in named),
        (active == slots.previous != FACTORY, f"{active} is active and its own previous"),
        (active < highest and not slots.below, f"{active} is active below {highest}, and nothing says why it may"),
        (active > highest and not slots.on_trial, f"{active} is active above {highest} and not on trial"),
        (not slots.on_trial and not _is_proved(slots, active), f"{active} is active and was never confirmed"),
        (slots.starts > STARTS, f"{active} was started {slots.starts} times, {STARTS} are the most"),
    )
    found = [text for broken, text in checks if broken]
    return found if slots.work is None else [*found, *_work_faults(slots, slots.work)]


def _is_proved(slots: Slots, number: int) -> bool:
    slot = slots.slot(number)
    return slot is None or slot.proved


def _work_faults(slots: Slots, work: Work) -> list[str]:
    number, phase = work.assignment.number, work.phase
    serves = number == slots.active
    checks = (
        (phase in HELD_PHASES and slots.slot(number) is None, f"{number} is {phase} and not held"),
        (phase not in {"assigned", *ENDED} and work.signed is None, f"{number} is {phase} without a signed word"),
        (phase == "trial" and not serves, f"{number} is on trial and {slots.active} is active"),
        (not work.ended and phase != "trial" and serves, f"{number} is active before its trial"),
    )
    return [text for broken, text in checks if broken]


# Steps that edge.slot_work takes, too.


def end_trial(slots: Slots) -> Slots:
    """Return to what was before a trial; the same where there is none. The work is the caller's."""
    if not slots.on_trial:
        return slots
    below = "it served before a trial" if slots.previous < slots.highest else ""
    return msgspec.structs.replace(
        slots, active=slots.previous, previous=slots.earlier, earlier=FACTORY, below=below, starts=0
    )


def leave(slots: Slots, to: int, *, why: str, now_ms: int, below: str = "") -> Slots:
    """Make `to` active in place of a release that is not wanted any more, and end the work that was about either.

    `below`: what allows `to` below the highest, where nothing signed does.
    """
    number, work = slots.active, slots.work
    slot = slots.slot(to)
    if to >= slots.highest:
        below = ""
    elif not below:
        below = allowed_by(slots, to, back=slot is not None and slot.back)
    previous = slots.earlier if slots.on_trial and slots.earlier != to else FACTORY
    slots = msgspec.structs.replace(slots, active=to, previous=previous, earlier=FACTORY, below=below, starts=0)
    if work is not None and work.installing == to != FACTORY:  # it was being taken up anew, and serves now
        return step(slots, "confirmed", now_ms=now_ms, reason=why)
    if work is not None and work.assignment.number == number and work.assignment.action == "install":
        return step(refuse(slots, work.assignment, why), "rolled_back", now_ms=now_ms, reason=why)
    return told(slots, work)


def allowed_by(slots: Slots, number: int, *, back: bool) -> str:
    """Return what allows `number` below the highest."""
    leaving = slots.slot(slots.active)
    if leaving is not None and leaving.baseline == number:
        return f"it is the signed baseline of {leaving.number}"
    return "it is signed as one to go back to" if back else "it served before a trial"


def refuse(slots: Slots, assignment: Assignment, reason: str) -> Slots:
    """Remember that a release failed under a rollout."""
    refused = {n: refusal for n, refusal in slots.refused.items() if n != str(assignment.number)}
    refused[str(assignment.number)] = Refusal(rollout=assignment.rollout, reason=plain_text(reason))
    return msgspec.structs.replace(slots, refused=dict(list(refused.items())[-_MOST_REFUSED:]))


def step(
    slots: Slots,
    phase: Phase,
    *,
    now_ms: int,
    frames: int = 0,
    reason: str = "",
    signed: SignedRelease | None = None,
) -> Slots:
    """Put the work into a phase. Raises `ValueError` where there is none."""
    if slots.work is None:
        msg = "there is no work"
        raise ValueError(msg)
    work = msgspec.structs.replace(
        slots.work,
        phase=phase,
        frames=frames,
        reason=plain_text(reason),
        since_ms=now_ms,
        signed=signed or slots.work.signed,
    )
    return told(slots, work)


def told(slots: Slots, work: Work | None) -> Slots:
    """Take work that a report tells of."""
    return msgspec.structs.replace(slots, work=work, sequence=slots.sequence + 1)
