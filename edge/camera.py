"""Frames of one camera, the newest at any time.

A stream's decoder serves stale frames and can hang for ever, so that it lives in a process of its own (edge.capture).
A thread here watches it and never the other way round.

Laws:

1. `newest` never waits for the camera: it copies a picture that is already there, or returns None.
2. A source that has said nothing for `stall_s` (for `CONNECT_S` before its first frame) is killed and captured anew,
   after a wait that doubles with each failure in a row, with jitter.
3. Sequence numbers and times only grow, over restarts as well.
"""

import logging
import mmap
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from edge.capture import (
    SLOTS,
    STAMP_BYTES,
    Buffer,
    Ended,
    Failed,
    Order,
    Shot,
    decode_report,
    slot_bytes,
)
from edge.config import CameraConfig, SourceKind, source_kind
from edge.frame import Frame

CONNECT_S: Final = 30.0
SETTLED_S: Final = 30.0
RETRY_S: Final = 1.0
RETRY_MAX_S: Final = 60.0
_LOOK_S: Final = 0.2
_REAP_S: Final = 2.0

_log = logging.getLogger(__name__)


class CameraState(StrEnum):
    """Where a camera stands. FROZEN is RUNNING with a picture that stands still: edge.eye says so, not the capture."""

    CONNECTING = "connecting"
    RUNNING = "running"
    FROZEN = "frozen"
    LOST = "lost"
    ENDED = "ended"


class Camera:
    """One camera and its capture process. `start` once, `stop` once.

    Attributes:
        state: see `CameraState`; ENDED is a file that does not loop, at its end.
        restarts: how often the capture process was replaced.
        error: why it was last lost.
        hopeless: whether it is a file that cannot be read as a video, and never was.

    Args:
        config: the camera.
        on_frame: called in the camera's thread when `newest` has something new, and when the state changes.
        retry_s: the first wait before a capture anew.
        rng: jitter.
    """

    def __init__(
        self,
        config: CameraConfig,
        *,
        on_frame: Callable[[], None] = lambda: None,
        retry_s: float = RETRY_S,
        rng: random.Random | None = None,
    ) -> None:
        self.name = config.name
        self.state = CameraState.CONNECTING
        self.restarts = 0
        self.error: str | None = None
        self.hopeless = False
        self._config = config
        self._on_frame = on_frame
        self._retry_s = retry_s
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._begun_s = time.monotonic()
        self._lock = threading.Lock()
        self._memory: mmap.mmap | None = None
        self._size = (0, 0)
        self._shot: Shot | None = None
        self._last: Shot | None = None
        self._taken = -1
        self._seen_s: float | None = None
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=f"camera-{config.name}", daemon=True)

    def start(self) -> None:
        """Begin to capture."""
        self._thread.start()

    def stop(self) -> None:
        """End the capture process and the thread."""
        self._stopping.set()
        self._thread.join()

    def newest(self) -> Frame | None:
        """Return the newest frame if it was not returned before. Its image is the caller's own."""
        with self._lock:
            shot = self._shot
            if shot is None or shot.sequence <= self._taken or self._memory is None:
                return None
            width, height = self._size
            row = np.frombuffer(self._memory, np.uint8).reshape(SLOTS, -1)[shot.slot]
            stamp = row[:8].view(np.uint64)
            before = int(stamp[0])
            image = row[STAMP_BYTES:].reshape(height, width, 3).copy()
            if before != shot.sequence + 1 or int(stamp[0]) != before:
                return None
            self._taken = shot.sequence
        return Frame(image, self.name, shot.sequence, shot.captured_at_ms, shot.time_s)

    def frame_age_s(self) -> float | None:
        """Return the seconds since the camera last gave a frame, None before the first."""
        return None if self._seen_s is None else time.monotonic() - self._seen_s

    def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            begun_s = time.monotonic()
            self.state = CameraState.CONNECTING
            reason = self._capture()
            if reason is None or self._stopping.is_set():
                break
            self.state = CameraState.LOST
            self.error = reason
            self.restarts += 1
            failures = 1 if time.monotonic() - begun_s >= SETTLED_S else failures + 1
            wait_s = min(RETRY_MAX_S, self._retry_s * 2.0 ** (failures - 1)) * self._rng.uniform(0.5, 1.5)
            _log.warning("camera %s is lost: %s; captured anew in %.0f s", self.name, reason, wait_s)
            self._on_frame()
            self._stopping.wait(wait_s)

    def _capture(self) -> str | None:
        """Run one capture process to its end; return why it is lost, None when its file ended."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = None
        with ours, theirs:
            try:
                process = subprocess.Popen(  # noqa: S603 - our own module
                    [sys.executable, "-m", "edge.capture", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    cwd=Path(__file__).resolve().parents[1],
                )
                theirs.close()
                self._process = process
                ours.settimeout(_LOOK_S)
                ours.send(msgspec.json.encode(self._order()))
                return self._watch(ours)
            except (OSError, ValueError, msgspec.DecodeError) as error:
                return f"its process cannot be used: {error}"
            finally:
                if process is not None:
                    self._reap(process)

    def _watch(self, reports: socket.socket) -> str | None:
        heard_s, patience_s = time.monotonic(), max(CONNECT_S, self._config.stall_s)
        while not self._stopping.is_set():
            try:
                packet, fds, _, _ = socket.recv_fds(reports, 4096, 1)
            except TimeoutError:
                if time.monotonic() - heard_s > patience_s:
                    return f"no frame for {patience_s:.0f} s"
                continue
            if not packet:
                return "its process died"
            heard_s = time.monotonic()
            report = decode_report(packet)
            if isinstance(report, Failed | Ended):
                self.hopeless = self._last is None and source_kind(self._config.source) is SourceKind.FILE
            if isinstance(report, Failed):
                return report.reason
            if isinstance(report, Ended):
                self.state = CameraState.ENDED
                self._on_frame()
                return None
            if isinstance(report, Buffer):
                self._map(report, fds[0])
            elif isinstance(report, Shot):
                patience_s = self._config.stall_s
                self._see(report)
        return "stopped"

    def _see(self, shot: Shot) -> None:
        self._seen_s = time.monotonic()
        with self._lock:
            self._shot = self._last = shot
        self.state = CameraState.RUNNING
        self._on_frame()

    def _map(self, buffer: Buffer, fd: int) -> None:
        try:
            memory = mmap.mmap(fd, SLOTS * slot_bytes(buffer.width, buffer.height), prot=mmap.PROT_READ)
        finally:
            os.close(fd)
        with self._lock:  # the old memory goes with its last reader
            self._memory, self._size, self._shot = memory, (buffer.width, buffer.height), None

    def _order(self) -> Order:
        kind = source_kind(self._config.source)
        last = self._last
        live_s = time.monotonic() - self._begun_s
        return Order(
            source=self._config.source,
            kind=kind,
            fps=self._config.fps,
            loop=self._config.loop,
            sequence=0 if last is None else last.sequence + 1,
            time_s=live_s if kind is not SourceKind.FILE else 0.0 if last is None else last.time_s + 1.0,
        )

    def _reap(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        try:
            process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            _log.warning("the capture process %d of camera %s hangs in the kernel", process.pid, self.name)
