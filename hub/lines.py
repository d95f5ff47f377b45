"""What the `*_lines` modules share: times, plurals, and text that fits a terminal of `WIDTH` characters."""

import textwrap
from datetime import UTC, datetime
from typing import Final

WIDTH: Final = 80


def utc(at_ms: int) -> str:
    """Return a time to the minute, in UTC; `at_ms` is the hub's own, milliseconds since 1970."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def cut(text: str, width: int) -> str:
    """Return the text in at most `width` characters, three dots where it is longer."""
    return text if len(text) <= width else f"{text[: width - 3]}..."


def counted(number: int, word: str) -> str:
    """Return "1 image", "2 images"."""
    return f"{number} {word}{'s' * (number != 1)}"


def points(number: float) -> str:
    """Return "1 point", "1.5 points"."""
    return f"{number:g} point{'s' * (number != 1)}"


def wrapped(text: str, *, width: int = WIDTH) -> list[str]:
    """Return the text as lines, at least one; words with hyphens, such as options, stay whole."""
    return textwrap.wrap(text, width, break_on_hyphens=False) or [""]


def spell_seconds(seconds: float) -> str:
    """Return "40 seconds", "4 minutes" or "2.5 hours"."""
    if seconds < 90:
        whole = max(1, round(seconds))
        return f"{whole} second{'s' * (whole != 1)}"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"
