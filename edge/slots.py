"""The models on a device's disk: `data_dir/models`, its `slots.json` and a folder a release.

    slots.json      the state (edge.slot_state), whole or the one before: written beside, flushed, renamed, flushed
    000012/         an unpacked release; `000012.part` while it is being made
    by-hand.json    what a person asked of a running daemon

Laws:

1. A state that breaks a law is never written; one that was read and does is set aside, and the factory's model serves.
2. A release's folder has its name once every file in it is on the disk, and of the size and hash that were signed.
   The state holds a release after its folder has its name, and no more before the folder goes.
3. Nothing is unpacked but regular files with plain relative names, as many and as large as was signed.
4. Opening repeats what was unfinished: what is half made goes, a release whose folder is gone is given up.

One that reads beside a running daemon uses `read_slots`; `SlotStore` is for who holds the data folder.
"""

import contextlib
import hashlib
import logging
import os
import re
import shutil
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from edge.contract.card import ModelCard, read_card
from edge.contract.errors import UnreachableError, UntrustedError, UnusableError
from edge.contract.release import SignedRelease, is_plain
from edge.contract.samples import SCHEMA
from edge.detector.opening import CARD_NAME
from edge.detector.written import flush_folder, write_whole
from edge.slot_state import FACTORY, Slots, faults, follow, forget, lose, surplus

SPARE_BYTES: Final = 32 << 20
_STATE: Final = "slots.json"
_BY_HAND: Final = "by-hand.json"
_RELEASE = re.compile(r"\d{6}")
_HALF_MADE = re.compile(r"\d{6}\.part|\.(slots|by-hand)\.json\.\d+\.part")
_BLOCK: Final = tarfile.BLOCKSIZE
_CHUNK: Final = 1 << 20

_log = logging.getLogger(__name__)


class ByHand(msgspec.Struct, frozen=True, kw_only=True):
    """What a person asked for: leave the active release for `to`."""

    to: int


def models_folder(data_dir: Path) -> Path:
    """Return where the models of a device stand."""
    return data_dir / "models"


def slot_path(folder: Path, number: int) -> Path:
    """Return the folder of a release."""
    return folder / f"{number:06d}"


def read_slots(folder: Path, line: str) -> Slots:
    """Return the state for a model line; a new one where there is none. Writes nothing.

    Raises `UnusableError` when it cannot be read, or breaks a law.
    """
    path = folder / _STATE
    try:
        slots = msgspec.json.decode(path.read_bytes(), type=Slots)
    except FileNotFoundError:
        return Slots(model=line)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UnusableError(msg) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is not valid: {error}"
        raise UnusableError(msg) from error
    if slots.schema != SCHEMA:
        msg = f"{path} has the schema {slots.schema}, this side reads {SCHEMA}"
        raise UnusableError(msg)
    broken = faults(slots)
    if broken:
        msg = f"{path} breaks a law: {broken[0]}"
        raise UnusableError(msg)
    return follow(slots, line)


def active_model(folder: Path, line: str) -> Path | None:
    """Return the folder of the release that is to serve; None is the factory's model.

    What cannot be read or is gone gives the factory's, and is told: a device always has a model.
    """
    try:
        number = read_slots(folder, line).active
    except UnusableError as error:
        _log.warning("the factory's model serves: %s", error)
        return None
    if number == FACTORY:
        return None
    path = slot_path(folder, number)
    if not (path / CARD_NAME).is_file():
        _log.warning("the factory's model serves: %s is gone", path)
        return None
    return path


def ask(folder: Path, by_hand: ByHand) -> None:
    """Ask the running daemon for it. Raises `UnusableError` when it cannot be written."""
    write_whole(folder / _BY_HAND, msgspec.json.encode(by_hand))


def broken_slots(folder: Path, line: str) -> Iterator[str]:
    """Yield a sentence for everything on the disk that breaks a law. Raises `UnusableError` for an unreadable state."""
    slots = read_slots(folder, line)
    for slot in slots.held:
        path = slot_path(folder, slot.number)
        try:
            card_sha256 = hashlib.sha256((path / CARD_NAME).read_bytes()).hexdigest()
            if card_sha256 != slot.card_sha256:
                yield f"{path.name} has not the card that was signed"
            else:
                _require_files(path, read_card(path / CARD_NAME), {})
        except OSError as error:
            yield f"{path.name} is held and cannot be read: {error.strerror}"
        except (UnusableError, UntrustedError) as error:
            yield f"{path.name}: {error}"


class SlotStore:
    """The state and the folders. For one process, and one thread at a time.

    Attributes:
        folder: see `models_folder`.
        slots: the state, as it is on the disk; while `behind`, what is on the disk is older.
        behind: the disk did not take what could not wait; see `write`.
    """

    def __init__(self, folder: Path, line: str) -> None:
        """Open the folder, and repeat what was unfinished: law 4. `line`: see edge.opening.factory_line.

        Raises `UnreachableError` when the folder cannot be used.
        """
        self.folder = folder
        self.behind = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.slots = self._recover(line)
        except OSError as error:
            msg = f"cannot write to {folder}: {error.strerror}"
            raise UnreachableError(msg) from error

    def write(self, slots: Slots, *, at_once: bool = False) -> None:
        """Have a state on the disk. Raises `UnusableError` when the disk takes it not, `ValueError` for law 1.

        `at_once`: it holds even where the disk does not take it, and `catch_up` tries again. For leaving a model only:
        a start that finds the state before leaves it again.
        """
        broken = faults(slots)
        if broken:
            raise ValueError(broken[0])
        if slots == self.slots and not self.behind:
            return
        try:
            write_whole(self.folder / _STATE, msgspec.json.format(msgspec.json.encode(slots), indent=2))
        except UnusableError as error:
            if not at_once:
                raise
            if not self.behind:
                _log.error("it is so until the next start, and tried again: %s", error)
            self.behind = True
        else:
            self.behind = False
        self.slots = slots

    def catch_up(self) -> None:
        """Write what the disk did not take before, if it takes it now."""
        if self.behind:
            self.write(self.slots, at_once=True)

    def path(self, number: int) -> Path:
        """Return the folder of a release."""
        return slot_path(self.folder, number)

    def require_room(self, size_bytes: int) -> None:
        """Raise `UnusableError` where the disk has not `size_bytes` and a margin free."""
        disk = os.statvfs(self.folder)
        free_bytes = disk.f_bavail * disk.f_frsize
        if free_bytes < size_bytes + SPARE_BYTES:
            need_mb, free_mb = -(-(size_bytes + SPARE_BYTES) // 1_000_000), free_bytes // 1_000_000
            msg = f"the disk has {free_mb} MB free, {need_mb} MB are needed"
            raise UnusableError(msg)

    def stage(self, tar: Path, signed: SignedRelease) -> Path:
        """Unpack a release into its folder, checked and flushed, and return that; one that is held stays as it is.

        Raises:
            UntrustedError: it is not what was signed, or holds what no release may hold.
            UnusableError: the disk has no room, or takes no writes.
        """
        path = self.path(signed.number)
        held = self.slots.slot(signed.number)
        if held is not None:
            if held.card_sha256 != signed.card_sha256:
                msg = f"release {signed.number} is here with another card"
                raise UntrustedError(msg)
            return path
        self.require_room(signed.unpacked_bytes)
        part = path.with_name(f"{path.name}.part")
        try:
            for left in (part, path):
                if left.exists():
                    shutil.rmtree(left)
            part.mkdir()
            with tar.open("rb") as file:
                hashes = _unpack(file, part, signed)
            _require_signed(part, signed, hashes)
            part.replace(path)
            flush_folder(self.folder)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            msg = f"cannot unpack release {signed.number}: {error.strerror}"
            raise UnusableError(msg) from error
        except (UnusableError, UntrustedError):
            shutil.rmtree(part, ignore_errors=True)
            raise
        return path

    def prune(self) -> tuple[int, ...]:
        """Let go of the releases that nothing here can need again, and return their numbers.

        Raises `UnusableError` when the disk does not take it: then all stay.
        """
        gone = surplus(self.slots)
        slots = self.slots
        for number in gone:
            slots = forget(slots, number)
        self.write(slots)
        for number in gone:
            shutil.rmtree(self.path(number), ignore_errors=True)  # what stays goes at the next opening
        return gone

    def is_asked(self) -> bool:
        """Whether a person asks for something."""
        return (self.folder / _BY_HAND).is_file()

    def asked(self) -> ByHand | None:
        """Return what a person asked for, and forget it."""
        if not self.is_asked():
            return None
        path = self.folder / _BY_HAND
        try:
            return msgspec.json.decode(path.read_bytes(), type=ByHand)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.warning("%s is not followed: %s", path, error)
            return None
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    def _recover(self, line: str) -> Slots:
        try:
            found = read_slots(self.folder, line)
        except UnusableError as error:
            aside = f"{_STATE}.broken-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
            _log.error("the factory's model serves, the state is set aside as %s: %s", aside, error)
            (self.folder / _STATE).replace(self.folder / aside)
            flush_folder(self.folder)
            found = Slots(model=line)
        self.slots = found
        for slot in found.held:
            if not (self.path(slot.number) / CARD_NAME).is_file():
                _log.error("release %d is held and its folder is gone", slot.number)
                found = lose(found, slot.number, now_ms=time.time_ns() // 1_000_000)
        self.write(found, at_once=True)
        held = {slot.number for slot in found.held}
        for one in list(self.folder.iterdir()):
            orphan = _RELEASE.fullmatch(one.name) is not None and int(one.name) not in held
            if orphan or _HALF_MADE.fullmatch(one.name) is not None:
                _remove(one)
        return found


def _remove(path: Path) -> None:
    """Remove what nothing needs; what does not go is in nobody's way, and is tried at the next opening."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        _log.warning("%s could not be removed: %s", path, error)


def _unpack(file: BinaryIO, part: Path, signed: SignedRelease) -> dict[str, str]:
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


def _require_signed(path: Path, signed: SignedRelease, hashes: dict[str, str]) -> None:
    """Raise `UntrustedError` or `UnusableError` where a folder is not the release that was signed."""
    if hashes.get(CARD_NAME) != signed.card_sha256:
        msg = f"its {CARD_NAME} is not the one that is signed"
        raise UntrustedError(msg)
    card = read_card(path / CARD_NAME)
    if (card.name, card.release) != (signed.model, signed.release):
        msg = f"its card is that of {card.name} {card.release}, not of {signed.model} {signed.release}"
        raise UntrustedError(msg)
    _require_files(path, card, hashes)


def _require_files(path: Path, card: ModelCard, hashes: dict[str, str]) -> None:
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
