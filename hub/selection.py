"""Which images teach the most: a choice over arrays. It opens nothing and is the same for the same input.

Laws:

1. At most `size` are chosen, each once, no two of one group, no two of one frame.
2. The gains do not rise from one choice to the next (until a camera's cap has to be lifted, see below).
3. The same input gives the same choice.

**Facility location x severity.** A choice is good when every candidate, weighed by its severity, has something like
itself among the chosen: the sum over candidates of `weight * similarity to the nearest chosen`. The gain of an image is
what it adds to that sum. Many severe findings of one kind are worth one image of that kind, then the next kind is; what
is like nothing else (junk, mostly) stands only for itself. Similarity is the cosine of `describe`, less its mean over
all pairs: two frames of one fixed camera are no more alike than average merely for that.

**Spread over cameras.** No camera gives more than twice its even share, or more where the others cannot fill the batch.

**Prefilter.** Of more than `PREFILTER` candidates those are kept that come first when the cameras take turns, each with
its most severe. Greedy choice is quadratic in the candidates.

`control` findings are no candidates here: they are for rates, and a share of them in a batch is a decision of its own.
"""

import heapq
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

PREFILTER: Final = 2000
EVEN_SHARE_FACTOR: Final = 2.0
LEAST_WEIGHT: Final = 0.25
LEAST_GAIN: Final = 0.05  # of an image that is like no other; under it, it is much like one that was chosen before
SHARES: Final = {
    "features": 0.35,
    "place": 0.15,
    "size": 0.15,
    "light": 0.15,
    "label": 0.1,
    "reason": 0.1,
}


class Pick(NamedTuple):
    """One choice: the candidate's number, what it added to the objective, and what it stands for in words.

    A candidate that was not chosen is stood for by the one of the chosen that it is most like.
    """

    candidate: int
    gain: float
    why: str


@dataclass(frozen=True, slots=True)
class Trait:
    """What tells one finding from another. Fractions are clipped to 0..1.

    Attributes:
        features: the model's pooled vector of the whole frame; may be empty.
        space: whose vector it is: vectors of different models are not compared.
        place: centre of the region, fractions of the frame's width and height.
        size: shorter and longer side of the region, as `log_fraction` of pixels.
        light: brightness, contrast, noise and sharpness, as fractions.
        label: suspected in the region.
        reason: why it was mined.
    """

    features: NDArray[np.int8]
    space: str
    place: tuple[float, float]
    size: tuple[float, float]
    light: tuple[float, float, float, float]
    label: str
    reason: str


def select(
    features: NDArray[np.floating],
    severity: Sequence[float] | NDArray[np.floating],
    camera: Sequence[Hashable],
    group: Sequence[Hashable],
    size: int,
    *,
    frame: Sequence[Hashable] | None = None,
    prefilter: int = PREFILTER,
) -> list[Pick]:
    """Choose up to `size` of n candidates, best first.

    Args:
        features: `[n, d]`, such as `describe` gives; compared by their cosine.
        severity: `[n]`, 0..1.
        camera: `[n]`, whose image it is.
        group: `[n]`, the near-duplicate group.
        size: how many are wanted. Fewer come back when there are fewer groups.
        frame: `[n]`, which frame it is; None when no two candidates show the same one.
        prefilter: how many candidates the greedy choice may look at.

    Raises:
        ValueError: when the lengths differ or a number is not finite.
    """
    vectors, severities = np.asarray(features, np.float64), np.asarray(severity, np.float64)
    frames = frame if frame is not None else range(len(severities))
    if vectors.ndim != 2 or len({len(vectors), len(severities), len(camera), len(group), len(frames)}) > 1:
        msg = (
            f"expected features [n, d] and n of each; got {vectors.shape}, severity {len(severities)},"
            f" camera {len(camera)}, group {len(group)}, frame {len(frames)}"
        )
        raise ValueError(msg)
    if not (np.isfinite(vectors).all() and np.isfinite(severities).all()):
        msg = "features and severity must be finite"
        raise ValueError(msg)
    cameras = _codes(camera)
    kept = _first_in_turn(severities, cameras, prefilter)
    picks = _greedy(
        _similarity(vectors[kept]),
        LEAST_WEIGHT + (1 - LEAST_WEIGHT) * np.clip(severities[kept], 0.0, 1.0),
        camera=cameras[kept],
        group=_codes(group)[kept],
        frame=_codes(frames)[kept],
        size=size,
    )
    return [Pick(int(kept[pick.candidate]), pick.gain, pick.why) for pick in picks]


def describe(traits: Sequence[Trait]) -> Floats:
    """Return `[n, d]` vectors of length 1 whose cosine is a weighted mean of likenesses, weighed by `SHARES`.

    The pooled features are of the whole frame, and a fixed camera's frames are all alike: so each model's vectors are
    compared by what differs from their mean, and the region's place, size and light, the label and the reason count
    beside them. A fraction enters as an angle of 0 to 180 degrees: alike is 1, opposite ends are -1. A trait without
    features is compared by the rest.
    """
    if not traits:
        return np.zeros((0, 1), np.float32)
    blocks = {
        "features": _centred(traits),
        "place": _angles([trait.place for trait in traits]),
        "size": _angles([trait.size for trait in traits]),
        "light": _angles([trait.light for trait in traits]),
        "label": _one_hot([trait.label for trait in traits]),
        "reason": _one_hot([trait.reason for trait in traits]),
    }
    joined = np.concatenate([block * math.sqrt(SHARES[name]) for name, block in blocks.items()], axis=1)
    return _unit(joined).astype(np.float32)


def log_fraction(value: float, low: float, high: float) -> float:
    """Return where a value lies between two positive bounds on a logarithmic scale, 0..1."""
    return min(1.0, max(0.0, math.log(max(value, low) / low) / math.log(high / low)))


def camera_cap(counts: Sequence[int], size: int) -> int:
    """Return how many images one camera may give: twice the even share, or the least that fills the batch.

    `counts` are the candidates of each camera.
    """
    if not counts:
        return 0
    wanted = min(size, sum(counts))
    cap = max(1, math.ceil(EVEN_SHARE_FACTOR * size / len(counts)))
    while sum(min(count, cap) for count in counts) < wanted:
        cap += 1
    return cap


def _greedy(
    similarity: Floats, weight: NDArray[np.float64], *, camera: Ints, group: Ints, frame: Ints, size: int
) -> list[Pick]:
    """Choose by lazy greedy: a gain can only have fallen since it was last computed (Minoux, 1978)."""
    covered = np.zeros(len(weight), np.float32)
    taken: tuple[set[int], set[int]] = (set(), set())
    given = np.zeros(int(camera.max(initial=-1)) + 1, np.int64)
    # Groups, not findings, bound what a camera can give.
    pairs = np.unique(np.stack([camera, group]), axis=1)[0] if len(camera) else camera
    cap = camera_cap(np.bincount(pairs, minlength=len(given)).tolist(), size)
    heap = [(-float(gain), index, 0) for index, gain in enumerate(weight @ similarity)]
    heapq.heapify(heap)
    held_back: list[tuple[float, int, int]] = []
    picks: list[tuple[int, float]] = []
    while len(picks) < size and (heap or held_back):
        if not heap:  # groups or frames shared by cameras have kept the caps from filling the batch: lift them
            heap, held_back, cap = held_back, [], len(weight)
            heapq.heapify(heap)
        negative, index, computed_at = heapq.heappop(heap)
        if int(group[index]) in taken[0] or int(frame[index]) in taken[1]:
            continue
        if given[camera[index]] >= cap:
            held_back.append((negative, index, computed_at))
            continue
        added = np.maximum(similarity[index] - covered, 0.0)
        if computed_at < len(picks):
            heapq.heappush(heap, (-float(weight @ added), index, len(picks)))
            continue
        picks.append((index, -negative))
        taken[0].add(int(group[index]))
        taken[1].add(int(frame[index]))
        given[camera[index]] += 1
        covered = np.maximum(covered, similarity[index])
    stand_for = _shares(similarity, [index for index, _ in picks])
    return [Pick(index, gain, _why(count, gain)) for (index, gain), count in zip(picks, stand_for, strict=True)]


def _shares(similarity: Floats, chosen: Sequence[int]) -> list[int]:
    """Return for how many candidates each of the chosen is the nearest; what is like none of them counts nowhere."""
    if not chosen:
        return []
    near = similarity[np.array(chosen)]
    owner = np.where(near.max(axis=0) > 0, near.argmax(axis=0), -1)
    owner[np.array(chosen)] = -1
    counts: list[int] = np.bincount(owner[owner >= 0], minlength=len(chosen)).tolist()
    return counts


def _why(stands_for: int, gain: float) -> str:
    if stands_for:
        return f"stands for {stands_for} more like it"
    return "like no other finding" if gain >= LEAST_GAIN else "fills the batch"


def kept_of(severity: Sequence[float], camera: Sequence[Hashable], limit: int) -> list[int]:
    """Return which candidates the prefilter keeps, ascending: so that only those need be described."""
    kept: list[int] = _first_in_turn(np.asarray(severity, np.float64), _codes(camera), limit).tolist()
    return kept


def _first_in_turn(severity: NDArray[np.float64], camera: Ints, limit: int) -> NDArray[np.intp]:
    """Return the indices that are kept, ascending: the cameras take turns, each with its most severe first."""
    if len(severity) <= limit:
        return np.arange(len(severity))
    order = np.lexsort((np.arange(len(severity)), -severity, camera))
    starts = np.searchsorted(camera[order], camera[order], side="left")
    turn = np.arange(len(order)) - starts
    first = np.lexsort((order, -severity[order], turn))[:limit]
    return np.sort(order[first])


def _similarity(vectors: NDArray[np.float64]) -> Floats:
    """Return `[n, n]` cosines less their mean, 1 for a vector with itself, never negative."""
    unit = _unit(vectors).astype(np.float32)
    cosine = unit @ unit.T
    average = min(max(float(cosine.mean(dtype=np.float64)), 0.0), 0.99) if len(unit) else 0.0
    similarity: Floats = np.clip((cosine - average) / (1.0 - average), 0.0, 1.0).astype(np.float32)
    np.fill_diagonal(similarity, 1.0)
    return similarity


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float64] = np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)
    return unit


def _centred(traits: Sequence[Trait]) -> NDArray[np.float64]:
    spaces = [(trait.space, len(trait.features)) for trait in traits]
    out = np.zeros((len(traits), max(length for _, length in spaces)), np.float64)
    for space in sorted(set(spaces)):
        at = [index for index, other in enumerate(spaces) if other == space]
        vectors = np.array([traits[index].features for index in at], np.float64).reshape(len(at), space[1])
        out[at, : space[1]] = _unit(vectors - vectors.mean(axis=0))
    return out


def _angles(fractions: Sequence[Sequence[float]]) -> NDArray[np.float64]:
    angle = np.clip(np.array(fractions, np.float64), 0.0, 1.0) * math.pi
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1) / math.sqrt(angle.shape[1])


def _one_hot(names: Sequence[str]) -> NDArray[np.float64]:
    codes = _codes(names)
    return np.eye(int(codes.max()) + 1)[codes]


def _codes(values: Sequence[Hashable]) -> Ints:
    """Number the different values in order of their first appearance."""
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(value, len(known)) for value in values], np.int64)
