"""An annotator: answers an exported batch from known boxes, with the errors that people make, each noted.

It stands where a person with an annotation tool stands: it reads the exported folder and writes the tool's file. What
is known is given by a function from the image's name; who is called in tests and benchmarks says where that comes from.

An image that errs has exactly one fault of a kind, drawn at random:

- `missing`: one box is not drawn; small ones are missed more often (the chance goes with 1 / area).
- `swapped`: one box has another label of the batch. Needs two labels.
- `badly_placed`: one box is off by .3 to .5 of its sides.
- `extra`: one box more, of the size of one that is there, on a place that overlaps none.

All boxes are off by a little (`JITTER` of their sides), as people's are.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge.detector.detections import box_iou
from hub.annotation import MIN_SIDE_PX, AnnotatedImage, Annotation, AnnotationSet

FaultKind = Literal["missing", "swapped", "badly_placed", "extra"]
KINDS: tuple[FaultKind, ...] = ("missing", "swapped", "badly_placed", "extra")
JITTER = 0.02
_TRIES = 200


@dataclass(frozen=True)
class Fault:
    """What was done wrong: where, `xyxy` pixels (of a missing box, the true one)."""

    kind: FaultKind
    xyxy: tuple[float, float, float, float]


def answer(
    exported: AnnotationSet,
    known: Callable[[str], Sequence[Annotation]],
    *,
    rng: np.random.Generator,
    wrong: float = 0.21,
    kinds: Sequence[FaultKind] = KINDS,
) -> tuple[AnnotationSet, dict[str, Fault]]:
    """Return what a person gives back for an exported batch, and the fault of each image that has one.

    `known` gives the true boxes of an image by its name, `wrong` is the share of images with a fault.
    """
    faults: dict[str, Fault] = {}
    images = []
    for image in exported.images:
        boxes = [_jittered(box, image, rng) for box in known(image.name)]
        if rng.random() < wrong:
            for kind in rng.permutation(np.array(kinds)):
                made = plant(boxes, kind, labels=exported.labels, size=(image.width, image.height), rng=rng)
                if made is not None:
                    boxes, faults[image.name] = made
                    break
        images.append(AnnotatedImage(image.name, image.width, image.height, tuple(boxes)))
    return AnnotationSet(exported.labels, tuple(images)), faults


def plant(
    boxes: Sequence[Annotation],
    kind: FaultKind,
    *,
    labels: Sequence[str],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[list[Annotation], Fault] | None:
    """Return the boxes with one fault, and the fault; None where there is nothing that it could be made of."""
    if not boxes:
        return None
    if kind == "extra":
        return _with_extra(boxes, size=size, rng=rng)
    if kind == "missing":
        chances = 1 / np.array([_area(box) for box in boxes])
        at = int(rng.choice(len(boxes), p=chances / chances.sum()))
        return [*boxes[:at], *boxes[at + 1 :]], Fault(kind, boxes[at].xyxy)
    at = int(rng.integers(len(boxes)))
    one = boxes[at]
    if kind == "swapped":
        others = [label for label in labels if label != one.label]
        if not others:
            return None
        changed = Annotation(one.xyxy, others[int(rng.integers(len(others)))])
    else:
        found = _moved(one, size=size, rng=rng)
        if found is None:
            return None
        changed = found
    return [*boxes[:at], changed, *boxes[at + 1 :]], Fault(kind, changed.xyxy)


def by_annotators(
    exported: AnnotationSet, known: Callable[[str], Sequence[Annotation]], *, seeds: Mapping[str, int], wrong: float
) -> dict[str, tuple[AnnotationSet, dict[str, Fault]]]:
    """Return what each of several annotators gives back, by name."""
    return {name: answer(exported, known, rng=np.random.default_rng(seed), wrong=wrong) for name, seed in seeds.items()}


def _with_extra(
    boxes: Sequence[Annotation], *, size: tuple[int, int], rng: np.random.Generator
) -> tuple[list[Annotation], Fault] | None:
    there = np.float32([box.xyxy for box in boxes])
    for _ in range(_TRIES):
        like = boxes[int(rng.integers(len(boxes)))]
        w, h = like.xyxy[2] - like.xyxy[0], like.xyxy[3] - like.xyxy[1]
        if w >= size[0] or h >= size[1]:
            continue
        x, y = rng.uniform(0, size[0] - w), rng.uniform(0, size[1] - h)
        extra = Annotation((x, y, x + w, y + h), like.label)
        if box_iou(np.float32([extra.xyxy]), there).max() < 0.05:
            return [*boxes, extra], Fault("extra", extra.xyxy)
    return None


def _moved(box: Annotation, *, size: tuple[int, int], rng: np.random.Generator) -> Annotation | None:
    w, h = box.xyxy[2] - box.xyxy[0], box.xyxy[3] - box.xyxy[1]
    for _ in range(_TRIES):
        dx, dy = (rng.choice([-1, 1], 2) * rng.uniform(0.3, 0.5, 2) * (w, h)).tolist()
        moved = _cut((box.xyxy[0] + dx, box.xyxy[1] + dy, box.xyxy[2] + dx, box.xyxy[3] + dy), size)
        if _is_large(moved) and box_iou(np.float32([moved]), np.float32([box.xyxy]))[0, 0] < 0.6:
            return Annotation(moved, box.label)
    return None


def _jittered(box: Annotation, image: AnnotatedImage, rng: np.random.Generator) -> Annotation:
    w, h = box.xyxy[2] - box.xyxy[0], box.xyxy[3] - box.xyxy[1]
    moved = np.array(box.xyxy) + rng.normal(0, JITTER, 4) * (w, h, w, h)
    cut = _cut(tuple(moved.tolist()), (image.width, image.height))
    return Annotation(cut, box.label) if _is_large(cut) else Annotation(box.xyxy, box.label)


def _cut(xyxy: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = xyxy
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(size[0])), min(y2, float(size[1]))


def _is_large(xyxy: Sequence[float]) -> bool:
    return min(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]) >= MIN_SIDE_PX + 0.02


def _area(box: Annotation) -> float:
    x1, y1, x2, y2 = box.xyxy
    return (x2 - x1) * (y2 - y1)
