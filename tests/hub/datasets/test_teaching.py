import cv2
import numpy as np
import pytest

from edge.contract.errors import UnusableError
from edge.detector.detector import open_detector
from hub.datasets import teaching
from hub.datasets.teaching import open_teacher, taught
from tests.hub.train.street_versions import CLIP


@pytest.fixture(scope="module")
def frame():
    taken, found = cv2.VideoCapture(str(CLIP)).read()
    assert taken
    return found


@pytest.fixture(scope="module")
def boxes(frame):
    return taught(open_teacher(None), frame)


def test_a_second_look_shows_what_a_low_resolution_does_not(frame, boxes):
    pupil = open_detector(None, input_size=(192, 192), threads=1)
    seen = pupil.detect(frame, score_threshold=teaching.SURE).detections
    people = [box for box in boxes if box.label == "person" and not box.ignored]
    assert len(people) > 2 * (seen.class_id == 0).sum()


def test_what_is_unsure_is_ignored(boxes):
    assert {box.ignored for box in boxes} == {True, False}
    for box in boxes:
        assert box.origin == "self"
        assert box.score >= teaching.UNSURE
        assert box.ignored == (box.score < teaching.SURE)


def test_only_labels_that_are_asked_for(frame, boxes):
    asked = taught(open_teacher(None), frame, labels={"person"})
    assert asked == tuple(box for box in boxes if box.label == "person")


def test_boxes_lie_in_the_picture(frame, boxes):
    corners = np.array([box.xyxy for box in boxes])
    assert (corners >= 0).all()
    assert (corners[:, [0, 2]] <= frame.shape[1]).all()
    assert (corners[:, [1, 3]] <= frame.shape[0]).all()
    assert (corners[:, 2:] > corners[:, :2]).all()


def test_a_teacher_that_is_no_model_is_told(tmp_path):
    with pytest.raises(UnusableError, match="there is no model"):
        open_teacher(None, tmp_path / "big.onnx")
