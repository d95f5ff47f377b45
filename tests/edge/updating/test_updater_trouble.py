"""The updater where the device is in trouble: no room, no processes, long steps, a stop in the middle.

A real disk, small and full where it has to be; what is fetched, opened and judged are stand-ins.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.contract.errors import UnreachableError, UnusableError
from edge.contract.judgement import Verdict
from edge.detector.child import Child
from edge.slots import ByHand, ask, read_slots
from edge.updating import proving, updater
from edge.updating.proving import MOST_FAULTS
from edge.updating.updater import begin_start
from tests.brokers import wait_until
from tests.edge.releases import empty_release
from tests.edge.test_slots import ROOT, fill, no_files, small_disk  # noqa: F401
from tests.edge.updating.stand_ins import (
    FAIL,
    PASS,
    WAIT,
    Device,
    Judges,
    Repository,
    StandInJudge,
    device_config,
    order_of,
    standing_in,
)

STOP_S = 3.0


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("repository")
    return Repository(folder, *(empty_release(folder / name, name) for name in ("starter-2", "starter-3")))


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch, repository: Repository) -> Iterator[Judges]:
    monkeypatch.setattr(repository, "fault", None)
    with standing_in(monkeypatch, repository) as script:
        yield script


@pytest.fixture
def device(tmp_path: Path, judges: Judges) -> Device:
    return Device(device_config(tmp_path))


@pytest.fixture
def disk(small_disk: Callable[[str], Path]) -> Path:  # noqa: F811
    return small_disk("size=40m")


@pytest.fixture
def small(tmp_path: Path, disk: Path, judges: Judges) -> Device:
    """A device whose data folder is the small disk."""
    return Device(device_config(tmp_path, data_dir=disk))


def on_disk(device: Device):
    return read_slots(device.store.folder, "starter")


# A full disk


def test_a_bad_release_is_left_though_the_disk_is_full(small: Device, judges: Judges, disk: Path) -> None:
    """It may not serve on because nobody can write that it is bad; what is owed is written when there is room."""
    judges.trial = WAIT
    small.order(order_of(1))
    small.turn_until("trial")
    filler = fill(disk)
    judges.trial = FAIL
    waits_s = [small.updater._guarded_turn() for _ in range(4)]
    assert small.detection.served == [0, 1, 0]
    assert (on_disk(small).work.phase, small.store.behind) == ("rolled_back", True), "in the room taken beforehand"
    assert b'"phase": "trial"' in (small.store.folder / "slots.json").read_bytes()
    last = small.publisher.reports[-1]
    assert (last.phase, last.reason, last.serving) == ("rolled_back", "it is blind", "starter-1")
    assert max(waits_s) <= updater._IDLE_S
    filler.unlink()
    small.turn()
    assert (on_disk(small).work.phase, on_disk(small).active, small.store.behind) == ("rolled_back", 0, False)
    assert on_disk(small) == small.store.slots
    assert b'"phase": "rolled_back"' in (small.store.folder / "slots.json").read_bytes()


def test_figures_that_cannot_be_written_do_not_hold_up_a_trial(
    small: Device, judges: Judges, disk: Path, monkeypatch
) -> None:
    """Telling how far it is fails, again and again: it is still looked at every few seconds."""
    monkeypatch.setattr(proving, "TELL_S", 0.0)
    judges.trial = WAIT
    small.order(order_of(1))
    small.turn_until("trial")
    fill(disk)
    for frames in range(21, 33):
        judges.frames = frames
        assert small.updater._guarded_turn() <= updater._IDLE_S
    judges.trial = FAIL
    small.turn(2)
    assert small.detection.served == [0, 1, 0]


def test_a_release_on_trial_is_not_loaded_where_its_start_cannot_be_counted(small: Device, judges, disk: Path) -> None:
    """It may be what ends the process at each start: uncounted, it would be for ever."""
    judges.trial = WAIT
    small.order(order_of(1))
    small.turn_until("trial")
    fill(disk)
    again = Device(small.updater._config)
    assert again.detection.serving.number == 0
    last = again.run()
    assert (last.phase, last.serving) == ("rolled_back", "starter-1")
    assert last.reason.startswith("its start could not be counted: ")


def test_the_fourth_bad_start_goes_back_though_the_disk_is_full(small: Device, disk: Path) -> None:
    config = small.updater._config
    small.order(order_of(1))
    assert small.run().phase == "confirmed"
    for _ in range(3):
        begin_start(config)
    fill(disk)
    assert begin_start(config).slots.active == 0


def test_an_order_that_the_disk_does_not_take_is_not_lost(small: Device, judges: Judges, disk: Path) -> None:
    """The broker gives it once a connection. A trial is judged meanwhile."""
    filler = fill(disk)
    small.order(order_of(1))
    small.turn(3)
    assert small.store.slots.work is None
    filler.unlink()
    judges.trial = WAIT
    small.turn_until("trial")
    fill(disk)
    small.order(order_of(1, rollout="r2"))
    small.turn(2)
    judges.trial = FAIL
    small.turn(3)
    assert small.detection.served == [0, 1, 0]
    (disk / "filler").unlink()
    small.turn(2)
    assert on_disk(small).work.assignment.rollout == "r2"


def test_a_trial_is_left_on_a_disk_that_became_read_only(small: Device, judges: Judges, disk: Path) -> None:
    """As ext4 does it when the card breaks."""
    judges.trial = WAIT
    small.order(order_of(1))
    small.turn_until("trial")
    if subprocess.run(["mount", "-o", "remount,ro", disk], check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a disk anew here")
    small.updater.take(b"")
    small.turn(2)
    assert small.detection.served == [0, 1, 0]
    assert small.publisher.cleared
    assert small.detection.faults == []


# Orders


def test_of_two_orders_in_quick_succession_the_newer_is_followed(device: Device) -> None:
    device.order(order_of(1))
    device.order(order_of(2, rollout="r2"))
    last = device.run()
    assert (last.rollout, last.number, last.phase) == ("r2", 2, "confirmed")
    assert device.detection.served == [0, 2]
    assert {report.number for report in device.publisher.reports} == {2}


def test_what_serves_already_is_confirmed_at_once(device: Device, judges: Judges) -> None:
    device.order(order_of(1))
    device.run()
    opened = len(judges.opened)
    device.order(order_of(1, rollout="r2"))
    last = device.run()
    assert (last.rollout, last.phase, last.serving, last.reason) == (
        "r2",
        "confirmed",
        "starter-2",
        "it serves already",
    )
    assert device.detection.served == [0, 1]
    assert len(judges.opened) == opened


def test_a_report_of_what_was_withdrawn_is_taken_back(device: Device, judges: Judges) -> None:
    """It is retained at the broker: it would say `trial` for ever."""
    judges.trial = WAIT
    device.order(order_of(1))
    device.turn_until("trial")
    assert not device.publisher.cleared
    device.updater.take(b"")
    device.turn(2)
    assert device.publisher.cleared


def test_a_repository_that_was_made_anew_is_read_anew(device: Device, repository: Repository) -> None:
    """What is trusted for long may be what is wrong: the file that it names is gone."""
    device.order(order_of(1))
    device.turn_until("downloading")
    before = device.updater._open_fetcher()
    repository.fault = UnusableError("404 Not Found")
    device.turn()
    assert device.updater._open_fetcher() is not before
    kept = device.updater._open_fetcher()
    repository.fault = UnreachableError("it does not answer")
    device.turn()
    assert device.updater._open_fetcher() is kept


# Long steps


def long_step(monkeypatch: pytest.MonkeyPatch, *, asked: threading.Event) -> None:
    """Let tuning go on until it is broken off."""

    def tune(_config, _folder, *, on_wait) -> Verdict:
        asked.set()
        end_s = time.monotonic() + 60.0
        while time.monotonic() < end_s:
            on_wait()
        return PASS

    monkeypatch.setattr(proving, "tune_on_arrival", tune)


def test_a_start_is_counted_as_good_while_a_release_is_measured(device: Device, monkeypatch, judges) -> None:
    """Else three power cuts in three long downloads would cost a good release its place."""
    device.order(order_of(1))
    assert device.run().phase == "confirmed"
    again = Device(device.updater._config)
    assert again.store.slots.starts == 1
    again.updater._begun_s -= updater.SETTLED_S
    long_step(monkeypatch, asked=threading.Event())
    again.updater.start()
    again.order(order_of(2, rollout="r2"))
    try:
        wait_until(lambda: on_disk(again).work.phase == "golden", what="it is measured")
        wait_until(lambda: on_disk(again).starts == 0, what="the start was good")
    finally:
        again.updater.stop()


def test_a_start_is_counted_as_good_while_the_repository_is_away(device: Device, repository: Repository) -> None:
    device.order(order_of(1))
    assert device.run().phase == "confirmed"
    config = device.updater._config
    again = Device(config)
    repository.fault = UnreachableError("it does not answer")
    again.order(order_of(2, rollout="r2"))
    again.turn()
    again.updater._begun_s -= updater.SETTLED_S
    assert again.store.slots.starts == 1
    again.updater._woken.clear()
    waiting = threading.Thread(target=again.updater._rest, args=(3600.0,), daemon=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(updater, "_IDLE_S", 0.01)
        waiting.start()
        wait_until(lambda: on_disk(again).starts == 0, what="the start was good")
        ask(again.store.folder, ByHand(to=0))
        waiting.join(10.0)
    assert not waiting.is_alive(), "a person is not kept waiting for an hour"
    again.turn()
    assert again.detection.served == [1, 0]


@pytest.mark.parametrize("who", ["the hub", "a person", "the daemon"])
def test_a_long_step_is_broken_off(device: Device, monkeypatch: pytest.MonkeyPatch, who: str) -> None:
    device.order(order_of(1))
    assert device.run().phase == "confirmed"
    measuring = threading.Event()
    long_step(monkeypatch, asked=measuring)
    device.updater.start()
    device.order(order_of(2, rollout="r2"))
    try:
        assert measuring.wait(10.0)
        if who == "the hub":
            device.updater.take(b"")
            wait_until(lambda: device.store.slots.work is None)
        elif who == "a person":
            ask(device.store.folder, ByHand(to=0))
            wait_until(lambda: device.detection.serving.number == 0)
    finally:
        begun_s = time.monotonic()
        device.updater.stop()
    assert time.monotonic() - begun_s < STOP_S
    assert not device.updater.alive
    assert on_disk(device).starts == 0


@pytest.mark.parametrize("phase", ["assigned", "downloading", "verified", "staged", "golden", "shadow", "trial"])
def test_the_daemon_may_stop_in_each_phase(device: Device, judges: Judges, repository: Repository, phase: str) -> None:
    """It ends at once, and the next start goes on to the same end."""
    judges.shadow, judges.trial = PASS if phase == "trial" else WAIT, WAIT
    if phase == "assigned":
        repository.fault = UnreachableError("it does not answer")
        device.order(order_of(1))
        device.turn()
    else:
        device.order(order_of(1))
        device.turn_until(phase)
    begun_s = time.monotonic()
    device.updater.start()
    device.updater.stop()
    assert time.monotonic() - begun_s < STOP_S
    assert judges.open_now == 0
    judges.shadow = judges.trial = PASS
    repository.fault = None
    again = Device(device.updater._config)
    assert again.run().phase == "confirmed"


def test_a_child_that_hangs_is_not_waited_for_by_who_stops() -> None:
    """As tuning does it: the process sleeps on, and whoever asked has left."""

    class LeftError(Exception):
        pass

    def leave() -> None:
        raise LeftError

    with Child([sys.executable, "-c", "import time; time.sleep(600)"], leads=True) as child:
        begun_s = time.monotonic()
        with pytest.raises(LeftError):
            child.ask(b"?", within_s=600.0, on_wait=leave)
        with pytest.raises(UnusableError, match="did not answer within 0 s"):
            child.ask(b"?", within_s=0.4, on_wait=lambda: None)
    assert time.monotonic() - begun_s < STOP_S


# No processes


def test_where_no_process_can_be_started_a_trial_does_not_go_on_for_ever(
    device: Device, judges: Judges, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    device.updater._proving._clock = lambda: clock[0]
    device.order(order_of(1))
    device.turn_until("shadow")

    def refuse(_self) -> None:
        msg = "no process could be started to judge it: Resource temporarily unavailable"
        raise UnusableError(msg)

    monkeypatch.setattr(StandInJudge, "__enter__", refuse)
    for _ in range(MOST_FAULTS):
        assert device.store.slots.work.phase == "shadow"
        device.turn(3)
        clock[0] += proving.AGAIN_S
    last = device.run()
    assert (last.phase, last.serving) == ("rolled_back", "starter-1")
    assert last.reason.startswith("insufficient: no process could be started")


def test_what_serves_badly_is_left_though_nobody_can_judge_it(device: Device, judges: Judges, monkeypatch) -> None:
    judges.trial = WAIT
    device.order(order_of(1))
    device.turn_until("trial")
    device.updater._proving.close()

    def refuse(_self) -> None:
        msg = "no process could be started"
        raise UnusableError(msg)

    monkeypatch.setattr(StandInJudge, "__enter__", refuse)
    device.detection.not_finite = 1
    device.turn(2)
    assert device.detection.served == [0, 1, 0]


# A model that hangs


HANGING = """
import sys
from pathlib import Path
import pytest
from tests.edge.releases import empty_release
from tests.edge.updating.stand_ins import WAIT, Device, Repository, device_config, order_of, standing_in

folder = Path(sys.argv[1])
with pytest.MonkeyPatch.context() as patch:
    repository = Repository(folder, empty_release(folder / "starter-2", "starter-2"))
    with standing_in(patch, repository) as judges:
        judges.trial = WAIT
        device = Device(device_config(folder))
        device.order(order_of(1))
        device.turn_until("trial")
        device.detection.silent_s = 31.0
        beat_s = device.detection.beat_s
        type(device.detection).beat_s = beat_s
        device.updater._pulse._clock = lambda: beat_s + device.detection.silent_s
        device.turn()
        device.detection.silent_s = 36.0
        device.turn()
"""


def test_a_release_that_hangs_on_trial_ends_the_process_and_the_next_start_serves_the_old_one(tmp_path: Path) -> None:
    """No thread can be ended. Nobody but the daemon itself may be there to end the process: no systemd, no person."""
    command = [sys.executable, "-c", HANGING, str(tmp_path)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert ended.returncode == updater.HUNG, ended.stderr
    assert "the process ends" in ended.stderr
    store = begin_start(device_config(tmp_path))
    work = store.slots.work
    assert (store.slots.active, work.phase) == (0, "rolled_back")
    assert work.reason == "it hangs: it has been at one frame for 36 s"


@pytest.mark.parametrize(("silent_s", "starts"), [(0.0, 0), (20.0, 1)])
def test_a_start_that_ends_in_a_hang_is_no_good_one(device: Device, judges: Judges, silent_s, starts: int) -> None:
    """A person stops the container before the daemon is sure of it, and starts it again: at most three times."""
    judges.trial = WAIT
    device.order(order_of(1))
    device.turn_until("trial")
    again = Device(device.updater._config)
    again.detection.silent_s = silent_s
    again.updater.start()
    again.updater.stop()
    assert on_disk(again).on_trial
    assert on_disk(again).starts == starts


# A disk that does not give what is on it


def test_a_device_without_files_to_open_is_followed_on(device: Device) -> None:
    """Too many files are open: the thread waits, and lives; what a person asked for is done afterwards."""
    device.order(order_of(1))
    assert device.run().phase == "confirmed"
    ask(device.store.folder, ByHand(to=0))
    with no_files():
        assert not device.store.is_asked()
        assert device.store.asked() is None
        device.updater._woken.set()
        device.updater._rest(1.0)
    device.turn()
    assert device.detection.served == [0, 1, 0]


# By hand


def test_a_request_that_cannot_be_read_is_forgotten(device: Device) -> None:
    path = device.store.folder / "by-hand-nowhere"
    path.touch()
    device.turn()
    assert not path.exists()
