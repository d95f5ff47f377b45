"""Room on the disk taken beforehand: a state has a place where the disk has none left. Overwritten, no block is new.

Laws:

1. What is kept here stands for the file that it was written over, and for no other content of it: once that file is
   written again, what is here means nothing.
2. A write that is cut leaves the one before it: there are two halves, written in turn, each with its own hash.
"""

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from edge.detector.written import flush_folder, write_flushed

HALF_BYTES: Final = 32 << 10


class _Kept(NamedTuple):
    """One half: the higher serial is the newer; `over` is the hash of the content that `state` stands for."""

    half: int
    serial: int
    over: str
    state: bytes


def take_room(path: Path) -> None:
    """Make the file, if it is not there. Raises `OSError`."""
    try:
        if path.stat().st_size == 2 * HALF_BYTES:
            return
    except FileNotFoundError:
        pass
    write_flushed(path, b"\n" * 2 * HALF_BYTES)  # no zeros: a disk may leave those out
    flush_folder(path.parent)


def keep(path: Path, state: bytes, *, over: bytes) -> None:
    """Have a state on the disk in place of the content `over`. Raises `OSError` where there is no room taken for it."""
    newest = max(_kept(path), key=lambda one: one.serial, default=None)
    serial, half = (1, 0) if newest is None else (newest.serial + 1, 1 - newest.half)
    record = _head(serial, _sha256(over), state) + state
    if len(record) > HALF_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    with path.open("r+b", buffering=0) as file:
        file.seek(half * HALF_BYTES)
        rest = memoryview(record)
        while rest:
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def kept_over(path: Path, content: bytes) -> bytes | None:
    """Return the state that stands for `content`; None where there is none. Raises `OSError`."""
    over = _sha256(content)
    found = max((one for one in _kept(path) if one.over == over), key=lambda one: one.serial, default=None)
    return None if found is None else found.state


def read_kept(path: Path, spare: Path) -> tuple[bytes | None, bool]:
    """Return what counts of a file with room beside it, None where there is no file, and whether it is in that room.

    Raises `OSError` when either is there and cannot be read: the older one is no answer.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None, False
    kept = kept_over(spare, content)
    return (content, False) if kept is None else (kept, True)


def _kept(path: Path) -> Iterator[_Kept]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return
    for half in (0, 1):
        head, _, rest = content[half * HALF_BYTES : (half + 1) * HALF_BYTES].partition(b"\n")
        words = head.split(b" ")
        if len(words) != 4 or not words[0].isdigit() or not words[1].isdigit():
            continue
        serial, over, state = int(words[0]), words[2].decode("ascii", "replace"), rest[: int(words[1])]
        if _head(serial, over, state) == head + b"\n":
            yield _Kept(half, serial, over, state)


def _head(serial: int, over: str, state: bytes) -> bytes:
    whole = _sha256(f"{serial} {over} ".encode() + state)
    return f"{serial} {len(state)} {over} {whole}\n".encode()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
