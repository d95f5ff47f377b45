"""What is right and what is wrong in an annotator's boxes, for every format alike. Pure.

Two judges: `strict` takes a file by itself, `judge` holds it against the batch that it answers. Both find every fault
before they refuse, and name each with its place.

Laws:

1. What is refused is refused whole: either every box of every image stands, or none.
2. A repair never guesses: a box is cut at the border of its image, turned so that its first corner is the upper left
   one, or dropped where it repeats another box (same label, IoU >= `DOUBLE_IOU`) or has under 3 x 3 px left inside the
   image, where nobody can see it. A wrong name, label or size and what is no number stay faults.
3. Every repair is told, by image.
"""

import difflib
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.contract.errors import UnusableError
from edge.detector.detections import Floats, box_iou
from hub.annotation import CONTEXT, MAX_SIDE_PX, MIN_SIDE_PX, AnnotatedImage, Annotation, AnnotationSet, Xyxy
from hub.drawn import DrawnBox, DrawnImage, DrawnSet, Fault, Faults

DOUBLE_IOU: Final = 0.95
SAME_IOU: Final = 0.99
ROUNDING_PX: Final = 0.1
MAX_TOLD: Final = 20
MAX_BOXES: Final = 2000  # of an image; pairs of them are compared, several annotators' at a time

_FEW: Final = 200  # images among which a similar name is looked for
_SUFFIX: Final = re.compile(r"\.(jpe?g|png|bmp|webp|tiff?)$", re.IGNORECASE)
_OURS: Final = re.compile(r"([0-9]{4,12})-([0-9]{1,12})-(?:test|train)-")


class FaultsError(UnusableError):
    """Labels that cannot be taken. As text: a line for each of the first faults, then how many more there are.

    Attributes:
        faults: all of them, in the order of the file.
    """

    def __init__(self, faults: Sequence[Fault]) -> None:
        more = len(faults) - MAX_TOLD
        super().__init__("\n".join([*map(str, faults[:MAX_TOLD]), *[f"and {more} more"] * (more > 0)]))
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an annotator was asked.

    Attributes:
        batch_id: the batch's number.
        sizes: width and height of each image of the batch, by its name, in pixels.
        labels: those that may be drawn.
        context: by image, boxes of other labels that were shown and are not to be drawn again.
        gone: ranks of the batch whose images are here no more.
        label_pass: the pass, which has one label; empty: all labels at once.
    """

    batch_id: int
    sizes: Mapping[str, tuple[int, int]]
    labels: tuple[str, ...]
    context: Mapping[str, Sequence[Annotation]]
    gone: frozenset[int] = frozenset()
    label_pass: str = ""


@dataclass(frozen=True, slots=True)
class Judged:
    """What was found right.

    Attributes:
        boxes: of each image that was answered, by the batch's name of it; without score and origin.
        fixed: what was repaired, a line for each image.
        forgotten: how many images were passed over because they are here no more.
    """

    boxes: dict[str, tuple[Annotation, ...]]
    fixed: tuple[str, ...]
    forgotten: int


def strict(drawn: DrawnSet) -> AnnotationSet:
    """Return a file's boxes, judged by the file alone; labels that it does not declare are those that occur.

    Raises `FaultsError` with every fault in it, and `UnusableError` for a doubled image or label.
    """
    faults = Faults(drawn.faults)
    found = {box.label for image in drawn.images for box in image.boxes}
    labels = tuple(sorted(found)) if drawn.labels is None else drawn.labels
    images = []
    for image in drawn.images:
        with faults.at(image.place):
            if image.width is None or image.height is None:
                msg = f"the size of {image.name} is not known"
                raise UnusableError(msg)
            boxes = []
            for box in image.boxes:
                with faults.at(box.place, image.name):
                    _require_known(box.label, labels)
                    boxes.append(Annotation(box.xyxy, box.label, box.score, box.origin))
                    boxes[-1].require_inside(image.width, image.height)
            if not faults:
                images.append(AnnotatedImage(image.name, image.width, image.height, tuple(boxes)))
    if faults:
        raise FaultsError(faults)
    return AnnotationSet(labels, tuple(images))


def judge(images: Sequence[DrawnImage], asked: Asked, *, fix: bool) -> tuple[Judged, Faults]:
    """Hold what one annotator drew against what was asked; with `fix`, repair what is safe. Nothing is raised."""
    faults = Faults()
    known = {_stem(name): name for name in asked.sizes}
    answered: dict[str, str] = {}
    boxes: dict[str, tuple[Annotation, ...]] = {}
    fixed: list[str] = []
    forgotten = 0
    for image in images:
        name = known.get(_stem(image.name))
        if name is None:
            if _is_gone(image.name, asked):
                forgotten += 1
            else:
                faults.append(Fault(image.place, "", _unknown_image(image.name, asked)))
        elif name in answered:
            faults.append(Fault(image.place, name, f"the image was there before: {answered[name]}"))
        elif (size := asked.sizes[name]) != (image.width or size[0], image.height or size[1]):
            says = f"the file says {image.width} x {image.height}, the image is {size[0]} x {size[1]}"
            faults.append(Fault(image.place, name, f"{says}: its boxes would lie wrong"))
        else:
            reading = _Reading(name, size, asked, faults, fix=fix)
            boxes[name] = reading.boxes_of(image)
            fixed += reading.told()
        if name is not None:
            answered.setdefault(name, image.place)
    return Judged(boxes, tuple(fixed), forgotten), faults


def overlap(boxes: Sequence[Xyxy], others: Sequence[Xyxy]) -> Floats:
    """Return the IoU of each box with each other one, `[n, m]`."""
    return box_iou(np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(others, np.float32).reshape(-1, 4))


class _Reading:
    """One image on its way: what was repaired so far, and where."""

    def __init__(self, name: str, size: tuple[int, int], asked: Asked, faults: Faults, *, fix: bool) -> None:
        self._name = name
        self._size = size
        self._asked = asked
        self._faults = faults
        self._fix = fix
        self._repairs: defaultdict[str, list[str]] = defaultdict(list)

    def boxes_of(self, image: DrawnImage) -> tuple[Annotation, ...]:
        if len(image.boxes) > MAX_BOXES:
            says = f"{len(image.boxes):,} boxes; an image can have {MAX_BOXES:,}"
            self._faults.append(Fault(image.place, self._name, says))
            return ()
        kept: list[tuple[Annotation, DrawnBox]] = []
        for box in image.boxes:
            if not self._is_context(box) and (taken := self._taken(box)) is not None:
                kept += self._undoubled(taken, box, kept)
        return tuple(box for box, _ in kept)

    def told(self) -> list[str]:
        repairs = [f"{what} ({', '.join(places)})" for what, places in self._repairs.items()]
        return [f"{self._name}: {'; '.join(repairs)}"] * bool(repairs)

    def _taken(self, box: DrawnBox) -> Annotation | None:
        """Return the box as it is stored; None where it is a fault, or repaired away."""
        try:
            _require_known(box.label, self._asked.labels, label_pass=self._asked.label_pass)
            _require_finite(box)
        except UnusableError as error:
            self._faults.append(Fault(box.place, self._name, str(error)))
            return None
        right = _cut(_turned(box.xyxy), self._size)
        try:
            taken = Annotation(_rounded_in(box.xyxy, self._size), box.label)
            taken.require_inside(*self._size)
        except UnusableError as error:
            if not self._fix:
                self._faults.append(Fault(box.place, self._name, str(error), fixable=True))
                return None
        else:
            return taken
        if min(round(right[2] - right[0], 2), round(right[3] - right[1], 2)) < MIN_SIDE_PX:
            self._repaired("dropped, under 3 x 3 px inside the image", box)
            return None
        self._repaired("cut at the border" if right != _turned(box.xyxy) else "corners put in order", box)
        return Annotation(right, box.label)

    def _undoubled(
        self, taken: Annotation, box: DrawnBox, kept: Sequence[tuple[Annotation, DrawnBox]]
    ) -> list[tuple[Annotation, DrawnBox]]:
        """Return the box unless it repeats one that was kept."""
        same = [(other, first) for other, first in kept if other.label == taken.label]
        iou = overlap([taken.xyxy], [other.xyxy for other, _ in same])[0]
        if not same or iou.max() < DOUBLE_IOU:
            return [(taken, box)]
        if self._fix:
            self._repaired("double dropped", box)
        else:
            first = _short(same[int(iou.argmax())][1].place)
            says = f"{taken} is drawn twice; the first is at {first}"
            self._faults.append(Fault(box.place, self._name, says, fixable=True))
        return []

    def _is_context(self, box: DrawnBox) -> bool:
        """Whether the box was only shown: of a label that is not asked for, and of an earlier pass."""
        if box.label in self._asked.labels or self._name not in self._asked.context:
            return False
        shown = [one.xyxy for one in self._asked.context[self._name] if one.label == box.label]
        sane = all(abs(value) < MAX_SIDE_PX for value in box.xyxy)
        return box.origin == CONTEXT or (sane and bool((overlap([box.xyxy], shown) >= SAME_IOU).any()))

    def _repaired(self, what: str, box: DrawnBox) -> None:
        self._repairs[what].append(_short(box.place))


def _require_known(label: str, labels: Sequence[str], *, label_pass: str = "") -> None:
    if label in labels:
        return
    if label_pass:
        msg = f"this is pass {label_pass}: {label!r} is not asked for"
        raise UnusableError(msg)
    folded = {one.casefold(): one for one in labels}
    near = difflib.get_close_matches(label.casefold(), folded, n=1, cutoff=0.5)
    meant = f"; did you mean {folded[near[0]]!r}?" if near else ""
    msg = f"label {label!r} is not one of {', '.join(labels[:10]) or 'none'}{', ...' * (len(labels) > 10)}{meant}"
    raise UnusableError(msg)


def _require_finite(box: DrawnBox) -> None:
    if not all(map(math.isfinite, box.xyxy)):
        msg = f"{box.label} {box.xyxy} is not four finite numbers"
        raise UnusableError(msg)


def _unknown_image(name: str, asked: Asked) -> str:
    if (ours := _OURS.match(name)) and int(ours[1]) != asked.batch_id:
        return f"{name} is of batch {int(ours[1])}, this is batch {asked.batch_id}"
    stems = {_stem(one): one for one in asked.sizes} if len(asked.sizes) <= _FEW else {}
    near = difflib.get_close_matches(_stem(name), stems, n=1, cutoff=0.8)
    meant = f"; did you mean {stems[near[0]]}?" if near else ""
    return f"{name} is no image of batch {asked.batch_id}{meant}"


def _is_gone(name: str, asked: Asked) -> bool:
    ours = _OURS.match(name)
    return ours is not None and int(ours[1]) == asked.batch_id and int(ours[2]) in asked.gone


def _stem(name: str) -> str:
    return _SUFFIX.sub("", name).casefold()


def _short(place: str) -> str:
    return place.rpartition(": ")[2]


def _turned(xyxy: Xyxy) -> Xyxy:
    x1, y1, x2, y2 = xyxy
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _cut(xyxy: Xyxy, size: tuple[int, int]) -> Xyxy:
    (x1, y1, x2, y2), (width, height) = xyxy, size
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def _rounded_in(xyxy: Xyxy, size: tuple[int, int]) -> Xyxy:
    """Return the box without what a tool's rounding puts outside."""
    cut = _cut(xyxy, size)
    return cut if max(abs(a - b) for a, b in zip(cut, xyxy, strict=True)) <= ROUNDING_PX else xyxy
