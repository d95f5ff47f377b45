"""Small ONNX graphs that give planted outputs, whatever image they see: one for each layout that a head decodes."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
CAR, DOG = 1, 2


def save_graph(
    path: Path,
    outputs: dict[str, np.ndarray],
    *,
    image_shape=(1, 3, 64, 96),
    element=TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
    other_inputs: dict[str, np.ndarray] | None = None,
    size_scales: str | None = None,
) -> Path:
    """Write a graph whose outputs are constants, added to an image's mean times zero.

    `image_shape` may hold names for dimensions that are chosen at run time. `size_scales` names an output that is
    multiplied by the input `orig_target_sizes`, width and height repeated.
    """
    nodes = [
        helper.make_node("Cast", ["images"], ["as_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["as_float"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
    ]
    weights = [numpy_helper.from_array(np.float32(0), "zero")]
    inputs = [helper.make_tensor_value_info("images", element, list(image_shape))]
    inputs += [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), list(array.shape))
        for name, array in (other_inputs or {}).items()
    ]
    ports = []
    for name, array in outputs.items():
        weights.append(numpy_helper.from_array(array.astype(np.float32), f"planted_{name}"))
        source = f"{name}_float"
        nodes.append(helper.make_node("Add", [f"planted_{name}", "nothing"], [source]))
        if name == size_scales:
            nodes += [
                helper.make_node("Cast", ["orig_target_sizes"], ["sizes"], to=TensorProto.FLOAT),
                helper.make_node("Concat", ["sizes", "sizes"], ["sizes_twice"], axis=1),
                helper.make_node("Mul", [source, "sizes_twice"], [f"{name}_scaled"]),
            ]
            source = f"{name}_scaled"
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        nodes.append(helper.make_node("Cast", [source], [name], to=kind))
        ports.append(helper.make_tensor_value_info(name, kind, list(array.shape)))
    graph = helper.make_graph(nodes, "made", inputs, ports, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def cells(size: tuple[int, int]) -> list[tuple[int, int, int]]:
    """List stride, column and row of every cell, in the order of the exports."""
    width, height = size
    return [(s, c, r) for s in STRIDES for r in range(height // s) for c in range(width // s)]


def yolox_decoded(size, planted, *, classes=4) -> np.ndarray:
    """`[1, cells, 5 + classes]` in pixels; `planted` holds (cell, cx, cy, w, h, objectness, class, class score)."""
    rows = np.zeros((1, len(cells(size)), 5 + classes), np.float32)
    for index, (stride, column, row) in enumerate(cells(size)):
        rows[0, index, :4] = (column * stride, row * stride, stride, stride)
    for index, cx, cy, w, h, objectness, class_id, score in planted:
        rows[0, index, :5] = (cx, cy, w, h, objectness)
        rows[0, index, 5 + class_id] = score
    return rows


def yolox_raw(size, planted, *, classes=4) -> np.ndarray:
    """The same boxes as the export without decoding gives them: offsets in cells, logarithms of sizes."""
    rows = yolox_decoded(size, planted, classes=classes)
    for index, (stride, column, row) in enumerate(cells(size)):
        rows[0, index, 0] = rows[0, index, 0] / stride - column
        rows[0, index, 1] = rows[0, index, 1] / stride - row
        rows[0, index, 2:4] = np.log(rows[0, index, 2:4] / stride)
    return rows


def yolo_cells(size, planted, *, classes=4) -> np.ndarray:
    """`[1, 4 + classes, cells]`; `planted` holds (cell, cx, cy, w, h, class, score)."""
    table = np.zeros((1, 4 + classes, len(cells(size))), np.float32)
    for index, cx, cy, w, h, class_id, score in planted:
        table[0, :4, index] = (cx, cy, w, h)
        table[0, 4 + class_id, index] = score
    return table


def yolo_finished(planted, *, rows=300) -> np.ndarray:
    """`[1, rows, 6]`; `planted` holds (x1, y1, x2, y2, score, class)."""
    table = np.zeros((1, rows, 6), np.float32)
    table[0, : len(planted)] = planted
    return table


def centernet_maps(size, planted, *, classes=4) -> dict[str, np.ndarray]:
    """`heatmap` and `wh` at stride 4; `planted` holds (column, row, class, score, left, top, right, bottom)."""
    width, height = size
    heatmap = np.zeros((1, classes, height // 4, width // 4), np.float32)
    sides = np.zeros((1, 4, height // 4, width // 4), np.float32)
    for column, row, class_id, score, *distances in planted:
        heatmap[0, class_id, row, column] = score
        sides[0, :, row, column] = distances
    return {"heatmap": heatmap, "wh": sides}


def detr_raw(planted, *, queries=20, classes=4) -> dict[str, np.ndarray]:
    """`logits` and `pred_boxes`; `planted` holds (query, class, score, cx, cy, w, h), boxes as fractions."""
    logits = np.full((1, queries, classes), -9, np.float32)
    boxes = np.full((1, queries, 4), 0.5, np.float32)
    for query, class_id, score, *box in planted:
        logits[0, query, class_id] = np.log(score / (1 - score))
        boxes[0, query] = box
    return {"logits": logits, "pred_boxes": boxes}
