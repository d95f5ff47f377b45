"""A rollout before a fleet, faster than real time: how far a bad release comes, and whether a good one is stopped.

Real: the rules of the rollout (hub.rollout_rules), the rule by which a device judges (edge.contract.judgement), and
the messages. Simulated: the devices (hub.simulated), what they see (hub.scenery), and the clock; there is no broker, no
database and no signed repository between. Reports come late, out of order and twice; devices are away for a while.
"""

import heapq
from collections import Counter
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.contract.rollout import ENDED, RolloutReport, TrialPlan
from hub.rollout_rules import hear, step
from hub.rollout_state import Heard, Place, Rollout, RolloutPlan, assignment
from hub.scenery import Fault
from hub.simulated import SimulatedDevice, draw_places

START_MS: Final = 1_700_000_000_000
TICK_MS: Final = 30_000
NUMBER: Final = 1  # the first of its line: its baseline is what every device holds
BACK: Final = frozenset({"rolled_back"})
RELEASE: Final = "line-1"
PLAN: Final = RolloutPlan(timeout_s=2 * 3600, trial=TrialPlan(bake_s=1200, within_s=1800))


@dataclass(frozen=True)
class Fleet:
    """How a fleet is drawn. `late`, `twice`: of its reports; `away`: of its devices, for two hours of the first six."""

    devices: int
    seed: int
    fault: Fault | None = None
    plan: RolloutPlan = PLAN
    late: float = 0.1
    twice: float = 0.1
    away: float = 0.1
    hours: float = 12.0


@dataclass(frozen=True)
class Outcome:
    """How a rollout ended. `confirmed`: the devices that ever confirmed the release; `serving`: those left with it."""

    rollout: Rollout
    devices: int
    confirmed: int
    serving: int
    reasons: Counter[str]

    @property
    def caught(self) -> bool:
        """It was stopped, or waits for a person."""
        return self.rollout.state in {"stopped", "halted"}


class Play:
    """One rollout before one fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._rng = rng = np.random.default_rng(fleet.seed)
        faults = {} if fleet.fault is None else {NUMBER: fleet.fault}
        self.devices = {
            Place(place.site, place.device): SimulatedDevice(
                place, faults=faults, seed=int(rng.integers(2**32)), begun_ms=START_MS
            )
            for place in draw_places(fleet.devices, rng=rng, site="sim")
        }
        self._away = {
            place: (at := int(rng.integers(0, 6 * 3600_000)), at + 2 * 3600_000)
            for place in self.devices
            if rng.random() < fleet.away
        }
        self.rollout = Rollout(
            id=f"r{fleet.seed}",
            model="line",
            release=RELEASE,
            number=NUMBER,
            target="line/000001.tar",
            plan=fleet.plan,
            started_at_ms=START_MS,
        )
        self._told: dict[Place, int] = {}
        self._heard_ms: dict[Place, int] = {}
        self._post: list[tuple[int, int, Place, RolloutReport]] = []
        self._sent = 0
        self.confirmed: set[Place] = set()
        self.reasons: Counter[str] = Counter()

    def run(self) -> Outcome:
        """Play until the rollout has ended and every device that can be heard did what it was told."""
        for now_ms in range(START_MS, START_MS + int(self._fleet.hours * 3600_000), TICK_MS):
            self._move_devices(now_ms)
            self._hear(now_ms)
            heard = [Heard(place, self._is_online(place, now_ms)) for place in self.devices]
            self.rollout = step(self.rollout, heard, now_ms=now_ms)
            if self.rollout.state != "running" and not self._post and self._is_quiet():
                break
        serving = sum(device.number == NUMBER for device in self.devices.values())
        return Outcome(self.rollout, len(self.devices), len(self.confirmed), serving, self.reasons)

    def _move_devices(self, now_ms: int) -> None:
        for place, device in self.devices.items():
            reports = device.step(now_ms)
            if self._is_online(place, now_ms):
                order = self.rollout.members.get(place)
                if order is not None and self._told.get(place) != order.ordered_at_ms:
                    self._told[place] = order.ordered_at_ms
                    reports += device.assign(assignment(self.rollout, order), now_ms=now_ms)
                if not self._is_online(place, now_ms - TICK_MS) and device.last is not None:
                    reports.append(device.last)
                for report in reports:
                    self._send(place, report, now_ms)
            for report in reports:
                self._note(place, report)

    def _send(self, place: Place, report: RolloutReport, now_ms: int) -> None:
        for _ in range(1 + (self._rng.random() < self._fleet.twice)):
            delay_ms = int(self._rng.integers(1, 120_000)) if self._rng.random() < self._fleet.late else 0
            self._sent += 1
            heapq.heappush(self._post, (now_ms + delay_ms, self._sent, place, report))

    def _note(self, place: Place, report: RolloutReport) -> None:
        if report.phase == "confirmed":
            self.confirmed.add(place)
        elif report.phase == "rolled_back":
            self.reasons[report.reason.split(":")[0]] += 1

    def _hear(self, now_ms: int) -> None:
        while self._post and self._post[0][0] <= now_ms:
            _, _, place, report = heapq.heappop(self._post)
            self.rollout = hear(self.rollout, place, report)

    def _is_online(self, place: Place, now_ms: int) -> bool:
        begins_ms, ends_ms = self._away.get(place, (0, 0))
        return not begins_ms <= now_ms - START_MS < ends_ms

    def _is_quiet(self) -> bool:
        """Whether everybody did what was ordered, and, of a complete rollout, nobody is left to be ordered."""
        done = all(
            self.devices[place].phase in (BACK if order.action == "back" else ENDED)
            for place, order in self.rollout.members.items()
        )
        return done and (self.rollout.state != "complete" or len(self.rollout.members) == len(self.devices))
