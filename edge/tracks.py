"""Tracks: the boxes of one object over time, linked by overlap.

Two-stage association after ByteTrack (Zhang et al., ECCV 2022): detections at or above the score threshold are linked
first, then the tracks that are left look among the weaker boxes; the weakest may go on with a known object and never
begin one. Where frames are far apart in time, boxes are widened before they are compared (buffered IoU, Yang et al.,
WACV 2023). A constant-velocity alpha-beta filter predicts where an object is while no box is linked to it. What the
second look sees keeps a track alive. Rules only: no clock, no I/O.

Laws:

1. A box is linked to at most one track, and a track to at most one box, per frame.
2. A track's id is never used again.
3. The number of live tracks is at most `MAX_TRACKS`.
"""

import math
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import count
from typing import Final

import numpy as np

from edge.contract.samples import Xyxy
from edge.detector.detections import Detections, Floats, box_iou

MAX_TRACKS: Final = 128
WEAK_THRESHOLD: Final = 0.18
KNOWN_THRESHOLD: Final = 0.1
MIN_IOU: Final = 0.3
MAX_COAST_S: Final = 2.0
OUTAGE_S: Final = 3.0  # without a frame for so long, nothing is known of any object
MIN_COAST_FRAMES: Final = 6
TENTATIVE_COAST_FRAMES: Final = 2
TENTATIVE_COAST_S: Final = 0.2
BUFFER_FROM_S: Final = 0.25
BUFFER_PER_S: Final = 0.6  # of its own side that a box is widened by, each way
MAX_BUFFER: Final = 0.5
DOUBLE_IOU: Final = 0.6
TOP_SCORES: Final = 5
_ALPHA: Final = 0.7
_BETA: Final = 0.35
_DAMPING_PER_S: Final = 1.05


class Link(Enum):
    """What a track was linked to in one frame."""

    STRONG = "a detection at or above the threshold"
    WEAK = "a box below the threshold"
    NONE = "nothing: the track coasts on its prediction"


@dataclass(slots=True, eq=False)
class Track:
    """One object, as far as its boxes tell.

    Attributes:
        xyxy: filtered place in this frame, pixels; the prediction while it coasts.
        box: the box it was last linked to, as the detector gave it.
        velocity: pixels a second of the centre, x and y.
        link: what it was linked to in this frame.
        score: score of the box linked in this frame, 0.0 while it coasts.
        strong: number of frames with a detection at or above the threshold.
        weak: number of frames with a weaker box.
        coasting: frames since the last linked box.
        unseen: frames since the last detection at or above the threshold.
        origin: centre of the first box, x and y.
        top_scores: the best scores it ever had, at most `TOP_SCORES`, ascending.
        begun_s: time of the first box.
        vouched_s: when the second look last saw it; None when it never did.
        vouched_score: the best score that the second look gave it.
    """

    id: int
    class_id: int
    xyxy: Xyxy
    box: Xyxy
    link: Link
    score: float
    velocity: tuple[float, float] = (0.0, 0.0)
    strong: int = 0
    weak: int = 0
    coasting: int = 0
    unseen: int = 0
    origin: tuple[float, float] = (0.0, 0.0)
    last_linked_s: float = 0.0
    top_scores: list[float] = field(default_factory=list)
    begun_s: float = 0.0
    vouched_s: float | None = None
    vouched_score: float = 0.0

    @property
    def confirmed(self) -> bool:
        """Whether the detector itself has reported the object at least three times."""
        return self.strong >= 3

    @property
    def known(self) -> bool:
        """Whether it is an object by the detector's word, at full size or enlarged."""
        return self.confirmed or self.vouched_s is not None

    @property
    def best_score(self) -> float:
        """The mean of its best scores, missing ones counted as 0: what the detector makes of it at its best."""
        return sum(self.top_scores) / TOP_SCORES

    @property
    def displacement(self) -> float:
        """How far the centre is from where the track began, in box heights."""
        x1, y1, x2, y2 = self.xyxy
        return math.hypot((x1 + x2) / 2 - self.origin[0], (y1 + y2) / 2 - self.origin[1]) / max(1.0, y2 - y1)


class Tracker:
    """Links the detections of one camera's frames. Call `update` once a frame, in order."""

    def __init__(self, *, score_threshold: float) -> None:
        self._score_threshold = score_threshold
        self._weak_threshold = min(WEAK_THRESHOLD, score_threshold / 1.5)
        self._known_threshold = min(KNOWN_THRESHOLD, score_threshold / 2)
        self._ids = count(1)
        self._last_s: float | None = None
        self.tracks: list[Track] = []

    def update(self, detections: Detections, *, time_s: float) -> list[Track]:
        """Link one frame's detections and return the tracks that ended with it.

        Args:
            detections: all boxes of the frame from score 0.05 up, best first.
            time_s: the camera's monotonic time of this frame.
        """
        passed_s = 0.0 if self._last_s is None else time_s - self._last_s
        self._last_s = time_s
        ended = self.end_all() if abs(passed_s) > OUTAGE_S else []
        step_s = max(0.0, passed_s)
        boxes = _without_doubles(detections.take(detections.score >= self._known_threshold))
        places, scores, classes = boxes.xyxy.tolist(), boxes.score.tolist(), boxes.class_id.tolist()
        n_strong = int(np.count_nonzero(boxes.score >= self._score_threshold))
        n_weak = int(np.count_nonzero(boxes.score >= self._weak_threshold))
        for track in self.tracks:
            _predict(track, step_s)
        free = set(range(len(boxes)))
        for i, j in self._pairs(boxes, n_strong, n_weak=n_weak, step_s=step_s):
            track = self.tracks[i]
            if track.link is Link.NONE and j in free:
                free.discard(j)
                link = Link.STRONG if j < n_strong else Link.WEAK
                _correct(track, link, box=(places[j], scores[j]), time_s=time_s)
        for j in sorted(j for j in free if j < n_weak)[: max(0, MAX_TRACKS - len(self.tracks))]:
            link = Link.STRONG if j < n_strong else Link.WEAK
            self.tracks.append(_begin(next(self._ids), classes[j], link, box=(places[j], scores[j]), time_s=time_s))
        return ended + self._drop_lost(time_s)

    def end_all(self) -> list[Track]:
        """End every track and return them: nothing is known of any object."""
        ended, self.tracks = self.tracks, []
        return ended

    def vouch(self, class_id: int, xyxy: Xyxy, score: float, *, time_s: float, track_id: int | None) -> Track | None:
        """Take in what the second look saw in the newest frame, of a track or, without one, as a new track.

        Returns None when the track has ended, or when there are too many.
        """
        track = next((track for track in self.tracks if track.id == track_id), None)
        if track is None:
            if track_id is not None or len(self.tracks) >= MAX_TRACKS:
                return None
            track = _begin(next(self._ids), class_id, Link.NONE, box=(list(xyxy), 0.0), time_s=time_s)
            self.tracks.append(track)
        else:
            _place(track, xyxy, time_s=time_s)
        track.vouched_s = time_s
        track.vouched_score = max(track.vouched_score, score)
        return track

    def follow(self, blobs: Sequence[Xyxy], *, time_s: float) -> None:
        """Move what only the second look has seen, and no box was ever linked to, along with what moves there."""
        boxless = [track for track in self.tracks if track.vouched_s is not None and track.strong + track.weak == 0]
        if not boxless or not blobs:
            return
        iou = box_iou(np.array([track.xyxy for track in boxless], np.float32), np.array(blobs, np.float32))
        for row, track in enumerate(boxless):
            if iou[row].max() >= MIN_IOU:
                _place(track, blobs[int(iou[row].argmax())], time_s=time_s)

    def _pairs(self, boxes: Detections, n_strong: int, *, n_weak: int, step_s: float) -> list[tuple[int, int]]:
        """Return the pairs of track and box that may be one object, best first.

        Only boxes of the track's class, the weakest for known tracks only. All strong boxes come before all weak ones;
        among the rest a track that the detector has confirmed comes first, then the higher IoU.
        """
        if not self.tracks or not len(boxes):
            return []
        buffer = min(MAX_BUFFER, BUFFER_PER_S * max(0.0, step_s - BUFFER_FROM_S))
        places = np.array([track.xyxy for track in self.tracks], np.float32)
        iou = box_iou(_widened(places, buffer), _widened(boxes.xyxy, buffer))
        of_class = np.array([track.class_id for track in self.tracks], np.int32)
        known = np.array([track.known for track in self.tracks])
        may_be = (iou >= MIN_IOU) & (of_class[:, None] == boxes.class_id[None, :])
        may_be[:, n_weak:] &= known[:, None]
        rows, columns = np.nonzero(may_be)
        order = iou[rows, columns] + 0.5 * known[rows] + 2.0 * (columns < n_strong)
        best = np.argsort(-order, kind="stable")
        return list(zip(rows[best].tolist(), columns[best].tolist(), strict=True))

    def _drop_lost(self, time_s: float) -> list[Track]:
        ended = [track for track in self.tracks if track.coasting > TENTATIVE_COAST_FRAMES and _is_lost(track, time_s)]
        if ended:
            gone = {track.id for track in ended}
            self.tracks = [track for track in self.tracks if track.id not in gone]
        return ended


def _is_lost(track: Track, time_s: float) -> bool:
    """Return whether a track that has coasted for more than `TENTATIVE_COAST_FRAMES` is given up."""
    if not track.known:
        return time_s - track.last_linked_s > TENTATIVE_COAST_S
    return track.coasting > MIN_COAST_FRAMES and time_s - track.last_linked_s > MAX_COAST_S


def _predict(track: Track, step_s: float) -> None:
    track.link = Link.NONE
    track.score = 0.0
    track.unseen += 1
    vx, vy = track.velocity
    if track.coasting:  # an object that hides for long rarely keeps its speed
        kept = math.exp(-_DAMPING_PER_S * step_s)
        vx, vy = vx * kept, vy * kept
        track.velocity = (vx, vy)
    x1, y1, x2, y2 = track.xyxy
    dx, dy = vx * step_s, vy * step_s
    track.xyxy = (x1 + dx, y1 + dy, x2 + dx, y2 + dy)
    track.coasting += 1


def _begin(number: int, class_id: int, link: Link, *, box: tuple[list[float], float], time_s: float) -> Track:
    (x1, y1, x2, y2), score = box
    strong = link is Link.STRONG
    return Track(
        id=number,
        class_id=class_id,
        xyxy=(x1, y1, x2, y2),
        box=(x1, y1, x2, y2),
        link=link,
        score=score,
        strong=int(strong),
        weak=int(link is Link.WEAK),
        unseen=int(not strong),
        origin=((x1 + x2) / 2, (y1 + y2) / 2),
        last_linked_s=time_s,
        top_scores=[score],
        begun_s=time_s,
    )


def _correct(track: Track, link: Link, *, box: tuple[list[float], float], time_s: float) -> None:
    (x1, y1, x2, y2), score = box
    _place(track, (x1, y1, x2, y2), time_s=time_s)
    track.box = (x1, y1, x2, y2)
    track.link = link
    track.score = score
    top = track.top_scores
    if len(top) < TOP_SCORES or score > top[0]:
        insort(top, score)
        del top[:-TOP_SCORES]
    if link is Link.STRONG:
        track.strong += 1
        track.unseen = 0
    else:
        track.weak += 1


def _place(track: Track, xyxy: Xyxy, *, time_s: float) -> None:
    """Move the filter to a measured place."""
    x1, y1, x2, y2 = xyxy
    px1, py1, px2, py2 = track.xyxy
    vx, vy = track.velocity
    elapsed_s = time_s - track.last_linked_s
    gain = _BETA / elapsed_s if elapsed_s > 0 else 0.0
    track.velocity = (vx + gain * (x1 + x2 - px1 - px2) / 2, vy + gain * (y1 + y2 - py1 - py2) / 2)
    track.xyxy = (
        px1 + _ALPHA * (x1 - px1),
        py1 + _ALPHA * (y1 - py1),
        px2 + _ALPHA * (x2 - px2),
        py2 + _ALPHA * (y2 - py2),
    )
    track.coasting = 0
    track.last_linked_s = time_s


def _widened(xyxy: Floats, share: float) -> Floats:
    """Return boxes `[n, 4]` with `share` of their sides added at each side."""
    if share <= 0.0:
        return xyxy
    margin = share * (xyxy[:, 2:] - xyxy[:, :2])
    wide: Floats = np.concatenate([xyxy[:, :2] - margin, xyxy[:, 2:] + margin], axis=1)
    return wide


def _without_doubles(boxes: Detections) -> Detections:
    """Drop the weaker of two boxes of one class that cover the same object; the order stays."""
    if len(boxes) < 2:
        return boxes
    double = (box_iou(boxes.xyxy, boxes.xyxy) > DOUBLE_IOU) & (boxes.class_id[:, None] == boxes.class_id[None, :])
    return boxes.take(~np.triu(double, 1).any(axis=0))
