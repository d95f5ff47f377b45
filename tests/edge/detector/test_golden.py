"""Golden sets: what is written is what the float32 file gives; what strays from it is told."""

import hashlib
import json

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.card import read_card
from edge.contract.errors import UnusableError
from edge.detector.detections import Detections
from edge.detector.detector import Inference, Timings, open_detector
from edge.detector.golden import (
    FLOATS,
    QUANTIZED,
    Golden,
    GoldenBox,
    GoldenPicture,
    GoldenSet,
    parity,
    read_golden,
    write_golden,
)
from edge.detector.runtimes import installed_runtimes
from edge.detector.written import write_card
from tests.edge.detector.golden_models import add_variant, golden_folder, jpegs, scaled_scores, starter_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return golden_folder(tmp_path_factory.mktemp("golden") / "model")


def test_what_is_written_is_read_and_every_runtime_keeps_it(folder):
    golden = read_golden(folder)
    assert (golden.golden.inputs, len(golden.images)) == (("192x160",), 8)
    for runtime in installed_runtimes():
        held = parity(open_detector(folder, runtime=runtime), golden)
        assert (held.recall, held.precision, held.extra, held.kept) == (1, 1, 0, True), runtime
        assert held.boxes > 20
        assert held.worst < 1e-3


def test_the_files_are_what_the_json_says(folder):
    named = folder / read_card(folder / "model.json").golden
    golden = json.loads((named / "golden.json").read_text())
    assert golden["model_sha256"] == hashlib.sha256((folder / "starter.onnx").read_bytes()).hexdigest()
    assert {path.name for path in named.iterdir()} == {"golden.json", *(f"{name}.jpg" for name in jpegs())}
    assert all(box[1] >= 0.05 for picture in golden["pictures"] for box in picture["boxes"]["192x160"])
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_a_variant_that_finds_nothing_never_keeps_parity(folder, tmp_path):
    other = golden_folder(tmp_path / "model")
    add_variant(other, "nothing", scaled_scores(0))
    held = parity(open_detector(other, variant="nothing"), read_golden(other))
    assert (held.recall, held.precision, held.kept) == (0, None, False)
    assert held.fault == f"it finds nothing where {held.boxes} golden boxes are"


def test_scores_that_sink_together_are_noticed(tmp_path):
    """Each box may be a little lower; all of them may not, even where every one is still found."""
    other = golden_folder(tmp_path / "model", count=4)
    add_variant(other, "low", scaled_scores(0.88), precision="int8")
    held = parity(open_detector(other, variant="low"), read_golden(other), score_threshold=0.2)
    assert held.recall > 0.95
    assert held.moved < -0.03
    assert "off at the mean" in held.fault


def test_more_sizes_and_a_size_that_is_not_there(tmp_path):
    other = starter_folder(tmp_path / "model", size=(96, 64))
    add_variant(other, "wide", (other / "starter.onnx").read_bytes(), input="128x64")
    golden = write_golden(other, jpegs(2), sizes=[(64, 64), (96, 64)])
    assert golden.inputs == ("96x64", "64x64", "128x64")
    held = read_golden(other)
    parity(open_detector(other, variant="wide"), held)
    with pytest.raises(UnusableError, match="no boxes for the input 160x96; it has 96x64, 64x64, 128x64"):
        parity(open_detector(other, input_size=(160, 96)), held)


def test_a_new_set_takes_the_place_of_the_old_one(tmp_path):
    other = golden_folder(tmp_path / "model", size=(96, 64), count=2)
    first = read_card(other / "model.json").golden
    write_golden(other, jpegs(2))
    assert read_card(other / "model.json").golden == first  # the same content, the same place
    write_golden(other, jpegs(3))
    second = read_card(other / "model.json").golden
    assert second != first
    assert not (other / first).exists()
    assert len(read_golden(other).images) == 3


def break_picture(folder):
    max(folder.glob("golden-*/*.jpg")).write_bytes(jpegs(1)["street-000"])


def break_json(folder):
    next(folder.glob("golden-*/golden.json")).write_bytes(b"{")


def lose_picture(folder):
    max(folder.glob("golden-*/*.jpg")).unlink()


def other_model(folder):
    content = scaled_scores(1)
    (folder / "starter.onnx").write_bytes(content)
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(card | {"sha256": hashlib.sha256(content).hexdigest()}))


BROKEN = [
    # another picture under the name
    (break_picture, "was changed after the golden set was made"),
    # cut short
    (break_json, "is not valid"),
    # not copied with the rest
    (lose_picture, "cannot read .*No such file"),
    # the model was trained on, the golden set is still its parent's
    (other_model, "was made with another model"),
]


@pytest.mark.parametrize(("break_it", "message"), BROKEN)
def test_a_broken_set_is_refused(tmp_path, break_it, message):
    other = golden_folder(tmp_path / "model", size=(96, 64), count=3)
    break_it(other)
    with pytest.raises(UnusableError, match=message):
        read_golden(other)


def test_what_cannot_become_a_golden_set(tmp_path):
    other = starter_folder(tmp_path / "model", size=(96, 64))
    with pytest.raises(UnusableError, match="a golden set needs pictures"):
        write_golden(other, {})
    with pytest.raises(UnusableError, match=r"cannot be called '\.\./up'"):
        write_golden(other, {"../up": jpegs(1)["street-000"]})
    with pytest.raises(UnusableError, match="the golden picture a is not one that can be used: not a JPEG"):
        write_golden(other, {"a": b"no"})
    assert sorted(path.name for path in other.iterdir()) == ["model.json", "starter.onnx"]
    assert read_golden(other) is None


class Fixed:
    """A detector that finds what it is told."""

    input_size, score_threshold = (64, 64), 0.4

    def __init__(self, boxes, *, precision="int8", finite=True):
        self.precision, self._boxes, self._finite = precision, boxes, finite

    def detect(self, image, *, score_threshold):
        rows = sorted(self._boxes, key=lambda box: -box[1])
        found = Detections(
            np.array([box for box, _, _ in rows], np.float32).reshape(-1, 4),
            np.array([score for _, score, _ in rows], np.float32),
            np.array([label for _, _, label in rows], np.int32),
        )
        return Inference(found, np.zeros(0, np.float32), Timings(0, 0, 0), self._finite)


def golden_of(boxes) -> GoldenSet:
    rows = tuple(GoldenBox(box, score, label) for box, score, label in sorted(boxes, key=lambda box: -box[1]))
    picture = GoldenPicture(name="a", sha256="", boxes={"64x64": rows})
    golden = Golden(model_sha256="", runtime="", inputs=("64x64",), pictures=(picture,))
    return GoldenSet(golden, {"a": np.zeros((8, 8, 3), np.uint8)}, "")


A, B = (0, 0, 20, 20), (40, 40, 60, 60)
NEAR_A = (0, 0, 20, 21.5)  # IoU .93
CASES = [
    # the same
    ([(A, 0.8, 0)], [(A, 0.8, 0)], "int8", ""),
    # one more, right at the threshold
    ([(A, 0.41, 0)], [(A, 0.42, 0), (B, 0.41, 0)], "int8", "50.0% of its boxes are golden"),
    # a threshold's breadth: .41 became .39
    ([(A, 0.41, 0), (B, 0.5, 0)], [(A, 0.39, 0), (B, 0.5, 0)], "int8", ""),
    # too far below it
    ([(A, 0.41, 0), (B, 0.5, 0)], [(A, 0.34, 0), (B, 0.5, 0)], "int8", "50.0% of the golden boxes again"),
    # a little moved is right for int8 only
    ([(A, 0.8, 0)], [(NEAR_A, 0.8, 0)], "int8", ""),
    ([(A, 0.8, 0)], [(NEAR_A, 0.8, 0)], "bf16", "it finds 0.0% of the golden boxes again"),
    # another class
    ([(A, 0.8, 0)], [(A, 0.8, 1)], "int8", "it finds 0.0%"),
    # one more
    ([(A, 0.8, 0)], [(A, 0.8, 0), (B, 0.8, 0)], "int8", "50.0% of its boxes are golden"),
    # one box cannot stand for two
    ([(A, 0.8, 0), (NEAR_A, 0.7, 0)], [(A, 0.8, 0)], "int8", "it finds 50.0%"),
    # nothing golden above the threshold: nothing is known
    ([(A, 0.3, 0)], [(A, 0.3, 0)], "int8", "the golden set has no box"),
]


@pytest.mark.parametrize(("golden", "found", "precision", "fault"), CASES)
def test_parity(golden, found, precision, fault):
    held = parity(Fixed(found, precision=precision), golden_of(golden))
    assert (held.fault == "") == (fault == "") == held.kept
    assert fault in held.fault


def test_a_detector_that_gives_nan_keeps_nothing():
    held = parity(Fixed([(A, 0.8, 0)], finite=False), golden_of([(A, 0.8, 0)]))
    assert held.fault == "it gives NaN or infinity"


corner = st.integers(0, 40)
boxes = st.lists(
    st.tuples(
        st.tuples(corner, corner).map(lambda at: (at[0], at[1], at[0] + 15, at[1] + 15)),
        st.integers(60, 1000).map(lambda score: score / 1000),
        st.integers(0, 1),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(golden=boxes, found=boxes)
def test_shares_are_shares_and_every_set_keeps_parity_with_itself(golden, found):
    held = parity(Fixed(found), golden_of(golden))
    assert held.recall is None or 0 <= held.recall <= 1
    assert held.precision is None or 0 <= held.precision <= 1
    if held.boxes and not any(score >= 0.4 for _, score, _ in found):
        assert not held.kept
    itself = parity(Fixed(golden), golden_of(golden))
    assert itself.kept == itself.known
    assert itself.worst < 1e-6


def test_floats_are_held_tighter_than_quantized_ones():
    assert FLOATS.iou > QUANTIZED.iou
    assert FLOATS.share > QUANTIZED.share
    assert FLOATS.moved < QUANTIZED.moved


@pytest.mark.parametrize("name", ["..", ".", "../other", "beside"])
def test_a_card_cannot_name_a_folder_of_somebody_else(tmp_path, name):
    """A model folder may come from anywhere: what its card calls golden is neither read nor removed elsewhere."""
    folder = starter_folder(tmp_path / "models" / "mine", size=(64, 64))
    for kept in (tmp_path / "models" / "precious", folder / "beside"):
        kept.mkdir()
    card = read_card(folder / "model.json")
    write_card(folder / "model.json", msgspec.structs.replace(card, golden=name))
    with pytest.raises(UnusableError, match="is no golden set"):
        read_golden(folder)
    write_golden(folder, jpegs(1))
    assert (tmp_path / "models" / "precious").is_dir()
    assert (folder / "beside").is_dir()
    assert len(read_golden(folder).images) == 1


def test_a_golden_picture_that_claims_gigabytes_is_refused_by_its_header(tmp_path):
    bomb = bytearray(next(iter(jpegs().values())))
    frame = bomb.index(b"\xff\xc0")
    bomb[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    folder = starter_folder(tmp_path / "model")
    with pytest.raises(UnusableError, match="65535x65535 pixels"):
        write_golden(folder, {"bomb": bytes(bomb)})
