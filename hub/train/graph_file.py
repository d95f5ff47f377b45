"""The ONNX file of a graph that is trained: what in it is learned, and the file with other weights.

Laws:

1. Learned is a constant whose every use is one of these: the weights and biases of Conv, ConvTranspose, Gemm, MatMul
   and of the norms (never their mean and variance), the slopes of PRelu, and what Mul or Add gives each channel
   (`[channels, 1, 1]` after a layer with weights, `[columns]` right after a MatMul). All else stays as it is: grids,
   anchors and strides of a decoding head, bounds, scales of a resize. So does a layer that takes the mean over the
   bins of a softmax.
2. What is written is the same file but for learned constants: names, order, types, shapes and metadata stay.
3. A node that cannot be trained through is named before anything runs.

Nothing is computed here. Weights that stood in a file beside come into the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edge.contract.errors import UnusableError
from edge.detector.written import write_whole
from hub.train.graph_node import Node
from hub.train.lesson import Floats

OLDEST_OPSET: Final = 7  # before it, values were broadcast by attributes

Array = NDArray[Any]
_SLOTS: Final = {
    "BatchNormalization": (1, 2),
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
}
_WEIGHTED: Final = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_MOVES: Final = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
_SIZES: Final = frozenset({"Shape", "Size"})
_FLOATS: Final = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
_ELEMENTS: Final = _FLOATS | {
    TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32, TensorProto.INT8, TensorProto.UINT8, TensorProto.BOOL,
}  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class GraphFile:
    """An ONNX file, read.

    Attributes:
        model: the whole message.
        nodes: those that compute, in the file's order, with the domain of each operator.
        constants: initializers and Constant nodes by the name of their value; float16 as float32.
        learned: the names of those that are trained, in the file's order.
        input_name: of the picture.
        output_names: in the file's order.
    """

    model: Any
    nodes: tuple[tuple[Node, str], ...]
    constants: dict[str, Array]
    learned: tuple[str, ...]
    input_name: str
    output_names: tuple[str, ...]


def read_graph_file(path: Path) -> GraphFile:
    """Read an ONNX file. Raises `UnusableError` when it cannot be read whole, or takes more than one picture."""
    model = _loaded(path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), 0)
    if opset < OLDEST_OPSET:
        msg = f"{path} has the opset {opset}; export it with opset {OLDEST_OPSET} or later"
        raise UnusableError(msg)
    tensors = constant_tensors(model)
    given = [port.name for port in model.graph.input if port.name not in tensors]
    if len(given) != 1:
        msg = f"{path} takes {' and '.join(given) or 'nothing'}; only a graph that takes one picture is trained"
        raise UnusableError(msg)
    constants = {name: _array(path, name, tensor) for name, tensor in tensors.items()}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.output[0] not in constants:
            constants[node.output[0]] = _plain_constant(path, node)
    nodes = _nodes(model, picture=given[0], opset=opset)
    learned = _learned([node for node, _ in nodes], constants)
    ordered = tuple(name for name, tensor in tensors.items() if name in learned and tensor.data_type in _FLOATS)
    outputs = tuple(port.name for port in model.graph.output)
    return GraphFile(model, nodes, constants, ordered, given[0], outputs)


def constant_tensors(model: Any) -> dict[str, Any]:
    """Return the messages of all constant tensors by the name of their value: initializers, then Constant nodes."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = next((entry.t for entry in node.attribute if entry.name == "value"), None)
            if value is not None:
                tensors[node.output[0]] = value
    return tensors


def with_weights(model: Any, weights: Mapping[str, Floats]) -> Any:
    """Return a copy of the model with other weights, each in the element type and the form that it had."""
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for name, tensor in constant_tensors(copied).items():
        if name in weights:
            before = numpy_helper.to_array(tensor)
            after = weights[name].astype(before.dtype)
            if not np.array_equal(before, after, equal_nan=True):
                for field in ("float_data", "int32_data", "raw_data"):
                    tensor.ClearField(field)
                tensor.raw_data = after.astype(after.dtype.newbyteorder("<")).tobytes()
    return copied


def write_model(model: Any, path: Path) -> None:
    """Write a model: beside its place, flushed, renamed. Raises `UnusableError`, and leaves nothing half written."""
    write_whole(path, model.SerializeToString())


def _loaded(path: Path) -> Any:
    """Read the message, with the weights that stand in files beside."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(str(path))
    except OSError as error:
        msg = f"cannot read {path}, or a file of weights that belongs beside it: {error.strerror or error}"
        raise UnusableError(msg) from error
    except onnx.checker.ValidationError as error:  # the file of weights is missing or leads elsewhere
        msg = f"cannot read the weights that belong beside {path}: {str(error).splitlines()[0]}"
        raise UnusableError(msg) from error
    except (DecodeError, ValueError) as error:
        msg = f"{path} is not an ONNX model, or it is cut short: {error}"
        raise UnusableError(msg) from error
    if model.graph.sparse_initializer:
        msg = f"{path} has sparse weights; export it with dense ones"
        raise UnusableError(msg)
    return model


def _array(path: Path, name: str, tensor: Any) -> Array:
    """Return a constant's values; float16 as float32."""
    if tensor.data_type not in _ELEMENTS:
        kind = TensorProto.DataType.Name(tensor.data_type)
        msg = f"{path}: the constant {name} is {kind}; only float32 and float16 files are trained"
        raise UnusableError(msg)
    array: Array = numpy_helper.to_array(tensor)
    return array.astype(np.float32) if tensor.data_type in _FLOATS else array


def _plain_constant(path: Path, node: Any) -> Array:
    """Return the value of a Constant node that holds plain numbers."""
    entry = node.attribute[0]
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if entry.name not in kinds:
        msg = f"{path}: the node {node.name or node.output[0]} holds a {entry.name}, which is not computed with"
        raise UnusableError(msg)
    return np.array(onnx.helper.get_attribute_value(entry), kinds[entry.name])


def _nodes(model: Any, *, picture: str, opset: int) -> tuple[tuple[Node, str], ...]:
    """Return the nodes that compute, and which of them see the picture."""
    seen = {picture}
    nodes = []
    for proto in model.graph.node:
        if proto.op_type == "Constant":
            continue
        sees = any(name in seen for name in proto.input)
        if sees and proto.op_type not in _SIZES:
            seen.update(name for name in proto.output if name)
        attributes = {entry.name: _plain(onnx.helper.get_attribute_value(entry)) for entry in proto.attribute}
        name = proto.name or (proto.output[0] if proto.output else "")
        node = Node(proto.op_type, name, tuple(proto.input), tuple(proto.output), attributes, opset, sees)
        nodes.append((node, proto.domain))
    read = {name for node, _ in nodes for name in node.inputs} | {port.name for port in model.graph.output}
    return tuple(
        (replace(node, outputs=tuple(name if name in read else "" for name in node.outputs)), domain)
        for node, domain in nodes
    )


def _plain(value: Any) -> Any:
    """Return an attribute's value without ONNX's own types."""
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return list(value) if isinstance(value, (list, tuple)) else value


def _learned(nodes: list[Node], constants: Mapping[str, Array]) -> set[str]:
    """Return the constants that law 1 names."""
    source = {name: name for name in constants}  # a constant that is only moved is still that constant
    shapes = {name: array.shape for name, array in constants.items()}
    maker = {name: node for node in nodes for name in node.outputs if name}
    after_layer: set[str] = set()
    used_well: set[str] = set()
    used_else: set[str] = set()
    for node in nodes:
        moved = source.get(node.inputs[0]) if node.inputs and node.kind in _MOVES else None
        if moved is not None:
            source |= {name: moved for name in node.outputs if name}
            if node.kind in {"Identity", "Cast"}:
                shapes |= {name: shapes[node.inputs[0]] for name in node.outputs if node.inputs[0] in shapes}
            used_else |= {source[name] for name in node.inputs[1:] if name in source}
            continue
        if node.seen and (node.kind in _WEIGHTED or any(name in after_layer for name in node.inputs)):
            after_layer.update(node.outputs)
        for at, name in enumerate(node.inputs):
            if name in source:
                good = node.seen and _is_learned(node, at, shapes=shapes, maker=maker, after_layer=after_layer)
                (used_well if good else used_else).add(source[name])
    return {name for name in used_well - used_else if constants[name].size and constants[name].ndim}


def _is_learned(
    node: Node, at: int, *, shapes: Mapping[str, tuple[int, ...]], maker: Mapping[str, Node], after_layer: set[str]
) -> bool:
    """Return whether the constant that is this node's input is one that law 1 names."""
    if at in _SLOTS.get(node.kind, ()):
        return not _means_bins(node, maker)
    if node.kind not in {"Mul", "Add"} or len(node.inputs) != 2 or node.inputs[at] not in shapes:
        return False
    other, shape = node.inputs[1 - at], shapes[node.inputs[at]]
    if len(shape) == 1:
        return shape[0] > 1 and other in maker and maker[other].kind == "MatMul"
    by_channel = shape[-2:] == (1, 1) and len(shape) in {3, 4} and shape[-3] > 1 and set(shape[:-3]) <= {1}
    return by_channel and other in after_layer


def _means_bins(node: Node, maker: Mapping[str, Node]) -> bool:
    """Return whether the node weighs the bins of a softmax, as a distance does that is told as a distribution."""
    for name in node.inputs:
        made = maker.get(name)
        while made is not None and made.kind in _MOVES:
            made = maker.get(made.inputs[0])
        if made is not None and made.kind == "Softmax" and node.kind in _WEIGHTED:
            return True
    return False
