"""Weights from verdicts: what they learn, when they are believed, and that a device takes them."""

import json
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hub.cli
from edge.contract.policy import BUILT_IN, WEIGHED, MiningPolicy, Policy, Weights, decode_policy, encode_policy
from edge.contract.samples import Witness, WitnessKind
from edge.contract.topics import Kind, topic
from edge.policy import PolicyBox
from edge.severity import severity
from hub.annotation import Annotation
from hub.finding_verdicts import verdicts
from hub.policies import PolicyPost
from hub.store import Store
from hub.weight_policies import propose, send, weights_in_force
from hub.witness_weights import (
    KEYS,
    MIN_VERDICTS,
    Case,
    as_row,
    as_weights,
    case_of,
    fit,
    proposals,
    quality,
    severities,
)
from tests.edge.test_policy import configured
from tests.hub.labelled import NOW, draw, freeze, put
from tests.hub.made import arrival, heartbeat_payload

FLOOR = 0.6  # what a device reports from on


def changed(**weights: float) -> Weights:
    return msgspec.structs.replace(BUILT_IN, **weights)


SWAYING_TREE = changed(motion=0.1, zoom=1.0)  # what moves is a tree, and the second look believes in it
FOG = changed(bias=-2.3)


def draws(seed: int, true: Weights, count: int, *, floor: float = FLOOR) -> list[Case]:
    """Findings of a camera whose true misses follow `true`, as far as a device with the built-in weights reports."""
    rng = np.random.default_rng(seed)
    cases: list[Case] = []
    while len(cases) < count:
        zoom = rng.random() < 0.6
        looked = zoom or rng.random() < 0.4
        speaks = rng.random(3) < (0.3, 0.6, 0.5)
        scores = (*(rng.beta((2, 3, 2), 2) * speaks), zoom * rng.beta(4, 3))
        row = (1.0, *scores, float(looked and not zoom))
        case = Case(tuple(float(value) for value in row), bool(rng.random() < chance(true, row)), 1000 * len(cases))
        if any(scores) and chance(BUILT_IN, row) >= floor:
            cases.append(case)
    return cases


def chance(weights: Weights, row) -> float:
    return float(1 / (1 + np.exp(-np.array(row) @ as_row(weights))))


def log_loss(weights: Weights, cases: list[Case]) -> float:
    return quality(severities(weights, cases), np.array([case.right for case in cases], float)).log_loss


# The fit.


def test_without_verdicts_the_weights_stay() -> None:
    found = fit({"door": []})
    assert as_weights(found.fleet) == as_weights(found.cameras["door"]) == BUILT_IN
    assert proposals({}, {}) == []
    (one,) = proposals({"door": []}, {})
    assert (one.fitted, one.better, one.missing) == (BUILT_IN, False, MIN_VERDICTS)


def test_a_camera_of_another_kind_gets_weights_that_foresee_better() -> None:
    for true in (SWAYING_TREE, FOG):
        cases, later = draws(1, true, 150), draws(2, true, 1000)
        (one,) = proposals({"door": cases}, {})
        assert one.better
        assert one.after.log_loss < one.before.log_loss
        assert one.after.brier < one.before.brier
        assert log_loss(one.fitted, later) < log_loss(BUILT_IN, later) - 0.05
        assert log_loss(one.fitted, later) < log_loss(true, later) + 0.05, "nearly as good as knowing them"


def test_what_was_reported_is_selected_by_severity_and_the_weights_do_not_suffer() -> None:
    """Fitted on what was reported alone, they are as good for what was not: the rest of a camera of the same kind."""
    reported = fit({"door": draws(1, SWAYING_TREE, 400)}).cameras["door"]
    everything = draws(3, SWAYING_TREE, 2000, floor=0.0)
    best, built_in = log_loss(SWAYING_TREE, everything), log_loss(BUILT_IN, everything)
    assert log_loss(as_weights(reported), everything) < best + 0.2 * (built_in - best)


def test_what_is_built_in_is_rarely_replaced_where_it_is_true() -> None:
    replaced = sum(proposals({"door": draws(seed, BUILT_IN, 60)}, {})[0].better for seed in range(10))
    assert replaced <= 1, "by chance at most one in twenty"


def test_a_camera_with_few_verdicts_stays_near_its_fleet() -> None:
    fleet = {number: draws(number, FOG, 100) for number in range(4)}
    new = draws(9, FOG, 5)
    alone = fit({"new": new}).cameras["new"]
    among = fit(fleet | {"new": new})
    assert abs(among.cameras["new"] - among.fleet).max() < 0.5
    later = draws(10, FOG, 1000)
    assert log_loss(as_weights(among.cameras["new"]), later) < log_loss(as_weights(alone), later)
    assert (fit(fleet | {"new": []}).cameras["new"] == fit(fleet).fleet).all(), "without any it is the fleet's"


@pytest.mark.parametrize(
    ("count", "right", "better"),
    [
        (MIN_VERDICTS - 1, False, False),  # one is missing
        (MIN_VERDICTS, False, True),  # a tree: all of it false
        (MIN_VERDICTS, True, False),  # all right, as was foreseen: nothing to gain
    ],
)
def test_how_many_it_takes(count: int, right: bool, better: bool) -> None:
    cases = [case_of([Witness(WitnessKind.ZOOM, 0.8)], refuted=False, right=right, at_ms=at) for at in range(count)]
    (one,) = proposals({"door": cases}, {})
    assert (one.better, one.missing) == (better, max(0, MIN_VERDICTS - count))


def test_weights_that_are_in_force_are_not_sent_again() -> None:
    cases = draws(1, FOG, 150)
    (first,) = proposals({"door": cases}, {})
    (again,) = proposals({"door": cases}, {"door": first.fitted})
    assert first.better
    assert (again.present, again.better) == (first.fitted, False)


def test_one_picture_is_never_on_both_sides_of_the_trial() -> None:
    """Thirty findings of one moment, all of a kind: nothing is left to try them on."""
    cases = [case_of([Witness(WitnessKind.GAP, 0.9)], refuted=False, right=False, at_ms=7)] * MIN_VERDICTS
    (one,) = proposals({"door": cases}, {})
    assert one.after == one.before
    assert not one.better


rows = st.tuples(st.just(1.0), *[st.floats(0, 1)] * 4, st.sampled_from([0.0, 1.0]))
some_cases = st.lists(st.builds(Case, rows, st.booleans(), st.integers(0, 5)), max_size=12)


@given(some_cases, st.randoms())
@settings(max_examples=12, deadline=None)
def test_a_witness_never_lowers_and_the_order_is_nothing(cases, random) -> None:
    found = as_weights(fit({"door": cases}).cameras["door"])
    for kind in WEIGHED:
        assert getattr(found, kind.value) >= 0
    assert found.refuted <= 0
    mixed = list(cases)
    random.shuffle(mixed)
    (one,), (other,) = proposals({"door": cases}, {}), proposals({"door": mixed}, {})
    assert (one.fitted, one.better, one.after) == (other.fitted, other.better, other.after)


@given(st.lists(st.builds(Witness, st.sampled_from(WEIGHED), st.floats(0, 1)), unique_by=lambda one: one.kind))
def test_the_model_is_that_of_the_device(witnesses) -> None:
    for refuted in (False, True):
        case = case_of(witnesses, refuted=refuted, right=True, at_ms=0)
        assert len(case.row) == len(KEYS)
        mine = float(severities(FOG, [case])[0])
        assert mine == pytest.approx(severity(witnesses, refuted=refuted, weights=FOG), abs=1e-4)


# To the devices.

REGION = (1.0, 2.0, 30.0, 40.0)
TREE = (Witness(WitnessKind.MOTION, 0.9), Witness(WitnessKind.ZOOM, 0.3))


class Line:
    """A way to the devices that remembers what was published."""

    connection = 1

    def __init__(self) -> None:
        self.published: dict[tuple[str, str], bytes] = {}

    def policy(self, site: str, device: str, payload: bytes) -> bool:
        self.published[site, device] = payload
        return True


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def annotate_a_tree(store: Store, count: int = 40, *, camera: str = "front") -> None:
    """A camera whose `missed` findings are nearly all of a tree."""
    put(store, *range(1, count + 1), boxes=(), witnesses=TREE, severity=0.72, camera=camera)
    batch = freeze(store, *range(1, count + 1))
    person = Annotation(REGION, "person")
    draw(store, batch, {number: [person] * (number % 10 == 0) for number in range(1, count + 1)})


def test_from_annotated_images_to_a_device_that_follows(store, tmp_path: Path) -> None:
    annotate_a_tree(store)
    before = Policy(mining=MiningPolicy(merge=True), weights={"back": FOG})
    store.edit_policy("lab", "box", lambda _: before, now_ms=NOW)
    store.edit_policy("lab", "", lambda _: Policy(paused=False), now_ms=NOW)
    proposed = propose(store, verdicts(store))
    sent, gone = send(store, proposed, now_ms=NOW + 1)
    (one,) = sent
    assert (one.camera, one.before, gone) == (("lab", "box", "front"), BUILT_IN, [])
    line = Line()
    assert PolicyPost(store, line=line).step() == 2
    payload = line.published["lab", "box"]
    policy = decode_policy(payload)
    assert msgspec.structs.replace(policy, weights={}) == msgspec.structs.replace(before, weights={})
    assert policy.weights == {"back": FOG, "front": one.after}, "of the rest nothing is changed"
    assert severity(TREE, refuted=False, weights=one.after) < 0.5 < severity(TREE, refuted=False, weights=BUILT_IN)
    assert severity([Witness(WitnessKind.ZOOM, 1.0)], refuted=False, weights=one.after) > severity(
        TREE, refuted=False, weights=one.after
    )

    box = PolicyBox(configured(tmp_path, site="lab", device="box"))
    own = msgspec.structs.replace(policy, weights={"front": one.after})  # this device has one camera
    box.take(topic("lab", "box", Kind.POLICY), encode_policy(own))
    assert [verdict.refused for verdict in box.verdicts] == [""]
    assert box.rules.weights == {"front": one.after}

    assert weights_in_force(store)["lab", "box", "front"] == one.after
    assert send(store, propose(store, verdicts(store)), now_ms=NOW + 2) == ([], []), "once is enough"


def test_the_sites_weights_are_the_present_ones_where_the_device_has_none(store) -> None:
    store.commit([arrival(Kind.HEARTBEAT, heartbeat_payload())], now_ms=NOW)  # its camera is `door`
    store.edit_policy("lab", "", lambda _: Policy(weights={"door": FOG, "elsewhere": FOG}), now_ms=NOW)
    assert weights_in_force(store) == {("lab", "box", "door"): FOG}
    store.edit_policy("lab", "box", lambda _: Policy(weights={"door": SWAYING_TREE}), now_ms=NOW)
    assert weights_in_force(store) == {("lab", "box", "door"): SWAYING_TREE}


def test_a_camera_that_its_device_no_longer_has_gets_none(store) -> None:
    annotate_a_tree(store)
    store.commit([arrival(Kind.HEARTBEAT, heartbeat_payload())], now_ms=NOW)
    sent, gone = send(store, propose(store, verdicts(store)), now_ms=NOW)
    assert (sent, gone) == ([], [("lab", "box", "front")])
    assert store.policies() == []


def test_findings_of_other_systems_have_no_severity_to_fit(store) -> None:
    put(store, 1, boxes=(), witnesses=())
    draw(store, freeze(store, 1), {1: []})
    assert propose(store, verdicts(store)) == []


def test_the_command_sends_once(store, tmp_path: Path, monkeypatch, capsys) -> None:
    annotate_a_tree(store)

    def run(*words: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["hub", "verdicts", *words, "--database", str(tmp_path / "hub.db")])
        with pytest.raises(SystemExit) as ended:
            hub.cli.main()
        assert not ended.value.code
        return capsys.readouterr().out

    shown = run()
    assert "better" in shown
    assert "next: hub verdicts --send" in shown
    sent = run("--send")
    for printed in (shown, sent):
        assert all(len(line) <= 80 for line in printed.splitlines())
        assert "would fall under a min_severity of 0.6" in " ".join(printed.split())
    assert sent.startswith("lab/box/front\n")
    assert "hub policy show lab box" in sent
    assert set(decode_policy(store.policies()[0].payload).weights) == {"front"}
    told = json.loads(run("--send", "--json"))
    assert (told["sent"], [one["better"] for one in told["weights"]]) == ([], [False])
    assert run("--send") == "no weights were changed: `hub verdicts` says what each camera needs\n"
