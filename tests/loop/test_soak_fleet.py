"""A simulated fleet through eleven rollouts: good and bad releases, halted and resumed, hub and broker killed.

A real broker, a real `hub serve`, a real signed repository, the commands as people type them, and `hub simulate` with
some hundred devices over the real protocol. What must hold at the end is said in the last lines of the test.
"""

import json
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.contract.status import State, decode
from hub.rollout_state import Rollout
from hub.rollouts import find_rollout
from hub.simulated import FACTORY
from hub.store import Store
from tests.brokers import Broker, broker
from tests.hub.devices import Hub
from tests.hub.signed import MadeRepository, add_release, made_repository, small_model
from tests.hub.test_serve import command

__all__ = ["broker"]  # a fixture
pytestmark = [pytest.mark.broker, pytest.mark.soak, pytest.mark.timeout(1800)]
ROOT = Path(__file__).resolve().parents[2]
DEVICES = 200
MOST_BAD = DEVICES // 20
MAX_GROWTH = 1.10
WAIT_S = 180.0
PLAN = ("--shadow-frames", 100, "--trial-frames", 100, "--waves", "10,100")
BAD = {2: "blind", 4: "crash", 6: "everything", 7: "worse:2", 10: "nan"}
"""By the number of the release; every other is good, and names the good one before it as its baseline. 9 is sent back
by hand: simulated devices take the number before as the baseline, so 8 is good, too."""
LAST = 10


@pytest.fixture
def repository(tmp_path: Path) -> MadeRepository:
    made = made_repository(tmp_path / "repository")
    good = 0
    for number in range(1, LAST + 1):
        model = small_model(tmp_path / f"model-{number}", release=f"yard-{number}", content=str(number))
        add_release(made, model, baseline=good)
        good = good if number in BAD else number
    return made


@pytest.fixture
def devices(broker: Broker, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """`hub simulate`; its answer is one line of JSON."""
    words = ["simulate", "--devices", DEVICES, "--broker", f"127.0.0.1:{broker.port}", "--fps", 400, "--json"]
    words += [word for number, kind in BAD.items() for word in ("--bad", f"{number}={kind}")]
    with (tmp_path / "simulate.log").open("w") as log:
        whole = [sys.executable, "-m", "hub", *map(str, words), "--away", "0.05"]
        with subprocess.Popen(whole, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True) as process:
            yield process
            process.kill()


def rollout(hub: Hub, *words: object) -> None:
    done = command("rollout", *words, "--database", hub.database)
    assert done.returncode == 0, done.stderr


def now(hub: Hub) -> Rollout:
    with Store.open(hub.database, create=False) as store:
        return find_rollout(store, "yard")


def serving(hub: Hub) -> set[str]:
    """What the devices that are online say that they serve."""
    with Store.open(hub.database, create=False) as store:
        rows = store._connection.execute("SELECT state FROM device WHERE online AND state IS NOT NULL").fetchall()
    return {decode(row[0], State).model for row in rows}


def heard(hub: Hub) -> int:
    with Store.open(hub.database, create=False) as store:
        return len(store.rollouts.fleet())


def until(condition: Callable[[], object], what: str) -> None:
    """As `wait_until`, looking four times a second: the fleet needs the processor."""
    pause, end_s = threading.Event(), time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > end_s:
            pytest.fail(f"not within {WAIT_S} s: {what}")
        pause.wait(0.25)


def confirmed(hub: Hub) -> int:
    return sum(one.phase == "confirmed" for one in now(hub).members.values())


def resident_mb(hub: Hub) -> float:
    assert hub._process is not None
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{hub._process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def begin(hub: Hub, repository: MadeRepository, number: int, *, bake: int = 0) -> None:
    rollout(hub, "start", f"yard/{number}", *PLAN, "--bake", bake, "--repository", repository.folder)


def end(hub: Hub, number: int, state: str) -> None:
    until(lambda: now(hub).state not in {"running", "halted"}, f"yard-{number} ends")
    assert (now(hub).number, now(hub).state) == (number, state), now(hub).reason


def everybody_has(hub: Hub, number: int) -> None:
    """Wait for those, too, that were away when the last wave confirmed."""
    until(lambda: confirmed(hub) == DEVICES and serving(hub) == {f"yard-{number}"}, f"all serve yard-{number}")


def stopped(hub: Hub, number: int) -> None:
    """Wait until nobody has it any more."""
    end(hub, number, "stopped")
    until(lambda: f"yard-{number}" not in serving(hub), f"yard-{number} is gone")


def wave(hub: Hub, at_least: int) -> None:
    until(lambda: now(hub).wave >= at_least, f"wave {at_least}")


def test_a_fleet_through_eleven_rollouts(
    broker: Broker, tmp_path: Path, repository: MadeRepository, devices: "subprocess.Popen[str]"
) -> None:
    resident: list[float] = []
    with Hub(tmp_path, broker.port) as hub:
        until(lambda: heard(hub) == DEVICES, "all are heard")

        begin(hub, repository, 1)  # the hub is killed in the middle of a wave
        wave(hub, 1)
        hub.kill()
        hub.start()
        end(hub, 1, "complete")
        everybody_has(hub, 1)

        begin(hub, repository, 2)
        stopped(hub, 2)
        resident.append(resident_mb(hub))

        begin(hub, repository, 3)  # halted and resumed by hand; the broker is killed, and forgets all it was told
        wave(hub, 1)
        rollout(hub, "halt", "yard")
        broker.kill()
        broker.start()
        rollout(hub, "resume", "yard")
        end(hub, 3, "complete")
        resident.append(resident_mb(hub))

        begin(hub, repository, 4)  # a bad one, and the hub's broker is restarted while it is judged
        broker.stop()
        broker.start()
        stopped(hub, 4)
        resident.append(resident_mb(hub))

        begin(hub, repository, 5)  # halted, and another begun instead
        wave(hub, 2)
        rollout(hub, "halt", "yard")
        begin(hub, repository, 6)
        end(hub, 6, "stopped")
        begin(hub, repository, 5)
        end(hub, 5, "complete")
        resident.append(resident_mb(hub))

        begin(hub, repository, 7, bake=1)  # two of three boxes gone: seen while it bakes, at the latest
        stopped(hub, 7)
        resident.append(resident_mb(hub))

        begin(hub, repository, 8)
        end(hub, 8, "complete")
        resident.append(resident_mb(hub))

        begin(hub, repository, 9)  # good, and sent back by hand half way
        wave(hub, 2)
        rollout(hub, "rollback", "yard")
        until(lambda: {one.phase for one in now(hub).members.values()} == {"rolled_back"}, "all are back")
        resident.append(resident_mb(hub))

        begin(hub, repository, 10)
        stopped(hub, 10)
        resident.append(resident_mb(hub))

        devices.send_signal(signal.SIGTERM)
        told = json.loads(devices.communicate(timeout=60)[0])
        checked = command("check", "--database", hub.database)
        assert hub.stop() == 0

    print(f"resident MB {[round(one) for one in resident]}; ever confirmed {told['ever_confirmed']}")
    assert checked.returncode == 0, checked.stdout
    with Store.open(hub.database, create=False) as store:
        assert list(store.rollouts.violations()) == []
        assert {one.number: one.state for one in store.rollouts.all()} == {
            1: "complete",
            2: "stopped",
            3: "complete",
            4: "stopped",
            5: "complete",
            6: "stopped",
            7: "stopped",
            8: "complete",
            9: "rolled_back",
            10: "stopped",
        }
    assert not {f"yard-{number}" for number in (*BAD, 9)} & set(told["serving"])
    assert sum(told["serving"].values()) == DEVICES
    ever = {int(name.removeprefix("yard-")): count for name, count in told["ever_confirmed"].items() if name != FACTORY}
    assert {number: count for number, count in ever.items() if number in BAD and count > MOST_BAD} == {}
    warm, last = statistics.mean(resident[2:4]), statistics.mean(resident[-2:])
    assert last < MAX_GROWTH * warm, f"the hub grows: {resident} MB"
