"""Findings and frames as they cross the wire.

Laws:

1. `decode_event(encode_event(finding, jpeg)) == (finding, jpeg)`, likewise for frames.
2. A decoder raises `UnusableError` or `UntrustedError` and nothing else, whatever the bytes.
3. A header is at most `MAX_HEADER_BYTES`; every number in it is finite.
4. A text in it can be shown and written anywhere: see `Text`.

A payload is `MAGIC`, the header's length as an unsigned 32-bit big-endian integer, the JSON header, then the body:
a JPEG (event with `upload = "all"`), a part of a JPEG (frame), or nothing.
"""

import math
import re
import struct
from enum import StrEnum
from typing import Annotated, Final, TypeVar

import msgspec

from edge.contract.errors import UntrustedError, UnusableError

SCHEMA: Final = 1
MAGIC: Final = b"WSP1"
MAX_HEADER_BYTES: Final = 8192
MAX_JPEG_BYTES: Final = 8 * 1024 * 1024
MAX_BOXES: Final = 40

_FAR: Final = 1e9
_PREFIX = struct.Struct(">4sI")
_EVENT_ID = re.compile(r"[0-9a-f]{32}")
_ODD: Final = (  # controls, spaces other than " ", marks that cannot be seen, private and no characters
    r"\x00-\x1f\x7f-\xa0\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e\u2000-\u200f\u2028-\u202f"
    r"\u205f-\u206f\u3000\ud800-\uf8ff\ufeff\ufff0-\ufffb\ufffe\uffff\U000e0000-\U000e007f\U000f0000-\U0010ffff"
)
_ODD_CHARACTER = re.compile(f"[{_ODD}]")
_PLAIN: Final = rf"^(?! )[^{_ODD}]*(?<! )\Z"

Score = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*\Z")]
EventId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=16384)]
Xyxy = tuple[float, float, float, float]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""What every JSON reader and SQLite can hold."""
Text = Annotated[str, msgspec.Meta(max_length=64, pattern=_PLAIN)]
"""Characters that can be seen, and spaces between them: no control characters, no space around. May be empty."""
Label = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_PLAIN)]


class Reason(StrEnum):
    """Why a frame was mined."""

    LOW_CONFIDENCE = "low_confidence"
    MISSED = "missed"
    SUSPECT = "suspect"
    CONTROL = "control"


class WitnessKind(StrEnum):
    """The independent signs that an object was missed.

    `peer` is another model's: while a release is judged, what only the model sees that does not serve. It speaks alone.
    """

    GAP = "gap"
    CANDIDATE = "candidate"
    MOTION = "motion"
    ZOOM = "zoom"
    PEER = "peer"


class Box(msgspec.Struct, frozen=True, omit_defaults=True):
    """One box, `xyxy` in pixels of the original frame.

    Attributes:
        witness: None for what the detector itself reported.
        tags: what the object is like, measured in a `control` frame on each object that counts for the rates; empty
            elsewhere.
    """

    xyxy: Xyxy
    label: Text
    score: Score
    witness: WitnessKind | None = None
    tags: tuple[Text, ...] = ()


class Witness(msgspec.Struct, frozen=True):
    """How strongly one witness claims that an object was missed, 0..1."""

    kind: WitnessKind
    score: Score


class Light(msgspec.Struct, frozen=True):
    """What the picture is like at the region, in grey levels of 0..255."""

    brightness: float
    contrast: float
    noise: float
    sharpness: float


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One mined frame without its pixels: about 1 to 2 KB.

    Attributes:
        event_id: 32 hexadecimal digits, made once on the device; the key of idempotence.
        sequence: number of the frame since the camera was started, from 0.
        captured_at_ms: UTC, milliseconds since 1970.
        severity: 0..1, how much this frame is worth a look.
        score_threshold: from this score on a box of `boxes` is a detection; 0: all of them are.
        refuted: of a `missed`: the second look was taken and saw nothing there.
        region: `xyxy` pixels of the original frame; the whole frame for `control`.
        label: the label suspected in the region; empty when none is.
        boxes: at most `MAX_BOXES`, the detector's own and the witnesses'.
        crop_hash: 256-bit perceptual hash of the region with context, hexadecimal.
        frame_hash: the same of the whole frame.
        track: what the device calls the object that it follows there, unlike any other of its tracks before or after a
            restart; empty where it follows none.
        looked_twice: of a `control`, in which every object that counts for the rates has its tags: the frame was looked
            at enlarged, tile by tile, too, and what only that second look found has the witness `zoom`.
        drawn_per_hour: of a `control`: how many frames an hour the camera drew, on average, when it drew this one.
        features: the model's pooled feature vector, L2-normalised, times 127, as int8; may be empty.
        model: the release that failed.
        frame_bytes: size of the JPEG that the device holds.
    """

    schema: int = SCHEMA
    event_id: EventId
    site: Name
    device: Name
    camera: Name
    sequence: Count
    captured_at_ms: Count
    reason: Reason
    severity: Score
    score_threshold: Score = 0.0
    refuted: bool = False
    region: Xyxy
    label: Text
    boxes: Annotated[tuple[Box, ...], msgspec.Meta(max_length=MAX_BOXES)]
    witnesses: tuple[Witness, ...]
    tags: tuple[Text, ...]
    track: Text = ""
    looked_twice: bool = False
    drawn_per_hour: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    width: Pixels
    height: Pixels
    crop_hash: Sha256
    frame_hash: Sha256
    features: bytes
    light: Light
    model: Text
    frame_bytes: Annotated[int, msgspec.Meta(ge=1, le=MAX_JPEG_BYTES)]
    frame_sha256: Sha256


class FrameHeader(msgspec.Struct, frozen=True, kw_only=True):
    """One part of a frame that the hub wanted, or the word that the device no longer has it (`gone`)."""

    schema: int = SCHEMA
    event_id: EventId
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_JPEG_BYTES)]
    sha256: str
    offset: Annotated[int, msgspec.Meta(ge=0, le=MAX_JPEG_BYTES)] = 0
    gone: Text | None = None


class _Peek(msgspec.Struct):
    schema: int


_T = TypeVar("_T", Finding, FrameHeader)

_finding_decoder = msgspec.json.Decoder(Finding)
_frame_decoder = msgspec.json.Decoder(FrameHeader)
_peek_decoder = msgspec.json.Decoder(_Peek)
_encoder = msgspec.json.Encoder()


def is_event_id(text: str) -> bool:
    """Whether `text` is a well-formed event id."""
    return _EVENT_ID.fullmatch(text) is not None


def plain_text(text: str, *, most: int = 64) -> str:
    """Return `text` as a `Text`: odd characters become spaces, several spaces become one, the rest is cut."""
    return " ".join(_ODD_CHARACTER.sub(" ", text).split())[:most].rstrip()


def encode_event(finding: Finding, jpeg: bytes = b"") -> bytes:
    """Return the payload of an `event` message. Raises `UnusableError` when the header is over its limit."""
    return _join(_encoder.encode(finding), jpeg)


def decode_event(payload: bytes) -> tuple[Finding, bytes]:
    """Return the finding and the JPEG (empty when it did not travel with it)."""
    header, jpeg = _split(payload)
    finding: Finding = _decode(_finding_decoder, header)
    _require_box(finding.region, finding, "region")
    for box in finding.boxes:
        _require_box(box.xyxy, finding, "box")
    light = finding.light
    if not all(math.isfinite(v) for v in (light.brightness, light.contrast, light.noise, light.sharpness)):
        msg = "light is not finite"
        raise UnusableError(msg)
    if jpeg and len(jpeg) != finding.frame_bytes:
        msg = f"JPEG of {len(jpeg)} bytes, the header says {finding.frame_bytes}"
        raise UntrustedError(msg)
    return finding, jpeg


def encode_frame(header: FrameHeader, part: bytes = b"") -> bytes:
    """Return the payload of a `frame` message."""
    return _join(_encoder.encode(header), part)


def decode_frame(payload: bytes) -> tuple[FrameHeader, bytes]:
    """Return the header and the part of the JPEG that starts at `header.offset`."""
    raw, part = _split(payload)
    header: FrameHeader = _decode(_frame_decoder, raw)
    if header.gone is None and (not part or header.offset + len(part) > header.size):
        msg = f"part of {len(part)} bytes at {header.offset} does not fit a frame of {header.size}"
        raise UnusableError(msg)
    return header, part


def _join(header: bytes, body: bytes) -> bytes:
    if len(header) > MAX_HEADER_BYTES:
        msg = f"header of {len(header)} bytes, the limit is {MAX_HEADER_BYTES}"
        raise UnusableError(msg)
    return _PREFIX.pack(MAGIC, len(header)) + header + body


def _split(payload: bytes) -> tuple[bytes, bytes]:
    if len(payload) < _PREFIX.size:
        msg = f"payload of {len(payload)} bytes is too short"
        raise UnusableError(msg)
    magic, length = _PREFIX.unpack_from(payload)
    if magic != MAGIC:
        msg = "payload does not start with the weakspot magic"
        raise UnusableError(msg)
    if length > MAX_HEADER_BYTES:
        msg = f"header of {length} bytes, the limit is {MAX_HEADER_BYTES}"
        raise UnusableError(msg)
    if len(payload) < _PREFIX.size + length:
        msg = f"payload of {len(payload)} bytes ends inside its header of {length}"
        raise UnusableError(msg)
    return payload[_PREFIX.size : _PREFIX.size + length], payload[_PREFIX.size + length :]


def _decode(decoder: msgspec.json.Decoder[_T], header: bytes) -> _T:
    try:
        schema = _peek_decoder.decode(header).schema  # first: another schema explains every other fault
        if schema != SCHEMA:
            msg = f"schema {schema}, this side speaks {SCHEMA}"
            raise UnusableError(msg)
        return decoder.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"header is not valid: {error}"
        raise UnusableError(msg) from error


def _require_box(xyxy: Xyxy, finding: Finding, what: str) -> None:
    x1, y1, x2, y2 = xyxy
    # Every comparison is false for NaN, and one of them for infinity: this runs for every box the hub takes in.
    if not (-_FAR < x1 <= x2 < _FAR and -_FAR < y1 <= y2 < _FAR):
        msg = f"{what} {xyxy} is not finite with its corners in order"
        raise UnusableError(msg)
    if not (x2 > 0 and y2 > 0 and x1 < finding.width and y1 < finding.height):
        msg = f"{what} {xyxy} lies outside the frame of {finding.width}x{finding.height}"
        raise UnusableError(msg)
