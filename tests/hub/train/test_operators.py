"""Every operator gives what ONNX Runtime gives, in all the ways that files ask for it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from edge.contract.errors import UnusableError
from hub.train.graph import TorchGraph
from hub.train.operators import OPERATORS
from tests.hub.train.made_onnx import compare, ints, one, picture, save_onnx, weights

torch.set_num_threads(1)

HIGH = 1 << 40  # "to the end", as exporters write it
I64 = np.int64


SMOOTH = [
    *[("Abs", {}), ("Ceil", {}), ("Cos", {}), ("Elu", {"alpha": 0.7}), ("Erf", {}), ("Exp", {}), ("Floor", {})],
    *[("HardSigmoid", {}), ("HardSigmoid", {"alpha": 0.1667, "beta": 0.5}), ("HardSwish", {}), ("Identity", {})],
    *[("LeakyRelu", {}), ("LeakyRelu", {"alpha": 0.1}), ("LogSoftmax", {"axis": 1}), ("Neg", {}), ("Reciprocal", {})],
    *[("Relu", {}), ("Round", {}), ("Selu", {}), ("Sigmoid", {}), ("Sign", {}), ("Sin", {}), ("Softmax", {})],
    *[("Softmax", {"axis": 1}), ("Softplus", {}), ("Softsign", {}), ("Tan", {}), ("Tanh", {}), ("Dropout", {})],
    *[("GlobalAveragePool", {}), ("GlobalMaxPool", {}), ("Flatten", {}), ("Flatten", {"axis": 2})],
    *[("Flatten", {"axis": -1}), ("Flatten", {"axis": 0}), ("Transpose", {}), ("Transpose", {"perm": [0, 2, 3, 1]})],
    *[("Clip", {}), ("DepthToSpace", {"blocksize": 2}), ("DepthToSpace", {"blocksize": 2, "mode": "CRD"})],
    *[("ArgMax", {"axis": 1}), ("ArgMin", {"axis": 2, "keepdims": 0}), ("ArgMax", {"axis": 1, "select_last_index": 1})],
]


@pytest.mark.parametrize(("kind", "attributes"), SMOOTH)
def test_operators_of_one_value(kind, attributes):
    batch = 1 if kind in {"Flatten", "Transpose"} else 2  # these move the batch
    one(kind, shape=(batch, 4, 7, 6), **attributes)


@pytest.mark.parametrize(
    ("kind", "attributes", "opset"),
    [
        ("Mish", {}, 18),
        ("Gelu", {}, 20),
        ("Gelu", {"approximate": "tanh"}, 20),
        ("Softmax", {"axis": 1}, 12),  # normalises over all dimensions from the axis on
        ("Softmax", {}, 11),
        ("Clip", {"min": -0.5, "max": 0.5}, 10),
        ("Clip", {"max": 0.5}, 7),
        ("ReduceMean", {"axes": [2, 3]}, 13),
        ("ReduceSum", {"axes": [1], "keepdims": 0}, 12),
        ("Slice", {"starts": [1, 0], "ends": [HIGH, -1], "axes": [2, 3]}, 9),
        ("Split", {"axis": 1, "split": [1, 3]}, 11),
        ("Unsqueeze", {"axes": [0, -1]}, 12),
        ("Pad", {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 0.5}, 10),
        ("Upsample", {"scales": [1.0, 1.0, 2.0, 2.0], "mode": "nearest"}, 8),
        ("Flatten", {}, 9),
        ("Dropout", {"ratio": 0.3}, 10),
        ("BatchNormalization", {"epsilon": 1e-3}, 9),
        ("BatchNormalization", {"epsilon": 1e-3}, 15),
    ],
)
def test_operators_of_other_opsets(kind, attributes, opset):
    figures = [weights(4), weights(4, seed=2), weights(4, seed=3), np.abs(weights(4, seed=4)) + 0.1]
    after = ("y_0", "y_1") if kind == "Split" else ("y",)
    figures = figures if kind == "BatchNormalization" else []
    one(kind, *figures, opset=opset, after=after, shape=(1 if kind == "Unsqueeze" else 2, 4, 7, 6), **attributes)


def test_roots_and_logarithms_of_what_has_them():
    one("Sqrt", low=0.1)
    one("Log", low=0.1)
    one("Pow", np.float32(2))
    one("Pow", np.float32(0.5), low=0.1)
    one("Pow", weights(4, 1, 1), low=0.1)


@pytest.mark.parametrize("kind", ["Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean", "PRelu"])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 7, 6), (1,), ()])
def test_operators_of_two_values_broadcast(kind, shape):
    if kind == "PRelu" and shape == ():
        shape = (1, 1)
    one(kind, weights(*shape) + 2)
    if kind != "PRelu":
        one(kind, weights(*shape), first=1, low=0.5)  # the constant first


@pytest.mark.parametrize("kind", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod"])
def test_comparisons_choose(kind):
    if kind == "Mod":
        one(kind, np.float32(0.7), fmod=1)
        return
    nodes = [
        helper.make_node("Round", ["seen"], ["whole"]),
        helper.make_node(kind, ["whole", "zero"], ["is"]),
        helper.make_node("Not", ["is"], ["not"]),
        helper.make_node("And", ["is", "is"], ["both"]),
        helper.make_node("Or", ["not", "both"], ["any"]),
        helper.make_node("Xor", ["any", "not"], ["other"]),
        helper.make_node("Where", ["is", "seen", "zero"], ["chosen"]),
        helper.make_node("Where", ["other", "chosen", "seen"], ["y"]),
    ]
    compare(nodes, {"zero": np.float32(0)}, picture(2, 3, 4, 5))


SHAPES = {
    "reshape keeps and takes": ("Reshape", [ints(0, -1, 6)], {}),
    "reshape to the batch of the file": ("Reshape", [ints(2, 28, 6)], {}),
    "squeeze": ("Squeeze", [ints(2)], {"shape": (2, 4, 1, 6)}),
    "squeeze all": ("Squeeze", [], {"shape": (2, 4, 1, 1)}),
    "unsqueeze": ("Unsqueeze", [ints(-1, 0)], {"shape": (1, 4, 7, 6)}),
    "slice to the end": ("Slice", [ints(1, 2), ints(HIGH, -1), ints(2, -1)], {}),
    "slice with steps (focus)": ("Slice", [ints(1, 0), ints(HIGH, HIGH), ints(2, 3), ints(2, 2)], {}),
    "slice backwards": ("Slice", [ints(-1), ints(-HIGH), ints(3), ints(-1)], {}),
    "slice backwards by two": ("Slice", [ints(5), ints(0), ints(3), ints(-2)], {}),
    "slice beyond": ("Slice", [ints(3), ints(2), ints(3)], {}),
    "gather one": ("Gather", [np.array(1, I64)], {"axis": 1}),
    "gather some, from behind": ("Gather", [ints(-1, 0, 2)], {"axis": 1}),
    "gather a table": ("Gather", [np.array([[0, 1], [2, 3]], I64)], {"axis": 3}),
    "gather elements": ("GatherElements", [np.zeros((2, 4, 7, 2), I64) - 1], {"axis": 3}),
    "gather nd": ("GatherND", [np.array([[0, 1], [1, 3]], I64)], {}),
    "gather nd in batches": ("GatherND", [np.array([[[1]], [[3]]], I64)], {"batch_dims": 1}),
    "scatter": ("ScatterND", [np.array([[0, 1, 2], [1, 0, 0]], I64), weights(2, 6)], {}),
    "expand": ("Expand", [ints(1, 4, 7, 1)], {"shape": (2, 4, 1, 6)}),
    "expand ranks": ("Expand", [ints(3, 1, 1, 1, 1)], {"shape": (1, 4, 7, 6)}),
    "tile": ("Tile", [ints(1, 2, 1, 3)], {}),
    "pad": ("Pad", [ints(0, 0, 1, 2, 0, 0, 3, 0), np.float32(0.3)], {}),
    "pad away": ("Pad", [ints(0, 0, -1, 2, 0, 0, 0, -2)], {}),
    "pad like a mirror": ("Pad", [ints(0, 0, 2, 2, 0, 0, 1, 3)], {"mode": "reflect"}),
    "pad the edge": ("Pad", [ints(0, 0, 2, 0, 0, 0, 0, 1)], {"mode": "edge"}),
    "pad some axes": ("Pad", [ints(1, 2), np.float32(0), ints(3)], {"opset": 18}),
    "blocks to depth": ("SpaceToDepth", [], {"blocksize": 2, "shape": (2, 4, 6, 8)}),
    "cumulate": ("CumSum", [np.array(2, I64)], {}),
    "matmul": ("MatMul", [weights(6, 5)], {}),
    "gemm": ("Gemm", [weights(5, 6), weights(5)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    "einsum": ("Einsum", [weights(6, 5)], {"equation": "nchw,wk->nchk"}),
    "instance norm": ("InstanceNormalization", [weights(4), weights(4, seed=2)], {"epsilon": 1e-3}),
    "layer norm": ("LayerNormalization", [weights(6), weights(6, seed=2)], {}),
    "layer norm over two": ("LayerNormalization", [weights(7, 6), weights(7, 6, seed=2)], {"axis": 2}),
    "layer norm without bias": ("LayerNormalization", [weights(6)], {"axis": -1}),
    "group norm": ("GroupNormalization", [weights(4), weights(4, seed=2)], {"num_groups": 2, "opset": 21}),
    "prelu by channel": ("PRelu", [weights(4, 1, 1)], {}),
    "clip": ("Clip", [np.float32(-0.5), np.float32(1.0)], {}),
    "clip above": ("Clip", [None, np.float32(1.0)], {}),
    "mean": ("ReduceMean", [], {"axes": [-1, 2], "keepdims": 0}),
    "mean since 18": ("ReduceMean", [ints(2, 3)], {"opset": 18}),
    "mean of all": ("ReduceMean", [], {"keepdims": 0}),
    "greatest": ("ReduceMax", [], {"axes": [1]}),
    "least": ("ReduceMin", [], {"axes": [1], "keepdims": 0}),
    "sum": ("ReduceSum", [ints(1)], {}),
    "sum of nothing": ("ReduceSum", [], {"noop_with_empty_axes": 1}),
    "product": ("ReduceProd", [], {"axes": [2, 3]}),
    "length": ("ReduceL2", [], {"axes": [1]}),
    "absolute": ("ReduceL1", [], {"axes": [1]}),
    "squares": ("ReduceSumSquare", [], {"axes": [1]}),
}


@pytest.mark.parametrize("case", SHAPES)
def test_shapes_products_and_norms(case):
    kind, constants, attributes = SHAPES[case]
    if kind == "Gemm":
        first = helper.make_node("Flatten", ["seen"], ["flat"])
        gemm = helper.make_node("Gemm", ["flat", "w", "b"], ["y"], transB=1, alpha=0.5, beta=2.0)
        compare([first, gemm], {"w": constants[0], "b": constants[1]}, picture(2, 3, 2, 1))
        return
    one(kind, *constants, **attributes)


@pytest.mark.parametrize(
    ("sizes", "attributes", "opset"),
    [
        (ints(1, 3), {"axis": 1}, 13),
        (None, {"axis": 1}, 13),
        (None, {"axis": 2, "num_outputs": 2}, 18),  # 7 rows: 4 and 3
        (None, {"axis": 1}, 11),
    ],
)
def test_splits(sizes, attributes, opset):
    one("Split", *([] if sizes is None else [sizes]), after=("y_0", "y_1"), opset=opset, **attributes)


def test_top_values_with_their_places():
    one("TopK", ints(3), after=("y_0", "y_1"), axis=3)
    one("TopK", ints(2), after=("y_0", "y_1"), axis=1, largest=0)


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("mode", ["linear", "nearest"])
def test_samples_from_a_grid(padding, mode):
    grid = picture(2, 3, 5, 2, low=-1.3, high=1.3)
    opset, name = (20, mode) if mode == "linear" else (16, mode)
    one("GridSample", grid, opset=opset, mode=name, padding_mode=padding, align_corners=0)


def test_shapes_are_computed_with():
    """What exporters write around a view: shape, gather, arithmetic on sizes, concat, reshape, ranges and casts."""
    nodes = [
        helper.make_node("Shape", ["seen"], ["shape"]),
        helper.make_node("Gather", ["shape", "first"], ["images"]),
        helper.make_node("Unsqueeze", ["images", "zero"], ["batch"]),
        helper.make_node("Gather", ["shape", "two"], ["rows"]),
        helper.make_node("Gather", ["shape", "three"], ["columns"]),
        helper.make_node("Mul", ["rows", "columns"], ["cells"]),
        helper.make_node("Div", ["cells", "two"], ["half"]),
        helper.make_node("Concat", ["batch", "rest", "cells"], ["target"], axis=0),
        helper.make_node("Reshape", ["seen", "target"], ["flat"]),
        helper.make_node("Squeeze", ["cells", "axis"], ["count"]),
        helper.make_node("Range", ["start", "count", "step"], ["places"]),
        helper.make_node("Cast", ["places"], ["as_float"], to=1),
        helper.make_node("CastLike", ["half", "seen"], ["half_float"]),
        helper.make_node("ConstantOfShape", ["cells"], ["filled"]),
        helper.make_node("Size", ["seen"], ["size"]),
        helper.make_node("Cast", ["size"], ["size_float"], to=1),
        helper.make_node("Add", ["flat", "as_float"], ["a"]),
        helper.make_node("Add", ["a", "half_float"], ["b"]),
        helper.make_node("Add", ["b", "filled"], ["c"]),
        helper.make_node("Add", ["c", "size_float"], ["y"]),
    ]
    constants = {
        "zero": ints(0),
        "first": np.array(0, I64),  # a single number, not a list of one
        "two": ints(2),
        "three": ints(3),
        "rest": ints(-1),
        "axis": ints(0),
        "start": np.array(0, I64),
        "step": np.array(1, I64),
    }
    compare(nodes, constants, picture(2, 3, 3, 5))


def test_every_operator_of_the_table_was_compared():
    """The table and these tests name the same operators."""
    texts = [file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_operators*.py")]
    assert [kind for kind in OPERATORS if not any(f'"{kind}"' in text for text in texts)] == []


@pytest.mark.parametrize(
    ("kind", "attributes", "said"),
    [
        ("Resize", {"mode": "cubic"}, "cubic"),
        ("Resize", {"coordinate_transformation_mode": "tf_crop_and_resize"}, "tf_crop_and_resize"),
        ("Resize", {"antialias": 1, "mode": "linear"}, "antialias"),
        ("AveragePool", {"kernel_shape": [2, 2], "dilations": [2, 2]}, "dilations"),
        ("BatchNormalization", {"training_mode": 1}, "training_mode"),
        ("Cast", {"to": 16}, "element type"),  # bfloat16
        ("CumSum", {"reverse": 1}, "reverse"),
        ("ScatterND", {"reduction": "add"}, "reduction"),
    ],
)
def test_a_way_that_is_not_known_is_said_when_the_file_is_opened(tmp_path, kind, attributes, said):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["seen"]),
        helper.make_node(kind, ["seen"], ["y"], name="late_node", **attributes),
    ]
    path = save_onnx(tmp_path / "a.onnx", nodes, constants={"w": weights(3, 3, 1, 1)}, opset=19)
    with pytest.raises(UnusableError, match=rf"node late_node \({kind}\).*{said}"):
        TorchGraph.open(path)
