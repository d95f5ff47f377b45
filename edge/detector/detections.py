"""Detections of one frame: three arrays of the same length, checked once."""

from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a detector reports on one frame.

    Attributes:
        xyxy: `[n, 4]` float32, pixels of the original frame.
        score: `[n]` float32, 0..1, in descending order as the detector gives them.
        class_id: `[n]` int32, index into the model's labels.
    """

    xyxy: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    score: Floats = field(default_factory=lambda: np.zeros(0, np.float32))
    class_id: Ints = field(default_factory=lambda: np.zeros(0, np.int32))

    def __post_init__(self) -> None:
        """Raise `ValueError` unless the shapes agree."""
        n = len(self.score)
        if self.xyxy.shape != (n, 4) or self.score.shape != (n,) or self.class_id.shape != (n,):
            msg = (
                f"expected xyxy [n, 4], score [n], class_id [n]; "
                f"got {self.xyxy.shape}, {self.score.shape}, {self.class_id.shape}"
            )
            raise ValueError(msg)

    def __len__(self) -> int:
        """Return the number of boxes."""
        return len(self.score)

    def take(self, index: NDArray[np.bool_] | NDArray[np.intp] | slice) -> "Detections":
        """Return the boxes that a mask, an index array or a slice names."""
        return Detections(self.xyxy[index], self.score[index], self.class_id[index])


def box_iou(a: Floats, b: Floats) -> Floats:
    """Return the IoU of every box of `a` `[n, 4]` with every box of `b` `[m, 4]`, `[n, m]` float32."""
    if len(a) == 0 or len(b) == 0:
        return np.zeros((len(a), len(b)), np.float32)
    ax1, ay1, ax2, ay2 = a.T[:, :, None]
    bx1, by1, bx2, by2 = b.T
    both = np.maximum(np.minimum(ax2, bx2) - np.maximum(ax1, bx1), 0.0)
    both *= np.maximum(np.minimum(ay2, by2) - np.maximum(ay1, by1), 0.0)
    union = (ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - both
    iou: Floats = both / np.maximum(union, np.finfo(np.float32).tiny)
    return iou


def nms(detections: Detections, *, iou_threshold: float, limit: int) -> Detections:
    """Drop each box that overlaps a better one of its own class by more than `iou_threshold`.

    `detections` stand in descending order of score, and so does the answer, of at most `limit` boxes. A box that is
    not finite overlaps nothing.
    """
    finite = np.isfinite(detections.xyxy.sum(axis=1) + detections.score)
    index = np.flatnonzero(finite)
    if len(index) < 2:
        return detections.take(slice(limit))
    corners = detections.xyxy[index]
    corners -= corners.min()  # OpenCV keeps classes apart by moving them, which needs coordinates from 0 up
    xywh = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    suppress: Any = cv2.dnn.NMSBoxesBatched  # its stub knows lists only; it takes arrays
    every_score = -1.0
    kept = suppress(xywh, detections.score[index], detections.class_id[index], every_score, iou_threshold)
    keep = ~finite
    keep[index[np.asarray(kept, np.intp)]] = True
    return detections.take(np.flatnonzero(keep)[:limit])
