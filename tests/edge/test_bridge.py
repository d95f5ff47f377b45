"""The bridge as a user runs it: a simulated Frigate, real brokers, the real spool and publisher, the least hub."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.bridge import BUSY, Bridge
from edge.bridge import run as run_bridge
from edge.check import Outcome, broken_samples, check_device
from edge.config import EdgeConfig, read_config
from edge.contract.errors import UnreachableError, UnusableError
from edge.contract.policy import Policy, QuotaPolicy, encode_policy
from edge.contract.samples import Reason
from edge.contract.topics import Kind
from edge.frigate_http import FrigateApi, View
from edge.frigate_link import MAX_PICTURE_BYTES
from edge.health import Status, read_status
from edge.opening import open_spool, spool_path
from tests.brokers import Broker, broker, free_port, wait_until  # noqa: F401
from tests.edge.hub_stand_in import HubStandIn
from tests.simulators.frigate import SimulatedFrigate, frame_of, jpeg_of

ROOT = Path(__file__).resolve().parents[2]
BOX = (100, 120, 180, 300)
SURE, DOUBTFUL, DROPPED = [0.9] * 12, [0.76] * 12, [0.6] * 12
CONFIG = """
site = "yard"
device = "gate"
data_dir = "data"
{top}
[mqtt]
host = "127.0.0.1"
port = {port}
heartbeat_s = 0.2
ack_timeout_s = 2
[spool]
limit_mb = 50
reserve_mb = 1
[frigate]
host = "127.0.0.1"
port = {frigate_port}
{more}
"""


def configure(folder: Path, *, port: int, frigate_port: int | None = None, more: str = "", top: str = "") -> EdgeConfig:
    text = CONFIG.format(port=port, frigate_port=frigate_port or port, more=more, top=top)
    (folder / "edge.toml").write_text(text)
    return read_config(folder / "edge.toml")


@contextmanager
def running(config: EdgeConfig) -> Iterator[Callable[[], Status]]:
    """Run the bridge in this process; gives its last word."""
    stop = threading.Event()
    thread = threading.Thread(target=run_bridge, args=(config,), kwargs={"stop": stop})
    thread.start()

    def status() -> Status:
        found = read_status(config.data_dir)
        assert found is not None
        return found

    def is_listening() -> bool:
        found = read_status(config.data_dir)
        return found is not None and found.heartbeat.cameras != () and not found.cameras_lost

    try:
        if config.frigate is not None and config.frigate.camera:
            wait_until(is_listening, what="the bridge listens")
        yield status
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()


@pytest.fixture
def hub(broker: Broker) -> Iterator[HubStandIn]:  # noqa: F811
    stand_in = HubStandIn(broker.port)
    yield stand_in
    stand_in.close()


CAMERAS = '[[frigate.camera]]\nname = "front"\n[[frigate.camera]]\nname = "yard"\n'


def ending(camera: str, label: str) -> bytes:
    """The end of a track that Frigate calls a false positive."""
    after = {
        "id": f"17.5-{camera}",
        "camera": camera,
        "label": label,
        "frame_time": 105.0,
        "start_time": 100.0,
        "end_time": 110.0,
        "box": BOX,
        "score": 0.55,
        "top_score": 0.55,
        "false_positive": True,
    }
    return json.dumps({"type": "end", "before": after, "after": after}).encode()


def bright_at(jpeg: bytes, region: tuple[float, float, float, float]) -> bool:
    """Whether a picture shows the simulated object where it is said to be, and only there."""
    gray = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    x1, y1, x2, y2 = (round(value) for value in region)
    mask = np.zeros(gray.shape, bool)
    mask[y1:y2, x1:x2] = True
    return bool(gray[mask].mean() > 200 and gray[~mask].mean() < 60)


@pytest.mark.broker
@pytest.mark.parametrize("over_http", [False, True])
def test_from_frigate_to_the_hub(tmp_path: Path, broker: Broker, hub, over_http: bool) -> None:  # noqa: F811
    """Frigate's threshold is lowered to .5: it tells of tracks that it would have dropped at .7."""
    with SimulatedFrigate(broker.port, threshold=0.5) as frigate:
        url = f'url = "{frigate.url}"\n' if over_http else ""
        config = configure(tmp_path, port=broker.port, more=url + CAMERAS)
        with running(config) as status:
            frigate.play("front", "person", box=BOX, scores=DROPPED)
            frigate.play("front", "car", box=(300, 50, 420, 150), scores=DOUBTFUL)
            frigate.play("yard", "dog", box=BOX, scores=[0.9, 0.9, 0.9])
            frigate.play("yard", "person", box=BOX, scores=SURE)
            wait_until(lambda: len(hub.findings) == 3, what="three findings")
            hub.want(*hub.findings)
            wait_until(lambda: len(hub.frames) == 3, what="three frames")
            frigate.stats(front=5.0, yard=4.9)
            wait_until(lambda: status().heartbeat.cameras[1].fps == 4.9, what="Frigate's figures")
            beat = status().heartbeat
    found = {(one.camera, one.label): one for one in hub.findings.values()}
    assert {key: one.reason for key, one in found.items()} == {
        ("front", "person"): Reason.MISSED,
        ("front", "car"): Reason.LOW_CONFIDENCE,
        ("yard", "dog"): Reason.SUSPECT,
    }
    missed = found["front", "person"]
    assert missed.region == tuple(map(float, BOX))
    assert (missed.site, missed.device, missed.model) == ("yard", "gate", "frigate")
    assert [witness.kind for witness in missed.witnesses] == ["candidate"]
    assert all(bright_at(hub.frames[one.event_id], one.region) for one in found.values())
    assert [(one.name, one.state) for one in beat.cameras] == [("front", "running"), ("yard", "running")]
    assert (beat.model, beat.findings) == ("frigate", {"low_confidence": 1, "missed": 1, "suspect": 1})
    assert beat.dropped == {}
    assert [state.online for state in hub.states] == [True, False]
    with contextlib.closing(open_spool(config)) as spool:
        assert spool.health().samples == 0
    assert over_http == any("bbox=0" in path for path in frigate.asked)


@pytest.mark.broker
@pytest.mark.parametrize("over_http", [False, True])
def test_the_region_is_where_the_object_was_in_that_picture(
    tmp_path: Path,
    broker: Broker,  # noqa: F811
    hub,
    over_http: bool,
) -> None:
    """It moves, and its later pictures are better; Frigate tells of most of them in no message of their own."""
    with SimulatedFrigate(broker.port) as frigate:
        url = f'url = "{frigate.url}"\n' if over_http else ""
        with running(configure(tmp_path, port=broker.port, more=url + CAMERAS)):
            track = frigate.begin("front", "person", box=BOX, score=0.71)
            for step in range(12):
                before = len(frigate.asked)
                box = (100 + 30 * step, 120, 180 + 30 * step, 300)
                frigate.see(track, after_s=0.9, score=0.71 + step / 200, box=box)
                if over_http and step in {2, 8}:  # `new`, and an `update` five seconds later
                    wait_until(lambda before=before: len(frigate.asked) > before, what="the bridge asks at once")
            frigate.end(track)
            wait_until(lambda: hub.findings, what="a finding")
            (finding,) = hub.findings.values()
            hub.want(finding.event_id)
            wait_until(lambda: hub.frames, what="its frame")
    assert finding.region == (340.0, 120.0, 420.0, 300.0)
    assert bright_at(hub.frames[finding.event_id], finding.region)


@pytest.mark.broker
def test_a_frigate_as_it_comes_tells_nothing_of_what_it_drops(tmp_path: Path, broker: Broker, hub) -> None:  # noqa: F811
    with SimulatedFrigate(broker.port) as frigate:
        config = configure(tmp_path, port=broker.port, more=CAMERAS)
        with running(config):
            frigate.play("front", "person", box=BOX, scores=DROPPED)
            frigate.play("front", "car", box=BOX, scores=DOUBTFUL)
            wait_until(lambda: hub.findings, what="the later one")
    assert [one.label for one in hub.findings.values()] == ["car"]


@pytest.mark.broker
def test_a_track_that_is_marked_as_a_false_positive(tmp_path: Path, broker: Broker, hub) -> None:  # noqa: F811
    """As some other program, or another Frigate, may publish it: at its end only, the picture before or after."""
    with SimulatedFrigate(broker.port) as frigate:
        config = configure(tmp_path, port=broker.port, more=CAMERAS)
        with running(config):
            frigate.say("front/person/snapshot", jpeg_of(frame_of(BOX, (640, 480))))
            frigate.say("events", ending("front", "person"))
            frigate.say("events", ending("yard", "person"))
            frigate.say("yard/person/snapshot", jpeg_of(frame_of(BOX, (640, 480))))
            wait_until(lambda: len(hub.findings) == 2, what="both")
    assert {(one.camera, one.reason) for one in hub.findings.values()} == {("front", "missed"), ("yard", "missed")}


@pytest.mark.broker
def test_a_picture_that_was_there_before_the_bridge_is_nobodys(tmp_path: Path, broker: Broker, hub) -> None:  # noqa: F811
    with SimulatedFrigate(broker.port) as frigate:
        frigate.say("front/person/snapshot", jpeg_of(frame_of(BOX, (640, 480))), retain=True)
        with running(configure(tmp_path, port=broker.port, more=CAMERAS)) as status:
            frigate.say("events", ending("front", "person"))
            wait_until(lambda: status().heartbeat.dropped == {"no_snapshot": 1}, what="it is counted")


@pytest.mark.broker
def test_a_large_picture_comes_through(tmp_path: Path, broker: Broker, hub) -> None:  # noqa: F811
    grain = np.random.default_rng(1).integers(0, 255, (600, 1000, 3), np.uint8)
    jpeg = jpeg_of(grain)
    assert 400_000 < len(jpeg) < MAX_PICTURE_BYTES
    with SimulatedFrigate(broker.port) as frigate, running(configure(tmp_path, port=broker.port, more=CAMERAS)):
        frigate.say("front/person/snapshot", jpeg)
        frigate.say("events", ending("front", "person"))
        wait_until(lambda: hub.findings, what="a finding")
        hub.want(*hub.findings)
        wait_until(lambda: hub.frames, what="its frame")
    assert list(hub.frames.values()) == [jpeg], "it travels as it came"


@pytest.mark.broker
@pytest.mark.parametrize(
    ("settings", "more", "expected"),
    [
        ({"mqtt_height": 240}, 'size = "640x480"', (50.0, 60.0, 90.0, 150.0)),  # made smaller, and we know from what
        ({"mqtt_crop": True}, 'size = "640x480"', "snapshot_cropped"),  # a part of the frame shows no place
        ({"mqtt_height": 100}, "", "region_outside"),  # nobody said from what: the box is not in it
    ],
)
def test_a_snapshot_of_another_size(tmp_path: Path, broker: Broker, hub, settings, more, expected) -> None:  # noqa: F811
    with SimulatedFrigate(broker.port, **settings) as frigate:
        config = configure(tmp_path, port=broker.port, more=f'[[frigate.camera]]\nname = "front"\n{more}')
        with running(config) as status:
            frigate.play("front", "person", box=BOX, scores=DOUBTFUL)
            if isinstance(expected, str):
                wait_until(lambda: status().heartbeat.dropped == {expected: 1}, what="it is dropped and counted")
                return
            wait_until(lambda: hub.findings, what="a finding")
            (finding,) = hub.findings.values()
            hub.want(finding.event_id)
            wait_until(lambda: hub.frames, what="its frame")
    assert (finding.width, finding.height, finding.region) == (320, 240, expected)
    assert bright_at(hub.frames[finding.event_id], finding.region)


@pytest.mark.broker
def test_nonsense_changes_nothing(tmp_path: Path, broker: Broker, hub) -> None:  # noqa: F811
    with SimulatedFrigate(broker.port) as frigate:
        config = configure(tmp_path, port=broker.port, more=CAMERAS)
        with running(config) as status:
            for payload in (b"", b"\xff\xfe", b"{}", b"[" * 5000, b'{"type":"end","after":null}', bytes(200_000)):
                for topic in ("events", "stats", "available", "front/person/snapshot"):
                    frigate.say(topic, payload)
            frigate.say("available", b"online")
            frigate.say("a/b/c/snapshot", b"x")
            frigate.say("front/snapshot", b"x")
            frigate.say("front/car/snapshot", b"\xff\xd8\xff but no picture")
            frigate.say("events", ending("front", "car"))
            frigate.say("front/person/snapshot", bytes(2 * MAX_PICTURE_BYTES))  # the broker keeps it from us
            frigate.play("front", "per\u200bson\u202e", box=BOX, scores=DOUBTFUL)
            wait_until(lambda: len(hub.findings) == 1, what="the good one")
            wait_until(lambda: status().heartbeat.dropped == {"bad_snapshot": 1}, what="the bad one is counted")
            assert status().faults["frigate_bad_message"] >= 10
            assert not any("error" in kind for kind in status().faults)
    assert next(iter(hub.findings.values())).label == "per son"


@pytest.mark.broker
def test_a_track_without_a_snapshot_is_counted(tmp_path: Path, broker: Broker, hub) -> None:  # noqa: F811
    with SimulatedFrigate(broker.port) as frigate:
        config = configure(tmp_path, port=broker.port, more=f'url = "{frigate.url}"\n{CAMERAS}')
        frigate.misbehave = "500"
        with running(config) as status:
            frigate.play("front", "person", box=BOX, scores=DOUBTFUL)
            wait_until(lambda: status().heartbeat.dropped == {"no_snapshot": 1}, what="it is counted")
            frigate.misbehave = None
            frigate.play("front", "person", box=BOX, scores=DOUBTFUL)
            wait_until(lambda: hub.findings, what="the next one has a picture")


@pytest.mark.broker
def test_boxes_that_frigate_draws_stay_out(tmp_path: Path, broker: Broker, hub) -> None:  # noqa: F811
    """What was saved at a track's end has its box drawn on it: a track that is heard of only then has no picture."""
    with SimulatedFrigate(broker.port, saved_drawn=True) as frigate:
        config = configure(tmp_path, port=broker.port, more=f'url = "{frigate.url}"\n{CAMERAS}')
        track = frigate.begin("front", "person", box=BOX, score=0.76)
        for score in DOUBTFUL:
            frigate.see(track, after_s=0.2, score=score)
        with running(config) as status:
            frigate.end(track)
            wait_until(lambda: status().heartbeat.dropped == {"no_snapshot": 1}, what="it is counted")
            frigate.play("front", "person", box=BOX, scores=DOUBTFUL)
            wait_until(lambda: hub.findings, what="one that was heard of in time")
            (finding,) = hub.findings.values()
            hub.want(finding.event_id)
            wait_until(lambda: hub.frames, what="its frame")
    assert bright_at(hub.frames[finding.event_id], finding.region)
    assert not any("bbox=1" in path for path in frigate.asked)


@pytest.mark.broker
def test_frigate_and_its_broker_come_back(tmp_path: Path, broker: Broker, hub) -> None:  # noqa: F811
    with Broker() as other:
        config = configure(tmp_path, port=broker.port, frigate_port=other.port, more=CAMERAS)
        with ExitStack() as stack:
            frigate = stack.enter_context(SimulatedFrigate(other.port))
            with running(config) as status:
                lost = frigate.begin("front", "person", box=BOX, score=0.76)
                frigate.see(lost, after_s=0.2, score=0.76)
                frigate.see(lost, after_s=0.2, score=0.76)
                frigate.disconnect()
                wait_until(lambda: set(status().cameras_lost.values()) == {"Frigate is offline"}, what="it is told")
                frigate.connect()
                frigate.play("front", "person", box=BOX, scores=DOUBTFUL)
                wait_until(lambda: len(hub.findings) == 1, what="after Frigate's restart")
                wait_until(lambda: {camera.restarts for camera in status().heartbeat.cameras} == {1})
                frigate.disconnect()
                other.stop()
                wait_until(
                    lambda: set(status().cameras_lost.values()) == {"Frigate's broker is not reached"},
                    what="the outage is told",
                )
                assert status().connected, "our own broker is another"
                other.start()
                wait_until(lambda: "not reached" not in str(status().cameras_lost), what="it connects anew")
                frigate.connect()
                frigate.play("yard", "person", box=BOX, scores=DOUBTFUL)
                wait_until(lambda: len(hub.findings) == 2, what="after its broker's restart")
                wait_until(lambda: sum(status().heartbeat.findings.values()) == 2)
                assert status().heartbeat.dropped == {}


@pytest.mark.broker
def test_quotas_policies_and_labels_bind(tmp_path: Path, broker: Broker, hub) -> None:  # noqa: F811
    top = '[mining]\nlabels = ["person"]\n[quota]\nburst = 1\nlow_confidence = 0.001\n'
    with SimulatedFrigate(broker.port) as frigate:
        config = configure(tmp_path, port=broker.port, more=CAMERAS, top=top)
        with running(config) as status:
            frigate.play("front", "car", box=BOX, scores=DOUBTFUL)
            for _ in range(3):
                frigate.play("front", "person", box=BOX, scores=DOUBTFUL)
            dropped = {"quota_low_confidence": 2}
            wait_until(lambda: status().heartbeat.dropped == dropped, what="one is admitted, two are counted")
            hub.say(Kind.POLICY, encode_policy(Policy(paused=True)))
            wait_until(lambda: status().heartbeat.policies, what="the policy is followed")
            frigate.play("yard", "person", box=BOX, scores=DOUBTFUL)
            hub.say(Kind.POLICY, b"nonsense")
            wait_until(lambda: status().heartbeat.policies[0].refused, what="nonsense is refused")
            wait_until(lambda: status().heartbeat.cameras[1].frames > 0, what="the paused one was heard")
            assert status().heartbeat.findings == {"low_confidence": 1}
    assert [one.label for one in hub.findings.values()] == ["person"]


@pytest.mark.broker
def test_a_policys_quota_binds(tmp_path: Path, broker: Broker, hub) -> None:  # noqa: F811
    config = configure(tmp_path, port=broker.port, more=CAMERAS)
    with SimulatedFrigate(broker.port) as frigate, running(config) as status:
        hub.say(Kind.POLICY, encode_policy(Policy(quota=QuotaPolicy(low_confidence=0))))
        wait_until(lambda: status().heartbeat.policies, what="the policy is followed")
        frigate.play("front", "person", box=BOX, scores=DOUBTFUL)
        wait_until(lambda: status().heartbeat.dropped == {"quota_low_confidence": 1})
        assert status().heartbeat.findings == {}


@pytest.mark.broker
def test_check_asks_frigates_broker_and_its_api(tmp_path: Path, broker: Broker) -> None:  # noqa: F811
    with SimulatedFrigate(broker.port) as frigate:
        config = configure(tmp_path, port=broker.port, more=f'url = "{frigate.url}"')
        verdicts = {one.name: one for one in check_device(config)}
        assert verdicts["frigate"].outcome is Outcome.GOOD
        assert verdicts["frigate"].text.endswith(f"{frigate.url} tells of 2 cameras")
        frigate.misbehave = "500"
        assert {one.name: one.outcome for one in check_device(config)}["frigate"] is Outcome.FAILED


@pytest.fixture
def bridge(tmp_path: Path) -> Iterator[Bridge]:
    """A bridge whose threads were not started."""
    config = configure(tmp_path, port=free_port(), more=f'url = "http://127.0.0.1:{free_port()}"')
    assert config.frigate is not None
    with contextlib.closing(open_spool(config)) as spool:
        yield Bridge(config, config.frigate, spool=spool)


def test_what_there_was_no_room_for_is_counted_once(bridge: Bridge) -> None:
    bridge._listener.lost, bridge._tracks.pushed_out = 3, 2
    for _ in range(2):
        bridge._follow()
        assert bridge._spool.counters()[1] == {BUSY: 5}
    bridge._listener.lost = 4
    bridge._follow()
    assert bridge._spool.counters()[1] == {BUSY: 6}


def test_an_api_that_is_not_there_is_left_alone_for_a_while(bridge: Bridge) -> None:
    """Each question may take seconds, and the worker has other messages to take in."""
    asked = 0

    def question(_: FrigateApi) -> bytes:
        nonlocal asked
        asked += 1
        msg = "it does not answer"
        raise UnreachableError(msg)

    assert [bridge._ask(question) for _ in range(3)] == [None] * 3
    assert asked == 1


@pytest.mark.broker
def test_sigterm_drains_and_a_restart_doubles_nothing(tmp_path: Path, broker: Broker, hub) -> None:  # noqa: F811
    config = configure(tmp_path, port=broker.port, more=CAMERAS)
    with SimulatedFrigate(broker.port) as frigate, ExitStack() as stack:
        log = stack.enter_context((tmp_path / "log").open("a"))

        def start() -> subprocess.Popen[str]:
            command = [sys.executable, "-m", "edge", "bridge", "frigate", "--config", str(tmp_path / "edge.toml")]
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, text=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
            wait_until(lambda: (s := read_status(config.data_dir)) and s.pid == process.pid and not s.cameras_lost)
            return process

        process = start()
        track = frigate.play("front", "person", box=BOX, scores=DOUBTFUL)
        wait_until(lambda: hub.findings, what="a finding")
        shown = edge("status", "--config", tmp_path / "edge.toml")
        assert shown.returncode == 0
        assert "camera    front: running" in shown.stdout
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        process = start()
        camera, simulated = frigate._tracks[track]
        frigate._publish("end", camera, simulated)  # told again
        frigate._publish_snapshot(camera, simulated)
        frigate.play("yard", "person", box=BOX, scores=DOUBTFUL)
        wait_until(lambda: len(hub.findings) == 2, what="the next finding")
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    assert list(broken_samples(spool_path(config))) == []
    assert read_status(config.data_dir).heartbeat.spool.samples == 2
    assert "Traceback" not in (tmp_path / "log").read_text()


def edge(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[frigate]", "[fridgate]"), "unknown key `fridgate`; did you mean `frigate`?"),
        (("[frigate]", '[[camera]]\nname = "a"\nsource = 0\n[privacy]'), "unknown key `privacy.host`"),
        (("[frigate]", '[privacy]\nblur = "people"\n[frigate]'), "`privacy.blur` cannot be kept here"),
        (("[frigate]", '[frigate]\nca = "none.pem"'), "there is no file"),
        (("[frigate]", '[frigate]\nca = "edge.toml"'), "the password of [frigate]"),  # a file, but no certificate
        (("[frigate]", '[frigate]\npassword_file = "a"'), "`frigate.password_file` needs `frigate.username`"),
    ],
)
def test_what_can_never_work_is_one_line_and_status_2(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    configure(tmp_path, port=1)
    path = tmp_path / "edge.toml"
    path.write_text(path.read_text().replace(*change))
    ended = edge("bridge", "frigate", "--config", path)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1, ended.stderr


def test_without_the_section_there_is_nothing_to_bridge(tmp_path: Path) -> None:
    (tmp_path / "edge.toml").write_text('site="a"\ndevice="b"\n[[camera]]\nname="c"\nsource=0\n')
    ended = edge("bridge", "frigate", "--config", tmp_path / "edge.toml")
    assert (ended.returncode, ended.stderr) == (2, "edge: there is no [frigate] in the configuration\n")


def test_the_api_answers(tmp_path: Path) -> None:
    with Broker() as other, SimulatedFrigate(other.port) as frigate:
        api = FrigateApi(frigate.url + "/")
        assert api.views()["front"] == View(size=(640, 480), saved_clean=True)
        track = frigate.begin("front", "person", box=BOX, score=0.9)
        with pytest.raises(UnusableError, match="404"):
            api.snapshot(track, most=MAX_PICTURE_BYTES)
        for _ in range(3):
            frigate.see(track, after_s=0.2, score=0.9)
        assert api.snapshot(track, most=MAX_PICTURE_BYTES).startswith(b"\xff\xd8\xff")


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("hang", UnreachableError),  # a server that takes the question and says nothing
        ("redirect", UnusableError),  # to wherever it likes
        ("huge", UnusableError),
        ("cut", UnreachableError),
        ("500", UnusableError),
        ("nonsense", UnusableError),
    ],
)
def test_an_api_that_misbehaves(how: str, error: type[Exception]) -> None:
    with Broker() as other, SimulatedFrigate(other.port) as frigate:
        frigate.misbehave = how
        api = FrigateApi(frigate.url)
        with pytest.raises(error):
            _ = api.views() if how == "nonsense" else api.snapshot("17.5-a", most=MAX_PICTURE_BYTES)
        frigate.released.set()
        assert len(frigate.asked) == 1, "no redirect is followed"


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"X"),  # a header that does not end
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),  # an answer that is always about to come
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"a: b\r\n"),  # trailers without an end
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n", b"X"),  # a body, drop by drop
        (b"HTTP/1.1 200 OK\r\n\r\n", b"X"),  # a body of no length, which only its end makes whole
    ],
)
def test_no_answer_takes_longer_than_its_time(begin: bytes, more: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.frigate_http.WHOLE_S", 0.4)
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip() -> None:
            taken, _ = server.accept()
            with taken, contextlib.suppress(OSError):
                taken.recv(1000)
                taken.sendall(begin)
                while not over.wait(0.02):
                    taken.sendall(more)

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            with pytest.raises(UnreachableError):
                FrigateApi(f"http://127.0.0.1:{server.getsockname()[1]}").snapshot("17.5-a", most=MAX_PICTURE_BYTES)
        finally:
            over.set()
            thread.join()


def test_an_api_that_is_not_there_or_speaks_no_http() -> None:
    with pytest.raises(UnreachableError):
        FrigateApi(f"http://127.0.0.1:{free_port()}").views()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def babble() -> None:
            taken, _ = server.accept()
            with taken:
                taken.recv(1000)
                taken.sendall(b"SSH-2.0-nonsense\r\n")

        thread = threading.Thread(target=babble)
        thread.start()
        with pytest.raises(UnreachableError):
            FrigateApi(f"http://127.0.0.1:{server.getsockname()[1]}").views()
        thread.join()
