"""Counts over the labelled images: labels a class, what images and boxes are like, cameras and hours.

Law: train and test add up to all, and so do the rows of a group that says so (`Group.whole`).

"Labels" are boxes of the truth (hub.truth): several annotators of one image count once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from hub.label_table import BYS, SIZE_EDGES, LabelTable, Mask, areas, overlaps, pairs
from hub.selection import Kind

AIM: Final = 3000
"""Labels to train on that make a class robust."""
COVERED: Final = 0.25  # as the devices' tag `occluded`
BORDER_PX: Final = 2.0
_KINDS: Final = {
    Kind.HARD: "hard: missed/suspect",
    Kind.EASY: "easy: unsure",
    Kind.CONTROL: "random: control",
}
_SIZES: Final = {
    "tiny": "tiny, under 8 px",
    "small": "small, 8 to 16",
    "medium": "medium, 16 to 32",
    "big": "big, from 32",
}
_NOISES: Final = (("under 2", -np.inf, 2.0), ("2 to 5", 2.0, 5.0), ("5 to 8.5", 5.0, 8.5), ("over 8.5", 8.5, np.inf))
_LIGHTS: Final = (
    ("under 50", -np.inf, 50.0),
    ("50 to 100", 50.0, 100.0),
    ("100 to 150", 100.0, 150.0),
    ("150 to 205", 150.0, 205.0),
    ("over 205", 205.0, np.inf),
)
_OBJECTS: Final = (("none", 0, 1), ("1", 1, 2), ("2 to 4", 2, 5), ("5 to 9", 5, 10), ("10 and more", 10, np.inf))
_SHOWN_TAGS: Final = ("motion_blur", "defocus", "noisy", "flat", "grayscale", "crowded")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a group: how many to train on, how many of the test share."""

    name: str
    train: int
    test: int


@dataclass(frozen=True, slots=True)
class Group:
    """Counts that belong together.

    Attributes:
        whole: the rows add up to all images, or boxes; else one may be in several, or in none.
    """

    title: str
    of: Literal["images", "boxes"]
    rows: tuple[Row, ...]
    whole: bool


@dataclass(frozen=True, slots=True)
class ClassCount:
    """One label.

    Attributes:
        train, test: boxes.
        images: that have one.
        share: of `AIM` that the boxes to train on reach; may be over 1.
        unseen: images in which nobody looked for it.
    """

    label: str
    train: int
    test: int
    images: int
    share: float
    unseen: int


@dataclass(frozen=True, slots=True)
class CameraCount:
    """One camera: images to train on and of the test share, boxes, and images by the hour of day, 24 of them."""

    site: str
    device: str
    camera: str
    train: int
    test: int
    boxes: int
    hours: tuple[int, ...]


def classes(table: LabelTable) -> tuple[ClassCount, ...]:
    """Count the boxes of each label, most to train on first."""
    test = table.test[table.image]
    counted = []
    for code, name in enumerate(table.labels):
        mine = table.label == code
        train = int((mine & ~test).sum())
        unseen = int((~table.looked_for[:, code]).sum())
        images = len(np.unique(table.image[mine]))
        counted.append(ClassCount(name, train, int((mine & test).sum()), images, train / AIM, unseen))
    return tuple(sorted(counted, key=lambda one: (-one.train, -one.test, one.label)))


def groups(table: LabelTable) -> tuple[Group, ...]:
    """Count what the images and boxes are like."""
    of_image, of_box = _Counted(table, "images"), _Counted(table, "boxes")
    objects = np.bincount(table.image, minlength=len(table))
    width, height = (table.xyxy[:, 2:] - table.xyxy[:, :2]).T
    shorter = table.shorter_px
    sizes = [(_SIZES[name], (shorter >= low) & (shorter < high)) for name, (low, high) in SIZE_EDGES.items()]
    unknown = np.isnan(shorter)
    tags = [(name.replace("_", " "), table.tags[name]) for name in _SHOWN_TAGS if name in table.tags]
    counted = (
        of_image.group("difficulty", [(name, table.kind == kind) for kind, name in _KINDS.items()]),
        of_box.group("the detector had", [("found it", table.found), ("not found it", ~table.found)]),
        of_image.group("labelled by", [(by, table.by == code) for code, by in enumerate(BYS)]),
        of_box.group("size, input px", sizes + [("not known", unknown)] * bool(unknown.any())),
        of_image.group("brightness", _between(table.brightness, _LIGHTS)),
        of_image.group("noise", _between(table.noise, _NOISES)),
        of_image.group("tags of the device", tags, whole=False),
        of_box.group(
            "shape",
            [
                ("wide, w >= 2 h", width >= 2 * height),
                ("tall, h >= 3 w", height >= 3 * width),
                ("between", (width < 2 * height) & (height < 3 * width)),
            ],
        ),
        of_image.group("objects an image", _between(objects, _OBJECTS)),
        of_box.group("occlusion", [("covered, 25 %", covered(table)), ("cut by border", cut(table))], whole=False),
    )
    return tuple(group for group in counted if group.rows)


def covered(table: LabelTable) -> Mask:
    """Return which boxes `[m]` one that ends lower in the picture covers to at least `COVERED`."""
    hidden = np.zeros(len(table.image), np.bool_)
    area = np.maximum(areas(table.xyxy), 1e-9)
    for mine, other in pairs(table.image, table.image):
        both, _ = overlaps(table.xyxy[mine], table.xyxy[other])
        in_front = table.xyxy[other, 3] > table.xyxy[mine, 3]
        hidden[mine[in_front & (both >= COVERED * area[mine])]] = True
    return hidden


def cut(table: LabelTable) -> Mask:
    """Return which boxes `[m]` the frame's edge cuts: within 2 pixels of it, or one of the model's input."""
    near = np.fmax(BORDER_PX, 1 / table.scale)[table.image][:, None]
    size = table.size[table.image]
    touches = (table.xyxy[:, :2] <= near) | (table.xyxy[:, 2:] >= size - near)
    return np.asarray(touches.any(axis=1))


def cameras(table: LabelTable) -> tuple[CameraCount, ...]:
    """Count by camera and hour of day, most images first."""
    n = len(table.cameras)
    boxes = np.bincount(table.camera[table.image], minlength=n)
    train, test = (np.bincount(table.camera[table.test == side], minlength=n) for side in (False, True))
    hours = np.bincount(table.camera * 24 + table.hour, minlength=24 * n).reshape(n, 24)
    counted = [
        CameraCount(*names, int(train[at]), int(test[at]), int(boxes[at]), tuple(hours[at].tolist()))
        for at, names in enumerate(table.cameras)
    ]
    return tuple(sorted(counted, key=lambda one: (-one.train - one.test, (one.site, one.device, one.camera))))


class _Counted:
    """Counts rows of one unit, train and test apart."""

    def __init__(self, table: LabelTable, of: Literal["images", "boxes"]) -> None:
        self._of: Literal["images", "boxes"] = of
        self._test = table.test if of == "images" else table.test[table.image]

    def group(self, title: str, masks: Sequence[tuple[str, Mask]], *, whole: bool = True) -> Group:
        rows = tuple(Row(name, int((mask & ~self._test).sum()), int((mask & self._test).sum())) for name, mask in masks)
        return Group(title, self._of, rows, whole)


def _between(values: NDArray[Any], steps: Sequence[tuple[str, float, float]]) -> list[tuple[str, Mask]]:
    return [(name, (values >= low) & (values < high)) for name, low, high in steps]
