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
from hub.likeness import Floats, Traits, log_fraction, unit
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


def traits_of(rows: Sequence[Candidate], lights: Sequence[Light | None] | None = None) -> Traits:
    """Return what tells findings apart; `lights` stand in their headers only. None: these were not read."""
    region = np.array([row.region for row in rows], np.float32).reshape(-1, 4)
    return Traits(
        features=[row.features for row in rows],
        space=[row.model for row in rows],
        place=region / np.array([(row.width, row.height) * 2 for row in rows], np.float32).reshape(-1, 4),
        size_px=region[:, 2:] - region[:, :2],
        label=[row.label for row in rows],
        light=None if lights is None else _light(lights),
    )


def _light(lights: Sequence[Light | None]) -> Floats:
    """Return `[n, 4]` fractions, rows of NaN for None."""
    rows = [
        (np.nan,) * 4 if one is None else (one.brightness, one.contrast, one.noise, one.sharpness) for one in lights
    ]
    brightness, contrast, noise, sharpness = np.array(rows, np.float32).reshape(-1, 4).T
    noise, sharpness = log_fraction(noise, *_NOISE), log_fraction(sharpness, *_SHARPNESS)
    return np.stack([brightness / 255, contrast / np.float32(_MAX_CONTRAST), noise, sharpness], axis=1)


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
