"""Opening the hub's SQLite file: what it must be, and the pragmas that every connection has."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import quote

from edge.contract.errors import UnusableError
from hub.migrations import APPLICATION_ID

BUSY_TIMEOUT_S: Final = 30.0
_BUSY_PAUSE_S: Final = 0.01
PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA wal_autocheckpoint = 4000",  # pages: a page that many transactions write is copied once for all of them
    "PRAGMA foreign_keys = ON",
)


def open_connection(path: Path, *, create: bool) -> sqlite3.Connection:
    """Open the file with the hub's pragmas, without looking at its tables. Raises `UnusableError`."""
    if not create and not path.is_file():
        msg = f"there is no database {path}: `hub serve` makes it"
        raise UnusableError(msg)
    try:
        connection = sqlite3.connect(
            f"file:{quote(str(path.absolute()))}?mode={'rwc' if create else 'rw'}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
        )
    except sqlite3.Error as error:
        msg = f"cannot open the database {path}: {error}"
        raise UnusableError(msg) from error
    try:
        insist(lambda: _prepare(connection, path))
    except sqlite3.Error as error:
        connection.close()
        msg = f"cannot use the database {path}: {error}"
        raise UnusableError(msg) from error
    except UnusableError:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    _require_ours(connection, path)
    for pragma in PRAGMAS:
        connection.execute(pragma)


def insist(work: Callable[[], None]) -> None:
    """Repeat while another process makes the file: SQLite does not wait by itself where it changes the journal mode."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return work()
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_PAUSE_S)


def _require_ours(connection: sqlite3.Connection, path: Path) -> None:
    # In this order: another process that is just making the file sets the id before its first table.
    has_tables = connection.execute("SELECT EXISTS (SELECT 1 FROM sqlite_schema)").fetchone()[0]
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    if application_id == APPLICATION_ID:
        return
    if application_id or has_tables:
        msg = f"{path} is a database, but not one of weakspot's"
        raise UnusableError(msg)
    connection.execute("PRAGMA page_size = 8192")
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # ingest is as fast with it: 2,790 and 2,650 events/s
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
