"""SQL of `hub check`: every law that can be read off a database, proved row by row."""

import hashlib
import sqlite3
from collections.abc import Iterator
from typing import Final

from edge.contract.errors import WeakspotError
from hub.images import require_jpeg

_RULES: Final = (
    (
        "a finding says its frame is present and there is none",
        "SELECT event_id FROM finding WHERE frame_state = 'present' AND id NOT IN (SELECT finding_id FROM frame)",
    ),
    (
        "a frame is here and its finding says otherwise",
        "SELECT event_id FROM finding JOIN frame ON finding_id = finding.id WHERE frame_state <> 'present'",
    ),
    (
        "a frame has no finding",
        "SELECT finding_id FROM frame WHERE finding_id NOT IN (SELECT id FROM finding)",
    ),
    (
        "a frame is whole and parts of it are left",
        (
            "SELECT DISTINCT p.event_id FROM frame_part p JOIN finding f ON f.event_id = p.event_id"
            " WHERE f.frame_state = 'present'"
        ),
    ),
    (
        "an event id stands twice (law 3)",
        "SELECT event_id FROM finding GROUP BY event_id HAVING count(*) > 1",
    ),
    (
        "a group's size is not the number of its members",
        (
            "SELECT g.id FROM near_duplicate_group g LEFT JOIN finding f ON f.group_id = g.id"
            " GROUP BY g.id HAVING g.size <> count(f.id)"
        ),
    ),
    (
        "a group's leader is not its member",
        (
            "SELECT g.id FROM near_duplicate_group g LEFT JOIN finding f ON f.event_id = g.leader_event_id"
            " WHERE f.group_id IS NOT g.id"
        ),
    ),
    (
        "a batch does not have the size it says",
        (
            "SELECT b.id FROM batch b LEFT JOIN batch_member m ON m.batch_id = b.id"
            " GROUP BY b.id HAVING b.size <> count(m.event_id) OR b.size <> coalesce(max(m.rank), 0)"
        ),
    ),
    (
        "an image of a batch has no frame, or is of another group",
        (
            "SELECT m.event_id FROM batch_member m JOIN finding f ON f.event_id = m.event_id"
            " WHERE f.frame_state <> 'present' OR f.group_id IS NOT m.group_id"
        ),
    ),
    (
        "a want is marked without a time",
        "SELECT event_id FROM finding WHERE frame_state = 'wanted' AND (wanted_at_ms IS NULL OR asked_at_ms IS NULL)",
    ),
)


def violations(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield one sentence a violation. Reads the whole database, frames too, in one read transaction."""
    connection.execute("BEGIN")
    try:
        yield from _integrity(connection)
        for law, query in _RULES:
            for (what,) in connection.execute(query):
                yield f"{law}: {what}"
        yield from _frames(connection)
    except sqlite3.DatabaseError as error:
        yield f"the file is damaged, and the rest of it cannot be checked: {error}"
    finally:
        connection.rollback()


def _integrity(connection: sqlite3.Connection) -> Iterator[str]:
    for (text,) in connection.execute("PRAGMA integrity_check(20)"):
        if text != "ok":
            yield f"the file is damaged: {' '.join(text.split())}"
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} points to a row of {parent} that does not exist"


def frames_checked(connection: sqlite3.Connection) -> int:
    """Return how many frames `violations` reads."""
    count: int = connection.execute("SELECT count(*) FROM frame").fetchone()[0]
    return count


def _frames(connection: sqlite3.Connection) -> Iterator[str]:
    rows = connection.execute(
        "SELECT event_id, width, height, frame_bytes, frame_sha256, jpeg FROM frame JOIN finding ON id = finding_id"
    )
    for event_id, width, height, frame_bytes, sha256, jpeg in rows:
        if len(jpeg) != frame_bytes:
            yield f"the frame of {event_id} has {len(jpeg)} bytes, its finding says {frame_bytes}"
        elif hashlib.sha256(jpeg).digest() != sha256:
            yield f"the frame of {event_id} does not have the SHA-256 its finding says"
        else:
            try:
                require_jpeg(jpeg, width=width, height=height, sha256=sha256)
            except WeakspotError as error:
                yield f"the frame of {event_id}: {error}"
