import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge.config import DetectionsConfig
from edge.contract.errors import UnusableError
from edge.contract.samples import WitnessKind
from edge.detector.detections import Detections
from edge.frame import Frame
from edge.stream import WAITING_LINES, DetectedFrame, DetectionStream
from tests.brokers import wait_until

LABELS = ("person", "car")
FOUND = Detections(
    np.array([[1, 2, 30.126, 40], [0, 0, 5, 5], [3, 3, 9, 9]], np.float32),
    np.array([0.9, 0.5, 0.1], np.float32),
    np.array([1, 0, 0], np.int32),
)


def frame(time_s: float = 0.0, camera: str = "front") -> Frame:
    return Frame(np.zeros((48, 64, 3), np.uint8), camera, round(time_s * 100), 1_700_000_000_000, time_s)


def open_stream(config: DetectionsConfig, sent: list[bytes] | None = None) -> DetectionStream:
    publish = sent.append if sent is not None else lambda _: None
    return DetectionStream(config, labels=LABELS, score_threshold=0.3, publish=publish)


def test_off_by_default() -> None:
    sent: list[bytes] = []
    stream = open_stream(DetectionsConfig(), sent)
    stream.offer(frame(), FOUND)
    stream.close()
    assert sent == []


def test_a_message_names_what_was_found_from_the_threshold_up() -> None:
    sent: list[bytes] = []
    stream = open_stream(DetectionsConfig(mqtt=True), sent)
    stream.offer(frame(), FOUND)
    message = msgspec.json.decode(sent[0], type=DetectedFrame)
    assert (message.camera, message.width, message.height) == ("front", 64, 48)
    assert [(box.label, box.score) for box in message.boxes] == [("car", 0.9), ("person", 0.5)]
    assert message.boxes[0].xyxy == (1.0, 2.0, 30.13, 40.0)


def test_what_the_second_look_added_says_so_and_the_rest_says_nothing() -> None:
    sent: list[bytes] = []
    stream = open_stream(DetectionsConfig(mqtt=True, max_hz=100), sent)
    for number, merged in enumerate([[False, True, False], [True, False, True], [False, False, False]]):
        stream.offer(frame(number), FOUND, merged=np.array(merged))
    stream.offer(frame(3), FOUND)
    messages = [msgspec.json.decode(one, type=DetectedFrame) for one in sent]
    assert [[box.witness for box in message.boxes] for message in messages] == [
        [None, WitnessKind.ZOOM],
        [WitnessKind.ZOOM, None],
        [None, None],
        [None, None],
    ]
    assert sent[0].count(b'"witness":"zoom"') == 1
    assert b"witness" not in sent[2], "a detector's own box is as short as ever"


def test_a_mask_follows_its_boxes_past_the_threshold() -> None:
    """The weak box stands first: the mask is cut with the boxes, not by its place."""
    sent: list[bytes] = []
    stream = open_stream(DetectionsConfig(mqtt=True), sent)
    weak_first = FOUND.take(np.array([2, 0, 1]))
    stream.offer(frame(), weak_first, merged=np.array([False, False, True]))
    message = msgspec.json.decode(sent[0], type=DetectedFrame)
    assert [(box.label, box.witness) for box in message.boxes] == [("car", None), ("person", WitnessKind.ZOOM)]


@pytest.mark.parametrize(("max_hz", "expected"), [(1.0, 10), (2.0, 20), (10.0, 100), (50.0, 100)])
def test_the_rate_binds_each_camera_alone(max_hz: float, expected: int) -> None:
    sent: list[bytes] = []
    stream = open_stream(DetectionsConfig(mqtt=True, max_hz=max_hz), sent)
    for i in range(100):
        stream.offer(frame(i / 10, "front"), FOUND)
        stream.offer(frame(i / 10 + 0.01, "back"), FOUND)
    assert len(sent) == 2 * expected


def test_lines_in_a_file_that_starts_anew_at_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "d" / "detections.jsonl"
    stream = open_stream(DetectionsConfig(file=path, file_mb=0.005, max_hz=100))
    for i in range(60):
        stream.offer(frame(i / 10), FOUND)
    stream.close()
    older = path.with_name("detections.jsonl.1").read_bytes().splitlines()
    newer = path.read_bytes().splitlines()
    last = [msgspec.json.decode(line, type=DetectedFrame).sequence for line in older + newer]
    assert last == list(range(last[0], 591, 10)), "whole lines, in order, the newest kept"
    assert path.stat().st_size < 6000
    assert stream.lost == 0


def test_a_file_that_takes_nothing_does_not_hold_up_detection(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)  # opened, and never read
    stream = open_stream(DetectionsConfig(file=pipe, file_mb=1000, max_hz=1e6))
    for i in range(WAITING_LINES + 2000):
        stream.offer(frame(i / 10), FOUND)
    assert stream.lost > 100
    os.close(reader)
    wait_until(stream._lines.empty, what="the waiting lines are lost, the thread lives")
    stream.close()


def test_a_file_that_cannot_be_opened_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(UnusableError, match="cannot write the detections to"):
        open_stream(DetectionsConfig(file=tmp_path))
