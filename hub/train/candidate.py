"""The candidate: a model folder that a training leaves, checked before anyone can see it.

Laws:

1. The folder is whole or not there: it is written into the folder of the unfinished training, flushed, checked, and
   renamed. What a killed process has left there goes with that folder.
2. What `edge model check` refuses is not released, nor what has other labels or another head than its card says.
3. Its card is the parent's, but for what the training changed; figures that were measured on the parent are not kept.
"""

import dataclasses
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from edge.contract.card import ModelCard, read_card
from edge.contract.errors import UnusableError
from edge.contract.samples import plain_text
from edge.detector.checking import ModelReport, check_model
from edge.detector.detector import open_detector
from edge.detector.golden import write_golden
from edge.detector.letterbox import Size
from edge.detector.opening import CARD_NAME, ModelFile, read_model
from edge.detector.written import flush_folder, write_card, write_whole
from hub.datasets.version import Version, read_jpeg
from hub.train.checkpoint import require_free
from hub.train.training import TRAINING, Training

MODEL: Final = "model.onnx"
_DIGITS: Final = 8
_GOLDEN: Final = 12
_MOST_NAME: Final = 64 - 1 - _DIGITS


def open_parent(model: Path | None, *, input_size: Size | None = None) -> tuple[ModelFile, Size]:
    """Return the model to train on, with a card (made where it has none), and the input size, (width, height).

    Raises `UnusableError` when no runtime here can use it at that size.
    """
    found = read_model(model)
    detector = open_detector(found.path, input_size=input_size)
    return dataclasses.replace(found, card=detector.card), detector.input_size


def card_of(parent: ModelFile) -> ModelCard:
    """Return a parent's card. Raises `ValueError` for a file that `open_parent` did not give."""
    if parent.card is None:
        msg = f"{parent.path} has no card"
        raise ValueError(msg)
    return parent.card


def model_name(parent: ModelFile, name: str) -> str:
    """Return the candidate's model name: `name`, else the parent's."""
    return plain_text(name, most=_MOST_NAME) or card_of(parent).name[:_MOST_NAME].rstrip()


def folder_name(name: str) -> str:
    """Return a model's name as a folder can be called: a card may come from anywhere."""
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "model"


def candidate_card(
    parent: ModelFile, onnx: Path, *, name: str, input_size: Size, labels: tuple[str, ...], source: str
) -> ModelCard:
    """Return the card of the ONNX file that was trained from `parent`."""
    card = card_of(parent)
    with onnx.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    width, height = input_size
    return msgspec.structs.replace(
        card,
        name=name,
        release=f"{name}-{sha256[:_DIGITS]}",
        file=onnx.name,
        sha256=sha256,
        input=msgspec.structs.replace(card.input, width=width, height=height),
        labels=labels,
        source=source,
        accuracy=(),
        variants=(),
        golden="",
    )


def write_model(folder: Path, card_for: Callable[[Path], ModelCard], *, write_onnx: Callable[[Path], object]) -> Path:
    """Write ONNX file and card into a folder that is made when missing, over what is there; return it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_onnx(folder / MODEL)
    except OSError as error:
        msg = f"cannot write {folder}: {error.strerror or error}"
        raise UnusableError(msg) from error
    write_card(folder / CARD_NAME, card_for(folder / MODEL))
    return folder


@contextmanager
def candidate_folder(out: Path, *, part: Path) -> Iterator[Path]:
    """Give a folder in `part` to write into; it takes the place when the block ends without an error, else it goes.

    Raises `UnusableError` when `out` is there already or when it cannot be written.
    """
    beside = part / "candidate"
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        yield beside
        for path in sorted(beside.rglob("*")):
            _flush(path)
        flush_folder(beside)
        require_free(out)
        beside.rename(out)
        flush_folder(out.parent)
    except OSError as error:
        msg = f"cannot write the candidate {out}: {error.strerror or error}"
        raise UnusableError(msg) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def require_usable(folder: Path) -> ModelReport:
    """Check a model folder as `edge model check` does. Raises `UnusableError` with what is wrong with it."""
    card = read_card(folder / CARD_NAME)
    try:
        report = check_model(folder)
    except UnusableError as error:
        msg = f"what was trained cannot be used, nothing is released: {_without(error, folder)}"
        raise UnusableError(msg) from error
    broken = [f"{one.name}: {one.error}" for one in report.runtimes if one.error is not None]
    if broken:
        msg = f"what was trained does not run on {broken[0]}; nothing is released"
        raise UnusableError(msg.replace(f"{folder}/", ""))
    if not report.agrees:
        msg = (
            f"on what was trained, two runtimes agree on {report.agreement or 0:.0%} of the best boxes only:"
            " nothing is released"
        )
        raise UnusableError(msg)
    if report.labels != card.labels or report.head != card.head:
        msg = "what was trained has other labels or another head than its card; nothing is released"
        raise UnusableError(msg)
    return report


def add_golden(folder: Path, version: Version, version_folder: Path) -> None:
    """Give a model folder its golden set: pictures with boxes, from all over those it was trained or validated on.

    Raises `UnusableError` when a picture cannot be used.
    """
    known = [one for one in version.members if one.split != "test" and one.boxes and not one.copy_of]
    stride = max(1, -(-len(known) // _GOLDEN))
    write_golden(folder, {one.name: read_jpeg(version_folder, one) for one in known[::stride]})


def write_training(folder: Path, training: Training) -> None:
    """Write `training.json`. Raises `UnusableError` when it cannot be written."""
    write_whole(folder / TRAINING, msgspec.json.format(msgspec.json.encode(training), indent=1) + b"\n")


def _flush(path: Path) -> None:
    if path.is_dir():
        flush_folder(path)
        return
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _without(error: UnusableError, folder: Path) -> str:
    return str(error).replace(f"{folder}/", "")
