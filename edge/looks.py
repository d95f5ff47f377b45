"""Who gets a second look: one camera's budget, spent on the sights that deserve it and on the tiles of control frames.

The order of one turn: earn, choose, look (edge.zoom), tell the miner of misses and the tracker what was seen. Control
tiles and sights take turns while both wait. What is seen beside a sight, and is neither detected nor tracked, becomes a
track: from the next frame on it is missed like any other.

Laws:

1. A control frame that was taken comes back from `release` exactly once, in order of time: with what both looks show
   when all of its tiles were looked at, with what the detector found alone when that can no longer be.
2. The objects of all control frames that came back looked at twice are what `recall` counts.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from edge.contract.samples import Xyxy
from edge.contract.status import RecallCounts
from edge.detector.detections import Detections, box_iou
from edge.detector.detector import Detector
from edge.detector.tiling import Mask, tiles
from edge.miners.episodes import SAME_IOU, is_taken
from edge.miners.missed import Ask, MissedMiner
from edge.observation import Mined, Observation
from edge.recall import RecallTally
from edge.tracks import Link, Tracker
from edge.zoom import MAX_TARGETS, Budget, Target, can_enlarge, fits_quarter, look

BYSTANDER_SCORE: Final = 0.3
BYSTANDER_IOU: Final = 0.2
MAX_CONTROLS: Final = 2


@dataclass(slots=True, eq=False)
class _Control:
    """A control frame whose tiles are looked at one by one."""

    mined: Mined
    left: list[Xyxy]
    found: list[tuple[Xyxy, Detections]]


class SecondLooks:
    """The second looks of one camera.

    Attributes:
        taken: inferences spent so far.
        budget: its share may be replaced at any time.

    Args:
        may_count: says `[n]` which boxes of a frame are of an object that is mined.
    """

    def __init__(
        self,
        detector: Detector,
        *,
        share: float,
        score_threshold: float,
        may_count: Callable[[Detections, Observation], Mask],
    ) -> None:
        self.taken = 0
        self.budget = Budget(share)
        self._detector = detector
        self._tally = RecallTally(score_threshold=score_threshold)
        self._may_count = may_count
        self._controls: deque[_Control] = deque()
        self._released: list[Mined] = []
        self._control_next = True

    @property
    def recall(self) -> RecallCounts:
        """The counts of the control frames so far."""
        return self._tally.counts

    def add_control(self, mined: Mined) -> bool:
        """Take a frame, to look at it tile by tile in the turns to come; False without a budget or too many waiting."""
        if self.budget.share <= 0 or len(self._controls) >= MAX_CONTROLS:
            return False
        self._controls.append(_Control(mined, self._grid(mined)[::-1], []))
        return True

    def see(self, mined: Mined) -> Mined:
        """Return a control frame that gets no second look, with what the detector found."""
        at, grid = mined.at, self._grid(mined)
        seen = self._tally.see(at.detections, grid=grid, may_count=lambda boxes: self._may_count(boxes, at))
        return replace(mined, looks=seen)

    def _grid(self, mined: Mined) -> list[Xyxy]:
        height, width = mined.at.frame.image.shape[:2]
        return tiles((width, height), input_size=self._detector.input_size)

    def release(self) -> list[Mined]:
        """Return the control frames that wait no longer."""
        released, self._released = self._released, []
        return released

    def give_up(self) -> None:
        """Let the control frames go that wait: they can no longer be looked at."""
        while self._controls:
            self._let_go(self._controls.popleft())

    def _let_go(self, control: _Control) -> None:
        self._released.append(self.see(control.mined))

    def forget(self) -> None:
        """Forget all that is held in a picture's pixels: it has another size."""
        self.give_up()
        self._tally.forget()

    def go_on(self) -> float:
        """Take a look in the turn of a frame that shows nothing: at a control frame only; return the milliseconds."""
        started = time.perf_counter()
        if self._may_look() and self._controls:
            self._look_at_control()
            self._note_look()
        return (time.perf_counter() - started) * 1e3

    def take(self, now: Observation, *, missed: MissedMiner, tracker: Tracker, carry: bool) -> float:
        """Take a look if the budget allows one and something deserves it; return the milliseconds it took."""
        if not self._may_look():
            return 0.0
        started = time.perf_counter()
        chosen = self._choose(missed.asks(now, carry=carry))
        if self._controls and (self._control_next or not chosen):
            self._look_at_control()
        elif chosen:
            self._look_at(chosen, now, missed=missed, tracker=tracker)
        else:
            return (time.perf_counter() - started) * 1e3
        self._note_look()
        return (time.perf_counter() - started) * 1e3

    def _may_look(self) -> bool:
        """Earn the share of one frame. What waits is let go when there is no budget any more."""
        if self.budget.share <= 0:
            self.give_up()
        return self.budget.earn()

    def _note_look(self) -> None:
        self._control_next = not self._control_next
        self.taken += 1
        self.budget.spend()

    def _choose(self, asks: list[Ask]) -> list[Ask]:
        """Return those that share the next look: four small ones, or a large one alone."""
        chosen: list[Ask] = []
        input_size = self._detector.input_size
        for ask in asks:
            image = ask.sight.at.frame.image
            size = (image.shape[1], image.shape[0])
            if not can_enlarge(ask.sight.xyxy, size, input_size):
                ask.episode.pass_over(ask.sight)
                continue
            if fits_quarter(ask.sight.xyxy, size, input_size):
                chosen.append(ask)
            elif not chosen:
                return [ask]
            if len(chosen) == MAX_TARGETS:
                break
        return chosen

    def _look_at(self, chosen: list[Ask], now: Observation, *, missed: MissedMiner, tracker: Tracker) -> None:
        found, _ = look(self._detector, [Target(ask.sight.at.frame.image, ask.sight.xyxy) for ask in chosen])
        for ask, around in zip(chosen, found, strict=True):
            ask.sight.at.enlarged.append(around)
            seen = missed.note(ask, around)
            if ask.sight.at is not now:
                continue
            if seen is not None and ask.episode.class_id is not None:
                track = ask.episode.track
                vouched = tracker.vouch(
                    ask.episode.class_id,
                    seen.xyxy,
                    seen.score,
                    time_s=now.frame.time_s,
                    track_id=None if track is None else track.id,
                )
                if track is None and vouched is not None:
                    missed.adopt(ask.episode, vouched)
            self._note_beside(around, now, missed=missed, tracker=tracker)

    def _note_beside(self, around: Detections, now: Observation, *, missed: MissedMiner, tracker: Tracker) -> None:
        """Take in what was seen beside a sight and is not detected: of another track, or of something new."""
        for xyxy, score, class_id in _undetected(around, now):
            of_class = [track for track in tracker.tracks if track.class_id == class_id]
            iou = box_iou(
                np.array([xyxy], np.float32), np.array([track.xyxy for track in of_class], np.float32).reshape(-1, 4)
            )[0]
            if iou.max(initial=0.0) < BYSTANDER_IOU:
                track = tracker.vouch(class_id, xyxy, score, time_s=now.frame.time_s, track_id=None)
            else:
                track = of_class[int(iou.argmax())]
                if track.link is Link.STRONG or track.vouched_s == now.frame.time_s or iou.max() < SAME_IOU:
                    continue
                tracker.vouch(class_id, xyxy, score, time_s=now.frame.time_s, track_id=track.id)
            if track is not None:
                missed.see_beside(track, now, xyxy, score)

    def _look_at_control(self) -> None:
        control = self._controls[0]
        tile = control.left.pop()
        x1, y1, x2, y2 = (int(side) for side in tile)
        at = control.mined.at
        crop = np.ascontiguousarray(at.frame.image[y1:y2, x1:x2])
        try:
            inside = self._detector.detect(crop).detections
        except Exception:
            self._let_go(self._controls.popleft())  # a frame that lacks a tile was not looked at twice
            raise
        found = Detections(inside.xyxy + np.array([x1, y1, x1, y1], np.float32), inside.score, inside.class_id)
        control.found.append((tile, found))
        at.enlarged.append(found)
        if control.left:
            return
        self._controls.popleft()
        looks = self._tally.add(at.detections, control.found, may_count=lambda boxes: self._may_count(boxes, at))
        self._released.append(replace(control.mined, looks=looks))


def _undetected(around: Detections, now: Observation) -> Iterator[tuple[Xyxy, float, int]]:
    """Yield what is surely seen and not detected in the frame: box, score, class."""
    sure = around.take(around.score >= BYSTANDER_SCORE)
    for (x1, y1, x2, y2), score, class_id in zip(
        sure.xyxy.tolist(), sure.score.tolist(), sure.class_id.tolist(), strict=True
    ):
        if not is_taken((x1, y1, x2, y2), None, now):
            yield (x1, y1, x2, y2), score, class_id
