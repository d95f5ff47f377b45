"""`hub dataset freeze`, `list`, `show`, `export` and `take`: what is trained on. Exit status as in hub.cli."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from edge.contract.errors import UnusableError
from hub.cli_options import Config, Database, Json, write_file
from hub.config import find_config, find_database
from hub.datasets.finding import find_version
from hub.datasets.layouts import Layout, export_version
from hub.datasets.lines import exported_lines, frozen_lines, list_as_json, list_lines, shown, shown_lines
from hub.datasets.sheet import LIMIT, version_sheet
from hub.datasets.version import read_jpeg, read_version
from hub.lines import counted
from hub.store import Store
from hub.store_datasets import recipe_of
from hub.tags import Tagger


class TakenAs(StrEnum):
    """The split that a folder is taken as."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


Which = Annotated[str, typer.Argument(metavar="VERSION", help="The number of a version, or its folder.")]
Format = Annotated[Layout, typer.Option("--format", "-f", help="The layout of the folder.")]


def add_versions(app: typer.Typer) -> None:
    """Add the commands to `hub dataset`."""
    app.command("freeze")(dataset_freeze)
    app.command("list")(dataset_list)
    app.command("show")(dataset_show)
    app.command("export")(dataset_export)
    app.command("take")(dataset_take)
    app.command("sheet")(dataset_sheet)


def dataset_freeze(
    weak_spot: Annotated[
        int | None, typer.Option("--weakspot", metavar="ID", help="For this weak spot: its frames come first.")
    ] = None,
    self_taught: Annotated[
        bool, typer.Option("--self-taught", help="Only what the model sees by its second look: no labels needed.")
    ] = False,
    people_only: Annotated[bool, typer.Option("--people-only", help="No self-taught frames.")] = False,
    model: Annotated[
        Path | None, typer.Option(metavar="ONNX", help="The model to be trained; else the starter model.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="ONNX", help="A larger model, to look in the place of the model itself.")
    ] = None,
    replay: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Pictures of anything, without labels, so that the model forgets nothing."),
    ] = None,
    no_noise: Annotated[bool, typer.Option("--no-noise", help="No noisy copies.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FOLDER", help="Else `datasets/N`.")] = None,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Choose what is trained on, and freeze it as a numbered dataset version.

    People's boxes: every labelled image, but for the test share, what was
    drawn at random, and near-duplicates of either. These measure, and are
    the `test` of the version whatever the options say. Where annotators do
    not agree, the place is neither an object nor background.

    Self-taught frames: about 100 that nobody has labelled, spread over
    cameras and time, with what the model sees when it looks closer.

    Replay: 200 pictures on which the old model's word is kept. Without a
    folder, frames of cameras that no box of people's is of.

    Noisy copies: each labelled image once more, with the light, noise, blur
    and JPEG that were measured on its camera at other times.

    About a fifth is held back for validation: whole days of a camera, of its
    first day blocks of 20 s; what is beside them is left out.

    A version is never changed. It is a folder beside the database, and names
    the one before it.
    """
    from hub.datasets.freeze import Asked, freeze

    if self_taught and people_only:
        msg = "--self-taught takes no people's boxes and --people-only nothing else: give one of them"
        raise UnusableError(msg)
    asked = Asked(weak_spot, not self_taught, not people_only, teacher, replay, not no_noise, seed)
    tagger = Tagger(find_config(config).tags)
    with _opened(config, database) as store, progress() as watch:
        done = freeze(store, asked, model=model, tagger=tagger, folder=out, watch=watch)
    for note in done.notes:
        print(f"hub: {note}", file=sys.stderr)
    told = shown(done.folder, done.version)
    if json:
        print(_json({"number": done.number, **msgspec.to_builtins(told)}))
    else:
        print("\n".join(frozen_lines(told, number=done.number)))


def dataset_list(config: Config = Path("hub.toml"), database: Database = None, json: Json = False) -> None:
    """List the dataset versions: what for, how large, which one came before.

    `after` is the number of the version before it.
    """
    with _opened(config, database) as store:
        rows = store.datasets.all()
    print(list_as_json(rows) if json else "\n".join(list_lines(rows, [recipe_of(row) for row in rows])))


def dataset_show(
    version: Which, config: Config = Path("hub.toml"), database: Database = None, json: Json = False
) -> None:
    """Show what is in a dataset version: by origin, label, camera, weak spot and tag, and its recipe."""
    folder = find_version(version, config=config, database=database)
    told = shown(folder, read_version(folder))
    print(_json(msgspec.to_builtins(told)) if json else "\n".join(shown_lines(told)))


def dataset_export(
    version: Which,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="A new folder.")],
    layout: Format = Layout.YOLO,
    config: Config = Path("hub.toml"),
    database: Database = None,
) -> None:
    """Write a dataset version in the layout of another trainer.

    YOLO: images/ and labels/ with train, val and test, and data.yaml. COCO:
    images/ and annotations/instances_{train,val,test}.json. Replay pictures
    are left out; an uncertain box is a crowd in COCO, and left out in YOLO.
    """
    folder = find_version(version, config=config, database=database)
    with progress() as watch:
        done = export_version(
            folder,
            read_version(folder),
            layout=layout,
            out=out,
            on_image=lambda number, total: watch("pictures written", number, total),
        )
    print("\n".join(exported_lines(done, layout=layout, out=out)))


def dataset_take(
    source: Annotated[Path, typer.Argument(metavar="FOLDER", help="Annotated pictures, JPEG or PNG.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="A new folder.")],
    layout: Format = Layout.YOLO,
    split: Annotated[TakenAs, typer.Option(help="What they are for.")] = TakenAs.TEST,
    json: Json = False,
) -> None:
    """Make a dataset version of annotated pictures from elsewhere, in YOLO or COCO layout.

    `hub evaluate` and `hub gate` then measure on them. All labels that the
    folder declares count as looked for in every picture; a picture without
    annotations is left out. It is not numbered: it is named by its folder.
    """
    from hub.datasets.taking import take_folder

    took = take_folder(source, layout=layout, split=split.value, out=out)
    for note in took.notes:
        print(f"hub: {note}", file=sys.stderr)
    told = shown(out, took.version)
    print(_json(msgspec.to_builtins(told)) if json else "\n".join(shown_lines(told)))


def dataset_sheet(
    version: Which,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="PNG", help="One that is there is replaced.")],
    limit: Annotated[int, typer.Option(min=1, max=500, help="Images on it, spread over the splits.")] = LIMIT,
    config: Config = Path("hub.toml"),
    database: Database = None,
) -> None:
    """Draw a dataset version on one page: boxes by origin, noisy copies.

    Each image has its noisy copy beside it, and below what was done to the
    copy. A picture that is too dark to be judged is shown again in its
    corner, lit up. Where there are more images than fit, they are spread over each
    split, and it says how many are not shown.
    """
    folder = find_version(version, config=config, database=database)
    sheet = version_sheet(read_version(folder), jpeg_of=lambda member: read_jpeg(folder, member), limit=limit)
    write_file(out, sheet.png)
    more = f"; {sheet.more} more do not fit: --limit" if sheet.more else ""
    print(f"drawn: {out}, {counted(sheet.shown, 'image')}{more}")


@contextmanager
def progress() -> Iterator[Callable[[str, int, int], None]]:
    """Show what is being done and how far it is, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def watch(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            bar.update(tasks[what], completed=done, total=total)

        yield watch


def _json(told: dict[str, Any]) -> str:
    return msgspec.json.encode(told).decode()


def _opened(config: Path, database: Path | None) -> Store:
    return Store.open(find_database(config=config, database=database), create=False)
