"""The whole device: `edge run` as a user runs it, with a real model, a real broker and the least hub there can be."""

import contextlib
import json
import random
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge.check import broken_samples
from edge.config import EdgeConfig, read_config
from edge.contract.errors import UnusableError
from edge.contract.samples import Reason, WitnessKind
from edge.daemon import Daemon
from edge.daemon import run as run_daemon
from edge.health import read_status
from edge.opening import open_configured, open_spool
from edge.spool import Spool
from tests.brokers import Broker, broker, wait_until  # noqa: F401
from tests.edge.clips import write_clip
from tests.edge.hub_stand_in import HubStandIn

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
site = "yard"
device = "gate"
data_dir = "data"
{top}
[model]
input = "96x64"
threads = 1
[mqtt]
host = "127.0.0.1"
port = {port}
heartbeat_s = 0.3
ack_timeout_s = 2
[spool]
limit_mb = 50
reserve_mb = 1
[mining]
control_per_hour = 36000
[quota]
burst = 1000
[[camera]]
name = "front"
source = "{source}"
fps = 0
{camera}
"""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `edge run` in a process of its own; what is left of it is killed."""
    with ExitStack() as stack:

        def start(*arguments: str) -> subprocess.Popen[str]:
            log = stack.enter_context((tmp_path / "edge.log").open("a"))
            command = [sys.executable, "-m", "edge", "run", "--config", str(tmp_path / "edge.toml"), *arguments]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


def configure(folder: Path, *, port: int, frames: int = 60, camera: str = "loop = true", top: str = "") -> EdgeConfig:
    write_clip(folder / "clip.avi", frames=frames)
    (folder / "edge.toml").write_text(CONFIG.format(port=port, source="clip.avi", camera=camera, top=top))
    return read_config(folder / "edge.toml")


def edge(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def hub(broker: Broker) -> Iterator[HubStandIn]:  # noqa: F811
    stand_in = HubStandIn(broker.port)
    yield stand_in
    stand_in.close()


@pytest.mark.broker
def test_a_recording_from_camera_to_hub(tmp_path: Path, broker: Broker, hub, device) -> None:  # noqa: F811
    configure(tmp_path, port=broker.port, camera="")
    process = device("--exit-at-end")
    wait_until(lambda: len(hub.events) >= 3, what="findings")
    wanted = list(hub.events)[:2]
    hub.want(*wanted)
    assert process.wait(30) == 0
    assert set(hub.frames) == set(wanted)
    assert all(jpeg.startswith(b"\xff\xd8") for jpeg in hub.frames.values())
    assert [state.online for state in hub.states] == [True, False]
    beat = hub.heartbeats[-1]
    assert beat.boot_id == hub.states[0].boot_id
    assert sum(beat.findings.values()) == len(hub.events)
    assert (beat.cameras[0].name, beat.cameras[0].state) == ("front", "ended")
    assert beat.cameras[0].frames > 20
    assert beat.spool.samples == len(hub.events) - 2
    assert beat.spool.unsent == 0
    assert beat.bytes_up > sum(map(len, hub.frames.values()))
    assert list(broken_samples(tmp_path / "data" / "spool.db")) == []
    finding = hub.findings[wanted[0]]
    assert (finding.site, finding.device, finding.camera, finding.model) == ("yard", "gate", "front", "starter-1")


STREET = """
site = "yard"
device = "gate"
data_dir = "data"
[model]
input = "256x192"
score_threshold = 0.4
threads = 1
[mqtt]
host = "127.0.0.1"
port = {port}
heartbeat_s = 0.3
[spool]
limit_mb = 50
reserve_mb = 1
[mining]
control_per_hour = 3600
zoom_budget = 1.0
[quota]
burst = 1000
[[camera]]
name = "front"
source = "{root}/deploy/demo/street.mp4"
fps = 5
"""


@pytest.mark.slow
@pytest.mark.broker
def test_what_two_looks_see_reaches_the_hub_with_its_tags(tmp_path: Path, broker: Broker, hub, device) -> None:  # noqa: F811
    """A street through the whole device: what the control findings carry is what the heartbeat counts."""
    (tmp_path / "edge.toml").write_text(STREET.format(port=broker.port, root=ROOT))
    process = device("--exit-at-end")
    assert process.wait(90) == 0
    wait_until(lambda: hub.heartbeats[-1].cameras[0].state == "ended", what="the last heartbeat")
    beat = hub.heartbeats[-1]
    assert not beat.dropped
    assert sum(beat.findings.values()) == len(hub.findings)
    controls = [finding for finding in hub.findings.values() if finding.reason is Reason.CONTROL]
    objects = [box for finding in controls if finding.looked_twice for box in finding.boxes if box.tags]
    overlooked = [box for box in objects if box.witness is WitnessKind.ZOOM]
    recall = beat.cameras[0].recall
    assert recall.frames == sum(finding.looked_twice for finding in controls) >= 3
    assert recall.detector == len(objects) - len(overlooked) > 0
    assert recall.second_look - recall.both == len(overlooked) > 0
    tracks = {finding.track for finding in hub.findings.values()} - {""}
    assert tracks
    assert len({track[:8] for track in tracks}) == 1
    assert all(re.fullmatch(r"[0-9a-f]{8}-[1-9][0-9]*", track) for track in tracks)
    assert all(finding.track for finding in hub.findings.values() if finding.reason is Reason.LOW_CONFIDENCE)


@pytest.mark.broker
def test_sigterm_drains_and_exits_0(tmp_path: Path, broker: Broker, hub, device) -> None:  # noqa: F811
    config = configure(tmp_path, port=broker.port)
    process = device()
    wait_until(lambda: hub.events, what="findings")
    reported = edge("status", "--config", tmp_path / "edge.toml", "--json")
    assert json.loads(reported.stdout)["running"] is True
    wait_until(lambda: read_status(config.data_dir).connected)
    checked = edge("check", "--config", tmp_path / "edge.toml")
    assert checked.returncode == 0, checked.stderr
    assert "broker: good: the running daemon is connected" in checked.stdout
    assert "camera front: good: the running daemon had a frame" in checked.stdout
    assert len(hub.states) == 1, "the check did not take the daemon's session"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not hub.states[-1].online
    status = read_status(config.data_dir)
    assert status is not None
    assert status.heartbeat.spool.unsent == 0
    assert sum(status.heartbeat.findings.values()) == len(hub.events)
    assert "Traceback" not in (tmp_path / "edge.log").read_text()


@pytest.mark.broker
def test_nothing_is_lost_or_doubled_when_the_device_is_killed(tmp_path: Path, broker: Broker, hub, device) -> None:  # noqa: F811
    config = configure(tmp_path, port=broker.port)
    for _ in range(3):
        seen, boots = len(hub.events), len({state.boot_id for state in hub.states})
        process = device()
        wait_until(lambda boots=boots: len({state.boot_id for state in hub.states}) > boots, what="a new session")
        wait_until(lambda seen=seen: len(hub.events) > seen + random.randint(0, 10), what="new findings")
        process.send_signal(signal.SIGKILL)
        process.wait()
    process = device()
    wait_until(lambda: (status := read_status(config.data_dir)).pid == process.pid and status.connected)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    with contextlib.closing(sqlite3.connect(config.data_dir / "spool.db")) as db:
        held = {row[0] for row in db.execute("SELECT event_id FROM sample")}
        made = db.execute("SELECT sum(n) FROM counter WHERE name LIKE 'findings/%'").fetchone()[0]
    assert held == set(hub.events), "every finding the hub has is held here, and the other way round"
    assert made == len(held)
    assert len({state.boot_id for state in hub.states}) == 4
    assert list(broken_samples(config.data_dir / "spool.db")) == []


@pytest.mark.slow
@pytest.mark.broker
def test_the_hub_is_away_for_a_whole_run(tmp_path: Path, broker: Broker, device) -> None:  # noqa: F811
    config = configure(tmp_path, port=broker.port, frames=30, camera="")
    process = device()
    wait_until(lambda: (status := read_status(config.data_dir)) and status.heartbeat.cameras[0].state == "ended")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    with contextlib.closing(open_spool(config)) as spool:
        unsent = spool.health().unsent
    assert unsent
    stand_in = HubStandIn(broker.port)
    assert device("--exit-at-end").wait(30) == 0
    assert len(stand_in.events) >= unsent
    stand_in.close()


@pytest.mark.broker
def test_upload_all_needs_no_want(tmp_path: Path, broker: Broker, hub, device) -> None:  # noqa: F811
    config = configure(tmp_path, port=broker.port, frames=20, camera="", top='upload = "all"')
    assert device("--exit-at-end").wait(40) == 0
    assert set(hub.frames) == set(hub.events)
    with contextlib.closing(open_spool(config)) as spool:
        assert spool.health().samples == 0


def test_a_camera_that_is_not_there_does_not_end_the_device(tmp_path: Path, device) -> None:
    config = configure(tmp_path, port=1, camera='loop = true\n[[camera]]\nname = "yard"\nsource = "/dev/video97"')
    process = device()

    def is_lost() -> bool:
        status = read_status(config.data_dir)
        return status is not None and status.cameras_lost == {"yard": "it cannot be opened"}

    wait_until(is_lost)
    wait_until(lambda: read_status(config.data_dir).heartbeat.cameras[0].frames > 5, what="the other camera runs")
    shown = edge("status", "--config", tmp_path / "edge.toml").stdout
    assert "yard/gate, running" in shown
    assert "NOT CONNECTED" in shown
    assert "(last: it cannot be opened)" in shown
    second = edge("run", "--config", tmp_path / "edge.toml")
    assert (second.returncode, second.stderr.count("\n")) == (2, 1)
    assert "another `edge run` is using data_dir" in second.stderr
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


class StuckSpool(Spool):
    """A disk that takes nothing until it is let go."""

    def __init__(self, *args: object, **named: object) -> None:
        super().__init__(*args, **named)  # type: ignore[arg-type]
        self.let_go = threading.Event()

    def put(self, *sample: object) -> bool:
        self.let_go.wait()
        return super().put(*sample)  # type: ignore[arg-type]


def test_detection_goes_on_while_disk_and_network_hang(tmp_path: Path) -> None:
    """The broker accepts and says nothing; the disk takes nothing; frames are still looked at, and losses counted."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        config = configure(tmp_path, port=silent.getsockname()[1])
        config.data_dir.mkdir()
        spool = StuckSpool(config.data_dir / "spool.db", limit_bytes=10**8, reserve_bytes=10**5)
        daemon = Daemon(config, detector=open_configured(config), spool=spool)
        daemon.start()
        meter = daemon._eyes[0].meter
        wait_until(lambda: spool._pending["dropped/writer_busy"] > 5, what="the queue is full")
        frames = meter.frames
        wait_until(lambda: meter.frames > frames + 20, what="detection goes on")
        spool.let_go.set()
        daemon.stop()
        assert spool.counters()[1]["writer_busy"] > 5
        assert not daemon._writer.is_alive()
        assert sum(spool.counters()[0].values()) > 5
        spool.close()


def test_systemd_hears_of_start_life_and_end(tmp_path: Path) -> None:
    config = configure(tmp_path, port=1)
    said: list[str] = []
    stop = threading.Event()

    def tell(message: str) -> None:
        said.append(message)
        if said.count("WATCHDOG=1") == 3:
            stop.set()

    run_daemon(config, stop=stop, tell=tell)
    assert said[0] == "READY=1"
    assert said[-1] == "STOPPING=1"


def test_a_file_that_is_not_there_is_an_error_at_the_start(tmp_path: Path) -> None:
    config = configure(tmp_path, port=1)
    (tmp_path / "clip.avi").unlink()
    with pytest.raises(UnusableError, match=r"camera front: there is no file .*clip\.avi"):
        run_daemon(config, stop=threading.Event())


@pytest.mark.parametrize("arguments", [[], ["--exit-at-end"]])
def test_a_file_that_is_no_video_ends_the_device(tmp_path: Path, arguments: list[str]) -> None:
    configure(tmp_path, port=1, camera="")
    (tmp_path / "clip.avi").write_text("not a video")
    ended = edge("run", "--config", tmp_path / "edge.toml", *arguments)
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1].startswith("edge: camera front: ")
    assert ended.stderr.splitlines()[-1].endswith("clip.avi is no video that can be read")
    assert "Traceback" not in ended.stderr


@pytest.mark.broker
def test_heartbeats_go_on_when_the_data_folder_is_gone(tmp_path: Path, broker: Broker, hub, caplog) -> None:  # noqa: F811
    config = configure(tmp_path, port=broker.port)
    stop = threading.Event()
    thread = threading.Thread(target=run_daemon, args=(config,), kwargs={"stop": stop})
    thread.start()
    wait_until(lambda: hub.events and hub.heartbeats, what="it runs")
    shutil.rmtree(config.data_dir)
    beats = len(hub.heartbeats)
    wait_until(lambda: len(hub.heartbeats) > beats + 5, what="heartbeats go on")
    wait_until(lambda: hub.heartbeats[-1].dropped.get("disk_full", 0) > 2, what="the losses are told")
    stop.set()
    thread.join()
    assert hub.heartbeats[-1].cameras[0].frames > 5
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[mqtt]", "[mqqt]"), "unknown key `mqqt`; did you mean `mqtt`?"),
        (('input = "96x64"', 'path = "none.onnx"'), "none.onnx"),
        (('input = "96x64"', 'path = "edge.toml"'), "edge.toml"),  # a file, but no ONNX
        (('input = "96x64"', 'input = "97x64"'), "multiples of 32"),
        (("clip.avi", "none.avi"), "there is no file"),
        (("threads = 1", 'threads = 1\n[detections]\nfile = "."'), "cannot write the detections"),
        (("heartbeat_s", 'ca = "none.pem"\nheartbeat_s'), "there is no file"),
        (('data_dir = "data"', 'data_dir = "clip.avi/data"'), "cannot write to data_dir"),
    ],
)
def test_what_can_never_work_is_one_line_and_status_2(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    configure(tmp_path, port=1)
    path = tmp_path / "edge.toml"
    path.write_text(path.read_text().replace(*change))
    ended = edge("run", "--config", path)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


@pytest.mark.broker
def test_check_says_a_line_each(tmp_path: Path, broker: Broker) -> None:  # noqa: F811
    config = configure(tmp_path, port=broker.port)
    path = tmp_path / "edge.toml"
    good = edge("check", "--config", path)
    assert good.returncode == 0, good.stderr
    assert not config.data_dir.exists(), "a check makes nothing"
    names = [line.split(":")[0] for line in good.stdout.splitlines()]
    assert names == ["config", "model", "camera front", "spool", "slots", "broker"]
    assert "a frame of 160x120" in good.stdout

    run_for_a_moment(config)
    assert "samples, every frame of the size and hash" in edge("check", "--config", path).stdout
    with contextlib.closing(sqlite3.connect(config.data_dir / "spool.db", isolation_level=None)) as db:
        db.execute("UPDATE body SET jpeg = zeroblob(frame_bytes) WHERE seq = (SELECT max(seq) FROM body)")
    broken = edge("check", "--config", path)
    assert broken.returncode == 1
    assert "its frame is not the one it was put with" in broken.stderr

    broker.stop()
    (tmp_path / "clip.avi").write_text("not a video")
    failing = edge("check", "--config", path)
    assert failing.returncode == 2
    assert "camera front: failed: the file gives no frame: it cannot be opened" in failing.stderr
    assert "broker: failed: the broker 127.0.0.1" in failing.stderr
    assert "Traceback" not in failing.stderr


def run_for_a_moment(config: EdgeConfig) -> None:
    """Run the daemon in this process until it has put a sample."""
    stop = threading.Event()
    thread = threading.Thread(target=run_daemon, args=(config,), kwargs={"stop": stop})
    thread.start()
    wait_until(lambda: (status := read_status(config.data_dir)) and status.heartbeat.spool.samples > 3)
    stop.set()
    thread.join()


def test_status_of_a_device_that_never_ran(tmp_path: Path) -> None:
    configure(tmp_path, port=1)
    shown = edge("status", "--config", tmp_path / "edge.toml")
    assert shown.returncode == 1
    assert "NOT RUNNING" in shown.stdout
    assert "has never run" in shown.stdout
    assert not (tmp_path / "data").exists(), "looking makes nothing"
