"""Files that are whole or not there: written beside their place, flushed, renamed."""

import contextlib
import os
from pathlib import Path

import msgspec

from edge.contract.card import ModelCard
from edge.contract.errors import UnusableError


def write_whole(path: Path, content: bytes) -> None:
    """Write a file or leave the one that was there. Raises `UnusableError` when it cannot be written."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write_flushed(beside, content)
        beside.replace(path)
        flush_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):  # a disk that became read-only takes no removal either
            beside.unlink(missing_ok=True)
        msg = f"cannot write {path}: {error.strerror}"
        raise UnusableError(msg) from error


def write_card(path: Path, card: ModelCard) -> None:
    """Write a `model.json`. Raises `UnusableError` when it cannot be written."""
    write_whole(path, msgspec.json.format(msgspec.json.encode(card), indent=2) + b"\n")


def write_flushed(path: Path, content: bytes) -> None:
    """Write a file and have it on the disk. Raises `OSError`."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Have a folder's entries on the disk. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
