"""`hub policy`: what the devices of a site, or one of them, shall do. Exit status as in hub.cli."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from edge.contract.errors import UnusableError
from edge.contract.policy import Policy
from hub.cli_options import Config, Database, Json
from hub.config import find_database
from hub.policies import EXAMPLE, read_policy, report_lines, report_policies, set_lines
from hub.store import Store

policy = typer.Typer(
    no_args_is_help=True,
    help="Change quotas, thresholds, hours and weights of a site's devices, or of one device, or pause them, while they"
    " run. A device's own policy lies over its site's, and both over edge.toml.",
)

Site = Annotated[str, typer.Argument(metavar="SITE", help="The site, as in the devices' edge.toml.")]
Device = Annotated[str, typer.Argument(metavar="DEVICE", help="One device of it; without it, all.")]
_SET_HELP = (
    "Store a policy in place of the one before; `hub serve` publishes it, the devices follow it without a restart.\n\n"
    "The file is checked first, and by each device again, which may refuse it: `hub policy show` says why. What it may"
    " say, all of it may be left out:\n\n"
    "\b\n" + EXAMPLE.replace("[", "\\[").replace("\n\n", "\n\n\b\n")
)


@policy.command("set", help=_SET_HELP)
def policy_set(
    place: Annotated[
        list[str], typer.Argument(metavar="SITE [DEVICE]", help="A site, or a site and one of its devices.")
    ],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy, a TOML file.")],
    config: Config = Path("hub.toml"),
    database: Database = None,
) -> None:
    """Set a policy; its help is `_SET_HELP`."""
    if len(place) > 2:
        msg = f"a site and at most one device, not {' '.join(place)}"
        raise UnusableError(msg)
    given = read_policy(file)
    _edit(place[0], place[1] if len(place) == 2 else "", lambda _: given, config=config, database=database)


@policy.command("show")
def policy_show(
    site: Annotated[str, typer.Argument(metavar="SITE", help="The site; without it, every policy.")] = "",
    device: Device = "",
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Show what is set, since when, and whether each device follows it, as its last heartbeat says.

    What is printed for one policy is the TOML file that sets it.

    Exits 1 when none is set for the place named.
    """
    with Store.open(find_database(config=config, database=database), create=False) as store:
        reports = report_policies(store, site=site, device=device)
    if json:
        print(msgspec.json.encode({"policies": reports}).decode())
    elif reports:
        print("\n\n".join("\n".join(report_lines(report)) for report in reports))
    else:
        print(f"hub: no policy is set{f' for {site} {device}'.rstrip() if site else ''}", file=sys.stderr)
    if site and not reports:
        raise typer.Exit(1)


@policy.command("clear")
def policy_clear(site: Site, device: Device = "", config: Config = Path("hub.toml"), database: Database = None) -> None:
    """Take a policy back: the site's, or edge.toml, holds again.

    Also where none was set: a device that came from another hub forgets that one's policy.
    """
    _edit(site, device, lambda _: Policy(), config=config, database=database)


@policy.command("pause")
def policy_pause(site: Site, device: Device = "", config: Config = Path("hub.toml"), database: Database = None) -> None:
    """Let a site's devices, or one, make no findings until `resume`. Detection goes on; the policy's rest stays."""
    _edit(site, device, lambda now: msgspec.structs.replace(now, paused=True), config=config, database=database)


@policy.command("resume")
def policy_resume(
    site: Site, device: Device = "", config: Config = Path("hub.toml"), database: Database = None
) -> None:
    """End a pause; the policy's rest stays. A device whose site is paused stays paused."""

    def resume(now: Policy) -> Policy:  # `paused = false`, which stands against the site's pause, is no pause
        return msgspec.structs.replace(now, paused=None) if now.paused else now

    _edit(site, device, resume, config=config, database=database)


def _edit(site: str, device: str, edit: Callable[[Policy], Policy], *, config: Path, database: Path | None) -> None:
    with Store.open(find_database(config=config, database=database), create=False) as store:
        store.edit_policy(site, device, edit, now_ms=time.time_ns() // 1_000_000)
        print("\n".join(set_lines(store, site=site, device=device)))
