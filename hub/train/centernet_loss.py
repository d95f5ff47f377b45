"""What a CenterNet with distances to the four sides pays for its answer: the loss of TTFNet, and the old model's word.

`find` and `place` are those of TTFNet (Liu et al., "Training-Time-Friendly Network for Real-Time Object Detection",
AAAI 2020), with which the starter model's outputs agree: measured on its own answers, the peak lies in the cell that
holds the middle of the box (rounded down), and the cells around the peak tell the same box as the peak does.

`keep` is the divergence from the old model's scores (hub.train.divergence), cell by cell, and from its boxes where it
has any.

Law: a label that was not looked for pays `keep` only; one that was looked for pays `find` and `place` only.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from edge.detector.heads import centernet
from hub.train.divergence import divergence
from hub.train.lesson import Floats, Ints, Lesson, Tensor

SPREAD: Final = 0.54  # TTFNet's alpha: the share of a box's sides that its bell covers
LEAST_SIDE_PX: Final = 2.0  # of the part of a box that lies in the input: less of it is nothing to find
LEAST_SHARE: Final = 0.4  # of a box's area that must lie in the input
_EPSILON: Final = 1e-6


def loss(
    outputs: Mapping[str, Tensor], old: Mapping[str, Tensor], lesson: Lesson, *, input_size: tuple[int, int]
) -> dict[str, Tensor]:
    """Return `find`, `place` and `keep`. See `hub.train.lesson.HeadLoss`."""
    heatmap, sides = _maps(outputs)
    old_heatmap, old_sides = _maps(old)
    truth = _truth(lesson, shape=tuple(heatmap.shape), input_size=input_size)
    return {
        "find": _find(heatmap, torch.from_numpy(truth.bells), torch.from_numpy(truth.background)),
        "place": _place(sides, torch.from_numpy(truth.sides), torch.from_numpy(truth.weight)),
        "keep": _keep(heatmap, old_heatmap, sides, old_sides, unknown=torch.from_numpy(~lesson.looked_for)),
    }


def pooled(outputs: Mapping[str, Tensor], input_size: tuple[int, int]) -> dict[str, Tensor]:
    """Return what a look at twice the size says, on the grid of a look at `input_size`.

    Of four cells the best of any label speaks for the sides; each label has its best score. A middle stays in the cell
    that holds it.
    """
    heatmap_name, sides_name = _names(outputs)
    heatmap, sides = outputs[heatmap_name], outputs[sides_name]
    stride = 2 * input_size[0] // heatmap.shape[3]
    scores = functional.max_pool2d(heatmap, 2)
    _, best = functional.max_pool2d(heatmap.amax(1, keepdim=True), 2, return_indices=True)
    rows, columns = best // heatmap.shape[3], best % heatmap.shape[3]
    chosen = sides.flatten(2).gather(2, best.flatten(2).expand(-1, 4, -1)).view(-1, 4, *best.shape[2:]) / 2
    right, down = (columns % 2) * (stride / 2), (rows % 2) * (stride / 2)
    outward = torch.cat([-right, -down, right, down], 1)
    return {heatmap_name: scores, sides_name: chosen + outward}


@dataclass(frozen=True, slots=True, eq=False)
class _Truth:
    """What a lesson says, on the grid of the maps.

    Attributes:
        bells: `[n, k, h, w]`, 1 in the cell of a middle.
        background: `[n, k, h, w]`, how much a cell counts that is no middle.
        sides: `[n, 4, h, w]`, the distances to the sides of the smallest box whose bell covers a cell.
        weight: `[n, h, w]`, how much of all boxes is told there; its sum is 1, or 0 where there is no box.
    """

    bells: Floats
    background: Floats
    sides: Floats
    weight: Floats


def _truth(lesson: Lesson, *, shape: tuple[int, ...], input_size: tuple[int, int]) -> _Truth:
    """Lay a lesson on a grid of `[n, k, h, w]`."""
    pictures, _, rows, columns = shape
    stride = input_size[0] // columns
    background = np.broadcast_to(lesson.looked_for[:, :, None, None], shape).astype(np.float32)
    truth = _Truth(
        np.zeros(shape, np.float32),
        background,
        np.zeros((pictures, 4, rows, columns), np.float32),
        np.zeros((pictures, rows, columns), np.float32),
    )
    for picture in range(pictures):
        _lay(lesson, picture, truth, stride=stride, input_size=input_size)
    total = truth.weight.sum()
    return replace(truth, weight=truth.weight / total) if total > 0 else truth


def _lay(lesson: Lesson, picture: int, truth: _Truth, *, stride: int, input_size: tuple[int, int]) -> None:
    """Lay one picture's boxes, the largest first: the smaller one has the cells of both."""
    rows, columns = truth.weight.shape[1:]
    bells, weight, sides = truth.bells[picture], truth.weight[picture], truth.sides[picture]
    boxes = lesson.boxes[picture]
    inside = np.clip(boxes, 0, np.array(input_size * 2, np.float32))
    width, height = inside[:, 2] - inside[:, 0], inside[:, 3] - inside[:, 1]
    whole = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    told = (np.minimum(width, height) >= LEAST_SIDE_PX) & (width * height >= LEAST_SHARE * whole)
    told &= ~lesson.ignored[picture]
    owner, area = np.full((rows, columns), -1), width * height
    bell_of = np.zeros((rows, columns), np.float32)
    for i in np.argsort(-area, kind="stable"):
        class_id = lesson.class_id[picture][i]
        if area[i] <= 0 or not lesson.looked_for[picture, class_id]:
            continue
        if not told[i]:
            x1, y1, x2, y2 = _cells(inside[i], stride)
            truth.background[picture, class_id, y1:y2, x1:x2] = 0
            continue
        at, bell = _bell(inside[i], stride=stride, rows=rows, columns=columns)
        bells[class_id][at] = np.maximum(bells[class_id][at], bell)
        owner[at], bell_of[at] = i, bell
    for i in np.unique(owner[owner >= 0]):
        at = owner == i
        weight[at] = bell_of[at] / bell_of[at].sum() * max(float(np.log(area[i])), 1.0)
        y, x = (index * stride for index in np.nonzero(at))
        x1, y1, x2, y2 = inside[i]
        sides[:, at] = np.stack([x - x1, y - y1, x2 - x, y2 - y])


def _cells(box: Floats, stride: int) -> tuple[int, int, int, int]:
    """Return the cells that a box touches, as x1, y1, x2, y2."""
    x1, y1, x2, y2 = (float(side) / stride for side in box)
    return int(x1), int(y1), math.ceil(x2), math.ceil(y2)


def _bell(box: Floats, *, stride: int, rows: int, columns: int) -> tuple[tuple[slice, slice], Floats]:
    """Return TTFNet's cut bell around the middle of a box: where it is, and its heights, 1 at the middle."""
    x1, y1, x2, y2 = (float(side) / stride for side in box)
    column, row = min(int((x1 + x2) / 2), columns - 1), min(int((y1 + y2) / 2), rows - 1)
    reach_x, reach_y = int((x2 - x1) / 2 * SPREAD), int((y2 - y1) / 2 * SPREAD)
    across = np.arange(max(0, column - reach_x), min(columns, column + reach_x + 1))
    along = np.arange(max(0, row - reach_y), min(rows, row + reach_y + 1))
    at = slice(along[0], along[-1] + 1), slice(across[0], across[-1] + 1)
    heights = np.outer(_height(along - row, reach_y), _height(across - column, reach_x))
    return at, heights.astype(np.float32)


def _height(steps: Ints, reach: int) -> NDArray[np.float64]:
    spread = (2 * reach + 1) / 6
    return np.exp(-((steps / spread) ** 2) / 2)


def _find(heatmap: Tensor, bells: Tensor, weight: Tensor) -> Tensor:
    """Return the focal loss of CornerNet, for each object. Background near a middle weighs less."""
    score = _EPSILON + (1 - 2 * _EPSILON) * heatmap  # not cut off: what is missed altogether has a slope, too
    middle = bells.eq(1).float()
    found = (1 - score) ** 2 * score.log() * middle
    empty = (1 - bells) ** 4 * score**2 * (1 - score).log() * (1 - middle) * weight
    return -(found.sum() + empty.sum()) / middle.sum().clamp(min=1)


def _place(sides: Tensor, true_sides: Tensor, weight: Tensor) -> Tensor:
    """Return 1 - GIoU over the bells' cells, each box by the logarithm of its area, as TTFNet weighs it."""
    return ((1 - _giou(sides, true_sides)) * weight).sum()


def _keep(heatmap: Tensor, old_heatmap: Tensor, sides: Tensor, old_sides: Tensor, *, unknown: Tensor) -> Tensor:
    """Return how far scores and sides are from the old model's where nothing was looked for, for each old object."""
    mask = unknown[:, :, None, None].float()
    surest = (old_heatmap * mask).amax(1, keepdim=True)
    objects = (surest * (surest >= functional.max_pool2d(surest, 3, 1, 1)) * (surest > 0.1)).sum().clamp(min=1)
    scores = (divergence(heatmap, old_heatmap) * mask).sum() / objects
    seen = surest[:, 0] ** 2
    place = ((1 - _giou(sides, old_sides)) * seen).sum() / seen.sum().clamp(min=1)
    return scores + place


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Return the generalized IoU of two maps of distances to the sides `[n, 4, h, w]`, cell by cell."""
    least, most = torch.minimum(a, b), torch.maximum(a, b)
    both = (least[:, 0] + least[:, 2]).clamp(min=0) * (least[:, 1] + least[:, 3]).clamp(min=0)
    around = ((most[:, 0] + most[:, 2]) * (most[:, 1] + most[:, 3])).clamp(min=_EPSILON)
    union = _area(a) + _area(b) - both
    return both / union.clamp(min=_EPSILON) - (around - union) / around


def _area(sides: Tensor) -> Tensor:
    return (sides[:, 0] + sides[:, 2]).clamp(min=0) * (sides[:, 1] + sides[:, 3]).clamp(min=0)


def _maps(outputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    heatmap_name, sides_name = _names(outputs)
    return outputs[heatmap_name], outputs[sides_name]


def _names(outputs: Mapping[str, Tensor]) -> tuple[str, str]:
    """Return the heatmap's and the sides' names, as the head finds them for one picture."""
    return centernet.names({name: (1, *one.shape[1:]) for name, one in outputs.items()})
