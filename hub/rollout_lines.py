"""What `hub rollout` prints, in lines of at most 80 characters."""

from collections.abc import Sequence
from typing import Final

from edge.contract.release import SignedRelease
from edge.contract.samples import plain_text
from hub.lines import WIDTH, counted, cut, spell_seconds, utc, wrapped
from hub.rollout_state import Rollout, RolloutPlan
from hub.rollouts import DeviceLine, RolloutStatus

_DEVICES: Final = 20
_NAME: Final = 24
_ORDER: Final = ("failed", "timed_out", "going_back", "waiting", "away")
_ROW: Final = "{:12} {:>8} {:>10} {:>7} {:>8} {:>6} {:>11} {:>6}"


def started_lines(rollout: Rollout, signed: SignedRelease, *, in_scope: int, online: int) -> list[str]:
    """Return what to say when a rollout was begun."""
    lines = [
        f"{_name(rollout.model, rollout.number)} {rollout.release}: begun; `hub serve` gives the orders",
        f"for {_scope(rollout.plan)}: {counted(in_scope, 'device')} heard, {online} of them online",
    ]
    if not online:
        lines += wrapped("note: the first order is given when a device of these comes online")
    back = signed.baseline
    lines += wrapped(
        f"A device that has confirmed it may go back to number {back}"
        + (", the model it was installed with." if back == 0 else f"; one that comes from another than {back} stays.")
    )
    lines.append(f"next: hub rollout status {rollout.model}")
    return lines


def status_lines(status: RolloutStatus) -> list[str]:
    """Return one rollout as lines."""
    state = status.state.replace("_", " ")
    head = f"{_name(status.model, status.number)} {status.release}: {state}"
    lines = [cut(head + (f", {status.wave}" if status.state == "running" and status.wave else ""), WIDTH)]
    if status.reason:
        lines += wrapped(plain_text(status.reason, most=400))
    lines.append(f"begun {utc(status.started_at_ms)} for {_scope(status.plan)}: {status.in_scope} heard")
    if status.next_s is not None:
        lines.append(f"next wave in about {spell_seconds(status.next_s)}")
    if status.foreign:
        lines += wrapped(
            f"{counted(status.foreign, 'device')} got newer orders than this database knows; they are left alone"
            " until a rollout that is begun from now on orders them"
        )
    if status.waves:
        lines += ["", _ROW.format("wave", "devices", "confirmed", "failed", "waiting", "away", "going back", "back")]
    for wave in status.waves:
        of = wave.count
        lines.append(
            _ROW.format(
                wave.name, of.devices, of.confirmed, of.failed, of.waiting, of.away, of.going_back, of.back
            ).rstrip()
        )
    if not status.waves:
        lines.append("no device was ordered yet: none of these is online, or `hub serve` does not run")
    lines += _device_lines([one for one in status.devices if one.standing in _ORDER])
    return [*lines, *_next(status)]


def _next(status: RolloutStatus) -> list[str]:
    if status.state == "halted":
        return ["", f"next: hub rollout resume {status.model}, or hub rollout rollback {status.model}"]
    if status.state == "stopped":
        return [
            "",
            *wrapped(
                "The wave that failed was sent back. Those before it keep the release: `hub rollout rollback"
                f" {status.model}` sends them back, too."
            ),
        ]
    return []


def _device_lines(devices: Sequence[DeviceLine]) -> list[str]:
    if not devices:
        return []
    shown = sorted(devices, key=lambda one: (_ORDER.index(one.standing), one.site, one.device))
    lines = ["", f"{'device':{_NAME}} {'wave':11} {'stands':10} {'phase':11} {'frames':>7}"]
    for one in shown[:_DEVICES]:
        name = cut(f"{one.site}/{one.device}", _NAME)
        stands = one.standing.replace("_", " ") + ("" if one.online else " *")
        phase = one.phase.replace("_", " ") or "-"
        frames = str(one.frames) if one.frames < 10**7 else f"{one.frames:.0e}"
        lines.append(f"{name:{_NAME}} {one.wave:11} {stands:12}{phase:11} {frames:>7}".rstrip())
        if one.reason:
            lines.append(cut(f"  {plain_text(one.reason, most=200)}", WIDTH))
    if any(not one.online for one in shown[:_DEVICES]):
        lines.append("* offline now")
    if len(shown) > _DEVICES:
        lines.append(f"and {len(shown) - _DEVICES} more: --json has all")
    return lines


def _name(model: str, number: int) -> str:
    return f"{model}/{number}"


def _scope(plan: RolloutPlan) -> str:
    places = f"the devices of {' and '.join(plan.sites)}" if plan.sites else "all devices"
    labels = f" labelled {' or '.join(plan.labels)}" if plan.labels else ""
    return cut(places + labels, 44)
