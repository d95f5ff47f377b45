"""SQL of recall without ground truth: heartbeats become sums an hour, and the sums are read.

Laws:

1. The sums of a camera add up to the last counts of each of its boots, whichever heartbeats were lost, came late or
   came twice.
2. Counts stand in the hour in which the hub heard them: a device's clock may be wrong. An outage's counts stand in the
   hour that ended it.
3. When something is booked, the hours older than `KEPT_DAYS` go, and the marks of that device's other boots that have
   not counted for so long.
"""

import sqlite3
from typing import Final

from edge.contract.status import Heartbeat, RecallCounts
from hub.recall import DAY_HOURS, HOUR_MS, CameraHour, hour_of, step

KEPT_DAYS: Final = 90
SHOWN_DAYS: Final = 7
_DAY_MS: Final = DAY_HOURS * HOUR_MS
_COUNTS: Final = "frames, detector, second_look, both"

_ADD: Final = (
    f"INSERT INTO recall_hour (hour_ms, site, device, camera, {_COUNTS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT DO UPDATE SET frames = frames + excluded.frames, detector = detector + excluded.detector,"
    " second_look = second_look + excluded.second_look, both = both + excluded.both"
)
_MARK: Final = (
    f"INSERT OR REPLACE INTO recall_mark (site, device, boot_id, camera, heard_at_ms, {_COUNTS})"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


def book(cursor: sqlite3.Cursor, heartbeat: Heartbeat, *, site: str, device: str, now_ms: int) -> None:
    """Add what is new in a heartbeat to the sums of this hour, inside the caller's transaction."""
    counted = [(camera.name, camera.recall) for camera in heartbeat.cameras if camera.recall.frames]
    if not counted:
        return
    boot = (site, device, heartbeat.boot_id)
    rows = cursor.execute(
        f"SELECT camera, {_COUNTS} FROM recall_mark WHERE (site, device, boot_id) = (?, ?, ?)", boot
    ).fetchall()
    marks = {camera: _counts(counts) for camera, *counts in rows}
    for camera, counts in counted:
        new = step(marks.get(camera, RecallCounts()), counts)
        if new is not None:
            marks[camera] = counts
            cursor.execute(_ADD, (hour_of(now_ms), site, device, camera, *_columns(new)))
            cursor.execute(_MARK, (*boot, camera, now_ms, *_columns(counts)))
            _forget(cursor, boot, before_ms=now_ms - KEPT_DAYS * _DAY_MS)


def mark_only(connection: sqlite3.Connection, heartbeat: Heartbeat, *, site: str, device: str, now_ms: int) -> None:
    """Count a boot on from this heartbeat where it has no mark yet: what it counted before is not added."""
    connection.executemany(
        _MARK.replace("OR REPLACE", "OR IGNORE"),
        [
            (site, device, heartbeat.boot_id, camera.name, now_ms, *_columns(camera.recall))
            for camera in heartbeat.cameras
        ],
    )


def _forget(cursor: sqlite3.Cursor, boot: tuple[str, str, str], *, before_ms: int) -> None:
    cursor.execute("DELETE FROM recall_hour WHERE hour_ms < ?", (before_ms,))
    cursor.execute(
        "DELETE FROM recall_mark WHERE (site, device) = (?, ?) AND boot_id <> ? AND heard_at_ms < ?", (*boot, before_ms)
    )


def shown_hours(connection: sqlite3.Connection, *, now_ms: int) -> list[CameraHour]:
    """Return the sums of the last `SHOWN_DAYS`."""
    return hours_since(connection, since_ms=now_ms - SHOWN_DAYS * _DAY_MS)


def hours_since(connection: sqlite3.Connection, *, since_ms: int) -> list[CameraHour]:
    """Return the sums of the hours from then on."""
    rows = connection.execute(
        f"SELECT site, device, camera, hour_ms, {_COUNTS} FROM recall_hour WHERE hour_ms >= ?", (since_ms,)
    )
    return [(site, device, camera, hour_ms, _counts(counts)) for site, device, camera, hour_ms, *counts in rows]


def _counts(columns: list[int]) -> RecallCounts:
    frames, detector, second_look, both = columns
    return RecallCounts(frames=frames, detector=detector, second_look=second_look, both=both)


def _columns(counts: RecallCounts) -> tuple[int, int, int, int]:
    return counts.frames, counts.detector, counts.second_look, counts.both
