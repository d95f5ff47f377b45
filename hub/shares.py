"""How many of some are so, and how sure that is: Wilson's 95 % interval (1927), which holds for small counts, too.

Law: under `LEAST` there is no share: no interval of `LEAST` and more is wider than .5.
"""

from typing import Final

import msgspec

LEAST: Final = 12
_Z: Final = 1.959964


class Share(msgspec.Struct, frozen=True):
    """A share, 0..1, with its interval."""

    share: float
    low: float
    high: float


def share_of(count: int, of: int) -> Share | None:
    """Return what share `count` is of `of`; None where these are too few."""
    if of < LEAST:
        return None
    trials = of + _Z**2
    centre = (count + _Z**2 / 2) / trials
    half = _Z * (count * (of - count) / of + _Z**2 / 4) ** 0.5 / trials
    return Share(round(count / of, 4), round(max(0.0, centre - half), 4), round(min(1.0, centre + half), 4))
