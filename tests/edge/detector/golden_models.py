"""Model folders with the starter model, a golden set of the bundled clip, and variants that are as the field's are."""

import functools
import hashlib
import shutil
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge.contract.card import Variant, read_card
from edge.detector.golden import write_golden
from edge.detector.opening import find_starter
from edge.detector.written import write_card

CLIP = Path(__file__).parents[3] / "deploy" / "demo" / "street.mp4"
SIZE = (192, 160)


@functools.cache
def jpegs(count: int = 8) -> dict[str, bytes]:
    """Return frames of the clip, spread over it, by name."""
    capture = cv2.VideoCapture(str(CLIP))
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    capture.release()
    step = len(frames) // count
    return {f"street-{n:03}": cv2.imencode(".jpg", frames[n * step])[1].tobytes() for n in range(count)}


def starter_folder(folder: Path, *, size=SIZE) -> Path:
    """Make a model folder with the starter model, whose card asks for `size`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(find_starter() / "starter.onnx", folder)
    card = read_card(find_starter() / "model.json")
    spec = msgspec.structs.replace(card.input, width=size[0], height=size[1])
    write_card(folder / "model.json", msgspec.structs.replace(card, input=spec, golden="", variants=()))
    return folder


def golden_folder(folder: Path, *, size=SIZE, count=8) -> Path:
    """Make a model folder with a golden set."""
    write_golden(starter_folder(folder, size=size), jpegs(count))
    return folder


def add_variant(folder: Path, name: str, content: bytes, *, precision="f32", file="", **more) -> Variant:
    """Write a variant's file and list it in the card."""
    file = file or f"{name}.onnx"
    (folder / file).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    runtimes = more.pop("runtimes", ("openvino", "onnxruntime"))
    variant = Variant(name=name, file=file, sha256=sha256, precision=precision, runtimes=runtimes, **more)
    card = read_card(folder / "model.json")
    write_card(folder / "model.json", msgspec.structs.replace(card, variants=(*card.variants, variant)))
    return variant


def scaled_scores(factor: float) -> bytes:
    """Return the starter model with its scores multiplied: 0 finds nothing."""
    model = onnx.load(find_starter() / "starter.onnx")
    for node in model.graph.node:
        for index, name in enumerate(node.output):
            if name == "heatmap":
                node.output[index] = "heatmap_as_it_was"
    model.graph.initializer.append(numpy_helper.from_array(np.float32(factor), "factor"))
    model.graph.node.append(helper.make_node("Mul", ["heatmap_as_it_was", "factor"], ["heatmap"]))
    return model.SerializeToString()
