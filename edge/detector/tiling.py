"""The detector on enlarged tiles of a frame: what the same model sees when it may look closer.

    for tile in tiles((width, height), input_size=detector.input_size):
        x1, y1, x2, y2 = map(int, tile)
        crop = image[y1:y2, x1:x2]        # its boxes lie in the frame after adding (x1, y1, x1, y1)

Laws:

1. Every pixel of the frame is in a tile, and every box of at most `OVERLAP - 2 * CUT` of a tile's sides is whole in
   one.
2. Each object is told once.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.contract.samples import Xyxy
from edge.detector.detections import Detections, Floats, nms
from edge.detector.detector import Detector

OVERLAP: Final = 1 / 3  # of a tile's side, at least
CUT: Final = 0.02  # of a tile's side: a box that ends so near to an inner border is cut by it
DUPLICATE_IOU: Final = 0.5  # boxes of one class in two tiles that overlap more are one object
_LIMIT: Final = 1000  # boxes of a frame

Mask = NDArray[np.bool_]


def detect_tiled(
    detector: Detector, image: NDArray[np.uint8], *, score_threshold: float = 0.05, enlarge: float = 2.0
) -> Detections:
    """Return what the detector sees in a BGR image `[h, w, 3]` as a whole and in enlarged tiles, each object once.

    Boxes in pixels of the image, best first. An object too large for any tile is told by the look at the whole image.
    Raises as `Detector.detect`.
    """
    size = image.shape[1], image.shape[0]
    found = []
    for tile in tiles(size, input_size=detector.input_size, enlarge=enlarge):
        x1, y1, x2, y2 = map(int, tile)
        seen = detector.detect(np.ascontiguousarray(image[y1:y2, x1:x2]), score_threshold=score_threshold).detections
        found.append((tile, Detections(seen.xyxy + np.array([x1, y1, x1, y1], np.float32), seen.score, seen.class_id)))
    whole = detector.detect(image, score_threshold=score_threshold).detections
    return best_once(joined([whole, join_tiles(found)]))


def tiles(size: tuple[int, int], *, input_size: tuple[int, int], enlarge: float = 2.0) -> list[Xyxy]:
    """Return overlapping crops, whole pixels, that cover a frame of (width, height), row by row.

    In a letterboxed input of `input_size` a tile is at least `enlarge` times (linear) as large as in the whole frame's
    pass. Neighbours overlap by at least `OVERLAP` of their sides.
    """
    scale = enlarge * min(input_size[0] / size[0], input_size[1] / size[1])
    columns, rows = (
        _spans(side, math.floor(of_input / scale)) for side, of_input in zip(size, input_size, strict=True)
    )
    return [(x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns]


def _spans(side: int, longest: int) -> list[tuple[float, float]]:
    """Cover 0..side evenly with spans of at most `longest`."""
    length = min(side, max(1, longest))
    overlap = min(length - 1, math.ceil(OVERLAP * length))
    count = math.ceil((side - overlap) / (length - overlap))
    starts = [i * (side - length) // max(1, count - 1) for i in range(count)]
    return [(float(start), float(start + length)) for start in starts]


def join_tiles(found: Sequence[tuple[Xyxy, Detections]]) -> Detections:
    """Return what the tiles of one frame show, best first, each object once.

    `found` has every tile of the frame, with its boxes in pixels of the frame. A box that ends at a tile's inner border
    is dropped: an object of usual size stands whole in another tile, and of a larger one it is only a part.
    """
    grid = [tile for tile, _ in found]
    every = joined(
        detections.take(is_whole(detections.xyxy, tile, grid=grid)) for tile, detections in found if len(detections)
    )
    return best_once(every)


def best_once(every: Detections) -> Detections:
    """Return the boxes best first; of those of one class on one object the best stays."""
    best_first = np.argsort(-every.score, kind="stable")
    return nms(every.take(best_first), iou_threshold=DUPLICATE_IOU, limit=_LIMIT)


def is_whole(xyxy: Floats, tile: Xyxy, *, grid: Sequence[Xyxy]) -> Mask:
    """Return `[n]`: which boxes the tile shows off its inner borders. The border of all tiles is no inner one."""
    low, high = np.array(tile[:2]), np.array(tile[2:])
    corners = np.array(grid)
    margin = CUT * (high - low)
    low = np.where(low > corners[:, :2].min(axis=0), low + margin, -np.inf)
    high = np.where(high < corners[:, 2:].max(axis=0), high - margin, np.inf)
    x1, y1, x2, y2 = xyxy.T
    whole: Mask = (x1 > low[0]) & (y1 > low[1]) & (x2 < high[0]) & (y2 < high[1])
    return whole


def joined(several: Iterable[Detections]) -> Detections:
    """Return all boxes of several looks, in their order."""
    parts = [Detections(), *several]
    return Detections(
        np.concatenate([one.xyxy for one in parts]),
        np.concatenate([one.score for one in parts]),
        np.concatenate([one.class_id for one in parts]),
    )
