"""Variants of a card: the right file, its input, its precision, on a runtime that can."""

import os
import re
import sys

import msgspec
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edge.contract.card import read_card
from edge.contract.errors import UnusableError
from edge.detector.checking import made_picture
from edge.detector.detector import open_detector
from edge.detector.opening import find_starter, read_model
from edge.detector.runtimes import installed_runtimes
from edge.detector.written import write_card
from tests.edge.detector.golden_models import add_variant, starter_folder
from tests.edge.detector.made_graphs import save_graph, yolo_cells
from tests.edge.detector.test_heads import SIZE as MADE_SIZE
from tests.edge.detector.test_heads import YOLO_BOXES

STARTER = (find_starter() / "starter.onnx").read_bytes()


@pytest.fixture
def folder(tmp_path):
    return starter_folder(tmp_path / "model", size=(96, 64))


def need(runtime):
    if runtime not in installed_runtimes():
        pytest.skip(f"{runtime} is not installed")


def test_a_variant_is_its_own_file_at_its_own_input(folder):
    add_variant(folder, "small", STARTER, precision="int8", input="64x64", runtimes=("onnxruntime",))
    found = read_model(folder, variant="small")
    assert (found.path, found.variant, found.precision) == (folder / "small.onnx", "small", "int8")
    need("onnxruntime")
    detector = open_detector(folder, variant="small")
    assert (detector.input_size, detector.runtime_name) == ((64, 64), "onnxruntime")  # the runtime it was measured on
    assert (detector.variant, detector.precision, detector.card.release) == ("small", "int8", "starter-1")
    assert open_detector(folder, variant="small", input_size=(96, 96)).input_size == (96, 96)
    own = open_detector(folder)
    assert (own.input_size, own.variant, own.precision) == ((96, 64), "", "f32")


def test_a_variant_that_was_measured_nowhere_takes_any_runtime(folder):
    add_variant(folder, "new", STARTER, runtimes=())
    assert open_detector(folder, variant="new").runtime_name == installed_runtimes()[0]


def test_a_runtime_that_is_named_wins_over_those_it_was_measured_on(folder):
    need("onnxruntime")
    add_variant(folder, "ov", STARTER, runtimes=("openvino",))
    assert open_detector(folder, variant="ov", runtime="onnxruntime").runtime_name == "onnxruntime"


def test_a_variant_whose_runtime_is_missing(folder, monkeypatch):
    add_variant(folder, "ov", STARTER, runtimes=("openvino",))
    monkeypatch.setitem(sys.modules, "openvino", None)  # as if it were not installed
    with pytest.raises(UnusableError, match=r'measured on openvino only; run: pip install "weakspot\[openvino\]"'):
        open_detector(folder, variant="ov")


def test_wrong_variants(folder, tmp_path):
    with pytest.raises(UnusableError, match="starter-1 has no variant 'int8'; it has: none"):
        open_detector(folder, variant="int8")
    add_variant(folder, "changed", STARTER)
    (folder / "changed.onnx").write_bytes(STARTER + b"\0")
    with pytest.raises(UnusableError, match=r"is not the variant changed that .*model.json describes"):
        open_detector(folder, variant="changed")
    (folder / "changed.onnx").unlink()
    with pytest.raises(UnusableError, match=r"cannot read the model .*changed\.onnx: No such file"):
        open_detector(folder, variant="changed")
    with pytest.raises(UnusableError, match="it has: changed"):
        read_model(folder, variant="other")
    bare = save_graph(tmp_path / "bare.onnx", {"output0": yolo_cells(MADE_SIZE, YOLO_BOXES)})
    with pytest.raises(UnusableError, match=r"no model\.json beside it that could list a variant"):
        open_detector(bare, variant="int8")


@pytest.mark.parametrize("file", ["../elsewhere.onnx", "/etc/passwd", "below/other.onnx"])
def test_a_variant_stands_beside_its_card(folder, file):
    variant = add_variant(folder, "far", STARTER)
    card = read_card(folder / "model.json")
    far = msgspec.structs.replace(card, variants=(msgspec.structs.replace(variant, file=file),))
    write_card(folder / "model.json", far)
    with pytest.raises(UnusableError, match="it must stand beside the card"):
        read_model(folder, variant="far")


@pytest.mark.parametrize("half", ["bf16", "f16"])
def test_onnxruntime_makes_no_halves_of_a_float32_file(folder, half):
    need("onnxruntime")
    with pytest.raises(UnusableError, match=rf"is float32: {half} needs OpenVINO, or a file of its own"):
        open_detector(folder, runtime="onnxruntime", precision=half)


@pytest.mark.parametrize(("half", "capability"), [("bf16", "BF16"), ("f16", "FP16")])
def test_openvino_does_the_halves_that_this_cpu_can(folder, half, capability):
    need("openvino")
    import openvino

    if capability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        detector = open_detector(folder, runtime="openvino", precision=half)
        assert detector.precision == half
        exact = open_detector(folder, runtime="openvino").detect(made_picture(), score_threshold=0.01).detections
        near = detector.detect(made_picture(), score_threshold=0.01).detections
        assert 0 < np.abs(exact.score[:5] - near.score[:5]).max() < 0.05  # other numbers, nearly the same
    else:
        with pytest.raises(UnusableError, match=f"this CPU cannot multiply in {half}"):
            open_detector(folder, runtime="openvino", precision=half)


def test_openvino_takes_int8_files_in_float32_for_the_rest(folder):
    need("openvino")
    add_variant(folder, "q", STARTER, precision="int8", runtimes=("openvino",))
    assert open_detector(folder, variant="q").precision == "int8"


def test_a_precision_that_is_none(folder):
    with pytest.raises(UnusableError, match=re.escape("no precision 'fp16'; known: f32, bf16, f16, int8")):
        open_detector(folder, precision="fp16")


def test_a_half_file_says_so(tmp_path):
    path = save_graph(tmp_path / "made.onnx", {"output0": yolo_cells(MADE_SIZE, YOLO_BOXES)})
    assert read_model(path).graph.floats == "float32"
    model = onnx.load(path)
    halves = [numpy_helper.from_array(np.zeros(3, np.float16), f"half_{n}") for n in range(9)]
    model.graph.initializer.extend(halves)
    onnx.save(model, path)
    assert read_model(path).graph.floats == "float16"
    if "onnxruntime" in installed_runtimes():  # a file of halves runs as it is
        assert open_detector(path, runtime="onnxruntime", precision="f16").precision == "f16"


@pytest.mark.parametrize("file", ["../starter.onnx", "/dev/zero", "sub/starter.onnx", ".."])
def test_a_card_names_a_file_beside_it_and_no_other(tmp_path, file):
    folder = starter_folder(tmp_path / "model")
    card = read_card(folder / "model.json")
    write_card(folder / "model.json", msgspec.structs.replace(card, file=file))
    with pytest.raises(UnusableError, match=r"must stand beside the card|is no file"):
        read_model(folder)


def test_what_is_no_file_is_never_read(tmp_path):
    """A pipe would be waited for."""
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(UnusableError, match="is no file"):
        read_model(tmp_path / "model.onnx")
