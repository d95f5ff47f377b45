"""What of a picture must not leave the device: ignore zones, and the people that a finding is not about.

Laws:

1. What is redacted is a copy. Outside the zones and the people's boxes it equals the picture, pixel for pixel.
2. Every pixel that a zone touches has one flat grey, and takes part in nothing else. It is painted before the JPEG is
   made, so that no compression carries a trace of what was there.
3. The finding's region stays as it is, save for the zones: the annotator must see what is claimed. Who else stands in
   it is seen too. A `control` claims nothing, and its region protects nothing: everybody is blurred.
4. A blurred box is a function of `CELLS` averages across its shorter side; what is finer than one of them is gone.

It blurs whom the detector sees, from `LOW_SCORE` up, who was seen a moment ago and is looked for, and whom a second
look saw before the frame was sealed. **Nobody can blur a person whom the detector does not see at all.** Where no one
may be shown, use an ignore zone. The pooled features of a finding are of the picture as the model saw it.
"""

import math
from collections.abc import Sequence
from typing import Final, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.config import Polygon
from edge.contract.errors import UnusableError
from edge.contract.samples import Xyxy
from edge.detector.detections import Detections, Floats
from edge.frame import Image
from edge.tracks import Link, Track

PERSON: Final = "person"
GREY: Final = 128
LOW_SCORE: Final = 0.1
MARGIN: Final = 0.1
HEAD: Final = 0.35
CLOSE_HEAD: Final = 0.6
CELLS: Final = 3
MIN_CELL_PX: Final = 12
_SIZES: Final = 4
_ROOM_PX: Final = 2

Blur = Literal["none", "heads", "people"]
Mask = NDArray[np.uint8]
Patch = tuple[int, int, int, int]


class Redaction:
    """The redaction of one camera's pictures. Two threads may use it at once.

    Args:
        ignore: zones, each 0..1 of the picture; one that crosses itself is filled whole.
        blur: `none`, `heads` or `people`.
        person_class: index of the label `person` in the model's labels, None where it has none.

    Raises `UnusableError` when people are to be blurred and the model knows none.
    """

    def __init__(self, *, ignore: tuple[Polygon, ...], blur: Blur, person_class: int | None) -> None:
        if blur != "none" and person_class is None:
            msg = f"[privacy] blur = {blur!r} needs a model with the label {PERSON!r}; this one has none"
            raise UnusableError(msg)
        self._ignore = ignore
        self._blur = blur
        self._person_class = person_class
        self._masks: dict[tuple[int, int], Mask] = {}

    def ignores(self, xyxy: Xyxy, size: tuple[int, int]) -> bool:
        """Return whether a place stands in the zones: its centre, or more than half of what the picture shows of it.

        Not for a `control`, whose place is the whole picture.

        Args:
            xyxy: the place, pixels of the picture.
            size: width and height of the picture.
        """
        patch = _clip(xyxy, size)
        if not self._ignore or patch is None:
            return False
        x1, y1, x2, y2 = patch
        mask = self._mask(size)
        if mask[(y1 + y2) // 2, (x1 + x2) // 2]:
            return True
        return 2 * cv2.countNonZero(mask[y1:y2, x1:x2]) > (x2 - x1) * (y2 - y1)

    def hidden(self, tracks: Sequence[Track]) -> Floats:
        """Return where people are whom the boxes of this frame do not show, `[n, 4]` pixels: for `redact`.

        They have no box, or one below `LOW_SCORE`. Take it at once: tracks go on with the next frame.
        """
        if self._blur == "none":
            return np.zeros((0, 4), np.float32)
        of_people = [t for t in tracks if t.class_id == self._person_class and t.score < LOW_SCORE]
        places = [t.xyxy if t.link is Link.NONE else t.box for t in of_people]
        return np.array(places, np.float32).reshape(-1, 4)

    def redact(self, image: Image, *, region: Xyxy | None, detections: Detections, hidden: Floats) -> Image:
        """Return a redacted copy, or the image itself when there is nothing to do.

        Args:
            image: `[height, width, 3]`; it is not written to.
            region: of the finding, pixels; None for a `control`.
            detections: all boxes of the frame, as weak as they come.
            hidden: `[n, 4]`, where people are beside them.
        """
        height, width = image.shape[:2]
        people = self._people(detections, hidden, (width, height))
        if not people and not self._ignore:
            return image
        redacted = image.copy()
        self._paint(redacted)
        if people:
            kept = None if region is None else _clip(region, (width, height))
            x1, y1, x2, y2 = kept or (0, 0, 0, 0)
            sharp = redacted[y1:y2, x1:x2].copy()
            for patch in people:
                _pixelate(redacted, patch)
            redacted[y1:y2, x1:x2] = sharp
            self._paint(redacted)
        return redacted

    def _paint(self, image: Image) -> None:
        if self._ignore:
            height, width = image.shape[:2]
            cv2.copyTo(np.full_like(image, GREY), self._mask((width, height)), image)

    def _people(self, detections: Detections, hidden: Floats, size: tuple[int, int]) -> list[Patch]:
        """Return what is to be blurred, pixels inside the picture."""
        if self._blur == "none":
            return []
        seen = (detections.class_id == self._person_class) & (detections.score >= LOW_SCORE)
        boxes = np.concatenate([detections.xyxy[seen], hidden])
        boxes = boxes[np.isfinite(boxes).all(axis=1)]
        wide = (widen_to_head(box) if self._blur == "heads" else widen(box) for box in boxes.tolist())
        return [patch for box in wide if (patch := _clip(box, size)) is not None]

    def _mask(self, size: tuple[int, int]) -> Mask:
        mask = self._masks.get(size)
        if mask is None:
            if len(self._masks) >= _SIZES:
                self._masks.clear()
            mask = self._masks[size] = zone_mask(self._ignore, size)
        return mask


def person_class(labels: Sequence[str]) -> int | None:
    """Return the index of the label `person`, None where there is none."""
    return labels.index(PERSON) if PERSON in labels else None


def zone_mask(zones: Sequence[Polygon], size: tuple[int, int]) -> Mask:
    """Return `[height, width]` uint8, 255 at every pixel that a zone touches, and at most two pixels beyond."""
    width, height = size
    union = np.zeros(
        (height + 2 * _ROOM_PX, width + 2 * _ROOM_PX), np.uint8
    )  # a corner may be rounded out of the frame
    for zone in zones:
        points = np.array(zone) * (width, height) - 0.5 + _ROOM_PX
        one = cv2.fillPoly(np.zeros_like(union), [np.rint(points).astype(np.int32)], (255,))
        # What crosses itself has holes by OpenCV's rule.
        outlines, _ = cv2.findContours(one, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(union, outlines, -1, (255,), cv2.FILLED)
    covered = cv2.dilate(union, np.ones((3, 3), np.uint8))
    return np.ascontiguousarray(covered[_ROOM_PX:-_ROOM_PX, _ROOM_PX:-_ROOM_PX], np.uint8)


def widen(xyxy: Sequence[float]) -> Xyxy:
    """Return the box with a margin: a detector's box is not exact."""
    x1, y1, x2, y2 = xyxy
    across, along = MARGIN * (x2 - x1), MARGIN * (y2 - y1)
    return x1 - across, y1 - along, x2 + across, y2 + along


def widen_to_head(xyxy: Sequence[float]) -> Xyxy:
    """Return the top of a person's box with a margin; more of it the wider it is, and all of one who may lie.

    Of one who stands the head is well within the upper third; of a bust in front of the camera it is most of the box.
    """
    x1, y1, x2, y2 = xyxy
    width, height = x2 - x1, y2 - y1
    head = height if width > height else max(HEAD * height, CLOSE_HEAD * width)
    left, top, right, bottom = widen(xyxy)
    return left, top, right, bottom if width > height else y1 + head


def _pixelate(image: Image, patch: Patch) -> None:
    """Replace a patch by few averages, and what lies between them by a smooth passage."""
    x1, y1, x2, y2 = patch
    width, height = x2 - x1, y2 - y1
    cell = max(MIN_CELL_PX, min(width, height) / CELLS)
    cells = (max(1, round(width / cell)), max(1, round(height / cell)))
    averages = cv2.resize(image[y1:y2, x1:x2], cells, interpolation=cv2.INTER_AREA)
    image[y1:y2, x1:x2] = cv2.resize(averages, (width, height), interpolation=cv2.INTER_LINEAR)


def _clip(xyxy: Xyxy, size: tuple[int, int]) -> Patch | None:
    """Return all pixels of the picture that a box touches, None when it touches none."""
    x1, y1, x2, y2 = xyxy
    left, top = max(0, math.floor(x1)), max(0, math.floor(y1))
    right, bottom = min(size[0], math.ceil(x2)), min(size[1], math.ceil(y2))
    return (left, top, right, bottom) if left < right and top < bottom else None


NO_REDACTION: Final = Redaction(ignore=(), blur="none", person_class=None)
