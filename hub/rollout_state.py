"""A rollout as it stands: its plan, its devices, how they are counted, and what follows. hub.rollout_rules moves it."""

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Final, Literal, NamedTuple

import msgspec

from edge.contract.judgement import Figures, judge_pool
from edge.contract.rollout import Assignment, Phase, TrialPlan

AWAY_MS: Final = 15 * 60_000
STAYS_MS: Final = 120_000
"""Who says for so long that it keeps the release cannot go back; less may be what it said before it heard."""
CANARY: Final = 0
FAILED_PERCENT: Final = 5
CONFIRMED_PERCENT: Final = 95
OLDER_COPY: Final = "devices have newer orders than this database knows: it is an older copy"

RolloutState = Literal["running", "halted", "stopped", "complete", "rolled_back", "replaced"]
Standing = Literal["waiting", "away", "confirmed", "failed", "timed_out", "going_back", "back", "stays"]
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
        waves_permille: how much of the scope has it after each wave that follows the canary; rising to 1000.
        timeout_s: a device's time online from its order to its end; at least twice the bake, which is in it.
        trial: what each device looks at before it confirms, and how long it bakes.
    """

    sites: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    canary: str = ""
    waves_permille: tuple[Annotated[int, msgspec.Meta(ge=1, le=1000)], ...] = (50, 250, 1000)
    timeout_s: _PositiveSeconds = 3 * 86400
    trial: TrialPlan = TrialPlan()

    def __post_init__(self) -> None:
        """Raise `ValueError` when the waves do not rise to all, or the bake leaves a device too little time.

        Who is in none of the waves would count as a late joiner.
        """
        if list(self.waves_permille) != sorted(set(self.waves_permille)):
            msg = f"the waves must rise, not {self.waves_permille}"
            raise ValueError(msg)
        if self.waves_permille[-1:] != (1000,):
            msg = "the last wave must be 100 %; `hub rollout halt` stops before it"
            raise ValueError(msg)
        if self.timeout_s < 2 * self.trial.bake_s:
            msg = f"a timeout of {self.timeout_s} s is less than twice the bake of {self.trial.bake_s} s"
            raise ValueError(msg)

    @property
    def last_wave(self) -> int:
        """The number of the last wave; the canary is 0."""
        return len(self.waves_permille)

    @property
    def late_wave(self) -> int:
        """The number under which late ones are counted."""
        return self.last_wave + 1

    def covers(self, heard: Heard) -> bool:
        """Return whether a device is in the scope."""
        in_site = not self.sites or heard.place.site in self.sites
        return heard.updates and in_site and (not self.labels or bool(set(self.labels) & set(heard.labels)))


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The release that a rollout's release names as its baseline, as it stands in the repository."""

    release: str
    number: int
    target: str


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A device that got an order of a rollout.

    Attributes:
        wave: in which it was drawn; `late_wave` for one that joined late, or had not ended when it was complete.
        action: what is wanted of it.
        instead: it cannot go back by itself, and was ordered to install the baseline.
        ordered_at_ms: of its present order.
        phase: of the last report that counted for this order; "" before the first.
        sequence, boot_id, reported_at_ms, reason, frames: of that report, as the device said it.
        figures: the newest that it has told; None before.
        failed: it rolled back, told figures that fail by themselves, or timed out and was ordered back, whatever came
            after.
        failed_late: it failed when the rollout was complete.
        no_frames: it says that no camera gives it a frame to judge by.
        waited_ms: online without an end; of one that was ordered back: online and keeping the release.
        away_ms: offline, or without a frame, without a break; it ends at `AWAY_MS`.
    """

    place: Place
    wave: int
    action: Literal["install", "back"] = "install"
    instead: bool = False
    ordered_at_ms: int
    phase: Phase | Literal[""] = ""
    sequence: int = 0
    boot_id: str = ""
    reported_at_ms: int = 0
    reason: str = ""
    frames: int = 0
    figures: Figures | None = None
    failed: bool = False
    failed_late: bool = False
    no_frames: bool = False
    waited_ms: int = 0
    away_ms: int = 0


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as it stands.

    Attributes:
        id: its name on the wire; no other rollout of any hub has it.
        baseline: what a device installs that cannot go back by itself; None where the repository has none.
        reason: why it was halted, stopped, or does not go on; "".
        wave: the present one; -1 before the canary is drawn.
        sizes: how many devices each wave that has begun was to have.
        accepted: the wave that a person let pass; -1.
        stepped_at_ms: the last step.
        members: by place.
    """

    id: str
    model: str
    release: str
    number: int
    target: str
    baseline: Baseline | None = None
    plan: RolloutPlan
    started_at_ms: int
    state: RolloutState = "running"
    reason: str = ""
    wave: int = -1
    sizes: tuple[int, ...] = ()
    accepted: int = -1
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
    stays: int


def assignment(rollout: Rollout, member: Member) -> Assignment:
    """Return the order as it is sent to the device."""
    of = ordered_release(rollout, member)
    return Assignment(
        rollout=rollout.id,
        action="install" if member.instead else member.action,
        model=rollout.model,
        release=of.release,
        number=of.number,
        target=of.target,
        instead_of=rollout.number if member.instead else 0,
        plan=rollout.plan.trial,
        at_ms=member.ordered_at_ms,
    )


def ordered_release(rollout: Rollout, member: Member) -> Rollout | Baseline:
    """Return what names the release that a device's order is about."""
    return rollout.baseline if member.instead and rollout.baseline is not None else rollout


def stop_at(wave: int, size: int) -> int:
    """Return how many failures stop a wave of so many devices; late ones count in all that were ordered."""
    return 1 if wave == CANARY else max(2, math.ceil(size * FAILED_PERCENT / 100))


def standing(rollout: Rollout, member: Member) -> Standing:
    """Return where one device stands. `failed` and `timed_out` are the failures of law 3."""
    if member.action == "back":
        if member.phase == ("confirmed" if member.instead else "rolled_back"):
            return "back"
        stays = member.phase == "rolled_back" if member.instead else keeps_it(member) and rollout.baseline is None
        return "stays" if stays else "going_back"
    if member.failed:
        return "failed"
    if member.phase == "confirmed":
        return "confirmed"
    if member.waited_ms >= rollout.plan.timeout_s * 1000:
        return "timed_out"
    return "away" if member.away_ms >= AWAY_MS else "waiting"


def keeps_it(member: Member) -> bool:
    """Return whether a device that was ordered back answers that it cannot."""
    return member.action == "back" and not member.instead and member.waited_ms >= STAYS_MS


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
        stays=at.count("stays"),
    )


def has_passed(rollout: Rollout) -> bool:
    """Return whether the next wave may begin."""
    if rollout.wave < 0:
        return True
    count = count_wave(rollout, rollout.wave)
    if count.size == 0:
        return True
    if rollout.accepted == rollout.wave and not count.waiting:
        return True
    counted = count.devices - count.away
    enough = count.confirmed * 100 >= counted * CONFIRMED_PERCENT
    return enough and count.devices > 0 and 2 * count.confirmed >= min(count.size, count.devices)


def is_undecided(rollout: Rollout) -> bool:
    """Return whether all that can be heard have ended, with too few confirmed to go on and too few failed to stop."""
    if rollout.wave < 0 or has_passed(rollout):
        return False
    count = count_wave(rollout, rollout.wave)
    return count.failed > 0 and count.waiting == 0


def why_stop(rollout: Rollout) -> str:
    """Return why a rollout that may go on or is complete has to stop; "" for no reason."""
    return _fault(rollout) or _pool_fault(rollout)


def _fault(rollout: Rollout) -> str:
    """Return which wave is the first that has failed, and why; of a complete one only the late ones count."""
    late = rollout.plan.late_wave
    for wave in range(late if rollout.state == "complete" else CANARY, late + 1):
        count = count_wave(rollout, wave)
        size = len(rollout.members) if wave == late else max(count.size, count.devices)
        if count.devices and count.failed >= stop_at(wave, size):
            members = sorted((one for one in rollout.members.values() if one.wave == wave), key=lambda one: one.place)
            said = [one.reason for one in members if one.failed and one.reason]
            timed_out = sum(standing(rollout, one) == "timed_out" for one in members)
            why = said[0] if said else f"{timed_out} timed out" if timed_out else "no reason was given"
            return f"{wave_name(rollout.plan, wave)}: {count.failed} of {count.devices} failed: {why}"
    return ""


def _pool_fault(rollout: Rollout) -> str:
    """Return why what all devices counted fails together; "" when it does not. Not of those that counted too little."""
    enough = rollout.plan.trial.shadow_frames + rollout.plan.trial.trial_frames
    pool = [
        one.figures
        for one in rollout.members.values()
        if one.action == "install"
        and one.phase in {"trial", "confirmed"}
        and not one.failed
        and one.figures is not None
        and one.figures.frames >= enough
    ]
    verdict = judge_pool(pool)
    return f"all devices together: {verdict.reason}" if verdict.outcome == "fail" else ""


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
        if one.instead and (one.action == "install" or rollout.baseline is None):
            yield f"{name} is to install a baseline that it does not need, or that is not known"
        if one.action == "back" and rollout.active:
            yield f"{name} was ordered back, and the rollout may go on"
