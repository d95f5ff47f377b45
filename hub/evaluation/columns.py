"""Truth and detections as columns: one row a true box, one row a detected box, so that all are matched at once.

Laws:

1. On a picture only the labels are looked at that were looked for there and that the model tells apart; detections of
   any other label are dropped. A label that the model lacks is named, and counts for nothing.
2. Rows stand by picture, then label, detections then best first, at most `MOST` of one label on one picture (as COCO).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from hub.datasets.version import Member
from hub.evaluation.seen import Seen
from hub.label_table import SIZE_EDGES, Floats, Ints, Mask

MOST: Final = 100
SIZES: Final = tuple(SIZE_EDGES)
_EDGES: Final = np.array([low for low, _ in SIZE_EDGES.values()][1:])


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """`[n]` pictures, `[m]` true boxes and `[d]` detected ones, of `k` labels.

    Attributes:
        labels: those that are evaluated, in the model's order.
        lacking: labels that were looked for and that the model lacks.
        looked_for: `[n, k]`.
        image, label, xyxy, ignored: of the true boxes; places, places, pixels of the picture, uncertain ones.
        size: `[m]`, places in `SIZES`: of the shorter side, in pixels of the model's input.
        box_image, box_label, box_xyxy, score, box_size: the same of the detected ones.
    """

    members: tuple[Member, ...]
    labels: tuple[str, ...]
    lacking: tuple[str, ...]
    looked_for: Mask
    image: Ints
    label: Ints
    xyxy: Floats
    ignored: Mask
    size: Ints
    box_image: Ints
    box_label: Ints
    box_xyxy: Floats
    score: Floats
    box_size: Ints

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.members)

    def with_images(self, rows: Ints) -> "Columns":
        """Return the same with only these pictures, ascending, and what is on them."""
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        true = np.flatnonzero(place[self.image] >= 0)
        boxes = np.flatnonzero(place[self.box_image] >= 0)
        some = replace(
            self,
            members=tuple(self.members[row] for row in rows.tolist()),
            looked_for=self.looked_for[rows],
            image=place[self.image[true]],
            label=self.label[true],
            xyxy=self.xyxy[true],
            ignored=self.ignored[true],
            size=self.size[true],
        ).with_boxes(boxes)
        return replace(some, box_image=place[some.box_image])

    def with_boxes(self, rows: Ints) -> "Columns":
        """Return the same with only these rows `[...]` of the detected boxes."""
        return replace(
            self,
            box_image=self.box_image[rows],
            box_label=self.box_label[rows],
            box_xyxy=self.box_xyxy[rows],
            score=self.score[rows],
            box_size=self.box_size[rows],
        )


def columns(
    seen: Sequence[Seen], *, labels: Collection[str] | None = None, input_size: tuple[int, int] | None = None
) -> Columns:
    """Return the columns of one look.

    Args:
        seen: by one model; raises `ValueError` where their labels differ.
        labels: evaluate these only; None: all that the model tells apart.
        input_size: by which sizes are told; None: the model's.
    """
    told = seen[0].labels if seen else ()
    if any(one.labels != told for one in seen):
        msg = "expected pictures that one model looked at"
        raise ValueError(msg)
    wanted = {name for one in seen for name in one.member.labels}
    wanted &= set(wanted if labels is None else labels)
    names = tuple(name for name in told if name in wanted)
    code = {name: at for at, name in enumerate(names)}
    looked_for = np.zeros((len(seen), len(names)), np.bool_)
    for at, one in enumerate(seen):
        looked_for[at, [code[name] for name in one.member.labels if name in code]] = True
    sizes = np.array([(one.member.width, one.member.height) for one in seen], np.float64).reshape(-1, 2)
    inputs = np.array([input_size or one.input_size for one in seen], np.float64).reshape(-1, 2)
    scale = (inputs / sizes).min(axis=1, initial=np.inf)

    true = [(at, code[box.label], *box.xyxy, box.ignored) for at, one in enumerate(seen) for box in one.member.boxes
            if box.label in code]  # fmt: skip
    rows = np.array(true, np.float64).reshape(-1, 7)
    rows = rows[looked_for[rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)]]
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    image, label = rows[:, 0].astype(np.int64), rows[:, 1].astype(np.int64)
    box_image, box_label, box_xyxy, score = _detected(seen, np.array([code.get(name, -1) for name in told], np.int64))
    kept = box_label >= 0
    kept[kept] = looked_for[box_image[kept], box_label[kept]]
    order = np.flatnonzero(kept)
    order = order[np.lexsort((-score[order], box_label[order], box_image[order]))]
    order = order[_rank(box_image[order] * len(names) + box_label[order]) < MOST]
    return Columns(
        members=tuple(one.member for one in seen),
        labels=names,
        lacking=tuple(sorted(wanted - set(told))),
        looked_for=looked_for,
        image=image,
        label=label,
        xyxy=rows[:, 2:6],
        ignored=rows[:, 6].astype(np.bool_),
        size=_size(rows[:, 2:6], scale[image]),
        box_image=box_image[order],
        box_label=box_label[order],
        box_xyxy=box_xyxy[order],
        score=score[order],
        box_size=_size(box_xyxy[order], scale[box_image[order]]),
    )


def _detected(seen: Sequence[Seen], code: Ints) -> tuple[Ints, Ints, Floats, Floats]:
    """Return picture, place of the label or -1, corners and score of all that was detected."""
    image = np.repeat(np.arange(len(seen)), [len(one.detections) for one in seen])
    if not len(image):
        return image, image.copy(), np.zeros((0, 4)), np.zeros(0)
    parts = [one.detections for one in seen]
    label = code[np.concatenate([part.class_id for part in parts])]
    xyxy, score = (
        np.concatenate(of).astype(np.float64) for of in zip(*((p.xyxy, p.score) for p in parts), strict=True)
    )
    return image, label, xyxy, score


def _rank(key: Ints) -> Ints:
    """Return the place of each row among those of its key, which stand together."""
    first = np.flatnonzero(np.r_[True, key[1:] != key[:-1]]) if len(key) else np.zeros(0, np.int64)
    return np.arange(len(key)) - np.repeat(first, np.diff(np.r_[first, len(key)]))


def _size(xyxy: Floats, scale: Floats) -> Ints:
    shorter = (xyxy[:, 2:] - xyxy[:, :2]).min(axis=1, initial=np.inf) * scale
    return np.asarray(np.searchsorted(_EDGES, shorter, "right"))
