"""ONNX files made for tests, and what ONNX Runtime says of them."""

import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper

from hub.train.graph import TorchGraph


def save_onnx(
    path: Path,
    nodes,
    *,
    constants: dict[str, np.ndarray] | None = None,
    image=("n", 3, "h", "w"),
    outputs=("y",),
    opset=17,
    element=TensorProto.FLOAT,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a graph from the input `x` to `outputs`, whose shapes are left open."""
    graph = helper.make_graph(
        list(nodes),
        "made",
        [helper.make_tensor_value_info("x", element, list(image))],
        [onnx.ValueInfoProto(name=name) if isinstance(name, str) else name for name in outputs],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model)
    for port in model.graph.output:
        if not port.type.WhichOneof("value"):
            port.type.tensor_type.elem_type = element
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
    return path


def run_onnx(path: Path, image: np.ndarray) -> dict[str, np.ndarray]:
    """Run a file on ONNX Runtime, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [port.name for port in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: image}), strict=True))


def picture(*shape, seed=0, low=-2.0, high=2.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def ints(*values):
    return np.array(values, np.int64)


def weights(*shape, seed=1):
    return picture(*shape, seed=seed, low=-0.7, high=0.7)


def compare(nodes, constants, image, *, opset=17, atol=1e-4):
    """Run a graph whose picture passes through a 1 x 1 convolution first, so that something in it is learned."""
    channels = image.shape[1]
    eye = np.eye(channels, dtype=np.float32).reshape(channels, channels, *[1] * (image.ndim - 2))
    first = helper.make_node("Conv", ["x", "eye"], ["seen"])
    outputs = [name for node in nodes for name in node.output if name == "y" or name.startswith("y_")]
    with tempfile.TemporaryDirectory() as folder:
        path = save_onnx(
            Path(folder) / "made.onnx",
            [first, *nodes],
            constants={"eye": eye, **constants},
            image=["n", channels, *["h", "w", "d"][: image.ndim - 2]],
            outputs=outputs,
            opset=opset,
        )
        wanted = run_onnx(path, image)
        got = TorchGraph.open(path, trained=False)(torch.from_numpy(image))
    assert set(got) == set(wanted)
    for name in outputs:
        assert tuple(got[name].shape) == wanted[name].shape
        np.testing.assert_allclose(got[name].numpy(), wanted[name], rtol=1e-3, atol=atol)


def one(kind, *constants, opset=17, after=("y",), shape=(2, 4, 7, 6), low=-2.0, high=2.0, first=None, **attributes):
    """Compare a graph of one operator: the picture, then constants (None: left out)."""
    named = {f"c{at}": array for at, array in enumerate(constants) if array is not None}
    names = ["" if array is None else f"c{at}" for at, array in enumerate(constants)]
    inputs = ["seen", *names] if first is None else [*names[:first], "seen", *names[first:]]
    node = helper.make_node(kind, inputs, list(after), **attributes)
    compare([node], named, picture(*shape, low=low, high=high), opset=opset)
