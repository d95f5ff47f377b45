"""SQL of retention: which frames have stayed long enough, and giving their space back to the file system.

Laws:

1. A frame of a batch, or one that is labelled, is never deleted, also when that was done a moment ago. Findings stay as
   rows, in their groups; their `frame_state` becomes `gone`, so that no want asks for them again.
2. First the frames that came too long ago, then, while all frames are more than allowed, the oldest.
3. One piece is one short transaction. Whatever stops the work between two leaves a sound database, and starting again
   finishes it.

The age of a frame is that of its finding's arrival: a device's clock may be wrong.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from hub.store_rows import immediate

PIECE_FRAMES: Final = 256
PIECE_BYTES: Final = 8_000_000
PIECE_PAGES: Final = 1024
Frame = tuple[int, int]
"""Number of the finding, bytes."""

_OLDEST: Final = (
    "SELECT id, frame_bytes FROM finding INDEXED BY finding_present WHERE frame_state = 'present' AND id > ?"
    " AND {age} AND NOT EXISTS (SELECT 1 FROM batch_member m WHERE m.event_id = finding.event_id)"
    " AND NOT EXISTS (SELECT 1 FROM label_image i WHERE i.event_id = finding.event_id)"
    f" ORDER BY id LIMIT {PIECE_FRAMES}"
)
_TOO_OLD: Final = _OLDEST.format(age="received_at_ms < ?")
_YOUNGER: Final = _OLDEST.format(age="received_at_ms >= ?")


class Swept(NamedTuple):
    """What was, or would be, deleted."""

    frames: int = 0
    bytes: int = 0


def frames_total(connection: sqlite3.Connection) -> Swept:
    """Return all frames that are here."""
    row = connection.execute(
        "SELECT count(*), coalesce(sum(frame_bytes), 0) FROM finding INDEXED BY finding_present"
        " WHERE frame_state = 'present'"
    ).fetchone()
    return Swept(*row)


def due(connection: sqlite3.Connection, *, came_before_ms: int, most_bytes: int) -> Iterator[list[Frame]]:
    """Yield the frames that are to go, oldest first, a piece at a time. Frames may be deleted between two pieces."""
    total_bytes = frames_total(connection).bytes
    for piece in _pieces(connection, _TOO_OLD, came_before_ms):
        total_bytes -= sum(size for _, size in piece)
        yield piece
    for piece in _pieces(connection, _YOUNGER, came_before_ms):
        going = []
        for finding_id, size in piece:
            if total_bytes <= most_bytes:
                break
            total_bytes -= size
            going.append((finding_id, size))
        if going:
            yield going
        if total_bytes <= most_bytes:
            return


def _pieces(connection: sqlite3.Connection, query: str, came_ms: int) -> Iterator[list[Frame]]:
    after = 0
    while rows := connection.execute(query, (after, came_ms)).fetchall():
        piece: list[Frame] = []
        size = 0
        for row in rows:
            if piece and size + row[1] > PIECE_BYTES:
                break
            piece.append(row)
            size += row[1]
        after = piece[-1][0]
        yield piece


def delete_frames(connection: sqlite3.Connection, frames: Sequence[Frame]) -> Swept:
    """Delete these frames in one transaction; those that have come into a batch meanwhile stay."""
    numbers = msgspec.json.encode([finding_id for finding_id, _ in frames]).decode()
    with immediate(connection):
        gone = connection.execute(
            "UPDATE finding SET frame_state = 'gone', want_open = 0 WHERE id IN (SELECT value FROM json_each(?))"
            " AND frame_state = 'present' AND NOT EXISTS (SELECT 1 FROM batch_member m"
            "  WHERE m.event_id = finding.event_id)"
            " AND NOT EXISTS (SELECT 1 FROM label_image i WHERE i.event_id = finding.event_id)"
            " RETURNING id, frame_bytes",
            (numbers,),
        ).fetchall()
        connection.executemany("DELETE FROM frame WHERE finding_id = ?", [(finding_id,) for finding_id, _ in gone])
    return weigh(gone)


def weigh(frames: Sequence[Frame]) -> Swept:
    """Return what deleting these would bring."""
    return Swept(len(frames), sum(size for _, size in frames))


def free_pages(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many pages of the file are free, and how many it has."""
    free: int = connection.execute("PRAGMA freelist_count").fetchone()[0]
    pages: int = connection.execute("PRAGMA page_count").fetchone()[0]
    return free, pages


def give_back(connection: sqlite3.Connection, *, spare: float) -> Iterator[int]:
    """Cut free pages off the file until they are no more than this share of it; yield the bytes of each piece.

    What is left is used again by what comes in.
    """
    page_bytes: int = connection.execute("PRAGMA page_size").fetchone()[0]
    while True:
        free, pages = free_pages(connection)
        if free <= spare * pages:
            break
        connection.execute(f"PRAGMA incremental_vacuum({PIECE_PAGES})").fetchall()
        cut = pages - free_pages(connection)[1]
        if cut <= 0:
            break
        yield cut * page_bytes
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def prune_marks(connection: sqlite3.Connection, *, heard_before_ms: int) -> None:
    """Delete the counts of recall from before then, also those of devices that are heard no more.

    The mark of a device's present boot stays: without it, its next count would be added from its start.
    """
    with immediate(connection):
        connection.execute(
            "DELETE FROM recall_mark WHERE heard_at_ms < ? AND (site, device, boot_id) NOT IN"
            " (SELECT site, device, boot_id FROM device WHERE boot_id IS NOT NULL)",
            (heard_before_ms,),
        )
        connection.execute("DELETE FROM recall_hour WHERE hour_ms < ?", (heard_before_ms,))
