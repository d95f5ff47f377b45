"""`hub cvat`: batches on a CVAT server and back. Exit status as in hub.cli."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from hub.cli_options import Config, Database, Json
from hub.config import find_config, find_database
from hub.cvat_lines import as_json, pulled_lines, pushed_lines
from hub.cvat_pull import Pull, pull_batch
from hub.cvat_push import Push, push_batch
from hub.cvat_server import Report
from hub.import_lines import fault_lines, faults_as_json
from hub.labeling import FaultsError
from hub.store import Store

cvat = typer.Typer(
    no_args_is_help=True,
    help="Put a batch on a CVAT server as a task, and take back what was drawn.",
)

BatchId = Annotated[int, typer.Argument(metavar="ID", help="The batch's number, from `hub batch list`.")]
Pass = Annotated[
    str, typer.Option("--pass", metavar="LABEL", help="The one label that the task is about; left out: all at once.")
]


@cvat.command("push")
def cvat_push(
    number: BatchId,
    label_pass: Pass = "",
    honeypots: Annotated[int, typer.Option(min=0, help="How many images with known answers to mix in.")] = 0,
    project: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The project on the server that gets the task.")
    ] = None,
    assignee: Annotated[str, typer.Option(metavar="NAME", help="The user of the server who gets the task.")] = "",
    again: Annotated[bool, typer.Option("--again", help="Make another task where one stands already.")] = False,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Make a task of a batch on the CVAT server, with the boxes to start from.

    The server and the way to log in stand in hub.toml under `cvat`: `hub
    serve --help` has the keys. It needs cvat-sdk, the extra `cvat`.

    The images are sent at quality 100. Before any box is sent, the names and
    sizes of the frames on the server are held against the batch's; after it,
    every box is counted. A push that fails leaves no task behind.

    A batch is pushed once for each pass; pushed again, the task that stands
    is named. For a second annotator, give --again and another --assignee.
    With --project the task takes the labels of that project, which must have
    all of the batch's.

    `hub forget` does not reach what stands on the server: delete it there.
    """
    wish = Push(
        batch_id=number,
        label_pass=label_pass,
        honeypots=honeypots,
        project_id=project,
        assignee=assignee,
        again=again,
    )
    settings = find_config(config)
    with Store.open(find_database(config=config, database=database), create=False) as store, _reporting() as report:
        pushed = push_batch(store, settings, wish, now_ms=_now_ms(), report=report)
    print(as_json(pushed) if json else "\n".join(pushed_lines(pushed)))


@cvat.command("pull")
def cvat_pull(
    number: BatchId,
    label_pass: Pass = "",
    annotator: Annotated[
        str, typer.Option(metavar="NAME", help="Who drew; left out: those to whom jobs and tasks are assigned.")
    ] = "",
    minutes: Annotated[
        float | None, typer.Option(min=0, metavar="M", help="How long people worked: the server does not tell.")
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what is safe, and say what: see `hub labels import`.")] = (
        False
    ),
    unfinished: Annotated[
        bool, typer.Option("--unfinished", help="Also take tasks whose jobs are not completed.")
    ] = False,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Import what was drawn in the tasks that `hub cvat push` made of a batch.

    It goes through the same checks as `hub labels import`. Who drew is who
    the job is assigned to, else the task: each gets a label set of their own.
    What was imported before and has not changed is not imported again.

    Exits 1 when a task is not completed: it is named and left, unless
    --unfinished is given. Exits 2 when there is a fault in what was drawn.
    """
    wish = Pull(
        batch_id=number,
        label_pass=label_pass,
        annotator=annotator,
        minutes=minutes,
        fix=fix,
        unfinished=unfinished,
    )
    settings = find_config(config)
    try:
        with Store.open(find_database(config=config, database=database), create=False) as store, _reporting() as report:
            pulled = pull_batch(store, settings, wish, now_ms=_now_ms(), report=report)
    except FaultsError as error:
        if json:
            print(faults_as_json(error))
        print("hub: " + "\n".join(fault_lines(error, fix=fix)), file=sys.stderr)
        raise typer.Exit(2) from None
    print(as_json(pulled) if json else "\n".join(pulled_lines(pulled)))
    if pulled.unfinished:
        raise typer.Exit(1)


@contextmanager
def _reporting() -> Iterator[Report]:
    """Show on a terminal how far the work is, one line for each kind of work."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        rows: dict[str, int] = {}

        def report(what: str, done: float, total: float) -> None:
            if what not in rows:
                rows[what] = int(progress.add_task(what))
            progress.update(rows[what], completed=done, total=total or None)  # type: ignore[arg-type]

        yield report


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
