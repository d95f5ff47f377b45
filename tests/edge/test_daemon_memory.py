"""What was reported once stays quiet over restarts of the real device, and no longer than its file is there."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.contract.samples import Finding, Reason
from tests.brokers import Broker, broker, wait_until  # noqa: F401
from tests.edge.hub_stand_in import HubStandIn
from tests.edge.test_daemon import ROOT, device, hub  # noqa: F401

CONFIG = """
site = "yard"
device = "gate"
data_dir = "data"
[model]
input = "320x192"
score_threshold = 0.3
[mqtt]
host = "127.0.0.1"
port = {port}
heartbeat_s = 0.3
[mining]
control_per_hour = 0
[quota]
burst = 1000
[[camera]]
name = "front"
source = "street.mp4"
fps = 0
loop = true
"""


def is_the_van(finding: Finding) -> bool:
    """The white van that stands there all the time, and is a car and a truck at once."""
    return finding.reason is Reason.SUSPECT and "duplicate" in finding.tags and finding.label in {"car", "truck"}


@pytest.mark.broker
@pytest.mark.slow
def test_a_suspect_is_reported_once_however_often_the_device_starts(
    tmp_path: Path,
    broker: Broker,  # noqa: F811
    hub: HubStandIn,  # noqa: F811
    device: Callable,  # noqa: F811
) -> None:
    shutil.copy(ROOT / "deploy" / "demo" / "street.mp4", tmp_path)
    (tmp_path / "edge.toml").write_text(CONFIG.format(port=broker.port))
    memory = tmp_path / "data" / "memory.json"

    def vans() -> int:
        return sum(is_the_van(finding) for finding in list(hub.findings.values()))

    def stop(process) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0

    first = device()
    wait_until(lambda: vans() == 1, what="the van is reported")
    beats = len(hub.heartbeats)
    wait_until(lambda: len(hub.heartbeats) > beats, what="a heartbeat")
    boot, enough = hub.heartbeats[-1].boot_id, hub.heartbeats[-1].cameras[0].frames
    stop(first)
    kinds = json.loads(memory.read_bytes())["cameras"]["front"]
    assert set(kinds) == {"missed", "ghost", "duplicate", "class_flip", "still"}
    assert len(kinds["duplicate"]) >= 1

    second = device()
    wait_until(
        lambda: any(beat.boot_id != boot and beat.cameras[0].frames > enough + 10 for beat in list(hub.heartbeats)),
        what="more frames than were needed before",
    )
    stop(second)
    assert vans() == 1, "it is known"
    memory.unlink()
    third = device()
    wait_until(lambda: vans() == 2, what="only the file kept it quiet")
    stop(third)
