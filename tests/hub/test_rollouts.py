"""Rollouts in the database and over a real broker: ordered, reported, stopped, restarted, and an older backup."""

import shutil
from pathlib import Path

import msgspec
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edge.contract.errors import UnusableError
from edge.contract.release import SignedRelease
from edge.contract.rollout import Assignment, Phase, RolloutReport, TrialPlan
from edge.contract.status import State, decode, encode
from edge.contract.topics import Kind, topic
from edge.slot_state import Slots
from edge.slot_work import accept, advance, assign, begin_trial, confirm, hold, report_of
from hub.check import check_lines, status_lines
from hub.rollout_lines import status_lines as lines_of
from hub.rollout_rules import MAX_STEP_MS
from hub.rollout_state import OLDER_COPY, Place, Rollout, RolloutPlan
from hub.rollouts import (
    RolloutPost,
    find_rollout,
    halt_rollout,
    resume_rollout,
    roll_back_rollout,
    rollout_status,
    start_rollout,
)
from hub.store import Store
from hub.store_forgotten import Scope
from tests.brokers import broker, wait_until
from tests.hub.devices import Hub
from tests.hub.made import arrival

__all__ = ["broker"]  # a fixture
NOW = 1_700_000_000_000
AT_ONCE = TrialPlan(bake_s=0)
PLAN = RolloutPlan(timeout_s=3600, trial=AT_ONCE)
OLD = "street-11"


def signed(number: int = 12, *, model: str = "street") -> SignedRelease:
    return SignedRelease(
        model=model,
        release=f"{model}-{number}",
        number=number,
        baseline=number - 1,
        card_sha256="0" * 64,
        input="320x320",
        score_threshold_permille=400,
        files=2,
        unpacked_bytes=1000,
    )


def online(name: str, *, is_online: bool = True, labels: tuple[str, ...] = (), at_ms: int = NOW) -> bytes:
    return encode(
        State(boot_id="b", online=is_online, at_ms=at_ms, model=OLD, version="0.1.0", labels=labels, updates=True)
    )


def report(order: Assignment, phase: Phase, sequence: int, *, reason: str = "", **changes: object) -> RolloutReport:
    said = RolloutReport(
        rollout=order.rollout,
        model=order.model,
        release=order.release,
        number=order.number,
        sequence=sequence,
        boot_id="b",
        phase=phase,
        reason=reason,
        serving=order.release if phase in {"trial", "confirmed"} else OLD,
        at_ms=NOW + sequence,
    )
    return msgspec.structs.replace(said, **changes)


class Line:
    """Keeps what was published, as a broker does."""

    def __init__(self) -> None:
        self.connection: int | None = 1
        self.retained: dict[Place, Assignment] = {}
        self.sent: list[Place] = []

    def order(self, site: str, device: str, payload: bytes) -> bool:
        if self.connection is not None:
            self.retained[Place(site, device)] = decode(payload, Assignment)
            self.sent.append(Place(site, device))
        return self.connection is not None

    def take(self) -> list[Place]:
        taken, self.sent = self.sent, []
        return taken


class World:
    """A store, a broker's memory and devices that do as they are told."""

    def __init__(self, path: Path, line: Line, *, devices: int, settled: bool = True) -> None:
        self.path = path
        self.line = line
        self.now_ms = NOW
        self.sequence = 0
        self.clock = 0.0
        self.open(settled=settled)
        for n in range(devices):
            self.hear(Kind.STATE, online(f"cam{n}"), f"cam{n}")

    def open(self, *, settled: bool = True) -> None:
        """Open the database, as a hub that was started does."""
        self.store = Store.open(self.path)
        self.post = RolloutPost(
            self.store, line=self.line, settle_s=0.0 if settled else 5.0, step_s=1.0, clock=lambda: self.clock
        )

    def restart(self, *, settled: bool = True) -> None:
        self.store.close()
        self.line.connection = (self.line.connection or 0) + 1
        self.open(settled=settled)

    def hear(self, kind: Kind, payload: bytes, device: str) -> None:
        self.store.commit([arrival(kind, payload, device=device)], now_ms=self.now_ms)

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock += 1
            self.now_ms += 1000
            self.post.step(self.now_ms)

    def say(self, place: Place, phase: Phase, reason: str = "") -> None:
        self.sequence += 1
        order = self.line.retained[place]
        self.hear(Kind.REPORT, encode(report(order, phase, self.sequence, reason=reason)), place.device)

    def confirm_all(self, *, but: Place | None = None) -> None:
        for place, order in self.line.retained.items():
            if place != but:
                self.say(place, "confirmed" if order.action == "install" else "rolled_back")

    def up_to(self, wave: int, *, but: Place | None = None) -> None:
        for _ in range(20):
            if self.rollout.wave >= wave:
                return
            self.confirm_all(but=but)
            self.step(2)
        pytest.fail(f"it stands at wave {self.rollout.wave}: {self.rollout.state} {self.rollout.reason}")

    @property
    def rollout(self) -> Rollout:
        return find_rollout(self.store, "street")

    def actions(self) -> set[str]:
        return {order.action for order in self.line.retained.values()}

    def holds(self) -> None:
        lines, holds = check_lines(self.store)
        assert holds, lines


@pytest.fixture
def world(tmp_path: Path):
    made = World(tmp_path / "hub.db", Line(), devices=40)
    yield made
    made.store.close()


def begin(world: World, number: int = 12, plan: RolloutPlan = PLAN, *, model: str = "street") -> Rollout:
    return start_rollout(world.store, signed(number, model=model), plan, now_ms=world.now_ms)


# Orders.


def test_a_release_reaches_the_fleet_and_every_device_is_ordered_once(world: World) -> None:
    begun = begin(world)
    world.step()
    assert len(world.line.retained) == 1
    world.up_to(3)
    world.confirm_all()
    world.step(2)
    assert world.rollout.state == "complete"
    assert sorted(world.line.sent) == sorted(Place("lab", f"cam{n}") for n in range(40))
    order = world.line.retained["lab", "cam7"]
    assert (order.rollout, order.action, order.target) == (begun.id, "install", "street/000012.tar")
    world.step(5)
    assert len(world.line.take()) == 40, "nothing is sent twice on one connection"
    world.holds()


def test_a_new_connection_gets_every_order_again(world: World) -> None:
    begin(world)
    world.up_to(2)
    ordered = set(world.line.take())
    world.line.connection = 2
    world.step()
    assert set(world.line.take()) == ordered
    world.line.connection = None
    world.step(3)
    assert world.line.take() == []


def test_no_time_passes_without_a_connection(world: World) -> None:
    begin(world, plan=RolloutPlan(trial=AT_ONCE, timeout_s=120))
    world.step()
    world.line.connection = None
    world.step(600)
    world.line.connection = 2
    world.step(5)
    assert world.rollout.state == "running"


def test_a_restart_goes_on_where_it_was(world: World) -> None:
    begin(world, plan=RolloutPlan(trial=AT_ONCE, timeout_s=200))
    world.up_to(2)
    before = world.rollout
    for _ in range(4):
        world.step(31)
        world.restart()
    assert world.rollout.members.keys() == before.members.keys()
    world.step(90)
    assert world.rollout.state == "stopped", "the time before the restarts counts"
    world.holds()


def test_when_a_wave_fails_all_are_sent_back_within_a_step(world: World) -> None:
    begin(world)
    world.up_to(2)
    wave = [one.place for one in world.rollout.members.values() if one.wave == 2]
    for place in wave[:2]:
        world.say(place, "rolled_back", "blind")
    world.line.take()
    world.step()
    ordered = set(world.rollout.members)
    assert set(wave) < ordered
    assert set(world.line.take()) == ordered
    assert {place for place, order in world.line.retained.items() if order.action == "back"} == ordered
    world.holds()


def test_reports_that_are_not_of_an_order_are_harmless(world: World) -> None:
    begin(world)
    world.step()
    ((place, order),) = world.line.retained.items()
    before = world.rollout
    stranger = Place("lab", "cam1" if place.device != "cam1" else "cam2")
    for device, said in (
        (stranger.device, report(order, "shadow", 1)),  # it has no order, and does not serve it
        (stranger.device, report(order, "confirmed", 1, serving=OLD)),
        (stranger.device, report(order, "confirmed", 1, rollout="r-other")),
        (place.device, report(order, "confirmed", 1, rollout="r-other")),
        (place.device, report(order, "confirmed", 1, serving=OLD)),
        (place.device, report(order, "confirmed", 1, number=99)),
    ):
        world.hear(Kind.REPORT, encode(said), device)
    world.hear(Kind.REPORT, b"", place.device)  # cleared at the broker
    assert world.rollout == before
    world.hear(Kind.REPORT, b'{"schema":1,"phase":"done"}', place.device)  # refused, and counted
    assert world.store.status(now_ms=NOW).refused == {"report": 1}
    assert world.rollout == before


def test_labels_come_from_the_devices_own_state(world: World) -> None:
    world.hear(Kind.STATE, online("cam9", labels=("gate",)), "cam9")
    begin(world, plan=RolloutPlan(trial=AT_ONCE, labels=("gate",)))
    world.up_to(0)
    world.step()
    assert set(world.line.retained) == {Place("lab", "cam9")}


def test_late_joiners_get_the_newest_complete_one(world: World) -> None:
    begin(world, 12)
    world.up_to(3)
    world.confirm_all()
    world.step(2)
    begin(world, 13)
    world.step()
    (canary,) = [place for place, order in world.line.retained.items() if order.number == 13]
    world.hear(Kind.STATE, online("new"), "new")
    world.step(10)
    assert world.line.retained["lab", "new"].number == 12, "13 has not come so far"
    world.say(canary, "rolled_back", "slow")
    world.step()
    assert world.line.retained[canary].action == "back"
    world.hear(Kind.STATE, online("newer"), "newer")
    world.step(10)
    assert world.line.retained["lab", "newer"].number == 12
    world.holds()


def test_who_is_on_the_way_back_gets_the_next_release_after_that(world: World) -> None:
    """Beside what was stopped the next release would be judged wrongly: as too many boxes beside a blind one."""
    begin(world, 12)
    world.up_to(1)
    had = set(world.line.retained)
    late = min(had)
    for place in had - {late}:
        world.say(place, "rolled_back", "blind")
    roll_back_rollout(world.store, "street", now_ms=world.now_ms)
    world.step(12)
    begin(world, 13)
    world.up_to(3, but=late)
    assert (world.line.retained[late].number, world.line.retained[late].action) == (12, "back")
    assert {order.number for place, order in world.line.retained.items() if place != late} == {13}
    world.say(late, "rolled_back")
    world.step(12)
    assert (world.line.retained[late].number, world.line.retained[late].action) == (13, "install")
    world.holds()


def test_a_device_that_keeps_what_was_stopped_gets_the_baseline_also_after_the_next_has_begun(world: World) -> None:
    start_rollout(world.store, signed(12), PLAN, now_ms=world.now_ms, baseline=signed(11))
    world.step()
    ((canary, _),) = world.line.retained.items()
    world.say(canary, "confirmed")
    roll_back_rollout(world.store, "street", now_ms=world.now_ms)
    world.step(2)
    begin(world, 13)
    world.say(canary, "confirmed")  # nothing signed allows the way back
    world.step(200)
    order = world.line.retained[canary]
    assert (order.number, order.action, order.instead_of) == (11, "install", 12)
    world.say(canary, "confirmed")
    world.up_to(3)
    world.step(12)
    assert world.line.retained[canary].number == 13
    world.holds()


@pytest.mark.parametrize(
    ("phase", "serving", "ordered"),
    [
        ("confirmed", "street-12", True),  # it has it
        ("trial", "street-12", True),  # it serves it
        ("rolled_back", OLD, False),  # it has gone back
        ("shadow", OLD, False),  # it was renamed in between, and gives it up by itself
    ],
)
def test_a_device_that_was_renamed_is_sent_back_under_its_new_name(
    world: World, phase: Phase, serving: str, ordered: bool
) -> None:
    begin(world, 12)
    world.step()
    ((canary, order),) = world.line.retained.items()
    world.hear(Kind.STATE, online("renamed"), "renamed")
    world.hear(Kind.REPORT, encode(report(order, phase, 7, serving=serving)), "renamed")
    world.step(2)
    found = world.line.retained.get(Place("lab", "renamed"))
    assert (found is not None and found.action == "install") == ordered, "nothing was stopped"
    world.holds()
    world.say(canary, "rolled_back", "blind")
    world.step(2)
    found = world.line.retained.get(Place("lab", "renamed"))
    assert (found is not None and found.action == "back") == ordered
    if ordered:
        world.sequence = 7
        world.say(Place("lab", "renamed"), "rolled_back")
        world.step(2)
        assert "lab/renamed" not in {
            f"{one.site}/{one.device}"
            for one in rollout_status(world.store, world.rollout).devices
            if one.standing == "going_back"
        }
    world.holds()


@pytest.mark.parametrize("sent_back", [False, True])
def test_a_device_that_was_renamed_after_the_stop_is_sent_back(world: World, sent_back: bool) -> None:
    begin(world, 12)
    world.step()
    ((canary, order),) = world.line.retained.items()
    if sent_back:
        roll_back_rollout(world.store, "street", now_ms=world.now_ms)
    else:
        world.say(canary, "rolled_back", "blind")
    world.step(2)
    world.hear(Kind.REPORT, encode(report(order, "confirmed", 7)), "renamed")
    world.step(2)
    assert world.line.retained["lab", "renamed"].action == "back"
    world.holds()


def test_a_device_that_was_renamed_does_not_hide_that_the_database_is_an_older_copy(
    world: World, tmp_path: Path
) -> None:
    """What a device reports may be heard before what it was ordered."""
    begin(world)
    world.up_to(1)
    backup(world, tmp_path / "backup.db")
    world.up_to(2)
    world.confirm_all()
    retained = dict(world.line.retained)
    restore(world, tmp_path / "backup.db")
    world.step()
    for place, order in retained.items():
        world.hear(Kind.REPORT, encode(report(order, "confirmed", 50)), place.device)
    for place, order in retained.items():
        world.hear(Kind.ASSIGN, encode(order), place.device)
    world.step(10)
    assert (world.rollout.state, world.rollout.reason) == ("halted", OLDER_COPY)
    assert world.line.retained == retained
    world.holds()


# Those that come late.


def at_night(world: World, *, but: int = 5) -> None:
    """The rollout is complete with a few; the others come back."""
    for n in range(but, 40):
        world.hear(Kind.STATE, online(f"cam{n}", is_online=False, at_ms=NOW + 1), f"cam{n}")
    begin(world)
    world.up_to(3)
    world.confirm_all()
    world.step(2)
    assert (world.rollout.state, len(world.rollout.members)) == ("complete", but)
    for n in range(but, 40):
        world.hear(Kind.STATE, online(f"cam{n}", at_ms=NOW + 2), f"cam{n}")
    world.line.take()


def test_who_comes_in_the_morning_is_not_ordered_at_once(world: World) -> None:
    at_night(world)
    for ordered in (5, 10, 20):
        world.step(12)
        assert len(world.line.take()) == ordered
        world.step(12)
        assert world.line.take() == [], "it waits for them"
        world.confirm_all()
        world.holds()
    world.step(12)
    assert len(world.rollout.members) == 40


def test_what_is_complete_stops_when_late_ones_fail(world: World) -> None:
    at_night(world)
    world.step(12)
    for place in world.line.take()[:2]:
        world.say(place, "rolled_back", "blind")
    world.step(12)
    assert (world.rollout.state, world.actions()) == ("stopped", {"back"})
    assert world.rollout.reason == "joined late: 2 of 5 failed: blind"
    world.holds()
    world.confirm_all()
    world.step(12)
    shown = rollout_status(world.store, world.rollout)
    assert {one.standing for one in shown.devices} == {"back"}
    assert not any("the others keep it" in line for line in lines_of(shown))
    begin(world, 13)
    world.up_to(3)
    world.confirm_all()
    world.step(2)
    assert world.rollout.state == "complete"
    world.holds()


def test_a_late_one_that_hangs_times_out_over_restarts(world: World) -> None:
    at_night(world, but=38)
    for _ in range(62):
        world.step(60)
        world.restart()
    assert world.rollout.state == "stopped"
    assert world.rollout.reason == "joined late: 2 of 2 failed: 2 timed out"


def test_a_complete_one_is_written_while_a_late_one_is_under_way_and_not_after(world: World) -> None:
    at_night(world, but=39)
    world.step(60)
    (late,) = (one.place for one in world.rollout.members.values() if one.wave == 4)

    def written() -> int:
        before = world.store._connection.total_changes
        world.step(60)
        return world.store._connection.total_changes - before

    assert 0 < written() <= 6, "twice a minute: the head, the device and its order"
    world.hear(Kind.STATE, online(late.device, is_online=False, at_ms=NOW + 3), late.device)
    world.step(16 * 60)
    assert written() == 0, "it is away, and its clock stands"
    world.hear(Kind.STATE, online(late.device, at_ms=NOW + 4), late.device)
    world.say(late, "confirmed")
    assert written() == 0


def test_a_late_one_that_a_newer_rollout_took_does_not_stop_the_older(world: World) -> None:
    at_night(world, but=36)
    world.step(12)
    older = world.rollout
    assert len(older.members) == 40
    begin(world, 13)
    late = {one.place for one in older.members.values() if one.wave == 4}
    for _ in range(20):
        for place, order in world.line.retained.items():
            if place not in late or order.number == 13:
                world.say(place, "confirmed")
        world.step(2)
    assert {world.line.retained[place].number for place in late} == {13}
    roll_back_rollout(world.store, "street", now_ms=world.now_ms)
    for _ in range(70):
        world.now_ms += MAX_STEP_MS
        world.clock += 10
        world.step()
    assert [one.state for one in world.store.rollouts.all()] == ["complete", "rolled_back"]
    world.holds()


# What people do.


def test_who_has_not_ended_in_what_was_replaced_goes_back_first(world: World) -> None:
    begin(world, 12)
    world.up_to(2)
    halt_rollout(world.store, "street")
    wave = sorted(one.place for one in world.rollout.members.values() if one.wave == 2)
    on_trial, *confirmed = wave
    world.say(on_trial, "trial")
    for place in confirmed:
        world.say(place, "confirmed")
    begin(world, 13)
    world.step()
    assert [one.state for one in world.store.rollouts.all()] == ["replaced", "running"]
    world.holds()
    orders = {place: (order.number, order.action) for place, order in world.line.retained.items() if place in wave}
    assert orders[on_trial] == (12, "back")
    assert {orders[place] for place in confirmed} <= {(12, "install"), (13, "install")}
    world.up_to(3, but=on_trial)
    assert world.line.retained[on_trial].number == 12, "beside what was given up nothing can be judged"
    world.say(on_trial, "rolled_back")
    world.step(12)
    assert (world.line.retained[on_trial].number, world.line.retained[on_trial].action) == (13, "install")
    world.holds()


def test_who_confirmed_before_it_heard_that_it_was_replaced_installs_the_baseline(world: World) -> None:
    start_rollout(world.store, signed(12), PLAN, now_ms=world.now_ms, baseline=signed(11))
    world.step()
    ((canary, _),) = world.line.retained.items()
    halt_rollout(world.store, "street")
    begin(world, 13)
    world.step(2)
    world.say(canary, "confirmed")  # nothing signed allows the way back
    world.step(200)
    order = world.line.retained[canary]
    assert (order.number, order.action, order.instead_of) == (11, "install", 12)
    world.holds()


def test_one_rollout_a_line_and_a_device_of_another_line_is_left_alone(world: World) -> None:
    begin(world)
    world.step()
    with pytest.raises(UnusableError, match="street-12 is being rolled out on street: `hub rollout halt` it first"):
        begin(world, 13)
    begin(world, 3, model="yard")
    world.step()
    with pytest.raises(UnusableError, match="name the model line: there are rollouts of street, yard"):
        find_rollout(world.store, "")
    halt_rollout(world.store, "yard")
    lines = {place: order.model for place, order in world.line.retained.items()}
    assert sorted(lines.values()) == ["street", "yard"], "two canaries, two devices"
    halt_rollout(world.store, "street")
    begin(world, 13)
    assert [one.state for one in world.store.rollouts.all() if one.model == "street"] == ["replaced", "running"]
    world.up_to(3)
    assert [place for place, order in world.line.retained.items() if order.model == "yard"] == [
        place for place, model in lines.items() if model == "yard"
    ]
    world.holds()


def test_the_hub_s_status_names_what_runs_and_what_is_halted_in_one_line(world: World) -> None:
    def told() -> list[str]:
        return [one for one in status_lines(world.store.status(now_ms=NOW)) if one.startswith("rollouts")]

    assert told() == []
    begin(world)
    begin(world, 3, model="gate")
    halt_rollout(world.store, "street")
    assert told() == ["rollouts   street/12 halted, gate/3 running"]
    roll_back_rollout(world.store, "street", now_ms=NOW)
    assert told() == ["rollouts   gate/3 running"]
    begin(world, 13)
    world.step()
    ((canary, _),) = [one for one in world.line.retained.items() if one[1].number == 13]
    world.say(canary, "rolled_back", "blind")
    world.step()
    assert told() == ["rollouts   gate/3 running, street/13 stopped"]
    for number in range(20):
        begin(world, 999_999, model=f"a-line-with-a-name-{number}")
    assert [len(line) for line in told()] == [80]


def test_what_fails_after_the_end_is_said_in_the_status_of_the_hub(world: World) -> None:
    begin(world)
    world.up_to(3)
    world.confirm_all()
    world.step(2)
    assert world.rollout.state == "complete"
    for n in (3, 7):
        world.say(Place("lab", f"cam{n}"), "rolled_back", "it failed 3 starts")
    world.step(20)
    told = status_lines(world.store.status(now_ms=NOW))
    assert "rollouts   complete, and failed since: street/12 on 2" in told
    shown = rollout_status(world.store, world.rollout)
    assert (shown.state, shown.failed_late, shown.waves[-1].count.back) == ("complete", 2, 0)
    world.holds()
    begin(world, 13)
    told = [line for line in status_lines(world.store.status(now_ms=NOW)) if line.startswith("rollouts")]
    assert told == ["rollouts   street/13 running"], "there is a newer one"


def test_halt_resume_and_roll_back(world: World) -> None:
    begin(world)
    world.up_to(1)
    halt_rollout(world.store, "")
    world.confirm_all()
    world.step(10)
    assert world.rollout.wave == 1
    resume_rollout(world.store, "")
    world.up_to(3)
    world.confirm_all()
    world.step(2)
    assert world.rollout.state == "complete"
    world.line.take()
    roll_back_rollout(world.store, "street", now_ms=world.now_ms)
    world.step()
    assert len(world.line.take()) == 40
    assert world.actions() == {"back"}
    world.confirm_all()
    status = rollout_status(world.store, world.rollout)
    assert {one.standing for one in status.devices} == {"back"}
    assert sum(wave.count.back for wave in status.waves) == 40
    world.holds()


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (RolloutPlan(canary="lab/nobody"), "no device lab/nobody was heard"),
        (RolloutPlan(canary="lab/cam1", sites=("other",)), "the canary lab/cam1 is not of the sites"),
        (RolloutPlan(sites=("a/b",)), "'a/b' is not a usable name"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(world: World, plan: RolloutPlan, said: str) -> None:
    with pytest.raises(UnusableError, match=said):
        begin(world, plan=plan)
    assert world.store.rollouts.all() == []


# A hub replaced by an older backup.


def test_a_device_that_came_late_gets_the_baseline_instead(world: World) -> None:
    """The device's side is the real one: installed with the factory's model, it took 13 at once, and never held 12."""
    start_rollout(world.store, signed(13), PLAN, now_ms=world.now_ms, baseline=signed(12))
    world.step()
    ((place, order),) = world.line.retained.items()
    slots = install(Slots(model="street"), order, signed(13))
    sent = report_of(slots, boot_id="b", serving=order.release, at_ms=NOW)
    world.hear(Kind.REPORT, encode(sent), place.device)
    roll_back_rollout(world.store, "", now_ms=world.now_ms)
    world.step()
    slots = assign(slots, world.line.retained[place], now_ms=NOW)
    assert slots.work is not None
    assert (slots.active, slots.work.phase) == (13, "confirmed"), "law 6 of the house"
    world.hear(Kind.REPORT, encode(report_of(slots, boot_id="b", serving=order.release, at_ms=NOW)), place.device)
    for _ in range(40):
        world.step(10)
    instead = world.line.retained[place]
    assert (instead.action, instead.number, instead.rollout) == ("install", 12, order.rollout)
    assert rollout_status(world.store, world.rollout).waves[0].count.going_back == 1
    world.holds()
    slots = install(slots, instead, signed(12))
    assert (slots.active, slots.highest) == (12, 13)
    world.hear(Kind.REPORT, encode(report_of(slots, boot_id="b", serving=instead.release, at_ms=NOW)), place.device)
    assert rollout_status(world.store, world.rollout).waves[0].count.back == 1
    world.line.take()
    world.restart()
    world.step(20)
    assert world.line.retained == {place: instead}
    world.holds()


def install(slots: Slots, order: Assignment, of: SignedRelease) -> Slots:
    """Take an order to its end, as a device does that finds nothing wrong."""
    slots = accept(assign(slots, order, now_ms=NOW), of, now_ms=NOW)
    slots = hold(advance(slots, "verified", now_ms=NOW), now_ms=NOW)
    for phase in ("golden", "shadow"):
        slots = advance(slots, phase, now_ms=NOW)
    return confirm(begin_trial(slots, now_ms=NOW), now_ms=NOW)


def test_an_older_backup_leaves_a_baseline_in_its_place(world: World, tmp_path: Path) -> None:
    start_rollout(world.store, signed(13), PLAN, now_ms=world.now_ms, baseline=signed(12))
    world.step()
    world.confirm_all()
    backup(world, tmp_path / "backup.db")
    roll_back_rollout(world.store, "", now_ms=world.now_ms)
    world.step()
    ((place, order),) = world.line.retained.items()
    world.hear(Kind.REPORT, encode(report(order, "confirmed", 9, serving=order.release)), place.device)
    for _ in range(40):
        world.step(10)
    retained = dict(world.line.retained)
    assert retained[place].number == 12
    restore(world, tmp_path / "backup.db")
    hear_the_broker(world)
    assert (world.rollout.state, world.line.retained) == ("stopped", retained)
    world.holds()


def backup(world: World, where: Path) -> None:
    world.store._connection.execute("VACUUM INTO ?", (str(where),))


def restore(world: World, where: Path) -> None:
    world.store.close()
    for leftover in world.path.parent.glob(f"{world.path.name}*"):
        leftover.unlink()
    shutil.copy(where, world.path)
    world.restart(settled=False)


def hear_the_broker(world: World) -> None:
    """What the broker keeps comes on a new connection, within the time that the hub waits for it."""
    world.step()
    for place, order in world.line.retained.items():
        world.hear(Kind.ASSIGN, encode(order), place.device)
    world.step(10)


def test_a_backup_from_before_the_stop_installs_nothing_again(world: World, tmp_path: Path) -> None:
    begin(world)
    world.up_to(2)
    backup(world, tmp_path / "backup.db")
    for place in [one.place for one in world.rollout.members.values() if one.wave == 2]:
        world.say(place, "rolled_back", "blind")
    world.step()
    retained = dict(world.line.retained)
    world.line.take()
    restore(world, tmp_path / "backup.db")
    assert world.rollout.state == "running"
    hear_the_broker(world)
    assert (world.rollout.state, world.rollout.reason) == ("stopped", OLDER_COPY)
    assert world.line.retained == retained
    world.holds()


def test_a_backup_from_before_a_wave_waits_and_takes_its_devices_over(world: World, tmp_path: Path) -> None:
    begin(world)
    world.up_to(1)
    backup(world, tmp_path / "backup.db")
    world.up_to(3)
    retained = dict(world.line.retained)
    restore(world, tmp_path / "backup.db")
    hear_the_broker(world)
    assert (world.rollout.state, world.rollout.reason) == ("halted", OLDER_COPY)
    assert world.line.retained == retained
    assert len(world.rollout.members) == 40
    resume_rollout(world.store, "")
    roll_back_rollout(world.store, "", now_ms=world.now_ms)
    world.step(2)
    assert world.actions() == {"back"}, "it reaches those that the backup did not know"
    world.holds()


def test_a_backup_from_before_a_rollout_leaves_its_devices_alone(world: World, tmp_path: Path) -> None:
    begin(world, 12)
    world.up_to(1)
    backup(world, tmp_path / "backup.db")
    world.confirm_all()  # who has not ended would be ordered back
    halt_rollout(world.store, "")
    world.step(2)
    begin(world, 13)
    world.up_to(2)
    retained = dict(world.line.retained)
    assert 13 in {order.number for order in retained.values()}
    restore(world, tmp_path / "backup.db")
    hear_the_broker(world)
    assert (world.rollout.number, world.rollout.state, world.rollout.reason) == (12, "halted", OLDER_COPY)
    assert world.line.retained == retained
    resume_rollout(world.store, "")
    for _ in range(10):
        if world.rollout.wave < 3:  # it comes as far as it can: of its own devices some may follow the newer one
            world.confirm_all()
            world.step(2)
    newer = {place for place, order in retained.items() if order.number == 13}
    assert {place: world.line.retained[place] for place in newer} == {place: retained[place] for place in newer}
    world.restart(settled=False)
    hear_the_broker(world)
    assert world.rollout.state != "halted", "what was heard once does not halt it again"
    halt_rollout(world.store, "")
    begin_again = start_rollout(world.store, signed(14), PLAN, now_ms=world.now_ms)
    world.up_to(3)
    assert {order.rollout for order in world.line.retained.values()} == {begin_again.id}
    world.holds()


def test_a_backup_from_before_it_was_replaced_does_not_go_on(world: World, tmp_path: Path) -> None:
    begin(world, 12)
    world.step()
    ((canary, _),) = world.line.retained.items()
    backup(world, tmp_path / "backup.db")
    halt_rollout(world.store, "")
    begin(world, 13)
    world.step(2)
    retained = dict(world.line.retained)
    assert (retained[canary].number, retained[canary].action, len(retained)) == (12, "back", 2)
    restore(world, tmp_path / "backup.db")
    hear_the_broker(world)
    assert (world.rollout.number, world.rollout.state, world.rollout.reason) == (12, "stopped", OLDER_COPY)
    assert world.line.retained == retained
    world.holds()


def test_its_own_orders_that_come_back_change_nothing(world: World) -> None:
    begin(world)
    world.up_to(2)
    before = world.store.rollouts.all()
    for place, order in world.line.retained.items():
        world.hear(Kind.ASSIGN, encode(order), place.device)
        older = msgspec.structs.replace(order, at_ms=order.at_ms - 1, rollout="r-before", number=3)
        world.hear(Kind.ASSIGN, encode(older), place.device)
    assert world.store.rollouts.all() == before
    assert world.store.rollouts.foreign() == 0


# The database.


def test_forgetting_a_device_forgets_its_orders(world: World) -> None:
    begin(world)
    world.up_to(3)
    scope = Scope("lab", "cam5", world.now_ms + 1, whole=True)
    list(world.store.upkeep.forget(scope, now_ms=world.now_ms + 1))
    assert Place("lab", "cam5") not in world.rollout.members
    world.hear(Kind.REPORT, encode(report(world.line.retained["lab", "cam5"], "confirmed", 9)), "cam5")
    assert Place("lab", "cam5") not in world.rollout.members
    world.hear(Kind.ASSIGN, encode(world.line.retained["lab", "cam5"]), "cam5")
    assert Place("lab", "cam5") not in world.rollout.members
    world.holds()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("UPDATE rollout SET state = 'complete'", "is not what its columns say"),
        ("UPDATE rollout SET head = '{}'", "cannot be read"),
        ("DELETE FROM device_order WHERE device = 'cam3'", "lab/cam3 is in a rollout and has no order"),
        ("UPDATE device_order SET at_ms = 1 WHERE device = 'cam3'", "the order of lab/cam3 is not what rollout"),
        ("UPDATE device_order SET payload = '{' WHERE device = 'cam3'", "the order of lab/cam3 cannot be read"),
        ("DELETE FROM rollout_member WHERE device = 'cam3'", "the order of lab/cam3 is not of the newest rollout"),
        ("UPDATE rollout_member SET at_ms = 1 WHERE device = 'cam3'", "the row of lab/cam3 in rollout"),
        (
            "UPDATE rollout_member SET member = json_set(member, '$.wave', 9) WHERE device = 'cam3'",
            "of wave 9, which has not begun",
        ),
    ],
)
def test_check_finds_what_is_broken(world: World, damage: str, said: str) -> None:
    begin(world)
    world.up_to(3)
    world.holds()
    world.store._connection.execute(damage)
    lines, holds = check_lines(world.store)
    assert not holds
    assert said in "\n".join(lines)


# Over a real broker, with the real process.


class Obeying:
    """A device that does what it is ordered, at once."""

    def __init__(self, port: int, name: str, *, fails: bool = False) -> None:
        self.name = name
        self.orders: list[Assignment] = []
        self._fails = fails
        self._sequence = 0
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"sim-{name}", protocol=paho.MQTTv5)
        self._client.on_connect = self._on_connect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(1, 1)
        self._client.connect_async("127.0.0.1", port)
        self._client.loop_start()

    def stop(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(self, client, *_) -> None:
        client.subscribe(topic("lab", self.name, Kind.ASSIGN), qos=1)
        client.publish(topic("lab", self.name, Kind.STATE), online(self.name), qos=1, retain=True)

    def _on_message(self, client, _user, message) -> None:
        order = decode(message.payload, Assignment)
        self.orders.append(order)
        phase = "rolled_back" if self._fails or order.action == "back" else "confirmed"
        self._sequence += 1
        said = report(order, phase, self._sequence, reason="blind" if self._fails else "")
        client.publish(topic("lab", self.name, Kind.REPORT), encode(said), qos=1, retain=True)


def state_of(database: Path) -> tuple[str, int]:
    with Store.open(database, create=False) as store:
        rollout = find_rollout(store, "")
        return rollout.state, len(rollout.members)


@pytest.mark.slow
@pytest.mark.broker
def test_hub_serve_rolls_out_stops_and_outlives_its_death(broker, tmp_path: Path) -> None:
    devices = [Obeying(broker.port, f"cam{n}") for n in range(6)]
    try:
        with Hub(tmp_path, broker.port) as hub:
            wait_until(lambda: online_devices(hub.database) == 6, what="the devices are heard")
            with Store.open(hub.database, create=False) as store:
                start_rollout(store, signed(12), PLAN, now_ms=NOW)
            wait_until(lambda: any(one.orders for one in devices), what="a first order")
            hub.kill()
            with Store.open(hub.database, create=False) as store:
                assert find_rollout(store, "").state == "running"
                store._connection.execute("VACUUM INTO ?", (str(tmp_path / "backup.db"),))
            hub.start()
            wait_until(lambda: state_of(hub.database) == ("complete", 6), what="the rollout is complete")
            assert all({order.action for order in one.orders} == {"install"} for one in devices)

            for one in devices:
                one._fails = True
            with Store.open(hub.database, create=False) as store:
                start_rollout(store, signed(13), PLAN, now_ms=NOW)
            wait_until(lambda: state_of(hub.database) == ("stopped", 1), what="the canary has stopped it")
            wait_until(lambda: any(one.orders[-1].action == "back" for one in devices), what="it is sent back")
            assert sum(one.orders[-1].number == 13 for one in devices) == 1
            assert hub.stop() == 0
            told = [one.orders[-1] for one in devices]

            for leftover in tmp_path.glob("hub.db*"):  # an older backup takes its place
                leftover.unlink()
            shutil.copy(tmp_path / "backup.db", hub.database)
            seen = len(hub.log)
            hub.start()
            wait_until(lambda: any("published the orders" in line for line in hub.log[seen:]), what="it has its say")
            assert hub.stop() == 0
            assert [one.orders[-1] for one in devices] == told
            assert state_of(hub.database)[0] == "halted"
        with Store.open(hub.database, create=False) as store:
            assert check_lines(store)[1]
    finally:
        for one in devices:
            one.stop()


def online_devices(database: Path) -> int:
    with Store.open(database, create=False) as store:
        return sum(one.online for one in store.rollouts.fleet())
