"""YOLO as Ultralytics exports it since v8: one output, in input pixels, scores after the sigmoid.

Without NMS `[1, 4 + classes, cells]`: centre x, centre y, width, height, then a score for each class (v8, v9, v11).
With built-in NMS, or from the models that need none (v10, v26), `[1, boxes, 6]`: left, top, right, bottom, score,
class; rows that are not used have the score 0.
Source: docs.ultralytics.com, and `Detect` and `NMSModel` in github.com/ultralytics/ultralytics.
Tested on made graphs of this layout only.
"""

import numpy as np

from edge.contract.card import HeadName, InputSpec
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

NAME: HeadName = "yolo"
LAYOUT = "one output [1, 4 + classes, cells], or with NMS [1, boxes, 6]"
INPUT = InputSpec(width=640, height=640, std=(255.0, 255.0, 255.0), letterbox="center")

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
_NMS_IOU = 0.7  # Ultralytics' own default
_NMS_CANDIDATES = 1000
_SIDES = 4
_FINISHED_COLUMNS = 6
_MOST_FINISHED = 1000


def recognises(shapes: Shapes, input_size: Size) -> bool:
    """Return whether the only output has one column for each cell, or finished boxes in rows of six. See `Head`."""
    table = only_table(shapes)
    if table is None:
        return False
    rows, columns = table
    cells = {cell_count(input_size, strides) for strides in _STRIDES}
    if columns == _FINISHED_COLUMNS:
        return rows <= _MOST_FINISHED and rows not in cells
    return rows > _SIDES and columns in cells


def class_count(shapes: Shapes) -> int | None:
    """Return the rows after the first four; finished boxes do not say. See `Head`."""
    rows, columns = only_table(shapes) or (0, 0)
    if columns == _FINISHED_COLUMNS:
        return None
    if rows <= _SIDES:
        raise wrong_layout(NAME, LAYOUT, shapes)
    return rows - _SIDES


def decode(outputs: Outputs, *, input_size: Size, score_threshold: float) -> Detections:
    """Return the boxes that reach the threshold, after NMS in each class. See `Head`."""
    del input_size  # these outputs are in input pixels already
    rows: Floats = next(iter(outputs.values()))[0]
    if rows.shape[1] == _FINISHED_COLUMNS:  # an input has never so few cells
        rows = rows[reaches(rows[:, 4], score_threshold)]
        with np.errstate(invalid="ignore"):  # a class that is NaN stands in a row that is
            return best_first(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int32))
    best = rows[_SIDES:].max(axis=0)
    cell = np.flatnonzero(reaches(best, score_threshold))
    class_id = rows[_SIDES:, cell].argmax(axis=0).astype(np.int32)
    found = best_first(corners(rows[:_SIDES, cell].T), best[cell], class_id, limit=_NMS_CANDIDATES)
    return nms(found, iou_threshold=_NMS_IOU, limit=MAX_BOXES)
