"""What a training needs to go on after it was stopped or killed: a folder beside the candidate-to-be.

`OUT.part/` holds `terms.json` (what is trained, on what, how) and `checkpoint.npz` (weights, moments, step, losses).

Laws:

1. A checkpoint is whole or not there: it is written beside its place, flushed, and renamed.
2. It is taken up on the same terms only; other terms are refused, and what differs is named.
3. One process at a time works in the folder.
4. Nothing in it is ever executed: arrays and JSON only.
"""

import fcntl
import json
import os
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.contract.errors import UnusableError
from edge.detector.written import flush_folder, write_whole
from hub.train.training import LossAt

State = dict[str, NDArray[Any] | int | float]

CHECKPOINT: Final = "checkpoint.npz"
TERMS: Final = "terms.json"
_LOCK: Final = "lock"
_ABOUT: Final = "about"


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a training's result depends on.

    Attributes:
        dataset: the digest of the dataset version, which lies in `folder`.
        model: the sha256 of the file that is trained.
        input: WIDTHxHEIGHT.
        recipe: every figure of it, the seed too.
        versions: of what trains it, by name.
    """

    dataset: str
    folder: str
    model: str
    input: str
    recipe: dict[str, Any]
    threads: int
    name: str
    new_labels: tuple[str, ...]
    versions: dict[str, str]

    def differences(self, other: "Terms") -> list[str]:
        """Return what differs, as "batch 8, now 4"; the folder may."""
        mine, theirs = _flat(self), _flat(other)
        keys = [*mine, *(key for key in theirs if key not in mine)]
        return [
            f"{key} {_short(mine.get(key))}, now {_short(theirs.get(key))}"
            for key in keys
            if mine.get(key) != theirs.get(key)
        ]


class Account(msgspec.Struct, kw_only=True):
    """What a training has cost and brought so far.

    Attributes:
        losses: of every step.
        seconds: of all runs.
        resumed: how often it went on.
        peak_bytes: the most memory of any run.
    """

    losses: list[LossAt] = msgspec.field(default_factory=list)
    seconds: float = 0.0
    resumed: int = 0
    peak_bytes: int = 0


class _About(msgspec.Struct, kw_only=True):
    terms: Terms
    account: Account
    names: list[str]
    plain: list[str]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A training as it stood."""

    state: State
    account: Account = field(default_factory=Account)


def part_of(out: Path) -> Path:
    """Return the folder of an unfinished training of the candidate `out`."""
    return out.with_name(f"{out.name}.part")


def require_free(out: Path) -> None:
    """Raise `UnusableError` when anything stands where a candidate shall."""
    if os.path.lexists(out):
        msg = f"{out} is there already; name another folder with --out"
        raise UnusableError(msg)


def start_anew(out: Path) -> None:
    """Remove an unfinished training. Raises `UnusableError` while another process works on it."""
    part = part_of(out)
    if part.exists():
        with _locked(part):
            shutil.rmtree(part, ignore_errors=True)


@contextmanager
def opened(out: Path, terms: Terms) -> Iterator[tuple[Path, Checkpoint | None]]:
    """Open the folder of a training on these terms; give it with the checkpoint to go on from, if there is one.

    When the block is left, the folder stays if it holds a checkpoint. Raises `UnusableError` when `out` is there
    already, when it was begun on other terms, when another process works in it, or when it cannot be written.
    """
    require_free(out)
    part = part_of(out)
    try:
        part.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot make the folder {part}: {error.strerror}"
        raise UnusableError(msg) from error
    with _locked(part):
        begun = read_terms(part)
        if begun is not None and (differs := begun.differences(terms)):
            msg = f"{part} was begun on other terms: {'; '.join(differs)}. --anew drops it, --out names another"
            raise UnusableError(msg)
        if begun is None:
            write_whole(part / TERMS, msgspec.json.format(msgspec.json.encode(terms), indent=1))
        found = read_checkpoint(part, terms)
        try:
            require_free(out)  # another training may have ended meanwhile
            yield part, found
        finally:
            if not (part / CHECKPOINT).exists():
                shutil.rmtree(part, ignore_errors=True)


def read_terms(part: Path) -> Terms | None:
    """Read the terms of an unfinished training; None when there is none. Raises `UnusableError` when unreadable."""
    path = part / TERMS
    try:
        return msgspec.json.decode(path.read_bytes(), type=Terms)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} cannot be read; --anew starts from the beginning"
        raise UnusableError(msg) from error


def write_checkpoint(part: Path, checkpoint: Checkpoint, *, terms: Terms) -> None:
    """Write a checkpoint over the one before. Raises `UnusableError` when it cannot be written."""
    names = list(checkpoint.state)
    plain = [name for name in names if not isinstance(checkpoint.state[name], np.ndarray)]
    about = _About(terms=terms, account=checkpoint.account, names=names, plain=plain)
    kept: dict[str, Any] = {f"a{i}": np.asarray(checkpoint.state[name]) for i, name in enumerate(names)}
    kept[_ABOUT] = np.frombuffer(msgspec.json.encode(about), np.uint8)
    path = part / CHECKPOINT
    beside = path.with_name(f".{path.name}.part")
    try:
        with beside.open("wb") as file:
            np.savez(file, **kept)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        flush_folder(part)
    except OSError as error:
        beside.unlink(missing_ok=True)
        msg = f"cannot write {path}: {error.strerror}"
        raise UnusableError(msg) from error


def read_checkpoint(part: Path, terms: Terms) -> Checkpoint | None:
    """Read the checkpoint of these terms; None when there is none.

    Raises `UnusableError` when it cannot be read or is of other terms.
    """
    path = part / CHECKPOINT
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            about = msgspec.json.decode(file[_ABOUT].tobytes(), type=_About)
            state: State = {name: file[f"a{i}"] for i, name in enumerate(about.names)}
            state |= {name: np.asarray(state[name]).item() for name in about.plain}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, msgspec.DecodeError) as error:
        msg = f"{path} cannot be read; --anew starts from the beginning"
        raise UnusableError(msg) from error
    if differs := about.terms.differences(terms):
        msg = f"{path} is of another training: {'; '.join(differs)}. --anew starts from the beginning"
        raise UnusableError(msg)
    return Checkpoint(state, about.account)


@contextmanager
def _locked(part: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with the process. Raises `UnusableError` when another holds it."""
    try:
        descriptor = os.open(part / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        msg = f"cannot write in {part}: {error.strerror}"
        raise UnusableError(msg) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        msg = f"another training works in {part}; wait for it, or name another folder with --out"
        raise UnusableError(msg) from error
    finally:
        os.close(descriptor)


def _short(value: Any) -> str:
    """Return a value as one word or few; what is a hash by its first digits."""
    if isinstance(value, str):
        return value[:12] if len(value) == 64 else (value or "none")
    if isinstance(value, list | tuple):
        return " and ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)


def plain_recipe(recipe: msgspec.Struct) -> dict[str, Any]:
    """Return every figure of a recipe as JSON has it."""
    found: dict[str, Any] = json.loads(msgspec.json.encode(recipe))
    return found


def _flat(terms: Terms) -> dict[str, Any]:
    """Return what terms differ in, by the names that a message uses."""
    fields: dict[str, Any] = json.loads(msgspec.json.encode(terms))
    told: dict[str, Any] = {name: fields[name] for name in ("dataset", "model", "input", "threads", "name")}
    told |= {"new labels": fields["new_labels"]} | fields["recipe"] | fields["versions"]
    return told
