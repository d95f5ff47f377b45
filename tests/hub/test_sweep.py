"""`hub sweep`: which sizes, which is picked, what is measured of a real model, and what is written to a card."""

import hashlib
import itertools
import json
import shutil

import msgspec
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from edge.contract.card import read_card
from edge.contract.errors import UnusableError
from edge.detector.detector import open_detector
from edge.detector.golden import read_golden
from edge.detector.written import write_card
from hub.cli import app
from hub.evaluation.evaluate import Estimate
from hub.evaluation.report import Baseline
from hub.sweep import Row, Running, pick, sweep, write_input
from hub.sweep_lines import sweep_lines
from hub.sweep_plots import sweep_picture
from hub.sweep_sizes import choose_sizes, parse_sizes
from tests.edge.detector.golden_models import add_variant, golden_folder, starter_folder
from tests.hub.train.street_versions import street_version

SIZES = ((320, 256), (160, 128))
runner = CliRunner()


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    folder = tmp_path_factory.mktemp("versions") / "street"
    street_version(folder)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model whose card asks for little, and one whose card asks for much."""
    folder = tmp_path_factory.mktemp("models")
    return starter_folder(folder / "small"), starter_folder(folder / "large", size=(320, 256))


def ticking() -> Running:
    """A clock that ticks 1 ms a look."""
    ticks = itertools.count(0, 1_000_000)
    return Running(runtime="onnxruntime", threads=1, clock_ns=lambda: next(ticks))


@pytest.fixture(scope="module")
def swept(version, models):
    small, large = models
    return sweep(version, model=small, against=Baseline(large), sizes=SIZES, running=ticking())


def row(name, ap50, ms):
    told = Estimate(value=ap50, low=None, high=None)
    return Row(input=name, ap=None, ap50=told, recall=told, precision=told, ms=ms, low_ms=ms, high_ms=ms)


@pytest.mark.parametrize(
    ("rows", "picked"),
    [
        ([row("320x320", 0.8, 20), row("192x192", 0.76, 8), row("128x128", 0.5, 4)], "192x192"),
        ([row("320x320", 0.8, 8), row("192x192", 0.8, 9)], "320x320"),  # the fastest, not the smallest
        ([row("320x320", 0.7, 20), row("192x192", 0.6, 8)], None),  # none keeps it
        ([row("320x320", None, 20)], None),  # nothing is known
        ([row("320x320", 0.7599999, 20), row("192x192", 0.76, 30)], "192x192"),  # exactly so much is enough
    ],
)
def test_the_fastest_that_keeps_it_is_picked(rows, picked):
    found = pick(rows, needed=0.76)
    assert (found and found.input) == picked


@pytest.mark.parametrize(
    ("card", "multiple", "frame", "expected"),
    [
        ((320, 320), 32, (640, 360), {(320, 320), (320, 192), (256, 160), (192, 192), (128, 96)}),
        ((320, 320), 32, (360, 640), {(320, 320), (192, 320), (160, 256)}),  # a camera on its side
        ((640, 640), 32, (1920, 1080), {(640, 640), (640, 384), (256, 256)}),
        ((320, 192), 32, (640, 360), {(320, 320), (320, 192)}),  # the card is a rectangle already
        ((64, 64), 64, (640, 480), {(64, 64)}),  # nothing smaller
        ((416, 416), 1, (640, 480), {(416, 416), (416, 312)}),  # any side
    ],
)
def test_sizes_worth_a_look(card, multiple, frame, expected):
    sizes = choose_sizes(card, multiple=multiple, frame=frame)
    assert expected <= set(sizes)
    assert len(sizes) == len(set(sizes)) <= 14


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from([1, 8, 32, 64]),
    st.integers(16, 4000),
    st.integers(16, 4000),
)
def test_sizes_are_multiples_and_rectangles_hold_the_frame(width, height, multiple, frame_width, frame_height):
    card, frame = (width * multiple, height * multiple), (frame_width, frame_height)
    sizes = choose_sizes(card, multiple=multiple, frame=frame)
    for size in sizes:
        assert all(side > 0 and side % multiple == 0 for side in size)
        assert max(size) <= max(card)
        scale = max(size) / max(frame)
        assert size[0] == size[1] or all(frame[i] * scale <= size[i] + 1e-6 for i in range(2))


def test_sizes_as_they_are_written():
    assert parse_sizes("192, 320x192,192x192") == ((192, 192), (320, 192))
    for wrong in ("", "large", "0x", "192;256"):
        with pytest.raises(UnusableError):
            parse_sizes(wrong)


def test_it_measures_both_models_at_every_size(swept):
    assert swept.baseline is not None
    assert [one.input for one in swept.model.rows] == ["320x256", "192x160", "160x128"]
    assert [one.input for one in swept.baseline.rows] == ["320x256", "192x160", "160x128"]
    assert (swept.model.runs_at, swept.baseline.runs_at) == ("192x160", "320x256")
    assert (swept.images, swept.frame, swept.threads) == (2, "384x288", 1)
    for mine, other in zip(swept.model.rows, swept.baseline.rows, strict=True):  # it is one network
        assert mine.ap50 == other.ap50
    large, _, least = swept.model.rows
    assert large.ap50.value > least.ap50.value
    assert {one.ms for one in (*swept.model.rows, *swept.baseline.rows)} == {1.0}
    assert swept.needed == pytest.approx(0.95 * large.ap50.value)


def test_what_is_picked_is_held_against_the_baseline_at_its_own_size(swept):
    assert swept.picked is not None
    assert swept.model.at(swept.picked.input).ap50.value >= swept.needed
    assert swept.picked.change.baseline == pytest.approx(swept.baseline.at("320x256").ap50.value, abs=1e-6)
    assert swept.picked.speedup == 1.0


def test_a_baseline_counts_at_the_input_that_the_devices_run_it_at(version, models):
    """The card of the larger one says 320x256; its devices run it at 160x128."""
    small, large = models
    swept = sweep(version, model=small, against=Baseline(large, (160, 128)), sizes=SIZES[1:], running=ticking())
    assert swept.baseline.runs_at == "160x128"
    assert {row.input for row in swept.baseline.rows} == {"160x128", "192x160"}
    assert swept.needed == pytest.approx(0.95 * swept.baseline.at("160x128").ap50.value)


def test_an_input_of_a_baseline_that_is_not_named_is_refused(version, models):
    for command in ("sweep", "evaluate"):
        done = runner.invoke(app, [command, str(models[0]), "--dataset", str(version), "--against-input", "160x128"])
        assert isinstance(done.exception, UnusableError)
        assert "name that with --against" in str(done.exception)


def test_the_lines_fit_and_name_the_pick(swept):
    lines = sweep_lines(swept)
    assert max(map(len, lines)) <= 80
    assert next(line for line in lines if line.endswith("<")).split()[0] == swept.picked.input
    assert any(line.startswith(f"picked: {swept.picked.input}") for line in lines)
    none = msgspec.structs.replace(swept, picked=None)
    assert "nothing is picked: no size keeps" in " ".join(sweep_lines(none))
    nothing = msgspec.structs.replace(none, needed=None)
    assert "no object" in " ".join(sweep_lines(nothing))


def test_the_picture_shows_every_size_of_both(swept, tmp_path):
    figure = sweep_picture(swept)
    named = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(named) == sorted(["320x256", "192x160", "160x128"] * 2)
    figure.savefig(tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").stat().st_size > 10_000


def test_a_graph_of_a_fixed_size_has_one_row_and_says_so(version, tmp_path):
    folder = starter_folder(tmp_path / "fixed")
    model = onnx.load(folder / "starter.onnx")
    for axis, side in ((2, 160), (3, 192)):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = side
    onnx.save(model, folder / "fixed.onnx")
    (folder / "starter.onnx").unlink()
    card = read_card(folder / "model.json")
    sha256 = hashlib.sha256((folder / "fixed.onnx").read_bytes()).hexdigest()
    write_card(folder / "model.json", msgspec.structs.replace(card, file="fixed.onnx", sha256=sha256))
    running = Running(runtime="onnxruntime", threads=1)
    done = sweep(version, model=folder, running=running)
    assert [one.input for one in done.model.rows] == ["192x160"]
    assert "192x160 only" in done.notes[0]
    with pytest.raises(UnusableError, match="192x160"):
        sweep(version, model=folder, sizes=((320, 320),), running=running)


def test_the_size_is_written_to_a_candidates_card_and_golden_set(tmp_path):
    folder = golden_folder(tmp_path / "model", count=2)
    before = read_card(folder / "model.json")
    write_input(folder, (160, 128))
    after = read_card(folder / "model.json")
    assert (after.input.width, after.input.height) == (160, 128)
    assert msgspec.structs.replace(after, input=before.input, golden=before.golden) == before
    assert open_detector(folder, threads=1).input_size == (160, 128)
    golden = read_golden(folder)
    assert golden is not None
    assert golden.golden.inputs == ("160x128",)
    assert len(golden.images) == 2


@pytest.mark.parametrize(
    ("spoil", "size", "message"),
    [
        (lambda folder: (folder / "gate.json").write_text("{}"), (160, 128), "judged"),
        (lambda folder: add_variant(folder, "int8", b"0", precision="int8"), (160, 128), "quantized"),
        (lambda folder: None, (150, 128), "multiples of 32"),
        (lambda folder: (folder / "model.json").unlink(), (160, 128), "no model folder"),
    ],
)
def test_what_is_judged_or_quantized_or_cannot_run_is_left_alone(tmp_path, spoil, size, message):
    folder = starter_folder(tmp_path / "model")
    spoil(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UnusableError, match=message):
        write_input(folder, size)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_command(version, tmp_path):
    folder, out = starter_folder(tmp_path / "model", size=(320, 256)), tmp_path / "out"
    options = ["--dataset", str(version), "--sizes", "320x256,256x192", "--threads", "1", "--runtime", "onnxruntime"]
    done = runner.invoke(app, ["sweep", str(folder), *options, "--keep", "0.5", "--out", str(out), "--write", "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.output)
    assert json.loads((out / "sweep.json").read_bytes()) == told
    assert (out / "sweep.png").exists()
    card = read_card(folder / "model.json")
    assert told["picked"]["input"] == f"{card.input.width}x{card.input.height}"
    shutil.copytree(folder, tmp_path / "again")
    none = runner.invoke(app, ["sweep", str(tmp_path / "again"), *options, "--keep", "2"])
    assert none.exit_code == 1
    assert "nothing is picked" in none.output
