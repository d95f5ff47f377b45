"""Which detected box is which true one: COCO's greedy matching at one IoU, which serves every threshold of the score.

The best box goes first and takes the free true box of its picture and label that it overlaps most. What scores less
takes nothing away from it, so that the boxes above any threshold are matched as if there were no others.

Laws:

1. A true box is matched at most once, an ignored one as often as it is hit; both as in pycocotools, where an ignored
   box is `iscrowd`: the overlap with it is the share of the detected box that lies in it, and it is taken last.
2. A box that is matched with an ignored one counts for nothing.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hub.evaluation.columns import Columns
from hub.label_table import Floats, Ints, areas, overlaps, pairs

MATCH_IOU: Final = 0.5
RIGHT, WRONG, UNCOUNTED = 1, 0, -1


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """What was matched.

    Attributes:
        state: `[d]`, `RIGHT`, `WRONG` or `UNCOUNTED`.
        truth: `[d]`, the row of its true box, also of an ignored one; -1 without.
        found: `[m]`, the score of the box that each true one was matched with; 0 without.
    """

    state: NDArray[np.int8]
    truth: Ints
    found: Floats


def match(columns: Columns, *, iou: float = MATCH_IOU) -> Matches:
    """Match all pictures at once."""
    k = max(1, len(columns.labels))
    box_key, key = columns.box_image * k + columns.box_label, columns.image * k + columns.label
    some = [_hits(columns, box, true, iou) for box, true in pairs(box_key, key)]
    box, true, overlap = (np.concatenate(of) for of in zip(*some, strict=True)) if some else (_NONE, _NONE, _NONE)
    order = np.lexsort((-true, -overlap, columns.ignored[true], box))  # of equal overlaps pycocotools takes the last
    truth = np.full(len(columns.score), -1, np.int64)
    taken = np.zeros(len(columns.label), np.bool_)
    many = columns.ignored
    for at, other in zip(box[order].tolist(), true[order].tolist(), strict=True):
        if truth[at] < 0 and (many[other] or not taken[other]):
            truth[at] = other
            taken[other] = True
    hit = truth >= 0
    state = np.zeros(len(truth), np.int8)
    state[hit] = np.where(many[truth[hit]], UNCOUNTED, RIGHT)
    found = np.zeros(len(taken))
    right = state == RIGHT
    found[truth[right]] = columns.score[right]
    return Matches(state, truth, found)


_NONE: Final = np.zeros(0, np.int64)


def _hits(columns: Columns, box: Ints, true: Ints, iou: float) -> tuple[Ints, Ints, Floats]:
    """Return those of the pairs that overlap enough, and how much they do."""
    both, overlap = overlaps(columns.box_xyxy[box], columns.xyxy[true])
    ignored = columns.ignored[true]
    overlap[ignored] = both[ignored] / np.maximum(areas(columns.box_xyxy[box[ignored]]), 1e-9)
    enough = overlap >= min(iou, 1 - 1e-10)
    return box[enough], true[enough], overlap[enough]
