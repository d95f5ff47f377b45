"""When a machine's boxes are right, how sure it is of an image, and how its scores are calibrated."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.detector.detections import box_iou
from hub.annotation import Annotation
from hub.confidence import MATCH_IOU, Calibration, best_iou, confidence, fitted, is_right, kept, outcomes

PLAIN = Calibration(0.4)


def box(x: float, *, label: str = "person", score: float | None = None, width: float = 10) -> Annotation:
    return Annotation((x, 0, x + width, 10), label, score, None if score is None else "model")


@pytest.mark.parametrize(
    ("machine", "truth", "right"),
    [
        ([], [], True),  # nothing there, nothing seen
        ([box(0)], [], False),  # extra
        ([], [box(0)], False),  # missing
        ([box(0)], [box(2)], True),  # IoU .67
        ([box(0)], [box(3)], False),  # IoU .54
        ([box(0, label="head")], [box(0)], False),  # swapped
        ([box(0), box(0)], [box(0)], False),  # doubled
        ([box(0), box(0)], [box(0), box(0)], True),
        ([box(0), box(30)], [box(30), box(0)], True),  # in any order
        # the first fits both, the second only one: greedy matching would fail
        ([box(2), box(4)], [box(4), box(0)], True),
        ([box(2), box(0)], [box(2), box(4)], True),
    ],
)
def test_an_image_is_right_when_all_match_one_to_one(machine, truth, right):
    assert is_right(machine, truth) is right
    assert is_right(truth, machine) is right


PLACED = st.lists(st.builds(box, st.integers(0, 12).map(float), label=st.sampled_from(["a", "b"])), max_size=5)


@given(PLACED, PLACED)
def test_matching_agrees_with_every_permutation(machine, truth):
    def fits(one, other):
        return (
            one.label == other.label
            and float(box_iou(np.float32([one.xyxy]), np.float32([other.xyxy]))[0, 0]) >= MATCH_IOU
        )

    brute = len(machine) == len(truth) and any(
        all(fits(one, other) for one, other in zip(machine, order, strict=True))
        for order in itertools.permutations(truth)
    )
    assert is_right(machine, truth) is brute


def test_an_image_without_boxes_has_a_confidence():
    assert confidence([], PLAIN) == 1.0
    assert confidence([box(0, score=0.05)], PLAIN) > 0.99
    assert confidence([box(0, score=0.35)], PLAIN) < 0.7


SCORES = st.lists(st.floats(0, 1), max_size=8)


@given(SCORES, st.floats(0.1, 0.9), st.floats(0.5, 6))
def test_confidence_is_a_probability_and_doubt_lowers_it(scores, middle, slope):
    calibration = Calibration(middle, slope)
    sure = confidence([box(0, score=score) for score in scores], calibration)
    assert 0 <= sure <= 1
    assert confidence([box(0, score=score) for score in [*scores, middle]], calibration) <= sure
    assert len(kept([box(0, score=score) for score in scores], calibration)) == sum(
        round(score, 4) >= middle for score in scores
    )


def test_what_is_kept_says_that_a_machine_drew_it():
    (one,) = kept([box(0, score=0.9), box(20, score=0.2)], PLAIN)
    assert (one.origin, one.score, one.xyxy) == ("machine", 0.9, (0, 0, 10, 10))


def test_each_true_box_is_found_once_and_the_best_score_finds_it():
    seen = [box(0, score=0.5), box(1, score=0.9), box(40, score=0.7)]
    assert outcomes(seen, [box(0)]) == [(0.9, True), (0.7, False), (0.5, False)]
    assert outcomes(seen, []) == [(0.9, False), (0.7, False), (0.5, False)]
    assert best_iou(seen, [box(0)]) == pytest.approx([1.0, 9 / 11, 0.0])


def test_a_fit_finds_the_curve_and_few_boxes_stay_near_the_prior():
    rng, truth = random.Random(3), Calibration(0.55, 4.0)
    rows = []
    for _ in range(3000):
        score = rng.random()
        rows.append((score, rng.random() < truth.probability(score)))
    found = fitted(rows, PLAIN)
    assert (found.middle, found.slope) == (pytest.approx(0.55, abs=0.03), pytest.approx(4.0, abs=0.5))
    assert found.boxes == 3000
    few = fitted(rows[:2], PLAIN)
    assert abs(few.middle - PLAIN.middle) < abs(found.middle - PLAIN.middle) + 0.05
    assert fitted([], PLAIN) == PLAIN


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), max_size=30))
def test_a_fit_is_always_usable(rows):
    found = fitted(rows, PLAIN)
    assert 0 < found.middle < 1
    assert found.slope > 0
    assert found.probability(0.9) >= found.probability(0.1)
