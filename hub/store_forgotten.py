"""What was forgotten stays forgotten: what a device still holds of it is acknowledged when it comes, and not stored.

A row of `forgotten` is a scope: a site, a device of it, or everything (an empty name), and what was captured before a
time, by the device's clock, or had come before it, whatever that clock said. `whole`: no time was given, so the
device's own row, policies and counts went as well. `erased_at_ms` is set when the bytes, too, have left the file; until
then the forgetting is unfinished.

Laws:

1. From the transaction that writes the row, nothing of its scope is stored any more: not what was captured before, not
   what a device said of itself before, and no part of a frame whose finding is not here.
2. What is held back is acknowledged as if it were stored: the device drops it.
3. While nothing was ever forgotten, this costs one look at an empty table a transaction.

A frame's part does not say when it was captured. So a part of a forgotten device that is here before its own finding,
which several hub processes and `upload = "all"` can bring about, is dropped as well; the finding stays without a frame.
A sample that is sent again and bears a time still to come, of a device whose clock is wrong, passes for a new one.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, NamedTuple

from edge.contract.status import Heartbeat
from hub.arrivals import (
    Arrival,
    ClearedContent,
    Content,
    EventContent,
    FrameContent,
    HeartbeatContent,
    OrderContent,
    ReportContent,
    StateContent,
)
from hub.recall import HOUR_MS
from hub.store_recall import mark_only

_ORDERS: Final = ("rollout_member", "device_order", "foreign_order")


class Scope(NamedTuple):
    """What is forgotten: an empty `device` is every device of the site, an empty `site` everything.

    `before_ms`: what was captured before, UTC. `whole`: it was not asked for a time; then it is that of the asking.
    """

    site: str
    device: str
    before_ms: int
    whole: bool

    def covers(self, site: str, device: str) -> bool:
        """Whether the device is meant."""
        return self.site in {"", site} and self.device in {"", device}

    def contains(self, other: "Scope") -> bool:
        """Whether all that is of the other is of this one."""
        earlier = other.before_ms <= self.before_ms and (self.whole or not other.whole)
        return earlier and self.site in {"", other.site} and self.device in {"", other.device}

    def __str__(self) -> str:
        """Return it as a person would name it, with the time as `hub forget --before` takes it."""
        before = "" if self.whole else f" before {datetime.fromtimestamp(self.before_ms / 1000, UTC).isoformat()}"
        return f"{self.place}{before}"

    @property
    def place(self) -> str:
        """The name of the device or the site."""
        return f"{self.site}/{self.device}" if self.device else self.site or "everything"


class Forgetting(NamedTuple):
    """One row. `erased_at_ms` is None while it is unfinished."""

    id: int
    scope: Scope
    at_ms: int
    erased_at_ms: int | None


def forgettings(connection: sqlite3.Connection) -> list[Forgetting]:
    """Return every row, oldest first."""
    rows = connection.execute("SELECT id, site, device, before_ms, whole, at_ms, erased_at_ms FROM forgotten")
    return [Forgetting(r[0], Scope(r[1], r[2], r[3], bool(r[4])), r[5], r[6]) for r in rows]


def counts(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many forgettings were begun, and how many of them finished."""
    row = connection.execute("SELECT count(*), count(erased_at_ms) FROM forgotten").fetchone()
    return row[0], row[1]


def hold_back(connection: sqlite3.Connection, arrivals: Sequence[Arrival], *, now_ms: int) -> Sequence[Arrival]:
    """Return the messages, those that were forgotten without their content. Inside the caller's transaction."""
    scopes = [one.scope for one in forgettings(connection)]
    if not scopes:
        return arrivals
    return [replace(one, content=_content(connection, one, scopes, now_ms)) for one in arrivals]


def _content(connection: sqlite3.Connection, arrival: Arrival, scopes: Sequence[Scope], now_ms: int) -> Content:
    content = arrival.content
    meant = [scope for scope in scopes if scope.covers(arrival.site, arrival.device)]
    before_ms = max((scope.before_ms for scope in meant), default=0)
    silent_ms = max((scope.before_ms for scope in meant if scope.whole), default=0)
    match content:
        case EventContent(finding=finding) if finding.captured_at_ms < before_ms:
            return ClearedContent(finding.event_id)
        case FrameContent(header=header) if meant and not _is_known(connection, header.event_id):
            return ClearedContent(header.event_id)
        case StateContent(said) | HeartbeatContent(said) | OrderContent(said) | ReportContent(said) if (
            said.at_ms < silent_ms
        ):
            return ClearedContent()
        case HeartbeatContent(heartbeat=heartbeat) if meant:
            _start_counting(connection, arrival, heartbeat, before_ms=before_ms, now_ms=now_ms)
    return content


def _is_known(connection: sqlite3.Connection, event_id: str) -> bool:
    return connection.execute("SELECT 1 FROM finding WHERE event_id = ?", (event_id,)).fetchone() is not None


def _start_counting(
    connection: sqlite3.Connection, arrival: Arrival, heartbeat: Heartbeat, *, before_ms: int, now_ms: int
) -> None:
    """Counts add up from the start of a boot: of one that was running when it was forgotten, count on from here."""
    if min(heartbeat.at_ms, now_ms) - heartbeat.uptime_s * 1000 < before_ms:
        mark_only(connection, heartbeat, site=arrival.site, device=arrival.device, now_ms=now_ms)


def traces(connection: sqlite3.Connection) -> Iterator[str]:
    """Yield one sentence for every row of any table that a forgetting should have removed, and for unfinished ones."""
    for one in forgettings(connection):
        if one.erased_at_ms is None:
            yield f"forgetting {one.scope} was not finished, its bytes may still be in the file: `hub forget` it again"
        for table, condition, values in conditions(one.scope):
            count = connection.execute(f"SELECT count(*) FROM {table} WHERE {condition}", values).fetchone()[0]
            if count:
                yield f"{one.scope} was forgotten, and {count} rows of {table} are of it"


def conditions(scope: Scope) -> list[tuple[str, str, tuple[object, ...]]]:
    """Return of every table what of the scope must not be in it: the table, an SQL condition, its values."""
    place, names = place_of(scope)
    time = scope.before_ms
    found = [
        finding_condition(scope),
        ("sighting", f"{place} AND captured_at_ms < ?", (*names, time)),
        ("frame_part", f"{place} AND received_at_ms < ?", (*names, time)),
        ("refused_message", f"{_refused(scope)} AND received_at_ms < ?", (*_refused_values(scope), time)),
        ("recall_hour", f"{place} AND hour_ms <= ?", (*names, time - HOUR_MS)),
        ("recall_mark", f"{place} AND heard_at_ms < ?", (*names, time)),
    ]
    if scope.whole:
        found += [
            ("device", f"{place} AND coalesce(heartbeat_at_ms, state_at_ms) < ?", (*names, time)),
            ("policy", f"{place} AND set_at_ms < ?", (*names, time)),
            *((table, f"{place} AND at_ms < ?", (*names, time)) for table in _ORDERS),
            ("weak_spot", "instr(tags, ?) AND opened_at_ms < ?", (f"camera:{scope.place}/", time)),
        ]
    return found


def finding_condition(scope: Scope) -> tuple[str, str, tuple[object, ...]]:
    """Return what findings must not be here: a device's clock may run ahead, but what had come was captured."""
    place, names = place_of(scope)
    if scope.whole:
        return "finding", f"{place} AND captured_at_ms < ?", (*names, scope.before_ms)
    times = (scope.before_ms, scope.before_ms)
    return "finding", f"{place} AND (captured_at_ms < ? OR received_at_ms < ?)", (*names, *times)


def place_of(scope: Scope) -> tuple[str, tuple[str, ...]]:
    """Return the SQL condition over `site` and `device`, and its values."""
    if scope.device:
        return "site = ? AND device = ?", (scope.site, scope.device)
    return ("site = ?", (scope.site,)) if scope.site else ("1", ())


def _refused(scope: Scope) -> str:
    """A refused message may name the place in its topic or its head; what it is of, nobody could read."""
    place, _ = place_of(scope)
    names = [name for name in (scope.site, scope.device) if name]
    if not names:
        return place
    inside = " AND ".join(["(instr(topic, ?) OR instr(head, CAST(? AS BLOB)))"] * len(names))
    return f"({place} OR {inside})"


def _refused_values(scope: Scope) -> tuple[str, ...]:
    _, names = place_of(scope)
    return (*names, *(name for name in names for _ in range(2)))
