"""Near-duplicate groups: which findings show the same event again. A rule over values; it opens nothing.

Laws:

1. A finding joins one group or founds its own; it is compared with leaders only, so a group cannot creep along a chain
   of members into another event.
2. A `control` finding never joins and is never joined: it is a counted unit of the random sample.
3. The order of the findings decides, and nothing else: the same findings in the same order give the same groups.

**Same camera** (site, device, camera). The regions overlap (IoU >= `SAME_PLACE_IOU`) and the crop hashes differ in no
more bits than `allowed_bits(gap)`. The gap is the time to the nearest end of what the group has been seen for. Within
1.5 seconds 72 bits: the same walker, a step further. After three seconds 44, after a minute 40, after an hour 28: other
people pass through the same lane, and the longer the gap, the more of them could be alike by chance; only what stands
still is still that alike. The group's time is renewed by every member, its place is not: one person who stands for ten
minutes stays one event, and a queue does not become one by moving up. After `WINDOW_S` an old group is joined no more.
Where both findings name a label and the labels differ, 28 bits at any gap.

**Another camera** (a stream registered twice, a copied recording). The whole frames differ in no more than
`SAME_FRAME_BITS`, the regions overlap as above in fractions of the frame, the labels do not differ, the crops differ in
no more than 72 bits, and the model's pooled features, where both have them, have a cosine of at least
`SAME_PICTURE_COSINE`: hashes do not see that one camera is dark or noisy, the model does, and that is a finding of its
own. An evenly grey frame says nothing. Within a camera the whole frame is not used: a fixed camera's frames are alike.

The thresholds come from real footage of a fixed street camera, `tests/benchmarks/bench_dedupe.py`. There the pooled
features, which are of the whole frame, told the events of one camera apart no better than the time gap does.
"""

import math
from collections import defaultdict
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.contract.samples import Reason
from hub.hashing import HASH_BYTES, Packed, distances, is_blank, pack
from hub.store_rows import FindingRow, LeaderRow

Positions = NDArray[np.int64]
CameraKey = tuple[str, str, str]

SAME_PLACE_IOU: Final = 0.5
SAME_FRAME_BITS: Final = 31
SAME_PICTURE_COSINE: Final = 0.985
WINDOW_S: Final = 24 * 3600.0
GAP_S: Final = (1.5, 3.0, 60.0, 3600.0)
GAP_BITS: Final = (72.0, 44.0, 40.0, 28.0)

_WINDOW_MS: Final = int(WINDOW_S * 1000)
_LOG_GAP_S: Final = tuple(math.log(gap_s) for gap_s in GAP_S)
_NO_POSITIONS: Final[Positions] = np.zeros(0, np.int64)


def allowed_bits(gap_s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return in how many bits two crops of one event may differ after each gap: falling with the logarithm of time."""
    bits: NDArray[np.float64] = np.interp(np.log(np.maximum(gap_s, GAP_S[0])), _LOG_GAP_S, GAP_BITS)
    return np.where(gap_s > WINDOW_S, -1.0, bits)


def joinable_since_ms(captured_at_ms: int) -> int:
    """Return since when a group must have been seen for a finding of that time, or a later one, to join it."""
    return (_day(captured_at_ms) - 1) * _WINDOW_MS


class DuplicateIndex:
    """The leaders of all groups, ready to be asked. About 170 bytes a leader, and its features.

    Leaders stand in buckets by camera and by day, so a question touches those of one camera and three days.
    """

    def __init__(self) -> None:
        self._group_ids = _Column(np.int64)
        self._first_ms = _Column(np.int64)
        self._last_ms = _Column(np.int64)
        self._boxes = _Column(np.float64, width=4)
        self._crops = _Column(np.uint64, width=HASH_BYTES // 8)
        self._labels = _Column(np.int64)
        self._cameras = _Column(np.int64)
        self._features: list[bytes] = []
        self._label_codes: dict[str, int] = {"": 0}
        self._camera_codes: dict[CameraKey, int] = {}
        self._by_camera: defaultdict[tuple[int, int], _Column] = defaultdict(_positions)
        self._by_day: defaultdict[int, _Frames] = defaultdict(_Frames)

    def __len__(self) -> int:
        """Return the number of leaders that can be joined."""
        return len(self._group_ids)

    def add_leader(
        self, leader: LeaderRow | FindingRow, *, first_at_ms: int | None = None, last_at_ms: int | None = None
    ) -> None:
        """Make a group known by its leader. `first_at_ms`, `last_at_ms`: what it was seen for, if longer than that.

        Raises `ValueError` for a finding without a group.
        """
        if leader.group_id is None:
            msg = f"{leader.event_id} has no group to lead"
            raise ValueError(msg)
        if _is_whole_frame(leader):
            return
        position = len(self._group_ids)
        at_ms = leader.captured_at_ms
        first_ms = at_ms if first_at_ms is None else min(at_ms, first_at_ms)
        last_ms = at_ms if last_at_ms is None else max(at_ms, last_at_ms)
        self._group_ids.append(leader.group_id)
        self._first_ms.append(first_ms)
        self._last_ms.append(last_ms)
        self._boxes.append(_normalised(leader))
        self._crops.append(pack([leader.crop_hash])[0])
        self._labels.append(self._label_codes.setdefault(leader.label, len(self._label_codes)))
        camera = self._camera_code(leader)
        self._cameras.append(camera)
        self._features.append(leader.features.tobytes())
        for day in sorted({_day(first_ms), _day(at_ms), _day(last_ms)}):
            self._by_camera[camera, day].append(position)
        if not is_blank(leader.frame_hash):
            self._by_day[_day(at_ms)].append(position, pack([leader.frame_hash])[0])

    def match(self, row: FindingRow) -> int | None:
        """Return the group that a finding joins, the one with most bits to spare; None when it founds its own.

        A group that is joined counts as seen at that time.
        """
        if row.reason is Reason.CONTROL or _is_whole_frame(row):
            return None
        camera = self._camera_code(row)
        position = self._same_camera(row, camera)
        if position is None:
            position = self._other_camera(row, camera)
        if position is None:
            return None
        self._see(position, row.captured_at_ms)
        return int(self._group_ids.rows[position])

    def _same_camera(self, row: FindingRow, camera: int) -> int | None:
        found = [column.rows for day in _days_around(row) if (column := self._by_camera.get((camera, day)))]
        if not found:
            return None
        near = np.unique(np.concatenate(found))
        near = near[self._overlaps(near, row)]
        gap_ms = np.minimum(
            np.abs(row.captured_at_ms - self._first_ms.rows[near]),
            np.abs(row.captured_at_ms - self._last_ms.rows[near]),
        )
        allowed = allowed_bits(gap_ms / 1000.0)
        allowed = np.where(self._label_agrees(near, row), allowed, np.minimum(allowed, GAP_BITS[-1]))
        return self._closest(near, row, allowed)

    def _other_camera(self, row: FindingRow, camera: int) -> int | None:
        if is_blank(row.frame_hash):
            return None
        query = pack([row.frame_hash])[0]
        found = [
            frames.within(query, SAME_FRAME_BITS) for day in _days_around(row) if (frames := self._by_day.get(day))
        ]
        near = np.concatenate(found) if found else _NO_POSITIONS
        near = near[self._cameras.rows[near] != camera]
        near = near[self._overlaps(near, row) & self._label_agrees(near, row)]
        seen_alike = [_cosine(self._features[position], row.features) >= SAME_PICTURE_COSINE for position in near]
        near = near[np.array(seen_alike, np.bool_)]
        return self._closest(near, row, np.full(len(near), GAP_BITS[0]))

    def _closest(self, near: Positions, row: FindingRow, allowed: NDArray[np.float64]) -> int | None:
        if len(near) == 0:
            return None
        to_spare = allowed - distances(self._crops.rows[near], pack([row.crop_hash])[0])
        best = int(np.argmax(to_spare))
        return int(near[best]) if to_spare[best] >= 0 else None

    def _overlaps(self, near: Positions, row: FindingRow) -> NDArray[np.bool_]:
        boxes, box = self._boxes.rows[near], _normalised(row)
        side = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
        both = np.prod(np.maximum(side, 0.0), axis=1)
        union = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2]) - both
        overlaps: NDArray[np.bool_] = (both > 0) & (both >= SAME_PLACE_IOU * union)
        return overlaps

    def _label_agrees(self, near: Positions, row: FindingRow) -> NDArray[np.bool_]:
        if not row.label:
            return np.ones(len(near), np.bool_)
        codes = self._labels.rows[near]
        agrees: NDArray[np.bool_] = (codes == 0) | (codes == self._label_codes.get(row.label, -1))
        return agrees

    def _see(self, position: int, at_ms: int) -> None:
        """Stretch what the group has been seen for; a new day is a new bucket."""
        first, last = self._first_ms.rows, self._last_ms.rows
        day = _day(at_ms)
        if at_ms > last[position]:
            if day != _day(int(last[position])):
                self._by_camera[int(self._cameras.rows[position]), day].append(position)
            last[position] = at_ms
        elif at_ms < first[position]:
            if day != _day(int(first[position])):
                self._by_camera[int(self._cameras.rows[position]), day].append(position)
            first[position] = at_ms

    def _camera_code(self, row: LeaderRow | FindingRow) -> int:
        return self._camera_codes.setdefault((row.site, row.device, row.camera), len(self._camera_codes))


class _Column:
    """An array that grows at its end by doubling."""

    def __init__(self, dtype: type[np.generic], *, width: int | None = None) -> None:
        self._room: NDArray[Any] = np.zeros((4,) if width is None else (4, width), dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[Any]:
        """The values so far; a view, valid until the next `append`."""
        return self._room[: self._count]

    def append(self, value: Any) -> None:
        if self._count == len(self._room):
            self._room = np.concatenate([self._room, np.zeros_like(self._room)])
        self._room[self._count] = value
        self._count += 1


class _Frames:
    """The whole-frame hashes of one day's leaders, of all cameras."""

    def __init__(self) -> None:
        self._positions = _positions()
        self._hashes = _Column(np.uint64, width=HASH_BYTES // 8)

    def append(self, position: int, frame_hash: Packed) -> None:
        self._positions.append(position)
        self._hashes.append(frame_hash)

    def within(self, query: Packed, bits: int) -> Positions:
        found: Positions = self._positions.rows[distances(self._hashes.rows, query) <= bits]
        return found


def _cosine(leader: bytes, features: NDArray[np.int8]) -> float:
    """Return the cosine of two vectors; 1 where one is missing, 0 where they are not of one model."""
    if not leader or not len(features):
        return 1.0
    if len(leader) != len(features):
        return 0.0
    a, b = np.frombuffer(leader, np.int8).astype(np.float64), features.astype(np.float64)
    length = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / length if length else 1.0


def _positions() -> _Column:
    return _Column(np.int64)


def _day(at_ms: int) -> int:
    return at_ms // _WINDOW_MS


def _days_around(row: FindingRow) -> tuple[int, int, int]:
    """Return the days that hold everything within `WINDOW_S` of a finding."""
    day = _day(row.captured_at_ms)
    return day - 1, day, day + 1


def _normalised(row: LeaderRow | FindingRow) -> NDArray[np.float64]:
    """Return the region in parts of the frame's width and height."""
    return np.asarray(row.region, np.float64) / (row.width, row.height, row.width, row.height)


def _is_whole_frame(row: LeaderRow | FindingRow) -> bool:
    """Whether this finding points at nothing: no label, and the whole frame for a region, as `control` has it."""
    x1, y1, x2, y2 = row.region
    return not row.label and x1 <= 0 and y1 <= 0 and x2 >= row.width and y2 >= row.height
