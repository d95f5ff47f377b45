"""What stands in an annotator's file, as it stands there: boxes of any numbers under any names, each with its place.

Every format reads into this one form and judges nothing. What of a file cannot be a box at all (a polygon, a row of six
columns, a word where a number belongs) becomes a fault beside the rest, so that one reading finds all of them. What is
right and what is wrong is hub.label_faults' to say. This module opens nothing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from edge.contract.errors import UnusableError
from edge.contract.samples import plain_text
from hub.annotation import Xyxy

_MAX_NAME: Final = 200
_MAX_SAYS: Final = 800


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong at one place of a file, in plain text: names come from outside and may hold anything.

    Attributes:
        place: the file, and the line, the number of the annotation, or the task and region in it.
        image: the name that the file gives; empty where it is about none.
        says: what is wrong.
        fixable: `--fix` would repair it.
    """

    place: str
    image: str
    says: str
    fixable: bool = False

    def __post_init__(self) -> None:
        for name, most in (("place", _MAX_NAME), ("image", _MAX_NAME), ("says", _MAX_SAYS)):
            object.__setattr__(self, name, plain_text(getattr(self, name), most=most))

    def __str__(self) -> str:
        return f"{self.place}, image {self.image}: {self.says}" if self.image else f"{self.place}: {self.says}"


class Faults(list[Fault]):
    """The faults of one reading, gathered on the way."""

    @contextmanager
    def at(self, place: str, image: str = "") -> Iterator[None]:
        """Gather an `UnusableError` raised inside as a fault of this place, and go on behind the block."""
        try:
            yield
        except UnusableError as error:
            self.append(Fault(place, image, str(error)))


@dataclass(frozen=True, slots=True)
class DrawnBox:
    """One box as a file has it.

    Attributes:
        xyxy: pixels of the image; any numbers, not finite ones among them.
        label: any text.
        place: see `Fault`.
        score: any number.
        origin: any text.
    """

    xyxy: Xyxy
    label: str
    place: str
    score: float | None = None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """One image as a file has it, looked at by one annotator.

    Attributes:
        name: without folders.
        place: see `Fault`.
        width, height: pixels; None where the file does not say.
        boxes: in the order of the file.
        annotator: where the file says who drew; else empty.
    """

    name: str
    place: str
    width: int | None
    height: int | None
    boxes: tuple[DrawnBox, ...] = ()
    annotator: str = ""


@dataclass(frozen=True, slots=True)
class DrawnSet:
    """The whole of a file or folder.

    Attributes:
        images: in the order of the file; one may occur several times, of several annotators or by mistake.
        labels: that the file declares, in its order: what the annotator could draw. None where it declares none.
        faults: what could not be read as a box or an image.
        unanswered: names of images that stand in the file and that nobody says to have looked at.
        notes: what whoever imports it should know, a sentence each.
    """

    images: tuple[DrawnImage, ...]
    labels: tuple[str, ...] | None = None
    faults: tuple[Fault, ...] = ()
    unanswered: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
