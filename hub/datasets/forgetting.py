"""`hub forget` and the dataset versions: a folder that holds a picture of what is forgotten goes as a whole.

A version without some of its pictures would be another version under the same digest, so none is cut. The row stays: it
says which version there was, its recipe and its counts, and when it was removed.

Laws:

1. A folder goes before its row says so, and both before the findings do: what is stopped between is found again.
2. A folder that a killed freeze has left in place without a row goes, too.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from edge.contract.errors import UnusableError
from hub.datasets.version import IMAGES, MANIFEST, read_version, remove_parts
from hub.store import Store
from hub.store_datasets import FOLDER
from hub.store_forgotten import Scope


class Holding(NamedTuple):
    """A folder with pictures of what is to be forgotten.

    Attributes:
        number: of the version; None where the database knows of none.
        pictures: all that are in it, as far as it is known.
        is_there: it is still where it was written.
    """

    number: int | None
    folder: Path
    pictures: int
    is_there: bool


def holding(store: Store, scope: Scope) -> list[Holding]:
    """Return every dataset version that has a picture of the scope, oldest first; those without a row last."""
    found = [
        Holding(row.id, row.folder, row.train + row.val + row.test, row.folder.exists())
        for row in store.datasets.holding(scope)
    ]
    return [*found, *_without_row(store, scope)]


def remove(store: Store, several: list[Holding], *, now_ms: int) -> None:
    """Remove the folders. Raises `UnusableError` for the first that cannot be removed."""
    remove_parts(store.datasets.home / FOLDER)
    for one in several:
        if one.is_there:
            _remove(one.folder)
        if one.number is not None:
            store.datasets.mark_forgotten(one.number, now_ms=now_ms)


def _remove(folder: Path) -> None:
    """Remove a version's folder, through a link too; never a folder that something else was put into."""
    try:
        whole = folder.resolve()
        if others := sorted({path.name for path in whole.iterdir()} - {MANIFEST, IMAGES}):
            msg = (
                f"{folder} holds what is of no dataset version, {others[0]}: nothing is forgotten yet; "
                "move that away, then forget again"
            )
            raise UnusableError(msg)
        shutil.rmtree(whole)
        folder.unlink(missing_ok=True)  # what is left of a link
    except OSError as error:
        msg = f"cannot remove {folder}: {error.strerror}; nothing is forgotten yet: remove it, then forget again"
        raise UnusableError(msg) from error


def _without_row(store: Store, scope: Scope) -> Iterator[Holding]:
    folder = store.datasets.home / FOLDER
    known = {row.folder for row in store.datasets.all()}
    going: frozenset[str] | None = None
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path in known or not path.name.isdigit():
            continue
        try:
            members = read_version(path).members
        except UnusableError:
            continue
        if going is None:
            going = store.datasets.event_ids(scope)
        if any(member.event_id in going for member in members):
            yield Holding(None, path, len(members), is_there=True)
