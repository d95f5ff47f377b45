"""What of the test share has a near-duplicate among the images to train on: a test on it measures memory.

An image to train on leaks when a test image

- is of the same near-duplicate group (`group`),
- was taken by the same camera at most `APART_MS` before or after (`moment`), or
- is of the same camera and the same picture of the same things (`picture`): at most `SAME_FRAME_BITS` of the frames'
  hashes differ, and at least half of the boxes of each stand where the other has one of the same label. The hash alone
  would not do: of a fixed camera, it is the background's. Two images without any box are not told so.
"""

from typing import Final, Literal, NamedTuple

import numpy as np

from hub.dedupe import SAME_FRAME_BITS
from hub.hashing import Packed, distances
from hub.label_table import Floats, Ints, LabelTable, Mask, areas
from hub.testshare import APART_MS

Why = Literal["group", "moment", "picture"]
SAME_PLACE_IOU: Final = 0.5
SAME_SHARE: Final = 0.5
_GRID: Final = 16  # cells across and down: 256 bits


class Leak(NamedTuple):
    """One image to train on that the test share knows.

    Attributes:
        train: its event id.
        test: that of the test image, the nearest in time where there are several.
        apart_ms: how long after the test image it was taken; negative: before.
    """

    train: str
    test: str
    why: Why
    apart_ms: int


def leaks(table: LabelTable) -> tuple[Leak, ...]:
    """Return every image to train on that leaks, once, with the first reason of the three; in the table's order."""
    found: dict[int, tuple[int, Why]] = {}
    _of_group(table, found)
    pictures = _Pictures(table)
    for camera in range(len(table.cameras)):
        here = table.camera == camera
        train, test = np.flatnonzero(here & ~table.test), np.flatnonzero(here & table.test)
        if len(train) and len(test):
            _of_moment(table, train, test, found)
            pictures.add(train, test, found)
    ids = table.event_ids
    return tuple(
        Leak(ids[train], ids[test], why, int(table.at_ms[train] - table.at_ms[test]))
        for train, (test, why) in sorted(found.items())
    )


class _Pictures:
    """The images as pictures of things: where in the frame their boxes are, and in which cells of a grid."""

    def __init__(self, table: LabelTable) -> None:
        self._table = table
        self._places = table.xyxy / np.tile(table.size[table.image], 2)
        cells = np.zeros((len(table), _GRID, _GRID), np.bool_)
        middles = (self._places[:, :2] + self._places[:, 2:]) / 2
        x, y = np.clip(middles * _GRID, 0, _GRID - 1).astype(np.int64).T
        cells[table.image, y, x] = True
        self._centres: Packed = np.packbits(cells.reshape(len(table), _GRID**2), axis=1).view(np.uint64)
        self._tells: Mask = np.asarray(self._centres.any(axis=1) & table.hashes.any(axis=1))

    def add(self, train: Ints, test: Ints, found: dict[int, tuple[int, Why]]) -> None:
        """Add those of `train` that are the same picture as one of `test`; all are of one camera."""
        table = self._table
        train = train[self._tells[train] & ~np.isin(train, list(found))]
        hashes, centres = table.hashes[train], self._centres[train]
        for at in test[self._tells[test]].tolist():
            like = np.flatnonzero(distances(hashes, table.hashes[at]) <= SAME_FRAME_BITS)
            like = like[_may_be_same(self._places[self._boxes_of(at)], centres[like])]
            for other in train[like[self._same_things(at, train[like])]].tolist() if len(like) else ():
                known = found.get(other)
                if known is None or _apart(table, other, at) < _apart(table, other, known[0]):
                    found[other] = at, "picture"

    def _same_things(self, at: int, others: Ints) -> Mask:
        """Return which of `others` `[n]`, each with a box, have at least half of their boxes and of its in common."""
        own, table = self._boxes_of(at), self._table
        starts, stops = (np.searchsorted(table.image, others, side) for side in ("left", "right"))
        counts = stops - starts
        ends = np.cumsum(counts)
        first = ends - counts
        theirs = np.arange(ends[-1]) + np.repeat(starts - first, counts)
        same = _iou(self._places[own], self._places[theirs]) >= SAME_PLACE_IOU
        same &= table.label[own][:, None] == table.label[theirs][None, :]
        of_theirs = np.add.reduceat(same.any(axis=0).astype(np.int64), first) / counts
        of_own = np.logical_or.reduceat(same, first, axis=1).mean(axis=0)
        return np.asarray((of_theirs >= SAME_SHARE) & (of_own >= SAME_SHARE))

    def _boxes_of(self, at: int) -> slice:
        return slice(*np.searchsorted(self._table.image, [at, at + 1]).tolist())


def _of_group(table: LabelTable, found: dict[int, tuple[int, Why]]) -> None:
    """Add the images to train on whose group has a test image."""
    train = np.flatnonzero(~table.test & (table.group >= 0))
    test = np.flatnonzero(table.test & (table.group >= 0))
    train = train[np.isin(table.group[train], table.group[test])]
    for at in train.tolist():
        of_it = test[table.group[test] == table.group[at]]
        found[at] = int(_nearest(table, of_it, at)), "group"


def _of_moment(table: LabelTable, train: Ints, test: Ints, found: dict[int, tuple[int, Why]]) -> None:
    ordered = test[np.argsort(table.at_ms[test], kind="stable")]
    times = table.at_ms[ordered]
    after = np.searchsorted(times, table.at_ms[train])
    near = np.stack([ordered[np.maximum(after - 1, 0)], ordered[np.minimum(after, len(ordered) - 1)]])
    apart = np.abs(table.at_ms[near] - table.at_ms[train])
    nearest = near[apart.argmin(axis=0), np.arange(len(train))]
    for at, other in zip(
        train[apart.min(axis=0) <= APART_MS].tolist(), nearest[apart.min(axis=0) <= APART_MS].tolist(), strict=True
    ):
        found.setdefault(at, (other, "moment"))


def _may_be_same(own: Floats, centres: Packed) -> Mask:
    """Return which images `[n]` have a centre within at least half of the boxes `own` `[k, 4]`.

    No other can have boxes in common with half of them: where two boxes have an IoU of a half, the centre of each lies
    within the other.
    """
    steps = np.arange(_GRID)
    first, last = (np.clip(np.floor(ends * _GRID), 0, _GRID - 1)[:, :, None] for ends in (own[:, :2], own[:, 2:]))
    covers = (first <= steps) & (steps <= last)
    cells = covers[:, 1, :, None] & covers[:, 0, None, :]
    bits = np.packbits(cells.reshape(len(own), -1), axis=1).view(np.uint64)
    hit: Ints = np.zeros(len(centres), np.int64)
    for box in bits:
        hit += (centres & box).any(axis=1)
    return np.asarray(hit >= SAME_SHARE * len(own))


def _iou(a: Floats, b: Floats) -> Floats:
    """Return the IoU of each of `a` `[n, 4]` with each of `b` `[m, 4]`, `[n, m]`."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    both = np.maximum(sides, 0.0).prod(axis=2)
    return np.asarray(both / np.maximum(areas(a)[:, None] + areas(b)[None, :] - both, 1e-12))


def _nearest(table: LabelTable, several: Ints, at: int) -> int:
    return int(several[np.abs(table.at_ms[several] - table.at_ms[at]).argmin()])


def _apart(table: LabelTable, a: int, b: int) -> int:
    return abs(int(table.at_ms[a] - table.at_ms[b]))
