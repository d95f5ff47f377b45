"""`hub simulate`: devices that are not there, before a real hub. Exit status as in hub.cli."""

import re
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final

import msgspec
import numpy as np
import typer
from rich.console import Console
from rich.live import Live

from edge.contract.errors import UnreachableError, UnusableError
from edge.contract.settings import BrokerSettings
from hub.cli_options import Json
from hub.scenery import USUAL, Ailment, Fault
from hub.simulate import Fleet, Standing, make_devices, standing_lines
from hub.simulated import draw_places

HELP: Final = """\
Connect devices that are not there, to rehearse a rollout.

They say their state, follow the orders of `hub rollout`, judge a release
by the rule of the real devices and report. What they see is made up, and
the signed repository is not read: each release counts as the baseline of
the next, and a device goes back to that or to nothing. Take a hub, a
database and a broker of their own: the broker must let one client write
for all of them, and the hub remembers every device that it ever heard of.

Their clock is real: a bake takes the minutes that the plan says, and the
devices judge a fifth of --fps in it. At --fps 300 they see in a minute
what cameras of 5 frames a second see in an hour.

Every release is good but for those that --bad names. The kinds:

\b
  crash       takes its process with it, on STRENGTH of the frames (.05)
  nan         numbers that are not finite, on STRENGTH of them (.1)
  blind       no box at all
  everything  STRENGTH times the boxes (6)
  slow        STRENGTH times the milliseconds (2)
  worse       every object's logit falls by STRENGTH (1.5)

\b
  hub simulate --devices 200 --fps 300 --bad 13=worse &
  hub rollout start MODEL/13 --bake 1

A terminal shows how they stand; at the end it is printed.
"""
_ANSWER_S: Final = 15.0
_LOOK_S: Final = 0.5
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,5}")
_STRENGTH: Final = re.compile(r"[0-9]{0,3}(\.[0-9]{1,6})?")


def simulate(
    devices: Annotated[int, typer.Option(min=1, max=20_000, help="How many.")] = 20,
    broker: Annotated[str, typer.Option(metavar="HOST[:PORT]", help="The hub's broker.")] = "localhost",
    site: Annotated[str, typer.Option(help="Their site.")] = "simulated",
    label: Annotated[list[str] | None, typer.Option(help="Of a device, given to them in turn.")] = None,
    bad: Annotated[
        list[str] | None,
        typer.Option(metavar="NUMBER=KIND[:STRENGTH]", help="What is wrong with a release, by its number."),
    ] = None,
    away: Annotated[float, typer.Option(min=0, max=1, help="Share of them that is away every other minute.")] = 0.0,
    fps: Annotated[float, typer.Option(min=0.1, max=1000, help="Frames that each judges a second.")] = 5.0,
    seconds: Annotated[float, typer.Option(min=0, help="End by then; 0: at Ctrl-C or SIGTERM.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, max=10**6, help="Of everything that is drawn.")] = 0,
    ca: Annotated[Path | None, typer.Option(help="PEM file of the broker's authority: TLS.")] = None,
    cert: Annotated[Path | None, typer.Option(help="PEM file of a certificate, with --key.")] = None,
    key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    username: Annotated[str | None, typer.Option(help="At the broker.")] = None,
    password_file: Annotated[Path | None, typer.Option(help="Its first line is the password.")] = None,
    json: Json = False,
) -> None:
    """Run simulated devices; its help is `HELP`."""
    faults = dict(read_fault(text) for text in bad or ())
    settings = _settings(broker, ca=ca, cert=cert, key=key, username=username, password_file=password_file)
    places = draw_places(devices, rng=np.random.default_rng(seed), site=site, fps=fps, labels=tuple(label or ()))
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    console = Console(stderr=True)
    with Fleet(make_devices(places, faults=faults, seed=seed), settings, away=away) as fleet:
        if console.is_terminal:
            with Live(console=console, transient=True, auto_refresh=False) as live:
                last = _watch(
                    fleet, stop, seconds, lambda now: live.update("\n".join(standing_lines(now)), refresh=True)
                )
        else:
            last = _watch(fleet, stop, seconds, lambda _: None)
    print(msgspec.json.encode(last).decode() if json else "\n".join(standing_lines(last)))


def read_fault(text: str) -> tuple[int, Fault]:
    """Read NUMBER=KIND[:STRENGTH]. Raises `UnusableError`."""
    number, _, what = text.partition("=")
    kind, _, strength = what.partition(":")
    ailment = next((one for one in Ailment if one == kind), None)
    if ailment is None or _NUMBER.fullmatch(number) is None or (strength and _STRENGTH.fullmatch(strength) is None):
        msg = f"--bad is NUMBER=KIND or NUMBER=KIND:STRENGTH, not {text!r}; KIND is one of {', '.join(Ailment)}"
        raise UnusableError(msg)
    return int(number), Fault(ailment=ailment, strength=float(strength) if strength else USUAL[ailment])


def _settings(
    broker: str,
    *,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    username: str | None,
    password_file: Path | None,
) -> BrokerSettings:
    host, _, port = broker.rpartition(":") if broker.rpartition(":")[2].isdigit() else (broker, "", "")
    given = {"ca": ca, "cert": cert, "key": key, "username": username, "password_file": password_file}
    told = {name: str(value) for name, value in given.items() if value is not None}
    try:
        settings = msgspec.convert(
            {"host": host.strip("[]"), **({"port": int(port)} if port else {}), **told}, BrokerSettings, strict=False
        )
    except msgspec.ValidationError as error:
        msg = f"the broker cannot be reached by that: {error}"
        raise UnusableError(msg) from error
    settings.require_sense()
    return settings


def _watch(fleet: Fleet, stop: threading.Event, seconds: float, show: Callable[[Standing], None]) -> Standing:
    """Look until the end. Raises `UnreachableError` when nobody ever got through."""
    begun_s = time.monotonic()
    ever = False
    while True:
        now = fleet.standing()
        ever = ever or now.connected > 0
        spent_s = time.monotonic() - begun_s
        is_over = stop.is_set() or (seconds and spent_s >= seconds)
        if not ever and now.refused and (is_over or spent_s > _ANSWER_S):
            raise UnreachableError(next(iter(now.refused)))
        show(now)
        if is_over:
            return now
        stop.wait(_LOOK_S)
