"""SQL of `hub check`: every law that can be read off a database, proved row by row."""

import hashlib
import sqlite3
from collections.abc import Iterator
from typing import Final

import msgspec

from edge.contract.errors import WeakspotError
from edge.contract.policy import decode_policy
from edge.contract.samples import Finding
from hub.annotation import Annotation
from hub.images import require_jpeg
from hub.store_forgotten import traces
from hub.tags import join_tags
from hub.testshare import is_test

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
        "a group with a missed finding has no sighting of it",
        (
            "SELECT DISTINCT f.group_id FROM finding f WHERE f.reason = 'missed' AND f.group_id IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM sighting s WHERE s.group_id = f.group_id AND s.kind = 'missed')"
        ),
    ),
    (
        "a sighting is not of its finding's group",
        "SELECT s.id FROM sighting s JOIN finding f ON f.id = s.finding_id WHERE f.group_id IS NOT s.group_id",
    ),
    (
        "a batch does not have the size it says",
        (
            "SELECT b.id FROM batch b LEFT JOIN batch_member m ON m.batch_id = b.id"
            " GROUP BY b.id HAVING b.size <> count(m.event_id) + b.forgotten"
            " OR coalesce(max(m.rank), 0) > b.size OR b.forgotten = 0 AND max(m.rank) < b.size"
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
        "the findings of a device are not as many, or as large, as were counted",
        (
            "SELECT DISTINCT site || '/' || device FROM"
            " (SELECT c.site, c.device, c.frame_state, c.reason, c.findings, c.bytes FROM finding_count c EXCEPT"
            "  SELECT site, device, frame_state, reason, count(*), sum(frame_bytes) FROM finding GROUP BY 1, 2, 3, 4)"
            " UNION SELECT site || '/' || device FROM"
            " (SELECT site, device, frame_state, reason, count(*), sum(frame_bytes) FROM finding GROUP BY 1, 2, 3, 4"
            "  EXCEPT SELECT site, device, frame_state, reason, findings, bytes FROM finding_count)"
        ),
    ),
    (
        "an image of a batch is on the wrong side of the test share",
        (
            "SELECT m.event_id FROM batch_member m JOIN finding f ON f.event_id = m.event_id"
            " WHERE m.test <> is_test(f.site, f.device, f.camera, f.captured_at_ms)"
        ),
    ),
    (
        "an image of a batch is labelled and is not of the batch",
        (
            "SELECT i.event_id FROM label_image i JOIN label_set s ON s.id = i.set_id WHERE s.batch_id IS NOT NULL"
            " AND NOT EXISTS (SELECT 1 FROM batch_member m WHERE (m.event_id, m.batch_id) = (i.event_id, s.batch_id))"
            " AND NOT EXISTS (SELECT 1 FROM honeypot h WHERE (h.event_id, h.batch_id) = (i.event_id, s.batch_id))"
        ),
    ),
    (
        "a labelled image has no frame",
        (
            "SELECT DISTINCT i.event_id FROM label_image i JOIN finding f ON f.event_id = i.event_id"
            " WHERE f.frame_state <> 'present'"
        ),
    ),
    (
        "a label set has no image",
        "SELECT id FROM label_set WHERE id NOT IN (SELECT set_id FROM label_image)",
    ),
    (
        "a dataset version holds a picture of what was forgotten",
        "SELECT version_id FROM dataset_image WHERE event_id NOT IN (SELECT event_id FROM finding)",
    ),
    (
        "a want is marked without a time",
        "SELECT event_id FROM finding WHERE frame_state = 'wanted' AND (wanted_at_ms IS NULL OR asked_at_ms IS NULL)",
    ),
)

STATED_COLUMNS: Final = (
    "event_id, site, device, camera, reason, severity, label, captured_at_ms, x1, y1, x2, y2, width, height,"
    " track, tags, crop_hash, frame_hash, features, model, frame_bytes, frame_sha256"
)
_finding_decoder = msgspec.json.Decoder(Finding)
_boxes_decoder = msgspec.json.Decoder(tuple[Annotation, ...])
_labels_decoder = msgspec.json.Decoder(tuple[str, ...])


def violations(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield one sentence a violation. Reads the whole database, frames too, in one read transaction."""
    connection.create_function("is_test", 4, _is_test, deterministic=True)
    connection.execute("BEGIN")
    try:
        yield from _integrity(connection)
        for law, query in _RULES:
            for (what,) in connection.execute(query):
                yield f"{law}: {what}"
        yield from traces(connection)
        yield from _headers(connection)
        yield from _frames(connection)
        yield from _policies(connection)
        yield from _boxes(connection)
    except sqlite3.DatabaseError as error:
        yield f"the file is damaged, and the rest of it cannot be checked: {error}"
    finally:
        connection.rollback()


def _is_test(site: str, device: str, camera: str, captured_at_ms: int) -> bool:
    return is_test(site=site, device=device, camera=camera, captured_at_ms=captured_at_ms)


def _integrity(connection: sqlite3.Connection) -> Iterator[str]:
    for (text,) in connection.execute("PRAGMA integrity_check(20)"):
        if text != "ok":
            yield f"the file is damaged: {' '.join(text.split())}"
    for table, row, parent, _ in connection.execute("PRAGMA foreign_key_check"):
        yield f"row {row} of {table} points to a row of {parent} that does not exist"


def _policies(connection: sqlite3.Connection) -> Iterator[str]:
    for site, device, payload in connection.execute("SELECT site, device, payload FROM policy"):
        try:
            decode_policy(payload)
        except WeakspotError as error:
            yield f"the policy of {f'{site} {device}'.rstrip()} cannot be read: {error}"


def _boxes(connection: sqlite3.Connection) -> Iterator[str]:
    """Everything drawn can be read, lies in its image, and has a label that was looked for."""
    rows = connection.execute(
        "SELECT i.set_id, i.event_id, i.boxes, s.labels, f.width, f.height FROM label_image i"
        " JOIN label_set s ON s.id = i.set_id JOIN finding f ON f.event_id = i.event_id"
    )
    for set_id, event_id, boxes, labels, width, height in rows:
        try:
            drawn = _boxes_decoder.decode(boxes)
            known = _labels_decoder.decode(labels)
            for box in drawn:
                box.require_inside(width, height)
        except (msgspec.DecodeError, WeakspotError) as error:
            yield f"what label set {set_id} has of {event_id}: {error}"
            continue
        if odd := sorted({box.label for box in drawn} - set(known)):
            yield f"label set {set_id} has {odd[0]!r} on {event_id}, which was not looked for"
    query = "SELECT '{}', event_id, boxes, width, height FROM {} JOIN finding USING (event_id)"
    for what, event_id, boxes, width, height in connection.execute(
        f"{query.format('known answer', 'honeypot')} UNION ALL {query.format('opinion', 'opinion')}"
    ):
        try:
            for box in _boxes_decoder.decode(boxes):
                box.require_inside(width, height)
        except (msgspec.DecodeError, WeakspotError) as error:
            yield f"the {what} on {event_id}: {error}"


def frames_checked(connection: sqlite3.Connection) -> int:
    """Return how many frames `violations` reads."""
    count: int = connection.execute("SELECT count(*) FROM frame").fetchone()[0]
    return count


def _headers(connection: sqlite3.Connection) -> Iterator[str]:
    names = STATED_COLUMNS.split(", ")
    for number, header, *columns in connection.execute(f"SELECT id, header, {STATED_COLUMNS} FROM finding"):
        try:
            stated = stated_columns(_finding_decoder.decode(header))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, TypeError) as error:
            yield f"the header of finding {number} cannot be read: {error}"
            continue
        wrong = [name for name, column, value in zip(names, columns, stated, strict=True) if column != value]
        if wrong:
            yield f"finding {number} is not what its header says: {', '.join(wrong)}"


def stated_columns(finding: Finding) -> tuple[object, ...]:
    """Return the values of `STATED_COLUMNS`: what a finding says about itself."""
    return (
        finding.event_id,
        finding.site,
        finding.device,
        finding.camera,
        finding.reason.value,
        finding.severity,
        finding.label,
        finding.captured_at_ms,
        *finding.region,
        finding.width,
        finding.height,
        finding.track,
        join_tags(finding.tags),
        bytes.fromhex(finding.crop_hash),
        bytes.fromhex(finding.frame_hash),
        finding.features,
        finding.model,
        finding.frame_bytes,
        bytes.fromhex(finding.frame_sha256),
    )


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
