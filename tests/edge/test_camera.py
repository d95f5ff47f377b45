"""Cameras through their real door: a process that decodes real files and streams, and that is stopped and killed."""

import http.server
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera import Camera, CameraState
from edge.capture import _Pictures
from edge.config import CameraConfig
from edge.frame import Frame
from tests.brokers import wait_until
from tests.edge.clips import write_clip

ROOT = Path(__file__).resolve().parents[2]
CLIPS = ROOT.parent / "shared" / "data"


@pytest.fixture
def watch() -> Iterator[Callable[..., Camera]]:
    """Start a camera; it is stopped at the end of the test."""
    with ExitStack() as stack:

        def start(source: str | int | Path, **config: object) -> Camera:
            source = source if isinstance(source, int) else str(source)
            settings = {"fps": 0.0, **config}
            camera = Camera(CameraConfig(name="front", source=source, **settings), retry_s=0.05, rng=random.Random(0))
            camera.start()
            stack.callback(camera.stop)
            return camera

        yield start


def collect(camera: Camera, until: Callable[[list[Frame]], bool], *, deadline_s: float = 20.0) -> list[Frame]:
    frames: list[Frame] = []

    def look() -> bool:
        frame = camera.newest()
        if frame is not None:
            frames.append(frame)
        return until(frames)

    wait_until(look, deadline_s=deadline_s)
    return frames


def test_a_file_plays_in_real_time_and_ends(tmp_path: Path, watch) -> None:
    camera = watch(write_clip(tmp_path / "a.avi", frames=40))
    assert camera.newest() is None
    assert camera.frame_age_s() is None
    frames = collect(camera, lambda _: camera.state is CameraState.ENDED)
    last = camera.newest()
    frames += [last] if last else []
    assert len(frames) >= 20
    assert frames[-1].sequence == 39
    for frame in frames:
        assert frame.image.shape == (120, 160, 3)
        assert abs(float(frame.image.mean()) - 10 * frame.sequence % 250) < 4, "the picture is that of its number"
        assert frame.time_s == pytest.approx(frame.sequence / 20)
        assert frame.camera == "front"
        assert abs(frame.captured_at_ms - time.time_ns() // 1_000_000) < 60_000
    spent_s = (frames[-1].captured_at_ms - frames[0].captured_at_ms) / 1e3
    assert spent_s == pytest.approx(frames[-1].time_s - frames[0].time_s, abs=0.3)
    assert camera.restarts == 0
    assert camera.newest() is None


def test_a_frame_is_given_once_and_is_the_callers_own(tmp_path: Path, watch) -> None:
    camera = watch(write_clip(tmp_path / "a.avi", frames=10), loop=True)
    first, second = collect(camera, lambda frames: len(frames) == 2)
    assert second.sequence > first.sequence
    kept = first.image.copy()
    collect(camera, lambda frames: len(frames) >= 6)
    assert np.array_equal(first.image, kept)


def test_a_looping_file_goes_on_with_growing_numbers_and_times(tmp_path: Path, watch) -> None:
    camera = watch(write_clip(tmp_path / "a.avi", frames=5), loop=True)
    frames = collect(camera, lambda frames: bool(frames) and frames[-1].sequence > 12)
    assert all(a.sequence < b.sequence and a.time_s < b.time_s for a, b in itertools.pairwise(frames))
    assert camera.restarts == 0


def test_fewer_frames_than_the_source_has_when_asked(tmp_path: Path, watch) -> None:
    camera = watch(write_clip(tmp_path / "a.avi", frames=40), fps=5.0)
    frames = collect(camera, lambda _: camera.state is CameraState.ENDED)
    assert [frame.sequence for frame in frames][:8] == [0, 4, 8, 12, 16, 20, 24, 28]


def test_a_change_of_size_is_followed(tmp_path: Path, watch) -> None:
    path = write_clip(tmp_path / "a.avi", frames=4)
    camera = watch(path, loop=True)
    collect(camera, bool)
    write_clip(tmp_path / "b.avi", frames=4, size=(320, 240)).replace(path)
    frames = collect(camera, lambda frames: bool(frames) and frames[-1].image.shape == (240, 320, 3))
    assert camera.restarts == 0
    assert abs(float(frames[-1].image.mean()) - 10 * (frames[-1].sequence % 4)) < 4


def test_a_hanging_capture_is_noticed_and_replaced(tmp_path: Path, watch) -> None:
    camera = watch(write_clip(tmp_path / "a.avi", frames=20), loop=True, stall_s=0.5)
    before = collect(camera, bool)
    hung = camera._process
    os.kill(hung.pid, signal.SIGSTOP)
    wait_until(lambda: camera.restarts == 1, what="the hang is noticed")
    assert camera.error == "no frame for 0 s"
    after = collect(camera, bool)
    assert after[0].sequence > before[-1].sequence
    assert after[0].time_s > before[-1].time_s
    assert hung.poll() == -signal.SIGKILL
    assert camera.state is CameraState.RUNNING


def test_a_killed_capture_is_replaced(tmp_path: Path, watch) -> None:
    camera = watch(write_clip(tmp_path / "a.avi", frames=20), loop=True)
    last = -1
    for restarts in (1, 2, 3):
        frames = collect(camera, bool)
        assert frames[0].sequence > last
        last = frames[-1].sequence
        os.kill(camera._process.pid, signal.SIGKILL)
        wait_until(lambda n=restarts: camera.restarts == n)
        assert camera.error == "its process died"
    collect(camera, lambda frames: bool(frames) and frames[-1].sequence > last)


@pytest.mark.parametrize("make", [lambda p: p.write_text("not a video"), lambda p: None, lambda p: p.write_bytes(b"")])
def test_an_unreadable_source_is_tried_again_with_back_off(tmp_path: Path, watch, make) -> None:
    make(tmp_path / "a.avi")
    camera = watch(tmp_path / "a.avi")
    wait_until(lambda: camera.restarts >= 2)
    assert camera.error == "it cannot be opened"
    assert camera.hopeless
    assert camera.newest() is None
    write_clip(tmp_path / "b.avi", frames=20).replace(tmp_path / "a.avi")
    collect(camera, bool)
    assert camera.state is CameraState.RUNNING


def test_a_device_that_is_not_there_is_lost(watch) -> None:
    camera = watch("/dev/video97")
    wait_until(lambda: camera.restarts >= 1)
    assert not camera.hopeless
    assert camera.error == "it cannot be opened"


class MjpegServer(http.server.BaseHTTPRequestHandler):
    """Serves a picture 20 times a second until `frozen`, then keeps the connection and says nothing."""

    frozen = threading.Event()
    pause = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=cut")
        self.end_headers()
        body = cv2.imencode(".jpg", np.full((120, 160, 3), 77, np.uint8))[1].tobytes()
        head = f"--cut\r\nContent-Type: image/jpeg\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        try:
            while not self.frozen.is_set():
                self.wfile.write(head + body + b"\r\n")
                self.pause.wait(0.05)
            self.pause.wait(30)
        except OSError:
            return

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def stream() -> Iterator[str]:
    MjpegServer.frozen.clear()
    MjpegServer.pause.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), MjpegServer)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/stream"
    MjpegServer.pause.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_stream_that_goes_silent_is_lost_and_found_again(stream: str, watch) -> None:
    camera = watch(stream, stall_s=1.0)
    frames = collect(camera, lambda frames: len(frames) >= 3)
    assert abs(float(frames[-1].image.mean()) - 77) < 3
    MjpegServer.frozen.set()
    wait_until(lambda: camera.restarts >= 1, what="the silence is noticed")
    MjpegServer.frozen.clear()
    more = collect(camera, bool)
    assert more[0].sequence > frames[-1].sequence


def test_the_capture_process_dies_with_its_parent(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.avi", frames=50)
    program = (
        "import sys\nfrom edge.camera import Camera\nfrom edge.config import CameraConfig\n"
        "camera = Camera(CameraConfig(name='a', source=sys.argv[1], loop=True))\ncamera.start()\n"
        "while camera.newest() is None: pass\nprint(camera._process.pid, flush=True)\ncamera._thread.join()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(clip)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, signal.SIGSTOP)  # it hangs: it cannot notice anything itself
    parent.kill()
    parent.wait()
    parent.stdout.close()

    def is_gone() -> bool:
        stat = Path(f"/proc/{child}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    wait_until(is_gone, deadline_s=5, what="the capture process is gone")


def test_a_torn_picture_is_not_given_out(tmp_path: Path, watch) -> None:
    """While the slot is being written over, the stamp says so."""
    camera = watch(write_clip(tmp_path / "a.avi", frames=3))
    wait_until(lambda: camera.state is CameraState.ENDED)
    pictures = _Pictures(160, 120)
    pictures.write(camera._shot.slot, np.full((120, 160, 3), 9, np.uint8), camera._shot.sequence + 4)
    ours, camera._memory = camera._memory, pictures._memory
    assert camera.newest() is None
    camera._memory = ours
    assert camera.newest().sequence == 2


@pytest.mark.skipif(not CLIPS.is_dir(), reason="the real clips are not beside the checkout")
def test_a_real_clip(watch) -> None:
    camera = watch(CLIPS / "vtest.avi", fps=5.0)
    frames = collect(camera, lambda frames: len(frames) >= 4)
    assert frames[0].image.shape == (576, 768, 3)
    assert [frame.sequence for frame in frames] == [0, 2, 4, 6]
