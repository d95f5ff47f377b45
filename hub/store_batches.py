"""SQL of the batches: what may be chosen, and freezing the choice."""

import sqlite3
from collections.abc import Sequence

from edge.contract.errors import UnusableError
from hub.store_rows import FINDING_COLUMNS, BatchMember, BatchRow, FindingRow, finding_row, immediate


def candidates(connection: sqlite3.Connection) -> list[FindingRow]:
    """Return one finding of every group that has a frame here and no member in a batch, in order of group.

    `control` and black frames do not count, nor does a picture that a batch has of another group.
    """
    rows = connection.execute(
        f"SELECT {FINDING_COLUMNS} FROM finding WHERE id IN (SELECT id FROM"
        " (SELECT f.id, row_number() OVER (PARTITION BY f.group_id"
        "   ORDER BY f.event_id = g.leader_event_id DESC, f.severity DESC, f.id) AS place"
        "  FROM finding f INDEXED BY finding_present JOIN near_duplicate_group g ON g.id = f.group_id"
        "  WHERE f.frame_state = 'present' AND f.reason <> 'control' AND f.frame_hash <> zeroblob(32)"
        "  AND NOT EXISTS (SELECT 1 FROM batch_member m WHERE m.group_id = f.group_id)"
        "  AND (f.site, f.device, f.camera, f.captured_at_ms) NOT IN (SELECT site, device, camera, captured_at_ms"
        "   FROM batch_member m JOIN finding b ON b.event_id = m.event_id)"
        "  AND (f.site, f.device, f.frame_sha256) NOT IN (SELECT site, device, frame_sha256"
        "   FROM batch_member m JOIN finding b ON b.event_id = m.event_id))"
        " WHERE place = 1) ORDER BY group_id"
    )
    return [finding_row(row) for row in rows]


def freeze_batch(connection: sqlite3.Connection, members: Sequence[BatchMember], batch: BatchRow) -> int:
    """Store a batch for good and return its number; `batch.id` and `batch.size` are made here."""
    if not members:
        msg = "a batch needs at least one image"
        raise UnusableError(msg)
    with immediate(connection):
        batch_id: int = connection.execute(
            "INSERT INTO batch (created_at_ms, size, title, weak_spot_id, model) VALUES (?, ?, ?, ?, ?) RETURNING id",
            (batch.created_at_ms, len(members), batch.title, batch.weak_spot_id, batch.model),
        ).fetchone()[0]
        for rank, member in enumerate(members, start=1):
            fits = connection.execute(
                "SELECT 1 FROM finding WHERE event_id = ? AND group_id = ? AND frame_state = 'present'",
                (member.event_id, member.group_id),
            ).fetchone()
            if fits is None:
                msg = f"{member.event_id} has no frame here, or is not of group {member.group_id}"
                raise UnusableError(msg)
            try:
                connection.execute(
                    "INSERT INTO batch_member (batch_id, rank, event_id, group_id, why, gain, test)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (batch_id, rank, member.event_id, member.group_id, member.why, member.gain, member.test),
                )
            except sqlite3.IntegrityError as error:
                msg = f"group {member.group_id} is already in a batch"
                raise UnusableError(msg) from error
    return batch_id


def batches(connection: sqlite3.Connection) -> list[BatchRow]:
    """Return every batch, oldest first."""
    rows = connection.execute(
        "SELECT id, created_at_ms, size, title, weak_spot_id, model, minutes FROM batch ORDER BY id"
    )
    return [BatchRow(*row) for row in rows]


def batch(connection: sqlite3.Connection, batch_id: int) -> BatchRow:
    """Return one batch. Raises `UnusableError` when there is none of that number."""
    row = connection.execute(
        "SELECT id, created_at_ms, size, title, weak_spot_id, model, minutes FROM batch WHERE id = ?", (batch_id,)
    ).fetchone()
    if row is None:
        msg = f"there is no batch {batch_id}: `hub batch list` names those there are"
        raise UnusableError(msg)
    return BatchRow(*row)


def batch_members(connection: sqlite3.Connection, batch_id: int) -> list[BatchMember]:
    """Return the members of a batch in order of rank."""
    rows = connection.execute(
        "SELECT event_id, group_id, why, gain, test FROM batch_member WHERE batch_id = ? ORDER BY rank", (batch_id,)
    )
    return [BatchMember(r[0], r[1], r[2], r[3], test=bool(r[4])) for r in rows]


def finding(connection: sqlite3.Connection, event_id: str) -> FindingRow:
    """Return one finding. Raises `UnusableError` when there is none of that id."""
    row = connection.execute(f"SELECT {FINDING_COLUMNS} FROM finding WHERE event_id = ?", (event_id,)).fetchone()
    if row is None:
        msg = f"there is no finding {event_id}"
        raise UnusableError(msg)
    return finding_row(row)


def frame(connection: sqlite3.Connection, event_id: str) -> bytes:
    """Return the JPEG of a finding. Raises `UnusableError` when it is not here."""
    row = connection.execute(
        "SELECT jpeg FROM frame JOIN finding ON finding.id = frame.finding_id WHERE event_id = ?", (event_id,)
    ).fetchone()
    if row is None:
        msg = f"the frame of {event_id} is not here"
        raise UnusableError(msg)
    jpeg: bytes = row[0]
    return jpeg
