"""`missed`: an object that the detector did not report for several frames, with the witnesses who say so.

Owns the miss episode: the frames in a row in which a track has no detection at or above the score threshold.

- `gap`: a track that the detector had confirmed has a hole, and the detector reports it again behind the hole. Where
  nothing at all was linked inside the hole, the place is interpolated between the two ends.
- `candidate`: a box below the threshold that stays with one object over frames, on a confirmed track or on none.

Both are weighed by how surely there is an object at all: a track is one when its best scores are clearly over the
threshold. A track that never was is believed a little where it moves and this camera has seen its class surely before.

One finding an episode: the frame in which the object shows best. A hole that never closes, with no weaker box in it,
is no finding: the object left or is hidden. A thing that does not move is reported once, then quiet for `QUIET_S`.
"""

import math
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge.contract.samples import Reason, Witness, WitnessKind, Xyxy
from edge.detector.detections import box_iou
from edge.observation import Mined, Observation, is_inside
from edge.tracks import Link, Track

MIN_FRAMES: Final = 3
LONG_FRAMES: Final = 30
MIN_SEVERITY: Final = 0.3
SURE_MARGIN: Final = 0.12
SURE_WIDTH: Final = 0.04
UNSEEN_BELIEF: Final = 0.6
QUIET_S: Final = 3600.0
SAME_PLACE_IOU: Final = 0.7
MAX_REPORTED: Final = 500
SURE_TRACKS: Final = 3
MOVED: Final = 0.5


@dataclass(slots=True, eq=False)
class _Sight:
    at: Observation
    xyxy: Xyxy
    score: float
    index: int


@dataclass(slots=True, eq=False)
class _Episode:
    """A miss as far as it goes.

    It holds the frame of the best weak sight, and of blind ones at 1, 2, 4, 8 ... frames; none once it was reported.
    """

    before: Xyxy
    confirmed: bool
    length: int = 0
    weak: int = 0
    weak_sum: float = 0.0
    best: _Sight | None = None
    blind: list[_Sight] = field(default_factory=list)
    look_at_frames: int = LONG_FRAMES
    reported: bool = False


class MissedMiner:
    """Follows the episodes of one camera's tracks."""

    def __init__(self) -> None:
        self._episodes: dict[int, _Episode] = {}
        self._places: dict[int, Xyxy] = {}
        self._sure_of_class: dict[int, set[int]] = {}
        self._reported: list[tuple[float, int, Xyxy]] = []

    def mine(self, observation: Observation) -> list[Mined]:
        """Return the episodes that ended, or grew long, with this frame."""
        mined: list[Mined] = []
        for track in observation.tracks:
            if track.link is Link.STRONG:
                mined += self._close(track, observation, seen_again=True)
                self._places[track.id] = track.box
                self._remember_class(track, observation)
                continue
            episode = self._episodes.get(track.id)
            if episode is None:
                before = self._places.get(track.id, track.box)
                episode = self._episodes[track.id] = _Episode(before, track.confirmed)
            _extend(episode, track, observation)
            if episode.length == episode.look_at_frames:
                mined += self._judge(episode, track, observation, seen_again=False)
        for track in observation.ended:
            mined += self._close(track, observation, seen_again=False)
            self._places.pop(track.id, None)
        return mined

    def finish(self, last: Observation) -> list[Mined]:
        """Return what the open episodes are worth when the recording ends. `last` is its last frame."""
        return [mined for track in last.tracks for mined in self._close(track, last, seen_again=False)]

    def _close(self, track: Track, now: Observation, *, seen_again: bool) -> list[Mined]:
        """Return the finding of a track's episode that is over, if it has one and it is worth one."""
        episode = self._episodes.pop(track.id, None)
        return [] if episode is None else self._judge(episode, track, now, seen_again=seen_again)

    def _judge(self, episode: _Episode, track: Track, now: Observation, *, seen_again: bool) -> list[Mined]:
        """Return the finding of an episode, at most once. One that is long and not over is judged as it stands."""
        episode.look_at_frames *= 2
        if episode.reported or episode.length < MIN_FRAMES:
            return []
        witnesses = _witnesses(episode, seen_again=seen_again)
        sight = episode.best or (_middle(episode, track) if seen_again else None)
        if sight is None or not witnesses:
            return []
        claimed = 1.0 - math.prod(1.0 - witness.score for witness in witnesses)
        severity = round(claimed * self._belief(track, now.score_threshold), 4)
        if severity < MIN_SEVERITY:
            return []
        if track.displacement < MOVED and self._is_quiet(sight.xyxy, track.class_id, now.frame.time_s):
            return []
        episode.reported, episode.best, episode.blind = True, None, []
        return [
            Mined(
                at=sight.at,
                reason=Reason.MISSED,
                severity=severity,
                region=sight.xyxy,
                class_id=track.class_id,
                witnesses=witnesses,
                track_id=track.id,
            )
        ]

    def _remember_class(self, track: Track, at: Observation) -> None:
        if track.best_score >= at.score_threshold + SURE_MARGIN:
            known = self._sure_of_class.setdefault(track.class_id, set())
            if len(known) < SURE_TRACKS:
                known.add(track.id)

    def _belief(self, track: Track, score_threshold: float) -> float:
        """Return how surely there is an object, 0..1."""
        margin = (track.best_score - score_threshold - SURE_MARGIN) / SURE_WIDTH
        seen = 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, margin))))
        of_class = len(self._sure_of_class.get(track.class_id, ())) / SURE_TRACKS
        return max(seen, UNSEEN_BELIEF * of_class * min(1.0, track.displacement / MOVED))

    def _is_quiet(self, xyxy: Xyxy, class_id: int, now_s: float) -> bool:
        """Return whether this place of a still object was reported lately, and remember it if not."""
        self._reported = [held for held in self._reported if now_s - held[0] < QUIET_S][-MAX_REPORTED:]
        places = np.array([place for _, of_class, place in self._reported if of_class == class_id], np.float32)
        if box_iou(places.reshape(-1, 4), np.array([xyxy], np.float32)).max(initial=0.0) >= SAME_PLACE_IOU:
            return True
        self._reported.append((now_s, class_id, xyxy))
        return False


def _extend(episode: _Episode, track: Track, at: Observation) -> None:
    episode.length += 1
    if track.link is Link.WEAK:
        episode.weak += 1
        episode.weak_sum += track.score
        if episode.reported:
            return
        if is_inside(track.box, at) and (episode.best is None or track.score > episode.best.score):
            episode.best = _Sight(at, track.box, track.score, episode.length)
    elif not episode.reported and episode.length & (episode.length - 1) == 0:
        episode.blind.append(_Sight(at, track.xyxy, 0.0, episode.length))


def _witnesses(episode: _Episode, *, seen_again: bool) -> tuple[Witness, ...]:
    """Return who claims a miss, strongest first."""
    witnesses = []
    if seen_again and episode.confirmed:
        # A shorter hole is surer: in a long one the object may have been hidden.
        score = 0.8 * math.exp(-(episode.length - MIN_FRAMES) / 20.0)
        witnesses.append(Witness(WitnessKind.GAP, round(score, 4)))
    if episode.weak:
        share = episode.weak / episode.length
        mean = episode.weak_sum / episode.weak
        steady = min(1.0, episode.weak / 6.0)
        witnesses.append(Witness(WitnessKind.CANDIDATE, round(min(0.95, share * (0.2 + 3.0 * mean * steady)), 4)))
    return tuple(sorted(witnesses, key=lambda witness: -witness.score))


def _middle(episode: _Episode, track: Track) -> _Sight | None:
    """Return the held frame nearest to the middle of a closed hole, its place interpolated between the two ends."""
    if not episode.blind:
        return None
    sight = min(episode.blind, key=lambda held: abs(held.index - (episode.length + 1) / 2))
    share = sight.index / (episode.length + 1)
    a, b = episode.before, track.box
    x1, y1, x2, y2 = (a[i] + share * (b[i] - a[i]) for i in range(4))
    sight.xyxy = (x1, y1, x2, y2)
    return sight if is_inside(sight.xyxy, sight.at) else None
