"""RT-DETR and D-FINE: a fixed number of queries, no NMS, in one of three exports.

- raw, from Hugging Face (`logits`, `pred_boxes`) and others: logits `[1, queries, classes]` before the sigmoid, and
  boxes `[1, queries, 4]`: centre x, centre y, width, height as fractions of the input. A query may name more classes.
- finished, from the projects' `tools/export_onnx.py`: `labels` `[1, n]`, `boxes` `[1, n, 4]` with both corners,
  `scores` `[1, n]`; the second input `orig_target_sizes` (width, height) sets the boxes' unit, so it is fed the
  input's size.
- RT-DETR from Ultralytics: one output `[1, queries, 4 + classes]`, boxes as in raw, scores after the sigmoid. With two
  classes it looks like a YOLO's finished boxes and must be named in its card.

The old DETR, whose classes go through a softmax, is not this head.
Source: github.com/lyuwenyu/RT-DETR `rtdetr_postprocessor.py`, Hugging Face `RTDetrImageProcessor`, Ultralytics
`RTDETRDecoder`. Tested on made graphs of these layouts only.
"""

import math

import numpy as np

from edge.contract.card import HeadName, InputSpec
from edge.detector.detections import Detections, Floats
from edge.detector.heads.head import (
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

NAME: HeadName = "detr"
LAYOUT = "logits [1, queries, classes] and boxes [1, queries, 4], or labels, boxes and scores"
INPUT = InputSpec(width=640, height=640, std=(255.0, 255.0, 255.0), letterbox="stretch")

_FINISHED = {"labels", "boxes", "scores"}
_SIDES = 4
_MOST_QUERIES = 1000
_LEAST_COLUMNS = 7  # six columns are a YOLO's finished boxes
_CELL_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))


def recognises(shapes: Shapes, input_size: Size) -> bool:
    """Return whether these are one of the three exports. See `Head`."""
    if _is_finished(shapes) or _raw_names(shapes) is not None:
        return True
    queries, columns = only_table(shapes) or (0, 0)
    cells = {cell_count(input_size, strides) for strides in _CELL_STRIDES}
    few = 0 < queries <= _MOST_QUERIES and _LEAST_COLUMNS <= columns <= _MOST_QUERIES
    return few and not cells & {queries, columns}


def class_count(shapes: Shapes) -> int | None:
    """Return the logits' columns; finished boxes do not say. See `Head`."""
    if _is_finished(shapes):
        return None
    names = _raw_names(shapes)
    if names is not None:
        return shapes[names[0]][2]
    _, columns = only_table(shapes) or (0, 0)
    if columns <= _SIDES:
        raise wrong_layout(NAME, LAYOUT, shapes)
    return columns - _SIDES


def decode(outputs: Outputs, *, input_size: Size, score_threshold: float) -> Detections:
    """Return the boxes of the queries that reach the threshold. See `Head`."""
    shapes = {name: array.shape for name, array in outputs.items()}
    if _is_finished(shapes):
        score = outputs["scores"][0]
        reached = reaches(score, score_threshold)
        class_id = outputs["labels"][0][reached].astype(np.int32)
        return best_first(outputs["boxes"][0][reached], score[reached], class_id)
    names = _raw_names(shapes)
    if names is not None:
        logits: Floats = outputs[names[0]][0]
        query, class_id = np.nonzero(reaches(logits, _logit(score_threshold)))
        score = 1 / (1 + np.exp(-logits[query, class_id]))
        boxes: Floats = outputs[names[1]][0]
    else:
        joined: Floats = next(iter(outputs.values()))[0]
        query, class_id = np.nonzero(reaches(joined[:, _SIDES:], score_threshold))
        score = joined[query, _SIDES + class_id]
        boxes = joined[:, :_SIDES]
    unit = np.array(input_size * 2, np.float32)
    return best_first(corners(boxes[query] * unit), score.astype(np.float32), class_id.astype(np.int32))


def _logit(score: float) -> float:
    """Return the logit whose sigmoid is `score`."""
    if not 0 < score < 1:
        return -math.inf if score <= 0 else math.inf
    return math.log(score / (1 - score))


def _is_finished(shapes: Shapes) -> bool:
    return set(shapes) >= _FINISHED and len(shapes["boxes"]) == 3 and shapes["boxes"][2] == _SIDES


def _raw_names(shapes: Shapes) -> tuple[str, str] | None:
    """Return the names of logits and boxes: two outputs with one row a query, told apart by the boxes' four columns."""
    rows = {name: shape for name, shape in shapes.items() if len(shape) == 3 and shape[0] == 1}
    if len(shapes) != 2 or len(rows) != 2:
        return None
    first, second = rows
    if rows[first][1] != rows[second][1]:
        return None
    boxes = [name for name in (first, second) if rows[name][2] == _SIDES]
    if len(boxes) == 2:  # four classes: only the name can tell
        boxes = [name for name in boxes if "box" in name.lower()]
    if len(boxes) != 1:
        return None
    return (second if boxes[0] == first else first), boxes[0]
