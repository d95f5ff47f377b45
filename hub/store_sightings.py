"""SQL of the sightings: one object once, missed or seen in a frame drawn at random. What the rates are counted over.

`missed`: an event, the first `missed` finding of a near-duplicate group. `found`, `overlooked`: an object of a
`control` frame that was looked at twice, found by the detector or by the second look alone. `seen`: one that the
detector found in a `control` frame without a second look. `found` and `overlooked` say what share of all objects is
missed; `missed` says of what kind the missed ones are, `found` and `seen` of what kind the others.

Laws:

1. A near-duplicate group has at most one `missed` sighting, and has one when a member is a `missed` finding.
2. A sighting is noted in the transaction that groups its finding.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from edge.contract.samples import Finding, WitnessKind
from hub.tags import join_tags

Place = tuple[float, float, float, float]
_COLUMNS: Final = (
    "kind, finding_id, group_id, site, device, camera, label, model, captured_at_ms, x1, y1, x2, y2, tags,"
    " drawn_per_hour"
)
_PAGE: Final = "json_each(?) one JOIN finding f ON f.event_id = one.value"
_finding_decoder = msgspec.json.Decoder(Finding)


class SightingRow(NamedTuple):
    """One object, once.

    Attributes:
        kind: `missed`, `found`, `overlooked` or `seen`.
        place: `xyxy` in fractions of the frame's width and height.
        tags: the device's, words between spaces.
        drawn_per_hour: how many frames like its own the camera drew an hour; 0 of a `missed`.
    """

    kind: str
    finding_id: int
    group_id: int
    site: str
    device: str
    camera: str
    label: str
    model: str
    captured_at_ms: int
    place: Place
    tags: str
    drawn_per_hour: float = 0.0


def note_sightings(connection: sqlite3.Connection, event_ids: Sequence[str]) -> None:
    """Note what findings that have just joined their groups say of objects: the first of a group counts.

    Two statements however many they are: this stands in every transaction of the curator.
    """
    page = (msgspec.json.encode(event_ids).decode(),)
    connection.execute(
        f"INSERT OR IGNORE INTO sighting ({_COLUMNS})"
        " SELECT 'missed', f.id, f.group_id, f.site, f.device, f.camera, f.label, f.model, f.captured_at_ms,"
        " f.x1 / f.width, f.y1 / f.height, f.x2 / f.width, f.y2 / f.height, f.tags, 0"
        f" FROM {_PAGE} WHERE f.reason = 'missed' ORDER BY one.key",
        page,
    )
    controls = connection.execute(
        f"SELECT f.id, f.group_id, f.header FROM {_PAGE} WHERE f.reason = 'control' ORDER BY one.key", page
    ).fetchall()
    for finding_id, group_id, header in controls:
        _note_objects(connection, header, finding_id=finding_id, group_id=group_id)


def _note_objects(connection: sqlite3.Connection, header: bytes, *, finding_id: int, group_id: int) -> None:
    try:
        finding = _finding_decoder.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError):  # `hub check` names it; the group stands without
        return
    width, height = finding.width, finding.height
    reported = "found" if finding.looked_twice else "seen"
    connection.executemany(
        f"INSERT INTO sighting ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                "overlooked" if box.witness is WitnessKind.ZOOM else reported,
                finding_id,
                group_id,
                finding.site,
                finding.device,
                finding.camera,
                box.label,
                finding.model,
                finding.captured_at_ms,
                box.xyxy[0] / width,
                box.xyxy[1] / height,
                box.xyxy[2] / width,
                box.xyxy[3] / height,
                join_tags(box.tags),
                finding.drawn_per_hour,
            )
            for box in finding.boxes
            if box.tags
        ],
    )


def objects(connection: sqlite3.Connection, finding_ids: Sequence[int]) -> list[SightingRow]:
    """Return the objects of `control` frames, by the numbers of their findings."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM sighting WHERE kind <> 'missed' AND finding_id IN (SELECT value FROM json_each(?))",
        (msgspec.json.encode(finding_ids).decode(),),
    )
    return [SightingRow._make((*row[:9], row[9:13], row[13], row[14])) for row in rows]


def sightings(connection: sqlite3.Connection, *, since_ms: int, until_ms: int, limit: int) -> Iterator[SightingRow]:
    """Yield the newest `limit` sightings captured since and until then, newest first."""
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM sighting WHERE captured_at_ms BETWEEN ? AND ?"
        " ORDER BY captured_at_ms DESC, id DESC LIMIT ?",
        (since_ms, until_ms, limit),
    )
    return (SightingRow._make((*row[:9], row[9:13], row[13], row[14])) for row in rows)
