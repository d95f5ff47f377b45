"""Is this a JPEG that can be decoded safely? Answered from its markers, without decoding.

An image of a few kilobytes can claim gigabytes of pixels, so its size is read from the frame header (SOF) and held
against a limit first. The decoder must see the same frame header: what may stand before it is named, and everything
else is refused, because a decoder steps over some markers without a length and over others with one. An image of many
scans goes through all its pixels once for every scan, and a scan may take ten bytes: they are counted.

So a decoder's memory and time are bounded. That the picture data themselves are whole is not known here: whoever
decodes must expect a broken picture. It must also pass `IMREAD_IGNORE_ORIENTATION`, since boxes are in pixels of the
stored image. Source: ITU-T T.81, annex B.
"""

from typing import Final

from edge.contract.errors import UnusableError

MAX_PIXELS: Final = 16_000_000
MAX_SIDE: Final = 16384  # what a finding can say
MAX_SCANS: Final = 20  # a usual progressive JPEG has about 10
_MAX_SEGMENTS: Final = 256
_PROGRESSIVE: Final = 0xC2
_DECODABLE_SOF: Final = frozenset({0xC0, 0xC1, _PROGRESSIVE})
_SOS: Final = 0xDA
# Huffman and quantization tables, restart interval, comment, application data.
_BESIDE_A_FRAME: Final = frozenset({0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)})


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """Return width and height.

    Raises `UnusableError` on anything but a whole 8-bit grey or colour JPEG of at most `MAX_PIXELS`, sides `MAX_SIDE`.
    """
    if not jpeg.startswith(b"\xff\xd8\xff"):
        msg = f"not a JPEG: it starts with {jpeg[:4].hex()}"
        raise UnusableError(msg)
    if not jpeg.endswith(b"\xff\xd9"):
        msg = "the JPEG has no end: it was cut off"
        raise UnusableError(msg)
    size: tuple[int, int] | None = None
    channels, many_scans = 0, False
    at, end = 2, len(jpeg) - 5
    for _ in range(_MAX_SEGMENTS):
        while at < end and jpeg[at] == jpeg[at + 1] == 0xFF:
            at += 1
        if at > end or jpeg[at] != 0xFF:
            break
        marker, length = jpeg[at + 1], jpeg[at + 2] << 8 | jpeg[at + 3]
        if marker in _DECODABLE_SOF and size is None:
            frame = jpeg[at + 4 : at + 2 + length]
            size = _frame_size(frame)
            channels, many_scans = frame[5], marker == _PROGRESSIVE
        elif marker == _SOS and size is not None:
            if many_scans or jpeg[at + 4] != channels:
                _require_few_scans(jpeg, at)
            return size
        elif marker not in _BESIDE_A_FRAME or length < 2:
            break
        at += 2 + length
    msg = "the JPEG has no usable frame header" if size is None else "the JPEG has no usable scan"
    raise UnusableError(msg)


def _require_few_scans(jpeg: bytes, at: int) -> None:
    # In picture data FF is never followed by DA: this counts every scan, and at worst something that is none.
    scans = jpeg.count(b"\xff\xda", at)
    if scans > MAX_SCANS:
        msg = f"the JPEG has {scans} scans, the limit is {MAX_SCANS}"
        raise UnusableError(msg)


def _frame_size(segment: bytes) -> tuple[int, int]:
    if len(segment) < 6 or segment[0] != 8 or segment[5] not in {1, 3}:
        msg = "the JPEG is not 8-bit grey or colour"
        raise UnusableError(msg)
    height, width = int.from_bytes(segment[1:3], "big"), int.from_bytes(segment[3:5], "big")
    if not 0 < width * height <= MAX_PIXELS:
        msg = f"the JPEG has {width}x{height} pixels, the limit is {MAX_PIXELS}"
        raise UnusableError(msg)
    if max(width, height) > MAX_SIDE:
        msg = f"the JPEG has {width}x{height} pixels, a side may have {MAX_SIDE}"
        raise UnusableError(msg)
    return width, height
