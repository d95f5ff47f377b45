"""The durable queue of samples on the device: findings the hub has not acknowledged, frames that wait to be asked for.

Laws:

1. A row implies a frame of that size and hash. It holds by construction: `put` checks the JPEG against its finding, and
   the two go into one SQLite database in one transaction (WAL, `synchronous=FULL`): after a crash both are there or
   neither is. Frames in files of their own would need an order of fsyncs and a sweep at every start.
2. A sample leaves by `ack_frames`, by `refuse` or by being dropped, never because it was sent.
3. An event id stands in the spool at most once, however often it is put.
4. What is dropped is counted by reason, in the transaction that drops it. What `count` adds reaches the disk with the
   next transaction or with `flush`.
5. The samples never take more than the limit, and the limit shrinks to what the disk has left.
6. Nothing the hub has asked for and nothing on its way is evicted; what the hub knows leaves before what it does not.
7. What is too old leaves all the same, whatever its state, and no byte of it stays in the files. See edge.spool_age.

A sample is `NEW` (its finding is not acknowledged), `HELD` (acknowledged; the frame waits) or `WANTED` (the hub asked
for the frame). What is worth most is sent first and what is worth least is evicted first; one unit of severity is worth
`SEVERITY_WORTH` later arrivals.

Threads: one connection under one lock, shared by the thread that puts and the thread that publishes. SQLite has one
writer anyway, and no read here is longer than one frame. `count` never waits for the disk. There is no clock here:
`now_s` is the caller's monotonic time.
"""

import hashlib
import logging
import math
import random
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, TypeVar

from edge.contract.errors import UnusableError, WeakspotError
from edge.contract.samples import MAX_JPEG_BYTES, Finding, encode_event
from edge.contract.status import SpoolHealth
from edge.leases import Leases
from edge.reserve import Reserve
from edge.spool_age import older_than, pass_time
from edge.spool_file import PAGE_BYTES, add, is_corrupt, is_disk_trouble, open_database, replace_corrupt, shrink, wipe

SEVERITY_WORTH: Final = 1000
_EXPIRED_AT_ONCE: Final = 64
_SHRINKS: Final = 3

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class SpoolError(WeakspotError):
    """The disk of the spool takes no more writes, not even after the reserve was given up."""


class SampleState(IntEnum):
    """Where a sample stands, in the order in which samples are evicted."""

    HELD = 0
    NEW = 1
    WANTED = 2


@dataclass(frozen=True, slots=True)
class Leased:
    """A sample that is due to be sent. `event` is the payload of its `event` message without the JPEG."""

    event_id: str
    event: bytes
    frame_bytes: int
    frame_sha256: str
    attempts: int


class Spool:
    """The spool of one device. Owns the database, its reserve and the leases.

    Args:
        path: the database; its folder is made. `UnusableError` when a newer version made it or it cannot be opened.
        limit_bytes: the most that samples may take, in whole pages of the database.
        reserve_bytes: disk space set aside for clearing a full disk; as much again is left free.
        rng: jitter of the retries.
    """

    def __init__(
        self, path: Path, *, limit_bytes: int, reserve_bytes: int = 16_000_000, rng: random.Random | None = None
    ) -> None:
        self.limit_bytes = limit_bytes
        self._path = path
        self._lock = threading.Lock()
        self._leases = Leases(rng or random.Random())  # noqa: S311 - jitter
        self._pending: Counter[str] = Counter()
        self._pending_lock = threading.Lock()
        self._cramped = False
        self._passed_s: float | None = None
        path.parent.mkdir(parents=True, exist_ok=True)
        self._reserve = Reserve(path.with_name(f"{path.name}.reserve"), reserve_bytes)
        self._db = self._open()
        self._used: int = self._db.execute("SELECT coalesce(sum(cost), 0) FROM sample").fetchone()[0]
        self._reserve.hold()

    def close(self) -> None:
        """Write the pending counts and the mark of a clean end. A spool that was not closed is checked at open."""
        with self._lock:
            try:
                self._commit(lambda db: db.execute("INSERT OR REPLACE INTO note VALUES ('clean', 1)"))
            except sqlite3.DatabaseError as error:
                _log.warning("the spool was not closed cleanly: %s", error)
            self._db.close()

    def put(self, finding: Finding, jpeg: bytes) -> bool:
        """Store a sample: True, and it survives a power cut; False, and it was dropped and counted.

        Raises `ValueError` when the JPEG is not the one the finding describes.
        """
        if len(jpeg) != finding.frame_bytes or hashlib.sha256(jpeg).hexdigest() != finding.frame_sha256:
            msg = f"the JPEG of {len(jpeg)} bytes is not the frame of {finding.frame_bytes} bytes of its finding"
            raise ValueError(msg)
        try:
            event = encode_event(finding)
            if len(jpeg) <= MAX_JPEG_BYTES:
                cost = (-(-(len(event) + len(jpeg)) // PAGE_BYTES) + 1) * PAGE_BYTES
                return self._run(lambda db: self._put(db, finding=finding, event=event, jpeg=jpeg, cost=cost))
            self.count("oversize")
        except UnusableError as error:
            _log.warning("finding %s is dropped: %s", finding.event_id, error)
            self.count("oversize")
        except SpoolError as error:
            _log.debug("finding %s is dropped: %s", finding.event_id, error)
            self.count("disk_full")
        return False

    def lease(self, state: SampleState, *, now_s: float, limit: int) -> list[Leased]:
        """Return up to `limit` samples of one state that are due, the worthiest first; they are now on their way."""

        def work(db: sqlite3.Connection) -> list[Leased]:
            leased: list[Leased] = []
            order = "SELECT seq, event_id FROM sample WHERE state = ? ORDER BY rank DESC, seq DESC"
            find = "SELECT event, frame_bytes, frame_sha256 FROM body WHERE seq = ?"
            for seq, event_id in db.execute(order, (state,)):
                if len(leased) >= limit:
                    break
                if self._leases.is_due(event_id, now_s=now_s):
                    event, size, sha256 = db.execute(find, (seq,)).fetchone()
                    leased.append(Leased(event_id, event, size, sha256, self._leases.attempts(event_id)))
            for sample in leased:
                self._leases.take(sample.event_id)
            return leased

        return self._read(work)

    def retry(self, event_id: str, *, now_s: float) -> None:
        """End a lease without an ack: the sample is due again later, each time later than before, with jitter."""
        with self._lock:
            self._leases.retry(event_id, now_s=now_s)

    def release_all(self) -> None:
        """End every lease: after a reconnect all that is unacknowledged is due at once."""
        with self._lock:
            self._leases.clear()

    def frame(self, event_id: str) -> bytes | None:
        """Return the JPEG of a sample, None when it is not here."""
        find = "SELECT jpeg FROM sample JOIN body USING (seq) WHERE event_id = ?"
        row = self._read(lambda db: db.execute(find, (event_id,)).fetchone())
        return None if row is None else bytes(row[0])

    def ack_findings(self, event_ids: Iterable[str]) -> list[str]:
        """The hub has committed these findings; their frames are held. Returns those that were new here."""
        ids = list(event_ids)
        return self._run(lambda db: self._move(db, ids, was=(SampleState.NEW,), becomes=SampleState.HELD))

    def want(self, event_ids: Iterable[str]) -> list[str]:
        """The hub asks for these frames, and so has their findings. Returns the ids that are not here."""
        ids = list(dict.fromkeys(event_ids))

        def work(db: sqlite3.Connection) -> list[str]:
            self._move(db, ids, was=(SampleState.NEW, SampleState.HELD), becomes=SampleState.WANTED)
            find = "SELECT 1 FROM sample WHERE event_id = ?"
            return [event_id for event_id in ids if db.execute(find, (event_id,)).fetchone() is None]

        return self._run(work)

    def ack_frames(self, event_ids: Iterable[str]) -> list[str]:
        """The hub has committed these frames: the samples leave. Returns those that were here."""
        ids = list(event_ids)
        return self._run(lambda db: [event_id for event_id in ids if self._remove(db, event_id)])

    def refuse(self, refused: Mapping[str, str]) -> list[str]:
        """The hub will never take these (id -> its reason): they leave, counted. Returns those that were here."""
        gone = self._run(lambda db: [event_id for event_id in refused if self._drop(db, event_id, "refused")])
        for event_id in gone:
            _log.warning("the hub refused %s: %.200r", event_id, refused[event_id])
        return gone

    def expire(self, *, keep_s: float, now_s: float, now_ms: int) -> int:
        """Drop what was put more than `keep_s` ago (infinite: nothing), and return how many. Call it once a minute.

        It also lets the spool's time pass (edge.spool_age), `now_ms` being the wall clock. Raises `SpoolError`.
        """
        elapsed_s = None if self._passed_s is None else now_s - self._passed_s
        born_ms = self._run(lambda db: pass_time(db, elapsed_s=elapsed_s, now_ms=now_ms)) - keep_s * 1e3
        self._passed_s = now_s
        if born_ms < 0:
            return 0

        def work(db: sqlite3.Connection) -> int:
            old = older_than(db, int(born_ms), limit=_EXPIRED_AT_ONCE)
            return sum(self._drop(db, event_id, "expired") for event_id in old)

        n = 0
        while dropped := self._run(work):  # a few at a time: others wait for the lock
            n += dropped
        self._read(lambda db: wipe(db, self._path))
        return n

    def count(self, reason: str, n: int = 1) -> None:
        """Count something dropped before it came here. Never waits for the disk; durable with the next transaction."""
        with self._pending_lock:
            self._pending[f"dropped/{reason}"] += n

    def flush(self) -> None:
        """Make what `count` added durable, and hold the reserve again where the disk has room. Raises `SpoolError`."""
        if self._pending:
            self._run(lambda _: None)
        self._reserve.regain()

    def counters(self) -> tuple[dict[str, int], dict[str, int]]:
        """Return what was put and what was dropped since the spool was made, each by reason."""

        def work(db: sqlite3.Connection) -> Counter[str]:
            total = Counter(dict(db.execute("SELECT name, n FROM counter").fetchall()))
            with self._pending_lock:
                total.update(self._pending)
            return total

        split: dict[str, dict[str, int]] = {"findings": {}, "dropped": {}}
        for name, n in sorted(self._read(work).items()):
            kind, _, reason = name.partition("/")
            split[kind][reason] = n
        return split["findings"], split["dropped"]

    def health(self) -> SpoolHealth:
        """Return what is in the spool now."""
        group = "SELECT state, count(*) FROM sample GROUP BY state"
        n = self._read(lambda db: dict(db.execute(group).fetchall()))
        unsent = n.get(SampleState.NEW, 0)
        return SpoolHealth(samples=sum(n.values()), unsent=unsent, bytes=self._used, limit_bytes=self.limit_bytes)

    def _put(self, db: sqlite3.Connection, *, finding: Finding, event: bytes, jpeg: bytes, cost: int) -> bool:
        if db.execute("SELECT 1 FROM sample WHERE event_id = ?", (finding.event_id,)).fetchone() is not None:
            return True
        last = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'sample'").fetchone()
        rank = finding.severity * SEVERITY_WORTH + (last[0] if last else 0) + 1
        if not self._evict(db, self._used + cost - self._room(db), below=rank):
            add(db, "dropped/spool_full", 1)
            return False
        seq = db.execute(
            "INSERT INTO sample (event_id, state, rank, cost) VALUES (?, ?, ?, ?)",
            (finding.event_id, SampleState.NEW, rank, cost),
        ).lastrowid
        db.execute(
            "INSERT INTO body VALUES (?, ?, ?, ?, ?)", (seq, finding.frame_bytes, finding.frame_sha256, event, jpeg)
        )
        add(db, f"findings/{finding.reason}", 1)
        self._used += cost
        return True

    def _room(self, db: sqlite3.Connection) -> int:
        """Return how much all samples may take now: the limit, or what the disk allows."""
        free_pages: int = db.execute("PRAGMA freelist_count").fetchone()[0]
        spare_bytes = free_pages * PAGE_BYTES + max(0, self._reserve.free_bytes() - self._reserve.size_bytes)
        return min(self.limit_bytes, self._used + spare_bytes)

    def _evict(self, db: sqlite3.Connection, excess: int, *, below: float) -> bool:
        """Free `excess` bytes, the least worthy first, but no `NEW` sample of rank `below` or more. All or nothing."""
        victims: list[tuple[str, int]] = []
        order = "SELECT event_id, state, rank, cost FROM sample WHERE state < ? ORDER BY state, rank, seq"
        if excess > 0:
            for event_id, state, rank, cost in db.execute(order, (SampleState.WANTED,)):
                if excess <= 0 or (state == SampleState.NEW and rank >= below):
                    break
                if not self._leases.is_out(event_id):
                    victims.append((event_id, state))
                    excess -= cost
        if excess > 0:
            return False
        for event_id, state in victims:
            self._drop(db, event_id, f"evicted_{SampleState(state).name.lower()}")
        return True

    def _drop(self, db: sqlite3.Connection, event_id: str, reason: str) -> bool:
        if not self._remove(db, event_id):
            return False
        add(db, f"dropped/{reason}", 1)
        return True

    def _remove(self, db: sqlite3.Connection, event_id: str) -> bool:
        row = db.execute("DELETE FROM sample WHERE event_id = ? RETURNING cost", (event_id,)).fetchone()
        if row is None:
            return False
        self._used -= row[0]
        self._leases.forget(event_id)
        return True

    def _move(
        self, db: sqlite3.Connection, ids: Iterable[str], *, was: tuple[SampleState, ...], becomes: SampleState
    ) -> list[str]:
        """Change the state of those of `ids` that are in one of `was`; their next step is due at once."""
        change = f"UPDATE sample SET state = ? WHERE event_id = ? AND state IN ({', '.join('?' * len(was))})"
        moved = [event_id for event_id in ids if db.execute(change, (becomes, event_id, *was)).rowcount]
        for event_id in moved:
            self._leases.forget(event_id)
        return moved

    def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._lock:
            return self._twice(lambda: work(self._db))

    def _run(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Do `work` in one transaction. Raises `SpoolError`."""
        with self._lock:
            result = self._twice(lambda: self._commit(work))
            if self._cramped:
                self._regain_reserve()
            return result

    def _twice(self, step: Callable[[], _T]) -> _T:
        """Take a step, a second time after a broken file was replaced or the reserve of a full disk was given up."""
        try:
            try:
                return step()
            except sqlite3.DatabaseError as error:
                if is_corrupt(error):
                    self._start_anew(error)
                elif is_disk_trouble(error):
                    if self._reserve.held:
                        _log.warning("the disk of the spool is full or fails (%s): giving up the reserve", error)
                    self._reserve.release()
                    self._cramped = True
            return step()
        except (sqlite3.DatabaseError, OSError) as error:  # the folder may be gone
            msg = f"the spool {self._path} cannot be used: {error}"
            raise SpoolError(msg) from error

    def _commit(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        with self._pending_lock:
            pending = Counter(self._pending)
        used = self._used
        self._db.execute("BEGIN IMMEDIATE")
        try:
            result = work(self._db)
            for name, n in pending.items():
                add(self._db, name, n)
            self._db.execute("COMMIT")
        except BaseException:
            self._used = used
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        with self._pending_lock:
            self._pending -= pending
        return result

    def _regain_reserve(self) -> None:
        """Hold the reserve again, on a disk that has no room for it by making the spool itself smaller.

        The WAL is not truncated: on a full disk its space is what the next transaction is written to.
        """
        self._cramped = False
        size = self._reserve.size_bytes
        try:
            for _ in range(_SHRINKS):
                if self._reserve.hold() or not self._commit(lambda db: self._evict(db, size, below=math.inf)):
                    break
                shrink(self._db, size)
        except (sqlite3.DatabaseError, OSError) as error:
            _log.warning("the spool could not be made smaller: %s", error)
        if not self._reserve.hold():
            _log.warning("the disk of the spool has no room for a reserve of %d bytes", size)

    def _start_anew(self, cause: Exception) -> None:
        self._db.close()
        self._db = replace_corrupt(self._path, cause)
        self._leases.clear()
        self._used = 0

    def _open(self) -> sqlite3.Connection:
        try:
            return open_database(self._path)
        except sqlite3.DatabaseError:
            self._reserve.release()
        try:
            return open_database(self._path)
        except sqlite3.DatabaseError as error:
            msg = f"cannot open the spool {self._path}: {error}"
            raise UnusableError(msg) from error
