"""`hub autolabel`: labels by machine, with a guarantee. Exit status as in hub.cli."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hub.autolabel import POOL, Asked, Watch, apply_certificate, certify_model
from hub.autolabel_lines import (
    applied_as_json,
    applied_lines,
    certificate_as_json,
    certificate_lines,
    refused_lines,
    report_as_json,
    report_lines,
)
from hub.certificates import GROUND_TRUTH, GUARANTEE
from hub.cli_options import Config, Database, Json
from hub.config import find_config, find_database
from hub.opinions import Onlooker
from hub.store import Store
from hub.validation import RefusedError

autolabel = typer.Typer(
    no_args_is_help=True,
    help="Let the machine label what it is sure of, with a guarantee: certify, apply, report.",
)


class Rule(StrEnum):
    """What decides from which confidence on the machine labels."""

    GUARANTEE = GUARANTEE
    GROUND_TRUTH = GROUND_TRUTH


Model = Annotated[Path | None, typer.Option(metavar="ONNX", help="The model that labels; else the starter model.")]


@autolabel.command("certify")
def autolabel_certify(
    model: Model = None,
    epsilon: Annotated[float, typer.Option(help="At most this share of the accepted images is wrong.")] = 0.10,
    delta: Annotated[float, typer.Option(help="The guarantee fails with at most this probability.")] = 0.10,
    rule: Annotated[
        Rule, typer.Option(help="`guarantee`, or `ground-truth`: Ground Truth's rule, which promises nothing.")
    ] = Rule.GUARANTEE,
    pool: Annotated[int, typer.Option(min=1, help="Unlabelled images to look at, drawn at random.")] = POOL,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Measure from which confidence on a model labels well enough, or refuse.

    It takes random images that people have labelled, all of them:
    `hub batch new --random`, export, label, import. An image is wrong unless
    every box matches one to one (IoU >= .6, same label), with none missing
    and none extra; an image without anything is right when both say so.

    Shares of the unlabelled images are tested from the most confident on, by
    exact binomial tests, until one fails: with confidence 1 - delta, at most
    epsilon of what is accepted is wrong. Each further attempt of one model
    has a smaller part of delta. Trying again on the same answers changes
    nothing.

    Exits 1 when it is refused, and says how many more images it takes.
    """
    asked = Asked(epsilon, delta, rule.value, pool, find_config(config).labels.names)
    with _opened(config, database) as store, _refusing(), _progress() as watch:
        certificate = certify_model(store, Onlooker.open(model), asked, watch=watch)
    print(certificate_as_json(certificate) if json else "\n".join(certificate_lines(certificate)))
    if certificate.threshold is None:
        raise typer.Exit(1)


@autolabel.command("apply")
def autolabel_apply(
    model: Model = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Label at most so many images.")] = None,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Label the images whose confidence the certificate of this model covers.

    5 % of them, drawn at random, become a batch for a person, who checks the
    machine. What is labelled is chosen for no other batch.

    Exits 1 when this model has no certificate, when its checks contradict it,
    or when the images here are no longer like those it was measured on.
    """
    with _opened(config, database) as store, _refusing(), _progress() as watch:
        applied = apply_certificate(store, Onlooker.open(model), limit=limit, watch=watch)
    print(applied_as_json(applied) if json else "\n".join(applied_lines(applied)))


@autolabel.command("report")
def autolabel_report(
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="DIR", help="Draw pictures into it.")] = None,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Show the certificates, what was labelled, what people found in the checks, and what it cost.

    A certificate is void when so many checked images are wrong that its
    epsilon cannot be (5 %): then nothing more is labelled under it.

    --out draws: images, boxes and cost of each round; how well the boxes of
    people and machine agree; the most confident images. Exits 1 when there is
    no certificate.
    """
    from hub.autolabel_report import report

    with _opened(config, database) as store:
        found = report(store, find_config(config).costs)
        written: list[Path] = []
        if out is not None:
            from hub.autolabel_plots import draw

            written = draw(store, found, out)
    print(report_as_json(found, written) if json else "\n".join(report_lines(found, written)))
    if not found.standings:
        raise typer.Exit(1)


def _opened(config: Path, database: Path | None) -> Store:
    return Store.open(find_database(config=config, database=database), create=False)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn a refusal into exit status 1."""
    try:
        yield
    except RefusedError as error:
        _refuse(str(error))


def _refuse(why: str) -> NoReturn:
    print("\n".join(refused_lines(why)), file=sys.stderr)
    raise typer.Exit(1) from None


@contextmanager
def _progress() -> Iterator[Watch]:
    """Show how many images were looked at, on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("images looked at", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
