"""SQL of `hub status`: what is in the database, counted."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from edge.contract.status import Heartbeat, State
from hub.recall import CameraRecall, by_camera
from hub.store_recall import shown_hours
from hub.store_rows import FrameState


class DeviceStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One device as the hub last heard of it. Ages are left to the reader: times are UTC milliseconds.

    `frames` (looked at), `unsent`, `dropped`, `bytes_up` and `refused_policies` are the device's own words, of its last
    heartbeat.
    """

    site: str
    device: str
    online: bool
    model: str
    version: str
    heartbeat_at_ms: int | None
    cameras: int
    cameras_running: int
    frames: int
    bytes_up: int
    unsent: int
    dropped: int
    findings: int
    frames_present: int
    refused_policies: int = 0
    frozen: tuple[str, ...] = ()


class RolloutLine(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout. `failed_late`: devices that failed since it was complete."""

    model: str
    release: str
    number: int
    state: str
    failed_late: int = 0


class HubStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Everything `hub status` prints. `frames` counts findings by the state of their frame.

    `frame_bytes`: of the frames here. `finding_frame_bytes`: of every finding's frame, wherever it is. `recall`: of the
    cameras whose control frames were looked at twice in the last days. `weak_spots` counts them by state; `regressed`
    names those that had been fixed and came back. `rollouts`: those that are halted, then those that run,
    then the newest of a line that are complete and of which devices failed since.
    """

    at_ms: int
    devices: list[DeviceStatus]
    findings: dict[str, int]
    frames: dict[str, int]
    frame_bytes: int
    finding_frame_bytes: int
    groups: int
    ungrouped: int
    refused: dict[str, int]
    batches: int
    batched_images: int
    weak_spots: dict[str, int]
    regressed: list[str]
    recall: list[CameraRecall]
    rollouts: list[RolloutLine]


FROZEN: Final = "frozen"  # edge.camera.CameraState
CAMERA_SILENT_S: Final = 30.0
_state_decoder = msgspec.json.Decoder(State)
_heartbeat_decoder = msgspec.json.Decoder(Heartbeat)


def hub_status(connection: sqlite3.Connection, *, now_ms: int) -> HubStatus:
    """Count in one read transaction."""
    connection.execute("BEGIN")
    try:
        counts = _finding_counts(connection)
        return HubStatus(
            at_ms=now_ms,
            devices=_devices(connection, counts),
            findings=_sum(counts, key=lambda c: c.reason),
            frames=_sum(counts, key=lambda c: c.frame_state),
            frame_bytes=sum(c.bytes for c in counts if c.frame_state == FrameState.PRESENT),
            finding_frame_bytes=sum(c.bytes for c in counts),
            groups=_number(connection, "SELECT count(*) FROM near_duplicate_group"),
            ungrouped=_number(connection, "SELECT count(*) FROM finding WHERE group_id IS NULL"),
            refused=dict(
                connection.execute("SELECT substr(name, 9), value FROM counter WHERE name LIKE 'refused.%'").fetchall()
            ),
            batches=_number(connection, "SELECT count(*) FROM batch"),
            batched_images=_number(connection, "SELECT count(*) FROM batch_member"),
            weak_spots=dict(connection.execute("SELECT state, count(*) FROM weak_spot GROUP BY state").fetchall()),
            regressed=[
                f"{number}, {name}"
                for number, name in connection.execute(
                    "SELECT id, name FROM weak_spot WHERE state = 'regressed' ORDER BY id"
                )
            ],
            recall=by_camera(shown_hours(connection, now_ms=now_ms), now_ms=now_ms),
            rollouts=_rollouts(connection),
        )
    finally:
        connection.rollback()


def _rollouts(connection: sqlite3.Connection) -> list[RolloutLine]:
    active = connection.execute(
        "SELECT head FROM rollout WHERE state IN ('running', 'halted') OR state = 'stopped'"
        " AND id IN (SELECT max(id) FROM rollout GROUP BY model) ORDER BY state, model"
    )
    complete = connection.execute(
        "SELECT r.head, count(*) FROM rollout r JOIN rollout_member m ON m.rollout_id = r.id"
        " WHERE r.state = 'complete' AND r.id IN (SELECT max(id) FROM rollout GROUP BY model)"
        " AND json_extract(CAST(m.member AS TEXT), '$.failed_late') GROUP BY r.id ORDER BY r.model"
    )
    lines = [msgspec.json.decode(head, type=RolloutLine) for (head,) in active]
    return lines + [
        msgspec.structs.replace(msgspec.json.decode(head, type=RolloutLine), failed_late=failed)
        for head, failed in complete
    ]


class _Count(NamedTuple):
    site: str
    device: str
    frame_state: str
    reason: str
    findings: int
    bytes: int


def _finding_counts(connection: sqlite3.Connection) -> list[_Count]:
    rows = connection.execute("SELECT site, device, frame_state, reason, findings, bytes FROM finding_count")
    return [_Count(*row) for row in rows]


def _sum(counts: Sequence[_Count], *, key: Callable[[_Count], str]) -> dict[str, int]:
    sums: Counter[str] = Counter()
    for count in counts:
        sums[key(count)] += count.findings
    return dict(sorted(sums.items()))


def _devices(connection: sqlite3.Connection, counts: Sequence[_Count]) -> list[DeviceStatus]:
    findings = _sum(counts, key=lambda c: f"{c.site}/{c.device}")
    present = _sum([c for c in counts if c.frame_state == FrameState.PRESENT], key=lambda c: f"{c.site}/{c.device}")
    rows = connection.execute(
        "SELECT site, device, online, state, heartbeat, heartbeat_at_ms FROM device ORDER BY site, device"
    )
    return [
        _device(*row, findings=findings.get(f"{row[0]}/{row[1]}", 0), present=present.get(f"{row[0]}/{row[1]}", 0))
        for row in rows
    ]


def _device(
    site: str,
    device: str,
    online: int,
    state_json: bytes | None,
    heartbeat_json: bytes | None,
    heartbeat_at_ms: int | None,
    *,
    findings: int,
    present: int,
) -> DeviceStatus:
    state = _state_decoder.decode(state_json) if state_json is not None else None
    heartbeat = _heartbeat_decoder.decode(heartbeat_json) if heartbeat_json is not None else None
    cameras = heartbeat.cameras if heartbeat is not None else ()
    return DeviceStatus(
        site=site,
        device=device,
        online=bool(online),
        model=state.model if state is not None else "",
        version=state.version if state is not None else "",
        heartbeat_at_ms=heartbeat_at_ms,
        cameras=len(cameras),
        cameras_running=sum(
            camera.frame_age_s is not None and camera.frame_age_s < CAMERA_SILENT_S and camera.state != FROZEN
            for camera in cameras
        ),
        frames=sum(camera.frames for camera in cameras),
        bytes_up=heartbeat.bytes_up if heartbeat is not None else 0,
        unsent=heartbeat.spool.unsent if heartbeat is not None else 0,
        dropped=sum(heartbeat.dropped.values()) if heartbeat is not None else 0,
        findings=findings,
        frames_present=present,
        frozen=tuple(camera.name for camera in cameras if camera.state == FROZEN),
        refused_policies=sum(bool(one.refused) for one in heartbeat.policies) if heartbeat is not None else 0,
    )


def _number(connection: sqlite3.Connection, query: str) -> int:
    return connection.execute(query).fetchone()[0] or 0
