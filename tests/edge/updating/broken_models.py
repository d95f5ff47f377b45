"""Model folders with the starter model, spoiled as the field spoils them, and frames to judge them on."""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge.config import CameraConfig, EdgeConfig
from edge.contract.card import read_card
from edge.detector.opening import find_starter
from edge.detector.written import write_card
from edge.frame import Frame
from tests.edge.detector.golden_models import CLIP, starter_folder

SIZE = (192, 160)
PERIOD_S = 0.2
BEGUN_MS = 1_700_000_000_000

Spoil = Callable[[onnx.GraphProto], None]


@functools.cache
def images(count: int = 160) -> list[np.ndarray]:
    """Return every second frame of the bundled clip, half as wide and high."""
    capture = cv2.VideoCapture(str(CLIP))
    found = []
    while len(found) < count and (read := capture.read())[0]:
        found.append(cv2.resize(read[1], (384, 288), interpolation=cv2.INTER_AREA))
        capture.grab()
    capture.release()
    return found


def frame(index: int, *, camera: str = "gate") -> Frame:
    """Return the clip's frame, which begins anew at its end."""
    seen = images()
    now_s = index * PERIOD_S
    return Frame(seen[index % len(seen)], camera, index, BEGUN_MS + round(now_s * 1e3), now_s)


def device(folder: Path, **more) -> EdgeConfig:
    """Return the configuration of a device whose model is the starter at `SIZE`."""
    (folder / "data").mkdir(exist_ok=True)
    model = {"path": str(starter_folder(folder / "factory", size=SIZE))}
    cameras = tuple(CameraConfig(name=name, source="never.mp4") for name in more.pop("cameras", ("gate",)))
    config = msgspec.convert({"site": "yard", "device": "one", "model": {}}, EdgeConfig)
    chosen = msgspec.structs.replace(config.model, path=Path(model["path"]), threads=1)
    return msgspec.structs.replace(config, data_dir=folder / "data", camera=cameras, model=chosen, **more)


def spoiled(folder: Path, spoil: Spoil) -> Path:
    """Make a model folder whose graph was changed; the card fits it, as a release's does."""
    starter_folder(folder, size=SIZE)
    model = onnx.load(find_starter() / "starter.onnx")
    spoil(model.graph)
    content = model.SerializeToString()
    (folder / "starter.onnx").write_bytes(content)
    card = read_card(folder / "model.json")
    sha256 = hashlib.sha256(content).hexdigest()
    write_card(folder / "model.json", msgspec.structs.replace(card, sha256=sha256, release="starter-2"))
    return folder


def _behind_scores(graph: onnx.GraphProto, nodes: list[onnx.NodeProto], **constants: np.ndarray) -> None:
    """Put nodes between the scores, now called `scores`, and the output `heatmap`."""
    for node in graph.node:
        for index, name in enumerate(node.output):
            if name == "heatmap":
                node.output[index] = "scores"
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    graph.node.extend(nodes)


def times(factor: float) -> Spoil:
    """All scores multiplied: 0 is blind."""
    return lambda graph: _behind_scores(
        graph, [helper.make_node("Mul", ["scores", "factor"], ["heatmap"])], factor=np.float32(factor)
    )


def sees_everything(graph: onnx.GraphProto) -> None:
    """Scores of .05 become .55: clutter is detected."""
    _behind_scores(graph, [helper.make_node("Pow", ["scores", "fifth"], ["heatmap"])], fifth=np.float32(0.2))


def not_a_number(graph: onnx.GraphProto) -> None:
    """NaN on every picture that is not of one colour: a model that is NaN on grey is not even opened."""
    name = graph.input[0].name
    nodes = [
        helper.make_node("ReduceMean", [name], ["mean"], axes=[1, 2, 3]),
        helper.make_node("Sub", [name, "mean"], ["off"]),
        helper.make_node("Mul", ["off", "off"], ["square"]),
        helper.make_node("ReduceMean", ["square"], ["variance"], axes=[1, 2, 3]),
        helper.make_node("Sub", ["some", "variance"], ["left"]),
        helper.make_node("Sqrt", ["left"], ["root"]),
        helper.make_node("Mul", ["root", "nothing"], ["zero_or_nan"]),
        helper.make_node("Add", ["scores", "zero_or_nan"], ["heatmap"]),
    ]
    _behind_scores(graph, nodes, some=np.float32(1.0), nothing=np.float32(0.0))


def slow(graph: onnx.GraphProto) -> None:
    """Twenty products of big matrices for nothing, which depend on the picture and so cannot be left out."""
    name, side = graph.input[0].name, 600
    nodes = [
        helper.make_node("ReduceMean", [name], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Add", ["matrix", "mean"], ["work0"]),
        *(helper.make_node("MatMul", [f"work{i}", "matrix"], [f"work{i + 1}"]) for i in range(20)),
        helper.make_node("ReduceMean", ["work20"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "nothing"], ["zero"]),
        helper.make_node("Add", ["scores", "zero"], ["heatmap"]),
    ]
    _behind_scores(graph, nodes, matrix=np.full((side, side), 1 / side, np.float32), nothing=np.float32(0.0))


def hangs(graph: onnx.GraphProto) -> None:
    """A loop without an end, on pictures that are not of one colour."""
    name = graph.input[0].name
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Identity", ["x"], ["y"])],
        "for_ever",
        [
            helper.make_tensor_value_info("turn", onnx.TensorProto.INT64, []),
            helper.make_tensor_value_info("go", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("on", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, []),
        ],
    )
    nodes = [
        helper.make_node("ReduceMax", [name], ["most"], keepdims=0),
        helper.make_node("ReduceMin", [name], ["least"], keepdims=0),
        helper.make_node("Greater", ["most", "least"], ["coloured"]),
        helper.make_node("Loop", ["turns", "coloured", "nothing"], ["looped"], body=body),
        helper.make_node("Add", ["scores", "looped"], ["heatmap"]),
    ]
    _behind_scores(graph, nodes, turns=np.int64(2**60), nothing=np.float32(0.0))


CRASHING = """
import os, pathlib
import edge.detector.detector as detector

open_runtime = detector.open_runtime

def crash(path, *rest, **more):
    if (pathlib.Path(path).parent / "crash").exists():
        {how}
    return open_runtime(path, *rest, **more)

detector.open_runtime = crash
"""


def crashes(folder: Path, monkeypatch, *, how: str = "os.abort()") -> Path:
    """Make a model folder whose file kills the process that loads it: a vendor's bug, by `sitecustomize`."""
    (folder / "crash").parent.mkdir(parents=True, exist_ok=True)
    (folder / "crash").touch()
    hook = folder.parent / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(CRASHING.format(how=how))
    monkeypatch.setenv("PYTHONPATH", f"{hook}:{Path(__file__).parents[3]}")
    return starter_folder(folder, size=SIZE)
