"""`hub evaluate`: how good a model is, and whether a candidate is better. Exit status as in hub.cli."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge.contract.errors import UnusableError
from edge.detector.opening import parse_size
from hub.cli_options import AgainstInput, Config, Database, Json
from hub.datasets.finding import find_version
from hub.evaluation.lines import report_lines
from hub.evaluation.report import REPORT, OnImage, measure, parse_baseline, write_report


class Part(StrEnum):
    """A split of a dataset version."""

    TEST = "test"
    VAL = "val"
    TRAIN = "train"


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX file, or a folder with a model.json.")],
    dataset: Annotated[
        str, typer.Option(metavar="VERSION", help="A dataset version: its folder, or its number.", show_default=False)
    ],
    against: Annotated[
        Path | None, typer.Option(metavar="BASELINE", help="Hold it against this model, on the same pictures.")
    ] = None,
    split: Annotated[Part, typer.Option(help="Which pictures: of `test` no training has seen any.")] = Part.TEST,
    input_size: Annotated[
        str, typer.Option("--input", metavar="WIDTHxHEIGHT", help="The input of both; else as their cards say.")
    ] = "",
    against_input: AgainstInput = "",
    score_threshold: Annotated[
        float | None,
        typer.Option(min=0.01, max=1.0, help="From which score a box counts as found; else as the cards say."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help=f"Write {REPORT} and plots into this folder; it is made if missing."),
    ] = None,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Measure a model on the test share, through the very code of the devices.

    AP and AP50 are COCO's. Recall and precision are at the score threshold;
    a box is right at IoU .5. All of it per label, size in pixels of the
    model's input, camera, tag and weak spot. Then what kinds of mistakes
    there are and what each costs, and whether the scores mean what they say.

    With --against, both look at the same pictures, and each difference has a
    95 % interval: pictures are drawn again and again, for both the same.
    Frames of one camera within 20 s are alike and are drawn together.

    On each picture only those labels count that were looked for there.
    Labels that a model cannot tell are named and left out.

    Exits 2 when the version has no labelled image in the split, when a
    picture was changed or is broken, and when a model cannot be used.
    """
    size = parse_size(input_size) if input_size else None
    baseline = parse_baseline(against, against_input)
    folder = find_version(dataset, config=config, database=database)
    with _progress() as on_image:
        report = measure(
            folder,
            model=model,
            against=baseline,
            split=split.value,
            input_size=size,
            score_threshold=score_threshold,
            on_image=on_image,
        )
    print(msgspec.json.encode(report).decode() if json else "\n".join(report_lines(report)))
    if out is not None:
        from hub.evaluation.plots import report_pictures
        from hub.plots import save

        _make(out)
        write_report(report, out / REPORT)
        for name, figure in report_pictures(report):
            save(figure, out / name)
        if not json:
            print(f"written: {out / REPORT} and plots beside it")


@contextmanager
def _progress() -> Iterator[OnImage]:
    """Show how far the looks are, on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("looking", total=None)

        def show(release: str, done: int, total: int) -> None:
            progress.update(task, description=f"{release} looks", completed=done, total=total)

        yield show


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot make the folder {folder}: {error.strerror}"
        raise UnusableError(msg) from error
