"""What the daemon does with a policy, between two frames. The way through broker and hub: tests/loop/test_policy.py."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.contract.policy import MiningPolicy, Policy, QuotaPolicy, Weights, encode_policy
from edge.contract.topics import Kind, site_policy_topic, topic
from edge.daemon import Daemon
from edge.opening import open_configured, open_spool
from tests.brokers import wait_until
from tests.edge.test_daemon import configure

SITE, DEVICE = site_policy_topic("yard"), topic("yard", "gate", Kind.POLICY)
WEIGHTS = Weights(bias=-9.0, gap=1.0, candidate=2.0, motion=0.5, zoom=4.0, refuted=-3.0)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    config = configure(tmp_path, port=1)
    config.data_dir.mkdir()
    with contextlib.closing(open_spool(config)) as spool:
        running = Daemon(config, detector=open_configured(config), spool=spool)
        running.start()
        yield running
        running.stop()


def findings(daemon: Daemon) -> int:
    return sum(daemon._spool.counters()[0].values())


def makes_none(daemon: Daemon) -> None:
    """Frames are looked at, and no finding comes of them; what was in the writer's hands is let through first."""
    meter = daemon._eyes[0].meter
    for frames in (5, 40):
        before, seen = findings(daemon), meter.frames
        wait_until(lambda seen=seen, frames=frames: meter.frames > seen + frames, what="frames are looked at")
    assert findings(daemon) == before


def makes_findings(daemon: Daemon) -> None:
    before = findings(daemon)
    wait_until(lambda: findings(daemon) > before + 2, what="findings are made")


def test_outside_its_hours_a_device_detects_and_mines_nothing(daemon: Daemon) -> None:
    makes_findings(daemon)
    now = datetime.now(UTC).astimezone()
    begin, end = now + timedelta(hours=11), now + timedelta(hours=12)
    daemon._policies.take(SITE, encode_policy(Policy(mining=MiningPolicy(hours=(f"{begin:%H:%M}-{end:%H:%M}",)))))
    makes_none(daemon)
    dropped = daemon._spool.counters()[1]
    assert not any(name.startswith("quota_") for name in dropped), "nothing was refused: nobody asked"
    daemon._policies.take(DEVICE, encode_policy(Policy(mining=MiningPolicy(hours=()))))
    makes_findings(daemon)


def test_quota_and_weights_reach_the_cameras_while_they_run(daemon: Daemon) -> None:
    makes_findings(daemon)
    nothing = QuotaPolicy(missed=0, low_confidence=0, suspect=0, control=0)
    daemon._policies.take(DEVICE, encode_policy(Policy(quota=nothing, weights={"front": WEIGHTS})))
    wait_until(lambda: daemon._eyes[0].pipeline._missed.weights == WEIGHTS, what="the weights are there")
    makes_none(daemon)
    assert daemon._spool.counters()[1]["quota_control"] > 0
    daemon._policies.take(DEVICE, b"")
    wait_until(lambda: daemon._eyes[0].pipeline._missed.weights != WEIGHTS, what="the built-in ones are back")
    plenty = QuotaPolicy(missed=1e6, low_confidence=1e6, suspect=1e6, control=1e6)  # the buckets are empty
    daemon._policies.take(SITE, encode_policy(Policy(quota=plenty)))
    makes_findings(daemon)


def test_whatever_comes_detection_goes_on(daemon: Daemon) -> None:
    for payload in (b"nonsense", b"\xff" * 100_000, b'{"schema": 1, "quota": {"burst": -1}}', b"[" * 50_000):
        daemon._policies.take(DEVICE, payload)
        assert daemon._heartbeat().policies[0].refused
    makes_findings(daemon)
    assert daemon._detection.alive
