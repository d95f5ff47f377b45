"""How sure a model's opinion of an image is, and when it is wrong. Pure.

An opinion has boxes with scores, also those that are hardly believed. A calibration says how likely a box of a score is
right; those that are right rather than not are the machine's labels. The confidence of an image is the probability that
each of its boxes is rightly kept or rightly dropped.

Laws:

1. An image is right when the machine's boxes match the true ones one to one: IoU >= `MATCH_IOU`, same label, none
   missing, none extra. Without any box on both sides it is right.
2. Every image has a confidence, 0..1; without any box it is 1.
3. A calibration is fitted on images that certify nothing: see hub.autolabel.
"""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.detector.detections import Floats, box_iou
from hub.annotation import Annotation

MATCH_IOU: Final = 0.6
MACHINE: Final = "machine"
SLOPE: Final = 3.0
_PRIOR: Final = 2.0  # how much the prior weighs, as boxes of an even chance
_LEAST_SLOPE: Final = 0.5
_STEPS: Final = 30
_EDGE: Final = 1e-4  # of a score, off 0 and 1

Boxes = Sequence[Annotation]


@dataclass(frozen=True, slots=True)
class Calibration:
    """How likely a box is right by its score: a logistic curve over the score's log odds.

    Attributes:
        middle: the score at which half are right; from there on a box is a label.
        slope: how fast the odds grow with the odds of the score.
        boxes: that it was fitted on; 0: the model's own threshold and the usual slope.
    """

    middle: float
    slope: float = SLOPE
    boxes: int = 0

    def probability(self, score: float) -> float:
        """Return how likely a box of this score is right."""
        return 1 / (1 + math.exp(-self.slope * (_log_odds(score) - _log_odds(self.middle))))


def confidence(boxes: Boxes, calibration: Calibration) -> float:
    """Return how likely every box is rightly kept or dropped, 0..1. Each box has a score."""
    each = (calibration.probability(box.score or 0.0) for box in boxes)
    return math.prod(max(chance, 1 - chance) for chance in each)


def kept(boxes: Boxes, calibration: Calibration) -> tuple[Annotation, ...]:
    """Return the machine's labels: the boxes that are right rather than not, of origin `MACHINE`, with their scores."""
    return tuple(
        Annotation(box.xyxy, box.label, box.score, MACHINE) for box in boxes if (box.score or 0.0) >= calibration.middle
    )


def of_labels(boxes: Boxes, labels: Collection[str]) -> tuple[Annotation, ...]:
    """Return the boxes of these labels."""
    return tuple(box for box in boxes if box.label in labels)


def is_right(machine: Boxes, truth: Boxes) -> bool:
    """Whether the boxes match one to one; see the first law."""
    if len(machine) != len(truth):
        return False
    fits = _fits(machine, truth)
    taken: dict[int, int] = {}  # of the truth, by which of the machine

    def find(one: int, tried: set[int]) -> bool:
        """Kuhn's augmenting path: give `one` a true box, moving others to another where that helps."""
        for other in np.flatnonzero(fits[one]).tolist():
            if other not in tried:
                tried.add(other)
                if other not in taken or find(taken[other], tried):
                    taken[other] = one
                    return True
        return False

    return all(find(one, set()) for one in range(len(machine)))


def best_iou(machine: Boxes, truth: Boxes) -> list[float]:
    """Return for each of the machine's boxes its best IoU with a true one of the same label, 0 without any."""
    overlap = _overlap(machine, truth)
    return [float(row.max(initial=0.0)) for row in overlap]


def outcomes(boxes: Boxes, truth: Boxes) -> list[tuple[float, bool]]:
    """Return the score of each box and whether it is right: best first, each true box once."""
    ordered = sorted(boxes, key=lambda box: -(box.score or 0.0))
    fits, left = _fits(ordered, truth), set(range(len(truth)))
    found = []
    for box, row in zip(ordered, fits, strict=True):
        free = [other for other in np.flatnonzero(row).tolist() if other in left]
        left -= set(free[:1])
        found.append((box.score or 0.0, bool(free)))
    return found


def fitted(seen: Iterable[tuple[float, bool]], prior: Calibration) -> Calibration:
    """Fit scores and whether their boxes were right, by Newton's steps; few boxes stay near the prior."""
    rows = list(seen)
    if not rows:
        return prior
    odds = np.array([_log_odds(score) for score, _ in rows])
    right = np.array([was for _, was in rows], np.float64)
    x = np.stack([odds, np.ones_like(odds)], axis=1)
    start = np.array([prior.slope, -prior.slope * _log_odds(prior.middle)])
    w = start.copy()
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (right - chance) - _PRIOR * (w - start)
        curvature = (x * (chance * (1 - chance))[:, None]).T @ x + _PRIOR * np.eye(2)
        w = w + np.clip(np.linalg.solve(curvature, gradient), -1, 1)
    slope = max(_LEAST_SLOPE, float(w[0]))
    middle = 1 / (1 + math.exp(min(30.0, max(-30.0, float(w[1]) / slope))))
    return Calibration(middle, slope, len(rows))


def _fits(machine: Boxes, truth: Boxes) -> "np.ndarray[tuple[int, ...], np.dtype[np.bool_]]":
    fits: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = _overlap(machine, truth) >= MATCH_IOU
    return fits


def _overlap(machine: Boxes, truth: Boxes) -> Floats:
    """Return `[machine, truth]` IoU, 0 where the labels differ."""
    a, b = (np.array([box.xyxy for box in boxes], np.float32).reshape(-1, 4) for boxes in (machine, truth))
    same = np.array([[one.label == other.label for other in truth] for one in machine], bool)
    overlap: Floats = np.where(same.reshape(len(machine), len(truth)), box_iou(a, b), np.float32(0))
    return overlap


def _log_odds(score: float) -> float:
    score = min(max(score, _EDGE), 1 - _EDGE)
    return math.log(score / (1 - score))
