"""The course of a training: open, estimate, step by step, choose, release. Whatever ends it early leaves no candidate.

    training = train(Path("datasets/3"), model=None, out=Path("candidates/starter-3"), input_size=(192, 192),
                     recipe=Recipe())

Laws:

1. Nothing stands at `out` before the candidate was checked.
2. What was killed goes on from its last checkpoint, and ends with the very weights of a training that was not.
3. A loss that is not a number ends the training; its checkpoint goes too, for it would get there again.
"""

import dataclasses
import importlib.metadata
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.contract.card import ModelCard
from edge.contract.errors import UnusableError
from edge.detector.letterbox import Size
from edge.detector.opening import ModelFile, read_model
from hub.datasets.version import Version, read_version
from hub.train.batch import batch_of
from hub.train.candidate import (
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
from hub.train.checkpoint import CHECKPOINT, Account, Checkpoint, Terms, opened, plain_recipe, write_checkpoint
from hub.train.estimate import (
    Estimate,
    free_bytes,
    gigabytes,
    peak_bytes,
    picture_bytes,
    require_memory,
    reset_peak,
    usable_cpus,
)
from hub.train.parts import parts_of, require_teachable
from hub.train.recipe import Recipe
from hub.train.stopping import Stop
from hub.train.training import LossAt, Training, thinned

if TYPE_CHECKING:
    from hub.train.fit import Fit
    from hub.train.interpolation import Chosen

_EVERY_S: Final = 20.0
_WARM_UP: Final = 2  # steps: the second one is timed
_MOST_THREADS: Final = 4
_NO_MEMORY: Final = ("allocate memory", "not enough memory", "out of memory", "bad_alloc", "could not create a memory")


class StoppedError(UnusableError):
    """The user ended a training; it can go on."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on.

    Attributes:
        said: what is being done now, in words.
        estimated: what is still to come, once that is known.
        stepped: after each step: how many are done, of how many, and the parts of the loss.
        stop: asked between two steps.
    """

    said: Callable[[str], object] = lambda _text: None
    estimated: Callable[[Estimate], object] = lambda _estimate: None
    stepped: Callable[[int, int, Mapping[str, float]], object] = lambda _done, _steps, _parts: None
    stop: Stop = field(default_factory=Stop)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is trained on what."""

    version: Version
    folder: Path
    parent: ModelFile
    input_size: Size
    recipe: Recipe
    threads: int
    name: str
    out: Path
    new_labels: tuple[str, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        return card_of(self.parent).labels + self.new_labels

    @property
    def terms(self) -> Terms:
        return Terms(
            dataset=self.version.digest,
            folder=str(self.folder),
            model=self.parent.sha256,
            input=_spelled(self.input_size),
            recipe=plain_recipe(self.recipe),
            threads=self.threads,
            name=self.name,
            new_labels=self.new_labels,
            versions=versions(),
        )


def train(  # noqa: PLR0913  # each is a choice of its own
    version_folder: Path,
    *,
    model: Path | None,
    out: Path,
    input_size: Size | None,
    recipe: Recipe,
    threads: int | None = None,
    name: str = "",
    new_labels: tuple[str, ...] = (),
    watch: Watch | None = None,
) -> Training:
    """Train a model on a dataset version, and leave the candidate's folder at `out`.

    Args:
        version_folder: of the dataset version.
        model: an ONNX file, or a folder with a `model.json`; None is the starter model.
        out: the candidate's folder; it must not be there. `OUT.part` beside it holds what an unfinished one left.
        input_size: (width, height) to train at; None takes the card's.
        recipe: see hub.train.recipe.
        threads: None takes the usable CPUs, at most four. Another number gives other weights.
        name: of the model; the parent's without.
        new_labels: that the model shall learn beside its own.
        watch: who looks on.

    Raises `StoppedError` when the watch says stop, and `UnusableError` with one sentence for whatever else ends it.
    """
    watch = watch or Watch()
    version = read_version(version_folder)
    parent, size = open_parent(model, input_size=input_size)
    subject = _Subject(
        version=version,
        folder=version_folder,
        parent=parent,
        input_size=size,
        recipe=recipe,
        threads=threads or min(_MOST_THREADS, usable_cpus()),
        name=model_name(parent, name),
        out=out,
        new_labels=new_labels,
    )
    require_teachable(version, version_folder, labels=subject.labels)
    terms = subject.terms
    with opened(out, terms) as (part, checkpoint):
        account = _account(checkpoint)
        try:
            with _memory_told(account, batch_of(subject.recipe)):
                started = _extended(subject, part)
                fit = _begin(subject, started, checkpoint, watch)
                _run(fit, account, watch=watch, keep=lambda found: write_checkpoint(part, found, terms=terms))
                watch.said("choosing between old and new weights")
                writer = _Writer(subject, started)
                chosen = fit.finish(lambda state: writer.write(part / "trial", state))
            watch.said("checking the candidate")
            training = _release(chosen, fit, part=part, writer=writer, account=account)
        except _HopelessError:
            (part / CHECKPOINT).unlink(missing_ok=True)
            raise
        (part / CHECKPOINT).unlink(missing_ok=True)
    return training


class _HopelessError(UnusableError):
    """What ended a training would end it again."""


class _Writer:
    """Writes weights as a model folder: the graph that was started from, with other numbers, and its card."""

    def __init__(self, subject: _Subject, started: ModelFile) -> None:
        from hub.train.graph import TorchGraph

        self.subject = subject
        self._graph = TorchGraph.open(started.path)

    def write(self, folder: Path, state: Mapping[str, NDArray[Any]]) -> Path:
        """Write a model folder, over one that is there. Raises `UnusableError` for weights that are no numbers."""
        if broken := [name for name, array in state.items() if not np.isfinite(array).all()]:
            msg = f"the weights of {broken[0]} are not numbers any more: nothing is released"
            raise _HopelessError(msg)
        self._graph.load(dict(state))
        return write_model(folder, self._card, write_onnx=self._graph.write)

    def _card(self, onnx: Path) -> ModelCard:
        subject = self.subject
        return candidate_card(
            subject.parent,
            onnx,
            name=subject.name,
            input_size=subject.input_size,
            labels=subject.labels,
            source=f"trained from {card_of(subject.parent).release} on dataset {subject.version.digest[:12]}",
        )


def _account(checkpoint: Checkpoint | None) -> Account:
    """Return the account to go on with."""
    if checkpoint is None:
        return Account()
    checkpoint.account.resumed += 1
    return checkpoint.account


def _extended(subject: _Subject, part: Path) -> ModelFile:
    """Return the model to start from: the parent, or, written into `part`, the parent with rows for new labels."""
    if not subject.new_labels:
        return subject.parent
    from hub.train.new_labels import add_label

    card = card_of(subject.parent)
    path, labels = subject.parent.path, card.labels
    for number, label in enumerate(subject.new_labels):
        grown = part / f"with-{number + 1}-more.onnx"
        labels = add_label(path, grown, head=card.head, labels=labels, new_label=label)
        path = grown
    read = read_model(path)
    return dataclasses.replace(
        read, card=msgspec.structs.replace(card, file=path.name, sha256=read.sha256, labels=labels)
    )


def _begin(subject: _Subject, started: ModelFile, checkpoint: Checkpoint | None, watch: Watch) -> "Fit":
    """Open the graph, the pictures and what an earlier run left."""
    from hub.train.fit import Fit

    watch.said("measuring what one picture takes")
    batch, spec = batch_of(subject.recipe), card_of(started).input
    needed = picture_bytes(started.path, spec, input_size=subject.input_size) * batch
    require_memory(needed, free_bytes(), batch=batch, input_size=subject.input_size)
    watch.said("opening the pictures")
    reset_peak()
    fit = Fit(
        model=started,
        version=subject.version,
        folder=subject.folder,
        input_size=subject.input_size,
        recipe=subject.recipe,
        threads=subject.threads,
    )
    if checkpoint is not None:
        fit.load(checkpoint.state)
    return fit


def _run(fit: "Fit", account: Account, *, watch: Watch, keep: Callable[[Checkpoint], None]) -> None:
    """Take the steps that are left; keep a checkpoint after the first ones, then now and then, and at the end."""
    begun = kept = time.monotonic()
    earlier, first = account.seconds, fit.done
    with watch.stop.held():
        while not fit.stopped and fit.done < fit.steps:
            started = time.monotonic()
            parts = dict(fit.step())
            now = time.monotonic()
            _require_numbers(parts, fit.done)
            account.losses.append(LossAt(step=fit.done, parts=parts))
            account.seconds = earlier + now - begun
            account.peak_bytes = max(account.peak_bytes, peak_bytes())
            watch.stepped(fit.done, fit.steps, parts)
            measured = fit.done - first == _WARM_UP
            if measured:
                left = fit.steps - fit.done
                watch.estimated(Estimate(left, left * (now - started), account.peak_bytes))
            if measured or watch.stop.asked or now - kept >= _EVERY_S:
                keep(Checkpoint(fit.state(), account))
                kept = time.monotonic()
            if watch.stop.asked:
                msg = f"stopped at step {fit.done} of {fit.steps}: the same command goes on from there"
                raise StoppedError(msg)
        keep(Checkpoint(fit.state(), account))


def _release(chosen: "Chosen", fit: "Fit", *, part: Path, writer: _Writer, account: Account) -> Training:
    """Write the candidate, check it, and put it in its place."""
    subject = writer.subject
    with candidate_folder(subject.out, part=part) as folder:
        writer.write(folder, chosen.state)
        try:
            report = require_usable(folder)
            add_golden(folder, subject.version, subject.folder)
        except UnusableError as error:
            raise _HopelessError(str(error)) from error
        parent = card_of(subject.parent)
        training = Training(
            release=report.release,
            parent=parent.release,
            parent_sha256=subject.parent.sha256,
            dataset=subject.version.digest,
            folder=str(subject.folder),
            pictures=parts_of(subject.version),
            input=_spelled(subject.input_size),
            parent_input=_spelled((parent.input.width, parent.input.height)),
            recipe=plain_recipe(subject.recipe),
            seed=subject.recipe.seed,
            threads=subject.threads,
            steps=fit.done,
            planned=fit.steps,
            seconds=account.seconds,
            resumed=account.resumed,
            peak_bytes=max(account.peak_bytes, peak_bytes()),
            losses=thinned(account.losses),
            alpha=chosen.alpha,
            validation=dict(chosen.validation),
            new_labels=subject.new_labels,
            versions=versions(),
        )
        write_training(folder, training)
    return training


def versions() -> dict[str, str]:
    """Return the versions of what makes a candidate, by name; "" for what is not installed."""
    found = {}
    for name in ("torch", "onnx", "weakspot"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = ""
    return found


@contextmanager
def _memory_told(account: Account, batch: int) -> Iterator[None]:
    """Turn what is raised without memory into one line that says what to do."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(words in str(error).lower() for words in _NO_MEMORY):
            raise
        held = f"; {gigabytes(account.peak_bytes)} was the most it held" if account.peak_bytes else ""
        less = "a smaller --batch or --input" if batch > 1 else "a smaller --input"
        msg = f"out of memory after step {len(account.losses)}{held}: end other programs, or try {less}, with --anew"
        raise UnusableError(msg) from error


def _require_numbers(parts: Mapping[str, float], step: int) -> None:
    """Raise when a part of the loss is NaN or infinite."""
    if broken := [name for name, value in parts.items() if not math.isfinite(value)]:
        named = ", ".join(f"{name} is {parts[name]}" for name in broken)
        msg = f"the loss is not a number at step {step} ({named}): nothing is released; try a smaller --rate"
        raise _HopelessError(msg)


def _spelled(size: Size) -> str:
    return f"{size[0]}x{size[1]}"
