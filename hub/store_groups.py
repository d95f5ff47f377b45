"""SQL of the curator: near-duplicate groups, and which frames are wanted.

`want_open` marks the findings whose frame the wants rule may still ask for: a group's leader, a `control`, and, when a
group has lost its frame, its best member that a device still holds. So the rule never scans the held findings.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from edge.contract.errors import UnusableError
from hub.store_rows import (
    FINDING_COLUMNS,
    LEADER_COLUMNS,
    FindingRow,
    GroupAssignment,
    LeaderRow,
    finding_row,
    immediate,
    leader_row,
)
from hub.wants import DeviceSpend, OpenFinding, Overdue


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


def assign_groups(connection: sqlite3.Connection, assignments: Sequence[GroupAssignment]) -> None:
    """Group findings in one transaction. Raises `StaleError`, and changes nothing, when one is already grouped."""
    with immediate(connection):
        for assignment in assignments:
            try:
                _assign(connection, assignment)
            except sqlite3.IntegrityError as error:
                msg = f"group {assignment.group_id} of {assignment.event_id}: {error}"
                raise StaleError(msg) from error


def _assign(connection: sqlite3.Connection, assignment: GroupAssignment) -> None:
    event_id, group_id = assignment.event_id, assignment.group_id
    if assignment.new:
        made = connection.execute(
            "INSERT INTO near_duplicate_group (id, leader_event_id, site, camera, label, size, first_at_ms, last_at_ms)"
            " SELECT ?, event_id, site, camera, label, 1, captured_at_ms, captured_at_ms FROM finding"
            " WHERE event_id = ? AND group_id IS NULL",
            (group_id, event_id),
        )
    else:
        made = connection.execute(
            "UPDATE near_duplicate_group SET size = size + 1, first_at_ms = min(first_at_ms, f.captured_at_ms),"
            " last_at_ms = max(last_at_ms, f.captured_at_ms)"
            " FROM finding f WHERE f.event_id = ? AND f.group_id IS NULL AND near_duplicate_group.id = ?",
            (event_id, group_id),
        )
    if made.rowcount != 1:
        msg = f"finding {event_id} is unknown or already grouped, or group {group_id} does not exist"
        raise StaleError(msg)
    # A group asks for one frame: a member is open only when nothing of its group is here, on its way, or open.
    connection.execute(
        "UPDATE finding SET group_id = ?1, want_open = frame_state = 'held' AND (reason = 'control' OR NOT EXISTS"
        " (SELECT 1 FROM finding m WHERE m.group_id = ?1 AND (m.frame_state IN ('wanted', 'present') OR m.want_open)))"
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
        "  WHERE f.event_id = ?1 AND m.frame_state = 'held' ORDER BY m.severity DESC, m.id LIMIT 1)"
        " AND NOT EXISTS (SELECT 1 FROM finding f JOIN finding m ON m.group_id = f.group_id"
        "  WHERE f.event_id = ?1 AND (m.frame_state IN ('wanted', 'present') OR m.want_open))",
        (event_id,),
    )


def open_findings(connection: sqlite3.Connection, limit: int) -> list[OpenFinding]:
    """Return what the wants rule may ask for: of every device the most severe `limit`, and as many of its `control`."""
    rows = connection.execute(
        "SELECT event_id, site, device, reason, severity, frame_bytes, received_at_ms FROM"
        " (SELECT event_id, site, device, reason, severity, frame_bytes, received_at_ms, row_number() OVER"
        "   (PARTITION BY site, device, reason = 'control' ORDER BY severity DESC, event_id) AS place"
        "  FROM finding WHERE want_open = 1) WHERE place <= ?",
        (limit,),
    )
    return [OpenFinding(*row) for row in rows]


def pooled(connection: sqlite3.Connection, limit: int) -> list[OpenFinding]:
    """Return findings, `control` aside, whose frame is on its way, and the newest here whose group is in no batch."""
    rows = connection.execute(
        "SELECT event_id, site, device, reason, severity, frame_bytes, received_at_ms FROM finding WHERE id IN"
        " (SELECT id FROM (SELECT id FROM finding f INDEXED BY finding_present"
        "   WHERE frame_state = 'present' AND reason <> 'control'"
        "   AND NOT EXISTS (SELECT 1 FROM batch_member m WHERE m.group_id = f.group_id) ORDER BY id DESC LIMIT ?1)"
        "  UNION ALL SELECT id FROM finding INDEXED BY finding_wanted"
        "   WHERE frame_state = 'wanted' AND reason <> 'control')",
        (limit,),
    )
    return [OpenFinding(*row) for row in rows]


def spent_since(connection: sqlite3.Connection, since_ms: int) -> dict[tuple[str, str], DeviceSpend]:
    """Return what was asked of each device since then. A frame that turned out to be gone cost nothing."""
    rows = connection.execute(
        "SELECT site, device, coalesce(sum(frame_bytes), 0),"
        " coalesce(sum(frame_bytes) FILTER (WHERE reason = 'control'), 0),"
        " count(*) FILTER (WHERE frame_state = 'wanted')"
        " FROM finding INDEXED BY finding_wanted_at WHERE wanted_at_ms >= ? AND frame_state <> 'gone'"
        " GROUP BY site, device",
        (since_ms,),
    )
    return {(r[0], r[1]): DeviceSpend(bytes=r[2], control_bytes=r[3], outstanding=r[4]) for r in rows}


def mark_wanted(connection: sqlite3.Connection, event_ids: Sequence[str], *, now_ms: int) -> None:
    """Record that these frames are asked for now."""
    with immediate(connection):
        connection.executemany(
            "UPDATE finding SET frame_state = 'wanted', want_open = 0, wanted_at_ms = ?1, asked_at_ms = ?1"
            " WHERE event_id = ?2 AND frame_state = 'held'",
            [(now_ms, event_id) for event_id in event_ids],
        )


def close_wants(connection: sqlite3.Connection, event_ids: Sequence[str]) -> None:
    """Record that these frames will not be asked for."""
    with immediate(connection):
        connection.executemany(
            "UPDATE finding SET want_open = 0 WHERE event_id = ?", [(event_id,) for event_id in event_ids]
        )


def overdue_wants(
    connection: sqlite3.Connection, *, asked_before_ms: int, alive_since_ms: int, limit: int
) -> list[Overdue]:
    """Return wants asked before then, of devices that are online or were heard since then, at most `limit` a device."""
    rows = connection.execute(
        "SELECT event_id, site, device FROM"
        " (SELECT f.event_id, f.site, f.device,"
        "   row_number() OVER (PARTITION BY f.site, f.device ORDER BY f.asked_at_ms, f.id) AS place"
        "  FROM device d JOIN finding f ON f.site = d.site AND f.device = d.device"
        "  WHERE f.frame_state = 'wanted' AND f.asked_at_ms < ? AND (d.online OR d.heartbeat_at_ms >= ?))"
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
    """Call the frames gone that were wanted before then and never came; return how many."""
    with immediate(connection):
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
