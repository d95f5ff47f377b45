"""Frame: one image of one camera, with its time and its number."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One captured image.

    Attributes:
        image: `[height, width, 3]` uint8, BGR as OpenCV gives it; never written to after capture.
        camera: the camera's name.
        sequence: number of the frame since the camera was started, from 0.
        captured_at_ms: UTC, milliseconds since 1970.
        time_s: monotonic seconds since the camera was started; for a recording its own clock.
    """

    image: Image
    camera: str
    sequence: int
    captured_at_ms: int
    time_s: float
