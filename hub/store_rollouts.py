"""SQL of the rollouts: how each stands, what every device was ordered, and what was heard of either.

Laws:

1. An order is on disk before it is sent: what a device may have been told, this database knows.
2. A device's order is that of the newest rollout that has ordered it.
3. A model line has at most one rollout that may go on.
4. An order heard back from the broker that is newer than the device's own here was given after this copy of the
   database was made. It is taken over where its rollout is known (hub.rollout_rules.adopt), else kept aside: then the
   line's rollout is halted, and only an order that is newer still is sent to that device.
"""

import sqlite3
from collections.abc import Iterator
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from edge.contract.errors import UnusableError
from edge.contract.rollout import Assignment, RolloutReport
from edge.contract.status import State, decode, encode
from hub.rollout_rules import adopt, give_way, told, turned_up
from hub.rollout_state import OLDER_COPY, Heard, Member, Place, Rollout, assignment, faults, standing
from hub.store_rows import immediate

_heads: Final = msgspec.json.Decoder(Rollout)
_members: Final = msgspec.json.Decoder(Member)
_states: Final = msgspec.json.Decoder(State)
_KEPT: Final = 8192  # rows that are read again every second, and seldom differ; about 6 KB each


class OrderRow(NamedTuple):
    """What a device is to be sent."""

    site: str
    device: str
    payload: bytes


class Rollouts:
    """The rollouts. Made by `Store.rollouts`; it belongs to the store's thread."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def any(self) -> bool:
        """Return whether there ever was one."""
        return bool(self._connection.execute("SELECT EXISTS (SELECT 1 FROM rollout)").fetchone()[0])

    def newest(self) -> list[Rollout]:
        """Return the newest rollout of every model line, in order of the line."""
        rows = self._connection.execute(
            "SELECT id, head FROM rollout WHERE id IN (SELECT max(id) FROM rollout GROUP BY model) ORDER BY model"
        )
        return [_whole(self._connection, *row) for row in rows.fetchall()]

    def all(self) -> list[Rollout]:
        """Return every rollout, oldest first."""
        rows = self._connection.execute("SELECT id, head FROM rollout ORDER BY id")
        return [_whole(self._connection, *row) for row in rows.fetchall()]

    def stepped(self, *, late: bool) -> list[Rollout]:
        """Return those that time moves, oldest first.

        They are the active ones; with `late` also the newest complete one of each line, and those that were stopped,
        rolled back or replaced as long as a device has its order of them: it may be on its way back.
        """
        rows = self._connection.execute(
            "SELECT id, head FROM rollout WHERE state IN ('running', 'halted') OR ? AND (id IN"
            " (SELECT max(id) FROM rollout WHERE state = 'complete' GROUP BY model) OR state IN"
            " ('stopped', 'rolled_back', 'replaced') AND id IN (SELECT rollout_id FROM device_order)) ORDER BY id",
            (late,),
        )
        return [_whole(self._connection, *row) for row in rows.fetchall()]

    def add(self, rollout: Rollout) -> None:
        """Begin one; the line's halted one is replaced, and who has not ended in it is ordered back.

        Raises `UnusableError` while one of the line runs.
        """
        with immediate(self._connection):
            rows = self._connection.execute(
                "SELECT id, head FROM rollout WHERE model = ? AND state IN ('running', 'halted')", (rollout.model,)
            )
            for number, head in rows.fetchall():
                before = _whole(self._connection, number, head)
                if before.state == "running":
                    msg = f"{before.release} is being rolled out on {rollout.model}: `hub rollout halt` it first"
                    raise UnusableError(msg)
                self.put(give_way(before, now_ms=rollout.started_at_ms), before=before)
            self._connection.execute(
                "INSERT INTO rollout (name, model, state, head) VALUES (?, ?, ?, ?)",
                (rollout.id, rollout.model, rollout.state, msgspec.json.encode(replace(rollout, members={}))),
            )
            self.put(rollout)

    def put(self, rollout: Rollout, *, before: Rollout | None = None) -> None:
        """Store how a rollout stands, and its new orders; `before` is what is stored: only what differs is written."""
        with immediate(self._connection):
            number = _number(self._connection, rollout.id)
            _put_head(self._connection, number, rollout)
            known = {} if before is None else before.members
            for place, member in rollout.members.items():
                if known.get(place) is not member:
                    _put_member(self._connection, number, rollout, member)

    def fleet(self) -> list[Heard]:
        """Return every device that was heard, as it is now, in order of site and device."""
        rows = self._connection.execute("SELECT site, device, online, state FROM device ORDER BY site, device")
        return [
            _heard(Place(site, device), bool(online), None if state is None else _state(state))
            for site, device, online, state in rows
        ]

    def taken(self, rollout: Rollout) -> set[Place]:
        """Return the devices that this rollout may not draw.

        They have an order of another line, of a newer rollout of this one, or one that was given after this rollout
        began and is not known here; or they are still on their way back from an older release of the line: beside
        what was stopped, nothing can be judged.
        """
        number = _number(self._connection, rollout.id)
        rows = self._connection.execute(
            "SELECT o.site, o.device FROM device_order o JOIN rollout r ON r.id = o.rollout_id"
            " WHERE r.model <> ? OR o.rollout_id > ?"
            " UNION SELECT site, device FROM foreign_order WHERE at_ms > ?",
            (rollout.model, number, rollout.started_at_ms),
        )
        return {Place(*row) for row in rows} | self._going_back(rollout.model, before=number)

    def _going_back(self, model: str, *, before: int) -> set[Place]:
        rows = self._connection.execute(
            "SELECT r.head, m.member FROM device_order o JOIN rollout r ON r.id = o.rollout_id"
            " JOIN rollout_member m USING (rollout_id, site, device)"
            " WHERE r.model = ? AND r.id < ? AND r.state IN ('stopped', 'rolled_back', 'replaced')",
            (model, before),
        )
        at = ((_head(head), _member(encoded)) for head, encoded in rows)
        return {member.place for head, member in at if standing(head, member) == "going_back"}

    def orders(self) -> list[OrderRow]:
        """Return what every device is to be sent; not to those with a newer order that is not known here."""
        rows = self._connection.execute(
            "SELECT o.site, o.device, o.payload FROM device_order o LEFT JOIN foreign_order f USING (site, device)"
            " WHERE f.at_ms IS NULL OR f.at_ms < o.at_ms ORDER BY 1, 2"
        )
        return [OrderRow(*row) for row in rows]

    def foreign(self) -> int:
        """Return how many devices have an order that is not known here, and newer than what is."""
        row = self._connection.execute(
            "SELECT count(*) FROM foreign_order f LEFT JOIN device_order o USING (site, device)"
            " WHERE o.at_ms IS NULL OR o.at_ms <= f.at_ms"
        ).fetchone()
        return int(row[0])

    def violations(self) -> Iterator[str]:
        """Yield one sentence for every law of the rollouts that does not hold."""
        yield from _violations(self._connection)


def hear_report(cursor: sqlite3.Cursor, report: RolloutReport, *, site: str, device: str) -> None:
    """Take a device's report in, inside the caller's transaction; what does not count changes nothing."""
    row = cursor.execute(
        "SELECT r.id, r.head, m.member FROM rollout r LEFT JOIN rollout_member m"
        " ON m.rollout_id = r.id AND m.site = ? AND m.device = ? WHERE r.name = ?",
        (site, device, report.rollout),
    ).fetchone()
    if row is None:
        return
    number, head, encoded = row
    if encoded is None:
        _turn_up(cursor, number, _heads.decode(head), report, place=Place(site, device))
        return
    before = _members.decode(encoded)
    after = told(_heads.decode(head), before, report)
    if after is not before:
        cursor.execute(
            "UPDATE rollout_member SET member = ? WHERE rollout_id = ? AND site = ? AND device = ?",
            (msgspec.json.encode(after), number, site, device),
        )


def _turn_up(cursor: sqlite3.Cursor, number: int, rollout: Rollout, report: RolloutReport, *, place: Place) -> None:
    """Take one in that is no member and serves the release: it had another name when it was ordered."""
    after = turned_up(rollout, place, report)
    if after is not rollout:
        _put_member(cursor.connection, number, after, after.members[place])


def hear_order(connection: sqlite3.Connection, order: Assignment, *, site: str, device: str, now_ms: int) -> None:
    """Take in what the broker keeps for a device, inside the caller's transaction (law 4)."""
    place = Place(site, device)
    own = connection.execute("SELECT payload FROM device_order WHERE site = ? AND device = ?", place).fetchone()
    mine = None if own is None else decode(own[0], Assignment)
    at_ms = min(order.at_ms, now_ms)  # a clock that ran ahead does not win for ever
    row = connection.execute("SELECT id, head FROM rollout WHERE name = ?", (order.rollout,)).fetchone()
    if mine is not None and (mine.at_ms >= at_ms or (_asks_alike(mine, order) and not _turned_up(mine, row))):
        return
    if row is not None:
        before = _whole(connection, *row)
        Rollouts(connection).put(adopt(before, place, replace(order, at_ms=at_ms)), before=before)
        return
    heard = connection.execute(
        "INSERT INTO foreign_order (site, device, payload, at_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET payload = excluded.payload, at_ms = excluded.at_ms"
        " WHERE payload <> excluded.payload AND at_ms < excluded.at_ms",
        (*place, encode(order), at_ms),
    )
    if heard.rowcount == 1:
        running = "SELECT id, head FROM rollout WHERE model = ? AND state = 'running'"
        for number, head in connection.execute(running, (order.model,)).fetchall():
            _put_head(connection, number, replace(_heads.decode(head), state="halted", reason=OLDER_COPY))


def _turned_up(mine: Assignment, row: tuple[int, bytes] | None) -> bool:
    """Whether an order was only guessed from a report, which may be heard before the order itself (law 4)."""
    return row is not None and mine.at_ms == _head(row[1]).started_at_ms


def _asks_alike(one: Assignment, other: Assignment) -> bool:
    return (one.rollout, one.action, one.number) == (other.rollout, other.action, other.number)


@lru_cache(maxsize=64)
def _head(encoded: bytes) -> Rollout:
    return _heads.decode(encoded)


@lru_cache(maxsize=_KEPT)
def _member(encoded: bytes) -> Member:
    return _members.decode(encoded)


@lru_cache(maxsize=_KEPT)
def _state(encoded: bytes) -> State:
    return _states.decode(encoded)


def _heard(place: Place, online: bool, state: State | None) -> Heard:  # noqa: FBT001 - as the row has it
    if state is None:
        return Heard(place, online, updates=False)
    return Heard(place, online, state.labels, state.updates)


def _number(connection: sqlite3.Connection, name: str) -> int:
    number: int = connection.execute("SELECT id FROM rollout WHERE name = ?", (name,)).fetchone()[0]
    return number


def _whole(connection: sqlite3.Connection, number: int, head: bytes) -> Rollout:
    rows = connection.execute("SELECT member FROM rollout_member WHERE rollout_id = ?", (number,))
    members = {member.place: member for member in (_member(row[0]) for row in rows)}
    return replace(_heads.decode(head), members=members)


def _put_head(connection: sqlite3.Connection, number: int, rollout: Rollout) -> None:
    connection.execute(
        "UPDATE rollout SET state = ?, head = ? WHERE id = ?",
        (rollout.state, msgspec.json.encode(replace(rollout, members={})), number),
    )


def _put_member(connection: sqlite3.Connection, number: int, rollout: Rollout, member: Member) -> None:
    connection.execute(
        "INSERT INTO rollout_member VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET at_ms = excluded.at_ms, member = excluded.member",
        (number, *member.place, member.ordered_at_ms, msgspec.json.encode(member)),
    )
    connection.execute(
        "INSERT INTO device_order VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET rollout_id = excluded.rollout_id, payload = excluded.payload, at_ms = excluded.at_ms"
        " WHERE rollout_id <= excluded.rollout_id",
        (*member.place, number, encode(assignment(rollout, member)), member.ordered_at_ms),
    )


def _violations(connection: sqlite3.Connection) -> Iterator[str]:
    whole: dict[int, Rollout] = {}
    for number, name, model, state, head in connection.execute("SELECT id, name, model, state, head FROM rollout"):
        try:
            whole[number] = _whole(connection, number, head)
        except msgspec.DecodeError as error:
            yield f"rollout {name} cannot be read: {error}"
            continue
        if (whole[number].id, whole[number].model, whole[number].state) != (name, model, state):
            yield f"rollout {name} is not what its columns say"
        yield from faults(whole[number])
    for number, site, device, at_ms, encoded in connection.execute("SELECT * FROM rollout_member"):
        member = _members.decode(encoded) if number in whole else None
        if member is not None and (*member.place, member.ordered_at_ms) != (site, device, at_ms):
            yield f"the row of {site}/{device} in rollout {whole[number].id} is not what its columns say"
    for model, count in connection.execute(
        "SELECT model, count(*) FROM rollout WHERE state IN ('running', 'halted') GROUP BY model HAVING count(*) > 1"
    ):
        yield f"{model} has {count} rollouts that may go on (law 3 of the rollouts)"
    yield from _order_violations(connection, whole)


def _order_violations(connection: sqlite3.Connection, whole: dict[int, Rollout]) -> Iterator[str]:
    newest = {
        (site, device): number
        for site, device, number in connection.execute(
            "SELECT site, device, max(rollout_id) FROM rollout_member GROUP BY site, device"
        )
    }
    for site, device, number, payload, at_ms in connection.execute("SELECT * FROM device_order"):
        place = Place(site, device)
        if newest.pop(place, None) != number:
            yield f"the order of {site}/{device} is not of the newest rollout that has ordered it"
            continue
        if number not in whole:
            continue
        try:
            order = decode(payload, Assignment)
        except UnusableError as error:
            yield f"the order of {site}/{device} cannot be read: {error}"
            continue
        if order != assignment(whole[number], whole[number].members[place]) or order.at_ms != at_ms:
            yield f"the order of {site}/{device} is not what rollout {whole[number].id} says"
    for site, device in newest:
        yield f"{site}/{device} is in a rollout and has no order"
