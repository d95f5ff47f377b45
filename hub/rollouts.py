"""Rollouts as they run: stepped by `hub serve`, begun and stopped by people; how they are told to the devices.

Laws:

1. The database is the truth; the broker's retained messages are a copy. Every order is published when it was given and
   again on every new connection, so that a broker that lost them has them back.
2. On a new connection the hub hears for `SETTLE_S` what the broker keeps before it gives or publishes an order: a hub
   whose database is an older backup learns of it first (hub.store_rollouts, law 4).
3. While there is no connection no time passes: a device that cannot be heard does not time out.
"""

import logging
import secrets
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.release import SignedRelease, target_name
from edge.contract.topics import Kind, topic
from hub.rollout_rules import halt, resume, roll_back, step
from hub.rollout_state import (
    Baseline,
    Heard,
    Place,
    Rollout,
    RolloutPlan,
    RolloutState,
    WaveCount,
    count_wave,
    standing,
    wave_name,
)
from hub.store import Store

SETTLE_S: Final = 5.0
STEP_S: Final = 1.0
_WRITE_MS: Final = 30_000
_LATE_STEPS: Final = 10  # who joins a complete rollout late may wait for so many
log = logging.getLogger(__name__)


class OrderLine(Protocol):
    """The way to the devices: hub.link over MQTT, a list in tests."""

    @property
    def connection(self) -> int | None:
        """A number that no other connection had, None while there is none."""

    def order(self, site: str, device: str, payload: bytes) -> bool:
        """Publish, retained. Return False when there was no connection. Does not raise."""


class RolloutPost:
    """Steps the rollouts and publishes their orders. It belongs to the thread of its store."""

    def __init__(
        self,
        store: Store,
        *,
        line: OrderLine,
        settle_s: float = SETTLE_S,
        step_s: float = STEP_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock`: monotonic seconds; `step_s`: at most one step in so long."""
        self._store = store
        self._line = line
        self._settle_s = settle_s
        self._step_s = step_s
        self._clock = clock
        self._connection: int | None = None
        self._next_s = 0.0
        self._late_s = 0.0
        self._published: dict[tuple[str, str], bytes] = {}

    def step(self, now_ms: int) -> int:
        """Return how many orders were published."""
        connection, now_s = self._line.connection, self._clock()
        if connection != self._connection:
            self._connection = connection
            self._next_s = now_s + self._settle_s
            self._published.clear()
        if connection is None or now_s < self._next_s or not self._store.rollouts.any():
            return 0
        self._next_s = now_s + self._step_s
        late = now_s >= self._late_s
        if late:
            self._late_s = now_s + _LATE_STEPS * self._step_s
        try:
            step_rollouts(self._store, now_ms=now_ms, late=late)
        finally:  # on a full disk nothing new is ordered; what was ordered is said all the same
            sent = self._publish()
        return sent

    def _publish(self) -> int:
        sent = 0
        for row in self._store.rollouts.orders():
            key = (row.site, row.device)
            if self._published.get(key) != row.payload and self._line.order(*row):
                self._published[key] = row.payload
                sent += 1
        return sent


def step_rollouts(store: Store, *, now_ms: int, late: bool = True) -> None:
    """Let time pass for every active rollout, with `late` for the others as well, in one transaction."""
    with store.at_once():
        for before in store.rollouts.stepped(late=late):
            taken = store.rollouts.taken(before)
            fleet = [  # of a member that follows another order now nothing is to be heard, and it does not time out
                one._replace(online=one.online and one.place not in taken)
                for one in store.rollouts.fleet()
                if one.place not in taken or one.place in before.members
            ]
            after = step(before, fleet, now_ms=now_ms)
            if _is_worth_writing(before, after):
                store.rollouts.put(after, before=before)
            if after.state != before.state:
                log.warning("rollout of %s is %s%s", after.release, after.state, after.reason and f": {after.reason}")
            elif after.wave != before.wave:
                log.info("rollout of %s: %s", after.release, wave_name(after.plan, after.wave))


def _is_worth_writing(before: Rollout, after: Rollout) -> bool:
    """Clocks alone are written twice a minute: what a hub that ends loses of them makes it wait a little longer."""
    if (before.state, before.wave, before.reason) != (after.state, after.wave, after.reason):
        return True
    if before.members.keys() != after.members.keys():
        return True
    if any(before.members[place].action != one.action for place, one in after.members.items()):
        return True
    if not before.active and before.members == after.members:
        return False
    if before.state not in {"running", "halted", "complete"}:
        return True
    return not before.stepped_at_ms or abs(after.stepped_at_ms - before.stepped_at_ms) >= _WRITE_MS


# What people do


def start_rollout(
    store: Store, signed: SignedRelease, plan: RolloutPlan, *, now_ms: int, baseline: SignedRelease | None = None
) -> Rollout:
    """Begin to bring a release to the devices of a plan; `hub serve` gives the orders.

    `baseline`: the release that it names as its baseline, where the repository has it.

    Raises `UnusableError` while another runs on its line, when the plan names a site, a device or a label that cannot
    be used, and when its canary is not in its scope.
    """
    for site in plan.sites:
        topic(site, "device", Kind.ASSIGN)
    if plan.canary:
        named = [one for one in store.rollouts.fleet() if "/".join(one.place) == plan.canary]
        if not named:
            msg = f"no device {plan.canary} was heard: name the canary as SITE/DEVICE, as `hub status` does"
            raise UnusableError(msg)
        if not plan.covers(named[0]):
            msg = (
                f"the canary {plan.canary} is not of the sites and labels that the rollout is for, or has no [updates]"
            )
            raise UnusableError(msg)
    rollout = Rollout(
        id=f"r-{secrets.token_hex(8)}",
        model=signed.model,
        release=signed.release,
        number=signed.number,
        target=target_name(signed.model, signed.number),
        baseline=None
        if baseline is None
        else Baseline(
            release=baseline.release,
            number=baseline.number,
            target=target_name(baseline.model, baseline.number),
        ),
        plan=plan,
        started_at_ms=now_ms,
    )
    store.rollouts.add(rollout)
    return rollout


def halt_rollout(store: Store, model: str) -> Rollout:
    """Halt the newest rollout of a line; "" where only one line has any. Raises `UnusableError` as the rule does."""
    return _change(store, model, lambda rollout: halt(rollout, reason="by hand"))


def resume_rollout(store: Store, model: str) -> Rollout:
    """Let a halted rollout go on. Raises `UnusableError` as the rule does."""
    return _change(store, model, resume)


def roll_back_rollout(store: Store, model: str, *, now_ms: int) -> Rollout:
    """Order every device of the newest rollout back. Raises `UnusableError` as the rule does."""
    return _change(store, model, lambda rollout: roll_back(rollout, now_ms=now_ms))


def _change(store: Store, model: str, change: Callable[[Rollout], Rollout]) -> Rollout:
    with store.at_once():
        before = find_rollout(store, model)
        after = change(before)
        store.rollouts.put(after, before=before)
    return after


def find_rollout(store: Store, model: str) -> Rollout:
    """Return the newest rollout of a line; "" where only one line has any. Raises `UnusableError`."""
    newest = store.rollouts.newest()
    found = [one for one in newest if model in {"", one.model}]
    if len(found) > 1:
        msg = f"name the model line: there are rollouts of {', '.join(one.model for one in found)}"
        raise UnusableError(msg)
    if not found:
        msg = f"there is no rollout{f' of {model}' if model else ''}: `hub rollout start` begins one"
        raise UnusableError(msg)
    return found[0]


# How it stands


class DeviceLine(msgspec.Struct, frozen=True, kw_only=True):
    """One device of a rollout.

    `said_at_ms` is by the device's clock; 0 when nothing was heard for its order. `instead`: it was ordered to install
    the baseline, because it cannot go back by itself.
    """

    site: str
    device: str
    wave: str
    standing: str
    phase: str
    frames: int
    reason: str
    instead: bool
    online: bool
    said_at_ms: int


class WaveLine(msgspec.Struct, frozen=True, kw_only=True):
    """One wave of a rollout."""

    name: str
    count: WaveCount


class RolloutStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout as `hub rollout status` shows it.

    Attributes:
        in_scope: devices of the sites and labels that were heard, with or without an order.
        on_trial: devices that serve the release and have not confirmed it: while they bake, mostly.
        failed_late: devices that failed since it was complete.
        foreign: devices with an order that is newer than this database.
    """

    id: str
    model: str
    release: str
    number: int
    baseline: Baseline | None
    state: RolloutState
    reason: str
    started_at_ms: int
    plan: RolloutPlan
    wave: str
    in_scope: int
    on_trial: int
    failed_late: int
    waves: list[WaveLine]
    devices: list[DeviceLine]
    foreign: int


def rollout_status(store: Store, rollout: Rollout) -> RolloutStatus:
    """Return how a rollout stands now."""
    fleet = {one.place: one for one in store.rollouts.fleet()}
    waves = [WaveLine(name=wave_name(rollout.plan, n), count=count_wave(rollout, n)) for n in range(rollout.wave + 1)]
    late = count_wave(rollout, rollout.plan.last_wave + 1)
    if late.devices:
        waves.append(WaveLine(name=wave_name(rollout.plan, late.wave), count=late))
    members = sorted(rollout.members.values(), key=lambda one: (one.wave, one.place))
    return RolloutStatus(
        id=rollout.id,
        model=rollout.model,
        release=rollout.release,
        number=rollout.number,
        baseline=rollout.baseline,
        state=rollout.state,
        reason=rollout.reason,
        started_at_ms=rollout.started_at_ms,
        plan=rollout.plan,
        wave=wave_name(rollout.plan, rollout.wave) if rollout.wave >= 0 else "",
        in_scope=sum(rollout.plan.covers(one) for one in fleet.values()),
        on_trial=sum(one.phase == "trial" and one.action == "install" and not one.failed for one in members),
        failed_late=sum(one.failed_late for one in members),
        waves=waves,
        devices=[
            DeviceLine(
                site=one.place.site,
                device=one.place.device,
                wave=wave_name(rollout.plan, one.wave),
                standing=standing(rollout, one),
                phase=one.phase,
                frames=one.frames,
                reason=one.reason,
                instead=one.instead,
                online=_is_online(fleet, one.place),
                said_at_ms=one.reported_at_ms,
            )
            for one in members
        ],
        foreign=store.rollouts.foreign(),
    )


def _is_online(fleet: dict[Place, Heard], place: Place) -> bool:
    return place in fleet and fleet[place].online
