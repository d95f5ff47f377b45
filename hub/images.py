"""Is this a JPEG that can be decoded safely? Answered from its markers, without decoding.

An image of a few kilobytes can claim gigabytes of pixels, so its size is read from the frame header (SOF) and held
against a limit first. That the picture data themselves are whole is not known here: whoever decodes does it in a
process with a memory limit, and with `IMREAD_IGNORE_ORIENTATION`, since boxes are in pixels of the stored image.
Source: ITU-T T.81, annex B.
"""

import hashlib
from typing import Final

from edge.contract.errors import UntrustedError, UnusableError

MAX_PIXELS: Final = 16_000_000
_MAX_SEGMENTS: Final = 256
_DECODABLE_SOF: Final = frozenset({0xC0, 0xC1, 0xC2})
_OTHER_SOF: Final = frozenset({0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_SOS: Final = 0xDA


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Return width and height. Raises `UnusableError` on anything but a whole 8-bit grey or colour JPEG of <= 16 MP."""
    if not jpeg.startswith(b"\xff\xd8\xff"):
        msg = f"not a JPEG: it starts with {jpeg[:4].hex()}"
        raise UnusableError(msg)
    if not jpeg.endswith(b"\xff\xd9"):
        msg = "the JPEG has no end: it was cut off"
        raise UnusableError(msg)
    at = 2
    for _ in range(_MAX_SEGMENTS):
        while jpeg[at : at + 2] == b"\xff\xff":
            at += 1
        if at + 4 > len(jpeg) or jpeg[at] != 0xFF or jpeg[at + 1] in {0, _SOS}:
            break
        marker, length = jpeg[at + 1], int.from_bytes(jpeg[at + 2 : at + 4], "big")
        if marker in _DECODABLE_SOF:
            return _frame_size(jpeg[at + 4 : at + 2 + length])
        if marker in _OTHER_SOF or length < 2:
            break
        at += 2 + length
    msg = "the JPEG has no usable frame header"
    raise UnusableError(msg)


def _frame_size(segment: bytes) -> tuple[int, int]:
    if len(segment) < 6 or segment[0] != 8 or segment[5] not in {1, 3}:
        msg = "the JPEG is not 8-bit grey or colour"
        raise UnusableError(msg)
    height, width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    if not 0 < width * height <= MAX_PIXELS:
        msg = f"the JPEG has {width}x{height} pixels, the limit is {MAX_PIXELS}"
        raise UnusableError(msg)
    return width, height


def require_jpeg(jpeg: bytes, *, width: int, height: int, sha256: bytes) -> None:
    """Check a frame against what its finding announced. Raises `UnusableError` or `UntrustedError`."""
    size = jpeg_size(jpeg)
    if size != (width, height):
        msg = f"the JPEG has {size[0]}x{size[1]} pixels, the finding says {width}x{height}"
        raise UntrustedError(msg)
    if hashlib.sha256(jpeg).digest() != sha256:
        msg = "the JPEG's SHA-256 is not the one the finding says"
        raise UntrustedError(msg)
