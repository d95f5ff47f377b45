"""`hub batch`: the images for an annotator, chosen, frozen, shown and exported. Exit status as in hub.cli."""

import sys
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from edge.contract.errors import UnusableError
from hub.batch_lines import batch_as_json, exported_lines, list_lines, made_lines, show_lines
from hub.batches import (
    DEFAULT_CONTROL,
    DEFAULT_HARD,
    DEFAULT_SIZE,
    NothingToChooseError,
    batch_rows,
    batch_view,
    new_batch,
    read_batch,
)
from hub.cli_options import Config, Database, Json
from hub.config import find_config, find_database, find_tags
from hub.export import Format, export_batch
from hub.random_batches import DEFAULT_SIZE as RANDOM_SIZE
from hub.random_batches import random_batch
from hub.store import Store
from hub.tags import Tagger

batch = typer.Typer(
    no_args_is_help=True,
    help="Choose about 50 images that show what the detector gets wrong, freeze them, and hand them to an annotator.",
)

BatchId = Annotated[int, typer.Argument(metavar="ID", help="The batch's number, from `hub batch list`.")]
MAX_BATCH: Final = 10_000


@batch.command("new")
def batch_new(
    weak_spot: Annotated[
        int | None,
        typer.Option("--weakspot", metavar="ID", help="Only what is of this weak spot, from `hub weakspots`."),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--size", "-n", min=1, max=MAX_BATCH, help="How many images: 50, or 200 with --random."),
    ] = None,
    at_random: Annotated[
        bool, typer.Option("--random", help="Draw from all, each as likely as the others; nothing is chosen.")
    ] = False,
    hard: Annotated[
        float, typer.Option(min=0, max=1, help="Share of images on which the detector was wrong: missed, suspect.")
    ] = DEFAULT_HARD,
    control: Annotated[
        float, typer.Option(min=0, max=1, help="Share of frames drawn at random: control.")
    ] = DEFAULT_CONTROL,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Choose images and freeze them as a batch.

    Each near-duplicate group gives one image, and to one batch only. Images
    that stand for many severe findings come first, each unlike those before
    it and unlike what earlier batches have. No camera and no hour of the day
    gives more than twice its even share while others can. Every image is
    opened first; one that is broken or black is passed over.

    Hard images are those on which the detector was wrong (missed, suspect),
    easy ones those on which it was right or merely unsure (control,
    low_confidence). What is neither hard nor control is low_confidence. Where
    one of hard and easy has too few, the other fills the batch; control never
    gets more than its share.

    A fifth of all images, by camera and time, is the test share: annotated,
    never trained on.

    Only frames that are here count: `hub status` shows how many there are.
    With fewer than asked for, the batch is smaller and says so. Exits 1 when
    there is nothing to choose from.

    --random draws a batch to measure with: see `hub autolabel certify`. Label
    all of it, and train on none of it.
    """
    if at_random and weak_spot is not None:
        msg = "--random draws from all images: leave out --weakspot"
        raise UnusableError(msg)
    tagger = Tagger(find_tags(config))
    with Store.open(find_database(config=config, database=database), create=False) as store:
        try:
            made = (
                random_batch(store, size=size or RANDOM_SIZE)
                if at_random
                else new_batch(
                    store,
                    size=size or DEFAULT_SIZE,
                    hard=hard,
                    control=control,
                    weak_spot_id=weak_spot,
                    tagger=tagger,
                )
            )
        except NothingToChooseError as error:
            print(f"hub: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        print(batch_as_json(store, made) if json else "\n".join(made_lines(made)))


@batch.command("list")
def batch_list(config: Config = Path("hub.toml"), database: Database = None, json: Json = False) -> None:
    """List the batches, oldest first, with the weak point that each is about."""
    with Store.open(find_database(config=config, database=database), create=False) as store:
        batches = store.batches()
    print(msgspec.json.encode({"batches": batches}).decode() if json else "\n".join(list_lines(batches)))


@batch.command("show")
def batch_show(
    number: BatchId, config: Config = Path("hub.toml"), database: Database = None, json: Json = False
) -> None:
    """Show the images of a batch, best first: which camera, what each added to the choice, and why it was chosen.

    Those marked `test` are the test share: annotated as the others, never trained on.
    """
    with Store.open(find_database(config=config, database=database), create=False) as store:
        shown = read_batch(store, number)
        print(batch_as_json(store, shown) if json else "\n".join(show_lines(shown, batch_rows(store, shown))))


@batch.command("export")
def batch_export(
    number: BatchId,
    fmt: Annotated[Format, typer.Option("--format", "-f", help="What the annotator's tool opens.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; an untouched earlier export is replaced.")],
    label_pass: Annotated[
        str, typer.Option("--pass", metavar="LABEL", help="One label alone; what the passes before drew is shown.")
    ] = "",
    honeypots: Annotated[
        int, typer.Option(min=0, max=MAX_BATCH, help="Images with known answers to mix in, unknown to the annotator.")
    ] = 0,
    config: Config = Path("hub.toml"),
    database: Database = None,
) -> None:
    """Write a batch as a folder for an annotator.

    It holds the images as they came, the detector's boxes to start from,
    README.txt with the rules and how to open it, and contact-sheet.png,
    which shows where a miss is suspected. The test share is marked: it is
    annotated with the rest, and never trained on. What does not move is
    carried over from the camera's last annotated frame, where the picture
    has not changed.

    --pass asks for one label: people make fewer mistakes with one kind of
    thing at a time. The order is that of `labels.names` in hub.toml. Import
    each pass (`hub labels import --pass`) before you export the next: its
    boxes are shown there, locked where the tool can.

    --honeypots mixes images of earlier batches in, whose answer a second look
    or a second annotator has settled. They are drawn once and are in every
    later export of the batch. `hub labels show` says how well each annotator
    does on them.
    """
    names = find_config(config).labels.names
    with Store.open(find_database(config=config, database=database), create=False) as store:
        view = batch_view(store, number, labels=names, label_pass=label_pass, honeypots=honeypots)
    report = export_batch(view, fmt, out)
    print("\n".join(exported_lines(report, batch_id=number, label_pass=label_pass)))
