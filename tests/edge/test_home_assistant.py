"""Home Assistant discovery: the message against Home Assistant's rules, its templates against what a device says."""

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jinja2.sandbox import ImmutableSandboxedEnvironment
from paho.mqtt.enums import CallbackAPIVersion

from edge.config import CameraConfig, EdgeConfig, HomeAssistantConfig, MqttConfig, parse_config
from edge.contract.status import CameraHealth, Heartbeat, SpoolHealth, State, encode
from edge.home_assistant import components, discovery_payload, discovery_topic, joined, open_announcement, plan
from edge.publisher import Identity, Publisher
from edge.spool import Spool
from tests.brokers import DEADLINE_S, Broker, broker, wait_until  # noqa: F401
from tests.edge.clips import write_clip
from tests.edge.hub_stand_in import HubStandIn

ROOT = Path(__file__).resolve().parents[2]
NAMES = st.builds("{}{}".format, st.sampled_from("ad0uZ"), st.text("ad0uZ_.-", max_size=6))
WHERE = "homeassistant/device/weakspot__yard__gate/config"
STATE = "weakspot/1/yard/gate/state"
HEARTBEAT = "weakspot/1/yard/gate/heartbeat"
# What Home Assistant's documentation and its schemas (2024.11 to 2026.1) say of the keys used here.
ID = re.compile(r"[a-zA-Z0-9_-]+")
KEYS = {"p", "unique_id", "name", "icon", "device_class", "entity_category", "state_topic", "value_template"}
KEYS_OF = {
    "sensor": KEYS | {"availability", "expire_after", "unit_of_measurement", "state_class"},
    "binary_sensor": KEYS | {"availability", "expire_after"},
    "update": KEYS | {"availability", "title"},
}
CLASSES_OF = {"sensor": {"duration"}, "binary_sensor": {"connectivity", "problem"}, "update": set[str]()}
UNITS_OF = {"duration": {"d", "h", "min", "s", "ms"}}


def config_of(*cameras: str, on: bool = True, prefix: str = "homeassistant", folder: Path = Path("data")) -> EdgeConfig:
    return EdgeConfig(
        site="yard",
        device="gate",
        data_dir=folder,
        mqtt=MqttConfig(heartbeat_s=10.5),
        camera=tuple(CameraConfig(name=name, source="clip.avi") for name in cameras),
        home_assistant=HomeAssistantConfig(discovery=on, prefix=prefix),
    )


def require_taken(payload: bytes) -> dict[str, dict[str, Any]]:
    """Fail where Home Assistant would refuse the message or ignore a part of it; return each entity as it is merged."""
    message = json.loads(payload)
    assert set(message) == {"dev", "o", "cmps", "state_topic", "availability"}
    assert set(message["dev"]) <= {"ids", "name", "mf", "mdl", "sw"}
    assert message["dev"]["ids"]
    assert message["o"]["name"]
    entities = {}
    for key, one in message["cmps"].items():
        assert ID.fullmatch(key)
        if set(one) == {"p"}:  # to be removed
            continue
        shared = {name: message[name] for name in ("state_topic", "availability")}
        entity = entities[key] = shared | one
        assert set(entity) <= KEYS_OF[entity["p"]], f"{key}: ignored keys"
        assert {"unique_id", "name", "state_topic", "value_template"} <= set(entity)
        assert not set("+#") & set(entity["state_topic"])
        assert entity.get("device_class") in {None, *CLASSES_OF[entity["p"]]}
        assert entity.get("entity_category") in {None, "diagnostic"}
        assert entity.get("state_class") in {None, "measurement"}
        assert entity.get("icon", "mdi:x").startswith("mdi:")
        assert isinstance(entity.get("expire_after", 0), int)
        assert entity.get("unit_of_measurement") in UNITS_OF.get(
            entity.get("device_class"), {entity.get("unit_of_measurement")}
        )
        for each in entity["availability"]:
            assert set(each) == {"topic", "value_template"}
    ids = [entity["unique_id"] for entity in entities.values()]
    assert len(set(ids)) == len(ids)
    return entities


def shown(template: str, payload: bytes) -> str:
    """Render as Home Assistant does: in a sandbox, with the payload's JSON as `value_json`, and stripped."""
    rendered = ImmutableSandboxedEnvironment().from_string(template).render(value_json=json.loads(payload))
    return rendered.strip()


class HomeAssistant:
    """What Home Assistant knows: it obeys the retained message on `WHERE` and reads the topics it is pointed to."""

    def __init__(self, port: int) -> None:
        self.last: dict[str, bytes] = {}
        self._client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(t, 1) for t in ("homeassistant/#", "weakspot/#")]
        )
        last = self.last
        self._client.on_message = lambda _client, _user, message: last.update({message.topic: message.payload})
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def states(self) -> dict[str, str]:
        """Return each entity with its state; what has no message yet is "unknown"."""
        states = {}
        for key, entity in require_taken(self.last[WHERE]).items():
            online = [
                shown(a["value_template"], self.last.get(a["topic"], b'{"online": false}'))
                for a in entity["availability"]
            ]
            message = self.last.get(entity["state_topic"])
            if online not in ([], ["online"]):
                states[key] = "unavailable"
            else:
                states[key] = "unknown" if message is None else shown(entity["value_template"], message)
        return states


@pytest.fixture
def home(broker: Broker) -> Iterator[HomeAssistant]:  # noqa: F811
    with closing(HomeAssistant(broker.port)) as opened:
        yield opened


@given(st.lists(NAMES, min_size=1, max_size=4), st.lists(NAMES, min_size=1, max_size=4))
def test_two_different_names_never_give_one_id(one: list[str], other: list[str]) -> None:
    assert (joined(*one) == joined(*other)) == (one == other)
    assert ID.fullmatch(joined(*one))


@given(st.permutations(["._-"[i % 3] for i in range(6)]), st.permutations(["._-"[i % 3] for i in range(6)]))
def test_nor_do_names_of_nothing_but_dots_and_dashes(one: list[str], other: list[str]) -> None:
    assert (joined("a" + "".join(one), "b") == joined("a" + "".join(other), "b")) == (one == other)


@given(st.lists(NAMES, min_size=1, max_size=4, unique=True), NAMES, NAMES)
def test_home_assistant_takes_the_message_of_any_device(cameras: list[str], site: str, device: str) -> None:
    config = msgspec.structs.replace(config_of(*cameras), site=site, device=device)
    entities = require_taken(discovery_payload(config, version="1", gone={"old": "sensor"}))
    assert len(entities) == 5 + 4 * len(cameras)
    assert discovery_payload(config, version="1", gone={}) == discovery_payload(config, version="1", gone={})
    expiring = {key: one for key, one in entities.items() if one["state_topic"].endswith("heartbeat")}
    assert {one["expire_after"] for one in expiring.values()} == {32}  # three heartbeats of 10.5 s, rounded up
    assert not any("expire_after" in one for key, one in entities.items() if key not in expiring), "state is retained"
    levels = discovery_topic("homeassistant", site=site, device=device).split("/")
    assert (levels[:2], levels[3:]) == (["homeassistant", "device"], ["config"])
    assert ID.fullmatch(levels[2])


@pytest.mark.parametrize(
    ("state", "restarts", "problem"),
    [
        ("running", 0, "OFF"),
        ("running", 3, "OFF"),  # back again
        ("ended", 0, "OFF"),  # a recording at its end
        ("connecting", 0, "None"),  # at the start nobody knows: Home Assistant shows "unknown"
        ("connecting", 1, "ON"),  # between two attempts it is still lost
        ("lost", 0, "ON"),
        ("frozen", 0, "ON"),  # a state that came later is a problem until said otherwise
    ],
)
def test_a_cameras_health(state: str, restarts: int, problem: str) -> None:
    entities = require_taken(discovery_payload(config_of("a.b", "a-b"), version="1", gone={}))
    other = CameraHealth(name="a-b", state="lost", frames=0, fps=0, restarts=9, frame_age_s=None, detect_ms=0)
    camera = CameraHealth(name="a.b", state=state, frames=7, fps=4.5, restarts=restarts, frame_age_s=0.25, detect_ms=9)
    beat = encode(
        Heartbeat(
            boot_id="b",
            at_ms=1,
            uptime_s=1,
            model="m",
            cameras=(other, camera),
            spool=SpoolHealth(samples=5, unsent=3, bytes=1, limit_bytes=2),
            findings={},
            dropped={},
            bytes_up=0,
            findings_day=12,
        )
    )

    def value(key: str) -> str:
        return shown(entities[key]["value_template"], beat)

    assert [value(f"camera__a_db__{key}") for key in ("problem", "state", "fps", "frame_age")] == [
        problem,
        state,
        "4.5",
        "0.25",
    ]
    assert [value(f"camera__a-b__{key}") for key in ("problem", "frame_age")] == ["ON", "None"]
    assert (value("findings_day"), value("unsent")) == ("12", "3")


def test_the_model_is_installed_and_the_latest() -> None:
    update = components(config_of("front"))["update"]
    state = State(boot_id="b", online=True, at_ms=1, model="a \"quoted\" <model> & 'more'", version="1")
    versions = json.loads(shown(update["value_template"], encode(state)))
    assert versions == {"installed_version": state.model, "latest_version": state.model}
    assert "command_topic" not in update, "nothing can be installed from there"


OLD = {"homeassistant/device/weakspot__yard__gate/config": {"model": "sensor", "camera__back__fps": "sensor"}}
ELSEWHERE = {"ha/device/weakspot__yard__gate/config": {"model": "sensor"}}


@pytest.mark.parametrize(
    ("on", "told", "topics", "gone"),
    [
        (False, {}, [], None),  # never asked for: nothing is written anywhere
        (True, {}, [WHERE], {}),
        (True, OLD, [WHERE], {"camera__back__fps": {"p": "sensor"}}),  # a camera was taken out
        (False, OLD, [WHERE], None),  # turned off: the device goes
        (True, ELSEWHERE, [WHERE, *ELSEWHERE], {}),  # another prefix: the device moves
        (False, OLD | ELSEWHERE, [WHERE, *ELSEWHERE], None),
    ],
)
def test_what_is_told(on: bool, told: dict, topics: list[str], gone: dict | None) -> None:
    config = config_of("front", on=on)
    messages, goal = plan(config, version="1", told=told)
    assert [message.topic for message in messages] == topics
    for message in messages:
        if gone is None or message.topic != WHERE:
            assert message.payload == b""
        else:
            sent = json.loads(message.payload)["cmps"]
            assert {key: one for key, one in sent.items() if len(one) == 1} == gone
            assert goal == {WHERE: {key: one["p"] for key, one in sent.items() if len(one) > 1}}
    assert bool(goal) is on
    again, _ = plan(config, version="1", told=goal)
    assert [m.topic for m in again] == ([WHERE] if on else []), "once told, nothing is left to take back"


def test_what_the_broker_has_not_confirmed_is_still_to_be_taken_back(tmp_path: Path) -> None:
    note = tmp_path / "home-assistant.json"
    open_announcement(config_of("front", "back", folder=tmp_path), version="1")
    assert "camera__back__fps" in note.read_text(), "noted before anything was sent"
    for _ in range(2):  # two starts without a connection
        announcement = open_announcement(config_of("front", folder=tmp_path), version="1")
        assert json.loads(announcement._messages[0].payload)["cmps"]["camera__back__fps"] == {"p": "sensor"}
    off = open_announcement(config_of("front", on=False, folder=tmp_path), version="1")
    assert [m.payload for m in off._messages] == [b""]
    assert note.exists()


@pytest.mark.parametrize("broken", [b"", b"[]", b"\xff", b'{"a": 1}'])
def test_a_broken_note_is_no_reason_to_stand_still(tmp_path: Path, broken: bytes, caplog) -> None:
    (tmp_path / "home-assistant.json").write_bytes(broken)
    announcement = open_announcement(config_of("front", folder=tmp_path), version="1")
    assert [m.topic for m in announcement._messages] == [WHERE]
    assert "cannot be read" in caplog.text


def test_nor_is_a_folder_that_cannot_be_written(tmp_path: Path, caplog) -> None:
    announcement = open_announcement(config_of("front", folder=tmp_path / "none"), version="1")
    assert [m.topic for m in announcement._messages] == [WHERE]
    assert "cannot be noted" in caplog.text


@pytest.fixture
def publish(tmp_path: Path) -> Iterator[Callable[..., Publisher]]:
    """Start a publisher with the announcement of a configuration; it is stopped at the end of the test."""
    with ExitStack() as stack:
        spool = stack.enter_context(closing(Spool(tmp_path / "spool.db", limit_bytes=10**8, reserve_bytes=100_000)))

        def start(port: int, *cameras: str, on: bool = True) -> Publisher:
            publisher = Publisher(
                MqttConfig(host="127.0.0.1", port=port, keepalive_s=5),
                spool=spool,
                identity=Identity(site="yard", device="gate", boot_id="b", model="m", version="1"),
                upload_all=False,
                announcement=open_announcement(config_of(*cameras, on=on, folder=tmp_path), version="1"),
                rng=random.Random(0),
            )
            publisher.start()
            stack.callback(lambda: publisher.alive and publisher.stop(grace_s=0.0))
            return publisher

        yield start


@pytest.mark.broker
def test_nobody_listening_is_no_fault_and_a_restarted_broker_hears_it_again(broker, publish) -> None:  # noqa: F811
    with closing(HubStandIn(broker.port)) as hub:  # it takes the state
        publisher = publish(broker.port, "front")
        wait_until(lambda: publisher._announcement._sent == {} and publisher.bytes_up > 2000, what="confirmed")
        wait_until(lambda: hub.states)
        assert publisher.faults == {}
    broker.kill()
    broker.start()  # without persistence: it forgot what it retained
    with closing(HomeAssistant(broker.port)) as home:
        wait_until(lambda: WHERE in home.last, what="told again")
        assert require_taken(home.last[WHERE])


@pytest.mark.broker
def test_a_broker_that_refuses_it_is_a_fault_and_nothing_else(tmp_path: Path, publish) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic readwrite weakspot/#\n")
    with Broker(extra=f"acl_file {acl}") as strict, closing(HubStandIn(strict.port)) as hub:
        publisher = publish(strict.port, "front")
        wait_until(lambda: publisher.faults["not_authorized"] == 1)
        publisher.offer_heartbeat(b"{}")
        wait_until(lambda: hub.states)
        assert publisher.connected
        assert publisher.faults["disconnected"] == 0


@pytest.mark.broker
def test_what_is_too_large_for_the_broker_is_left_out(publish, caplog) -> None:
    with Broker(extra="max_packet_size 12000") as small, closing(HomeAssistant(small.port)) as home:
        publisher = publish(small.port, *(f"camera-{i}" for i in range(20)))
        wait_until(lambda: "needs to know this device" in caplog.text)
        wait_until(lambda: STATE in home.last)
        assert WHERE not in home.last
        assert publisher.connected


@pytest.mark.broker
def test_a_camera_goes_and_then_the_device(broker, home, publish, tmp_path: Path) -> None:  # noqa: F811
    note = tmp_path / "home-assistant.json"

    def cameras_told() -> tuple[set[str], set[str]]:
        """Return the cameras that are there and those that are taken out."""
        sent = json.loads(home.last.get(WHERE) or b'{"cmps": {}}')["cmps"]
        of = {True: set[str](), False: set[str]()}
        for key, one in sent.items():
            if key.startswith("camera__"):
                of[set(one) == {"p"}].add(key.split("__")[1])
        return of[False], of[True]

    for cameras, gone in ((("front", "back"), set()), (("front",), {"back"}), (("front",), set())):
        publisher = publish(broker.port, *cameras)
        wait_until(lambda cameras=cameras, gone=gone: cameras_told() == (set(cameras), gone), what=f"{cameras} {gone}")
        wait_until(lambda cameras=cameras: len(json.loads(note.read_text())[WHERE]) == 5 + 4 * len(cameras))
        publisher.stop(grace_s=0.0)
    publish(broker.port, "front", on=False)
    wait_until(lambda: home.last[WHERE] == b"", what="taken back")
    wait_until(lambda: not note.exists())
    with closing(HomeAssistant(broker.port)) as late:
        wait_until(lambda: STATE in late.last)
        assert WHERE not in late.last, "the broker keeps nothing"


CONFIG = """
site = "yard"
device = "gate"
data_dir = "data"
[home_assistant]
discovery = {on}
[model]
input = "96x64"
threads = 1
[mqtt]
host = "127.0.0.1"
port = {port}
heartbeat_s = 0.3
[spool]
limit_mb = 50
reserve_mb = 1
[mining]
control_per_hour = 36000
[[camera]]
name = "front.door"
source = "clip.avi"
loop = true
[[camera]]
name = "yard_2"
source = "rtsp://127.0.0.1:9/nothing"
"""


@pytest.mark.broker
def test_a_device_in_home_assistant_from_start_to_death(tmp_path: Path, broker, home) -> None:  # noqa: F811
    write_clip(tmp_path / "clip.avi", frames=60)
    (tmp_path / "edge.toml").write_text(CONFIG.format(on="true", port=broker.port))
    command = [sys.executable, "-m", "edge", "run", "--config", str(tmp_path / "edge.toml")]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stderr=log)
        try:
            wait_until(lambda: HEARTBEAT in home.last and home.states()["camera__yard_u2__state"] == "lost")
            wait_until(lambda: int(home.states()["findings_day"]) >= 2, what="findings")
            wait_until(lambda: float(home.states()["camera__front_ddoor__fps"]) > 1, what="frames")
            states = home.states()
            assert states["connection"] == "ON"
            assert states["model"] == "starter-1"
            assert json.loads(states["update"]) == {"installed_version": "starter-1", "latest_version": "starter-1"}
            assert (states["camera__front_ddoor__state"], states["camera__front_ddoor__problem"]) == ("running", "OFF")
            assert 0 <= float(states["camera__front_ddoor__frame_age"]) < 5
            assert (states["camera__yard_u2__problem"], states["camera__yard_u2__frame_age"]) == ("ON", "None")
            assert int(states["unsent"]) >= 2  # there is no hub
        finally:
            process.kill()
            process.wait()
    wait_until(lambda: home.states()["connection"] == "OFF", what="the last will")
    assert {state for key, state in home.states().items() if key != "connection"} == {"unavailable"}
    before = int(json.loads(home.last[HEARTBEAT])["findings_day"])
    (tmp_path / "edge.toml").write_text(CONFIG.format(on="false", port=broker.port))
    home.last.pop(HEARTBEAT)
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: home.last[WHERE] == b"", what="gone from Home Assistant")
        wait_until(lambda: HEARTBEAT in home.last)
        assert json.loads(home.last[HEARTBEAT])["findings_day"] >= before, "counted on over the restart"
    finally:
        process.terminate()
        assert process.wait(DEADLINE_S) == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_an_enrolled_device_may_write_its_own_discovery_topic(tmp_path: Path) -> None:
    devices = [("home", "pi-1"), ("a_b.c", "x..y__z"), ("a", "b.c"), ("a", "b_c")]
    enroll = ["sh", str(ROOT / "deploy" / "enroll.sh")]
    subprocess.run([*enroll, "init", tmp_path / "fleet", "--broker", "localhost"], check=True, capture_output=True)
    for site, device in devices:
        subprocess.run([*enroll, "device", tmp_path / "fleet", site, device], check=True, capture_output=True)
    text = (tmp_path / "fleet" / "broker" / "acl").read_text()
    for site, device in devices:
        block = text.split(f"user {site}:{device}\n")[1].split("\nuser ")[0].split("\n")
        where = discovery_topic(HomeAssistantConfig().prefix, site=site, device=device)
        assert [line for line in block if "homeassistant" in line] == [f"topic write {where}"]


def test_it_is_off_unless_asked_for() -> None:
    text = 'site = "yard"\ndevice = "gate"\n[[camera]]\nname = "front"\nsource = "clip.mp4"\n'
    assert not parse_config(text, folder=Path("/")).home_assistant.discovery
    assert parse_config(text + "[home_assistant]\ndiscovery = true\n", folder=Path("/")).home_assistant.discovery
