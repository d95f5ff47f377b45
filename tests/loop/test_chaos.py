"""Device, broker and hub are killed with SIGKILL at random moments: nothing acknowledged is lost, nothing is doubled.

The spool, the publisher, the broker and the hub are the real ones, each in its own process; the camera is simulated
(tests.simulators.busy_edge). The broker has no persistence: every kill of it drops its queues.
"""

import random
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.brokers import Broker, wait_until

pytestmark = pytest.mark.broker
CALM_S = 90.0


class Child:
    """A process that is started again whenever it was killed."""

    def __init__(self, command: list[str], log: Path) -> None:
        self._command = [sys.executable, *command]
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)

    def kill(self, number: signal.Signals = signal.SIGKILL) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(30)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


@contextmanager
def running(command: list[str], log: Path) -> Iterator[Child]:
    child = Child(command, log)
    child.start()
    try:
        yield child
    finally:
        if child.running:
            child.kill()


def hub_command(folder: Path, port: int) -> list[str]:
    config = folder / "hub.toml"
    config.write_text(
        f'database = "hub.db"\n[mqtt]\nhost = "127.0.0.1"\nport = {port}\nsession_expiry_s = 5\nkeepalive_s = 5\n'
        "[wants]\nbytes_per_day_per_device = 100000000000\nresend_s = 3.0\n"
        "outstanding_per_device = 200\nexplore = 1000000\n"
    )
    return ["-m", "hub", "serve", "--config", str(config)]


def count(database: Path, query: str) -> int:
    if not database.is_file():
        return 0
    connection = sqlite3.connect(database, timeout=20)
    try:
        return connection.execute(query).fetchone()[0]
    except sqlite3.OperationalError:  # the hub was killed before it made the tables
        return 0
    finally:
        connection.close()


def promised(folder: Path) -> set[str]:
    journal = folder / "put.txt"
    return set(journal.read_text().split()) if journal.is_file() else set()


def assert_all_arrived_once(folder: Path, upload: str) -> None:
    """Every promised event is in the database once, with its frame, and the spool let go of nothing else."""
    connection = sqlite3.connect(folder / "hub.db", timeout=20)
    arrived = [row[0] for row in connection.execute("SELECT event_id FROM finding")]
    present = "SELECT event_id FROM finding WHERE frame_state = 'present'"
    frames = {row[0] for row in connection.execute(present)}
    connection.close()
    assert len(arrived) == len(set(arrived))
    assert promised(folder) <= set(arrived), "a finding that was put is lost"
    # A put that was killed before it could be written down may have arrived as well: at most one a kill.
    assert len(arrived) - len(promised(folder)) <= 200
    assert promised(folder) <= frames, f"a frame is lost with upload = {upload}"
    checked = subprocess.run(
        [sys.executable, "-m", "hub", "check", "--database", str(folder / "hub.db")],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    spool = sqlite3.connect(folder / "spool.db", timeout=20)
    left = {row[0] for row in spool.execute("SELECT event_id FROM sample")}
    spool.close()
    assert not left & promised(folder)


def run_rounds(folder: Path, *, rounds: int, seed: int, upload: str) -> None:
    chance = random.Random(seed)
    pause = threading.Event()
    with ExitStack() as stack:
        broker = stack.enter_context(Broker())
        hub = stack.enter_context(running(hub_command(folder, broker.port), folder / "hub.log"))
        device = stack.enter_context(
            running(["-m", "tests.simulators.busy_edge", str(folder), str(broker.port), upload], folder / "edge.log")
        )
        wait_until(lambda: len(promised(folder)) > 5, deadline_s=30, what="the device puts nothing")
        wait_until(lambda: count(folder / "hub.db", "SELECT count(*) FROM frame") > 0, deadline_s=30, what="no frame")
        victims: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "hub": (hub.kill, hub.start),
            "device": (device.kill, device.start),
            "broker": (broker.kill, broker.start),
        }
        killed = []
        for _ in range(rounds):
            pause.wait(chance.uniform(0.1, 1.5))  # the moment of the kill is the experiment
            name = chance.choice(sorted(victims))
            kill, start = victims[name]
            kill()
            killed.append(name)
            pause.wait(chance.uniform(0.0, 0.5))
            start()
        assert set(killed) == set(victims)
        (folder / "quiet").touch()
        wait_until(lambda: device.running and hub.running, deadline_s=30, what="everyone runs")
        wait_until(
            lambda: count(folder / "spool.db", "SELECT count(*) FROM sample") == 0,
            deadline_s=CALM_S,
            what=f"the spool is empty; killed {killed}",
        )
        assert hub.kill(signal.SIGTERM) == 0
        device.kill()
        assert len(promised(folder)) > 10 * min(rounds, 30)
        assert_all_arrived_once(folder, upload)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_thirty_kills_with_every_frame_sent(tmp_path: Path) -> None:
    run_rounds(tmp_path, rounds=30, seed=1, upload="all")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_ten_kills_with_frames_on_want(tmp_path: Path) -> None:
    run_rounds(tmp_path, rounds=10, seed=2, upload="want")


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("upload", ["all", "want"])
def test_a_hundred_kills(tmp_path: Path, upload: str) -> None:
    run_rounds(tmp_path, rounds=100, seed=3, upload=upload)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_hub_is_away_for_the_whole_run_and_comes_back(tmp_path: Path) -> None:
    with ExitStack() as stack:
        broker = stack.enter_context(Broker())
        device = stack.enter_context(
            running(["-m", "tests.simulators.busy_edge", str(tmp_path), str(broker.port), "all"], tmp_path / "edge.log")
        )
        wait_until(lambda: len(promised(tmp_path)) >= 50, deadline_s=30, what="the device puts nothing")
        broker.kill()  # a broker that drops its queue
        broker.start()
        (tmp_path / "quiet").touch()
        assert count(tmp_path / "spool.db", "SELECT count(*) FROM sample") == len(promised(tmp_path))
        hub = stack.enter_context(running(hub_command(tmp_path, broker.port), tmp_path / "hub.log"))
        wait_until(
            lambda: count(tmp_path / "spool.db", "SELECT count(*) FROM sample") == 0, deadline_s=CALM_S, what="sent"
        )
        assert hub.kill(signal.SIGTERM) == 0
        device.kill()
        assert_all_arrived_once(tmp_path, "all")
