"""What an ONNX file says of itself: its inputs, its outputs and its metadata.

Read here from the file's protobuf fields, so that a device needs no `onnx` package and a file that is not a model is
refused before a runtime sees it. Field numbers are those of onnx.proto3 (onnx 1.16). Nothing is executed.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edge.contract.errors import UnusableError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

_MODEL_GRAPH, _MODEL_METADATA = 7, 14
_GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 5, 11, 12
_INITIALIZER_ELEMENT, _INITIALIZER_NAME = 2, 8
_PORT_NAME, _PORT_TYPE = 1, 2
_TYPE_TENSOR = 1
_TENSOR_ELEMENT, _TENSOR_SHAPE = 1, 2
_DIMENSION_SIZE = 1
_ELEMENT_TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}
_HALVES = {10: "float16", 16: "bfloat16"}

# other files that people try, and what to do with them
_EXPORT_FIRST = {
    ".engine": "a TensorRT engine fits one device and one version only; give the ONNX file it was built from",
    ".h5": "export it to ONNX first",
    ".onnx.data": "give the .onnx file beside it",
    ".pt": "export it to ONNX first",
    ".pth": "export it to ONNX first",
    ".tflite": "export it to ONNX first",
    ".xml": "give the ONNX file that the OpenVINO model was made from",
}


@dataclass(frozen=True, slots=True)
class Port:
    """One input or output: its name, its element type and its shape, where None is chosen at run time."""

    name: str
    element: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """An ONNX model's inputs (without its weights), outputs and metadata.

    `floats` is what most of its floating weights are: `float32`, `float16` or `bfloat16`.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    metadata: dict[str, str]
    floats: str = "float32"


def read_graph(path: Path, content: bytes) -> Graph:
    """Read the graph of an ONNX file's content. `path` names the file in errors.

    Raises `UnusableError` when the content is cut short or is not an ONNX model.
    """
    try:
        graph = _model(memoryview(content))
    except (ValueError, IndexError) as error:
        hint = _EXPORT_FIRST.get("".join(path.suffixes[-2:]), _EXPORT_FIRST.get(path.suffix, ""))
        msg = f"{path} is not an ONNX model, or it is cut short: {hint or error}"
        raise UnusableError(msg) from error
    return graph


def _model(content: memoryview) -> Graph:
    graph: memoryview | None = None
    metadata: dict[str, str] = {}
    for number, value in _fields(content):
        if number == _MODEL_GRAPH:
            graph = _submessage(value)
        elif number == _MODEL_METADATA:
            entry = dict(_fields(_submessage(value)))
            metadata[_text(entry.get(1, b""))] = _text(entry.get(2, b""))
    if graph is None:
        msg = "it holds no graph"
        raise ValueError(msg)
    parts: dict[int, list[memoryview]] = {}
    for number, value in _fields(graph):
        parts.setdefault(number, []).append(_submessage(value))
    # before IR version 4 the weights stood among the inputs too
    weights = {_name(weight, _INITIALIZER_NAME) for weight in parts.get(_GRAPH_INITIALIZER, [])}
    inputs = tuple(_port(port) for port in parts.get(_GRAPH_INPUT, []) if _name(port, _PORT_NAME) not in weights)
    outputs = tuple(_port(port) for port in parts.get(_GRAPH_OUTPUT, []))
    if not inputs or not outputs:
        msg = f"its graph has {len(inputs)} inputs and {len(outputs)} outputs"
        raise ValueError(msg)
    return Graph(inputs, outputs, metadata, _floats(parts.get(_GRAPH_INITIALIZER, [])))


def _floats(weights: list[memoryview]) -> str:
    """Return what most of the floating weights are."""
    elements = [next((value for number, value in _fields(one) if number == _INITIALIZER_ELEMENT), 0) for one in weights]
    counts = {name: elements.count(number) for number, name in {1: "float32", **_HALVES}.items()}
    return max(counts, key=lambda name: counts[name])


def _name(message: memoryview, field: int) -> str:
    """Return one text field of a message."""
    return _text(next((value for number, value in _fields(message) if number == field), b""))


def _port(value_info: memoryview) -> Port:
    tensor = _path(value_info, _PORT_TYPE, _TYPE_TENSOR)
    element = dict(_fields(tensor)).get(_TENSOR_ELEMENT, 0)
    shape: list[int | None] = []
    for _, dimension in _fields(_path(tensor, _TENSOR_SHAPE)):
        size = dict(_fields(_submessage(dimension))).get(_DIMENSION_SIZE)
        shape.append(size if isinstance(size, int) and size > 0 else None)
    known = _ELEMENT_TYPES.get(element, "other") if isinstance(element, int) else "other"
    return Port(_name(value_info, _PORT_NAME), known, tuple(shape))


def _path(message: memoryview, *fields: int) -> memoryview:
    """Follow submessages by their field numbers; what is absent is empty."""
    for field in fields:
        message = _submessage(dict(_fields(message)).get(field, memoryview(b"")))
    return message


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Walk a protobuf message: field number and value. Raises `ValueError` or `IndexError` where it is broken."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in {_FIXED32, _FIXED64}:
            size = 4 if kind == _FIXED32 else 8
        else:
            msg = f"byte {at} begins no known field"
            raise ValueError(msg)
        if number == 0 or at + size > len(message):
            msg = f"a field at byte {at} ends {at + size - len(message)} bytes past the end"
            raise ValueError(msg)
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            msg = f"a number at byte {at} is too long"
            raise ValueError(msg)


def _submessage(value: int | bytes | memoryview) -> memoryview:
    if isinstance(value, int):
        msg = "a number stands where a message belongs"
        raise ValueError(msg)  # noqa: TRY004 - the file is wrong, not the call
    return memoryview(value)


def _text(value: int | bytes | memoryview) -> str:
    return bytes(_submessage(value)).decode()
