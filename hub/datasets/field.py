"""Which unlabelled frames of the field are taken: for a detector to teach itself, and for replay.

Laws:

1. None is of the test share, beside it, or of a moment or a near-duplicate group that anything taken before is of. What
   was labelled is taken first.
2. About a fifth is validation, by hub.datasets.splits.
3. The same frames give the same choice: it is spread over cameras and over time, not drawn.
"""

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from hub.datasets.splits import VAL_SHARE, Side
from hub.store_datasets import FieldFrame
from hub.testshare import APART_MS, is_beside_test, is_test


class Taken:
    """The moments and near-duplicate groups that are taken."""

    def __init__(self) -> None:
        self._groups: set[int] = set()
        self._moments: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, camera: str, at_ms: int, group_id: int | None) -> None:
        """Take a picture of `camera` ("site/device/camera")."""
        insort(self._moments[camera], at_ms)
        if group_id is not None:
            self._groups.add(group_id)

    def has(self, camera: str, at_ms: int, group_id: int | None) -> bool:
        """Whether a picture is of a moment or a group that is taken."""
        moments = self._moments[camera]
        at = bisect_left(moments, at_ms - APART_MS)
        near = at < len(moments) and moments[at] <= at_ms + APART_MS
        return near or group_id in self._groups


def is_for_training(frame: FieldFrame) -> bool:
    """Whether a frame is neither of the test share nor beside it."""
    when = {
        "site": frame.site,
        "device": frame.device,
        "camera": frame.camera,
        "captured_at_ms": frame.captured_at_ms,
    }
    return not (is_test(**when) or is_beside_test(**when))  # type: ignore[arg-type] # one name each


def choose(
    frames: Iterable[FieldFrame],
    count: int,
    *,
    taken: Taken,
    side_of: Callable[[FieldFrame], Side | None],
    is_first: Callable[[FieldFrame], bool] = lambda _: True,
) -> list[FieldFrame]:
    """Return at most `count` frames and take them; those that are `is_first` before all others."""
    of_side: dict[Side, list[FieldFrame]] = {"train": [], "val": []}
    for frame in frames:
        if is_for_training(frame) and (side := side_of(frame)) is not None:
            of_side[side].append(frame)
    most: Mapping[Side, int] = {"val": round(VAL_SHARE * count), "train": count - round(VAL_SHARE * count)}
    found: list[FieldFrame] = []
    for side, several in of_side.items():
        firsts, others = [one for one in several if is_first(one)], [one for one in several if not is_first(one)]
        left = most[side]
        for frame in (*_spread(firsts), *_spread(others)):
            picture = (frame.camera_path, frame.captured_at_ms, frame.group_id)
            if left and not taken.has(*picture):
                taken.add(*picture)
                found.append(frame)
                left -= 1
    return found


def _spread(frames: Sequence[FieldFrame]) -> Iterator[FieldFrame]:
    """Yield the frames so that the first of them, however many, are spread over the cameras, and each camera's time."""
    of_camera: defaultdict[str, list[FieldFrame]] = defaultdict(list)
    for frame in sorted(frames, key=lambda one: (one.captured_at_ms, one.event_id)):
        of_camera[frame.camera_path].append(frame)
    ways = [[several[at] for at in halving(len(several))] for _, several in sorted(of_camera.items())]
    for turn in range(max(map(len, ways), default=0)):
        yield from (way[turn] for way in ways if turn < len(way))


def halving(count: int) -> list[int]:
    """Return 0..count-1 so that the first of them, however many, lie far apart: by their binary digits, backwards."""
    digits = max(count - 1, 0).bit_length()
    return sorted(range(count), key=lambda at: int(f"{at:0{digits}b}"[::-1], 2))
