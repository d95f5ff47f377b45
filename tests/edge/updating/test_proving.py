"""The bake: a release that serves stays on trial until its time has passed. The clock is made, the state is real."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from edge.contract.judgement import Verdict
from edge.contract.rollout import BAKE_REPORTS, RolloutReport
from edge.slot_state import faults
from edge.updating.proving import AGAIN_S, BAKE_SHARE, MOST_FAULTS, TELL_S
from tests.edge.releases import empty_release
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

BAKE_S = 3600
PACE_S = BAKE_S / BAKE_REPORTS
TROUBLE = Verdict(outcome="insufficient", reason="it could not be judged: no memory")


class Baking:
    """A device whose release has just come to its trial, and a clock. 20 frames a phase are judged at once."""

    def __init__(self, folder: Path, judges: Judges, *, bake_s: int = BAKE_S, **plan: int) -> None:
        self.judges, self.now_s = judges, 100.0
        self.start(Device(device_config(folder)))
        self.device.order(order_of(1, bake_s=bake_s, **plan))
        self.device.turn_until("trial")
        self.device.turn()  # the first look at what is judged while it serves

    def start(self, device: Device) -> None:
        """Go on with another start of the device, whose judge has seen nothing yet; who killed it told nobody."""
        self.device, self.judges.open_now = device, 0
        device.updater._proving._clock = lambda: self.now_s

    def after(self, seconds: float, *, frames: int = 0) -> str:
        """Return the phase, so much later and with so many frames more, if there is a judge to see them."""
        self.now_s += seconds
        self.judges.frames += frames if self.judges.open_now else 0
        self.device.turn(2)
        return self.device.store.slots.work.phase

    @property
    def told(self) -> list[RolloutReport]:
        return [report for report in self.device.publisher.reports if report.phase == "trial"]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    folder = tmp_path_factory.mktemp("repository")
    return Repository(folder, empty_release(folder / "starter-2", "starter-2"))


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch, repository: Repository) -> Iterator[Judges]:
    with standing_in(monkeypatch, repository) as script:
        yield script


@pytest.fixture
def baking(tmp_path: Path, judges: Judges) -> Baking:
    return Baking(tmp_path, judges)


def test_it_is_confirmed_when_the_bake_has_passed_and_not_before(baking: Baking) -> None:
    assert baking.after(BAKE_S - 1, frames=3000) == "trial"
    assert baking.after(0.5, frames=1) == "trial"
    assert baking.after(0.5) == "confirmed"
    assert baking.device.publisher.reports[-1].figures.frames == 20 + 3021, "shadow and trial together"


def test_the_bake_begins_with_the_first_judged_frame(tmp_path: Path, judges: Judges) -> None:
    """However long both models took to be opened, and however dark it was."""
    judges.frames = 0
    baking = Baking(tmp_path, judges)
    assert baking.after(BAKE_S) == "trial"
    assert baking.after(0.0, frames=20) == "trial"
    assert baking.after(BAKE_S - 1) == "trial"
    assert baking.after(1.0) == "confirmed"


def test_frames_that_come_late_are_waited_for(tmp_path: Path, judges: Judges) -> None:
    """The bake is over and too few are judged: `within_s` more, and not a second of it while it baked."""
    judges.trial = WAIT
    baking = Baking(tmp_path, judges, within_s=60, trial_frames=500)
    assert baking.after(BAKE_S + 59) == "trial"
    judges.trial = PASS
    assert baking.after(0.5, frames=480) == "confirmed"


def test_what_is_not_judged_by_then_is_no_pass(tmp_path: Path, judges: Judges) -> None:
    judges.trial = Verdict(outcome="insufficient", reason="the old model saw 3 boxes, of 10 to judge by")
    baking = Baking(tmp_path, judges, within_s=60)
    assert baking.after(BAKE_S + 59) == "trial"
    assert baking.after(1.0) == "rolled_back"
    assert baking.device.run().reason == "insufficient: the old model saw 3 boxes, of 10 to judge by"


@pytest.mark.parametrize("phase", ["shadow", "trial"])
def test_a_phase_in_which_nothing_can_be_judged_ends(tmp_path: Path, judges: Judges, phase: str) -> None:
    """Cameras see, and of none of their frames a judge can tell: `within_s` from the first of them."""
    judges.frames, judges.trial, bake_s = 0, WAIT, BAKE_S if phase == "trial" else 0
    judges.shadow = WAIT if phase == "shadow" else PASS
    now_s = 100.0
    device = Device(device_config(tmp_path))
    device.updater._proving._clock = lambda: now_s
    device.order(order_of(1, bake_s=bake_s, within_s=600))
    device.turn_until(phase)
    device.turn()
    now_s += bake_s + 599.0
    device.turn()
    assert device.store.slots.work.phase == phase
    now_s += 1.0
    last = device.run()
    assert (last.phase, last.serving) == ("rolled_back", "starter-1")
    assert last.reason.startswith("insufficient")


@pytest.mark.parametrize("after_s", [0.0, BAKE_S / 2, BAKE_S - 1.0, BAKE_S + 1.0])
def test_it_fails_at_any_time(baking: Baking, judges: Judges, after_s: float) -> None:
    judges.trial = WAIT
    assert baking.after(after_s) == "trial"
    judges.trial = FAIL
    assert baking.after(0.1) == "rolled_back"
    assert baking.device.detection.served == [0, 1, 0]
    assert baking.device.run().reason == "it is blind"


def test_what_it_does_in_the_daemon_counts_while_it_bakes(baking: Baking) -> None:
    assert baking.after(BAKE_S / 2) == "trial"
    baking.device.detection.not_finite = 1
    assert baking.after(0.1) == "rolled_back"


def test_a_bake_costs_little_once_the_frames_are_judged(tmp_path: Path, judges: Judges) -> None:
    judges.trial = WAIT
    baking = Baking(tmp_path, judges, trial_frames=30)
    assert judges.shares == [], "both phases are looked through at the whole share until then"
    baking.after(1.0, frames=9)
    assert judges.shares == []
    baking.after(1.0, frames=1)
    assert set(judges.shares) == {BAKE_SHARE}


@pytest.mark.parametrize(
    ("bake_s", "reports"),
    [
        # as planned: an hour is told of in twelfths
        (3600, BAKE_REPORTS),
        # a short one in quarters of a minute
        (60, 60 / TELL_S),
        # a month in twelfths, too: two and a half days each
        (30 * 86400, BAKE_REPORTS),
    ],
)
def test_figures_are_told_as_they_grow(tmp_path: Path, judges: Judges, bake_s: int, reports: float) -> None:
    """That the frames are enough is told within `TELL_S`, so that the hub can judge all devices together soon."""
    baking = Baking(tmp_path, judges, bake_s=bake_s)
    before = len(baking.told)
    assert baking.after(TELL_S, frames=1) == "trial"
    assert len(baking.told) == before + 1
    steps = BAKE_REPORTS * 40
    for _ in range(steps - 1):
        assert baking.after((bake_s - TELL_S - 1) / steps, frames=1) == "trial"
    told = [report.figures.frames for report in baking.told]
    assert told == sorted(set(told)), "each tells of more than the one before"
    assert reports - 2 <= len(told) - before <= reports + 1
    sequences = [report.sequence for report in baking.told]
    assert sequences == sorted(set(sequences))


def test_where_nothing_is_seen_nothing_is_told(baking: Baking) -> None:
    baking.after(TELL_S)
    before = len(baking.told)
    for _ in range(10):
        assert baking.after(PACE_S) == "trial"
    assert len(baking.told) == before


# Judging that ends by itself.


def end_by_itself(baking: Baking) -> None:
    """Let the judge end through no fault of the release, and the next one start from no frames of its own."""
    judges, said = baking.judges, baking.judges.trial
    judges.trouble, judges.trial = "no memory", TROUBLE
    baking.device.turn()
    judges.trouble, judges.trial, judges.frames = "", said, 0


def test_what_was_counted_stays_and_the_bake_goes_on(baking: Baking, judges: Judges) -> None:
    baking.after(BAKE_S / 2, frames=480)
    end_by_itself(baking)
    assert judges.open_now == 0
    baking.after(PACE_S - 1)
    assert judges.open_now == 0, "it is begun anew as often as figures are told"
    assert baking.after(1.0) == "trial"
    assert judges.open_now == 1
    baking.after(PACE_S, frames=7)
    assert baking.told[-1].frames == 507, "of both judges"
    assert baking.after(BAKE_S / 2 - 2 * PACE_S) == "confirmed"
    assert baking.device.publisher.reports[-1].frames == 507


def test_it_ends_no_bake_however_often(baking: Baking, judges: Judges) -> None:
    """The frames of the trial are judged: what the old model or the memory lacks is no fault of the release."""
    for _ in range(3 * MOST_FAULTS):
        end_by_itself(baking)
        assert baking.after(PACE_S) == "trial"
    end_by_itself(baking)
    assert baking.after(BAKE_S) == "confirmed", "by what was counted"
    assert len(judges.opened) >= 3 * MOST_FAULTS


def test_it_ends_a_trial_whose_frames_are_not_judged(tmp_path: Path, judges: Judges) -> None:
    judges.trial = WAIT
    baking = Baking(tmp_path, judges, trial_frames=500)
    for _ in range(MOST_FAULTS):
        assert baking.after(AGAIN_S) == "trial"
        end_by_itself(baking)
    assert baking.after(0.0) == "rolled_back"
    assert baking.device.run().reason == f"insufficient: {TROUBLE.reason}"


def test_a_bake_without_a_process_is_decided_by_what_was_counted(baking: Baking, judges: Judges, monkeypatch) -> None:
    """Figures of 20 frames without a box are no pass: it waits, and then it is left."""

    def refuse(_self) -> None:
        msg = "no process could be started to judge it"
        raise UnusableError(msg)

    monkeypatch.setattr(StandInJudge, "__enter__", refuse)
    monkeypatch.setattr("edge.updating.proving.judge", lambda figures, **_: PASS if figures.frames == 20 else FAIL)
    end_by_itself(baking)
    for _ in range(2 * MOST_FAULTS):
        assert baking.after(PACE_S) == "trial"
    assert baking.after(BAKE_S) == "confirmed"
    assert judges.open_now == 0


# A start in the midst of it.


def test_a_start_begins_the_bake_again(baking: Baking, judges: Judges) -> None:
    """Kill -9: nothing was said to anyone. The trial is where it was, its clock and its figures are this start's."""
    assert baking.after(BAKE_S - 1, frames=1000) == "trial"
    baking.start(Device(baking.device.updater._config))
    judges.frames = 20
    assert faults(baking.device.store.slots) == []
    assert baking.after(0.0) == "trial"
    assert baking.device.detection.served == [1]
    assert baking.after(BAKE_S - 1, frames=5) == "trial"
    assert baking.told[-1].figures.frames == 25, "no longer those before"
    assert baking.after(1.0) == "confirmed"


def test_starts_that_all_end_in_the_bake_go_back(baking: Baking) -> None:
    """A release may take an hour to bring the daemon down: no start of it is a good one before it is confirmed."""
    config = baking.device.updater._config
    numbers = []
    for _ in range(4):
        baking.start(Device(config))
        numbers.append(baking.device.detection.serving.number)
        baking.after(BAKE_S / 2)
    assert numbers == [1, 1, 1, 0]
    assert baking.device.run().phase == "rolled_back"


# Whatever comes.


STEPS = st.lists(
    st.tuples(st.sampled_from(["look", "look", "look", "trouble", "start"]), st.integers(0, 900), st.integers(0, 40)),
    max_size=12,
)


@given(steps=STEPS, bake_s=st.integers(0, 1800), trial_frames=st.integers(1, 200))
@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_is_confirmed_before_its_bake_and_its_frames(
    tmp_path_factory: pytest.TempPathFactory, repository: Repository, steps, bake_s: int, trial_frames: int
) -> None:
    """Those of one start: whatever ends the judges, what they had counted is there, and so is what the clock said."""
    with pytest.MonkeyPatch.context() as patch, standing_in(patch, repository) as script:
        script.frames, script.trial = 0, WAIT
        baking = Baking(tmp_path_factory.mktemp("device"), script, bake_s=bake_s, trial_frames=trial_frames)
        script.trial = PASS
        judged, troubles, since_s = 0, 0, None
        for what, seconds, more in steps:
            if what == "start":
                baking.start(Device(baking.device.updater._config))
                script.frames, judged, troubles, since_s = 0, 0, 0, None
            elif what == "trouble":
                end_by_itself(baking)
                troubles += 1
            judged += more if script.open_now else 0
            phase = baking.after(seconds, frames=more)
            since_s = baking.now_s if judged and since_s is None else since_s
            if phase == "confirmed":
                assert judged >= trial_frames
                assert baking.now_s - since_s >= bake_s
            if phase == "rolled_back":
                assert troubles >= MOST_FAULTS or baking.device.detection.served == [0], "or it did not start"
            if phase != "trial":
                return
        baking.after(BAKE_S)
        baking.after(0.0, frames=200)
        assert baking.after(bake_s) == "confirmed"
