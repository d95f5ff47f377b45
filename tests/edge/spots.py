"""A street of blocks, and a detector that sees a dim block only when it is large enough in its input.

It stands in for the real detector where a test must know what can be seen at which size.
"""

import cv2
import numpy as np

from edge.contract.samples import Xyxy
from edge.detector.detections import Detections
from edge.detector.detector import Inference, Timings
from edge.frame import Image

BRIGHT, DIM = 250, 150
LABELS = ("person", "car")  # the class is the colour channel
EASY_PX, HARD_PX = 3, 12  # the least height in the input at which a bright and a dim block are seen


def street(*blocks: tuple[Xyxy, int], size: tuple[int, int] = (640, 480), class_id: int = 0) -> Image:
    """Return a picture of a size with blocks `(xyxy, level)`."""
    image = np.zeros((size[1], size[0], 3), np.uint8)
    for (x1, y1, x2, y2), level in blocks:
        image[round(y1) : round(y2), round(x1) : round(x2), class_id] = level
    return image


class SpotDetector:
    """Counts its inferences in `calls`. `weak`: the score of a dim block that is too small, 0: it is not seen."""

    labels = LABELS

    def __init__(self, *, input_size: tuple[int, int] = (160, 120), weak: float = 0.0) -> None:
        self.input_size = input_size
        self.weak = weak
        self.calls = 0

    def detect(self, image: Image, *, score_threshold: float = 0.05) -> Inference:
        self.calls += 1
        height, width = image.shape[:2]
        scale = min(self.input_size[0] / width, self.input_size[1] / height)
        small = cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))))
        ratio = np.array([width / small.shape[1], height / small.shape[0]] * 2)
        rows = [
            (np.array(xyxy) * ratio, score, class_id)
            for class_id in range(len(LABELS))
            for xyxy, score in self._spots(np.ascontiguousarray(small[:, :, class_id]))
            if score >= score_threshold
        ]
        rows.sort(key=lambda row: -row[1])
        found = Detections(
            np.array([row[0] for row in rows], np.float32).reshape(-1, 4),
            np.array([row[1] for row in rows], np.float32),
            np.array([row[2] for row in rows], np.int32),
        )
        return Inference(found, np.zeros(0, np.float32), Timings(0.0, 0.0, 0.0))

    def _spots(self, channel: np.ndarray) -> list[tuple[Xyxy, float]]:
        number, places, stats, _ = cv2.connectedComponentsWithStats((channel > DIM // 2).astype(np.uint8))
        spots = []
        for one in range(1, number):
            x, y, w, h = (int(value) for value in stats[one, :4])
            bright = int(channel[places == one].max()) > (BRIGHT + DIM) // 2
            score = 0.9 if h >= (EASY_PX if bright else HARD_PX) else self.weak
            if score > 0:
                spots.append(((x, y, x + w, y + h), score + min(0.05, h / 1e4)))
        return spots
