"""The ONNX operators that a graph is trained through: one table of small functions, `(node, *inputs) -> output`.

Laws:

1. Each gives what ONNX Runtime gives, to 1e-3.
2. What is not in the table, or is asked for in a way that is not known, is said before anything runs.

Source: onnx.ai/onnx/operators, opsets 7 to 22.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch.nn import functional

from hub.train import graph_layers, graph_resize, graph_shapes
from hub.train.graph_node import Node
from hub.train.lesson import Tensor

Operator = Callable[..., Tensor]

_QUANTIZED: Final = (
    "QLinear",
    "QGemm",
    "QAttention",
    "DequantizeLinear",
    "QuantizeLinear",
    "DynamicQuantize",
    "Integer",
)
_CONTROL: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_SINGLE: Final = frozenset({"MaxPool", "BatchNormalization", "LayerNormalization", "Dropout"})


def objection(node: Node, domain: str) -> str:
    """Return why a node cannot be trained through, "" when it can."""
    if any(mark in node.kind for mark in _QUANTIZED):
        return "the file is quantized; train the float32 file that it was made from"
    if node.kind in _CONTROL:
        return "control flow is not trained through; export without it (a detector without built-in NMS)"
    if domain not in {"", "ai.onnx"} or node.kind not in OPERATORS:
        return f"the operator {node.kind}{f' of {domain}' if domain else ''} is not one that is trained through"
    if node.kind in _SINGLE and any(node.outputs[1:]):
        return "only its first output can be trained through"
    way = _WAYS[node.kind](node) if node.kind in _WAYS else ""
    return f"{way} is not one of the ways that are trained through" if way else ""


def _sum(node: Node, *values: Tensor) -> Tensor:
    """Add any number of values."""
    del node
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _greatest(node: Node, *values: Tensor) -> Tensor:
    del node
    most = values[0]
    for value in values[1:]:
        most = torch.maximum(most, value)
    return most


def _least(node: Node, *values: Tensor) -> Tensor:
    del node
    most = values[0]
    for value in values[1:]:
        most = torch.minimum(most, value)
    return most


def _divide(node: Node, a: Tensor, b: Tensor) -> Tensor:
    del node
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


def _modulo(node: Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _power(node: Node, a: Tensor, b: Tensor) -> Tensor:
    del node
    return torch.pow(a, b.item() if b.numel() == 1 and b.ndim <= a.ndim else b).to(a.dtype)


def _clip(node: Node, x: Tensor, low: Tensor = None, high: Tensor = None) -> Tensor:
    """Bound; before opset 11 the bounds are attributes."""
    least = node.get("min") if low is None else low.item()
    most = node.get("max") if high is None else high.item()
    return x if least is None and most is None else torch.clamp(x, least, most)


def _prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    del node
    return torch.where(x < 0, x * slope, x)


def _gelu(node: Node, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=node.get("approximate", "none"))


def _softmax(node: Node, x: Tensor, *, log: bool = False) -> Tensor:
    """Normalise along one dimension; before opset 13 along all from it on."""
    rule = functional.log_softmax if log else functional.softmax
    if node.opset >= 13:
        return rule(x, node.get("axis", -1))
    axis = node.get("axis", 1) % x.ndim
    return rule(x.flatten(axis), -1).reshape(x.shape)


def _hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    return torch.clamp(x * node.get("alpha", 0.2) + node.get("beta", 0.5), 0, 1)


def _given_on(node: Node, x: Tensor, *_: Tensor) -> Tensor:
    """Give the input on: dropout does nothing outside training."""
    del node
    return x


def _where(node: Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    del node
    return torch.where(condition, a, b)


def _extreme(node: Node, x: Tensor, *, rule: Callable[..., Tensor]) -> Tensor:
    """Return the index of the largest or the smallest."""
    keep = bool(node.get("keepdims", 1))
    if node.get("select_last_index", 0):
        axis = node.get("axis", 0)
        return x.shape[axis] - 1 - rule(x.flip(axis), axis, keep)
    return rule(x, node.get("axis", 0), keep)


def _top(node: Node, x: Tensor, count: Tensor = None) -> tuple[Tensor, Tensor]:
    k = (node.ints("k", count) or [node.get("k", 1)])[0]
    values, indices = torch.topk(x, k, node.get("axis", -1), bool(node.get("largest", 1)), bool(node.get("sorted", 1)))
    return values, indices


def _grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(node.get("mode", "linear"), node.get("mode", "linear"))
    corners = bool(node.get("align_corners", 0))
    return functional.grid_sample(x, grid, mode, node.get("padding_mode", "zeros"), corners)


def _einsum(node: Node, *values: Tensor) -> Tensor:
    return torch.einsum(node.attributes["equation"], *values)


def _cumulate(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    del node
    return torch.cumsum(x, int(axis.item()))


def _unary(rule: Callable[[Tensor], Tensor]) -> Operator:
    """Make an operator of a function of one value."""
    return lambda _, x: rule(x)


def _binary(rule: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """Make an operator of a function of two values that broadcasts."""
    return lambda _, a, b: rule(a, b)


def _reduced(rule: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Operator:
    """Make a reduction of a function of a value, its axes and whether they stay as size 1."""

    def reduce(node: Node, x: Tensor, axes: Tensor = None) -> Tensor:
        wanted = node.ints("axes", axes)
        if not wanted and node.get("noop_with_empty_axes", 0):
            return x
        return rule(x, tuple(wanted or range(x.ndim)), bool(node.get("keepdims", 1)))

    return reduce


def _product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001 - one of a family
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:  # noqa: FBT001 - one of a family
    return x.mean(axes, keepdim=keep)


_WAYS: Final[dict[str, Callable[[Node], str]]] = {
    "Resize": graph_resize.objection,
    "ScatterND": lambda node: "" if node.get("reduction", "none") == "none" else "reduction",
    "Upsample": graph_resize.objection,
    "AveragePool": lambda node: "dilations" if set(node.get("dilations", [1])) != {1} else "",
    "BatchNormalization": lambda node: "training_mode" if node.get("training_mode", 0) else "",
    "Cast": lambda node: "" if graph_shapes.element_type(node.attributes["to"]) else "this element type",
    "CumSum": lambda node: "exclusive or reverse" if node.get("exclusive", 0) or node.get("reverse", 0) else "",
    "Pad": lambda node: "" if node.get("mode", "constant") in {"constant", "reflect", "edge", "wrap"} else "this mode",
}

OPERATORS: Final[dict[str, Operator]] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "And": _binary(torch.logical_and),
    "ArgMax": lambda node, x: _extreme(node, x, rule=torch.argmax),
    "ArgMin": lambda node, x: _extreme(node, x, rule=torch.argmin),
    "AveragePool": graph_layers.average_pool,
    "BatchNormalization": graph_layers.batch_norm,
    "Cast": graph_shapes.cast,
    "CastLike": graph_shapes.cast_like,
    "Ceil": _unary(torch.ceil),
    "Clip": _clip,
    "Concat": graph_shapes.concat,
    "ConstantOfShape": graph_shapes.constant_of_shape,
    "Conv": graph_layers.conv,
    "ConvTranspose": graph_layers.conv_transpose,
    "Cos": _unary(torch.cos),
    "CumSum": _cumulate,
    "DepthToSpace": graph_shapes.depth_to_space,
    "Div": _divide,
    "Dropout": _given_on,
    "Einsum": _einsum,
    "Elu": lambda node, x: functional.elu(x, node.get("alpha", 1.0)),
    "Equal": _binary(torch.eq),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": graph_shapes.expand,
    "Flatten": graph_shapes.flatten,
    "Floor": _unary(torch.floor),
    "Gather": graph_shapes.gather,
    "GatherElements": graph_shapes.gather_elements,
    "GatherND": graph_shapes.gather_nd,
    "Gelu": _gelu,
    "Gemm": graph_layers.gemm,
    "GlobalAveragePool": graph_layers.global_average_pool,
    "GlobalMaxPool": graph_layers.global_max_pool,
    "Greater": _binary(torch.gt),
    "GreaterOrEqual": _binary(torch.ge),
    "GridSample": _grid_sample,
    "GroupNormalization": graph_layers.group_norm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "Identity": _unary(lambda x: x),
    "InstanceNormalization": graph_layers.instance_norm,
    "LayerNormalization": graph_layers.layer_norm,
    "LeakyRelu": lambda node, x: functional.leaky_relu(x, node.get("alpha", 0.01)),
    "Less": _binary(torch.lt),
    "LessOrEqual": _binary(torch.le),
    "Log": _unary(torch.log),
    "LogSoftmax": lambda node, x: _softmax(node, x, log=True),
    "MatMul": graph_layers.matmul,
    "Max": _greatest,
    "MaxPool": graph_layers.max_pool,
    "Mean": lambda node, *values: _sum(node, *values) / len(values),
    "Min": _least,
    "Mish": _unary(functional.mish),
    "Mod": _modulo,
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "Not": _unary(torch.logical_not),
    "Or": _binary(torch.logical_or),
    "PRelu": _prelu,
    "Pad": graph_shapes.pad,
    "Pow": _power,
    "Range": graph_shapes.count_up,
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceL1": _reduced(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": _reduced(_mean),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": _reduced(_product),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "Relu": _unary(functional.relu),
    "Reshape": graph_shapes.reshape,
    "Resize": graph_resize.resize,
    "Round": _unary(torch.round),
    "ScatterND": graph_shapes.scatter_nd,
    "Selu": lambda node, x: node.get("gamma", 1.0507010) * functional.elu(x, node.get("alpha", 1.6732632)),
    "Shape": graph_shapes.shape_of,
    "Sigmoid": _unary(torch.sigmoid),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Size": graph_shapes.size_of,
    "Slice": graph_shapes.cut,
    "Softmax": _softmax,
    "Softplus": _unary(functional.softplus),
    "Softsign": _unary(functional.softsign),
    "SpaceToDepth": graph_shapes.space_to_depth,
    "Split": graph_shapes.split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": graph_shapes.squeeze,
    "Sub": _binary(torch.sub),
    "Sum": _sum,
    "Tan": _unary(torch.tan),
    "Tanh": _unary(torch.tanh),
    "Tile": graph_shapes.tile,
    "TopK": _top,
    "Transpose": graph_shapes.transpose,
    "Unsqueeze": graph_shapes.unsqueeze,
    "Upsample": graph_resize.resize,
    "Where": _where,
    "Xor": _binary(torch.logical_xor),
}
