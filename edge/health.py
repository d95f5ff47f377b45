"""What a device knows of its own health: meters, the status file, the lock of the data folder, systemd's watchdog.

`status.json` is written by rename, so that a reader sees a whole one; it is not synced, a power cut may lose it.
"""

import contextlib
import fcntl
import os
import socket
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from edge.contract.errors import UnreachableError, UnusableError
from edge.contract.rollout import RolloutReport
from edge.contract.status import CameraHealth, Heartbeat

WINDOW_S: Final = 10.0
HOLD_S: Final = 1.0
HOUR_MS: Final = 3_600_000
_STATUS: Final = "status.json"
_LOCK: Final = "daemon.lock"


@dataclass(slots=True)
class CameraMeter:
    """What one camera's detection does, over the last `WINDOW_S`."""

    frames: int = 0
    _first_s: float | None = None
    _recent: deque[tuple[float, float]] = field(default_factory=deque)

    def note(self, *, now_s: float, detect_ms: float) -> None:
        """Count one frame."""
        self.frames += 1
        self._first_s = now_s if self._first_s is None else self._first_s
        self._recent.append((now_s, detect_ms))
        self._forget(now_s)

    def health(self, *, name: str, state: str, restarts: int, frame_age_s: float | None, now_s: float) -> CameraHealth:
        """Return the camera's line of the heartbeat."""
        span_s = min(WINDOW_S, max(1.0, now_s - (now_s if self._first_s is None else self._first_s)))
        recent = [(at_s, ms) for at_s, ms in tuple(self._recent) if at_s > now_s - WINDOW_S]
        return CameraHealth(
            name=name,
            state=state,
            frames=self.frames,
            fps=round(len(recent) / span_s, 2),
            restarts=restarts,
            frame_age_s=None if frame_age_s is None else round(frame_age_s, 3),
            detect_ms=round(sum(ms for _, ms in recent) / len(recent), 2) if recent else 0.0,
        )

    def _forget(self, now_s: float) -> None:
        while self._recent and self._recent[0][0] <= now_s - WINDOW_S:
            self._recent.popleft()


class DayCount:
    """How many findings the last 23 to 24 hours brought, from a total that only grows. Restarts change nothing.

    Attributes:
        marks: hour (of the wall clock, since 1970) -> the total when it began; of the last 24 hours only.
    """

    def __init__(self, marks: Mapping[int, int]) -> None:
        self.marks = dict(marks)

    def note(self, *, now_ms: int, total: int) -> int:
        """Take the total of now and return what came since the oldest of the 24 hours began."""
        hour = now_ms // HOUR_MS
        self.marks = {at: n for at, n in self.marks.items() if hour - 24 < at <= hour and n <= total}
        self.marks.setdefault(hour, total)
        return total - self.marks[min(self.marks)]


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon's last word on this disk.

    Attributes:
        pid: of the daemon that wrote it.
        heartbeat: what it also sent to the hub.
        connected: whether it had a broker.
        faults: what went wrong with broker and hub since its start, by kind.
        cameras_lost: camera -> why it was last lost.
        day: see `DayCount.marks`.
        running: the way in which the model runs: variant, runtime, precision.
        update: what was last reported of an update; None where there was none.
    """

    pid: int
    heartbeat: Heartbeat
    connected: bool
    faults: dict[str, int]
    cameras_lost: dict[str, str]
    day: dict[int, int] = {}
    running: str = ""
    update: RolloutReport | None = None


def write_status(folder: Path, status: Status) -> None:
    """Replace the status file. Raises `OSError`."""
    draft = folder / f"{_STATUS}.new"
    draft.write_bytes(msgspec.json.encode(status))
    draft.replace(folder / _STATUS)


def read_status(folder: Path) -> Status | None:
    """Return the last status, None when there is none that can be read."""
    try:
        return msgspec.json.decode((folder / _STATUS).read_bytes(), type=Status)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def resume_day(folder: Path) -> DayCount:
    """Return the count that the last daemon of this folder left, a new one where there was none."""
    status = read_status(folder)
    return DayCount(status.day if status is not None else {})


@contextlib.contextmanager
def hold_folder(folder: Path) -> Iterator[None]:
    """Be the one daemon of this data folder; the kernel lets go when the process ends, however it ends.

    Tried for `HOLD_S`: who asks `is_held` takes the lock for a moment.

    Raises `UnusableError` when another daemon holds it, `UnreachableError` when the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        msg = f"cannot write to data_dir {folder}: {error.strerror}"
        raise UnreachableError(msg) from error
    try:
        deadline_s = time.monotonic() + HOLD_S
        while not _lock(fd):
            if time.monotonic() > deadline_s:
                msg = f"another `edge run` is using data_dir {folder}"
                raise UnusableError(msg)
            time.sleep(0.05)
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_held(folder: Path) -> bool:
    """Whether a daemon is running on this data folder."""
    try:
        fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def notify(address: str | None, message: str) -> None:
    """Tell systemd (`sd_notify`): `READY=1`, `WATCHDOG=1`, `STOPPING=1`. Without an address nothing happens.

    The address is what systemd puts into `NOTIFY_SOCKET`; one that begins with `@` is abstract.
    """
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
            line.setblocking(False)  # a full queue is systemd's trouble, not a reason to stand still
            line.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            line.send(message.encode())
