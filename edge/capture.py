"""The capture process of one camera: `python -m edge.capture FD`. It owns the vendor's decoder, which may hang or die.

What crosses the socket FD (one message a packet): in comes one `Order`; out go a `Buffer` with the file descriptor of
the shared pictures whenever their size changes, a `Shot` for each picture, `Alive` at least once a second while the
source delivers, and at last `Ended` or `Failed`.

Laws:

1. The process dies with its parent.
2. It takes every frame from the source and decodes only those that are asked for, so that none of them is stale.
3. A slot's stamp is 0 while it is written and `sequence + 1` while it holds that picture: a reader that sees the same
   stamp before and after copying has copied one picture.
"""

import ctypes
import mmap
import os
import signal
import socket
import sys
import tempfile
import time
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

SLOTS: Final = 4
STAMP_BYTES: Final = 64
DEFAULT_FPS: Final = 25.0
OPEN_TIMEOUT_MS: Final = 10_000
ALIVE_S: Final = 1.0
_PR_SET_PDEATHSIG: Final = 1


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What to capture. `sequence` and `time_s` are those of the first frame; `fps` 0 takes every frame."""

    source: str | int
    kind: str
    fps: float
    loop: bool
    sequence: int
    time_s: float


class Buffer(msgspec.Struct, frozen=True, tag=True):
    """The pictures' size from now on; the file descriptor of `SLOTS` slots rides along."""

    width: int
    height: int


class Shot(msgspec.Struct, frozen=True, tag=True):
    """One picture stands in `slot`."""

    slot: int
    sequence: int
    captured_at_ms: int
    time_s: float


class Alive(msgspec.Struct, frozen=True, tag=True):
    """The source delivers, though no picture is due."""


class Ended(msgspec.Struct, frozen=True, tag=True):
    """The file is at its end."""


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The source cannot be read, or stopped."""

    reason: str


Report = Buffer | Shot | Alive | Ended | Failed
decode_report: Final = msgspec.json.Decoder(Report).decode


def slot_bytes(width: int, height: int) -> int:
    """Return the bytes of one slot: the stamp, then `[height, width, 3]` uint8."""
    return STAMP_BYTES + height * width * 3


class _Pictures:
    """The shared memory of one picture size."""

    def __init__(self, width: int, height: int) -> None:
        self.size = (width, height)
        total = SLOTS * slot_bytes(width, height)
        self.fd = os.memfd_create("weakspot-camera") if hasattr(os, "memfd_create") else _temporary_fd()
        os.ftruncate(self.fd, total)
        self._memory = mmap.mmap(self.fd, total)
        self._bytes = np.frombuffer(self._memory, np.uint8).reshape(SLOTS, -1)

    def write(self, slot: int, image: NDArray[np.uint8], sequence: int) -> None:
        row = self._bytes[slot]
        stamp = row[:8].view(np.uint64)
        stamp[0] = 0
        row[STAMP_BYTES:].reshape(image.shape)[:] = image
        stamp[0] = sequence + 1


class _Capture:
    """The loop over one source."""

    def __init__(self, order: Order, reports: socket.socket) -> None:
        self._order = order
        self._reports = reports
        self._sequence = order.sequence
        self._time_s = order.time_s
        self._due_s = order.time_s
        self._reported_s = time.monotonic()
        self._slot = 0
        self._pictures: _Pictures | None = None

    def run(self, parent: int) -> Report:
        """Capture until the source ends or fails; return the last word."""
        capture = _open(self._order)
        if not capture.isOpened():
            return Failed("it cannot be opened")
        is_file = self._order.kind == "file"
        period_s = 1.0 / _rate(capture) if is_file else 0.0
        begun_s = time.monotonic()
        while os.getppid() == parent:
            if not capture.grab():
                if not is_file or self._sequence == self._order.sequence:
                    return Failed("it stopped" if self._sequence > self._order.sequence else "it gives no frame")
                if not self._order.loop:
                    return Ended()
                capture = _open(self._order)
                continue
            if not is_file:
                self._time_s = self._order.time_s + time.monotonic() - begun_s
            if self._time_s + 1e-3 >= self._due_s:
                self._take(capture)
            elif time.monotonic() - self._reported_s > ALIVE_S:
                self._report(Alive())
            self._sequence += 1
            if is_file:
                self._time_s += period_s
                time.sleep(max(0.0, begun_s + self._time_s - self._order.time_s - time.monotonic()))
        return Failed("the daemon is gone")

    def _take(self, capture: Any) -> None:
        captured_at_ms = time.time_ns() // 1_000_000
        done, image = capture.retrieve()
        if not done or image is None or image.ndim != 3:
            return
        height, width = image.shape[:2]
        if self._pictures is None or self._pictures.size != (width, height):
            self._pictures = _Pictures(width, height)
            packet = msgspec.json.encode(Buffer(width, height))
            socket.send_fds(self._reports, [packet], [self._pictures.fd])
            os.close(self._pictures.fd)  # the mapping has its own; with this one no old size's memory is given back
        self._slot = (self._slot + 1) % SLOTS
        self._pictures.write(self._slot, image, self._sequence)
        self._report(Shot(self._slot, self._sequence, captured_at_ms, self._time_s))
        if self._order.fps > 0:
            self._due_s = max(self._due_s, self._time_s - 1.0 / self._order.fps) + 1.0 / self._order.fps

    def _report(self, report: Report) -> None:
        self._reports.send(msgspec.json.encode(report))
        self._reported_s = time.monotonic()


def main() -> None:
    """Run in the capture process."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    with socket.socket(fileno=int(sys.argv[1])) as reports:
        order = msgspec.json.decode(reports.recv(65536), type=Order)
        try:
            last = _Capture(order, reports).run(parent)
            reports.send(msgspec.json.encode(last))
        except (BrokenPipeError, ConnectionResetError):
            return


def _open(order: Order) -> Any:
    os.environ.setdefault("OPENCV_LOG_LEVEL", "ERROR")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "8")
    os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;tcp")
    import cv2

    cv2.setNumThreads(1)
    if order.kind == "device":
        capture = cv2.VideoCapture(order.source, cv2.CAP_V4L2)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture
    if order.kind == "stream":
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, OPEN_TIMEOUT_MS]
        return cv2.VideoCapture(order.source, cv2.CAP_FFMPEG, limits)
    return cv2.VideoCapture(order.source)


def _rate(capture: Any) -> float:
    """Return the frames a second of a file."""
    import cv2

    rate = float(capture.get(cv2.CAP_PROP_FPS))
    return rate if 0.1 <= rate <= 1000.0 else DEFAULT_FPS


def _temporary_fd() -> int:
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


if __name__ == "__main__":
    main()
