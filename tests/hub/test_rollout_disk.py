"""The hub's disk is full while a release is rolled out: nothing goes on, nothing is lost, and it goes on by itself.

A real hub on a small disk, a real broker, simulated devices that say what real ones say.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.contract.rollout import TrialPlan
from edge.contract.settings import BrokerSettings
from hub.rollout_state import RolloutPlan
from hub.rollouts import find_rollout, start_rollout
from hub.scenery import USUAL, Ailment, Fault
from hub.simulate import Fleet, make_devices
from hub.simulated import FACTORY, SimulatedDevice, draw_places
from hub.store import Store
from tests.brokers import Broker, broker, wait_until
from tests.hub.devices import Hub
from tests.hub.small_disks import SmallDisk, small_disk
from tests.hub.test_rollouts import signed
from tests.hub.test_serve import command

__all__ = ["broker"]  # a fixture
pytestmark = [pytest.mark.broker, pytest.mark.slow, pytest.mark.timeout(300)]
COUNT = 6
BLIND = Fault(ailment=Ailment.BLIND, strength=USUAL[Ailment.BLIND])
PLAN = RolloutPlan(
    waves_permille=(500, 1000),
    timeout_s=3600,
    trial=TrialPlan(shadow_frames=100, trial_frames=100, bake_s=0, within_s=600),
)
FULL = "disk is full"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", size="8m") as made:
        yield made


def simulated(**faults: Fault) -> list[SimulatedDevice]:
    """`faults`: by the number of the release, as in r2."""
    places = draw_places(COUNT, rng=np.random.default_rng(1), site="yard", fps=500.0, labels=())
    return make_devices(places, faults={int(name[1:]): fault for name, fault in faults.items()}, seed=1)


def begin(database: Path, number: int) -> None:
    with Store.open(database, create=False) as store:
        wait_until(lambda: sum(one.online for one in store.rollouts.fleet()) == COUNT, what="all are heard")
        start_rollout(store, signed(number), PLAN, now_ms=time.time_ns() // 1_000_000)


def state(database: Path) -> str:
    with Store.open(database, create=False) as store:
        return find_rollout(store, "street").state


def wave(database: Path) -> int:
    with Store.open(database, create=False) as store:
        return find_rollout(store, "street").wave


def heard_an_order(devices: list[SimulatedDevice]) -> set[str]:
    return {one.place.device for one in devices if one.phase is not None}


def ordered(database: Path) -> set[str]:
    with Store.open(database, create=False) as store:
        return {row.device for row in store.rollouts.orders()}


def says_full(hub: Hub, *, after: int = 0) -> bool:
    return any(FULL in line for line in hub.log[after:])


def faults(database: Path) -> list[str]:
    with Store.open(database, create=False) as store:
        return list(store.rollouts.violations())


def test_a_disk_that_is_full_before_the_first_order(broker: Broker, disk: SmallDisk) -> None:
    devices = simulated()
    with Hub(disk.mount, broker.port) as hub, Fleet(devices, BrokerSettings(host="127.0.0.1", port=broker.port)):
        begin(hub.database, 1)
        disk.leave(0)
        wait_until(lambda: says_full(hub), what="the hub says so")
        assert heard_an_order(devices) <= ordered(hub.database), "no order goes out that is not on disk"
        halted = command("rollout", "halt", "--database", hub.database)
        done = halted.returncode == 0  # so little may fit into what the log of the database already holds
        assert state(hub.database) == ("halted" if done else "running"), "what it says is so"
        assert done or (halted.returncode, halted.stdout, halted.stderr.count("\n")) == (2, "", 1), halted
        looked = command("rollout", "status", "--database", hub.database)
        assert (looked.returncode, looked.stderr) == (1 if done else 0, ""), "to look needs no room; 1: it is halted"
        disk.free()
        if done:
            assert command("rollout", "resume", "--database", hub.database).returncode == 0
        wait_until(lambda: wave(hub.database) >= 1, deadline_s=90, what="it goes on to the next wave")
        assert faults(hub.database) == []
        assert hub.stop() == 0


def test_a_failure_that_is_told_to_a_full_disk_stops_the_rollout_afterwards(broker: Broker, disk: SmallDisk) -> None:
    devices = simulated(r2=BLIND)
    with Hub(disk.mount, broker.port) as hub, Fleet(devices, BrokerSettings(host="127.0.0.1", port=broker.port)):
        begin(hub.database, 2)
        wait_until(lambda: any(one.phase is not None for one in devices), deadline_s=30, what="the canary has it")
        disk.leave(0)
        wait_until(lambda: any(one.phase == "rolled_back" for one in devices), deadline_s=60, what="it goes back alone")
        wait_until(lambda: says_full(hub), what="the hub says so")
        assert {one.serving for one in devices} == {FACTORY}
        assert sum(one.phase is not None for one in devices) == 1, "nobody else gets it meanwhile"
        disk.free()
        wait_until(lambda: state(hub.database) == "stopped", deadline_s=60, what="the report was not lost")
        assert sum(one.phase is not None for one in devices) == 1
        assert faults(hub.database) == []
        assert hub.stop() == 0


def test_hub_and_broker_are_killed_while_the_disk_is_full(broker: Broker, disk: SmallDisk) -> None:
    """Who was ordered hears it again when there is room, though the broker does not tell them any more."""
    devices = simulated()
    hub = Hub(disk.mount, broker.port).start()
    try:
        with Fleet(devices, BrokerSettings(host="127.0.0.1", port=broker.port)):
            begin(hub.database, 1)
            wait_until(lambda: any(one.phase is not None for one in devices), deadline_s=30, what="the canary has it")
            disk.leave(0)
            wait_until(lambda: says_full(hub), what="the hub says so")
            hub.kill()
            broker.kill()
            broker.start()
            before = len(hub.log)
            hub.start()
            wait_until(lambda: says_full(hub, after=before), deadline_s=60, what="it serves, and says so")
            disk.free()
            wait_until(lambda: wave(hub.database) >= 1, deadline_s=90, what="it goes on to the next wave")
        assert faults(hub.database) == []
        assert hub.stop() == 0
    finally:
        if hub._process is not None:
            hub.kill()
