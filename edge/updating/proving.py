"""Whether the release at hand is as good as the one it is to replace: in shadow, and then in its trial.

Owns the process that judges (edge.updating.judge) and how long it is given; the rules stand in edge.contract.judgement.

Laws:

1. A release passes by frames that were judged and by nothing else: what cannot be judged here ends as rolled back.
2. In its trial it also fails by what it does in the daemon itself: numbers that are not finite, frames it fails on.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edge.config import EdgeConfig
from edge.contract.errors import UnusableError
from edge.contract.judgement import NOTHING, Figures, add
from edge.detection import Detection
from edge.slot_state import FACTORY, Slots, Work
from edge.slot_work import advance, begin_trial, confirm, roll_back
from edge.slots import SlotStore
from edge.updating.judge import Judge

TELL_S: Final = 15.0
AGAIN_S: Final = 5.0
MOST_FAULTS: Final = 3
MOST_FAILED: Final = 3


@dataclass(slots=True)
class _Round:
    """One phase of one release, judged by one process after another.

    Attributes:
        since_s: of the first judged frame, monotonic; None before it.
        told_s: when its frames were last told of.
        faults: how often judging itself failed.
        tried_s: when its process was last to be started, monotonic.
        lacking: why it could not be; "" where it was.
    """

    judge: Judge | None
    since_s: float | None
    told_s: float
    faults: int = 0
    tried_s: float = -math.inf
    lacking: str = ""


def release_folder(store: SlotStore, number: int) -> Path | None:
    """Return where a release stands; None is the model that the device was installed with."""
    return None if number == FACTORY else store.path(number)


class Proving:
    """Judges one release at a time. For one thread; `close` ends the process."""

    def __init__(
        self,
        config: EdgeConfig,
        store: SlotStore,
        detection: Detection,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config = config
        self._store = store
        self._detection = detection
        self._clock = clock
        self._key: tuple[str, int, str] | None = None
        self._round = _Round(None, None, 0.0)
        self._proved: tuple[tuple[str, int], Figures] = (("", 0), NOTHING)

    def figures(self, work: Work) -> Figures | None:
        """Return what was counted of a release since this start, in shadow and trial together; None is nothing."""
        whose, before = self._proved
        if whose != (work.assignment.rollout, work.assignment.number):
            return None
        judge = self._round.judge
        counted = before if judge is None else add(before, judge.figures)
        return counted if counted.frames else None

    def turn(self, slots: Slots, *, now_ms: int) -> Slots:
        """Look at the figures so far; return the state that follows, the same where nothing is to be written.

        The state is in `shadow` or in `trial`, and what is active serves.
        """
        work = slots.work
        assert work is not None
        judge = self._open(slots, work)
        fault = self._fault_of_serving() if work.phase == "trial" else ""
        if judge is None:
            if not fault and self._round.faults >= MOST_FAULTS:
                fault = f"insufficient: {self._round.lacking}"
            return roll_back(slots, fault, now_ms=now_ms) if fault else slots
        self._detection.hand_in(judge.disagreements())
        frames, plan = judge.figures.frames, work.assignment.plan
        verdict = judge.verdict(plan.trial_frames if work.phase == "trial" else plan.shadow_frames)
        if verdict.outcome == "fail" or fault:
            return roll_back(slots, fault or verdict.reason, now_ms=now_ms, frames=frames)
        if verdict.outcome == "pass":
            if work.phase == "trial":
                return confirm(slots, now_ms=now_ms, frames=frames)
            return begin_trial(slots, now_ms=now_ms)
        return self._go_on(slots, work, frames=frames, missing=verdict.reason, now_ms=now_ms)

    def close(self) -> None:
        """End the process, if there is one, and forget how far it was."""
        self._end()
        self._key = None

    def _go_on(self, slots: Slots, work: Work, *, frames: int, missing: str, now_ms: int) -> Slots:
        """Wait for more figures, as long as the plan allows."""
        now_s, round_ = self._clock(), self._round
        assert round_.judge is not None
        if round_.judge.trouble:
            round_.faults += 1
            self._end()
        if frames and round_.since_s is None:
            round_.since_s = now_s
        late = round_.since_s is not None and now_s - round_.since_s > work.assignment.plan.within_s
        if late or round_.faults >= MOST_FAULTS:
            return roll_back(slots, f"insufficient: {missing}", now_ms=now_ms, frames=frames)
        if frames != work.frames and now_s - round_.told_s >= TELL_S:
            round_.told_s = now_s
            return advance(slots, work.phase, now_ms=now_ms, frames=frames)
        return slots

    def _fault_of_serving(self) -> str:
        """Return what the release has done in the daemon that none may do; "" when it did nothing."""
        looked = self._detection.looked()
        if looked.not_finite:
            return f"it gave numbers that are not finite in {looked.not_finite} of {looked.frames} frames it served"
        if looked.failed >= MOST_FAILED:
            return f"it failed on {looked.failed} of {looked.frames + looked.failed} frames it served"
        return ""

    def _open(self, slots: Slots, work: Work) -> Judge | None:
        """Return the running judge of this phase; None where the device has no room for its process, now."""
        key = (work.assignment.rollout, work.assignment.number, work.phase)
        if key != self._key:
            self.close()
            self._key, self._round = key, _Round(None, None, self._clock())
            if self._proved[0] != key[:2]:
                self._proved = key[:2], NOTHING
        now_s = self._clock()
        if self._round.judge is None and now_s - self._round.tried_s >= AGAIN_S:
            on_trial = work.phase == "trial"
            serving: Literal["old", "new"] = "new" if on_trial else "old"
            old = slots.previous if on_trial else slots.active
            judge = Judge(
                self._config,
                old=release_folder(self._store, old),
                new=release_folder(self._store, work.assignment.number),
                serving=serving,
            )
            try:
                self._round.judge = judge.__enter__()
            except UnusableError as error:
                self._round.tried_s, self._round.lacking = now_s, str(error)
                self._round.faults += 1
            else:
                self._detection.watch_with(self._round.judge.offer)
        return self._round.judge

    def _end(self) -> None:
        judge, self._round.judge = self._round.judge, None
        if judge is not None:
            self._detection.watch_with(None)
            judge.__exit__(None, None, None)
            whose, before = self._proved
            self._proved = whose, add(before, judge.figures)
