"""The second look: the same detector on enlarged crops of the original frame, up to `MAX_TARGETS` in one inference.

Owns where a crop lies, how crops share one input, and what an inference over them shows. It does not choose what to
look at, and knows neither tracks nor episodes.

Measured with the starter model on `vtest.avi`, people whom the full pass at 256x192 had missed at .4: one crop in an
input finds .81 of them at .3, four crops in one input .73, nine .46; of empty places none finds any. Four at a time
are worth the most for their cost.

Laws:

1. A target that is looked at gets at least twice the input pixels that the full frame gives it.
2. What is seen lies inside the crop, in pixels of the frame.
3. Over any n frames at most `share * n + MAX_SAVED` looks are taken.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.contract.samples import Xyxy
from edge.detector.detections import Detections, Floats
from edge.detector.detector import Detector, Inference
from edge.frame import Image

MAX_TARGETS: Final = 4
MIN_ENLARGEMENT: Final = 1.42
MAX_ENLARGEMENT: Final = 6.0
FILL: Final = 0.6  # of the tile that the target takes; the rest is what stands around it
SIDEWAYS_FILL: Final = 0.75
MAX_SAVED: Final = 2.0
KEEP_SCORE: Final = 0.1
_CUT_PX: Final = 1.0
_PAD_GREY: Final = 114

Size = tuple[int, int]
Corners = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A place that deserves a second look: a frame `[h, w, 3]` and `xyxy` in its pixels."""

    image: Image
    xyxy: Xyxy


@dataclass(frozen=True, slots=True)
class Tile:
    """A crop of a frame, in frame pixels, and its place in the input, in input pixels; whole `xyxy` both."""

    crop: Corners
    place: Corners
    frame_size: Size

    def to_frame(self, xyxy: Floats) -> Floats:
        """Carry boxes `[n, 4]` from input pixels to frame pixels, clipped to the crop."""
        crop, place = np.array(self.crop, np.float32), np.array(self.place, np.float32)
        scale = (crop[2:] - crop[:2]) / (place[2:] - place[:2])
        corners = (xyxy.reshape(-1, 2, 2) - place[:2]) * scale + crop[:2]
        inside: Floats = np.clip(corners, crop[:2], crop[2:]).reshape(-1, 4)
        return inside

    def owned(self, xyxy: Floats) -> NDArray[np.bool_]:
        """Return which input boxes `[n, 4]` are this tile's: centred in it, not cut where the crop cuts the frame."""
        x1, y1, x2, y2 = self.place
        centre = (xyxy[:, :2] + xyxy[:, 2:]) / 2
        inside: NDArray[np.bool_] = np.logical_and((centre >= (x1, y1)).all(axis=1), (centre < (x2, y2)).all(axis=1))
        (left, top, right, bottom), (width, height) = self.crop, self.frame_size
        if left > 0:
            inside &= xyxy[:, 0] >= x1 + _CUT_PX
        if top > 0:
            inside &= xyxy[:, 1] >= y1 + _CUT_PX
        if right < width:
            inside &= xyxy[:, 2] <= x2 - _CUT_PX
        if bottom < height:
            inside &= xyxy[:, 3] <= y2 - _CUT_PX
        return inside


@dataclass(slots=True)
class Budget:
    """How many looks are allowed: `share` of one is earned with every frame, and a few are saved."""

    share: float
    saved: float = 0.0

    def earn(self) -> bool:
        """Count one frame; return whether a look may be taken now."""
        self.saved = min(MAX_SAVED, self.saved + self.share)
        return self.share > 0.0 and self.saved >= 1.0

    def spend(self) -> None:
        """Count one look."""
        self.saved -= 1.0


def can_enlarge(xyxy: Xyxy, frame_size: Size, input_size: Size) -> bool:
    """Return whether a place is small enough for a second look to show more of it than the full frame did."""
    return _crop(xyxy, frame_size, input_size=input_size, cell=input_size) is not None


def look(detector: Detector, targets: Sequence[Target]) -> tuple[list[Detections], Inference | None]:
    """Return what one inference over enlarged crops sees around each of at most `MAX_TARGETS` targets.

    One `Detections` a target, in pixels of its frame, from score `KEEP_SCORE` up, best first; empty where the target
    cannot be enlarged. None for the inference when there was nothing to look at.
    """
    tiles, canvas = compose(targets, input_size=detector.input_size)
    if all(tile is None for tile in tiles):
        return [Detections() for _ in tiles], None
    inference = detector.detect(canvas, score_threshold=KEEP_SCORE)
    return [Detections() if tile is None else _seen(tile, inference.detections) for tile in tiles], inference


def compose(targets: Sequence[Target], *, input_size: Size) -> tuple[list[Tile | None], Image]:
    """Lay the targets' crops side by side into a picture `[h, w, 3]` of the input's size.

    One target gets the whole input, two get half of it each, three or four a quarter; two that can be enlarged in a
    quarter only, as on a wide frame with a square input, get one. A target that cannot be enlarged there has no tile.
    """
    width, height = input_size
    columns = 1 if len(targets) == 1 else 2
    rows = 1 if len(targets) <= 2 else 2
    if len(targets) == 2 and height > width:
        columns, rows = rows, columns
    cell, crops = _crops(targets, input_size=input_size, columns=columns, rows=rows)
    if len(targets) == 2 and None in crops:
        columns = rows = 2
        cell, crops = _crops(targets, input_size=input_size, columns=columns, rows=rows)
    canvas = np.full((height, width, 3), _PAD_GREY, np.uint8)
    tiles: list[Tile | None] = []
    for index, (target, crop) in enumerate(zip(targets, crops, strict=True)):
        if crop is None:
            tiles.append(None)
            continue
        frame_size = (target.image.shape[1], target.image.shape[0])
        left, top = index % columns * cell[0], index // columns * cell[1]
        x1, y1, x2, y2 = crop
        tiles.append(Tile(crop, (left, top, left + cell[0], top + cell[1]), frame_size))
        cv2.resize(
            target.image[y1:y2, x1:x2],
            cell,
            dst=canvas[top : top + cell[1], left : left + cell[0]],
            interpolation=cv2.INTER_LINEAR,
        )
    return tiles, canvas


def fits_quarter(xyxy: Xyxy, frame_size: Size, input_size: Size) -> bool:
    """Return whether a place can share an input with three others."""
    return _crop(xyxy, frame_size, input_size=input_size, cell=(input_size[0] // 2, input_size[1] // 2)) is not None


def _crops(
    targets: Sequence[Target], *, input_size: Size, columns: int, rows: int
) -> tuple[Size, list[Corners | None]]:
    """Return the size of a cell, and the crop of each target in one."""
    cell = (input_size[0] // columns, input_size[1] // rows)
    frame_sizes = [(target.image.shape[1], target.image.shape[0]) for target in targets]
    return cell, [
        _crop(target.xyxy, frame_size, input_size=input_size, cell=cell)
        for target, frame_size in zip(targets, frame_sizes, strict=True)
    ]


def _crop(xyxy: Xyxy, frame_size: Size, *, input_size: Size, cell: Size) -> Corners | None:
    """Return the crop, of the cell's shape, that shows a place in a cell; None when it cannot be enlarged enough."""
    (frame_width, frame_height), (cell_width, cell_height) = frame_size, cell
    x1, y1, x2, y2 = xyxy
    full_scale = min(input_size[0] / frame_width, input_size[1] / frame_height)
    wanted = min(cell_width * SIDEWAYS_FILL / max(1.0, x2 - x1), cell_height * FILL / max(1.0, y2 - y1))
    enlargement = min(wanted / full_scale, MAX_ENLARGEMENT)
    if enlargement < MIN_ENLARGEMENT:
        return None
    scale = enlargement * full_scale
    width, height = math.floor(cell_width / scale), math.floor(cell_height / scale)
    if not (1 <= width <= frame_width and 1 <= height <= frame_height):
        return None
    left = round(min(max(0.0, (x1 + x2 - width) / 2), frame_width - width))
    top = round(min(max(0.0, (y1 + y2 - height) / 2), frame_height - height))
    return left, top, left + width, top + height


def _seen(tile: Tile, found: Detections) -> Detections:
    own = found.take(tile.owned(found.xyxy))
    return Detections(tile.to_frame(own.xyxy), own.score, own.class_id)
