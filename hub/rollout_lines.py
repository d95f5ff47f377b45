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
_ORDER: Final = ("stays", "failed", "timed_out", "going_back", "waiting", "away")
_ROW: Final = "{:11} {:>8} {:>10} {:>7} {:>8} {:>5} {:>11} {:>5} {:>6}"


def started_lines(rollout: Rollout, signed: SignedRelease, *, in_scope: int, online: int) -> list[str]:
    """Return what to say when a rollout was begun."""
    lines = [
        f"{_name(rollout.model, rollout.number)} {rollout.release}: begun; `hub serve` gives the orders",
        f"for {_scope(rollout.plan)}: {counted(in_scope, 'device')} heard, {online} of them online",
    ]
    if not online:
        lines += wrapped("note: the first order is given when a device of these comes online")
    back = signed.baseline
    after = f"; one that does not hold it installs {back} anew."
    if back == 0:
        after = ", the model it was installed with."
    elif rollout.baseline is None:
        after = f", which is not in the repository: one that does not hold {back} stays."
    lines += wrapped(f"A device that has confirmed it may go back to number {back}{after}")
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
    lines += _trial_lines(status)
    if status.failed_late and status.state == "complete":
        lines += wrapped(
            f"{counted(status.failed_late, 'device')} failed since it was complete; the others keep it:"
            f" hub rollout rollback {status.model} sends every device back"
        )
    if status.foreign:
        lines += wrapped(
            f"{counted(status.foreign, 'device')} got newer orders than this database knows; they are left alone"
            " until a rollout that is begun from now on orders them"
        )
    if status.waves:
        lines += [
            "",
            _ROW.format("wave", "devices", "confirmed", "failed", "waiting", "away", "going back", "back", "stays"),
        ]
    for wave in status.waves:
        of = wave.count
        lines.append(
            _ROW.format(
                wave.name, of.devices, of.confirmed, of.failed, of.waiting, of.away, of.going_back, of.back, of.stays
            ).rstrip()
        )
    if not status.waves:
        lines.append("no device was ordered yet: none of these is online, or `hub serve` does not run")
    lines += _device_lines([one for one in status.devices if one.standing in _ORDER])
    lines += _stays_lines(status)
    return [*lines, *_next(status)]


def _trial_lines(status: RolloutStatus) -> list[str]:
    if not status.on_trial:
        return []
    bake_s = status.plan.trial.bake_s
    bakes = f", and confirm when they have baked for {spell_seconds(bake_s)}" if bake_s else ""
    return wrapped(f"{counted(status.on_trial, 'device')} on trial: they serve it beside the old model{bakes}")


def _next(status: RolloutStatus) -> list[str]:
    if status.state == "halted":
        return ["", f"next: hub rollout resume {status.model}, or hub rollout rollback {status.model}"]
    if status.state == "stopped":
        return ["", "Every device that has the release is ordered back."]
    return []


def _stays_lines(status: RolloutStatus) -> list[str]:
    """Return what to say of devices that keep the release though they were ordered back."""
    stays = [one for one in status.devices if one.standing == "stays"]
    if not stays:
        return []
    who = "1 device keeps" if len(stays) == 1 else f"{len(stays)} devices keep"
    baseline = status.baseline
    why = (
        "to go back from it to what they had before is not signed, and the repository had no baseline of it when the"
        " rollout began"
        if baseline is None
        else f"{_name(status.model, baseline.number)} was ordered instead, and did not hold there"
    )
    return ["", *wrapped(f"{who} {status.release}: {why}. Release a good model, and roll it out.")]


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
        if one.instead:
            lines.append("  cannot go back by itself: it was ordered to install the baseline")
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
