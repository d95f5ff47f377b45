"""`hub costs`: what labels have cost, and what they brought. Exit status as in hub.cli."""

from pathlib import Path

import typer

from hub.account import account
from hub.cli_options import Config, Database, Json
from hub.config import find_config, find_database
from hub.cost_lines import account_as_json, cost_lines
from hub.store import Store


def costs(config: Config = Path("hub.toml"), database: Database = None, json: Json = False) -> None:
    """Show what labels have cost by batch and by weak spot, and what came of it.

    Prices stand under `costs` in hub.toml: an image that a person labels, each
    box, an image that a person checks again, an image that the machine
    labels, an hour of people's time. An image is paid for when it is drawn
    on and when it is changed: an import of the same file again is free.
    Images with known answers cost as all others.

    settled: findings on whose pictures people have drawn, so that they are
    known to be right or wrong; misses: the `missed` ones that were right. At
    last what people would have cost for all that the machine has labelled.

    Exits 1 when nothing was labelled yet.
    """
    configured = find_config(config)
    with Store.open(find_database(config=config, database=database), create=False) as store:
        told = account(store, configured.costs, names=configured.labels.names)
    print(account_as_json(told) if json else "\n".join(cost_lines(told)))
    if not told.batches:
        raise typer.Exit(1)
