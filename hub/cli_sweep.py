"""`hub sweep`: how small an input will do. Exit status as in hub.cli."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge.contract.errors import UnusableError
from edge.detector.opening import parse_size
from edge.detector.written import write_whole
from hub.cli_options import AgainstInput, Config, Database, Json
from hub.datasets.finding import find_version
from hub.evaluation.report import parse_baseline
from hub.sweep import KEEP, OnStep, Running, write_input
from hub.sweep import sweep as measure
from hub.sweep_lines import sweep_lines
from hub.sweep_sizes import parse_sizes


class Part(StrEnum):
    """A split of a dataset version."""

    TEST = "test"
    VAL = "val"


class OnRuntime(StrEnum):
    """What runs the models."""

    AUTO = "auto"
    OPENVINO = "openvino"
    ONNXRUNTIME = "onnxruntime"


def sweep(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file, or a folder with a model.json.")],
    dataset: Annotated[
        str, typer.Option(metavar="VERSION", help="A dataset version: its folder, or its number.", show_default=False)
    ],
    against: Annotated[
        Path | None, typer.Option(metavar="BASELINE", help="The model before it was fine-tuned, or any other.")
    ] = None,
    against_input: AgainstInput = "",
    sizes: Annotated[
        str,
        typer.Option(
            metavar="SIZES", help="As in 192,256,320x192; else squares and the frames' shape.", show_default=False
        ),
    ] = "",
    keep: Annotated[
        float, typer.Option(min=0.01, max=2.0, help="Of the AP50 that BASELINE has at the input it runs at.")
    ] = KEEP,
    split: Annotated[Part, typer.Option(help="Which pictures.")] = Part.TEST,
    runtime: Annotated[OnRuntime, typer.Option(help="What runs the models.")] = OnRuntime.AUTO,
    threads: Annotated[int | None, typer.Option(min=1, help="Of one detection; else the CPUs, at most 4.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write sweep.json and sweep.png into this folder.")
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the picked size into the card of MODEL, a candidate's folder.")
    ] = False,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Find the smallest input at which a model is still as good.

    Measures AP50, recall at the working threshold and the milliseconds of a
    detection at several input sizes, before and after fine-tuning where a
    baseline is named. Picks the fastest size that keeps --keep of the AP50
    that the baseline has at the input it runs at: --against-input.

    A frame of 640x360 fills 320x192; of 320x320 it leaves 44 % empty. So
    beside squares there are the sizes that fit the frames of the version.

    All sizes and models take turns at the clock, so that what else runs here
    slows all of them alike. Times are of this machine: on the device,
    `edge tune` measures again.

    A size that was picked looks a little better on the pictures that it was
    picked on: `hub gate` judges the candidate at the size of its card.

    With --write the card of a candidate gets the size, before it is
    quantized and before a gate judges it. Exits 1 when no size is picked.
    """
    named = parse_sizes(sizes) if sizes else ()
    baseline = parse_baseline(against, against_input)
    folder = find_version(dataset, config=config, database=database)
    with _progress() as on_step:
        done = measure(
            folder,
            model=model,
            against=baseline,
            sizes=named,
            split=split.value,
            keep=keep,
            running=Running(runtime.value, threads),
            on_step=on_step,
        )
    print(msgspec.json.encode(done).decode() if json else "\n".join(sweep_lines(done)))
    if out is not None:
        from hub.plots import save
        from hub.sweep_plots import sweep_picture

        _make(out)
        write_whole(out / "sweep.json", msgspec.json.format(msgspec.json.encode(done), indent=1) + b"\n")
        save(sweep_picture(done), out / "sweep.png")
        if not json:
            print(f"written: {out / 'sweep.json'} and sweep.png beside it")
    if done.picked is None:
        raise typer.Exit(1)
    if write:
        write_input(model, parse_size(done.picked.input))
        if not json:
            print(f"written: the card of {model} has the input {done.picked.input}")


@contextmanager
def _progress() -> Iterator[OnStep]:
    """Show how far it is, on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield show


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot make the folder {folder}: {error.strerror}"
        raise UnusableError(msg) from error
