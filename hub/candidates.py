"""What findings are to the choice of a batch: how the detector did on them, what they are like, which frame they show.

Law: a frame that cannot be opened, or is black, is never of use, and why stands in the error.
"""

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.samples import Finding, Light, Reason, Xyxy
from hub.export import open_picture
from hub.images import require_jpeg
from hub.likeness import Floats, Trait, log_fraction, unit
from hub.selection import Kind, Pool
from hub.store import Candidate
from hub.tags import join_tags

BLACK_LEVEL: Final = 16  # of 255: brighter is under a hundredth of a black frame

_KINDS: Final = {
    Reason.MISSED: Kind.HARD,
    Reason.SUSPECT: Kind.HARD,
    Reason.LOW_CONFIDENCE: Kind.EASY,
    Reason.CONTROL: Kind.CONTROL,
}
_SIZE_PX: Final = (4.0, 1024.0)
_MAX_CONTRAST: Final = 80.0
_NOISE: Final = (0.5, 32.0)
_SHARPNESS: Final = (1.0, 10_000.0)
_EVERY: Final = 4  # of rows and columns, to see whether a picture is black


class _Framed(Protocol):
    @property
    def site(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def camera(self) -> str: ...
    @property
    def captured_at_ms(self) -> int: ...
    @property
    def frame_sha256(self) -> object: ...


class ObjectOfFrame:
    """An object in a `control` frame, so that tags can be told of it."""

    def __init__(self, frame: Candidate, *, label: str, xyxy: Xyxy, tags: Sequence[str]) -> None:
        self.site, self.device, self.camera = frame.site, frame.device, frame.camera
        self.captured_at_ms, self.label, self.tags = frame.captured_at_ms, label, join_tags(tags)
        x1, y1, x2, y2 = xyxy
        self.place = (x1 / frame.width, y1 / frame.height, x2 / frame.width, y2 / frame.height)


def kind_of(reason: Reason) -> Kind:
    """Return how the detector did: wrong is hard, right or merely unsure is easy, `control` is a kind of its own."""
    return _KINDS[reason]


def camera_of(one: _Framed) -> tuple[str, str, str]:
    """Return whose picture it is."""
    return one.site, one.device, one.camera


def trait_of(row: Candidate, light: Light | None) -> Trait:
    """Return what tells a finding from others; `light` is in its header only."""
    x1, y1, x2, y2 = row.region
    left, top, right, bottom = row.place
    sides = sorted((x2 - x1, y2 - y1))
    return Trait(
        features=row.features,
        space=row.model,
        place=((left + right) / 2, (top + bottom) / 2),
        size=(log_fraction(sides[0], *_SIZE_PX), log_fraction(sides[1], *_SIZE_PX)),
        light=None if light is None else _light(light),
        label=row.label,
        reason=row.reason.value,
    )


def _light(light: Light) -> tuple[float, float, float, float]:
    return (
        light.brightness / 255,
        light.contrast / _MAX_CONTRAST,
        log_fraction(light.noise, *_NOISE),
        log_fraction(light.sharpness, *_SHARPNESS),
    )


def pools(rows: Sequence[Candidate], earlier: Sequence[Candidate], vectors: Floats) -> tuple[Pool, Pool]:
    """Return what may be chosen and what earlier batches have; `vectors` are of both, in this order."""
    both = [*rows, *earlier]
    looks, frames, n = _looks(both), pictures(both), len(rows)
    whole = Pool(
        vectors=vectors,
        severity=[row.severity for row in both],
        camera=[camera_of(row) for row in both],
        group=[row.group_id for row in both],
        frame=frames,
        at_ms=[row.captured_at_ms for row in both],
        kind=[kind_of(row.reason) for row in both],
        looks=looks,
    )
    return whole.take(range(n)), whole.take(range(n, len(both)))


def pictures(rows: Sequence[_Framed]) -> list[int]:
    """Number the pictures: findings share one when a camera captured them at one time, or their frames' bytes agree."""
    known: dict[tuple[object, ...], int] = {}
    numbers = []
    for number, row in enumerate(rows):
        moment = *camera_of(row), row.captured_at_ms
        frame = row.site, row.device, row.frame_sha256
        numbers.append(known.get(moment, known.get(frame, number)))
        known.setdefault(moment, numbers[-1])
        known.setdefault(frame, numbers[-1])
    return numbers


def require_useful(finding: Finding, jpeg: bytes) -> None:
    """Raise `UnusableError` or `UntrustedError` unless an annotator can work on this frame. It is decoded."""
    require_jpeg(jpeg, width=finding.width, height=finding.height, sha256=bytes.fromhex(finding.frame_sha256))
    picture = open_picture(jpeg, width=finding.width, height=finding.height)
    if np.percentile(picture[::_EVERY, ::_EVERY], 99) < BLACK_LEVEL:
        msg = "the picture is black"
        raise UnusableError(msg)


def _looks(rows: Sequence[Candidate]) -> Floats:
    """Return the frames' features at length 1, `[n, k]`; zeros for what has none."""
    out = np.zeros((len(rows), max((len(row.features) for row in rows), default=0)), np.float32)
    for number, row in enumerate(rows):
        out[number, : len(row.features)] = row.features
    return unit(out)
