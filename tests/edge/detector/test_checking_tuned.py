"""`edge model check` names the way that `edge tune` chose, and why it is not followed."""

import shutil
from pathlib import Path

import msgspec
import pytest

from edge.detector.checking import check_model
from edge.detector.opening import find_starter, read_model
from edge.detector.tuned import TUNED_NAME, Choice, Tuned, card_sha256, this_machine

CHOICE = Choice(variant="", runtime="onnxruntime", precision="f32", threads=1)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    for name in ("model.json", "starter.onnx"):
        shutil.copy(find_starter() / name, tmp_path)
    return tmp_path


def write_tuned(model: Path, **changes) -> None:
    found = read_model(model)
    tuned = Tuned(
        release="starter-1",
        card_sha256=card_sha256(found),
        file_sha256=found.sha256,
        golden="",
        input="64x64",
        machine=this_machine(),
        runtime_version="1",
        choice=CHOICE,
        median_ms=1.0,
        default=CHOICE,
        default_ms=1.0,
        at_ms=1,
    )
    (model / TUNED_NAME).write_bytes(msgspec.json.encode(msgspec.structs.replace(tuned, **changes)))


def test_what_was_tuned_is_named(model: Path) -> None:
    assert check_model(model, input_size=(64, 64), threads=1).tuned == ""
    write_tuned(model)
    assert check_model(model, input_size=(64, 64), threads=1).tuned == str(CHOICE)
    write_tuned(model, input="320x192")
    assert check_model(model, input_size=(64, 64), threads=1).tuned == (
        "not followed: it was measured at 320x192, not at 64x64"
    )
    (model / TUNED_NAME).write_bytes(b"nonsense")
    assert check_model(model, input_size=(64, 64), threads=1).tuned.startswith("not followed: ")
