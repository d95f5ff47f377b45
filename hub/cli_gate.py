"""`hub gate`: whether a candidate may be rolled out. Exit status as in hub.cli."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from edge.contract.errors import UnusableError
from edge.detector.opening import parse_size
from hub.cli_options import AgainstInput, Config, Database, Json
from hub.config import find_database
from hub.datasets.finding import find_version
from hub.evaluation.report import Baseline
from hub.gate import fixed_spots, hold, move_on, weak_spot_of
from hub.gate_lines import gate_lines
from hub.gate_rules import BUDGET
from hub.store import Store


def gate(
    candidate: Annotated[Path, typer.Argument(metavar="CANDIDATE", help="The candidate's folder, with a model.json.")],
    against: Annotated[
        Path, typer.Option(metavar="BASELINE", help="What runs now: its folder or ONNX file.", show_default=False)
    ],
    dataset: Annotated[
        str, typer.Option(metavar="VERSION", help="A dataset version: its folder, or its number.", show_default=False)
    ],
    weak_spot: Annotated[
        int | None,
        typer.Option("--weakspot", metavar="ID", help="What it was made for; else as the dataset version says."),
    ] = None,
    against_input: AgainstInput = "",
    budget: Annotated[
        float, typer.Option(min=0.0, max=100.0, help="Points of AP50 and recall that may be lost elsewhere.")
    ] = BUDGET,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Say whether a candidate may be rolled out, by what the test share shows.

    It must be better on its weak spot: recall and AP50, both intervals above
    0. No weak spot that is fixed may come back. Nothing else may be worse by
    more than the budget: over all, on the pictures that are not of its weak
    spot, and for each label, size and camera with enough objects. Where it
    gives more false alarms, it must find as much as the baseline also from
    the score up from which both give as few; that score is said. Each variant
    must have been measured within the budget.

    A loss must be shown to stop it: the interval lies below 0, and among many
    groups more is asked of each, so that a candidate that lost nothing is
    refused for one of them in 5 % of the cases at most. What cannot be told
    from the test pictures is never a pass: on its own weak spot, and where it
    seems to lose over all, it stops the candidate; elsewhere it is a warning.

    Writes gate.json into the candidate's folder, bound to its file. When it
    passes, its weak spot becomes `trained`; otherwise nothing moves.

    Exit status: 0 it passes, 1 it does not, 2 it could not be done.
    """
    version = find_version(dataset, config=config, database=database)
    number = weak_spot_of(version) if weak_spot is None else weak_spot
    with _database(config, database) as store, _progress() as progress:
        task = progress.add_task("looking", total=None)
        report = hold(
            candidate,
            against=Baseline(against, parse_size(against_input) if against_input else None),
            version=version,
            weak_spot=number,
            fixed=fixed_spots(store) if store is not None else None,
            budget=budget,
            now_ms=time.time_ns() // 1_000_000,
            on_image=lambda release, done, total: progress.update(
                task, description=f"{release} looks", completed=done, total=total
            ),
        )
        moved = "there is no database here, so no weak spot moves on" if store is None else move_on(store, report)
    answer = {**msgspec.to_builtins(report), "moved": moved}
    print(msgspec.json.encode(answer).decode() if json else "\n".join(gate_lines(report, moved=moved)))
    if not report.passed:
        raise typer.Exit(1)


def _database(config: Path, database: Path | None) -> Store | nullcontext[None]:
    """Open the database; None where there is none and none was named."""
    try:
        return Store.open(find_database(config=config, database=database), create=False)
    except UnusableError:
        if database is not None or config.is_file():
            raise
        return nullcontext()


def _progress() -> Progress:
    """Show how far it is, on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
