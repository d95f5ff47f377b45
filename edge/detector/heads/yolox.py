"""YOLOX: one row a cell, `[1, cells, 5 + classes]`: centre x, centre y, width, height, objectness, class scores.

A raw export (the default of YOLOX's `tools/export_onnx.py`) leaves centre and size in units of the cell: the centre is
`(offset + cell) * stride`, the size `exp(value) * stride`. An export with `--decode_in_inference` has them in input
pixels. Both have the same shape, so the values tell: a decoded centre lies where its cell lies, an offset near 0. The
cells are those of strides 8, 16, 32 (and 64), row by row. Objectness and class scores are after the sigmoid.
Source: github.com/Megvii-BaseDetection/YOLOX, `yolox/models/yolo_head.py` and `yolox/utils/demo_utils.py`.
Tested on made graphs of this layout only.
"""

import numpy as np
from numpy.typing import NDArray

from edge.contract.card import HeadName, InputSpec
from edge.contract.errors import UnusableError
from edge.detector.detections import Detections, Floats, nms
from edge.detector.heads.head import (
    MAX_BOXES,
    Shapes,
    best_first,
    cell_count,
    corners,
    only_table,
    reaches,
    wrong_layout,
)
from edge.detector.letterbox import Size
from edge.detector.runtime import Outputs

NAME: HeadName = "yolox"
LAYOUT = "one output [1, cells, 5 + classes]"
INPUT = InputSpec(width=640, height=640, color="bgr", pad_value=114, letterbox="top_left")

_STRIDES = ((8, 16, 32), (8, 16, 32, 64))
_NMS_IOU = 0.45  # the project's own demo
_FIXED_COLUMNS = 5


def recognises(shapes: Shapes, input_size: Size) -> bool:
    """Return whether the only output has one row for each cell. See `Head`."""
    rows, columns = only_table(shapes) or (0, 0)
    return columns > _FIXED_COLUMNS and strides_of(rows, input_size) is not None


def class_count(shapes: Shapes) -> int:
    """Return the columns after the fixed five. See `Head`."""
    _, columns = only_table(shapes) or (0, 0)
    if columns <= _FIXED_COLUMNS:
        raise wrong_layout(NAME, LAYOUT, shapes)
    return columns - _FIXED_COLUMNS


def decode(outputs: Outputs, *, input_size: Size, score_threshold: float) -> Detections:
    """Return the boxes of the cells that reach the threshold, after NMS in each class. See `Head`."""
    rows: Floats = next(iter(outputs.values()))[0]
    # class scores are at most 1, so the objectness alone rules out nearly all cells
    cell = np.flatnonzero(reaches(rows[:, 4], score_threshold))
    classes = rows[cell, _FIXED_COLUMNS:]
    class_id = classes.argmax(axis=1)
    score = rows[cell, 4] * classes[np.arange(len(cell)), class_id]
    reached = reaches(score, score_threshold)
    cell = cell[reached]
    xyxy = corners(_in_pixels(rows, cell=cell, input_size=input_size))
    found = best_first(xyxy, score[reached], class_id[reached].astype(np.int32), limit=len(cell))
    return nms(found, iou_threshold=_NMS_IOU, limit=MAX_BOXES)


def _in_pixels(rows: Floats, *, cell: NDArray[np.intp], input_size: Size) -> Floats:
    """Return centre and size of the cells in input pixels, whichever export this is."""
    strides = strides_of(len(rows), input_size)
    if strides is None:
        width, height = input_size
        msg = f"the head {NAME} needs a row for each cell, but no grid over {width}x{height} has {len(rows)} cells"
        raise UnusableError(msg)
    coarsest = rows[-cell_count(input_size, strides[-1:]) :]
    if is_decoded(coarsest, input_width=input_size[0]):
        return rows[cell, :4]
    place, stride = grid_of(input_size, strides)
    centre = (rows[cell, :2] + place[cell]) * stride[cell]
    with np.errstate(over="ignore"):  # a broken model's infinity is dropped by the detector
        size = np.exp(rows[cell, 2:4]) * stride[cell]
    return np.concatenate([centre, size], axis=1)


def is_decoded(rows: Floats, *, input_width: int) -> bool:
    """Return whether rows `[cells, 5 + classes]` are in pixels already: their centres are spread, not all near 0."""
    x = rows[np.isfinite(rows[:, 0]), 0]
    return len(x) > 0 and bool(np.median(x) > input_width / 8)


def grid_of(input_size: Size, strides: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return every cell's column and row `[cells, 2]`, and its stride `[cells, 1]`."""
    width, height = input_size
    places, scales = [], []
    for stride in strides:
        columns, rows = np.meshgrid(np.arange(width // stride), np.arange(height // stride))
        places.append(np.stack([columns.ravel(), rows.ravel()], axis=1))
        scales.append(np.full((columns.size, 1), stride))
    return np.concatenate(places).astype(np.float32), np.concatenate(scales).astype(np.float32)


def strides_of(cells: int, input_size: Size) -> tuple[int, ...] | None:
    """Return the strides whose grids over an input of (width, height) have so many cells; None: no known ones do."""
    return next((strides for strides in _STRIDES if cell_count(input_size, strides) == cells), None)
