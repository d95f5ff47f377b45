"""Near-duplicate groups: which findings show the same event again. A rule over values; it opens nothing.

Laws:

1. A finding joins one group or founds its own. Whoever joins overlaps the leader's place, and is like one of the
   group's looks; a look differs from the leader's in no more than `LOOK_BITS`, and there are at most `MAX_LOOKS`. So a
   group cannot creep along a chain of members into another event.
2. A `control` finding never joins and is never joined: it is a counted unit of the random sample.
3. The order of the findings decides, and nothing else: the same findings in the same order give the same groups, with
   or without a restart between them.
4. Two tracks of one camera and label that were alive at the same time, by what its groups follow, are two objects: the
   findings of one never join a group of the other, whatever the hashes say. (One object of two labels has two tracks.)

**Same camera** (site, device, camera). The regions overlap (IoU >= `SAME_PLACE_IOU`) and the crop hashes differ in no
more bits than `allowed_bits` says. That depends on the gap, the time to the nearest end of what the group has been seen
for; on what the tracks say; and a little on the overlap. Within 1.5 seconds the same track may differ much: it is the
same walker, a step further. Later, other people pass through the same lane, and the longer the gap, the more of them
could be alike by chance; a tracker takes one for another, too. What stands still (IoU >= `STILL_IOU`) may differ a
little more: one person who stands for ten minutes is one event. The group's time is renewed by every member, its place
is not: a queue does not become one event by moving up. After `WINDOW_S` an old group is joined no more. Where both
findings name a label and the labels differ, the fewest bits of all hold.

A group follows the track of its newest member of the leader's label that has one. A track that was lost and is taken up
under another name joins by its looks, under the strictest rule: another track is mostly another person.

**Another camera** (a stream registered twice). At most `COPY_WINDOW_S` lie between them; the whole frames differ in no
more than `SAME_FRAME_BITS`, the regions overlap as above in fractions of the frame, the labels do not differ, the crops
differ in no more than `COPY_BITS`, and the model's pooled features, where both have them, have a cosine of at least
`SAME_PICTURE_COSINE`: hashes do not see that one camera is dark or noisy, the model does, and that is a finding of its
own. An evenly grey frame says nothing. Within a camera neither is used: a fixed camera's frames are alike.

The thresholds come from real footage of a fixed street camera with a real tracker: `tests/benchmarks/bench_dedupe.py`.
"""

import math
from array import array
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.contract.samples import Reason
from hub.cells import cell_of, cells_around
from hub.hashing import HASH_BYTES, WORDS, Packed, distances, is_blank, pack
from hub.store_rows import FindingRow, LeaderRow

Positions = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

SAME_PLACE_IOU: Final = 0.5
STILL_IOU: Final = 0.75
SAME_FRAME_BITS: Final = 31
SAME_PICTURE_COSINE: Final = 0.985
COPY_BITS: Final = 72.0
LOOK_BITS: Final = 56
NEW_LOOK_BITS: Final = 20
MAX_LOOKS: Final = 4
WINDOW_S: Final = 24 * 3600.0
COPY_WINDOW_S: Final = 3600.0

GAP_S: Final = (0.3, 1.0, 1.5, 3.0, 3600.0, WINDOW_S)
UNTRACKED_BITS: Final = (88.0, 68.0, 64.0, 36.0, 36.0, 28.0)
SAME_TRACK_BITS: Final = (74.0, 74.0, 74.0, 46.0, 36.0, 28.0)
OTHER_TRACK_BITS: Final = (44.0, 44.0, 44.0, 36.0, 36.0, 28.0)
STILL_BITS: Final = (42.0, 42.0, 42.0, 42.0, 42.0, 28.0)
STILL_SAME_TRACK_BITS: Final = 56.0
OTHER_LABEL_BITS: Final = 28.0
BITS_OF_IOU: Final = 20.0
MIDDLE_IOU: Final = 0.7

_WINDOW_MS: Final = int(WINDOW_S * 1000)
_COPY_WINDOW_MS: Final = int(COPY_WINDOW_S * 1000)
_LOG_GAP_S: Final = tuple(math.log(gap_s) for gap_s in GAP_S)
_NO_POSITIONS: Final[Positions] = np.zeros(0, np.int64)


class Joined(NamedTuple):
    """The group that a finding joins.

    `tracked`: the group goes on to follow the finding's track. `looks`: what the group is known by from now on beside
    its leader, `HASH_BYTES` each; empty where that stays as it was.
    """

    group_id: int
    tracked: bool
    looks: bytes


def allowed_bits(gap_s: Floats, iou: Floats, *, same_track: Mask, other_track: Mask) -> Floats:
    """Return in how many bits two crops of one event may differ, `[n]`; below 0 where they cannot be one.

    `same_track`, `other_track`: what the tracks say; both False where one of the two findings has none.
    """
    at = np.log(np.maximum(gap_s, GAP_S[0]))
    curves = (SAME_TRACK_BITS, OTHER_TRACK_BITS, UNTRACKED_BITS, STILL_BITS)
    same, other, untracked, still = (np.interp(at, _LOG_GAP_S, curve) for curve in curves)
    moving = np.where(same_track, same, np.where(other_track, other, untracked)) + BITS_OF_IOU * (iou - MIDDLE_IOU)
    standing = np.where(iou >= STILL_IOU, np.where(same_track, STILL_SAME_TRACK_BITS, still), -1.0)
    return np.where(gap_s > WINDOW_S, -1.0, np.maximum(moving, standing))


def joinable_since_ms(captured_at_ms: int) -> int:
    """Return since when a group must have been seen for a finding of that time, or a later one, to join it."""
    return (_day(captured_at_ms) - 1) * _WINDOW_MS


class DuplicateIndex:
    """The leaders of all groups, ready to be asked. It takes under 1 kB a leader.

    They stand in buckets by camera, day and place, and again by hour and place: a question touches those of its place
    and size, of its camera within three days, of all cameras within three hours.
    """

    def __init__(self) -> None:
        self._group_ids = _Column(np.int64)
        self._first_ms = _Column(np.int64)
        self._last_ms = _Column(np.int64)
        self._boxes = _Column(np.float64, width=4)
        self._crops = _Column(np.uint64, width=WORDS)
        self._frames = _Column(np.uint64, width=WORDS)
        self._labels = _Column(np.int32)
        self._cameras = _Column(np.int32)
        self._tracks = _Column(np.int64)
        self._track_ms = _Column(np.int64)
        self._features = _Features()
        self._looks: dict[int, Packed] = {}
        self._label_codes: dict[str, int] = {"": 0}
        self._camera_codes: dict[tuple[str, str, str], int] = {}
        self._by_camera: defaultdict[tuple[int, int], array[int]] = defaultdict(_positions)
        self._by_place: defaultdict[tuple[int, ...], array[int]] = defaultdict(_positions)
        self._copies: defaultdict[tuple[int, ...], array[int]] = defaultdict(_positions)

    def __len__(self) -> int:
        """Return the number of leaders that can be joined."""
        return len(self._group_ids)

    def add_leader(self, leader: LeaderRow) -> None:
        """Make a group known by its leader."""
        box = np.asarray(leader.place, np.float64)
        if _is_whole_frame(leader) or not _has_area(box):
            return
        position = len(self._group_ids)
        self._group_ids.append(leader.group_id)
        self._first_ms.append(leader.first_at_ms)
        self._last_ms.append(leader.last_at_ms)
        self._boxes.append(box)
        self._crops.append(_packed(leader.crop_hash))
        self._frames.append(_packed(leader.frame_hash))
        self._labels.append(self._label_codes.setdefault(leader.label, len(self._label_codes)))
        self._cameras.append(self._camera_code(leader))
        self._tracks.append(_track_code(leader.track))
        self._track_ms.append(leader.track_at_ms)
        self._features.append(leader.features)
        if leader.looks:
            self._looks[position] = np.frombuffer(leader.looks, np.uint64).reshape(-1, WORDS)
        for day in range(_day(leader.first_at_ms), _day(leader.last_at_ms) + 1):
            self._put(position, day)
        if not is_blank(leader.frame_hash):
            for hour in {_hour(leader.first_at_ms), _hour(leader.last_at_ms)}:
                self._copies[(hour, *cell_of(box))].append(position)

    def match(self, row: FindingRow) -> Joined | None:
        """Return the group that a finding joins, the one with most bits to spare; None when it founds its own.

        A group that is joined counts as seen at that time.
        """
        box = np.asarray(row.place, np.float64)
        if row.reason is Reason.CONTROL or _is_whole_frame(row) or not _has_area(box):
            return None
        camera = self._camera_code(row)
        position = self._same_camera(row, box, camera)
        if position is not None:
            tracked, looks = self._follow(position, row), self._learn(position, row, box)
        else:
            position = self._other_camera(row, box, camera)
            if position is None:
                return None
            tracked, looks = False, b""
        self._see(position, row.captured_at_ms)
        return Joined(int(self._group_ids.rows[position]), tracked, looks)

    def _same_camera(self, row: FindingRow, box: Floats, camera: int) -> int | None:
        days, cells = _around(_day(row.captured_at_ms)), cells_around(box)
        here = _together([self._by_place.get((camera, day, *cell)) for day in days for cell in cells])
        iou = self._iou(here, box)
        near, first = np.unique(here[iou >= SAME_PLACE_IOU], return_index=True)
        iou = iou[iou >= SAME_PLACE_IOU][first]
        tracks, track = self._tracks.rows[near], _track_code(row.track)
        same, other = (tracks == track) & (track != 0), (tracks != track) & (tracks != 0) & (track != 0)
        other &= self._labels.rows[near] == self._label_codes.get(row.label, -1)
        allowed = allowed_bits(self._gap_ms(near, row) / 1000.0, iou, same_track=same, other_track=other)
        agrees = self._label_agrees(near, row)
        allowed = np.where(agrees, allowed, np.minimum(allowed, OTHER_LABEL_BITS))
        return self._closest(
            near, row, allowed, apart=lambda i: other[i] and self._alive_together(tracks[i], row, camera)
        )

    def _other_camera(self, row: FindingRow, box: Floats, camera: int) -> int | None:
        if is_blank(row.frame_hash):
            return None
        hours, cells = _around(_hour(row.captured_at_ms)), cells_around(box)
        here = _together([self._copies.get((hour, *cell)) for hour in hours for cell in cells])
        near = np.unique(here[distances(self._frames.rows[here], _packed(row.frame_hash)) <= SAME_FRAME_BITS])
        near = near[(self._cameras.rows[near] != camera) & (self._gap_ms(near, row) <= _COPY_WINDOW_MS)]
        near = near[(self._iou(near, box) >= SAME_PLACE_IOU) & self._label_agrees(near, row)]
        near = near[self._features.cosines(near, row.features) >= SAME_PICTURE_COSINE]
        return self._closest(near, row, np.full(len(near), COPY_BITS), apart=lambda _: False)

    def _closest(
        self, near: Positions, row: FindingRow, allowed: Floats, *, apart: Callable[[int], bool]
    ) -> int | None:
        """Return the leader with most bits to spare, the first of equals, that is not `apart` by its index."""
        crop = _packed(row.crop_hash)
        bits = distances(self._crops.rows[near], crop)
        for index, position in enumerate(near.tolist()):
            if (looks := self._looks.get(position)) is not None:
                bits[index] = min(bits[index], distances(looks, crop).min())
        to_spare = allowed - bits
        like = np.nonzero(to_spare >= 0)[0]
        best = like[np.argsort(-to_spare[like], kind="stable")].tolist()
        return next((int(near[i]) for i in best if not apart(i)), None)

    def _alive_together(self, track: int, row: FindingRow, camera: int) -> bool:
        """Return whether a track was alive when the finding's was, by what this camera's groups say."""
        here = _together([self._by_camera.get((camera, day)) for day in _around(_day(row.captured_at_ms))])
        known, since, until = self._tracks.rows[here], self._track_ms.rows[here], self._last_ms.rows[here]
        own = known == _track_code(row.track)
        began = min(row.captured_at_ms, int(since[own].min(initial=row.captured_at_ms)))
        seen = max(row.captured_at_ms, int(until[own].max(initial=row.captured_at_ms)))
        its = known == track
        return bool(since[its].min() <= seen and until[its].max() >= began)

    def _learn(self, position: int, row: FindingRow, box: Floats) -> bytes:
        """Remember the crop of a member that stands where its leader stood and looks a little different.

        Returns the looks beside the leader's, empty where nothing was learned.
        """
        crop, own = _packed(row.crop_hash), self._crops.rows[position : position + 1]
        looks = np.concatenate([own, self._looks.get(position, own[:0])])
        bits = distances(looks, crop)
        still = self._iou(np.array([position]), box)[0] >= STILL_IOU
        if not still or len(looks) >= MAX_LOOKS or bits[0] > LOOK_BITS or bits.min() < NEW_LOOK_BITS:
            return b""
        self._looks[position] = np.concatenate([looks[1:], crop[None]])
        return self._looks[position].tobytes()

    def _follow(self, position: int, row: FindingRow) -> bool:
        """Let the group follow the track of its newest member of its label; return whether that has one."""
        track, at_ms = _track_code(row.track), row.captured_at_ms
        if self._labels.rows[position] != self._label_codes.get(row.label, -1):
            return False
        if track and track != self._tracks.rows[position]:
            self._tracks.rows[position], self._track_ms.rows[position] = track, at_ms
        elif track:
            self._track_ms.rows[position] = min(at_ms, self._track_ms.rows[position])
        return bool(track)

    def _see(self, position: int, at_ms: int) -> None:
        """Stretch what the group has been seen for; a new day is a new bucket."""
        first, last = int(self._first_ms.rows[position]), int(self._last_ms.rows[position])
        end = last if at_ms > last else first
        if not first <= at_ms <= last and _hour(at_ms) != _hour(end):
            if self._frames.rows[position].any():
                self._copies[(_hour(at_ms), *cell_of(self._boxes.rows[position]))].append(position)
            if _day(at_ms) != _day(end):
                self._put(position, _day(at_ms))
        self._first_ms.rows[position], self._last_ms.rows[position] = min(first, at_ms), max(last, at_ms)

    def _put(self, position: int, day: int) -> None:
        camera = int(self._cameras.rows[position])
        self._by_camera[camera, day].append(position)
        self._by_place[(camera, day, *cell_of(self._boxes.rows[position]))].append(position)

    def _gap_ms(self, near: Positions, row: FindingRow) -> Positions:
        to_first = np.abs(row.captured_at_ms - self._first_ms.rows[near])
        gap_ms: Positions = np.minimum(to_first, np.abs(row.captured_at_ms - self._last_ms.rows[near]))
        return gap_ms

    def _iou(self, near: Positions, box: Floats) -> Floats:
        boxes = self._boxes.rows[near]
        side = np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2])
        both = np.maximum(side[:, 0], 0.0) * np.maximum(side[:, 1], 0.0)
        sides = boxes[:, 2:] - boxes[:, :2]
        iou: Floats = both / (sides[:, 0] * sides[:, 1] + (box[2] - box[0]) * (box[3] - box[1]) - both)
        return iou

    def _label_agrees(self, near: Positions, row: FindingRow) -> Mask:
        if not row.label:
            return np.ones(len(near), np.bool_)
        codes = self._labels.rows[near]
        agrees: Mask = (codes == 0) | (codes == self._label_codes.get(row.label, -1))
        return agrees

    def _camera_code(self, row: LeaderRow | FindingRow) -> int:
        return self._camera_codes.setdefault((row.site, row.device, row.camera), len(self._camera_codes))


class _Column:
    """An array that grows at its end by half."""

    def __init__(self, dtype: type[np.generic], *, width: int | None = None) -> None:
        self._room: NDArray[Any] = np.zeros(4 if width is None else (4, width), dtype)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def rows(self) -> NDArray[Any]:
        """The values so far; a view, valid until the next `append`."""
        return self._room[: self._count]

    def append(self, value: Any) -> None:
        if self._count == len(self._room):
            self._room = np.concatenate([self._room, np.zeros_like(self._room[: self._count // 2])])
        self._room[self._count] = value
        self._count += 1


class _Features:
    """The feature vectors of the leaders, side by side by their length: the models of a fleet have few."""

    def __init__(self) -> None:
        self._lengths = _Column(np.int32)
        self._places = _Column(np.int32)
        self._of_length: dict[int, _Column] = {}

    def append(self, features: NDArray[np.int8]) -> None:
        length = len(features)
        column = self._of_length.setdefault(length, _Column(np.int8, width=length))
        self._lengths.append(length)
        self._places.append(len(column))
        column.append(features)

    def cosines(self, near: Positions, features: NDArray[np.int8]) -> Floats:
        """Return the cosines `[n]`; 1 where one vector is missing, 0 where they are not of one model."""
        if len(features) == 0:
            return np.ones(len(near))
        lengths = self._lengths.rows[near]
        cosines = np.where(lengths == 0, 1.0, 0.0)
        like = np.nonzero(lengths == len(features))[0]
        if len(like):
            a = self._of_length[len(features)].rows[self._places.rows[near[like]]].astype(np.float64)
            b = features.astype(np.float64)
            length = np.sqrt((a * a).sum(axis=1) * float(b @ b))
            cosines[like] = np.where(length > 0, (a @ b) / np.maximum(length, 1.0), 1.0)
        return cosines


def _together(found: "list[array[int] | None]") -> Positions:
    some = [np.frombuffer(positions, np.int64) for positions in found if positions]
    return np.concatenate(some) if some else _NO_POSITIONS


def _positions() -> "array[int]":
    return array("q")


def _packed(value: bytes) -> Packed:
    if len(value) != HASH_BYTES:
        pack([value])
    return np.frombuffer(value, np.uint64)


def _track_code(track: str) -> int:
    """Return a number for a track within this process; 0 for none. Two tracks of a camera share one by no chance."""
    return hash(track) if track else 0


def _day(at_ms: int) -> int:
    return at_ms // _WINDOW_MS


def _hour(at_ms: int) -> int:
    return at_ms // _COPY_WINDOW_MS


def _around(bucket: int) -> tuple[int, int, int]:
    return bucket - 1, bucket, bucket + 1


def _has_area(box: Floats) -> bool:
    return bool(box[2] > box[0] and box[3] > box[1])


def _is_whole_frame(row: LeaderRow | FindingRow) -> bool:
    """Whether this finding points at nothing: no label, and the whole frame for a region, as `control` has it."""
    x1, y1, x2, y2 = row.region
    return not row.label and x1 <= 0 and y1 <= 0 and x2 >= row.width and y2 >= row.height
