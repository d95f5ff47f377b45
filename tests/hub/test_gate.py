"""The gate's rules: what passes, what stops a candidate, what cannot be told, and how often it is wrong."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.card import InputSpec, ModelCard, Variant
from hub.evaluation.compare import Change, Comparison, GroupChange, Level, compare
from hub.gate import variant_checks
from hub.gate_rules import Check, judge
from hub.quantization.report import REPORT, Quantization, Tried
from tests.hub.gate_scenes import FIXED, SPOT, two_looks

SAME = (0.0, -0.02, 0.02)


def change(difference=0.0, low=-0.02, high=0.02, *, baseline=0.7) -> Change:
    candidate = None if difference is None else baseline + difference
    return Change(baseline=baseline, candidate=candidate, difference=difference, low=low, high=high)


def group(
    kind, name, ap50=SAME, recall=SAME, *, precision=SAME, images=60, objects=200, units=30, few=False
) -> GroupChange:
    return GroupChange(
        kind=kind,
        name=name,
        images=images,
        objects=objects,
        units=units,
        few=few,
        ap50=change(*ap50),
        recall=change(*recall),
        precision=change(*precision),
    )


def comparison(*groups, overall=(SAME, SAME), precision=SAME, level=None, resampled="moments") -> Comparison:
    return Comparison(
        score_threshold=0.4,
        baseline_threshold=0.4,
        input="192x160",
        images=100,
        resampled=resampled,
        units=50,
        labels=("person",),
        left_out=(),
        groups=(group("overall", "all", *overall, precision=precision, images=100, objects=600, units=50), *groups),
        level=level,
    )


BETTER = (0.08, 0.03, 0.13)
GOOD = group("weak spot", "1", BETTER, BETTER)


def outcome(checks: list[Check], name: str) -> tuple[str, bool]:
    """Return the outcome of the check whose name begins so, and whether it stops the candidate."""
    found = next(check for check in checks if check.name.startswith(name))
    return found.outcome, found.stops


def judged(found: Comparison, fixed=None, *, weak_spot=1):
    return judge(found, weak_spot=weak_spot, fixed={} if fixed is None else fixed)


def passes(checks) -> bool:
    return not any(check.stops for check in checks)


WEAK_SPOTS = [
    # both are better
    (group("weak spot", "1", BETTER, BETTER), "pass"),
    # recall is better, as a lower threshold would make it: the ranking is not
    (group("weak spot", "1", SAME, BETTER), "fail"),
    # better, and it may be chance
    (group("weak spot", "1", (0.03, -0.01, 0.07), BETTER), "insufficient"),
    # worse
    (group("weak spot", "1", (-0.03, -0.06, -0.01), (-0.03, -0.06, -0.01)), "fail"),
    # better, of few objects
    (group("weak spot", "1", BETTER, BETTER, objects=12, few=True), "insufficient"),
    # no interval
    (group("weak spot", "1", (0.1, None, None), (0.1, None, None)), "insufficient"),
    # not in the test split
    (group("weak spot", "7", BETTER, BETTER), "insufficient"),
]


@pytest.mark.parametrize(("of", "expected"), WEAK_SPOTS)
def test_its_own_weak_spot(of, expected):
    checks = judged(comparison(of))
    assert outcome(checks, "better on weak spot 1") == (expected, expected != "pass")
    assert passes(checks) == (expected == "pass")


def test_what_would_do_is_said():
    few = judged(comparison(group("weak spot", "1", images=6, objects=10, units=4, few=True)))[0]
    assert "only 10 objects in 6 pictures of 4 moments; about 6 pictures more" in few.text
    chance = judged(comparison(group("weak spot", "1", (0.05, -0.05, 0.15), BETTER, images=20)))[0]
    assert "about 60 pictures more would show it" in chance.text  # twice the distance to 0: four times as many


def test_pictures_of_a_handful_of_moments_are_too_few_whatever_they_show():
    checks = judged(comparison(GOOD, resampled="pictures"))
    assert outcome(checks, "better on weak spot 1") == ("insufficient", True)


def test_a_candidate_for_no_weak_spot_must_be_better_over_all():
    assert outcome(judged(comparison(), weak_spot=None), "better over all") == ("fail", True)
    gained = comparison(overall=(SAME, (0.03, 0.01, 0.05)))
    assert passes(judged(gained, weak_spot=None))


FIXED_ONES = [
    # nothing happened to it
    (group("weak spot", "2"), "pass", False),
    # it came back
    (group("weak spot", "2", SAME, (-0.1, -0.15, -0.05)), "fail", True),
    # few pictures, and still it is plain
    (group("weak spot", "2", SAME, (-0.5, -0.6, -0.4), few=True), "fail", True),
    # few pictures: a warning
    (group("weak spot", "2", few=True), "insufficient", False),
    # no picture at all: it is watched live
    (group("weak spot", "3"), "insufficient", False),
]


@pytest.mark.parametrize(("of", "expected", "stops"), FIXED_ONES)
def test_fixed_weak_spots(of, expected, stops):
    checks = judged(comparison(GOOD, of), {2: "dark"})
    assert outcome(checks, "weak spot 2 stays fixed") == (expected, stops)
    assert passes(checks) != stops


def test_a_weak_spot_that_is_not_fixed_may_get_worse_and_without_a_database_none_may():
    worse = comparison(GOOD, group("weak spot", "2", SAME, (-0.1, -0.15, -0.05)))
    assert passes(judged(worse, {}))
    assert not passes(judge(worse, weak_spot=1, fixed=None))


OVER_ALL = [
    # within the budget, and surely a loss
    ((-0.008, -0.012, -0.004), "pass"),
    # a loss beyond the budget
    ((-0.02, -0.03, -0.01), "fail"),
    # it seems one
    ((-0.02, -0.05, 0.01), "insufficient"),
    # no interval
    ((-0.02, None, None), "insufficient"),
    # not defined
    ((None, None, None), "insufficient"),
]


@pytest.mark.parametrize(("recall", "expected"), OVER_ALL)
def test_over_all(recall, expected):
    checks = judged(comparison(GOOD, overall=(SAME, recall)))
    assert outcome(checks, "recall over all") == (expected, expected != "pass")
    assert outcome(checks, "AP50 over all") == ("pass", False)


ELSEWHERE = [
    # nothing happened
    (group("elsewhere", "1"), "pass", False),
    # within the budget, and surely a loss
    (group("elsewhere", "1", SAME, (-0.008, -0.012, -0.004)), "pass", False),
    # what was gained on the weak spot was paid here
    (group("elsewhere", "1", SAME, (-0.06, -0.1, -0.02)), "fail", True),
    # it seems so
    (group("elsewhere", "1", SAME, (-0.06, -0.14, 0.02)), "insufficient", False),
    # few pictures, and still it is plain
    (group("elsewhere", "1", SAME, (-0.5, -0.6, -0.4), few=True), "fail", True),
    # few pictures
    (group("elsewhere", "1", few=True), "insufficient", False),
    # no picture: the group is of another weak spot
    (group("elsewhere", "7"), "insufficient", False),
]


@pytest.mark.parametrize(("of", "expected", "stops"), ELSEWHERE)
def test_what_is_not_of_its_weak_spot(of, expected, stops):
    checks = judged(comparison(GOOD, of, overall=(BETTER, BETTER)))
    assert outcome(checks, "elsewhere" if of.name == "7" else "recall elsewhere") == (expected, stops)
    assert passes(checks) != stops
    assert not any(
        "elsewhere" in check.name for check in judged(comparison(of, overall=(BETTER, BETTER)), weak_spot=None)
    )


LESS = (-0.1, -0.14, -0.06)
FALSE_ALARMS = [
    # as many
    (SAME, None, None, True),
    # more, and as much is found where there are as many
    (LESS, Level(score=0.47, recall=0.72), "pass", True),
    # more, and less is found where there are as many
    (LESS, Level(score=0.6, recall=0.6), "fail", False),
    # never as few
    (LESS, None, "fail", False),
    # more, which may be chance
    ((-0.1, -0.25, 0.05), None, "insufficient", True),
]


@pytest.mark.parametrize(("precision", "level", "expected", "passed"), FALSE_ALARMS)
def test_more_false_alarms(precision, level, expected, passed):
    checks = judged(comparison(GOOD, group("elsewhere", "1"), precision=precision, level=level))
    assert [check.outcome for check in checks if check.name == "precision over all"] == [expected] * (
        expected is not None
    )
    assert passes(checks) == passed
    if expected == "pass":
        assert any("From score 0.47 up" in check.text and "70.0 -> 72.0" in check.text for check in checks)


def test_groups():
    lost, seems = (-0.1, -0.14, -0.06), (-0.03, -0.06, -0.001)  # the second is off 0 alone, not among many
    many = [group("size", str(n)) for n in range(6)]
    checks = judged(comparison(GOOD, group("label", "person", lost, SAME), *many))
    assert outcome(checks, "AP50 of label person") == ("fail", True)
    checks = judged(comparison(GOOD, group("camera", "lab/box/yard", SAME, seems), *many))
    assert outcome(checks, "recall of camera lab/box/yard") == ("insufficient", False)
    assert passes(checks)
    alone = judged(comparison(GOOD, group("camera", "lab/box/yard", SAME, (-0.03, -0.055, -0.005))))
    assert outcome(alone, "recall of camera lab/box/yard") == ("fail", True)
    few = judged(comparison(GOOD, group("label", "dog", lost, lost, objects=5, few=True)))
    assert outcome(few, "not judged") == ("insufficient", False)
    assert "label dog (5)" in few[-1].text
    sliced = judged(comparison(GOOD, group("slice", "dark", lost, lost)))  # its weak spots are judged, tags are not
    assert passes(sliced)


points = st.integers(-300, 300).map(lambda n: n / 1000)
widths = st.integers(1, 200).map(lambda n: n / 1000)


@given(points, widths, points, widths, st.integers(0, 100).map(lambda n: n / 10))
def test_what_passes_a_budget_passes_a_larger_one(ap50, width, recall, other, budget):
    overall = ((ap50, ap50 - width, ap50 + width), (recall, recall - other, recall + other))
    found = comparison(GOOD, group("label", "car", *overall), overall=overall)
    if passes(judge(found, weak_spot=1, fixed={}, budget=budget)):
        assert passes(judge(found, weak_spot=1, fixed={}, budget=budget + 1))
        assert min(ap50, recall) * 100 >= -budget


def card(*variants) -> ModelCard:
    return ModelCard(
        name="m",
        release="m-1",
        file="model.onnx",
        sha256="a" * 64,
        head="centernet",
        input=InputSpec(width=192, height=160),
        labels=("person",),
        score_threshold=0.4,
        variants=variants,
    )


INT8 = Variant(name="int8", file="int8.onnx", sha256="b" * 64, precision="int8", runtimes=("openvino",))
KEPT = Tried(name="int8", runtime="openvino", precision="int8", sha256="b" * 64, kept=True, released=True)


def measured(*tried, **more) -> Quantization:
    told = {"model_sha256": "a" * 64, "budget": 1.0} | more
    return Quantization(
        release="m-1",
        dataset="",
        input="192x160",
        score_threshold=0.4,
        calibrated=1,
        cpu="",
        threads=1,
        versions={},
        tried=tried,
        **told,
    )


VARIANTS = [
    # measured, and within
    (measured(KEPT), "pass"),
    # another file was measured
    (measured(msgspec.structs.replace(KEPT, sha256="c" * 64)), "fail"),
    # on another runtime
    (measured(msgspec.structs.replace(KEPT, runtime="onnxruntime")), "fail"),
    # beyond the budget
    (measured(msgspec.structs.replace(KEPT, kept=False)), "fail"),
    # the golden set speaks against it
    (measured(msgspec.structs.replace(KEPT, parity="it finds nothing")), "fail"),
    # never measured
    (measured(), "fail"),
    # of the parent
    (measured(KEPT, model_sha256="d" * 64), "insufficient"),
    # with a larger budget
    (measured(KEPT, budget=5.0), "insufficient"),
    # no file
    (None, "insufficient"),
]


@pytest.mark.parametrize(("told", "expected"), VARIANTS)
def test_variants_were_measured(tmp_path, told, expected):
    if told is not None:
        (tmp_path / REPORT).write_bytes(msgspec.json.encode(told))
    checks = variant_checks(tmp_path, card(INT8), budget=1.0)
    assert [(check.outcome, check.stops) for check in checks] == [(expected, expected != "pass")]
    assert variant_checks(tmp_path, card(), budget=1.0) == []


def gated(seed, **scene):
    before, after = two_looks(seed, **scene)
    found = compare(before, after, score_threshold=0.4, apart_from=SPOT, resamples=150, seed=seed)
    return judge(found, weak_spot=SPOT, fixed={FIXED: "fixed"})


def refused(checks) -> bool:
    """Whether a loss was shown where none is."""
    return any(check.outcome == "fail" and not check.name.startswith("better") for check in checks)


def test_a_model_against_itself_loses_nothing():
    before, _ = two_looks(1)
    checks = judge(compare(before, before, score_threshold=0.4), weak_spot=SPOT, fixed={FIXED: ""})
    assert not refused(checks)
    assert outcome(checks, "better on weak spot 1") == ("fail", True)


@pytest.mark.timeout(400)
def test_how_often_the_gate_is_wrong():
    """Two models of the same quality that find different objects: no loss is there, and no gain.

    Few of them here, with room for chance: at a true rate of 12 % more than 7 of 30 are seen once in 20 times.
    """
    runs = [gated(seed, pictures=60) for seed in range(30)]
    assert sum(map(refused, runs)) <= 7
    assert sum(checks[0].outcome == "pass" for checks in runs) <= 3
    assert sum(map(passes, runs)) <= 3


def test_how_often_it_sees_what_is_there():
    gain = [gated(seed, change=0.6, spot_gain=0.3) for seed in range(8)]
    assert sum(checks[0].outcome == "pass" for checks in gain) >= 7
    traded = [gated(seed, change=0.6, gain=-0.3, spot_gain=0.5) for seed in range(6)]  # over all it is no loss
    assert sum(checks[0].outcome == "pass" for checks in traded) >= 5
    assert not any(map(passes, traded))
    loss = [gated(seed, change=0.6, gain=-0.3, spot_gain=-0.3, pictures=60) for seed in range(8)]
    assert sum(map(refused, loss)) >= 7
    assert not any(map(passes, loss))
