"""Human errors planted in true annotations: what `bench_audit` looks for again.

- missing: boxes left out, the small and those that others overlap more often (weight `(1 + overlapped) / sqrt(side)`).
- swapped: another label, half of the time one of the same kind (truck for car), else any.
- badly_placed: moved along one axis by .3 to .5 of the side.
- extra: the box of some object of the data, of a label that the image has, put on background (IoU < .1 with all).

A bad image has one kind of error, on one of its boxes or, where there are many, on about a tenth.
"""

from typing import NamedTuple

import numpy as np

from edge.detector.detections import box_iou
from hub.annotation import Annotation
from hub.evidence import corners

KINDS = ("missing", "swapped", "badly_placed", "extra")
SHARE = 0.21
ALIKE = (
    ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    ("traffic light", "fire hydrant", "stop sign", "parking meter", "bench"),
    ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    ("backpack", "umbrella", "handbag", "tie", "suitcase"),
    ("frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard"),
    ("surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl"),
    ("banana", "apple", "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake"),
    ("chair", "couch", "potted plant", "bed", "dining table", "toilet"),
    ("tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink"),
    ("refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)


class Image(NamedTuple):
    """One image: its size, the labels that were looked for, its annotations."""

    size: tuple[int, int]
    labels: frozenset[str]
    boxes: tuple[Annotation, ...]


class Planted(NamedTuple):
    """Annotations with errors: what is there now, and what was done. `box` is the wrong one; of `missing` the lost."""

    boxes: tuple[Annotation, ...]
    faults: tuple[tuple[str, Annotation], ...]


def plant(images: dict[str, Image], *, seed: int, share: float = SHARE) -> dict[str, Planted]:
    """Return the annotations with errors in `share` of the images."""
    rng = np.random.default_rng(seed)
    names = sorted(images)
    every = [box for name in names for box in images[name].boxes]
    bad = set(rng.choice(names, round(share * len(names)), replace=False))
    planted = {}
    for name in names:
        planted[name] = Planted(images[name].boxes, ())
        if name in bad:
            tries = (_WAYS[kind](images[name], every, rng) for kind in rng.permutation(KINDS))
            planted[name] = next((done for done in tries if done is not None), planted[name])
    return planted


def _missing(image: Image, every, rng) -> Planted | None:
    boxes = image.boxes
    if not boxes:
        return None
    xyxy = corners(boxes)
    among = box_iou(xyxy, xyxy)
    np.fill_diagonal(among, 0)
    side = np.sqrt((xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1))
    weight = (1.0 + (among > 0.05).any(axis=1)) / np.sqrt(np.maximum(side, 8))
    lost = set(rng.choice(len(boxes), _count(boxes, rng), replace=False, p=weight / weight.sum()).tolist())
    kept = tuple(box for at, box in enumerate(boxes) if at not in lost)
    return Planted(kept, tuple(("missing", boxes[at]) for at in sorted(lost)))


def _swapped(image: Image, every, rng) -> Planted | None:
    def swap(box: Annotation) -> Annotation | None:
        others = sorted(image.labels - {box.label})
        kin = [other for group in ALIKE if box.label in group for other in group if other in others]
        if not others:
            return None
        pool = kin if kin and rng.random() < 0.5 else others
        return Annotation(box.xyxy, pool[rng.integers(len(pool))])

    return _replaced(image, "swapped", swap, rng)


def _badly_placed(image: Image, every, rng) -> Planted | None:
    def move(box: Annotation) -> Annotation | None:
        (x1, y1, x2, y2), (width, height) = box.xyxy, image.size
        for _ in range(20):
            by = rng.uniform(0.3, 0.5) * rng.choice([-1, 1])
            dx, dy = (by * (x2 - x1), 0.0) if rng.random() < 0.5 else (0.0, by * (y2 - y1))
            moved = max(0.0, x1 + dx), max(0.0, y1 + dy), min(width, x2 + dx), min(height, y2 + dy)
            if min(moved[2] - moved[0], moved[3] - moved[1]) >= 4 and _iou(moved, [box])[0] < 0.6:
                return Annotation(tuple(map(float, moved)), box.label)
        return None

    return _replaced(image, "badly_placed", move, rng)


def _extra(image: Image, every, rng) -> Planted | None:
    width, height = image.size
    labels = sorted({box.label for box in image.boxes} or {box.label for box in every} & image.labels)
    for _ in range(200):
        label = labels[rng.integers(len(labels))]
        shapes = [box.xyxy for box in every if box.label == label]
        x1, y1, x2, y2 = shapes[rng.integers(len(shapes))]
        w, h = x2 - x1, y2 - y1
        if w >= 0.8 * width or h >= 0.8 * height:
            continue
        x, y = rng.uniform(0, width - w), rng.uniform(0, height - h)
        if (_iou((x, y, x + w, y + h), image.boxes) < 0.1).all():
            made = Annotation((x, y, x + w, y + h), label)
            return Planted((*image.boxes, made), (("extra", made),))
    return None


def _replaced(image: Image, kind: str, change, rng) -> Planted | None:
    if not image.boxes:
        return None
    boxes, faults = list(image.boxes), []
    for at in sorted(rng.choice(len(boxes), _count(boxes, rng), replace=False).tolist()):
        changed = change(boxes[at])
        if changed is not None:
            boxes[at] = changed
            faults.append((kind, changed))
    return Planted(tuple(boxes), tuple(faults)) if faults else None


def _count(boxes, rng) -> int:
    return max(1, int(rng.binomial(len(boxes), 0.1)))


def _iou(xyxy, boxes) -> np.ndarray:
    return box_iou(np.float32([xyxy]), corners(boxes))[0]


_WAYS = {"missing": _missing, "swapped": _swapped, "badly_placed": _badly_placed, "extra": _extra}
