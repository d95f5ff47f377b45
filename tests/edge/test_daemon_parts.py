"""The daemon's rules one by one: it is made, not started."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from edge.config import MiningConfig, QuotaConfig, read_config
from edge.contract.samples import Reason
from edge.contract.status import Heartbeat, decode
from edge.daemon import Daemon
from edge.frame import Frame
from edge.frozen import FrozenPicture
from edge.health import read_status
from edge.opening import open_configured, open_spool
from edge.pipeline import Pipeline
from edge.spool import SpoolError

CONFIG = """
site = "yard"
device = "gate"
data_dir = "data"
[model]
input = "96x64"
threads = 1
[mqtt]
port = 1
[spool]
reserve_mb = 1
[quota]
burst = 2
[[camera]]
name = "front"
source = "clip.avi"
"""


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "edge.toml").write_text(CONFIG)
    config = read_config(tmp_path / "edge.toml")
    with contextlib.closing(open_spool(config)) as spool:
        yield Daemon(config, detector=open_configured(config, cached=False), spool=spool)


def test_each_camera_has_a_quota_and_what_is_over_is_counted(idle) -> None:
    missed, control = SimpleNamespace(reason=Reason.MISSED), SimpleNamespace(reason=Reason.CONTROL)
    idle._detection._hand_over("front", [missed, missed, missed, control], wait_s=0.0)
    idle._detection._hand_over("yard", [missed, missed, missed, missed], wait_s=0.0)
    assert idle._detection.queue.qsize() == 5
    assert idle._spool.counters()[1] == {"quota_missed": 3}


@pytest.mark.parametrize("ends", ["paused", "frozen", "stopped"])
def test_a_control_frame_that_waits_is_not_lost_when_nothing_is_mined_any_more(idle, monkeypatch, ends: str) -> None:
    """It was drawn while findings were wanted. What is drawn afterwards is not."""
    (eye,) = idle._eyes
    eye.pipeline.adopt(MiningConfig(control_per_hour=1e9, zoom_budget=0.2), None)
    idle._detection._quota.adopt(QuotaConfig(burst=100), now_s=0.0)
    noise = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    for n in range(2):
        idle._detection.look(eye, Frame(noise, "front", n, 0, n / 5))
    assert idle._detection.queue.empty(), "the second frame is drawn, and waits"
    if ends == "paused":
        idle._detection._rules = replace(idle._detection._rules, paused_by="site")
    elif ends == "frozen":
        monkeypatch.setattr(FrozenPicture, "update", lambda *_, **__: True)
    else:
        idle._detection.finish(eye)
    for n in range(2, 2 if ends == "stopped" else 20):
        idle._detection.look(eye, Frame(noise, "front", n, 0, n / 5))
    (control,) = (idle._detection.queue.get_nowait().mined for _ in range(idle._detection.queue.qsize()))
    assert (control.reason, control.at.frame.sequence, control.looked_twice) == (Reason.CONTROL, 1, False)
    assert eye.health(now_s=0.0).recall.frames == 0
    assert idle._spool.counters()[1] == {}


def test_a_spool_that_cannot_be_read_costs_no_heartbeat(idle, monkeypatch, caplog) -> None:
    idle._stream.lost = 3
    idle._spool.count("writer_busy")
    idle._publish_health()
    for name in ("flush", "counters", "health"):
        monkeypatch.setattr(idle._spool, name, lambda: (_ for _ in ()).throw(SpoolError("the disk is gone")))
    idle._publisher._heartbeat = None
    with caplog.at_level(logging.WARNING, logger="edge.daemon"):
        idle._publish_health()
    assert decode(idle._publisher._heartbeat, Heartbeat).dropped == {"writer_busy": 1}
    assert "the disk is gone" in caplog.text
    assert read_status(idle._config.data_dir).faults == {"detections_lost": 3}


def test_a_model_that_gives_no_numbers_is_counted_and_logged_now_and_then(idle, monkeypatch, caplog) -> None:
    (eye,) = idle._eyes
    step = eye.pipeline.step
    monkeypatch.setattr(
        Pipeline, "step", lambda _, frame: replace(s := step(frame), inference=replace(s.inference, finite=False))
    )
    for n in range(5):
        idle._detection.look(eye, Frame(np.zeros((64, 96, 3), np.uint8), "front", n, 0, n / 20))
    assert idle._spool.counters()[1]["not_finite"] == 5
    told = [record for record in caplog.records if "not finite" in record.getMessage()]
    assert [record.exc_info for record in told] == [None] * 3, "the 1st, 2nd and 4th, without a traceback"
