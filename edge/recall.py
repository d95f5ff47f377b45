"""Two looks at one frame: the objects that each of them shows, and their counts, from which the hub estimates recall.

The first look is the detector on the whole frame, the second the same detector on enlarged tiles of it. On a frame that
was drawn at random the second look's finds are a sample of what is there, whatever the first look did: the share of
them that the first look found, too, estimates its recall. What neither look sees is not in the sample, so the estimate
is an upper one; what the second look alone takes for an object lowers it.

    for tile in tiles((width, height), input_size=detector.input_size):
        x1, y1, x2, y2 = map(int, tile)
        crop = image[y1:y2, x1:x2]        # its boxes lie in the frame after adding (x1, y1, x1, y1)

Laws:

1. Every pixel of the frame is in a tile, and every box of at most `OVERLAP - 2 * CUT` of a tile's sides is whole in
   one.
2. An object that no tile shows whole is in no count: only the first look can see it, and it would pass for one that
   the second look has missed. So the recall of larger objects is not estimated.
3. `both <= detector` and `both <= second_look`.
4. What stands still is counted once, not in every control frame: the estimate's interval takes the objects for
   independent, and a false find on something in the scenery comes again and again.
5. The counts are those of the objects: `detector` is the number of `found`, `second_look` that of `overlooked` and of
   those `found` that the second look sees as well. A pair is one object, in the detector's box.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.contract.samples import Xyxy
from edge.contract.status import RecallCounts
from edge.detector.detections import Detections, Floats, box_iou, nms

OVERLAP: Final = 1 / 3  # of a tile's side, at least
CUT: Final = 0.02  # of a tile's side: a box that ends so near to an inner border is cut by it
DUPLICATE_IOU: Final = 0.5  # boxes of one class in two tiles that overlap more are one object
STANDING_IOU: Final = 0.7  # boxes of one class in two frames that overlap so much are an object that stands still
REMEMBERED: Final = 8  # control frames

# The second look counts from this score up, if the threshold is lower. Measured on the first half of vtest.avi, at
# 320x256 and a threshold of .3: below .4 most of what it alone finds is scenery (92 false finds beside 194 people), and
# recall .88 is estimated as .65.
SURE: Final = 0.4
_LIMIT: Final = 1000  # boxes of a frame

Mask = NDArray[np.bool_]
MayCount = Callable[[Detections], Mask]


@dataclass(frozen=True, slots=True, eq=False)
class TwoLooks:
    """The objects of one frame, each once.

    Attributes:
        found: `[n]`, which boxes of the first look are objects that count.
        overlooked: the objects that count and only the second look shows.
        both: how many of `found` the second look shows as well.
        beside: what only the second look shows, and is wanted and does not count.
        twice: False for a frame that got no second look: then the last three are empty.
    """

    found: Mask
    overlooked: Detections
    both: int
    beside: Detections
    twice: bool = True

    @property
    def counts(self) -> RecallCounts:
        """The objects, counted."""
        return RecallCounts(
            frames=1,
            detector=int(np.count_nonzero(self.found)),
            second_look=self.both + len(self.overlooked),
            both=self.both,
        )


def tiles(size: tuple[int, int], *, input_size: tuple[int, int], enlarge: float = 2.0) -> list[Xyxy]:
    """Return overlapping crops, whole pixels, that cover a frame of (width, height), row by row.

    In a letterboxed input of `input_size` a tile is at least `enlarge` times (linear) as large as in the whole frame's
    pass. Neighbours overlap by at least `OVERLAP` of their sides.
    """
    scale = enlarge * min(input_size[0] / size[0], input_size[1] / size[1])
    columns, rows = (
        _spans(side, math.floor(of_input / scale)) for side, of_input in zip(size, input_size, strict=True)
    )
    return [(x1, y1, x2, y2) for y1, y2 in rows for x1, x2 in columns]


def _spans(side: int, longest: int) -> list[tuple[float, float]]:
    """Cover 0..side evenly with spans of at most `longest`."""
    length = min(side, max(1, longest))
    overlap = min(length - 1, math.ceil(OVERLAP * length))
    count = math.ceil((side - overlap) / (length - overlap))
    starts = [i * (side - length) // max(1, count - 1) for i in range(count)]
    return [(float(start), float(start + length)) for start in starts]


def join_tiles(found: Sequence[tuple[Xyxy, Detections]]) -> Detections:
    """Return what the tiles of one frame show, best first, each object once.

    `found` has every tile of the frame, with its boxes in pixels of the frame. A box that ends at a tile's inner border
    is dropped: an object of usual size stands whole in another tile, and of a larger one it is only a part.
    """
    grid = [tile for tile, _ in found]
    every = _joined(
        detections.take(_is_whole(detections.xyxy, tile, grid=grid)) for tile, detections in found if len(detections)
    )
    best_first = np.argsort(-every.score, kind="stable")
    return nms(every.take(best_first), iou_threshold=DUPLICATE_IOU, limit=_LIMIT)


def _all(look: Detections) -> Mask:
    return np.ones(len(look), np.bool_)


def compare(
    first: Detections,
    second: Detections,
    *,
    grid: Sequence[Xyxy],
    score_threshold: float,
    standing: Detections | None = None,
    may_count: MayCount = _all,
    min_iou: float = 0.4,
) -> TwoLooks:
    """Return the objects of one frame that each look shows.

    Args:
        first: of the whole frame.
        second: of the tiles, joined.
        grid: the tiles.
        score_threshold: of the detector; the second look's is `SURE` where that is higher.
        standing: what was found in earlier frames.
        may_count: says `[n]` which boxes are of an object that is wanted.
        min_iou: two boxes of one class that overlap so much are one object; one to one, the best pairs first.

    An object does not count when one of its boxes is not whole in any tile, is where one of `standing` was, or is not
    wanted.
    """
    sure, second = _sure(first, second, score_threshold)
    wanted = may_count(second)
    of_first, of_second = (_countable(look, grid=grid, standing=standing) for look in (sure, second))
    of_first &= may_count(sure)
    of_second &= wanted
    alone = np.ones(len(second), np.bool_)
    both = 0
    for i, j in _pairs(sure, second, min_iou=min_iou):
        counts = bool(of_first[i] and of_second[j])
        of_first[i] = counts
        alone[j] = False
        both += counts
    found = first.score >= score_threshold
    found[found] = of_first
    return TwoLooks(found, second.take(alone & of_second), both, second.take(alone & wanted & ~of_second))


class RecallTally:
    """The counts of one camera's control frames since its start, in order of time.

    Attributes:
        counts: their sum.
    """

    def __init__(self, *, score_threshold: float) -> None:
        self.counts = RecallCounts()
        self._score_threshold = score_threshold
        self._remembered: deque[Detections] = deque(maxlen=REMEMBERED)
        self._seen_once: deque[Detections] = deque(maxlen=REMEMBERED)

    def see(self, first: Detections, *, grid: Sequence[Xyxy], may_count: MayCount = _all) -> TwoLooks:
        """Return what the detector found in a frame that gets no second look, by the same rules; nothing is counted.

        What stands still is remembered apart: a frame that is looked at twice is compared with its like only, or what
        the detector finds would be left out of the counts more often than what it overlooks.
        """
        looks = compare(
            first,
            Detections(),
            grid=grid,
            score_threshold=self._score_threshold,
            standing=_joined([*self._remembered, *self._seen_once]),
            may_count=may_count,
        )
        self._seen_once.append(first.take(first.score >= self._score_threshold))
        return replace(looks, twice=False)

    def add(
        self, first: Detections, found: Sequence[tuple[Xyxy, Detections]], *, may_count: MayCount = _all
    ) -> TwoLooks:
        """Count one frame: what the detector found in the whole of it, and in each of its tiles (see `join_tiles`)."""
        second = join_tiles(found)
        looks = compare(
            first,
            second,
            grid=[tile for tile, _ in found],
            score_threshold=self._score_threshold,
            standing=_joined(self._remembered),
            may_count=may_count,
        )
        self._remembered.append(_joined(_sure(first, second, self._score_threshold)))
        new = looks.counts
        self.counts = RecallCounts(
            frames=self.counts.frames + new.frames,
            detector=self.counts.detector + new.detector,
            second_look=self.counts.second_look + new.second_look,
            both=self.counts.both + new.both,
        )
        return looks

    def forget(self) -> None:
        """Forget what stands still, not the counts: the picture has another size."""
        self._remembered.clear()
        self._seen_once.clear()


def _joined(several: Iterable[Detections]) -> Detections:
    parts = [Detections(), *several]
    return Detections(
        np.concatenate([one.xyxy for one in parts]),
        np.concatenate([one.score for one in parts]),
        np.concatenate([one.class_id for one in parts]),
    )


def _sure(first: Detections, second: Detections, score_threshold: float) -> tuple[Detections, Detections]:
    return first.take(first.score >= score_threshold), second.take(second.score >= max(score_threshold, SURE))


def _same_class_iou(a: Detections, b: Detections) -> Floats:
    iou = box_iou(a.xyxy, b.xyxy)
    iou[a.class_id[:, None] != b.class_id] = 0
    return iou


def _pairs(first: Detections, second: Detections, *, min_iou: float) -> list[tuple[int, int]]:
    """Match one to one, the largest overlap first."""
    iou = _same_class_iou(first, second)
    pairs = []
    while iou.size and iou.max() >= min_iou:
        i, j = divmod(int(iou.argmax()), iou.shape[1])
        pairs.append((i, j))
        iou[i], iou[:, j] = 0, 0
    return pairs


def _countable(look: Detections, *, grid: Sequence[Xyxy], standing: Detections | None) -> Mask:
    """Return `[n]`: which boxes some tile shows whole and which do not stand where an earlier one was."""
    countable = np.zeros(len(look), np.bool_)
    for tile in grid:
        countable |= _is_whole(look.xyxy, tile, grid=grid)
    if standing is not None:
        countable &= ~(_same_class_iou(look, standing) >= STANDING_IOU).any(axis=1)
    return countable


def _is_whole(xyxy: Floats, tile: Xyxy, *, grid: Sequence[Xyxy]) -> Mask:
    """Return `[n]`: which boxes the tile shows off its inner borders. The border of all tiles is no inner one."""
    low, high = np.array(tile[:2]), np.array(tile[2:])
    corners = np.array(grid)
    margin = CUT * (high - low)
    low = np.where(low > corners[:, :2].min(axis=0), low + margin, -np.inf)
    high = np.where(high < corners[:, 2:].max(axis=0), high - margin, np.inf)
    x1, y1, x2, y2 = xyxy.T
    whole: Mask = (x1 > low[0]) & (y1 > low[1]) & (x2 < high[0]) & (y2 < high[1])
    return whole
