"""What Frigate's HTTP API is asked for: snapshots, and the sizes of its cameras.

Laws:

1. Only the configured host is spoken to: no redirect is followed, no proxy used.
2. No answer is longer than its limit, no read waits longer than `WAIT_S`, no answer takes longer than `WHOLE_S`,
   however it comes: its socket is shut down then.
"""

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from edge.contract.errors import UnreachableError, UnusableError

WAIT_S: Final = 3.0
WHOLE_S: Final = 6.0
MAX_CONFIG_BYTES: Final = 8_000_000
_CHUNK: Final = 65_536

_Side = Annotated[int, msgspec.Meta(ge=1, le=16384)]


class View(NamedTuple):
    """One camera as Frigate is configured: the size (width, height) of `detect`, and what it does to a snapshot.

    Attributes:
        saved_clean: the snapshot of a track that has ended is the whole picture without anything drawn on it.
    """

    size: tuple[int, int] | None
    saved_clean: bool


class _Detect(msgspec.Struct, frozen=True):
    width: _Side | None = None
    height: _Side | None = None


class _Snapshots(msgspec.Struct, frozen=True):
    bounding_box: bool = True
    timestamp: bool = False
    crop: bool = False


class _Camera(msgspec.Struct, frozen=True):
    detect: _Detect = _Detect()
    snapshots: _Snapshots = _Snapshots()


class _Config(msgspec.Struct, frozen=True):
    cameras: dict[str, _Camera]


class FrigateApi:
    """Frigate at a URL. Every call is a connection of its own; none is made before it."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._folder = parts.path.rstrip("/")

    def snapshot(self, track_id: str, *, most: int) -> bytes:
        """Return a track's snapshot: of one that goes on the whole picture, of one that has ended as it was saved.

        `most`: bytes. Raises `UnusableError` when there is none or it is longer, `UnreachableError`.
        """
        return self._get(f"/api/events/{track_id}/snapshot.jpg?bbox=0&timestamp=0&crop=0&quality=90", most=most)

    def views(self) -> dict[str, View]:
        """Return the cameras by name. Raises `UnusableError`, `UnreachableError`."""
        try:
            config = msgspec.json.decode(self._get("/api/config", most=MAX_CONFIG_BYTES), type=_Config)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            msg = f"Frigate's configuration is not understood: {error}"
            raise UnusableError(msg) from error
        return {name: _view(camera) for name, camera in config.cameras.items()}

    def _get(self, path: str, *, most: int) -> bytes:
        connect = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = connect(self._host, self._port, timeout=WAIT_S)
        try:
            connection.connect()
            with _time_limit(connection.sock) as is_over:
                connection.request("GET", self._folder + path)
                response = connection.getresponse()
                if response.status != http.HTTPStatus.OK:
                    msg = f"Frigate answers {response.status} to {path}"
                    raise UnusableError(msg)
                body = _read(response, most=most)
                if is_over():
                    msg = f"not whole after {WHOLE_S:.0f} s"
                    raise TimeoutError(msg)
                return body
        except (OSError, http.client.HTTPException, ValueError) as error:
            msg = f"Frigate at {self._host} does not answer: {error or type(error).__name__}"
            raise UnreachableError(msg) from error
        finally:
            connection.close()


@contextlib.contextmanager
def _time_limit(line: socket.socket) -> Iterator[Callable[[], bool]]:
    """Shut a socket down after `WHOLE_S`: a read that waits, or goes on and on, ends then. Yields whether it was."""
    over = threading.Event()

    def end() -> None:
        over.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(line, socket.SHUT_RDWR)  # the plain one: that of TLS is not for a second thread

    timer = threading.Timer(WHOLE_S, end)
    timer.start()
    try:
        yield over.is_set
    finally:
        timer.cancel()


def _read(response: http.client.HTTPResponse, *, most: int) -> bytes:
    body = bytearray()
    while chunk := response.read1(_CHUNK):
        body += chunk
        if len(body) > most:
            msg = f"Frigate's answer is longer than {most} bytes"
            raise UnusableError(msg)
    if response.length:  # `read1` says nothing of a body that was cut off
        msg = f"Frigate's answer ends {response.length} bytes early"
        raise UnreachableError(msg)
    return bytes(body)


def _view(camera: _Camera) -> View:
    detect, shot = camera.detect, camera.snapshots
    return View(
        size=(detect.width, detect.height) if detect.width is not None and detect.height is not None else None,
        saved_clean=not (shot.bounding_box or shot.timestamp or shot.crop),
    )
