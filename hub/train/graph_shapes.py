"""Operators that move values and never change them, and those that compute with shapes.

A picture's values keep their batch: where a file that was exported for one picture says 1 as the first size of a
reshape, n pictures stay n.
Source: onnx.ai/onnx/operators. What newer opsets give as inputs older ones give as attributes; both are read.
"""

import numpy as np
import torch
from torch.nn import functional

from hub.train.graph_node import Node
from hub.train.lesson import Tensor

_TYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool}
_TYPES |= {10: torch.float32, 11: torch.float64}  # float16 files are computed in float32


def element_type(number: int) -> Tensor:
    """Return torch's type for an ONNX one, None when it is not computed with."""
    return _TYPES.get(number)


def reshape(node: Node, x: Tensor, shape: Tensor = None) -> Tensor:
    """Give another shape; 0 keeps a size, -1 takes the rest."""
    sizes = node.ints("shape", shape) or []
    if not node.get("allowzero", 0):
        sizes = [x.shape[at] if size == 0 else size for at, size in enumerate(sizes)]
    if node.seen and len(sizes) > 1 and sizes[0] == 1 and x.shape[0] == node.batch:
        sizes[0] = node.batch
    return x.reshape(sizes)


def transpose(node: Node, x: Tensor) -> Tensor:
    """Order the dimensions anew."""
    return x.permute(node.get("perm", list(reversed(range(x.ndim)))))


def flatten(node: Node, x: Tensor) -> Tensor:
    """Make two dimensions."""
    axis = node.get("axis", 1)
    axis = axis % x.ndim if axis < 0 else axis
    return x.reshape(int(np.prod(x.shape[:axis])), -1)


def squeeze(node: Node, x: Tensor, axes: Tensor = None) -> Tensor:
    """Drop dimensions of size 1."""
    wanted = node.ints("axes", axes)
    if wanted is None:
        return x.squeeze()
    if any(x.shape[axis] != 1 for axis in wanted):
        msg = f"dimensions {wanted} of {list(x.shape)} are not all of size 1"
        raise ValueError(msg)
    return x.squeeze(tuple(wanted))


def unsqueeze(node: Node, x: Tensor, axes: Tensor = None) -> Tensor:
    """Add dimensions of size 1."""
    wanted = node.ints("axes", axes) or []
    rank = x.ndim + len(wanted)
    for axis in sorted(axis % rank for axis in wanted):
        x = x.unsqueeze(axis)
    return x


def concat(node: Node, *parts: Tensor) -> Tensor:
    """Put values behind one another; what is the same for every picture is repeated for each."""
    axis = node.attributes["axis"] % parts[0].ndim
    batch = max(part.shape[0] for part in parts)
    if node.seen and axis and any(part.shape[0] != batch for part in parts):
        parts = tuple(part.expand(batch, *part.shape[1:]) if part.shape[0] == 1 else part for part in parts)
    return torch.cat(parts, axis)


def split(node: Node, x: Tensor, sizes: Tensor = None) -> tuple[Tensor, ...]:
    """Cut into parts, equal ones when no sizes are given."""
    axis = node.get("axis", 0)
    wanted = node.ints("split", sizes)
    if wanted is None:
        count = node.get("num_outputs", len(node.outputs))
        each = -(-x.shape[axis] // count)
        wanted = [min(each, x.shape[axis] - each * at) for at in range(count)]
    return tuple(torch.split(x, wanted, axis))


def cut(node: Node, x: Tensor, *given: Tensor) -> Tensor:
    """Slice."""
    starts, ends, axes, steps = (
        node.ints(name, value)
        for name, value in zip(("starts", "ends", "axes", "steps"), (*given, *[None] * 4), strict=False)
    )
    for at, (start, end) in enumerate(zip(starts or [], ends or [], strict=True)):
        axis = (axes[at] if axes else at) % x.ndim
        step = steps[at] if steps else 1
        size = x.shape[axis]
        if step > 0:
            first, last, _ = slice(start, end, step).indices(size)
            x = x.narrow(axis, first, max(0, last - first))
            if step > 1:
                x = x[(slice(None),) * axis + (slice(None, None, step),)]
        else:  # an end below -size means "down to the first"
            places = range(size)[slice(start, end if end >= -size else None, step)]
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return x


def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Pick along one dimension."""
    axis = node.get("axis", 0) % x.ndim
    wanted = torch.where(indices < 0, indices + x.shape[axis], indices).long()
    picked = x.index_select(axis, wanted.reshape(-1))
    return picked.reshape([*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]])


def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Pick along one dimension, for each place its own."""
    axis = node.get("axis", 0)
    return torch.gather(x, axis, torch.where(indices < 0, indices + x.shape[axis], indices).long())


def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Pick by whole coordinates."""
    if node.get("batch_dims", 0):
        both = zip(x, indices, strict=True)
        inner = Node(
            node.kind, node.name, (), (), {"batch_dims": node.attributes["batch_dims"] - 1}, node.opset, node.seen
        )
        return torch.stack([gather_nd(inner, part, place) for part, place in both])
    return x[tuple(indices.unbind(-1))]


def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """Write at whole coordinates, as exporters spell an assignment to a slice."""
    places = indices.long().unbind(-1)
    written = x.clone()
    if node.seen and node.batch > 1 and x.shape[0] == node.batch and not bool(places[0].any()):
        # the file writes into its one picture: here into each
        written[(slice(None), *places[1:])] = updates.reshape(node.batch, *indices.shape[:-1], *x.shape[len(places) :])
    else:
        written[tuple(places)] = updates
    return written


def expand(node: Node, x: Tensor, shape: Tensor) -> Tensor:
    """Repeat what has size 1."""
    del node
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape.tolist())))


def tile(node: Node, x: Tensor, repeats: Tensor) -> Tensor:
    """Repeat the whole."""
    del node
    return x.tile(tuple(repeats.tolist()))


def pad(node: Node, x: Tensor, pads: Tensor = None, value: Tensor = None, axes: Tensor = None) -> Tensor:
    """Add cells around, or take some away."""
    sides = node.ints("pads", pads) or []
    wanted = node.ints("axes", axes) or list(range(x.ndim))
    before, after = [0] * x.ndim, [0] * x.ndim
    for at, axis in enumerate(wanted):
        before[axis], after[axis] = sides[at], sides[at + len(wanted)]
    mode = node.get("mode", "constant")
    if mode == "constant":
        order = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
        fill = node.get("value", 0.0) if value is None else value.item()
        return functional.pad(x, order, value=fill)
    rule = {"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode]
    for axis in range(x.ndim):
        if before[axis] or after[axis]:
            cells = np.pad(np.arange(x.shape[axis]), (before[axis], after[axis]), mode=rule)  # type: ignore[call-overload]
            x = x.index_select(axis, torch.from_numpy(cells))
    return x


def shape_of(node: Node, x: Tensor) -> Tensor:
    """Return the sizes."""
    return torch.tensor(list(x.shape)[slice(node.get("start", 0), node.get("end"))], dtype=torch.int64)


def size_of(node: Node, x: Tensor) -> Tensor:
    """Return how many values there are."""
    del node
    return torch.tensor(x.numel(), dtype=torch.int64)


def cast(node: Node, x: Tensor) -> Tensor:
    """Change the element type."""
    return x.to(_TYPES[node.attributes["to"]])


def cast_like(node: Node, x: Tensor, like: Tensor) -> Tensor:
    """Take another value's element type."""
    del node
    return x.to(like.dtype)


def constant_of_shape(node: Node, shape: Tensor) -> Tensor:
    """Fill a shape with one value."""
    value = node.get("value")
    filled = torch.zeros(1) if value is None else torch.from_numpy(np.array(value))
    filled = filled.float() if filled.dtype == torch.float16 else filled
    return filled.reshape(1).expand(tuple(shape.tolist())).clone()


def count_up(node: Node, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    """Return a range."""
    del node
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def depth_to_space(node: Node, x: Tensor) -> Tensor:
    """Spread channels over blocks of cells."""
    block = node.attributes["blocksize"]
    if node.get("mode", "DCR") == "CRD":
        return functional.pixel_shuffle(x, block)
    n, channels, rows, columns = x.shape
    parts = x.reshape(n, block, block, channels // block**2, rows, columns).permute(0, 3, 4, 1, 5, 2)
    return parts.reshape(n, channels // block**2, rows * block, columns * block)


def space_to_depth(node: Node, x: Tensor) -> Tensor:
    """Gather blocks of cells into channels."""
    block = node.attributes["blocksize"]
    n, channels, rows, columns = x.shape
    parts = x.reshape(n, channels, rows // block, block, columns // block, block).permute(0, 3, 5, 1, 2, 4)
    return parts.reshape(n, channels * block**2, rows // block, columns // block)
