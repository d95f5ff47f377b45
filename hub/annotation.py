"""Annotations without a format: what an export writes and what an import brings back.

Laws:

1. Coordinates are `xyxy` pixels of the original image, rounded to 0.01 px; scores are rounded to 0.0001. Every format
   carries at least these digits, so that reading what was written gives the same values.
2. A box lies inside its image and is at least 3 x 3 px: annotation tools cannot draw less.
3. Names of images are unique by stem, whatever the case, and the stem has neither dots nor spaces: tools match a frame
   by its name without the last suffix, and some file systems do not tell "A" from "a".

This module checks shapes once and opens nothing.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from edge.contract.errors import UnusableError

MIN_SIDE_PX: Final = 3.0
MAX_SIDE_PX: Final = 65535  # JPEG stores a side in 16 bits

SidePx = Annotated[int, msgspec.Meta(ge=1, le=MAX_SIDE_PX)]
"""A side of an image, as a file states it."""

CARRIED: Final = "carried"
CONTEXT: Final = "context"

Xyxy = tuple[float, float, float, float]

_MAX_TEXT = 64
_IMAGE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.jpg")
_ORIGIN = re.compile(r"[a-z0-9][a-z0-9_.\-]{0,63}")


@contextmanager
def named(place: str) -> Iterator[None]:
    """Put `place` (a file, a line, an image) in front of the message of an `UnusableError` raised inside."""
    try:
        yield
    except UnusableError as error:
        msg = f"{place}: {error}"
        raise UnusableError(msg) from error


def row_order(annotations: Iterable["Annotation"]) -> tuple["Annotation", ...]:
    """Return the annotations row by row from right to left, the order in which people overlook least.

    The topmost box by its vertical centre that is not placed yet opens a row. To its row belongs every box left whose
    vertical centre lies within the height of the opening box, and within whose height lies the centre of the opening
    box. Rows go from top to bottom, boxes in a row by their horizontal centre from right to left. The result does not
    depend on the order of the input.
    """
    left = sorted(annotations, key=_top_down)
    ordered: list[Annotation] = []
    while left:
        first = left[0]
        row = [box for box in left if _side_by_side(first, box)]
        left = [box for box in left if not _side_by_side(first, box)]
        ordered += sorted(row, key=lambda box: (-_centre(box)[0], _top_down(box)))
    return tuple(ordered)


def is_label(label: str) -> bool:
    """Whether every format can carry `label`."""
    return 1 <= len(label) <= _MAX_TEXT and label.isprintable() and label == label.strip()


def require_label(label: str) -> None:
    """Raise `UnusableError` unless `label` is a name that every format can carry."""
    if not is_label(label):
        msg = f"label {label!r} is not 1 to {_MAX_TEXT} printable characters without spaces around them"
        raise UnusableError(msg)


def is_drawable(xyxy: Sequence[float]) -> bool:
    """Whether a box, as it would be written, has the least size that an annotation may have."""
    x1, y1, x2, y2 = (round(float(side), 2) for side in xyxy)
    return round(x2 - x1, 2) >= MIN_SIDE_PX and round(y2 - y1, 2) >= MIN_SIDE_PX


@dataclass(frozen=True, slots=True)
class Annotation:
    """One box in one image. Raises `UnusableError` where law 1 or the size of law 2 cannot be kept.

    Attributes:
        xyxy: pixels of the original image.
        label: the name of the class.
        score: 0..1 for what a machine proposed, None for what a person drew.
        origin: who proposed it: "detector", or the witness that suspects a miss ("gap", "candidate", "motion", "zoom",
            "peer"); `CARRIED` for one of an earlier frame, `CONTEXT` for one of an earlier pass; None for what a person
            drew.
    """

    xyxy: Xyxy
    label: str
    score: float | None = None
    origin: str | None = None

    def __post_init__(self) -> None:
        require_label(self.label)
        if len(self.xyxy) != 4 or not all(math.isfinite(value) for value in self.xyxy):
            msg = f"{self.label} {self.xyxy} is not four finite numbers"
            raise UnusableError(msg)
        x1, y1, x2, y2 = (round(value, 2) + 0.0 for value in self.xyxy)  # + 0.0: no negative zero
        object.__setattr__(self, "xyxy", (x1, y1, x2, y2))
        if not is_drawable(self.xyxy):
            size = f"{round(x2 - x1, 2):g} x {round(y2 - y1, 2):g} px"
            msg = f"{self} is {size}, the least is {MIN_SIDE_PX:g} x {MIN_SIDE_PX:g}"
            raise UnusableError(msg)
        if self.score is not None:
            if not (math.isfinite(self.score) and 0.0 <= self.score <= 1.0):
                msg = f"{self} has the score {self.score}, expected 0 to 1"
                raise UnusableError(msg)
            object.__setattr__(self, "score", round(self.score, 4) + 0.0)
        if self.origin is not None and not _ORIGIN.fullmatch(self.origin):
            msg = f"{self} has the origin {self.origin!r}, expected lower-case letters, digits, '_', '-', '.'"
            raise UnusableError(msg)

    def __str__(self) -> str:
        return f"{self.label} at ({', '.join(f'{value:g}' for value in self.xyxy)})"

    def require_inside(self, width: int, height: int) -> None:
        """Raise `UnusableError` unless the box lies inside an image of this size."""
        x1, y1, x2, y2 = self.xyxy
        if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
            msg = f"{self} lies outside the image of {width} x {height}"
            raise UnusableError(msg)


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """One image and its boxes. Raises `UnusableError` that names the image and the box, counted from 1.

    Attributes:
        name: the file's name, a stem and ".jpg" (law 3).
        width: pixels.
        height: pixels.
        annotations: in the order in which they are listed.
    """

    name: str
    width: int
    height: int
    annotations: tuple[Annotation, ...] = ()

    def __post_init__(self) -> None:
        if not _IMAGE_NAME.fullmatch(self.name):
            msg = f"image {self.name!r}: the name is not letters, digits, '-', '_' and then .jpg"
            raise UnusableError(msg)
        if not (1 <= self.width <= MAX_SIDE_PX and 1 <= self.height <= MAX_SIDE_PX):
            msg = f"image {self.name}: {self.width} x {self.height} is not a size"
            raise UnusableError(msg)
        for number, box in enumerate(self.annotations, 1):
            with named(f"image {self.name}, box {number}"):
                box.require_inside(self.width, self.height)

    @property
    def stem(self) -> str:
        """The name without ".jpg"."""
        return self.name.removesuffix(".jpg")


@dataclass(frozen=True, slots=True)
class AnnotationSet:
    """The images of one batch or data set. Raises `UnusableError` for a doubled name or a label that is not listed.

    Attributes:
        labels: every label that may occur, in a fixed order: the place is the class number of the formats that number.
        images: in a fixed order.
    """

    labels: tuple[str, ...]
    images: tuple[AnnotatedImage, ...]

    def __post_init__(self) -> None:
        for label in self.labels:
            require_label(label)
        if twice := doubled(self.labels):
            msg = f"label {twice!r} is listed twice"
            raise UnusableError(msg)
        if twice := doubled(image.stem.casefold() for image in self.images):
            msg = f"image {twice}.jpg occurs twice"
            raise UnusableError(msg)
        known = frozenset(self.labels)
        for image in self.images:
            for number, box in enumerate(image.annotations, 1):
                if box.label not in known:
                    msg = f"image {image.name}, box {number}: {box} has a label that is not listed"
                    raise UnusableError(msg)


def doubled(names: Iterable[str]) -> str | None:
    """Return the first name that occurs more than once, None when all are unique."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def _centre(box: Annotation) -> tuple[float, float]:
    x1, y1, x2, y2 = box.xyxy
    return (x1 + x2) / 2, (y1 + y2) / 2


def _side_by_side(a: Annotation, b: Annotation) -> bool:
    y_a, y_b = _centre(a)[1], _centre(b)[1]
    return a.xyxy[1] <= y_b <= a.xyxy[3] and b.xyxy[1] <= y_a <= b.xyxy[3]


def _top_down(box: Annotation) -> tuple[float, float, Xyxy, str, float, str]:
    x, y = _centre(box)
    return y, -x, box.xyxy, box.label, -1.0 if box.score is None else box.score, box.origin or ""
