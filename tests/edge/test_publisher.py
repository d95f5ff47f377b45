"""The publisher against a real broker and the least hub there can be."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from edge.config import MqttConfig
from edge.contract.errors import UnusableError
from edge.contract.samples import MAX_HEADER_BYTES, encode_event
from edge.contract.status import Heartbeat, SpoolHealth, encode
from edge.contract.topics import Kind
from edge.link import MIN_PACKET_BYTES
from edge.publisher import Identity, Publisher
from edge.spool import Spool
from tests.brokers import Broker, broker, wait_until  # noqa: F401
from tests.edge.hub_stand_in import HubStandIn
from tests.edge.samples import make_sample

pytestmark = pytest.mark.broker

IDENTITY = Identity(site="yard", device="gate", boot_id="boot-1", model="starter-1", version="0.1")
ACL = """
allow_anonymous true
acl_file {path}
"""


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with contextlib.closing(Spool(tmp_path / "spool.db", limit_bytes=10**9, reserve_bytes=100_000)) as opened:
        yield opened


@pytest.fixture
def close_at_end() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def publish(spool: Spool, close_at_end: ExitStack) -> Callable[..., Publisher]:
    """Start a publisher; it is stopped at the end of the test."""

    def start(port: int, *, upload_all: bool = False, speed: float = 1.0) -> Publisher:
        """With `speed`, the publisher's clock runs so many times faster."""
        publisher = Publisher(
            MqttConfig(host="127.0.0.1", port=port, keepalive_s=5),
            spool=spool,
            identity=IDENTITY,
            upload_all=upload_all,
            clock=lambda: time.monotonic() * speed,
            rng=random.Random(0),
        )
        publisher.start()
        close_at_end.callback(lambda: publisher.alive and publisher.stop(grace_s=0.0))
        return publisher

    return start


@pytest.fixture
def hub(broker: Broker, close_at_end: ExitStack) -> HubStandIn:  # noqa: F811
    stand_in = HubStandIn(broker.port)
    close_at_end.callback(stand_in.close)
    return stand_in


def put(spool: Spool, n: int, *, size: int = 2000) -> list[str]:
    samples = [make_sample(size=size) for _ in range(n)]
    for sample in samples:
        assert spool.put(*sample)
    return [finding.event_id for finding, _ in samples]


def is_sent(spool: Spool) -> bool:
    return spool.health().unsent == 0


def test_findings_go_at_once_and_frames_wait_to_be_asked_for(spool, broker, hub, publish) -> None:  # noqa: F811
    publish(broker.port)
    ids = put(spool, 50, size=3000)
    wait_until(lambda: is_sent(spool), what="all findings acknowledged")
    assert set(hub.events) == set(ids)
    assert hub.frames == {}
    assert sorted(set(hub.correlations)) == sorted(i.encode() for i in ids)
    assert spool.health().samples == 50
    hub.want(*ids[:3])
    wait_until(lambda: spool.health().samples == 47, what="three frames acknowledged")
    assert hub.frames == {i: make_sample(size=3000, event_id=i)[1] for i in ids[:3]}


def test_a_large_frame_goes_in_parts(spool, broker, hub, publish) -> None:  # noqa: F811
    (event_id,) = put(spool, 1, size=3_000_001)
    publish(broker.port)
    wait_until(lambda: is_sent(spool))
    hub.want(event_id)
    wait_until(lambda: spool.health().samples == 0, what="the frame acknowledged")
    assert hub.parts == -(-3_000_001 // 65_536)
    assert hub.frames[event_id] == make_sample(size=3_000_001, event_id=event_id)[1]


def test_a_frame_that_is_no_longer_here_is_said_to_be_gone(spool, broker, hub, publish) -> None:  # noqa: F811
    publish(broker.port)
    wait_until(lambda: hub.states, what="online")
    hub.want("0" * 32)
    wait_until(lambda: hub.gone == ["0" * 32])


def test_upload_all_sends_small_frames_inside_and_large_ones_in_parts(spool, broker, hub, publish) -> None:  # noqa: F811
    small, large = put(spool, 5, size=40_000), put(spool, 2, size=300_000)
    publish(broker.port, upload_all=True)
    wait_until(lambda: spool.health().samples == 0, what="every frame acknowledged")
    assert set(hub.frames) == {*small, *large}
    assert hub.parts == 2 * 5
    assert all(count == 1 for count in hub.events.values())


def test_state_is_retained_and_a_clean_stop_says_offline(spool, broker, close_at_end, publish) -> None:  # noqa: F811
    publisher = publish(broker.port)
    wait_until(lambda: publisher.connected)
    late = HubStandIn(broker.port)
    close_at_end.callback(late.close)
    wait_until(lambda: late.states)
    assert (late.states[0].online, late.states[0].boot_id) == (True, "boot-1")
    publisher.stop(grace_s=1.0)
    wait_until(lambda: len(late.states) == 2)
    assert not late.states[1].online
    assert not publisher.alive


def test_stopping_sends_what_is_left(spool, broker, hub, publish) -> None:  # noqa: F811
    publisher = publish(broker.port)
    wait_until(lambda: publisher.connected)
    put(spool, 100)
    publisher.stop(grace_s=20.0)
    assert is_sent(spool)


def test_heartbeats_and_detections_pass(spool, broker, hub, publish) -> None:  # noqa: F811
    publisher = publish(broker.port)
    wait_until(lambda: publisher.connected)
    empty = SpoolHealth(samples=0, unsent=0, bytes=0, limit_bytes=1)
    beat = Heartbeat(
        boot_id="boot-1", at_ms=1, uptime_s=1.0, model="m", cameras=(), spool=empty, findings={}, dropped={}, bytes_up=0
    )
    publisher.offer_heartbeat(encode(beat))
    publisher.offer_detections(b"{}")
    wait_until(lambda: hub.heartbeats == [beat] and hub.detections == [b"{}"])
    assert publisher.bytes_up > 2


def test_a_hub_that_was_away_gets_everything_when_it_comes(spool, broker, close_at_end, publish) -> None:  # noqa: F811
    publisher = publish(broker.port, speed=50)
    ids = put(spool, 60)
    wait_until(lambda: publisher.faults["ack_timeout"] >= 3, what="the hub is missed")
    assert publisher.faults["no_matching_subscribers"] >= 3
    assert len(publisher._session.sent) <= 1, "an absent hub is probed with one sample at a time"
    assert spool.health().unsent == 60
    hub = HubStandIn(broker.port)
    close_at_end.callback(hub.close)
    wait_until(lambda: is_sent(spool), what="everything is delivered")
    assert set(hub.events) == set(ids)


def test_a_hub_that_forgets_to_answer_is_sent_the_same_again(spool, broker, hub, publish) -> None:  # noqa: F811
    hub.answering = False
    publisher = publish(broker.port, speed=100)
    ids = put(spool, 3)
    wait_until(lambda: sum(hub.events.values()) > 6, what="resent")
    assert spool.health().unsent == 3
    hub.answering = True
    wait_until(lambda: is_sent(spool), what="acknowledged at last")
    assert set(hub.events) == set(ids)
    assert publisher.faults["ack_timeout"] >= 3


def test_a_frame_whose_ack_is_lost_is_sent_again(spool, broker, hub, publish) -> None:  # noqa: F811
    (event_id,) = put(spool, 1, size=200_000)
    publish(broker.port, speed=100)
    wait_until(lambda: is_sent(spool))
    hub.answering = False
    hub.want(event_id)
    wait_until(lambda: hub.parts >= 8, what="the frame was sent twice")
    assert spool.health().samples == 1
    hub.answering = True
    wait_until(lambda: spool.health().samples == 0)


def test_nothing_is_lost_when_the_broker_is_killed(spool, broker, hub, publish) -> None:  # noqa: F811
    publisher = publish(broker.port)
    ids = put(spool, 30, size=20_000)
    for _ in range(3):
        broker.kill()
        ids += put(spool, 10)
        wait_until(lambda: not publisher.connected, what="the loss is noticed")
        broker.start()
        wait_until(lambda: is_sent(spool), deadline_s=40, what="all is delivered after the kill")
    assert set(hub.events) == set(ids)
    hub.want(*ids)
    wait_until(lambda: spool.health().samples == 0, deadline_s=40, what="every frame is delivered")
    assert set(hub.frames) == set(ids)


def test_a_killed_device_is_announced_by_its_last_will(spool, broker, hub, publish) -> None:  # noqa: F811
    publisher = publish(broker.port)
    wait_until(lambda: hub.states)
    publisher._link._client.socket().shutdown(2)  # the network is gone, without a word
    wait_until(lambda: any(not state.online for state in hub.states), what="the last will")
    assert {state.boot_id for state in hub.states} == {"boot-1"}
    wait_until(lambda: hub.states[-1].online, what="online again")


def test_what_the_hub_refuses_leaves(spool, broker, hub, publish) -> None:  # noqa: F811
    ids = put(spool, 3)
    hub.refuse = {ids[1]}
    publish(broker.port)
    wait_until(lambda: is_sent(spool))
    assert spool.health().samples == 2
    assert spool.counters()[1] == {"refused": 1}


def test_a_message_that_makes_no_sense_is_counted_and_survived(spool, broker, hub, publish) -> None:  # noqa: F811
    publisher = publish(broker.port)
    wait_until(lambda: publisher.connected)
    hub.say(Kind.ACK, b"{not json")
    hub.say(Kind.WANT, b'{"schema": 9, "event_ids": []}')
    hub.say(Kind.ACK, b'{"findings": ["x"]}')
    wait_until(lambda: publisher.faults["bad_message"] == 3)
    put(spool, 1)
    wait_until(lambda: is_sent(spool))


def test_acks_of_another_life_change_nothing(spool, broker, hub, publish) -> None:  # noqa: F811
    hub.answering = False
    publish(broker.port)
    put(spool, 2)
    hub.ack("a" * 32, "b" * 32)
    wait_until(lambda: len(hub.events) == 2)
    assert spool.health().unsent == 2


def test_a_small_broker_gets_small_packets(spool, publish, close_at_end) -> None:
    """The server's limit of a packet is kept: inline frames, parts, the longest finding; what may be lost is lost."""
    small = close_at_end.enter_context(Broker(extra=f"max_packet_size {MIN_PACKET_BYTES}"))
    hub = HubStandIn(small.port)
    close_at_end.callback(hub.close)
    (event_id,) = put(spool, 1, size=20_000)
    wordy, jpeg = make_sample(size=3000)
    while len(encode_event(wordy)) < MAX_HEADER_BYTES - 70:
        wordy = msgspec.structs.replace(wordy, tags=(*wordy.tags, "x" * 64))
    assert spool.put(wordy, jpeg)
    publisher = publish(small.port, upload_all=True)
    wait_until(lambda: publisher.connected)
    publisher.offer_detections(b"x" * MIN_PACKET_BYTES)
    wait_until(lambda: spool.health().samples == 0, what="both delivered")
    assert hub.frames == {event_id: make_sample(size=20_000, event_id=event_id)[1], wordy.event_id: jpeg}
    wait_until(lambda: publisher.faults == {"detections_oversize": 1})
    assert spool.counters()[1] == {}


@pytest.mark.parametrize("limit", [600, MIN_PACKET_BYTES - 1])
def test_a_broker_whose_packets_are_too_small_costs_no_sample(spool, publish, close_at_end, caplog, limit) -> None:
    small = close_at_end.enter_context(Broker(extra=f"max_packet_size {limit}"))
    publisher = publish(small.port, upload_all=True)
    put(spool, 3)
    wait_until(lambda: publisher.faults["disconnected"] >= 2)
    assert f"the broker takes packets of {limit} bytes, this needs {MIN_PACKET_BYTES}" in caplog.text
    assert not publisher.connected
    assert (spool.health().unsent, spool.counters()[1]) == (3, {})


def test_what_was_on_its_way_when_the_connection_broke_is_sent_again_at_once(spool, broker, hub, publish) -> None:  # noqa: F811
    hub.answering = False
    publisher = publish(broker.port)
    ids = put(spool, 2)
    wait_until(lambda: set(hub.events) == set(ids))
    publisher._link._client.socket().shutdown(2)
    wait_until(lambda: min(hub.events.values()) == 2, deadline_s=10)
    assert publisher.faults["ack_timeout"] == 0


def test_a_publish_that_the_acl_denies_is_counted_and_kept(spool, publish, close_at_end, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic read #\ntopic write weakspot/1/yard/gate/state\n")
    acl.chmod(0o644)
    tmp_path.chmod(0o755)
    strict = close_at_end.enter_context(Broker(extra=f"acl_file {acl}"))
    publisher = publish(strict.port, speed=100)
    put(spool, 2)
    wait_until(lambda: publisher.faults["not_authorized"] >= 2, what="the refusal is counted")
    assert spool.health().unsent == 2
    assert publisher.connected


def fake_broker(close_at_end: ExitStack, *answers: bytes) -> int:
    """A server that gives each packet of every connection the next answer; return its port."""
    server = close_at_end.enter_context(socket.create_server(("127.0.0.1", 0)))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = server.accept()
                with connection:
                    for answer in answers:
                        packet = connection.recv(4096)
                        connection.sendall(answer.replace(b"MM", packet[2:4]))
                    connection.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        # CONNACK, then SUBACK "not authorized" (mosquitto's ACL file never refuses a subscription, others do)
        ([b"\x20\x03\x00\x00\x00", b"\x90\x05MM\x00\x87\x87"], "refuses the subscription to weakspot/1/yard/gate/ack"),
        # CONNACK "bad user name or password"
        ([b"\x20\x03\x00\x86\x00"], "refuses this device: Bad user name or password"),
        # CONNACK of a broker that speaks 3.1.1 only: unsupported protocol version
        ([b"\x20\x03\x00\x84\x00"], "refuses this device: Unsupported protocol version"),
    ],
)
def test_a_refusal_is_not_taken_for_a_connection(spool, publish, close_at_end, caplog, answers, message) -> None:
    publisher = publish(fake_broker(close_at_end, *answers))
    wait_until(lambda: publisher.faults["disconnected"] >= 1)
    assert not publisher.connected
    assert message in caplog.text


def test_no_broker_is_waited_for(spool, publish, close_at_end) -> None:
    unstarted = Broker()
    close_at_end.callback(unstarted.close)
    publisher = publish(unstarted.port)
    put(spool, 1)
    wait_until(lambda: publisher.faults["disconnected"] >= 2)
    unstarted.start()
    wait_until(lambda: publisher.connected)


def test_a_missing_certificate_is_one_clear_error(spool, tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match=r"there is no file .*ca\.pem"):
        Publisher(MqttConfig(ca=tmp_path / "ca.pem"), spool=spool, identity=IDENTITY, upload_all=False)
    (tmp_path / "ca.pem").write_text("not a certificate")
    with pytest.raises(UnusableError, match="cannot use the certificates"):
        Publisher(MqttConfig(ca=tmp_path / "ca.pem"), spool=spool, identity=IDENTITY, upload_all=False)


def test_a_backlog_of_findings_does_not_hold_up_a_wanted_frame(spool, broker, hub, publish) -> None:  # noqa: F811
    hub.answering = False
    wanted = put(spool, 2, size=150_000)
    spool.want(wanted)
    put(spool, 300)
    publish(broker.port)
    wait_until(lambda: set(hub.frames) == set(wanted), what="the frames come although no finding is acknowledged")
    assert spool.health().unsent == 300


def test_detections_from_before_the_connection_are_not_sent(spool, broker, hub, publish) -> None:  # noqa: F811
    broker.stop()
    publisher = publish(broker.port)
    publisher.offer_detections(b"old")
    broker.start()
    wait_until(lambda: publisher.connected)
    publisher.offer_detections(b"new")
    wait_until(lambda: hub.detections, deadline_s=30)
    assert hub.detections == [b"new"]
