"""`hub release`: signed releases. Exit status as in hub.cli."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from hub.cli_options import (
    Config,
    Json,
    KeyFolders,
    PassphraseFile,
    RepositoryFolder,
    find_keys,
    find_repository,
    passphrase_from,
)

release = typer.Typer(
    no_args_is_help=True,
    help="Sign a gated model folder as a release that devices take, and show what was released.\n\n"
    "From a candidate to the cameras: `hub gate` judges it, `hub release create` signs it, `hub rollout start` brings"
    " it to the devices. The keys are made once, by `hub keys init`.",
)


@release.command("create")
def release_create(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A model folder that `hub gate` passed.")],
    baseline: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=999_999,
            metavar="NUMBER",
            help="Devices that leave it go back to this one, 0 is what they came with; else to the release before.",
        ),
    ] = None,
    ungated: Annotated[
        str, typer.Option(metavar="WHY", help="Release what no gate passed, and say why; it is signed, too.")
    ] = "",
    back: Annotated[
        bool,
        typer.Option(
            "--back", help="Devices that confirmed a higher number take it, too: after a repository was made anew."
        ),
    ] = False,
    repository: RepositoryFolder = None,
    keys: KeyFolders = None,
    passphrase_file: PassphraseFile = None,
    config: Config = Path("hub.toml"),
    json: Json = False,
) -> None:
    """Sign a model folder as the next release of its line.

    The line is the card's `name`, the release's name its `release`; numbers
    rise by themselves: starter/1, starter/2. Where the release before was
    stopped, name one that was good with --baseline.

    The archive holds what the card names: model.json, the ONNX files and the
    golden set, and LICENSE and README.md. Needs the key of targets; where the
    online keys are not here, too, it is published by the next `hub repository
    refresh` beside them. No device takes it before `hub rollout start`.

    To try it: hub release create candidates/starter-2 --ungated "a trial"
    """
    from hub.keys import open_ring, read_keys
    from hub.release import create_release
    from hub.release_lines import created_lines, development_lines
    from hub.repository import read_repository

    place = find_repository(config=config, repository=repository)
    read_repository(place)
    ring = open_ring(read_keys(find_keys(config=config, keys=keys)), ask=passphrase_from(passphrase_file))
    with _packing() as on_bytes:
        made, new = create_release(
            place,
            ring,
            model_folder=folder,
            now=datetime.now(UTC),
            baseline=baseline,
            ungated=ungated,
            back=back,
            on_bytes=on_bytes,
        )
    signed = read_repository(place)
    if json:
        print(msgspec.json.encode({**msgspec.to_builtins(made), "new": new}).decode())
    else:
        print("\n".join([*development_lines(signed), *created_lines(made, new=new, repository=signed)]))


@release.command("list")
def release_list(
    repository: RepositoryFolder = None,
    config: Config = Path("hub.toml"),
    json: Json = False,
) -> None:
    """Show all releases by line and number: size, what a device may go back to, and whether a gate passed it."""
    from hub.release import releases
    from hub.release_lines import development_lines, list_lines, warning_lines
    from hub.repository import read_repository

    found = read_repository(find_repository(config=config, repository=repository))
    listed = releases(found)
    if json:
        told = {"releases": listed, "development": found.development}
        print(msgspec.json.encode(told).decode())
    else:
        print("\n".join([*development_lines(found), *list_lines(listed)]))
    print("".join(f"hub: {line}\n" for line in warning_lines(found, now=datetime.now(UTC))), end="", file=sys.stderr)


@release.command("show")
def release_show(
    which: Annotated[
        str, typer.Argument(metavar="RELEASE", help="MODEL/NUMBER, its name, or MODEL for the newest of a line.")
    ] = "",
    repository: RepositoryFolder = None,
    config: Config = Path("hub.toml"),
    json: Json = False,
) -> None:
    """Show one release as it is signed; without a name the newest, where there is one line."""
    from hub.release import named_release
    from hub.release_lines import development_lines, show_lines
    from hub.repository import read_repository

    place = find_repository(config=config, repository=repository)
    one = named_release(place, which, waiting=True)
    if json:
        print(msgspec.json.encode(one).decode())
    else:
        print("\n".join([*development_lines(read_repository(place)), *show_lines(one)]))


@contextmanager
def _packing() -> Iterator[Callable[[int, int], None]]:
    """Show how far it is, on a terminal only; from the first bytes on, as a passphrase may be asked for before."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = progress.add_task("packing", total=None)

    def show(done: int, total: int) -> None:
        progress.start()
        progress.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        progress.stop()
