"""Which of the images that may be trained on are held back for validation.

Validation chooses between trained models, so it must not show what training showed: of a fixed camera, two pictures of
one moment are one picture. About a fifth of a camera's days is validation, by a hash. Its first day goes by blocks of
20 s instead, a fifth of them: a camera that is new has no other day.

Laws:

1. The side depends on the camera, the time of the picture and the day on which the camera was first heard of, and on
   nothing else. So no image ever changes sides from one version to the next, however many others come.
2. Neighbours never straddle: what is to train on lies more than `APART_MS` from every time that is validation. What
   lies nearer, and is no validation itself, is on neither side.
"""

import hashlib
from typing import Final, Literal

from hub.testshare import APART_MS, BLOCK_MS

Side = Literal["train", "val"]

VAL_SHARE: Final = 0.2
DAY_MS: Final = 24 * 3600 * 1000


def side(camera: str, at_ms: int, *, first_ms: int) -> Side | None:
    """Return the side of a picture of `camera` ("site/device/camera"); None: beside validation, on neither side.

    `at_ms` and `first_ms`, when the camera was first heard of, are UTC milliseconds; days are those of UTC.
    """
    first_day = first_ms // DAY_MS
    if _is_val(camera, at_ms, first_day):
        return "val"
    near = (at_ms - APART_MS, at_ms + APART_MS)  # a block is longer than both together: no whole one lies between
    return None if any(_is_val(camera, moment, first_day) for moment in near) else "train"


def drawn(name: str) -> float:
    """Return a number of 0..1 that depends on the name only, each as likely as the others."""
    digest = hashlib.blake2b(name.encode(), digest_size=8, person=b"validation").digest()
    return int.from_bytes(digest, "big") / 2**64


def _is_val(camera: str, at_ms: int, first_day: int) -> bool:
    day = at_ms // DAY_MS
    moment = f"{camera}/block/{at_ms // BLOCK_MS}" if day == first_day else f"{camera}/day/{day}"
    return drawn(moment) < VAL_SHARE
