"""The updater step by step: a real signed repository, a real disk, and stand-ins for cameras, broker and models."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.contract.errors import UnreachableError, UnusableError
from edge.contract.judgement import Verdict
from edge.slot_state import faults
from edge.slots import ByHand, ask, models_folder, read_slots
from edge.updating import updater
from edge.updating.proving import MOST_FAULTS
from edge.updating.time_floor import ExpiredError
from tests.edge.releases import empty_release
from tests.edge.updating.stand_ins import (
    FAIL,
    PASS,
    WAIT,
    Device,
    Judges,
    Repository,
    device_config,
    order_of,
    standing_in,
)

WAY = ["assigned", "downloading", "verified", "staged", "golden", "shadow", "trial", "confirmed"]


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


def test_a_good_release_goes_all_the_way_and_each_step_is_told(device: Device, judges: Judges) -> None:
    device.order(order_of(1))
    last = device.run()
    assert device.phases == WAY
    sequences = [report.sequence for report in device.publisher.reports]
    assert sequences == sorted(sequences)
    assert (last.serving, last.release, last.number, last.reason) == ("starter-2", "starter-2", 1, "")
    told = {report.phase: report.figures for report in device.publisher.reports}
    assert told["golden"] is None
    assert [told[phase].frames for phase in ("trial", "confirmed")] == [20, 40], "shadow and trial together"
    for report in device.publisher.reports:
        proved = report.phase in {"trial", "confirmed"}
        assert (report.serving == "starter-2") == proved, "the old model serves until the trial"
    assert device.detection.served == [0, 1]
    assert device.publisher.models == ["starter-2"]
    folder = device.store.path(1)
    assert judges.opened == [(None, folder, "old"), (None, folder, "new")]
    assert judges.open_now == 0
    assert list((models_folder(folder.parent.parent) / "downloads").iterdir()) == []
    assert (device.store.slots.active, device.store.slots.highest) == (1, 1)


def test_the_next_release_and_the_way_back_from_it(device: Device) -> None:
    """The second release names the first as its baseline. The factory's model is never unpacked, and always there."""
    for number in (1, 2):
        device.order(order_of(number))
        assert device.run().phase == "confirmed"
    assert device.detection.served == [0, 1, 2]
    device.order(order_of(2, action="back", rollout="r2"))
    last = device.run()
    assert (last.phase, last.rollout, last.serving) == ("rolled_back", "r2", "starter-2")
    assert device.detection.served == [0, 1, 2, 1]
    assert device.publisher.models[-1] == "starter-2"


@pytest.mark.parametrize("phase", ["golden", "shadow", "trial"])
def test_a_release_that_fails_is_left_and_not_tried_again(device: Device, judges: Judges, phase: str) -> None:
    """What was rolled back is told of only when the old model serves, and the same order again changes nothing."""
    setattr(judges, phase, FAIL)
    device.order(order_of(1))
    last = device.run()
    assert device.phases == [*WAY[: WAY.index(phase) + 1], "rolled_back"]
    assert (last.reason, last.serving) == ("it is blind", "starter-1")
    assert device.detection.served == ([0, 1, 0] if phase == "trial" else [0])
    assert all(report.serving == "starter-1" for report in device.publisher.reports if report.phase == "rolled_back")
    assert judges.open_now == 0
    told = len(device.publisher.reports)
    device.order(order_of(1))
    device.turn(3)
    assert len(device.publisher.reports) == told
    assert not device.store.path(1).exists(), "nobody needs it"


def test_what_it_does_in_the_daemon_counts_in_its_trial(device: Device, judges: Judges) -> None:
    """The judge is content; the cameras got numbers that are not finite."""
    judges.trial = WAIT
    device.order(order_of(1))
    device.turn_until("trial")
    device.detection.not_finite = 2
    last = device.run()
    assert last.phase == "rolled_back"
    assert "not finite in 2 of 20 frames" in last.reason
    assert device.detection.served == [0, 1, 0]


def test_too_few_frames_are_no_pass(device: Device, judges: Judges) -> None:
    judges.shadow, judges.frames = Verdict(outcome="insufficient", reason="3 of 20 frames"), 3
    device.order(order_of(1, within_s=1))
    device.turn_until("shadow")
    clock = [100.0]
    device.updater._proving._clock = lambda: clock[0]
    device.turn(3)
    assert device.store.slots.work.phase == "shadow"
    clock[0] += 1.5
    last = device.run()
    assert (last.phase, last.reason, last.frames) == ("rolled_back", "insufficient: 3 of 20 frames", 3)


def test_judging_that_fails_is_begun_anew_but_not_for_ever(device: Device, judges: Judges) -> None:
    judges.shadow = Verdict(outcome="insufficient", reason="it could not be judged: no memory")
    judges.trouble = "no memory"
    device.order(order_of(1))
    last = device.run()
    assert (last.phase, last.reason) == ("rolled_back", "insufficient: it could not be judged: no memory")
    assert len(judges.opened) == MOST_FAULTS


def test_a_model_that_cannot_be_taken_up_is_left(device: Device) -> None:
    device.detection.refuses = "no room"
    device.order(order_of(1))
    last = device.run()
    assert (last.phase, last.reason) == ("rolled_back", "it could not be taken up: no room")
    assert device.detection.served == [0]
    assert not device.updater.fault


def test_a_model_that_has_to_be_left_and_cannot_ends_the_daemon(device: Device, judges: Judges) -> None:
    """Its start loads the other one: the state says so already. Nothing is told that is not so."""
    judges.trial = WAIT
    device.order(order_of(1))
    device.turn_until("trial")
    judges.trial, device.detection.refuses = FAIL, "no memory for two"
    device.turn(2)
    assert "cannot be gone back to without a new start" in device.updater.fault
    assert device.publisher.reports[-1].phase == "trial"
    again = Device(device.updater._config)
    assert again.run().phase == "rolled_back"
    assert again.detection.served == [0]


@pytest.mark.parametrize("fault", [UnreachableError("it does not answer"), UnusableError("it is forged")])
@pytest.mark.parametrize("phase", ["assigned", "downloading", "verified"])
def test_a_repository_that_is_away_or_wrong_is_asked_again(device: Device, repository, phase: str, fault) -> None:
    """It fails no release: the reason is told, once, and the release goes on when the repository is right again."""
    if phase != "assigned":
        device.order(order_of(1))
        device.turn_until(phase)
    repository.fault = fault
    if phase == "assigned":
        device.order(order_of(1))
    device.turn(5)
    assert device.store.slots.work.phase == phase
    assert [report.reason for report in device.publisher.reports if report.reason] == [str(fault)]
    repository.fault = None
    assert device.run().phase == "confirmed"
    assert device.publisher.reports[-1].reason == ""


def test_what_is_wrong_is_fetched_less_and_less_often(device: Device, repository) -> None:
    """A mirror with a broken file is not fetched every minute; one that is away is asked again soon."""
    device.order(order_of(1))
    device.turn_until("downloading")
    repository.fault = UnusableError("it is not the file that was signed")
    waits_s = [device.updater._guarded_turn() for _ in range(5)]
    assert waits_s == [pytest.approx(0.1 * 2**n) for n in range(5)]
    for repository.fault in (UnreachableError("it does not answer"), ExpiredError("it has run out")):
        assert device.updater._guarded_turn() == pytest.approx(0.1)
    repository.fault = None
    assert device.run().phase == "confirmed"


@pytest.mark.parametrize("error", [MemoryError("no memory"), RuntimeError("a vendor's own")])
def test_whatever_a_model_does_when_it_is_opened_it_is_left(device: Device, monkeypatch, error: Exception) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(updater, "warm", fail)
    device.order(order_of(1))
    last = device.run()
    assert (last.phase, last.reason) == ("rolled_back", f"it could not be taken up: {error}")
    assert (device.detection.served, device.detection.faults) == ([0], [])


def test_what_is_not_what_was_assigned_is_refused_at_once(device: Device) -> None:
    device.order(order_of(1, release="starter-9"))
    last = device.run()
    assert (last.phase, device.detection.served) == ("rolled_back", [0])
    assert "starter" in last.reason


def test_a_device_without_updates_says_so(tmp_path: Path, judges: Judges) -> None:
    device = Device(device_config(tmp_path, updates=False))
    device.order(order_of(1))
    assert device.run().reason == "this device takes no updates: its edge.toml has no [updates]"


def test_a_golden_set_that_cannot_be_held_is_tried_again_and_not_for_ever(device: Device, judges: Judges) -> None:
    """The device has no memory for it now: no fault of the release, and no pass."""
    judges.golden = Verdict(outcome="insufficient", reason="its process was killed by SIGKILL")
    device.order(order_of(1))
    device.turn_until("golden")
    device.turn(MOST_FAULTS - 1)
    work = device.store.slots.work
    assert (work.phase, work.reason) == ("golden", judges.golden.reason)
    last = device.run()
    assert (last.phase, last.reason) == ("rolled_back", f"insufficient: {judges.golden.reason}")
    device.order(order_of(1, rollout="r2"))
    device.turn_until("golden")
    device.turn(MOST_FAULTS - 1)
    judges.golden = PASS
    assert device.run().phase == "confirmed", "another rollout has its own tries"


def test_no_room_is_told_at_once(device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_bytes: int) -> None:
        msg = "the disk has 1 MB free, 40 MB are needed"
        raise UnusableError(msg)

    monkeypatch.setattr(device.store, "require_room", full)
    device.order(order_of(1))
    assert device.run().reason == "the disk has 1 MB free, 40 MB are needed"


@pytest.mark.parametrize("phase", ["downloading", "staged", "shadow", "trial"])
def test_an_order_that_is_taken_back_leaves_the_old_model(device: Device, judges: Judges, phase: str) -> None:
    """At any point: an empty payload, as a retained message is cleared. It did not fail, so it may come again."""
    judges.shadow = WAIT if phase == "shadow" else judges.shadow
    judges.trial = WAIT
    device.order(order_of(1))
    device.turn_until(phase)
    device.updater.take(b"")
    device.turn(2)
    assert device.store.slots.work is None
    assert device.updater.last_report is None, "nothing is under way"
    assert device.detection.serving.number == 0
    assert judges.open_now == 0
    judges.shadow = judges.trial = Verdict(outcome="pass")
    device.order(order_of(1))
    assert device.run().phase == "confirmed"


def test_nonsense_is_refused_and_changes_nothing(device: Device) -> None:
    for payload in (b"nonsense", b"{}", b'{"schema": 9}', b"\xff" * 1000, b"[" * 10000):
        with pytest.raises(UnusableError):
            device.updater.take(payload)
    device.turn()
    assert device.publisher.reports == []


def test_a_person_goes_back_by_hand(device: Device) -> None:
    device.order(order_of(1))
    assert device.run().phase == "confirmed"
    ask(device.store.folder, ByHand(to=0))
    device.turn(2)
    assert device.detection.served == [0, 1, 0]
    ask(device.store.folder, ByHand(to=7))
    device.turn(2)
    assert device.detection.served == [0, 1, 0], "7 is not here"


def test_three_starts_that_end_badly_go_back_before_anything_is_loaded(device: Device) -> None:
    """The daemon dies with the release, each time: nothing counts the starts as good."""
    config = device.updater._config
    device.order(order_of(1))
    assert device.run().phase == "confirmed"
    assert [Device(config).detection.serving.number for _ in range(4)] == [1, 1, 1, 0]
    again = Device(config)
    last = again.run()
    assert (last.phase, last.serving) == ("rolled_back", "starter-1")
    assert "3 starts" in last.reason


def test_a_start_that_ends_in_order_was_a_good_one(device: Device) -> None:
    config = device.updater._config
    device.order(order_of(1))
    device.run()
    for _ in range(5):
        again = Device(config)
        assert again.detection.serving.number == 1
        again.updater.start()
        again.updater.stop()
    assert read_slots(device.store.folder, "starter").starts == 0


def test_every_write_may_be_the_last_one(tmp_path: Path, judges: Judges) -> None:
    """The process ends before or after each write of the state; the next start goes on, to the same end."""
    config = device_config(tmp_path)
    cuts = [(n, when) for n in range(9) for when in ("before", "after")]
    ends = []
    for n, when in cuts:
        shutil.rmtree(config.data_dir, ignore_errors=True)
        device = Device(config)
        store, write, left = device.store, device.store.write, [n]

        def dying(slots, *, store=store, write=write, left=left, when=when, **more) -> None:
            if slots != store.slots:
                left[0] -= 1
                if left[0] < 0:
                    if when == "after":
                        write(slots, **more)
                    raise KeyboardInterrupt
            write(slots, **more)

        store.write = dying
        device.order(order_of(1))
        try:
            device.run()
        except KeyboardInterrupt:
            ends.append((n, when))
        again = Device(config)
        assert faults(again.store.slots) == []
        again.order(order_of(1))
        assert again.run().phase == "confirmed"
        assert again.detection.serving.number == 1
    assert len(ends) >= 16, "each write was cut"
