"""A rollout as it stands: its plan, its devices, and how they are counted. hub.rollout_rules moves it."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from edge.contract.judgement import Figures
from edge.contract.rollout import Assignment, Phase, TrialPlan

AWAY_MS: Final = 15 * 60_000
CANARY: Final = 0
FAILED_PERCENT: Final = 5
OLDER_COPY: Final = "devices have newer orders than this database knows: it is an older copy"

RolloutState = Literal["running", "halted", "stopped", "complete", "rolled_back", "replaced"]
Standing = Literal["waiting", "away", "confirmed", "failed", "timed_out", "going_back", "back"]
_PositiveSeconds = Annotated[int, msgspec.Meta(ge=1, le=365 * 86400)]


class Place(NamedTuple):
    """A device's name."""

    site: str
    device: str


class Heard(NamedTuple):
    """A device as the hub sees it now. `updates`: it takes releases over the air."""

    place: Place
    online: bool
    labels: tuple[str, ...] = ()
    updates: bool = True


class RolloutPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who gets a release, and how fast.

    Attributes:
        sites, labels: the scope: devices of one of these sites, with one of these labels; none given is all that take
            releases.
        canary: SITE/DEVICE of the first device; "" draws one.
        waves_permille: how much of the scope has it after each wave that follows the canary; rising.
        bake_s: from the moment when a wave has confirmed to the next wave.
        timeout_s: a device's time online from its order to its end.
        trial: what each device looks at before it confirms.
    """

    sites: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    canary: str = ""
    waves_permille: tuple[Annotated[int, msgspec.Meta(ge=1, le=1000)], ...] = (50, 250, 1000)
    bake_s: Annotated[int, msgspec.Meta(ge=0, le=365 * 86400)] = 3600
    timeout_s: _PositiveSeconds = 3 * 86400
    trial: TrialPlan = TrialPlan()

    def __post_init__(self) -> None:
        """Raise `ValueError` when the waves do not rise."""
        if list(self.waves_permille) != sorted(set(self.waves_permille)):
            msg = f"the waves must rise, not {self.waves_permille}"
            raise ValueError(msg)

    @property
    def last_wave(self) -> int:
        """The number of the last wave; the canary is 0."""
        return len(self.waves_permille)

    def covers(self, heard: Heard) -> bool:
        """Return whether a device is in the scope."""
        in_site = not self.sites or heard.place.site in self.sites
        return heard.updates and in_site and (not self.labels or bool(set(self.labels) & set(heard.labels)))


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A device that got an order of a rollout.

    Attributes:
        wave: in which it was drawn; `last_wave + 1` for one that joined late.
        action: of its present order.
        ordered_at_ms: of its present order.
        phase: of the last report that counted for this order; "" before the first.
        sequence, boot_id, reported_at_ms, reason, frames: of that report, as the device said it.
        figures: the newest that it has told; None before.
        failed: it rolled back, told figures that fail by themselves, or timed out and was ordered back, whatever came
            after.
        waited_ms: online without an end.
        away_ms: offline without a break.
    """

    place: Place
    wave: int
    action: Literal["install", "back"] = "install"
    ordered_at_ms: int
    phase: Phase | Literal[""] = ""
    sequence: int = 0
    boot_id: str = ""
    reported_at_ms: int = 0
    reason: str = ""
    frames: int = 0
    figures: Figures | None = None
    failed: bool = False
    waited_ms: int = 0
    away_ms: int = 0


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as it stands.

    Attributes:
        id: its name on the wire; no other rollout of any hub has it.
        reason: why it was halted, stopped, or does not go on; "".
        wave: the present one; -1 before the canary is drawn.
        sizes: how many devices each wave that has begun was to have.
        accepted: the wave that a person let pass; -1.
        baked_ms: since the present wave has confirmed.
        stepped_at_ms: the last step.
        members: by place.
    """

    id: str
    model: str
    release: str
    number: int
    target: str
    plan: RolloutPlan
    started_at_ms: int
    state: RolloutState = "running"
    reason: str = ""
    wave: int = -1
    sizes: tuple[int, ...] = ()
    accepted: int = -1
    baked_ms: int = 0
    stepped_at_ms: int = 0
    members: Mapping[Place, Member] = {}

    @property
    def active(self) -> bool:
        """It may still go on by itself or by a person's word."""
        return self.state in {"running", "halted"}


class WaveCount(msgspec.Struct, frozen=True, kw_only=True):
    """One wave, counted. `size`: how many it was to have; `devices`: how many were ordered."""

    wave: int
    size: int
    devices: int
    confirmed: int
    failed: int
    waiting: int
    away: int
    going_back: int
    back: int


def assignment(rollout: Rollout, member: Member) -> Assignment:
    """Return the order as it is sent to the device."""
    return Assignment(
        rollout=rollout.id,
        action=member.action,
        model=rollout.model,
        release=rollout.release,
        number=rollout.number,
        target=rollout.target,
        plan=rollout.plan.trial,
        at_ms=member.ordered_at_ms,
    )


def stop_at(wave: int, size: int) -> int:
    """Return how many failures stop a wave of so many devices."""
    return 1 if wave == CANARY else max(2, math.ceil(size * FAILED_PERCENT / 100))


def standing(rollout: Rollout, member: Member) -> Standing:
    """Return where one device stands. `failed` and `timed_out` are the failures of law 3."""
    if member.action == "back":
        return "back" if member.phase == "rolled_back" else "going_back"
    if member.failed:
        return "failed"
    if member.phase == "confirmed":
        return "confirmed"
    if member.waited_ms >= rollout.plan.timeout_s * 1000:
        return "timed_out"
    return "away" if member.away_ms >= AWAY_MS else "waiting"


def count_wave(rollout: Rollout, wave: int) -> WaveCount:
    """Return one wave, counted. What was ordered back counts as that, and as failed when it had failed."""
    members = [one for one in rollout.members.values() if one.wave == wave]
    at = [standing(rollout, one) for one in members]
    return WaveCount(
        wave=wave,
        size=rollout.sizes[wave] if wave < len(rollout.sizes) else len(members),
        devices=len(members),
        confirmed=at.count("confirmed"),
        failed=sum(one.failed or how == "timed_out" for one, how in zip(members, at, strict=True)),
        waiting=at.count("waiting"),
        away=at.count("away"),
        going_back=at.count("going_back"),
        back=at.count("back"),
    )


def wave_name(plan: RolloutPlan, wave: int) -> str:
    """Return what a wave is called."""
    if wave == CANARY:
        return "canary"
    if wave > plan.last_wave:
        return "joined late"
    return f"{plan.waves_permille[wave - 1] / 10:g} %"


def faults(rollout: Rollout) -> Iterator[str]:
    """Yield one sentence for everything in a rollout that no run of these rules brings about."""
    last = rollout.plan.last_wave
    if rollout.wave > last or len(rollout.sizes) != rollout.wave + 1:
        yield f"rollout {rollout.id} stands at wave {rollout.wave} with {len(rollout.sizes)} waves begun"
        return
    for wave, size in enumerate(rollout.sizes):
        devices = sum(one.wave == wave for one in rollout.members.values())
        if devices > 2 * size:
            yield f"rollout {rollout.id} ordered {devices} devices in a wave of {size}"
    for one in rollout.members.values():
        name = f"{'/'.join(one.place)} in rollout {rollout.id}"
        if rollout.wave < one.wave <= last or one.wave > last + 1 or one.wave < 0:
            yield f"{name} is of wave {one.wave}, which has not begun"
        if one.action == "install" and rollout.state == "rolled_back" and rollout.reason != OLDER_COPY:
            yield f"{name} is to install what was rolled back"
        if one.action == "back" and rollout.active:
            yield f"{name} was ordered back, and the rollout may go on"
