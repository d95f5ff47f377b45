"""Operators with weights, and those that look at windows: convolutions, products, norms, pools.

Every function takes its node and the node's inputs, `None` for one that is left out.
Source: onnx.ai/onnx/operators; in `ceil_mode` a last window that lies beyond the input is dropped, as by the runtimes.
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

from hub.train.graph_node import Node
from hub.train.lesson import Tensor

_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_CONV_TRANSPOSE = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}
_MAX_POOL = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}
_AVERAGE_POOL = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}


def conv(node: Node, x: Tensor, weight: Tensor, bias: Tensor = None) -> Tensor:
    """Convolve."""
    kernel = list(weight.shape[2:])
    strides, dilations, before, after = _windows(node, x, kernel=kernel)
    if before != after:
        x, before = functional.pad(x, _sides(before, after)), [0] * len(kernel)
    return _CONV[len(kernel)](x, weight, bias, strides, before, dilations, node.get("group", 1))


def conv_transpose(node: Node, x: Tensor, weight: Tensor, bias: Tensor = None) -> Tensor:
    """Convolve backwards: the whole result, then what the pads cut off."""
    kernel = list(weight.shape[2:])
    ranks = range(len(kernel))
    strides, dilations = node.get("strides", [1 for _ in ranks]), node.get("dilations", [1 for _ in ranks])
    extra = node.get("output_padding", [0 for _ in ranks])
    shape, automatic = node.get("output_shape"), node.get("auto_pad", "NOTSET")
    if shape is None and automatic.startswith("SAME"):
        shape = [x.shape[i + 2] * strides[i] for i in ranks]
    if shape is None:
        pads = node.get("pads") or [0] * 2 * len(kernel)
        before, after = list(pads[: len(kernel)]), list(pads[len(kernel) :])
    else:
        whole = [strides[i] * (x.shape[i + 2] - 1) + extra[i] + (kernel[i] - 1) * dilations[i] + 1 for i in ranks]
        total = [whole[i] - shape[i] for i in ranks]
        half = [size // 2 for size in total]
        rest = [size - small for size, small in zip(total, half, strict=True)]
        before, after = (half, rest) if automatic == "SAME_UPPER" else (rest, half)
    y = _CONV_TRANSPOSE[len(kernel)](x, weight, bias, strides, 0, extra, node.get("group", 1), dilations)
    cut = _sides([-size for size in before], [-size for size in after])
    return functional.pad(y, cut) if any(cut) else y


def matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """Multiply matrices."""
    del node
    return torch.matmul(a, b)


def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor = None) -> Tensor:
    """Multiply two matrices, and add."""
    a = a.T if node.get("transA", 0) else a
    b = b.T if node.get("transB", 0) else b
    product = torch.matmul(a, b) * node.get("alpha", 1.0)
    return product if c is None else product + c * node.get("beta", 1.0)


def batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Scale every channel by figures that stay as they are."""
    return functional.batch_norm(x, mean, variance, scale, bias, training=False, eps=node.get("epsilon", 1e-5))


def instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Scale every channel of every picture by its own spread."""
    return functional.instance_norm(x, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5))


def group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Scale groups of channels by their own spread; before opset 21 with a weight for each group."""
    groups = node.attributes["num_groups"]
    if node.opset < 21:
        scale, bias = (w.repeat_interleave(x.shape[1] // groups) for w in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, eps=node.get("epsilon", 1e-5))


def layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor = None) -> Tensor:
    """Scale by the spread over the last dimensions."""
    axis = node.get("axis", -1) % x.ndim
    shape = list(x.shape[axis:])
    bias = None if bias is None else bias.expand(shape)
    return functional.layer_norm(x, shape, scale.expand(shape), bias, eps=node.get("epsilon", 1e-5))


def max_pool(node: Node, x: Tensor) -> Tensor:
    """Return the largest of every window."""
    kernel = list(node.attributes["kernel_shape"])
    strides, dilations, before, after = _windows(node, x, kernel=kernel)
    after = _reached(node, x, kernel=kernel, before=before, after=after)
    if before != after or any(2 * pad > size for pad, size in zip(before, kernel, strict=True)):
        x, before = functional.pad(x, _sides(before, after), value=-torch.inf), [0] * len(kernel)
    return _MAX_POOL[len(kernel)](x, kernel, strides, before, dilations)


def average_pool(node: Node, x: Tensor) -> Tensor:
    """Return the mean of every window, over the cells that count."""
    kernel = list(node.attributes["kernel_shape"])
    strides, _, before, after = _windows(node, x, kernel=kernel)
    reached = _reached(node, x, kernel=kernel, before=before, after=after)
    pool = _AVERAGE_POOL[len(kernel)]
    if not any(before) and not any(side > 0 for side in reached):
        return pool(x, kernel, strides)
    counted = x.new_ones((1, 1, *x.shape[2:]))
    rest = [end - pad for end, pad in zip(reached, after, strict=True)]
    counted = functional.pad(counted, _sides(before, after), value=float(node.get("count_include_pad", 0)))
    counted = functional.pad(counted, _sides([0] * len(kernel), rest))
    return pool(functional.pad(x, _sides(before, reached)), kernel, strides) / pool(counted, kernel, strides)


def global_average_pool(node: Node, x: Tensor) -> Tensor:
    """Return the mean of every channel."""
    del node
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


def global_max_pool(node: Node, x: Tensor) -> Tensor:
    """Return the largest of every channel."""
    del node
    return x.amax(tuple(range(2, x.ndim)), keepdim=True)


def _windows(node: Node, x: Tensor, *, kernel: list[int]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Return strides, dilations, and the pads before and after each dimension."""
    rank = len(kernel)
    strides, dilations = list(node.get("strides", [1] * rank)), list(node.get("dilations", [1] * rank))
    automatic = node.get("auto_pad", "NOTSET")
    if automatic in {"NOTSET", ""}:
        pads = list(node.get("pads", [0] * 2 * rank))
        return strides, dilations, pads[:rank], pads[rank:]
    if automatic == "VALID":
        return strides, dilations, [0] * rank, [0] * rank
    total = [
        max(
            0, (-(-x.shape[i + 2] // strides[i]) - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - x.shape[i + 2]
        )
        for i in range(rank)
    ]
    half, rest = [pad // 2 for pad in total], [pad - pad // 2 for pad in total]
    return (strides, dilations, half, rest) if automatic == "SAME_UPPER" else (strides, dilations, rest, half)


def _reached(node: Node, x: Tensor, *, kernel: list[int], before: list[int], after: list[int]) -> list[int]:
    """Return how far beyond the input the last windows of a pool reach: its pads, and what `ceil_mode` adds."""
    if not node.get("ceil_mode", 0):
        return after
    strides, dilations, _, _ = _windows(node, x, kernel=kernel)
    ends = []
    for i, size in enumerate(x.shape[2:]):
        extent = (kernel[i] - 1) * dilations[i] + 1
        more = -(-(size + before[i] + after[i] - extent) // strides[i])
        if more * strides[i] >= size + before[i]:
            more -= 1
        ends.append(max(after[i], more * strides[i] + extent - size - before[i]))
    return ends


def _sides(before: Sequence[int], after: Sequence[int]) -> list[int]:
    """Write pads as torch wants them: the last dimension first, before and after."""
    return [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
