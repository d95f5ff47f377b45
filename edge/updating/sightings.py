"""What one model has seen of one camera, counted so that an object does not count anew with every frame.

Law: an object is counted once in `STAYS_S` for each kind of counting, and `MOST_TIMES` in all, whether it stands or
moves, as long as its boxes in successive frames overlap and it is not out of sight for `STAYS_S`. Without an end, what
a parked car has of its own would, within an hour, look like what the model has.
"""

from typing import Final

import numpy as np

from edge.contract.judgement import LEAST_BOXES, LOWEST_SCORE, SLACK, STAYS_S, Side, side
from edge.detector.detections import Detections, Floats, box_iou

SAME_OBJECT_IOU: Final = 0.3
MOST_TIMES: Final = LEAST_BOXES  # a camera that sees one parked car, and nothing else, can still be judged by


class Objects:
    """The objects that were in sight lately, each where it was last seen."""

    def __init__(self) -> None:
        self._xyxy: Floats = np.zeros((0, 4), np.float32)
        self._class_id = np.zeros(0, np.int32)
        self._seen_s = np.zeros(0, np.float64)
        self._counted_s = np.zeros(0, np.float64)
        self._times = np.zeros(0, np.int32)

    def count(self, found: Detections, *, time_s: float) -> Detections:
        """Return the boxes of objects that are to be counted now, by the law, and note them."""
        iou = box_iou(found.xyxy, self._xyxy)
        iou[found.class_id[:, None] != self._class_id[None, :]] = 0
        counted_s, times = np.full(len(found), -np.inf), np.zeros(len(found), np.int32)
        gone = np.ones(len(self._xyxy), np.bool_)
        if iou.size:
            nearest = iou.argmax(axis=1)
            same = iou[np.arange(len(found)), nearest] > SAME_OBJECT_IOU
            counted_s[same], times[same] = self._counted_s[nearest[same]], self._times[nearest[same]]
            gone = np.asarray(iou.max(axis=0) <= SAME_OBJECT_IOU)
        due = ~(np.abs(time_s - counted_s) < STAYS_S) & (times < MOST_TIMES)
        counted_s[due] = time_s
        times[due] += 1
        kept = gone & (np.abs(time_s - self._seen_s) < STAYS_S)  # gone from sight for a moment
        self._xyxy = np.concatenate([self._xyxy[kept], found.xyxy])
        self._class_id = np.concatenate([self._class_id[kept], found.class_id])
        self._seen_s = np.concatenate([self._seen_s[kept], np.full(len(found), time_s)])
        self._counted_s = np.concatenate([self._counted_s[kept], counted_s])
        self._times = np.concatenate([self._times[kept], times])
        return found.take(np.flatnonzero(due))


class Sightings:
    """Counts one model's boxes on one camera."""

    def __init__(self, *, score_threshold: float) -> None:
        self._levels = (LOWEST_SCORE, score_threshold - SLACK, score_threshold)
        self._objects = tuple(Objects() for _ in self._levels)

    def count(self, found: Detections, *, time_s: float) -> Side:
        """Return the side of one frame: its boxes that count, nothing else."""
        scores, near, boxes = (
            objects.count(found.take(found.score >= level), time_s=time_s)
            for level, objects in zip(self._levels, self._objects, strict=True)
        )
        counted = side(scores=scores.score.tolist(), threshold=self._levels[-1])
        return Side(boxes=len(boxes), near=max(len(near), len(boxes)), scores=counted.scores)
