"""`hub repository`: the folder of signed releases, which devices fetch from. Exit status as in hub.cli."""

import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from edge.contract.samples import plain_text
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

repository = typer.Typer(
    no_args_is_help=True,
    help="Keep the signed releases fresh, and bring them to the devices: by HTTP, or on a USB stick.\n\n"
    "The repository is a plain folder. Any web server can serve it, and a bucket of S3 can hold it: copy targets/"
    " first, then metadata/, with metadata/timestamp.json last.",
)


@repository.command("refresh")
def repository_refresh(
    repository: RepositoryFolder = None,
    keys: KeyFolders = None,
    passphrase_file: PassphraseFile = None,
    config: Config = Path("hub.toml"),
    json: Json = False,
) -> None:
    """Sign anew what is newest, with the online keys; publish what was signed elsewhere.

    Devices take nothing from a repository that has not said for seven days
    what is newest: so nobody can hold them at an old state. It needs no
    passphrase. Daily from cron, which mails what goes wrong or ends soon:

    17 4 * * *  cd /srv/weakspot && hub repository refresh >/dev/null

    Exit status 2: nothing was signed; what was signed before goes on holding.
    """
    from hub.keys import open_ring, read_keys
    from hub.release_lines import clock_lines, development_lines, refreshed_lines, warning_lines
    from hub.repository import read_repository, refresh

    now = datetime.now(UTC)
    ring = open_ring(read_keys(find_keys(config=config, keys=keys)), ask=passphrase_from(passphrase_file))
    place = find_repository(config=config, repository=repository)
    before = clock_lines(read_repository(place), now=now)  # signed over, it could not be told any more
    fresh = refresh(place, ring, now=now)
    if json:
        ends = {role: int(end.timestamp() * 1000) for role, end in fresh.expiries.items()}
        told = {"releases": len(fresh.published.signed.targets), "ends": ends, "development": fresh.development}
        print(msgspec.json.encode(told).decode())
    else:
        print("\n".join([*development_lines(fresh), *refreshed_lines(fresh)]))
    warnings = dict.fromkeys([*before, *warning_lines(fresh, now=now)])
    print("".join(f"hub: {line}\n" for line in warnings), end="", file=sys.stderr)


@repository.command("serve")
def repository_serve(
    repository: RepositoryFolder = None,
    host: Annotated[str, typer.Option(help="The address to listen on; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8080,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print each request.")] = False,
    config: Config = Path("hub.toml"),
) -> None:
    """Serve the repository over HTTP until Ctrl-C or SIGTERM. It reads only.

    No TLS is needed: devices check signatures, not the server. A device's
    edge.toml names what is printed, as `url` under `updates`.
    """
    from hub.release_lines import development_lines, refreshed_lines, warning_lines
    from hub.repository import read_repository
    from hub.repository_http import RepositoryServer

    found = read_repository(find_repository(config=config, repository=repository))
    tell = (lambda line: print(plain_text(line, most=300), file=sys.stderr)) if verbose else (lambda _: None)
    with RepositoryServer(found.folder, host=host, port=port, on_request=tell) as server:
        near = host in {"127.0.0.1", "localhost"}
        lines = [
            *development_lines(found),
            *refreshed_lines(found),
            f"http://{host}:{server.server_port}"
            + ("  (this machine only; --host 0.0.0.0 for devices)" if near else ""),
        ]
        print("\n".join(lines), flush=True)
        warnings = warning_lines(found, now=datetime.now(UTC))
        print("".join(f"hub: {line}\n" for line in warnings), end="", file=sys.stderr)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


@repository.command("bundle")
def repository_bundle(
    out: Annotated[Path, typer.Argument(metavar="OUT.tar", help="The tar to write, over one that is there.")],
    repository: RepositoryFolder = None,
    config: Config = Path("hub.toml"),
) -> None:
    """Write all that devices need into one tar, for a site without a network.

    Unpacked anywhere it is the repository again; keys are not in it. It is
    good for seven days from the last `hub repository refresh`.
    """
    from hub.bundle import bundle
    from hub.release_lines import bundle_lines, development_lines, refreshed_lines, warning_lines
    from hub.repository import read_repository

    place = find_repository(config=config, repository=repository)
    found = read_repository(place)
    with _progress() as progress:
        task = progress.add_task("packing", total=None)
        length = bundle(place, out, on_bytes=lambda done, total: progress.update(task, completed=done, total=total))
    print("\n".join([*development_lines(found), *refreshed_lines(found), *bundle_lines(out, length)]))
    warnings = warning_lines(found, now=datetime.now(UTC))
    print("".join(f"hub: {line}\n" for line in warnings), end="", file=sys.stderr)


def _progress() -> Progress:
    """Show how far it is, on a terminal only."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
