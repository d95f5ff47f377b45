"""Light, noise and colour of a picture, as a camera's device measures them and the hub does again.

It owns the measures; edge.tags says from which figure on they are a word. All of it is defined for every non-empty
picture: black ones, regions of one pixel, regions partly or wholly outside the frame.

Law: every figure of `Light` is finite and not negative.
"""

import math
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.contract.samples import Light, Xyxy
from edge.frame import Image

Gray = NDArray[np.uint8]
Floats = NDArray[np.float32]

MIN_LIGHT_SIDE_PX: Final = 8
MIN_NOISE_SIDE_PX: Final = 96
MAX_NOISE_SIDE_PX: Final = 256
NOISE_SCALE: Final = 2.0
"""The surroundings in which noise is measured, times the region's sides."""
GRAYSCALE_CHROMA: Final = 0.04
GRAYSCALE_TINT: Final = 0.15

_BLOCK_PX: Final = 8
_LOWEST_SHARE: Final = 0.1
_LOWEST_OF_NOISE: Final = 0.8  # of the mean of all: where the lower decile of 8x8 blocks of nothing but noise lies
_CLIPPED_LOW: Final = 4.0
_CLIPPED_HIGH: Final = 251.0
_CELLS: Final = (32, 24)
_LUMA: Final = np.array([0.114, 0.587, 0.299], np.float32)  # of blue, green, red: BT.601
_CLIPPED: Final = 235.0
_GREY_SHARE: Final = 0.95
_NO_CHROMA: Final = 2.5  # grey levels: what rounding and JPEG alone make of a weak tint


def measure_light(gray: Gray, region: Xyxy) -> Light:
    """Return what a grey frame `[height, width]` is like at a region, in grey levels of 0..255.

    `brightness` is the mean and `contrast` the standard deviation over the region. `sharpness` is the variance of the
    4-neighbour Laplacian over the region at the frame's own scale; noise of sigma s alone adds `20 * s ** 2` to it.
    These three look at no less than 8x8 pixels. `noise` is `noise_sigma` over the region with context, no less than
    96x96 pixels and no more than the middle 256x256.
    """
    size = (gray.shape[1], gray.shape[0])
    x1, y1, x2, y2 = window(region, size, scale=1.0, min_side_px=MIN_LIGHT_SIDE_PX)
    brightness, contrast = _mean_and_deviation(gray[y1:y2, x1:x2])
    top, left = max(0, y1 - 1), max(0, x1 - 1)
    around = cv2.Laplacian(gray[top : y2 + 1, left : x2 + 1], cv2.CV_16S)
    _, roughness = _mean_and_deviation(around[y1 - top : y2 - top, x1 - left : x2 - left])
    nx1, ny1, nx2, ny2 = window(region, size, scale=NOISE_SCALE, min_side_px=MIN_NOISE_SIDE_PX)
    return Light(
        brightness=round(brightness, 2),
        contrast=round(contrast, 2),
        noise=round(noise_sigma(_middle(gray[ny1:ny2, nx1:nx2])), 3),
        sharpness=round(roughness * roughness, 2),
    )


def noise_sigma(gray: Gray) -> float:
    """Return the standard deviation of the noise of a grey picture, in grey levels; 0 under 3x3 pixels.

    Immerkaer (1996), the mean response to a mask that cancels planes and straight edges, but over blocks of 8x8, of
    which the lower decile counts: texture and outlines do not pass for noise while a tenth of the blocks is free of
    them. Blocks that are clipped to black or white show no noise and are left out while there are others. It is made
    for a hundred blocks and more; of a single block it tells a quarter too much.
    """
    if min(gray.shape) < 3:
        return 0.0
    response = cv2.Sobel(gray, cv2.CV_16S, 2, 2)  # Immerkaer's mask
    responses, levels = _block_means(np.abs(response).astype(np.float32)), _block_means(gray)
    usable = (levels > _CLIPPED_LOW) & (levels < _CLIPPED_HIGH)
    if usable.any():
        responses = responses[usable]
    at = int(_LOWEST_SHARE * (len(responses) - 1))
    return float(np.partition(responses, at)[at]) / _LOWEST_OF_NOISE * math.sqrt(math.pi / 2) / 6


def is_grayscale(image: Image) -> bool:
    """Whether a BGR frame `[height, width, 3]` has no colours, as at night under infrared light.

    One weak tint over the whole frame, in proportion to its brightness, is no colour: cameras' white balance leaves it.
    """
    step = max(1, min(image.shape[1] // _CELLS[0], image.shape[0] // _CELLS[1]) // 4)
    cells = cv2.resize(image[::step, ::step], _CELLS, interpolation=cv2.INTER_AREA).reshape(-1, 3).astype(np.float32)
    luma = cells @ _LUMA
    cells, luma = cells[luma < _CLIPPED], luma[luma < _CLIPPED]
    if not luma.any():
        return not np.ptp(image, axis=2).any()
    chroma = cells - luma[:, None]
    tint = (chroma * luma[:, None]).sum(axis=0) / (luma * luma).sum()
    apart = np.abs(chroma - tint * luma[:, None]).max(axis=1)
    at = int(_GREY_SHARE * (len(apart) - 1))
    allowed = max(GRAYSCALE_CHROMA * float(luma.mean()), _NO_CHROMA)
    return float(np.partition(apart, at)[at]) <= allowed and float(np.abs(tint).max()) <= GRAYSCALE_TINT


def window(region: Xyxy, size: tuple[int, int], *, scale: float, min_side_px: int) -> tuple[int, int, int, int]:
    """Return whole-pixel `xyxy` inside a picture of `size` (width, height): never empty, wherever the region lies."""
    x1, x2 = _span(region[0], region[2], size[0], scale=scale, min_side_px=min_side_px)
    y1, y2 = _span(region[1], region[3], size[1], scale=scale, min_side_px=min_side_px)
    return x1, y1, x2, y2


def _span(start: float, stop: float, limit: int, *, scale: float, min_side_px: int) -> tuple[int, int]:
    center = (start + stop) / 2
    half = max((stop - start) * scale, float(min_side_px)) / 2
    low = min(max(math.floor(center - half), 0), limit - 1)
    high = min(max(math.ceil(center + half), low + 1), limit)
    if high - low < min_side_px:
        low = max(0, min(low, limit - min_side_px))
        high = min(limit, low + min_side_px)
    return low, high


def _middle(gray: Gray) -> Gray:
    top, left = (max(0, side - MAX_NOISE_SIDE_PX) // 2 for side in gray.shape)
    return gray[top : top + MAX_NOISE_SIDE_PX, left : left + MAX_NOISE_SIDE_PX]


def _mean_and_deviation(plane: NDArray[np.integer | np.floating]) -> tuple[float, float]:
    mean, deviation = cv2.meanStdDev(plane)
    return float(mean[0, 0]), float(deviation[0, 0])


def _block_means(plane: NDArray[np.generic]) -> Floats:
    """Return the mean of every 8x8 block that fits; of the whole plane where none does."""
    rows, columns = plane.shape[0] // _BLOCK_PX, plane.shape[1] // _BLOCK_PX
    if rows == 0 or columns == 0:
        return np.array([plane.mean()], np.float32)
    whole = np.asarray(plane[: rows * _BLOCK_PX, : columns * _BLOCK_PX], np.float32)
    return np.asarray(cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA).ravel(), np.float32)
