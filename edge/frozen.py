"""Whether a camera's picture stands still: it goes on delivering, and always the same picture.

A sensor has noise, so that no two pictures of it are equal, however quiet the scene; an encoder that saves bits may
repeat itself for some seconds, until its next whole picture. So the rule is: equal in every pixel looked at, for
`FROZEN_S`. Rules only: no clock, no I/O.

Laws:

1. One pixel looked at that changes, or another size, ends it.
2. A black picture is not frozen: behind a closed lid or in the dark, after an encoder that takes the noise away, a
   camera that works gives nothing else.
3. Time without pictures proves nothing: at least `MIN_EQUAL` pictures in a row must equal the one before.

What it cannot see: a camera that repeats an old picture and draws a new time on it, where a pixel looked at is part of
the time drawn.
"""

from typing import Final

import numpy as np

from edge.frame import Image

FROZEN_S: Final = 30.0
MIN_EQUAL: Final = 5
BLACK: Final = 16
_ROWS: Final = 64
_PIXELS_A_ROW: Final = 64


class FrozenPicture:
    """Watches one camera's pictures.

    Args:
        frozen_s: how long the picture must stand still.
    """

    def __init__(self, *, frozen_s: float = FROZEN_S) -> None:
        self._frozen_s = frozen_s
        self._last: tuple[int, int, bytes] | None = None
        self._since_s = 0.0
        self._equal = 0

    def update(self, image: Image, *, time_s: float) -> bool:
        """Return whether the picture stands still.

        Args:
            image: `[height, width, 3]`; every picture of the camera once, in order.
            time_s: the camera's monotonic time of this picture.
        """
        height, width = image.shape[:2]
        pixels = image[:: max(1, height // _ROWS), :: max(1, width // _PIXELS_A_ROW)].tobytes()
        seen = (height, width, pixels)
        if seen == self._last and np.frombuffer(pixels, np.uint8).max() > BLACK:
            self._equal += 1
        else:
            self._last, self._since_s, self._equal = seen, time_s, 0
        return self._equal >= MIN_EQUAL and time_s - self._since_s >= self._frozen_s
