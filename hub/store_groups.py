"""SQL of the curator: near-duplicate groups, and which frames are wanted.

`want_open` marks the findings whose frame the wants rule may still ask for: a group's leader, and, when a group has
lost its frame, its best member that a device still holds. So the rule never scans the held findings, and a weak spot
that is named today still finds those of yesterday. Junk, which no batch takes (hub.store_batches), is never asked for,
and a group that has only junk here has no frame.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from edge.contract.errors import UnusableError
from hub.store_forgotten import counts
from hub.store_rows import (
    FINDING_COLUMNS,
    LEADER_COLUMNS,
    Features,
    FindingRow,
    GroupAssignment,
    LeaderRow,
    finding_row,
    immediate,
    leader_row,
)
from hub.store_sightings import note_sightings

MACHINE_LABELLED: Final = (  # by the set first: most images are in none
    "FROM label_set s JOIN label_image i ON i.set_id = s.id JOIN finding l ON l.event_id = i.event_id"
    " WHERE s.batch_id IS NULL AND s.kind = 'machine' AND l.group_id IS NOT NULL"
)
DeviceKey = tuple[str, str]
_BLACK: Final = "zeroblob(32)"  # the hash of a flat picture, see hub.hashing.is_blank
_JUNK: Final = (  # of the finding `m`
    "(m.frame_hash = zeroblob(32) OR m.reason <> 'control' AND (m.crop_hash = zeroblob(32)"
    " OR m.x2 - m.x1 < 1 OR m.y2 - m.y1 < 1"
    " OR m.x1 <= 0 AND m.y1 <= 0 AND m.x2 >= m.width AND m.y2 >= m.height))"
)
_HAS_FRAME: Final = f"(m.frame_state IN ('wanted', 'present') AND NOT {_JUNK} OR m.want_open)"
_numbers_decoder = msgspec.json.Decoder(set[int])
_ALIVE: Final = "(d.online OR d.heartbeat_at_ms >= ?)"
_FRAME: Final = (
    "m.id, m.site, m.device, m.camera, m.reason, m.label, m.captured_at_ms, m.tags, m.severity,"
    " m.x1 / m.width, m.y1 / m.height, m.x2 / m.width, m.y2 / m.height"
)


class FrameRow(NamedTuple):
    """A frame that a batch may be made of: a device holds it, or it is on its way, or here. Tags can be told of it.

    Attributes:
        id: the finding's number in the database.
        tags: the device's, words between spaces.
        place: `xyxy` in fractions of the frame's width and height.
    """

    id: int
    site: str
    device: str
    camera: str
    reason: str
    label: str
    captured_at_ms: int
    tags: str
    severity: float
    place: tuple[float, float, float, float]

    @property
    def of(self) -> DeviceKey:
        """Its site and device."""
        return self.site, self.device


class FrameDetail(NamedTuple):
    """What it takes to compare a frame with others, and to ask for it.

    Attributes:
        picture: the SHA-256 of the JPEG.
        features: `[n]` int8, L2-normalised times 127; n may be 0.
        size_px: width and height of the region, in pixels of the original frame.
    """

    event_id: str
    frame_bytes: int
    picture: bytes
    features: Features
    model: str
    size_px: tuple[float, float]


class DeviceSpend(NamedTuple):
    """What was asked of one device in the last 24 hours, and how many wants of any age still wait."""

    bytes: int = 0
    outstanding: int = 0


class Overdue(NamedTuple):
    """A want to send again."""

    event_id: str
    site: str
    device: str


class StaleError(UnusableError):
    """Another process changed the groups meanwhile: read them again and repeat."""


def ungrouped(connection: sqlite3.Connection, limit: int) -> list[FindingRow]:
    """Return findings without a group, oldest first."""
    rows = connection.execute(
        f"SELECT {FINDING_COLUMNS} FROM finding WHERE group_id IS NULL ORDER BY id LIMIT ?", (limit,)
    )
    return [finding_row(row) for row in rows]


def leaders_after(connection: sqlite3.Connection, group_id: int, *, seen_since_ms: int) -> Iterator[LeaderRow]:
    """Yield the leaders of the groups above `group_id` that were seen since then, in order of group."""
    rows = connection.execute(
        f"SELECT {LEADER_COLUMNS} FROM near_duplicate_group g JOIN finding f ON f.event_id = g.leader_event_id"
        " WHERE g.id > ? AND g.last_at_ms >= ? ORDER BY g.id",
        (group_id, seen_since_ms),
    )
    return (leader_row(row) for row in rows)


def last_group(connection: sqlite3.Connection) -> int:
    """Return the highest number of a group, 0 when there is none."""
    number: int = connection.execute("SELECT coalesce(max(id), 0) FROM near_duplicate_group").fetchone()[0]
    return number


def assign_groups(
    connection: sqlite3.Connection, assignments: Sequence[GroupAssignment], *, forgettings: tuple[int, int] | None
) -> None:
    """Group findings in one transaction.

    Raises `StaleError`, and changes nothing, when one is already grouped, or when something was forgotten since there
    were so many `forgettings`: what the caller holds of it must not come back.
    """
    with immediate(connection):
        if forgettings is not None and counts(connection) != forgettings:
            msg = "something was forgotten meanwhile"
            raise StaleError(msg)
        for assignment in assignments:
            try:
                _assign(connection, assignment)
            except sqlite3.IntegrityError as error:
                msg = f"group {assignment.group_id} of {assignment.event_id}: {error}"
                raise StaleError(msg) from error
        note_sightings(connection, [assignment.event_id for assignment in assignments])


def _assign(connection: sqlite3.Connection, assignment: GroupAssignment) -> None:
    event_id, group_id = assignment.event_id, assignment.group_id
    if assignment.new:
        made = connection.execute(
            "INSERT INTO near_duplicate_group (id, leader_event_id, site, camera, label, size, first_at_ms, last_at_ms,"
            " track, track_at_ms, looks)"
            " SELECT ?, event_id, site, camera, label, 1, captured_at_ms, captured_at_ms,"
            " track, captured_at_ms, x'' FROM finding"
            " WHERE event_id = ? AND group_id IS NULL",
            (group_id, event_id),
        )
    else:
        made = connection.execute(
            "UPDATE near_duplicate_group AS g SET size = size + 1, first_at_ms = min(first_at_ms, f.captured_at_ms),"
            " last_at_ms = max(last_at_ms, f.captured_at_ms), looks = iif(?3 = x'', looks, ?3),"
            " track = iif(?4, f.track, g.track), track_at_ms ="
            "  iif(?4, iif(g.track = f.track, min(track_at_ms, f.captured_at_ms), f.captured_at_ms), track_at_ms)"
            " FROM finding f WHERE f.event_id = ?1 AND f.group_id IS NULL AND g.id = ?2",
            (event_id, group_id, assignment.looks, assignment.tracked),
        )
    if made.rowcount != 1:
        msg = f"finding {event_id} is unknown or already grouped, or group {group_id} does not exist"
        raise StaleError(msg)
    # A group asks for one frame: a member is open only when nothing of its group is here, on its way, or open.
    connection.execute(
        f"UPDATE finding AS m SET group_id = ?1, want_open = frame_state = 'held' AND NOT {_JUNK}"
        f" AND NOT EXISTS (SELECT 1 FROM finding m WHERE m.group_id = ?1 AND {_HAS_FRAME})"
        " WHERE event_id = ?2",
        (group_id, event_id),
    )


def group_sizes(connection: sqlite3.Connection, group_ids: Iterable[int]) -> dict[int, int]:
    """Return how many findings each group counts; a group that does not exist is left out."""
    sizes: dict[int, int] = {}
    for group_id in group_ids:
        row = connection.execute("SELECT size FROM near_duplicate_group WHERE id = ?", (group_id,)).fetchone()
        if row is not None:
            sizes[group_id] = row[0]
    return sizes


def reopen_group(connection: sqlite3.Connection, event_id: str) -> None:
    """After the frame of `event_id` was lost, open the best held member of its group, unless it has a frame."""
    connection.execute(
        "UPDATE finding SET want_open = 1 WHERE id ="
        " (SELECT m.id FROM finding f JOIN finding m ON m.group_id = f.group_id"
        f"  WHERE f.event_id = ?1 AND m.frame_state = 'held' AND NOT {_JUNK}"
        "  ORDER BY m.severity DESC, m.id LIMIT 1)"
        " AND NOT EXISTS (SELECT 1 FROM finding f JOIN finding m ON m.group_id = f.group_id"
        f"  WHERE f.event_id = ?1 AND {_HAS_FRAME})",
        (event_id,),
    )


def held_numbers(connection: sqlite3.Connection, *, received_since_ms: int) -> set[int]:
    """Return the numbers of the findings whose frames may be asked for, one a group, that came since then."""
    numbers = connection.execute(
        "SELECT json_group_array(id) FROM finding INDEXED BY finding_want_open"
        " WHERE want_open = 1 AND received_at_ms >= ?",
        (received_since_ms,),
    ).fetchone()[0]
    return _numbers_decoder.decode(numbers)


def frames(connection: sqlite3.Connection, finding_ids: Iterable[int]) -> list[FrameRow]:
    """Return frames by the numbers of their findings, in order of number."""
    rows = connection.execute(
        f"SELECT {_FRAME} FROM finding m WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (msgspec.json.encode(list(finding_ids)).decode(),),
    )
    return [_frame_row(row) for row in rows]


def pooled_frames(connection: sqlite3.Connection, limit: int, *, alive_since_ms: int) -> list[FrameRow]:
    """Return the frames here, or on their way from a living device, whose group is in no batch; one a group.

    Of every device `limit`, and as many of its `control`, those that were asked for first. Black frames do not count,
    nor does what a machine has labelled: no batch takes it.
    """
    rows = connection.execute(
        f"SELECT {_FRAME} FROM finding m WHERE NOT {_JUNK} AND id IN (SELECT id FROM (SELECT id, row_number() OVER"
        "  (PARTITION BY site, device, reason = 'control' ORDER BY asked DESC, group_id DESC) AS place FROM"
        "  (SELECT id, group_id, site, device, reason, asked, row_number() OVER"
        "   (PARTITION BY group_id ORDER BY asked DESC, severity DESC, id) AS member FROM"
        "   (SELECT id, group_id, site, device, reason, severity, wanted_at_ms IS NOT NULL AS asked"
        "    FROM finding p INDEXED BY finding_pool"
        f"   WHERE frame_state = 'present' AND frame_hash <> {_BLACK} AND group_id IS NOT NULL"
        "    AND NOT EXISTS (SELECT 1 FROM batch_member b WHERE b.group_id = p.group_id)"
        f"    AND p.group_id NOT IN (SELECT l.group_id {MACHINE_LABELLED})"
        "   UNION ALL SELECT w.id, w.group_id, w.site, w.device, w.reason, w.severity, 1"
        "    FROM finding w INDEXED BY finding_wanted JOIN device d ON d.site = w.site AND d.device = w.device"
        f"   WHERE w.frame_state = 'wanted' AND {_ALIVE}))"
        "  WHERE member = 1) WHERE place <= ?)",
        (alive_since_ms, limit),
    )
    return [_frame_row(row) for row in rows]


def batched_frames(connection: sqlite3.Connection, limit: int) -> list[FrameRow]:
    """Return the frames of the newest batches, `control` aside."""
    rows = connection.execute(
        f"SELECT {_FRAME} FROM batch_member b JOIN finding m ON m.event_id = b.event_id"
        " WHERE m.reason <> 'control' ORDER BY b.batch_id DESC, b.rank LIMIT ?",
        (limit,),
    )
    return [_frame_row(row) for row in rows]


def _frame_row(row: tuple[int, str, str, str, str, str, int, str, float, float, float, float, float]) -> FrameRow:
    return FrameRow._make((*row[:9], row[9:]))


def frame_details(connection: sqlite3.Connection, finding_ids: Iterable[int]) -> dict[int, FrameDetail]:
    """Return what is known of frames by the number of their finding.

    One that a device holds is left out, `control` aside, when its picture is here or on its way under another finding,
    and that one is in a batch or can still come into one: a batch needs the picture once.
    """
    rows = connection.execute(
        "SELECT id, event_id, frame_bytes, frame_sha256, features, model, x2 - x1, y2 - y1 FROM finding f"
        " WHERE id IN (SELECT value FROM json_each(?)) AND (reason = 'control' OR frame_state <> 'held' OR NOT EXISTS"
        " (SELECT 1 FROM finding o INDEXED BY finding_picture"
        "  WHERE o.frame_state IN ('wanted', 'present') AND o.reason <> 'control'"
        "  AND o.site = f.site AND o.device = f.device AND o.frame_sha256 = f.frame_sha256"
        "  AND (EXISTS (SELECT 1 FROM batch_member m WHERE m.event_id = o.event_id)"
        "   OR NOT EXISTS (SELECT 1 FROM batch_member m WHERE m.group_id = o.group_id))))",
        (msgspec.json.encode(list(finding_ids)).decode(),),
    )
    return {
        row[0]: FrameDetail(row[1], row[2], row[3], np.frombuffer(row[4], np.int8), row[5], (row[6], row[7]))
        for row in rows
    }


def living(connection: sqlite3.Connection, *, alive_since_ms: int) -> set[DeviceKey]:
    """Return the devices that are online or were heard since then."""
    return set(connection.execute(f"SELECT site, device FROM device d WHERE {_ALIVE}", (alive_since_ms,)))


def spent_since(connection: sqlite3.Connection, since_ms: int) -> dict[DeviceKey, DeviceSpend]:
    """Return what was asked of each device since then, and all that waits. A frame that was gone cost nothing."""
    rows = connection.execute(
        "SELECT site, device, sum(bytes), sum(outstanding) FROM"
        " (SELECT site, device, frame_bytes AS bytes, 0 AS outstanding FROM finding INDEXED BY finding_wanted_at"
        "   WHERE wanted_at_ms >= ? AND frame_state <> 'gone'"
        "  UNION ALL SELECT site, device, 0, count(*) FROM finding INDEXED BY finding_wanted"
        "   WHERE frame_state = 'wanted' GROUP BY site, device)"
        " GROUP BY site, device",
        (since_ms,),
    )
    return {(r[0], r[1]): DeviceSpend(bytes=r[2], outstanding=r[3]) for r in rows}


def mark_wanted(connection: sqlite3.Connection, event_ids: Sequence[str], *, now_ms: int) -> set[str]:
    """Record that these frames are asked for now; return those that were held until then."""
    statement = (
        "UPDATE finding SET frame_state = 'wanted', want_open = 0, wanted_at_ms = ?1, asked_at_ms = ?1"
        " WHERE event_id = ?2 AND frame_state = 'held'"
    )
    with immediate(connection):
        return {one for one in event_ids if connection.execute(statement, (now_ms, one)).rowcount}


def overdue_wants(
    connection: sqlite3.Connection, *, asked_before_ms: int, alive_since_ms: int, limit: int
) -> list[Overdue]:
    """Return wants asked before then, of devices that are online or were heard since then, at most `limit` a device."""
    rows = connection.execute(
        "SELECT event_id, site, device FROM"
        " (SELECT f.event_id, f.site, f.device,"
        "   row_number() OVER (PARTITION BY f.site, f.device ORDER BY f.asked_at_ms, f.id) AS place"
        "  FROM device d JOIN finding f ON f.site = d.site AND f.device = d.device"
        f"  WHERE f.frame_state = 'wanted' AND f.asked_at_ms < ? AND {_ALIVE})"
        " WHERE place <= ?",
        (asked_before_ms, alive_since_ms, limit),
    )
    return [Overdue(*row) for row in rows]


def mark_asked(connection: sqlite3.Connection, event_ids: Sequence[str], *, now_ms: int) -> None:
    """Record that these wants were sent again now."""
    with immediate(connection):
        connection.executemany(
            "UPDATE finding SET asked_at_ms = ? WHERE event_id = ? AND frame_state = 'wanted'",
            [(now_ms, event_id) for event_id in event_ids],
        )


def give_up_wants(connection: sqlite3.Connection, *, wanted_before_ms: int) -> int:
    """Call the frames gone that were wanted before then and never came; return how many.

    Findings that came before then are asked for no more.
    """
    with immediate(connection):
        connection.execute(
            "UPDATE finding SET want_open = 0 WHERE want_open = 1 AND received_at_ms < ?", (wanted_before_ms,)
        )
        rows = connection.execute(
            "UPDATE finding SET frame_state = 'gone' WHERE frame_state = 'wanted' AND wanted_at_ms < ?"
            " RETURNING event_id",
            (wanted_before_ms,),
        ).fetchall()
        for (event_id,) in rows:
            reopen_group(connection, event_id)
        return len(rows)


def prune_parts(connection: sqlite3.Connection, *, received_before_ms: int) -> int:
    """Delete parts of frames that were never completed; return how many."""
    with immediate(connection):
        return connection.execute("DELETE FROM frame_part WHERE received_at_ms < ?", (received_before_ms,)).rowcount
