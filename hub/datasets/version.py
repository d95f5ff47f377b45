"""A dataset version: a folder with `version.json` and `images/`, which nothing changes after it was written.

Laws:

1. The digest is of all that a training can see: labels, recipe, and of every member its sha256, its split, its
   boxes and what was looked for. The same content has the same digest; a folder whose content has another one than it
   says is refused.
2. A folder is whole or not there: it is written beside its place, flushed, and renamed. What a killed process has left
   there is removed by the next that writes: the lock of who is writing says whose it is.
3. What was looked for is said: where a label of `Member.labels` has no box there is none; of any other label nothing is
   known.
4. Of every box is known who says so.
"""

import fcntl
import hashlib
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import Label
from edge.detector.pictures import decode_jpeg
from edge.detector.written import flush_folder, write_flushed
from edge.frame import Image

Split = Literal["train", "val", "test"]
Origin = Literal["person", "review", "machine", "self"]
Xyxy = tuple[float, float, float, float]
Plain = str | int | float | bool | list[str | int]

MANIFEST: Final = "version.json"
IMAGES: Final = "images"
SCHEMA: Final = 1
_PART: Final = re.compile(r"\.[^/]+\.[0-9]+\.part")
_STEM = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,199}\Z"


class MemberBox(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One box of a member.

    Attributes:
        xyxy: pixels of the member's picture.
        origin: who says so: a person, a person's second look, a certified machine, or the detector's own second look.
        score: of a machine's box.
        ignored: uncertain: neither an object to learn nor background.
    """

    xyxy: Xyxy
    label: Label
    origin: Origin
    score: float | None = None
    ignored: bool = False


class Member(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One picture.

    Attributes:
        name: the stem of its file: `images/NAME.jpg`.
        sha256: of the file.
        width, height: pixels.
        labels: those that were looked for. Empty: a picture for replay, on which the old model says what it has always
            said, so that it is not forgotten.
        boxes: of these labels.
        by: the highest rank among those who say so; "" where nothing was looked for.
        camera: "site/device/camera"; "" for a picture from elsewhere.
        captured_at_ms: UTC; 0 where it is not known.
        event_id: of its finding; "" for one from elsewhere.
        weak_spots: of which it is.
        tags: of its finding, and of the hub, for slices.
        copy_of: the name of the member that this is a noisy copy of; "" for an original.
        noise: what was done to the copy, in order, as words with figures.
    """

    name: Annotated[str, msgspec.Meta(pattern=_STEM)]
    sha256: str
    width: Annotated[int, msgspec.Meta(ge=1)]
    height: Annotated[int, msgspec.Meta(ge=1)]
    split: Split
    labels: tuple[Label, ...] = ()
    boxes: tuple[MemberBox, ...] = ()
    by: Literal["", "person", "review", "machine", "self"] = ""
    camera: str = ""
    captured_at_ms: int = 0
    event_id: str = ""
    weak_spots: tuple[int, ...] = ()
    tags: tuple[str, ...] = ()
    copy_of: str = ""
    noise: tuple[str, ...] = ()


class Version(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `version.json` holds.

    Attributes:
        created_at_ms: UTC.
        digest: see law 1; 64 hex digits.
        parent: the digest of the version before; "" for the first.
        recipe: how the members were chosen, as names and plain values.
        labels: every label of a box, in the order of the model's.
        members: in the order of their names.
    """

    schema: int = SCHEMA
    created_at_ms: int
    digest: str
    parent: str
    recipe: dict[str, Plain]
    labels: tuple[Label, ...]
    members: tuple[Member, ...]

    def of(self, split: Split) -> tuple[Member, ...]:
        """Return the members of a split."""
        return tuple(member for member in self.members if member.split == split)


def digest_of(version: Version) -> str:
    """Return the digest that the content of a version has, whatever it says."""
    content = msgspec.structs.replace(version, digest="", parent="", created_at_ms=0)
    return hashlib.sha256(msgspec.json.encode(content, order="deterministic")).hexdigest()


def make_version(
    members: Iterable[Member],
    *,
    labels: tuple[str, ...],
    recipe: Mapping[str, Plain],
    created_at_ms: int,
    parent: str = "",
) -> Version:
    """Return a version of these members. Raises `UnusableError` for two of one name or a label that is not listed."""
    ordered = tuple(sorted(members, key=lambda member: member.name))
    _require_sound(ordered, listed=set(labels))
    bare = Version(
        created_at_ms=created_at_ms, digest="", parent=parent, recipe=dict(recipe), labels=labels, members=ordered
    )
    as_read = msgspec.json.decode(msgspec.json.encode(bare), type=Version)
    return msgspec.structs.replace(as_read, digest=digest_of(as_read))


def write_version(version: Version, folder: Path, *, jpeg_of: Callable[[Member], bytes]) -> None:
    """Write a version to a new folder. `jpeg_of` gives the bytes of a member's picture.

    Raises `UnusableError` when the folder is there, when it cannot be written, or when a picture is not the one whose
    sha256 its member states; nothing is left behind then.
    """
    if folder.exists():
        msg = f"{folder} is there already; a dataset version is never changed: name another folder"
        raise UnusableError(msg)
    remove_parts(folder.parent)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        beside.mkdir(parents=True)
        with _locked(beside):
            (beside / IMAGES).mkdir()
            for member in version.members:
                jpeg = jpeg_of(member)
                if hashlib.sha256(jpeg).hexdigest() != member.sha256:
                    msg = f"the picture {member.name} is not the one that was chosen: its sha256 differs"
                    raise UnusableError(msg)
                write_flushed(beside / IMAGES / f"{member.name}.jpg", jpeg)
            write_flushed(beside / MANIFEST, msgspec.json.format(msgspec.json.encode(version), indent=1))
            flush_folder(beside / IMAGES)
            flush_folder(beside)
            beside.rename(folder)
            flush_folder(folder.parent)
    except OSError as error:
        msg = f"cannot write the dataset version {folder}: {error.strerror}"
        raise UnusableError(msg) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed while they wrote a version have left in a folder."""
    for path in folder.glob(".*.part") if folder.is_dir() else ():
        if _PART.fullmatch(path.name) and path.is_dir() and {one.name for one in path.iterdir()} <= {IMAGES, MANIFEST}:
            try:
                with _locked(path):
                    shutil.rmtree(path, ignore_errors=True)
            except OSError:  # someone is writing it
                continue


def read_version(folder: Path) -> Version:
    """Read a version. Raises `UnusableError` when it is none, or its content is not what its digest says."""
    path = folder / MANIFEST
    try:
        version = msgspec.json.decode(path.read_bytes(), type=Version)
    except OSError as error:
        msg = f"{folder} is no dataset version: cannot read {path.name}: {error.strerror}"
        raise UnusableError(msg) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is not valid: {error}"
        raise UnusableError(msg) from error
    if digest_of(version) != version.digest:
        msg = f"{path} was changed after it was frozen: its content does not have the digest {version.digest[:12]}"
        raise UnusableError(msg)
    try:
        _require_sound(version.members, listed=set(version.labels))
    except UnusableError as error:
        msg = f"{path} is not valid: {error}"
        raise UnusableError(msg) from error
    return version


def read_jpeg(folder: Path, member: Member) -> bytes:
    """Return a member's picture. Raises `UnusableError` when it is not the one that was frozen."""
    path = folder / IMAGES / f"{member.name}.jpg"
    try:
        jpeg = path.read_bytes()
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UnusableError(msg) from error
    if hashlib.sha256(jpeg).hexdigest() != member.sha256:
        msg = f"{path} was changed after it was frozen"
        raise UnusableError(msg)
    return jpeg


def read_image(folder: Path, member: Member) -> Image:
    """Return a member's picture as BGR `[height, width, 3]`, not turned: boxes are in pixels of what is stored.

    Raises `UnusableError` when it is not the one that was frozen, or cannot be decoded.
    """
    try:
        return decode_jpeg(read_jpeg(folder, member))
    except UnusableError as error:
        msg = f"the picture {member.name} of {folder} cannot be used: {error}"
        raise UnusableError(msg) from error


def _require_sound(members: Sequence[Member], *, listed: set[str]) -> None:
    """Raise `UnusableError` for two of one name, a label that the version does not list, and a box that is none."""
    folded = Counter(member.name.casefold() for member in members)
    if twice := next((name for name, count in folded.items() if count > 1), ""):
        msg = f"two pictures of a dataset version are called {twice}"
        raise UnusableError(msg)
    for member in members:
        if unknown := {*member.labels, *(box.label for box in member.boxes)} - listed:
            msg = f"{member.name} has the label {min(unknown)!r}, which the dataset version does not list"
            raise UnusableError(msg)
        for box in member.boxes:
            x1, y1, x2, y2 = box.xyxy
            if not (all(map(math.isfinite, box.xyxy)) and x1 < x2 and y1 < y2):
                msg = f"{member.name} has a box that is none: {box.xyxy}"
                raise UnusableError(msg)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder. Raises `OSError` when another process does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)
