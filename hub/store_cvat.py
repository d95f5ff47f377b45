"""SQL of the tasks that stand on CVAT servers: which batch and pass each has, and what was last pulled from it.

Laws:

1. A task has its row before anything is uploaded into it: one that was left half made is known, and can be removed.
2. A row is complete only when the server was seen to hold every image and every box.
"""

import sqlite3
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from hub.store_rows import immediate

_COLUMNS: Final = "id, batch_id, label_pass, server, task_id, at_ms, complete"

_marks = msgspec.json.Decoder(dict[str, str])


class CvatTask(NamedTuple):
    """One task on a server.

    Attributes:
        id: the row's.
        label_pass: the pass that it is for; empty for all labels at once.
        server: the URL, without a slash at its end.
        task_id: the server's number.
        at_ms: when it was made.
        complete: its images and boxes are all there.
    """

    id: int
    batch_id: int
    label_pass: str
    server: str
    task_id: int
    at_ms: int
    complete: bool


class CvatTasks:
    """The tasks that were made. Made by `Store.cvat`; it belongs to the store's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def of(self, batch_id: int, label_pass: str, *, server: str) -> list[CvatTask]:
        """Return those of a batch and pass on one server, oldest first."""
        rows = self._connection.execute(
            f"SELECT {_COLUMNS} FROM cvat_task WHERE batch_id = ? AND label_pass = ? AND server = ? ORDER BY id",
            (batch_id, label_pass, server),
        )
        return [_task(row) for row in rows]

    def add(self, batch_id: int, label_pass: str, *, server: str, task_id: int, now_ms: int) -> int:
        """Note a task that was just made, and return the row's number."""
        with immediate(self._connection):
            number: int = self._connection.execute(
                "INSERT INTO cvat_task (batch_id, label_pass, server, task_id, at_ms) VALUES (?, ?, ?, ?, ?)"
                " RETURNING id",
                (batch_id, label_pass, server, task_id, now_ms),
            ).fetchone()[0]
        return number

    def complete(self, number: int) -> None:
        """Note that all is there."""
        with immediate(self._connection):
            self._connection.execute("UPDATE cvat_task SET complete = 1 WHERE id = ?", (number,))

    def pulled(self, number: int) -> dict[str, str]:
        """Return what was last imported from a task: annotator to a hash of what was drawn."""
        row = self._connection.execute("SELECT pulled FROM cvat_task WHERE id = ?", (number,)).fetchone()
        return {} if row is None else _marks.decode(row[0])

    def note_pulled(self, number: int, marks: Mapping[str, str]) -> None:
        """Note what was imported from it."""
        with immediate(self._connection):
            encoded = msgspec.json.encode(marks).decode()
            self._connection.execute("UPDATE cvat_task SET pulled = ? WHERE id = ?", (encoded, number))

    def drop(self, number: int) -> None:
        """Forget a task that is no longer on the server."""
        with immediate(self._connection):
            self._connection.execute("DELETE FROM cvat_task WHERE id = ?", (number,))


def _task(row: tuple[Any, ...]) -> CvatTask:
    return CvatTask._make((*row[:6], bool(row[6])))
