"""One more label: what was said before stays, the new one starts low, and graphs without plain rows are refused."""

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from edge.contract.card import read_card
from edge.contract.errors import UnusableError
from edge.detector.heads import centernet, yolox
from edge.detector.opening import find_starter, read_model
from hub.train.graph import TorchGraph
from hub.train.new_labels import add_label
from tests.hub.train.made_onnx import picture, run_onnx, save_onnx
from tests.hub.train.test_yolox_loss import SIZE, save_yolox

torch.set_num_threads(1)


def small_image():
    return picture(1, 3, SIZE[1], SIZE[0], low=0, high=255)


def test_the_starter_gets_a_label(tmp_path):
    starter = find_starter()
    labels = read_card(starter / "model.json").labels
    made = add_label(
        starter / "starter.onnx",
        tmp_path / "a.onnx",
        head="centernet",
        labels=labels,
        new_label="scooter",
        like="bicycle",
    )
    assert made == (*labels, "scooter")
    model = onnx.load(tmp_path / "a.onnx")
    onnx.checker.check_model(model, full_check=True)
    image = picture(1, 3, 64, 96, low=0, high=255)
    before, after = run_onnx(starter / "starter.onnx", image), run_onnx(tmp_path / "a.onnx", image)
    assert after["heatmap"].shape[1] == len(labels) + 1
    np.testing.assert_array_equal(after["heatmap"][:, :-1], before["heatmap"])
    np.testing.assert_array_equal(after["wh"], before["wh"])
    bicycle = after["heatmap"][0, labels.index("bicycle")]
    odds = bicycle / (1 - bicycle) * np.exp(-4)
    np.testing.assert_allclose(after["heatmap"][0, -1], odds / (1 + odds), rtol=1e-3, atol=1e-6)
    shapes = {port.name: (1, port.shape[1], 16, 24) for port in read_model(tmp_path / "a.onnx").graph.outputs[:2]}
    assert centernet.class_count(shapes) == len(labels) + 1


@pytest.mark.parametrize("decoded", [False, True], ids=["raw", "decoded"])
@pytest.mark.parametrize("labels", [("car",), ("car", "dog"), ("car", "dog", "cat", "cow")], ids=len)
def test_a_yolox_gets_a_label(tmp_path, decoded, labels):
    """Also where there are as many labels as rows of a box, or of the objectness."""
    path = save_yolox(tmp_path / "old.onnx", labels=len(labels), decoded_size=SIZE if decoded else None)
    made = add_label(path, tmp_path / "new.onnx", head="yolox", labels=labels, new_label="van")
    assert made == (*labels, "van")
    onnx.checker.check_model(onnx.load(tmp_path / "new.onnx"), full_check=True)
    before, after = run_onnx(path, small_image())["y"], run_onnx(tmp_path / "new.onnx", small_image())["y"]
    np.testing.assert_array_equal(after[..., :-1], before)
    assert after[..., -1].max() < 0.1
    assert read_model(tmp_path / "new.onnx").graph.outputs[0].shape[2] == 5 + len(labels) + 1
    assert yolox.class_count({"y": after.shape}) == len(labels) + 1
    assert set(TorchGraph.open(tmp_path / "new.onnx").named()) == set(TorchGraph.open(path).named())


def test_the_metadata_names_the_labels(tmp_path):
    path = save_yolox(tmp_path / "old.onnx")
    model = onnx.load(path)
    helper.set_model_props(model, {"names": "{0: 'car', 1: 'dog'}", "author": "us"})
    onnx.save(model, path)
    add_label(path, tmp_path / "new.onnx", head="yolox", labels=("car", "dog"), new_label="o'van")
    props = {entry.key: entry.value for entry in onnx.load(tmp_path / "new.onnx").metadata_props}
    assert props == {"names": "{0: 'car', 1: 'dog', 2: \"o'van\"}", "author": "us"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"new_label": "dog"}, "has the label dog already"),
        ({"like": "truck"}, "cannot be like truck: the model has car, dog"),
        ({"head": "yolo"}, "heads centernet and yolox, not to yolo"),
        ({"head": "centernet"}, "rows of the 2 labels are not found"),  # a table is no heatmap
        ({"labels": ("car", "dog", "cat")}, "rows of the 3 labels are not found"),
    ],
)
def test_what_cannot_be_added_is_refused(tmp_path, wrong, said):
    path = save_yolox(tmp_path / "old.onnx")
    asked = {"head": "yolox", "labels": ("car", "dog"), "new_label": "van", **wrong}
    with pytest.raises(UnusableError, match=said):
        add_label(path, tmp_path / "new.onnx", **asked)
    assert [file.name for file in tmp_path.iterdir()] == ["old.onnx"]


def test_rows_that_are_used_elsewhere_too_are_refused(tmp_path):
    """The weights of one level also serve another: with one more row the other would change."""
    path = save_yolox(tmp_path / "old.onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        if node.name == "cls_preds.1":
            node.input[1] = "cls_preds.0.weight"
    onnx.save(model, path)
    with pytest.raises(UnusableError, match="not found"):
        add_label(path, tmp_path / "new.onnx", head="yolox", labels=("car", "dog"), new_label="van")


def test_a_graph_that_computes_on_from_the_rows_is_refused(tmp_path):
    """Here the scores of two labels are added to the features: the graph would not run with three."""
    constants = {
        "w": picture(2, 3, 1, 1),
        "b": picture(2),
        "v": picture(2, 2, 1, 1),
        "sides": picture(4, 3, 1, 1),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["rows"]),
        helper.make_node("Conv", ["rows", "v"], ["again"]),
        helper.make_node("Add", ["rows", "again"], ["both"]),
        helper.make_node("Sigmoid", ["both"], ["heatmap"]),
        helper.make_node("Conv", ["x", "sides"], ["wh"]),
    ]
    path = save_onnx(tmp_path / "old.onnx", nodes, constants=constants, outputs=("heatmap", "wh"))
    with pytest.raises(UnusableError, match="not found"):
        add_label(path, tmp_path / "new.onnx", head="centernet", labels=("car", "dog"), new_label="van")


def test_float16_rows_stay_float16(tmp_path):
    constants = {"w": picture(2, 3, 4, 4).astype(np.float16), "b": picture(2).astype(np.float16)}
    constants["sides"] = picture(4, 3, 4, 4).astype(np.float16)
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["rows"], strides=[4, 4]),
        helper.make_node("Sigmoid", ["rows"], ["heatmap"]),
        helper.make_node("Conv", ["x", "sides"], ["wh"], strides=[4, 4]),
    ]
    path = save_onnx(
        tmp_path / "old.onnx", nodes, constants=constants, outputs=("heatmap", "wh"), element=onnx.TensorProto.FLOAT16
    )
    add_label(path, tmp_path / "new.onnx", head="centernet", labels=("car", "dog"), new_label="van")
    grown = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "new.onnx").graph.initializer
    }
    assert grown["w"].dtype == grown["b"].dtype == np.float16
    np.testing.assert_array_equal(grown["w"][:2], constants["w"])
    np.testing.assert_allclose(grown["b"][2], constants["b"].astype(np.float32).mean() - 4, rtol=1e-3)
