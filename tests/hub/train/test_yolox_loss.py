"""The loss of YOLOX: better answers cost less, what is not asked costs nothing, and a small network learns from it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from edge.contract.errors import UnusableError
from edge.detector.heads import yolox
from hub.train.graph import TorchGraph
from hub.train.lesson import Lesson
from hub.train.yolox_loss import loss
from tests.edge.detector.made_graphs import cells, yolox_decoded, yolox_raw
from tests.hub.train.made_onnx import save_onnx

torch.set_num_threads(1)
laws = settings(max_examples=25, deadline=None)

SIZE = (96, 64)
LABELS = 3
CELLS = cells(SIZE)
BOX = (24.0, 16.0, 56.0, 48.0)
TELLS_BOX = CELLS.index((16, 2, 2))  # its middle is (40, 40)


def lesson(*pictures, looked_for=None, size=SIZE) -> Lesson:
    """One picture for each list of (box, class, ignored)."""
    return Lesson(
        np.zeros((len(pictures), 3, size[1], size[0]), np.float32),
        tuple(np.array([box for box, _, _ in boxes], np.float32).reshape(-1, 4) for boxes in pictures),
        tuple(np.array([label for _, label, _ in boxes], np.int64) for boxes in pictures),
        tuple(np.array([ignored for _, _, ignored in boxes], bool) for boxes in pictures),
        np.ones((len(pictures), LABELS), bool) if looked_for is None else np.array(looked_for, bool),
    )


def answer(planted, *, raw=True) -> dict[str, torch.Tensor]:
    """A table that tells (cell, cx, cy, w, h, objectness, class, class score), and next to nothing elsewhere."""
    table = (yolox_raw if raw else yolox_decoded)(SIZE, planted, classes=LABELS)
    table[..., 4:] = np.maximum(table[..., 4:], 0.01)
    return {"output": torch.from_numpy(table)}


def paid(now, old, taught) -> dict[str, float]:
    return {name: float(part) for name, part in loss(now, old, taught, input_size=SIZE).items()}


def telling(*, objectness=0.9, score=0.9, label=0, shift=0.0, raw=True):
    x1, y1, x2, y2 = BOX
    middle = ((x1 + x2) / 2 + shift, (y1 + y2) / 2)
    return answer([(TELLS_BOX, *middle, x2 - x1, y2 - y1, objectness, label, score)], raw=raw)


@pytest.mark.parametrize("raw", [True, False], ids=["raw", "decoded"])
def test_both_exports_cost_the_same(raw):
    taught = lesson([(BOX, 0, False)])
    one, other = telling(shift=3, raw=raw), telling(shift=3)
    assert paid(one, one, taught) == pytest.approx(paid(other, other, taught), rel=1e-4)


@laws
@given(near=st.floats(0, 3), far=st.floats(0.5, 4))
def test_a_box_that_is_nearer_costs_less_place(near, far):
    """As long as the same cell is the one to tell it: further away the assignment turns to another."""
    taught = lesson([(BOX, 0, False)])
    places = [paid(telling(shift=shift), telling(), taught)["place"] for shift in (near, near + far)]
    assert places[0] < places[1]


@laws
@given(low=st.floats(0.02, 0.9), more=st.floats(0.02, 0.09))
def test_a_surer_hit_costs_less_to_find(low, more):
    taught = lesson([(BOX, 0, False)])
    for change in ("objectness", "score"):
        costs = [paid(telling(**{change: value}), telling(), taught)["find"] for value in (low, low + more)]
        assert costs[1] < costs[0]


@laws
@given(low=st.floats(0.02, 0.9), more=st.floats(0.02, 0.09))
def test_a_surer_false_alarm_costs_more(low, more):
    costs = [paid(telling(objectness=value), telling(), lesson([]))["find"] for value in (low, low + more)]
    assert costs[0] < costs[1]


def gradient(now, old, taught, part) -> np.ndarray:
    """How a part of the loss would move the table, `[cells, 5 + labels]`."""
    table = now["output"].clone().requires_grad_()
    cost = loss({"output": table}, old, taught, input_size=SIZE)[part]
    if not cost.requires_grad:
        return np.zeros(table.shape[1:])
    cost.backward()
    return table.grad[0].numpy()


def test_an_ignored_box_costs_nothing():
    """Neither does what the model says under it, nor how sure it is."""
    taught = lesson([(BOX, 0, True)])
    moved = gradient(telling(), telling(), taught, "find")
    under = [
        at
        for at, (stride, column, row) in enumerate(CELLS)
        if BOX[0] < (column + 0.5) * stride < BOX[2] and BOX[1] < (row + 0.5) * stride < BOX[3]
    ]
    assert TELLS_BOX in under
    assert not moved[under].any()
    others = np.setdiff1d(np.arange(len(CELLS)), under)
    assert (moved[others, 4] > 0).all()  # background is pushed down as always
    assert not gradient(telling(), telling(), taught, "place").any()


def test_a_box_that_lies_mostly_outside_is_ignored():
    outside = (-60.0, 16.0, 10.0, 48.0)  # a seventh of it is in the input
    assert paid(telling(), telling(), lesson([(outside, 0, False)])) == pytest.approx(
        paid(telling(), telling(), lesson([(outside, 0, True)]))
    )
    assert gradient(telling(), telling(), lesson([(outside, 0, False)]), "place").any() == np.False_


def test_a_missed_object_is_pushed_up_however_sure_the_model_is_that_nothing_is_there():
    nothing = {"output": torch.from_numpy(yolox_raw(SIZE, [], classes=LABELS))}
    nothing["output"][..., :4] = 0
    moved = gradient(nothing, nothing, lesson([(BOX, 1, False)]), "find")
    at = np.unravel_index(moved[:, 4].argmin(), (len(CELLS),))[0]
    assert moved[at, 4] < -1000  # a score of 0: through the sigmoid this is a slope of about 1
    assert moved[at, 6] < 0


def test_a_replayed_picture_pays_only_for_what_has_changed():
    taught = lesson([], looked_for=[[False] * LABELS])
    same = paid(telling(), telling(), taught)
    assert same == {"find": 0, "place": 0, "keep": pytest.approx(0, abs=1e-5)}
    assert paid(telling(objectness=0.5), telling(), taught)["keep"] > 0.05
    assert paid(telling(shift=6), telling(), taught)["keep"] > 0.05
    assert paid(telling(label=1), telling(), taught)["keep"] > 0.05


def test_an_object_of_a_label_that_was_not_looked_for_is_kept():
    """People were looked for and none is there; what the old model says of the car stays."""
    taught = lesson([], looked_for=[[True, False, False]])
    car = telling(label=1)
    find, keep = (gradient(car, car, taught, part)[TELLS_BOX] for part in ("find", "keep"))
    assert abs(find[4]) < 0.02  # nearly all of this cell is the old model's
    assert find[5] > 0.5  # that it is no person was looked for
    assert not find[6:].any()
    assert np.abs(keep).max() < 1e-3
    fainter = telling(label=1, objectness=0.5)
    assert gradient(fainter, car, taught, "keep")[TELLS_BOX, 4] < -0.05  # back to where it was
    person = telling(label=0)
    assert gradient(person, person, taught, "find")[TELLS_BOX, 4] > 0.5  # no person is there: pushed down


def test_a_label_that_was_not_looked_for_pays_keep_only():
    """A box of it, should one stand in the lesson, teaches nothing."""
    without = lesson([], looked_for=[[True, False, False]])
    with_box = lesson([(BOX, 1, False)], looked_for=[[True, False, False]])
    assert paid(telling(), telling(), without) == paid(telling(), telling(), with_box)


def test_more_boxes_than_cells_and_boxes_on_one_another_are_told():
    """Every cell tells one box; all stays finite."""
    boxes = [((x, y, x + 9, y + 9), (x + y) % LABELS, False) for x in range(0, 80, 4) for y in range(0, 50, 4)]
    parts = loss(telling(), telling(), lesson([*boxes, *boxes]), input_size=SIZE)
    assert all(torch.isfinite(part) for part in parts.values())


def test_other_layouts_are_refused():
    with pytest.raises(UnusableError, match="one output"):
        loss({"a": torch.zeros(1, 1, 6), "b": torch.zeros(1, 1, 6)}, {}, lesson([]), input_size=SIZE)
    wrong = {"a": torch.zeros(1, 100, 5 + LABELS)}
    with pytest.raises(UnusableError, match="no grid over 96x64 has 100"):
        loss(wrong, wrong, lesson([]), input_size=SIZE)


def save_yolox(path: Path, *, labels=2, width=16, decoded_size=None, seed=0) -> Path:
    """A small YOLOX: convolutions down to strides 8, 16 and 32, and the heads of the export."""
    rng = np.random.default_rng(seed)
    constants, nodes = {}, []

    def conv(name, source, *, into, out, kernel=3, stride=1, bias=0.0, spread=None):
        scale = np.sqrt(2 / (into * kernel**2)) if spread is None else spread
        constants[f"{name}.weight"] = (rng.standard_normal((out, into, kernel, kernel)) * scale).astype(np.float32)
        constants[f"{name}.bias"] = np.full(out, bias, np.float32)
        inputs = [source, f"{name}.weight", f"{name}.bias"]
        sides = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2, "pads": [kernel // 2] * 4}
        nodes.append(helper.make_node("Conv", inputs, [name], name=name, **sides))
        return name

    def node(kind, *inputs, name, **attributes):
        nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    constants["scale"] = np.float32(1 / 255)
    x, channels = node("Mul", "x", "scale", name="scaled"), 3
    tables = []
    for depth in range(1, 6):
        x = node("Relu", conv(f"stem{depth}", x, into=channels, out=width, stride=2), name=f"relu{depth}")
        channels = width
        if depth < 3:
            continue
        level = depth - 3
        seen = node("Relu", conv(f"reg{level}", x, into=width, out=width), name=f"reg_relu{level}")
        box = conv(f"reg_preds.{level}", seen, into=width, out=4, kernel=1, spread=0.01)
        objectness = conv(f"obj_preds.{level}", seen, into=width, out=1, kernel=1, bias=-2.0, spread=0.01)
        named = node("Relu", conv(f"cls{level}", x, into=width, out=width), name=f"cls_relu{level}")
        classes = conv(f"cls_preds.{level}", named, into=width, out=labels, kernel=1, bias=-2.0, spread=0.01)
        parts = [box, node("Sigmoid", objectness, name=f"o{level}"), node("Sigmoid", classes, name=f"c{level}")]
        table = node("Concat", *parts, name=f"level{level}", axis=1)
        constants[f"flat{level}"] = np.array([1, 5 + labels, -1])  # as an export for one picture fixes it
        tables.append(node("Reshape", table, f"flat{level}", name=f"table{level}"))
    joined = node("Concat", *tables, name="joined", axis=2)
    out = node("Transpose", joined, name="raw" if decoded_size else "y", perm=[0, 2, 1])
    if decoded_size:
        grid = np.array(cells(decoded_size), np.float32)
        constants |= {"grid": grid[None, :, 1:], "strides": grid[None, :, :1], "cut": np.array([2, 2, 1 + labels])}
        nodes.append(helper.make_node("Split", [out, "cut"], ["centre", "size", "scores"], axis=2))
        centre = node("Mul", node("Add", "centre", "grid", name="placed"), "strides", name="centre_px")
        size = node("Mul", node("Exp", "size", name="grown"), "strides", name="size_px")
        node("Concat", centre, size, "scores", name="y", axis=2)
    ends = [helper.make_tensor_value_info("y", 1, [1, len(cells(decoded_size)) if decoded_size else "c", 5 + labels])]
    return save_onnx(path, nodes, constants=constants, outputs=ends, image=(1, 3, "h", "w"))


@pytest.mark.parametrize("decoded", [False, True], ids=["raw", "decoded"])
def test_a_hundred_steps_teach_a_small_network_its_two_pictures(tmp_path, decoded):
    path = save_yolox(tmp_path / "small.onnx", decoded_size=SIZE if decoded else None)
    graph, old = TorchGraph.open(path), TorchGraph.open(path, trained=False)
    assert not {"grid", "strides", "scale"} & set(graph.named())
    boxes = [(8.0, 8.0, 40.0, 40.0), (52.0, 20.0, 84.0, 52.0)]
    images = np.full((2, 3, SIZE[1], SIZE[0]), 60, np.float32)
    for at, (x1, y1, x2, y2) in enumerate(boxes):
        images[at, at, int(y1) : int(y2), int(x1) : int(x2)] = 250
    taught = lesson([(boxes[0], 0, False)], [(boxes[1], 1, False)], looked_for=[[True] * 2] * 2)
    x = torch.from_numpy(images)
    optimizer = torch.optim.Adam(graph.parameters(), 3e-3)
    before = [found(graph, images[at], boxes[at], label=at) for at in range(2)]
    for _ in range(100):
        parts = loss(graph(x), old(x), taught, input_size=SIZE)
        optimizer.zero_grad()
        (parts["find"] + 5 * parts["place"] + parts["keep"]).backward()
        optimizer.step()
    after = [found(graph, images[at], boxes[at], label=at) for at in range(2)]
    assert max(score for score, _ in before) < 0.1
    assert all(score > 0.5 and iou > 0.7 for score, iou in after), after


def found(graph, image, box, *, label) -> tuple[float, float]:
    """Return score and overlap of the best detection of the label, as the device decodes it."""
    with torch.no_grad():
        table = graph(torch.from_numpy(image[None]))["y"].numpy()
    seen = yolox.decode({"y": table}, input_size=SIZE, score_threshold=0.001)
    at = int(np.flatnonzero(seen.class_id == label)[0])
    low, high = np.maximum(seen.xyxy[at, :2], box[:2]), np.minimum(seen.xyxy[at, 2:], box[2:])
    both = np.clip(high - low, 0, None).prod()
    area = (seen.xyxy[at, 2:] - seen.xyxy[at, :2]).prod() + (box[2] - box[0]) * (box[3] - box[1])
    return float(seen.score[at]), float(both / (area - both))
