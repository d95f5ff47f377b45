"""Two looks at one frame: the objects that each of them shows, and their counts, from which the hub estimates recall.

The first look is the detector on the whole frame, the second the same detector on enlarged tiles of it. On a frame that
was drawn at random the second look's finds are a sample of what is there, whatever the first look did: the share of
them that the first look found, too, estimates its recall. What neither look sees is not in the sample, so the estimate
is an upper one; what the second look alone takes for an object lowers it.

The tiles are those of edge.detector.tiling.

Laws:

1. An object that no tile shows whole is in no count: only the first look can see it, and it would pass for one that
   the second look has missed. So the recall of larger objects is not estimated.
2. `both <= detector` and `both <= second_look`.
3. What stands still is counted once, not in every control frame: the estimate's interval takes the objects for
   independent, and a false find on something in the scenery comes again and again.
4. The counts are those of the objects: `detector` is the number of `found`, `second_look` that of `overlooked` and of
   those `found` that the second look sees as well. A pair is one object, in the detector's box.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edge.contract.samples import Xyxy
from edge.contract.status import RecallCounts
from edge.detector.detections import Detections, Floats, box_iou
from edge.detector.tiling import Mask, is_whole, join_tiles, joined

STANDING_IOU: Final = 0.7  # boxes of one class in two frames that overlap so much are an object that stands still
REMEMBERED: Final = 8  # control frames

# The second look counts from this score up, if the threshold is lower. Measured on the first half of vtest.avi, at
# 320x256 and a threshold of .3: below .4 most of what it alone finds is scenery (92 false finds beside 194 people), and
# recall .88 is estimated as .65.
SURE: Final = 0.4

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
            standing=joined([*self._remembered, *self._seen_once]),
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
            standing=joined(self._remembered),
            may_count=may_count,
        )
        self._remembered.append(joined(_sure(first, second, self._score_threshold)))
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
        countable |= is_whole(look.xyxy, tile, grid=grid)
    if standing is not None:
        countable &= ~(_same_class_iou(look, standing) >= STANDING_IOU).any(axis=1)
    return countable
