"""What an unfinished training was asked for, so that the same command finds it again.

A training that freezes its own dataset version would freeze another one the second time. So the version is noted beside
the unfinished candidate, with the words that it was frozen for.
"""

from pathlib import Path
from typing import Final

import msgspec

from edge.contract.errors import UnusableError
from edge.detector.written import write_whole
from hub.datasets.version import MANIFEST
from hub.train.checkpoint import part_of

_NOTE: Final = "asked.json"
_PART: Final = ".part"


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, as words, and the folder of the dataset version that was frozen for it."""

    asked: dict[str, str]
    folder: str


class Unfinished(msgspec.Struct, frozen=True, kw_only=True):
    """A training that did not end: its candidate-to-be, and its dataset version's folder."""

    out: Path
    folder: Path


def remember(out: Path, asked: dict[str, str], folder: Path) -> None:
    """Note that the training of `out` was asked for in these words. Raises `UnusableError` when it cannot be noted."""
    note = Note(asked=asked, folder=str(folder.absolute()))
    part = part_of(out)
    try:
        part.mkdir(parents=True, exist_ok=True)
        write_whole(part / _NOTE, msgspec.json.format(msgspec.json.encode(note), indent=1))
    except OSError as error:
        msg = f"cannot write in {part}: {error.strerror}"
        raise UnusableError(msg) from error


def find_unfinished(asked: dict[str, str], *, out: Path | None, candidates: Path) -> Unfinished | None:
    """Return the training that these words began: of `out`, or of any candidate in the folder `candidates`."""
    parts = [part_of(out)] if out is not None else sorted(candidates.glob(f"*{_PART}"))
    for part in parts:
        try:
            note = msgspec.json.decode((part / _NOTE).read_bytes(), type=Note)
        except (OSError, msgspec.DecodeError, UnicodeDecodeError):
            continue  # it was begun with --dataset, or it is none
        folder = Path(note.folder)
        if note.asked == asked and (folder / MANIFEST).is_file():
            return Unfinished(out=part.with_name(part.name.removesuffix(_PART)), folder=folder)
    return None
