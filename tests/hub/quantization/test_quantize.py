"""`hub quantize` on a small detector: what is released, what is refused, and that a folder is never left broken."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import onnx
import pytest
from typer.testing import CliRunner

from edge.contract.card import read_card
from edge.contract.errors import UnusableError
from edge.detector.detector import open_detector
from edge.detector.golden import read_golden
from hub.cli import app
from hub.quantization.layers import is_quantized
from hub.quantization.quantize import FASTER, Terms, quantize
from hub.quantization.report import read_quantization
from tests.hub.quantization.blobs import LABELS, blob_model, blob_version

SLOW_TOO = Terms(steps=0, keep_slow=True, threads=1)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("versions") / "blobs"
    blob_version(folder)
    return folder


def state_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_variants_are_real_int8_files_that_the_card_lists(tmp_path, version):
    folder = blob_model(tmp_path / "m")
    report = quantize(folder, version, terms=SLOW_TOO)
    card = read_card(folder / "model.json")
    assert {one.runtimes for one in card.variants} == {("openvino",), ("onnxruntime",)}
    assert {one.name for one in card.variants} == {one.name for one in report.released}
    for variant in card.variants:
        model = onnx.load(folder / variant.file)
        assert is_quantized(model)
        assert any(
            one.data_type == onnx.TensorProto.INT8 for one in model.graph.initializer
        )  # weights, not only ranges
        assert open_detector(folder, variant=variant.name).precision == "int8"
    assert read_golden(folder) is not None
    assert read_quantization(folder) == report


def test_again_replaces_what_was_there(tmp_path, version, monkeypatch):
    folder = blob_model(tmp_path / "m")
    quantize(folder, version, terms=SLOW_TOO)
    first = set(state_of(folder))
    quantize(folder, version, terms=SLOW_TOO)
    assert set(state_of(folder)) == first
    timed(monkeypatch, ratio=2.0)
    quantize(folder, version, terms=Terms(steps=0, threads=1))
    assert read_card(folder / "model.json").variants == ()
    assert not list(folder.glob("int8*"))


def test_a_variant_of_another_input_size_stays(tmp_path, version):
    folder = blob_model(tmp_path / "m")
    quantize(folder, version, terms=SLOW_TOO)
    quantize(folder, version, input_size=(48, 48), terms=SLOW_TOO)
    names = [one.name for one in read_card(folder / "model.json").variants]
    assert "int8-onnxruntime" in names
    assert "int8-onnxruntime-48x48" in names
    golden = read_golden(folder)
    assert golden is not None
    assert set(golden.golden.inputs) >= {"64x64", "48x48"}


def timed(monkeypatch, *, ratio: float) -> None:
    """Let every variant take `ratio` of float32's time: what a clock says here is not this test's to decide."""
    for place in ("bench", "quantize"):
        monkeypatch.setattr(f"hub.quantization.{place}.milliseconds", lambda _detectors, _images: (ratio, 1.0))


def test_what_ruins_the_boxes_is_refused(tmp_path, version, monkeypatch):
    """One channel is 30,000 times the others: on one scale for all of them nothing is left of the others.

    As it is slower than float32 already, no layer is put back.
    """
    timed(monkeypatch, ratio=2.0)
    folder = blob_model(tmp_path / "m", outlier=30_000.0)
    report = quantize(folder, version, terms=Terms(steps=0, threads=1))
    ruined = [one for one in report.tried if one.precision == "int8"]
    assert {one.runtime for one in ruined} == {"openvino", "onnxruntime"}
    for tried in ruined:
        assert tried.float_layers == ()
        assert not tried.kept
        assert "it loses" in tried.why
        assert tried.verdict is not None
        assert tried.verdict.worst > 50
    assert report.released == ()
    assert read_card(folder / "model.json").variants == ()
    assert not list(folder.glob("int8*"))


def test_a_small_test_split_refuses_what_is_beyond_chance(tmp_path, monkeypatch):
    """Forty boxes are too few for a point, but not for half of all boxes."""
    timed(monkeypatch, ratio=2.0)
    blob_version(tmp_path / "v", val=8, test=20)  # too few boxes in train and val, too: float32's own are the truth
    folder = blob_model(tmp_path / "m", outlier=30_000.0)
    report = quantize(folder, tmp_path / "v", terms=Terms(steps=0, threads=1))
    ruined = [one for one in report.tried if one.precision == "int8"]
    assert ruined
    for tried in ruined:
        assert tried.verdict is not None
        assert not any(loss.judged for loss in tried.verdict.losses)
        assert tried.verdict.missed(1.0) is not None
        assert not tried.kept
        assert "on test" in tried.why


@pytest.mark.parametrize(("ratio", "released"), [(1.0, False), (FASTER, True)])
def test_what_is_no_faster_is_refused(tmp_path, version, monkeypatch, ratio, released):
    timed(monkeypatch, ratio=ratio)
    report = quantize(blob_model(tmp_path / "m"), version, terms=Terms(steps=0, budget=100.0, threads=1))
    for tried in report.tried:
        assert tried.kept
        assert tried.released is released or tried.parity
        assert ("of float32's time here" in tried.why) is not released or tried.parity
    assert bool(report.released) is released


def test_the_search_puts_back_what_ruins_the_boxes(tmp_path, version):
    folder = blob_model(tmp_path / "m", outlier=30_000.0)
    report = quantize(folder, version, terms=SLOW_TOO)
    for tried in report.tried:
        if tried.precision == "int8":
            assert tried.float_layers  # all in 8 bits is beyond any budget, see above
            assert len(tried.float_layers) < tried.layers or not tried.kept
            assert tried.kept == (not any(look.missed(1.0) for look in (tried.chosen, tried.verdict)))


def test_without_labels_float32s_own_boxes_are_the_truth(tmp_path):
    blob_version(tmp_path / "v", test=0, labelled=False)
    folder = blob_model(tmp_path / "m")
    report = quantize(folder, tmp_path / "v", terms=SLOW_TOO)
    tried = report.tried[-1]
    assert tried.chosen is not None
    assert tried.chosen.truth == "float32"
    assert tried.chosen == tried.verdict


def float16(folder: Path) -> None:
    model = onnx.load(folder / "blobs.onnx")
    for one in model.graph.initializer:
        array = onnx.numpy_helper.to_array(one).astype("float16")
        one.CopyFrom(onnx.numpy_helper.from_array(array, one.name))
    rewrite(folder, model)


def quantized_already(folder: Path) -> None:
    model = onnx.load(folder / "blobs.onnx")
    model.graph.node[0].op_type = "ConvInteger"
    rewrite(folder, model)


def rewrite(folder: Path, model: onnx.ModelProto) -> None:
    onnx.save(model, folder / "blobs.onnx")
    card = read_card(folder / "model.json")
    sha256 = hashlib.sha256((folder / "blobs.onnx").read_bytes()).hexdigest()
    (folder / "model.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(card, sha256=sha256)))


def no_card(folder: Path) -> None:
    (folder / "model.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (float16, "is float16"),  # its halves are lost already
        (quantized_already, "is quantized already"),
        (no_card, "no card"),  # nothing could list a variant
    ],
)
def test_a_model_that_cannot_be_quantized_is_left_as_it_is(tmp_path, version, spoil, said):
    folder = blob_model(tmp_path / "m")
    spoil(folder)
    before = state_of(folder)
    with pytest.raises(UnusableError, match=said):
        quantize(folder, version, terms=SLOW_TOO)
    assert state_of(folder) == before


def test_no_picture_to_calibrate_with(tmp_path):
    blob_version(tmp_path / "v", train=0, val=0, test=3)  # the test split is not for calibration
    folder = blob_model(tmp_path / "m")
    before = state_of(folder)
    with pytest.raises(UnusableError, match="no picture in train or val"):
        quantize(folder, tmp_path / "v", terms=SLOW_TOO)
    assert state_of(folder) == before


def test_nncf_missing_is_one_line(tmp_path, version, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    folder = blob_model(tmp_path / "m")
    before = state_of(folder)
    with pytest.raises(UnusableError, match=r"pip install \"weakspot\[quantize\]\""):
        quantize(folder, version, terms=SLOW_TOO)
    assert state_of(folder) == before


def test_the_command_prints_a_table_and_says_no_with_1(tmp_path, version):
    folder = blob_model(tmp_path / "m")
    arguments = ["quantize", str(folder), "--dataset", str(version), "--steps", "0", "--threads", "1"]
    said = CliRunner().invoke(app, [*arguments, "--keep-slow"])
    assert said.exit_code == 0, said.output
    assert "int8-openvino on openvino: released" in said.stdout
    assert all(len(line) <= 80 for line in said.stdout.splitlines())
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    report = msgspec.json.decode(as_json.stdout)
    released = [one for one in report["tried"] if one["released"]]
    assert as_json.exit_code == (0 if released else 1)


@pytest.mark.slow
def test_killed_at_any_time_the_folder_is_usable(tmp_path, version):
    """SIGKILL at moments spread over the run, the writing of the folder among them: its first file is waited for."""
    folder = blob_model(tmp_path / "m")
    code = (
        "import sys, pathlib; from hub.quantization.quantize import quantize, Terms;"
        "quantize(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]),"
        " terms=Terms(steps=0, keep_slow=True, threads=1))"
    )
    killed = 0
    for first in ("golden-", "int8-", "quantization.json"):  # in the order in which they are written
        for old in folder.glob(f"{first}*"):
            if old.is_file():
                old.unlink()
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(folder), str(version)], env=os.environ | {"TMPDIR": str(tmp_path)}
        )
        until = time.monotonic() + 90
        while not any(folder.glob(f"*{first}*")) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        card = read_card(folder / "model.json")
        assert open_detector(folder).labels == LABELS
        if first == "golden-":
            assert card.variants == ()
        for variant in card.variants:
            assert (folder / variant.file).is_file() or first == "int8-"  # that one this test has removed itself
    assert killed
