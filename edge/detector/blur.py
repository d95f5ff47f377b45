"""How far the edges of a grey crop are spread, by direction: what tells defocus and motion blur from a sharp picture.

The measure is the gradient ratio of Zhuo and Sim (Defocus map estimation from a single image, Pattern Recognition 44,
2011). An edge of spread s that is smoothed by r more keeps s / sqrt(s^2 + r^2) of its slope, however high it is; so s
follows from the slopes before and after. It is read where the slope is steepest, apart for four directions of the
gradient: defocus spreads every edge, motion only those that it crosses.

Noise would pass for sharp edges. The crop is smoothed first, more where there is more noise, and that smoothing is
subtracted again; what does not stand out of the remaining noise is no edge, and what that noise adds to the squared
slopes, which is known, is taken off.

Law: brightness and contrast do not enter, as long as the edges stand out.
"""

import math
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]

MIN_SIDE_PX: Final = 96
"""A smaller crop is not measured; a larger one is averaged down to this, so spreads are shares of the object."""
MAX_LENGTH_PX: Final = 160
"""Of the longer side, at that scale, only the middle is looked at."""
MAX_NOISE: Final = 12.0
"""Standard deviation of the noise, at that scale, in grey levels; above it the directions differ by chance."""

_LITTLE_NOISE: Final = 3.0
_SMOOTHING: Final = (1.0, 1.3)  # sigma in pixels: with little noise, and with more
_AGAIN: Final = 1.5  # the second smoothing, times the first
_MIN_SLOPE: Final = 2.0  # grey levels a pixel
_MIN_NOISES: Final = 5.0
_STEEPEST_SHARE: Final = 0.2
_MIN_PIXELS: Final = 60  # of a direction, that are edge at all
_MARGIN_PX: Final = 3
_MAX_SPREAD_PX: Final = 10.0


class Spreads(NamedTuple):
    """Standard deviation of the spread of the sharpest edges, by the direction in which it was measured.

    Pixels at the scale at which the crop's shorter side is `MIN_SIDE_PX`; None where there are too few edges. Motion in
    a direction spreads the edges in that direction: `falling` to the lower right, `rising` to the upper right.
    """

    horizontal: float | None
    falling: float | None
    vertical: float | None
    rising: float | None


NO_SPREADS: Final = Spreads(None, None, None, None)


def edge_spreads(gray: Gray, *, noise: float) -> Spreads:
    """Return how far the edges of a grey crop `[height, width]` are spread.

    `noise` is its `edge.detector.light.noise_sigma`, grey levels. A crop that is too small or too noisy has no spreads.
    """
    scale = MIN_SIDE_PX / min(gray.shape) if gray.size else math.inf
    noise *= max(0.5, min(1.0, scale))  # neighbours' noise is alike after a codec: it averages out less than on paper
    if scale > 1 or noise > MAX_NOISE:
        return NO_SPREADS
    first = _SMOOTHING[noise >= _LITTLE_NOISE]
    again = _AGAIN * first
    once = _smoothed(_at_scale(gray), first)
    twice = _smoothed(once, again)
    x, y, x2, y2 = (_slope(picture, axis) for picture in (once, twice) for axis in (0, 1))
    power = x * x + y * y
    # of white noise: the variance of a slope after the first smoothing, and its covariance with that after both
    variance = noise * noise / (8 * math.pi * first**4)
    covariance = noise * noise / (2 * math.pi * (2 * first * first + again * again) ** 2)
    least = max(_MIN_SLOPE, _MIN_NOISES * math.sqrt(variance))
    edge = np.flatnonzero(power > least * least)
    x, y, power = x[edge], y[edge], power[edge] - 2 * variance
    kept = x * x2[edge] + y * y2[edge] - 2 * covariance
    direction = np.rint(np.arctan2(y, x) * np.float32(4 / math.pi)).astype(np.int8) & 3
    return Spreads(*(_spread(power[mask], kept[mask], first, again) for mask in (direction == i for i in range(4))))


def _at_scale(gray: Gray) -> NDArray[np.float32]:
    """Return the middle of the crop with its shorter side `MIN_SIDE_PX` long."""
    while min(gray.shape) >= 2 * MIN_SIDE_PX:
        rows, columns = gray.shape[0] // 2, gray.shape[1] // 2
        gray = np.asarray(
            cv2.resize(gray[: 2 * rows, : 2 * columns], (columns, rows), interpolation=cv2.INTER_AREA), np.uint8
        )
    scale = MIN_SIDE_PX / min(gray.shape)
    reach = math.ceil(MAX_LENGTH_PX / scale)
    top, left = (max(0, side - reach) // 2 for side in gray.shape)
    gray = gray[top : top + reach, left : left + reach]
    size = (max(MIN_SIDE_PX, round(gray.shape[1] * scale)), max(MIN_SIDE_PX, round(gray.shape[0] * scale)))
    return np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), np.float32)


def _smoothed(picture: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    side = 2 * math.ceil(3 * sigma) + 1
    return np.asarray(cv2.GaussianBlur(picture, (side, side), sigma), np.float32)


def _slope(picture: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the slope of every inner pixel, grey levels a pixel, flat."""
    slope = cv2.Sobel(picture, cv2.CV_32F, 1 - axis, axis, scale=1 / 8)
    return np.asarray(slope[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX].ravel(), np.float32)


def _spread(power: NDArray[np.float32], kept: NDArray[np.float32], first: float, again: float) -> float | None:
    """Return the spread in pixels, from the squared slopes of edge pixels and their products after more smoothing."""
    if len(power) < _MIN_PIXELS:
        return None
    count = int(_STEEPEST_SHARE * len(power))
    steepest = np.argpartition(power, len(power) - count)[-count:]
    ratio = float(power[steepest].sum()) / max(float(kept[steepest].sum()), 1e-6)
    variance = again * again / max(ratio * ratio - 1, 1e-3) - first * first
    return math.sqrt(min(max(variance, 0.0), _MAX_SPREAD_PX**2))
