"""A repository over HTTP: GET and HEAD of what lies in `metadata/` and `targets/`, whole or one range of it.

Nothing is written, no folder is listed, nothing outside these two is reached, whatever a path or a link says. There is
no TLS: what devices trust is signed. For many devices, or the open internet, any web server can serve the folder.

Law: who asks for nothing keeps nobody from being served. When all places are taken, the one who has said nothing whole
for the longest is hung up on: a device that may ask again, or a client that never will.
"""

import contextlib
import os
import re
import socket
import stat
import threading
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import unquote, urlsplit

from edge.contract.errors import UnreachableError

IDLE_S: Final = 60.0
"""How long a client may be silent."""
SEND_BYTES: Final = 65536
"""What is under way to a client: little, so that one on a slow link is heard of in time."""
MOST_CLIENTS: Final = 256
"""Served at once; more wait."""
_MAKE_ROOM_S: Final = 0.05
_PLACES: Final = ("metadata", "targets")
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
OnRequest = Callable[[str], None]
"""Gets a line about each request."""


class RepositoryServer(ThreadingHTTPServer):
    """Serves one repository until `shutdown`; a context manager. `server_port` is the port."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, folder: Path, *, host: str, port: int, on_request: OnRequest = lambda _: None) -> None:
        self.folder = folder.resolve()
        self.on_request = on_request
        self._clients = threading.BoundedSemaphore(MOST_CLIENTS)
        self._silent: dict[socket.socket, None] = {}  # oldest first
        self._silent_lock = threading.Lock()
        try:
            super().__init__((host, port), _Request)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            msg = f"cannot serve on {host}:{port}: {reason}; --port names another"
            raise UnreachableError(msg) from error

    def process_request(self, request: object, client_address: object) -> None:
        """Start a thread for a client, when fewer than `MOST_CLIENTS` are served."""
        while not self._clients.acquire(blocking=False):
            self._hang_up()
            if self._clients.acquire(timeout=_MAKE_ROOM_S):
                break
        try:
            super().process_request(request, client_address)  # type: ignore[arg-type]
        except RuntimeError:  # no thread could be started, so none will give its place back
            self._clients.release()
            raise

    def process_request_thread(self, request: object, client_address: object) -> None:
        """Serve a client in its thread."""
        try:
            super().process_request_thread(request, client_address)  # type: ignore[arg-type]
        finally:
            self._clients.release()

    def hear(self, client: socket.socket) -> None:
        """Note that a client has not asked for anything yet, or not again."""
        with self._silent_lock:
            self._silent.pop(client, None)
            self._silent[client] = None

    def heard(self, client: socket.socket) -> None:
        """Note that a client has asked, or is gone."""
        with self._silent_lock:
            self._silent.pop(client, None)

    def _hang_up(self) -> None:
        with self._silent_lock:  # so that its thread does not close it, and another file take its number, meanwhile
            client = next(iter(self._silent), None)
            if client is not None:
                del self._silent[client]
                with contextlib.suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away."""


class _Request(BaseHTTPRequestHandler):
    server: RepositoryServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_S

    def setup(self) -> None:
        """Prepare the connection."""
        self.request.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        super().setup()

    def finish(self) -> None:
        """End the connection."""
        self.server.heard(self.connection)
        super().finish()

    def handle_one_request(self) -> None:
        """Wait for a request and answer it."""
        self.server.hear(self.connection)
        super().handle_one_request()

    def do_GET(self) -> None:
        """Send a file or a range of it."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send what `do_GET` would send before the file."""
        self._answer(body=False)

    def version_string(self) -> str:
        """Return the name of the server, and no version."""
        return "weakspot"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the name is http.server's)
        """Tell of a request."""
        self.server.on_request(f"{self.address_string()} {format % args}")

    def _answer(self, *, body: bool) -> None:
        self.server.heard(self.connection)
        file = open_inside(self.server.folder, urlsplit(self.path).path)
        if file is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with file:
            length = os.fstat(file.fileno()).st_size
            wanted = self.headers.get("Range")
            part = read_range(wanted, length) if wanted is not None else None
            if part is not None and not part:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{length}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT)
            if part is not None:
                self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{length}")
            part = part if part is not None else range(length)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Type", "application/json" if file.name.endswith(".json") else "application/x-tar")
            self.send_header("Content-Length", str(len(part)))
            if file.name.endswith("timestamp.json"):
                self.send_header("Cache-Control", "no-cache")
            self.end_headers()
            if body and len(part):
                self.wfile.flush()
                sent = self.connection.sendfile(file, part.start, len(part))
                self.close_connection |= sent < len(part)  # the file was cut meanwhile; what was promised cannot come


def open_inside(folder: Path, path: str) -> BinaryIO | None:
    """Open the regular file that the path of a URL means; None where there is none that may be served."""
    words = unquote(path).split("/")[1:]
    if len(words) < 2 or words[0] not in _PLACES or any(not word or word[0] == "." or "\0" in word for word in words):
        return None
    try:
        place = folder.joinpath(*words).resolve()
        if not place.is_relative_to((folder / words[0]).resolve()) or not stat.S_ISREG(place.stat().st_mode):
            return None
        return place.open("rb")
    except (OSError, ValueError, RuntimeError):
        return None


def read_range(header: str, length: int) -> range | None:
    """Return the bytes that a `Range` asks for: empty where none of them are there, None where all shall be sent.

    A header that is not understood, or asks for several parts, is answered with all (RFC 9110, 14.2).
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or not (match[1] or match[2]):
        return None
    if not match[1]:
        return range(max(0, length - int(match[2])), length)
    first, last = int(match[1]), int(match[2]) if match[2] else length - 1
    if match[2] and last < first:
        return None
    return range(first, min(last + 1, length)) if first < length else range(0)
