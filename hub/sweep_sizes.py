"""Which input sizes are worth a look: squares, and rectangles of the frames' own shape."""

import math
import re
from typing import Final

from edge.contract.errors import UnusableError
from edge.detector.letterbox import Size
from edge.detector.opening import parse_size

STEPS: Final = 7
_SMALLEST: Final = 0.4  # of the card's longer side: below, a person of 30 pixels is gone


def choose_sizes(card: Size, *, multiple: int, frame: Size) -> tuple[Size, ...]:
    """Return sizes (width, height) from the card's longer side down, at most `STEPS` of each shape.

    Squares, and the smallest rectangles that hold a frame of this shape at the same scale. All sides are multiples.
    """
    longest = max(card) // multiple * multiple
    first = math.ceil(_SMALLEST * longest / multiple) * multiple
    step = multiple * max(1, math.ceil((longest - first) / multiple / (STEPS - 1)))
    sides = range(longest, first - 1, -step)
    return tuple(dict.fromkeys(size for side in sides for size in ((side, side), _around(side, frame, multiple))))


def parse_sizes(text: str) -> tuple[Size, ...]:
    """Read sizes between commas: 192 is 192x192, 320x192 is a width and a height. Raises `UnusableError`."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        msg = "sizes are like 192,256,320x192"
        raise UnusableError(msg)
    return tuple(dict.fromkeys(parse_size(f"{word}x{word}" if re.fullmatch(r"\d+", word) else word) for word in words))


def written_size(size: Size) -> str:
    """Return WIDTHxHEIGHT."""
    return f"{size[0]}x{size[1]}"


def _around(side: int, frame: Size, multiple: int) -> Size:
    """Return the size with this longer side that holds a frame of this shape, scaled to it."""
    shorter = math.ceil(min(frame) * side / max(frame) / multiple) * multiple
    return (side, shorter) if frame[0] >= frame[1] else (shorter, side)
