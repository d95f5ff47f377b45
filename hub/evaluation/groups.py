"""The groups in which a look is counted: all, each label, size, camera, slice and weak spot. Pure.

`elsewhere` is all that is not of one weak spot: what a gain there must not have been paid with.

A size group holds the true boxes of that size and what was matched with them, and of the wrong boxes those that are of
that size themselves. All others are of whole pictures, or of a label.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from hub.evaluation.columns import SIZES, Columns
from hub.evaluation.matching import RIGHT, UNCOUNTED, Matches
from hub.label_table import Mask

Kind = Literal["overall", "label", "size", "camera", "slice", "weak spot", "elsewhere"]

FEW_OBJECTS: Final = 20
FEW_UNITS: Final = 5
_MOST_SLICES: Final = 20
_TOLD_ELSEWHERE: Final = ("camera:", "site:", "label:")


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """One group.

    Attributes:
        images: `[n]`, the pictures that may hold something of it.
        label, size: place in the columns' labels, in `SIZES`; None: any.
    """

    kind: Kind
    name: str
    images: Mask
    label: int | None = None
    size: int | None = None

    def true_rows(self, columns: Columns) -> Mask:
        """Return which true boxes `[m]` are of it; ignored ones never are."""
        rows: Mask = self.images[columns.image] & ~columns.ignored
        if self.label is not None:
            rows &= columns.label == self.label
        if self.size is not None:
            rows &= columns.size == self.size
        return rows

    def box_rows(self, columns: Columns, matches: Matches) -> Mask:
        """Return which detected boxes `[d]` count for it or against it."""
        rows: Mask = self.images[columns.box_image] & (matches.state != UNCOUNTED)
        if self.label is not None:
            rows &= columns.box_label == self.label
        if self.size is not None:
            size = columns.box_size.copy()
            right = matches.state == RIGHT
            size[right] = columns.size[matches.truth[right]]
            rows &= size == self.size
        return rows


def groups(columns: Columns, *, apart_from: int | None = None) -> tuple[Group, ...]:
    """Return all groups that hold an object, overall first; slices with few objects are left out.

    `apart_from` is the weak spot that has a group `elsewhere`; None: there is no such group.
    """
    every = np.ones(len(columns), np.bool_)
    objects = np.bincount(columns.image[~columns.ignored], minlength=len(columns))
    found = [Group("overall", "all", every)]
    found += [Group("label", name, columns.looked_for[:, at], label=at) for at, name in enumerate(columns.labels)]
    found += [Group("size", name, every, size=at) for at, name in enumerate(SIZES)]
    members = columns.members
    for camera in sorted({member.camera for member in members}):
        found.append(Group("camera", camera, np.array([member.camera == camera for member in members])))
    counts: Counter[str] = Counter()
    for member, here in zip(members, objects.tolist(), strict=True):
        counts.update(dict.fromkeys((tag for tag in member.tags if not tag.startswith(_TOLD_ELSEWHERE)), here))
    enough = [tag for tag, count in counts.most_common() if FEW_OBJECTS <= count < objects.sum()][:_MOST_SLICES]
    for tag in sorted(enough):
        found.append(Group("slice", tag, np.array([tag in member.tags for member in members])))
    for spot in sorted({spot for member in members for spot in member.weak_spots}):
        found.append(Group("weak spot", str(spot), np.array([spot in member.weak_spots for member in members])))
    if apart_from is not None:
        apart = np.array([apart_from not in member.weak_spots for member in members])
        found.append(Group("elsewhere", str(apart_from), apart))
    return tuple(group for group in found if group.kind == "overall" or group.true_rows(columns).any())
