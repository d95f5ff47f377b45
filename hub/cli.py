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
from edge.contract.samples import plain_text
from hub.cli_options import Config, Database, Json
from hub.config import EXAMPLE, find_database, read_config
from hub.demo import Upload

try:
    from hub.cli_autolabel import autolabel
    from hub.cli_batch import MAX_BATCH, batch
    from hub.cli_costs import costs
    from hub.cli_cvat import cvat
    from hub.cli_dataset import dataset
    from hub.cli_evaluate import evaluate
    from hub.cli_gate import gate
    from hub.cli_keep import add_commands
    from hub.cli_keys import keys
    from hub.cli_labels import labels
    from hub.cli_plot import plot
    from hub.cli_policy import policy
    from hub.cli_quantize import quantize
    from hub.cli_release import release
    from hub.cli_repository import repository
    from hub.cli_rollout import rollout
    from hub.cli_simulate import HELP as SIMULATE_HELP
    from hub.cli_simulate import simulate
    from hub.cli_sweep import sweep
    from hub.cli_train import train
    from hub.cli_verdicts import judge
    from hub.cli_versions import add_versions
    from hub.cli_weakspots import weakspots
    from hub.store import Store
except ModuleNotFoundError as missing:
    print(f'hub: {missing.name} is not installed; run: pip install "weakspot[hub]"', file=sys.stderr)
    raise SystemExit(2) from None

app = typer.Typer(
    no_args_is_help=True,
    help="Collect the findings of a fleet, remove near-duplicates and freeze batches for annotation.",
)
app.add_typer(batch, name="batch")
app.add_typer(policy, name="policy")
app.add_typer(plot, name="plot")
add_commands(app)
app.add_typer(weakspots, name="weakspots")
app.add_typer(autolabel, name="autolabel")
app.add_typer(cvat, name="cvat")
add_versions(dataset)
app.add_typer(dataset, name="dataset")
app.add_typer(labels, name="labels")
app.add_typer(rollout, name="rollout")
app.command("costs")(costs)
app.command("verdicts")(judge)
app.command("evaluate")(evaluate)
app.command("gate")(gate)
app.command("sweep")(sweep)
app.command("train")(train)
app.command("quantize")(quantize)
app.command("simulate", help=SIMULATE_HELP)(simulate)
app.add_typer(keys, name="keys")
app.add_typer(release, name="release")
app.add_typer(repository, name="repository")

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
        lines = [plain_text(line, most=1000) for line in str(error).splitlines()]  # it may name what came from outside
        print("hub: " + "\n".join(lines), file=sys.stderr)
        sys.exit(2)
    except (OSError, MemoryError) as error:  # a full disk, a broken one, a limit
        what = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        print(f"hub: cannot go on: {plain_text(what, most=1000) or 'out of memory'}", file=sys.stderr)
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
