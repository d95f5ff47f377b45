"""The quality that a JPEG was written with, told by its quantization tables.

libjpeg scales the tables of the standard's annex K by the quality, 1..100; nearly every encoder does as it does.
"""

from typing import Final

_STANDARD: Final = (  # of luminance, in zigzag order
    16, 11, 12, 14, 12, 10, 16, 14, 13, 14, 18, 17, 16, 19, 24, 40, 26, 24, 22, 22, 24, 49, 35, 37, 29, 40, 58, 51, 61,
    60, 57, 51, 56, 55, 64, 72, 92, 78, 64, 68, 87, 69, 55, 56, 80, 109, 81, 87, 95, 98, 103, 104, 103, 62, 77, 113,
    121, 112, 100, 120, 92, 101, 103, 99,
)  # fmt: skip
_ENDS: Final = (0xD9, 0xDA)  # end of image, start of scan: no table comes after
_DQT: Final = 0xDB
_FAR: Final = 0.35  # of the table's sum: further off, its shape is another


def jpeg_quality(jpeg: bytes) -> int | None:
    """Return the libjpeg quality, 1..100, whose table is the nearest to the JPEG's first.

    None when there is no such table, or one of another kind. Never raises.
    """
    table = _first_table(jpeg)
    if table is None:
        return None
    total = sum(table)
    off, quality = min((sum(map(abs, map(int.__sub__, table, _table(quality)))), quality) for quality in range(1, 101))
    return quality if off <= _FAR * total else None


def _table(quality: int) -> tuple[int, ...]:
    """Return the table that libjpeg makes for a quality."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return tuple(min(255, max(1, (value * scale + 50) // 100)) for value in _STANDARD)


def _first_table(jpeg: bytes) -> tuple[int, ...] | None:
    """Return the quantization table 0, in zigzag order."""
    at = 2
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF and jpeg[at + 1] not in _ENDS:
        length = int.from_bytes(jpeg[at + 2 : at + 4])
        if jpeg[at + 1] == _DQT:
            precision, number = divmod(jpeg[at + 4], 16) if at + 4 < len(jpeg) else (1, 1)
            if precision == 0 and number == 0 and at + 69 <= len(jpeg):
                return tuple(jpeg[at + 5 : at + 69])
        at += 2 + max(2, length)
    return None
