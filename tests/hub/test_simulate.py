"""Simulated devices: what one does with its orders, how a fleet stands before a broker, a hub and a rollout."""

import itertools
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from edge.contract.judgement import side
from edge.contract.release import SignedRelease
from edge.contract.rollout import BAKE_REPORTS, ENDED, PHASES, Assignment, TrialPlan
from edge.contract.settings import BrokerSettings
from edge.slot_state import Slots, forget, surplus
from edge.slot_work import accept, advance, assign, begin_trial, confirm, hold, roll_back
from hub.cli_simulate import read_fault
from hub.release import named_release
from hub.rollout_state import RolloutPlan
from hub.rollouts import find_rollout, start_rollout
from hub.scenery import USUAL, Ailment, Fault, count_side
from hub.simulate import Fleet, make_devices, standing_lines
from hub.simulated import BAKING, FACTORY, Place, SimulatedDevice, draw_places
from hub.store import Store
from tests.brokers import broker, wait_until
from tests.hub.devices import Hub
from tests.hub.signed import made_repository, small_model
from tests.hub.test_serve import command
from tests.simulators.rollout_fleet import Fleet as PlayedFleet
from tests.simulators.rollout_fleet import Play

__all__ = ["broker"]  # a fixture
BUSY = Place(site="sim", device="busy", fps=10.0, objects=15.0)
EMPTY = Place(site="sim", device="empty", fps=10.0, objects=0.0)
SIMULATED = ("--devices", "8", "--fps", "500", "--bad", "2=blind", "--json")
SOON = TrialPlan(shadow_frames=100, trial_frames=100, bake_s=0, within_s=60)
AT_ONCE = TrialPlan(bake_s=0, within_s=600)


def order(number: int = 1, *, rollout: str = "r-1", action="install", plan: TrialPlan = SOON) -> Assignment:
    target = f"line/{number:06d}.tar"
    return Assignment(
        rollout=rollout,
        action=action,
        model="line",
        release=f"line-{number}",
        number=number,
        target=target,
        plan=plan,
        at_ms=0,
    )


def device(place: Place = BUSY, *, seed: int = 0, **faults: Fault) -> SimulatedDevice:
    by_number = {int(name.removeprefix("r")): fault for name, fault in faults.items()}
    return SimulatedDevice(place, faults=by_number, seed=seed, begun_ms=1000)


def test_a_good_release_goes_through_every_phase_in_order() -> None:
    one = device()
    reports = one.assign(order(), now_ms=1000) + one.step(10**6)
    assert [report.phase for report in reports] == [phase for phase in PHASES if phase != "rolled_back"]
    assert [report.serving for report in reports] == [FACTORY] * 6 + ["line-1"] * 2
    sequences = [report.sequence for report in reports]
    assert sequences == sorted(set(sequences))
    assert reports[-1].figures is not None
    assert reports[-1].figures.frames == SOON.shadow_frames + SOON.trial_frames
    assert one.last == reports[-1]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        (Ailment.CRASH, "its process died"),
        (Ailment.NAN, "NaN or infinity"),
        (Ailment.BLIND, "blind|too few boxes"),
        (Ailment.EVERYTHING, "too many boxes"),
        (Ailment.SLOW, "too slow"),
    ],
)
def test_a_bad_release_is_rolled_back_for_what_it_is(kind: Ailment, why: str) -> None:
    for seed in range(10):
        one = device(seed=seed, r1=Fault(ailment=kind, strength=USUAL[kind]))
        one.assign(order(plan=AT_ONCE), now_ms=1000)
        one.step(10**7)
        assert one.last is not None
        assert (one.last.phase, one.last.serving, one.serving) == ("rolled_back", FACTORY, FACTORY)
        assert any(part in one.last.reason for part in why.split("|")), one.last.reason


def test_the_stronger_the_fault_the_sooner_it_shows() -> None:
    """Half of the boxes gone is beyond most of what one device can tell; nearly all of them is not."""
    caught = []
    for strength in (0.5, 5.0):
        fault = Fault(ailment=Ailment.WORSE, strength=strength)
        ended = [device(seed=seed, r1=fault) for seed in range(20)]
        for one in ended:
            one.assign(order(plan=AT_ONCE), now_ms=0)
            one.step(10**7)
        caught.append(sum(one.phase == "rolled_back" for one in ended))
    assert caught[0] < 10 < caught[1]


def test_a_device_that_sees_nothing_never_confirms() -> None:
    one = device(EMPTY)
    one.assign(order(), now_ms=1000)
    one.step(10**6)
    assert one.last is not None
    assert one.last.phase == "rolled_back"
    assert one.last.reason.startswith("insufficient")


def test_back_takes_a_release_away_that_serves_or_is_on_trial_or_was_never_there() -> None:
    """At every moment of an installation, and before any."""
    for now_ms in (0, 2000, 9000, 18_000, 10**6):
        one = device()
        if now_ms:
            one.assign(order(), now_ms=0)
            one.step(now_ms)
        (report,) = one.assign(order(action="back"), now_ms=now_ms + 1)
        assert (report.phase, report.serving, one.serving) == ("rolled_back", FACTORY, FACTORY)
        assert one.step(10**7) == []


def test_it_bakes_for_as_long_as_it_is_told_to_and_tells_its_figures() -> None:
    plan = TrialPlan(shadow_frames=100, trial_frames=100, bake_s=1200)
    one = device()
    reports = one.assign(order(plan=plan), now_ms=0) + one.step(10**7)
    trial = [report for report in reports if report.phase == "trial"]
    confirmed = reports[-1]
    assert confirmed.phase == "confirmed"
    assert 1200 <= (confirmed.at_ms - trial[0].at_ms) / 1000 <= 1200 + 5, "a moment of 50 frames is 5 s here"
    assert len(trial) == BAKE_REPORTS
    apart = {(after.at_ms - before.at_ms) // 1000 for before, after in itertools.pairwise(trial)}
    assert apart <= set(range(100, 106)), "1200 s through 12, to a moment"
    judged = [report.figures.frames for report in trial if report.figures is not None]
    assert judged == sorted(judged)
    baked = confirmed.frames - plan.trial_frames
    assert baked == pytest.approx(1190 * BUSY.fps / BAKING, abs=BUSY.fps * 5)


@pytest.mark.parametrize(
    ("plan", "tells"),
    [
        (TrialPlan(bake_s=60), 15),  # not more often than every 15 s
        (TrialPlan(bake_s=7200), 600),
    ],
)
def test_the_longer_it_bakes_the_rarer_it_tells(plan: TrialPlan, tells: int) -> None:
    one = device()
    one.assign(order(plan=plan), now_ms=0)
    trial = [report.at_ms // 1000 for report in one.step(10**8) if report.phase == "trial"]
    assert all(tells <= after - before <= tells + 5 for before, after in itertools.pairwise(trial[1:]))


def test_what_shows_only_in_the_bake_is_rolled_back_there() -> None:
    """A release that takes its process with it on 1 frame of 2,000 is through shadow and trial in most runs."""
    fault = Fault(ailment=Ailment.CRASH, strength=0.0005)
    ended = [device(seed=seed, r1=fault) for seed in range(10)]
    last = []
    for one in ended:
        one.assign(order(plan=TrialPlan(bake_s=7200)), now_ms=0)
        last.append(one.step(10**8)[-1])
    assert {report.phase for report in last} == {"rolled_back"}
    assert sum(report.frames >= 300 for report in last) > 5, "its trial had all its frames"


def test_figures_are_counted_as_the_real_device_counts_them() -> None:
    rng = np.random.default_rng(0)
    for boxes, frames in [(0, 0), (1, 1), (400, 50), (400, 1000)]:
        scores, spent_ms = rng.random(boxes), rng.lognormal(3.0, 1.0, frames)
        scores[: min(boxes, 4)] = [0.05, 0.1, 0.35, 0.4][: min(boxes, 4)]  # right on an edge
        counted = count_side(scores, spent_ms, not_finite=1, missed=2, suspect=3)
        assert counted == side(
            scores=scores.tolist(), threshold=0.4, spent_ms=spent_ms.tolist(), not_finite=1, missed=2, suspect=3
        )


def done(text: str) -> list[tuple[str, int, bool]]:
    """Orders to install (+) and to go back (-) that are followed to their end."""
    return [("install" if word[0] == "+" else "back", int(word[1:]), True) for word in text.split()]


Orders = st.lists(st.tuples(st.sampled_from(["install", "back"]), st.integers(1, 4), st.booleans()), max_size=12)


@settings(max_examples=60, deadline=None)
@given(Orders)
@example(done("+2 -2"))  # its baseline, 1, was never here
@example(done("+1 +2 -2 -1"))
@example(done("+3 -3 +2 +1"))
@example([*done("+1 +2"), ("install", 3, False), *done("-3 -2")])  # back from its trial
@example(done("+2 +1 +3 -3"))  # not to 1, that served before it, but to 2, its baseline
@example(done("+2 +1 -1 -2"))  # 2 is no way back from 2
@example(done("+1 +2 +3 +4 -4 -3"))  # 2 is not held any more
def test_it_goes_where_a_real_device_goes(orders: list[tuple[str, int, bool]]) -> None:
    """Beside the state of a real device, which verified the same releases; an order is done or overtaken on trial."""
    one, real, now = device(), Slots(model="line"), 0
    for turn, (action, number, to_its_end) in enumerate(orders):
        given_ = order(number, rollout=f"r-{turn}", action=action)
        (said,) = one.assign(given_, now_ms=now)
        real = to_trial(assign(real, given_, now_ms=now))
        while not to_its_end and one.phase not in {*ENDED, "trial"}:
            now += 1000
            one.step(now)
        if to_its_end:
            now += 10**6
            said = [said, *one.step(now)][-1]
            real = confirm(real, now_ms=now) if real.on_trial else real
            for dropped in surplus(real):
                real = forget(real, dropped)
        assert (one.number, one.phase) == (real.active, real.work.phase if real.work else None)
        if one.phase in ENDED and real.work is not None:
            assert said.reason == real.work.reason


def to_trial(slots: Slots) -> Slots:
    """What a real device makes of an order for a good release, up to its trial."""
    if slots.work is None or slots.work.phase != "assigned":
        return slots
    wanted = slots.work.assignment
    signed = SignedRelease(
        model="line", release=wanted.release, number=wanted.number, baseline=wanted.number - 1, card_sha256="0" * 64,
        input="320x192", score_threshold_permille=400, files=2, unpacked_bytes=1000,
    )  # fmt: skip
    try:
        slots = accept(slots, signed, now_ms=0)
    except ValueError as error:
        return roll_back(slots, str(error), now_ms=0)
    slots = hold(advance(slots, "verified", now_ms=0), now_ms=0)
    for phase in ("golden", "shadow"):
        slots = advance(slots, phase, now_ms=0)
    return begin_trial(slots, now_ms=0)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 40_000), st.sampled_from(["install", "back"]), st.integers(1, 3), st.integers(1, 2)),
        max_size=8,
    )
)
def test_the_laws_hold_whatever_is_ordered(orders: list[tuple[int, str, int, int]]) -> None:
    one = device(r2=Fault(ailment=Ailment.BLIND, strength=1.0))
    now_ms, last = 1000, 0
    for wait_ms, action, number, rollout in [*orders, (10**6, "none", 0, 0)]:
        now_ms += wait_ms
        reports = one.step(now_ms)
        if action != "none":
            reports += one.assign(order(number, rollout=f"r-{rollout}", action=action), now_ms=now_ms)
        for report in reports:
            assert report.sequence > last
            last = report.sequence
            assert not (report.phase == "confirmed" and report.number == 2)
            assert report.phase != "rolled_back" or report.serving != report.release
            assert report.phase != "confirmed" or report.serving == report.release
    assert one.serving != "line-2"
    assert one.phase is None or one.phase in ENDED


@pytest.mark.parametrize("kind", [kind for kind in Ailment if kind is not Ailment.WORSE])
def test_a_bad_release_stops_at_the_first_devices_of_a_fleet(kind: Ailment) -> None:
    for seed in range(3):
        fault = Fault(ailment=kind, strength=USUAL[kind])
        played = Play(PlayedFleet(devices=60, seed=seed, fault=fault)).run()
        assert played.caught
        assert played.confirmed <= 3
        assert played.serving == 0


def test_a_good_release_reaches_everybody_who_can_judge_it() -> None:
    played = Play(PlayedFleet(devices=60, seed=1)).run()
    assert (played.rollout.state, played.reasons) == ("complete", {})
    assert played.serving == 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("13=blind", (13, Fault(ailment=Ailment.BLIND, strength=1.0))),
        ("1=worse:2.5", (1, Fault(ailment=Ailment.WORSE, strength=2.5))),
        ("13", None),  # no kind
        ("0=nan", None),  # the model of the installation is no release
        ("x=nan", None),
        ("2=odd", None),  # no such kind
        ("2=nan:-1", None),
        ("2=nan:nan", None),
        ("2=nan:1e9", None),
    ],
)
def test_a_fault_is_read_or_refused_by_name(text: str, expected: tuple[int, Fault] | None) -> None:
    if expected is None:
        with pytest.raises(UnusableError, match="KIND is one of crash, nan"):
            read_fault(text)
    else:
        assert read_fault(text) == expected


def test_no_broker_is_said_in_one_line() -> None:
    done = command("simulate", "--broker", "127.0.0.1:9", "--devices", "2", "--seconds", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("hub: the broker does not answer")
    assert done.stderr.count("\n") == 1


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def states(hub: Hub) -> dict[str, bool]:
    with Store.open(hub.database, create=False) as store:
        return {one.place.device: one.online for one in store.rollouts.fleet()}


@pytest.mark.broker
def test_a_fleet_is_known_to_the_hub_with_its_labels_and_leaves_with_a_word(broker, tmp_path: Path) -> None:
    places = draw_places(12, rng=np.random.default_rng(0), site="sim", labels=("a", "b"))
    with Hub(tmp_path, broker.port) as hub:
        with Fleet(make_devices(places, faults={}, seed=0), BrokerSettings(port=broker.port)) as fleet:
            wait_until(lambda: fleet.standing().connected == 12)
            wait_until(lambda: states(hub) == {place.device: True for place in places}, what="all are online")
            with Store.open(hub.database, create=False) as store:
                assert sorted(one.labels for one in store.rollouts.fleet()) == [("a",)] * 6 + [("b",)] * 6
            assert standing_lines(fleet.standing())[0] == "devices    12 of 12 connected"
        wait_until(lambda: states(hub) == {place.device: False for place in places}, what="all said that they go")


@pytest.mark.broker
def test_a_device_that_is_away_is_offline_by_its_last_will_and_returns(broker, tmp_path: Path) -> None:
    places = draw_places(2, rng=np.random.default_rng(0), site="sim")
    devices = make_devices(places, faults={}, seed=0)
    seen: set[tuple[bool, ...]] = set()
    with Hub(tmp_path, broker.port) as hub, Fleet(devices, BrokerSettings(port=broker.port), away=0.5, away_s=3.0):

        def both() -> bool:
            seen.add(tuple(states(hub).get(place.device, False) for place in places))
            return {(True, True), (False, True)} <= seen

        wait_until(both, what="the first device is there and away, the second stays")
    assert not any(second is False and first for first, second in seen - {(False, False), (True, False)})


@pytest.mark.broker
@pytest.mark.slow
def test_a_rollout_is_rehearsed_through_broker_hub_and_repository(broker, tmp_path: Path) -> None:
    """The first release is good and reaches everybody; the second is blind, stops, and leaves nobody with it."""
    models = [small_model(tmp_path / name, release=name, content=name) for name in ("yard-1", "yard-2")]
    repository = made_repository(tmp_path / "repository", *models)
    simulated = subprocess.Popen(
        [sys.executable, "-m", "hub", "simulate", *SIMULATED, "--broker", f"127.0.0.1:{broker.port}"],
        stdout=subprocess.PIPE,
        text=True,
    )
    plan = RolloutPlan(trial=TrialPlan(shadow_frames=100, trial_frames=100, bake_s=0))
    with Hub(tmp_path, broker.port) as hub, Store.open(hub.database, create=False) as store:
        wait_until(lambda: sum(states(hub).values()) == 8, what="all are online")
        for number, end in ((1, "complete"), (2, "stopped")):
            start_rollout(store, named_release(repository.folder, f"yard/{number}").signed, plan, now_ms=now_ms())
            wait_until(lambda: find_rollout(store, "yard").state != "running", deadline_s=180, what="it ends")
            assert find_rollout(store, "yard").state == end
        simulated.terminate()
        told, _ = simulated.communicate(timeout=20)
    standing = msgspec.json.decode(told)
    assert (simulated.returncode, standing["devices"]) == (0, 8)
    assert standing["serving"] == standing["ever_confirmed"] == {"yard-1": 8}
