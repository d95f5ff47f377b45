"""SQL of `hub forget`: every trace of a scope leaves the tables, and then its bytes leave the file.

Laws:

1. The row of `forgotten` is written first; from then on nothing of the scope comes in (hub.store_forgotten).
2. One piece is one short transaction and leaves every law of the database standing: a group that loses its leader gets
   another, one that loses all its members goes, a frozen batch counts the images that it lost.
3. The row says erased only after the file was written anew without free pages and the journal is empty. Until then
   `hub check` names it, and forgetting the same again goes on where it was stopped.

Weak spots keep their numbers; the names of forgotten places leave their texts.
"""

import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from edge.contract.errors import UnusableError
from hub.store_forgotten import Scope, conditions, finding_condition, forgettings, place_of
from hub.store_groups import reopen_group
from hub.store_rows import immediate
from hub.store_sightings import note_sightings

PIECE: Final = 100
FORGOTTEN: Final = "forgotten"
_EMPTY_JOURNAL_S: Final = 60.0
_PAUSE_S: Final = 0.05
_IDS: Final = "(SELECT value FROM json_each(?))"
_CAMERA_TABLES: Final = ("finding", "recall_hour", "recall_mark")
_PLACES: Final = re.compile(r"(?:^|(?<=, ))(?:cameras?|site) ")
_WORD: Final = re.compile(r"[^\s,]+")


def count(connection: sqlite3.Connection, scope: Scope) -> dict[str, int]:
    """Return how many rows of each table would go, and how many images of batches and bytes of frames."""
    found = {}
    for table, condition, values in _going(scope):
        found[table] = connection.execute(f"SELECT count(*) FROM {table} WHERE {condition}", values).fetchone()[0]
    place, names = findings_of(scope)
    of = f"FROM finding WHERE {place}"
    row = connection.execute(
        f"SELECT (SELECT count(*) FROM batch_member WHERE event_id IN (SELECT event_id {of})),"
        f" (SELECT coalesce(sum(frame_bytes), 0) {of} AND frame_state = 'present')",
        (*names, *names),
    ).fetchone()
    return {**found, "batch_member": row[0], "frame_bytes": row[1]}


def begin(connection: sqlite3.Connection, scope: Scope, *, now_ms: int) -> int:
    """Write the row, or take up an unfinished one of the same scope; return its number."""
    with immediate(connection):
        for one in forgettings(connection):
            same = one.scope._replace(before_ms=0) == scope._replace(before_ms=0)
            if one.erased_at_ms is None and same and (scope.whole or one.scope.before_ms == scope.before_ms):
                connection.execute("UPDATE forgotten SET before_ms = ? WHERE id = ?", (scope.before_ms, one.id))
                return one.id
        made = connection.execute(
            "INSERT INTO forgotten (site, device, before_ms, whole, at_ms) VALUES (?, ?, ?, ?, ?) RETURNING id",
            (*scope, now_ms),
        ).fetchone()
    number: int = made[0]
    return number


def remove(connection: sqlite3.Connection, scope: Scope) -> Iterator[tuple[int, int]]:
    """Delete the rows; yield after each piece how many findings are gone, of how many."""
    place, values = findings_of(scope)
    numbers = [row[0] for row in connection.execute(f"SELECT id FROM finding WHERE {place}", values)]
    # Without an index over every reference, SQLite would read all sightings for each group: `hub check` follows them.
    connection.execute("PRAGMA foreign_keys = OFF")
    connection.execute("PRAGMA secure_delete = ON")
    try:
        with immediate(connection):  # first: who made what cannot be asked of rows that are gone
            words = _words(connection, scope)
            _rename(connection, scope, words)
        for start in range(0, len(numbers), PIECE):
            piece = numbers[start : start + PIECE]
            with immediate(connection):
                _remove_findings(connection, piece)
            yield start + len(piece), len(numbers)
        with immediate(connection):
            for table, condition, of in _going(scope):
                if table != "finding":
                    connection.execute(f"DELETE FROM {table} WHERE {condition}", of)
            _rename(connection, scope, words)  # `hub serve` may have named weak spots meanwhile
    finally:
        connection.execute("PRAGMA foreign_keys = ON")
    yield len(numbers), len(numbers)


def erase(connection: sqlite3.Connection, number: int) -> None:
    """Write the file anew, empty the journal and note that nothing is left of this scope, nor of any within it.

    Nothing can be stored meanwhile. It takes free space of twice the file. Raises `UnusableError` when other processes
    keep the journal in use, `sqlite3.Error` when there is no space; the forgetting is unfinished then.
    """
    connection.execute("VACUUM")
    deadline_s = time.monotonic() + _EMPTY_JOURNAL_S
    while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
        if time.monotonic() > deadline_s:
            msg = "another process is reading the database: the rows are gone, their bytes are not; forget again later"
            raise UnusableError(msg)
        time.sleep(_PAUSE_S)
    now_ms = time.time_ns() // 1_000_000
    with immediate(connection):
        known = forgettings(connection)
        scope = next(one.scope for one in known if one.id == number)
        done = [one.id for one in known if one.erased_at_ms is None and scope.contains(one.scope)]
        connection.executemany("UPDATE forgotten SET erased_at_ms = ? WHERE id = ?", [(now_ms, one) for one in done])


def findings_of(scope: Scope) -> tuple[str, tuple[object, ...]]:
    """Return which findings go, as an SQL condition and its values."""
    return place_of(scope) if scope.whole else finding_condition(scope)[1:]


def _going(scope: Scope) -> list[tuple[str, str, tuple[object, ...]]]:
    """Return what goes: of a whole scope also what claims to be from the future, a device's clock may be wrong."""
    place, names = place_of(scope)
    found = []
    for table, condition, values in conditions(scope):
        if table == "weak_spot":
            continue
        if table == "recall_hour" and not scope.whole:
            found.append((table, f"{place} AND hour_ms < ?", (*names, scope.before_ms)))
        elif scope.whole and table != "refused_message":
            found.append((table, place, names))
        else:
            found.append((table, condition, values))
    return found


def _remove_findings(connection: sqlite3.Connection, numbers: Sequence[int]) -> None:
    ids = (msgspec.json.encode(numbers).decode(),)
    rows = connection.execute(f"SELECT event_id, group_id FROM finding WHERE id IN {_IDS}", ids).fetchall()
    events = (msgspec.json.encode([event_id for event_id, _ in rows]).decode(),)
    groups = (msgspec.json.encode(sorted({group for _, group in rows if group is not None})).decode(),)
    lost = connection.execute(
        f"DELETE FROM batch_member WHERE event_id IN {_IDS} RETURNING batch_id", events
    ).fetchall()
    for (batch_id,) in lost:
        connection.execute("UPDATE batch SET forgotten = forgotten + 1 WHERE id = ?", (batch_id,))
    pots = connection.execute(f"DELETE FROM honeypot WHERE event_id IN {_IDS} RETURNING batch_id", events).fetchall()
    for (batch_id,) in pots:
        connection.execute("UPDATE batch SET forgotten_honeypots = forgotten_honeypots + 1 WHERE id = ?", (batch_id,))
    _remove_labels(connection, events)
    for table in ("recheck", "opinion"):
        connection.execute(f"DELETE FROM {table} WHERE event_id IN {_IDS}", events)
    connection.execute(f"DELETE FROM sighting WHERE finding_id IN {_IDS}", ids)
    connection.execute(f"DELETE FROM frame WHERE finding_id IN {_IDS}", ids)
    connection.execute(f"DELETE FROM frame_part WHERE event_id IN {_IDS}", events)
    connection.execute(f"DELETE FROM finding WHERE id IN {_IDS}", ids)
    _mend_groups(connection, groups)


def _remove_labels(connection: sqlite3.Connection, events: tuple[str]) -> None:
    """Delete what was drawn. The file that it came from may be called after the image; an empty set says who drew."""
    rows = connection.execute(f"DELETE FROM label_image WHERE event_id IN {_IDS} RETURNING set_id", events).fetchall()
    sets = (msgspec.json.encode(sorted({number for (number,) in rows})).decode(),)
    connection.execute(
        f"UPDATE label_set SET source = substr(source, 1, instr(source || ':', ':') - 1) WHERE id IN {_IDS}", sets
    )
    connection.execute(f"DELETE FROM label_set WHERE id IN {_IDS} AND id NOT IN (SELECT set_id FROM label_image)", sets)


def _mend_groups(connection: sqlite3.Connection, groups: tuple[str]) -> None:
    """Give groups that lost members another leader, their size and times, a sighting and a want; drop empty ones."""
    connection.execute(
        f"DELETE FROM near_duplicate_group WHERE id IN {_IDS}"
        " AND NOT EXISTS (SELECT 1 FROM finding f WHERE f.group_id = near_duplicate_group.id)",
        groups,
    )
    connection.execute(
        "UPDATE near_duplicate_group SET size = m.size, first_at_ms = m.first, last_at_ms = m.last FROM"
        " (SELECT group_id, count(*) AS size, min(captured_at_ms) AS first, max(captured_at_ms) AS last FROM finding"
        f" WHERE group_id IN {_IDS} GROUP BY group_id) m WHERE m.group_id = near_duplicate_group.id",
        groups,
    )
    connection.execute(
        "UPDATE near_duplicate_group SET leader_event_id = f.event_id, site = f.site, camera = f.camera,"
        f" label = f.label FROM finding f WHERE near_duplicate_group.id IN {_IDS}"
        " AND f.id = (SELECT min(o.id) FROM finding o WHERE o.group_id = near_duplicate_group.id)"
        " AND NOT EXISTS (SELECT 1 FROM finding l WHERE l.event_id = near_duplicate_group.leader_event_id)",
        groups,
    )
    connection.execute(  # what the group was also known by may be of a member that went
        "UPDATE near_duplicate_group SET track = f.track, track_at_ms = f.captured_at_ms, looks = x'' FROM finding f"
        f" WHERE f.event_id = near_duplicate_group.leader_event_id AND near_duplicate_group.id IN {_IDS}",
        groups,
    )
    missed = connection.execute(
        "SELECT event_id FROM finding WHERE id IN (SELECT min(id) FROM finding"
        f" WHERE group_id IN {_IDS} AND reason = 'missed' GROUP BY group_id)",
        groups,
    ).fetchall()
    note_sightings(connection, [event_id for (event_id,) in missed])
    leaders = connection.execute(f"SELECT leader_event_id FROM near_duplicate_group WHERE id IN {_IDS}", groups)
    for (event_id,) in leaders.fetchall():
        reopen_group(connection, event_id)


def _words(connection: sqlite3.Connection, scope: Scope) -> frozenset[str]:
    """Return every way in which texts name the places of a scope: sites, devices, cameras, and their paths."""
    place, names = place_of(scope)
    cameras = set()
    for table in _CAMERA_TABLES:
        cameras |= set(connection.execute(f"SELECT DISTINCT site, device, camera FROM {table} WHERE {place}", names))
    words = {f"{site}/{device}/{camera}" for site, device, camera in cameras}
    words |= {f"{device}/{camera}" for _, device, camera in cameras} | {camera for *_, camera in cameras}
    devices = set(connection.execute(f"SELECT site, device FROM device WHERE {place}", names))
    words |= {f"{site}/{device}" for site, device in devices}
    return frozenset(words | ({site for site, *_ in cameras} if not scope.device else set()))


def without_names(text: str, words: frozenset[str], *, mark: str = f"({FORGOTTEN})") -> str:
    """Return the name of a weak spot or the title of a batch without these places: "tiny, camera (forgotten)"."""
    found = _PLACES.search(text)
    if found is None:
        return text
    places = _WORD.sub(lambda word: mark if word[0] in words else word[0], text[found.end() :])
    return text[: found.end()] + places


def _rename(connection: sqlite3.Connection, scope: Scope, words: frozenset[str]) -> None:
    if not scope.whole:
        return
    for number, name, tags in connection.execute("SELECT id, name, tags FROM weak_spot").fetchall():
        other = f"{FORGOTTEN}-{number}"  # its own: no two weak spots have the same tags

        def replace(word: re.Match[str], other: str = other) -> str:
            kind, colon, place = word[0].partition(":")
            return f"{kind}{colon}{other}" if colon and _is_of(scope, place) else word[0]

        new = (without_names(_WORD.sub(replace, name), words), _WORD.sub(replace, tags))
        if new != (name, tags):
            connection.execute("UPDATE weak_spot SET name = ?, tags = ? WHERE id = ?", (*new, number))
    for number, note in connection.execute("SELECT id, note FROM weak_spot_step WHERE note <> ''").fetchall():
        told = _WORD.sub(lambda word: f"({FORGOTTEN})" if word[0] in words else word[0], note)
        connection.execute("UPDATE weak_spot_step SET note = ? WHERE id = ?", (told, number))
    for number, title in connection.execute("SELECT id, title FROM batch").fetchall():
        connection.execute("UPDATE batch SET title = ? WHERE id = ?", (without_names(title, words), number))


def _is_of(scope: Scope, place: str) -> bool:
    """Whether the value of a `site:` or `camera:` tag is of the scope."""
    if not scope.device:
        return place == scope.site or place.startswith(f"{scope.site}/")
    return place == scope.place or place.startswith(f"{scope.place}/")
