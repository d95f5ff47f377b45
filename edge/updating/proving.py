"""Whether the release at hand is as good as the one it is to replace: in shadow, and then in its trial.

Owns the process that judges (edge.updating.judge) and how long it is given; the rules stand in edge.contract.judgement.

Laws:

1. A release passes by frames that were judged and by nothing else: what cannot be judged here ends as rolled back,
   also where it has a golden set and cannot be held against it in `MOST_FAULTS` tries.
2. In its trial it also fails by what it does in the daemon itself: numbers that are not finite, frames it fails on.
3. Before the bake has passed nothing is confirmed, and what fails does so by the early, stricter chance: it is asked
   thousands of times. The bake is this start's: a new one begins it again.
4. Judging that ends through no fault of the release is begun anew, and what it had counted stays. `MOST_FAULTS` of
   that end a phase as `insufficient`, but not once the frames of the trial are judged: then it is begun anew as often
   as figures are told, and at the end of the bake what was counted decides.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from edge.config import EdgeConfig
from edge.contract.errors import UnreachableError, UnusableError
from edge.contract.judgement import NOTHING, Figures, Verdict, add, judge
from edge.contract.rollout import BAKE_REPORTS
from edge.detection import Detection, Looked
from edge.slot_state import FACTORY, Slots, Work
from edge.slot_work import advance, begin_trial, confirm, roll_back
from edge.slots import SlotStore
from edge.updating.judge import Judge, OnWait, hold_golden, tune_on_arrival

TELL_S: Final = 15.0
AGAIN_S: Final = 5.0
MOST_FAULTS: Final = 3
MOST_FAILED: Final = 3
BAKE_SHARE: Final = 0.1
"""Of a processor, while it bakes: about a frame a second for two models of 320 pixels, and serving is not slower."""


@dataclass(slots=True)
class _Round:
    """One phase of one release, judged by one process after another.

    Attributes:
        begun_s: when the phase was first looked at in this start, by the clock.
        counted: by the processes that ended.
        since_s: of the first judged frame, by the clock; None before it.
        told_s: when its frames were last told of.
        faults: how often judging itself failed.
        tried_s: when its process was last to be started, by the clock.
        lacking: why it could not be, or did not go on; "" where it did.
    """

    begun_s: float
    told_s: float
    judge: Judge | None = None
    counted: Figures = NOTHING
    since_s: float | None = None
    faults: int = 0
    tried_s: float = -math.inf
    lacking: str = ""

    @property
    def figures(self) -> Figures:
        """What was counted in this phase."""
        return self.counted if self.judge is None else self.judge.figures


def release_folder(store: SlotStore, number: int) -> Path | None:
    """Return where a release stands; None is the model that the device was installed with."""
    return None if number == FACTORY else store.path(number)


class Proving:
    """Judges one release at a time. For one thread; `close` ends the process.

    Args:
        clock: seconds in which there are frames to judge by, see edge.updating.seen_time.
    """

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
        self._round = _Round(0.0, 0.0)
        self._proved: tuple[tuple[str, int], Figures] = (("", 0), NOTHING)
        self._unheld: tuple[tuple[str, int], int] = (("", 0), 0)

    def figures(self, work: Work) -> Figures | None:
        """Return what was counted of a release since this start, in shadow and trial together; None is nothing."""
        whose, before = self._proved
        if whose != (work.assignment.rollout, work.assignment.number):
            return None
        counted = add(before, self._round.figures)
        return counted if counted.frames else None

    def arrive(self, work: Work, *, on_wait: OnWait) -> str:
        """Measure which way of running it is the fastest good one here, then hold that against its golden set.

        Return why it fails; "" where it does not.
        `on_wait`: see `tune_on_arrival`. Raises `UnreachableError` when it could not be held against it, through no
        fault of its own: it is to be tried again.
        """
        whose = work.assignment.rollout, work.assignment.number
        folder = self._store.path(work.assignment.number)
        tuned = tune_on_arrival(self._config, folder, on_wait=on_wait)
        if tuned.outcome == "fail":
            return tuned.reason
        held = hold_golden(self._config, folder, on_wait=on_wait)
        if held.outcome != "insufficient":
            return held.reason if held.outcome == "fail" else ""
        tries = 1 + (self._unheld[1] if self._unheld[0] == whose else 0)
        self._unheld = whose, tries % MOST_FAULTS
        if tries < MOST_FAULTS:
            raise UnreachableError(held.reason)
        return f"insufficient: {held.reason}"

    def turn(self, slots: Slots, *, now_ms: int) -> Slots:
        """Look at the figures so far; return the state that follows, the same where nothing is to be written.

        The state is in `shadow` or in `trial`, and what is active serves.
        """
        work = slots.work
        assert work is not None
        self._open(slots, work)
        round_, on_trial = self._round, work.phase == "trial"
        if round_.judge is not None:
            self._detection.hand_in(round_.judge.disagreements())
        frames = round_.figures.frames
        if frames and round_.since_s is None:
            round_.since_s = self._clock()
        fault = fault_of(self._detection.looked()) if on_trial else ""
        verdict = self._verdict(work)
        if verdict.outcome == "fail" or fault:
            return roll_back(slots, fault or verdict.reason, now_ms=now_ms, frames=frames)
        if verdict.outcome == "pass":
            return confirm(slots, now_ms=now_ms, frames=frames) if on_trial else begin_trial(slots, now_ms=now_ms)
        return self._go_on(slots, work, frames=frames, missing=verdict.reason, now_ms=now_ms)

    def close(self) -> None:
        """End the process, if there is one, and forget how far it was."""
        self._end()
        whose, before = self._proved
        self._proved = whose, add(before, self._round.counted)
        self._key, self._round = None, _Round(self._clock(), self._clock())

    def _verdict(self, work: Work) -> Verdict:
        round_, plan = self._round, work.assignment.plan
        enough = plan.trial_frames if work.phase == "trial" else plan.shadow_frames
        bakes = work.phase == "trial" and not self._has_lasted(plan.bake_s)
        if round_.judge is not None:
            return round_.judge.verdict(None if bakes else enough)
        if bakes or not self._is_judged(work):
            return Verdict(outcome="insufficient", reason=round_.lacking)
        return judge(round_.counted, enough=enough)

    def _go_on(self, slots: Slots, work: Work, *, frames: int, missing: str, now_ms: int) -> Slots:
        """Wait for more figures, as long as the plan allows."""
        now_s, round_, plan = self._clock(), self._round, work.assignment.plan
        judged = self._is_judged(work)
        if round_.judge is not None and judged:
            round_.judge.share = BAKE_SHARE
        if round_.judge is not None and round_.judge.trouble:
            round_.faults, round_.lacking = round_.faults + 1, missing
            round_.tried_s = now_s if judged else -math.inf
            self._end()
        within_s = plan.within_s + (plan.bake_s if work.phase == "trial" else 0)
        late = now_s - (round_.begun_s if round_.since_s is None else round_.since_s) >= within_s
        if late or (round_.faults >= MOST_FAULTS and not judged):
            return roll_back(slots, f"insufficient: {missing}", now_ms=now_ms, frames=frames)
        known = work.phase == "trial" and work.frames >= plan.trial_frames  # that they are enough is told soon
        if frames != work.frames and now_s - round_.told_s >= (_pace_s(work) if known else TELL_S):
            round_.told_s = now_s
            return advance(slots, work.phase, now_ms=now_ms, frames=frames)
        return slots

    def _has_lasted(self, seconds: float) -> bool:
        """Return whether so long has passed since the phase's first judged frame."""
        since_s = self._round.since_s
        return since_s is not None and self._clock() - since_s >= seconds

    def _is_judged(self, work: Work) -> bool:
        """Return whether the frames of the trial are judged, so that only its bake is left."""
        return work.phase == "trial" and self._round.figures.frames >= work.assignment.plan.trial_frames

    def _open(self, slots: Slots, work: Work) -> None:
        """Let a judge of this phase run, but where the device has no room for its process, now."""
        key = (work.assignment.rollout, work.assignment.number, work.phase)
        if key != self._key:
            self.close()
            self._key = key
            if self._proved[0] != key[:2]:
                self._proved = key[:2], NOTHING
        now_s, round_ = self._clock(), self._round
        again_s = _pace_s(work) if self._is_judged(work) else AGAIN_S
        if round_.judge is not None or now_s - round_.tried_s < again_s:
            return
        on_trial = work.phase == "trial"
        serving: Literal["old", "new"] = "new" if on_trial else "old"
        old = slots.previous if on_trial else slots.active
        coming = Judge(
            self._config,
            old=release_folder(self._store, old),
            new=release_folder(self._store, work.assignment.number),
            serving=serving,
            counted=round_.counted,
        )
        try:
            round_.judge = coming.__enter__()
        except UnusableError as error:
            round_.tried_s, round_.lacking = now_s, str(error)
            round_.faults += 1
        else:
            self._detection.watch_with(coming.offer)

    def _end(self) -> None:
        judge_, self._round.judge = self._round.judge, None
        if judge_ is not None:
            self._detection.watch_with(None)
            judge_.__exit__(None, None, None)
            self._round.counted = judge_.figures


def fault_of(looked: Looked) -> str:
    """Return what a release has done in the daemon that none may do; "" when it did nothing."""
    if looked.not_finite:
        return f"it gave numbers that are not finite in {looked.not_finite} of {looked.frames} frames it served"
    if looked.failed >= MOST_FAILED:
        return f"it failed on {looked.failed} of {looked.frames + looked.failed} frames it served"
    return ""


def _pace_s(work: Work) -> float:
    """Return how far reports lie apart while it bakes."""
    return max(TELL_S, work.assignment.plan.bake_s / BAKE_REPORTS)
