"""What a detector sees when it may look closer becomes boxes to learn from: no person is asked.

The teacher looks at the whole picture and at enlarged, overlapping tiles of it; the pupil learns to see the same in one
pass at its low resolution. The teacher is the deployed model itself, or a larger one.

Laws:

1. A box that the teacher is not sure of is ignored: neither an object to learn nor background.
2. Nothing is said of a label that the teacher does not know.
"""

from collections.abc import Collection
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.contract.errors import UnusableError
from edge.detector.detector import Detector, open_detector
from edge.detector.tiling import detect_tiled
from hub.datasets.version import MemberBox

INPUT: Final = (512, 512)  # where the teacher takes any size
ENLARGE: Final = 2.0
SURE: Final = 0.5
UNSURE: Final = 0.2  # below this nothing is there


def open_teacher(model: Path | None, teacher: Path | None = None) -> Detector:
    """Open the larger model, or the deployed one (None: the starter), at `INPUT`, else at the only size that it takes.

    Raises `UnusableError`, also when the two have no label in common.
    """
    detector = _open(model if teacher is None else teacher)
    if teacher is not None and not set(detector.labels) & set(_open(model).labels):
        msg = f"{teacher} knows none of the labels of the model that it shall teach"
        raise UnusableError(msg)
    return detector


def taught(
    detector: Detector, image: NDArray[np.uint8], *, labels: Collection[str] | None = None
) -> tuple[MemberBox, ...]:
    """Return what a teacher sees in a BGR picture `[h, w, 3]`, of these labels or of all that it knows, best first."""
    found = detect_tiled(detector, image, score_threshold=UNSURE, enlarge=ENLARGE)
    boxes = []
    for xyxy, score, class_id in zip(found.xyxy.tolist(), found.score.tolist(), found.class_id.tolist(), strict=True):
        label = detector.labels[class_id]
        if labels is None or label in labels:
            x1, y1, x2, y2 = (round(side, 1) for side in xyxy)
            sure = round(score, 4)
            boxes.append(MemberBox(xyxy=(x1, y1, x2, y2), label=label, origin="self", score=sure, ignored=score < SURE))
    return tuple(boxes)


def _open(model: Path | None) -> Detector:
    try:
        return open_detector(model, input_size=INPUT)
    except UnusableError:
        return open_detector(model)
