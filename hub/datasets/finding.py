"""Which dataset version is meant: a folder, or the number of one in the database."""

from pathlib import Path

from edge.contract.errors import UnusableError
from hub.config import find_database
from hub.datasets.version import MANIFEST
from hub.store import Store


def find_version(text: str, *, config: Path, database: Path | None) -> Path:
    """Return the folder of a version, as commands name it: the database is opened for a number only.

    Raises `UnusableError` as `resolve_version`, and when there is no database.
    """
    if not _is_number(text):
        return resolve_version(None, text)
    with Store.open(find_database(config=config, database=database), create=False) as store:
        return resolve_version(store, text)


def resolve_version(store: Store | None, text: str) -> Path:
    """Return the folder of a version: `text` is its number, or its path (of a folder called 3: `./3`).

    Raises `UnusableError` when there is none, when its folder is gone, or for a number without a store.
    """
    if not _is_number(text):
        folder = Path(text)
        if not (folder / MANIFEST).is_file():
            there = f"has no {MANIFEST}" if folder.is_dir() else "is not there"
            msg = f"{folder} is no dataset version, it {there}: `hub dataset list` names those there are"
            raise UnusableError(msg)
        return folder
    if store is None:
        msg = f"dataset version {text}: name the database, or the version's folder"
        raise UnusableError(msg)
    row = store.datasets.one(int(text))
    if row.forgotten_at_ms is not None:
        msg = f"dataset version {text} was removed, something in it was forgotten: `hub dataset freeze` makes another"
        raise UnusableError(msg)
    if not (row.folder / MANIFEST).is_file():
        msg = f"the folder of dataset version {text} is gone: {row.folder}"
        raise UnusableError(msg)
    return row.folder


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9
