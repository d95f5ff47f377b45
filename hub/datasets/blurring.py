"""Blur of a picture, or of the objects in it: a straight smear or a Gaussian, of a length that was measured."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from hub.datasets.measured_noise import Blur
from hub.datasets.version import MemberBox

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

LEAST_PX: Final = {"motion": 2.0, "defocus": 0.7}
"""What is shorter cannot be seen, and is left out."""
MOST_PX: Final = {"motion": 80.0, "defocus": 24.0}
_SOFT: Final = 0.08  # of the shorter side: how softly an object's blur ends around its box
_STEPS: Final = 8  # a pixel


def blur_all(image: Image, blur: Blur) -> tuple[Image, list[str]]:
    """Return a BGR picture as a camera that is shaken, or out of focus, sees it, with the word for it."""
    extent_px = _extent_px(blur, blur.side * image.shape[1])
    if extent_px is None:
        return image, []
    return np.asarray(cv2.filter2D(image, -1, _mask(blur, extent_px), borderType=cv2.BORDER_REFLECT), np.uint8), [
        _word(blur, extent_px)
    ]


def blur_boxes(image: Image, boxes: Sequence[MemberBox], blurs: Sequence[Blur]) -> tuple[Image, list[str]]:
    """Return a BGR picture with each object blurred as it moved, or is out of focus, and the words for it.

    `blurs` has one a box; the blur ends softly around the box. An ignored box stays as it is.
    """
    done = image
    words = []
    for box, blur in zip(boxes, blurs, strict=True):
        x1, y1, x2, y2 = box.xyxy
        extent_px = _extent_px(blur, min(x2 - x1, y2 - y1))
        if extent_px is None or box.ignored:
            continue
        around = math.ceil(extent_px) + math.ceil(3 * _softness(box)) + 2
        left, top = max(0, math.floor(x1) - around), max(0, math.floor(y1) - around)
        right, bottom = min(image.shape[1], math.ceil(x2) + around), min(image.shape[0], math.ceil(y2) + around)
        if right - left < 4 or bottom - top < 4:
            continue
        if done is image:
            done = image.copy()
        crop = done[top:bottom, left:right]
        smeared = cv2.filter2D(crop, -1, _mask(blur, extent_px), borderType=cv2.BORDER_REPLICATE).astype(np.float32)
        share = _share(box, left=left, top=top, shape=(bottom - top, right - left))[:, :, None]
        crop[:] = np.rint(crop + (smeared - crop) * share).astype(np.uint8)
        words.append(f"{_word(blur, extent_px)} on {box.label}")
    return done, [f"{word} x{count}" if count > 1 else word for word, count in Counter(words).items()]


def _extent_px(blur: Blur, side_px: float) -> float | None:
    if not blur.kind:
        return None
    extent_px = blur.extent * side_px
    return min(extent_px, MOST_PX[blur.kind]) if extent_px >= LEAST_PX[blur.kind] else None


def _mask(blur: Blur, extent_px: float) -> Floats:
    """Return the filter, odd sides, whose sum is 1."""
    if blur.kind == "defocus":
        bell = cv2.getGaussianKernel(2 * math.ceil(3 * extent_px) + 1, extent_px, cv2.CV_32F)
        return np.asarray(bell @ bell.T, np.float32)
    reach = math.ceil(extent_px / 2) + 1
    along = np.linspace(-extent_px / 2, extent_px / 2, _STEPS * math.ceil(extent_px) + 1)
    angle = math.radians(blur.degrees)
    x, y = reach + along * math.cos(angle), reach + along * math.sin(angle)
    mask = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    column, row = np.floor(x).astype(int), np.floor(y).astype(int)
    for i in (0, 1):
        for j in (0, 1):
            weight = np.abs(1 - i - (y - row)) * np.abs(1 - j - (x - column))
            np.add.at(mask, (np.minimum(row + i, 2 * reach), np.minimum(column + j, 2 * reach)), weight)
    return np.asarray(mask / mask.sum(), np.float32)


def _share(box: MemberBox, *, left: int, top: int, shape: tuple[int, int]) -> Floats:
    """Return how much of the blur every pixel of a crop gets: 1 in the box, softly to 0 around it."""
    x1, y1, x2, y2 = box.xyxy
    rows, columns = np.arange(shape[0], dtype=np.float32) + top, np.arange(shape[1], dtype=np.float32) + left
    soft = _softness(box)
    across = np.clip(1 - np.maximum(x1 - columns, columns - x2) / (2 * soft), 0, 1)
    down = np.clip(1 - np.maximum(y1 - rows, rows - y2) / (2 * soft), 0, 1)
    return np.asarray(down[:, None] * across[None, :], np.float32)


def _softness(box: MemberBox) -> float:
    x1, y1, x2, y2 = box.xyxy
    return max(1.0, _SOFT * min(x2 - x1, y2 - y1))


def _word(blur: Blur, extent_px: float) -> str:
    if blur.kind == "defocus":
        return f"defocus {extent_px:.1f} px"
    return f"blur {extent_px:.0f} px at {blur.degrees:.0f} deg"
