"""A ZIP as a mapping of its files, read in memory: nothing is unpacked onto a disk.

A ZIP comes from outside. Laws:

1. What lies outside its folder (`..`, an absolute path, a drive) or occurs twice makes the whole ZIP unusable.
2. Only files that are asked for are decompressed, and all of them together to `MAX_BYTES` at most: what the ZIP says of
   its own sizes is not believed.
3. Its list of files is read only when it is small: see `MAX_LIST_BYTES`.

What systems leave in ZIPs and folders (`__MACOSX`, `.DS_Store`) is not seen.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from edge.contract.errors import UnusableError

MAX_BYTES: Final = 512 * 1024 * 1024
MAX_FILES: Final = 65_000
MAX_LIST_BYTES: Final = 32 * 1024 * 1024

_END: Final = struct.Struct("<4s4H2LH")  # end of central directory, APPNOTE.TXT 4.3.16
_END_MARK: Final = b"PK\x05\x06"
_WIDE_MARK: Final = b"PK\x06\x07"  # a ZIP64 list stands before it
_WIDE_BYTES: Final = 20
_MAX_COMMENT: Final = 65_535
_JUNK: Final = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini", "@eaDir"})
_OUTSIDE: Final = re.compile(r"^/|^[A-Za-z]:|(^|/)\.\.(/|$)")
_ENCRYPTED: Final = 0x1
_LINK: Final = 0o120000


def is_junk(path: str) -> bool:
    """Whether a system left this file, not a person."""
    parts = PurePosixPath(path).parts
    return not _JUNK.isdisjoint(parts) or PurePosixPath(path).name.startswith("._")


def is_zip(file: Path) -> bool:
    """Whether the file begins as a ZIP does, whatever it is called."""
    try:
        with file.open("rb") as opened:
            return opened.read(4) in {b"PK\x03\x04", _END_MARK}
    except OSError:
        return False


class ZipFiles(Mapping[str, bytes]):
    """The files of a ZIP by their path, without the one folder that all of them may lie in.

    Raises `UnusableError` where a law cannot be kept, when a file is asked for at the latest.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._left = MAX_BYTES
        try:
            _require_short_list(file)
            self._zip = zipfile.ZipFile(file)  # its list is read once; closed with the last reference to it
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError, struct.error) as error:
            msg = f"{file.name}: not a whole ZIP: {error}"
            raise UnusableError(msg) from error
        self._entries = _files_of(self._zip.infolist(), file.name)

    def __getitem__(self, path: str) -> bytes:
        entry = self._entries[path]
        try:
            with self._zip.open(entry) as part:
                content = part.read(self._left + 1)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
            msg = f"{self._file.name}: {path} cannot be read: {error}"
            raise UnusableError(msg) from error
        if len(content) > self._left:
            msg = f"{self._file.name}: what is to be read of it is more than {MAX_BYTES // 2**20} MB"
            raise UnusableError(msg)
        self._left -= len(content)
        return content

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _require_short_list(file: Path) -> None:
    """Read the end of the ZIP before Python builds an object for every entry that it claims."""
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        opened.seek(max(0, size - _END.size - _MAX_COMMENT - _WIDE_BYTES))
        tail = opened.read()
    at = tail.rfind(_END_MARK)
    if at < 0 or len(tail) - at < _END.size:
        msg = "its end is missing: it was cut off"
        raise ValueError(msg)
    files, list_bytes = _END.unpack_from(tail, at)[4:6]
    if tail[max(0, at - _WIDE_BYTES) : at].startswith(_WIDE_MARK) or files > MAX_FILES or list_bytes > MAX_LIST_BYTES:
        msg = f"it has more than {MAX_FILES:,} files"
        raise ValueError(msg)


def _files_of(entries: list[zipfile.ZipInfo], name: str) -> dict[str, zipfile.ZipInfo]:
    files: dict[str, zipfile.ZipInfo] = {}
    for entry in entries:
        path = entry.filename.replace("\\", "/")
        if _OUTSIDE.search(path):
            msg = f"{name}: {entry.filename!r} lies outside the ZIP's own folder; it is not opened"
            raise UnusableError(msg)
        if entry.is_dir() or is_junk(path) or (entry.external_attr >> 16) & 0o170000 == _LINK:
            continue
        if entry.flag_bits & _ENCRYPTED:
            msg = f"{name}: {path} is encrypted; make the ZIP without a password"
            raise UnusableError(msg)
        if path in files:
            msg = f"{name}: {path} is in it twice"
            raise UnusableError(msg)
        files[path] = entry
    tops = {path.split("/", 1)[0] for path in files}
    inside = len(tops) == 1 and all("/" in path for path in files)
    return {path.split("/", 1)[1]: entry for path, entry in files.items()} if inside else files
