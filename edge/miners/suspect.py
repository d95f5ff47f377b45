"""`suspect`: a likely false positive. Four kinds, each its own rule, and each place of a kind reported once.

- `ghost`: a detection that stands for a moment, with nothing at its place before or after. An isolated detection is
  mostly a false positive, a hole in a track mostly a miss (Jin et al., ECCV 2018).
- `duplicate`: two detections cover one object for several frames: nearly the same box, of one class or of two, or one
  box inside another of its class ("multibox", Kang et al., MLSys 2020).
- `class_flip`: an object that was reported as one class is reported as another.
- `still`: a detection that has not moved for hours: the parked car, the poster.

The rules measure time in the frame's own seconds, so that they say the same at every frame rate, and nothing where
the frames are too far apart to tell. A kind's reported places stand in `SuspectMiner.places`. One that is found again
is renewed there: it is quiet for as long as it goes on, and for `QUIET_S` longer. Only a ghost may be a thing that the
detector reported fewer than three times.
"""

from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.contract.samples import Reason, Xyxy
from edge.detector.detections import Detections, Floats, box_iou
from edge.observation import Mined, Observation, is_inside
from edge.places import KnownPlaces
from edge.tracks import Link, Track

QUIET_S: Final = 7 * 86400.0
SAME_PLACE_IOU: Final = 0.5


class SuspectMiner:
    """Looks for the four kinds in one camera's frames.

    Attributes:
        places: what was reported, by kind. Load them before the first frame; dump them at any time.
    """

    def __init__(self) -> None:
        self._seen = _ClassCounts()
        self.forget()
        self.places = {rule.tag: KnownPlaces(quiet_s=QUIET_S, min_iou=SAME_PLACE_IOU) for rule in self._rules}

    def forget(self) -> None:
        """Forget what is followed, not what was reported: the picture has another size."""
        self._rules = (_Ghosts(), _Duplicates(self._seen), _ClassFlips(self._seen), _Stills())

    def mine(self, observation: Observation) -> list[Mined]:
        """Return the suspects that this frame settles, but for places where their kind was reported before."""
        self._seen.note(observation)
        mined: list[Mined] = []
        now_ms = observation.frame.captured_at_ms
        for rule in self._rules:
            for suspicion in rule.look(observation):
                places = self.places[rule.tag]
                if not places.is_known(suspicion.region, suspicion.of_class, now_ms=now_ms):
                    mined.append(suspicion.as_mined(rule.tag))
                places.remember(suspicion.region, suspicion.of_class, now_ms=now_ms)
        return mined


@dataclass(frozen=True, slots=True, eq=False)
class _Suspicion:
    """A box that is likely false, in the frame that shows it.

    Its place is remembered for its class, or for `beside` where that is the smaller: what is now car and truck, now
    truck and car, is one thing. `track_id` is of a track of its class: a track of another class is a name for another
    thing, though both may lie on one object.
    """

    at: Observation
    severity: float
    region: Xyxy
    class_id: int
    track_id: int | None = None
    beside: int | None = None

    @property
    def of_class(self) -> int:
        return self.class_id if self.beside is None else min(self.class_id, self.beside)

    def as_mined(self, tag: str) -> Mined:
        return Mined(
            at=self.at,
            reason=Reason.SUSPECT,
            severity=round(self.severity, 4),
            region=self.region,
            class_id=self.class_id,
            track_id=self.track_id,
            tags=(tag,),
        )


class _Ghosts:
    """Holds an isolated detection, and its frame, until the moment behind it is over; at most `MOST` of them."""

    tag: Final = "ghost"
    MAX_STEP_S: Final = 0.35  # frames further apart say nothing: an object can come and go between them
    LIFE_S: Final = 0.075  # one frame up to 13 a second, five at 60
    AROUND_S: Final = 0.25
    EXPLAINS_SHARE: Final = 0.5  # of the threshold: a box from here on explains the detection
    BORDER_SHARE: Final = 0.015  # of the longer side: a box rarely reaches the very last pixel
    MOST: Final = 4

    def __init__(self) -> None:
        self._before: deque[tuple[float, Detections]] = deque()
        self._waiting: list[_Suspicion] = []

    def look(self, observation: Observation) -> list[_Suspicion]:
        """Return the ghosts whose moment is over. What another box explains is none."""
        now_s, threshold = observation.frame.time_s, observation.score_threshold
        if self._before and not 0.0 <= now_s - self._before[-1][0] <= self.MAX_STEP_S:
            self._before.clear()
            self._waiting.clear()
        boxes = observation.detections.take(observation.detections.score >= self.EXPLAINS_SHARE * threshold)
        ghosts = self._settle(boxes, now_s)
        self._waiting = (self._waiting + self._isolated(observation))[: self.MOST]
        self._before.append((now_s, boxes))
        while len(self._before) > 1 and self._before[1][0] <= now_s - self.AROUND_S:
            self._before.popleft()
        return ghosts

    def _settle(self, boxes: Detections, now_s: float) -> list[_Suspicion]:
        waiting: list[_Suspicion] = []
        ghosts: list[_Suspicion] = []
        for one in self._waiting:
            age_s = now_s - one.at.frame.time_s
            if age_s <= self.LIFE_S or not _has_near(boxes, one.region, one.class_id):
                (ghosts if age_s >= self.AROUND_S else waiting).append(one)
        self._waiting = waiting
        return ghosts

    def _isolated(self, observation: Observation) -> list[_Suspicion]:
        """Return the first sights of this frame to which nothing led."""
        if not self._before or observation.frame.time_s - self._before[0][0] < self.AROUND_S:
            return []
        border_px = self.BORDER_SHARE * max(observation.frame.image.shape[:2])
        threshold = observation.score_threshold
        return [
            _Suspicion(
                at=observation,
                severity=0.3 + 0.5 * (track.score - threshold) / max(1e-6, 1.0 - threshold),
                region=track.box,
                class_id=track.class_id,
                track_id=track.id,
            )
            for track in observation.tracks
            if track.link is Link.STRONG
            and track.strong + track.weak == 1
            and is_inside(track.box, observation, border_px=border_px)
            and not any(_has_near(boxes, track.box, track.class_id) for _, boxes in self._before)
        ]


class _ClassCounts:
    """How often this camera's detector reports each class."""

    CLEAR: Final = 4

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def note(self, observation: Observation) -> None:
        """Count the detections of a frame."""
        self._counts.update(track.class_id for track in observation.tracks if track.link is Link.STRONG)

    def is_clearly_rarer(self, class_id: int, other: int) -> bool:
        """Return whether `class_id` is reported so rarely beside `other` that it is the one in doubt."""
        return self._counts[class_id] * self.CLEAR <= self._counts[other]


class _Duplicates:
    """Counts the frames in which a second detection covers an object that the detector has confirmed."""

    tag: Final = "duplicate"
    COVERS_IOU: Final = 0.7
    INSIDE: Final = 0.9

    def __init__(self, seen: _ClassCounts) -> None:
        self._seconds = _Seconds(max_gap_s=1.5)
        self._seen = seen

    def look(self, observation: Observation) -> list[_Suspicion]:
        """Return the second detections that stayed long enough, each once an object and class."""
        self._seconds.forget(observation)
        strong = observation.detections.take(observation.detections.score >= observation.score_threshold)
        if len(strong) < 2:
            return []
        places = [_as_xyxy(box) for box in strong.xyxy.tolist()]
        classes: list[int] = strong.class_id.tolist()
        tracks = {(track.class_id, track.box): track for track in observation.tracks}
        suspicions = []
        for i, j, iou in self._pairs(strong):
            first, second = (j, i) if self._seen.is_clearly_rarer(classes[i], classes[j]) else (i, j)
            owner = tracks.get((classes[first], places[first]))
            if owner is not None and owner.confirmed and self._seconds.note(owner, classes[second], observation):
                severity, place, class_id = 0.4 + 0.5 * iou, places[second], classes[second]
                its = owner if class_id == owner.class_id else tracks.get((class_id, place))
                track_id = None if its is None else its.id
                suspicions.append(_Suspicion(observation, severity, place, class_id, track_id, owner.class_id))
        return suspicions

    def _pairs(self, strong: Detections) -> list[tuple[int, int, float]]:
        """Return the pairs of boxes that cover one object, the surer box first, with their IoU."""
        x1, y1, x2, y2 = strong.xyxy.T
        area = (x2 - x1) * (y2 - y1)
        iou = box_iou(strong.xyxy, strong.xyxy)
        inside = iou / (1.0 + iou) * (area[:, None] + area) / np.minimum(area[:, None], area)
        of_one_class = strong.class_id[:, None] == strong.class_id
        covers = (iou >= self.COVERS_IOU) | (of_one_class & (inside >= self.INSIDE))
        return [(i, j, float(iou[i, j])) for i, j in np.argwhere(np.triu(covers, 1)).tolist()]


class _ClassFlips:
    """Counts the frames in which an object that the detector has confirmed is reported as another class instead.

    A track of the other class counts only if it began on the object: two objects that pass each other are no flip.
    """

    tag: Final = "class_flip"
    MIN_IOU: Final = 0.5

    def __init__(self, seen: _ClassCounts) -> None:
        self._seconds = _Seconds(max_gap_s=10.0)
        self._seen = seen
        self._began_on: dict[int, int] = {}

    def look(self, observation: Observation) -> list[_Suspicion]:
        """Return the other classes that were reported often enough, each once an object and class."""
        self._seconds.forget(observation)
        for track in observation.ended:
            self._began_on.pop(track.id, None)
        reported = [track for track in observation.tracks if track.link is Link.STRONG]
        owners = [track for track in observation.tracks if track.confirmed]
        if not reported or not owners:
            return []
        iou = box_iou(_as_boxes([track.box for track in reported]), _as_boxes([track.xyxy for track in owners]))
        suspicions = []
        for i, j in np.argwhere(iou >= self.MIN_IOU).tolist():
            other, owner = reported[i], owners[j]
            if other.class_id == owner.class_id:
                continue
            if other.strong == 1:
                self._began_on.setdefault(other.id, owner.id)
            if owner.link is Link.STRONG or self._began_on.get(other.id) != owner.id:
                continue
            if self._seen.is_clearly_rarer(owner.class_id, other.class_id):  # it was false before; now it is right
                continue
            if self._seconds.note(owner, other.class_id, observation):
                severity = 0.4 + 0.4 * other.score
                suspicions.append(
                    _Suspicion(observation, severity, other.box, other.class_id, other.id, owner.class_id)
                )
        return suspicions


@dataclass(slots=True)
class _Second:
    first_s: float
    last_s: float
    frames: int = 0
    told: bool = False


class _Seconds:
    """What else the detector reports on a track, by class: the frames of it, as long as they are `max_gap_s` apart."""

    MIN_FRAMES: Final = 3
    MIN_S: Final = 0.19

    def __init__(self, *, max_gap_s: float) -> None:
        self._max_gap_s = max_gap_s
        self._of: dict[tuple[int, int], _Second] = {}

    def note(self, owner: Track, class_id: int, observation: Observation) -> bool:
        """Count a frame. Return whether there were enough of them with this one; once."""
        now_s = observation.frame.time_s
        second = self._of.setdefault((owner.id, class_id), _Second(now_s, now_s))
        second.last_s = now_s
        second.frames += 1
        if second.told or second.frames < self.MIN_FRAMES or now_s - second.first_s < self.MIN_S:
            return False
        second.told = True
        return True

    def forget(self, observation: Observation) -> None:
        """Forget the tracks that ended, and what was not seen again in time."""
        gone = {track.id for track in observation.ended}
        since_s = observation.frame.time_s - self._max_gap_s
        lost = [
            key for key, second in self._of.items() if key[0] in gone or not (second.told or second.last_s >= since_s)
        ]
        for key in lost:
            del self._of[key]


@dataclass(slots=True)
class _Stay:
    """A box that may be there for hours: at its place in `seen` of the `looks` since `first_s`."""

    class_id: int
    xyxy: Xyxy
    first_s: float
    last_s: float
    due_s: float
    looks: int = 1
    seen: int = 1
    strong: int = 1


class _Stills:
    """Follows places, not tracks: what is there for hours is lost and found again many times.

    It looks every `LOOK_S`. A place is given up when it has been out of sight for half the time that it was followed
    (at least `MIN_GAP_S`, at most `MAX_GAP_S`), or was in sight in less than half of the looks. No frame is held.
    """

    tag: Final = "still"
    LOOK_S: Final = 5.0
    STILL_S: Final = 2 * 3600.0
    AGAIN_S: Final = 3600.0  # what stays is named again, so that its place is renewed
    SAME_IOU: Final = 0.8
    OWN_IOU: Final = 0.5  # a box so near to a place that is followed begins none of its own
    WEAK_SHARE: Final = 0.7  # of the threshold: a box from here on shows that the thing is still there
    MIN_LOOKS: Final = 10
    MIN_GAP_S: Final = 30.0
    MAX_GAP_S: Final = 600.0
    MOST: Final = 200

    def __init__(self) -> None:
        self._stays: list[_Stay] = []
        self._due_s = 0.0

    def look(self, observation: Observation) -> list[_Suspicion]:
        """Return the boxes that have not moved for `STILL_S`, and again every `AGAIN_S`."""
        now_s, threshold = observation.frame.time_s, observation.score_threshold
        if now_s < self._due_s:
            return []
        self._due_s = now_s + self.LOOK_S
        boxes = observation.detections.take(observation.detections.score >= self.WEAK_SHARE * threshold)
        suspicions = self._follow(boxes, observation)
        self._stays = [stay for stay in self._stays if self._is_held(stay, now_s)]
        self._begin(boxes.take(boxes.score >= threshold), now_s)
        return suspicions

    def _follow(self, boxes: Detections, observation: Observation) -> list[_Suspicion]:
        now_s = observation.frame.time_s
        iou = self._overlaps(boxes)
        suspicions = []
        for number, stay in enumerate(self._stays):
            stay.looks += 1
            best = int(iou[number].argmax()) if len(boxes) else -1
            if best < 0 or iou[number, best] < self.SAME_IOU:
                continue
            stay.last_s = now_s
            stay.seen += 1
            if boxes.score[best] < observation.score_threshold:
                continue
            stay.strong += 1
            if now_s >= stay.due_s and stay.strong >= 3:
                stay.due_s = now_s + self.AGAIN_S
                place = _as_xyxy(boxes.xyxy[best].tolist())
                suspicions.append(_Suspicion(observation, 0.4, place, stay.class_id))
        return suspicions

    def _begin(self, strong: Detections, now_s: float) -> None:
        """Follow the boxes that are at no place that is followed."""
        is_new = self._overlaps(strong).max(axis=0, initial=0.0) < self.OWN_IOU
        new = strong.take(is_new).take(slice(max(0, self.MOST - len(self._stays))))
        for box, class_id in zip(new.xyxy.tolist(), new.class_id.tolist(), strict=True):
            self._stays.append(_Stay(class_id, _as_xyxy(box), now_s, now_s, now_s + self.STILL_S))

    def _overlaps(self, boxes: Detections) -> Floats:
        """Return the IoU of each place with each box of its class, `[places, boxes]`; 0 for other classes."""
        classes = np.array([stay.class_id for stay in self._stays], np.int32)
        iou = box_iou(_as_boxes([stay.xyxy for stay in self._stays]), boxes.xyxy)
        return np.where(classes[:, None] == boxes.class_id, iou, np.float32(0.0))

    def _is_held(self, stay: _Stay, now_s: float) -> bool:
        gap_s = min(self.MAX_GAP_S, max(self.MIN_GAP_S, (stay.last_s - stay.first_s) / 2))
        return now_s - stay.last_s <= gap_s and (stay.looks < self.MIN_LOOKS or 2 * stay.seen >= stay.looks)


def _as_xyxy(box: list[float]) -> Xyxy:
    x1, y1, x2, y2 = box
    return x1, y1, x2, y2


def _as_boxes(places: list[Xyxy]) -> Floats:
    return np.array(places, np.float32).reshape(-1, 4)


def _has_near(boxes: Detections, xyxy: Xyxy, class_id: int) -> bool:
    """Return whether a box covers the place, or one of its class is within its longer side."""
    if not len(boxes):
        return False
    x1, y1, x2, y2 = xyxy
    dx = (boxes.xyxy[:, 0] + boxes.xyxy[:, 2] - x1 - x2) / 2
    dy = (boxes.xyxy[:, 1] + boxes.xyxy[:, 3] - y1 - y2) / 2
    is_close = np.hypot(dx, dy) <= max(x2 - x1, y2 - y1)
    covers = box_iou(boxes.xyxy, _as_boxes([xyxy]))[:, 0] >= 0.3
    return bool((covers | (is_close & (boxes.class_id == class_id))).any())
