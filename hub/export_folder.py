"""The folder of an export on disk: what may be replaced, and how a folder appears whole or not at all.

Laws 1 and 2 of `hub.export` are kept here. What lies in an earlier folder is opened only when the export wrote a file
of that name and a regular file still stands there: a pipe would never end, a link leads elsewhere.
"""

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from edge.contract.errors import UnusableError

MANIFEST: Final = "batch.json"


class _Manifest(msgspec.Struct):
    """What an earlier export says of itself."""

    batch: int
    format: str
    files: dict[str, str]
    label_pass: str = msgspec.field(name="pass", default="")


def find_folder(out: Path, *, batch: int, fmt: str, label_pass: str) -> Path:
    """Return `out` made absolute, its links followed.

    Raises `UnusableError` unless it is absent, empty, or an untouched export of this batch and pass in this format.
    """
    try:
        out = out.resolve()
        if out.exists() and not (out.is_dir() and not any(out.iterdir())):
            _require_untouched(out, batch=batch, fmt=fmt, label_pass=label_pass)
    except RuntimeError as error:
        msg = f"{out}: a loop of symbolic links"
        raise UnusableError(msg) from error
    except OSError as error:
        msg = f"{out}: cannot be used as a folder: {error.strerror}"
        raise UnusableError(msg) from error
    return out


def write_whole(out: Path, files: Mapping[str, bytes]) -> None:
    """Write beside `out`, then put the folder in its place by renaming. Raises `UnusableError`."""
    token = secrets.token_hex(4)
    partial, old = out.with_name(f".weakspot-{token}.partial"), out.with_name(f".weakspot-{token}.old")
    try:
        for path, content in files.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            with (partial / path).open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        if out.exists():
            out.rename(old)
        partial.rename(out)
    except OSError as error:
        msg = f"{out}: cannot be written: {error.strerror}"
        raise UnusableError(msg) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.rename(out)


def _require_untouched(out: Path, *, batch: int, fmt: str, label_pass: str) -> None:
    manifest = out / MANIFEST
    try:
        if not out.is_dir() or not _is_regular(manifest):
            raise _not_ours(out)
        earlier = msgspec.json.decode(manifest.read_bytes(), type=_Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_ours(out) from error
    if (earlier.batch, earlier.format) != (batch, fmt):
        msg = f"{out} holds batch {earlier.batch} as {earlier.format}; choose another folder"
        raise UnusableError(msg)
    if earlier.label_pass != label_pass:
        held = f"the pass {earlier.label_pass}" if earlier.label_pass else "all labels at once"
        msg = f"{out} holds {held}; choose another folder"
        raise UnusableError(msg)
    for path in sorted(path for path in out.rglob("*") if path.is_symlink() or not path.is_dir()):
        name = path.relative_to(out).as_posix()
        if name == MANIFEST:
            continue
        if name not in earlier.files or not _is_regular(path) or _sha256(path) != earlier.files[name]:
            msg = f"{out}: {name} was added or changed after the export; choose another folder or move it away"
            raise UnusableError(msg)


def _not_ours(out: Path) -> UnusableError:
    return UnusableError(f"{out} is not empty and not an export; choose another folder")


def _is_regular(path: Path) -> bool:
    return stat.S_ISREG(path.lstat().st_mode)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
