"""What a model says of images when it may look closer: the whole frame and enlarged tiles of it, kept in the database.

A model is called by its release, its input and how it looked: another look is another model. The opinion has every box
from `LEAST_SCORE` up: what is nearly believed says how sure the rest is.

How it looks was chosen on coco128 and the first half of `vtest.avi`: AP50 of the starter model's boxes, and processor
time an image.

    input  enlarged   vtest  coco128   seconds
    320        -       .88     .37       .03
    640        -       .89     .51       .11
    320       x 2      .90     .48       .26
    320       x 3      .91     .48       .50
    416       x 2      .93     .51       .40
    512       x 1.5    .91     .54       .45
    512       x 2      .93     .54       .61
    640       x 1.5    .91     .54       .60

Law: the same image and the same model give the same opinion; it is looked at once.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import numpy as np

from edge.contract.card import ModelCard
from edge.contract.errors import UnusableError
from edge.detector.detections import Detections
from edge.detector.detector import Detector, open_detector
from edge.detector.pictures import decode_jpeg
from edge.detector.tiling import detect_tiled
from hub.annotation import Annotation, is_drawable
from hub.store import Store

LEAST_SCORE: Final = 0.05
ENLARGE: Final = 2.0
INPUT: Final = (512, 512)  # where the model takes any size
MODEL: Final = "model"
_KEPT_TOGETHER: Final = 16


class Onlooker:
    """A model that looks at frames on the hub."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        width, height = detector.input_size
        self.name = f"{_file_of(detector.card)}@{width}x{height}x{ENLARGE:g}"

    @classmethod
    def open(cls, model: Path | None = None, *, input_size: tuple[int, int] | None = None) -> "Onlooker":
        """Open an ONNX model, None: the starter, at `input_size`, else `INPUT`, else the only size that it takes.

        Raises `UnusableError`.
        """
        if input_size is None:
            try:
                return cls(open_detector(model, input_size=INPUT))
            except UnusableError:  # a fixed size; any other cause is told by the next line
                return cls(open_detector(model))
        return cls(open_detector(model, input_size=input_size))

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it can tell."""
        return self._detector.labels

    @property
    def score_threshold(self) -> float:
        """The score from which a box counts as found."""
        return self._detector.score_threshold

    def look(self, jpeg: bytes) -> tuple[Annotation, ...]:
        """Return what it sees, best first, with scores, of origin `MODEL`. Raises `UnusableError` for a broken JPEG."""
        image = decode_jpeg(jpeg)
        seen = detect_tiled(self._detector, image, score_threshold=LEAST_SCORE, enlarge=ENLARGE)
        return _annotations(seen, self.labels)


def _file_of(card: ModelCard) -> str:
    """Return the release and the start of the file's hash: another file is another model, whatever its card says."""
    digits = card.sha256[:8]
    return card.release if card.release.endswith(digits) else f"{card.release}-{digits}"


def opinions(
    store: Store, onlooker: Onlooker, event_ids: Iterable[str], *, on_image: Callable[[], None] = lambda: None
) -> dict[str, tuple[Annotation, ...]]:
    """Return what the model sees on each image; it looks at those that it has not seen yet, and keeps that.

    `on_image` is called after each. Raises `UnusableError` when a frame is not here.
    """
    found: dict[str, tuple[Annotation, ...]] = {}
    new: dict[str, tuple[Annotation, ...]] = {}
    for event_id in event_ids:
        known = store.labels.opinion(event_id, onlooker.name)
        if known is None:
            known = new[event_id] = onlooker.look(store.frame(event_id))
        if len(new) >= _KEPT_TOGETHER:
            store.labels.add_opinions(onlooker.name, new)
            new = {}
        found[event_id] = known
        on_image()
    if new:
        store.labels.add_opinions(onlooker.name, new)
    return found


def _annotations(seen: Detections, labels: tuple[str, ...]) -> tuple[Annotation, ...]:
    kept = seen.take(np.array([at for at, xyxy in enumerate(seen.xyxy.tolist()) if is_drawable(xyxy)], np.intp))
    return tuple(
        Annotation(tuple(map(float, xyxy)), labels[class_id], float(score), MODEL)  # type: ignore[arg-type]
        for xyxy, score, class_id in zip(kept.xyxy, kept.score, kept.class_id, strict=True)
    )
