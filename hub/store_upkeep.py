"""What keeps the hub's file small, and what forgets: the part of `Store` that few commands need."""

import sqlite3
from collections.abc import Iterator

from hub import store_erasure, store_forgotten, store_retention
from hub.store_forgotten import Scope
from hub.store_retention import Swept


class Upkeep:
    """Retention and forgetting. Made by `Store.upkeep`; it belongs to the store's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def sweep(self, *, came_before_ms: int, most_bytes: int, dry_run: bool = False) -> Iterator[Swept]:
        """Delete the frames that came before then, and the oldest while they are more than that; not those in batches.

        Yields after every short transaction. With `dry_run` nothing is deleted.
        """
        due = store_retention.due(self._connection, came_before_ms=came_before_ms, most_bytes=most_bytes)
        for piece in due:
            yield store_retention.weigh(piece) if dry_run else store_retention.delete_frames(self._connection, piece)

    def frames_total(self) -> Swept:
        """Return how many frames are here, and their bytes."""
        return store_retention.frames_total(self._connection)

    def give_back(self, *, spare: float = 0.0) -> Iterator[int]:
        """Give the file system free pages above this share of the file; yields the bytes of each short transaction."""
        return store_retention.give_back(self._connection, spare=spare)

    def prune_recall(self, *, heard_before_ms: int) -> None:
        """Delete the counts of recall that are older; those of the boots that devices are in stay."""
        store_retention.prune_marks(self._connection, heard_before_ms=heard_before_ms)

    def count_forgetting(self, scope: Scope) -> dict[str, int]:
        """Return how many rows of each table a forgetting would remove, images of batches and bytes of frames."""
        return store_erasure.count(self._connection, scope)

    def forget(self, scope: Scope, *, now_ms: int) -> Iterator[tuple[int, int]]:
        """Remove every trace of a scope for good; yields how many findings are gone, of how many.

        When it is at its end, the file has been written anew and its journal is empty. What is stopped before, is to be
        started again. Raises `UnusableError` when the bytes cannot be erased now, `sqlite3.Error` on a full disk.
        """
        number = store_erasure.begin(self._connection, scope, now_ms=now_ms)
        yield from store_erasure.remove(self._connection, scope)
        store_erasure.erase(self._connection, number)

    def forgettings(self) -> tuple[int, int]:
        """Return how many forgettings were begun and finished: who keeps findings in memory reads them anew then."""
        return store_forgotten.counts(self._connection)
