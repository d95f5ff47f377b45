"""Which sizes objects have at each place of one camera's picture, learned from its own detections.

Examples are kept in a coarse grid of foot points, the newest few of each cell. A size is plausible at a place when
several examples near it, brought to its distance by the perspective of the picture, are alike; objects of different
kinds may stand in one cell. Where no example is near, the far ones count for half. Rules only: no clock, no I/O.

Laws:

1. Without examples nothing is plausible.
2. An object that stands still fills no cell in less than `CELL_EXAMPLES * EXAMPLE_EVERY_S`.
3. Memory does not grow.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.detector.detections import Floats

GRID: Final = (12, 8)  # rows, columns
CELL_EXAMPLES: Final = 4
EXAMPLE_EVERY_S: Final = 0.5

_BORDER_PX: Final = 2.0  # what touches the border is cut by it
_NEAR: Final = (0.25, 0.08)  # of the picture's width and height
_FAR: Final = 0.5
_FAR_SHARE: Final = 0.5
_ALIKE: Final = (0.5, 0.28)  # of the logarithms of width and height
_ENOUGH_SHARE: Final = 0.2  # of the examples near a place; the rest may be of other kinds
_MIN_FIT_EXAMPLES: Final = 12
_MAX_SCALE: Final = 3.0


class Sizes:
    """The sizes of objects in a picture of `height` x `width` pixels."""

    def __init__(self, height: int, width: int) -> None:
        self._size = (height, width)
        cells = GRID[0] * GRID[1]
        self._examples = np.zeros((cells, CELL_EXAMPLES, 4), np.float32)  # foot x, foot y, width, height
        self._count = np.zeros(cells, np.int64)
        self._learned_s = np.full(cells, -math.inf)
        self._known: Floats = np.zeros((0, 4), np.float32)
        self._line = (1.0, 0.0)

    def learn(self, boxes: Floats, *, time_s: float) -> None:
        """Remember the sizes of boxes `[n, 4]` xyxy, finite, of at least a pixel; those cut by the border are not."""
        height, width = self._size
        changed = False
        for x1, y1, x2, y2 in boxes.tolist():
            if x1 < _BORDER_PX or y1 < _BORDER_PX or x2 > width - _BORDER_PX or y2 > height - _BORDER_PX:
                continue
            row = min(GRID[0] - 1, int(y2 / height * GRID[0]))
            cell = row * GRID[1] + min(GRID[1] - 1, int((x1 + x2) / 2 / width * GRID[1]))
            if time_s - self._learned_s[cell] < EXAMPLE_EVERY_S:
                continue
            self._learned_s[cell] = time_s
            self._examples[cell, self._count[cell] % CELL_EXAMPLES] = ((x1 + x2) / 2, y2, x2 - x1, y2 - y1)
            self._count[cell] += 1
            changed = True
        if changed:
            kept = np.arange(CELL_EXAMPLES) < self._count[:, None]
            self._known = self._examples[kept]
            self._line = _line(self._known)

    def plausible(self, boxes: Floats) -> Floats:
        """Return how plausible each of boxes `[n, 4]` xyxy is by its size and place, `[n]` 0..1."""
        if not len(boxes) or not len(self._known):
            return np.zeros(len(boxes), np.float32)
        height, width = self._size
        x, y, w, h = (_feet(boxes)[:, i, None] for i in range(4))
        ex, ey, ew, eh = self._known.T
        start, slope = self._line
        here, there = np.maximum(start + slope * y, 1.0), np.maximum(start + slope * ey, 1.0)
        scale = np.clip(here / there, 1 / _MAX_SCALE, _MAX_SCALE)
        off_w, off_h = np.log(w / (ew * scale)) / _ALIKE[0], np.log(h / (eh * scale)) / _ALIKE[1]
        alike = np.exp(-0.5 * (off_w**2 + off_h**2))
        off_x, off_y = (x - ex) / width, (y - ey) / height
        near = np.exp(-0.5 * ((off_x / _NEAR[0]) ** 2 + (off_y / _NEAR[1]) ** 2))
        far = np.exp(-0.5 * (off_x**2 + off_y**2) / _FAR**2)
        best: Floats = np.maximum(_supported(alike, near), _FAR_SHARE * _supported(alike, far))
        return best


def _feet(boxes: Floats) -> Floats:
    x1, y1, x2, y2 = boxes.T
    feet: Floats = np.stack([(x1 + x2) / 2, y2, np.maximum(x2 - x1, 1.0), np.maximum(y2 - y1, 1.0)], axis=1)
    return feet


def _supported(alike: Floats, weight: Floats) -> Floats:
    """Return 0..1 for each row: many alike examples, and not too small a share of all."""
    count = (alike * weight).sum(axis=1)
    share = count / np.maximum(weight.sum(axis=1), np.finfo(np.float32).tiny)
    supported: Floats = count / (count + 1) * np.minimum(1, share / _ENOUGH_SHARE)
    return supported


def _line(examples: NDArray[np.float32]) -> tuple[float, float]:
    """Return start and slope of the height over the foot's y; (1, 0) where they cannot be told."""
    y, h = examples[:, 1].astype(np.float64), examples[:, 3].astype(np.float64)
    spread = float(y.var())
    if len(y) < _MIN_FIT_EXAMPLES or spread < 1.0:
        return 1.0, 0.0
    slope = float(((y - y.mean()) * (h - h.mean())).mean()) / spread
    return float(h.mean() - slope * y.mean()), slope
