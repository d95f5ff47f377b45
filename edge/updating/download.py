"""One signed file onto the disk, over a line that breaks.

Laws:

1. The final name is only ever a file whose length and hashes are the signed ones, and which is on the disk.
2. What came before a break is kept (`.part`) and gone on from, also after a restart. If the whole is then not what was
   signed, it is begun once more from nothing; if that is not what was signed either, it is forged.
3. Never more than the signed length is written, and nothing before there is room for what is missing.
4. On a full disk the part is given up: the samples of this device need the room more.
"""

import os
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Final

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from edge.contract.errors import UnreachableError, UnusableError
from edge.detector.written import flush_folder
from edge.updating.transport import AnswerError, Transport

_FLUSH_BYTES: Final = 1 << 20
_NO_SUCH_RANGE: Final = 416

Room = Callable[[int], None]
Told = Callable[[int, int], None]


def download(
    transport: Transport, url: str, target: TargetFile, *, into: Path, require_room: Room, on_bytes: Told
) -> Path:
    """Return `into`, the target's verified file; at once if it is there already.

    Args:
        transport: opens the URL.
        url: of the target.
        target: its signed length and hashes.
        into: where it goes; `.part` is added while it comes.
        require_room: given the bytes that are still to come; raises when there is no room for them.
        on_bytes: given the bytes that are here and the bytes of the whole; what it raises ends the download, which is
            gone on from later.

    Raises:
        UnusableError: what comes is not what was signed, or the disk takes no more.
        UnreachableError: the source does not answer or broke off.
    """
    try:
        if _verified(into, target):
            return into
        part = into.with_name(f"{into.name}.part")
        while not _filled(transport, url, target, part=part, require_room=require_room, on_bytes=on_bytes):
            pass
        part.replace(into)
        flush_folder(into.parent)
    except OSError as error:
        msg = f"cannot write {into}: {error.strerror}"
        raise UnusableError(msg) from error
    return into


def _filled(
    transport: Transport, url: str, target: TargetFile, *, part: Path, require_room: Room, on_bytes: Told
) -> bool:
    """Bring the part to its full length. Return False when it must be begun anew, having been gone on from in vain."""
    with part.open("ab", buffering=0) as file:
        had = file.tell()
        if had > target.length:
            file.truncate(0)
            had = 0
        if had < target.length:
            require_room(target.length - had)
            try:
                _append(transport, url, file, had=had, length=target.length, on_bytes=on_bytes)
            except (UnusableError, OSError):
                part.unlink()
                raise
            except AnswerError as error:
                if error.status != _NO_SUCH_RANGE or not had:
                    raise
    if _verified(part, target):
        return True
    part.unlink()
    if not had:
        msg = f"{url} is not the file that was signed"
        raise UnusableError(msg)
    return False


def _append(transport: Transport, url: str, file: FileIO, *, had: int, length: int, on_bytes: Told) -> None:
    with transport.open(url, offset=had) as opened:
        if opened.start != had:
            file.truncate(opened.start)
        here = flushed = opened.start
        try:
            for chunk in opened.chunks:
                if here + len(chunk) > length:
                    msg = f"{url} is longer than the {length} bytes that were signed"
                    raise UnusableError(msg)
                _write(file, chunk)
                here += len(chunk)
                if here - flushed >= _FLUSH_BYTES:
                    os.fsync(file.fileno())
                    flushed = here
                on_bytes(here, length)
        finally:
            os.fsync(file.fileno())
    if here < length:
        msg = f"{url} ended after {here} of {length} bytes; the rest is asked for later"
        raise UnreachableError(msg)


def _write(file: FileIO, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[file.write(rest) :]


def _verified(path: Path, target: TargetFile) -> bool:
    try:
        with path.open("rb") as file:
            target.verify_length_and_hashes(file)
    except (FileNotFoundError, LengthOrHashMismatchError):
        return False
    return True
