"""What findings are like, as vectors: alike where their cosine is near 1.

Laws:

1. A vector has length 1, and its cosine with another is a weighted mean of likenesses, weighed by `SHARES`.
2. Vectors of different models are not compared: features of two models count as unlike.

The pooled features are of the whole frame, and a fixed camera's frames are all alike: so each model's vectors are
compared by what differs from their mean, and the region's place, size and light and the label count beside them. Near
the mean is ordinary, and what is ordinary is alike: were the small rest there brought to length 1, the findings of a
very frequent kind, which is the mean, would be told apart by their noise. A fraction enters as an angle of 0 to 180
degrees: alike is 1, opposite ends are -1. What is not known of a trait (no features, no light) has no part in it.

Why a finding was mined has no part in it either: missed or merely unsure, it shows the same, and a batch has
shares of both.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

SHARES: Final = {
    "features": 0.4,
    "place": 0.15,
    "size": 0.15,
    "light": 0.15,
    "label": 0.15,
}
FAR: Final = 0.95  # the quantile of the features' distances from their mean from where on nothing is ordinary in them
SIZE_PX: Final = (4.0, 1024.0)


@dataclass(frozen=True, slots=True)
class Traits:
    """What tells n findings from one another, one value of each.

    Attributes:
        features: `[k]` int8, the model's pooled vector of the whole frame; k may be 0.
        space: whose vector it is: vectors of different models are not compared.
        place: `[n, 4]`, the region's `xyxy` in fractions of the frame's width and height.
        size_px: `[n, 2]`, the region's two sides in pixels of the original frame, in any order.
        label: suspected in the region.
        light: `[n, 4]`, brightness, contrast, noise and sharpness as fractions; rows of NaN where it is not known.
            None: known of none.
    """

    features: Sequence[NDArray[np.int8]]
    space: Sequence[str]
    place: Sequence[Sequence[float]] | Floats
    size_px: Sequence[Sequence[float]] | Floats
    label: Sequence[str]
    light: Floats | None = None


def describe(traits: Traits) -> Floats:
    """Return `[n, d]` vectors as law 1 says. Fractions are clipped to 0..1."""
    n = len(traits.label)
    if not n:
        return np.zeros((0, 1), np.float32)
    place: Floats = np.array(traits.place, np.float32)
    sides: Floats = np.sort(np.array(traits.size_px, np.float32), axis=1)
    blocks = {
        "features": centred(traits.features, traits.space),
        "place": _angles((place[:, :2] + place[:, 2:]) / np.float32(2)),
        "size": _angles(log_fraction(sides, *SIZE_PX)),
        "light": np.zeros((n, 0), np.float32) if traits.light is None else _angles(traits.light),
        "label": _one_hot(traits.label),
    }
    return unit(np.concatenate([block * np.float32(math.sqrt(SHARES[name])) for name, block in blocks.items()], axis=1))


def centred(features: Sequence[NDArray[np.int8]], spaces: Sequence[str]) -> Floats:
    """Return `[n, d]` vectors of length 1, zeros for one that has no features.

    Each is what differs from the mean of its space, over the distance that is `FAR` from it there or its own, if that
    is longer; the last column is what is left to length 1: how ordinary it is.
    """
    kinds = codes([(space, len(vector)) for space, vector in zip(spaces, features, strict=True)])
    out = np.zeros((len(features), max(map(len, features), default=0) + 1), np.float32)
    for kind in range(int(kinds.max(initial=-1)) + 1):
        at: list[int] = np.flatnonzero(kinds == kind).tolist()
        if length := len(features[at[0]]):
            vectors = np.stack([features[index] for index in at]).astype(np.float32)
            vectors -= vectors.mean(axis=0)
            distance = np.linalg.norm(vectors, axis=1)
            far = np.maximum(distance, max(float(np.quantile(distance, FAR)), 1e-6))
            out[at, :length] = vectors / far[:, None]
            out[at, -1] = np.sqrt(np.maximum(0.0, 1.0 - (distance / far) ** 2))
    return out


def unit(vectors: Floats) -> Floats:
    """Return the vectors `[n, d]` at length 1; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    divided: Floats = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return divided


def log_fraction(values: Floats, low: float, high: float) -> Floats:
    """Return where values lie between two positive bounds on a logarithmic scale, 0..1."""
    fraction: Floats = np.log(np.clip(values, low, high) / low) / np.float32(math.log(high / low))
    return fraction


def codes(values: Sequence[Hashable]) -> Ints:
    """Number the different values in order of their first appearance."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], np.int64)


def _angles(fractions: Floats) -> Floats:
    angle = np.clip(fractions, 0.0, 1.0) * np.float32(math.pi)
    around = np.concatenate([np.cos(angle), np.sin(angle)], axis=1) / np.float32(math.sqrt(angle.shape[1]))
    known: Floats = np.nan_to_num(around, nan=0.0).astype(np.float32)
    return known


def _one_hot(names: Sequence[str]) -> Floats:
    numbers = codes(names)
    out = np.zeros((len(names), int(numbers.max()) + 1), np.float32)
    out[np.arange(len(names)), numbers] = 1.0
    return out
