"""What the commands of `hub` share: options, and how a file is written."""

from pathlib import Path
from typing import Annotated

import typer

from edge.contract.errors import UnusableError

Config = Annotated[Path, typer.Option("--config", "-c", help="The hub's configuration.", show_default=True)]
Database = Annotated[
    Path | None, typer.Option("--database", "-d", help="The database itself, instead of the configuration's.")
]
AgainstInput = Annotated[
    str,
    typer.Option(
        metavar="WIDTHxHEIGHT",
        help="The input at which BASELINE runs on the devices (`model.input` in edge.toml); else its card's.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def write_file(path: Path, content: bytes) -> None:
    """Write a file, over one that is there. Raises `UnusableError` when it cannot be written."""
    try:
        path.write_bytes(content)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise UnusableError(msg) from error
