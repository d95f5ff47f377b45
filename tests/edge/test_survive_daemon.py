"""What cameras do to a running device: a stream that comes back in another size, two cameras on one core."""

import contextlib
import http.server
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera import Camera
from edge.config import CameraConfig, EdgeConfig, read_config
from edge.contract.samples import decode_event
from edge.contract.status import CameraHealth
from edge.frame import Image
from edge.health import read_status
from edge.replay import read_frames
from tests.brokers import wait_until
from tests.edge.clips import write_clip

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "deploy" / "demo" / "street.mp4"
CONFIG = """
site = "yard"
device = "gate"
data_dir = "data"
[model]
input = "256x192"
threads = 1
[mqtt]
port = 1
heartbeat_s = 0.3
[spool]
reserve_mb = 1
[mining]
control_per_hour = 36000
[quota]
burst = 10000
"""


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `edge run` in a process of its own, on these processors only; what is left of it is killed."""
    with ExitStack() as stack:

        def start(*, processors: set[int]) -> subprocess.Popen[str]:
            log = stack.enter_context((tmp_path / "edge.log").open("a"))
            command = [sys.executable, "-m", "edge", "run", "--config", str(tmp_path / "edge.toml")]
            usable = os.sched_getaffinity(0)
            os.sched_setaffinity(0, processors)  # a child has its parent's
            try:
                process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, text=True)
            finally:
                os.sched_setaffinity(0, usable)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


def configure(folder: Path, **sources: str) -> EdgeConfig:
    cameras = "".join(
        f'[[camera]]\nname = "{name}"\nsource = "{source}"\nfps = 0\nloop = true\n' for name, source in sources.items()
    )
    (folder / "edge.toml").write_text(CONFIG + cameras)
    return read_config(folder / "edge.toml")


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def cameras(config: EdgeConfig) -> dict[str, CameraHealth]:
    status = read_status(config.data_dir)
    return {} if status is None else {camera.name: camera for camera in status.heartbeat.cameras}


def frames(config: EdgeConfig) -> dict[str, int]:
    return {name: camera.frames for name, camera in cameras(config).items()}


# Another size


class ChangingStream(http.server.BaseHTTPRequestHandler):
    """A Motion-JPEG stream of the clip in `size`. It breaks off when `cut` is set, as cameras do that change it."""

    clip: list[Image] = []  # noqa: RUF012
    size = (768, 576)
    cut = threading.Event()
    pause = threading.Event()

    def do_GET(self) -> None:
        self.cut.clear()
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
        self.end_headers()
        number = 0
        with contextlib.suppress(OSError):
            while not self.cut.is_set():
                body = cv2.imencode(".jpg", cv2.resize(self.clip[number % len(self.clip)], self.size))[1].tobytes()
                head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n".encode()
                self.wfile.write(head + body + b"\r\n")
                self.pause.wait(0.1)
                number += 1

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stream() -> Iterator[str]:
    ChangingStream.clip = [frame.image for (frame, _), _ in zip(read_frames(CLIP), range(60), strict=False)]
    ChangingStream.pause.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ChangingStream)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/stream"
    ChangingStream.pause.set()
    ChangingStream.cut.set()
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.slow
def test_a_stream_comes_back_in_another_size(tmp_path: Path, stream: str, device) -> None:
    config = configure(tmp_path, front=stream)
    sizes = [(768, 576), (1280, 720), (384, 288)]
    process = None
    for restarts, size in enumerate(sizes):
        ChangingStream.size = size
        if process is None:
            process = device(processors=os.sched_getaffinity(0))
        else:
            ChangingStream.cut.set()
        wait_until(lambda n=restarts: "front" in cameras(config) and cameras(config)["front"].restarts == n)
        seen = frames(config)["front"]
        wait_until(lambda seen=seen: frames(config)["front"] > seen + 20, deadline_s=40, what="it goes on")
    stop(process)
    with contextlib.closing(sqlite3.connect(config.data_dir / "spool.db")) as db:
        found = [decode_event(event)[0] for (event,) in db.execute("SELECT event FROM body")]
        pictures = [jpeg for (jpeg,) in db.execute("SELECT jpeg FROM body")]
    assert {(one.width, one.height) for one in found} == set(sizes)
    for one, jpeg in zip(found, pictures, strict=True):
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (one.height, one.width, 3)
        assert one.region[2] <= one.width
        assert one.region[3] <= one.height
    status = read_status(config.data_dir)
    assert status is not None
    assert not {"detection_error", "writer_error"} & set(status.heartbeat.dropped)


def test_the_pictures_of_an_old_size_are_given_back(tmp_path: Path) -> None:
    """The capture process holds the memory of one size, however often it changes."""
    path = write_clip(tmp_path / "a.avi", frames=4)
    camera = Camera(CameraConfig(name="front", source=str(path), fps=0.0, loop=True))
    camera.start()
    try:
        for width in (320, 160, 320, 160, 320):
            write_clip(tmp_path / "b.avi", frames=4, size=(width, 120)).replace(path)
            wait_until(lambda w=width: (frame := camera.newest()) is not None and frame.image.shape[1] == w)
        assert camera.restarts == 0
        assert camera._process is not None
        maps = Path(f"/proc/{camera._process.pid}/maps").read_text()
        opened = [link.readlink() for link in Path(f"/proc/{camera._process.pid}/fd").iterdir()]
    finally:
        camera.stop()
    assert maps.count("weakspot-camera") == 1
    assert sum("weakspot-camera" in str(link) for link in opened) <= 1


# One core


@pytest.mark.slow
def test_two_cameras_share_one_core(tmp_path: Path, device) -> None:
    shutil.copy(CLIP, tmp_path / "street.mp4")
    config = configure(tmp_path, front="street.mp4", back="street.mp4")
    process = device(processors={min(os.sched_getaffinity(0))})
    wait_until(lambda: min(frames(config).values(), default=0) >= 10, deadline_s=60, what="both are served")
    begun = frames(config)
    wait_until(
        lambda: sum(frames(config).values()) >= sum(begun.values()) + 80, deadline_s=60, what="they go on being served"
    )
    now, states = frames(config), cameras(config)
    stop(process)
    served = {name: now[name] - begun[name] for name in begun}
    assert set(served) == {"front", "back"}
    assert max(served.values()) <= 1.5 * min(served.values()), served
    for camera in states.values():
        assert (camera.state, camera.restarts) == ("running", 0)
        assert camera.fps > 0
        assert camera.frame_age_s is not None
        assert camera.frame_age_s < 3
