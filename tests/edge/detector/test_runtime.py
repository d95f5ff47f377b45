"""Runtimes: which one is taken, what is said when it is not there, and that both give the same boxes."""

import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.contract.errors import UnusableError
from edge.detector.checking import agreement, check_model, made_picture
from edge.detector.detections import Detections, box_iou
from edge.detector.detector import open_detector
from edge.detector.runtimes import installed_runtimes
from tests.edge.detector.made_graphs import save_graph, yolo_cells
from tests.edge.detector.test_heads import SIZE, YOLO_BOXES

ROOT = Path(__file__).parents[3]
CLIP = ROOT / "deploy" / "demo" / "street.mp4"
PICTURES = ROOT.parent / "shared" / "data" / "coco128" / "images"


def need_both() -> None:
    missing = {"openvino", "onnxruntime"} - set(installed_runtimes())
    if missing:
        pytest.skip(f"{', '.join(sorted(missing))} is not installed")


def clip_pictures() -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(CLIP))
    frames = []
    while len(frames) < 200:
        there, frame = capture.read()
        if not there:
            break
        frames.append(frame)
    capture.release()
    return frames[::25]


def coco_pictures() -> list[np.ndarray]:
    if not PICTURES.is_dir():
        pytest.skip("coco128 is not beside the checkout")
    return [cv2.imread(str(path)) for path in sorted(PICTURES.iterdir())[:25]]


@pytest.mark.parametrize("size", [(320, 320), (320, 192)])
@pytest.mark.parametrize("pictures", [clip_pictures, coco_pictures])
def test_both_runtimes_give_the_same_boxes(pictures, size):
    need_both()
    first, second = (open_detector(runtime=name, input_size=size) for name in ("onnxruntime", "openvino"))
    compared = 0
    for picture in pictures():
        a, b = first.detect(picture), second.detect(picture)
        assert_same(a.detections, b.detections)
        assert np.allclose(a.features, b.features, atol=1e-3)
        compared += len(a.detections)
    assert compared > 100


def assert_same(a: Detections, b: Detections) -> None:
    """Every box clear of the threshold has its twin: score within .01, IoU above .98, and there is no other."""
    for these, those in ((a, b), (b, a)):
        clear = these.take(these.score > 0.06)
        if len(clear) == 0:
            continue
        twin = box_iou(clear.xyxy, those.xyxy) > 0.98
        twin &= clear.class_id[:, None] == those.class_id[None]
        twin &= np.abs(clear.score[:, None] - those.score[None]) <= 0.01
        assert twin.any(axis=1).all()


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_missing_runtime_names_its_extra(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)  # as if it were not installed
    with pytest.raises(UnusableError, match=rf'pip install "weakspot\[{name}\]"'):
        open_detector(runtime=name)
    other = {"onnxruntime": "openvino", "openvino": "onnxruntime"}[name]
    if other in installed_runtimes():
        assert open_detector(input_size=(64, 64)).runtime_name == other


def test_no_runtime_at_all(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(UnusableError, match="no runtime is installed; run: pip install"):
        open_detector()
    with pytest.raises(UnusableError, match="no runtime is installed"):
        check_model(None)


WRONG = [
    # a typo
    ({"runtime": "onnx"}, "there is no runtime 'onnx'; known: auto, openvino, onnxruntime"),
    ({"providers": ["cud"]}, "there is no provider 'cud'; known: tensorrt, cuda, cpu"),
    ({"threads": 0}, "threads must be at least 1"),
]


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_options_that_mean_nothing(options, message):
    with pytest.raises(UnusableError, match=message):
        open_detector(**options)


def test_a_gpu_that_is_not_there_falls_back_to_the_cpu_and_says_so_once(caplog):
    onnxruntime = pytest.importorskip("onnxruntime")
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    from edge.detector.runtimes.onnxruntime import _warn_once

    _warn_once.cache_clear()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            detector = open_detector(input_size=(64, 64), providers=("tensorrt", "cuda"))
    assert (detector.runtime_name, detector.runtime.device) == ("onnxruntime", "CPU")
    assert [record.message for record in caplog.records] == [
        (
            "onnxruntime has no usable TensorrtExecutionProvider, CUDAExecutionProvider here; "
            "the model runs on CPUExecutionProvider"
        )
    ]


def test_openvino_keeps_its_compiled_graph(tmp_path):
    if "openvino" not in installed_runtimes():
        pytest.skip("openvino is not installed")
    folder = tmp_path / "not" / "yet"
    open_detector(runtime="openvino", input_size=(64, 64), cache_dir=folder)
    kept = sorted(path.name for path in folder.iterdir())
    assert kept
    open_detector(runtime="openvino", input_size=(64, 64), cache_dir=folder)
    assert sorted(path.name for path in folder.iterdir()) == kept


def test_check_model_says_what_there_is():
    report = check_model(None, input_size=(96, 64))
    assert (report.head, report.carded, report.input_size, len(report.labels)) == ("centernet", True, (96, 64), 80)
    assert {one.name for one in report.runtimes} == set(installed_runtimes())
    assert all(one.infer_ms > 0 for one in report.runtimes)
    assert report.agrees


def test_check_model_of_a_model_without_a_card(tmp_path):
    report = check_model(save_graph(tmp_path / "made.onnx", {"output0": yolo_cells(SIZE, YOLO_BOXES)}))
    assert (report.head, report.carded, report.features) == ("yolo", False, 0)
    assert report.labels == ("class_0", "class_1", "class_2", "class_3")


DIFFERENT = [
    # the same
    ([0, 0, 10, 10], 0.8, 1, 1.0),
    # a little moved
    ([0, 0, 10, 10.1], 0.809, 1, 1.0),
    # too far
    ([0, 0, 10, 11], 0.8, 1, 0.0),
    # another score
    ([0, 0, 10, 10], 0.82, 1, 0.0),
    # another class
    ([0, 0, 10, 10], 0.8, 2, 0.0),
]


@pytest.mark.parametrize(("box", "score", "class_id", "expected"), DIFFERENT)
def test_agreement(box, score, class_id, expected):
    def one(box, score, class_id):
        return Detections(np.array([box], np.float32), np.array([score], np.float32), np.array([class_id], np.int32))

    assert agreement(one([0, 0, 10, 10], 0.8, 1), one(box, score, class_id)) == expected
    assert agreement(one(box, score, class_id), Detections()) == 0
    assert agreement(Detections(), Detections()) == 1


def test_the_made_picture_is_always_the_same():
    assert np.array_equal(made_picture(), made_picture())
    assert made_picture().shape == (480, 640, 3)


def test_openvino_reports_to_nobody() -> None:
    """In a process of its own: the module that reports must not have been imported by anything."""
    if "openvino" not in installed_runtimes():
        pytest.skip("openvino is not installed")
    code = (
        "import sys; from edge.detector.detector import open_detector; open_detector(runtime='openvino');"
        "sys.exit(sys.modules['openvino_telemetry'] is not None)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="signal stacks are asked for as on Linux")
def test_openvino_leaves_no_small_signal_stack_behind():
    """A signal stack of 11.8 kB makes SIGTERM a segmentation fault where the CPU has AMX."""
    runtime = """
import ctypes, sys
from edge.detector.detector import open_detector
open_detector(runtime="openvino", input_size=(64, 64))
class Stack(ctypes.Structure):
    _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))
stack = Stack()
ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
sys.exit(stack.size)
"""
    assert subprocess.run([sys.executable, "-c", runtime], check=False).returncode == 0
