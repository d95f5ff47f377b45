"""What is odd about an annotation beside the others of its label and camera. It needs no model. Pure.

For labels that a model does not know this is all that the audit can say. It says little: the probabilities are set, not
fitted, and stay low but for doubled boxes.

Law: the oddities do not depend on the order of boxes or images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from edge.detector.detections import box_iou
from hub.annotation import Annotation
from hub.evidence import Page, Signs, corners

ENOUGH: Final = 8  # boxes of other images, to know what is usual

_DOUBLED_IOU: Final = 0.8
_DOUBLED: Final = 0.45  # of each of two boxes: one of them is extra
_ODD: Final = 3.0  # spreads from the middle, from which it is odd
_LEAST: Final = 0.01
_MOST: Final = 0.5
_FAR: Final = 0.2  # of the frame's diagonal: nothing of the label was ever drawn so near


@dataclass(frozen=True, slots=True)
class Oddity:
    """An annotation that stands out; `index` points into the boxes of its page."""

    index: int
    kind: Literal["badly_placed", "extra"]
    probability: float
    why: str


def oddities(pages: Sequence[Page], labels: frozenset[str]) -> dict[str, list[Oddity]]:
    """Return what stands out among the boxes of these labels, by the name of the page, in the order of its boxes.

    Raises nothing; a label with fewer than `ENOUGH` boxes in other images is only searched for doubles.
    """
    every = [(page, at, box) for page in pages for at, box in enumerate(page.boxes) if box.label in labels]
    found: dict[str, list[Oddity]] = {page.name: [] for page in pages}
    for page, at, box in every:
        others = [
            (other, drawn)
            for other, _, drawn in every
            if drawn.label == box.label and other.name != page.name and other.camera == page.camera
        ]
        oddity = _doubled(page, at) or _odd(page, at, others)
        if oddity is not None:
            found[page.name].append(oddity)
    return found


def doubles(page: Page) -> list[Oddity]:
    """Return the boxes of a page that are drawn twice, in their order."""
    return [found for at in range(len(page.boxes)) if (found := _doubled(page, at)) is not None]


def _doubled(page: Page, at: int) -> Oddity | None:
    box = page.boxes[at]
    same = [i for i, other in enumerate(page.boxes) if other.label == box.label and i != at]
    overlap = box_iou(corners([box]), corners([page.boxes[i] for i in same]))[0]
    if not (overlap >= _DOUBLED_IOU).any():
        return None
    return Oddity(at, "extra", _DOUBLED, f"drawn twice: two boxes overlap by {overlap.max():.2f}")


def _odd(page: Page, at: int, others: Sequence[tuple[Page, Annotation]]) -> Oddity | None:
    if len(others) < ENOUGH:
        return None
    mine = _shape(page, page.boxes[at])
    usual = np.array([_shape(other, box) for other, box in others])
    if page.camera and float(np.hypot(*(usual[:, 2:] - mine[2:]).T).min()) > _FAR:
        return Oddity(at, "extra", 0.1, f"no {page.boxes[at].label} was drawn near this place before")
    middle = np.median(usual[:, :2], axis=0)
    spread = np.maximum(1.4826 * np.median(np.abs(usual[:, :2] - middle), axis=0), 0.15)
    off: Signs = np.abs(mine[:2] - middle) / spread
    if off.max() < _ODD:
        return None
    what = "size" if off[0] >= off[1] else "shape"
    probability = float(np.clip(_LEAST * 2 ** (off.max() - _ODD), _LEAST, _MOST))
    return Oddity(
        at, "badly_placed", probability, f"odd {what} for {page.boxes[at].label}: {off.max():.0f} x its spread"
    )


def _shape(page: Page, box: Annotation) -> Signs:
    """Return log side, log aspect, and the centre in shares of the frame's diagonal."""
    x1, y1, x2, y2 = box.xyxy
    diagonal = float(np.hypot(*page.size))
    return np.array(
        [
            np.log(np.sqrt((x2 - x1) * (y2 - y1)) / diagonal),
            np.log((x2 - x1) / (y2 - y1)),
            (x1 + x2) / 2 / diagonal,
            (y1 + y2) / 2 / diagonal,
        ]
    )
