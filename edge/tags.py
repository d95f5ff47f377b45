"""Tags that a device can measure at a place in a frame: few, each by one rule. edge/TAGS.md says what each means.

Laws:

1. A place has exactly one tag of size.
2. A place that is not the whole frame has exactly one of `left`, `middle`, `right` and one of `top`, `centre`,
   `bottom`.
3. `motion_blur` comes with exactly one direction, and never with `defocus`.
4. Only words of `edge.contract.tags.DEVICE_TAGS` are given, in that order, each once.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import cv2
import numpy as np

from edge.contract.samples import Light, Xyxy
from edge.detector.blur import MIN_SIDE_PX, Spreads, edge_spreads
from edge.detector.light import is_grayscale
from edge.frame import Image

TINY_PX: Final = 8.0
SMALL_PX: Final = 16.0
MEDIUM_PX: Final = 32.0
DARK: Final = 50.0
BRIGHT: Final = 205.0
FLAT: Final = 12.0
NOISY: Final = 8.5
DEFOCUS_PX: Final = 1.5
MOTION_PX: Final = 2.0
MOTION_RATIO: Final = 0.6
CROWDED: Final = 3
CROWDED_REACH: Final = 1.5
OCCLUDED_SHARE: Final = 0.25
SAME_IOU: Final = 0.5
BORDER_PX: Final = 2.0
WIDE: Final = 2.0
TALL: Final = 3.0

_DIRECTIONS: Final = ("motion_horizontal", "motion_diagonal", "motion_vertical", "motion_diagonal")  # as in Spreads


def object_tags(
    image: Image, region: Xyxy, *, light: Light, input_scale: float, others: Sequence[Xyxy]
) -> tuple[str, ...]:
    """Return the tags of what is at a region, in a fixed order; never empty.

    Args:
        image: the frame, BGR `[height, width, 3]`.
        region: `xyxy` pixels of the frame.
        light: `edge.detector.light.measure_light` at the region, grey levels of 0..255.
        input_scale: model input pixels per frame pixel.
        others: the boxes of the frame at or above the threshold, `xyxy` pixels; the object's own may be among them.
    """
    size = (image.shape[1], image.shape[0])
    tags = [_size_tag(region, input_scale), *_light_tags(light)]
    if is_grayscale(image):
        tags.append("grayscale")
    border_px = max(BORDER_PX, 1 / input_scale)
    if not _fills(region, size, border_px):
        tags += told_of_blur(_spreads(image, region, light))
        tags += _company_tags(region, others)
        tags += _shape_tags(region, size, border_px)
        tags += _position_tags(region, size)
    return tuple(tags)


def _size_tag(region: Xyxy, input_scale: float) -> str:
    x1, y1, x2, y2 = region
    side = min(x2 - x1, y2 - y1) * input_scale
    return "tiny" if side < TINY_PX else "small" if side < SMALL_PX else "medium" if side < MEDIUM_PX else "big"


def _light_tags(light: Light) -> Iterator[str]:
    dark = light.brightness < DARK
    if dark:
        yield "dark"
    if light.brightness > BRIGHT:
        yield "bright"
    if light.contrast < FLAT and not dark:  # little light leaves little contrast: that is said already
        yield "flat"
    if light.noise > NOISY:
        yield "noisy"


def _spreads(image: Image, region: Xyxy, light: Light) -> Spreads:
    """Return the spreads of the edges in the region, as far as it lies in the frame."""
    x1, y1, x2, y2 = (max(0, round(edge)) for edge in region)
    crop = image[y1:y2, x1:x2]
    if min(crop.shape[:2]) < MIN_SIDE_PX:
        return Spreads(None, None, None, None)
    return edge_spreads(np.asarray(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), np.uint8), noise=light.noise)


def told_of_blur(spreads: Spreads) -> tuple[str, ...]:
    """Return `motion_blur` with its direction, `defocus`, or nothing."""
    known = [-1.0 if spread is None else spread for spread in spreads]
    most = max(range(4), key=known.__getitem__)
    across = known[(most + 2) % 4]
    if known[most] >= MOTION_PX and 0 <= across <= MOTION_RATIO * known[most]:
        return ("motion_blur", _DIRECTIONS[most])
    return ("defocus",) if min(known) >= DEFOCUS_PX else ()


def _company_tags(region: Xyxy, others: Iterable[Xyxy]) -> Iterator[str]:
    x1, y1, x2, y2 = region
    reach = CROWDED_REACH * max(x2 - x1, y2 - y1)
    near, hidden = 0, 0.0
    for other in others:
        covered = _intersection(region, other)
        both = _area(region) + _area(other) - covered
        if covered >= SAME_IOU * both:
            continue  # its own box
        near += math.hypot(other[0] + other[2] - x1 - x2, other[1] + other[3] - y1 - y2) < 2 * reach
        if other[3] > y2:
            hidden = max(hidden, covered)
    if near >= CROWDED:
        yield "crowded"
    if hidden >= OCCLUDED_SHARE * _area(region) > 0:
        yield "occluded"


def _shape_tags(region: Xyxy, size: tuple[int, int], border_px: float) -> Iterator[str]:
    x1, y1, x2, y2 = region
    if x1 < border_px or y1 < border_px or x2 > size[0] - border_px or y2 > size[1] - border_px:
        yield "border"
    if x2 - x1 >= WIDE * (y2 - y1):
        yield "wide"
    elif y2 - y1 >= TALL * (x2 - x1):
        yield "tall"


def _position_tags(region: Xyxy, size: tuple[int, int]) -> tuple[str, str]:
    x, y = (region[0] + region[2]) / 2 / size[0], (region[1] + region[3]) / 2 / size[1]
    return (
        "left" if x < 1 / 3 else "middle" if x < 2 / 3 else "right",
        "top" if y < 1 / 3 else "centre" if y < 2 / 3 else "bottom",
    )


def _fills(region: Xyxy, size: tuple[int, int], border_px: float) -> bool:
    """Whether the region is the whole frame."""
    x1, y1, x2, y2 = region
    return max(x1, y1) < border_px and x2 > size[0] - border_px and y2 > size[1] - border_px


def _area(box: Xyxy) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _intersection(a: Xyxy, b: Xyxy) -> float:
    across = min(a[2], b[2]) - max(a[0], b[0])
    down = min(a[3], b[3]) - max(a[1], b[1])
    return across * down if across > 0 and down > 0 else 0.0
