"""SQL of the weak spots: what they are, and every step of their lives.

Laws:

1. The newest step of a weak spot has the state of its row; both are written in one transaction.
2. A step whose state is new is never changed; of mere measurements the newest of an hour stays.
"""

import json
import math
import sqlite3
from collections.abc import Collection, Iterable
from typing import Any, Final, NamedTuple

from edge.contract.errors import UnusableError
from hub.store_forgotten import counts
from hub.store_rows import FrameState, immediate

HOUR_MS: Final = 60 * 60 * 1000
_SPOT: Final = "id, name, tags, manual, state, opened_at_ms, named_at_ms"
_STEP: Final = "at_ms, state, model, rate, low, high, against, missed, found, batch_id, note, measured"


class SpotRow(NamedTuple):
    """A weak spot. `tags`: words between spaces, sorted; of a `manual` one the text of its rule."""

    id: int
    name: str
    tags: str
    manual: bool
    state: str
    opened_at_ms: int
    named_at_ms: int


class StepRow(NamedTuple):
    """One step of a life, or one measurement: then the state is that of the step before.

    Attributes:
        at_ms: when, UTC milliseconds.
        model: the release that was measured, or trained; releases are joined by `, `.
        rate: with `low`, `high` (95 %) and `against`; None where it could not be measured.
        measured: it is a measurement only.
    """

    at_ms: int
    state: str
    model: str
    rate: float | None
    low: float | None
    high: float | None
    against: float | None
    missed: int
    found: int
    batch_id: int | None = None
    note: str = ""
    measured: bool = False


class BatchCost(NamedTuple):
    """A batch of a weak spot.

    Attributes:
        size: its images; `test` of them are never trained on.
        minutes: of people's work, as far as it was told.
        frame_bytes: of its frames, which the devices have sent.
    """

    id: int
    created_at_ms: int
    size: int
    minutes: float | None
    test: int
    frame_bytes: int


class Move(NamedTuple):
    """A step of one weak spot."""

    spot_id: int
    step: StepRow


class NamingRecord(NamedTuple):
    """What one naming has decided.

    Attributes:
        opened: name, tags and first step of each new weak spot.
        measured: the measurements of known ones; of each the newest of an hour stays.
        moves: the steps of known ones.
        found: the known ones that were found again.
        stale: those to drop.
    """

    at_ms: int
    opened: tuple[tuple[str, str, StepRow], ...] = ()
    measured: tuple[tuple[int, StepRow], ...] = ()
    moves: tuple[Move, ...] = ()
    found: frozenset[int] = frozenset()
    stale: tuple[int, ...] = ()


class Spots:
    """The weak spots in the database. Made by `Store.spots`; it belongs to the store's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self) -> list[SpotRow]:
        """Return every weak spot, oldest first."""
        return [_spot(row) for row in self._connection.execute(f"SELECT {_SPOT} FROM weak_spot ORDER BY id")]

    def one(self, spot_id: int) -> SpotRow:
        """Return one. Raises `UnusableError` when there is none of that number."""
        row = self._connection.execute(f"SELECT {_SPOT} FROM weak_spot WHERE id = ?", (spot_id,)).fetchone()
        if row is None:
            known = [str(one.id) for one in self.all()]
            there_are = f"known are {', '.join(known)}" if known else "`hub weakspots` names them"
            msg = f"there is no weak spot {spot_id}; {there_are}"
            raise UnusableError(msg)
        return _spot(row)

    def steps(self, spot_id: int) -> list[StepRow]:
        """Return the steps and measurements of one, oldest first."""
        rows = self._connection.execute(
            f"SELECT {_STEP} FROM weak_spot_step WHERE weak_spot_id = ? ORDER BY id", (spot_id,)
        )
        return [_step(row) for row in rows]

    def open(self, name: str, tags: str, *, manual: bool, first: StepRow) -> int:
        """Open one with its first step and return its number. Raises `UnusableError` when one has the same tags."""
        with immediate(self._connection):
            try:
                return _open(self._connection, name, tags, manual=manual, first=first)
            except sqlite3.IntegrityError as error:
                msg = f"there is already a weak spot of {tags.strip()}"
                raise UnusableError(msg) from error

    def add_step(self, spot_id: int, step: StepRow, *, from_states: Collection[str], minutes: float | None) -> bool:
        """Take a step from one of these states, or measure anew; return False when it is in none of them.

        `minutes` are added to those of its newest batch. Where it has none, or they are not a number from 0 up, that
        raises `UnusableError` and nothing is stored.
        """
        with immediate(self._connection):
            if self.one(spot_id).state not in from_states:
                return False
            if minutes is not None:
                _add_minutes(self._connection, spot_id, minutes)
            self.move(spot_id, step)
        return True

    def move(self, spot_id: int, step: StepRow) -> None:
        """Take a step, whatever the state. Within a transaction."""
        _move(self._connection, spot_id, step)

    def newest_measurements(self) -> dict[int, StepRow]:
        """Return of each weak spot the newest step that has a rate."""
        rows = self._connection.execute(
            f"SELECT weak_spot_id, {_STEP} FROM weak_spot_step WHERE id IN"
            " (SELECT max(id) FROM weak_spot_step WHERE rate IS NOT NULL GROUP BY weak_spot_id)"
        )
        return {row[0]: _step(row[1:]) for row in rows}

    def last_step(self) -> int:
        """Return the number of the newest step of all."""
        number: int = self._connection.execute("SELECT coalesce(max(id), 0) FROM weak_spot_step").fetchone()[0]
        return number

    def record(self, record: NamingRecord, *, last: int, forgettings: tuple[int, int]) -> bool:
        """Store what one naming has decided; or nothing, and return False, when it is out of date.

        That is when `last` is not the newest step now, or something was forgotten that it may have read.
        """
        with immediate(self._connection):
            if self.last_step() != last or counts(self._connection) != forgettings:
                return False
            there = {spot.id for spot in self.all()}  # without those that were dropped meanwhile
            for name, tags, first in record.opened:
                _open(self._connection, name, tags, manual=False, first=first)
            for spot_id, step in record.measured:
                if spot_id in there:
                    _measure(self._connection, spot_id, step)
            for move in record.moves:
                if move.spot_id in there:
                    _move(self._connection, move.spot_id, move.step)
            self._connection.executemany(
                "UPDATE weak_spot SET named_at_ms = ? WHERE id = ?", [(record.at_ms, one) for one in record.found]
            )
            _drop(self._connection, record.stale)
        return True

    def drop(self, spot_id: int) -> None:
        """Delete one with its steps. Raises `UnusableError` when there is none, or it has a batch."""
        with immediate(self._connection):
            self.one(spot_id)
            if not _drop(self._connection, [spot_id]):
                msg = f"weak spot {spot_id} has a batch: what was done for it is kept"
                raise UnusableError(msg)

    def first_sighting_of(self, model: str, *, since_ms: int) -> int | None:
        """Return when a release was first seen at work since then; None when it was not."""
        row = self._connection.execute(
            "SELECT min(captured_at_ms) FROM sighting WHERE model = ? AND captured_at_ms >= ?", (model, since_ms)
        ).fetchone()
        first: int | None = row[0]
        return first

    def sighted(self, finding_ids: Collection[int]) -> dict[int, tuple[str, FrameState]]:
        """Return event id and frame state of findings by their numbers."""
        rows = self._connection.execute(
            "SELECT id, event_id, frame_state FROM finding WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(finding_ids)),),
        )
        return {number: (event_id, FrameState(state)) for number, event_id, state in rows}

    def batch_costs(self, spot_id: int) -> list[BatchCost]:
        """Return what the batches of one hold and cost, oldest first."""
        rows = self._connection.execute(
            "SELECT b.id, b.created_at_ms, b.size, b.minutes, coalesce(sum(m.test), 0), coalesce(sum(f.frame_bytes), 0)"
            " FROM batch b LEFT JOIN batch_member m ON m.batch_id = b.id LEFT JOIN finding f ON f.event_id = m.event_id"
            " WHERE b.weak_spot_id = ? GROUP BY b.id ORDER BY b.id",
            (spot_id,),
        )
        return [BatchCost._make(row) for row in rows]

    def last_sighting(self) -> int:
        """Return the number of the newest sighting, 0 when there is none."""
        number: int = self._connection.execute("SELECT coalesce(max(id), 0) FROM sighting").fetchone()[0]
        return number


def _open(connection: sqlite3.Connection, name: str, tags: str, *, manual: bool, first: StepRow) -> int:
    spot_id: int = connection.execute(
        "INSERT INTO weak_spot (name, tags, manual, state, opened_at_ms, named_at_ms) VALUES (?, ?, ?, ?, ?, ?)"
        " RETURNING id",
        (name, tags, manual, first.state, first.at_ms, first.at_ms),
    ).fetchone()[0]
    _insert(connection, spot_id, first)
    return spot_id


def _measure(connection: sqlite3.Connection, spot_id: int, step: StepRow) -> None:
    newest = connection.execute(
        "SELECT id, measured, at_ms FROM weak_spot_step WHERE weak_spot_id = ? ORDER BY id DESC LIMIT 1", (spot_id,)
    ).fetchone()
    if newest is not None and newest[1] and newest[2] // HOUR_MS == step.at_ms // HOUR_MS:
        connection.execute(
            f"UPDATE weak_spot_step SET ({_STEP}) = (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) WHERE id = ?",
            (*step, newest[0]),
        )
    else:
        _insert(connection, spot_id, step)


def _move(connection: sqlite3.Connection, spot_id: int, step: StepRow) -> None:
    connection.execute("UPDATE weak_spot SET state = ? WHERE id = ?", (step.state, spot_id))
    _insert(connection, spot_id, step)


def _add_minutes(connection: sqlite3.Connection, spot_id: int, minutes: float) -> None:
    if not (math.isfinite(minutes) and minutes >= 0):
        msg = f"{minutes} minutes: expected a number from 0 up"
        raise UnusableError(msg)
    newest = connection.execute("SELECT max(id) FROM batch WHERE weak_spot_id = ?", (spot_id,)).fetchone()[0]
    if newest is None:
        msg = f"weak spot {spot_id} has no batch to note minutes of"
        raise UnusableError(msg)
    connection.execute("UPDATE batch SET minutes = coalesce(minutes, 0) + ? WHERE id = ?", (minutes, newest))


def _drop(connection: sqlite3.Connection, spot_ids: Iterable[int]) -> list[int]:
    """Delete those that have no batch; return which."""
    batched = "SELECT EXISTS (SELECT 1 FROM batch WHERE weak_spot_id = ?)"
    free = [one for one in spot_ids if not connection.execute(batched, (one,)).fetchone()[0]]
    connection.executemany("DELETE FROM weak_spot_step WHERE weak_spot_id = ?", [(one,) for one in free])
    connection.executemany("DELETE FROM weak_spot WHERE id = ?", [(one,) for one in free])
    return free


def _insert(connection: sqlite3.Connection, spot_id: int, step: StepRow) -> None:
    connection.execute(
        f"INSERT INTO weak_spot_step (weak_spot_id, {_STEP}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (spot_id, *step),
    )


def _spot(row: tuple[int, str, str, int, str, int, int]) -> SpotRow:
    return SpotRow(row[0], row[1], row[2], bool(row[3]), *row[4:])


def _step(row: tuple[Any, ...]) -> StepRow:
    *columns, measured = row
    return StepRow._make((*columns, bool(measured)))
