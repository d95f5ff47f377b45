"""SQL of the data set's health: every image that anyone has labelled, in one pass over what was committed of it."""

import sqlite3
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import Box, Light, Reason, Xyxy

_LABELLED: Final = (
    "SELECT f.event_id, f.site, f.device, f.camera, f.captured_at_ms, f.reason, f.x1, f.y1, f.x2, f.y2, f.width,"
    " f.height, f.tags, f.frame_hash, f.model, f.group_id, f.frame_state = 'present', m.batch_id, m.test, b.random,"
    " f.header"
    " FROM finding f LEFT JOIN batch_member m ON m.event_id = f.event_id LEFT JOIN batch b ON b.id = m.batch_id"
    " WHERE f.event_id IN (SELECT event_id FROM label_image) ORDER BY f.id"
)


class LabelledRow(NamedTuple):
    """A labelled image: its finding, without what was drawn on it.

    Attributes:
        region: `xyxy` pixels of the frame; the whole frame for `control`.
        tags: the device's, words between spaces.
        frame_hash: 32 bytes; zeros say nothing.
        group_id: its near-duplicate group.
        here: its frame is here.
        batch_id: None where it is in no batch.
        test: as its batch has frozen it; None where it is in no batch.
        random: it is of a batch that was drawn at random.
        light: at the region.
        boxes: what the device had seen, its witnesses' boxes too.
        score_threshold: from this score on a box of the detector is a detection; 0: all of them are.
    """

    event_id: str
    site: str
    device: str
    camera: str
    captured_at_ms: int
    reason: Reason
    region: Xyxy
    width: int
    height: int
    tags: str
    frame_hash: bytes
    model: str
    group_id: int | None
    here: bool
    batch_id: int | None
    test: bool | None
    random: bool
    light: Light
    boxes: tuple[Box, ...]
    score_threshold: float


class Labelled:
    """What is labelled. Made by `Store.labelled`; it belongs to the store's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def images(self) -> Iterator[LabelledRow]:
        """Yield every image that is in a label set, once, in the order of coming. Raises `UnusableError`."""
        for row in self._connection.execute(_LABELLED):
            try:
                header = _decoder.decode(row[20])
                reason = Reason(row[5])
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                msg = f"finding {row[0]}: its row cannot be read: {error}; `hub check` may say more"
                raise UnusableError(msg) from error
            known = (*row[:5], reason, row[6:10], *row[10:16], bool(row[16]), row[17])
            test = None if row[18] is None else bool(row[18])
            yield LabelledRow._make((*known, test, bool(row[19]), header.light, header.boxes, header.score_threshold))


class _Header(msgspec.Struct, frozen=True):
    """What is read of a `Finding`: the rest stands in columns."""

    light: Light
    boxes: tuple[Box, ...]
    score_threshold: float = 0.0


_decoder = msgspec.json.Decoder(_Header)
