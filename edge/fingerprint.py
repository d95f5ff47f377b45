"""What a frame looks like at a region, in a few numbers: two perceptual hashes, and its light.

It owns the measures; what is alike or noteworthy is the hub's to say. All of it is defined for every non-empty
picture: black ones, regions of one pixel, regions partly or wholly outside the frame.

Laws:

1. A hash has `HASH_BYTES` bytes; a flat picture (any single grey) hashes to all zeros, by either hash.
2. `quantize_features(v) == quantize_features(k * v)` for every k > 0.
"""

import math
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.contract.samples import Light, Xyxy
from edge.detector.light import measure_light, window
from edge.frame import Image

Gray = NDArray[np.uint8]
Floats = NDArray[np.float32]

HASH_BYTES: Final = 32
CONTEXT_SCALE: Final = 2.0

_HASH_SIDE: Final = 64
_HASH_FREQUENCIES: Final = 16
_CROP_COEFFICIENTS: Final = 64
_CROP_LEVELS: Final = (0.25, 0.6)
_FLAT_COEFFICIENT: Final = 0.01


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """How a finding is recognised again. Both hashes are 64 hexadecimal digits, as `Finding` carries them.

    Attributes:
        crop_hash: `level_hash` of the region with its context, `CONTEXT_SCALE` times its sides.
        frame_hash: `perceptual_hash` of the whole frame.
        light: brightness, contrast, noise and sharpness at the region.
    """

    crop_hash: str
    frame_hash: str
    light: Light


def fingerprint(image: Image, region: Xyxy) -> Fingerprint:
    """Return the fingerprint of a BGR frame `[height, width, 3]` at a finite region, `xyxy` pixels of that frame."""
    gray = _gray(image)
    return Fingerprint(
        crop_hash=level_hash(crop_with_context(gray, region)).hex(),
        frame_hash=perceptual_hash(gray).hex(),
        light=measure_light(gray, region),
    )


def perceptual_hash(gray: Gray) -> bytes:
    """Return the 256-bit hash of a grey picture `[height, width]`.

    As in PDQ (Facebook, 2019): averaged down to 64x64, a 2-D DCT, the 16x16 lowest frequencies without the constant
    row and column, one bit each: above their median or not. The size and the aspect of the picture do not enter.
    Frequencies weaker than `0.01` grey levels count as none, so rounding on different machines cannot flip their bits.
    """
    low = _frequencies(gray)[1:, 1:]
    return np.packbits(low > np.median(low)).tobytes()


def level_hash(gray: Gray) -> bytes:
    """Return the 256-bit hash of a grey crop `[height, width]` whose edges are not exact.

    The same DCT, but only its 64 lowest frequencies (by row + column, without the constant), each in five levels: four
    bits say whether it lies above -b, -a, a and b, where a and b are the .25 and .6 quantiles of the magnitudes. A box
    that a detector places a few per cent off flips the fine frequencies of `perceptual_hash` at random; these it only
    moves by a level.
    """
    low = _frequencies(gray)[_LOWEST]
    small, large = np.quantile(np.abs(low), _CROP_LEVELS)
    return np.packbits(np.concatenate([low > -large, low > -small, low > small, low > large])).tobytes()


def crop_with_context(image: NDArray[np.uint8], region: Xyxy, scale: float = CONTEXT_SCALE) -> NDArray[np.uint8]:
    """Return the part of `image` around `region`, `scale` times its sides, cut at the borders; a view, never empty."""
    x1, y1, x2, y2 = window(region, (image.shape[1], image.shape[0]), scale=scale, min_side_px=1)
    return image[y1:y2, x1:x2]


def quantize_features(vector: NDArray[np.floating]) -> bytes:
    """Return the L2-normalised vector times 127 as int8, one byte a value.

    No features, or features that are not finite, give no bytes; a zero vector gives zeros.
    """
    values = np.asarray(vector, np.float64).ravel()
    if not np.isfinite(values).all():
        return b""
    largest = float(np.abs(values).max(initial=0.0))
    if largest > 0:
        values = values / largest
        values = values / np.linalg.norm(values)
    return np.rint(values * 127).astype(np.int8).tobytes()


def _frequencies(gray: Gray) -> NDArray[np.float64]:
    """Return the DCT-II of the picture at 64x64: rows and columns 0..16, frequencies of no strength set to 0."""
    if gray.ndim != 2 or gray.size == 0:
        msg = f"expected a grey picture [height, width], got {gray.shape}"
        raise ValueError(msg)
    small = cv2.resize(gray.astype(np.float32), (_HASH_SIDE, _HASH_SIDE), interpolation=cv2.INTER_AREA)
    low: NDArray[np.float64] = _DCT @ small.astype(np.float64) @ _DCT.T
    low[np.abs(low) < _FLAT_COEFFICIENT] = 0.0
    return low


def _gray(image: Image) -> Gray:
    if image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        msg = f"expected a BGR frame [height, width, 3], got {image.shape}"
        raise ValueError(msg)
    gray: Gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    return gray


def _dct_rows() -> NDArray[np.float64]:
    """Return rows 0..16 of the orthonormal DCT-II of 64 points."""
    frequency = np.arange(_HASH_FREQUENCIES + 1)[:, None]
    point = np.arange(_HASH_SIDE)[None, :]
    rows: NDArray[np.float64] = math.sqrt(2 / _HASH_SIDE) * np.cos(
        math.pi * frequency * (2 * point + 1) / (2 * _HASH_SIDE)
    )
    rows[0] /= math.sqrt(2)
    return rows


def _lowest_frequencies() -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return rows and columns of the lowest frequencies, by row + column, the constant left out."""
    rows, columns = np.indices((_HASH_FREQUENCIES + 1, _HASH_FREQUENCIES + 1))
    order = np.lexsort((rows.ravel(), (rows + columns).ravel()))[1 : 1 + _CROP_COEFFICIENTS]
    return rows.ravel()[order], columns.ravel()[order]


_DCT: Final = _dct_rows()
_LOWEST: Final = _lowest_frequencies()
