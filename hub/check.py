"""What `hub check` and `hub status` print."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Final

from hub.datasets.proof import violations
from hub.lines import cut
from hub.recall import CameraRecall, Recall
from hub.store import Store
from hub.store_rows import FrameState
from hub.store_status import DeviceStatus, HubStatus, RolloutLine

MAX_VIOLATIONS: Final = 50
_NAME_WIDTH: Final = 22
_CAMERA_WIDTH: Final = 32
_STATES: Final = tuple(FrameState)


def check_lines(store: Store) -> tuple[list[str], bool]:
    """Prove the laws on a database; return what to print and whether all of them hold."""
    found = []
    for violation in itertools.chain(store.violations(), store.rollouts.violations(), violations(store)):
        found.append(violation)
        if len(found) > MAX_VIOLATIONS:
            found[-1] = f"... more than {MAX_VIOLATIONS}"
            break
    if found:
        return found, False
    return [f"every law holds; {store.frame_count()} frames were read and hashed"], True


def status_lines(status: HubStatus) -> list[str]:
    """Return `hub status` as lines of at most 80 characters."""
    counts = f"{'findings':>9} {'unsent':>7} {'dropped':>8}"
    lines = [f"{'device':{_NAME_WIDTH}} {'state':8} {'heard':>6} {'cameras':>8} {counts}"]
    lines += [_device_line(device, status.at_ms) for device in status.devices]
    if not status.devices:
        lines.append("no device has been heard yet")
    frames = {state.value: status.frames[state] for state in _STATES if state in status.frames}
    return [
        *lines,
        "",
        *_counts("findings", status.findings),
        *_counts("frames", frames),
        f"{'stored':10} {status.frame_bytes / 1e6:.1f} MB of frames",
        f"{'groups':10} {status.groups} near-duplicate groups, {status.ungrouped} findings not grouped yet",
        *_counts("refused", status.refused),
        f"{'batches':10} {status.batches} with {status.batched_images} images",
        *(_counts("weak spots", status.weak_spots) if status.weak_spots else []),
        *(f"{'regressed':10} {cut(f'weak spot {one}', 80 - 11)}" for one in status.regressed),
        *_frozen(status.devices),
        *_policies(status.devices),
        *_rollouts(status.rollouts),
        *_recalls(status.recall),
    ]


def _policies(devices: Sequence[DeviceStatus]) -> list[str]:
    refusing = sum(device.refused_policies > 0 for device in devices)
    return (
        [f"{'policies':10} refused by {refusing} device{'s' * (refusing > 1)}: `hub policy show` says why"]
        if refusing
        else []
    )


def _rollouts(rollouts: Sequence[RolloutLine]) -> list[str]:
    active = ", ".join(f"{one.model}/{one.number} {one.state}" for one in rollouts if not one.failed_late)
    late = ", ".join(f"{one.model}/{one.number} on {one.failed_late}" for one in rollouts if one.failed_late)
    told = [active] if active else []
    told += [f"complete, and failed since: {late}"] if late else []
    return [f"{'rollouts':10} {cut(line, 80 - 11)}" for line in told]


def _frozen(devices: Sequence[DeviceStatus]) -> list[str]:
    names = [f"{one.site}/{one.device}/{camera}" for one in devices for camera in one.frozen]
    return [f"{'frozen':10} {_end(name, 80 - 11)}" for name in names]


def _recalls(cameras: Sequence[CameraRecall]) -> list[str]:
    if not cameras:
        return []
    return [
        "",
        f"{'recall':{_CAMERA_WIDTH}} {'last hour':>15} {'last 24 h':>15} {'control frames':>15}",
        *(_recall_line(camera) for camera in cameras),
        "An upper estimate (95 % interval): the share that the detector found of what a",
        "closer look at the control frames finds. What neither look sees is not in it.",
    ]


def _recall_line(camera: CameraRecall) -> str:
    name = _end(f"{camera.site}/{camera.device}/{camera.camera}", _CAMERA_WIDTH)
    last_hour, last_day = _recall(camera.last_hour), _recall(camera.last_day)
    return f"{name:{_CAMERA_WIDTH}} {last_hour:>15} {last_day:>15} {_short(camera.last_day.frames, 15):>15}"


def _end(name: str, width: int) -> str:
    """Return the end of a name that is too long: the camera stands there."""
    return name if len(name) <= width else "..." + name[3 - width :]


def _short(n: int, width: int) -> str:
    """Return a number that fits; what a device says of itself may be any."""
    return str(n) if len(str(n)) <= width else f"{n:.0e}"


def _recall(recall: Recall) -> str:
    if recall.estimate is None:
        return "too few" if recall.frames else "-"
    share, low, high = (
        f"{one:.2f}".removeprefix("0") for one in (recall.estimate.recall, recall.estimate.low, recall.estimate.high)
    )
    return f"{share} ({low}-{high})"


def _device_line(device: DeviceStatus, now_ms: int) -> str:
    name = f"{device.site}/{device.device}"
    if len(name) > _NAME_WIDTH:
        name = name[: _NAME_WIDTH - 3] + "..."
    heard = "never" if device.heartbeat_at_ms is None else _age(now_ms - device.heartbeat_at_ms)
    state = "online" if device.online else "offline"
    cameras = f"{device.cameras_running}/{device.cameras}"
    counts = f"{device.findings:>9} {_short(device.unsent, 7):>7} {_short(device.dropped, 8):>8}"
    return f"{name:{_NAME_WIDTH}} {state:8} {heard:>6} {cameras:>8} {counts}"


def _age(age_ms: int) -> str:
    age_s = max(0, age_ms // 1000)
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if age_s >= 2 * seconds:
            return f"{age_s // seconds}{unit}"
    return f"{age_s}s"


def _counts(title: str, counts: Mapping[str, int]) -> list[str]:
    """Return one line, or more when it would not fit."""
    lines = [f"{title:10}"]
    for name, count in counts.items():
        part = f" {count} {name}"
        if len(lines[-1]) + len(part) + 1 > 80:
            lines.append(" " * 10)
        lines[-1] += part if len(lines[-1]) == 10 else f",{part}"
    return lines if counts else [f"{title:10} none"]
