"""A miss episode: the frames in a row in which an object has no detection at or above the score threshold.

Owns what an episode remembers, and what each witness makes of it, 0..1. It holds few frames: the best weak sight, the
best enlarged one, and the last two of the blind ones at 1, 2, 4, 8 ... frames; none once it was reported.

- `gap`: a track that the detector had confirmed has a hole, and the detector reports it again behind the hole. Where
  nothing at all was linked inside the hole, the place is interpolated between the two ends.
- `candidate`: a box below the threshold that stays with one object over frames, on a confirmed track or on none.
- `motion`: something that moves there and has the size that objects have there.
- `zoom`: the second look sees an object that the full frame did not show.

Gap and candidate are weighed by how surely there is an object at all (`belief`).
"""

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge.contract.samples import Witness, WitnessKind, Xyxy
from edge.detector.detections import Detections, box_iou
from edge.observation import Observation, is_inside
from edge.tracks import Track

MIN_FRAMES: Final = 3
MIN_S: Final = 0.15
TAKEN_IOU: Final = 0.35
RENAMED_IOU: Final = 0.6
SAME_IOU: Final = 0.3
ZOOM_SCORE: Final = 0.25
SCENERY: Final = 0.7
UNTRACKED: Final = 0.6  # of the motion of what the detector has no box for: a shadow, a reflection
PART: Final = 0.75
GAP_FADES_S: Final = 2.0


@dataclass(slots=True, eq=False)
class Sight:
    """A place in a held frame at which the object is thought to be. `index`: of the frame in the episode, from 1."""

    at: Observation
    xyxy: Xyxy
    score: float
    index: int


@dataclass(slots=True, eq=False)
class Episode:
    """A miss as far as it goes.

    Attributes:
        track: the track without a detection; None where only something that moves is known.
        class_id: of the track, or as the second look sees it.
        before: where the detector last reported it.
        confirmed: whether the detector had confirmed the object before.
        length: frames so far.
        weak: frames with a weaker box.
        blob_sum: sum of the scores of what moves there.
        best: the best weak sight.
        blind: the last sights without any box.
        seen: the best sight of the second look, its box as seen there.
        place: where it is in the newest frame, if that is a place to look at.
        refuted: second looks that saw nothing, or only what is detected.
        look_at: the length from which another look is worth its cost.
        looked_s: when the second look was last taken.
        judge_at_s: when it is judged although it is not over.
    """

    track: Track | None
    class_id: int | None
    before: Xyxy
    confirmed: bool
    begun_s: float
    score_threshold: float
    judge_at_s: float = math.inf
    length: int = 0
    last_s: float = 0.0
    weak: int = 0
    weak_sum: float = 0.0
    blob_sum: float = 0.0
    best: Sight | None = None
    blind: list[Sight] = field(default_factory=list)
    seen: Sight | None = None
    place: Sight | None = None
    refuted: int = 0
    look_at: int = MIN_FRAMES
    looked_s: float = -math.inf
    reported: bool = False
    _looked: set[int] = field(default_factory=set)

    @property
    def is_long_enough(self) -> bool:
        """Whether it lasts long enough to be a miss and not a flicker."""
        return self.length >= MIN_FRAMES and self.last_s - self.begun_s >= MIN_S - 1e-6

    @property
    def is_refuted(self) -> bool:
        """Whether the second look was taken and never saw it."""
        return self.refuted > 0 and self.seen is None

    def extend(self, at: Observation, *, xyxy: Xyxy, score: float, blob: float) -> None:
        """Add a frame: the place, the score of a weaker box (0: none), the score of what moves there (0: nothing)."""
        self.length += 1
        self.last_s = at.frame.time_s
        self.blob_sum += blob
        if score > 0:
            self.weak += 1
            self.weak_sum += score
        self.place = None
        if is_taken(xyxy, self.class_id, at) or not is_inside(xyxy, at):
            return
        self.place = Sight(at, xyxy, score, self.length)
        if self.reported:
            return
        if score > 0:
            if self.best is None or score > self.best.score:
                self.best = self.place
        elif self.length & (self.length - 1) == 0:
            self.blind = [*self.blind[-1:], self.place]  # the middle is never nearer to an older one

    def see(self, sight: Sight) -> None:
        """Take in a sight of the second look."""
        self._mark(sight)
        if self.reported or not is_inside(sight.xyxy, sight.at):
            return
        if self.seen is None or sight.score > self.seen.score:
            self.seen = sight

    def pass_over(self, sight: Sight) -> None:
        """Go without a second look at a sight that cannot be enlarged."""
        self._mark(sight)
        self.look_at = max(self.look_at + 1, 2 * self.length)

    def looked_at(self, sight: Sight) -> bool:
        """Whether the second look was taken in that frame."""
        return sight.index in self._looked

    def note(self, sight: Sight, found: Detections) -> Sight | None:
        """Take in what the second look saw around a sight; return what it saw of the object, if anything."""
        box = _best_of(found, sight, self.class_id)
        self.look_at = max(self.look_at + 1, 2 * self.length)
        if box is None:
            self.refuted += 1
            self._mark(sight)
            return None
        xyxy, score, class_id = box
        self.class_id = class_id
        seen = Sight(sight.at, xyxy, score, sight.index)
        self.see(seen)
        return seen

    def release(self) -> None:
        """Let go of the frames, once it was reported."""
        self.reported = True
        self.let_go()

    def let_go(self) -> None:
        """Forget every sight but that of the newest frame; later ones may take their place."""
        self.best, self.seen, self.blind = None, None, []

    def held(self) -> list[Observation]:
        """Return the frames that it keeps alive."""
        return [sight.at for sight in (self.best, self.seen, *self.blind) if sight is not None]

    def _mark(self, sight: Sight) -> None:
        self.looked_s = sight.at.frame.time_s
        if not self.reported:
            self._looked.add(sight.index)

    def witnesses(self, *, seen_again: bool, belief: float, scenery: bool) -> tuple[Witness, ...]:
        """Return who claims a miss, strongest first.

        Args:
            seen_again: whether the detector reports the object behind the hole.
            belief: how surely the track is an object, 0..1.
            scenery: whether it stands still and is of a class that this camera has never surely seen.
        """
        scores = {
            WitnessKind.ZOOM: 0.0 if self.seen is None else self.seen.score * (SCENERY if scenery else 1.0),
            WitnessKind.GAP: belief * self._gap() if seen_again and self.confirmed else 0.0,
            WitnessKind.CANDIDATE: belief * self._candidate() if self.weak else 0.0,
            WitnessKind.MOTION: self.blob_sum / self.length * (1.0 if self.track is not None else UNTRACKED),
        }
        found = [Witness(kind, round(min(1.0, score), 4)) for kind, score in scores.items() if score >= 0.005]
        return tuple(sorted(found, key=lambda witness: -witness.score))

    def _gap(self) -> float:
        """A shorter hole is surer: in a long one the object may have been hidden."""
        return math.exp(-(self.last_s - self.begun_s) / GAP_FADES_S)

    def _candidate(self) -> float:
        """How near the weaker boxes come to the threshold: an object that is nearly detected is mostly one."""
        return self.weak_sum / self.weak / self.score_threshold if self.score_threshold > 0 else 1.0


def is_taken(xyxy: Xyxy, class_id: int | None, at: Observation) -> bool:
    """Return whether the detector reports the object, so that it is no miss.

    It does by something of its class there (None: of any class) or around it, as of the legs of a person, or by another
    class at the very place.
    """
    return any(
        _covers(reported, xyxy, same=class_id is None or of_class == class_id) for reported, of_class in at.reported
    )


def _covers(reported: Xyxy, place: Xyxy, *, same: bool) -> bool:
    """Return whether a reported box explains a place. Plain numbers: it is asked for every pair, in every frame."""
    ax1, ay1, ax2, ay2 = reported
    bx1, by1, bx2, by2 = place
    width, height = min(ax2, bx2) - max(ax1, bx1), min(ay2, by2) - max(ay1, by1)
    if width <= 0 or height <= 0:
        return False
    both, area = width * height, (bx2 - bx1) * (by2 - by1)
    iou = both / ((ax2 - ax1) * (ay2 - ay1) + area - both)
    return iou >= RENAMED_IOU or (same and (iou >= TAKEN_IOU or both >= PART * area))


def middle(episode: Episode, after: Xyxy) -> Sight | None:
    """Return the blind sight nearest to the middle of a closed hole, its place interpolated between the two ends."""
    if not episode.blind:
        return None
    sight = min(episode.blind, key=lambda held: abs(held.index - (episode.length + 1) / 2))
    share = sight.index / (episode.length + 1)
    x1, y1, x2, y2 = (a + share * (b - a) for a, b in zip(episode.before, after, strict=True))
    between = Sight(sight.at, (x1, y1, x2, y2), 0.0, sight.index)
    return between if is_inside(between.xyxy, between.at) else None


def _best_of(found: Detections, sight: Sight, class_id: int | None) -> tuple[Xyxy, float, int] | None:
    """Return box, score and class of the best that lies at a sight and is not what the detector reports anyway."""
    at_place = (box_iou(found.xyxy, np.array([sight.xyxy], np.float32))[:, 0] >= SAME_IOU) & (found.score >= ZOOM_SCORE)
    if class_id is not None:
        at_place &= found.class_id == class_id
    for index in sorted(np.flatnonzero(at_place).tolist(), key=lambda index: -float(found.score[index])):
        x1, y1, x2, y2 = found.xyxy[index].tolist()
        if not is_taken((x1, y1, x2, y2), int(found.class_id[index]), sight.at):
            return (x1, y1, x2, y2), float(found.score[index]), int(found.class_id[index])
    return None
