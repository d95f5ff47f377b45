"""`hub verdicts`: what annotated images say of the findings. Exit status as in hub.cli."""

import time
from pathlib import Path
from typing import Annotated

import typer

from hub.cli_options import Config, Database, Json, write_file
from hub.config import find_config, find_database
from hub.finding_verdicts import verdicts
from hub.store import Store
from hub.verdict_lines import sent_lines, verdict_lines, verdicts_as_json, wrong_sheet
from hub.weight_policies import propose, send


def judge(
    sheet: Annotated[
        Path | None, typer.Option("--sheet", help="Write a contact sheet of up to 40 wrong findings, a PNG.")
    ] = None,
    to_devices: Annotated[bool, typer.Option("--send", help="Put better weights into the devices' policies.")] = False,
    config: Config = Path("hub.toml"),
    database: Database = None,
    json: Json = False,
) -> None:
    """Say which findings were right, by what people drew on their pictures.

    A `missed` finding is right where an object lies that no detection shows,
    a `low_confidence` one where an object is, a `suspect` one where none is.
    `control` frames of batches that are of no weak spot tell the detector's
    recall. By camera, reason and witness, with 95 % intervals. Only labels that people looked for count,
    and nothing that the machine has drawn.

    From the verdicts the weights of the witnesses are fitted for each
    camera: they make the severity the probability of a true miss there. A
    camera gets them from 30 verdicts on, when they foresee verdicts better
    that they were not fitted on. --send puts them into the policy of the
    device, of which all else stays; `hub policy show` says who follows.
    What then falls under min_severity is not reported, so not judged again.

    Exits 1 when no finding is judged yet.
    """
    names = find_config(config).labels.names
    with Store.open(find_database(config=config, database=database), create=False) as store:
        judged = verdicts(store, names=names)
        proposed = propose(store, judged)
        if sheet is not None:
            write_file(sheet, wrong_sheet(store, judged))
        sent, gone = send(store, proposed, now_ms=time.time_ns() // 1_000_000) if to_devices else ([], [])
    if json:
        print(verdicts_as_json(judged, proposed, sent=sent, gone=gone))
    elif to_devices:
        print("\n".join(sent_lines(proposed, sent=sent, gone=gone)))
    else:
        print("\n".join(verdict_lines(judged, proposed)))
    if sheet is not None and not json:
        print(f"drawn: {sheet}")
    if not judged.verdicts and not judged.seen:
        raise typer.Exit(1)
