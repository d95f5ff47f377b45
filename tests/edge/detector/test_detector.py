"""Detector: any model that a head knows, opened from a file or a folder, and one clear error for the others."""

import hashlib
import json
import os
import shutil

import cv2
import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edge.contract.card import InputSpec, ModelCard
from edge.contract.errors import UnusableError
from edge.detector.detector import Detector, open_detector
from edge.detector.heads import HEADS
from edge.detector.opening import find_starter, parse_size
from edge.detector.runtimes import installed_runtimes
from tests.edge.detector.made_graphs import (
    CAR,
    DOG,
    centernet_maps,
    detr_raw,
    save_graph,
    yolo_cells,
    yolo_finished,
    yolox_decoded,
    yolox_raw,
)
from tests.edge.detector.test_heads import CENTERNET_BOXES, DETR_BOXES, FINISHED_DETR, SIZE, YOLO_BOXES, YOLOX_BOXES

NAMES = {"names": "{0: 'cat', 1: 'car', 2: 'dog', 3: 'cow'}", "task": "detect", "imgsz": "[64, 96]"}
FINISHED = yolo_finished([(10, 12, 40, 32, 0.8, CAR), (60, 20, 80, 60, 0.5, DOG)])
# twice the input's size, so that boxes come back twice as large where nothing is padded
FRAME = np.full((128, 192, 3), 90, np.uint8)
IN_FRAME = [[20, 24, 80, 64], [120, 40, 160, 120]]

runtimes = pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])


def need(runtime: str) -> None:
    if runtime not in installed_runtimes():
        pytest.skip(f"{runtime} is not installed")


def write_card(folder, path, **changes):
    card = ModelCard(
        name="made",
        release="made-1",
        file=path.name,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        head=None,
        input=InputSpec(width=96, height=64),
        labels=("cat", "car", "dog", "cow"),
        score_threshold=0.4,
    )
    (folder / "model.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(card, **changes)))


MODELS = [
    pytest.param("centernet", centernet_maps(SIZE, CENTERNET_BOXES), {}, id="centernet"),
    pytest.param("yolox", {"output": yolox_raw(SIZE, YOLOX_BOXES)}, {}, id="yolox-raw"),
    pytest.param("yolox", {"output": yolox_decoded(SIZE, YOLOX_BOXES)}, {}, id="yolox-decoded"),
    pytest.param("yolo", {"output0": yolo_cells(SIZE, YOLO_BOXES)}, {}, id="yolo"),
    pytest.param("yolo", {"output0": FINISHED}, {"metadata": NAMES}, id="yolo-with-nms"),
    pytest.param("detr", detr_raw(DETR_BOXES), {}, id="detr"),
    pytest.param(
        "detr",
        FINISHED_DETR | {"boxes": FINISHED_DETR["boxes"] / np.array(SIZE * 2, np.float32)},
        {
            "metadata": NAMES,
            "other_inputs": {"orig_target_sizes": np.zeros((1, 2), np.int64)},
            "size_scales": "boxes",
        },
        id="detr-finished",
    ),
    pytest.param(
        "yolo",
        {"output0": yolo_cells(SIZE, YOLO_BOXES).astype(np.float16)},
        {"element": TensorProto.FLOAT16},
        id="half-precision",
    ),
    pytest.param(
        "yolo",
        {"output0": yolo_cells(SIZE, YOLO_BOXES)},
        {"image_shape": ("batch", 3, "height", "width"), "metadata": NAMES},
        id="dynamic",
    ),
    pytest.param("yolo", {"output0": yolo_cells(SIZE, YOLO_BOXES)}, {"image_shape": (1, 64, 96, 3)}, id="nhwc"),
]


@runtimes
@pytest.mark.parametrize(("head", "outputs", "graph"), MODELS)
def test_a_model_without_a_card_is_used_as_its_graph_says(tmp_path, runtime, head, outputs, graph):
    need(runtime)
    detector = open_detector(save_graph(tmp_path / "made.onnx", outputs, **graph), runtime=runtime)
    assert (detector.head_name, detector.runtime_name, detector.input_size) == (head, runtime, SIZE)
    found = detector.detect(FRAME, score_threshold=0.3)
    tolerance = 0.05 if graph.get("element") else 1e-3
    assert np.allclose(found.detections.xyxy, IN_FRAME, atol=tolerance)
    assert found.detections.score.tolist() == pytest.approx([0.8, 0.5], abs=1e-3)
    named = "metadata" in graph
    expected = ["car", "dog"] if named else ["class_1", "class_2"]
    assert [detector.labels[i] for i in found.detections.class_id] == expected
    assert found.finite
    assert found.features.shape == (0,)


def test_the_made_card_holds_the_heads_own_input(tmp_path):
    expected = {"yolox": ("bgr", 1, "top_left"), "yolo": ("rgb", 255, "center"), "detr": ("rgb", 255, "stretch")}
    made = {
        "yolox": {"output": yolox_raw(SIZE, YOLOX_BOXES)},
        "yolo": {"output0": yolo_cells(SIZE, YOLO_BOXES)},
        "detr": detr_raw(DETR_BOXES),
    }
    for head, outputs in made.items():
        spec = open_detector(save_graph(tmp_path / f"{head}.onnx", outputs)).card.input
        assert (spec.color, spec.std[0], spec.letterbox) == expected[head]
        assert (spec.width, spec.height, spec.multiple) == (96, 64, 32)


def test_a_card_beside_the_model_is_used(tmp_path):
    path = save_graph(tmp_path / "made.onnx", {"output": yolox_raw(SIZE, YOLOX_BOXES)})
    write_card(tmp_path, path)
    for given in (path, tmp_path):
        detector = open_detector(given)
        assert detector.card.release == "made-1"
        assert detector.card.head == "yolox"
        assert detector.labels == ("cat", "car", "dog", "cow")
        assert detector.score_threshold == pytest.approx(0.4)


def test_a_card_of_another_file_is_not_used(tmp_path):
    path = save_graph(tmp_path / "made.onnx", {"output": yolox_raw(SIZE, YOLOX_BOXES)})
    write_card(tmp_path, path, file="other.onnx", sha256="0" * 64)
    assert open_detector(path).labels == ("class_0", "class_1", "class_2", "class_3")


REFUSED_CARDS = [
    # the file was changed after its card was written
    ({"sha256": "0" * 64}, "is not the file that"),
    # a head that cannot decode these outputs
    ({"head": "detr", "labels": ("a",) * 40}, "tells 5 classes apart, but has 40 labels"),
    # labels for another model
    ({"labels": ("cat", "dog")}, "tells 4 classes apart, but has 2 labels"),
    # the card's own size is not one the graph takes
    ({"input": InputSpec(width=640, height=640)}, "takes 96x64 only, not 640x640"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED_CARDS)
def test_a_card_that_does_not_fit_is_refused(tmp_path, changes, message):
    path = save_graph(tmp_path / "made.onnx", {"output": yolox_raw(SIZE, YOLOX_BOXES)})
    write_card(tmp_path, path, **changes)
    with pytest.raises(UnusableError, match=message):
        open_detector(path)


REFUSED_GRAPHS = [
    # a rank that is no image
    ({"image_shape": (1, 3, 64)}, {}, r"needs one image input \[1, 3, height, width\]"),
    # grey pictures
    ({"image_shape": (1, 1, 64, 96)}, {}, r"needs an image input \[1, 3, height, width\]; images is \[1, 1, 64, 96\]"),
    # a batch of four
    ({"image_shape": (4, 3, 64, 96)}, {}, r"images is \[4, 3, 64, 96\]"),
    # bytes
    ({"element": TensorProto.UINT8}, {}, "takes uint8 images"),
    # an input that only its author could feed
    ({"other_inputs": {"prompt": np.zeros((1, 5), np.int64)}}, {}, "has an input prompt"),
    # not a detector
    ({"metadata": NAMES | {"task": "pose"}}, {}, "made for the task 'pose'"),
    # labels of another model
    ({"metadata": NAMES | {"names": "{0: 'cat'}"}}, {}, "tells 4 classes apart, but has 1 labels"),
    # no head
    ({}, {"probabilities": np.zeros((1, 1000), np.float32)}, r"\(probabilities \[1, 1000\]\) fit no head"),
    # finished boxes without labels
    ({}, {"output0": FINISHED}, 'write their "labels" in a model.json'),
    # broken from the start
    ({}, {"output0": np.full((1, 84, 126), np.nan, np.float32)}, "gives NaN or infinity on a grey image"),
]


@runtimes
@pytest.mark.parametrize(("graph", "outputs", "message"), REFUSED_GRAPHS)
def test_a_model_that_cannot_be_used_is_refused_in_one_line(tmp_path, runtime, graph, outputs, message):
    need(runtime)
    path = save_graph(tmp_path / "made.onnx", outputs or {"output0": yolo_cells(SIZE, YOLO_BOXES)}, **graph)
    with pytest.raises(UnusableError, match=message) as refused:
        open_detector(path, runtime=runtime)
    assert "\n" not in str(refused.value)


def test_paths_that_are_no_model(tmp_path):
    with pytest.raises(UnusableError, match="there is no model"):
        open_detector(tmp_path / "missing.onnx")
    with pytest.raises(UnusableError, match=r"holds no model.json and 0 ONNX files"):
        open_detector(tmp_path)
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(UnusableError, match="is not an ONNX model"):
        open_detector(tmp_path / "text.onnx")
    (tmp_path / "model.json").write_text(json.dumps({"file": "text.onnx"}))
    with pytest.raises(UnusableError, match=r"model card .* is not valid"):
        open_detector(tmp_path)
    if os.geteuid() == 0:
        return  # root reads everything
    shutil.copy(find_starter() / "starter.onnx", tmp_path / "locked.onnx")
    (tmp_path / "locked.onnx").chmod(0)
    with pytest.raises(UnusableError, match="cannot read the model"):
        open_detector(tmp_path / "locked.onnx")


@runtimes
def test_a_graph_that_the_runtime_refuses_is_one_line(tmp_path, runtime):
    need(runtime)
    path = save_graph(tmp_path / "made.onnx", {"output0": yolo_cells(SIZE, YOLO_BOXES)})
    model = onnx.load(path)
    model.graph.node[1].op_type = "NoSuchOperator"
    onnx.save(model, path)
    with pytest.raises(UnusableError, match=f"{runtime} cannot load") as refused:
        open_detector(path, runtime=runtime)
    assert "\n" not in str(refused.value)


SIZES = [
    # a side that is no multiple: the nearest that is
    ((320, 200), "multiples of 32: not 320x200, but 320x192"),
    ((10, 320), "multiples of 32: not 10x320, but 32x320"),
    ((0, 320), "multiples of 32: not 0x320, but 32x320"),
]


@pytest.mark.parametrize(("size", "message"), SIZES)
def test_a_size_that_the_model_cannot_take(size, message):
    with pytest.raises(UnusableError, match=message):
        open_detector(input_size=size)


def test_parse_size():
    assert parse_size("320x192") == (320, 192)
    assert parse_size(" 320X192 ") == (320, 192)
    for wrong in ("320", "320x", "ax192", "-320x192", "320x192x3", "3.2x1", "", "320*192"):
        with pytest.raises(UnusableError, match="WIDTHxHEIGHT"):
            parse_size(wrong)


IMAGES = [
    # grey
    (np.zeros((10, 10), np.uint8), r"got uint8 \[10, 10\]"),
    # with alpha
    (np.zeros((10, 10, 4), np.uint8), r"got uint8 \[10, 10, 4\]"),
    # floats
    (np.zeros((10, 10, 3), np.float32), r"got float32 \[10, 10, 3\]"),
    # nothing in it
    (np.zeros((0, 10, 3), np.uint8), r"got uint8 \[0, 10, 3\]"),
    # what cv2.imread gives for a file it cannot read
    (None, "got NoneType"),
]


@pytest.mark.parametrize(("image", "message"), IMAGES)
def test_what_is_no_image_is_refused(image, message):
    with pytest.raises(ValueError, match=message):
        open_detector(input_size=(64, 64)).detect(image)


def test_boxes_are_clipped_and_those_outside_are_dropped(tmp_path):
    # the frame fills the upper half of the input: one box reaches out of it, one lies below it, one is turned round
    planted = [(0, 70, 20, 80, 40, CAR, 0.8), (30, 40, 58, 10, 6, DOG, 0.7), (60, 60, 10, -20, 5, DOG, 0.6)]
    detector = open_detector(save_graph(tmp_path / "made.onnx", {"output0": yolo_cells(SIZE, planted)}))
    write_card(tmp_path, tmp_path / "made.onnx", input=InputSpec(width=96, height=64, std=(255, 255, 255)))
    detector = open_detector(tmp_path)
    found = detector.detect(np.zeros((64, 192, 3), np.uint8)).detections
    assert np.allclose(found.xyxy, [[60, 0, 192, 64]], atol=1e-3)


@runtimes
def test_what_is_not_finite_is_dropped_and_told(tmp_path, runtime):
    need(runtime)
    path = save_graph(tmp_path / "made.onnx", {"output0": yolo_cells(SIZE, YOLO_BOXES)}, metadata=NAMES)
    model = onnx.load(path)
    # zero over the mean: NaN on a black picture, nothing on all others
    nothing = next(node for node in model.graph.node if node.output[0] == "nothing")
    nothing.op_type = "Div"
    nothing.input[:] = ["zero", "mean"]
    onnx.save(model, path)
    detector = open_detector(path, runtime=runtime)
    white = detector.detect(np.full_like(FRAME, 255))
    assert white.finite
    assert len(white.detections) == 2
    black = detector.detect(np.zeros_like(FRAME))
    assert not black.finite
    assert len(black.detections) == 0


BROKEN_BOXES = [
    # a corner at infinity, and a size that is
    (np.inf, 22, 30, 20),
    (25, 22, np.inf, 20),
    (25, -np.inf, 30, np.inf),
    (25, np.nan, 30, 20),
]


class PlantedRuntime:
    """A runtime that gives the same outputs for whatever it is fed."""

    name = version = device = "planted"

    def __init__(self, outputs):
        self.outputs = outputs

    def infer(self, tensor):
        return dict(self.outputs)


@pytest.mark.parametrize("box", BROKEN_BOXES)
def test_a_broken_box_takes_no_other_with_it(box):
    planted = [(17, *box, CAR, 0.9), (18, 25, 22, 30, 20, CAR, 0.8)]
    card = ModelCard(
        name="made",
        release="made-1",
        file="made.onnx",
        sha256="",
        head="yolo",
        input=InputSpec(width=96, height=64),
        labels=("cat", "car", "dog", "cow"),
        score_threshold=0.4,
    )
    runtime = PlantedRuntime({"output0": yolo_cells(SIZE, planted), "features": np.array([[np.nan, 1]], np.float32)})
    found = Detector(card, head=HEADS["yolo"], runtime=runtime, input_size=SIZE).detect(FRAME)
    assert not found.finite
    assert found.features.tolist() == [0, 0]
    assert np.allclose(found.detections.xyxy, IN_FRAME[:1], atol=1e-3)


def test_scores_that_are_no_probabilities_are_refused(tmp_path):
    planted = [(17, 25, 22, 30, 20, CAR, 7.5)]
    detector = open_detector(save_graph(tmp_path / "made.onnx", {"output0": yolo_cells(SIZE, planted)}))
    with pytest.raises(UnusableError, match=r"gives scores up to 7\.5: it was exported before its sigmoid"):
        detector.detect(FRAME)


def test_a_score_that_was_rounded_up_is_a_one(tmp_path):
    planted = [(17, 25, 22, 30, 20, CAR, 1.0005)]
    detector = open_detector(save_graph(tmp_path / "made.onnx", {"output0": yolo_cells(SIZE, planted)}))
    assert detector.detect(FRAME).detections.score.tolist() == [1]


def test_a_class_without_a_label_is_refused(tmp_path):
    outputs = {"output0": yolo_finished([(10, 12, 40, 32, 0.8, 9)])}
    detector = open_detector(save_graph(tmp_path / "made.onnx", outputs, metadata=NAMES))
    with pytest.raises(UnusableError, match="gives class 9, but has 4 labels"):
        detector.detect(FRAME)


def test_features_have_the_length_one(tmp_path):
    outputs = centernet_maps(SIZE, CENTERNET_BOXES) | {"features": np.array([[3, 0, 4]], np.float32)}
    found = open_detector(save_graph(tmp_path / "made.onnx", outputs)).detect(FRAME)
    assert found.features.tolist() == pytest.approx([0.6, 0, 0.8])
    assert found.features.dtype == np.float32


def test_an_inference_outlives_the_next_one():
    detector = open_detector(input_size=(96, 64))
    rng = np.random.default_rng(0)
    first = detector.detect(cv2.resize(rng.integers(0, 256, (8, 12, 3), np.uint8), (192, 128)), score_threshold=0.01)
    kept = (first.detections.xyxy.copy(), first.detections.score.copy(), first.features.copy())
    detector.detect(FRAME, score_threshold=0.01)
    assert np.array_equal(first.detections.xyxy, kept[0])
    assert np.array_equal(first.detections.score, kept[1])
    assert np.array_equal(first.features, kept[2])
