"""`hub policy` to a running `edge run`, through `hub serve` and a real broker."""

import json
import signal
import time
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.config import EdgeConfig
from edge.contract.topics import Kind, site_policy_topic, topic
from edge.health import Status, read_status
from tests.brokers import Broker, broker, iotcore_broker, wait_until
from tests.edge.test_daemon import configure, device, edge
from tests.hub.devices import Hub
from tests.hub.test_serve import command

__all__ = ["broker", "device"]  # fixtures
pytestmark = pytest.mark.broker
SECONDS = 10.0  # within which a policy is followed


def policy(hub: Hub, *words: object) -> str:
    done = command("policy", *words, "--database", hub.database)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def stands(hub: Hub, *place: str) -> list[str]:
    """What the devices make of one policy, as `hub policy show` has it."""
    done = command("policy", "show", *place, "--json", "--database", hub.database)
    return [one["stands"] for report in json.loads(done.stdout)["policies"] for one in report["devices"]]


def status(config: EdgeConfig) -> Status:
    wait_until(lambda: read_status(config.data_dir), what="the device has a status")
    found = read_status(config.data_dir)
    assert found is not None
    return found


def made(config: EdgeConfig) -> tuple[int, int]:
    """Frames looked at and findings made, by the last heartbeat."""
    beat = status(config).heartbeat
    return beat.cameras[0].frames, sum(beat.findings.values())


def makes_findings(config: EdgeConfig) -> None:
    before = made(config)[1]
    wait_until(lambda: made(config)[1] > before + 2, what="findings are made")


def makes_none(config: EdgeConfig) -> None:
    """Frames are looked at, and no finding comes of them."""
    frames, findings = made(config)
    wait_until(lambda: made(config)[0] > frames + 60, what="frames are looked at")
    assert made(config)[1] == findings


def retain(port: int, where: str, payload: bytes) -> None:
    """Write to the broker past the hub."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.publish(where, payload, qos=1, retain=True).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()


def follow_and_go_on(folder: Path, port: int, start) -> None:
    config = configure(folder, port=port)
    with Hub(folder, port) as hub:
        process = start()
        makes_findings(config)
        boot_id = status(config).heartbeat.boot_id
        policy(hub, "pause", "yard")
        begun_s = time.monotonic()
        wait_until(lambda: stands(hub, "yard") == ["followed"], deadline_s=SECONDS, what="the pause is followed")
        assert time.monotonic() - begun_s < SECONDS
        makes_none(config)
        shown = edge("status", "--config", folder / "edge.toml").stdout
        assert "mining    paused by the site's policy" in shown
        assert "policy    the site's: followed" in shown
        policy(hub, "resume", "yard")
        wait_until(lambda: stands(hub, "yard") == ["followed"], deadline_s=SECONDS, what="the end of it is followed")
        makes_findings(config)
        (folder / "none.toml").write_text("[quota]\nmissed = 0\nlow_confidence = 0\nsuspect = 0\ncontrol = 0\n")
        policy(hub, "set", "yard", "gate", folder / "none.toml")
        wait_until(lambda: stands(hub, "yard", "gate") == ["followed"], deadline_s=SECONDS, what="no quota")
        makes_none(config)
        assert status(config).heartbeat.boot_id == boot_id, "without a restart"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert hub.stop() == 0


@pytest.mark.slow
def test_a_policy_is_followed_within_seconds_without_a_restart(broker, tmp_path: Path, device) -> None:
    follow_and_go_on(tmp_path, broker.port, device)


@pytest.mark.slow
def test_the_quickstart_broker_carries_policies_too(tmp_path: Path, device) -> None:
    with iotcore_broker() as port:
        follow_and_go_on(tmp_path, port, device)


@pytest.mark.slow
def test_nonsense_on_the_topic_is_refused_and_shown(broker, tmp_path: Path, device) -> None:
    config = configure(tmp_path, port=broker.port)
    retain(broker.port, site_policy_topic("yard"), b'{"schema": 1, "mining": {"zoom_budget": 9}}')
    with Hub(tmp_path, broker.port) as hub:
        process = device()
        makes_findings(config)
        retain(broker.port, topic("yard", "gate", Kind.POLICY), b"\x00 nonsense" * 1000)
        wait_until(lambda: len(stands(hub)) == 2, deadline_s=SECONDS, what="both are refused")
        shown = policy(hub, "show")
        assert "refused other: `mining.zoom_budget`: expected `float` <= 4.0" in shown
        assert "refused other: policy is not valid: JSON is malformed" in shown
        assert "refused by 1 device" in command("status", "--database", hub.database).stdout
        told = edge("status", "--config", tmp_path / "edge.toml").stdout
        assert "policy    the site's: REFUSED: `mining.zoom_budget`: expected" in told
        retain(broker.port, topic("yard", "gate", Kind.POLICY), b"x" * 10_000_000)  # over what the device takes
        makes_findings(config)
        assert process.poll() is None
        policy(hub, "pause", "yard", "gate")  # what the hub sets takes the place of the nonsense
        wait_until(lambda: stands(hub, "yard", "gate") == ["followed"], deadline_s=SECONDS, what="the hub's own")
        makes_none(config)


@pytest.mark.slow
def test_a_policy_outlives_broker_and_device(tmp_path: Path, device) -> None:
    with Broker() as running, Hub(tmp_path, running.port) as hub:
        config = configure(tmp_path, port=running.port)
        process = device()
        makes_findings(config)
        policy(hub, "pause", "yard")
        wait_until(lambda: stands(hub, "yard") == ["followed"], deadline_s=SECONDS, what="the pause is followed")
        running.kill()  # and with it what it retained
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0

        alone = device()  # a start without a broker
        wait_until(lambda: status(config).pid == alone.pid, what="it runs")
        makes_none(config)
        assert not status(config).connected
        alone.kill()
        alone.wait()

        running.start()
        (config.data_dir / "policies.json").unlink()  # a device that knows nothing hears it from the broker
        process = device()
        wait_until(lambda: status(config).pid == process.pid and status(config).heartbeat.policies, deadline_s=40)
        makes_none(config)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0

        policy(hub, "clear", "yard")  # while the device is away
        process = device()
        wait_until(lambda: status(config).pid == process.pid, what="it runs again")
        makes_findings(config)
        wait_until(lambda: stands(hub, "yard") == ["followed"], what="nothing is set any more")
