"""A message is judged, committed, and only then acknowledged; a broken one stops nothing."""

import hashlib
import json
import logging
import sqlite3
import struct
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.samples import FrameHeader, encode_frame
from edge.contract.topics import Kind, topic
from hub.arrivals import Arrival, ClearedContent, EventContent, Outcome, RefusedContent
from hub.config import IngestConfig
from hub.ingest import Committer, Ticket, group_acks, judge
from hub.store import Store
from tests.brokers import wait_until
from tests.hub.made import (
    arrival,
    event_id,
    event_payload,
    finding,
    heartbeat_payload,
    jpeg,
    part_payloads,
    state_payload,
)
from tests.hub.test_images import png_bomb, with_size

NOW = 1_700_000_100_000
ID = event_id(1)
EVENT = topic("lab", "box", Kind.EVENT)


def raw(header: bytes, body: bytes = b"", *, magic: bytes = b"WSP1", length: int | None = None) -> bytes:
    """A payload with a header that the encoder would refuse."""
    return magic + struct.pack(">I", len(header) if length is None else length) + header + body


def header(**changes) -> bytes:
    """The header of finding 1 as JSON, with raw values put in its place."""
    return json.dumps(json.loads(msgspec.json.encode(finding(1))) | changes).encode()


def inline(picture: bytes, **changes) -> bytes:
    """An event whose header is true to `picture`, whatever that is."""
    changes = {"frame_bytes": len(picture), "frame_sha256": hashlib.sha256(picture).hexdigest()} | changes
    return raw(header(**changes), picture)


def frame(part: bytes = b"x", **changes) -> bytes:
    values = {"event_id": ID, "size": 10, "sha256": "0" * 64} | changes
    return encode_frame(FrameHeader(**values), part)


BROKEN_EVENTS = {
    "nothing at all": b"",
    "not ours": b"\x00\x01\x02 hello",
    "only the magic": b"WSP1",
    "an older magic": raw(header(), magic=b"WSP0"),
    "a header of 10 MB": raw(b"{" + b" " * 10_000_000 + b"}"),
    "a length of 4 GB": raw(header(), length=0xFFFFFFFF),
    "a length behind the end": raw(header(), length=8000),
    "not JSON": raw(b"\xff\xfe{}"),
    "JSON, not an object": raw(b"[1, 2]"),
    "a thousand brackets": raw(b"[" * 8000),
    "an unknown schema": raw(header(schema=2)),
    "no schema": raw(b'{"event_id": "%s"}' % ID.encode()),
    "a field missing": raw(b'{"schema": 1, "event_id": "%s"}' % ID.encode()),
    "a NaN score": raw(header(severity=float("nan"))),
    "an infinite box": raw(header(region=[0.0, 0.0, float("inf"), 4.0])),
    "a score over one": raw(header(severity=1.5)),
    "a region outside": raw(header(region=[100.0, 0.0, 120.0, 4.0])),
    "an id that is a path": raw(header(event_id="../../../etc/passwd")),
    "a time no clock shows": raw(header(captured_at_ms=2**63)),
    "a time with a thousand digits": raw(header().replace(b"1700000010001", b"1" * 1000)),
    "another device's finding": raw(header(device="other")),
    "another site's finding": raw(header(site="other")),
    "a PNG bomb": inline(png_bomb()),
    "a JPEG bomb": inline(with_size(jpeg(1), width=65000, height=65000), width=16384, height=16384),
    "half a JPEG": inline(jpeg(1)[:-9]),
    "a JPEG of another size": inline(jpeg(1, width=32, height=32)),
    "a JPEG with another hash": inline(jpeg(1), frame_sha256="0" * 64),
    "a JPEG longer than announced": inline(jpeg(1), frame_bytes=3),
    "a lone surrogate": raw(header(label="\ud800")),
}
BROKEN_FRAMES = {
    "nothing at all": b"",
    "a part of nothing": raw(b'{"schema": 1, "event_id": "%s", "size": 10, "sha256": ""}' % ID.encode()),
    "a part behind the end": raw(msgspec.json.encode(FrameHeader(event_id=ID, size=10, sha256="", offset=9)), b"xx"),
    "a negative offset": raw(header(size=10, sha256="", offset=-1), b"x"),
    "a frame of a gigabyte": raw(header(size=2**30, sha256=""), b"x"),
    "another hash than announced": frame(sha256="1" * 64),
    "another size than announced": frame(size=11),
}
BROKEN_STATUS = {
    "not JSON": b"{",
    "an unknown schema": b'{"schema": 9}',
    "an infinite number": heartbeat_payload().replace(b'"fps":5.0', b'"fps":1e999'),
    "a megabyte": b" " * 1_000_000,
    "a time no clock shows": heartbeat_payload().replace(b"1700000000000", b"9" * 19),
    "a negative time": state_payload().replace(b"1700000000000", b"-5"),
}


def refused_reason(content: object) -> str:
    assert isinstance(content, RefusedContent)
    assert content.reason
    assert len(content.reason) <= 300
    return content.reason


@pytest.mark.parametrize("payload", BROKEN_EVENTS.values(), ids=BROKEN_EVENTS)
def test_a_broken_event_is_refused_by_its_correlated_id(payload):
    content = judge(EVENT, payload, ID.encode()).content
    refused_reason(content)
    assert content == RefusedContent(content.reason, ID)


@pytest.mark.parametrize("payload", BROKEN_STATUS.values(), ids=BROKEN_STATUS)
@pytest.mark.parametrize("kind", [Kind.HEARTBEAT, Kind.STATE])
def test_a_broken_status_is_refused(kind, payload):
    refused_reason(judge(topic("lab", "box", kind), payload, None).content)


def test_a_deleted_retained_state_is_no_fault(tmp_path):
    """A person empties the broker's retained message: an empty payload on the state topic, to every hub."""
    arrivals = [judge(topic("lab", "box", kind), b"", None) for kind in (Kind.STATE, Kind.HEARTBEAT)]
    assert arrivals[0].content == ClearedContent()
    assert refused_reason(arrivals[1].content)
    with Store.open(tmp_path / "hub.db") as store:
        assert store.commit(arrivals[:1], now_ms=NOW) == [Outcome()]
        assert store.status(now_ms=NOW).refused == {}
        assert not store.status(now_ms=NOW).devices


@pytest.mark.parametrize("payload", BROKEN_FRAMES.values(), ids=BROKEN_FRAMES)
def test_a_broken_frame_is_refused_and_asked_for_no_more(payload, tmp_path):
    with Store.open(tmp_path / "hub.db") as store:
        store.commit([arrival(Kind.EVENT, event_payload(1))], now_ms=NOW)
        (outcome,) = store.commit([judge(topic("lab", "box", Kind.FRAME), payload, ID.encode())], now_ms=NOW)
        assert outcome.refused is not None
        assert outcome.refused[0] == ID
        assert store.status(now_ms=NOW).frames == {"refused": 1}
        assert not list(store.violations())


@pytest.mark.parametrize(
    ("where", "correlation", "known_id"),
    [
        ("weakspot/1/lab/box/event", b"\xff" * 16, None),  # a correlation that is no id
        ("weakspot/1/lab/box/event", b"'; DROP TABLE", None),
        ("weakspot/1/lab/box/event", None, None),  # a device that sets none
        ("weakspot/1/lab/b x/event", ID.encode(), ID),  # a name that MQTT allows and we do not
        ("weakspot/2/lab/box/event", ID.encode(), ID),  # another version of the tree
        ("weakspot/1/lab/box/ack", ID.encode(), None),  # our own kind, sent to us
        ("not UTF-8", ID.encode(), ID),
        ("", None, None),
    ],
)
def test_a_strange_place_is_refused(where, correlation, known_id):
    content = judge(where, b"junk", correlation).content
    refused_reason(content)
    assert content == RefusedContent(content.reason, known_id)


@given(st.binary(max_size=300), st.sampled_from(list(Kind)))
def test_any_bytes_are_judged(payload, kind):
    """Law: `judge` raises nothing."""
    judge(topic("lab", "box", kind), payload, payload)


@given(st.integers(0, 2000), st.binary(min_size=1, max_size=6))
def test_a_true_event_with_a_few_bytes_changed_is_judged(at, change):
    payload = event_payload(1, inline=True)
    changed = payload[:at] + change + payload[at + len(change) :]
    content = judge(EVENT, changed, ID.encode()).content
    assert isinstance(content, (EventContent, RefusedContent))


def test_a_broken_copy_of_what_is_here_does_not_make_the_device_drop_it(tmp_path):
    with Store.open(tmp_path / "hub.db") as store:
        store.commit([arrival(Kind.EVENT, event_payload(1))], now_ms=NOW)
        broken = judge(EVENT, b"junk", ID.encode())
        assert store.commit([broken], now_ms=NOW) == [Outcome(finding=ID)]
        store.commit([arrival(Kind.FRAME, payload) for payload in part_payloads(1)], now_ms=NOW)
        assert store.commit([broken], now_ms=NOW) == [Outcome(finding=ID, frame=ID)]
        assert store.status(now_ms=NOW).refused == {"event": 2}


class Line:
    """The way back, as lists. `order` shows which came first."""

    def __init__(self) -> None:
        self.acks = []
        self.tickets: list[Ticket] = []
        self.order: list[str] = []

    def answer(self, site, device, ack) -> None:
        self.acks.append((site, device, ack))
        self.order.append("answer")

    def take(self, tickets) -> None:
        self.tickets += tickets
        self.order.append("take")

    def findings(self) -> list[str]:
        return [event for _, _, ack in self.acks for event in ack.findings]


class Running:
    """A committer in its thread, over a store that can be made to fail."""

    def __init__(self, path, **config) -> None:
        self.line = Line()
        self.committer = Committer(IngestConfig(**config), capacity=50)
        self.batches: list[int] = []
        self.fail: Exception | None = None
        self.full = threading.Event()
        self._path = path
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with Store.open(self._path) as self._store:
            self.committer.run(self, self.line)

    def commit(self, arrivals, *, now_ms):
        assert not self.line.order or self.line.order[-1] == "take"
        connection = self._store._connection
        used = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {used if self.full.is_set() else 10**6}")
        outcomes = self._store.commit(arrivals, now_ms=now_ms)
        self.batches.append(len(arrivals))
        return outcomes

    def put(self, *arrivals: Arrival, qos: int = 1) -> None:
        for mid, one in enumerate(arrivals, start=1):
            self.committer.put(one, Ticket(1, mid, qos))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.committer.drain()
        self._thread.join(20)
        self.committer.abandon()
        self._thread.join(20)
        assert not self._thread.is_alive()


def events(*numbers: int, **changes) -> list[Arrival]:
    return [arrival(Kind.EVENT, event_payload(number, **changes)) for number in numbers]


def test_what_waits_is_committed_together_and_acknowledged_once_a_device(tmp_path):
    running = Running(tmp_path / "hub.db")
    others = [arrival(Kind.EVENT, event_payload(n, device="other"), device="other") for n in (8, 9)]
    running.put(*events(1, 2, 3), *others, judge(EVENT, b"junk", event_id(7).encode()))
    with running:
        wait_until(lambda: running.line.tickets)
    assert running.batches == [6]
    (_, _, box), (_, _, other) = running.line.acks
    assert (box.findings, list(box.refused)) == ((event_id(1), event_id(2), event_id(3)), [event_id(7)])
    assert other.findings == (event_id(8), event_id(9))
    assert [ticket.mid for ticket in running.line.tickets] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"batch_messages": 2}, [2, 2, 1]),
        ({"batch_bytes": 1}, [1, 1, 1, 1, 1]),  # one message is always taken, however large
        ({"batch_bytes": 3 * len(event_payload(1))}, [3, 2]),
    ],
)
def test_a_transaction_is_bounded(tmp_path, config, expected):
    running = Running(tmp_path / "hub.db", **config)
    running.put(*events(1, 2, 3, 4, 5))
    with running:
        wait_until(lambda: len(running.line.tickets) == 5)
    assert running.batches == expected


def test_a_full_disk_acknowledges_nothing_and_loses_nothing(tmp_path, caplog):
    running = Running(tmp_path / "hub.db")
    with running:
        running.full.set()
        running.put(*[arrival(Kind.EVENT, event_payload(n, inline=True, features=bytes(4000))) for n in range(20)])
        wait_until(lambda: caplog.text.count("NOTHING IS BEING STORED: database or disk is full") >= 2)
        assert running.line.order == []
        running.full.clear()
        wait_until(lambda: len(running.line.findings()) == 20)
    with Store.open(tmp_path / "hub.db") as store:
        assert store.status(now_ms=NOW).findings == {"missed": 20}
        assert not list(store.violations())


def test_abandoned_on_a_full_disk_it_ends_without_an_ack(tmp_path):
    running = Running(tmp_path / "hub.db")
    with running:
        running.full.set()
        running.put(*[arrival(Kind.EVENT, event_payload(n, features=bytes(4000))) for n in range(20)])
        running.committer.abandon()
    assert running.line.order == []


def test_one_poisonous_message_is_refused_alone(tmp_path, caplog):
    """A value that passed the checks and that the database still does not take: a fault of ours, not the end."""
    poison = arrival(Kind.EVENT, event_payload(2))
    poisoned = EventContent(finding(2, captured_at_ms=2**70), poison.content.header, b"")
    running = Running(tmp_path / "hub.db")
    running.put(*events(1), Arrival(poison.topic, "lab", "box", poison.payload, poisoned), *events(3))
    with running, caplog.at_level(logging.CRITICAL, logger="hub.ingest"):
        wait_until(lambda: running.line.tickets)
    ((_, _, ack),) = running.line.acks
    assert ack.findings == (event_id(1), event_id(3))
    assert ack.refused == {event_id(2): "it cannot be stored: OverflowError"}


def test_qos_0_does_not_push_out_what_must_be_kept():
    committer = Committer(IngestConfig(), capacity=2)
    (one,) = events(1)
    assert [committer.put(one, Ticket(1, 0, 0)) for _ in range(4)] == [True, True, False, False]
    assert [committer.put(one, Ticket(1, mid, 1)) for mid in (1, 2)] == [True, True]


def test_a_device_with_nothing_to_hear_is_left_out():
    arrivals = [arrival(Kind.HEARTBEAT, heartbeat_payload()), judge("nowhere", b"", ID.encode())]
    assert group_acks(arrivals, [Outcome(), Outcome(refused=(ID, "why"))]) == {}


def test_the_store_in_use_elsewhere_is_waited_for(tmp_path):
    """Another process writes for a moment: the busy timeout, not an error, not a lost message."""
    path = tmp_path / "hub.db"
    Store.open(path).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    running = Running(path)
    with running:
        running.put(*events(1))
        other.execute("COMMIT")
        wait_until(lambda: running.line.findings() == [event_id(1)])
    other.close()
