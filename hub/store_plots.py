"""SQL of the pictures: how many findings each camera had in an hour."""

import sqlite3
from typing import Final

from hub.recall import HOUR_MS, CameraHour
from hub.store_recall import hours_since

HourCount = tuple[str, str, str, int, int]
"""Site, device, camera, the hour's first millisecond (UTC), findings."""

_LATE_MS: Final = 24 * HOUR_MS  # by so much a device's clock may be ahead


class Series:
    """What the pictures are drawn from. Made by `Store.series`; it belongs to the store's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def findings(self, *, since_ms: int) -> list[HourCount]:
        """Return the findings captured since then, counted by camera and hour."""
        rows = self._connection.execute(
            f"SELECT site, device, camera, captured_at_ms - captured_at_ms % {HOUR_MS} AS hour, count(*) FROM finding"
            " WHERE id >= ? AND captured_at_ms >= ? GROUP BY site, device, camera, hour ORDER BY hour",
            (self._first_since(since_ms - _LATE_MS), since_ms),
        )
        return [(*row,) for row in rows]

    def recall(self, *, since_ms: int) -> list[CameraHour]:
        """Return the counts of the two looks since then, by camera and hour."""
        return hours_since(self._connection, since_ms=since_ms)

    def _first_since(self, received_ms: int) -> int:
        """Return the number of the first finding that came since then: they are numbered in the order of coming."""
        first = 1
        last: int = self._connection.execute("SELECT coalesce(max(id), 0) FROM finding").fetchone()[0]
        while first <= last:
            middle = (first + last) // 2
            row = self._connection.execute(
                "SELECT id, received_at_ms FROM finding WHERE id >= ? ORDER BY id LIMIT 1", (middle,)
            ).fetchone()
            if row[1] < received_ms:
                first = row[0] + 1
            else:
                last = middle - 1
        return first
