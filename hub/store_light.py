"""SQL of what cameras saw under which light: the newest findings of some cameras, without their pictures."""

import sqlite3
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import Box, Light, Reason, Xyxy

NEWEST: Final = 100_000
"""So many findings are looked at: more would tell the same, and take longer than a freeze may."""

_SEEN: Final = (
    "SELECT id, site || '/' || device || '/' || camera AS place, captured_at_ms, reason, x1, y1, x2, y2, width, height,"
    " tags, frame_state = 'present', header FROM finding"
    " WHERE id > (SELECT coalesce(max(id), 0) FROM finding) - ? AND place IN (SELECT value FROM json_each(?))"
    " ORDER BY id"
)


class SeenRow(NamedTuple):
    """One finding: what the camera's picture was like.

    Attributes:
        number: of the finding.
        camera: "site/device/camera".
        region: `xyxy` pixels of the frame; the whole frame for `control`.
        tags: the device's, words between spaces.
        here: its frame is here.
        light: at the region.
        boxes: of a `control` each has tags of its own.
    """

    number: int
    camera: str
    captured_at_ms: int
    reason: Reason
    region: Xyxy
    width: int
    height: int
    tags: str
    here: bool
    light: Light
    boxes: tuple[Box, ...]


class Lights:
    """What cameras saw. Made by `Store.lights`; it belongs to the store's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def of(self, cameras: Collection[str]) -> Iterator[SeenRow]:
        """Yield the findings of these cameras among the newest `NEWEST`, in the order of coming.

        A camera is "site/device/camera". Raises `UnusableError`.
        """
        asked = msgspec.json.encode(sorted(cameras)).decode()
        for row in self._connection.execute(_SEEN, (NEWEST, asked)):
            try:
                header = _decoder.decode(row[12])
                reason = Reason(row[3])
            except (msgspec.DecodeError, UnicodeDecodeError, ValueError) as error:
                msg = f"finding {row[0]}: its row cannot be read: {error}; `hub check` may say more"
                raise UnusableError(msg) from error
            known = (*row[:3], reason, row[4:8], *row[8:11], bool(row[11]))
            yield SeenRow._make((*known, header.light, header.boxes))

    def frame(self, number: int) -> bytes | None:
        """Return the JPEG of a finding; None when it is not here."""
        row = self._connection.execute("SELECT jpeg FROM frame WHERE finding_id = ?", (number,)).fetchone()
        return None if row is None else bytes(row[0])


class _Header(msgspec.Struct, frozen=True):
    """What is read of a `Finding`: the rest stands in columns."""

    light: Light
    boxes: tuple[Box, ...]


_decoder = msgspec.json.Decoder(_Header)
