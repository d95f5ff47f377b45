"""`hub labels`: what annotators bring back, taken in and looked at. Exit status as in hub.cli."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hub.annotation import Annotation
from hub.audit import Audit, audit
from hub.audit_lines import Written, audit_as_json, audit_lines, audit_sheet
from hub.batches import batch_view, read_batch
from hub.cli_options import Config, Database, Json, write_file
from hub.config import find_config, find_database
from hub.export import Format, export_batch
from hub.import_lines import fault_lines, faults_as_json, imported_as_json, imported_lines
from hub.label_lines import show_lines, standing_as_json
from hub.label_standing import standing
from hub.labeling import FaultsError, import_labels
from hub.opinions import Onlooker
from hub.store import Store

labels = typer.Typer(no_args_is_help=True, help="Take labels back in, find what is wrong in them, and look at them.")


@labels.command("import")
def labels_import(
    source: Annotated[Path, typer.Argument(metavar="FILE|DIR", help="What came back: a file, a ZIP or a folder.")],
    batch: Annotated[int, typer.Option("--batch", "-b", metavar="ID", help="The batch that it answers.")],
    annotator: Annotated[str, typer.Option("--annotator", "-a", metavar="NAME", help="Who drew.")] = "",
    label_pass: Annotated[
        str, typer.Option("--pass", metavar="LABEL", help="The one label that was asked for, as in the export.")
    ] = "",
    review: Annotated[
        bool, typer.Option("--review", help="It is a second look at what the audit pointed to; it outranks annotators.")
    ] = False,
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="People's work; it is added to that of the batch.")
    ] = None,
    fmt: Annotated[
        Format | None, typer.Option("--format", "-f", help="Its format, where its content does not tell.")
    ] = None,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what is safe to repair, and say what was done.")] = False,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Take an annotator's labels in, whole or not at all.

    CVAT XML 1.1, COCO, YOLO, Pascal VOC and Label Studio's JSON are
    understood, as a file, a ZIP as the tool exports it, or a folder. Images
    are found by the names that the export gave them. An image of the batch
    that is not in the file is no fault; import the rest later.

    Each fault is named with its place: an unknown label or image, a wrong
    size, a box outside the image, under 3 x 3 px or drawn twice, what is no
    number, any shape but an upright box. With faults nothing is stored.

    --fix cuts boxes at the border, turns those drawn from the wrong corner,
    drops doubles (same label, IoU from .95) and what has under 3 x 3 px left
    inside the image. Labels, names and sizes it never guesses.

    A label counts as looked for when it was asked for (`labels.names` in
    hub.toml, else what the batch proposes) and the tool had it. What was
    looked for and is not drawn is not there.

    Where several people label one batch, name each with --annotator: a
    later import of the same name replaces the earlier one, image by image.
    A Label Studio file says who drew what and gives each a label set of
    their own; --annotator takes one of them.

    Exits 2 when there is a fault.
    """
    asked = find_config(config).labels.names
    with Store.open(find_database(config=config, database=database), create=False) as store:
        try:
            report = import_labels(
                store,
                source,
                batch_id=batch,
                annotator=annotator,
                label_pass=label_pass,
                review=review,
                minutes=minutes,
                fmt=fmt,
                fix=fix,
                labels=asked,
                now_ms=time.time_ns() // 1_000_000,
            )
        except FaultsError as error:
            if json:
                print(faults_as_json(error))
            print("hub: " + "\n".join(fault_lines(error, fix=fix)), file=sys.stderr)
            raise typer.Exit(2) from None
    print(imported_as_json(report) if json else "\n".join(imported_lines(report, review=review)))


@labels.command("show")
def labels_show(
    number: Annotated[int, typer.Argument(metavar="ID", help="The batch's number, from `hub batch list`.")],
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Show how the labels of a batch stand, and what comes next.

    Who drew what and when; which labels nobody has looked for yet; how far
    the annotators agree, by annotator, pass and label, each against the
    answer of the others and against known answers; and where they do not
    agree.

    F1 is the share of boxes of two annotators that have a partner of the
    same label (IoU from .5). In brackets stands the 95 % interval. Under 12
    boxes there is no figure.

    A box that at least half of the annotators drew is in the answer. With
    two, one is half: it is kept, and disputed until a second look.
    """
    with Store.open(find_database(config=config, database=database), create=False) as store:
        shown = standing(store, number, labels=find_config(config).labels.names)
    print(standing_as_json(shown) if json else "\n".join(show_lines(shown)))


@labels.command("audit")
def labels_audit(
    number: Annotated[int, typer.Argument(metavar="ID", help="The batch's number, from `hub batch list`.")],
    model: Annotated[
        Path | None, typer.Option("--model", "-m", metavar="ONNX", help="What looks at the images; the starter model.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--size", "-n", min=1, help="Images to pick, beside 5 at random; a fifth of all.")
    ] = None,
    sheet: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw the places to look at.")] = None,
    export: Annotated[Path | None, typer.Option(metavar="DIR", help="Write the images to look at again.")] = None,
    fmt: Annotated[Format, typer.Option("--format", "-f", help="What the annotator's tool opens.")] = Format.CVAT,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """List the images whose labels are probably wrong, and five at random.

    A model looks at each image as a whole and in enlarged tiles, once; then
    its boxes are held against the labels. Each place gets a probability:
    `missing` (an object without a box), `swapped` (the wrong label), `badly
    placed`, `extra` (nothing is there), and `disagreement` where annotators
    differ. `wrong` is the probability that the image has any fault.

    The images at random measure the audit: once a person has looked again and
    `hub labels import --review` has taken it in, this command says how many
    picks were wrong, and how many errors remain in what nobody looked at.

    --export writes the listed images with the labels as they are, to be
    corrected. The list stays the same until labels change.

    It is enough when fewer than a tenth of the images that nobody looked at
    again, or less than one, are expected to be wrong. Then nothing more is
    listed, unless --size or --export asks for it.

    Labels that the model does not know are only searched for doubled boxes,
    odd sizes and odd places.
    """
    with Store.open(find_database(config=config, database=database), create=False) as store:
        onlooker = Onlooker.open(model)
        title = read_batch(store, number).title
        with _progress(store.batch(number).size) as advance:
            found = audit(store, onlooker, number, size=size, more=export is not None, on_image=advance)
        written = Written()
        if sheet is not None and found.rechecks:
            write_file(sheet, audit_sheet(store, found.audited, found.rechecks, title=f"Batch {number}: look again"))
            written = Written(sheet)
        if export is not None and found.rechecks:
            view = batch_view(store, number, labels=find_config(config).labels.names)
            written = Written(written.sheet, export, export_batch(view, fmt, export, answers=_answers(found)).images)
    if json:
        print(audit_as_json(found, title=title, written=written))
    else:
        print("\n".join(audit_lines(found, title=title, written=written)))


def _answers(found: Audit) -> dict[str, tuple[Annotation, ...]]:
    """Return the labels of the listed images, by event id."""
    again = {one.event_id for one in found.rechecks}
    return {one.page.name: one.page.boxes for one in found.audited if one.page.name in again}


@contextmanager
def _progress(images: int) -> Iterator[Callable[[], None]]:
    """Show how many images were looked at, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("images looked at", total=images)
        yield lambda: progress.advance(task)
