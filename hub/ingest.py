"""A message -> judged -> committed with others in one transaction -> acknowledged.

Laws (numbers of the house):

2. Nothing is acknowledged, neither to the broker nor to the device, before the transaction that holds it is on disk.
   When the disk refuses, the same messages are tried again until it takes them.
3. An event id is committed at most once (hub.store_ingest); a repeated one is acknowledged again.
4. A message that cannot be used is kept aside with its reason, counted, and acknowledged as refused: it never stops
   the others.

`judge` runs in the network's thread, message by message, so that hashing one message overlaps with the commit of
earlier ones. It parses headers only: no picture is decoded here.
"""

import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, NamedTuple, Protocol, TypeVar

from edge.contract.errors import UntrustedError, UnusableError, WeakspotError
from edge.contract.rollout import Assignment, RolloutReport
from edge.contract.samples import decode_event, decode_frame, is_event_id
from edge.contract.status import Ack, Heartbeat, State, decode
from edge.contract.topics import Kind, Topic, parse_topic
from hub.arrivals import (
    Arrival,
    ClearedContent,
    Content,
    EventContent,
    FrameContent,
    HeartbeatContent,
    OrderContent,
    Outcome,
    RefusedContent,
    ReportContent,
    StateContent,
)
from hub.config import IngestConfig
from hub.images import require_jpeg

_Told = TypeVar("_Told", Heartbeat, State, RolloutReport, Assignment)

_PREFIX_BYTES: Final = 8  # magic and header length, see edge.contract.samples
MAX_STATUS_BYTES: Final = 65536
MAX_TIME_MS: Final = 253402300799999
MAX_REASON_CHARS: Final = 300
_FIRST_BACKOFF_S: Final = 0.1
_LAST_BACKOFF_S: Final = 5.0
_IDLE_S: Final = 0.25
# Errors of one message's values. Every other error is the database's, and is waited for.
_POISON: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeError,
)
log = logging.getLogger(__name__)


def judge(topic: str, payload: bytes, correlation: bytes | None) -> Arrival:
    """Decode and check one message. Raises nothing: what cannot be used becomes a `RefusedContent` with its reason.

    Args:
        topic: as the broker gave it.
        payload: as the broker gave it.
        correlation: the MQTT v5 correlation data: the event id, so that a broken payload is refused by name.
    """
    site = device = ""
    try:
        place = _place(topic)
        site, device = place.site, place.device
        content = _CONTENT[place.kind](payload, site, device)
    except KeyError:
        content = RefusedContent(f"the hub does not take {topic.rpartition('/')[2]!r} messages", None)
    except WeakspotError as error:
        content = RefusedContent(str(error)[:MAX_REASON_CHARS], _correlated(correlation))
    return Arrival(topic, site, device, payload, content)


@lru_cache(maxsize=10_000)
def _place(topic: str) -> Topic:
    return parse_topic(topic)


def _correlated(correlation: bytes | None) -> str | None:
    text = correlation.decode("ascii", "replace") if correlation is not None else ""
    return text if is_event_id(text) else None


def _event(payload: bytes, site: str, device: str) -> EventContent:
    finding, jpeg = decode_event(payload)
    if (finding.site, finding.device) != (site, device):
        msg = f"the header says {finding.site}/{finding.device}, the topic {site}/{device}"
        raise UntrustedError(msg)
    _require_time(finding.captured_at_ms)
    if jpeg:
        sha256 = bytes.fromhex(finding.frame_sha256)
        require_jpeg(jpeg, width=finding.width, height=finding.height, sha256=sha256)
    header = payload[_PREFIX_BYTES : len(payload) - len(jpeg)]
    return EventContent(finding, header, jpeg)


def _frame(payload: bytes, _site: str, _device: str) -> FrameContent:
    return FrameContent(*decode_frame(payload))


def _heartbeat(payload: bytes, _site: str, _device: str) -> HeartbeatContent:
    return HeartbeatContent(_small(payload, Heartbeat))


def _state(payload: bytes, _site: str, _device: str) -> StateContent | ClearedContent:
    return StateContent(_small(payload, State)) if payload else ClearedContent()


def _report(payload: bytes, _site: str, _device: str) -> ReportContent | ClearedContent:
    return ReportContent(_small(payload, RolloutReport)) if payload else ClearedContent()


def _order(payload: bytes, _site: str, _device: str) -> OrderContent | ClearedContent:
    return OrderContent(_small(payload, Assignment)) if payload else ClearedContent()


def _small(payload: bytes, kind: type[_Told]) -> _Told:
    """Return a message without a body: of bounded size, and of a time that can be stored."""
    _require_small(payload)
    told = decode(payload, kind)
    _require_time(told.at_ms)
    return told


def _require_small(payload: bytes) -> None:
    if len(payload) > MAX_STATUS_BYTES:
        msg = f"payload of {len(payload)} bytes, the limit is {MAX_STATUS_BYTES}"
        raise UnusableError(msg)


def _require_time(at_ms: int) -> None:
    if not 0 <= at_ms <= MAX_TIME_MS:
        msg = f"time {at_ms} is no date"
        raise UnusableError(msg)


_CONTENT: Final[dict[Kind, Callable[[bytes, str, str], Content]]] = {
    Kind.EVENT: _event,
    Kind.FRAME: _frame,
    Kind.HEARTBEAT: _heartbeat,
    Kind.STATE: _state,
    Kind.REPORT: _report,
    Kind.ASSIGN: _order,
}


class Ticket(NamedTuple):
    """What the broker needs to hear that a message was taken. `connection` numbers the connections of this process."""

    connection: int
    mid: int
    qos: int


class Line(Protocol):
    """The way back: hub.link over MQTT, a list in tests. Neither call raises."""

    def answer(self, site: str, device: str, ack: Ack) -> None:
        """Send the hub's own ack to a device."""

    def take(self, tickets: Sequence[Ticket]) -> None:
        """Tell the broker that these were taken; those of an older connection are dropped, the broker repeats them."""


class Commits(Protocol):
    """The one thing that the committer needs of a store."""

    def commit(self, arrivals: Sequence[Arrival], *, now_ms: int) -> list[Outcome]:
        """Store messages in one transaction. Raises `UnusableError` when it is not certain where they were stored."""


class Committer:
    """A bounded queue and the loop that empties it: `put` is for the network's thread, `run` for one of its own."""

    def __init__(self, config: IngestConfig, *, capacity: int, on_commit: Callable[[], None] = lambda: None) -> None:
        """`capacity`: messages in hand; the receive maximum of the connection keeps within it.

        `on_commit` is called after every transaction. `taken` counts the messages that were stored and acknowledged,
        `lost` those that `put` had no room for.
        """
        self._config = config
        self._capacity = capacity
        self._on_commit = on_commit
        self._waiting: deque[tuple[Arrival, Ticket]] = deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._wake_at = 1  # messages that end the committer's present wait: it is not woken for every one
        self._draining = False
        self._abandon = threading.Event()
        self.taken = 0
        self.lost = 0

    def put(self, arrival: Arrival, ticket: Ticket) -> bool:
        """Hand a message over. False: it was QoS 0 and there is no room, so it is lost.

        QoS 1 cannot overflow while the broker keeps to the receive maximum; with a broker that does not, this blocks
        and so stops reading from the network.
        """
        with self._changed:
            if ticket.qos == 0 and len(self._waiting) >= self._capacity:
                self.lost += 1
                return False
            while len(self._waiting) >= 2 * self._capacity and not self._draining:
                self._changed.wait(_IDLE_S)
            self._waiting.append((arrival, ticket))
            self._waiting_bytes += len(arrival.payload)
            if len(self._waiting) >= self._wake_at or self._waiting_bytes >= self._config.batch_bytes:
                self._changed.notify_all()
            return True

    def drain(self) -> None:
        """Let `run` return once nothing waits."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()

    def abandon(self) -> None:
        """Let `run` return now, even while the disk refuses. What is in hand was never acknowledged."""
        self._abandon.set()
        self.drain()

    def run(self, store: Commits, line: Line) -> None:
        """Commit and acknowledge until drained."""
        while not self._abandon.is_set():
            batch = self._gather()
            if batch:
                self._commit(store, line, batch)
            elif self._draining:
                return

    def _gather(self) -> list[tuple[Arrival, Ticket]]:
        """Wait for a first message, then a little for company; return at most one transaction's worth."""
        config = self._config
        with self._changed:
            self._wake_at = 1
            self._changed.wait_for(lambda: self._waiting, _IDLE_S)
            if not self._waiting:
                return []
            self._wake_at = config.batch_messages
            self._changed.wait_for(self._is_full, config.linger_ms / 1000)
            batch: list[tuple[Arrival, Ticket]] = []
            size = 0
            while self._waiting and len(batch) < config.batch_messages:
                size += len(self._waiting[0][0].payload)
                if batch and size > config.batch_bytes:
                    break
                batch.append(self._waiting.popleft())
                self._waiting_bytes -= len(batch[-1][0].payload)
            self._changed.notify_all()
            return batch

    def _is_full(self) -> bool:
        full = len(self._waiting) >= self._config.batch_messages or self._waiting_bytes >= self._config.batch_bytes
        return full or self._draining

    def _commit(self, store: Commits, line: Line, batch: list[tuple[Arrival, Ticket]]) -> None:
        arrivals = [arrival for arrival, _ in batch]
        try:
            outcomes = self._insist(store, arrivals)
        except _POISON:
            outcomes = self._commit_singly(store, arrivals)
        if outcomes is None:
            return
        for (site, device), ack in group_acks(arrivals, outcomes).items():
            line.answer(site, device, ack)
        line.take([ticket for _, ticket in batch])
        self.taken += len(batch)
        self._on_commit()

    def _insist(self, store: Commits, arrivals: list[Arrival]) -> list[Outcome] | None:
        """Commit; while the disk refuses, say so and try again. None when abandoned meanwhile."""
        backoff_s = _FIRST_BACKOFF_S
        while True:
            try:
                return store.commit(arrivals, now_ms=time.time_ns() // 1_000_000)
            except _POISON:
                raise
            except sqlite3.Error as error:
                log.error("NOTHING IS BEING STORED: %s; %d messages wait, trying again", error, len(arrivals))  # noqa: TRY400
            if self._abandon.wait(backoff_s):
                return None
            backoff_s = min(2 * backoff_s, _LAST_BACKOFF_S)

    def _commit_singly(self, store: Commits, arrivals: list[Arrival]) -> list[Outcome] | None:
        """One message's values broke the transaction: find it, and refuse it alone."""
        outcomes: list[Outcome] = []
        for arrival in arrivals:
            try:
                outcome = self._insist(store, [arrival])
            except _POISON as error:
                log.exception("a message of %s cannot be stored", arrival.topic)
                outcome = self._insist(store, [_poisoned(arrival, error)])
            if outcome is None:
                return None
            outcomes += outcome
        return outcomes


def _poisoned(arrival: Arrival, error: Exception) -> Arrival:
    event_id = None
    match arrival.content:
        case EventContent(finding=finding):
            event_id = finding.event_id
        case FrameContent(header=header):
            event_id = header.event_id
    reason = f"it cannot be stored: {type(error).__name__}"
    return Arrival(arrival.topic, arrival.site, arrival.device, arrival.payload, RefusedContent(reason, event_id))


def group_acks(arrivals: Sequence[Arrival], outcomes: Sequence[Outcome]) -> dict[tuple[str, str], Ack]:
    """Return one ack a device for what was committed; devices with nothing to hear are left out."""
    findings: dict[tuple[str, str], dict[str, None]] = {}
    frames: dict[tuple[str, str], dict[str, None]] = {}
    refused: dict[tuple[str, str], dict[str, str]] = {}
    for arrival, outcome in zip(arrivals, outcomes, strict=True):
        device = (arrival.site, arrival.device)
        if not arrival.device:
            continue
        if outcome.finding is not None:
            findings.setdefault(device, {})[outcome.finding] = None
        if outcome.frame is not None:
            frames.setdefault(device, {})[outcome.frame] = None
        if outcome.refused is not None:
            refused.setdefault(device, {})[outcome.refused[0]] = outcome.refused[1]
    return {
        device: Ack(
            findings=tuple(findings.get(device, ())),
            frames=tuple(frames.get(device, ())),
            refused=refused.get(device, {}),
        )
        for device in {**findings, **frames, **refused}
    }
