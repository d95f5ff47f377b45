"""The time in which cameras gave frames that can be judged: the only one in which a release can show itself.

A picture that stands still shows nothing. And whether the model that serves hangs, which is not the same as no frames.
"""

import time
from collections.abc import Callable
from typing import Final

from edge.detection import Looked

DARK_S: Final = 60.0
HANG_S: Final = 30.0
SURE_S: Final = 5.0
"""A device that stood still as a whole, for want of memory, goes on within this; a model that hangs does not."""


class SeenTime:
    """A clock that stands still while no camera gives a frame that moves: what is due by it waits for frames.

    Law: it rises by no more than the monotonic clock, and by at most `DARK_S` after the last frame. For one thread.

    Args:
        looked: what the model that serves has looked at so far.
        clock: monotonic seconds.
    """

    def __init__(self, looked: Callable[[], Looked], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._looked, self._clock = looked, clock
        self._last = _given(looked())
        self._at_s = self._frame_s = clock()
        self._seen_s = 0.0

    def now_s(self) -> float:
        """Return the seconds so far. It is to be asked often: all time between two questions and one frame counts."""
        now_s, looked = self._clock(), _given(self._looked())
        if looked != self._last:
            self._last, self._frame_s = looked, now_s
        self._seen_s += max(0.0, min(now_s, self._frame_s + DARK_S) - self._at_s)
        self._at_s = now_s
        return self._seen_s

    @property
    def is_dark(self) -> bool:
        """Whether no frame has come for `DARK_S`."""
        self.now_s()
        return self._at_s - self._frame_s >= DARK_S


class Pulse:
    """Whether the model that serves hangs: it has been at one frame for `HANG_S`, and `SURE_S` later still is.

    Args:
        beat_s: when a frame was last begun, or none was there, by the clock.
        clock: monotonic seconds.
    """

    def __init__(self, beat_s: Callable[[], float], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._beat_s, self._clock = beat_s, clock
        self._doubted: tuple[float, float] | None = None

    def hangs(self) -> bool:
        """Return whether it does. It is to be asked often."""
        beat_s, now_s = self._beat_s(), self._clock()
        if now_s - beat_s < HANG_S:
            self._doubted = None
            return False
        if self._doubted is None or self._doubted[0] != beat_s:
            self._doubted = beat_s, now_s
        return now_s - self._doubted[1] >= SURE_S


def _given(looked: Looked) -> tuple[int, int]:
    return looked.number, looked.moving
