"""Which layers of a quantized ONNX file are in 8 bits, and the way back to float for some of them. Pure.

Both vendors write a node's inputs through QuantizeLinear and DequantizeLinear and leave the node itself as it was. So a
node is known by its first output, and is in float again when it reads what it reads in the original.

Laws:

1. With every layer put back, the file computes what the original computes.
2. A layer that is not put back keeps its ranges, its weights and its bias.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

QUANTIZE: Final = "QuantizeLinear"
DEQUANTIZE: Final = "DequantizeLinear"
_WEIGHTY: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_AGAIN: Final = "/float"

Model = Any  # onnx.ModelProto
Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Layer:
    """A node with weights, and what follows it up to the next: `nodes` are those in 8 bits, by their first output."""

    name: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """The steps of 8 bits of one tensor: `scale * (q - zero)` for whole `q` from `low` to `high`.

    `scale` and `zero` are `[1]`, or `[channels]` along `axis`.
    """

    scale: NDArray[np.float32]
    zero: NDArray[np.float32]
    low: int
    high: int
    axis: int | None

    def steps(self, values: Array) -> Array:
        """Return the nearest `q` of values."""
        shape = [1] * values.ndim
        if self.axis is not None and self.scale.size > 1:
            shape[self.axis] = -1
        scaled = (values / self.scale.reshape(shape)).astype(np.float64) + self.zero.reshape(shape)
        return np.clip(np.rint(scaled), self.low, self.high)


def is_quantized(model: Model) -> bool:
    """Whether a file computes in 8 bits already."""
    kinds = {node.op_type for node in model.graph.node}
    return bool(kinds & {QUANTIZE, DEQUANTIZE, "QLinearConv", "ConvInteger", "MatMulInteger", "FakeQuantize"})


def layers(quantized: Model, original: Model) -> tuple[Layer, ...]:
    """Return the layers that are in 8 bits, in the order of the original."""
    rounded = {node.output[0] for node in quantized.graph.node if node.op_type == DEQUANTIZE}
    changed = {node.output[0] for node, _ in _pairs(quantized, original) if rounded & set(node.input)}
    found: list[list[str]] = []
    for node in original.graph.node:
        if node.output[0] in changed:
            if node.op_type in _WEIGHTY or not found:
                found.append([])
            found[-1].append(node.output[0])
    return tuple(Layer(nodes[0], tuple(nodes)) for nodes in found)


def put_back(quantized: Model, original: Model, nodes: Collection[str]) -> Model:
    """Return the file with these nodes in float, as they were."""
    made = onnx.ModelProto()
    made.CopyFrom(quantized)
    held, meant, taken = _initializers(made), _initializers(original), _makers(made)
    for node, first in _pairs(made, original):
        if node.output[0] not in nodes:
            continue
        for at, name in enumerate(first.input):
            other = name in taken or held.get(name, meant.get(name)) != meant.get(name)  # of a vendor: a corrected bias
            node.input[at] = name + _AGAIN if name in meant and other else name
            if name in meant and node.input[at] not in held:
                constant = made.graph.initializer.add()
                constant.CopyFrom(meant[name])
                constant.name = node.input[at]
                held[constant.name] = constant
    _sweep(made)
    return made


def grids(quantized: Model, original: Model) -> dict[tuple[str, str], Grid]:
    """Return the grid of every tensor that is read in 8 bits, by the reading node's first output and its own name."""
    maker, held = _makers(quantized), _initializers(quantized)
    found = {}
    for node, first in _pairs(quantized, original):
        for at, name in enumerate(first.input):
            dequantize = maker.get(node.input[at])
            if dequantize is not None and dequantize.op_type == DEQUANTIZE:
                found[node.output[0], name] = _grid(dequantize, held)
    return found


def float_weights(quantized: Model, original: Model) -> dict[str, Array]:
    """Return the weights that the quantized file keeps in float, by their names in the original: corrected biases."""
    held, meant = _initializers(quantized), _initializers(original)
    return {
        name: numpy_helper.to_array(held[node.input[at]])
        for node, first in _pairs(quantized, original)
        for at, name in enumerate(first.input)
        if name in meant and node.input[at] in held
    }


def with_weights(quantized: Model, original: Model, weights: Mapping[str, Array]) -> Model:
    """Return the quantized file with other weights, by their names in the original, on the grids that it has."""
    made = onnx.ModelProto()
    made.CopyFrom(quantized)
    maker, held = _makers(made), _initializers(made)
    for node, first in _pairs(made, original):
        for at, name in enumerate(first.input):
            if name not in weights:
                continue
            source = maker.get(node.input[at])
            if source is not None and source.op_type == DEQUANTIZE:
                target = held[source.input[0]]
                values = _grid(source, held).steps(weights[name]).astype(numpy_helper.to_array(target).dtype)
            else:
                target = held[node.input[at]]
                values = weights[name].astype(np.float32)
            target.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), target.name))
    return made


def _pairs(quantized: Model, original: Model) -> Iterator[tuple[Any, Any]]:
    """Return each node of the original with what it has become."""
    known = {node.output[0]: node for node in quantized.graph.node}
    for first in original.graph.node:
        node = known.get(first.output[0])
        if node is None or node.op_type != first.op_type or len(node.input) != len(first.input):
            msg = f"the quantized file has no node {first.op_type} for {first.output[0]}"
            raise ValueError(msg)
        yield node, first


def _sweep(model: Model) -> None:
    """Drop the nodes and constants that nothing reads any more, and constants as inputs."""
    kept = {port.name for port in model.graph.output}
    nodes = []
    for node in reversed(model.graph.node):
        if kept & set(node.output):
            kept |= set(node.input)
            nodes.append(node)
    constants = [one for one in model.graph.initializer if one.name in kept]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(reversed(nodes))
    model.graph.initializer.extend(constants)


def _makers(model: Model) -> dict[str, Any]:
    return {name: node for node in model.graph.node for name in node.output}


def _initializers(model: Model) -> dict[str, Any]:
    return {one.name: one for one in model.graph.initializer}


def _grid(dequantize: Any, held: Mapping[str, Any]) -> Grid:
    scale = np.atleast_1d(numpy_helper.to_array(held[dequantize.input[1]])).astype(np.float32)
    stored = held.get(dequantize.input[0])
    if len(dequantize.input) > 2 and dequantize.input[2]:
        zero = numpy_helper.to_array(held[dequantize.input[2]])
    else:
        zero = np.zeros(1, np.uint8 if stored is None else numpy_helper.to_array(stored).dtype)
    axis = next((attribute.i for attribute in dequantize.attribute if attribute.name == "axis"), 1)
    limits = np.iinfo(zero.dtype)
    per_channel = scale.size > 1
    return Grid(scale, np.atleast_1d(zero).astype(np.float32), limits.min, limits.max, axis if per_channel else None)
