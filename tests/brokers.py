"""A real mosquitto on a free loopback port: started, stopped, killed and started again on the same port.

Use the fixture: `from tests.brokers import broker` (and `# noqa: F401`), mark the test with `@pytest.mark.broker`, or
hold a `Broker` yourself for another configuration. Nothing here sleeps: readiness is the broker's own log line.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

from hub.demo.broker import RUMQTTD

DEADLINE_S = 20.0
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])


def mosquitto_path() -> str | None:
    """Where the broker's program is, or None."""
    return shutil.which("mosquitto", path=PATH)


def free_port() -> int:
    """A port that nothing listens on now. Below the ephemeral range, so that no outgoing connection takes it."""
    for candidate in range(20000 + os.getpid() % 5000, 32000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return candidate
    msg = "no free port"
    raise RuntimeError(msg)


def wait_until(condition: Callable[[], object], *, deadline_s: float = DEADLINE_S, what: str = "") -> None:
    """Return as soon as `condition()` is true; fail with `what` at the deadline."""
    pause = threading.Event()
    for _ in range(int(deadline_s / 0.02)):
        if condition():
            return
        pause.wait(0.02)
    pytest.fail(f"not within {deadline_s} s: {what or condition}")


class Broker:
    """One mosquitto with its own directory. `extra` is appended to its configuration."""

    def __init__(self, *, persistence: bool = False, extra: str = "", port: int | None = None) -> None:
        program = mosquitto_path()
        if program is None:
            pytest.skip("mosquitto is not installed")
        self._program = program
        self.port = port or free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="weakspot-broker-"))
        self._config = self._directory / "mosquitto.conf"
        keep = f"persistence true\npersistence_location {self._directory}/\nautosave_interval 1\n"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nuser root\n"
            f"{keep if persistence else 'persistence false'}\n{extra}\n"
        )
        self._process: subprocess.Popen[str] | None = None
        self._drain: threading.Thread | None = None
        self.log: list[str] = []

    def start(self) -> Self:
        """Start it; returns when it accepts connections."""
        running = threading.Event()
        self._process = subprocess.Popen(
            [self._program, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._drain = threading.Thread(target=self._read_log, args=(self._process, running), daemon=True)
        self._drain.start()
        if not running.wait(DEADLINE_S) or self._process.poll() is not None:
            self.kill()
            pytest.fail("mosquitto did not start: " + "".join(self.log[-5:]))
        return self

    def _read_log(self, process: "subprocess.Popen[str]", running: threading.Event) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            self.log.append(line)
            if " running" in line:
                running.set()
        running.set()

    def stop(self) -> None:
        """SIGTERM: it saves its state, if it has persistence."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL: what it held is lost, or as old as its last save."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        self._process.wait(DEADLINE_S)
        if self._drain is not None:
            self._drain.join(DEADLINE_S)
        if self._process.stderr is not None:
            self._process.stderr.close()
        self._process = None

    def close(self) -> None:
        """Kill it if it runs, and remove its directory."""
        self.kill()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A broker without persistence, started."""
    with Broker() as running:
        yield running


@contextmanager
def iotcore_broker() -> Iterator[int]:
    """The broker of the `iotcore` wheel (rumqttd), set up as the demo does; gives its port."""
    pytest.importorskip("iotcore")
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="weakspot-broker-") as folder:
        config = Path(folder) / "rumqttd.toml"
        config.write_text(RUMQTTD.format(port=port))
        command = [sys.executable, "-m", "iotcore", "--config", str(config), "--log-level", "CRITICAL"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(lambda: _accepts(port), what="iotcore accepts connections")
            yield port
        finally:
            process.kill()
            process.wait(DEADLINE_S)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    except OSError:
        return False
    return True
