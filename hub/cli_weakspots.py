"""`hub weakspots`: what the detectors miss more than the rest, by name. Exit status as in hub.cli."""

import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from hub.cli_options import Config, Database, Json, write_file
from hub.config import find_database, find_tags
from hub.naming import open_by_hand, refresh
from hub.spot_report import example_sheet, overviews, report
from hub.store import Store
from hub.tags import Tagger
from hub.weakspot_lines import mark_lines, report_as_json, show_lines, table_lines
from hub.weakspots import SpotState, advance, weak_spot

weakspots = typer.Typer(invoke_without_command=True)
SpotId = Annotated[int, typer.Argument(metavar="ID", help="The weak spot's number, from `hub weakspots`.")]


class Told(StrEnum):
    """What `mark` can tell; the rest is measured, or done by `hub batch new`."""

    ANNOTATED = "annotated"
    TRAINED = "trained"


@weakspots.callback()
def weakspots_table(
    context: typer.Context,
    state: Annotated[SpotState | None, typer.Option("--state", help="Only those in this state.")] = None,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Name what the detectors miss more than the rest, and follow each weak spot until it is fixed.

    A weak spot is a kind of object, told by tags, that is missed
    significantly more often than all others. How often: what two looks at
    the control frames find says which share of all objects is missed, the
    `missed` findings say of what kind those are. Both are counted over 30
    days, of the release that each device runs now.

    Life: open, batched (`hub batch new --weakspot ID`), annotated, trained,
    then fixed or not_fixed, which is measured on the release trained. What
    was fixed and is missed again has regressed, and stands first.

    Exits 1 when there is none, and says what is missing.
    """
    if context.invoked_subcommand is not None:
        return
    with Store.open(find_database(config=config, database=database), create=False) as store:
        naming = refresh(store, Tagger(find_tags(config)), _now_ms())
    lines = [one for one in overviews(naming) if state is None or one.spot.state is state]
    if json:
        counted = {"found": naming.base.found, "overlooked": naming.base.overlooked}
        print(msgspec.json.encode({"base": counted, "weak_spots": lines}).decode())
    elif lines or not naming.spots:
        print("\n".join(table_lines(lines, naming)))
    else:
        print(f"no weak spot is {state}")
    if not lines:
        raise typer.Exit(1)


@weakspots.command("show")
def weakspots_show(
    number: SpotId,
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Write a contact sheet of up to 24 examples, a PNG.")
    ] = None,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Show a weak spot: its rate, its life, what its batches cost and brought, its trend, and examples."""
    with Store.open(find_database(config=config, database=database), create=False) as store:
        naming = refresh(store, Tagger(find_tags(config)), _now_ms())
        shown = report(store, naming, weak_spot(store, number))
        if sheet is not None:
            write_file(sheet, example_sheet(store, shown))
    print(report_as_json(shown) if json else "\n".join(show_lines(shown)))


@weakspots.command("new")
def weakspots_new(
    where: Annotated[str, typer.Option("--where", "-w", help="Such as 'dark and tiny', 'not noisy and x < 0.3'.")],
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Open a weak spot by a rule of your own, and measure it.

    The rule: terms joined by `and`. A term is a tag (`dark`, `label:person`,
    `camera:SITE/DEVICE/CAMERA`, `hours:08-12`), `not` and a tag, or a number:
    x, y (the centre), w, h (fractions of the frame), hour, each with <, <=,
    > or >=. Refused when there is one of the same meaning.
    """
    with Store.open(find_database(config=config, database=database), create=False) as store:
        spot = open_by_hand(store, Tagger(find_tags(config)), where, _now_ms())
    print(msgspec.json.encode(spot).decode() if json else "\n".join(mark_lines(spot)))


@weakspots.command("mark")
def weakspots_mark(
    number: SpotId,
    told: Annotated[Told, typer.Argument(metavar="annotated|trained", help="What was done.")],
    release: Annotated[
        str, typer.Option("--release", help="The model that was trained, as devices will name it.")
    ] = "",
    minutes: Annotated[
        float | None, typer.Option("--minutes", min=0, help="People's work on the newest batch; it is added up.")
    ] = None,
    note: Annotated[str, typer.Option("--note", help="One line to remember it by.")] = "",
    config: Config = Path("hub.toml"),
    database: Database = None,
) -> None:
    """Tell that a weak spot's batch was annotated, or that a model was trained on it.

    Whether that has fixed it is measured: on the sightings of the release
    named, and of those first seen later; without --release, on the releases
    first seen after the annotation.
    """
    with Store.open(find_database(config=config, database=database), create=False) as store:
        spot = advance(store, number, SpotState(told), now_ms=_now_ms(), release=release, minutes=minutes, note=note)
    print("\n".join(mark_lines(spot)))


@weakspots.command("drop")
def weakspots_drop(number: SpotId, config: Config = Path("hub.toml"), database: Database = None) -> None:
    """Delete a weak spot that is not worth a batch, with its measurements.

    One that has a batch cannot be dropped. One that naming finds again comes
    back, under a new number.
    """
    with Store.open(find_database(config=config, database=database), create=False) as store:
        store.spots.drop(number)
    print(f"weak spot {number} is dropped")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
