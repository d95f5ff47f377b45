"""How old the samples of a spool are, on a device whose clock may be wrong.

A device without a battery starts in 1970, and a clock may jump by years. Age is therefore no difference of two readings
of the wall clock. A spool counts a time of its own, which only grows, and stamps its samples with it.

Laws:

1. While the spool is open its time passes with the monotonic clock: no jump of the wall clock ages a sample.
2. From one opening to the next it passes with the wall clock, by at most `MAX_OFF_MS`: a clock that went back, or that
   leapt further (out of 1970, or into the far future), tells nothing, and no time has passed.
3. So a sample leaves too late and not too early: by up to one call, and by the time that the device was off or asleep
   where its clock did not tell. The one thing that is believed and may be wrong is a clock that is less than
   `MAX_OFF_MS` ahead when the spool is opened.
"""

import sqlite3
from typing import Final

MAX_OFF_MS: Final = 366 * 24 * 60 * 60 * 1000


def pass_time(db: sqlite3.Connection, *, elapsed_s: float | None, now_ms: int) -> int:
    """Let the spool's time pass and stamp what was put since the last call; return the spool's time in milliseconds.

    Args:
        db: in a transaction.
        elapsed_s: of the monotonic clock since the last call; None at the first call after the opening.
        now_ms: the wall clock.
    """
    notes = dict(db.execute("SELECT name, value FROM note WHERE name IN ('lived_ms', 'wall_ms')").fetchall())
    off_ms = now_ms - notes.get("wall_ms", now_ms)
    passed_ms = off_ms if 0 <= off_ms <= MAX_OFF_MS else 0
    if elapsed_s is not None:
        passed_ms = round(elapsed_s * 1e3)
    lived_ms: int = notes.get("lived_ms", 0) + passed_ms
    written = [("lived_ms", lived_ms), ("wall_ms", now_ms)]
    db.executemany("INSERT OR REPLACE INTO note VALUES (?, ?)", written)
    db.execute("UPDATE sample SET born_ms = ? WHERE born_ms IS NULL", (lived_ms,))
    return lived_ms


def stamp_left_over(db: sqlite3.Connection) -> None:
    """Stamp, at the opening, what was put after the last call before it: by the time of that call."""
    db.execute(
        "UPDATE sample SET born_ms = coalesce((SELECT value FROM note WHERE name = 'lived_ms'), 0) "
        "WHERE born_ms IS NULL"
    )


def older_than(db: sqlite3.Connection, born_ms: int, *, limit: int) -> list[str]:
    """Return the ids of up to `limit` samples that were stamped at or before a time of the spool."""
    find = "SELECT event_id FROM sample WHERE born_ms <= ? ORDER BY seq LIMIT ?"
    return [row[0] for row in db.execute(find, (born_ms, limit))]
