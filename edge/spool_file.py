"""The database file of the spool: its schema, how it is opened, and what its errors mean.

At open: a database that was not closed is checked; a broken one is moved aside, its counters saved where they can be
read, and a new one is begun. The mark of a clean end is taken away last.

What is deleted is overwritten with zeros (`secure_delete`), for a picture that left must not be read from the file.
"""

import contextlib
import logging
import os
import sqlite3
from pathlib import Path
from typing import Final

from edge.contract.errors import UnusableError
from edge.spool_age import stamp_left_over

PAGE_BYTES: Final = 4096
VERSION: Final = 1
_VACUUM_PAGES: Final = 128

_SCHEMA: Final = """
CREATE TABLE sample (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    event_id TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    rank REAL NOT NULL,
    cost INTEGER NOT NULL,
    born_ms INTEGER
);
CREATE INDEX sample_by_rank ON sample (state, rank, seq);
CREATE TABLE body (
    seq INTEGER PRIMARY KEY REFERENCES sample (seq) ON DELETE CASCADE,
    frame_bytes INTEGER NOT NULL,
    frame_sha256 TEXT NOT NULL,
    event BLOB NOT NULL,
    jpeg BLOB NOT NULL,
    CHECK (length(jpeg) = frame_bytes)
);
CREATE TABLE counter (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE note (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

_log = logging.getLogger(__name__)


def open_database(path: Path) -> sqlite3.Connection:
    """Return a connection to a sound spool database, a new one where there was none or only a broken one.

    Raises:
        UnusableError: a newer version made it, or it cannot be opened at all.
        sqlite3.DatabaseError: the disk takes no writes (`is_disk_trouble`).
    """
    try:
        return _open_sound(path)
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            if is_disk_trouble(error):
                raise
            msg = f"cannot open the spool {path}: {error}"
            raise UnusableError(msg) from error
        return replace_corrupt(path, error)


def replace_corrupt(path: Path, cause: Exception) -> sqlite3.Connection:
    """Move a broken database aside (the last one only is kept) and return a new one that counts the loss."""
    counters, lost = _salvage(path)
    aside = _aside(path)
    _log.error("the spool %s is broken (%s): moved to %s, a new one is begun", path, cause, aside.name)
    path.replace(aside)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    db = _open_sound(path)
    counters["dropped/spool_corrupt"] = counters.get("dropped/spool_corrupt", 0) + max(1, lost)
    db.executemany("INSERT OR REPLACE INTO counter VALUES (?, ?)", counters.items())
    return db


def add(db: sqlite3.Connection, name: str, n: int) -> None:
    """Add to a counter."""
    db.execute("INSERT INTO counter VALUES (?, ?) ON CONFLICT DO UPDATE SET n = n + excluded.n", (name, n))


def shrink(db: sqlite3.Connection, size_bytes: int) -> None:
    """Give up to `size_bytes` of free pages back to the disk."""
    for _ in range(0, size_bytes, _VACUUM_PAGES * PAGE_BYTES):
        # not `execute`: it steps a statement without columns once, and each step is one page
        db.executescript(f"PRAGMA incremental_vacuum({_VACUUM_PAGES}); PRAGMA wal_checkpoint;")


def wipe(db: sqlite3.Connection, path: Path) -> None:
    """Leave nothing of what was deleted: not in the WAL, which keeps old pages, nor in a broken database kept aside."""
    _aside(path).unlink(missing_ok=True)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether the file itself is broken."""
    return _primary(error) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_disk_trouble(error: sqlite3.Error) -> bool:
    """Whether the disk is full or failed a read or a write."""
    return _primary(error) in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def connect(path: Path) -> sqlite3.Connection:
    """Return a plain connection that any thread may use, in autocommit mode."""
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
    db.execute("PRAGMA foreign_keys = ON")
    db.execute("PRAGMA secure_delete = ON")
    return db


def _open_sound(path: Path) -> sqlite3.Connection:
    is_new = not path.exists() or path.stat().st_size == 0
    db = connect(path)
    try:
        if is_new:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            msg = f"the spool {path} was made by a newer weakspot (version {version}, this one knows {VERSION})"
            raise UnusableError(msg)  # noqa: TRY301 - the connection is closed below
        if version == 0:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version = {VERSION}; COMMIT;")
        elif db.execute("SELECT 1 FROM note WHERE name = 'clean'").fetchone() is None:
            _require_sound(db)
        stamp_left_over(db)
        db.execute("DELETE FROM note WHERE name = 'clean'")
        if is_new:
            _sync_folder(path.parent)
    except BaseException:
        db.close()
        raise
    return db


def _require_sound(db: sqlite3.Connection) -> None:
    verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        error = sqlite3.DatabaseError(verdict)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.corrupt")


def _salvage(path: Path) -> tuple[dict[str, int], int]:
    """Return the counters and the number of samples of a broken database, as far as they can be read."""
    counters: dict[str, int] = {}
    lost = 0
    with contextlib.suppress(sqlite3.Error), contextlib.closing(connect(path)) as db:
        counters = dict(db.execute("SELECT name, n FROM counter").fetchall())
        lost = db.execute("SELECT count(*) FROM sample").fetchone()[0]
    return counters, lost


def _primary(error: sqlite3.Error) -> int | None:
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
