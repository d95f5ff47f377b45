"""The `hub` command. Every command opens, calls one library function and prints.

Exit status: 0 done, 1 the answer is no, 2 it could not be done.
"""

import logging
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edge.contract.errors import WeakspotError
from hub.cli_options import Config, Database, Json
from hub.config import EXAMPLE, find_database, read_config
from hub.demo import Upload

try:
    from hub.cli_policy import policy
    from hub.export import Format
    from hub.store import Store
except ModuleNotFoundError as missing:
    print(f'hub: {missing.name} is not installed; run: pip install "weakspot[hub]"', file=sys.stderr)
    raise SystemExit(2) from None

app = typer.Typer(
    no_args_is_help=True,
    help="Collect the findings of a fleet, remove near-duplicates and freeze batches for annotation.",
)
batch = typer.Typer(
    no_args_is_help=True,
    help="Choose about 50 images that show what the detector gets wrong, freeze them, and hand them to an annotator.",
)
app.add_typer(batch, name="batch")
app.add_typer(policy, name="policy")

BatchId = Annotated[int, typer.Argument(metavar="ID", help="The batch's number, from `hub batch list`.")]
MAX_BATCH = 10_000
_SERVE_HELP = (
    "Take in what the devices send over MQTT, group near-duplicates, and ask for the frames worth having.\n\n"
    "Runs until SIGTERM or Ctrl-C, then finishes what it has in hand and exits 0. Several may run with one database"
    " and one broker: they share the work.\n\n"
    "Every key of hub.toml, with an example or its default; all may be left out, and a wrong one is named:\n\n"
    "\b\n" + EXAMPLE.replace("[", "\\[").replace("\n\n", "\n\n\b\n")
)


def main() -> None:
    """Run the command line; a cause that a person can act on becomes one line and exit status 2."""
    try:
        app()
    except WeakspotError as error:
        print(f"hub: {error}", file=sys.stderr)
        sys.exit(2)
    except sqlite3.Error as error:
        print(f"hub: the database cannot be used: {error}; `hub check` may say more", file=sys.stderr)
        sys.exit(2)


@app.command(help=_SERVE_HELP)
def serve(
    config: Config = Path("hub.toml"),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what the curator does, too.")] = False,
) -> None:
    """Run the ingest and the curator; its help is `_SERVE_HELP`."""
    from hub.dedupe import DuplicateIndex
    from hub.serve import serve as serve_until

    level = logging.DEBUG if verbose else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    if not serve_until(read_config(config), stop=stop, make_index=DuplicateIndex):
        raise typer.Exit(1)


@app.command()
def status(
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Show the devices, and what was found, grouped, asked for, refused and batched."""
    from hub.check import status_lines

    with Store.open(find_database(config=config, database=database), create=False) as store:
        counted = store.status(now_ms=time.time_ns() // 1_000_000)
    print(msgspec.json.encode(counted).decode() if json else "\n".join(status_lines(counted)))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that the demo writes; an earlier demo is replaced.")] = Path(
        "demo-out"
    ),
    upload: Annotated[
        Upload, typer.Option(help="`want` sends frames on the hub's want, `all` sends every one.")
    ] = Upload.WANT,
    size: Annotated[int, typer.Option(min=1, max=MAX_BATCH, help="Images in the batch.")] = 50,
) -> None:
    """Run the whole loop on this machine: a broker, a hub and three simulated cameras. Ends with a batch on disk.

    The cameras play a bundled street clip: as it is, in the dark, and with a noisy sensor. The programs are the real
    ones, `edge run` and `hub serve`, over a real MQTT broker: the system's mosquitto, else the `iotcore` wheel.
    """
    from rich.console import Console

    from hub.demo.show import run_demo

    run_demo(out, upload=upload, size=size, console=Console())


@app.command()
def check(config: Config = Path("hub.toml"), database: Database = None) -> None:
    """Prove the laws on the database: every frame read and hashed, every reference followed, every count recounted.

    Exits 0 when all of them hold, 1 when one does not, 2 when the database cannot be opened.
    """
    from hub.check import check_lines

    with Store.open(find_database(config=config, database=database), create=False) as store:
        lines, holds = check_lines(store)
    print("\n".join(lines))
    if not holds:
        raise typer.Exit(1)


@batch.command("new")
def batch_new(
    size: Annotated[int, typer.Option("--size", "-n", min=1, max=MAX_BATCH, help="How many images to choose.")] = 50,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Choose images and freeze them as a batch.

    Each near-duplicate group gives one image, and to one batch only.
    Images that stand for many severe findings come first, each unlike those
    before it. No camera gives more than twice its even share while others can.
    Only frames that are here count: `hub status` shows how many there are.

    With fewer groups than asked for, the batch is smaller and says so.
    Exits 1 when there is nothing to choose from.
    """
    from hub.batches import NothingToChooseError, batch_as_json, made_lines, new_batch

    with Store.open(find_database(config=config, database=database), create=False) as store:
        try:
            made = new_batch(store, size=size)
        except NothingToChooseError as error:
            print(f"hub: {error}", file=sys.stderr)
            raise typer.Exit(1) from None
        print(batch_as_json(store, made) if json else "\n".join(made_lines(made)))


@batch.command("list")
def batch_list(config: Config = Path("hub.toml"), database: Database = None, json: Json = False) -> None:
    """List the batches, oldest first, with the weak point that each is about."""
    from hub.batches import list_lines

    with Store.open(find_database(config=config, database=database), create=False) as store:
        batches = store.batches()
    print(msgspec.json.encode({"batches": batches}).decode() if json else "\n".join(list_lines(batches)))


@batch.command("show")
def batch_show(
    number: BatchId, config: Config = Path("hub.toml"), database: Database = None, json: Json = False
) -> None:
    """Show the images of a batch, best first: which camera, what each added to the choice, and why it was chosen."""
    from hub.batches import batch_as_json, batch_rows, read_batch, show_lines

    with Store.open(find_database(config=config, database=database), create=False) as store:
        shown = read_batch(store, number)
        print(batch_as_json(store, shown) if json else "\n".join(show_lines(shown, batch_rows(store, shown))))


@batch.command("export")
def batch_export(
    number: BatchId,
    fmt: Annotated[Format, typer.Option("--format", "-f", help="What the annotator's tool opens.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to make; an untouched earlier export is replaced.")],
    config: Config = Path("hub.toml"),
    database: Database = None,
) -> None:
    """Write a batch as a folder for an annotator.

    It holds the images as they came, the detector's boxes to start from,
    README.txt with the rules and how to open it, and contact-sheet.png,
    which shows where a miss is suspected.
    """
    from hub.batches import batch_view, exported_lines
    from hub.export import export_batch

    with Store.open(find_database(config=config, database=database), create=False) as store:
        view = batch_view(store, number)
    print("\n".join(exported_lines(export_batch(view, fmt, out))))
