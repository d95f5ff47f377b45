"""The models on a device's disk: `data_dir/models`, its `slots.json` and a folder a release.

    slots.json      the state (edge.slot_state), whole or the one before: written beside, flushed, renamed, flushed
    slots.spare     room for it where the disk is full (edge.slot_spare)
    000012/         an unpacked release; `000012.part` while it is being made
    by-hand-000011  a person asks a running daemon to go back to this one; empty, so that a full disk takes it

Laws:

1. A state that breaks a law is never written; one that was read and does is set aside, and the factory's model serves.
   What it can still tell of the highest release ever confirmed is kept: law 6 of the house outlives a broken file.
   One that the disk does not give is not known to be wrong: the factory's serves, and nothing is written or removed.
2. A release's folder has its name once every file in it is on the disk, and of the size and hash that were signed.
   The state holds a release after its folder has its name, and no more before the folder goes.
3. A model that was left stays left: on a full disk the state goes into room that was taken before.
4. Opening repeats what was unfinished: what is half made goes, a release whose folder is gone is given up.

One that reads beside a running daemon uses `read_slots`; `SlotStore` is for who holds the data folder.
"""

import hashlib
import logging
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from edge.contract.card import read_card
from edge.contract.errors import UnreachableError, UntrustedError, UnusableError
from edge.contract.release import SignedRelease
from edge.contract.samples import SCHEMA
from edge.detector.opening import CARD_NAME
from edge.detector.written import flush_folder, write_whole
from edge.slot_spare import keep, read_kept, take_room
from edge.slot_state import FACTORY, Slots, faults, follow, forget, lose, remains, surplus
from edge.unpacking import require_files, require_signed, unpack

SPARE_BYTES: Final = 32 << 20
READS: Final = 5
READ_AGAIN_S: Final = 0.2
_STATE: Final = "slots.json"
_SPARE: Final = "slots.spare"
_BY_HAND: Final = "by-hand-"
_RELEASE = re.compile(r"\d{6}")
_HALF_MADE = re.compile(r"\d{6}\.part|\.slots\.json\.\d+\.part")

_log = logging.getLogger(__name__)


class UnreadError(UnusableError):
    """The disk does not give the state: what it says is not known, and it may be as good as ever."""


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

    Raises `UnusableError` when it breaks a law, `UnreadError` when it cannot be read.
    """
    content, _ = _read(folder)
    return Slots(model=line) if content is None else _decoded(folder / _STATE, content, line)


def _read(folder: Path, *, times: int = 1) -> tuple[bytes | None, bool]:
    """Return the state that counts, None where there is none, and whether it is in the spare. Raises `UnreadError`."""
    path = folder / _STATE
    while True:
        times -= 1
        try:
            return read_kept(path, folder / _SPARE)
        except OSError as error:
            msg = f"cannot read {error.filename or path}: {error.strerror}"
            if times <= 0:
                raise UnreadError(msg) from error
            _log.warning("%s", msg)
            time.sleep(READ_AGAIN_S)


def _decoded(path: Path, content: bytes, line: str) -> Slots:
    """Return the state. Raises `UnusableError`."""
    try:
        slots = msgspec.json.decode(content, type=Slots)
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
    if _is_gone(path / CARD_NAME):
        _log.warning("the factory's model serves: %s is gone", path)
        return None
    return path


def ask(folder: Path, by_hand: ByHand) -> None:
    """Ask the running daemon for it. Raises `UnusableError` when it cannot be written."""
    path = folder / f"{_BY_HAND}{by_hand.to:06d}"
    try:
        path.touch()
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise UnusableError(msg) from error


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
                require_files(path, read_card(path / CARD_NAME), {})
        except OSError as error:
            yield f"{path.name} is held and cannot be read: {error.strerror}"
        except (UnusableError, UntrustedError) as error:
            yield f"{path.name}: {error}"


class SlotStore:
    """The state and the folders. For one process, and one thread at a time.

    Attributes:
        folder: see `models_folder`.
        slots: the state, as it is on the disk; while `behind`, what is in `slots.json` is older.
        behind: the disk did not take what could not wait; see `write`.
        closed: why the state could not be read; "" where it was. Then `slots` is not what is on the disk: the factory's
            model serves until the next start, and nothing is written or removed.
    """

    def __init__(self, folder: Path, line: str) -> None:
        """Open the folder, and repeat what was unfinished: law 4. `line`: see edge.opening.factory_line.

        Raises `UnreachableError` when the folder cannot be used.
        """
        self.folder = folder
        self.behind = False
        self.closed = ""
        self._followed: set[str] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.slots = self._recover(line)
        except OSError as error:
            msg = f"cannot write to {folder}: {error.strerror}"
            raise UnreachableError(msg) from error

    def write(self, slots: Slots, *, at_once: bool = False) -> None:
        """Have a state on the disk. Raises `UnusableError` when the disk takes it not, `ValueError` for law 1.

        `at_once`: it holds even where the disk does not take it: in the spare room, which a full disk still has, and
        where that takes it not either (a disk that became read-only), until the next start. `catch_up` tries again.
        For leaving a model only.
        """
        broken = faults(slots)
        if broken:
            raise ValueError(broken[0])
        if slots == self.slots and not self.behind:
            return
        if self.closed:
            raise UnreadError(self.closed)
        content = msgspec.json.format(msgspec.json.encode(slots), indent=2)
        try:
            write_whole(self.folder / _STATE, content)
        except UnusableError as error:
            if not at_once:
                raise
            if slots != self.slots or not self.behind:
                self._keep(content, error)
            self.behind = True
        else:
            self.behind = False
            self._take_room()
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
                hashes = unpack(file, part, signed)
            require_signed(part, signed, hashes)
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
        return bool(self._requests())

    def asked(self) -> ByHand | None:
        """Return what a person asked for, and forget it."""
        found = None
        for path in self._requests():
            try:
                path.unlink()
            except OSError:  # a disk that became read-only: it is followed once
                self._followed.add(path.name)
            number = path.name.removeprefix(_BY_HAND)
            if _RELEASE.fullmatch(number):
                found = ByHand(to=int(number))
            else:
                _log.warning("%s is not followed", path)
        return found

    def _requests(self) -> list[Path]:
        try:
            found = () if self.closed else tuple(self.folder.iterdir())
        except OSError as error:  # it is looked for again in a moment
            _log.debug("%s cannot be looked through: %s", self.folder, error.strerror)
            return []
        asked = (path for path in found if path.name.startswith(_BY_HAND))
        return sorted(path for path in asked if path.name not in self._followed)

    def _keep(self, content: bytes, error: UnusableError) -> None:
        try:
            keep(self.folder / _SPARE, content, over=(self.folder / _STATE).read_bytes())
        except OSError as worse:
            _log.error("it is so until the next start, and tried again: %s; %s", error, worse.strerror)
        else:
            _log.error("it is kept in room that was taken before, and tried again: %s", error)

    def _take_room(self) -> None:
        try:
            take_room(self.folder / _SPARE)
        except OSError as error:
            _log.warning("there is no room for a full disk: %s", error.strerror)

    def _recover(self, line: str) -> Slots:
        try:
            content, self.behind = _read(self.folder, times=READS)
        except UnreadError as error:
            _log.error("the factory's model serves, and updates are off until the next start: %s", error)
            self.closed = str(error)
            return Slots(model=line)
        try:
            found = Slots(model=line) if content is None else _decoded(self.folder / _STATE, content, line)
        except UnusableError as error:
            assert content is not None
            found = remains(content, line)
            self._set_aside(error)
        self.slots = found
        for slot in found.held:
            if _is_gone(self.path(slot.number) / CARD_NAME):
                _log.error("release %d is held and its folder is gone", slot.number)
                found = lose(found, slot.number, now_ms=time.time_ns() // 1_000_000)
        self.write(found, at_once=True)
        self._clear({slot.number for slot in found.held})
        return found

    def _clear(self, held: set[int]) -> None:
        try:
            found = tuple(self.folder.iterdir())
        except OSError as error:  # it is in nobody's way
            _log.warning("%s cannot be looked through: %s", self.folder, error.strerror)
            return
        for one in found:
            orphan = _RELEASE.fullmatch(one.name) is not None and int(one.name) not in held
            if orphan or _HALF_MADE.fullmatch(one.name) is not None:
                _remove(one)

    def _set_aside(self, error: UnusableError) -> None:
        """Keep a broken state under another name; in its place comes what remains of it, as a whole."""
        aside = f"{_STATE}.broken-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
        _log.error("the factory's model serves, the state is set aside as %s: %s", aside, error)
        try:
            (self.folder / aside).hardlink_to(self.folder / _STATE)
        except OSError as worse:  # a disk that is full, or knows no links: what serves is worth more
            _log.error("the broken state is not kept: %s", worse.strerror)
        self.behind = True


def _is_gone(path: Path) -> bool:
    """Whether a file is known to be gone; what the disk does not tell is not."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        _log.warning("%s cannot be looked at: %s", path, error.strerror)
        return False


def _remove(path: Path) -> None:
    """Remove what nothing needs; what does not go is in nobody's way, and is tried at the next opening."""
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        _log.warning("%s could not be removed: %s", path, error)
