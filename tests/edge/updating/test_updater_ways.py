"""What an order means where the world around it changed: another name, a hub that never heard, a bad model, no camera.

A real disk; what is fetched, opened and judged are stand-ins.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge.contract.errors import UnreachableError
from edge.slot_state import STARTS_APART, faults
from edge.slots import ByHand, ask, read_slots
from edge.updating.seen_time import DARK_S
from tests.edge.releases import empty_release
from tests.edge.test_slots import fill_up
from tests.edge.test_spool_crash import Disk, disk  # noqa: F401
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

PHASES = ["assigned", "downloading", "verified", "staged", "golden", "shadow", "trial"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("repository")
    releases = (empty_release(folder / name, name) for name in ("starter-2", "starter-3", "starter-4"))
    return Repository(folder, *releases)


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch, repository: Repository) -> Iterator[Judges]:
    monkeypatch.setattr(repository, "fault", None)
    with standing_in(monkeypatch, repository) as script:
        yield script


@pytest.fixture
def device(tmp_path: Path, judges: Judges) -> Device:
    return Device(device_config(tmp_path))


def to(device: Device, judges: Judges, repository: Repository, phase: str, *, number: int = 1, **order) -> None:
    """Bring a device to a phase of an order and leave it there."""
    repository.fault = UnreachableError("it does not answer") if phase == "assigned" else None
    judges.shadow = PASS if phase in {"trial", "confirmed"} else WAIT
    judges.trial = PASS if phase == "confirmed" else WAIT
    device.order(order_of(number, **order))
    device.turn_until(phase)
    repository.fault = None
    judges.shadow = judges.trial = PASS


# Another name


@pytest.mark.parametrize("phase", PHASES)
def test_a_renamed_device_gives_up_what_was_ordered_under_its_old_name(
    tmp_path: Path, device: Device, judges: Judges, repository: Repository, phase: str
) -> None:
    """Nobody could take that order back any more. Ordered under the new one it is taken again, from the start."""
    to(device, judges, repository, phase)
    before = device.store.slots.sequence
    renamed = Device(device_config(tmp_path, device="door"))
    assert (renamed.detection.serving.number, renamed.store.slots.work) == (0, None)
    renamed.turn(2)
    assert renamed.publisher.reports == []
    assert renamed.publisher.cleared, "what another device of that name has left is no word of this one"
    renamed.order(msgspec.structs.replace(order_of(1), at_ms=9))
    last = renamed.run()
    assert (last.phase, renamed.detection.served) == ("confirmed", [0, 1])
    assert renamed.publisher.reports[0].sequence > before


@pytest.mark.parametrize(("phase", "served"), [("confirmed", 1), ("rolled_back", 0)])
def test_what_has_ended_under_the_old_name_is_told_under_the_new_one(
    tmp_path: Path, device: Device, judges: Judges, phase: str, served: int
) -> None:
    """It is not installed twice, and what failed is not tried again. The hub that orders it anew hears so."""
    judges.trial = PASS if phase == "confirmed" else FAIL
    device.order(order_of(1))
    assert device.run().phase == phase
    judges.trial = PASS
    renamed = Device(device_config(tmp_path, device="door"))
    renamed.turn()
    first = renamed.publisher.reports[-1]
    renamed.order(msgspec.structs.replace(order_of(1), at_ms=9))
    renamed.turn(2)
    last = renamed.publisher.reports[-1]
    assert (first.phase, last.phase, renamed.detection.served) == (phase, phase, [served])
    assert last.sequence > first.sequence, "the first came before the hub asked for it"


def test_the_same_name_again_goes_on(device: Device, judges: Judges, repository: Repository) -> None:
    to(device, judges, repository, "trial")
    assert Device(device.updater._config).detection.serving.number == 1


# A hub that never heard, or that was not heard


@pytest.mark.parametrize("phase", [*PHASES, "confirmed"])
def test_an_order_that_is_given_anew_is_answered_anew_and_done_once(
    device: Device, judges: Judges, repository: Repository, phase: str
) -> None:
    """A hub that was replaced by an older backup, or that knew this device by no name, has not the first answer."""
    to(device, judges, repository, phase)
    judges.shadow = judges.trial = WAIT
    device.turn()
    told = len(device.publisher.reports)
    device.order(order_of(1))
    device.turn()
    if phase in {"shadow", "trial", "confirmed"}:
        assert len(device.publisher.reports) == told, "what is retained comes with every connection"
    before = device.publisher.reports[-1]
    device.order(msgspec.structs.replace(order_of(1), at_ms=9))
    device.turn()
    assert device.publisher.reports[-1].sequence > before.sequence
    judges.shadow = judges.trial = PASS
    device.run()
    assert device.detection.served == [0, 1]


@pytest.mark.parametrize("after", ["a newer one", "back", "none"])
@pytest.mark.parametrize("phase", [*PHASES, "confirmed"])
def test_a_device_that_was_away_for_a_whole_rollout(
    device: Device, judges: Judges, repository: Repository, phase: str, after: str
) -> None:
    """It was left in a phase, and finds another order or none. It ends where that says, and the report is of that."""
    to(device, judges, repository, phase)
    sequence = device.store.slots.sequence
    away = Device(device.updater._config)
    away.turn()
    if after == "a newer one":
        away.order(order_of(2, rollout="r9"))
        last = away.run()
        assert (last.rollout, last.number, last.phase, last.serving) == ("r9", 2, "confirmed", "starter-3")
    elif after == "back":
        away.order(msgspec.structs.replace(order_of(1, action="back"), at_ms=9))
        last = away.run()
        assert (last.phase, last.serving, away.detection.serving.number) == ("rolled_back", "starter-1", 0)
    else:
        last = away.run()
        assert (last.phase, last.serving) == ("confirmed", "starter-2"), "it goes on by itself"
    assert last.sequence > sequence
    assert faults(away.store.slots) == []


# A bad model in place


def bad_one(device: Device) -> None:
    """The device has confirmed 1 and 2, and 1 is not here any more: 2 is bad, as it turns out, and keeps itself."""
    for number in (1, 2):
        device.order(order_of(number, rollout=f"r{number}"))
        assert device.run().phase == "confirmed"
    store = device.store
    held = tuple(slot for slot in store.slots.held if slot.number != 1)
    store.write(msgspec.structs.replace(store.slots, held=held, previous=0))


def way_back(number: int = 1, *, instead_of: int = 2, **plan):
    return msgspec.structs.replace(order_of(number, rollout="r2", **plan), instead_of=instead_of, at_ms=9)


def test_the_way_back_is_not_compared_with_what_is_bad(device: Device, judges: Judges) -> None:
    """Beside a model that sees everything the good one has too few boxes. Its golden set and its working decide."""
    bad_one(device)
    judges.shadow = judges.trial = FAIL
    judges.opened.clear()
    device.order(way_back())
    last = device.run()
    assert (last.phase, last.number, last.serving) == ("confirmed", 1, "starter-2")
    assert device.detection.served == [0, 1, 2, 1]
    assert judges.opened == [], "nobody looks with the bad one any more"
    assert (device.store.slots.highest, device.store.slots.below) == (2, "it is the signed baseline of 2")


@pytest.mark.parametrize("fault", ["golden", "not finite", "failed", "taken up"])
def test_a_way_back_that_does_not_work_is_left(device: Device, judges: Judges, monkeypatch, fault: str) -> None:
    bad_one(device)
    if fault == "golden":
        judges.golden = FAIL
    elif fault == "taken up":
        device.detection.refuses = "no room"
    device.order(way_back(trial_frames=10_000))
    if fault in {"not finite", "failed"}:
        device.turn_until("trial")
        looked = device.detection.looked()
        bad = looked._replace(not_finite=1) if fault == "not finite" else looked._replace(failed=3)
        monkeypatch.setattr(device.detection, "looked", lambda: bad._replace(number=device.detection.serving.number))
    last = device.run()
    assert (last.phase, last.number, last.serving) == ("rolled_back", 1, "starter-3")
    assert last.reason
    assert device.detection.serving.number == 2


@pytest.mark.parametrize(
    ("number", "instead_of"),
    [
        (1, 0),  # an order like any other
        (1, 3),  # of another that is bad: not the one that serves here
        (3, 2),  # 3 is nothing that 2 names as its baseline: it has to show what it can
    ],
)
def test_only_the_signed_baseline_of_what_serves_is_spared_the_comparison(
    device: Device, judges: Judges, number: int, instead_of: int
) -> None:
    bad_one(device)
    judges.shadow = FAIL
    device.order(way_back(number, instead_of=instead_of))
    assert device.run().phase == "rolled_back"
    assert device.detection.served == [0, 1, 2]


def test_without_a_signature_a_hub_cannot_order_it(device: Device, judges: Judges) -> None:
    """Law 6: 3 names 2 as its baseline, not 1; that the hub calls 3 bad changes nothing."""
    for number in (1, 2, 3):
        device.order(order_of(number, rollout=f"r{number}"))
        assert device.run().phase == "confirmed"
    device.order(way_back(1, instead_of=3))
    last = device.run()
    assert (last.phase, last.reason) == ("rolled_back", "1 is below 3, and nothing signed allows it")


# No camera


class Clock:
    """Monotonic seconds, and frames that come or not."""

    def __init__(self, device: Device, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s, self.frames = 1000.0, 20
        looked = device.detection.looked
        device.updater._seen._clock = lambda: self.now_s
        device.updater._seen._looked = lambda: looked()._replace(moving=self.frames)
        device.updater._seen._at_s = device.updater._seen._frame_s = self.now_s

    def pass_by(self, device: Device, seconds: float, *, fps: float) -> None:
        for _ in range(20):
            self.now_s += seconds / 20
            self.frames += int(seconds / 20 * fps)
            device.turn()


@pytest.mark.parametrize("phase", ["shadow", "trial"])
def test_a_day_without_a_camera_is_told_and_fails_no_release(
    device: Device, judges: Judges, repository: Repository, monkeypatch, phase: str
) -> None:
    """Some frames were judged, then no camera gave any more: `within_s` waits, and the hub and a person can see why."""
    clock = Clock(device, monkeypatch)
    to(device, judges, repository, phase, within_s=3600, bake_s=0)
    judges.shadow = judges.trial = WAIT
    clock.pass_by(device, 600.0, fps=5)
    last = device.publisher.reports[-1]
    assert (last.no_frames, last.reason) == (False, "")
    clock.pass_by(device, 86400.0, fps=0)
    last = device.publisher.reports[-1]
    assert (last.phase, last.no_frames) == (phase, True)
    assert last.reason == "it waits: no camera gives a frame to judge it by"
    work = read_slots(device.store.folder, "starter").work
    assert (work.phase, work.reason) == (phase, last.reason), "`edge model list` shows it"
    n = len(device.publisher.reports)
    clock.pass_by(device, 86400.0, fps=0)
    assert len(device.publisher.reports) == n, "it is told once"
    clock.pass_by(device, 60.0, fps=5)
    back = device.publisher.reports[-1]
    assert (back.phase, back.no_frames, back.reason) == (phase, False, "")
    assert back.sequence > last.sequence
    clock.pass_by(device, 3600.0, fps=5)
    last = device.run()
    assert (last.phase, last.no_frames) == ("rolled_back", False)
    assert last.reason.startswith("insufficient"), "with frames the plan's time passes"


def test_what_bakes_bakes_in_the_time_that_cameras_see(
    device: Device, judges: Judges, repository: Repository, monkeypatch
) -> None:
    clock = Clock(device, monkeypatch)
    to(device, judges, repository, "trial", bake_s=3600)
    clock.pass_by(device, 1800.0, fps=5)
    clock.pass_by(device, 86400.0, fps=0)
    assert device.store.slots.work.phase == "trial", "a night without cameras is no bake"
    clock.pass_by(device, 1700.0 - DARK_S, fps=5)
    assert device.store.slots.work.phase == "trial"
    clock.pass_by(device, 200.0, fps=5)
    assert device.store.slots.work.phase == "confirmed"


def test_a_clock_that_jumps_a_day_changes_nothing(
    device: Device, judges: Judges, repository: Repository, monkeypatch
) -> None:
    """The wall clock, back and forth within a trial: what lasts is measured by another one."""
    to(device, judges, repository, "trial", within_s=60, bake_s=0)
    judges.trial = WAIT
    wall_ns = [1_800_000_000 * 10**9]
    monkeypatch.setattr("edge.updating.updater.time.time_ns", lambda: wall_ns[0])
    for jump_s in (-86400, 2 * 86400, -86400 * 3650):
        wall_ns[0] += jump_s * 10**9
        device.turn(3)
        assert device.store.slots.work.phase == "trial"
        again = Device(device.updater._config)
        assert again.store.slots.work.phase == "trial"
    judges.trial = PASS
    assert device.run().phase == "confirmed"
    sequences = [report.sequence for report in device.publisher.reports]
    assert sequences == sorted(sequences)


# A person


@pytest.mark.parametrize("phase", PHASES)
def test_a_person_goes_back_in_the_middle_of_each_phase(
    device: Device, judges: Judges, repository: Repository, phase: str
) -> None:
    """What serves is left at once. What was on its way goes on and is judged beside what serves now."""
    device.order(order_of(1))
    assert device.run().phase == "confirmed"
    to(device, judges, repository, phase, number=2, rollout="r2")
    ask(device.store.folder, ByHand(to=1 if phase == "trial" else 0))
    device.turn()
    if phase == "trial":
        assert device.run().phase == "rolled_back"
        assert device.detection.served == [0, 1, 2, 1]
    else:
        assert device.detection.served == [0, 1, 0]
        last = device.run()
        assert (last.phase, device.detection.served) == ("confirmed", [0, 1, 0, 2])
        assert judges.opened[-1][0] is None, "beside the factory's model"
    assert faults(device.store.slots) == []


@pytest.mark.parametrize("phase", ["downloading", "golden", "shadow"])
def test_a_person_who_goes_back_to_where_nothing_signed_leads_on_ends_the_update(
    device: Device, judges: Judges, repository: Repository, phase: str
) -> None:
    """1 was allowed as the baseline of 2. With the factory's model in place of 2 it is below the highest."""
    bad_one(device)
    to(device, judges, repository, phase, number=1, rollout="r3")
    ask(device.store.folder, ByHand(to=0))
    last = device.run()
    assert (last.phase, last.reason) == ("rolled_back", "1 is below 2, and nothing signed allows it")
    assert device.detection.serving.number == 0
    assert device.detection.faults == []


# A disk that takes nothing, and then no power


def with_disk_full_rolled_back(tmp_path: Path, mount: Path, judges: Judges) -> tuple[Device, Path]:
    device = Device(device_config(tmp_path, data_dir=mount / "data"))
    judges.trial = WAIT
    device.order(order_of(1))
    device.turn_until("trial")
    filler = fill_up(mount)
    judges.trial = FAIL
    device.turn(2)
    assert device.detection.served == [0, 1, 0]
    assert device.publisher.reports[-1].phase == "rolled_back"
    assert b'"phase": "trial"' in (device.store.folder / "slots.json").read_bytes(), "that took nothing"
    return device, filler


@pytest.mark.parametrize("again_full", [False, True])
def test_a_rollback_on_a_full_disk_outlives_a_power_cut(
    tmp_path: Path,
    disk: Disk,  # noqa: F811
    judges: Judges,
    again_full: bool,
) -> None:
    """The room was taken beforehand: the bad release does not serve again, with space on the disk or without."""
    (disk.mount / "data").mkdir()
    device, filler = with_disk_full_rolled_back(tmp_path, disk.mount, judges)
    told = device.publisher.reports[-1]
    disk.cut_power()
    disk.power_on()
    if not again_full:
        filler.unlink(missing_ok=True)
    judges.trial = PASS
    again = Device(device.updater._config)
    assert again.detection.serving.number == 0
    last = again.run()
    assert (last.phase, last.reason, last.sequence) == ("rolled_back", "it is blind", told.sequence)
    assert again.detection.served == [0]
    filler.unlink(missing_ok=True)
    again.turn()
    assert b'"phase": "rolled_back"' in (again.store.folder / "slots.json").read_bytes()
    again.order(order_of(1))
    again.turn(2)
    assert again.detection.served == [0]


def test_a_rollback_that_only_memory_holds_is_followed_by_a_new_trial_and_higher_numbers(
    tmp_path: Path,
    disk: Disk,  # noqa: F811
    judges: Judges,
) -> None:
    """A card that became read-only takes nothing at all. What the next start tells is new to the hub all the same."""
    (disk.mount / "data").mkdir()
    device = Device(device_config(tmp_path, data_dir=disk.mount / "data"))
    judges.trial = WAIT
    device.order(order_of(1))
    device.turn_until("trial")
    os.sync()
    if subprocess.run(["mount", "-o", "remount,ro", disk.mount], check=False, capture_output=True).returncode:
        pytest.skip("cannot mount a disk anew here")
    judges.trial = FAIL
    device.turn(2)
    told = device.publisher.reports[-1]
    assert (told.phase, device.detection.served) == ("rolled_back", [0, 1, 0])
    disk.cut_power()
    disk.power_on()
    judges.trial = WAIT
    again = Device(device.updater._config)
    again.turn(2)
    assert again.store.slots.work.phase == "trial"
    judged = len(judges.opened)
    judges.trial = PASS
    last = again.run()
    assert (last.phase, judged) == ("confirmed", 3), "shadow, trial, and a trial anew"
    assert min(report.sequence for report in again.publisher.reports) > told.sequence
    assert told.sequence < STARTS_APART


# Two daemons, and a state of another version


def test_what_a_newer_version_wrote_still_tells_the_highest(tmp_path: Path, device: Device) -> None:
    """It went back to this version: the factory's model serves, and no release below is taken without a signature."""
    for number in (1, 2, 3):
        device.order(order_of(number, rollout=f"r{number}"))
        assert device.run().phase == "confirmed"
    told = device.publisher.reports[-1]
    path = device.store.folder / "slots.json"
    path.write_bytes(path.read_bytes().replace(b'"schema": 1', b'"schema": 2', 1))
    older = Device(device.updater._config)
    assert (older.detection.serving.number, older.store.slots.highest) == (0, 3)
    assert read_slots(older.store.folder, "starter").highest == 3, "it is on the disk already"
    older.order(order_of(2, rollout="r9"))
    last = older.run()
    assert (last.phase, last.reason) == ("rolled_back", "2 is below 3, and nothing signed allows it")
    assert last.sequence > told.sequence
    older.order(order_of(3, rollout="r10"))
    assert older.run().phase == "confirmed"
