"""`hub plot`: pictures of what the database holds over time. Exit status as in hub.cli."""

import sys
import time
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from zoneinfo import ZoneInfo

import typer

from edge.contract.errors import UnusableError
from hub.cli_options import Config, Database
from hub.config import HOUR_MS, find_database, read_config
from hub.store import Store

if TYPE_CHECKING:
    from matplotlib.figure import Figure

plot = typer.Typer(no_args_is_help=True, help="Draw a PNG: findings, recall, or a weak spot's miss rate over time.")

Out = Annotated[Path, typer.Option("--out", "-o", help="The PNG to write; one that is there is replaced.")]
Days = Annotated[float, typer.Option(min=0.05, max=3650, help="How many days back.")]


@plot.command("findings")
def plot_findings(
    out: Out,
    days: Days = 7.0,
    config: Config = Path("hub.toml"),
    database: Database = None,
) -> None:
    """Draw findings an hour, a row for each camera: the eight with most, and all others together.

    Exits 1 when there is nothing to draw.
    """
    from hub.plots import findings_picture

    zone, zone_name = _zone(config)
    until_ms, since_ms = _span(days)
    with Store.open(find_database(config=config, database=database), create=False) as store:
        counts = store.series.findings(since_ms=since_ms)
    figure = findings_picture(counts, since_ms=since_ms, until_ms=until_ms, zone=zone, zone_name=zone_name)
    _write(figure, out, empty=f"there is no finding of the last {days:g} days")


@plot.command("recall")
def plot_recall(
    out: Out,
    camera: Annotated[str, typer.Option(metavar="SITE/DEVICE/CAMERA", help="Only this one; else up to six.")] = "",
    days: Days = 7.0,
    config: Config = Path("hub.toml"),
    database: Database = None,
) -> None:
    """Draw what share of the objects the detector finds, with its 95 % band, as `hub status` estimates it.

    Hours with too few objects are taken together. Where there are too few
    at all, there is a gap. Exits 1 when there is nothing to draw.
    """
    from hub.plots import recall_picture

    zone, zone_name = _zone(config)
    until_ms, since_ms = _span(days)
    with Store.open(find_database(config=config, database=database), create=False) as store:
        rows = store.series.recall(since_ms=since_ms)
    if camera:
        known = sorted({"/".join(row[:3]) for row in rows})
        rows = [row for row in rows if "/".join(row[:3]) == camera]
        if not rows and known:
            msg = f"there are no counts of {camera}; there are of {', '.join(known[:10])}"
            raise UnusableError(msg)
    figure = recall_picture(rows, since_ms=since_ms, until_ms=until_ms, zone=zone, zone_name=zone_name)
    empty = f"no camera has enough objects in control frames of the last {days:g} days: see `control_per_hour`"
    _write(figure, out, empty=f"{empty} and `zoom_budget` in edge.toml")


@plot.command("weak-spot")
def plot_weak_spot(
    number: Annotated[int, typer.Argument(metavar="ID", help="The weak spot's number, from `hub weakspots`.")],
    out: Out,
    config: Config = Path("hub.toml"),
    database: Database = None,
) -> None:
    """Draw a weak spot's miss rate with its 95 % band against the rate elsewhere; its batches and releases are marked.

    Exits 1 when it was never measured.
    """
    from hub.plots import weak_spot_picture

    zone, zone_name = _zone(config)
    with Store.open(find_database(config=config, database=database), create=False) as store:
        spot, steps = store.spots.one(number), store.spots.steps(number)
    figure = weak_spot_picture(f"weak spot {number}: {spot.name}", steps, zone=zone, zone_name=zone_name)
    _write(figure, out, empty=f"weak spot {number} was never measured: `hub weakspots` does it")


def _zone(config: Path) -> tuple[tzinfo, str]:
    """Return the zone of [tags], UTC where there is no configuration."""
    name = read_config(config).tags.timezone if config.exists() else "UTC"
    return (UTC, "UTC") if name == "UTC" else (ZoneInfo(name), name)


def _span(days: float) -> tuple[int, int]:
    """Return the end and the start, at a full hour, in UTC milliseconds."""
    now_ms = time.time_ns() // 1_000_000
    since_ms = now_ms - int(days * 24 * HOUR_MS)
    return now_ms, since_ms - since_ms % HOUR_MS


def _write(figure: "Figure | None", out: Path, *, empty: str) -> None:
    from hub.plots import save

    if figure is None:
        print(f"hub: {empty}", file=sys.stderr)
        raise typer.Exit(1)
    save(figure, out)
    print(f"drawn: {out}")
