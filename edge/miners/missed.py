"""`missed`: an object that the detector did not report for several frames, with the witnesses who say so.

Follows one episode (edge.miners.episodes) for each track without a detection, and one for each moving thing that no
track explains. An episode that is over, or has grown long, is judged; one that a second look could decide waits for it,
at most `WAIT_S`. One finding an episode: the frame in which the object shows best, by the second look's word if there
was one. A hole that never closes, with no weaker box in it and nothing seen at the second look, is no finding: the
object left or is hidden. A thing that does not move is reported once, then quiet.
"""

import math
from collections import Counter, deque
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.contract.policy import Weights
from edge.contract.samples import Reason, Witness, Xyxy
from edge.detector.detections import Detections, box_iou
from edge.miners.episodes import Episode, Sight, middle
from edge.observation import Mined, Observation
from edge.places import KnownPlaces
from edge.severity import severity
from edge.tracks import Link, Track

LONG_S: Final = 3.0
WAIT_S: Final = 5.0
MAX_WAITING: Final = 8
CARRY_S: Final = 3.0
CARRY_BOXLESS_S: Final = 0.4
CARRY_BELIEF: Final = 0.3
SURE_MARGIN: Final = 0.12
SURE_WIDTH: Final = 0.04
UNSEEN_BELIEF: Final = 0.6
SURE_TRACKS: Final = 3
MOVED: Final = 0.5
NEARLY: Final = 0.8  # of the best weak score: the newest frame will do, and serves the tracker as well
BLOB_IOU: Final = 0.2
BLOB_LOOK_S: Final = 0.3
MAX_MOVING: Final = 32
MAX_TOLD: Final = 32
MAX_FRAMES: Final = 24
TOLD_S: Final = 0.5
TOLD_IOU: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """A sight of an episode that deserves a second look; the higher `worth` first."""

    sight: Sight
    episode: Episode
    worth: float


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """An episode that is over and waits for a second look at `sight`."""

    episode: Episode
    sight: Sight
    seen_again: bool
    since_s: float


class MissedMiner:
    """Follows the episodes of one camera.

    Attributes:
        weights: of the witnesses; may be replaced at any time, like the two below.
        min_severity: findings below it are not made.
        zooms: whether second looks are taken, so that it is worth to wait for one.

    Args:
        places: where still objects were reported.
    """

    def __init__(self, *, weights: Weights, min_severity: float, zooms: bool, places: KnownPlaces) -> None:
        self.weights = weights
        self.min_severity = min_severity
        self.zooms = zooms
        self._places = places
        self._episodes: dict[int, Episode] = {}
        self._moving: dict[int, Episode] = {}
        self._last_box: dict[int, tuple[float, float, float, float]] = {}
        self._sure_of_class: dict[int, set[int]] = {}
        self._waiting: list[_Waiting] = []
        self._told: deque[tuple[float, int | None, Xyxy]] = deque(maxlen=MAX_TOLD)

    def mine(self, observation: Observation) -> list[Mined]:
        """Return the episodes that were decided with this frame."""
        mined: list[Mined] = []
        blobs = _blobs_of_tracks(observation)
        for track in observation.tracks:
            if track.link is Link.STRONG:
                mined += self._close(track, observation, seen_again=True)
                self._last_box[track.id] = track.box
                self._remember_class(track, observation)
            else:
                mined += self._follow(track, observation, blob=blobs.get(track.id, 0.0))
        for track in observation.ended:
            mined += self._close(track, observation, seen_again=False)
            self._last_box.pop(track.id, None)
        mined += self._follow_moving(observation)
        mined += self._settle(observation)
        self._hold_few()
        return mined

    def asks(self, now: Observation, *, carry: bool) -> list[Ask]:
        """Return the sights that deserve a second look, the worthiest first.

        With `carry`, also those of the newest frame that keep what was seen before in the published detections.
        """
        asks = [
            Ask(one.sight, one.episode, self._severity(one.episode, seen_again=one.seen_again))
            for one in self._waiting
            if not one.episode.looked_at(one.sight)
        ]
        for episode in (*self._episodes.values(), *self._moving.values()):
            ask = self._ask(episode, now, carry=carry)
            if ask is not None:
                asks.append(ask)
        return sorted(asks, key=lambda ask: -ask.worth)

    def note(self, ask: Ask, found: Detections) -> Sight | None:
        """Take in what the second look saw; return what it saw of the missed object, if anything."""
        return ask.episode.note(ask.sight, found)

    def see_beside(self, track: Track, now: Observation, xyxy: Xyxy, score: float) -> None:
        """Take in what the second look saw of a track in the newest frame although it looked at something else."""
        episode = self._episodes.get(track.id)
        if episode is None:
            episode = self._episodes[track.id] = self._new(track, now)
            episode.extend(now, xyxy=xyxy, score=0.0, blob=0.0)
        episode.see(Sight(now, xyxy, score, episode.length))

    def adopt(self, episode: Episode, track: Track) -> None:
        """Go on with the episode of something that moves as that of a new track."""
        for number in [number for number, moving in self._moving.items() if moving is episode]:
            del self._moving[number]
        episode.track = track
        self._episodes[track.id] = episode

    def finish(self, last: Observation) -> list[Mined]:
        """Return what is still undecided when the recording ends. `last` is its last frame."""
        mined = [found for track in last.tracks for found in self._close(track, last, seen_again=False)]
        moving, self._moving = list(self._moving.values()), {}
        mined += self._end_moving(moving, last)
        waiting, self._waiting = self._waiting, []
        return mined + [
            found for one in waiting for found in self._judge(one.episode, one.sight, seen_again=one.seen_again)
        ]

    def _follow(self, track: Track, now: Observation, *, blob: float) -> list[Mined]:
        """Go on with the episode of a track that has no detection in this frame."""
        episode = self._episodes.get(track.id)
        now_s = now.frame.time_s
        if episode is None:
            episode = self._episodes[track.id] = self._new(track, now)
        weak = track.link is Link.WEAK
        episode.extend(now, xyxy=track.box if weak else track.xyxy, score=track.score if weak else 0.0, blob=blob)
        if now_s < episode.judge_at_s:
            return []
        episode.judge_at_s = now_s + 2 * (now_s - episode.begun_s)
        sight = episode.seen or episode.best
        return (
            [] if sight is None or self._could_look(episode, sight) else self._judge(episode, sight, seen_again=False)
        )

    def _new(self, track: Track, now: Observation) -> Episode:
        before, now_s = self._last_box.get(track.id, track.box), now.frame.time_s
        return Episode(
            track, track.class_id, before, track.confirmed, now_s, now.score_threshold, judge_at_s=now_s + LONG_S
        )

    def _follow_moving(self, now: Observation) -> list[Mined]:
        """Go on with the episodes of what moves where no track is; judge those that are over."""
        here = {blob.id: blob for blob in now.blobs if not _has_track(blob.xyxy, now)}
        for number, blob in here.items():
            episode = self._moving.get(number)
            if episode is None:
                if len(self._moving) >= MAX_MOVING:
                    continue
                episode = self._moving[number] = Episode(
                    None, None, blob.xyxy, False, now.frame.time_s, now.score_threshold
                )
            episode.extend(now, xyxy=blob.xyxy, score=0.0, blob=blob.score)
        over = [self._moving.pop(number) for number in list(self._moving) if number not in here]
        return self._end_moving(over, now)

    def _end_moving(self, over: list[Episode], now: Observation) -> list[Mined]:
        return [
            mined
            for episode in over
            if (sight := episode.seen or (episode.blind[-1] if episode.blind else None)) is not None
            for mined in self._end(episode, sight, now=now, seen_again=False)
        ]

    def _close(self, track: Track, now: Observation, *, seen_again: bool) -> list[Mined]:
        """End a track's episode, if it has one."""
        episode = self._episodes.pop(track.id, None)
        if episode is None:
            return []
        sight = episode.seen or episode.best or (middle(episode, track.box) if seen_again else None)
        return [] if sight is None else self._end(episode, sight, now=now, seen_again=seen_again)

    def _end(self, episode: Episode, sight: Sight, *, now: Observation, seen_again: bool) -> list[Mined]:
        """Judge an episode that is over, or let it wait for the second look."""
        if episode.reported or not episode.is_long_enough:
            return []
        if not self._could_look(episode, sight):
            return self._judge(episode, sight, seen_again=seen_again)
        episode.place = None
        self._waiting.append(_Waiting(episode, sight, seen_again, now.frame.time_s))
        return []

    def _could_look(self, episode: Episode, sight: Sight) -> bool:
        return self.zooms and episode.seen is None and not episode.looked_at(sight)

    def _settle(self, now: Observation) -> list[Mined]:
        """Judge what waited and was looked at, or has waited for too long, or is too much."""
        crowded = max(0, len(self._waiting) - MAX_WAITING)
        if crowded:
            self._waiting.sort(key=lambda one: self._severity(one.episode, seen_again=one.seen_again))
        due = [
            one
            for index, one in enumerate(self._waiting)
            if index < crowded
            or not self._could_look(one.episode, one.sight)
            or now.frame.time_s - one.since_s > WAIT_S
        ]
        self._waiting = [one for one in self._waiting if one not in due]
        mined: list[Mined] = []
        for one in due:
            mined += self._judge(one.episode, one.episode.seen or one.sight, seen_again=one.seen_again)
        return mined

    def _judge(self, episode: Episode, sight: Sight, *, seen_again: bool) -> list[Mined]:
        """Return the finding of an episode, at most once."""
        if episode.reported or not episode.is_long_enough:
            return []
        witnesses, refuted = self._witnesses(episode, seen_again=seen_again), episode.is_refuted
        probability = severity(witnesses, refuted=refuted, weights=self.weights)
        if not witnesses or probability < self.min_severity:
            return []
        if self._was_told(episode, sight) or self._is_quiet(episode, sight):
            episode.release()
            return []
        episode.release()
        self._told.append((sight.at.frame.time_s, episode.class_id, sight.xyxy))
        return [
            Mined(
                at=sight.at,
                reason=Reason.MISSED,
                severity=probability,
                region=sight.xyxy,
                class_id=episode.class_id,
                witnesses=witnesses,
                refuted=refuted,
                track_id=None if episode.track is None else episode.track.id,
            )
        ]

    def _ask(self, episode: Episode, now: Observation, *, carry: bool) -> Ask | None:
        """Return what to look at of an episode that is not over."""
        place = episode.place if episode.place is not None and episode.place.at is now else None
        if carry and episode.track is not None and place is not None and _needs_carrying(episode, episode.track, now):
            track = episode.track
            if track.vouched_s is not None or self._belief(episode) >= CARRY_BELIEF:
                return Ask(place, episode, 1.0 + track.vouched_score + track.score)
        if episode.reported or episode.seen is not None or episode.length < episode.look_at:
            return None
        if not episode.is_long_enough or (episode.track is None and episode.last_s - episode.begun_s < BLOB_LOOK_S):
            return None
        sight = episode.best
        if place is not None and (sight is None or place.score >= NEARLY * sight.score):
            sight = place
        return None if sight is None else Ask(sight, episode, self._severity(episode, seen_again=False))

    def _severity(self, episode: Episode, *, seen_again: bool) -> float:
        witnesses = self._witnesses(episode, seen_again=seen_again)
        return severity(witnesses, refuted=episode.is_refuted, weights=self.weights)

    def _hold_few(self) -> None:
        """Let the least likely episodes forget their frames while more than `MAX_FRAMES` are held."""
        episodes = [*self._episodes.values(), *self._moving.values(), *(one.episode for one in self._waiting)]
        held = Counter(id(at) for episode in episodes for at in episode.held())
        if len(held) <= MAX_FRAMES:
            return
        for episode in sorted(episodes, key=lambda episode: self._severity(episode, seen_again=False)):
            held.subtract(id(at) for at in episode.held())
            episode.let_go()
            held = +held
            if len(held) <= MAX_FRAMES:
                return

    def _witnesses(self, episode: Episode, *, seen_again: bool) -> tuple[Witness, ...]:
        track = episode.track
        scenery = track is not None and track.displacement < MOVED and not self._sure_of_class.get(track.class_id)
        return episode.witnesses(seen_again=seen_again, belief=self._belief(episode), scenery=scenery)

    def _remember_class(self, track: Track, at: Observation) -> None:
        if track.best_score >= at.score_threshold + SURE_MARGIN:
            known = self._sure_of_class.setdefault(track.class_id, set())
            if len(known) < SURE_TRACKS:
                known.add(track.id)

    def _belief(self, episode: Episode) -> float:
        """Return how surely the track is an object, 0..1.

        A track is one when its best scores are clearly over the threshold. A track that never was is believed a little
        where it moves and this camera has seen its class surely before.
        """
        track = episode.track
        if track is None:
            return 0.0
        margin = (track.best_score - episode.score_threshold - SURE_MARGIN) / SURE_WIDTH
        seen = 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, margin))))
        of_class = len(self._sure_of_class.get(track.class_id, ())) / SURE_TRACKS
        return max(seen, UNSEEN_BELIEF * of_class * min(1.0, track.displacement / MOVED))

    def _was_told(self, episode: Episode, sight: Sight) -> bool:
        """Return whether the same object was reported as another class a moment before or after."""
        places = [
            xyxy
            for at_s, class_id, xyxy in self._told
            if class_id != episode.class_id and abs(sight.at.frame.time_s - at_s) <= TOLD_S
        ]
        iou = box_iou(np.array(places, np.float32).reshape(-1, 4), np.array([sight.xyxy], np.float32))
        return bool(iou.max(initial=0.0) >= TOLD_IOU)

    def _is_quiet(self, episode: Episode, sight: Sight) -> bool:
        """Return whether this place of a still object was reported lately, and remember it if not."""
        if episode.class_id is None or episode.track is None or episode.track.displacement >= MOVED:
            return False
        now_ms = sight.at.frame.captured_at_ms
        known = self._places.is_known(sight.xyxy, episode.class_id, now_ms=now_ms)
        self._places.remember(sight.xyxy, episode.class_id, now_ms=now_ms)
        return known


def _blobs_of_tracks(at: Observation) -> dict[int, float]:
    """Return by track the best score of what moves at its place."""
    if not at.blobs or not at.tracks:
        return {}
    places = np.array([track.xyxy for track in at.tracks], np.float32)
    iou = box_iou(places, np.array([blob.xyxy for blob in at.blobs], np.float32))
    scores = np.where(iou >= BLOB_IOU, np.array([blob.score for blob in at.blobs]), 0.0).max(axis=1)
    return {track.id: float(score) for track, score in zip(at.tracks, scores, strict=True)}


def _has_track(xyxy: Xyxy, at: Observation) -> bool:
    """Return whether a live track stands where something moves."""
    if not at.tracks:
        return False
    places = np.array([track.xyxy for track in at.tracks], np.float32)
    return float(box_iou(places, np.array([xyxy], np.float32)).max()) >= BLOB_IOU


def _needs_carrying(episode: Episode, track: Track, now: Observation) -> bool:
    """Return whether a missed object should be looked at again, so that it stays among the published detections."""
    now_s = now.frame.time_s
    last_s = max(episode.looked_s, -math.inf if track.vouched_s is None else track.vouched_s)
    boxless = track.strong + track.weak == 0  # nobody but the second look can tell where it goes
    return now_s - last_s > (CARRY_BOXLESS_S if boxless else CARRY_S / 2)
