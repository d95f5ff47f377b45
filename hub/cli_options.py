"""Options that the commands of `hub` share."""

from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[Path, typer.Option("--config", "-c", help="The hub's configuration.", show_default=True)]
Database = Annotated[
    Path | None, typer.Option("--database", "-d", help="The database itself, instead of the configuration's.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
