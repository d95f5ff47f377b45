"""CenterNet with distances to the four sides, as the starter model has it.

`heatmap` `[1, classes, rows, columns]`: scores after the sigmoid, a box at every cell that is the highest of its class
among 3 x 3 cells, so there is no NMS (Zhou et al., "Objects as Points", 2019). `wh` `[1, 4, rows, columns]`: distances
left, top, right, bottom in input pixels from the cell's place, `(column, row) * stride`. The stride is the input's side
over the map's.
"""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.contract.card import HeadName, InputSpec
from edge.detector.detections import Detections, Floats
from edge.detector.heads.head import Shapes, best_first, reaches, wrong_layout
from edge.detector.letterbox import Size
from edge.detector.runtime import Outputs

NAME: HeadName = "centernet"
LAYOUT = "heatmap [1, classes, h, w] and wh [1, 4, h, w]"
INPUT = InputSpec(width=320, height=320)

_SIDES = 4
_OUTWARD = np.array([-1, -1, 1, 1], np.float32)

Indices = NDArray[np.intp]


def recognises(shapes: Shapes, input_size: Size) -> bool:
    """Return whether two maps lie on one grid that divides the input. See `Head`."""
    pair = _pair(shapes)
    if pair is None:
        return False
    rows, columns = shapes[pair[0]][2:]
    width, height = input_size
    return width % columns == 0 and height % rows == 0 and width // columns == height // rows


def class_count(shapes: Shapes) -> int:
    """Return the heatmap's channels. See `Head`."""
    return shapes[names(shapes)[0]][1]


def decode(outputs: Outputs, *, input_size: Size, score_threshold: float) -> Detections:
    """Return the boxes at the heatmap's peaks. See `Head`."""
    heatmap_name, sides_name = names({name: array.shape for name, array in outputs.items()})
    heatmap: Floats = outputs[heatmap_name][0]
    sides: Floats = outputs[sides_name][0]
    grid = _grid(heatmap.shape[1], heatmap.shape[2], stride=input_size[0] // heatmap.shape[2])
    class_id, cell, score = _peaks(heatmap, grid, threshold=score_threshold)
    distances = np.take(sides.reshape(_SIDES, -1), cell, axis=1).T
    xyxy: Floats = grid.place[cell] + distances * _OUTWARD
    return best_first(xyxy, score, class_id.astype(np.int32))


def _peaks(heatmap: Floats, grid: "_Grid", *, threshold: float) -> tuple[Indices, Indices, Floats]:
    """Return class, cell and score where the threshold is reached and no neighbour of the class is higher.

    Thresholds first: only candidates look at their neighbours.
    """
    scores = heatmap.reshape(-1)
    candidate = np.flatnonzero(reaches(scores, threshold))
    score = scores[candidate]
    class_id, cell = np.divmod(candidate, grid.cells)
    beaten = (scores[candidate + np.take(grid.steps, cell, axis=1)] > score).any(axis=0)
    peak = np.flatnonzero(~beaten)
    return class_id[peak], cell[peak], score[peak]


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """What is the same for every frame, cell by cell in rows.

    Attributes:
        cells: how many there are.
        steps: `[8, cells]`, how far the eight neighbours are away in memory; 0 for one that lies outside.
        place: `[cells, 4]`, x, y, x, y of the cell in input pixels.
    """

    cells: int
    steps: Indices
    place: Floats


@functools.cache
def _grid(rows: int, columns: int, *, stride: int) -> _Grid:
    """Make the grid of one map size."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    up, down = np.where(row > 0, -columns, 0), np.where(row < rows - 1, columns, 0)
    left, right = np.where(column > 0, -1, 0), np.where(column < columns - 1, 1, 0)
    steps = np.stack([left, right, up, down, up + left, up + right, down + left, down + right])
    place = np.stack([column, row, column, row], axis=1) * stride
    return _Grid(rows * columns, steps, place.astype(np.float32))


def names(shapes: Shapes) -> tuple[str, str]:
    """Return the heatmap's and the sides' names. Raises `UnusableError` when there are no two such maps."""
    pair = _pair(shapes)
    if pair is None:
        raise wrong_layout(NAME, LAYOUT, shapes)
    return pair


def _pair(shapes: Shapes) -> tuple[str, str] | None:
    """Find the two maps: by their names, else by the four channels that one of two maps has."""
    maps = {name: shape for name, shape in shapes.items() if len(shape) == 4 and shape[0] == 1}
    if "heatmap" in maps and "wh" in maps:
        pairs = [("heatmap", "wh")]
    elif len(maps) == 2:
        first, second = maps
        pairs = [(first, second), (second, first)]
    else:
        return None
    fitting = [(a, b) for a, b in pairs if maps[b][1] == _SIDES and maps[a][2:] == maps[b][2:]]
    return fitting[0] if len(fitting) == 1 else None
