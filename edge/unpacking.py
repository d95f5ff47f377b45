"""A signed release's archive, unpacked into an empty folder: nothing but what was signed, and on the disk.

Laws:

1. Nothing is unpacked but regular files with plain relative names, as many and as large as was signed.
2. What is returned is on the disk: each file flushed, then each folder.
"""

import hashlib
import os
import tarfile
from pathlib import Path
from typing import BinaryIO, Final

from edge.contract.card import ModelCard, read_card
from edge.contract.errors import UntrustedError
from edge.contract.release import SignedRelease, is_plain
from edge.detector.opening import CARD_NAME
from edge.detector.written import flush_folder

_BLOCK: Final = tarfile.BLOCKSIZE
_CHUNK: Final = 1 << 20


def unpack(file: BinaryIO, part: Path, signed: SignedRelease) -> dict[str, str]:
    """Unpack into an empty folder, flush it, and return the sha256 of each file by name. Raises `UntrustedError`."""
    hashes: dict[str, str] = {}
    left_bytes = signed.unpacked_bytes
    folders = {part}
    while (header := _header(file)) is not None:
        name, size = header
        if len(hashes) == signed.files or size > left_bytes:
            msg = f"it holds more than the {signed.files} files and {signed.unpacked_bytes} bytes that are signed"
            raise UntrustedError(msg)
        if name in hashes or any(one.startswith(f"{name}/") or name.startswith(f"{one}/") for one in hashes):
            msg = f"it holds {name!r} twice"
            raise UntrustedError(msg)
        target = part / name
        target.parent.mkdir(parents=True, exist_ok=True)
        folders |= {one for one in target.parents if one.is_relative_to(part)}
        hashes[name] = _copy(file, target, size)
        left_bytes -= size
    if left_bytes or len(hashes) != signed.files:
        msg = f"it holds {len(hashes)} files, {left_bytes} bytes less than are signed"
        raise UntrustedError(msg)
    for folder in sorted(folders, reverse=True):
        flush_folder(folder)
    return hashes


def _header(file: BinaryIO) -> tuple[str, int] | None:
    """Return the next file's name and size; None at the end. Raises `UntrustedError` for anything but a plain file.

    Each header is read by itself: extended headers, links, sparse files and devices are no plain files.
    """
    block = file.read(_BLOCK)
    try:
        info = tarfile.TarInfo.frombuf(block, "ascii", "strict")
    except tarfile.TarError as error:
        if block and not block.strip(b"\0") and not file.read(2 * _CHUNK).strip(b"\0"):
            return None  # the end of an archive is zeros
        msg = f"it is no archive of plain files: {error}"
        raise UntrustedError(msg) from error
    except ValueError as error:
        msg = "it holds a file whose name is not plain"
        raise UntrustedError(msg) from error
    if info.type != tarfile.REGTYPE or info.size < 0:
        msg = f"it holds {info.name!r}, which is no plain file"
        raise UntrustedError(msg)
    if not is_plain(info.name):
        msg = f"it holds a file called {info.name!r}, which is no plain relative name"
        raise UntrustedError(msg)
    return info.name, info.size


def _copy(file: BinaryIO, target: Path, size: int) -> str:
    """Write the next `size` bytes to a new file, flush it, skip the padding, and return the sha256."""
    digest = hashlib.sha256()
    left = size
    with target.open("xb") as out:
        while left:
            chunk = file.read(min(_CHUNK, left))
            if not chunk:
                msg = f"it ends within {target.name}"
                raise UntrustedError(msg)
            out.write(chunk)
            digest.update(chunk)
            left -= len(chunk)
        out.flush()
        os.fsync(out.fileno())
    file.read(-size % _BLOCK)
    return digest.hexdigest()


def require_signed(path: Path, signed: SignedRelease, hashes: dict[str, str]) -> None:
    """Raise `UntrustedError` or `UnusableError` where a folder is not the release that was signed."""
    if hashes.get(CARD_NAME) != signed.card_sha256:
        msg = f"its {CARD_NAME} is not the one that is signed"
        raise UntrustedError(msg)
    card = read_card(path / CARD_NAME)
    if (card.name, card.release) != (signed.model, signed.release):
        msg = f"its card is that of {card.name} {card.release}, not of {signed.model} {signed.release}"
        raise UntrustedError(msg)
    require_files(path, card, hashes)


def require_files(path: Path, card: ModelCard, hashes: dict[str, str]) -> None:
    """Raise `UntrustedError` where a file is not the one that the card names. `hashes`: those known already."""
    for file, sha256 in [(card.file, card.sha256), *((one.file, one.sha256) for one in card.variants)]:
        if not is_plain(file, deepest=1) or not (path / file).is_file():
            msg = f"the card names {file!r}, which is not there"
            raise UntrustedError(msg)
        if (hashes.get(file) or _sha256(path / file)) != sha256:
            msg = f"{file} is not the one that the card names"
            raise UntrustedError(msg)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
