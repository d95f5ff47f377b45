"""A camera whose picture stands still, and samples that are too old, in a real daemon."""

import contextlib
import logging
import math
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.check import report_device, status_lines
from edge.config import EdgeConfig, read_config
from edge.daemon import Daemon
from edge.daemon import run as run_daemon
from edge.frame import Frame, Image
from edge.frozen import FROZEN_S, FrozenPicture
from edge.health import read_status
from edge.opening import open_configured, open_spool
from tests.brokers import wait_until
from tests.edge.samples import make_sample

CONFIG = """
site = "yard"
device = "gate"
data_dir = "data"
[model]
input = "96x64"
threads = 1
[mqtt]
port = 1
heartbeat_s = 0.1
[spool]
reserve_mb = 1
{spool}
[mining]
control_per_hour = 36000
zoom_budget = 0
[quota]
burst = 10000
[[camera]]
name = "front"
source = "clip.avi"
fps = 0
loop = true
"""
SIZE = (160, 120)


def noise(seed: int) -> Image:
    return np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)


def configure(folder: Path, *, spool: str = "") -> EdgeConfig:
    """Two seconds of a still picture, then one second of changing ones."""
    writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, SIZE)
    for i in range(60):
        writer.write(noise(max(0, i - 39)))
    writer.release()
    (folder / "edge.toml").write_text(CONFIG.format(spool=spool))
    return read_config(folder / "edge.toml")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    config = configure(tmp_path)
    with contextlib.closing(open_spool(config)) as spool:
        yield Daemon(config, detector=open_configured(config, cached=False), spool=spool)


def test_a_frozen_picture_mines_nothing(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    (eye,) = daemon._eyes
    mined_s: list[float] = []
    monkeypatch.setattr(
        daemon._detection, "_hand_over", lambda _, mined, **__: mined_s.extend(m.at.frame.time_s for m in mined)
    )
    still, times_s = noise(0), [i / 2 for i in range(241)]
    for i, time_s in enumerate(times_s):
        image = still if time_s < 90 else noise(i)
        daemon._detection.look(eye, Frame(image, "front", i, 0, time_s))
        if time_s < FROZEN_S or time_s >= 90:
            assert not eye.frozen
        else:
            assert eye.frozen
    assert any(s < FROZEN_S for s in mined_s)
    assert any(s >= 90 for s in mined_s)
    assert not any(FROZEN_S <= s < 90 for s in mined_s)


def test_it_is_told_when_a_camera_freezes_and_when_that_ends(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    daemon._eyes[0].picture = FrozenPicture(frozen_s=1.0)
    stop, states, shown = threading.Event(), [], set()
    config = daemon._config

    def watch() -> None:
        status = read_status(config.data_dir)
        if status is not None and status.heartbeat.cameras[0].state not in states[-1:]:
            states.append(status.heartbeat.cameras[0].state)
            shown.update(line for line in status_lines(report_device(config)) if "front: frozen" in line)

    daemon.start()
    attending = threading.Thread(
        target=daemon.attend, args=(stop,), kwargs={"exit_at_end": False, "tell": lambda _: watch()}
    )
    attending.start()
    with caplog.at_level(logging.WARNING):
        wait_until(lambda: states[-3:] == ["frozen", "running", "frozen"], what="it froze, moved and froze again")
    stop.set()
    attending.join()
    daemon.stop()
    told = [record.getMessage() for record in caplog.records if "frozen" in record.getMessage()]
    assert told[:3] == [
        "camera front is frozen: it goes on sending the same picture",
        "camera front is no longer frozen: its picture changes again",
        "camera front is frozen: it goes on sending the same picture",
    ]
    assert len(told) <= 5, "a line when it begins and a line when it ends"
    assert shown, "`edge status` says so"


@pytest.mark.parametrize(("keep", "expired"), [("keep_hours = 1", 20), ("keep_hours = 3", 0), ("", 0)])
def test_what_is_older_than_keep_hours_leaves_when_the_device_starts(tmp_path: Path, keep: str, expired: int) -> None:
    config = configure(tmp_path, spool=keep)
    with contextlib.closing(open_spool(config)) as spool:
        for _ in range(20):
            spool.put(*make_sample())
        spool.expire(keep_s=math.inf, now_s=0.0, now_ms=0)
        spool.expire(keep_s=math.inf, now_s=7200.0, now_ms=0)
    stop = threading.Event()

    def tell(_: str) -> None:
        status = read_status(config.data_dir)
        if status is not None and status.heartbeat.spool.samples > 20 - expired:
            stop.set()

    run_daemon(config, stop=stop, tell=tell)
    with contextlib.closing(open_spool(config)) as spool:
        assert spool.counters()[1].get("expired", 0) == expired
