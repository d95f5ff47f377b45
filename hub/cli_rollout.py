"""`hub rollout`: bring a release to a fleet, wave by wave, and back. Exit status as in hub.cli."""

import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.console import Console

from edge.contract.errors import UnusableError
from edge.contract.rollout import TrialPlan
from hub.cli_options import Config, Database, Json, RepositoryFolder, find_repository
from hub.config import find_database
from hub.rollout_lines import started_lines, status_lines
from hub.rollout_state import Rollout, RolloutPlan
from hub.rollouts import (
    find_rollout,
    halt_rollout,
    resume_rollout,
    roll_back_rollout,
    rollout_status,
    start_rollout,
)
from hub.store import Store

rollout = typer.Typer(
    no_args_is_help=True,
    help="Bring a signed release to the devices in waves: one device, 5 %, 25 %, all of them.\n\n"
    "Each device judges the release beside the model that it has, on the same frames, before it trusts it: it bakes for"
    " an hour, in which the hub judges what all of them have counted together. A wave follows when 95 % of the one"
    " before have confirmed. One failure in the first, two or 5 % in a later one, or figures that fail together, and"
    " the rollout stops and sends every device back, also a complete one when devices that joined late fail. A"
    " device that is online and does not come to an end has failed; one that is offline has not.",
)

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model line; may be left out where there are rollouts of one only.")
]
_POLL_S = 2.0


@rollout.command("start")
def rollout_start(
    release: Annotated[
        str, typer.Argument(metavar="RELEASE", help="MODEL/NUMBER, its name, or MODEL for the newest of a line.")
    ],
    site: Annotated[
        list[str] | None, typer.Option(metavar="SITE", help="Only devices of this site; may be repeated.")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="Only devices with this label in their edge.toml; may be repeated."),
    ] = None,
    canary: Annotated[
        str, typer.Option(metavar="SITE/DEVICE", help="The device that gets it first; else one is drawn.")
    ] = "",
    waves: Annotated[
        str, typer.Option(metavar="PERCENT,...", help="How many have it after each wave that follows the first device.")
    ] = "5,25,100",
    bake: Annotated[
        int, typer.Option(min=0, max=30 * 1440, metavar="MINUTES", help="So long at least it serves on trial.")
    ] = 60,
    timeout: Annotated[
        int, typer.Option(min=1, max=8760, metavar="HOURS", help="Online for so long without an end is a failure.")
    ] = 72,
    shadow_frames: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="Judged on a device before the release serves.")
    ] = 200,
    trial_frames: Annotated[
        int, typer.Option(min=1, max=1_000_000, metavar="N", help="Judged while it serves, before it is confirmed.")
    ] = 300,
    repository: RepositoryFolder = None,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Begin to bring a release to the devices; `hub serve` gives the orders.

    A model line has one rollout at a time: halt the one that runs, and the
    new one takes its place. Devices that have not ended in the old one go back
    first; those that have confirmed it keep it until the new one comes.

    Who comes online later gets the release when the last wave has begun, as
    many at a time as have confirmed it. `hub rollout status` shows how it
    goes.
    """
    from hub.release import baseline_of, named_release
    from hub.release_lines import development_lines, warning_lines
    from hub.repository import read_repository

    if not release or "" in (label or ()):
        msg = "a release and a label have at least one character; is a variable of a script empty?"
        raise UnusableError(msg)
    place = find_repository(config=config, repository=repository)
    signed = read_repository(place)
    found = named_release(place, release)
    plan = _plan(
        sites=tuple(site or ()),
        labels=tuple(label or ()),
        canary=canary,
        waves_permille=_permille(waves),
        timeout_s=timeout * 3600,
        trial=TrialPlan(shadow_frames=shadow_frames, trial_frames=trial_frames, bake_s=bake * 60),
    )
    with Store.open(find_database(config=config, database=database), create=False) as store:
        begun = start_rollout(store, found.signed, plan, now_ms=_now_ms(), baseline=baseline_of(place, found))
        scope = [one for one in store.rollouts.fleet() if plan.covers(one)]
        if json:
            print(msgspec.json.encode(rollout_status(store, begun)).decode())
        else:
            online = sum(one.online for one in scope)
            lines = started_lines(begun, found.signed, in_scope=len(scope), online=online)
            print("\n".join([*development_lines(signed), *lines]))
    warnings = warning_lines(signed, now=datetime.now(UTC))
    print("".join(f"hub: {line}\n" for line in warnings), end="", file=sys.stderr)


@rollout.command("status")
def rollout_show(
    model: Model = "",
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it is complete, halted, stopped or rolled back.")
    ] = False,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Show the newest rollout of each model line, or of one: the waves, and the devices that did not confirm.

    Exits 1 when one of those shown is halted, stopped or rolled back, or when
    there is none. With --wait, 0 says that all of them are complete.
    """
    with Store.open(find_database(config=config, database=database), create=False) as store:
        found = [find_rollout(store, model)] if model else store.rollouts.newest()
        if wait:
            found = _wait(store, [one.model for one in found])
        shown = [rollout_status(store, one) for one in found]
    if json:
        print(msgspec.json.encode({"rollouts": shown}).decode())
    elif shown:
        print("\n\n".join("\n".join(status_lines(one)) for one in shown))
    else:
        print("there is no rollout yet: `hub rollout start` begins one")
    if not shown or any(one.state not in {"running", "complete"} for one in shown):
        raise typer.Exit(1)


@rollout.command("halt")
def rollout_halt(
    model: Model = "", config: Config = Path("hub.toml"), database: Database = None, json: Json = False
) -> None:
    """Order no further device. Those under way go on, and if they fail they still stop it.

    When a new rollout takes its place, those still under way are sent back.
    """
    with Store.open(find_database(config=config, database=database), create=False) as store:
        _show(store, halt_rollout(store, model), json=json)


@rollout.command("resume")
def rollout_resume(
    model: Model = "", config: Config = Path("hub.toml"), database: Database = None, json: Json = False
) -> None:
    """Let a halted rollout go on.

    Where too few of a wave have confirmed, this accepts it as it is. What has
    stopped because devices failed does not go on: start it anew.
    """
    with Store.open(find_database(config=config, database=database), create=False) as store:
        _show(store, resume_rollout(store, model), json=json)


@rollout.command("rollback")
def rollout_rollback(
    model: Model = "", config: Config = Path("hub.toml"), database: Database = None, json: Json = False
) -> None:
    """Send every device of the newest rollout back to the model that the release replaced, also when it is complete.

    A device that has confirmed it goes back only to what the release names as
    its baseline; one that does not hold that installs it anew, where it was in
    the repository when the rollout began. Those that are offline go back when
    they return.
    """
    with Store.open(find_database(config=config, database=database), create=False) as store:
        _show(store, roll_back_rollout(store, model, now_ms=_now_ms()), json=json)


def _show(store: Store, after: Rollout, *, json: bool) -> None:
    status = rollout_status(store, after)
    print(msgspec.json.encode(status).decode() if json else "\n".join(status_lines(status)))


def _wait(store: Store, models: list[str]) -> list[Rollout]:
    """Wait while any of them runs; on a terminal, say how far each is."""
    console = Console(stderr=True)
    with console.status("", spinner="line") as shown:
        while True:
            found = [find_rollout(store, model) for model in models]
            if all(one.state != "running" for one in found):
                return found
            if console.is_terminal:
                shown.update("; ".join(status_lines(rollout_status(store, one))[0] for one in found))
            time.sleep(_POLL_S)


def _permille(text: str) -> tuple[int, ...]:
    try:
        waves = [float(one) for one in text.split(",")]
    except ValueError:
        waves = []
    if not (waves and all(0.1 <= one <= 100 for one in waves)):
        msg = f"--waves are percentages from 0.1 to 100 with commas between them, as in 5,25,100, not {text!r}"
        raise UnusableError(msg)
    return tuple(round(10 * one) for one in waves)


def _plan(**given: object) -> RolloutPlan:
    try:
        return msgspec.convert(given, RolloutPlan)
    except msgspec.ValidationError as error:
        msg = f"this plan cannot be followed: {error}"
        raise UnusableError(msg) from error


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
