"""Quantization-aware fine-tuning: the weights learn to give float32's outputs through 8 bits.

Every tensor that the file reads in 8 bits is rounded to the file's own grid on the way through the graph; the gradient
passes the rounding as if it were not there, and stops where a value is clipped (Jacob et al., CVPR 2018). The float32
model is the teacher, by the `keep` of its head's loss; no label is used. The grids stay as they were calibrated, so the
answer fits the file.

Law: on these pictures the answer is no farther from float32 than what it began with.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from edge.contract.errors import UnusableError
from hub.quantization.layers import Grid, Model, float_weights, grids
from hub.train.graph import Seen, TorchGraph
from hub.train.lesson import HeadLoss, Lesson

BATCH: Final = 8
RATE: Final = 2e-5
_COLOURS: Final = 3

Tensor = Any


def fine_tuned(
    path: Path,
    *,
    quantized: Model,
    original: Model,
    tensors: Sequence[NDArray[np.float32]],
    head: HeadLoss,
    classes: int,
    steps: int,
    on_step: Callable[[int, int], None] = lambda _done, _steps: None,
) -> dict[str, NDArray[np.float32]]:
    """Return weights by their names in the original file, for `layers.with_weights`.

    Args:
        path: of the original, float32.
        quantized: the file in 8 bits, whose grids are kept.
        original: the same in float32.
        tensors: input tensors of pictures, `[1, ...]` each.
        head: what the head's outputs cost; only `keep` is asked.
        classes: how many labels there are.
        steps: of `BATCH` pictures each.
        on_step: is told steps done, and of how many.

    Raises `UnusableError` when the graph cannot be trained through or the loss is not finite.
    """
    teacher, student = TorchGraph.open(path, trained=False), TorchGraph.open(path)
    begin = student.state()
    corrected = float_weights(quantized, original)
    student.load({name: corrected[name].astype(np.float32) if name in corrected else begin[name] for name in begin})
    rounding = _rounding(grids(quantized, original))
    height, width = tensors[0].shape[2:] if tensors[0].shape[1] == _COLOURS else tensors[0].shape[1:3]

    def apart(at: Sequence[int]) -> Tensor:
        images = np.concatenate([tensors[one] for one in at])
        lesson = _nothing_looked_for(images, classes)
        fed = torch.from_numpy(images)
        return head(student(fed, seen=rounding), teacher(fed), lesson, input_size=(width, height))["keep"]

    first, before = student.state(), _mean(apart, len(tensors))
    optimizer = torch.optim.Adam(student.parameters(), lr=RATE)
    drawn = np.random.default_rng(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
        optimizer.zero_grad()
        loss = apart(drawn.choice(len(tensors), size=min(BATCH, len(tensors)), replace=False).tolist())
        if not torch.isfinite(loss):
            msg = "the loss of the quantization-aware fine-tune is not finite; nothing is written"
            raise UnusableError(msg)
        loss.backward()
        optimizer.step()
        on_step(step + 1, steps)
    return student.state() if _mean(apart, len(tensors)) < before else first


def _mean(apart: Callable[[Sequence[int]], Tensor], count: int) -> float:
    """Return the loss over all pictures."""
    with torch.no_grad():
        return float(np.mean([float(apart(range(at, min(at + BATCH, count)))) for at in range(0, count, BATCH)]))


def _nothing_looked_for(images: NDArray[np.float32], classes: int) -> Lesson:
    """Return a lesson in which the teacher says what is there."""
    n = len(images)
    return Lesson(
        images,
        (np.zeros((0, 4), np.float32),) * n,
        (np.zeros(0, np.int64),) * n,
        (np.zeros(0, np.bool_),) * n,
        np.zeros((n, classes), np.bool_),
    )


def _rounding(known: Mapping[tuple[str, str], Grid]) -> Seen:
    """Return what puts a tensor that a node reads on its grid."""
    ready = {
        place: (torch.from_numpy(grid.scale.copy()), torch.from_numpy(grid.zero.astype(np.int32)), grid)
        for place, grid in known.items()
        if grid.high <= 255  # biases in 32 bits lose nothing
    }

    def seen(node: str, name: str, tensor: Tensor) -> Tensor:
        place = ready.get((node, name))
        if place is None:
            return tensor
        scale, zero, grid = place
        if grid.axis is None:
            return torch.fake_quantize_per_tensor_affine(tensor, scale[0], zero[0], grid.low, grid.high)
        return torch.fake_quantize_per_channel_affine(tensor, scale, zero, grid.axis, grid.low, grid.high)

    return seen
