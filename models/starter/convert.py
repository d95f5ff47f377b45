"""Convert the npm package's TF graph-model to `starter.onnx` and write its card.

    npm pack @vladmandic/human@3.3.6 && tar -xzf vladmandic-human-3.3.6.tgz
    python models/starter/convert.py package/

Needs numpy and onnx only, no TensorFlow. What it keeps:

1. One file serves every input whose sides are multiples of 32: no shape is written
   into the graph. TF's SAME padding depends on the input's size, but every stride-2
   layer then sees even sides, so the padding is a constant (the odd pixel goes to the
   bottom and the right).
2. The graph ends at the heads. Peaks, top-k and boxes are decoded outside.
3. The same package and the same onnx release give the same bytes.

It owns every field of `model.json` but `accuracy`, which `evaluate.py` measures. It
keeps the measured values only while the model's bytes stay the same.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).resolve().parent

OPSET = 17
IR_VERSION = 9  # read by onnxruntime >= 1.18 and openvino >= 2024.4
MODEL_SOURCE = "npm @vladmandic/human 3.3.6, models/centernet"
PACKAGE_SHA256 = {
    "centernet.json":
        "bfb942eaacc5becf738d536663bc4580a0ae9e560722306e6d4dd7fe4a09de05",
    "centernet.bin":
        "1b635a15009071f506f9f2b3519b31c072c534888989f30d269ffd44734ef7ef",
}  # fmt: skip

HEATMAP = "tower_0/keypoints"
WH = "tower_0/wh"
# The output of the last bottleneck: 120 channels at stride 32. README.md says why.
FEATURES = "tower_0/MobilenetV3/expanded_conv_14/add"

LABELS = (
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck",
    "boat", "traffic light", "fire hydrant", "stop sign", "parking meter", "bench",
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra",
    "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis",
    "snowboard", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard",
    "surfboard", "tennis racket", "bottle", "wine glass", "cup", "fork", "knife",
    "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli", "carrot",
    "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed",
    "dining table", "toilet", "tv", "laptop", "mouse", "remote", "keyboard",
    "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
    "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
)  # fmt: skip

Node: TypeAlias = dict[str, Any]
Array: TypeAlias = npt.NDArray[Any]


def main() -> None:
    """Read the package, convert, check, write the model and its card."""
    parser = argparse.ArgumentParser(description="Convert the starter model to ONNX.")
    parser.add_argument("package", type=Path, help="folder of the unpacked npm package")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write into")
    arguments = parser.parse_args()

    source = read_source(arguments.package)
    model = convert(source)
    payload = model.SerializeToString(deterministic=True)
    write_atomically(arguments.out / "starter.onnx", payload)
    card = make_card(arguments.out / "model.json", payload)
    write_atomically(arguments.out / "model.json", card)

    print(f"{arguments.out / 'starter.onnx'}: {len(payload):,} bytes")
    print(f"sha256 {hashlib.sha256(payload).hexdigest()}")


def read_source(package: Path) -> Source:
    """Read topology and weights of the package's `models/centernet`."""
    files = {name: (package / "models" / name).read_bytes() for name in PACKAGE_SHA256}
    for name, expected in PACKAGE_SHA256.items():
        found = hashlib.sha256(files[name]).hexdigest()
        if found != expected:
            message = f"{name} is not that of 3.3.6: sha256 {found}, not {expected}"
            raise SystemExit(message)
    graph = json.loads(files["centernet.json"])
    nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
    (group,) = graph["weightsManifest"]
    weights = read_weights(group["weights"], files["centernet.bin"])
    return Source(nodes=nodes, weights=weights)


def read_weights(manifest: list[dict[str, Any]], payload: bytes) -> dict[str, Array]:
    """Cut the weight file into arrays, as its manifest orders them.

    Stored float16 is widened to float32. Any other quantization is refused.
    """
    weights: dict[str, Array] = {}
    offset = 0
    for entry in manifest:
        stored = entry.get("quantization", entry)["dtype"]
        if stored not in {"float16", "float32", "int32"}:
            message = f"{entry['name']}: cannot read weights stored as {stored}"
            raise SystemExit(message)
        dtype = np.dtype(stored).newbyteorder("<")
        count = int(np.prod(entry["shape"], dtype=np.int64))
        values = np.frombuffer(payload, dtype, count, offset).reshape(entry["shape"])
        weights[entry["name"]] = values.astype(entry["dtype"])
        offset += count * dtype.itemsize
    if offset != len(payload):
        message = f"the manifest names {offset} bytes, the file holds {len(payload)}"
        raise SystemExit(message)
    return weights


def convert(source: Source) -> onnx.ModelProto:
    """Turn the graph up to its heads into an ONNX model, and check it."""
    target = Target()
    pooled = target.add("GlobalAveragePool", [emit(source, target, FEATURES)])
    named = {
        emit(source, target, HEATMAP): "heatmap",
        emit(source, target, WH): "wh",
        target.add("Flatten", [pooled], axis=1): "features",
    }
    for node in target.nodes:
        node.input[:] = [named.get(name, name) for name in node.input]
        node.output[:] = [named.get(name, name) for name in node.output]

    channels = source.weights[bias_of(source, FEATURES)].size
    shapes: dict[str, list[int | str]] = {
        "images": ["batch", 3, "height", "width"],
        "heatmap": ["batch", len(LABELS), "rows", "columns"],
        "wh": ["batch", 4, "rows", "columns"],
        "features": ["batch", channels],
    }
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(target.nodes, "starter", values[:1], values[1:], target.initializers)
    model = helper.make_model(
        graph,
        producer_name="weakspot models/starter/convert.py",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET)],
    )
    helper.set_model_props(model, {"license": "MIT", "source": MODEL_SOURCE})
    onnx.checker.check_model(model, full_check=True)
    return model


def bias_of(source: Source, name: str) -> str:
    """Name the bias of the convolution that feeds this node, through additions."""
    node = source.nodes[name]
    while node["op"] == "Add":
        node = source.nodes[node["input"][0]]
    return str(node["input"][2])


def emit(source: Source, target: Target, name: str) -> str:
    """Add this node and all it needs; return the name of its ONNX tensor."""
    if name not in target.done:
        target.done[name] = emit_node(source, target, source.nodes[name])
    return target.done[name]


def emit_node(source: Source, target: Target, node: Node) -> str:  # noqa: PLR0911
    """Add one node, folding the expanded activations into single operators."""
    operator, inputs = node["op"], node.get("input", [])
    name = short(node["name"])
    match operator:
        case "Placeholder":
            return "images"
        case "Identity":
            return emit(source, target, inputs[0])
        case "Mul":
            return emit_product(source, target, node)
        case "Add" | "Relu" | "Sigmoid":
            tensors = [emit(source, target, item) for item in inputs]
            return target.add(operator, tensors, name)
        case "Mean":
            check_constant(source, inputs[1], [1, 2])
            return target.add("GlobalAveragePool", [emit(source, target, inputs[0])], name)
        case "ConcatV2":
            check_constant(source, inputs[-1], 3)
            tensors = [emit(source, target, item) for item in inputs[:-1]]
            return target.add("Concat", tensors, name, axis=1)
        case "ResizeBilinear":
            return emit_upsample(source, target, node)
        case "Conv2D" | "_FusedConv2D":
            return emit_convolution(source, target, node)
        case "DepthwiseConv2dNative" | "FusedDepthwiseConv2dNative":
            return emit_convolution(source, target, node)
    message = f"{node['name']}: operator {operator} is not known here"
    raise SystemExit(message)


def emit_product(source: Source, target: Target, node: Node) -> str:
    """Add a Mul, or the hard-swish, hard-sigmoid or scaled head that it closes.

    The package writes hard-swish as `(x * 1/6) * relu6(x + 3)` and hard-sigmoid as
    `1/6 * relu6(x + 3)`, with 1/6 rounded to float16; the operators use 1/6 itself.
    """
    left, right = node["input"]
    name = short(node["name"])
    gate = gate_input(source, right)
    if gate is not None and is_sixth(source, left):
        tensor = emit(source, target, gate)
        return target.add("HardSigmoid", [tensor], name, alpha=1 / 6, beta=0.5)
    if gate is not None and source.nodes[left]["op"] == "Mul":
        factor, swished = source.nodes[left]["input"]
        if is_sixth(source, factor) and swished == gate:
            return target.add("HardSwish", [emit(source, target, gate)], name)
    if right in source.weights:
        scale = float(source.weights[right])
        return emit_convolution(source, target, source.nodes[left], scale=scale)
    tensors = [emit(source, target, left), emit(source, target, right)]
    return target.add("Mul", tensors, name)


def gate_input(source: Source, name: str) -> str | None:
    """Return x where the node is `relu6(x + 3)`, else None."""
    node = source.nodes[name]
    if node["op"] != "Relu6":
        return None
    node = source.nodes[node["input"][0]]
    check_constant(source, node["input"][1], 3.0)
    return str(node["input"][0])


def is_sixth(source: Source, name: str) -> bool:
    """Tell whether the node is the constant 1/6, as far as float16 can say it."""
    sixth = np.float32(np.float16(1 / 6))
    return name in source.weights and bool(source.weights[name] == sixth)


def emit_upsample(source: Source, target: Target, node: Node) -> str:
    """Add a bilinear doubling by scale, so that no size is written into the graph.

    The package names the size for its own 512 x 512 input: twice that layer's input.
    """
    for flag in ("align_corners", "half_pixel_centers"):
        if node["attr"][flag]["b"]:
            message = f"{node['name']}: {flag} is not known here"
            raise SystemExit(message)
    scales = target.constant("upsample/scales", np.array([1, 1, 2, 2], np.float32))
    tensors = [emit(source, target, node["input"][0]), "", scales]
    return target.add(
        "Resize",
        tensors,
        short(node["name"]),
        mode="linear",
        coordinate_transformation_mode="asymmetric",
    )


def emit_convolution(source: Source, target: Target, node: Node, *, scale: float = 1.0) -> str:
    """Add a convolution with its bias, its SAME padding and its ReLU.

    TF stores kernels as height, width, in, out; depthwise as height, width, channels, 1.
    The package's batch normalisation is already inside weights and bias.
    """
    name = short(node["name"])
    weights = source.weights[node["input"][1]]
    depthwise = "Depthwise" in node["op"]
    kernel = weights.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
    stride = int(node["attr"]["strides"]["list"]["i"][1])
    tensors = [
        emit(source, target, node["input"][0]),
        target.constant(short(node["input"][1]), kernel * np.float32(scale)),
    ]
    if len(node["input"]) > 2:
        bias = source.weights[node["input"][2]] * np.float32(scale)
        tensors.append(target.constant(short(node["input"][2]), bias))
    same = text(node["attr"]["padding"]) == "SAME"
    before, after = same_padding(kernel.shape[2], stride) if same else (0, 0)
    output = target.add(
        "Conv",
        tensors,
        name,
        kernel_shape=kernel.shape[2:],
        strides=[stride, stride],
        pads=[before, before, after, after],
        group=len(kernel) if depthwise else 1,
    )
    fused = node["attr"].get("fused_ops", {"list": {"s": []}})["list"].get("s", [])
    operations = [text({"s": item}) for item in fused]
    if operations[1:] == ["Relu"]:
        return target.add("Relu", [output], f"{name}/Relu")
    if operations[1:]:
        message = f"{node['name']}: fused {operations} is not known here"
        raise SystemExit(message)
    return output


def same_padding(kernel: int, stride: int) -> tuple[int, int]:
    """Return TF's SAME padding before and after, for an input divisible by stride.

    >>> same_padding(3, 1), same_padding(3, 2), same_padding(5, 2)
    ((1, 1), (0, 1), (1, 2))
    """
    total = max(kernel - stride, 0)
    return total // 2, total - total // 2


def check_constant(source: Source, name: str, expected: float | list[int]) -> None:
    """Stop where a constant of the package is not what this script was written for."""
    found = source.weights[name].tolist()
    if found != expected:
        message = f"{name}: expected {expected}, found {found}"
        raise SystemExit(message)


def short(name: str) -> str:
    """Drop the prefix that the training code puts before every name."""
    return name.removeprefix("tower_0/")


def text(attribute: dict[str, str]) -> str:
    """Decode a string attribute of the graph-model."""
    return base64.b64decode(attribute["s"]).decode()


def make_card(path: Path, payload: bytes) -> bytes:
    """Return the card of these model bytes as JSON; keep what was measured on them."""
    sha256 = hashlib.sha256(payload).hexdigest()
    accuracy: list[dict[str, Any]] = []
    if path.exists():
        previous = json.loads(path.read_text())
        if previous["sha256"] == sha256:
            accuracy = previous["accuracy"]
    card = {
        "schema": 1,
        "name": "starter",
        "release": "starter-1",
        "file": "starter.onnx",
        "sha256": sha256,
        "head": "centernet",
        "input": {
            "width": 320,
            "height": 320,
            "layout": "nchw",
            "color": "rgb",
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "multiple": 32,
            "pad_value": 114,
            "letterbox": "top_left",
        },
        "labels": LABELS,
        "score_threshold": 0.3,
        "license": "MIT",
        "source": MODEL_SOURCE,
        "accuracy": accuracy,
    }
    return (json.dumps(card, indent=2) + "\n").encode()


def write_atomically(path: Path, payload: bytes) -> None:
    """Replace the file in one step: a reader sees the old bytes or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(payload)
    partial.replace(path)


@dataclasses.dataclass(frozen=True)
class Source:
    """The package's graph: nodes and weights, by name."""

    nodes: dict[str, Node]
    weights: dict[str, Array]


@dataclasses.dataclass
class Target:
    """The ONNX graph under construction."""

    nodes: list[onnx.NodeProto] = dataclasses.field(default_factory=list)
    initializers: list[onnx.TensorProto] = dataclasses.field(default_factory=list)
    done: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, operator: str, inputs: list[str], name: str = "", **attributes: Any) -> str:
        """Append a node; return the name of its only output."""
        output = name or f"features/{operator}"
        self.nodes.append(helper.make_node(operator, inputs, [output], output, **attributes))
        return output

    def constant(self, name: str, values: Array) -> str:
        """Append an initializer, once; return its name."""
        if all(existing.name != name for existing in self.initializers):
            values = np.ascontiguousarray(values, np.float32)
            self.initializers.append(numpy_helper.from_array(values, name))
        return name


if __name__ == "__main__":
    main()
