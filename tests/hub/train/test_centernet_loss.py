import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from edge.detector.heads import centernet
from hub.train.centernet_loss import loss, pooled
from hub.train.lesson import Lesson

torch.set_num_threads(1)

SIZE = (96, 64)  # width, height
STRIDE, CLASSES = 4, 3
ROWS, COLUMNS = SIZE[1] // STRIDE, SIZE[0] // STRIDE


def lesson_of(boxes, classes=None, *, ignored=None, looked_for=(0, 1, 2)):
    """One picture."""
    n = len(boxes)
    known = np.zeros((1, CLASSES), bool)
    known[0, list(looked_for)] = True
    return Lesson(
        np.zeros((1, 3, SIZE[1], SIZE[0]), np.float32),
        (np.array(boxes, np.float32).reshape(-1, 4),),
        (np.array(classes if classes is not None else [0] * n, np.int64),),
        (np.array(ignored if ignored is not None else [False] * n, bool),),
        known,
    )


def maps(score=0.02, side=8.0, *, grid=(ROWS, COLUMNS)):
    heatmap = torch.full((1, CLASSES, *grid), score, requires_grad=True)
    return {"heatmap": heatmap, "wh": torch.full((1, 4, *grid), side, requires_grad=True)}


def gradients(outputs, part):
    part.backward()
    return {name: np.zeros(one.shape) if one.grad is None else one.grad.numpy() for name, one in outputs.items()}


def parts_of(outputs, old, lesson):
    return loss(outputs, {name: one.detach() for name, one in old.items()}, lesson, input_size=SIZE)


def test_what_it_pays_for_least_is_decoded_as_the_boxes_of_the_lesson():
    boxes = [(8, 8, 40, 56), (30, 20, 44, 40), (50, 6, 58, 30), (60, 40, 90, 60)]
    classes = [0, 0, 2, 1]
    lesson = lesson_of(boxes, classes)
    logits = torch.full((1, CLASSES, ROWS, COLUMNS), -3.0, requires_grad=True)
    sides = torch.full((1, 4, ROWS, COLUMNS), 10.0, requires_grad=True)
    optimizer = torch.optim.Adam([{"params": [logits], "lr": 0.2}, {"params": [sides], "lr": 0.5}])
    for _ in range(250):
        outputs = {"heatmap": logits.sigmoid(), "wh": sides}
        parts = parts_of(outputs, outputs, lesson)
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
    told = {name: one.detach().numpy() for name, one in outputs.items()}
    found = centernet.decode(told, input_size=SIZE, score_threshold=0.5)
    assert sorted(found.class_id.tolist()) == sorted(classes)
    for box, class_id in zip(boxes, classes, strict=True):
        apart = np.abs(found.xyxy[found.class_id == class_id] - box).max(axis=1)
        assert apart.min() < 0.6


def test_the_middle_is_in_the_cell_that_holds_it():
    outputs = maps()
    slope = gradients(outputs, parts_of(outputs, outputs, lesson_of([(3, 3, 20, 12)]))["find"])["heatmap"]
    row, column = np.argwhere(slope[0, 0] < 0)[0]
    assert (row, column) == (1, 2)  # the middle is (11.5, 7.5), of cells of 4 pixels
    assert (slope < 0).sum() == 1


@pytest.mark.parametrize(
    ("boxes", "ignored", "middles"),
    [
        ([(10, 10, 30, 50)], [False], 1),
        ([(10, 10, 30, 50)], [True], 0),  # uncertain
        ([(-60, 10, 30, 50)], [False], 0),  # a third of it is in the picture
        ([(-6, 10, 30, 50)], [False], 1),  # most of it is
        ([(10, 10, 11, 50)], [False], 0),  # too thin to be seen
        ([(100, 10, 120, 50)], [False], 0),  # outside
        ([(10, 10, 30, 50), (12, 12, 28, 48)], [True, False], 1),  # a sure one within an uncertain one
        ([], [], 0),
    ],
)
def test_what_is_neither_an_object_nor_background_costs_nothing(boxes, ignored, middles):
    outputs = maps()
    parts = parts_of(outputs, outputs, lesson_of(boxes, ignored=ignored))
    assert all(torch.isfinite(part) for part in parts.values())
    slope = gradients(outputs, parts["find"])["heatmap"][0, 0]
    assert (slope < 0).sum() == middles
    for box, uncertain in zip(boxes, ignored, strict=True):
        if uncertain and middles == 0:
            x1, y1, x2, y2 = (side // STRIDE for side in box)
            assert (slope[y1 : y2 + 1, x1 : x2 + 1] == 0).all()
            assert (slope[: y1 - 1] > 0).all()


def test_a_label_pays_either_for_what_was_looked_for_or_for_leaving_the_old_word():
    torch.manual_seed(0)
    old = {"heatmap": torch.rand(1, CLASSES, ROWS, COLUMNS), "wh": torch.rand(1, 4, ROWS, COLUMNS) * 20}
    lesson = lesson_of([(10, 10, 40, 40), (50, 10, 80, 40)], [0, 2], looked_for=(0, 1))
    outputs = maps(0.3)
    found = gradients(outputs, parts_of(outputs, old, lesson)["find"])["heatmap"][0]
    assert (found[2] == 0).all()
    assert (found[1] > 0).all()
    outputs = maps(0.3)
    kept = gradients(outputs, parts_of(outputs, old, lesson)["keep"])["heatmap"][0]
    assert (kept[:2] == 0).all()
    assert (kept[2] != 0).any()


def test_the_old_word_costs_nothing():
    torch.manual_seed(1)
    old = {"heatmap": torch.rand(1, CLASSES, ROWS, COLUMNS), "wh": torch.rand(1, 4, ROWS, COLUMNS) * 20 + 1}
    parts = parts_of(old, old, lesson_of([], looked_for=()))
    assert parts["keep"].item() == pytest.approx(0, abs=1e-5)
    assert parts["find"].item() == parts["place"].item() == 0


@settings(max_examples=40, deadline=None)
@given(
    row=st.integers(0, 2 * ROWS - 1),
    column=st.integers(0, 2 * COLUMNS - 1),
    sides=st.tuples(*[st.floats(1, 60)] * 4),
    class_id=st.integers(0, CLASSES - 1),
)
def test_a_look_at_twice_the_size_tells_the_same_box(row, column, sides, class_id):
    heatmap = torch.full((1, CLASSES, 2 * ROWS, 2 * COLUMNS), 0.01)
    heatmap[0, class_id, row, column] = 0.9
    wh = torch.full((1, 4, 2 * ROWS, 2 * COLUMNS), 3.0)
    wh[0, :, row, column] = torch.tensor(sides)
    closer = {"heatmap": heatmap, "wh": wh}
    of_closer, of_pooled = (
        centernet.decode({name: one.numpy() for name, one in maps.items()}, input_size=size, score_threshold=0.5)
        for maps, size in ((closer, (2 * SIZE[0], 2 * SIZE[1])), (pooled(closer, SIZE), SIZE))
    )
    assert of_pooled.class_id.tolist() == of_closer.class_id.tolist() == [class_id]
    assert np.allclose(of_pooled.xyxy * 2, of_closer.xyxy, atol=1e-3)


def test_maps_of_other_names_are_told_apart_by_their_channels():
    outputs = maps()
    named = {"a": outputs["wh"], "b": outputs["heatmap"]}
    lesson = lesson_of([(10, 10, 40, 40)])
    told, expected = parts_of(named, named, lesson), parts_of(outputs, outputs, lesson)
    assert {name: part.item() for name, part in told.items()} == {name: part.item() for name, part in expected.items()}


def test_outputs_of_another_head_are_refused():
    with pytest.raises(UnusableError, match="centernet decodes"):
        loss({"a": torch.zeros(1, 100, 85)}, {}, lesson_of([]), input_size=SIZE)
