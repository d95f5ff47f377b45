"""Convolutions, pools and resizes give what ONNX Runtime gives, in all the ways that files ask for them."""

import numpy as np
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.hub.train.made_onnx import ints, one, weights

torch.set_num_threads(1)
laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


@laws
@given(
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    group=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    auto_pad=st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]),
)
def test_convolutions(kernel, strides, dilations, pads, group, bias, auto_pad):
    assume(auto_pad in {"NOTSET", "VALID"} or dilations == (1, 1))  # the runtime's rule for both is its own
    attributes = {"strides": strides, "dilations": dilations, "group": group, "auto_pad": auto_pad}
    if auto_pad == "NOTSET":
        attributes["pads"] = pads
    one("Conv", weights(8, 4 // group, *kernel), weights(8) if bias else None, shape=(2, 4, 9, 8), **attributes)


def test_convolutions_of_one_and_three_dimensions():
    one("Conv", weights(5, 4, 3), weights(5), shape=(2, 4, 9), pads=[1, 2])
    one("Conv", weights(5, 4, 3, 2, 2), shape=(2, 4, 5, 6, 4), strides=[2, 1, 1])


@laws
@given(
    kernel=st.tuples(st.integers(2, 4), st.integers(2, 4)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.integers(1, 2),
    pads=st.tuples(*[st.integers(0, 1)] * 4),
    extra=st.booleans(),
    group=st.sampled_from([1, 2]),
    auto_pad=st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]),
)
def test_convolutions_backwards(kernel, strides, dilation, pads, extra, group, auto_pad):
    attributes = {"strides": strides, "dilations": (dilation, dilation), "group": group}
    if auto_pad == "NOTSET":
        attributes |= {"pads": pads, "output_padding": [stride - 1 if extra else 0 for stride in strides]}
    else:
        assume(dilation == 1 and all(k >= s for k, s in zip(kernel, strides, strict=True)))
        attributes["auto_pad"] = auto_pad
    one("ConvTranspose", weights(4, 3, *kernel), weights(3 * group), shape=(2, 4, 5, 6), **attributes)


def test_a_convolution_backwards_to_a_size():
    one("ConvTranspose", weights(4, 3, 3, 3), shape=(2, 4, 5, 6), strides=[2, 2], output_shape=[10, 12])


@laws
@given(
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 4)] * 4),
    ceil_mode=st.integers(0, 1),
    auto_pad=st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]),
    kind=st.sampled_from(["MaxPool", "AveragePool"]),
    counted=st.integers(0, 1),
    dilation=st.integers(1, 2),
)
def test_pools(kernel, strides, pads, ceil_mode, auto_pad, kind, counted, dilation):
    assume(all(pads[at] < kernel[at % 2] for at in range(4)))  # the runtime refuses larger ones
    attributes = {"kernel_shape": kernel, "strides": strides}
    if kind == "AveragePool":
        attributes["count_include_pad"] = counted
    elif auto_pad == "NOTSET":
        attributes["dilations"] = (dilation, dilation)
    if auto_pad == "NOTSET":
        attributes |= {"pads": pads, "ceil_mode": ceil_mode}
    else:
        attributes["auto_pad"] = auto_pad
    one(kind, shape=(2, 4, 11, 10), opset=19 if kind == "AveragePool" else 17, **attributes)


@laws
@given(
    mode=st.sampled_from(["nearest", "linear"]),
    coordinates=st.sampled_from(["half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners"]),
    rounding=st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    factors=st.tuples(*[st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.0, 2.0, 3.0])] * 2),
    sizes=st.booleans(),
)
def test_resizes(mode, coordinates, rounding, factors, sizes):
    attributes = {"mode": mode, "coordinate_transformation_mode": coordinates}
    if mode == "nearest":
        attributes["nearest_mode"] = rounding
    if sizes:
        one(
            "Resize",
            None,
            None,
            ints(2, 4, round(6 * factors[0]), round(8 * factors[1])),
            shape=(2, 4, 6, 8),
            **attributes,
        )
    else:
        one("Resize", None, np.float32([1, 1, *factors]), shape=(2, 4, 6, 8), **attributes)


def test_resizes_of_older_and_newer_files():
    one("Resize", np.float32([1, 1, 2, 2]), opset=10, mode="linear")
    one("Resize", np.float32([1, 1, 2, 2]), opset=10, mode="nearest")
    one("Upsample", np.float32([1, 1, 2, 3]), opset=9, mode="linear")
    one("Resize", None, np.float32([2, 2]), opset=18, axes=[2, 3], mode="nearest")
    one("Resize", None, np.float32([1, 1, 2, 2]), opset=19, coordinate_transformation_mode="half_pixel_symmetric")
