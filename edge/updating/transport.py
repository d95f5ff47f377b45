"""Bytes of a release repository, from a web server or from a folder on this device. Nothing here is believed yet.

Laws:

1. What is handed out are the bytes on the wire: no compression is asked for and none is undone, so that nothing small
   becomes large and a range means what it says.
2. A source may be slow (1 KB/s is), but not dead: nothing for `GAP_S`, or fewer than `LEAST_BYTES_S` on the average
   once `GRACE_S` are over, is unreachable.
3. Whatever goes wrong on the way is `UnreachableError`; `AnswerError` is one with the server's status.
"""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple
from urllib.parse import unquote, urlsplit

import urllib3

from edge.contract.errors import UnreachableError

GAP_S: Final = 30.0
GRACE_S: Final = 60.0
LEAST_BYTES_S: Final = 100.0
CHUNK_BYTES: Final = 64 << 10
_MISSING: Final = 404
_REFUSED: Final = 403


class AnswerError(UnreachableError):
    """The server answered, but not with the file."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


class Opened(NamedTuple):
    """A file that is being sent.

    Attributes:
        start: place in the file of the first byte that comes: what was asked for, or 0 where ranges are not known.
        chunks: at most `CHUNK_BYTES` each, as they arrive.
    """

    start: int
    chunks: Iterator[bytes]


def require_pace(received_bytes: int, spent_s: float) -> None:
    """Raise `UnreachableError` when a transfer is so slow that it holds the device up rather than serves it."""
    if spent_s > GRACE_S and received_bytes < LEAST_BYTES_S * spent_s:
        msg = f"it sends less than {LEAST_BYTES_S:.0f} bytes a second"
        raise UnreachableError(msg)


class Transport:
    """Opens URLs: `http`, `https` and `file`. One transfer at a time.

    Args:
        gap_s: longest silence before a server counts as gone.
    """

    def __init__(self, *, gap_s: float = GAP_S) -> None:
        retries = urllib3.Retry(total=4, connect=1, read=0, status=0, other=0, redirect=3)
        headers = {"Accept-Encoding": "identity", "User-Agent": "weakspot"}
        self._pool = urllib3.PoolManager(timeout=gap_s, retries=retries, headers=headers)

    @contextlib.contextmanager
    def open(self, url: str, *, offset: int = 0) -> Iterator[Opened]:
        """Open one file, from the byte `offset` on where the source can do that.

        Raises:
            UnreachableError: it does not answer, breaks off or is too slow; also while the chunks are read.
            AnswerError: it answers with something else than the file.
        """
        if url.startswith("file:"):
            with _open_file(Path(unquote(urlsplit(url).path)), offset) as opened:
                yield opened
            return
        with self._open_web(url, offset) as opened:
            yield opened

    @contextlib.contextmanager
    def _open_web(self, url: str, offset: int) -> Iterator[Opened]:
        headers = {**self._pool.headers, **({"Range": f"bytes={offset}-"} if offset else {})}
        try:
            response = self._pool.request("GET", url, headers=headers, preload_content=False, decode_content=False)
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            msg = f"{url} does not answer: {_cause(error)}"
            raise UnreachableError(msg) from error
        try:
            yield Opened(_start(response, url, offset), _read_web(response, url))
        finally:
            response.close()


def _start(response: urllib3.BaseHTTPResponse, url: str, offset: int) -> int:
    if response.status == 200:
        return 0
    said = re.match(r"bytes ([0-9]{1,18})-", response.headers.get("Content-Range", ""))
    if response.status == 206 and offset and said and int(said[1]) == offset:
        return offset
    msg = f"{url} answers with status {response.status}"
    raise AnswerError(msg, response.status)


def _read_web(response: urllib3.BaseHTTPResponse, url: str) -> Iterator[bytes]:
    began_s, received = time.monotonic(), 0
    while True:
        try:
            chunk = response.read1(CHUNK_BYTES, decode_content=False)
            received += len(chunk)
            require_pace(received, time.monotonic() - began_s)
        except (urllib3.exceptions.HTTPError, OSError, UnreachableError) as error:
            msg = f"{url} broke off: {_cause(error)}"
            raise UnreachableError(msg) from error
        if not chunk:
            return
        yield chunk


@contextlib.contextmanager
def _open_file(path: Path, offset: int) -> Iterator[Opened]:
    try:
        file = path.open("rb")
    except OSError as error:
        status = _MISSING if isinstance(error, FileNotFoundError) else _REFUSED
        msg = f"{path} cannot be read: {error.strerror}"
        raise AnswerError(msg, status) from error
    with file:
        yield Opened(offset, _read_file(file, path, offset))


def _read_file(file: BinaryIO, path: Path, offset: int) -> Iterator[bytes]:
    try:
        file.seek(offset)
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
    except OSError as error:
        msg = f"{path} broke off: {error.strerror}"
        raise UnreachableError(msg) from error


def _cause(error: Exception) -> str:
    """Return the innermost reason in a few words; urllib3 wraps them in its own objects."""
    reason = getattr(error, "reason", None)
    if isinstance(reason, Exception):
        return _cause(reason)
    text = str(error)
    return text.rpartition(": ")[2] if ">: " in text or "): " in text else text
