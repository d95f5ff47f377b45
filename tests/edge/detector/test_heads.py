"""Heads: planted outputs in each documented layout come back as the boxes that were planted."""

import numpy as np
import pytest

from edge.contract.errors import UnusableError
from edge.detector.heads import HEADS, recognise
from edge.detector.heads.head import MAX_BOXES
from tests.edge.detector.made_graphs import (
    CAR,
    DOG,
    centernet_maps,
    detr_raw,
    yolo_cells,
    yolo_finished,
    yolox_decoded,
    yolox_raw,
)

SIZE = (96, 64)
CELLS = 96 + 24 + 6

# a car of score .8 over (10, 12) to (40, 32), and a dog of score .5 over (60, 20) to (80, 60)
CAR_BOX, DOG_BOX = [10, 12, 40, 32], [60, 20, 80, 60]
YOLOX_BOXES = [(17, 25, 22, 30, 20, 0.9, CAR, 0.8 / 0.9), (100, 70, 40, 20, 40, 0.5, DOG, 1.0)]
YOLO_BOXES = [(17, 25, 22, 30, 20, CAR, 0.8), (100, 70, 40, 20, 40, DOG, 0.5)]
# the cells (6, 5) and (17, 10) lie at (24, 20) and (68, 40)
CENTERNET_BOXES = [(6, 5, CAR, 0.8, 14, 8, 16, 12), (17, 10, DOG, 0.5, 8, 20, 12, 20)]
DETR_BOXES = [(3, CAR, 0.8, 25 / 96, 22 / 64, 30 / 96, 20 / 64), (11, DOG, 0.5, 70 / 96, 40 / 64, 20 / 96, 40 / 64)]
FINISHED_DETR = {
    "labels": np.array([[CAR, DOG, 0]], np.int64),
    "boxes": np.array([[CAR_BOX, DOG_BOX, [0, 0, 1, 1]]], np.float32),
    "scores": np.array([[0.8, 0.5, 0.01]], np.float32),
}


def ultralytics_rtdetr() -> np.ndarray:
    raw = detr_raw(DETR_BOXES)
    return np.concatenate([raw["pred_boxes"], 1 / (1 + np.exp(-raw["logits"]))], axis=2).astype(np.float32)


LAYOUTS = [
    pytest.param("centernet", centernet_maps(SIZE, CENTERNET_BOXES), id="centernet"),
    pytest.param("yolox", {"output": yolox_raw(SIZE, YOLOX_BOXES)}, id="yolox-raw"),
    pytest.param("yolox", {"output": yolox_decoded(SIZE, YOLOX_BOXES)}, id="yolox-decoded"),
    pytest.param("yolo", {"output0": yolo_cells(SIZE, YOLO_BOXES)}, id="yolo"),
    pytest.param("yolo", {"output0": yolo_finished([(*CAR_BOX, 0.8, CAR), (*DOG_BOX, 0.5, DOG)])}, id="yolo-with-nms"),
    pytest.param("detr", detr_raw(DETR_BOXES), id="detr-raw"),
    pytest.param("detr", FINISHED_DETR, id="detr-finished"),
    pytest.param("detr", {"output0": ultralytics_rtdetr()}, id="detr-ultralytics"),
]


def shapes(outputs):
    return {name: array.shape for name, array in outputs.items()}


@pytest.mark.parametrize(("name", "outputs"), LAYOUTS)
def test_a_layout_is_recognised_and_decoded(name, outputs):
    head = recognise(shapes(outputs), input_size=SIZE)
    assert name == head.NAME
    assert head.class_count(shapes(outputs)) in {4, None}
    found = head.decode(outputs, input_size=SIZE, score_threshold=0.3)
    assert found.score.tolist() == pytest.approx([0.8, 0.5], abs=1e-5)
    assert found.class_id.tolist() == [CAR, DOG]
    assert np.allclose(found.xyxy, [CAR_BOX, DOG_BOX], atol=1e-3)


@pytest.mark.parametrize(("name", "outputs"), LAYOUTS)
def test_the_threshold_is_kept(name, outputs):
    head = HEADS[name]
    assert len(head.decode(outputs, input_size=SIZE, score_threshold=0.6)) == 1
    assert len(head.decode(outputs, input_size=SIZE, score_threshold=0.9)) == 0


SHAPES = [
    # Ultralytics at 640: rows are classes, columns are cells
    ({"output0": (1, 84, 8400)}, (640, 640), "yolo"),
    # the same, with the finer grid of a P2 model
    ({"output0": (1, 84, 34000)}, (640, 640), "yolo"),
    # v10 and built-in NMS
    ({"output0": (1, 300, 6)}, (640, 640), "yolo"),
    # YOLOX: rows are cells
    ({"output": (1, 8400, 85)}, (640, 640), "yolox"),
    # YOLOX of one class has six columns too, but a row for each cell
    ({"output": (1, 3549, 6)}, (416, 416), "yolox"),
    # not only squares
    ({"output": (1, 1260, 85)}, (320, 192), "yolox"),
    # D-FINE from Hugging Face
    ({"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}, (640, 640), "detr"),
    # RF-DETR's names
    ({"dets": (1, 300, 4), "labels": (1, 300, 91)}, (560, 560), "detr"),
    # four classes: the name says which are the boxes
    ({"logits": (1, 300, 4), "pred_boxes": (1, 300, 4)}, (640, 640), "detr"),
    # the starter
    ({"heatmap": (1, 80, 48, 80), "wh": (1, 4, 48, 80)}, (320, 192), "centernet"),
    # its maps under other names
    ({"a": (1, 4, 80, 80), "b": (1, 80, 80, 80)}, (320, 320), "centernet"),
    # four classes under the known names
    ({"wh": (1, 4, 80, 80), "heatmap": (1, 4, 80, 80)}, (320, 320), "centernet"),
]


@pytest.mark.parametrize(("outputs", "size", "name"), SHAPES)
def test_recognise(outputs, size, name):
    assert name == recognise(outputs, input_size=size).NAME


STRANGE = [
    # a classifier
    ({"probabilities": (1, 1000)}, (224, 224)),
    # YOLOv5: three anchors a cell
    ({"output": (1, 25200, 85)}, (640, 640)),
    # nothing but features
    ({}, (320, 320)),
    # SSD: boxes and scores of different lengths
    ({"scores": (1, 3000, 21), "boxes": (1, 2990, 4)}, (300, 300)),
    # two maps that could both be the heatmap
    ({"a": (1, 4, 80, 80), "b": (1, 4, 80, 80)}, (320, 320)),
    # an output for another input size
    ({"output": (1, 8400, 85)}, (320, 320)),
    # a batch of two
    ({"output0": (2, 84, 8400)}, (640, 640)),
]


@pytest.mark.parametrize(("outputs", "size"), STRANGE)
def test_what_no_head_knows_is_refused_with_what_was_seen(outputs, size):
    with pytest.raises(UnusableError, match="fit no head") as refused:
        recognise(outputs, input_size=size)
    for expected in (*outputs, *HEADS, "model.json"):
        assert expected in str(refused.value)


def test_what_two_heads_know_is_refused():
    # 84 rows are the cells of a 64x64 input, 84 columns as well
    with pytest.raises(UnusableError, match="yolox and yolo"):
        recognise({"output": (1, 84, 84)}, input_size=(64, 64))


WRONG = [
    ("centernet", {"output0": (1, 84, 8400)}),
    ("yolox", {"logits": (1, 300, 80), "pred_boxes": (1, 300, 4)}),
    ("yolo", {"heatmap": (1, 80, 80, 80), "wh": (1, 4, 80, 80)}),
    ("detr", {"heatmap": (1, 80, 80, 80), "wh": (1, 4, 80, 80)}),
]


@pytest.mark.parametrize(("name", "outputs"), WRONG)
def test_a_head_refuses_what_is_not_its_layout(name, outputs):
    with pytest.raises(UnusableError, match=f"the head {name} decodes"):
        HEADS[name].class_count(outputs)


def test_a_yolox_named_for_the_wrong_size_is_refused():
    with pytest.raises(UnusableError, match="no grid over 96x96 has 126 cells"):
        HEADS["yolox"].decode({"o": yolox_raw(SIZE, YOLOX_BOXES)}, input_size=(96, 96), score_threshold=0.3)


def test_overlapping_boxes_of_one_class_become_one():
    crowd = [(17, 25, 22, 30, 20, CAR, 0.8), (18, 26, 22, 30, 20, CAR, 0.7), (19, 25, 22, 30, 20, DOG, 0.6)]
    found = HEADS["yolo"].decode({"o": yolo_cells(SIZE, crowd)}, input_size=SIZE, score_threshold=0.1)
    assert found.score.tolist() == pytest.approx([0.8, 0.6])


PEAKS = [
    # a neighbour that is higher hides a cell, at the diagonal too
    ([(6, 5, 0.8), (7, 6, 0.7)], [0.8]),
    # two cells away does not
    ([(6, 5, 0.8), (8, 5, 0.7)], [0.8, 0.7]),
    # equal neighbours are both peaks, as in a 3x3 maximum
    ([(6, 5, 0.8), (7, 5, 0.8)], [0.8, 0.8]),
    # the last column and the next row's first are no neighbours
    ([(23, 5, 0.8), (0, 6, 0.7)], [0.8, 0.7]),
    # nor are the last row and the first
    ([(3, 15, 0.8), (3, 0, 0.7)], [0.8, 0.7]),
    # corners
    ([(0, 0, 0.8), (23, 15, 0.7)], [0.8, 0.7]),
]


@pytest.mark.parametrize(("planted", "scores"), PEAKS)
def test_centernet_peaks(planted, scores):
    maps = centernet_maps(SIZE, [(column, row, CAR, score, 4, 4, 4, 4) for column, row, score in planted])
    found = HEADS["centernet"].decode(maps, input_size=SIZE, score_threshold=0.3)
    assert found.score.tolist() == pytest.approx(scores)


def test_centernet_classes_do_not_hide_each_other():
    maps = centernet_maps(SIZE, [(6, 5, CAR, 0.8, 4, 4, 4, 4), (7, 5, DOG, 0.7, 4, 4, 4, 4)])
    assert len(HEADS["centernet"].decode(maps, input_size=SIZE, score_threshold=0.3)) == 2


def test_at_most_the_best_boxes_are_given():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1, (1, 500, 4)).astype(np.float32)
    found = HEADS["detr"].decode(
        {"logits": logits, "boxes": np.full((1, 500, 4), 0.5, np.float32)}, input_size=SIZE, score_threshold=0.0
    )
    assert len(found) == MAX_BOXES
    assert np.allclose(found.score, 1 / (1 + np.exp(-np.sort(logits.ravel())[::-1][:MAX_BOXES])))


BREAKING = [
    # each head, and where in its outputs a NaN stands for a score
    ("centernet", centernet_maps(SIZE, CENTERNET_BOXES), ("heatmap", (0, 0, 3, 3))),
    ("yolox", {"o": yolox_decoded(SIZE, YOLOX_BOXES)}, ("o", (0, 5, 4))),
    ("yolox", {"o": yolox_raw(SIZE, YOLOX_BOXES)}, ("o", (0, 5, 4))),
    ("yolo", {"o": yolo_cells(SIZE, YOLO_BOXES)}, ("o", (0, 5, 5))),
    ("yolo", {"o": yolo_finished([(*CAR_BOX, 0.8, CAR), (*DOG_BOX, 0.5, DOG)])}, ("o", (0, 5, 4))),
    ("detr", detr_raw(DETR_BOXES), ("logits", (0, 7, 1))),
]


@pytest.mark.parametrize(("name", "outputs", "place"), BREAKING)
def test_a_score_that_is_no_number_is_shown_first(name, outputs, place):
    outputs = {key: array.copy() for key, array in outputs.items()}
    outputs[place[0]][place[1]] = np.nan
    found = HEADS[name].decode(outputs, input_size=SIZE, score_threshold=0.3)
    assert np.isnan(found.score[0])
    assert found.score[1:].tolist() == pytest.approx([0.8, 0.5], abs=1e-5)
