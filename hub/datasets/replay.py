"""Pictures of anything from a folder, for replay: on them the old model's word is kept, so that it is not forgotten.

A picture is held against the limits of edge.contract.jpeg before it is decoded. A PNG becomes a JPEG; a JPEG stays as
it is. What is broken or too large is named and left out.
"""

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import msgspec
import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.jpeg import MAX_PIXELS, MAX_SIDE
from edge.contract.samples import MAX_JPEG_BYTES
from edge.detector.pictures import decode_jpeg
from hub.datasets.splits import VAL_SHARE, drawn
from hub.datasets.version import Member

MAX_PNG_BYTES: Final = 64 * 1024 * 1024
QUALITY: Final = 95
MIN_VAL: Final = 4
"""So many are validation where there are `MANY` or more."""
MANY: Final = 20
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png"})
_PNG: Final = b"\x89PNG\r\n\x1a\n"


class Replay(NamedTuple):
    """What was taken.

    Attributes:
        members: of them about a fifth validation.
        paths: of each member's picture, by its name.
        left_out: a sentence for each that cannot be used.
    """

    members: tuple[Member, ...]
    paths: dict[str, Path]
    left_out: tuple[str, ...]


def replay_of(folder: Path, count: int, *, seed: int, known: frozenset[str] = frozenset()) -> Replay:
    """Return at most `count` pictures of a folder, drawn by `seed`; those whose sha256 is `known` are passed over.

    Raises `UnusableError` when it is no folder, or has no picture that can be used.
    """
    if not folder.is_dir():
        msg = f"there is no folder {folder} to take pictures for replay from"
        raise UnusableError(msg)
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())
    random.Random(seed).shuffle(paths)  # noqa: S311 - which pictures, not a secret
    found: dict[str, tuple[Member, Path]] = {}
    left_out = []
    for path in paths:
        if len(found) == count:
            break
        try:
            jpeg = read_picture(path)
            height, width = decode_jpeg(jpeg).shape[:2]
        except UnusableError as error:
            left_out.append(f"{path} is left out: {error}")
            continue
        sha256 = hashlib.sha256(jpeg).hexdigest()
        if sha256 not in known:
            made = Member(name=f"replay-{sha256[:24]}", sha256=sha256, width=width, height=height, split="train")
            found.setdefault(made.name, (made, path))
    if not found:
        msg = f"{folder} has no JPEG or PNG that can be used for replay"
        raise UnusableError("\n".join([msg, *left_out[:5]]))
    members = tuple(_sided([member for member, _ in found.values()]))
    return Replay(members, {name: path for name, (_, path) in found.items()}, tuple(left_out))


def read_picture(path: Path) -> bytes:
    """Return a picture as a JPEG. Raises `UnusableError` when it cannot be read, is too large or a broken PNG."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_PNG_BYTES + 1)
    except OSError as error:
        msg = f"cannot be read: {error.strerror}"
        raise UnusableError(msg) from error
    if content.startswith(_PNG):
        return _from_png(content)
    if len(content) > MAX_JPEG_BYTES:
        msg = f"it has more than {MAX_JPEG_BYTES // 2**20} MB"
        raise UnusableError(msg)
    return content


def _from_png(content: bytes) -> bytes:
    if len(content) > MAX_PNG_BYTES:
        msg = f"it has more than {MAX_PNG_BYTES // 2**20} MB"
        raise UnusableError(msg)
    if content[12:16] != b"IHDR" or len(content) < 24:
        msg = "broken PNG"
        raise UnusableError(msg)
    width, height = int.from_bytes(content[16:20], "big"), int.from_bytes(content[20:24], "big")
    if not 0 < width * height <= MAX_PIXELS or max(width, height) > MAX_SIDE:
        msg = f"the PNG has {width}x{height} pixels, the limit is {MAX_PIXELS}, {MAX_SIDE} a side"
        raise UnusableError(msg)
    try:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        msg = f"broken PNG: {error.err}"
        raise UnusableError(msg) from error
    if image is None or image.shape[:2] != (height, width):
        msg = "broken PNG"
        raise UnusableError(msg)
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _sided(members: list[Member]) -> Iterator[Member]:
    """Yield them with their sides, in the order of their draw: the least are validation."""
    ordered = sorted(members, key=lambda one: drawn(one.sha256))
    least = MIN_VAL if len(ordered) >= MANY else 0
    val = max(least, sum(drawn(one.sha256) < VAL_SHARE for one in ordered))
    for at, member in enumerate(ordered):
        yield member if at >= val else msgspec.structs.replace(member, split="val")
