"""What does not move in a fixed camera's picture is annotated once: its box is carried over from an earlier frame.

A box is suggested again where the picture has not changed. Both pictures are compared as fields of gradients, by their
correlation: light that changes and noise leave it high, another object or none brings it down. That of the whole box
with some of its surroundings says whether the picture is the same one; that of its parts, whether something stands in
front. A box without enough texture is not carried, however alike both pictures are: it proves nothing.

Measured on `vtest.avi`, frames 12 to 120 apart, boxes of people carried to where nobody is any more, and those of 21
things that do not move, also in darker, brighter and noisier copies (`python -m tests.benchmarks carried`): of 1,449
places that a person had left none was carried, of things that nobody touched 99.6 % were. The gap is wide: no place
that a person has left correlates above .68, 99 % of the things do above .86. A hash of 256 bits or the correlation of
grey levels tells the two apart nearly as well; a histogram does not once the light changes.

Laws:

1. The same two pictures and boxes give the same suggestions, in the order of the boxes.
2. A suggestion has place and label of the box that it comes from.
3. Pictures of different sizes carry nothing.
"""

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.detector.detections import box_iou
from hub.annotation import CARRIED, Annotation, Xyxy
from hub.contact_sheet import Image

SAME_CORRELATION: Final = 0.8
PART_CORRELATION: Final = 0.5  # a part below it has changed
CHANGED_PARTS: Final = 0.2  # the most of the parts with texture
TEXTURED_PARTS: Final = 0.3  # the least of all parts
TEXTURE: Final = 1.0  # grey levels a pixel, root mean square of the gradient
THERE_IOU: Final = 0.5

_SURROUNDINGS: Final = 0.1  # of the shorter side
_LEAST_SURROUNDINGS_PX: Final = 3
_SMOOTHING_PX: Final = 1.2
_PARTS: Final = 6  # along the longer side
_LEAST_PART_PX: Final = 6

_Floats = NDArray[Any]


def carried(
    before: Image, now: Image, boxes: Sequence[Annotation], *, there: Sequence[Annotation] = ()
) -> tuple[Annotation, ...]:
    """Return the boxes of an earlier frame that still fit, with their correlation for a score.

    Args:
        before: a BGR picture `[h, w, 3]` of a camera that does not move.
        now: another one of it.
        boxes: what a person drew on `before`, inside it.
        there: what is proposed for `now` already: a box of the same label that overlaps one of these is not repeated.
    """
    if before.shape != now.shape:
        return ()
    grey_before, grey_now = (cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) for image in (before, now))
    found = []
    for box in boxes:
        same = [one.xyxy for one in there if one.label == box.label]
        if same and box_iou(np.array([box.xyxy], np.float32), np.array(same, np.float32)).max() >= THERE_IOU:
            continue
        alike = unchanged(grey_before, grey_now, box.xyxy)
        if alike is not None:
            found.append(Annotation(box.xyxy, box.label, alike, CARRIED))
    return tuple(found)


def unchanged(before: Image, now: Image, xyxy: Xyxy) -> float | None:
    """Return the correlation, 0..1, of a place in two grey pictures `[h, w]` uint8 that shows the same in both.

    None where it shows something else, where something stands in front, and where it has too little texture to say.
    """
    a, b = (_gradients(_cut(image, xyxy)) for image in (before, now))
    both, of_a, of_b = _in_parts(a, b), _in_parts(a, a), _in_parts(b, b)
    gain = float(of_b.sum() / max(of_a.sum(), 1e-9))
    textured = of_a >= TEXTURE**2
    told = textured | (of_b >= TEXTURE**2 * max(gain, 1e-3))
    if textured.mean() < TEXTURED_PARTS:
        return None
    changed = both < PART_CORRELATION * np.sqrt(of_a * of_b)
    correlation = float(both.sum() / max(float(np.sqrt(of_a.sum() * of_b.sum())), 1e-9))
    if correlation < SAME_CORRELATION or changed[told].mean() > CHANGED_PARTS:
        return None
    return min(1.0, correlation)


def _cut(image: Image, xyxy: Xyxy) -> _Floats:
    """Return the box with some of its surroundings, `[h, w]` float32."""
    height, width = image.shape
    x1, y1, x2, y2 = xyxy
    more = max(_LEAST_SURROUNDINGS_PX, _SURROUNDINGS * min(x2 - x1, y2 - y1))
    left, top = max(0, int(x1 - more)), max(0, int(y1 - more))
    cut = image[top : min(height, int(y2 + more) + 1), left : min(width, int(x2 + more) + 1)]
    return cut.astype(np.float32)


def _gradients(picture: _Floats) -> _Floats:
    """Return the gradient of each pixel, grey levels a pixel, `[h, w, 2]`."""
    smooth = cv2.GaussianBlur(picture, (0, 0), _SMOOTHING_PX)
    return np.stack([cv2.Sobel(smooth, cv2.CV_32F, *axis, ksize=3, scale=1 / 8) for axis in ((1, 0), (0, 1))], axis=-1)


def _in_parts(a: _Floats, b: _Floats) -> _Floats:
    """Return the mean product of two fields in each part of the box, `[rows, columns]`."""
    height, width = a.shape[:2]
    side = max(_LEAST_PART_PX, max(height, width) / _PARTS)
    rows, columns = (np.linspace(0, n, max(1, round(n / side)) + 1).astype(int) for n in (height, width))
    sums = np.add.reduceat(np.add.reduceat((a * b).sum(axis=-1), rows[:-1], axis=0), columns[:-1], axis=1)
    means: _Floats = sums / np.outer(np.diff(rows), np.diff(columns))
    return means
