"""`hub gc` and `hub forget`: what leaves the database. Exit status as in hub.cli."""

import os
import sys
import time
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hub.cli_options import Config, Database, Json
from hub.config import KeepConfig, find_database, read_config
from hub.datasets.forgetting import holding, remove
from hub.datasets.lines import holding_lines
from hub.lines import counted as number_of
from hub.retention import Kept, gently, parse_bytes, parse_scope, sweep
from hub.store import Store

_TABLES = {
    "finding": "findings",
    "batch_member": "of them images of batches, which then say how many they lost",
    "sighting": "sightings",
    "frame_part": "parts of frames that are not whole",
    "refused_message": "refused messages",
    "recall_hour": "hours of recall counts",
    "recall_mark": "marks of recall counts",
    "device": "devices",
    "policy": "policies",
}


def add_commands(app: typer.Typer) -> None:
    """Add `gc` and `forget`."""
    app.command()(gc)
    app.command()(forget)


def gc(
    frames_older_than: Annotated[
        float | None,
        typer.Option(metavar="DAYS", min=0, help="Delete frames that came before so many days; else `frame_days`."),
    ] = None,
    frames_over: Annotated[
        str | None,
        typer.Option(
            metavar="BYTES", help="Delete the oldest while all are more than this, as 20G; else `frame_bytes`."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Delete old frames and give their space back to the file system.

    What the options leave open says `keep` in hub.toml, by default 90 days
    and 50 GB. Frames in batches stay, and so does every finding as a row:
    groups, rates and weak spots do not change.

    `hub serve` does the same once an hour, and may run meanwhile.
    """
    keep = read_config(config).keep if config.exists() else KeepConfig()
    keep = KeepConfig(
        frame_days=keep.frame_days if frames_older_than is None else max(frames_older_than, 1e-9),
        frame_bytes=keep.frame_bytes if frames_over is None else parse_bytes(frames_over),
    )
    with Store.open(find_database(config=config, database=database), create=False) as store, _progress() as progress:
        now_ms = time.time_ns() // 1_000_000
        before = store.upkeep.frames_total()
        task = progress.add_task("frames", total=before.frames)
        frames = size = given_back = 0
        for gone in gently(sweep(store, keep, now_ms=now_ms, dry_run=dry_run)):
            frames += gone.frames
            size += gone.bytes
            progress.update(task, completed=frames)
        progress.update(task, total=frames)
        if not dry_run:
            task = progress.add_task("file", total=None)
            for part in gently(store.upkeep.give_back()):
                given_back += part
                progress.update(task, completed=given_back)
        left = store.upkeep.frames_total()
    kept = Kept(
        frames=frames,
        frame_bytes=size,
        file_bytes=given_back,
        left_frames=left.frames,
        left_bytes=left.bytes,
        dry_run=dry_run,
    )
    if json:
        print(msgspec.json.encode(kept).decode())
        return
    print(f"{frames} frames of {size / 1e6:.1f} MB {'would go' if dry_run else 'are gone'}")
    print(f"{left.frames} frames of {left.bytes / 1e6:.1f} MB {'are' if dry_run else 'stay'} here")
    if not dry_run:
        print(f"the file is {given_back / 1e6:.1f} MB smaller")


def forget(
    site: Annotated[str, typer.Option(metavar="SITE", help="Everything of one site.")] = "",
    device: Annotated[str, typer.Option(metavar="SITE/DEVICE", help="Everything of one device.")] = "",
    before: Annotated[
        str, typer.Option(metavar="TIME", help="Only what was captured, or came, before: 2026-01-31, or with time.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    config: Config = Path("hub.toml"),
    database: Database = None,
) -> None:
    """Remove every trace of a site, a device, or all before a time, for good.

    Findings, frames, also those in batches, sightings, counts, refused
    messages, and without --before the device itself and its policy. Weak
    spots keep their numbers and lose the names of the forgotten places. Then
    the file is written anew, so that the bytes are gone, too; nothing is
    taken in meanwhile. It needs free space of twice the file. `hub check`
    proves the outcome. Stopped before its end, it is to be started again.

    A dataset version that holds such a picture goes as a whole: its folder
    is removed, `hub dataset list` goes on saying that there was one.

    What a device still holds of it is refused when it comes. Where forgotten
    devices go on, they are counted from now.

    It does NOT reach: models that were trained on it and the golden pictures
    in their folders, what an unfinished training holds, exported batches,
    exported or moved dataset versions and other copies, tasks on a CVAT
    server, backups, blocks that the disk has put aside, what the broker
    retains (clear it there), and the devices themselves: stop `edge run` and
    delete its spool folder there. The names that you give here stay in the
    list of what was forgotten.
    """
    now_ms = time.time_ns() // 1_000_000
    scope = parse_scope(site=site, device=device, before=before, now_ms=now_ms)
    path = find_database(config=config, database=database)
    os.environ.setdefault("SQLITE_TMPDIR", str(path.absolute().parent))  # the new file: /tmp may be too small
    with Store.open(path, create=False) as store:
        counted = store.upkeep.count_forgetting(scope)
        what = str(scope)
        if not any(counted.values()):
            print(f"nothing of {what} is here: `hub status` has the names")
        else:
            print(f"{what}: {counted['frame_bytes'] / 1e6:.1f} MB of frames, and")
        for table, words in _TABLES.items():
            if counted.get(table):
                print(f"{counted[table]:>9} {words}")
        versions = holding(store, scope)
        for line in holding_lines(versions):
            print(line)
        if dry_run:
            return
        also = f", and {number_of(len(versions), 'dataset version')} with it" if versions else ""
        if not yes and not _confirmed(f"Forget {what}{also}? It cannot be undone."):
            print("hub: nothing was forgotten", file=sys.stderr)
            raise typer.Exit(1)
        remove(store, versions, now_ms=now_ms)
        with _progress() as progress:
            task = progress.add_task("findings", total=counted["finding"])
            for done, total in store.upkeep.forget(scope, now_ms=now_ms):
                progress.update(task, completed=done, total=total)
    print(f"{what} is forgotten")


def _confirmed(question: str) -> bool:
    try:
        return typer.confirm(question)
    except typer.Abort:
        return False


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
