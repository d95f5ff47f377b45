"""What the commands of `hub` share: options, how a file is written, and how a passphrase is asked for."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from edge.contract.errors import UnusableError
from hub.config import find_config

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
RepositoryFolder = Annotated[
    Path | None,
    typer.Option("--repository", "-r", metavar="FOLDER", help="The repository, instead of the configuration's."),
]
KeyFolders = Annotated[
    list[Path] | None,
    typer.Option("--keys", "-k", metavar="FOLDER", help="Keys, instead of the configuration's; may be repeated."),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Its first line is the passphrase of the keys; else it is asked for."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def write_file(path: Path, content: bytes) -> None:
    """Write a file, over one that is there. Raises `UnusableError` when it cannot be written."""
    try:
        path.write_bytes(content)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise UnusableError(msg) from error


def find_repository(*, config: Path, repository: Path | None) -> Path:
    """Return the repository that a command means: the one named, else the configuration's. Raises `UnusableError`."""
    return repository or _shown(find_config(config).repository.folder)


def find_keys(*, config: Path, keys: list[Path] | None) -> list[Path]:
    """Return the folders of keys that a command means. Raises `UnusableError`."""
    return keys or [_shown(find_config(config).repository.keys)]


def passphrase_from(file: Path | None, *, again: bool = False) -> Callable[[str], bytes]:
    """Return a way to ask for passphrases: a file, else the terminal; `again` to make a new one.

    It raises `UnusableError` when the file cannot be read or is empty, and when there is neither.
    """

    def ask(name: str) -> bytes:
        if file is not None:
            return _first_line(file)
        if not sys.stdin.isatty():
            msg = f"a passphrase is needed for {name}: run it in a terminal, or give --passphrase-file"
            raise UnusableError(msg)
        word = "new passphrase" if again else "passphrase"
        told: str = typer.prompt(f"{word} of {name}", hide_input=True, confirmation_prompt=again, err=True)
        return told.encode()

    return ask


def _first_line(file: Path) -> bytes:
    try:
        line = file.read_bytes().partition(b"\n")[0].rstrip(b"\r")
    except OSError as error:
        msg = f"cannot read {file}: {error.strerror}"
        raise UnusableError(msg) from error
    if not line:
        msg = f"{file} holds no passphrase: its first line is empty"
        raise UnusableError(msg)
    return line


def _shown(path: Path) -> Path:
    """Return a path as a person would write it: relative, where it lies below the working folder."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) and path != here else path
