"""`hub serve` as a process, over a real broker: what it acknowledged it has, whatever happens to it."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode

from edge.contract.errors import UnusableError
from edge.contract.topics import Kind, topic
from hub.config import HubConfig, MqttConfig
from hub.dedupe import DuplicateIndex
from hub.ingest import Ticket
from hub.link import Link
from hub.serve import serve
from hub.store import Store
from hub.store_status import HubStatus
from tests.brokers import DEADLINE_S, Broker, broker, iotcore_broker, wait_until
from tests.hub.devices import Device, Hub, send_until_acked
from tests.hub.made import event_id, event_payload, finding, gone_payload, heartbeat_payload, jpeg
from tests.hub.test_images import png_bomb
from tests.hub.test_ingest import inline

__all__ = ["broker"]  # a fixture
pytestmark = pytest.mark.broker
NOW = 1_700_000_100_000

ALL = "explore = 1000000"  # every frame is asked for


def command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "hub", *map(str, arguments)]
    return subprocess.run(run, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)


def seen(database: Path) -> HubStatus:
    with Store.open(database, create=False) as store:
        return store.status(now_ms=NOW)


def held(database: Path) -> set[str]:
    """The event ids in the database; also that every law holds."""
    with Store.open(database, create=False) as store:
        assert list(store.violations()) == []
        return {row[0] for row in store._connection.execute("SELECT event_id FROM finding")}


def test_a_finding_is_acknowledged_and_its_frame_asked_for(broker, tmp_path):
    with Hub(tmp_path, broker.port) as hub, Device(broker.port) as device:
        device.come_online("boot-1")
        device.send(Kind.HEARTBEAT, heartbeat_payload())
        for number in range(3):
            device.send(Kind.EVENT, event_payload(number), event_id=event_id(number))
        everything = {event_id(number) for number in range(3)}
        wait_until(lambda: device.acked == everything)
        wait_until(lambda: device.frames_acked == everything)
        assert {one for want in device.wants for one in want} == everything
        assert hub.stop() == 0
    with Store.open(hub.database) as store:
        assert [store.frame(event_id(number)) for number in range(3)] == [jpeg(number) for number in range(3)]
        assert len(list(store.candidates())) == 3
    checked = command("check", "--database", hub.database)
    assert (checked.returncode, checked.stdout) == (0, "every law holds; 3 frames were read and hashed\n")
    shown = command("status", "--config", tmp_path / "hub.toml")
    assert "lab/box" in shown.stdout
    assert "3 present" in shown.stdout


def test_inline_frames_are_taken_unasked(broker, tmp_path):
    with Hub(tmp_path, broker.port), Device(broker.port) as device:
        device.send(Kind.EVENT, event_payload(1, inline=True), event_id=event_id(1))
        wait_until(lambda: device.frames_acked == {event_id(1)})
        assert device.acked == {event_id(1)}
        assert device.wants == []


def test_broken_messages_are_refused_and_the_hub_lives(broker, tmp_path):
    places = {1: None, 2: topic("lab", "other", Kind.EVENT), 3: None, 4: None}
    payloads = {1: b"WSP1\xff\xff\xff\xff", 2: event_payload(2), 3: inline(png_bomb()), 4: b""}
    with Hub(tmp_path, broker.port) as hub, Device(broker.port) as device, Device(broker.port, "other") as other:
        for number, payload in payloads.items():
            device.send(Kind.EVENT, payload, event_id=event_id(number), where=places[number])
        for kind in (Kind.FRAME, Kind.HEARTBEAT, Kind.STATE):
            device.send(kind, b"\x00" * 900_000)
        device.send(Kind.EVENT, event_payload(9), event_id=event_id(9))
        wait_until(lambda: device.acked == {event_id(9)})
        wait_until(lambda: set(device.refused) == {event_id(1), event_id(3), event_id(4)})
        wait_until(lambda: set(other.refused) == {event_id(2)})  # to whom the topic belongs
        assert hub.stop() == 0
    with Store.open(hub.database) as store:
        assert sum(store.status(now_ms=NOW).refused.values()) == 7
    assert held(hub.database) == {event_id(9)}


@pytest.mark.slow
def test_killed_in_mid_stream_it_has_what_it_acknowledged(broker, tmp_path):
    """Law 2: SIGKILL at any moment, five times; the device goes on sending what is not acknowledged."""
    payloads = {event_id(n): event_payload(n, inline=True) for n in range(600)}
    hub = Hub(tmp_path, broker.port, mqtt="receive_maximum = 20").start()
    with Device(broker.port) as device:
        for wave in range(5):
            before = len(device.acked)
            for number in range(wave * 100, wave * 100 + 100):
                device.send(Kind.EVENT, payloads[event_id(number)], event_id=event_id(number))
            wait_until(lambda before=before: len(device.acked) > before + 20)
            hub.kill()
            acked = set(device.acked)
            assert acked <= held(hub.database)
            hub.start()
        send_until_acked(device, payloads)
        wait_until(lambda: device.frames_acked == set(payloads))
    hub.kill()
    assert held(hub.database) == set(payloads) == device.acked


def test_two_processes_share_one_database(broker, tmp_path):
    """Parts of one frame reach both; one is killed, the other goes on; the groups are made once."""
    mqtt = "session_expiry_s = 1"
    payloads = {event_id(n): event_payload(n) for n in range(60)}
    with (
        Hub(tmp_path, broker.port, wants=ALL, mqtt=mqtt) as one,
        Hub(tmp_path, broker.port, wants=ALL, mqtt=mqtt) as two,
    ):
        with Device(broker.port, part_bytes=100) as device:
            device.come_online("boot-1")
            send_until_acked(device, payloads)
            wait_until(lambda: len(device.frames_acked) >= 50)
            one.kill()
            more = {event_id(n): event_payload(n) for n in range(60, 90)}
            send_until_acked(device, more)
            wait_until(lambda: seen(two.database).groups == 90)
        assert two.stop() == 0
    taken = int(re.search(r"stopped after (\d+) messages", two.log[-1])[1])
    assert 100 < taken < device.sent - 100  # each has taken some
    assert held(two.database) == set(payloads) | set(more)


def test_wants_are_sent_again(broker, tmp_path):
    """A broker may drop its queue, a device may restart: an unanswered want comes again, and stops when answered."""
    with Hub(tmp_path, broker.port, wants="resend_s = 2") as hub:
        with Device(broker.port, answers=False) as device:
            device.come_online("boot-1")
            device.send(Kind.EVENT, event_payload(1), event_id=event_id(1))
            wait_until(lambda: len(device.wants) == 2)  # after resend_s, by the clock
            device.come_online("boot-2")
            wait_until(lambda: len(device.wants) >= 3)
            device.send(Kind.FRAME, gone_payload(1), event_id=event_id(1))
            wait_until(lambda: "gone" in seen(hub.database).frames)
        assert hub.stop() == 0


def test_the_broker_restarts(tmp_path):
    with Broker() as broker, Hub(tmp_path, broker.port) as hub, Device(broker.port) as device:
        broker.kill()
        wait_until(lambda: any("trying again" in line for line in hub.log))
        broker.start()
        payloads = {event_id(n): event_payload(n) for n in range(3)}
        send_until_acked(device, payloads)
        assert hub.stop() == 0


def test_the_quickstart_broker_serves_too(tmp_path):
    """rumqttd loses messages when one share name stands for two filters: the hub gives each kind its own."""
    with iotcore_broker() as port, Hub(tmp_path, port, wants=ALL) as hub, Device(port) as device:
        device.come_online("boot-1")
        payloads = {event_id(n): event_payload(n) for n in range(60)}
        for number in range(30):
            device.send(Kind.EVENT, payloads[event_id(number)], event_id=event_id(number))
        wait_until(lambda: len(device.frames_acked) == 30)
        hub.kill()
        hub.start()
        send_until_acked(device, payloads)
        wait_until(lambda: device.frames_acked == set(payloads))
        assert hub.stop() == 0
    assert held(hub.database) == set(payloads)


def test_sigterm_commits_what_is_in_hand(broker, tmp_path):
    with Hub(tmp_path, broker.port) as hub, Device(broker.port) as device:
        for number in range(200):
            device.send(Kind.EVENT, event_payload(number, inline=True), event_id=event_id(number))
        wait_until(lambda: device.acked)
        assert hub.stop() == 0
        wait_until(lambda: held(hub.database) == device.acked)


def test_a_stale_ticket_does_not_acknowledge_another_message(broker):
    """Law 1 of hub.link: after a reconnect the message comes again, until it is taken on its own connection."""
    came: list = []
    config = MqttConfig(host="127.0.0.1", port=broker.port)
    link = Link(config, client_id="stale", hand_over=lambda arrival, ticket: came.append(ticket) or True)

    def cut() -> None:
        before = link._connection
        link._client.socket().shutdown(2)
        wait_until(lambda: link._connection > before and link.ready.is_set())

    link.start()
    wait_until(link.ready.is_set)
    with Device(broker.port) as device:
        device.send(Kind.EVENT, event_payload(1), event_id=event_id(1))
        wait_until(lambda: len(came) == 1)
        cut()
        wait_until(lambda: len(came) == 2)
        assert [ticket.connection for ticket in came] == [1, 2]
        link.take([came[0]])
        cut()
        wait_until(lambda: len(came) == 3)  # the stale ticket has acknowledged nothing
        link.take([came[2]])
        device.send(Kind.EVENT, event_payload(2), event_id=event_id(2))
        wait_until(lambda: len(came) == 4)  # the acknowledgement has gone out before this came
        link.take([came[3]])
        cut()
        device.send(Kind.EVENT, event_payload(3), event_id=event_id(3))
        wait_until(lambda: len(came) == 5)
    link.stop()


def test_only_tickets_of_this_connection_are_acknowledged(monkeypatch):
    """Law 1 of hub.link: the same number means another message on another connection."""
    link = Link(MqttConfig(), client_id="numbers", hand_over=lambda *_: True)
    taken: list[tuple[int, int]] = []
    monkeypatch.setattr(link._client, "ack", lambda mid, qos: taken.append((mid, qos)))
    link._connected, link._connection = True, 2
    link.take([Ticket(1, 7, 1), Ticket(2, 8, 1), Ticket(3, 9, 1), Ticket(2, 10, 0)])
    assert taken == [(8, 1)]
    link._connected = False
    link.take([Ticket(2, 11, 1)])
    assert taken == [(8, 1)]


def test_a_refused_subscription_is_a_failure(caplog):
    failed = threading.Event()
    link = Link(MqttConfig(), client_id="refused", hand_over=lambda *_: True, on_failure=failed.set)
    granted, denied = (ReasonCode(PacketTypes.SUBACK, identifier=code) for code in (1, 0x87))
    link._on_subscribe(link._client, None, 1, [granted, granted], None)
    assert not failed.is_set()
    link._on_subscribe(link._client, None, 1, [granted, denied], None)
    assert failed.is_set()
    assert "the broker refuses a subscription (Not authorized)" in caplog.text


def serve_with(host: str, folder: Path) -> bool:
    """`hub serve` in this process; returns, or raises, only when every thread of it has ended."""
    config = HubConfig(database=folder / "hub.db", mqtt=MqttConfig(host=host))
    before, interval = set(threading.enumerate()), sys.getswitchinterval()
    try:
        return serve(config, stop=threading.Event(), make_index=DuplicateIndex)
    finally:
        sys.setswitchinterval(interval)
        assert set(threading.enumerate()) <= before


def test_the_end_of_the_network_thread_ends_the_process(tmp_path, caplog):
    """A name that no resolver takes: the client's own thread ends with a UnicodeError, and says nothing."""
    assert serve_with("broker..example", tmp_path) is False
    assert "the connection to the broker broker..example:1883 has ended for good" in caplog.text


def test_a_link_that_cannot_start_leaves_no_thread_behind(tmp_path):
    with pytest.raises(UnusableError, match=r"cannot start the connection to the broker :1883: Invalid host"):
        serve_with("", tmp_path)


def test_a_database_that_is_moved_away_ends_the_process_without_an_ack(broker, tmp_path):
    with Hub(tmp_path, broker.port) as hub, Device(broker.port) as device:
        device.send(Kind.EVENT, event_payload(1), event_id=event_id(1))
        wait_until(lambda: device.acked == {event_id(1)})
        hub.database.rename(tmp_path / "moved.db")
        device.send(Kind.EVENT, event_payload(2), event_id=event_id(2))
        assert hub._process.wait(DEADLINE_S) == 1
        hub._drain.join(DEADLINE_S)
        hub._process = None
        assert device.acked == {event_id(1)}
    assert "was deleted or moved while it was in use" in "".join(hub.log)


def test_a_fault_in_a_callback_does_not_end_the_network_thread(broker, caplog):
    came = threading.Event()

    def hand_over(arrival, ticket) -> bool:
        if arrival.content.finding.event_id == event_id(1):
            raise RuntimeError
        came.set()
        return True

    link = Link(MqttConfig(host="127.0.0.1", port=broker.port), client_id="faulty", hand_over=hand_over)
    link.start()
    wait_until(link.ready.is_set)
    with Device(broker.port) as device:
        for number in (1, 2):
            device.send(Kind.EVENT, event_payload(number), event_id=event_id(number))
        wait_until(came.is_set)
    link.stop()
    assert "a fault of the hub's" in caplog.text


@pytest.mark.parametrize(
    ("toml", "message"),
    [
        ("databse = 'x'", "did you mean `database`"),
        ("database = 'no/such/folder/hub.db'", "cannot open the database"),
        ("[mqtt]\nca = 'no.crt'", "no.crt"),
        ("[mqtt]\nusername = 'me'\npassword_file = 'secret'", "secret"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_2(tmp_path, toml, message):
    (tmp_path / "hub.toml").write_text(toml)
    done = command("serve", "--config", "hub.toml", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("hub: ")


def test_what_is_sent_is_what_is_stored(broker, tmp_path):
    with Hub(tmp_path, broker.port) as hub, Device(broker.port) as device:
        device.send(Kind.EVENT, event_payload(5), event_id=event_id(5))
        wait_until(lambda: device.acked)
    with Store.open(hub.database) as store:
        assert store.finding(event_id(5)).finding() == finding(5)
