"""Cells of size and place: what overlaps a place by half or more is found without a look at the rest.

Law: where two places overlap by half or more (IoU), `cell_of` the one is in `cells_around` the other.
"""

import math
from itertools import product

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def cell_of(box: Floats) -> tuple[int, int, int, int]:
    """Return the cell of a place: its size to a power of two, and where its centre lies in steps of that size."""
    (level_x, x), (level_y, y) = (_level(box[i + 2] - box[i], (box[i] + box[i + 2]) / 2) for i in (0, 1))
    return level_x, level_y, x, y


def _level(side: float, centre: float) -> tuple[int, int]:
    level = math.frexp(side)[1]
    return level, math.floor(math.ldexp(centre, -level))


def cells_around(box: Floats) -> list[tuple[int, int, int, int]]:
    """Return every cell that can hold a place which overlaps this one by half or more.

    Its sides are then half to twice as long, and its centre is off by half a side at most.
    """
    ways: list[list[tuple[int, int]]] = []
    for i in (0, 1):
        side, centre = float(box[i + 2] - box[i]), float(box[i] + box[i + 2]) / 2
        level, reach = math.frexp(side)[1], 0.501 * side
        ways.append(
            [
                (size, step)
                for size in (level - 1, level, level + 1)
                for step in range(
                    math.floor(math.ldexp(centre - reach, -size)), math.floor(math.ldexp(centre + reach, -size)) + 1
                )
            ]
        )
    return [(level_x, level_y, x, y) for (level_x, x), (level_y, y) in product(*ways)]
