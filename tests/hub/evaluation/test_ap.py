"""AP against pycocotools; the weighted AP50 against hotcoco; the matching's laws."""

import numpy as np
import pytest

from edge.detector.detector import open_detector
from hub.evaluation.ap import ap50_of, average_precision, precisions
from hub.evaluation.columns import columns
from hub.evaluation.figures import figures, with_itself
from hub.evaluation.groups import groups
from hub.evaluation.matching import RIGHT, UNCOUNTED, WRONG, match
from hub.evaluation.resampling import draw, units
from hub.evaluation.seen import Seen, look, members_to_test
from tests.benchmarks import street
from tests.hub.evaluation.coco_oracle import oracle
from tests.hub.evaluation.scenes import made, member, seen

CASES = {
    "plain": {},
    "uncertain boxes": {"ignored": 0.3},
    "scores that tie": {"ties": True},
    "other labels looked for on each picture": {"looked_for": [("car",), ("car", "person"), ("dog", "person")]},
    "more than a hundred boxes of a label on a picture": {"pictures": 4, "wrong": 500, "ignored": 0.2},
    "hardly anything found": {"find": 0.05, "wrong": 30},
    "exact boxes": {"shift": 0.0, "wrong": 0, "find": 1.0},
}


@pytest.mark.parametrize("case", CASES)
def test_ap_and_ap50_of_every_label_are_those_of_pycocotools(case):
    for seed in range(2):
        looks = made(seed, **CASES[case])
        expected = oracle(looks)
        found = precisions(columns(looks))
        assert found.keys() == expected.keys()
        for label, values in expected.items():
            np.testing.assert_allclose(found[label], values, atol=1e-6)
        np.testing.assert_allclose(average_precision(looks), np.mean(list(expected.values()), axis=0), atol=1e-6)
        assert ap50_of(looks, "person") == pytest.approx(expected["person"][1], abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_ap50_of_our_own_matching_is_hotcocos(case):
    for seed in range(2):
        looks = made(seed, **CASES[case])
        table = columns(looks)
        known = groups(table)
        once = np.ones((len(looks), 1), np.float32)
        counted = figures(table, match(table), known, score_threshold=0.3, weights=once)
        by_label = precisions(table)
        for group, got in zip(known, counted, strict=True):
            if group.kind == "label":
                assert got.ap50[0] == pytest.approx(by_label[group.name].ap50, abs=1e-6)
            if group.kind == "camera":  # of its pictures alone
                alone = [one for one in looks if one.member.camera == group.name]
                assert got.ap50[0] == pytest.approx(average_precision(alone).ap50, abs=1e-6)
        assert counted[0].ap50[0] == pytest.approx(average_precision(looks).ap50, abs=1e-6)


def test_a_picture_that_is_drawn_twice_counts_as_two_pictures():
    looks = made(5, pictures=12, ignored=0.2)
    table = columns(looks)
    drawn = units(table.members)
    weights = draw(drawn, seed=1, resamples=20)
    known = groups(table)
    counted = figures(table, match(table), known, score_threshold=0.4, weights=with_itself(weights))
    for at in range(20):
        copies = [one for one, times in zip(looks, weights[:, at], strict=True) for _ in range(int(times))]
        again = columns(copies)
        same = figures(
            again, match(again), groups(again), score_threshold=0.4, weights=np.ones((len(copies), 1), np.float32)
        )
        assert counted[0].recall[1 + at] == pytest.approx(same[0].recall[0])
        assert counted[0].precision[1 + at] == pytest.approx(same[0].precision[0])
        assert counted[0].ap50[1 + at] == pytest.approx(average_precision(copies).ap50, abs=1e-6)


def test_a_label_that_was_not_looked_for_counts_for_nothing():
    box = (10, 10, 50, 50)
    one = seen(member("a", [("car", box)], labels=("car",)), [("car", box, 0.9), ("dog", (90, 90, 150, 150), 0.95)])
    other = seen(member("b", labels=("dog",)), [("car", (60, 60, 90, 90), 0.99)])
    assert average_precision([one, other]) == (pytest.approx(1.0), pytest.approx(1.0))
    assert len(columns([one, other]).score) == 1


def test_labels_that_the_model_lacks_are_named_and_left_out():
    one = seen(member("a", [("kite", (1, 1, 9, 9)), ("car", (20, 20, 60, 60))], labels=("kite", "car")))
    table = columns([one])
    assert table.lacking == ("kite",)
    assert table.labels == ("car",)
    assert len(table.image) == 1


def test_without_objects_there_is_no_ap_and_without_detections_it_is_0():
    assert np.isnan(ap50_of([seen(member("a"))]))
    assert np.isnan(ap50_of([]))
    assert ap50_of([seen(member("a", [("car", (1, 1, 30, 30))]))]) == 0.0
    only_uncertain = member("a", [("car", (1, 1, 30, 30), True)])
    assert np.isnan(ap50_of([seen(only_uncertain, [("car", (1, 1, 30, 30), 0.5)])]))


def test_the_best_box_goes_first_and_one_true_box_is_matched_once():
    true = [("car", (0, 0, 100, 100)), ("car", (200, 200, 300, 300)), ("dog", (0, 200, 50, 250), True)]
    told = [
        ("car", (0, 0, 100, 80), 0.9),  # takes the first, though a later one fits better
        ("car", (0, 0, 100, 100), 0.8),
        ("dog", (0, 0, 100, 100), 0.7),  # another label
        ("dog", (0, 200, 25, 225), 0.6),  # lies in the uncertain one
        ("dog", (5, 205, 30, 230), 0.5),  # and another one in it
    ]
    table = columns([seen(member("a", true), told)])
    matches = match(table)
    by_score = dict(zip(np.round(table.score, 2).tolist(), matches.state.tolist(), strict=True))
    assert by_score == {0.9: RIGHT, 0.8: WRONG, 0.7: WRONG, 0.6: UNCOUNTED, 0.5: UNCOUNTED}
    np.testing.assert_allclose(matches.found, [0.9, 0.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_boxes_under_a_threshold_take_nothing_from_those_above(threshold):
    looks = made(9, ignored=0.2)
    table = columns(looks)
    matches = match(table)
    high = [
        Seen(one.member, one.detections.take(one.detections.score >= threshold), one.labels, one.input_size)
        for one in looks
    ]
    alone = columns(high)
    np.testing.assert_array_equal(match(alone).state, matches.state[table.score >= np.float32(threshold)])


@pytest.mark.slow
@pytest.mark.skipif(not (street.DATA / "coco128").is_dir(), reason="needs shared/data/coco128 beside the clone")
def test_on_coco_pictures_ap_is_that_of_pycocotools(tmp_path):
    version = street.coco_to_test(tmp_path / "coco")
    looks = look(open_detector(threads=1, input_size=(192, 192)), tmp_path / "coco", members_to_test(version))
    assert len(looks) == 64
    expected = oracle(looks)
    found = precisions(columns(looks))
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[name] for name in expected], list(expected.values()), atol=1e-6)
    assert 0.1 < np.mean([ap50 for _, ap50 in expected.values()]) < 0.9
