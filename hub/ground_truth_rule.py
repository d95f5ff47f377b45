"""The rule by which Amazon SageMaker Ground Truth labels bounding boxes by machine, for comparison. Pure.

People label 10 images, then 190, then 200 at a time. After each such iteration from the second on, the threshold is the
smallest confidence whose images, among those that people have labelled, have a mean IoU of at least .6 with the
people's boxes; what is unlabelled and reaches it is labelled by the machine.

The confidence of an image is the mean of its boxes' scores. For an image on which the machine sees nothing that mean is
undefined: such an image is never labelled by this rule, and has no part in its threshold. An object without a box of
the machine's costs nothing; that is why images that the rule accepts can be unusable.
"""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from hub.confidence import Boxes, best_iou

LEAST_IOU: Final = 0.6
ITERATIONS: Final = (10, 190, 200)  # the last again and again


class Measured(NamedTuple):
    """An image that people have labelled: the mean score of the machine's boxes, and their mean IoU."""

    confidence: float
    iou: float


def mean_score(boxes: Boxes) -> float | None:
    """Return the confidence of an image, None without any box."""
    return sum(box.score or 0.0 for box in boxes) / len(boxes) if boxes else None


def mean_iou(machine: Boxes, truth: Boxes) -> float | None:
    """Return the mean over the machine's boxes of their IoU with the best true box of their label; None without any."""
    overlap = best_iou(machine, truth)
    return sum(overlap) / len(overlap) if overlap else None


def iterations() -> Iterator[int]:
    """Yield how many images people label in each iteration, without end."""
    yield from ITERATIONS
    while True:
        yield ITERATIONS[-1]


def finished(images: int) -> tuple[int, int]:
    """Return how many of so many images are of iterations that are finished, and how many the next one lacks.

    At least two must be finished before the machine labels anything: with less, none counts as finished.
    """
    whole = 0
    for number, size in enumerate(iterations()):
        if whole + size > images:
            return (whole if number >= 2 else 0), whole + size - images + (ITERATIONS[1] if number == 0 else 0)
        whole += size
    raise AssertionError  # it has no end


def threshold(measured: Sequence[Measured]) -> float | None:
    """Return the smallest confidence whose images have a mean IoU of at least `LEAST_IOU`; None: there is none."""
    for least in sorted({one.confidence for one in measured}):
        reached = [one.iou for one in measured if one.confidence >= least]
        if sum(reached) / len(reached) >= LEAST_IOU:
            return least
    return None
