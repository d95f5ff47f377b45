"""The time in which cameras gave frames: the only one in which a release can show itself."""

import time
from collections.abc import Callable
from typing import Final

from edge.detection import Looked

DARK_S: Final = 60.0


class SeenTime:
    """A clock that stands still while no camera gives a frame: what is due by it waits for frames.

    Law: it rises by no more than the monotonic clock, and by at most `DARK_S` after the last frame. For one thread.

    Args:
        looked: what the model that serves has looked at so far.
        clock: monotonic seconds.
    """

    def __init__(self, looked: Callable[[], Looked], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._looked, self._clock = looked, clock
        self._last = looked()
        self._at_s = self._frame_s = clock()
        self._seen_s = 0.0

    def now_s(self) -> float:
        """Return the seconds so far. It is to be asked often: all time between two questions and one frame counts."""
        now_s, looked = self._clock(), self._looked()
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
