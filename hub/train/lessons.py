"""Members become lessons: which pictures a step sees, and how.

Laws:

1. A picture is scaled, coloured and laid out as on the device, by the card: the same bilinear sampling, with its
   aliasing. What varies is where it lies, how large it is, its mirror image and its light.
2. A step's lesson is a function of the seed and the step's number.
3. Shares: people's pictures, the machine's and those for replay each have their places in every batch, so that neither
   drowns the other. A noisy copy takes its original's place half of the time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.contract.card import InputSpec
from edge.detector.letterbox import Size, place
from hub.datasets.version import Member, read_image
from hub.train.lesson import Floats, Lesson
from hub.train.recipe import Recipe

COPIES: Final = 0.5
_GAIN: Final = (0.7, 1.3)  # of a pixel's value, and what is added to it: another hour or another camera
_OFFSET: Final = 15.0
_ROOM_BYTES: Final = 1 << 30  # of decoded pictures

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Exercise:
    """One step.

    Attributes:
        closer: those pictures on which something was not looked for, at twice the size, for the old model; None where
            it looks at the lesson's own.
    """

    lesson: Lesson
    closer: Floats | None


@dataclass(frozen=True, slots=True)
class View:
    """How a picture is shown: what to multiply and add to its pixels, mirrored or not, and its light."""

    scale: tuple[float, float]
    move: tuple[float, float]
    mirrored: bool = False
    gain: float = 1.0
    offset: float = 0.0


class Lessons:
    """The pictures of a split.

    Attributes:
        labelled, replay: the names of the originals on which something was looked for, and of the others.
    """

    def __init__(
        self,
        members: Sequence[Member],
        *,
        folder: Path,
        spec: InputSpec,
        labels: tuple[str, ...],
        input_size: Size,
        recipe: Recipe,
        closer: bool,
        repeat: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """With `closer` the old model looks at twice the size; `repeat` pictures are shown so many times as often."""
        self._members = {member.name: member for member in members}
        self._folder, self._spec, self._input_size, self._recipe = folder, spec, input_size, recipe
        self._class_of = {label: number for number, label in enumerate(labels)}
        self._closer = closer and recipe.closer
        self._images: dict[str, Image] = {}
        self._held_bytes = 0
        self._copies: dict[str, list[str]] = {}
        for member in members:
            if member.copy_of in self._members:
                self._copies.setdefault(member.copy_of, []).append(member.name)
        originals = [member for member in members if member.copy_of not in self._members]
        self.labelled = [member.name for member in originals if member.labels]
        self.replay = [member.name for member in originals if not member.labels]
        taught = [member.name for member in originals if member.labels and member.by == "self"]
        people = [name for name in self.labelled if name not in set(taught)]
        self._groups = self._shares([name for name in people for _ in range(repeat.get(name, 1))], taught)

    def exercise(self, step: int) -> Exercise:
        """Return what a step shows, varied."""
        rng = np.random.default_rng((self._recipe.seed, step))
        names = [self._copy(name, rng) for name in self._names(step)]
        return self._exercise(names, [self._view(self._members[name], rng) for name in names])

    def as_deployed(self, names: Sequence[str]) -> Exercise:
        """Return pictures as the device sees them."""
        return self._exercise(names, [self._deployed(self._members[name]) for name in names])

    def _shares(self, people: list[str], taught: list[str]) -> list[tuple[list[str], int]]:
        """Return the groups and their places in a batch; an empty group leaves its places to the other labelled one."""
        recipe = self._recipe
        of_people = recipe.people if taught else recipe.people + recipe.machine
        of_machine = recipe.machine if people else recipe.people + recipe.machine
        groups = [(people, of_people), (taught, of_machine), (self.replay, recipe.replay)]
        return [(group, places) for group, places in groups if group and places]

    def _names(self, step: int) -> list[str]:
        """Return the originals of a step: each group goes round in an order that is shuffled anew each time."""
        found = []
        for number, (group, places) in enumerate(self._groups):
            for count in range(step * places, (step + 1) * places):
                turn, at = divmod(count, len(group))
                order = np.random.default_rng((self._recipe.seed, number, turn, len(group))).permutation(len(group))
                found.append(group[order[at]])
        return found

    def _exercise(self, names: Sequence[str], views: Sequence[View]) -> Exercise:
        lesson = self._lesson(names, views)
        asked: list[int] = np.flatnonzero(~lesson.looked_for.all(axis=1)).tolist()
        if not (asked and self._closer):
            return Exercise(lesson, None)
        return Exercise(lesson, self._tensor([names[i] for i in asked], [views[i] for i in asked], times=2))

    def _copy(self, name: str, rng: np.random.Generator) -> str:
        copies = self._copies.get(name, [])
        return copies[rng.integers(len(copies))] if copies and rng.random() < COPIES else name

    def _deployed(self, member: Member) -> View:
        placed = place(self._spec, frame_size=(member.width, member.height), input_size=self._input_size)
        return View((placed.width / member.width, placed.height / member.height), (placed.left, placed.top))

    def _view(self, member: Member, rng: np.random.Generator) -> View:
        recipe = self._recipe
        view = self._deployed(member)
        scale, move = view.scale, view.move
        if rng.random() >= recipe.as_deployed:
            times = math.exp(rng.uniform(math.log(recipe.smallest), math.log(recipe.largest)))
            scale = (scale[0] * times, scale[1] * times)
            left, top = (
                side - length * one
                for side, length, one in zip(self._input_size, (member.width, member.height), scale, strict=True)
            )
            move = (rng.uniform(min(0, left), max(0, left)), rng.uniform(min(0, top), max(0, top)))
        mirrored = bool(rng.random() < 0.5)
        if rng.random() >= recipe.light:
            return View(scale, move, mirrored=mirrored)
        return View(scale, move, mirrored=mirrored, gain=rng.uniform(*_GAIN), offset=rng.uniform(-_OFFSET, _OFFSET))

    def _lesson(self, names: Sequence[str], views: Sequence[View]) -> Lesson:
        boxes, class_id, ignored = [], [], []
        looked_for = np.zeros((len(names), len(self._class_of)), np.bool_)
        for i, (name, view) in enumerate(zip(names, views, strict=True)):
            member = self._members[name]
            looked_for[i, [self._class_of[label] for label in member.labels if label in self._class_of]] = True
            known = [box for box in member.boxes if box.label in self._class_of]
            xyxy: Floats = np.array([box.xyxy for box in known], np.float32).reshape(-1, 4)
            xyxy *= np.array(view.scale * 2, np.float32)
            xyxy += np.array(view.move * 2, np.float32)
            if view.mirrored:
                xyxy[:, [0, 2]] = np.float32(self._input_size[0]) - xyxy[:, [2, 0]]
            boxes.append(xyxy)
            class_id.append(np.array([self._class_of[box.label] for box in known], np.int64))
            ignored.append(np.array([box.ignored for box in known], np.bool_))
        return Lesson(self._tensor(names, views), tuple(boxes), tuple(class_id), tuple(ignored), looked_for)

    def _tensor(self, names: Sequence[str], views: Sequence[View], *, times: int = 1) -> Floats:
        shown = [self._shown(self._image(name), view, times=times) for name, view in zip(names, views, strict=True)]
        pixels: Floats = np.stack(shown)[..., :: -1 if self._spec.color == "rgb" else 1].astype(np.float32)
        pixels -= np.array(self._spec.mean, np.float32)
        pixels /= np.array(self._spec.std, np.float32)
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2) if self._spec.layout == "nchw" else pixels)

    def _shown(self, image: Image, view: View, *, times: int) -> Image:
        """Scale a picture as cv2.resize does: a pixel is an area, and its middle is what is carried over."""
        size = (self._input_size[0] * times, self._input_size[1] * times)
        (sx, sy), (mx, my) = ((one * times for one in pair) for pair in (view.scale, view.move))
        matrix = np.array([[sx, 0, mx + sx / 2 - 0.5], [0, sy, my + sy / 2 - 0.5]], np.float64)
        pad = (self._spec.pad_value,) * 3
        if view.gain != 1 or view.offset != 0:
            image = _image(cv2.addWeighted(image, view.gain, image, 0, view.offset))
        # the border is the picture's own, as in cv2.resize; what lies outside is padded afterwards
        shown = cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        left, top = (max(0, round(one)) for one in (mx, my))
        right, bottom = (max(0, round(m + s * n)) for m, s, n in ((mx, sx, image.shape[1]), (my, sy, image.shape[0])))
        shown[:top], shown[bottom:], shown[:, :left], shown[:, right:] = pad, pad, pad, pad
        return _image(shown[:, ::-1] if view.mirrored else shown)

    def _image(self, name: str) -> Image:
        """Open a picture. What is opened is kept as long as there is room: a lesson does not depend on it."""
        if name in self._images:
            return self._images[name]
        image = _image(read_image(self._folder, self._members[name]))
        if self._held_bytes + image.nbytes <= _ROOM_BYTES:
            self._images[name] = image
            self._held_bytes += image.nbytes
        return image


def _image(array: Any) -> Image:
    return np.asarray(array, np.uint8)
