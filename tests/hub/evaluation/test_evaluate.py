"""One look's figures: groups, calibration, kinds of errors."""

import msgspec
import numpy as np
import pytest

from hub.evaluation.ap import average_precision
from hub.evaluation.calibration import d_ece
from hub.evaluation.error_kinds import WHAT
from hub.evaluation.evaluate import Evaluation, evaluate
from tests.hub.evaluation.scenes import START_MS, made, member, seen

BOX, FAR, THIRD = (10.0, 10.0, 110.0, 110.0), (200.0, 200.0, 300.0, 300.0), (200.0, 10.0, 300.0, 110.0)


def test_every_group_has_the_figures_of_its_pictures_alone():
    looks = made(1, ignored=0.2)
    found = evaluate(looks, score_threshold=0.4)
    overall = average_precision(looks)
    assert found.overall.ap == pytest.approx(overall.ap)
    assert found.overall.ap50.value == pytest.approx(overall.ap50, abs=1e-6)
    for group in found.of("camera"):
        alone = [one for one in looks if one.member.camera == group.name]
        again = evaluate(alone, score_threshold=0.4).overall
        assert group.images == len(alone)
        assert group.ap == pytest.approx(again.ap)
        assert group.recall.value == again.recall.value
        assert group.precision.value == again.precision.value
    for group in found.groups:
        assert group.recall.low <= group.recall.value <= group.recall.high


def test_recall_and_precision_are_counted_at_the_threshold():
    of = member("a", [("car", BOX), ("car", FAR), ("dog", THIRD)])
    told = [
        ("car", BOX, 0.9),
        ("car", FAR, 0.3),
        ("car", THIRD, 0.8),
        ("car", BOX, 0.7),
        ("dog", (0, 300, 90, 390), 0.2),
    ]
    found = evaluate([seen(of, told)], score_threshold=0.5)
    assert found.overall.recall.value == pytest.approx(1 / 3)
    assert found.overall.precision.value == pytest.approx(1 / 3)
    assert found.resampled == "too few"
    assert found.overall.recall.low is None
    found = evaluate([seen(of, told)], score_threshold=0.3)
    assert (found.overall.recall.value, found.overall.precision.value) == (pytest.approx(2 / 3), pytest.approx(1 / 2))


def test_size_is_of_the_models_input():
    """A side of 12 pixels of a picture of 400 is 6 of an input of 200, 12 of one of 400."""
    of = [
        member(f"p{at}", [("car", (10, 10, 22, 60))], camera="a/b/c", at_ms=START_MS + at * 60_000) for at in range(6)
    ]
    looks = [seen(one, [("car", (10, 10, 22, 60), 0.9), ("car", (100, 100, 190, 190), 0.9)]) for one in of]
    found = evaluate(looks, score_threshold=0.5)
    assert found.find("size", "tiny").objects == 6
    assert found.find("size", "tiny").precision.value == 1.0  # the wrong boxes are big
    assert found.overall.precision.value == 0.5
    assert found.find("size", "big") is None
    assert evaluate(looks, score_threshold=0.5, input_size=(400, 400)).find("size", "small").objects == 6


def planted(kind):
    """60 pictures, of which 20 have the one error; all else is right."""
    errors = {
        "classification": [("dog", BOX, 0.95)],
        "localisation": [("car", (10, 10, 110, 50), 0.95)],  # IoU .4
        "both": [("dog", (10, 10, 110, 50), 0.95)],
        "duplicate": [("car", BOX, 0.9), ("car", (10, 10, 110, 105), 0.85)],
        "background": [("car", BOX, 0.9), ("car", THIRD, 0.95)],
        "missed": [],
    }
    answer = []
    for at in range(60):
        of = member(f"p{at}", [("car", BOX), ("dog", FAR)], camera="a/b/c", at_ms=START_MS + at * 60_000)
        mine = errors[kind] if at < 20 else [("car", BOX, 0.9)]
        answer.append(seen(of, [*mine, ("dog", FAR, 0.9)]))
    return answer


@pytest.mark.parametrize("kind", WHAT)
def test_each_kind_of_error_is_told_and_what_it_costs(kind):
    found = evaluate(planted(kind), score_threshold=0.5)
    by_name = {one.name: one for one in found.errors}
    assert tuple(by_name) == tuple(WHAT)
    assert by_name[kind].count == 20
    others = [one for one in found.errors if one.name != kind]
    assert max(one.costs for one in others) < by_name[kind].costs or kind in {"both", "duplicate"}
    if kind not in {"both", "duplicate"}:
        # mending it, and it alone, makes all right; a box with both faults is taken away, its object stays missed
        assert found.overall.ap50.value + by_name[kind].costs == pytest.approx(1, abs=0.01)
    if kind not in {"classification", "localisation", "both"}:  # those leave their objects without a box, too
        assert {one.name for one in others if one.count} == set()


def test_without_detections_all_that_is_there_is_missed():
    looks = [seen(one.member, []) for one in planted("missed")]
    found = evaluate(looks, score_threshold=0.5)
    assert {one.name: one.count for one in found.errors if one.count} == {"missed": 120}
    assert found.overall.ap == 0
    assert found.overall.recall.value == 0
    assert found.overall.recall.high < 0.1  # 60 moments
    assert found.calibration.by_score is None


def test_without_objects_there_are_no_figures_but_wrong_boxes_count():
    looks = [seen(member(f"p{at}"), [("car", BOX, 0.9)]) for at in range(6)]
    found = evaluate(looks, score_threshold=0.5)
    assert found.overall.ap is None
    assert found.overall.recall.value is None
    assert found.overall.precision.value == 0
    assert found.curve == ()
    assert found.errors == ()
    assert len(found.groups) == 1


def test_labels_that_the_model_lacks_are_named():
    of = member("a", [("kite", BOX), ("car", FAR)], labels=("kite", "car"))
    found = evaluate([seen(of, [("car", FAR, 0.9)])], score_threshold=0.5)
    assert found.lacking == ("kite",)
    assert found.overall.recall.value == 1


def test_scores_that_mean_what_they_say_have_a_d_ece_near_0():
    rng = np.random.default_rng(0)
    score = rng.uniform(0.05, 1, 40_000)
    bins = np.minimum((score * 10).astype(np.int64), 9)
    honest = (rng.random(len(score)) < score).astype(float)
    assert d_ece(score, honest, bins, least=1) < 0.01
    bold = (rng.random(len(score)) < score - 0.05).astype(float)
    assert d_ece(score, bold, bins, least=1) == pytest.approx(0.05, abs=0.01)


def test_d_ece_weighs_bins_by_their_boxes_and_leaves_small_ones_out():
    score = np.array([0.25, 0.25, 0.25, 0.95])
    right = np.array([0.0, 0.0, 1.0, 0.0])
    bins = np.array([2, 2, 2, 9])
    assert d_ece(score, right, bins, least=1) == pytest.approx((3 * (1 / 3 - 0.25) + 0.95) / 4)
    assert d_ece(score, right, bins, least=2) == pytest.approx(1 / 3 - 0.25)
    assert d_ece(score, right, bins, least=4) is None


def test_calibration_is_told_by_score():
    looks = []
    for at in range(40):
        of = member(f"p{at}", [("car", BOX)] * (at % 4 == 0))
        looks.append(seen(of, [("car", BOX, 0.75)]))
    found = evaluate(looks, score_threshold=0.5).calibration
    assert [(one.boxes, one.right) for one in found.bins] == [(40, 0.25)]
    for told in (found.by_score, found.from_threshold, found.by_size, found.by_place):
        assert told == pytest.approx(0.5)
    assert (found.said, found.right) == (0.75, 0.25)


def test_an_evaluation_goes_through_json():
    found = evaluate(made(2), score_threshold=0.4)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Evaluation) == found


def test_no_picture_is_refused():
    with pytest.raises(ValueError, match="one picture at least"):
        evaluate([], score_threshold=0.5)
