"""One model takes the place of another under running cameras: real models, a real street, no broker."""

import contextlib
import gc
import resource
import statistics
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edge.config import EdgeConfig, read_config
from edge.contract.card import read_card
from edge.contract.errors import UnusableError
from edge.contract.samples import Reason, decode_event
from edge.daemon import Daemon
from edge.detector.opening import CARD_NAME, find_starter
from edge.frame import Frame
from edge.health import read_status
from edge.opening import open_configured, open_slot, open_spool
from edge.pipeline import Pipeline
from edge.places import Place
from edge.serving import Serving, move_places, open_serving, warm
from edge.slot_work import accept, advance, assign, begin_trial, hold
from edge.slots import SlotStore, models_folder, read_slots
from edge.spool import SampleState, Spool
from edge.updating.updater import begin_start
from tests.brokers import wait_until
from tests.edge.releases import made_release, reordered, signed_of
from tests.edge.updating.stand_ins import order_of

ROOT = Path(__file__).resolve().parents[2]
FPS = 5
CONFIG = """
site = "yard"
device = "gate"
data_dir = "data"
[model]
runtime = "onnxruntime"
input = "192x96"
threads = 1
[mqtt]
port = 1
[spool]
limit_mb = 50
reserve_mb = 1
[mining]
control_per_hour = 36000
{mining}
[quota]
burst = 1000
[[camera]]
name = "front"
source = "{root}/deploy/demo/street.mp4"
fps = {fps}
loop = true
"""


def configure(folder: Path, *, mining: str = "") -> EdgeConfig:
    text = CONFIG.format(root=ROOT, fps=FPS, mining=mining)
    (folder / "edge.toml").write_text(text)
    return read_config(folder / "edge.toml")


@pytest.fixture
def config(tmp_path: Path) -> EdgeConfig:
    config = configure(tmp_path)
    config.data_dir.mkdir()
    return config


@pytest.fixture
def spool(config: EdgeConfig) -> Iterator[Spool]:
    with contextlib.closing(open_spool(config)) as opened:
        yield opened


def made(config: EdgeConfig, folder: Path, *, number: int = 2, **card) -> Serving:
    detector = open_slot(config, made_release(folder, f"starter-{number}", **card), cached=False)
    return open_serving(config, detector, number=number)


def test_the_pause_of_a_swap_is_shorter_than_a_frame(config: EdgeConfig, spool: Spool, tmp_path: Path) -> None:
    """Five swaps under a street at 5 frames a second. Every finding bears the release that saw it."""
    daemon = Daemon(config, detector=open_configured(config, cached=False), spool=spool)
    detection = daemon._detection
    seen: list[tuple[int, int]] = []
    daemon.start()
    try:
        wait_until(lambda: detection.looked().frames > 5, what="frames are looked at")
        detection.watch_with(lambda frame: seen.append((frame.sequence, detection.serving.number)))
        before = daemon._heartbeat().cameras[0]
        pauses_ms = []
        both = [detection.serving, made(config, tmp_path / "m")]
        warm(both[1].detector, [np.zeros((h, w, 3), np.uint8) for w, h in detection.sizes().values()])
        for coming in (both * 3)[1:]:
            pauses_ms.append(detection.swap(coming, within_s=60.0))
            wait_until(lambda: detection.looked().frames > 3, what="the new one looks")
        after = daemon._heartbeat()
    finally:
        daemon.stop()
    print("pauses in ms:", [round(pause, 2) for pause in pauses_ms])
    assert statistics.median(pauses_ms) < 1000 / FPS
    assert [sequence for sequence, _ in seen] == sorted({sequence for sequence, _ in seen}), "each frame once"
    assert {number for _, number in seen} == {0, 2}
    assert after.model == "starter-2"
    assert after.cameras[0].frames > before.frames
    releases = {decode_event(leased.event)[0].model for leased in spool.lease(SampleState.NEW, now_s=1e9, limit=500)}
    assert releases == {"starter-1", "starter-2"}
    assert daemon._memory._model == "starter-2"
    assert not daemon._detection._faults


def test_a_release_on_trial_is_left_within_a_minute(tmp_path: Path, config: EdgeConfig, spool: Spool) -> None:
    """From the hub's word to the old model's first frame, opening it included; no frame is waited for meanwhile."""
    store = SlotStore(models_folder(config.data_dir), "starter")
    folder = made_release(store.path(1), "starter-2")
    slots = assign(store.slots, order_of(1, trial_frames=100_000), now_ms=1)
    slots = advance(accept(slots, signed_of(folder, 1), now_ms=1), "verified", now_ms=1)
    slots = advance(advance(hold(slots, now_ms=1), "golden", now_ms=1), "shadow", now_ms=1)
    store.write(begin_trial(slots, now_ms=1))
    daemon = Daemon(config, detector=open_slot(config, folder, cached=False), spool=spool, slots=store)
    assert (daemon._detection.serving.number, daemon._heartbeat().model) == (1, "starter-2")
    daemon.start()
    try:
        wait_until(lambda: daemon._detection.looked().frames > 3, deadline_s=60.0, what="it serves")
        begun_s = time.monotonic()
        assert daemon._updater is not None
        daemon._updater.take(b"")
        wait_until(
            lambda: daemon._detection.looked().number == 0 and daemon._detection.looked().frames > 0,
            deadline_s=60.0,
            what="the old model serves",
        )
        print(f"back after {time.monotonic() - begun_s:.2f} s, a pause of {daemon._detection.pause_ms:.2f} ms")
    finally:
        daemon.stop()
    assert read_slots(store.folder, "starter").active == 0
    assert daemon._heartbeat().model == "starter-1"


@pytest.fixture
def idle(config: EdgeConfig, spool: Spool) -> Daemon:
    """A daemon whose threads do not run: its detection is driven by hand."""
    return Daemon(config, detector=open_configured(config, cached=False), spool=spool)


def swap_by_hand(daemon: Daemon, serving: Serving) -> None:
    """Give the order and let the detection take its turn."""
    detection = daemon._detection
    ordered = threading.Thread(target=detection.swap, args=(serving,), kwargs={"within_s": 20.0})
    ordered.start()
    wait_until(lambda: detection._order is not None, what="the order is given")
    detection._exchange()
    ordered.join()


def test_a_model_that_lacks_what_is_mined_is_not_taken_up(tmp_path: Path, config: EdgeConfig, spool: Spool) -> None:
    """Its labels are others, and `mining.labels` asks for one that is gone: the old model goes on."""
    picky = configure(tmp_path, mining='labels = ["person"]')
    daemon = Daemon(picky, detector=open_configured(picky, cached=False), spool=spool)
    labels = ("nobody", *read_card(find_starter() / CARD_NAME).labels[1:])
    with pytest.raises(UnusableError, match="'person', which the model does not know"):
        made(picky, tmp_path / "m", labels=labels)
    other = made(config, tmp_path / "n", labels=labels)
    refused: list[str] = []

    def order() -> None:
        try:
            daemon._detection.swap(other, within_s=20.0)
        except UnusableError as error:
            refused.append(str(error))

    daemon._detection._rules = daemon._policies.rules
    ordered = threading.Thread(target=order)
    ordered.start()
    wait_until(lambda: daemon._detection._order is not None)
    daemon._detection._exchange()
    ordered.join()
    assert refused
    assert "starter-2 could not be taken up" in refused[0]
    assert daemon._detection.serving.number == 0
    assert daemon._eyes[0].pipeline is daemon._detection.serving.pipelines["front"]


def test_a_swap_that_nobody_takes_up_is_withdrawn(idle: Daemon, config: EdgeConfig, tmp_path: Path) -> None:
    """The detection hangs, here it does not run: what was ordered does not happen later either."""
    coming = made(config, tmp_path / "m")
    with pytest.raises(UnusableError, match="did not take starter-2 up within 0 s"):
        idle._detection.swap(coming, within_s=0.05)
    idle._detection._exchange()
    assert idle._detection.serving.number == 0


def test_known_places_move_over_under_the_new_class_ids(idle: Daemon, config: EdgeConfig, tmp_path: Path) -> None:
    old = idle._detection.serving
    labels = old.detector.labels
    here, gone = Place(labels.index("dog"), (1.0, 2.0, 30.0, 40.0), 7), Place(0, (5.0, 5.0, 9.0, 9.0), 8)
    old.pipelines["front"].places["missed"].load([here, gone])
    new = made(config, tmp_path / "m", labels=reordered(read_card(find_starter() / CARD_NAME)))
    swap_by_hand(idle, new)
    moved = new.pipelines["front"].places["missed"].dump()
    assert moved == [Place(new.detector.labels.index("dog"), here.xyxy, 7)], "the label `person` is gone"
    move_places(new, old)
    assert old.pipelines["front"].places["missed"].dump() == [here]


def test_what_was_counted_and_what_was_open_is_not_lost(idle: Daemon, config: EdgeConfig, tmp_path: Path) -> None:
    """Frames of two models: the looks add up, and a drawn frame that waits for its second look is handed on."""
    eye, detection = idle._eyes[0], idle._detection
    rng = np.random.default_rng(0)

    def look(first: int, n: int) -> None:
        for i in range(first, first + n):
            detection.look(eye, Frame(rng.integers(0, 255, (192, 192, 3), np.uint8), "front", i, 0, i / 5))

    old = detection.serving
    for one in old.pipelines.values():
        one.looks.budget.share = 1.0
    look(0, 20)
    before = eye.health(now_s=0.0)
    assert before.recall.frames > 0
    swap_by_hand(idle, made(config, tmp_path / "m"))
    assert eye.health(now_s=0.0).looks == before.looks
    for one in detection.serving.pipelines.values():
        one.looks.budget.share = 1.0
    look(20, 20)
    after = eye.health(now_s=0.0)
    assert after.looks > before.looks
    assert after.recall.frames > before.recall.frames
    sighted = [detection.queue.get_nowait() for _ in range(detection.queue.qsize())]
    assert {one.serving.number for one in sighted if one.mined.at.frame.sequence < 20} == {0}
    assert {one.mined.reason for one in sighted} >= {Reason.CONTROL}


def test_a_model_that_hangs_is_told_of_and_not_waited_for(config: EdgeConfig, spool: Spool, monkeypatch) -> None:
    """Who stops the daemon gets it stopped; a thread that is in a vendor's code cannot be ended."""
    daemon = Daemon(config, detector=open_configured(config, cached=False), spool=spool)
    detection, let_go, stopped = daemon._detection, threading.Event(), threading.Event()
    monkeypatch.setattr(Pipeline, "step", lambda *_: let_go.wait(120.0))
    monkeypatch.setattr("edge.detection.HALT_S", 0.6)
    daemon.start()
    assert detection.silent_s < 0.6, "without frames it turns"
    wait_until(lambda: detection.silent_s > 0.6, deadline_s=60.0, what="it hangs")
    threading.Thread(target=lambda: (daemon.stop(), stopped.set()), daemon=True).start()
    try:
        assert stopped.wait(30.0)
        assert detection.alive
    finally:
        let_go.set()
    wait_until(lambda: not detection.alive, what="it goes on, and ends")


def test_a_picture_that_stands_still_is_looked_at_and_cannot_be_judged(idle: Daemon) -> None:
    detection, eye, watched = idle._detection, idle._eyes[0], []
    detection.watch_with(watched.append)
    still = np.random.default_rng(0).integers(0, 255, (96, 192, 3), np.uint8)
    for i in range(12):
        detection.look(eye, Frame(still, "front", i, 0, i * 10.0))
    looked = detection.looked()
    assert eye.frozen
    assert looked.frames == 12
    assert looked.moving == len(watched) < 8


def test_a_state_that_cannot_be_read_turns_updates_off(config: EdgeConfig, spool: Spool, monkeypatch) -> None:
    """The factory's model serves, a person can read why, and the hub orders nothing of it; the disk stays as it is."""
    monkeypatch.setattr("edge.slots.READ_AGAIN_S", 0.0)
    state = models_folder(config.data_dir) / "slots.json"
    (state / "in the way").mkdir(parents=True)
    daemon = Daemon(config, detector=open_configured(config, cached=False), spool=spool, slots=begin_start(config))
    daemon._publish_health()
    assert (daemon._updater, daemon._detection.serving.number) == (None, 0)
    status = read_status(config.data_dir)
    assert status is not None
    assert status.running.endswith(f"; UPDATES ARE OFF: cannot read {state}: Is a directory")
    assert [path.name for path in state.parent.iterdir()] == ["slots.json"]


@pytest.mark.slow
def test_fifty_swaps_leave_nothing_behind(idle: Daemon, config: EdgeConfig, tmp_path: Path) -> None:
    """Each is opened anew, looks, and goes: neither models nor memory stay."""
    folder = made_release(tmp_path / "m", "starter-2")
    eye, detection = idle._eyes[0], idle._detection
    rng = np.random.default_rng(0)
    opened, used_mb = [weakref.ref(detection.serving.detector)], []
    for n in range(50):
        swap_by_hand(idle, open_serving(config, open_slot(config, folder, cached=False), number=2))
        opened.append(weakref.ref(detection.serving.detector))
        for i in range(2):
            detection.look(eye, Frame(rng.integers(0, 255, (192, 192, 3), np.uint8), "front", 2 * n + i, 0, n + i / 2))
        detection.queue.queue.clear()
        idle._publish_health()
        gc.collect()
        used_mb.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6)
    assert [one() is not None for one in opened] == [False] * 50 + [True]
    print(f"{used_mb[9]:.0f} MB after 10 swaps, {used_mb[-1]:.0f} MB after 50")
    assert used_mb[-1] - used_mb[9] < 40
