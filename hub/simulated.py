"""One simulated device: what it makes of an assignment, by a clock that is given. No network, no files.

It goes through the phases of edge.contract.rollout and judges a release by edge.contract.judgement, the very rule of
the real device. Only what the two models see is made up: see hub.scenery. No bytes are fetched, and the golden set is
always passed.

Laws:

1. A release is confirmed only after the judgement passed it twice: in the shadow of the old one, and on trial.
2. The sequence of its reports rises, also from one run of the simulator to the next.
3. Whatever ends an installation early, the device serves the release again that it served before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.contract.judgement import NOTHING, Figures, add, judge
from edge.contract.rollout import ENDED, Assignment, Phase, RolloutReport
from edge.contract.status import CameraHealth, Heartbeat, SpoolHealth, State
from hub.scenery import MOMENT, Fault, Scene

FACTORY: Final = "factory"
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
        due_ms: the end of the phase, or of the moment that is looked at.
        figures, in_all: judged in this phase; in shadow and trial together.
    """

    assignment: Assignment
    phase: Phase
    due_ms: float
    begun_ms: float
    figures: Figures = NOTHING
    in_all: Figures = NOTHING
    reason: str = ""


class SimulatedDevice:
    """One device. `faults`: of a release, by its number; a release that is not named is good."""

    def __init__(self, place: Place, *, faults: Mapping[int, Fault], seed: int, begun_ms: int) -> None:
        self.place = place
        self.serving, self.number = FACTORY, 0
        self.last: RolloutReport | None = None
        """The newest report, to be said again at every connect."""
        self._before = (FACTORY, 0)
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
        if work is not None and work.phase == "trial":  # whatever comes now, the trial is over
            self.serving, self.number = self._before
        if assignment.action == "back":
            return [self._send_back(assignment, now_ms)]
        phase: Phase = "confirmed" if assignment.number == self.number else "assigned"
        self._work = _Work(assignment, phase, due_ms=now_ms + self._about("assigned"), begun_ms=now_ms)
        return [self._say(now_ms)]

    def _send_back(self, assignment: Assignment, now_ms: int) -> RolloutReport:
        if self.number == assignment.number:
            self.serving, self.number = self._before
        self._work = _Work(assignment, "rolled_back", now_ms, now_ms, reason="the hub sent it back")
        return self._say(now_ms)

    def step(self, now_ms: int) -> list[RolloutReport]:
        """Do what is due by now; return a report for each phase that was reached."""
        reports = []
        while (work := self._work) is not None and work.phase not in ENDED and work.due_ms <= now_ms:
            before, at_ms = work.phase, work.due_ms
            if work.phase in _STEPS:
                self._go_on(work, _STEPS[work.phase][0], at_ms)
            else:
                self._look(work, at_ms)
            if work.phase != before:
                reports.append(self._say(int(at_ms)))
        return reports

    def _go_on(self, work: _Work, phase: Phase, at_ms: float) -> None:
        work.phase, work.begun_ms, work.figures = phase, at_ms, NOTHING
        judges = phase in {"shadow", "trial"}
        work.due_ms = at_ms + (self._moment_ms(work) if judges else self._about(phase))

    def _look(self, work: _Work, at_ms: float) -> None:
        """Judge one more moment, which has just passed."""
        enough = _enough(work)
        seen = self._scene.look(_next_frames(work), self._faults.get(work.assignment.number))
        if seen is None:
            self._roll_back(work, "its process died")
            return
        work.figures, work.in_all = add(work.figures, seen), add(work.in_all, seen)
        verdict = judge(work.figures, enough=enough)
        if verdict.outcome == "fail":
            self._roll_back(work, verdict.reason)
        elif verdict.outcome == "pass":
            self._pass(work, at_ms)
        elif at_ms - work.begun_ms > 1000 * work.assignment.plan.within_s:
            self._roll_back(work, f"insufficient: {verdict.reason}"[:64].rstrip())
        else:
            work.due_ms = at_ms + self._moment_ms(work)

    def _pass(self, work: _Work, at_ms: float) -> None:
        if work.phase == "trial":
            work.phase = "confirmed"
            return
        self._before = (self.serving, self.number)
        self.serving, self.number = work.assignment.release, work.assignment.number
        self._go_on(work, "trial", at_ms)

    def _roll_back(self, work: _Work, reason: str) -> None:
        if work.phase == "trial":
            self.serving, self.number = self._before
        work.phase, work.reason = "rolled_back", reason

    def _moment_ms(self, work: _Work) -> float:
        return 1000 * _next_frames(work) / self.place.fps

    def _about(self, phase: Phase) -> float:
        return float(1000 * _STEPS[phase][1] * self._rng.uniform(0.5, 2.0))

    def _say(self, at_ms: int) -> RolloutReport:
        assert self._work is not None
        work = self._work
        self._sequence = max(self._sequence + 1, at_ms)
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
            figures=work.in_all if work.in_all.frames else None,
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


def _next_frames(work: _Work) -> int:
    """How many frames the next look has: a moment's, or those that are still asked for."""
    left = _enough(work) - work.figures.frames
    return min(MOMENT, left) if left > 0 else MOMENT


def _is_same(one: Assignment, other: Assignment) -> bool:
    return (one.rollout, one.action, one.number) == (other.rollout, other.action, other.number)
