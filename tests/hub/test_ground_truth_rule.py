"""Ground Truth's rule, as it is published: thresholds by mean IoU, iterations of 10, 190, 200, 200."""

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.annotation import Annotation
from hub.ground_truth_rule import Measured, finished, iterations, mean_iou, mean_score, threshold


def box(x: float, score: float | None = None) -> Annotation:
    return Annotation((x, 0, x + 10, 10), "person", score, None)


def test_the_iterations():
    assert list(islice(iterations(), 5)) == [10, 190, 200, 200, 200]


@pytest.mark.parametrize(
    ("images", "found"),
    [
        (0, (0, 200)),
        (9, (0, 191)),
        (10, (0, 190)),  # one iteration is not enough
        (199, (0, 1)),
        (200, (200, 200)),
        (399, (200, 1)),
        (400, (400, 200)),
    ],
)
def test_how_many_images_are_of_finished_iterations(images, found):
    assert finished(images) == found


@pytest.mark.parametrize(
    ("rows", "least"),
    [
        ([], None),
        ([(0.5, 0.59)], None),
        ([(0.5, 0.6)], 0.5),
        # a bad one is carried by good ones: that is the rule
        ([(0.9, 0.9), (0.8, 0.9), (0.3, 0.0)], 0.3),
        ([(0.9, 0.9), (0.3, 0.2)], 0.9),
        # not monotone: the smallest that holds counts, though a larger one does not
        ([(0.9, 0.1), (0.5, 0.9), (0.4, 0.9)], 0.4),
    ],
)
def test_the_threshold_is_the_smallest_whose_images_have_a_mean_iou_of_six_tenths(rows, least):
    assert threshold([Measured(*row) for row in rows]) == least


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=20))
def test_no_smaller_threshold_holds(rows):
    measured = [Measured(*row) for row in rows]
    found = threshold(measured)

    def mean(least):
        reached = [one.iou for one in measured if one.confidence >= least]
        return sum(reached) / len(reached)

    for one in measured:
        if found is None or one.confidence < found:
            assert mean(one.confidence) < 0.6
    assert found is None or mean(found) >= 0.6


def test_confidence_and_iou_of_an_image():
    assert mean_score([box(0, 0.4), box(20, 0.8)]) == pytest.approx(0.6)
    assert mean_score([]) is None
    assert mean_iou([], [box(0)]) is None
    assert mean_iou([box(0), box(50)], [box(0)]) == pytest.approx(0.5)
    # a missing object costs nothing
    assert mean_iou([box(0)], [box(0), box(50)]) == 1.0
