"""SQL of the ingest: what arrived becomes rows, many messages in one transaction.

Laws (numbers of the house):

2. `commit` returns only after the transaction is on disk; an outcome is what may be acknowledged.
3. An event id is committed at most once; what arrives again changes nothing and has the same outcome.
4. What is refused is counted, and the newest `REFUSED_KEPT` are kept with their reason.

Parts of frames that are not whole are bounded for every device and every event, whether or not the finding is known:
no device can fill the disk, and none can make the taking in of one message slower than that bound.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from edge.contract.errors import UntrustedError, WeakspotError
from edge.contract.status import Heartbeat, State
from hub.arrivals import (
    Arrival,
    ClearedContent,
    EventContent,
    FrameContent,
    HeartbeatContent,
    OrderContent,
    Outcome,
    RefusedContent,
    ReportContent,
    StateContent,
)
from hub.images import require_jpeg
from hub.store_check import STATED_COLUMNS, stated_columns
from hub.store_forgotten import hold_back
from hub.store_groups import reopen_group
from hub.store_recall import book
from hub.store_rollouts import hear_order, hear_report
from hub.store_rows import immediate

REFUSED_KEPT: Final = 10_000
HEAD_BYTES: Final = 4096
MAX_TOPIC_CHARS: Final = 200
MAX_PARTS: Final = 1024  # of one frame
MAX_WAITING_PARTS: Final = 4096  # of one device
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024  # of one device
MAX_OVERLAP: Final = 2  # the parts of a frame have at most so many times its bytes

_NOTHING: Final = Outcome()

# Many rows in one statement: every statement gives up the interpreter lock and has to get it back from the network's
# thread, and that waiting would cost more than the writing.
ROWS_A_STATEMENT: Final = 64
_FINDING_COLUMNS: Final = f"id, {STATED_COLUMNS}, header, received_at_ms, frame_state"
_FINDING_VALUES: Final = f"({', '.join('?' * (_FINDING_COLUMNS.count(',') + 1))})"


def _statement_sizes(rows: int) -> Iterator[int]:
    """Cut rows into powers of two, so that few statements are ever prepared."""
    while rows:
        size = min(ROWS_A_STATEMENT, 1 << (rows.bit_length() - 1))
        yield size
        rows -= size


@cache
def _insert_findings(rows: int) -> str:
    values = ", ".join([_FINDING_VALUES] * rows)
    return f"INSERT INTO finding ({_FINDING_COLUMNS}) VALUES {values} ON CONFLICT (event_id) DO NOTHING"


@cache
def _insert_frames(rows: int) -> str:
    return f"INSERT INTO frame (finding_id, jpeg) VALUES {', '.join(['(?, ?)'] * rows)}"


_KNOWN: Final = (
    "SELECT id, site, device, frame_state, frame_bytes, frame_sha256, width, height FROM finding WHERE event_id = ?"
)

_COUNT_PARTS: Final = "SELECT count(*), coalesce(sum(length(part)), 0) FROM frame_part"
_DELETE_PARTS: Final = "DELETE FROM frame_part WHERE event_id = ?"
_RETURNING: Final = "RETURNING site, device, length(part)"


class _Known(NamedTuple):
    id: int
    site: str
    device: str
    frame_state: str
    frame_bytes: int
    frame_sha256: bytes
    width: int
    height: int


@dataclass(slots=True)
class _Waiting:
    """Parts on the disk: how many, and their bytes."""

    parts: int = 0
    size_bytes: int = 0

    def add(self, size_bytes: int) -> None:
        self.parts += 1
        self.size_bytes += size_bytes


def commit(connection: sqlite3.Connection, arrivals: Sequence[Arrival], *, now_ms: int) -> list[Outcome]:
    """Store the messages in one transaction and return their outcomes, in order."""
    with immediate(connection):
        arrivals = hold_back(connection, arrivals, now_ms=now_ms)
        writer = _Writer(connection, now_ms)
        writer.insert_events([arrival.content for arrival in arrivals if isinstance(arrival.content, EventContent)])
        outcomes = [writer.write(arrival) for arrival in arrivals]
        writer.finish()
    return outcomes


class _Writer:
    """One transaction's worth of writing."""

    def __init__(self, connection: sqlite3.Connection, now_ms: int) -> None:
        self._cursor = connection.cursor()
        self._connection = connection
        self._now_ms = now_ms
        self._counts: Counter[str] = Counter()
        self._devices: set[tuple[str, str]] = set()
        self._new: set[int] = set()
        self._of_event: dict[str, _Waiting] = {}
        self._of_device: dict[tuple[str, str], _Waiting] = {}
        self._parts_wait = self._cursor.execute("SELECT EXISTS (SELECT 1 FROM frame_part)").fetchone() == (1,)

    def write(self, arrival: Arrival) -> Outcome:
        content = arrival.content
        match content:
            case EventContent():
                return self._event(arrival, content)
            case FrameContent():
                return self._frame(arrival, content)
            case HeartbeatContent():
                self._heartbeat(arrival, content.heartbeat)
            case StateContent():
                self._state(arrival, content.state)
            case ReportContent(report=report):
                hear_report(self._cursor, report, site=arrival.site, device=arrival.device)
            case OrderContent(order=order):
                hear_order(self._connection, order, site=arrival.site, device=arrival.device, now_ms=self._now_ms)
            case ClearedContent(event_id=event_id):
                return Outcome(finding=event_id, frame=event_id)
            case RefusedContent():
                return self._broken(arrival, content)
        return _NOTHING

    def finish(self) -> None:
        if self._counts:
            self._cursor.execute(
                "DELETE FROM refused_message WHERE id <= (SELECT max(id) FROM refused_message) - ?", (REFUSED_KEPT,)
            )
        self._cursor.executemany(
            "INSERT INTO counter (name, value) VALUES (?, ?)"
            " ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
            sorted(self._counts.items()),
        )
        self._cursor.executemany("INSERT OR IGNORE INTO device (site, device) VALUES (?, ?)", sorted(self._devices))

    def insert_events(self, contents: Sequence[EventContent]) -> None:
        """Insert the findings that are new, with their frames, and remember which they were."""
        start = 0
        for rows in _statement_sizes(len(contents)):
            self._insert(contents[start : start + rows])
            start += rows

    def _insert(self, contents: Sequence[EventContent]) -> None:
        first_id = 1 + self._cursor.execute("SELECT coalesce(max(id), 0) FROM finding").fetchone()[0]
        values: list[object] = []
        for finding_id, content in enumerate(contents, start=first_id):
            frame_state = "present" if content.jpeg else "held"
            values += (finding_id, *stated_columns(content.finding), content.header, self._now_ms, frame_state)
        self._cursor.execute(_insert_findings(len(contents)), values)
        new = list(enumerate(contents, start=first_id))
        if self._cursor.rowcount < len(contents):
            rows = self._cursor.execute("SELECT id FROM finding WHERE id >= ?", (first_id,))
            inserted = {finding_id for (finding_id,) in rows}
            new = [(finding_id, content) for finding_id, content in new if finding_id in inserted]
        frames: list[object] = []
        for finding_id, content in new:
            self._new.add(id(content))
            self._devices.add((content.finding.site, content.finding.device))
            if content.jpeg:
                frames += (finding_id, content.jpeg)
        start = 0
        for size in _statement_sizes(len(frames) // 2):
            self._cursor.execute(_insert_frames(size), frames[start : start + 2 * size])
            start += 2 * size

    def _event(self, arrival: Arrival, content: EventContent) -> Outcome:
        finding, jpeg = content.finding, content.jpeg
        event_id = finding.event_id
        if id(content) in self._new:
            frame_here = bool(jpeg)
            if frame_here and self._parts_wait:
                self._drop_parts(event_id)
        else:
            known = self._known(event_id)
            if known is None or (known.site, known.device) != (finding.site, finding.device):
                return self._refuse(arrival, event_id, "this event id belongs to another device")
            frame_here = known.frame_state == "present"
            if jpeg and not frame_here and known.frame_sha256.hex() == finding.frame_sha256:
                try:
                    self._require_announced(known, jpeg)
                except WeakspotError as error:
                    self._refuse(arrival, event_id, str(error))
                    return Outcome(finding=event_id)
                self._put_frame(known, event_id, jpeg)
                frame_here = True
        if frame_here:
            return Outcome(finding=event_id, frame=event_id)
        whole = self._assemble(arrival, event_id, self._known(event_id)) if self._parts_wait else _NOTHING
        return whole._replace(finding=event_id)

    def _frame(self, arrival: Arrival, content: FrameContent) -> Outcome:
        header = content.header
        event_id = header.event_id
        known = self._known(event_id)
        if known is not None and (known.site, known.device) != (arrival.site, arrival.device):
            return self._refuse(arrival, event_id, "this event id belongs to another device")
        if known is not None and known.frame_state == "present":
            return Outcome(frame=event_id)
        if header.gone is not None:
            self._lose_frame(event_id, "gone")
            return _NOTHING
        if known is not None and (known.frame_bytes, known.frame_sha256.hex()) != (header.size, header.sha256):
            return self._refuse_frame(arrival, event_id, "the frame is not the one that the finding announced")
        if not self._put_part(arrival, header.offset, content.part, event_id):
            reason = "too many parts of frames that are not whole"
            refuse = self._refuse if known is None else self._refuse_frame
            return refuse(arrival, event_id, reason)
        return self._assemble(arrival, event_id, known)

    def _put_part(self, arrival: Arrival, offset: int, part: bytes, event_id: str) -> bool:
        """Keep the part, or the longer one that is here already. False: the device has too many."""
        of_device, of_event = self._waiting_of_device(arrival), self._waiting_of_event(event_id)
        if of_device.parts >= MAX_WAITING_PARTS or of_device.size_bytes + len(part) > MAX_WAITING_BYTES:
            return False
        at = (event_id, offset)
        here = self._cursor.execute("SELECT length(part) FROM frame_part WHERE (event_id, offset) = (?, ?)", at)
        row = here.fetchone()
        if row is not None and row[0] >= len(part):
            return True
        if row is not None:
            self._forget(self._cursor.execute(f"{_DELETE_PARTS} AND offset = ? {_RETURNING}", at).fetchall(), event_id)
        self._cursor.execute(
            "INSERT INTO frame_part (event_id, offset, site, device, received_at_ms, part) VALUES (?, ?, ?, ?, ?, ?)",
            (*at, arrival.site, arrival.device, self._now_ms, part),
        )
        self._parts_wait = True
        of_device.add(len(part))
        of_event.add(len(part))
        return True

    def _assemble(self, arrival: Arrival, event_id: str, known: _Known | None) -> Outcome:
        """Make the frame when all of it is here: only then is it acknowledged."""
        waiting = self._waiting_of_event(event_id)
        if waiting.parts > MAX_PARTS:
            return self._refuse_frame(arrival, event_id, f"more than {MAX_PARTS} parts")
        if waiting.parts == 0 or known is None or waiting.size_bytes < known.frame_bytes:
            return _NOTHING
        frame = self._join_parts(event_id)
        if len(frame) < known.frame_bytes:
            if waiting.size_bytes > MAX_OVERLAP * known.frame_bytes:
                return self._refuse_frame(arrival, event_id, f"its parts are more than {MAX_OVERLAP} times the frame")
            return _NOTHING
        try:
            self._require_announced(known, frame)
        except WeakspotError as error:
            return self._refuse_frame(arrival, event_id, str(error))
        self._put_frame(known, event_id, frame)
        return Outcome(frame=event_id)

    def _require_announced(self, known: _Known, jpeg: bytes) -> None:
        if len(jpeg) != known.frame_bytes:
            msg = f"the JPEG has {len(jpeg)} bytes, the finding says {known.frame_bytes}"
            raise UntrustedError(msg)
        require_jpeg(jpeg, width=known.width, height=known.height, sha256=known.frame_sha256)

    def _join_parts(self, event_id: str) -> bytes:
        """Return the frame up to its first hole; parts may overlap when a device has changed their size."""
        jpeg = bytearray()
        for offset, part in self._cursor.execute(
            "SELECT offset, part FROM frame_part WHERE event_id = ? ORDER BY offset", (event_id,)
        ):
            if offset > len(jpeg):
                break
            jpeg += part[len(jpeg) - offset :]
        return bytes(jpeg)

    def _put_frame(self, known: _Known, event_id: str, jpeg: bytes) -> None:
        self._cursor.execute("INSERT INTO frame VALUES (?, ?)", (known.id, jpeg))
        self._cursor.execute("UPDATE finding SET frame_state = 'present', want_open = 0 WHERE id = ?", (known.id,))
        self._drop_parts(event_id)

    def _drop_parts(self, event_id: str) -> None:
        self._forget(self._cursor.execute(f"{_DELETE_PARTS} {_RETURNING}", (event_id,)).fetchall(), event_id)

    def _forget(self, deleted: Sequence[tuple[str, str, int]], event_id: str) -> None:
        for site, device, size_bytes in deleted:
            for waiting in (self._of_device.get((site, device)), self._of_event.get(event_id)):
                if waiting is not None:
                    waiting.parts -= 1
                    waiting.size_bytes -= size_bytes

    def _lose_frame(self, event_id: str, state: str) -> None:
        self._cursor.execute(
            "UPDATE finding SET frame_state = ?, want_open = 0"
            " WHERE event_id = ? AND frame_state IN ('held', 'wanted')",
            (state, event_id),
        )
        if self._cursor.rowcount == 1:
            reopen_group(self._connection, event_id)

    def _refuse_frame(self, arrival: Arrival, event_id: str, reason: str) -> Outcome:
        self._drop_parts(event_id)
        self._lose_frame(event_id, "refused")
        return self._refuse(arrival, event_id, reason)

    # Counted once in a transaction, which no other process writes in, and kept up to date from there.

    def _waiting_of_device(self, arrival: Arrival) -> _Waiting:
        device = (arrival.site, arrival.device)
        if device not in self._of_device:
            row = self._cursor.execute(f"{_COUNT_PARTS} WHERE site = ? AND device = ?", device).fetchone()
            self._of_device[device] = _Waiting(*row)
        return self._of_device[device]

    def _waiting_of_event(self, event_id: str) -> _Waiting:
        if event_id not in self._of_event:
            row = self._cursor.execute(f"{_COUNT_PARTS} WHERE event_id = ?", (event_id,)).fetchone()
            self._of_event[event_id] = _Waiting(*row)
        return self._of_event[event_id]

    def _heartbeat(self, arrival: Arrival, heartbeat: Heartbeat) -> None:
        self._cursor.execute(
            "INSERT INTO device (site, device, boot_id, heartbeat, heartbeat_at_ms) VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET heartbeat = excluded.heartbeat, heartbeat_at_ms = excluded.heartbeat_at_ms,"
            " boot_id = coalesce(boot_id, excluded.boot_id)",
            (arrival.site, arrival.device, heartbeat.boot_id, arrival.payload, self._now_ms),
        )
        book(self._cursor, heartbeat, site=arrival.site, device=arrival.device, now_ms=self._now_ms)

    def _state(self, arrival: Arrival, state: State) -> None:
        """Store it, unless it is the last will of a session that a newer one has replaced."""
        place = (arrival.site, arrival.device)
        row = self._cursor.execute("SELECT boot_id, online FROM device WHERE site = ? AND device = ?", place).fetchone()
        boot_id, online = row if row is not None else (None, 0)
        if not state.online and boot_id not in {None, state.boot_id}:
            return
        self._cursor.execute(
            "INSERT INTO device (site, device, boot_id, online, state, state_at_ms) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET boot_id = excluded.boot_id, online = excluded.online, state = excluded.state,"
            " state_at_ms = excluded.state_at_ms",
            (arrival.site, arrival.device, state.boot_id, state.online, arrival.payload, state.at_ms),
        )
        if state.online and (boot_id != state.boot_id or not online):
            self._cursor.execute(
                "UPDATE finding SET asked_at_ms = 0 WHERE site = ? AND device = ? AND frame_state = 'wanted'",
                (arrival.site, arrival.device),
            )

    def _broken(self, arrival: Arrival, content: RefusedContent) -> Outcome:
        """Refuse it; but what is here already stays acknowledged, whatever a broken copy of it says."""
        event_id = content.event_id
        outcome = self._refuse(arrival, event_id, content.reason)
        known = self._known(event_id) if event_id is not None else None
        if event_id is None or known is None or (known.site, known.device) != (arrival.site, arrival.device):
            return outcome
        if known.frame_state == "present":
            return Outcome(finding=event_id, frame=event_id)
        if arrival.topic.endswith("/event"):
            return Outcome(finding=event_id)
        self._lose_frame(event_id, "refused")
        return outcome

    def _refuse(self, arrival: Arrival, event_id: str | None, reason: str) -> Outcome:
        self._counts[f"refused.{arrival.topic.rpartition('/')[2]}"] += 1
        place = (arrival.topic[:MAX_TOPIC_CHARS], arrival.site, arrival.device)
        head = arrival.payload[:HEAD_BYTES]
        self._cursor.execute(
            "INSERT INTO refused_message (topic, site, device, reason, received_at_ms, bytes, head)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (*place, reason, self._now_ms, len(arrival.payload), head),
        )
        return _NOTHING if event_id is None else Outcome(refused=(event_id, reason))

    def _known(self, event_id: str) -> _Known | None:
        row = self._cursor.execute(_KNOWN, (event_id,)).fetchone()
        return None if row is None else _Known(*row)
