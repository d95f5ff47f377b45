"""A training as it is ordered: freeze what to train on, or find what an earlier run froze; train; compare.

Laws:

1. The same order goes on where an earlier one was stopped: on the dataset version that was frozen for it.
2. Nothing is frozen for a training that could not begin.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import plain_text
from edge.detector.letterbox import Size
from edge.detector.opening import parse_size
from hub.config import find_config, find_database
from hub.datasets.finding import find_version
from hub.datasets.layouts import Layout
from hub.datasets.version import read_version
from hub.store import Store
from hub.tags import Tagger
from hub.train.asked import find_unfinished, remember
from hub.train.batch import with_batch
from hub.train.candidate import folder_name, model_name, open_parent
from hub.train.checkpoint import part_of, require_free, start_anew
from hub.train.compared import compare_on_test
from hub.train.course import train
from hub.train.lines import Trained
from hub.train.own_trainer import OwnTrainer, train_by_command
from hub.train.recipe import Recipe
from hub.train.screen import Screen
from hub.train.stopping import Stop
from hub.train.training import Training

if TYPE_CHECKING:
    from hub.datasets.freeze import Asked

CANDIDATES: Final = Path("candidates")


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a user wants.

    Attributes:
        asked: what to freeze; None where `dataset` names a version, by number or folder.
        out: the candidate's folder; None: candidates/NAME-DATASET.
        command: a trainer of the user's own, for `/bin/sh -c`, which gets the version in the layout `layout`; "": none.
        anew: drop what an unfinished training left.
    """

    asked: "Asked | None"
    dataset: str = ""
    model: Path | None = None
    input_size: Size | None = None
    out: Path | None = None
    name: str = ""
    recipe: Recipe = field(default_factory=Recipe)
    threads: int | None = None
    new_labels: tuple[str, ...] = ()
    command: str = ""
    layout: Layout = Layout.YOLO
    anew: bool = False
    config: Path = Path("hub.toml")
    database: Path | None = None

    @property
    def words(self) -> dict[str, str]:
        """What decides which version is frozen, and where the candidate goes."""
        asked = self.asked._asdict() if self.asked is not None else {}
        also = {"model": self.model, "name": self.name, "database": self.database, "config": self.config}
        return {key: str(value) for key, value in {**asked, **also}.items()}


def carry_out(order: Order, *, screen: Screen, stop: Stop) -> Trained:
    """Freeze, train and compare. Raises `UnusableError` with one sentence for whatever cannot be done."""
    if not order.command:
        _require_torch()
    if order.out is not None:
        require_free(order.out)
    _require_labels(order.new_labels)
    parent, _ = open_parent(order.model, input_size=order.input_size)
    name = folder_name(model_name(parent, order.name))
    folder, out = _given(order, name) if order.asked is None else _frozen(order, order.asked, name, screen)
    _say_what_is_not_taught(order.new_labels, folder, screen)
    training = _trained(order, folder, out, screen=screen, stop=stop)
    comparison = compare_on_test(
        read_version(folder),
        folder,
        baseline=order.model,
        candidate=out,
        input_size=parse_size(training.input),
        watch=screen.show,
    )
    return Trained(
        candidate=_shown(out),
        dataset=order.dataset or _shown(folder),
        model=str(order.model or ""),
        weak_spot=order.asked.weak_spot if order.asked is not None else None,
        training=training,
        comparison=comparison,
    )


def changed(recipe: Recipe, *, steps: int | None, rate: float | None, batch: int | None) -> Recipe:
    """Return a recipe with what a user asks to be otherwise. Raises `UnusableError` for a batch that is too small."""
    if batch is not None:
        recipe = with_batch(recipe, batch)
    wanted = {"steps": steps, "rate": rate}
    return msgspec.structs.replace(recipe, **{name: value for name, value in wanted.items() if value is not None})


def _given(order: Order, name: str) -> tuple[Path, Path]:
    """Return the folder of the version that is named, and the candidate's."""
    folder = find_version(order.dataset, config=order.config, database=order.database)
    out = order.out or CANDIDATES / f"{name}-{folder.resolve().name}"
    if order.anew:
        start_anew(out)
    return folder, out


def _frozen(order: Order, asked: "Asked", name: str, screen: Screen) -> tuple[Path, Path]:
    """Return the folder of a version that was frozen for this order, now or by an earlier run, and the candidate's."""
    from hub.datasets.freeze import freeze

    unfinished = find_unfinished(order.words, out=order.out, candidates=CANDIDATES)
    if unfinished is not None and not order.anew:
        screen.say(f"going on with {unfinished.out}, on the dataset version {_shown(unfinished.folder)}")
        return unfinished.folder, unfinished.out
    if unfinished is not None:
        start_anew(unfinished.out)
    if order.out is not None:
        _require_unbegun(order.out, anew=order.anew)
    config = find_config(order.config)
    with Store.open(find_database(config=order.config, database=order.database), create=False) as store:
        frozen = freeze(store, asked, model=order.model, tagger=Tagger(config.tags), watch=screen.show)
    out = order.out or CANDIDATES / f"{name}-{frozen.number}"
    screen.say(f"dataset version {frozen.number} in {_shown(frozen.folder)}")
    for note in frozen.notes:
        screen.say(f"note: {note}")
    remember(out, order.words, frozen.folder)
    return frozen.folder, out


def _trained(order: Order, folder: Path, out: Path, *, screen: Screen, stop: Stop) -> Training:
    if order.command:
        own = OwnTrainer(
            order.command, order.layout, noted=lambda note: screen.say(f"note: {note}"), running=screen.wait
        )
        return train_by_command(
            folder,
            own,
            model=order.model,
            out=out,
            input_size=order.input_size,
            name=order.name,
            new_labels=order.new_labels,
        )
    return train(
        folder,
        model=order.model,
        out=out,
        input_size=order.input_size,
        recipe=order.recipe,
        threads=order.threads,
        name=order.name,
        new_labels=order.new_labels,
        watch=screen.watch(stop),
    )


def _require_unbegun(out: Path, *, anew: bool) -> None:
    """Raise `UnusableError` when another training's beginning is there, unless it may be dropped."""
    if anew:
        start_anew(out)
    if part_of(out).exists():
        msg = f"{part_of(out)} is there already: --anew drops it, --out names another"
        raise UnusableError(msg)


def _require_labels(labels: tuple[str, ...]) -> None:
    for label in labels:
        if not label or plain_text(label) != label:
            msg = f"--new-label {label!r} cannot be a label: 1 to 64 characters that can be seen"
            raise UnusableError(msg)


def _say_what_is_not_taught(new_labels: tuple[str, ...], folder: Path, screen: Screen) -> None:
    taught = {box.label for member in read_version(folder).of("train") for box in member.boxes}
    for label in new_labels:
        if label not in taught:
            screen.say(f"note: no picture to train on shows {label}: the model gets the label and does not learn it")


def _require_torch() -> None:
    try:
        import onnx  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        msg = f'{error.name or "torch"} is not installed; run: pip install "weakspot[train]"'
        raise UnusableError(msg) from error


def _shown(folder: Path) -> str:
    """Return a folder as it is typed here."""
    here = Path.cwd()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)
