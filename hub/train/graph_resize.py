"""Resize and Upsample, in the coordinates that the file names.

The usual cases go through torch's own kernels, the rest through the nearest cells of each dimension.
Source: onnx.ai/onnx/operators/onnx__Resize.html.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from hub.train.graph_node import Node
from hub.train.lesson import Floats, Tensor

_COORDINATES = frozenset({"half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric"})
_MODES = frozenset({"nearest", "linear"})


@dataclass(frozen=True, slots=True)
class _Stretch:
    """One dimension's part of a resize."""

    axis: int
    length: int
    size: int
    factor: float

    @property
    def is_whole(self) -> bool:
        return self.length * self.factor == self.size and self.factor == int(self.factor)


def objection(node: Node) -> str:
    """Return what of a resize is not known here, "" when all is."""
    mode, coordinates = _ways(node)[:2]
    if mode not in _MODES:
        return f"the mode {mode}"
    if coordinates not in _COORDINATES:
        return f"the coordinates {coordinates}"
    if node.get("antialias", 0):
        return "antialias"
    return "" if node.get("keep_aspect_ratio_policy", "stretch") == "stretch" else "keep_aspect_ratio_policy"


def resize(node: Node, x: Tensor, *others: Tensor) -> Tensor:
    """Scale dimensions by factors, or to sizes. The batch is left as it is."""
    # before opset 11 the scales are the second input, since then roi, scales, sizes
    scales, sizes = (others[0], None) if node.opset < 11 and others else (*others[1:], None, None)[:2]
    factors = [float(value) for value in scales.tolist()] if scales is not None else node.get("scales", [])
    lengths = node.ints("sizes", sizes) or []
    axes = node.get("axes", range(x.ndim))
    stretches = []
    for at, axis in enumerate(axes):
        length = x.shape[axis]
        factor = factors[at] if factors else lengths[at] / length
        size = math.floor(length * factor) if factors else lengths[at]
        if size != length and not (axis % x.ndim == 0 and node.seen):
            stretches.append(_Stretch(axis % x.ndim, length, size, factor))
    if x.ndim == 4 and {stretch.axis for stretch in stretches} == {2, 3}:
        made = _by_torch(node, x, stretches=sorted(stretches, key=lambda stretch: stretch.axis))
        if made is not None:
            return made
    for stretch in stretches:
        x = _by_cells(node, x, stretch=stretch)
    return x


def _ways(node: Node) -> tuple[str, str, str]:
    """Return mode, coordinates and the rounding of nearest cells."""
    mode = {"bilinear": "linear"}.get(node.get("mode", "nearest"), node.get("mode", "nearest"))
    if node.opset < 11:
        return mode, "asymmetric", "floor"
    coordinates = node.get("coordinate_transformation_mode", "half_pixel")
    return mode, coordinates, node.get("nearest_mode", "round_prefer_floor")


def _by_torch(node: Node, x: Tensor, *, stretches: list[_Stretch]) -> Tensor | None:
    """Resize rows and columns where torch has the same rule, else return None."""
    mode, coordinates, rounding = _ways(node)
    size, factors = [stretch.size for stretch in stretches], [stretch.factor for stretch in stretches]
    whole = all(stretch.is_whole for stretch in stretches)
    if mode == "nearest":
        lower = rounding == "floor" or (rounding == "round_prefer_floor" and factors == [2, 2])
        centred = coordinates.endswith("half_pixel") and rounding.startswith("round")
        same = whole and ((coordinates == "asymmetric" and lower) or centred)
        return functional.interpolate(x, size=size, mode="nearest") if same else None
    if coordinates == "align_corners":
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=True)
    if coordinates == "asymmetric" and whole:
        # cells at 0, 1/f, 2/f ... up to the last; what lies beyond repeats it
        inner = [(stretch.length - 1) * int(stretch.factor) + 1 for stretch in stretches]
        y = functional.interpolate(x, size=inner, mode="bilinear", align_corners=True)
        down, right = (int(factor) - 1 for factor in factors)
        return functional.pad(y, (0, right, 0, down), mode="replicate")
    if coordinates.endswith("half_pixel") and whole:
        return functional.interpolate(x, size=size, mode="bilinear", align_corners=False)
    return None


def _by_cells(node: Node, x: Tensor, *, stretch: _Stretch) -> Tensor:
    """Resize one dimension from the nearest cells."""
    mode, coordinates, rounding = _ways(node)
    place = _places(coordinates, stretch)
    last = stretch.length - 1
    if mode == "nearest":
        cell = {
            "floor": np.floor(place),
            "ceil": np.ceil(place),
            "round_prefer_floor": np.ceil(place - np.float32(0.5)),
            "round_prefer_ceil": np.floor(place + np.float32(0.5)),
        }[rounding]
        return x.index_select(stretch.axis, torch.from_numpy(np.clip(cell, 0, last).astype(np.int64)))
    place = np.clip(place, 0, last)
    low = np.floor(place)
    shape = [1] * x.ndim
    shape[stretch.axis] = -1
    weight = torch.from_numpy(place - low).view(shape)
    below = x.index_select(stretch.axis, torch.from_numpy(low.astype(np.int64)))
    above = x.index_select(stretch.axis, torch.from_numpy(np.minimum(low + 1, last).astype(np.int64)))
    return below + (above - below) * weight


def _places(coordinates: str, stretch: _Stretch) -> Floats:
    """Return where each new cell lies among the old ones, in float32 as the runtimes compute it."""
    at = np.arange(stretch.size, dtype=np.float32)
    factor, one, half = np.float32(stretch.factor), np.float32(1), np.float32(0.5)
    if coordinates == "asymmetric":
        return at / factor
    if coordinates == "align_corners":
        return at * np.float32(stretch.length - 1) / np.float32(max(1, stretch.size - 1))
    if coordinates == "pytorch_half_pixel" and stretch.size <= 1:
        return at * 0
    centred = (at + half) / factor - half
    if coordinates == "half_pixel_symmetric":
        adjustment = np.float32(stretch.size) / (factor * np.float32(stretch.length))
        return centred + np.float32(stretch.length) / 2 * (one - adjustment)
    return centred
