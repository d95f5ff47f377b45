"""SQL of the batches: what may be chosen, and freezing the choice."""

import sqlite3
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.samples import Reason, Xyxy
from hub.store_groups import MACHINE_LABELLED
from hub.store_rows import FINDING_COLUMNS, BatchMember, BatchRow, Features, FindingRow, finding_row
from hub.testshare import is_test

_CANDIDATE: Final = (
    "event_id, site, device, camera, reason, severity, label, captured_at_ms, x1, y1, x2, y2, width, height, tags,"
    " features, model, group_id, frame_sha256"
)
_BATCH: Final = "id, created_at_ms, size, title, weak_spot_id, model, minutes, forgotten, forgotten_honeypots, random"
_MOMENT: Final = "{0}.site || '/' || {0}.device || '/' || {0}.camera || '/' || {0}.captured_at_ms"
_UNLABELLED: Final = (  # one text, not four columns: SQLite looks for those row by row
    f" AND f.group_id NOT IN (SELECT l.group_id {MACHINE_LABELLED})"
    f" AND {_MOMENT.format('f')} NOT IN (SELECT {_MOMENT.format('l')} {MACHINE_LABELLED})"
)


class Candidate(NamedTuple):
    """A finding that may be chosen: a `FindingRow` without its header, of which there may be very many.

    Attributes:
        region: `xyxy` pixels of the original frame.
        tags: the device's, words between spaces.
        features: `[n]` int8, L2-normalised times 127; n may be 0.
        frame_sha256: 32 bytes.
    """

    event_id: str
    site: str
    device: str
    camera: str
    reason: Reason
    severity: float
    label: str
    captured_at_ms: int
    region: Xyxy
    width: int
    height: int
    tags: str
    features: Features
    model: str
    group_id: int
    frame_sha256: bytes

    @property
    def place(self) -> Xyxy:
        """The region in fractions of the frame's width and height."""
        x1, y1, x2, y2 = self.region
        return x1 / self.width, y1 / self.height, x2 / self.width, y2 / self.height


def candidates(connection: sqlite3.Connection, *, machine_labelled: bool = False) -> list[Candidate]:
    """Return one finding of every group that has a frame here and no member in a batch, in order of group.

    Junk does not count, nor does a picture that a batch has of another group. Junk is a black frame, and, `control`
    aside, a flat region, one without area, or one that is the whole frame. What a machine has labelled needs no person:
    it counts with `machine_labelled` only.
    """
    unlabelled = "" if machine_labelled else _UNLABELLED
    rows = connection.execute(
        f"SELECT {_CANDIDATE} FROM finding WHERE id IN (SELECT id FROM"
        " (SELECT f.id, row_number() OVER (PARTITION BY f.group_id"
        "   ORDER BY f.reason = 'control', f.event_id = g.leader_event_id DESC, f.severity DESC, f.id) AS place"
        "  FROM finding f INDEXED BY finding_present JOIN near_duplicate_group g ON g.id = f.group_id"
        "  WHERE f.frame_state = 'present' AND f.frame_hash <> zeroblob(32)"
        "  AND (f.reason = 'control' OR f.crop_hash <> zeroblob(32) AND f.x2 - f.x1 >= 1 AND f.y2 - f.y1 >= 1"
        "   AND NOT (f.x1 <= 0 AND f.y1 <= 0 AND f.x2 >= f.width AND f.y2 >= f.height))"
        "  AND NOT EXISTS (SELECT 1 FROM batch_member m WHERE m.group_id = f.group_id)"
        "  AND (f.site, f.device, f.camera, f.captured_at_ms) NOT IN (SELECT site, device, camera, captured_at_ms"
        "   FROM batch_member m JOIN finding b ON b.event_id = m.event_id)"
        "  AND (f.site, f.device, f.frame_sha256) NOT IN (SELECT site, device, frame_sha256"
        f"   FROM batch_member m JOIN finding b ON b.event_id = m.event_id){unlabelled})"
        " WHERE place = 1) ORDER BY group_id"
    )
    return [_candidate(row) for row in rows]


def machine_labelled(connection: sqlite3.Connection, source: str) -> dict[str, int]:
    """Return the group of each image that a machine has labelled outside any batch in the sets of this source."""
    rows = connection.execute(f"SELECT l.event_id, l.group_id {MACHINE_LABELLED} AND s.source = ?", (source,))
    return dict(rows.fetchall())


def batched(connection: sqlite3.Connection, limit: int) -> list[Candidate]:
    """Return the images of the newest batches, at most `limit`, newest batch first, as candidates once were."""
    rows = connection.execute(
        f"SELECT {_CANDIDATE} FROM (SELECT event_id AS chosen, batch_id, rank FROM batch_member"
        " ORDER BY batch_id DESC, rank LIMIT ?) JOIN finding ON event_id = chosen ORDER BY batch_id DESC, rank",
        (limit,),
    )
    return [_candidate(row) for row in rows]


def on_the_way(connection: sqlite3.Connection) -> list[Candidate]:
    """Return what is asked for and not here yet, of groups that are in no batch; the newest wants first."""
    rows = connection.execute(
        f"SELECT {_CANDIDATE} FROM finding f INDEXED BY finding_wanted WHERE frame_state = 'wanted'"
        " AND NOT EXISTS (SELECT 1 FROM batch_member m WHERE m.group_id = f.group_id) ORDER BY wanted_at_ms DESC, id"
    )
    return [_candidate(row) for row in rows]


def _candidate(row: tuple[Any, ...]) -> Candidate:
    try:
        known = Reason(row[4]), np.frombuffer(row[15], np.int8)
    except (ValueError, TypeError) as error:
        msg = f"finding {row[0]}: its row is damaged: {error}"
        raise UnusableError(msg) from error
    return Candidate._make((*row[:4], known[0], *row[5:8], row[8:12], *row[12:15], known[1], *row[16:]))


def freeze_batch(connection: sqlite3.Connection, members: Sequence[BatchMember], batch: BatchRow) -> int:
    """Store a batch for good and return its number. Within a transaction.

    What is decided here, whatever the arguments say: `batch.id`, `batch.size`, and the members' `test` and `rank`.
    """
    if not members:
        msg = "a batch needs at least one image"
        raise UnusableError(msg)
    batch_id: int = connection.execute(
        "INSERT INTO batch (created_at_ms, size, title, weak_spot_id, model, random) VALUES (?, ?, ?, ?, ?, ?)"
        " RETURNING id",
        (batch.created_at_ms, len(members), batch.title, batch.weak_spot_id, batch.model, batch.random),
    ).fetchone()[0]
    for rank, member in enumerate(members, start=1):
        taken = connection.execute(
            "SELECT site, device, camera, captured_at_ms FROM finding"
            " WHERE event_id = ? AND group_id = ? AND frame_state = 'present'",
            (member.event_id, member.group_id),
        ).fetchone()
        if taken is None:
            msg = f"{member.event_id} has no frame here, or is not of group {member.group_id}"
            raise UnusableError(msg)
        site, device, camera, captured_at_ms = taken
        test = is_test(site=site, device=device, camera=camera, captured_at_ms=captured_at_ms)
        try:
            connection.execute(
                "INSERT INTO batch_member (batch_id, rank, event_id, group_id, why, gain, test)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (batch_id, rank, member.event_id, member.group_id, member.why, member.gain, test),
            )
        except sqlite3.IntegrityError as error:
            msg = f"group {member.group_id} is already in a batch"
            raise UnusableError(msg) from error
    return batch_id


def batches(connection: sqlite3.Connection) -> list[BatchRow]:
    """Return every batch, oldest first."""
    return [_batch_row(row) for row in connection.execute(f"SELECT {_BATCH} FROM batch ORDER BY id")]


def batch(connection: sqlite3.Connection, batch_id: int) -> BatchRow:
    """Return one batch. Raises `UnusableError` when there is none of that number."""
    row = connection.execute(f"SELECT {_BATCH} FROM batch WHERE id = ?", (batch_id,)).fetchone()
    if row is None:
        msg = f"there is no batch {batch_id}: `hub batch list` names those there are"
        raise UnusableError(msg)
    return _batch_row(row)


def batch_members(connection: sqlite3.Connection, batch_id: int) -> list[BatchMember]:
    """Return the members of a batch in order of rank."""
    rows = connection.execute(
        "SELECT event_id, group_id, why, gain, test, rank FROM batch_member WHERE batch_id = ? ORDER BY rank",
        (batch_id,),
    )
    return [BatchMember(r[0], r[1], r[2], r[3], test=bool(r[4]), rank=r[5]) for r in rows]


def _batch_row(row: tuple[Any, ...]) -> BatchRow:
    return BatchRow(*(*row[:-1], bool(row[-1])))


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
