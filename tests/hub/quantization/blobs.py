"""A detector of round lights, small enough to be quantized in a test, and a dataset version of such pictures."""

import hashlib
from pathlib import Path

import cv2
import msgspec
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge.contract.card import InputSpec, ModelCard
from hub.datasets.version import Member, MemberBox, Version, make_version, write_version

SIDE = 64
SQUARE = 16
LABELS = ("blob",)


def blob_model(folder: Path, *, outlier: float = 1.0, opset: int = 17) -> Path:
    """Write a model folder. One channel before the heads is `outlier` times as large as the others, and unused."""
    rng = np.random.default_rng(0)
    stem = np.zeros((4, 3, 4, 4), np.float32)
    stem[0] = 1 / 48 / 255  # the mean, 0..1
    stem[1:] = rng.normal(0, 0.001, (3, 3, 4, 4)) / 255
    stem[3] = outlier / 48 / 255
    middle = np.zeros((4, 4, 3, 3), np.float32)
    middle[0, 0] = 1 / 9
    middle[1, 1, 1, 1] = middle[2, 2, 1, 1] = middle[3, 3, 1, 1] = 1
    heat = np.zeros((1, 4, 1, 1), np.float32)
    heat[0, 0] = 24.0
    sides = np.zeros((4, 4, 1, 1), np.float32)
    weights = {
        "stem": stem,
        "middle": middle,
        "heat": heat,
        "heat_bias": np.array([-12.0], np.float32),
        "sides": sides,
        "sides_bias": np.full(4, SQUARE / 2, np.float32),
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["images", "stem"], ["a"], strides=[4, 4], kernel_shape=[4, 4]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "middle"], ["c"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        node("Relu", ["c"], ["d"]),
        node("Conv", ["d", "heat", "heat_bias"], ["e"], kernel_shape=[1, 1]),
        node("Sigmoid", ["e"], ["heatmap"]),
        node("Conv", ["d", "sides", "sides_bias"], ["wh"], kernel_shape=[1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "blobs",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, "h", "w"])],
        [
            helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["n", 1, "y", "x"]),
            helper.make_tensor_value_info("wh", TensorProto.FLOAT, ["n", 4, "y", "x"]),
        ],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    folder.mkdir(parents=True)
    onnx.save(model, folder / "blobs.onnx")
    content = (folder / "blobs.onnx").read_bytes()
    card = ModelCard(
        name="blobs",
        release="blobs-1",
        file="blobs.onnx",
        sha256=hashlib.sha256(content).hexdigest(),
        head="centernet",
        input=InputSpec(width=SIDE, height=SIDE, multiple=4),
        labels=LABELS,
        score_threshold=0.3,
    )
    (folder / "model.json").write_bytes(msgspec.json.encode(card))
    return folder


def picture(seed: int) -> tuple[bytes, list[tuple[float, float, float, float]]]:
    """Return a JPEG with two round lights of different brightness, and where they are."""
    rng = np.random.default_rng(seed)
    image = rng.uniform(0, 30, (SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE]
    boxes = []
    for left in (0, SIDE // 2):
        middle_x, middle_y = left + int(rng.integers(10, 22)), int(rng.integers(10, SIDE - 10))
        light = rng.uniform(190, 255) * np.exp(-((x - middle_x) ** 2 + (y - middle_y) ** 2) / (2 * 6.0**2))
        image = np.maximum(image, light)
        half = SQUARE / 2
        boxes.append((middle_x - half, middle_y - half, middle_x + half, middle_y + half))
    grey = np.repeat(image[:, :, None], 3, axis=2).astype(np.uint8)
    return cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes(), boxes


def blob_version(folder: Path, *, train: int = 8, val: int = 55, test: int = 55, labelled: bool = True) -> Version:
    """Write a version of such pictures; 55 of them have more boxes than a figure needs to be judged."""
    members, jpegs = [], {}
    for at, split in enumerate(["train"] * train + ["val"] * val + ["test"] * test):
        jpeg, boxes = picture(at)
        name = f"blob-{at:03d}"
        jpegs[name] = jpeg
        known = {
            "labels": LABELS,
            "by": "person",
            "boxes": tuple(MemberBox(xyxy=box, label="blob", origin="person") for box in boxes),
        }
        members.append(
            Member(
                name=name,
                sha256=hashlib.sha256(jpeg).hexdigest(),
                width=SIDE,
                height=SIDE,
                split=split,
                camera="town/box/street",
                captured_at_ms=1_700_000_000_000 + at * 60_000,
                event_id=f"event-{at}",
                **(known if labelled else {}),
            )
        )
    version = make_version(members, labels=LABELS, recipe={}, created_at_ms=0)
    write_version(version, folder, jpeg_of=lambda member: jpegs[member.name])
    return version
