"""What `deploy/` ships: a real mosquitto on the shipped configuration with keys of enroll.sh, the units, the images."""

import json
import re
import shlex
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import tarfile
import tomllib
from collections.abc import Iterator
from configparser import RawConfigParser
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import paho.mqtt.client as paho
import pytest
import typer
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

import edge.cli
import edge.config
import hub.cli
import hub.config
from edge.contract.samples import MAX_HEADER_BYTES
from edge.contract.topics import Kind, site_policy_topic, subscription, topic
from edge.home_assistant import discovery_topic
from tests.brokers import DEADLINE_S, Broker, free_port, wait_until

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = ("edge", "hub")
UP = (Kind.EVENT, Kind.FRAME, Kind.HEARTBEAT, Kind.STATE, Kind.DETECTIONS, Kind.REPORT)
DOWN = (Kind.ACK, Kind.WANT, Kind.POLICY, Kind.ASSIGN)
CONNECT = bytes.fromhex("101000044d5154540502000a00000378797a")  # MQTT v5, client id "xyz"

needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def enroll(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        ["/bin/sh", DEPLOY / "enroll.sh", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def enrolled(*arguments: object) -> None:
    done = enroll(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("enrolled") / "fleet"
    enrolled("init", folder, "--broker", "localhost", "--broker", "127.0.0.1")
    enrolled("device", folder, "plant7", "cam1", "--camera", "rtsp://user:pass@10.0.0.5/stream2")
    enrolled("device", folder, "plant7", "cam2")
    return folder


@pytest.fixture
def own_fleet(fleet: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(fleet, tmp_path / "fleet")
    return tmp_path / "fleet"


class FleetBroker(Broker):
    """mosquitto with the shipped configuration; only the paths and the ports are others."""

    def __init__(self, fleet: Path) -> None:
        super().__init__()
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", self.port))
            self.hub_port = free_port()
        text = (fleet / "broker/weakspot.conf").read_text()
        for shipped, here in (
            ("/etc/mosquitto/weakspot", str(fleet / "broker")),
            ("listener 8883", f"listener {self.port} 127.0.0.1"),
            ("listener 8884", f"listener {self.hub_port} 127.0.0.1"),
        ):
            assert shipped in text
            text = text.replace(shipped, here)
        self._config.write_text(f"{text}\nuser root\npersistence_location {self._directory}/\n")

    def reload(self) -> None:
        assert self._process is not None
        seen = len(self.log)
        self._process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("Reloading config" in line for line in self.log[seen:]), what="SIGHUP is taken")

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None


@pytest.fixture(scope="module")
def fleet_broker(fleet: Path) -> Iterator[FleetBroker]:
    with FleetBroker(fleet) as running:
        yield running


class Client:
    """One MQTT v5 connection with a certificate; it writes down what it is told."""

    def __init__(self, folder: Path, port: int, *, client_id: str = "", ca: Path | None = None) -> None:
        name = "hub" if (folder / "hub.crt").exists() else "device"
        self.answers: dict[int, str] = {}
        self.heard: list[tuple[str, bytes]] = []
        self.subscribed = 0
        self.connected = False
        self.losses = 0
        self.max_packet = self.receive_maximum = 0
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
        self._client.tls_set(str(ca or folder / "ca.crt"), str(folder / f"{name}.crt"), str(folder / f"{name}.key"))
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = lambda _client, _user, message: self.heard.append((message.topic, message.payload))
        self._client.on_publish = lambda _client, _user, mid, reason, _more: self.answers.__setitem__(mid, str(reason))
        self._client.on_subscribe = self._on_subscribe
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 0
        self._client.connect_async("localhost", port, clean_start=False, properties=properties)
        self._client.loop_start()

    def __enter__(self) -> Self:
        wait_until(lambda: self.connected, what="connected")
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, _client, _user, _flags, reason, properties) -> None:
        self.max_packet = properties.MaximumPacketSize
        self.receive_maximum = properties.ReceiveMaximum
        self.connected = not reason.is_failure

    def _on_disconnect(self, *_: object) -> None:
        self.connected = False
        self.losses += 1

    def _on_subscribe(self, *_: object) -> None:
        self.subscribed += 1

    def subscribe(self, *filters: str) -> None:
        expected = self.subscribed + len(filters)
        for each in filters:
            self._client.subscribe(each, qos=1)
        wait_until(lambda: self.subscribed == expected, what=f"subscribed to {filters}")

    def publish(self, where: str, payload: bytes = b"x", *, retain: bool = False) -> str:
        """Return the broker's answer."""
        sent = self._client.publish(where, payload, qos=1, retain=retain)
        wait_until(lambda: sent.mid in self.answers, what=f"an answer to {where}")
        return self.answers[sent.mid]


def handshake(port: int, *, ca: Path, folder: Path | None = None, name: str = "device") -> str:
    """Return "accepted" when the broker takes the connection up to CONNACK, else TLS's reason."""
    context = ssl.create_default_context(cafile=str(ca))
    context.maximum_version = (
        ssl.TLSVersion.TLSv1_2
    )  # in 1.3 the client learns of its refusal after the handshake, or never
    if folder is not None:
        context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=DEADLINE_S) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            secure.sendall(CONNECT)
            return "accepted" if secure.recv(1) == b"\x20" else "closed"
    except ssl.SSLError as error:
        return str(error.reason)


# The keys and the files.


@needs_openssl
def test_a_device_gets_a_folder_and_a_tarball_that_edge_can_use(fleet: Path) -> None:
    folder = fleet / "devices/plant7/cam1"
    config = edge.config.read_config(folder / "edge.toml")
    assert (config.site, config.device) == ("plant7", "cam1")
    assert (config.mqtt.host, config.mqtt.port) == ("localhost", 8883)
    assert (config.mqtt.ca, config.mqtt.cert, config.mqtt.key) == tuple(
        folder / name for name in ("ca.crt", "device.crt", "device.key")
    )
    assert config.camera[0].source == "rtsp://user:pass@10.0.0.5/stream2"
    with tarfile.open(fleet / "devices/plant7/cam1.tar.gz") as tar:
        assert {member.name for member in tar} == {"ca.crt", "device.crt", "device.key", "edge.toml"}
        assert tar.getmember("device.key").mode == 0o600


@needs_openssl
def test_the_hub_gets_a_configuration_that_hub_can_use(fleet: Path) -> None:
    config = hub.config.read_config(fleet / "hub/hub.toml")
    assert (config.mqtt.host, config.mqtt.port) == ("localhost", 8884)
    assert all(path is not None and path.exists() for path in (config.mqtt.ca, config.mqtt.cert, config.mqtt.key))
    assert re.fullmatch("hub-[0-9a-f]{24}", config.mqtt.group), "the group's name is a secret"


@needs_openssl
def test_neither_side_keeps_a_session_so_that_a_reload_cannot_crash_mosquitto_2_0(fleet: Path) -> None:
    assert edge.config.read_config(fleet / "devices/plant7/cam1/edge.toml").mqtt.session_expiry_s == 0
    assert hub.config.read_config(fleet / "hub/hub.toml").mqtt.session_expiry_s == 0


@needs_openssl
def test_only_the_owner_reads_anything(fleet: Path) -> None:
    keys = list(fleet.rglob("*.key"))
    assert len(keys) == 6  # two authorities, broker, hub, two devices
    for path in fleet.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@needs_openssl
def test_certificates_are_what_they_should_be(fleet: Path) -> None:
    def shown(path: Path, *what: str) -> str:
        command = ["openssl", "x509", "-in", path, "-noout", *what]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    device = shown(fleet / "devices/plant7/cam1/device.crt", "-text")
    assert "Subject: CN = plant7:cam1" in device.replace("CN=", "CN = ")
    assert "TLS Web Client Authentication" in device
    assert "TLS Web Server Authentication" not in device, "a device cannot pose as the broker"
    broker = shown(fleet / "broker/broker.crt", "-text")
    assert "DNS:localhost, IP Address:127.0.0.1" in broker
    assert "TLS Web Server Authentication" in broker


@needs_openssl
def test_the_access_list_names_every_kind_of_the_topic_tree(fleet: Path) -> None:
    text = (fleet / "broker/acl").read_text()
    assert set(UP) | set(DOWN) == set(Kind), "a new kind of message needs its lines in enroll.sh and mosquitto/acl"
    for device in ("cam1", "cam2"):
        block = text.split(f"user plant7:{device}\n")[1].split("\nuser ")[0].split("\n")
        assert [line for line in block if line] == [
            *(f"topic write {topic('plant7', device, kind)}" for kind in UP),
            *(f"topic read {topic('plant7', device, kind)}" for kind in DOWN),
            f"topic read {site_policy_topic('plant7')}",
            f"topic write {discovery_topic('homeassistant', site='plant7', device=device)}",
        ]
    block = text.split("user hub\n")[1].split("\nuser ")[0].split("\n")
    assert [line for line in block if line and not line.startswith("#")] == [
        *(f"topic read {subscription(kind)}" for kind in UP),
        *(f"topic {'readwrite' if kind is Kind.ASSIGN else 'write'} {subscription(kind)}" for kind in DOWN),
        "topic write weakspot/1/+/policy",
    ]


@needs_openssl
def test_nothing_that_exists_is_overwritten(own_fleet: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in own_fleet.rglob("*") if path.is_file()}

    before = contents()
    enrolled("init", own_fleet)
    enrolled("init", own_fleet, "--broker", "elsewhere.example.org")
    again = enroll("device", own_fleet, "plant7", "cam1")
    assert (again.returncode, again.stderr) == (2, "enroll.sh: plant7 cam1 is enrolled already; revoke it first\n")
    assert contents() == before


@needs_openssl
def test_list_shows_the_devices_and_when_their_certificates_end(fleet: Path) -> None:
    lines = enroll("list", fleet).stdout.splitlines()
    assert [line.split(" until ")[0] for line in lines] == ["plant7 cam1", "plant7 cam2"]
    assert all(re.search(r"until \w{3} +\d+ [\d:]+ \d{4} GMT", line) for line in lines)


@needs_openssl
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frob"], "unknown command 'frob'"),
        (["init"], "too few arguments"),
        (["init", "--broker", "b"], "the first argument of init is the folder"),
        (["init", "{new}"], "say under which name the broker is reached"),
        (["init", "{new}", "--broker", "a b"], "'a b' is not a host name"),
        (["device", "{new}", "s", "d"], "is not a fleet"),
        (["device", "{fleet}", "s"], "too few arguments"),
        (["device", "{fleet}", "a/b", "d"], "SITE 'a/b' is not usable"),
        (["device", "{fleet}", "s", "+"], "DEVICE '+' is not usable"),
        (["device", "{fleet}", "s" * 40, "d" * 24], "together may have 63 characters"),
        (["device", "{fleet}", "s", "d", "--camera", "it's"], "may not be empty or have quotes"),
        (["device", "{fleet}", "s", "d", "--color", "x"], "unknown argument '--color'"),
        (["revoke", "{fleet}", "s", "d"], "no device s d"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(
    fleet: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = enroll(*(each.format(fleet=fleet, new=tmp_path / "new") for each in arguments))
    assert done.returncode == 2
    assert done.stdout == ""
    assert re.fullmatch(r"enroll\.sh: .*" + re.escape(message) + r".*\n", done.stderr), done.stderr
    assert not (tmp_path / "new").exists()
    assert not (fleet / "devices/s").exists()


def test_help_teaches() -> None:
    for arguments in (["--help"], ["device", "--help"]):
        done = enroll(*arguments)
        assert done.returncode == 0
        assert all(word in done.stdout for word in ("init", "device", "revoke", "list", "README.md"))


# The broker.


@needs_openssl
@pytest.mark.broker
def test_a_device_reports_and_the_hub_answers(fleet: Path, fleet_broker: FleetBroker) -> None:
    group = hub.config.read_config(fleet / "hub/hub.toml").mqtt.group
    with (
        Client(fleet / "hub", fleet_broker.hub_port) as centre,
        Client(fleet / "devices/plant7/cam1", fleet_broker.port) as device,
    ):
        centre.subscribe(*(subscription(kind, group=group) for kind in UP))
        device.subscribe(*(topic("plant7", "cam1", kind) for kind in DOWN))
        for kind in UP:
            assert device.publish(topic("plant7", "cam1", kind), kind.encode()) == "Success"
        wait_until(lambda: len(centre.heard) == len(UP))
        assert {(where, what.decode()) for where, what in centre.heard} == {
            (topic("plant7", "cam1", kind), kind.value) for kind in UP
        }
        for kind in DOWN:
            assert centre.publish(topic("plant7", "cam1", kind)) == "Success"
        wait_until(lambda: len(device.heard) == len(DOWN))


@needs_openssl
@pytest.mark.broker
def test_a_policy_waits_at_the_broker_for_the_devices_of_its_site_alone(own_fleet: Path) -> None:
    enrolled("device", own_fleet, "plant8", "cam1")
    both = (site_policy_topic("plant7"), topic("plant7", "cam1", Kind.POLICY))
    with FleetBroker(own_fleet) as broker, Client(own_fleet / "hub", broker.hub_port) as centre:
        for where in (*both, site_policy_topic("plant8")):
            assert centre.publish(where, where.encode(), retain=True) in ("Success", "No matching subscribers")
        with (
            Client(own_fleet / "devices/plant7/cam1", broker.port) as device,
            Client(own_fleet / "devices/plant7/cam2", broker.port) as other,
            Client(own_fleet / "devices/plant8/cam1", broker.port) as elsewhere,
        ):
            for spy in (device, other, elsewhere):  # each tries to hear all of them
                spy.subscribe(*both, site_policy_topic("plant8"), "weakspot/1/+/policy")
            for spy in (device, other, elsewhere):  # what comes after the retained messages of a subscription
                spy.subscribe("weakspot/1/plant8/policy" if spy is elsewhere else both[0])
            wait_until(lambda: len(elsewhere.heard) >= 2 and len(other.heard) >= 2 and len(device.heard) >= 3)
            assert {where for where, _ in device.heard} == set(both)
            assert {where for where, _ in other.heard} == {both[0]}
            assert {where for where, _ in elsewhere.heard} == {site_policy_topic("plant8")}


@needs_openssl
@pytest.mark.broker
def test_nobody_writes_what_is_not_his(fleet: Path, fleet_broker: FleetBroker) -> None:
    with (
        Client(fleet / "hub", fleet_broker.hub_port) as centre,
        Client(fleet / "devices/plant7/cam1", fleet_broker.port) as device,
    ):
        centre.subscribe("#")
        foreign = [topic("plant7", "cam2", kind) for kind in Kind]  # as another device
        foreign += [topic("plant7", "cam1", kind) for kind in DOWN]  # as the hub
        foreign += [
            discovery_topic("homeassistant", site="plant7", device="cam2"),
            site_policy_topic("plant7"),
            site_policy_topic("plant8"),
            "weakspot/1/plant7/cam1/elsewhere",
            "weakspot/1/plant7:cam1/event",
            "elsewhere",
        ]
        refusals = {where: device.publish(where) for where in foreign}
        assert set(refusals.values()) == {"Not authorized"}, refusals
        for kind in UP:
            assert centre.publish(topic("plant7", "cam1", kind)) == "Not authorized"
        assert device.publish(topic("plant7", "cam1", Kind.EVENT), b"last") == "Success"
        wait_until(lambda: centre.heard)
        assert [what for _, what in centre.heard] == [b"last"]


@needs_openssl
@pytest.mark.broker
@pytest.mark.parametrize("spy", ["weakspot/1/plant7/cam2/want", "weakspot/1/+/+/want", "weakspot/#", "#"])
def test_a_device_does_not_hear_another(fleet: Path, fleet_broker: FleetBroker, spy: str) -> None:
    with (
        Client(fleet / "hub", fleet_broker.hub_port) as centre,
        Client(fleet / "devices/plant7/cam1", fleet_broker.port) as device,
        Client(fleet / "devices/plant7/cam2", fleet_broker.port) as other,
    ):
        device.subscribe(spy, topic("plant7", "cam1", Kind.ACK))
        other.subscribe(topic("plant7", "cam2", Kind.WANT))
        centre.publish(topic("plant7", "cam2", Kind.WANT), b"for cam2")
        centre.publish(topic("plant7", "cam1", Kind.ACK), b"for cam1")  # a broker keeps the order of one connection
        wait_until(lambda: device.heard and other.heard)
        assert {what for _, what in device.heard} == {b"for cam1"}
        assert [what for _, what in other.heard] == [b"for cam2"]


@needs_openssl
@pytest.mark.broker
def test_a_device_cannot_take_a_share_of_the_hubs_messages(fleet: Path, fleet_broker: FleetBroker) -> None:
    group = hub.config.read_config(fleet / "hub/hub.toml").mqtt.group
    with (
        Client(fleet / "hub", fleet_broker.hub_port) as centre,
        Client(fleet / "devices/plant7/cam1", fleet_broker.port) as device,
        Client(fleet / "devices/plant7/cam2", fleet_broker.port) as thief,
    ):
        centre.subscribe(subscription(Kind.EVENT, group=group))
        thief.subscribe(subscription(Kind.EVENT, group="hub"), subscription(Kind.EVENT))
        for number in range(20):
            assert device.publish(topic("plant7", "cam1", Kind.EVENT), b"%d" % number) == "Success"
        wait_until(lambda: len(centre.heard) == 20, what="all 20")
        assert thief.heard == []


@needs_openssl
@pytest.mark.broker
def test_a_client_id_is_no_way_to_throw_another_device_out(fleet: Path, fleet_broker: FleetBroker) -> None:
    with (
        Client(fleet / "devices/plant7/cam1", fleet_broker.port, client_id="same") as device,
        Client(fleet / "devices/plant7/cam2", fleet_broker.port, client_id="same") as other,
    ):
        assert device.publish(topic("plant7", "cam1", Kind.FRAME)) in ("Success", "No matching subscribers")
        assert other.publish(topic("plant7", "cam2", Kind.FRAME)) in ("Success", "No matching subscribers")
        assert (device.losses, other.losses) == (0, 0)


@needs_openssl
@pytest.mark.broker
def test_the_limits_leave_room_for_what_both_sides_send(fleet: Path, fleet_broker: FleetBroker) -> None:
    with Client(fleet / "devices/plant7/cam1", fleet_broker.port) as device:
        assert device.max_packet >= 120_000 + MAX_HEADER_BYTES + 1024
        assert device.receive_maximum >= hub.config.MqttConfig().receive_maximum


@needs_openssl
@pytest.mark.broker
def test_the_door_opens_to_the_right_certificates_only(fleet: Path, fleet_broker: FleetBroker, tmp_path: Path) -> None:
    enrolled("init", tmp_path / "stranger", "--broker", "localhost")
    enrolled("device", tmp_path / "stranger", "plant7", "cam1")
    ca, device, stranger = fleet / "ca/ca.crt", fleet / "devices/plant7/cam1", tmp_path / "stranger"

    assert handshake(fleet_broker.port, ca=ca, folder=device) == "accepted"
    assert handshake(fleet_broker.hub_port, ca=ca, folder=fleet / "hub", name="hub") == "accepted"
    # no certificate, another fleet's, the other door's, the broker's own
    refused = [
        handshake(fleet_broker.port, ca=ca),
        handshake(fleet_broker.hub_port, ca=ca),
        handshake(fleet_broker.port, ca=ca, folder=stranger / "devices/plant7/cam1"),
        handshake(fleet_broker.hub_port, ca=ca, folder=stranger / "hub", name="hub"),
        handshake(fleet_broker.hub_port, ca=ca, folder=device),
        handshake(fleet_broker.port, ca=ca, folder=fleet / "hub", name="hub"),
        handshake(fleet_broker.port, ca=ca, folder=fleet / "broker", name="broker"),
    ]
    assert all("ALERT" in each for each in refused), refused
    # a device does not talk to a broker of another authority
    assert handshake(fleet_broker.port, ca=stranger / "ca/ca.crt", folder=device) == "CERTIFICATE_VERIFY_FAILED"


@needs_openssl
@pytest.mark.broker
def test_a_new_device_is_let_in_by_a_reload_that_disturbs_nobody(own_fleet: Path) -> None:
    with (
        FleetBroker(own_fleet) as broker,
        Client(own_fleet / "hub", broker.hub_port) as centre,
        Client(own_fleet / "devices/plant7/cam1", broker.port) as device,
    ):
        device.subscribe(topic("plant7", "cam1", Kind.WANT))
        centre.subscribe(subscription(Kind.EVENT))
        enrolled("device", own_fleet, "plant8", "cam1")
        with Client(own_fleet / "devices/plant8/cam1", broker.port) as early:
            assert early.publish(topic("plant8", "cam1", Kind.EVENT)) == "Not authorized"
        broker.reload()
        with Client(own_fleet / "devices/plant8/cam1", broker.port) as new:
            assert new.publish(topic("plant8", "cam1", Kind.EVENT)) == "Success"
        assert device.publish(topic("plant7", "cam1", Kind.EVENT)) == "Success"
        centre.publish(topic("plant7", "cam1", Kind.WANT))
        wait_until(lambda: device.heard and len(centre.heard) == 2)
        assert (device.losses, centre.losses) == (0, 0)


@needs_openssl
@pytest.mark.broker
def test_a_revoked_device_has_no_rights_after_a_reload_and_does_not_come_back(own_fleet: Path, tmp_path: Path) -> None:
    lost = shutil.copytree(own_fleet / "devices/plant7/cam1", tmp_path / "lost")
    ca = own_fleet / "ca/ca.crt"
    with FleetBroker(own_fleet) as broker:
        with (
            Client(own_fleet / "hub", broker.hub_port) as centre,
            Client(lost, broker.port) as device,
            Client(own_fleet / "devices/plant7/cam2", broker.port) as other,
        ):
            device.subscribe(topic("plant7", "cam1", Kind.WANT))
            other.subscribe(topic("plant7", "cam2", Kind.WANT))
            enrolled("revoke", own_fleet, "plant7", "cam1")
            broker.reload()
            # still connected, without a right
            assert device.publish(topic("plant7", "cam1", Kind.EVENT)) == "Not authorized"
            centre.publish(topic("plant7", "cam1", Kind.WANT))
            centre.publish(topic("plant7", "cam2", Kind.WANT))
            wait_until(lambda: other.heard)
            assert device.heard == []
        assert "REVOKED" in handshake(broker.port, ca=ca, folder=lost)
        broker.stop()
        broker.start()
        assert "REVOKED" in handshake(broker.port, ca=ca, folder=lost)
        assert handshake(broker.port, ca=ca, folder=own_fleet / "devices/plant7/cam2") == "accepted"

        # the name comes back with a new key; the old key stays out
        enrolled("device", own_fleet, "plant7", "cam1")
        broker.reload()
        assert "REVOKED" in handshake(broker.port, ca=ca, folder=lost)
        with Client(own_fleet / "devices/plant7/cam1", broker.port) as again:
            assert again.publish(topic("plant7", "cam1", Kind.EVENT)) == "No matching subscribers"


@needs_openssl
@pytest.mark.broker
def test_many_reloads_and_reconnects_leave_the_broker_alive(fleet: Path) -> None:
    # mosquitto 2.0.11 dies here within ten rounds when the clients keep sessions
    with FleetBroker(fleet) as broker, Client(fleet / "hub", broker.hub_port) as centre:
        for _ in range(15):
            with Client(fleet / "devices/plant7/cam1", broker.port) as device:
                broker.reload()
                device.publish(topic("plant7", "cam1", Kind.EVENT))
            broker.reload()
        assert broker.alive
        assert centre.losses == 0


# The units and the images.


@contextmanager
def only_in(folder: Path, text: str, name: str) -> Iterator[Path]:
    path = folder / name
    path.write_text(text)
    yield path


def unit(name: str) -> RawConfigParser:
    parser = RawConfigParser(strict=False, interpolation=None, comment_prefixes=("#",), delimiters=("=",))
    parser.optionxform = str
    parser.read(DEPLOY / f"systemd/weakspot-{name}.service")
    return parser


def require_command(words: list[str]) -> None:
    """The command line is one that this version's `edge` or `hub` takes."""
    name, *rest = words
    script = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]["scripts"][Path(name).name]
    app = {"edge.cli:main": edge.cli.app, "hub.cli:main": hub.cli.app}[script]
    group = typer.main.get_command(app)
    command = group.commands.get(rest[0])
    assert command is not None, f"there is no command `{Path(name).name} {rest[0]}`"
    command.make_context(rest[0], list(rest[1:]), resilient_parsing=False)


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_starts_a_command_that_exists_with_files_that_enroll_writes(name: str) -> None:
    service = unit(name)["Service"]
    words = shlex.split(service["ExecStart"])
    require_command(words)
    assert words[0] == f"/opt/weakspot/bin/{name}"
    assert words[-1] == f"/etc/weakspot-{name}/{name}.toml"
    assert service["StateDirectory"] == service["User"] == f"weakspot-{name}"
    assert f"u weakspot-{name} " in (DEPLOY / "systemd/weakspot.sysusers.conf").read_text()
    assert f'"/var/lib/weakspot-{name}' in (DEPLOY / "enroll.sh").read_text()


@pytest.mark.parametrize("name", UNITS)
def test_systemd_finds_no_fault_with_a_unit(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    text = (DEPLOY / f"systemd/weakspot-{name}.service").read_text()
    with only_in(tmp_path, text.replace(f"/opt/weakspot/bin/{name}", "/bin/true"), f"weakspot-{name}.service") as path:
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", path], capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("dockerfile", "name"), [("Dockerfile", "edge"), ("Dockerfile.jetson", "edge"), ("Dockerfile.hub", "hub")]
)
def test_an_image_starts_commands_that_exist_from_files_that_exist(dockerfile: str, name: str) -> None:
    text = (DEPLOY / "docker" / dockerfile).read_text()
    run = json.loads(re.findall(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)[-1])
    run += json.loads(re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)[-1])
    assert run[-1] == f"/etc/weakspot-{name}/{name}.toml"
    require_command(run)
    for health in re.findall(r"^HEALTHCHECK .*\\\n +CMD (.*?) \|", text, re.MULTILINE):
        require_command(shlex.split(health))
    allowed = (DEPLOY / "docker" / f"{dockerfile}.dockerignore").read_text().splitlines()
    copied = [
        source for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for source in line.split()
    ]
    for source in copied:
        assert (DEPLOY.parent / source).exists(), source
        assert f"!{source}" in allowed
    setuptools = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["tool"]["setuptools"]
    for path in [path for paths in setuptools["data-files"].values() for path in paths]:
        assert any(path.startswith(f"{source}/") for source in copied), f"pip needs {path} to build the package"


# Releases and rollouts from a laptop.


ROLLOUT = DEPLOY / "rollout.sh"


def fake(folder: Path, name: str, script: str) -> Path:
    """A command of this name that writes down how it was called, then runs the script."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nfor word; do printf "%s\\n" "$word"; done >>"{folder}/{name}.called"\n{script}\n')
    path.chmod(0o755)
    return path


def rollout(bin_folder: Path, *arguments: object, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    env = {"PATH": f"{bin_folder}:/usr/bin:/bin"}
    command = ["/bin/sh", str(ROLLOUT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=cwd)


@pytest.fixture
def commands(tmp_path: Path) -> Path:
    """`ssh`, which runs its command in a shell here, and `sudo`, which drops who."""
    folder = tmp_path / "bin"
    folder.mkdir()
    fake(folder, "ssh", 'shift 2; sh -c "$*"')
    fake(folder, "sudo", 'shift 2; [ "$1" = /opt/weakspot/bin/hub ] && shift && exec hub "$@"')
    return folder


@pytest.mark.parametrize("on", [(), ("--on", "hub.example.org")])
@pytest.mark.parametrize("status", [0, 1, 2])
def test_start_begins_a_rollout_follows_it_and_ends_as_it_ends(
    commands: Path, on: tuple[str, ...], status: int
) -> None:
    says = 'echo "next: hub rollout status street"'
    fake(commands, "hub", f"case $2 in start) {says} ;; status) exit {status} ;; esac")
    done = rollout(commands, *on, "start", "street/12", "--label", "it's a gate; $(id)", "--bake", "0")
    assert done.returncode == status, done.stderr
    called = (commands / "hub.called").read_text().splitlines()
    config = ["--config", "/etc/weakspot-hub/hub.toml"] if on else []
    assert called == [
        *["rollout", "start", "street/12", "--label", "it's a gate; $(id)", "--bake", "0", *config],
        *["rollout", "status", "street", "--wait", *config],
    ]


def test_what_it_calls_is_what_hub_takes() -> None:
    group = typer.main.get_command(hub.cli.app).commands["rollout"]
    for name in ("start", "status", "halt", "resume", "rollback"):
        assert name in group.commands
    group.commands["start"].make_context("start", ["street/12", "--label", "gate", "--config", "x"])
    group.commands["status"].make_context("status", ["street", "--wait", "--config", "x"])


@pytest.mark.parametrize(
    ("word", "called"), [("halt", "halt"), ("resume", "resume"), ("back", "rollback"), ("follow", "status")]
)
def test_every_word_calls_its_command(commands: Path, word: str, called: str) -> None:
    fake(commands, "hub", "exit 0")
    assert rollout(commands, word, "street").returncode == 0
    assert (commands / "hub.called").read_text().splitlines()[1:3] == [called, "street"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frob"], "unknown command 'frob'"),
        (["start"], "start takes a RELEASE"),
        (["--on", "a b", "halt"], "'a b' is not a host"),
        (["--on"], "--on takes a HOST"),
        (["publish", "nowhere", "there"], "nowhere is not a repository"),
        (["publish", "nowhere"], "publish takes REPOSITORY and TARGET"),
        (["halt"], "there is no command `hub` here"),
    ],
)
def test_a_mistake_with_a_rollout_is_one_line(commands: Path, arguments: list[str], said: str) -> None:
    done = rollout(commands, *arguments, cwd=commands)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"rollout\.sh: .*" + re.escape(said) + r".*\n", done.stderr), done.stderr


def test_a_host_that_ssh_does_not_reach_is_said(commands: Path) -> None:
    fake(commands, "ssh", "exit 255")
    done = rollout(commands, "--on", "gone.example.org", "halt")
    assert (done.returncode, done.stderr) == (2, "rollout.sh: ssh does not reach gone.example.org\n")


def made_repository(folder: Path, *, version: int) -> Path:
    for name, content in {
        "targets/street/aa.000011.tar": "eleven",
        f"targets/street/bb.{version:06d}.tar": f"number {version}",
        "metadata/1.root.json": "root",
        f"metadata/{version}.targets.json": "targets",
        f"metadata/{version}.snapshot.json": "snapshot",
        "metadata/timestamp.json": f"timestamp {version}",
    }.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("remote", [False, True])
def test_publish_copies_what_is_new_and_names_it_last(commands: Path, tmp_path: Path, remote: bool) -> None:
    target = tmp_path / "served here"
    fake(commands, "mv", 'exec /bin/mv "$@"')
    place = f"web.example.org:{target}" if remote else str(target)
    repository = made_repository(tmp_path / "repository", version=12)
    assert rollout(commands, "publish", repository, place).returncode == 0
    assert contents(target) == contents(repository)
    (commands / "mv.called").unlink()
    made_repository(repository, version=13)
    done = rollout(commands, "publish", repository, place)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(target) == contents(repository)
    moved = [word for word in (commands / "mv.called").read_text().splitlines() if word.startswith("../")]
    assert moved[0] == "../targets/street/bb.000013.tar", "what was there is not sent again"
    assert moved[-1] == "../metadata/timestamp.json"


def refreshed_while_read(commands: Path, repository: Path, *, times: int) -> None:
    """`hub repository refresh` runs while tar has read the folder and not yet timestamp.json, so often."""
    fake(
        commands,
        "tar",
        f"""
        case "$*" in *' -cf '*) ;; *) exec /bin/tar "$@" ;; esac
        count=$(cat "{commands}/count" 2>/dev/null || echo 0)
        [ "$count" -lt {times} ] || exec /bin/tar "$@"
        echo $((count + 1)) >"{commands}/count"
        cd "$2"
        /bin/tar --exclude=timestamp.json "$@" || exit
        version=$((13 + count))
        echo snapshot >"{repository}/metadata/$version.snapshot.json"
        echo "timestamp $version" >"{repository}/metadata/timestamp.json"
        exec /bin/tar -C "{repository}" -rf "$6" metadata/timestamp.json
        """,
    )


@pytest.mark.parametrize("times", [1, 2])
def test_a_repository_that_is_refreshed_while_it_is_read_is_published_whole(
    commands: Path, tmp_path: Path, times: int
) -> None:
    target = tmp_path / "served"
    repository = made_repository(tmp_path / "repository", version=12)
    refreshed_while_read(commands, repository, times=times)
    done = rollout(commands, "publish", repository, target)
    assert (done.returncode, done.stderr) == (0, "")
    assert (target / "metadata/timestamp.json").read_text() == f"timestamp {12 + times}\n"
    assert contents(target) == contents(repository)


def test_a_repository_that_changes_all_the_time_is_not_published(commands: Path, tmp_path: Path) -> None:
    target = tmp_path / "served"
    repository = made_repository(tmp_path / "repository", version=12)
    assert rollout(commands, "publish", repository, target).returncode == 0
    before = (target / "metadata/timestamp.json").read_text()
    refreshed_while_read(commands, repository, times=9)
    done = rollout(commands, "publish", repository, target)
    assert (done.returncode, done.stderr) == (2, f"rollout.sh: cannot read {repository}, or it changes all the time\n")
    assert (target / "metadata/timestamp.json").read_text() == before


def test_what_is_being_written_is_not_published(commands: Path, tmp_path: Path) -> None:
    target = tmp_path / "served"
    repository = made_repository(tmp_path / "repository", version=12)
    whole = contents(repository)
    for part in ("metadata/.13.snapshot.json.part", "targets/street/.cc.000013.tar.part"):
        (repository / part).write_text("half")
    assert rollout(commands, "publish", repository, target).returncode == 0
    assert contents(target) == whole


def test_a_publish_that_is_cut_off_changes_nothing_and_is_repeated(commands: Path, tmp_path: Path) -> None:
    target = tmp_path / "served"
    repository = made_repository(tmp_path / "repository", version=12)
    assert rollout(commands, "publish", repository, target).returncode == 0
    before = contents(target)
    made_repository(repository, version=13)
    fake(commands, "mv", "exit 1")  # the disk is full
    done = rollout(commands, "publish", repository, target)
    assert done.returncode == 2
    assert (target / "metadata/timestamp.json").read_text() == before["metadata/timestamp.json"]
    (commands / "mv").unlink()
    assert rollout(commands, "publish", repository, target).returncode == 0
    assert contents(target) == contents(repository)
