"""What a head is: pure functions from a graph's outputs to boxes in input pixels. A head never imports a vendor."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.contract.card import HeadName, InputSpec
from edge.contract.errors import UnusableError
from edge.detector.detections import Detections, Floats, Ints
from edge.detector.letterbox import Size
from edge.detector.runtime import Outputs

MAX_BOXES = 300

Shapes = Mapping[str, tuple[int, ...]]


class Head(Protocol):
    """One way of laying out a detector's outputs. The modules of this package are heads."""

    NAME: HeadName
    LAYOUT: str
    """The outputs it decodes, for people."""
    INPUT: InputSpec
    """What a model with this head is fed when no card says otherwise; its size is a default too."""

    def recognises(self, shapes: Shapes, input_size: Size) -> bool:
        """Return whether outputs of these shapes, for an input of (width, height), have this layout."""

    def class_count(self, shapes: Shapes) -> int | None:
        """Return how many classes the outputs tell apart, None when their shapes do not say.

        Raises `UnusableError` when the outputs do not have this layout.
        """

    def decode(self, outputs: Outputs, *, input_size: Size, score_threshold: float) -> Detections:
        """Return at most `MAX_BOXES` boxes in input pixels, best first.

        Boxes may reach outside the input. A score that is NaN reaches every threshold and stands first: whoever asked
        drops it and knows. Raises `UnusableError` when the outputs do not have this layout.
        """


def best_first(xyxy: Floats, score: Floats, class_id: Ints, *, limit: int = MAX_BOXES) -> Detections:
    """Return the best boxes in descending order of score, NaN first; equal scores keep their order."""
    order = len(score) - 1 - np.argsort(score[::-1], kind="stable")[::-1][:limit]
    return Detections(xyxy[order], score[order], class_id[order])


def reaches(score: Floats, threshold: float) -> NDArray[np.bool_]:
    """Return where a score is at least the threshold, or NaN."""
    below = score < np.float32(threshold)
    return np.logical_not(below, out=below)


def corners(cxcywh: Floats) -> Floats:
    """Turn centre and size `[n, 4]` into the two corners `[n, 4]`."""
    half = cxcywh[:, 2:] / 2
    return np.concatenate([cxcywh[:, :2] - half, cxcywh[:, :2] + half], axis=1)


def cell_count(input_size: Size, strides: tuple[int, ...]) -> int:
    """Return how many cells the grids of these strides have over an input of (width, height)."""
    width, height = input_size
    return sum((width // stride) * (height // stride) for stride in strides)


def only_table(shapes: Shapes) -> tuple[int, int] | None:
    """Return rows and columns of the only output when it is one table, `[1, rows, columns]`, else None."""
    if len(shapes) != 1:
        return None
    shape = next(iter(shapes.values()))
    return (shape[1], shape[2]) if len(shape) == 3 and shape[0] == 1 else None


def wrong_layout(name: HeadName, layout: str, shapes: Shapes) -> UnusableError:
    """Say that the outputs are not what the head that a card names decodes."""
    return UnusableError(f"the head {name} decodes {layout}; the outputs are {listed(shapes)}")


def listed(shapes: Shapes) -> str:
    """Write names and shapes for a message."""
    return ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items()) or "none"
