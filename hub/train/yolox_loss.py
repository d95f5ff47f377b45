"""What a YOLOX pays for its answer: the loss of the paper, and the old model's word where nothing was looked for.

`find` and `place` are those of YOLOX (Ge et al., "YOLOX: Exceeding YOLO Series in 2021"): SimOTA gives every box the
cells that tell it best at the moment; cross-entropy of their objectness and classes, and the IoU of their boxes, here
the generalized one, which has a slope where the boxes do not meet yet. An export has its scores after the sigmoid, so
all is computed from probabilities.

A cell has one objectness for all labels. In a picture where some labels were looked for, it belongs to the old model as
far as the old model's best class there is one that was not: `share`, 1 where nothing was looked for, 0 where all was.
`keep` is the divergence from the old model's scores (hub.train.divergence), and from its boxes where it has any.

Laws:

1. A label that was not looked for pays `keep` only; one that was looked for pays `find` and `place` only.
2. What lies under an ignored box is neither found nor background.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from edge.contract.errors import UnusableError
from edge.detector.heads import yolox
from hub.train.divergence import divergence
from hub.train.lesson import Floats, Lesson, Mask, Tensor

LEAST_SIDE_PX: Final = 2.0  # of the part of a box that lies in the input: less of it is nothing to find
LEAST_SHARE: Final = 0.4  # of a box's area that must lie in the input
CENTRE_STRIDES: Final = 2.5  # SimOTA: how far from a box's middle a cell may tell it
BEST_CELLS: Final = 10  # SimOTA: whose overlaps add up to the number of cells that a box is given
PLACE_COST: Final = 3.0  # SimOTA: of the box against the classes, when cells are chosen
_OUTSIDE_COST: Final = 1e5
_EPSILON: Final = 1e-6
_MOST_LOG_SIZE: Final = 10.0


def loss(
    outputs: Mapping[str, Tensor], old: Mapping[str, Tensor], lesson: Lesson, *, input_size: tuple[int, int]
) -> dict[str, Tensor]:
    """Return `find`, `place` and `keep`. See `hub.train.lesson.HeadLoss`."""
    rows, old_rows = _only(outputs), _only(old)
    grid = _grid(rows.shape[1], input_size)
    decoded = yolox.is_decoded(old_rows[0, -grid.coarsest :].detach().numpy(), input_width=input_size[0])
    now, before = _read(rows, grid, decoded=decoded), _read(old_rows, grid, decoded=decoded)
    looked_for = torch.from_numpy(lesson.looked_for)
    truth = _assigned(now, lesson, grid, input_size=input_size)
    share = torch.where(truth.found, 0.0, _share(before, looked_for))
    return {
        "find": _find(now, truth, share=share, looked_for=looked_for, before=before),
        "place": _place(now, truth),
        "keep": _keep(now, before, share=share, unknown=~looked_for),
    }


@dataclass(frozen=True, slots=True, eq=False)
class _Grid:
    """Every cell: its column and row `[cells, 2]`, its stride `[cells, 1]`, and how many cells the last grid has."""

    place: Tensor
    stride: Tensor
    coarsest: int


@dataclass(frozen=True, slots=True, eq=False)
class _Answer:
    """What a model says: boxes `[n, cells, 4]`, xyxy in pixels, objectness `[n, cells]`, classes `[n, cells, k]`."""

    boxes: Tensor
    objectness: Tensor
    classes: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class _Truth:
    """What the cells should say.

    Attributes:
        found: `[n, cells]`, where a cell tells a box.
        boxes: `[n, cells, 4]`, which.
        classes: `[n, cells, k]`, the overlap with it, at its class.
        ignored: `[n, cells]`, where a cell is neither object nor background.
    """

    found: Tensor
    boxes: Tensor
    classes: Tensor
    ignored: Tensor


def _only(outputs: Mapping[str, Tensor]) -> Tensor:
    """Return the one table `[n, cells, 5 + k]`."""
    if len(outputs) != 1:
        msg = f"the head yolox is trained with one output, not with {', '.join(outputs)}"
        raise UnusableError(msg)
    return next(iter(outputs.values()))


def _grid(cells: int, input_size: tuple[int, int]) -> _Grid:
    strides = yolox.strides_of(cells, input_size)
    if strides is None:
        msg = f"the head yolox needs a row for each cell; no grid over {input_size[0]}x{input_size[1]} has {cells}"
        raise UnusableError(msg)
    place, stride = yolox.grid_of(input_size, strides)
    coarsest = (input_size[0] // strides[-1]) * (input_size[1] // strides[-1])
    return _Grid(torch.from_numpy(place), torch.from_numpy(stride), coarsest)


def _read(rows: Tensor, grid: _Grid, *, decoded: bool) -> _Answer:
    """Read the rows of either export. Scores are kept off 0 and 1 without losing their slope."""
    centre, size = rows[..., :2], rows[..., 2:4]
    if not decoded:
        centre, size = (centre + grid.place) * grid.stride, size.clamp(max=_MOST_LOG_SIZE).exp() * grid.stride
    scores = _EPSILON + (1 - 2 * _EPSILON) * rows[..., 4:]
    return _Answer(torch.cat([centre - size / 2, centre + size / 2], -1), scores[..., 0], scores[..., 1:])


@torch.no_grad()  # type: ignore[untyped-decorator]
def _assigned(now: _Answer, lesson: Lesson, grid: _Grid, *, input_size: tuple[int, int]) -> _Truth:
    """Give every box its cells."""
    truth = _Truth(
        torch.zeros(now.objectness.shape, dtype=torch.bool),
        torch.zeros(now.boxes.shape),
        torch.zeros(now.classes.shape),
        torch.zeros(now.objectness.shape, dtype=torch.bool),
    )
    middle = (grid.place + 0.5) * grid.stride
    for picture, boxes in enumerate(lesson.boxes):
        looked = lesson.looked_for[picture]
        class_id = lesson.class_id[picture]
        inside, told = _inside(boxes, input_size)
        told &= ~lesson.ignored[picture]
        asked = looked[class_id] & (inside[:, 2:] > inside[:, :2]).all(axis=1)
        hidden = torch.from_numpy(inside[asked & ~told])
        truth.ignored[picture] = _within(middle, hidden).any(0)
        wanted, wanted_class = torch.from_numpy(inside[asked & told]), torch.from_numpy(class_id[asked & told])
        if not len(wanted):
            continue
        overlap = _overlap(wanted[:, None], now.boxes[picture][None])[0]
        scores = (now.objectness[picture][:, None] * now.classes[picture][:, torch.from_numpy(looked)]).sqrt()
        own = (now.objectness[picture] * now.classes[picture][:, wanted_class].T).sqrt()
        # the cross-entropy of all classes that were looked for, the box's own the other way round
        class_cost = -torch.log1p(-scores).sum(1) + torch.log1p(-own) - own.log()
        owner = _simota(overlap, class_cost, within=_within(middle, wanted), close=_close(grid, middle, wanted))
        cells = torch.nonzero(owner >= 0)[:, 0]
        box = owner[cells]
        truth.found[picture, cells] = True
        truth.boxes[picture, cells] = wanted[box]
        truth.classes[picture, cells, wanted_class[box]] = overlap[box, cells]
    return truth


def _inside(boxes: Floats, input_size: tuple[int, int]) -> tuple[Floats, Mask]:
    """Return the parts of boxes that lie in the input, and which are large enough to be told."""
    inside = np.clip(boxes, 0, np.array(input_size * 2, np.float32)).astype(np.float32)
    sides, whole = inside[:, 2:] - inside[:, :2], boxes[:, 2:] - boxes[:, :2]
    told = (sides.min(axis=1) >= LEAST_SIDE_PX) & (sides.prod(axis=1) >= LEAST_SHARE * whole.prod(axis=1))
    return inside, told


def _simota(overlap: Tensor, class_cost: Tensor, *, within: Tensor, close: Tensor) -> Tensor:
    """Return `[cells]`, the box that a cell tells, -1 for none; all arguments are `[boxes, cells]`."""
    candidate = within | close
    cost = class_cost - PLACE_COST * overlap.clamp(min=_EPSILON).log() + _OUTSIDE_COST * ~(within & close)
    cost = cost.masked_fill(~candidate.any(0), torch.inf)
    eligible = overlap * candidate.any(0)
    best = torch.topk(eligible, min(BEST_CELLS, overlap.shape[1]), dim=1).values
    given = torch.zeros_like(candidate)
    for box, count in enumerate(best.sum(1).int().clamp(min=1).tolist()):
        chosen = torch.topk(cost[box], min(count, cost.shape[1]), largest=False).indices
        given[box, chosen[torch.isfinite(cost[box, chosen])]] = True
    contested = cost.masked_fill(~given, torch.inf)
    return torch.where(given.any(0), contested.argmin(0), -1)


def _within(middle: Tensor, boxes: Tensor) -> Tensor:
    """Return `[boxes, cells]`, whether a cell's middle lies in a box."""
    return ((middle > boxes[:, None, :2]) & (middle < boxes[:, None, 2:])).all(-1)


def _close(grid: _Grid, middle: Tensor, boxes: Tensor) -> Tensor:
    """Return `[boxes, cells]`, whether a cell is close to a box's middle."""
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    return ((middle - centre).abs() < CENTRE_STRIDES * grid.stride).all(-1)


def _share(before: _Answer, looked_for: Tensor) -> Tensor:
    """Return `[n, cells]`, how far a cell is one where the old model has its say."""
    unknown = (before.classes * ~looked_for[:, None]).amax(-1)
    return unknown / before.classes.amax(-1)


def _find(now: _Answer, truth: _Truth, *, share: Tensor, looked_for: Tensor, before: _Answer) -> Tensor:
    """Return the cross-entropy of objectness and classes, for each cell that tells a box."""
    asked = looked_for[:, None].float()
    found = truth.found.float()
    background = (1 - share) * (~truth.found & ~truth.ignored) * looked_for.any(1)[:, None]
    objectness = _crossed(now.objectness, found) * (found + background)
    # a cell that goes on telling an object of another label tells none of these
    told = found + share * before.objectness * ~truth.ignored
    classes = (_crossed(now.classes, truth.classes) * asked).sum(-1) * told
    return (objectness.sum() + classes.sum()) / found.sum().clamp(min=1)


def _place(now: _Answer, truth: _Truth) -> Tensor:
    """Return 1 - GIoU, for each cell that tells a box."""
    if not truth.found.any():
        return now.boxes.sum() * 0
    return (1 - _overlap(now.boxes[truth.found], truth.boxes[truth.found])[1]).mean()


def _keep(now: _Answer, before: _Answer, *, share: Tensor, unknown: Tensor) -> Tensor:
    """Return how far the answer is from the old one where nothing was looked for, for each cell that told something."""
    mask = unknown[:, None].float()
    objectness = divergence(now.objectness, before.objectness) * share
    classes = (divergence(now.classes, before.classes) * mask).sum(-1) * before.objectness
    seen = share * (before.objectness * (before.classes * mask).amax(-1)) ** 2
    place = (1 - _overlap(now.boxes, before.boxes)[1]) * seen
    return (objectness.sum() + classes.sum() + place.sum()) / seen.sum().clamp(min=1)


def _crossed(score: Tensor, truth: Tensor) -> Tensor:
    """Return the cross-entropy."""
    return -(truth * score.log() + (1 - truth) * torch.log1p(-score))


def _overlap(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return IoU and generalized IoU of boxes `[..., 4]` that broadcast."""
    both = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    around = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - both
    iou = both / union.clamp(min=_EPSILON)
    return iou, iou - (around - union) / around.clamp(min=_EPSILON)
