"""What findings are like, as vectors: alike where their cosine is near 1.

Laws:

1. A vector has length 1, and its cosine with another is a weighted mean of likenesses, weighed by `SHARES`.
2. Vectors of different models are not compared: features of two models count as unlike.

The pooled features are of the whole frame, and a fixed camera's frames are all alike: so each model's vectors are
compared by what differs from their mean, and the region's place, size and light, the label and the reason count beside
them. A fraction enters as an angle of 0 to 180 degrees: alike is 1, opposite ends are -1. What is not known of a trait
(no features, no light) has no part in it.
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
    "features": 0.35,
    "place": 0.15,
    "size": 0.15,
    "light": 0.15,
    "label": 0.1,
    "reason": 0.1,
}


@dataclass(frozen=True, slots=True)
class Trait:
    """What tells one finding from another. Fractions are clipped to 0..1.

    Attributes:
        features: the model's pooled vector of the whole frame; may be empty.
        space: whose vector it is: vectors of different models are not compared.
        place: centre of the region, fractions of the frame's width and height.
        size: shorter and longer side of the region, as `log_fraction` of pixels.
        light: brightness, contrast, noise and sharpness, as fractions; None when it is not known.
        label: suspected in the region.
        reason: why it was mined.
    """

    features: NDArray[np.int8]
    space: str
    place: tuple[float, float]
    size: tuple[float, float]
    light: tuple[float, float, float, float] | None
    label: str
    reason: str


def describe(traits: Sequence[Trait]) -> Floats:
    """Return `[n, d]` vectors as law 1 says."""
    if not traits:
        return np.zeros((0, 1), np.float32)
    blocks = {
        "features": centred([trait.features for trait in traits], [trait.space for trait in traits]),
        "place": _angles([trait.place for trait in traits]),
        "size": _angles([trait.size for trait in traits]),
        "light": _angles([trait.light or (0.0, 0.0, 0.0, 0.0) for trait in traits]),
        "label": _one_hot([trait.label for trait in traits]),
        "reason": _one_hot([trait.reason for trait in traits]),
    }
    blocks["light"][[trait.light is None for trait in traits]] = 0.0
    return unit(np.concatenate([block * np.float32(math.sqrt(SHARES[name])) for name, block in blocks.items()], axis=1))


def centred(features: Sequence[NDArray[np.int8]], spaces: Sequence[str]) -> Floats:
    """Return `[n, d]` vectors of length 1: each less the mean of its space; zeros for one that has no features."""
    kinds = codes([(space, len(vector)) for space, vector in zip(spaces, features, strict=True)])
    out = np.zeros((len(features), max(map(len, features), default=0)), np.float32)
    for kind in range(int(kinds.max(initial=-1)) + 1):
        at: list[int] = np.flatnonzero(kinds == kind).tolist()
        if length := len(features[at[0]]):
            vectors = np.stack([features[index] for index in at]).astype(np.float32)
            out[at, :length] = unit(vectors - vectors.mean(axis=0))
    return out


def unit(vectors: Floats) -> Floats:
    """Return the vectors `[n, d]` at length 1; zeros stay zeros."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    divided: Floats = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return divided


def log_fraction(value: float, low: float, high: float) -> float:
    """Return where a value lies between two positive bounds on a logarithmic scale, 0..1."""
    return min(1.0, max(0.0, math.log(max(value, low) / low) / math.log(high / low)))


def codes(values: Sequence[Hashable]) -> Ints:
    """Number the different values in order of their first appearance."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], np.int64)


def _angles(fractions: Sequence[Sequence[float]]) -> Floats:
    angle = np.clip(np.array(fractions, np.float32), 0.0, 1.0) * np.float32(math.pi)
    around = np.concatenate([np.cos(angle), np.sin(angle)], axis=1) / math.sqrt(angle.shape[1])
    return around.astype(np.float32)


def _one_hot(names: Sequence[str]) -> Floats:
    numbers = codes(names)
    out = np.zeros((len(names), int(numbers.max()) + 1), np.float32)
    out[np.arange(len(names)), numbers] = 1.0
    return out
