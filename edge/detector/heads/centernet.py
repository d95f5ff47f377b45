"""CenterNet with distances to the four sides, as the starter model has it.

`heatmap` `[1, classes, rows, columns]`: scores after the sigmoid, a box at every cell that is the highest of its class
among 3 x 3 cells, so there is no NMS (Zhou et al., "Objects as Points", 2019). `wh` `[1, 4, rows, columns]`: distances
left, top, right, bottom in input pixels from the cell's place, `(column, row) * stride`. The stride is the input's side
over the map's.
"""

import numpy as np
from numpy.typing import NDArray

from edge.contract.card import HeadName, InputSpec
from edge.detector.detections import Detections, Floats
from edge.detector.heads.head import Shapes, Size, best_first, wrong_layout
from edge.detector.runtime import Outputs

NAME: HeadName = "centernet"
LAYOUT = "heatmap [1, classes, h, w] and wh [1, 4, h, w]"
INPUT = InputSpec(width=320, height=320)

_SIDES = 4


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
    return shapes[_names(shapes)[0]][1]


def decode(outputs: Outputs, *, input_size: Size, score_threshold: float) -> Detections:
    """Return the boxes at the heatmap's peaks. See `Head`."""
    heatmap_name, sides_name = _names({name: array.shape for name, array in outputs.items()})
    heatmap: Floats = outputs[heatmap_name][0]
    class_id, row, column = _peaks(heatmap, score_threshold)
    score = heatmap[class_id, row, column]
    left, top, right, bottom = outputs[sides_name][0][:, row, column]
    rows, columns = heatmap.shape[1:]
    x = column * np.float32(input_size[0] / columns)
    y = row * np.float32(input_size[1] / rows)
    xyxy = np.stack([x - left, y - top, x + right, y + bottom], axis=1).astype(np.float32)
    return best_first(xyxy, score, class_id.astype(np.int32))


def _peaks(heatmap: Floats, threshold: float) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return class, row and column of every cell that reaches the threshold and that no neighbour of its class beats.

    Thresholds first: only candidates look at their neighbours. At the border a cell stands in for what lies outside.
    """
    _, rows, columns = heatmap.shape
    scores = heatmap.reshape(-1)
    candidate = np.flatnonzero(scores >= np.float32(threshold))
    class_id, cell = np.divmod(candidate, rows * columns)
    row, column = np.divmod(cell, columns)
    up, down = np.where(row > 0, -columns, 0), np.where(row < rows - 1, columns, 0)
    left, right = np.where(column > 0, -1, 0), np.where(column < columns - 1, 1, 0)
    score = scores[candidate]
    highest = np.ones(len(candidate), np.bool_)
    for step in (left, right, up, down, up + left, up + right, down + left, down + right):
        highest &= scores[candidate + step] <= score
    return class_id[highest], row[highest], column[highest]


def _names(shapes: Shapes) -> tuple[str, str]:
    """Return the heatmap's and the sides' names."""
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
