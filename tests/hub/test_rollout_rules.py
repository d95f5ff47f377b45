"""The rules of a rollout: whatever reports come, doubled, late, out of order or false, the laws hold."""

import contextlib
import math
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from edge.contract.errors import UnusableError
from edge.contract.judgement import Figures, side
from edge.contract.rollout import PHASES, Phase, RolloutReport, TrialPlan
from edge.contract.status import Assignment
from hub.rollout_rules import MAX_STEP_MS, adopt, give_way, halt, hear, resume, roll_back, step, turned_up
from hub.rollout_state import (
    AWAY_MS,
    OLDER_COPY,
    Baseline,
    Heard,
    Member,
    Place,
    Rollout,
    RolloutPlan,
    assignment,
    count_wave,
    faults,
    standing,
    stop_at,
)

NOW = 1_700_000_000_000
MINUTE = 60_000
OLD, NEW = "street-11", "street-12"
PLAN = RolloutPlan(timeout_s=3600, trial=TrialPlan(bake_s=600))


def begun(plan: RolloutPlan = PLAN, *, name: str = "r-1") -> Rollout:
    return Rollout(
        id=name, model="street", release=NEW, number=12, target="street/000012.tar", plan=plan, started_at_ms=NOW
    )


def fleet(n: int, *, offline: int = 0, labels: tuple[str, ...] = ()) -> list[Heard]:
    return [Heard(Place("lab", f"cam{i}"), i >= offline, labels) for i in range(n)]


def says(phase: Phase, sequence: int, **changes: object) -> RolloutReport:
    """What a device with nothing to hide says."""
    report = RolloutReport(
        rollout="r-1",
        model="street",
        release=NEW,
        number=12,
        sequence=sequence,
        boot_id="boot-1",
        phase=phase,
        serving=NEW if phase in {"trial", "confirmed"} else OLD,
        at_ms=NOW + sequence,
    )
    return msgspec.structs.replace(report, **changes)


class Run:
    """A rollout on a clock of its own."""

    def __init__(self, devices: list[Heard], plan: RolloutPlan = PLAN) -> None:
        self.now_ms = NOW
        self.devices = {one.place: one for one in devices}
        self.rollout = begun(plan)
        self.sequence = 0

    def step(self, minutes: int = 1) -> None:
        for _ in range(minutes):
            self.now_ms += MINUTE
            self.rollout = step(self.rollout, list(self.devices.values()), now_ms=self.now_ms)

    def say(self, place: Place, phase: Phase, reason: str = "") -> None:
        self.sequence += 1
        self.rollout = hear(self.rollout, place, says(phase, self.sequence, reason=reason))

    def wave(self, number: int) -> list[Place]:
        return sorted(one.place for one in self.rollout.members.values() if one.wave == number)

    def confirm(self, number: int) -> None:
        for place in self.wave(number):
            self.say(place, "confirmed")

    def until(self, reached: Callable[[], bool], *, minutes: int = 200) -> None:
        for _ in range(minutes):
            if reached():
                return
            self.step()
        pytest.fail(f"it stands at wave {self.rollout.wave}, {self.rollout.state}: {self.rollout.reason}")

    def up_to(self, wave: int) -> None:
        """Everything is confirmed up to this wave, which has begun."""
        for number in range(wave):
            self.until(lambda at=number: self.rollout.wave >= at)
            self.confirm(number)
        self.until(lambda: self.rollout.wave == wave)

    def orders(self) -> dict[Place, str]:
        return {one.place: one.action for one in self.rollout.members.values()}

    def go(self, place: Place, *, online: bool) -> None:
        self.devices[place] = self.devices[place]._replace(online=online)


# The waves.


@pytest.mark.parametrize(
    ("devices", "sizes"),
    [
        (1, [1, 0, 0, 0]),  # the canary is all
        (2, [1, 0, 0, 1]),
        (10, [1, 0, 1, 8]),  # 5 % of ten is less than one
        (19, [1, 0, 3, 15]),
        (40, [1, 1, 8, 30]),
        (200, [1, 9, 40, 150]),  # with the canary 5 %, with that 25 %
    ],
)
def test_a_good_release_goes_out_in_waves(devices: int, sizes: list[int]) -> None:
    run = Run(fleet(devices))
    run.step()
    for wave, size in enumerate(sizes):
        run.until(lambda at=wave: run.rollout.wave >= at)
        assert len(run.wave(wave)) == size
        run.confirm(wave)
    run.until(lambda: run.rollout.state == "complete")
    assert list(run.rollout.sizes) == sizes
    assert len(run.rollout.members) == devices


def test_a_wave_follows_when_the_one_before_has_confirmed_and_not_while_it_is_on_trial() -> None:
    run = Run(fleet(40))
    run.up_to(1)
    (place,) = run.wave(1)
    run.say(place, "trial")
    run.step(50)
    assert run.rollout.wave == 1, "it bakes"
    run.say(place, "confirmed")
    run.step()
    assert run.rollout.wave == 2


def test_the_canary_is_the_one_that_was_named() -> None:
    run = Run(fleet(40), replace(PLAN, canary="lab/cam33"))
    run.go(Place("lab", "cam33"), online=False)
    run.step(3)
    assert run.rollout.members == {}, "it waits for it"
    run.go(Place("lab", "cam33"), online=True)
    run.step()
    assert run.wave(0) == [Place("lab", "cam33")]


def test_only_the_scope_is_ordered() -> None:
    yards = [
        Heard(Place("north", "a"), True, ("gate",)),
        Heard(Place("north", "b"), True, ("roof", "gate")),
        Heard(Place("north", "c"), True, ("roof",)),  # of the site, without the label
        Heard(Place("south", "d"), True, ("gate",)),  # the label, of another site
        Heard(Place("north", "e"), False, ("gate",)),  # away
    ]
    run = Run(yards, replace(PLAN, sites=("north",), labels=("gate", "door")))
    for _ in range(10):
        run.step()
        for place in run.rollout.members:
            run.say(place, "confirmed")
    assert set(run.rollout.members) == {("north", "a"), ("north", "b")}
    assert run.rollout.state == "complete"


def test_who_joins_late_gets_what_is_current() -> None:
    run = Run(fleet(40, offline=2))
    run.up_to(2)
    run.go(Place("lab", "cam0"), online=True)
    run.step()
    assert Place("lab", "cam0") not in run.rollout.members, "a wave takes nobody in"
    run.confirm(2)
    run.until(lambda: run.rollout.wave == 3)
    assert Place("lab", "cam0") in run.wave(3)
    run.confirm(3)
    run.until(lambda: run.rollout.state == "complete")
    run.go(Place("lab", "cam1"), online=True)
    run.step()
    assert run.wave(4) == [Place("lab", "cam1")]
    assert assignment(run.rollout, run.rollout.members["lab", "cam1"]).action == "install"


def at_night(*, online: int = 5, of: int = 100) -> Run:
    """A rollout that is complete with the few that were online; now the others come."""
    run = Run(fleet(of, offline=of - online))
    for wave in range(4):
        run.until(lambda at=wave: run.rollout.wave >= at)
        run.confirm(wave)
    run.until(lambda: run.rollout.state == "complete")
    assert len(run.rollout.members) == online
    for place in run.devices:
        run.go(place, online=True)
    return run


def late_ones(run: Run) -> list[Place]:
    """Those that joined late and have not confirmed."""
    return [place for place in run.wave(4) if run.rollout.members[place].phase != "confirmed"]


def test_a_wave_is_a_share_of_all_though_most_are_away() -> None:
    run = Run(fleet(100, offline=80))
    sizes = []
    for wave in range(4):
        run.until(lambda at=wave: run.rollout.wave >= at)
        sizes.append(len(run.wave(wave)))
        run.confirm(wave)
    assert sizes == [1, 4, 15, 0], "5 and 25 of a hundred, of which 20 are there"
    run = Run(fleet(100, offline=60))
    run.up_to(2)
    assert len(run.wave(2)) == 20, "25 of a hundred, not ten of forty"


def test_who_comes_late_is_ordered_as_many_at_a_time_as_have_confirmed() -> None:
    run = at_night()
    for under_way in (5, 10, 20, 40, 20):
        run.step(3)
        assert len(late_ones(run)) == under_way
        run.confirm(4)
    run.step()
    assert set(run.orders()) == set(run.devices)


def test_late_ones_that_go_off_the_air_make_room_once() -> None:
    run = at_night()
    for _ in range(5):
        run.step(2)
        for place in run.wave(4):
            run.go(place, online=False)
        run.step(AWAY_MS // MINUTE)
    assert len(run.wave(4)) == 10, "a release that takes devices off the air does not get the whole fleet"


def test_late_ones_of_a_last_wave_that_runs_are_not_all_ordered_at_once() -> None:
    run = Run(fleet(100, offline=70))
    run.up_to(3)
    confirmed = sum(one.phase == "confirmed" for one in run.rollout.members.values())
    assert (len(run.wave(3)), confirmed) == (5, 25)
    for place in run.devices:
        run.go(place, online=True)
    run.step(3)
    assert (run.rollout.state, len(run.wave(4))) == ("running", 25)


def test_one_comes_late_where_none_that_confirmed_is_left() -> None:
    run = at_night(online=1, of=10)
    members = dict(run.rollout.members)
    forgotten(run, list(members))
    run.step(2)
    assert len(run.wave(4)) == 1


def test_late_ones_that_fail_stop_what_is_complete() -> None:
    run = at_night()
    run.step()
    first, second, *_ = run.wave(4)
    run.say(first, "rolled_back", "blind")
    run.step()
    assert run.rollout.state == "complete", "one"
    run.say(second, "rolled_back", "blind")
    run.step()
    assert (run.rollout.state, run.rollout.reason) == ("stopped", "joined late: 2 of 6 failed: blind")
    assert set(run.orders().values()) == {"back"}
    assert list(faults(run.rollout)) == []
    ordered = set(run.orders())
    run.step(30)
    assert set(run.orders()) == ordered


def test_late_failures_are_compared_with_all_devices() -> None:
    run = at_night(online=70)
    run.step()
    for n, place in enumerate(run.wave(4)[:5]):
        assert run.rollout.state == "complete", f"{n} of 100"
        run.say(place, "rolled_back", "slow")
        run.step()
    assert run.rollout.state == "stopped"


def test_late_ones_that_hang_stop_what_is_complete() -> None:
    run = at_night()
    run.step()
    run.step(61)
    assert run.rollout.reason == "joined late: 5 of 5 failed: 5 timed out"


def test_what_late_ones_count_stops_what_is_complete() -> None:
    run = at_night(online=20)
    run.step()
    with_figures(run, 4, sees=0.7, phase="trial")
    run.step()
    assert run.rollout.state == "stopped"
    assert "all devices together" in run.rollout.reason
    assert set(run.orders().values()) == {"back"}


def test_who_was_away_when_it_was_complete_is_watched_as_a_late_one() -> None:
    run = Run(fleet(40))
    run.up_to(3)
    away, there = run.wave(3)[:12], run.wave(3)[12:]
    for place in away:
        run.go(place, online=False)
    for place in there:
        run.say(place, "confirmed")
    run.until(lambda: run.rollout.state == "complete")
    assert run.wave(4) == away
    assert list(faults(run.rollout)) == []
    for place in away[:2]:
        run.go(place, online=True)
        run.say(place, "rolled_back", "blind")
    run.step()
    assert run.rollout.reason == "joined late: 2 of 12 failed: blind"


def test_the_clocks_of_who_has_ended_or_is_away_stand() -> None:
    run = at_night()
    run.step()
    for place in run.wave(4):
        run.go(place, online=False)
    for place in set(run.devices) - set(run.orders()):
        run.go(place, online=False)
    run.step(30)
    settled = run.rollout.members
    run.step()
    assert run.rollout.members == settled, "nothing is to be written for ever"


# Failures.


def test_one_failure_stops_the_canary_and_sends_it_back() -> None:
    run = Run(fleet(40))
    run.step()
    (canary,) = run.wave(0)
    run.say(canary, "rolled_back", "blind: the old model saw 14, the new one 0")
    run.step()
    assert run.rollout.state == "stopped"
    assert run.rollout.reason == "canary: 1 of 1 failed: blind: the old model saw 14, the new one 0"
    assert run.orders() == {canary: "back"}
    run.step(300)
    assert list(run.rollout.members) == [canary]


@pytest.mark.parametrize(
    ("size", "stops"), [(2, 2), (9, 2), (40, 2), (41, 3), (150, 8)]
)  # two, or 5 % where that is more
def test_so_many_failures_stop_a_wave(size: int, stops: int) -> None:
    assert stop_at(1, size) == stops
    assert stop_at(0, size) == 1


def test_when_a_wave_fails_every_device_is_sent_back() -> None:
    run = Run(fleet(200))
    run.up_to(2)
    first, second, *_ = run.wave(2)
    run.say(first, "rolled_back", "slow")
    run.step()
    assert run.rollout.state == "running"
    run.say(second, "rolled_back", "slow")
    run.step()
    assert (run.rollout.state, run.rollout.reason) == ("stopped", "25 %: 2 of 40 failed: slow")
    ordered = {place for wave in range(3) for place in run.wave(wave)}
    assert {place for place, action in run.orders().items() if action == "back"} == ordered
    count = count_wave(run.rollout, 2)
    assert (count.failed, count.back, count.going_back) == (2, 2, 38)


def test_a_device_that_fails_when_it_is_complete_is_counted_as_that() -> None:
    run = Run(fleet(84), replace(PLAN, waves_permille=(250, 1000)))
    run.up_to(1)
    before, *others = run.wave(1)
    run.say(before, "rolled_back", "slow")
    for place in others:
        run.say(place, "confirmed")
    run.until(lambda: run.rollout.wave == 2)
    run.confirm(2)
    run.until(lambda: run.rollout.state == "complete")
    late = others[0]
    run.say(late, "rolled_back", "it failed 3 starts")
    run.say(before, "rolled_back", "slow")  # said again at a connect
    run.step()
    assert run.rollout.state == "complete", "one that starts no more is no reason to take it from the others"
    assert standing(run.rollout, run.rollout.members[late]) == "failed"
    assert [one.place for one in run.rollout.members.values() if one.failed_late] == [late]


def test_a_canary_that_falls_back_later_stops_what_came_after_it() -> None:
    run = Run(fleet(200))
    run.up_to(1)
    run.say(run.wave(0)[0], "rolled_back", "three starts failed")
    run.step()
    assert run.rollout.reason == "canary: 1 of 1 failed: three starts failed"
    assert set(run.orders().values()) == {"back"}


def test_too_few_that_confirmed_wait_for_a_person() -> None:
    run = Run(fleet(40))
    run.up_to(2)
    failed, *others = run.wave(2)
    run.say(failed, "rolled_back", "slow")
    for place in others:
        run.say(place, "confirmed")
    run.step()
    assert (run.rollout.state, run.rollout.reason) == ("halted", "25 %: only 7 of 8 confirmed")
    run.step(60)
    assert run.rollout.wave == 2
    run.rollout = resume(run.rollout)
    run.until(lambda: run.rollout.wave == 3)
    assert run.orders()[failed] == "install", "it stays as it is: nothing was stopped"


def test_19_of_20_are_enough() -> None:
    run = Run(fleet(84), replace(PLAN, waves_permille=(250, 1000)))
    run.up_to(1)
    assert len(run.wave(1)) == 20
    failed, *others = run.wave(1)
    run.say(failed, "rolled_back", "slow")
    for place in others:
        run.say(place, "confirmed")
    run.until(lambda: run.rollout.wave == 2)


# Time, and who is away.


def test_a_timeout_is_a_failure() -> None:
    run = Run(fleet(40))
    run.step()
    run.say(run.wave(0)[0], "shadow")
    run.step(59)
    assert run.rollout.state == "running"
    run.step(2)
    assert (run.rollout.state, run.rollout.reason) == ("stopped", "canary: 1 of 1 failed: 1 timed out")
    assert count_wave(run.rollout, 0).failed == 1


def test_a_hub_that_was_down_and_a_clock_that_jumps_time_nobody_out() -> None:
    run = Run(fleet(40))
    run.step()
    for jump_ms in (10 * 365 * 86_400_000, -20 * 365 * 86_400_000, 3_600_000):
        run.now_ms += jump_ms
        run.step()
    assert run.rollout.state == "running"
    (canary,) = run.wave(0)
    assert run.rollout.members[canary].waited_ms <= 3 * MAX_STEP_MS


def test_one_that_is_offline_does_not_fail_and_another_takes_its_place() -> None:
    run = Run(fleet(40))
    run.step()
    (away,) = run.wave(0)
    run.go(away, online=False)
    run.step(AWAY_MS // MINUTE - 1)
    assert run.wave(0) == [away]
    run.step(2)
    other = next(place for place in run.wave(0) if place != away)
    assert len(run.wave(0)) == 2
    run.go(other, online=False)
    run.step(500)
    assert len(run.wave(0)) == 2, "a release that takes devices off the air does not get the whole fleet"
    assert run.rollout.state == "running"
    run.go(other, online=True)
    run.say(other, "confirmed")
    run.until(lambda: run.rollout.wave >= 1)
    assert standing(run.rollout, run.rollout.members[away]) == "away"


def test_one_without_a_frame_to_judge_by_does_not_time_out() -> None:
    run = Run(fleet(40))
    run.step()
    (canary,) = run.wave(0)
    run.rollout = hear(run.rollout, canary, says("shadow", 1, no_frames=True))
    run.step(65)
    assert run.rollout.state == "running"
    assert standing(run.rollout, run.rollout.members[canary]) == "away"
    assert len(run.wave(0)) == 2, "another is drawn, as for one that is offline"
    run.rollout = hear(run.rollout, canary, says("shadow", 2))
    run.step()
    assert standing(run.rollout, run.rollout.members[canary]) == "waiting"


def test_a_wave_does_not_pass_on_the_word_of_a_few() -> None:
    run = Run(fleet(200))
    run.up_to(3)
    places = run.wave(3)
    for place in places[:60]:
        run.say(place, "confirmed")
    for place in places[60:]:
        run.go(place, online=False)
    run.step(300)
    assert run.rollout.state == "running", "60 of 150: fewer than half"


# Reports.


@given(
    sent=st.lists(
        st.tuples(st.sampled_from([phase for phase in PHASES if phase != "rolled_back"]), st.integers(0, 500)),
        min_size=1,
        max_size=8,
    ),
    data=st.data(),
)
def test_the_newest_report_counts_however_they_come(sent: list[tuple[Phase, int]], data: st.DataObject) -> None:
    reports = [says(phase, n + 1, frames=frames) for n, (phase, frames) in enumerate(sent)]
    arriving = data.draw(st.permutations(reports + data.draw(st.lists(st.sampled_from(reports), max_size=8))))
    place = Place("lab", "cam0")
    before = replace(begun(), members={place: Member(place=place, wave=0, ordered_at_ms=NOW)}, wave=0, sizes=(1,))
    after = before
    for report in arriving:
        after = hear(after, place, report)
    assert after == hear(before, place, reports[-1])
    assert hear(after, place, reports[-1]) is after


@given(sent=st.lists(st.sampled_from(PHASES), min_size=1, max_size=8), data=st.data())
def test_a_failure_that_was_heard_stays(sent: list[Phase], data: st.DataObject) -> None:
    place = Place("lab", "cam0")
    rollout = replace(begun(), members={place: Member(place=place, wave=0, ordered_at_ms=NOW)}, wave=0, sizes=(1,))
    failed = False
    for report in data.draw(st.permutations([says(phase, n + 1) for n, phase in enumerate(sent)])):
        after = hear(rollout, place, report)
        failed = failed or (after is not rollout and report.phase == "rolled_back")
        rollout = after
        assert rollout.members[place].failed is failed


@pytest.mark.parametrize(
    ("place", "changes"),
    [
        (("lab", "other"), {}),  # a device that has no order
        (("lab", "cam0"), {"rollout": "r-2"}),  # another's rollout
        (("lab", "cam0"), {"number": 13}),  # another release under this rollout
        (("lab", "cam0"), {"release": "street-13", "serving": "street-13"}),
        (("lab", "cam0"), {"model": "yard"}),
        (("lab", "cam0"), {"serving": OLD}),  # confirmed, and it runs another
        (("lab", "cam0"), {"sequence": 0}),  # before anything
    ],
)
def test_a_report_that_cannot_be_changes_nothing(place: tuple[str, str], changes: dict[str, object]) -> None:
    member = Member(place=Place("lab", "cam0"), wave=0, ordered_at_ms=NOW)
    rollout = replace(begun(), members={member.place: member}, wave=0, sizes=(1,))
    report = msgspec.structs.replace(says("confirmed", 5), **changes)
    assert hear(rollout, Place(*place), report) is rollout
    assert hear(rollout, Place("lab", "cam0"), says("confirmed", 5)) is not rollout


def test_a_failure_is_heard_though_the_model_of_before_has_the_same_name() -> None:
    place = Place("lab", "cam0")
    rollout = replace(begun(), members={place: Member(place=place, wave=0, ordered_at_ms=NOW)}, wave=0, sizes=(1,))
    failed = hear(rollout, place, says("rolled_back", 5, serving=NEW, reason="blind"))
    assert failed.members[place].failed
    sent_back = replace(rollout, members={place: Member(place=place, wave=0, ordered_at_ms=NOW, action="back")})
    back = hear(replace(sent_back, state="stopped"), place, says("rolled_back", 5, serving=NEW))
    assert standing(back, back.members[place]) == "back", "it says so after the swap; no name says more"


@pytest.mark.parametrize(
    ("state", "phase", "changes", "action"),
    [
        ("running", "trial", {}, "install"),  # it serves it, under a name that nobody ordered
        ("running", "confirmed", {}, "install"),
        ("halted", "confirmed", {}, "install"),
        ("complete", "trial", {}, "install"),
        ("stopped", "trial", {}, "back"),
        ("rolled_back", "confirmed", {}, "back"),
        ("replaced", "confirmed", {}, ""),  # the newer one comes to it
        ("running", "shadow", {}, ""),  # it does not serve it
        ("running", "rolled_back", {}, ""),
        ("running", "rolled_back", {"serving": NEW}, ""),  # a model of before with the same name
        ("running", "trial", {"serving": OLD}, ""),
        ("running", "confirmed", {"serving": "street-13"}, ""),
        ("running", "confirmed", {"number": 13}, ""),
        ("running", "confirmed", {"rollout": "r-2"}, ""),
        ("stopped", "confirmed", {"model": "yard"}, ""),
    ],
)
def test_who_serves_it_under_another_name_is_taken_in(
    state: str, phase: Phase, changes: dict[str, object], action: str
) -> None:
    place = Place("lab", "renamed")
    before = replace(begun(), state=state)
    report = says(phase, 7, **changes)
    after = turned_up(before, place, report)
    if not action:
        assert after is before
        return
    member = after.members[place]
    assert (member.action, member.wave, member.sequence) == (action, 4, 7)
    assert standing(after, member) == {"back": "going_back", "trial": "waiting"}.get(
        phase if action == "install" else "back", "confirmed"
    )
    assert list(faults(after)) == []
    assert turned_up(after, place, says(phase, 8, **changes)) is after


def test_a_stop_reaches_who_was_renamed_before_it() -> None:
    run = Run(fleet(40))
    run.step()
    renamed = Place("lab", "renamed")
    run.rollout = turned_up(run.rollout, renamed, says("confirmed", 7))
    run.say(run.wave(0)[0], "rolled_back", "blind")
    run.step()
    assert (run.rollout.state, run.orders()[renamed]) == ("stopped", "back")


def test_who_was_renamed_and_is_broken_has_failed() -> None:
    place = Place("lab", "renamed")
    after = turned_up(begun(), place, says("confirmed", 7, figures=counted(not_finite=3)))
    assert after.members[place].failed


def test_who_has_not_ended_goes_back_when_another_comes() -> None:
    run = Run(fleet(40))
    run.up_to(2)
    on_trial, failed, away, broken, *confirmed = run.wave(2)
    run.say(on_trial, "trial")
    run.say(failed, "rolled_back", "slow")
    run.go(away, online=False)
    run.sequence += 1
    run.rollout = hear(run.rollout, broken, says("confirmed", run.sequence, figures=counted(not_finite=3)))
    for place in confirmed:
        run.say(place, "confirmed")
    run.rollout = give_way(halt(run.rollout, reason="by hand"), now_ms=run.now_ms)
    assert run.rollout.state == "replaced"
    assert {place for place, action in run.orders().items() if action == "back"} == {on_trial, away, broken}
    assert list(faults(run.rollout)) == []
    settled = run.rollout
    run.say(on_trial, "rolled_back")
    assert standing(run.rollout, run.rollout.members[on_trial]) == "back"
    run.step(10)
    assert run.rollout.members.keys() == settled.members.keys()
    assert run.rollout.state == "replaced"


def forgotten(run: Run, places: list[Place]) -> None:
    """What `hub forget` does to a rollout."""
    members = {place: one for place, one in run.rollout.members.items() if place not in places}
    run.rollout = replace(run.rollout, members=members)
    for place in places:
        del run.devices[place]


def test_another_is_drawn_for_a_canary_that_was_forgotten() -> None:
    run = Run(fleet(10))
    run.step()
    forgotten(run, run.wave(0))
    run.step()
    assert (run.rollout.wave, len(run.wave(0))) == (0, 1), "the release is not sent to more before one has tried it"
    assert list(faults(run.rollout)) == []
    forgotten(run, list(run.devices))
    run.step()
    run.rollout = resume(halt(run.rollout, reason="by hand"))
    run.step()
    assert run.rollout.wave == 0, "nobody accepts that no device tried it"


def test_a_wave_of_which_devices_were_forgotten_goes_on_with_the_others() -> None:
    run = Run(fleet(10))
    run.up_to(3)
    run.confirm(3)
    forgotten(run, run.wave(3)[:6])
    run.until(lambda: run.rollout.state == "complete")


def test_a_person_accepts_a_last_wave_that_was_forgotten() -> None:
    run = Run(fleet(2))
    run.up_to(3)
    forgotten(run, run.wave(3))
    run.step(30)
    assert run.rollout.state == "running"
    run.rollout = resume(halt(run.rollout, reason="by hand"))
    run.until(lambda: run.rollout.state == "complete")


def test_a_device_that_was_set_up_anew_is_heard_again() -> None:
    member = Member(
        place=Place("lab", "cam0"),
        wave=0,
        ordered_at_ms=NOW,
        phase="confirmed",
        sequence=40,
        boot_id="boot-9",
        reported_at_ms=NOW + 40,
    )
    rollout = replace(begun(), members={member.place: member}, wave=0, sizes=(1,))
    late = says("shadow", 3, boot_id="boot-2", at_ms=NOW + 3)
    anew = says("downloading", 2, boot_id="boot-10", at_ms=NOW + 90)
    assert hear(rollout, member.place, late) is rollout
    assert hear(rollout, member.place, anew).members[member.place].phase == "downloading"


# What the devices counted.


def counted(*, sees: float = 1.0, not_finite: int = 0, frames: int = 500, busy: int = 0) -> Figures:
    """Paired frames, of which the new model sees this share of the old one's boxes."""
    boxes = 300 + busy
    return Figures(
        frames=frames,
        old=side(scores=[0.7] * boxes, threshold=0.4, spent_ms=[20.0] * frames),
        new=side(scores=[0.7] * round(boxes * sees), threshold=0.4, spent_ms=[20.0] * frames, not_finite=not_finite),
    )


def with_figures(run: Run, wave: int, *, sees: float, phase: Phase = "confirmed", frames: int = 500) -> None:
    for n, place in enumerate(run.wave(wave)):
        run.sequence += 1
        figures = counted(sees=sees + 0.01 * (n % 3), busy=10 * (n % 4), frames=frames)
        run.rollout = hear(run.rollout, place, says(phase, run.sequence, figures=figures))


@pytest.mark.parametrize(
    ("sees", "phase", "frames", "stops"),
    [
        (1.0, "trial", 500, False),
        (0.95, "trial", 500, False),
        (0.7, "trial", 500, True),  # before one of the wave has confirmed
        (0.7, "trial", 499, False),  # shadow and trial are not through: 200 and 300
        (0.7, "confirmed", 500, True),
        (0.7, "shadow", 500, False),  # of a start before: it is not on trial
    ],
)
def test_what_no_device_sees_alone_stops_it_together(sees: float, phase: Phase, frames: int, stops: bool) -> None:
    run = Run(fleet(200))
    run.step()
    with_figures(run, 0, sees=sees)
    run.until(lambda: run.rollout.wave == 1)
    with_figures(run, 1, sees=sees, phase=phase, frames=frames)
    run.step()
    assert run.rollout.state == ("stopped" if stops else "running")
    if stops:
        assert (run.rollout.wave, count_wave(run.rollout, 2).devices) == (1, 0)
        assert "10 devices" in run.rollout.reason
        assert set(run.orders().values()) == {"back"}, "the canary, too"


def test_what_is_seen_together_stops_a_halted_one_too() -> None:
    run = Run(fleet(200))
    run.up_to(1)
    run.rollout = halt(run.rollout, reason="by hand")
    with_figures(run, 1, sees=0.7, phase="trial")
    run.step()
    assert run.rollout.state == "stopped"


def test_a_device_that_failed_is_not_judged_together_with_the_others() -> None:
    run = Run(fleet(200))
    run.up_to(2)
    with_figures(run, 2, sees=1.0, phase="trial")
    broken = run.wave(2)[0]
    run.sequence += 1
    report = says("rolled_back", run.sequence, reason="NaN", figures=counted(not_finite=3))
    run.rollout = hear(run.rollout, broken, report)
    run.step()
    assert run.rollout.state == "running", "one of 40"


def test_one_device_with_odd_figures_stops_nothing() -> None:
    run = Run(fleet(200))
    run.up_to(2)
    with_figures(run, 2, sees=1.0)
    liar = run.wave(2)[0]
    run.sequence += 1
    run.rollout = hear(run.rollout, liar, says("confirmed", run.sequence, figures=counted(sees=0.0)))
    run.until(lambda: run.rollout.wave == 3)


def test_a_device_whose_own_figures_are_broken_has_failed() -> None:
    run = Run(fleet(40))
    run.step()
    (canary,) = run.wave(0)
    run.rollout = hear(run.rollout, canary, says("confirmed", 1, figures=counted(not_finite=3)))
    run.step()
    assert run.rollout.state == "stopped"


def test_the_newest_figures_stay() -> None:
    run = Run(fleet(40))
    run.step()
    (canary,) = run.wave(0)
    for sequence, figures in ((1, counted(frames=400)), (2, counted(frames=900)), (3, None)):
        run.rollout = hear(run.rollout, canary, says("confirmed", sequence, figures=figures))
    assert run.rollout.members[canary].figures == counted(frames=900)


# What people do, and an older copy.


def test_halt_orders_nobody_and_still_stops() -> None:
    run = Run(fleet(200))
    run.up_to(1)
    run.rollout = halt(run.rollout, reason="by hand")
    run.confirm(1)
    run.step(100)
    assert (run.rollout.state, run.rollout.wave) == ("halted", 1)
    run.rollout = resume(run.rollout)
    run.step()
    assert run.rollout.wave == 2
    run.rollout = halt(run.rollout, reason="by hand")
    for place in run.wave(2)[:2]:
        run.say(place, "rolled_back", "slow")
    run.step()
    assert run.rollout.state == "stopped", "those under way are watched"


def test_a_roll_back_sends_every_device_back() -> None:
    run = Run(fleet(40))
    run.up_to(3)
    run.rollout = roll_back(run.rollout, now_ms=run.now_ms)
    assert len(run.orders()) == 40
    assert set(run.orders().values()) == {"back"}
    place = run.wave(3)[0]
    assert standing(run.rollout, run.rollout.members[place]) == "going_back"
    run.say(place, "confirmed")  # it had finished before it heard
    assert standing(run.rollout, run.rollout.members[place]) == "going_back"
    run.say(place, "rolled_back")
    assert standing(run.rollout, run.rollout.members[place]) == "back"
    assert not run.rollout.members[place].failed, "it was told to"
    run.go(Place("lab", "cam0"), online=True)
    run.step(100)
    assert len(run.orders()) == 40


def keeping(baseline: Baseline | None) -> tuple[Run, Place]:
    """Roll back a complete rollout of which one device says that it cannot go back."""
    run = Run(fleet(10))
    run.rollout = replace(run.rollout, baseline=baseline)
    run.up_to(3)
    run.rollout = roll_back(run.rollout, now_ms=run.now_ms)
    stuck, *others = run.orders()
    for place in others:
        run.say(place, "rolled_back")
    run.say(stuck, "confirmed", "nothing signed allows the way back")
    return run, stuck


BASELINE = Baseline(release="street-11b", number=11, target="street/000011.tar")


def test_a_device_that_cannot_go_back_installs_the_baseline() -> None:
    run, stuck = keeping(BASELINE)
    was = run.rollout.members
    run.step()
    assert not run.rollout.members[stuck].instead, "it may have said so before it heard the order"
    run.step(3)
    member = run.rollout.members[stuck]
    order_ = assignment(run.rollout, member)
    assert (order_.action, order_.number, order_.instead_of, order_.release, order_.target) == (
        "install",
        11,
        12,
        "street-11b",
        BASELINE.target,
    )
    assert order_.at_ms > was[stuck].ordered_at_ms
    assert {place: one for place, one in run.rollout.members.items() if place != stuck} == {
        place: one for place, one in was.items() if place != stuck
    }, "nobody else hears of it"
    run.say(stuck, "rolled_back", "the hub sent it back")  # of the order before
    assert run.rollout.members[stuck] == member
    for phase, at in (("shadow", "going_back"), ("confirmed", "back")):
        run.sequence += 1
        report = says(
            phase, run.sequence, release="street-11b", number=11, serving=OLD if phase == "shadow" else "street-11b"
        )
        run.rollout = hear(run.rollout, stuck, report)
        assert standing(run.rollout, run.rollout.members[stuck]) == at
    assert list(faults(run.rollout)) == []
    settled = run.rollout
    run.step(10)
    assert run.rollout == settled, "nothing is left to do"


def test_without_a_baseline_it_stays_and_is_counted() -> None:
    run, stuck = keeping(None)
    assert standing(run.rollout, run.rollout.members[stuck]) == "going_back"
    run.go(stuck, online=False)
    run.step(10)
    assert standing(run.rollout, run.rollout.members[stuck]) == "going_back", "it was not heard for so long"
    run.go(stuck, online=True)
    run.step(3)
    assert assignment(run.rollout, run.rollout.members[stuck]).action == "back"
    assert standing(run.rollout, run.rollout.members[stuck]) == "stays"
    assert sum(count_wave(run.rollout, wave).stays for wave in range(4)) == 1


def test_a_baseline_that_does_not_hold_is_said() -> None:
    run, stuck = keeping(BASELINE)
    run.step(4)
    run.sequence += 1
    failed = says("rolled_back", run.sequence, release="street-11b", number=11, serving=NEW, reason="too slow")
    run.rollout = hear(run.rollout, stuck, failed)
    member = run.rollout.members[stuck]
    assert (standing(run.rollout, member), member.reason) == ("stays", "too slow")


@pytest.mark.parametrize("state", ["stopped", "complete", "running"])
def test_an_older_copy_takes_the_order_of_a_baseline_over(state: str) -> None:
    place = Place("lab", "cam0")
    newer = order("install", at_ms=NOW + 9)
    before = replace(
        begun(), baseline=BASELINE, state=state, members={place: Member(place=place, wave=0, ordered_at_ms=NOW)}
    )
    before = replace(before, wave=0, sizes=(1,))
    known = msgspec.structs.replace(newer, number=11, release="street-11b", target=BASELINE.target)
    after = adopt(before, place, known)
    assert assignment(after, after.members[place]).number == 11
    assert after.state == ("rolled_back" if state == "complete" else "stopped")
    odd = adopt(before, place, msgspec.structs.replace(newer, number=7, release="street-7"))
    assert odd.members[place].action == "back", "what is none of this rollout's is not installed"
    assert [*faults(after), *faults(odd)] == []


@pytest.mark.parametrize(
    ("state", "act", "said"),
    [
        ("stopped", resume, "is stopped, not halted; start it anew"),
        ("running", resume, "is running, not halted"),
        ("halted", lambda rollout: halt(rollout, reason="x"), "is halted, it does not run"),
        ("complete", lambda rollout: halt(rollout, reason="x"), "is complete, it does not run"),
        ("rolled_back", lambda rollout: roll_back(rollout, now_ms=NOW), "is rolled back already"),
        ("replaced", lambda rollout: roll_back(rollout, now_ms=NOW), "is replaced already"),
    ],
)
def test_what_cannot_be_done_is_said(state: str, act: Callable[[Rollout], Rollout], said: str) -> None:
    with pytest.raises(UnusableError, match=said):
        act(replace(begun(), state=state))


def test_waves_that_do_not_rise_are_refused() -> None:
    with pytest.raises(ValueError, match="must rise"):
        RolloutPlan(waves_permille=(250, 50))


@pytest.mark.parametrize(("timeout_s", "bake_s"), [(7199, 3600), (1, 1), (3600, 0), (7200, 3600)])
def test_a_bake_that_leaves_too_little_time_is_refused(timeout_s: int, bake_s: int) -> None:
    trial = TrialPlan(bake_s=bake_s)
    if timeout_s < 2 * bake_s:
        with pytest.raises(ValueError, match=f"less than twice the bake of {bake_s} s"):
            RolloutPlan(timeout_s=timeout_s, trial=trial)
    else:
        assert RolloutPlan(timeout_s=timeout_s, trial=trial).trial.bake_s == bake_s


def order(action: str, *, at_ms: int) -> Assignment:
    return Assignment(
        rollout="r-1",
        action=action,
        model="street",
        release=NEW,
        number=12,
        target="street/000012.tar",
        at_ms=at_ms,
    )


@pytest.mark.parametrize(
    ("state", "action", "becomes"),
    [
        ("running", "install", "halted"),  # it went further than this copy knows
        ("running", "back", "stopped"),  # it was stopped since
        ("halted", "back", "stopped"),
        ("complete", "back", "rolled_back"),
        ("complete", "install", "complete"),  # somebody joined late
        ("stopped", "back", "stopped"),
    ],
)
@pytest.mark.parametrize("known", [True, False])
def test_a_newer_order_is_taken_over(state: str, action: str, becomes: str, known: bool) -> None:
    place = Place("lab", "cam0")
    members = {place: Member(place=place, wave=0, ordered_at_ms=NOW)} if known else {}
    rollout = replace(begun(), members=members, wave=0, sizes=(1,), state=state)
    after = adopt(rollout, place, order(action, at_ms=NOW + 5))
    assert (after.state, after.reason) == (becomes, OLDER_COPY)
    assert (after.members[place].action, after.members[place].ordered_at_ms) == (action, NOW + 5)
    assert list(faults(after)) == []


# Any fleet, any reports, in any order.


class AnyRollout(RuleBasedStateMachine):
    """Devices that tell the truth, are late, lie and vanish; and people."""

    @initialize(
        n=st.integers(1, 40),
        permille=st.sampled_from([(50, 250, 1000), (1000,), (500, 1000)]),
        baseline=st.sampled_from([None, BASELINE]),
    )
    def begin(self, n: int, permille: tuple[int, ...], baseline: Baseline | None) -> None:
        self.run_ = Run(fleet(n), replace(PLAN, waves_permille=permille, timeout_s=1800))
        self.run_.rollout = replace(self.run_.rollout, baseline=baseline)
        self.n = n
        self.reports: list[tuple[Place, RolloutReport]] = []
        self.confirmed_at_wave: dict[int, float] = {}
        self.ended = False
        self.orders_then: set[Place] = set()

    def place(self, number: int) -> Place:
        return Place("lab", f"cam{number % self.n}")

    def hear(self, place: Place, report: RolloutReport) -> None:
        self.run_.rollout = hear(self.run_.rollout, place, report)

    @rule(minutes=st.sampled_from([1, 3, 16]))
    def time_passes(self, minutes: int) -> None:
        for _ in range(minutes):
            before = self.run_.rollout
            self.run_.step()
            self.look(before, self.run_.rollout)

    @rule(number=st.integers(0, 59), phase=st.sampled_from(PHASES), of_baseline=st.booleans())
    def tell(self, number: int, phase: Phase, of_baseline: bool) -> None:
        self.run_.sequence += 1
        report = says(phase, self.run_.sequence)
        if of_baseline:
            serving = BASELINE.release if phase == "confirmed" else NEW
            report = says(phase, self.run_.sequence, release=BASELINE.release, number=11, serving=serving)
        self.reports.append((self.place(number), report))
        self.hear(self.place(number), report)

    @rule()
    def all_of_the_wave_confirm(self) -> None:
        self.run_.confirm(self.run_.rollout.wave)

    @precondition(lambda self: self.reports)
    @rule(data=st.data())
    def doubled_or_late(self, data: st.DataObject) -> None:
        before = self.run_.rollout
        place, report = data.draw(st.sampled_from(self.reports))
        self.hear(place, report)
        assert self.run_.rollout is before, "every one of these was heard before"

    @rule(number=st.integers(0, 59), other=st.integers(0, 59), field=st.sampled_from(["rollout", "release", "model"]))
    def lie(self, number: int, other: int, field: str) -> None:
        before = self.run_.rollout
        self.hear(self.place(number), says("confirmed", 10_000 + other, **{field: "forged"}))
        assert self.run_.rollout is before

    @rule(number=st.integers(0, 59), phase=st.sampled_from(PHASES))
    def turn_up(self, number: int, phase: Phase) -> None:
        """A device says something that has no order, and perhaps a place that is not of the fleet."""
        before = self.run_.rollout
        self.run_.sequence += 1
        place = Place("lab", f"cam{number}")
        self.run_.rollout = turned_up(before, place, says(phase, self.run_.sequence))
        new = self.run_.rollout.members.keys() - before.members.keys()
        assert new <= {place}
        assert not new or phase in {"trial", "confirmed"}

    @rule(number=st.integers(0, 59), online=st.booleans())
    def come_or_go(self, number: int, online: bool) -> None:
        self.run_.go(self.place(number), online=online)

    @rule(what=st.sampled_from(["halt", "resume", "roll_back"]))
    def person(self, what: str) -> None:
        act = {
            "halt": lambda one: halt(one, reason="by hand"),
            "resume": resume,
            "roll_back": lambda one: roll_back(one, now_ms=self.run_.now_ms),
        }[what]
        with contextlib.suppress(UnusableError):
            self.run_.rollout = act(self.run_.rollout)

    def look(self, before: Rollout, after: Rollout) -> None:
        if after.wave > max(before.wave, 0) and after.accepted != before.wave:  # law 1, seen from outside
            members = [one for one in before.members.values() if one.wave == before.wave and one.away_ms < AWAY_MS]
            done = [one for one in members if one.phase == "confirmed" and not one.failed]
            assert len(done) >= 0.95 * len(members) - sum(one.away_ms + MINUTE >= AWAY_MS for one in members)
        new = after.members.keys() - before.members.keys()
        if before.state in {"halted", "stopped", "rolled_back"}:
            assert not new
        late = [one for one in new if after.members[one].wave == after.plan.late_wave]
        if late:  # law 9, seen from outside
            have = sum(one.phase == "confirmed" and not one.failed for one in after.members.values())
            assert len(late) <= max(1, have)
            assert count_wave(after, after.plan.late_wave).waiting <= max(1, have)
        for place in new:
            assert self.run_.devices[place].online

    @invariant()
    def nothing_that_cannot_be(self) -> None:
        rollout = self.run_.rollout
        assert list(faults(rollout)) == []
        if rollout.state == "stopped":  # law 2
            worst = [w for w in range(rollout.plan.late_wave + 1) if count_wave(rollout, w).failed]
            assert worst
            assert any(one.action == "back" for one in rollout.members.values())
            for one in rollout.members.values():
                if one.wave == rollout.wave:
                    assert one.action == "back"
        if rollout.state == "running" and rollout.wave == 0:
            assert sum(one.wave == 0 for one in rollout.members.values()) <= 2
        if rollout.state != "complete":
            reach = (0, *rollout.plan.waves_permille)
            drawn = sum(one.wave <= rollout.plan.last_wave for one in rollout.members.values())
            assert drawn <= 2 * max(1, math.ceil(self.n * reach[max(rollout.wave, 0)] / 1000))


AnyRollout.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestAnyRollout = AnyRollout.TestCase
