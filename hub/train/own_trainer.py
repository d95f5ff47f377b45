"""Somebody's own trainer: a command that gets a dataset version and leaves an ONNX file.

It runs through `/bin/sh -c` where `hub` was called, with

    WEAKSPOT_DATASET   the folder of the dataset version, in the YOLO or COCO layout
    WEAKSPOT_OUT       the folder in which it must leave `model.onnx`
    WEAKSPOT_MODEL     the ONNX file that is deployed
    WEAKSPOT_INPUT     WIDTHxHEIGHT

Laws:

1. It has a process group of its own, of which nothing is left when this side goes on or ends.
2. What it left is held against the card: the same head, the same labels, and `edge model check`.
"""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import plain_text
from edge.detector.letterbox import Size
from hub.datasets.layouts import Layout, export_version
from hub.datasets.version import read_version
from hub.train.candidate import (
    MODEL,
    add_golden,
    candidate_card,
    candidate_folder,
    card_of,
    model_name,
    open_parent,
    require_usable,
    write_model,
    write_training,
)
from hub.train.checkpoint import Terms, opened
from hub.train.parts import parts_of, require_teachable
from hub.train.training import Training

LOG: Final = "trainer.log"
_GRACE_S: Final = 5.0
_LOOK_S: Final = 0.5
_TAIL_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class OwnTrainer:
    """A command.

    Attributes:
        command: for `/bin/sh -c`.
        noted: called with what the layout cannot say, a sentence each.
        running: called twice a second with the last line that it wrote.
    """

    command: str
    layout: Layout
    noted: Callable[[str], object] = lambda _note: None
    running: Callable[[str], object] = lambda _line: None


def train_by_command(
    version_folder: Path,
    trainer: OwnTrainer,
    *,
    model: Path | None,
    out: Path,
    input_size: Size | None,
    name: str = "",
    new_labels: tuple[str, ...] = (),
) -> Training:
    """Let a command train a model, and leave the candidate's folder at `out`; its log is in it.

    The log of a command that failed stays beside, at `OUT.log`. Raises `UnusableError` when it fails, when it leaves no
    model, or when its model is not one that the card describes.
    """
    version = read_version(version_folder)
    parent, size = open_parent(model, input_size=input_size)
    labels = card_of(parent).labels + new_labels
    require_teachable(version, version_folder, labels=labels)
    spelled, called = f"{size[0]}x{size[1]}", model_name(parent, name)
    terms = Terms(
        dataset=version.digest,
        folder=str(version_folder),
        model=parent.sha256,
        input=spelled,
        recipe={"command": trainer.command, "format": trainer.layout},
        threads=0,
        name=called,
        new_labels=new_labels,
        versions={},
    )
    log = out.with_name(f"{out.name}.log")
    with opened(out, terms) as (part, _):
        dataset, left = _fresh(part / "dataset"), _fresh(part / "out")
        left.mkdir()
        as_model = msgspec.structs.replace(version, labels=labels)  # class numbers are the model's
        exported = export_version(version_folder, as_model, layout=trainer.layout, out=dataset)
        for note in exported.notes:
            trainer.noted(note)
        environment = {
            "WEAKSPOT_DATASET": str(dataset.resolve()),
            "WEAKSPOT_OUT": str(left.resolve()),
            "WEAKSPOT_MODEL": str(parent.path.resolve()),
            "WEAKSPOT_INPUT": spelled,
        }
        seconds = run_command(trainer.command, environment=environment, log=log, running=trainer.running)
        onnx = left / MODEL
        if not onnx.is_file():
            msg = f"the command ended without an error, but left no {MODEL} in $WEAKSPOT_OUT; its output: {log}"
            raise UnusableError(msg)
        with candidate_folder(out, part=part) as folder:
            source = f"trained from {card_of(parent).release} by a command on dataset {version.digest[:12]}"
            write_model(
                folder,
                lambda file: candidate_card(parent, file, name=called, input_size=size, labels=labels, source=source),
                write_onnx=lambda path: shutil.copyfile(onnx, path),
            )
            release = require_usable(folder).release
            add_golden(folder, version, version_folder)
            training = Training(
                release=release,
                parent=card_of(parent).release,
                parent_sha256=parent.sha256,
                dataset=version.digest,
                folder=str(version_folder),
                pictures=parts_of(version),
                input=spelled,
                parent_input=f"{card_of(parent).input.width}x{card_of(parent).input.height}",
                command=trainer.command,
                seconds=seconds,
                peak_bytes=_children_bytes(),
                new_labels=new_labels,
            )
            write_training(folder, training)
            shutil.copyfile(log, folder / LOG)
        log.unlink(missing_ok=True)
    return training


def run_command(
    command: str, *, environment: Mapping[str, str], log: Path, running: Callable[[str], object] = lambda _line: None
) -> float:
    """Run a command in a process group of its own, its output to a log; return the seconds that it took.

    Whatever ends this, the group ends with it: SIGTERM, and SIGKILL five seconds later. Raises `UnusableError` with
    its exit status and its last line when it fails.
    """
    begun = time.monotonic()
    try:
        with log.open("wb") as file:
            process = subprocess.Popen(  # noqa: S603  # the user's own command, typed by the user
                ["/bin/sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )
    except OSError as error:
        msg = f"cannot run the command: {error}"
        raise UnusableError(msg) from error
    try:
        while process.poll() is None:
            running(last_line(log))
            _wait(process, _LOOK_S)
    finally:
        _end_group(process)
    if process.returncode != 0:
        by = f"ended with status {process.returncode}"
        if process.returncode < 0:
            by = f"was killed by {signal.Signals(-process.returncode).name}"
        said = last_line(log)
        msg = f"the command {by}; its output: {log}" + (f"; its last line: {said}" if said else "")
        raise UnusableError(msg)
    return time.monotonic() - begun


def last_line(log: Path) -> str:
    """Return the last line of a log that says something, as plain text."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            tail = file.read(_TAIL_BYTES).decode(errors="replace").replace("\r", "\n")
    except FileNotFoundError:  # the command may do as it likes
        return ""
    lines = [plain_text(line, most=200) for line in tail.splitlines()]
    return next((line for line in reversed(lines) if line), "")


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process with all of its group, also when the wait for its end is interrupted."""
    with contextlib.suppress(ProcessLookupError):
        try:
            os.killpg(process.pid, signal.SIGTERM)
            _wait(process, _GRACE_S)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def _fresh(folder: Path) -> Path:
    """Return the folder, which is not there any more."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _children_bytes() -> int:
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
