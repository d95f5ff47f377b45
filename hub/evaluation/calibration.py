"""Whether a score means what it says: the detection expected calibration error (D-ECE) of Kueppers et al. 2020.

    Multivariate Confidence Calibration for Object Detection, CVPR workshops 2020

Boxes are put into bins, and in each bin the mean score is held against the share that is right (IoU .5). D-ECE is the
mean of the differences, each bin weighing as much as it holds. Bins by score alone, by score and place, and by score
and size; in the last two, bins with fewer than `LEAST` boxes are left out, as in the paper.
"""

from typing import Final

import msgspec
import numpy as np

from hub.evaluation.columns import SIZES, Columns
from hub.evaluation.matching import RIGHT, UNCOUNTED, Matches
from hub.label_table import Floats, Ints

FROM_SCORE: Final = 0.05
"""The lowest score that a device looks at."""
BINS: Final = 10
LEAST: Final = 8
_PLACES: Final = 3  # along each side of the picture


class Bin(msgspec.Struct, frozen=True, kw_only=True):
    """Boxes of about one score.

    Attributes:
        score: their mean.
        right: the share of them that is right.
    """

    low: float
    high: float
    boxes: int
    score: float
    right: float


class Reliability(msgspec.Struct, frozen=True, kw_only=True):
    """How well the scores of a look are calibrated, 0..1, 0 is best; None without boxes.

    Attributes:
        boxes: from `FROM_SCORE` up.
        by_score, by_place, by_size: D-ECE over these bins.
        from_threshold: D-ECE by score of the boxes from the working threshold up.
        said, right: of these, the mean score and the share that is right.
        bins: by score, those that hold a box.
    """

    boxes: int
    by_score: float | None
    by_place: float | None
    by_size: float | None
    from_threshold: float | None
    said: float | None
    right: float | None
    bins: tuple[Bin, ...]


def reliability(columns: Columns, matches: Matches, *, score_threshold: float) -> Reliability:
    """Measure the calibration of one look."""
    rows = (matches.state != UNCOUNTED) & (columns.score >= FROM_SCORE)
    score, right = columns.score[rows], (matches.state[rows] == RIGHT).astype(np.float64)
    step = np.minimum((score * BINS).astype(np.int64), BINS - 1)
    sides = np.array([(one.width, one.height) for one in columns.members], np.float64).reshape(-1, 2)
    middle = (columns.box_xyxy[rows, :2] + columns.box_xyxy[rows, 2:]) / 2 / sides[columns.box_image[rows]]
    place = np.clip((middle * _PLACES).astype(np.int64), 0, _PLACES - 1) @ np.array([_PLACES, 1])
    high = score >= score_threshold
    return Reliability(
        boxes=len(score),
        by_score=d_ece(score, right, step, least=1),
        by_place=d_ece(score, right, step * _PLACES**2 + place, least=LEAST),
        by_size=d_ece(score, right, step * len(SIZES) + columns.box_size[rows], least=LEAST),
        from_threshold=d_ece(score[high], right[high], step[high], least=1),
        said=float(score[high].mean()) if high.any() else None,
        right=float(right[high].mean()) if high.any() else None,
        bins=tuple(
            Bin(
                low=at / BINS,
                high=(at + 1) / BINS,
                boxes=int(mine.sum()),
                score=float(score[mine].mean()),
                right=float(right[mine].mean()),
            )
            for at in range(BINS)
            if (mine := step == at).any()
        ),
    )


def d_ece(score: Floats, right: Floats, bins: Ints, *, least: int) -> float | None:
    """Return the D-ECE over bins with at least so many boxes; None where there is none."""
    _, code, boxes = np.unique(bins, return_inverse=True, return_counts=True)
    kept = boxes >= least
    if not kept.any():
        return None
    gap = np.abs(np.bincount(code, score) - np.bincount(code, right))  # times the boxes of the bin
    return float(gap[kept].sum() / boxes[kept].sum())
