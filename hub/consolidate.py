"""Several annotators' boxes of one image as one answer, and where they do not agree. Pure.

Boxes that overlap by IoU >= .5 are one object: the best overlap is joined first, those of one label before those of
two, an annotator gives at most one box to an object, and objects are joined only where their boxes overlap by that much
on average. So two people side by side, drawn by two annotators, stay two.

A box is in the answer when at least half of the annotators drew it. Its label is that of most who drew it, at a tie the
first of the alphabet. Its place is the mean of each coordinate, as in weighted boxes fusion (Solovyev, Wang, Gabruseva
2019) without the weights: a person's box has no score, and every annotator counts alike.

Disputed is what no majority decides: a box that half of the annotators or fewer drew, and a label that half or fewer of
those who drew the box gave it. What two of three drew alike is not disputed: with one box in ten overlooked, a second
look at every such place would be most of the work again.

With two annotators a box that one of them drew is in the answer, and disputed: people overlook more than they invent,
and a doubtful box can be seen and deleted, a missing one cannot. Planted errors (10 % overlooked, 5 % invented, 3 % of
labels swapped, corners off by 4 % of the side and 1 px), 1,000 made images, a third of the objects beside another;
precision, recall and F1 by label and IoU >= .5. One annotator alone: .92 .88 .90.

    in the answer     2 annotators     3 annotators     5 annotators
    any one drew it   .88  .96  .92    .86  .99  .92    .79 1.00  .88
    half drew it      .88  .96  .92    .99  .96  .98   1.00  .99  .99
    more than half    .97  .79  .87    .99  .96  .98   1.00  .99  .99
    all drew it       .97  .79  .87   1.00  .72  .84   1.00  .58  .73

Errors that no dispute points to, of 100 objects: 20 with one annotator, 1.1 with two, .2 with three, .1 with five.
Where a fifth of the objects is hard for all (35 % overlooked, of the others 4 %): 2.9, 1.0, .2, and the rules stand in
the same order. Mean IoU with the truth: .894 with two, .914 with three, .932 with five; the median in place of the mean
comes to .894, .906 and .922. With a tenth of the boxes badly placed it is .898 with three and .916 with five, the
median .895 and .916.

Laws:

1. What one annotator alone drew is the answer, unchanged; so is what all drew alike, without a dispute.
2. The answer does not depend on the order of the annotators or of their boxes.
3. A box counts once: every box is in one object, and an object has at most one of each annotator.
4. A box of the answer lies within the hull of those that it was made from, and so within its image.
5. Who draws the answer itself removes nothing from it. (Where objects overlap much, one more drawing may divide boxes
   otherwise; of 14,657 boxes in simulated crowds none was lost.)
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.detector.detections import Floats, box_iou
from hub.annotation import Annotation, Xyxy

SAME_IOU: Final = 0.5
ENOUGH: Final = 0.5  # of the annotators


@dataclass(frozen=True, slots=True)
class Dispute:
    """A place where annotators do not agree.

    Attributes:
        xyxy: pixels of the image.
        labels: the labels given there, those of most annotators first.
        why: one phrase.
        kept: whether the box is in the answer.
        annotators: who drew it, in the order of the alphabet.
    """

    xyxy: Xyxy
    labels: tuple[str, ...]
    why: str
    kept: bool = False
    annotators: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Consensus:
    """The answer for one image, both in the order of their coordinates."""

    boxes: tuple[Annotation, ...]
    disputes: tuple[Dispute, ...] = ()


def consolidate(drawn: Mapping[str, Sequence[Annotation]]) -> Consensus:
    """Return the answer for one image from what each annotator drew on it, by name."""
    if len(drawn) == 1:
        return Consensus(tuple(*drawn.values()))
    boxes: list[Annotation] = []
    disputes: list[Dispute] = []
    for votes in objects(drawn):
        labels = _by_votes(votes)
        one = _placed(list(votes.values()), labels[0][0])
        kept = len(votes) >= ENOUGH * len(drawn)
        if kept:
            boxes.append(one)
        if why := _why(labels, drew=len(votes), of=len(drawn), kept=kept):
            named = tuple(label for label, _ in labels)
            disputes.append(Dispute(one.xyxy, named, why, kept, tuple(sorted(votes))))
    return Consensus(tuple(sorted(boxes, key=_order)), tuple(sorted(disputes, key=lambda one: (one.xyxy, one.labels))))


def objects(drawn: Mapping[str, Sequence[Annotation]]) -> list[dict[str, Annotation]]:
    """Return the objects of one image, each as annotator to box; every box is in one object."""
    boxes, copies = _listed(drawn)
    owner = [name for name, _ in boxes]
    overlap = _overlaps([box for _, box in boxes])
    object_of = [[number] for number in range(len(boxes))]
    for i, j in _best_first(boxes, overlap, copies):
        one, two = object_of[i], object_of[j]
        if one is two or not {owner[k] for k in one}.isdisjoint(owner[k] for k in two):
            continue
        if sum(float(overlap[k, n]) for k in one for n in two) < SAME_IOU * len(one) * len(two):
            continue
        one += two
        for k in two:
            object_of[k] = one
    firsts = (members for number, members in enumerate(object_of) if min(members) == number)
    return [{owner[k]: boxes[k][1] for k in sorted(members)} for members in firsts]


def _listed(drawn: Mapping[str, Sequence[Annotation]]) -> tuple[list[tuple[str, Annotation]], list[int]]:
    """Return every box with its annotator in an order of its own, and which copy it is of those that one drew twice."""
    listed = sorted(
        ((name, box) for name, boxes in drawn.items() for box in boxes), key=lambda item: (_order(item[1]), item[0])
    )
    seen: defaultdict[tuple[str, Xyxy, str], int] = defaultdict(int)
    copies = []
    for name, box in listed:
        copies.append(seen[name, box.xyxy, box.label])
        seen[name, box.xyxy, box.label] += 1
    return listed, copies


def _overlaps(boxes: Sequence[Annotation]) -> Floats:
    corners = np.array([box.xyxy for box in boxes], np.float32).reshape(-1, 4)
    return box_iou(corners, corners)


def _best_first(
    boxes: Sequence[tuple[str, Annotation]], overlap: Floats, copies: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the pairs that may be one object, the surest first."""
    near = np.argwhere(np.triu(overlap >= SAME_IOU, 1)).tolist()
    pairs = [
        (boxes[i][1].label != boxes[j][1].label, -float(overlap[i, j]), copies[i] + copies[j], i, j)
        for i, j in near
        if boxes[i][0] != boxes[j][0]
    ]
    return [(i, j) for *_, i, j in sorted(pairs)]


def _by_votes(votes: Mapping[str, Annotation]) -> list[tuple[str, int]]:
    """Return the labels with their votes, most first, then by the alphabet."""
    count = Counter(box.label for box in votes.values())
    return sorted(count.items(), key=lambda item: (-item[1], item[0]))


def _placed(boxes: Sequence[Annotation], label: str) -> Annotation:
    """Return the mean of the boxes of one object; rounded outwards, so that it is never under the least size."""
    first, count = boxes[0], len(boxes)
    if all(box == first for box in boxes):
        return first
    sums = [sum(round(box.xyxy[side] * 100) for box in boxes) for side in range(4)]  # hundredths: exact in any order
    x1, y1 = (one // count / 100 for one in sums[:2])
    x2, y2 = (-(-one // count) / 100 for one in sums[2:])
    return Annotation((x1, y1, x2, y2), label)


def _why(labels: Sequence[tuple[str, int]], *, drew: int, of: int, kept: bool) -> str:
    """Return what is not agreed on, empty where a majority says what is there."""
    reasons = []
    if 2 * drew <= of:
        reasons.append(f"{drew} of {of} drew it: {'kept' if kept else 'left out'}")
    if 2 * labels[0][1] <= drew:
        reasons.append(f"{' or '.join(label for label, _ in labels)}: no majority")
    return "; ".join(reasons)


def _order(box: Annotation) -> tuple[Xyxy, str, float, str]:
    return box.xyxy, box.label, -1.0 if box.score is None else box.score, box.origin or ""
