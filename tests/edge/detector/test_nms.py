"""NMS against its definition, written plainly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.detector.detections import Detections, box_iou, nms


def plain_nms(detections: Detections, iou_threshold: float, limit: int) -> list[int]:
    kept: list[int] = []
    for i in range(len(detections)):
        rivals = [j for j in kept if detections.class_id[j] == detections.class_id[i]]
        box = detections.xyxy[i : i + 1]
        if all(box_iou(box, detections.xyxy[j : j + 1])[0, 0] <= iou_threshold for j in rivals):
            kept.append(i)
    return kept[:limit]


whole = st.integers(-40, 120)
boxes = st.tuples(whole, whole, st.integers(1, 90), st.integers(1, 90), st.integers(0, 2))


@given(listed=st.lists(boxes, max_size=25), threshold=st.sampled_from([0.3, 0.45, 0.7]), limit=st.integers(1, 30))
def test_nms_is_its_definition(listed, threshold, limit):
    xyxy = np.array([(x, y, x + w, y + h) for x, y, w, h, _ in listed], np.float32).reshape(-1, 4)
    score = np.linspace(0.9, 0.1, len(listed), dtype=np.float32)
    detections = Detections(xyxy, score, np.array([c for *_, c in listed], np.int32))
    kept = nms(detections, iou_threshold=threshold, limit=limit)
    expected = detections.take(np.array(plain_nms(detections, threshold, limit), np.intp))
    assert kept.score.tolist() == expected.score.tolist()
    assert kept.xyxy.tolist() == expected.xyxy.tolist()


BROKEN = [
    # NaN in a corner
    [np.nan, 0, 10, 10],
    # a corner at infinity
    [0, 0, np.inf, 10],
]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_box_that_is_not_finite_suppresses_nothing(broken):
    xyxy = np.array([broken, [0, 0, 10, 10], [0, 0, 10, 11], [50, 50, 60, 60]], np.float32)
    detections = Detections(xyxy, np.array([0.9, 0.8, 0.7, 0.6], np.float32), np.zeros(4, np.int32))
    assert nms(detections, iou_threshold=0.5, limit=10).score.tolist() == pytest.approx([0.9, 0.8, 0.6])


def test_classes_do_not_touch_where_coordinates_are_negative():
    # OpenCV moves each class by the largest coordinate: without care this box of class 1 would land on class 0
    xyxy = np.array([[0, 0, 100, 100], [-101, -101, -1, -1]], np.float32)
    detections = Detections(xyxy, np.array([0.9, 0.8], np.float32), np.array([0, 1], np.int32))
    assert len(nms(detections, iou_threshold=0.3, limit=10)) == 2
