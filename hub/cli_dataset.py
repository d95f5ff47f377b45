"""`hub dataset`: all that is labelled, as one data set. Exit status as in hub.cli."""

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from edge.contract.card import read_card
from edge.contract.errors import UnusableError
from edge.detector.opening import CARD_NAME, find_starter, parse_size
from hub.cli_options import Config, Database, Json
from hub.config import find_config, find_database
from hub.health import health
from hub.health_lines import HOW_TO_BEGIN, ONLY_RANDOM, health_as_json, health_lines
from hub.label_table import label_table
from hub.store import Store
from hub.tags import Tagger
from hub.truth import truths

dataset = typer.Typer(no_args_is_help=True, help="Look at all that is labelled, and freeze what is trained on.")


@dataset.command("health")
def dataset_health(
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Draw plots into this folder, as PNG; it is made if missing.")
    ] = None,
    input_size: Annotated[
        str,
        typer.Option("--input", metavar="WIDTHxHEIGHT", help="The model's input; else told by the devices' tags."),
    ] = "",
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Tell what is labelled, what is missing, and whether the test is fair.

    First what is wrong and what to do. Then labels a class (3,000 to train
    on make a robust one), how hard the images are, how large objects are for
    the model, light, noise, shapes, occlusion, cameras and hours, batches;
    each for the images to train on and for the test share.

    The test is fair when no image to train on is a near-duplicate of a test
    image: of one near-duplicate group, of one camera within 3 seconds, or
    the same picture of the same things. A batch of a weak spot drowns when
    it is under 1 % of what is trained on: how often to repeat it is said.

    Exits 1 when the split leaks, and when nothing is labelled yet.
    """
    known = find_config(config)
    tagger = Tagger(known.tags)
    size = parse_size(input_size) if input_size else None
    with Store.open(find_database(config=config, database=database), create=False) as store:
        table = label_table(store.labelled.images(), truths(store), zone=tagger.zone, input_size=size, stated=_stated())
        told = health(
            table,
            batches=store.batches(),
            sets=store.labels.sets(),
            names=known.labels.names,
            now_ms=time.time_ns() // 1_000_000,
        )
    if len(table):
        print(health_as_json(told) if json else "\n".join(health_lines(told, zone_name=known.tags.timezone)))
    elif json:
        print(health_as_json(told))
    else:
        print(f"hub: {ONLY_RANDOM if told.random else HOW_TO_BEGIN}", file=sys.stderr)
    if out is not None and len(table):
        from hub.health_plots import health_pictures
        from hub.plots import save

        _make(out)
        for name, figure in health_pictures(table, told, zone_name=known.tags.timezone):
            save(figure, out / name)
            if not json:
                print(f"drawn: {out / name}")
    if not told.is_sound:
        raise typer.Exit(1)


def _stated() -> dict[str, float]:
    """Return what the longer side of a frame is scaled to by the starter, whose input is square."""
    try:
        card = read_card(find_starter() / CARD_NAME)
    except UnusableError:
        return {}
    return {card.release: float(card.input.width)}


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"cannot make the folder {folder}: {error.strerror}"
        raise UnusableError(msg) from error
