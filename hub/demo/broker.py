"""A broker for trying things out, on the loopback interface only: the system's mosquitto, else the `iotcore` wheel."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge.contract.errors import UnreachableError

START_S: Final = 15.0

RUMQTTD: Final = """
id = 0
[router]
id = 0
max_connections = 200
max_outgoing_packet_count = 1000
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "v5-1"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 500
dynamic_filters = true
"""

_MOSQUITTO: Final = """
listener {port} 127.0.0.1
allow_anonymous true
persistence false
max_packet_size 1048576
"""


@contextmanager
def local_broker(folder: Path) -> Iterator[tuple[str, int]]:
    """Run a broker while the context lasts; give its name and its port.

    Raises:
        UnreachableError: when there is no broker to run, or it does not start.
    """
    port = _free_port()
    name, command = _command(folder, port)
    with (folder / "broker.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: S603 (ours)
        try:
            _wait_until_it_listens(process, name, port, log_path=folder / "broker.log")
            yield name, port
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _command(folder: Path, port: int) -> tuple[str, list[str]]:
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    mosquitto = shutil.which("mosquitto", path=places)
    if mosquitto is not None:
        config = folder / "mosquitto.conf"
        config.write_text(_MOSQUITTO.format(port=port))
        return "mosquitto", [mosquitto, "-c", str(config)]
    if importlib.util.find_spec("iotcore") is not None:
        config = folder / "rumqttd.toml"
        config.write_text(RUMQTTD.format(port=port))
        return "iotcore", [sys.executable, "-m", "iotcore", "--config", str(config), "--log-level", "CRITICAL"]
    msg = 'no MQTT broker here: install mosquitto, or pip install "weakspot[demo]"'
    raise UnreachableError(msg)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_listens(process: subprocess.Popen[bytes], name: str, port: int, *, log_path: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=0.2).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    tail = log_path.read_text(errors="replace").strip().splitlines()[-1:]
    msg = f"the broker {name} did not start: {' '.join(tail) or f'nothing listens on port {port}'}"
    raise UnreachableError(msg)
