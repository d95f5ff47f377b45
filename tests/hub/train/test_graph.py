"""A graph gives what ONNX Runtime gives, knows what is learned, writes the same file, and refuses what it cannot."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edge.contract.errors import UnusableError
from edge.detector.opening import find_starter
from hub.train.graph import TorchGraph
from tests.hub.train.made_onnx import picture, run_onnx, save_onnx
from tests.hub.train.test_yolox_loss import SIZE, save_yolox

torch.set_num_threads(1)

I64 = np.int64
STARTER = find_starter() / "starter.onnx"


def conv(path, *more, constants=None, weight=None, **options) -> Path:
    """Write a graph of one convolution, then more nodes, which make `y`."""
    weight = picture(3, 3, 1, 1, seed=3) if weight is None else weight
    first = helper.make_node("Conv", ["x", "w"], ["seen"] if more else ["y"], name="first")
    return save_onnx(path, [first, *more], constants={"w": weight, **(constants or {})}, **options)


def outputs_of(path, image):
    with torch.no_grad():
        return {name: value.numpy() for name, value in TorchGraph.open(path)(torch.from_numpy(image)).items()}


@pytest.mark.parametrize("size", [(64, 96), (96, 64)])
def test_the_starter_gives_what_the_runtime_gives(size):
    images = picture(3, 3, *size, low=0, high=255)
    wanted, got = run_onnx(STARTER, images), outputs_of(STARTER, images)
    assert list(got) == ["heatmap", "wh", "features"]
    for name, values in wanted.items():
        np.testing.assert_allclose(got[name], values, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("decoded", [False, True])
def test_a_file_for_one_picture_takes_a_batch(tmp_path, decoded):
    """Its reshapes fix the batch at 1; every picture of a batch gets what it gets alone."""
    path = save_yolox(tmp_path / "one.onnx", decoded_size=SIZE if decoded else None)
    images = picture(3, 3, SIZE[1], SIZE[0], low=0, high=255)
    alone = np.concatenate([run_onnx(path, image[None])["y"] for image in images])
    graph = TorchGraph.open(path)
    for count in (3, 1, 2):
        got = graph(torch.from_numpy(images[:count]))["y"].detach().numpy()
        np.testing.assert_allclose(got, alone[:count], rtol=1e-3, atol=1e-3)


def test_an_assignment_to_a_slice_is_made_in_every_picture(tmp_path):
    """As YOLOX decodes: the file holds coordinates in its only picture."""
    places = np.array([[[0, channel, row, 1] for row in range(4)] for channel in (0, 2)], I64)
    column = helper.make_node("Slice", ["seen", "zero", "two", "axis"], ["some"])
    first = helper.make_node("Slice", ["some", "zero", "one", "last"], ["one_column"])
    flat = helper.make_node("Reshape", ["one_column", "shape"], ["updates"])
    write = helper.make_node("ScatterND", ["seen", "places", "updates"], ["y"])
    constants = {"places": places[None], "shape": np.array([1, 2, 4], I64)}
    constants |= {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2])}
    constants |= {"axis": np.array([1]), "last": np.array([3])}
    path = conv(tmp_path / "a.onnx", column, first, flat, write, constants=constants, image=(1, 3, 4, 4))
    images = picture(3, 3, 4, 4)
    alone = np.concatenate([run_onnx(path, image[None])["y"] for image in images])
    np.testing.assert_allclose(outputs_of(path, images)["y"], alone, atol=1e-5)


def test_a_graph_that_mixes_pictures_is_refused(tmp_path):
    mixed = helper.make_node("Reshape", ["seen", "flat"], ["y"], name="mix")
    path = conv(tmp_path / "a.onnx", mixed, constants={"flat": np.array([2, -1], I64)}, image=(1, 3, 4, 4))
    assert outputs_of(path, picture(1, 3, 4, 4))["y"].shape == (2, 24)
    with pytest.raises(UnusableError, match="3 pictures give y"):
        outputs_of(path, picture(3, 3, 4, 4))


def test_a_size_that_the_graph_does_not_take_is_said_with_the_node(tmp_path):
    fixed = helper.make_node("Reshape", ["seen", "flat"], ["y"], name="to_rows")
    path = conv(tmp_path / "a.onnx", fixed, constants={"flat": np.array([1, 3, 16], I64)})
    assert outputs_of(path, picture(2, 3, 4, 4))["y"].shape == (2, 3, 16)
    with pytest.raises(UnusableError, match=r"does not take this input: node to_rows \(Reshape\)"):
        outputs_of(path, picture(2, 3, 4, 5))


def whole_graph(path, *, element=TensorProto.FLOAT) -> Path:
    """All that is learned and all that is not, after what real exports do."""
    kind = helper.tensor_dtype_to_np_dtype(element)
    learned = {
        "stem": picture(8, 3, 3, 3, seed=1) / 4,
        "stem_bias": picture(8, seed=2),
        "bn_scale": picture(8, seed=3),
        "bn_bias": picture(8, seed=4),
        "channel_scale": picture(8, 1, 1, seed=5),
        "channel_bias": picture(1, 8, 1, 1, seed=6),
        "slope": picture(8, 1, 1, seed=7),
        "up": picture(8, 8, 2, 2, seed=8) / 4,
        "shared": picture(8, 8, 1, 1, seed=9) / 3,
        "columns": picture(5, 8, seed=10) / 2,
        "columns_bias": picture(5, seed=11),
    }
    fixed = {
        "input_mean": picture(1, 3, 1, 1, seed=20),
        "bn_mean": picture(8, seed=21),
        "bn_variance": np.abs(picture(8, seed=22)) + 0.5,
        "least": np.array(-1.5),
        "most": np.array(2.5),
        "times": np.array([1, 1, 2, 2]),
        "half": np.array([0.5]),
        "bins": np.arange(5).reshape(5, 1),
        "strides": np.full((1, 64, 1), 8.0),
        "grid": picture(1, 64, 1, seed=23),
        "both": picture(8, 8, 1, 1, seed=24) / 3,
    }
    shapes = {"rows": np.array([1, 8, 64], I64), "swap": np.array([0, 1, 2], I64)}

    def node(kind, *inputs, to, **attributes):
        return helper.make_node(kind, list(inputs), [to], name=f"{to}_node", **attributes)

    nodes = [
        node("Sub", "x", "input_mean", to="centred"),
        node("Mul", "centred", "input_mean", to="scaled"),
        node("Conv", "scaled", "stem", "stem_bias", to="a", pads=[1, 1, 1, 1], strides=[2, 2]),
        node("BatchNormalization", "a", "bn_scale", "bn_bias", "bn_mean", "bn_variance", to="b"),
        node("Mul", "b", "channel_scale", to="c"),
        node("Add", "channel_bias", "c", to="d"),
        node("PRelu", "d", "slope", to="e"),
        node("Clip", "e", "least", "most", to="f"),
        node("ConvTranspose", "f", "up", to="g", strides=[2, 2]),
        node("Identity", "shared", to="shared_copy"),
        node("Conv", "g", "shared", to="h1"),
        node("Conv", "h1", "shared_copy", to="h2"),
        node("Resize", "f", "", "times", to="f_up", mode="nearest"),
        node("Add", "h2", "f_up", to="h3"),
        node("Conv", "h3", "both", to="h4"),
        node("ReduceMean", "both", to="both_mean", keepdims=0),  # a second use that is not a layer's
        node("Mul", "h4", "both_mean", to="h5"),
        node("Reshape", "h5", "rows", to="table"),
        node("Transpose", "table", to="table_t", perm=[0, 2, 1]),
        node("Transpose", "columns", to="columns_t", perm=[1, 0]),
        node("MatMul", "table_t", "columns_t", to="i"),
        node("Add", "i", "columns_bias", to="j"),
        node("Softmax", "j", to="k", axis=2),
        node("MatMul", "k", "bins", to="distance"),
        node("Add", "distance", "grid", to="placed"),
        node("Mul", "placed", "strides", to="pixels"),
        node("Mul", "pixels", "half", to="y"),
    ]
    constants = {name: np.asarray(value, kind) for name, value in {**learned, **fixed}.items()} | shapes
    constants["times"] = constants["times"].astype(np.float32)
    return save_onnx(
        path, nodes, constants=constants, image=(1, 3, 8, 8), element=element, metadata={"made": "here"}
    ), set(learned)


def test_only_what_layers_weigh_is_learned(tmp_path):
    path, learned = whole_graph(tmp_path / "a.onnx")
    graph = TorchGraph.open(path)
    assert set(graph.named()) == learned
    assert [id(one) for one in graph.parameters()] == [id(one) for one in graph.named().values()]
    image = picture(1, 3, 8, 8)
    out = graph(torch.from_numpy(image))["y"]
    np.testing.assert_allclose(out.detach().numpy(), run_onnx(path, image)["y"], rtol=1e-3, atol=1e-3)
    out.square().sum().backward()
    assert all(float(one.grad.abs().sum()) > 0 for one in graph.parameters())


def test_weights_in_constant_nodes_are_learned(tmp_path):
    w, b = picture(3, 3, 1, 1), picture(3)
    nodes = [
        helper.make_node("Constant", [], ["w_in_node"], value=numpy_helper.from_array(w)),
        helper.make_node("Constant", [], ["b_in_node"], value=numpy_helper.from_array(b)),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Conv", ["x", "w_in_node", "b_in_node"], ["c"]),
        helper.make_node("Mul", ["c", "half"], ["y"]),
    ]
    path = save_onnx(tmp_path / "a.onnx", nodes)
    graph = TorchGraph.open(path)
    assert set(graph.named()) == {"w_in_node", "b_in_node"}
    changed = {name: value + 1 for name, value in graph.state().items()}
    graph.load(changed)
    graph.write(tmp_path / "b.onnx")
    image = picture(1, 3, 4, 4)
    np.testing.assert_allclose(
        run_onnx(tmp_path / "b.onnx", image)["y"], outputs_of(tmp_path / "b.onnx", image)["y"], 1e-3
    )
    assert TorchGraph.open(tmp_path / "b.onnx").state().keys() == changed.keys()


@pytest.mark.parametrize("element", [TensorProto.FLOAT, TensorProto.FLOAT16], ids=["float32", "float16"])
def test_what_is_written_differs_in_the_learned_constants_only(tmp_path, element):
    path, learned = whole_graph(tmp_path / "a.onnx", element=element)
    graph = TorchGraph.open(path)
    graph.write(tmp_path / "same.onnx")
    assert onnx.load(tmp_path / "same.onnx") == onnx.load(path)
    graph.load({name: array * 1.03 for name, array in graph.state().items()})
    graph.write(tmp_path / "b.onnx")
    before, after = onnx.load(path), onnx.load(tmp_path / "b.onnx")
    onnx.checker.check_model(after, full_check=True)
    pairs = list(zip(before.graph.initializer, after.graph.initializer, strict=True))
    assert {old.name for old, new in pairs if old != new} == learned
    for old, new in pairs:
        assert (old.name, old.data_type, list(old.dims)) == (new.name, new.data_type, list(new.dims))
        new.CopyFrom(old)
    assert before == after
    image = picture(1, 3, 8, 8)
    now = graph(torch.from_numpy(image))["y"].detach().numpy()
    tolerance = {"rtol": 1e-3, "atol": 1e-3} if element == TensorProto.FLOAT else {"rtol": 0.02, "atol": 0.1}
    as_stored = image.astype(helper.tensor_dtype_to_np_dtype(element))
    np.testing.assert_allclose(run_onnx(tmp_path / "b.onnx", as_stored)["y"], now, **tolerance)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.onnx", "b.onnx", "same.onnx"]


def test_constants_that_are_written_as_numbers_are_replaced_too(tmp_path):
    """An exporter may list floats instead of raw bytes."""
    path = conv(tmp_path / "a.onnx")
    model = onnx.load(path)
    values = numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, values.shape, values.ravel()))
    onnx.save(model, path)
    graph = TorchGraph.open(path)
    graph.load({"w": values * 2})
    graph.write(tmp_path / "b.onnx")
    np.testing.assert_array_equal(TorchGraph.open(tmp_path / "b.onnx").state()["w"], values * 2)


def test_states_are_copies(tmp_path):
    graph = TorchGraph.open(conv(tmp_path / "a.onnx"))
    state = graph.state()
    before = state["w"].copy()
    with torch.no_grad():
        graph.named()["w"].add_(1)
    np.testing.assert_array_equal(state["w"], before)
    graph.load(state)
    np.testing.assert_array_equal(graph.state()["w"], before)
    for wrong in ({}, {"w": before[:1]}, {"v": before}, {**state, "v": before}):
        with pytest.raises(UnusableError, match="not those of"):
            graph.load(wrong)


def test_the_old_model_takes_no_gradient(tmp_path):
    path = conv(tmp_path / "a.onnx")
    x = torch.from_numpy(picture(1, 3, 4, 4))
    assert not TorchGraph.open(path, trained=False)(x)["y"].requires_grad
    graph = TorchGraph.open(path)
    assert graph(x)["y"].requires_grad
    with torch.no_grad():
        assert not graph(x)["y"].requires_grad


def test_weights_that_are_not_finite_are_not_written(tmp_path):
    graph = TorchGraph.open(conv(tmp_path / "a.onnx"))
    graph.load({"w": np.full((3, 3, 1, 1), np.nan, np.float32)})
    with pytest.raises(UnusableError, match="w is not finite; nothing is written"):
        graph.write(tmp_path / "b.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["a.onnx"]


def test_a_folder_that_is_not_there_is_said(tmp_path):
    graph = TorchGraph.open(conv(tmp_path / "a.onnx"))
    with pytest.raises(UnusableError, match="cannot write"):
        graph.write(tmp_path / "nowhere" / "b.onnx")


def node(kind, *inputs, **attributes):
    return helper.make_node(kind, list(inputs), ["y"], name="late", **attributes)


def branch() -> onnx.GraphProto:
    ends = [onnx.ValueInfoProto(name="z")]
    return helper.make_graph([helper.make_node("Identity", ["seen"], ["z"])], "branch", [], ends)


@pytest.mark.parametrize(
    ("made", "constants", "said"),
    [
        (
            node("NonMaxSuppression", "seen", "w"),
            {},
            r"node late \(NonMaxSuppression\): the operator NonMaxSuppression",
        ),
        (node("NotAnOperator", "seen"), {}, "NotAnOperator"),
        (node("FusedConv", "seen", "w", domain="com.microsoft"), {}, "FusedConv of com.microsoft"),
        (node("DequantizeLinear", "seen", "s"), {"s": np.float32(1)}, r"late \(DequantizeLinear\).*train the float32"),
        (node("QLinearConv", *["seen"] * 8), {}, r"late \(QLinearConv\).*quantized; train the float32 file"),
        (node("QLinearAdd", *["seen"] * 8, domain="com.microsoft"), {}, "train the float32 file"),
        (node("If", "flag", then_branch=branch(), else_branch=branch()), {"flag": np.array(1, bool)}, "control flow"),
    ],
)
def test_what_cannot_be_trained_through_is_named_when_the_file_is_opened(tmp_path, made, constants, said):
    first = helper.make_node("Conv", ["x", "w"], ["seen"])
    constants = {"w": picture(3, 3, 1, 1), **constants}
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    ports = [[helper.make_tensor_value_info(name, 1, None)] for name in ("x", "y")]
    graph = helper.make_graph([first, made], "made", *ports, tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "a.onnx")
    with pytest.raises(UnusableError, match=said):
        TorchGraph.open(tmp_path / "a.onnx")


def test_a_second_output_that_is_used_is_refused(tmp_path):
    pool = helper.make_node("MaxPool", ["seen"], ["y", "places"], name="pool", kernel_shape=[2, 2])
    assert TorchGraph.open(conv(tmp_path / "a.onnx", pool))
    path = conv(tmp_path / "b.onnx", pool, outputs=("y", helper.make_tensor_value_info("places", 7, None)))
    with pytest.raises(UnusableError, match=r"pool .*only its first output"):
        TorchGraph.open(path)


def change(path, alter) -> Path:
    model = onnx.load(path)
    alter(model)
    onnx.save(model, path)
    return path


def test_files_that_are_not_whole_float_graphs_are_refused(tmp_path):
    old = change(conv(tmp_path / "old.onnx"), lambda model: setattr(model.opset_import[0], "version", 6))
    with pytest.raises(UnusableError, match="opset 6"):
        TorchGraph.open(old)
    element = conv(tmp_path / "element.onnx")
    change(
        element, lambda model: model.graph.initializer.append(helper.make_tensor("q", TensorProto.BFLOAT16, [1], [1.0]))
    )
    with pytest.raises(UnusableError, match="constant q is BFLOAT16"):
        TorchGraph.open(element)
    second = helper.make_tensor_value_info("sizes", 7, [1, 2])
    two = change(conv(tmp_path / "two.onnx"), lambda model: model.graph.input.append(second))
    with pytest.raises(UnusableError, match="takes x and sizes"):
        TorchGraph.open(two)
    relu = save_onnx(tmp_path / "relu.onnx", [helper.make_node("Relu", ["x"], ["y"])])
    with pytest.raises(UnusableError, match="no weights"):
        TorchGraph.open(relu)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(STARTER.read_bytes()[:10_000])
    with pytest.raises(UnusableError, match="not an ONNX model, or it is cut short"):
        TorchGraph.open(cut)
    with pytest.raises(UnusableError, match="cannot read"):
        TorchGraph.open(tmp_path / "nothing.onnx")


def test_weights_that_belong_beside_the_file(tmp_path):
    """They are read, and named when they are missing; what is written holds them."""
    path = conv(tmp_path / "a.onnx", weight=picture(64, 3, 3, 3))
    wanted = TorchGraph.open(path).state()["w"]
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="a.weights", size_threshold=0)
    graph = TorchGraph.open(path)
    np.testing.assert_array_equal(graph.state()["w"], wanted)
    graph.write(tmp_path / "b.onnx")
    (tmp_path / "a.weights").unlink()
    np.testing.assert_array_equal(TorchGraph.open(tmp_path / "b.onnx").state()["w"], wanted)
    with pytest.raises(UnusableError, match="cannot read"):
        TorchGraph.open(path)
