"""`memory.json` in the data folder: the places that were reported, so that a restart does not report them again.

Laws:

1. The file is whole, whenever the power goes: written beside it, synced, renamed, the folder synced.
2. What another release of the model wrote is not taken: its class ids and its faults are its own.
3. A file that cannot be used costs the memory, never the start: the next save replaces it.

It is saved when it changed, at most every `EVERY_S`, and when the daemon stops: a crash forgets the last minutes.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from edge.contract.errors import UnusableError
from edge.places import KnownPlaces, Place

EVERY_S: Final = 300.0
_SCHEMA: Final = 1

PlacesByKind = Mapping[str, KnownPlaces]

_log = logging.getLogger(__name__)


def open_memory(folder: Path, *, model: str, cameras: Mapping[str, PlacesByKind]) -> "Memory":
    """Return the memory with what its file holds; a file that cannot be used is told in the log. See `Memory`."""
    memory = Memory(folder, model=model, cameras=cameras)
    try:
        memory.load()
    except UnusableError as error:
        _log.warning("%s; what was reported before is forgotten", error)
    return memory


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    schema: int
    model: str
    cameras: dict[str, dict[str, list[Place]]]


class Memory:
    """Keeps the places of a device's cameras on its disk. For one thread; it waits for the disk.

    Args:
        folder: the data folder; it exists when `save` is called.
        model: the release that is running.
        cameras: camera -> kind -> places. Held, not copied: filled by `load`, dumped by `save`.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        model: str,
        cameras: Mapping[str, PlacesByKind],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = folder / "memory.json"
        self._model = model
        self._cameras = cameras
        self._clock = clock
        self._saved = b""
        self._due_s = -math.inf

    def adopt(self, *, model: str, cameras: Mapping[str, PlacesByKind]) -> None:
        """Keep these places from now on: another release is running."""
        self._model, self._cameras = model, cameras

    def load(self) -> None:
        """Fill the places from the file, if there is one. Raises `UnusableError` when it cannot be used."""
        try:
            payload = self._path.read_bytes()
            file = msgspec.json.decode(payload, type=_File)
        except FileNotFoundError:
            return
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            msg = f"{self._path} cannot be used: {error}"
            raise UnusableError(msg) from error
        if file.schema != _SCHEMA:
            msg = f"{self._path} is of schema {file.schema}, this version reads {_SCHEMA}"
            raise UnusableError(msg)
        if file.model != self._model:
            return
        try:
            for camera, kinds in self._cameras.items():
                for kind, places in kinds.items():
                    places.load(msgspec.to_builtins(file.cameras.get(camera, {}).get(kind, [])))
        except UnusableError as error:
            msg = f"{self._path} cannot be used: {error}"
            raise UnusableError(msg) from error
        self._saved = payload

    def save_if_due(self) -> None:
        """Save unless that was tried within the last `EVERY_S`. Raises `OSError`."""
        now_s = self._clock()
        if now_s >= self._due_s:
            self._due_s = now_s + EVERY_S  # a disk that fails is not asked with every heartbeat
            self.save()

    def save(self) -> None:
        """Replace the file, if anything changed. Raises `OSError`."""
        cameras = {
            camera: {kind: places.dump() for kind, places in kinds.items()} for camera, kinds in self._cameras.items()
        }
        payload = msgspec.json.encode(_File(schema=_SCHEMA, model=self._model, cameras=cameras))
        if payload == self._saved:
            return
        draft = self._path.with_suffix(".new")
        with draft.open("wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        _sync_folder(self._path.parent)
        self._saved = payload


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
