"""Whether a picture shows anything: a closed lid, a lamp's glare, a decoder's grey show nothing.

Law: a picture whose averages over `CELLS` differ by less than `LEVELS` in every colour is blank, whatever its noise.
"""

from typing import Final

import cv2

from edge.frame import Image

CELLS: Final = (20, 15)  # columns and rows
LEVELS: Final = 8  # grey levels of 0..255
_ROWS: Final = 120  # looked at: enough for a cell's mean to lose the noise


def is_blank(image: Image) -> bool:
    """Return whether nothing can be seen in a BGR image `[height, width, 3]`."""
    step = max(1, min(image.shape[:2]) // _ROWS)
    cells = cv2.resize(image[::step, ::step], CELLS, interpolation=cv2.INTER_AREA)
    return int((cells.max(axis=(0, 1)) - cells.min(axis=(0, 1))).max()) < LEVELS
