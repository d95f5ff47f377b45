"""One simulated device: what it makes of an assignment, by a clock that is given. No network, no files.

It goes through the phases of edge.contract.rollout and judges a release by edge.contract.judgement, the very rule of
the real device. Only what the two models see is made up: see hub.scenery. No bytes are fetched, the golden set is
always passed, and every release names the one before it as its baseline.

Laws:

1. A release is confirmed only after the judgement passed it twice: in the shadow of the old one, and on trial.
2. The sequence of its reports rises, also from one run of the simulator to the next.
3. Whatever ends an installation early, the device serves the release again that it served before.
4. Nothing below the highest number that was confirmed is activated, but for the baseline of what it replaces: ordered
   back from a release that it has confirmed, the device goes to that baseline, or says that it keeps the release.
5. On trial it bakes for as long as the plan says: it looks at fewer frames, tells its figures now and then, fails by
   the early chance only, and is judged by the usual one at the end.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.contract.judgement import NOTHING, Figures, add, judge
from edge.contract.rollout import BAKE_REPORTS, ENDED, Assignment, Phase, RolloutReport
from edge.contract.status import CameraHealth, Heartbeat, SpoolHealth, State
from hub.scenery import MOMENT, Fault, Scene

FACTORY: Final = "factory"
SENT_BACK: Final = "the hub sent it back"
BAKING: Final = 5
"""So many times fewer frames are judged while nothing but the bake is waited for: of five a second, one."""
_TELL_S: Final = 15.0
_STEPS: Final[dict[Phase, tuple[Phase, float]]] = {
    "assigned": ("downloading", 0.5),
    "downloading": ("verified", 3.0),
    "verified": ("staged", 0.2),
    "staged": ("golden", 0.5),
    "golden": ("shadow", 1.0),
}
"""What follows a phase in which nothing is judged, and after about how many seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a simulated device stands.

    Attributes:
        fps: frames that it judges a second.
        objects: in the picture at once, on average.
        detect_ms: of the old model.
    """

    site: str
    device: str
    labels: tuple[str, ...] = ()
    fps: float = 5.0
    objects: float = 2.0
    detect_ms: float = 40.0


@dataclass(slots=True)
class _Work:
    """An assignment that is followed, or was.

    Attributes:
        due_ms: the end of the phase, or of the moments that are looked at.
        frames, moments: of each of these moments, and how many they are.
        told_ms: when figures were last told of.
        figures, before: judged in this phase; on trial: in the shadow before it.
    """

    assignment: Assignment
    phase: Phase
    due_ms: float
    begun_ms: float
    frames: int = MOMENT
    moments: int = 1
    told_ms: float = 0.0
    figures: Figures = NOTHING
    before: Figures = NOTHING
    reason: str = ""


class SimulatedDevice:
    """One device. `faults`: of a release, by its number; a release that is not named is good."""

    def __init__(self, place: Place, *, faults: Mapping[int, Fault], seed: int, begun_ms: int) -> None:
        self.place = place
        self.serving, self.number = FACTORY, 0
        self.last: RolloutReport | None = None
        """The newest report, to be said again at every connect."""
        self._names = {0: FACTORY}
        self._held = {0}  # numbers that have proved themselves here
        self._previous = self._earlier = self._highest = 0
        self._faults = faults
        self._rng = np.random.default_rng(seed)
        self._scene = Scene(self._rng, objects=place.objects, detect_ms=place.detect_ms)
        self._work: _Work | None = None
        self._begun_ms = begun_ms
        self._sequence = begun_ms

    @property
    def phase(self) -> Phase | None:
        """How far it is with its newest assignment; None before the first."""
        return None if self._work is None else self._work.phase

    def assign(self, assignment: Assignment, *, now_ms: int) -> list[RolloutReport]:
        """Take an assignment, new or heard before; return what is to be reported."""
        work = self._work
        if not assignment.rollout or (work is not None and _is_same(work.assignment, assignment)):
            return []
        if work is not None and _goes_on(work, assignment):
            work.assignment = assignment
            return [self._say(now_ms)]
        if work is not None and work.phase == "trial":  # whatever else comes now, the trial is over
            self._end_trial()
        if assignment.action == "back":
            return [self._send_back(assignment, now_ms)]
        number = assignment.number
        phase: Phase = "assigned"
        reason = ""
        if number == self.number:
            phase, reason = "confirmed", "it serves already"
        elif not self._may_activate(number):
            phase, reason = "rolled_back", f"{number} is below {self._highest}, and nothing signed allows it"
        self._work = _Work(assignment, phase, now_ms + self._about("assigned"), now_ms, reason=reason)
        return [self._say(now_ms)]

    def _send_back(self, assignment: Assignment, now_ms: int) -> RolloutReport:
        phase: Phase = "rolled_back"
        reason = SENT_BACK
        if self.number == assignment.number:
            to = [one for one in (self._previous, self.number - 1) if one in self._held and self._may_activate(one)]
            if to:
                self._serve(to[0])
                self._previous = 0
            else:
                phase, reason = "confirmed", "nothing signed allows the way back"
        self._work = _Work(assignment, phase, now_ms, now_ms, reason=reason)
        return self._say(now_ms)

    def _may_activate(self, number: int) -> bool:
        """Return law 4."""
        return number >= self._highest or number == self.number - 1

    def _serve(self, number: int) -> None:
        self.number, self.serving = number, self._names[number]

    def _end_trial(self) -> None:
        self._serve(self._previous)
        self._previous = self._earlier

    def step(self, now_ms: int) -> list[RolloutReport]:
        """Do what is due by now; return a report for each phase that was reached."""
        reports = []
        while (work := self._work) is not None and work.phase not in ENDED and work.due_ms <= now_ms:
            before, at_ms = work.phase, work.due_ms
            if work.phase in _STEPS:
                self._go_on(work, _STEPS[work.phase][0], at_ms)
            else:
                self._look(work, at_ms)
            if work.phase != before or self._is_to_tell(work, at_ms):
                work.told_ms = at_ms
                reports.append(self._say(int(at_ms)))
        return reports

    def _go_on(self, work: _Work, phase: Phase, at_ms: float) -> None:
        work.phase, work.begun_ms, work.before, work.figures = phase, at_ms, work.figures, NOTHING
        if phase in {"shadow", "trial"}:
            self._plan_look(work, at_ms)
        else:
            work.due_ms = at_ms + self._about(phase)

    def _plan_look(self, work: _Work, at_ms: float) -> None:
        """Look at the next moment, or, where enough was seen of each and the bake is waited for, at several."""
        left = _enough(work) - work.figures.frames
        moment_ms = 1000 * MOMENT / self.place.fps
        if left > 0 or work.phase == "shadow":
            work.frames, work.moments = min(MOMENT, left) if left > 0 else MOMENT, 1
            work.due_ms = at_ms + moment_ms * work.frames / MOMENT
            return
        until_ms = work.told_ms + 1000 * _tell_s(work)
        bake_ends_ms = work.begun_ms + 1000 * work.assignment.plan.bake_s
        if at_ms < bake_ends_ms:
            until_ms = min(until_ms, bake_ends_ms)
        work.frames, work.moments = MOMENT // BAKING, max(1, math.ceil((until_ms - at_ms) / moment_ms))
        work.due_ms = at_ms + moment_ms * work.moments

    def _is_to_tell(self, work: _Work, at_ms: float) -> bool:
        return work.phase == "trial" and at_ms - work.told_ms >= 1000 * _tell_s(work)

    def _look(self, work: _Work, at_ms: float) -> None:
        """Judge what was looked at until now."""
        fault = self._faults.get(work.assignment.number)
        seen = self._scene.look(work.frames, fault, moments=work.moments)
        if seen is None:
            self._roll_back(work, "its process died")
            return
        work.figures = add(work.figures, seen)
        plan, spent_s = work.assignment.plan, (at_ms - work.begun_ms) / 1000
        bake_s = plan.bake_s if work.phase == "trial" else 0
        early = spent_s < bake_s
        verdict = judge(work.figures, enough=max(_enough(work), work.figures.frames + early))
        if verdict.outcome == "fail":
            self._roll_back(work, verdict.reason)
        elif verdict.outcome == "pass":
            self._pass(work, at_ms)
        elif spent_s > bake_s + plan.within_s:
            self._roll_back(work, f"insufficient: {verdict.reason}"[:64].rstrip())
        else:
            self._plan_look(work, at_ms)

    def _pass(self, work: _Work, at_ms: float) -> None:
        if work.phase == "trial":
            work.phase = "confirmed"
            self._highest = max(self._highest, self.number)
            self._held = {0, self.number, *self._held & {self._previous, self.number - 1}}
            return
        self._earlier, self._previous = self._previous, self.number
        self._names[work.assignment.number] = work.assignment.release
        self._serve(work.assignment.number)
        self._go_on(work, "trial", at_ms)

    def _roll_back(self, work: _Work, reason: str) -> None:
        if work.phase == "trial":
            self._end_trial()
        work.phase, work.reason = "rolled_back", reason

    def _about(self, phase: Phase) -> float:
        return float(1000 * _STEPS[phase][1] * self._rng.uniform(0.5, 2.0))

    def _say(self, at_ms: int) -> RolloutReport:
        assert self._work is not None
        work = self._work
        self._sequence = max(self._sequence + 1, at_ms)
        in_all = add(work.before, work.figures)
        self.last = RolloutReport(
            rollout=work.assignment.rollout,
            model=work.assignment.model,
            release=work.assignment.release,
            number=work.assignment.number,
            sequence=self._sequence,
            boot_id=self._boot_id,
            phase=work.phase,
            reason=work.reason,
            frames=work.figures.frames,
            serving=self.serving,
            figures=in_all if in_all.frames else None,
            at_ms=at_ms,
        )
        return self.last

    @property
    def _boot_id(self) -> str:
        return f"sim-{self._begun_ms}"

    def state(self, now_ms: int, *, online: bool) -> State:
        """Return what it says of itself at a connect, and what its last will says."""
        return State(
            boot_id=self._boot_id,
            online=online,
            at_ms=now_ms,
            model=self.serving,
            version="simulated",
            labels=self.place.labels,
            updates=True,
        )

    def heartbeat(self, now_ms: int) -> Heartbeat:
        """Return its heartbeat: one camera that runs, and no findings."""
        up_s = (now_ms - self._begun_ms) / 1000
        camera = CameraHealth(
            name="cam",
            state="running",
            frames=int(up_s * self.place.fps),
            fps=self.place.fps,
            restarts=0,
            frame_age_s=0.1,
            detect_ms=self.place.detect_ms,
        )
        return Heartbeat(
            boot_id=self._boot_id,
            at_ms=now_ms,
            uptime_s=up_s,
            model=self.serving,
            cameras=(camera,),
            spool=SpoolHealth(samples=0, unsent=0, bytes=0, limit_bytes=0),
            findings={},
            dropped={},
            bytes_up=0,
        )


def draw_places(
    count: int, *, rng: np.random.Generator, site: str, fps: float = 5.0, labels: tuple[str, ...] = ()
) -> list[Place]:
    """Return places as fleets have them: from a busy street to a yard where hardly anything moves.

    Each device has one of the labels, in turn.
    """
    return [
        Place(
            site=site,
            device=f"sim-{number:04d}",
            labels=(labels[number % len(labels)],) if labels else (),
            fps=fps,
            objects=float(np.clip(rng.lognormal(np.log(2.0), 0.8), 0.2, 12.0)),
            detect_ms=float(rng.uniform(15.0, 90.0)),
        )
        for number in range(count)
    ]


def _enough(work: _Work) -> int:
    plan = work.assignment.plan
    return plan.shadow_frames if work.phase == "shadow" else plan.trial_frames


def _tell_s(work: _Work) -> float:
    return max(_TELL_S, work.assignment.plan.bake_s / BAKE_REPORTS)


def _goes_on(work: _Work, assignment: Assignment) -> bool:
    """Whether the release that is being installed is what another rollout asks for, too."""
    asks = assignment.action == work.assignment.action and assignment.number == work.assignment.number
    return asks and work.phase not in ENDED


def _is_same(one: Assignment, other: Assignment) -> bool:
    return (one.rollout, one.action, one.number) == (other.rollout, other.action, other.number)
