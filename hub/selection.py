"""Which images teach the most: a choice over arrays. It opens nothing and is the same for the same input.

Laws:

1. At most `size` are chosen, each once, no two of one group, no two of one frame, none that `accept` refuses.
2. The gains do not rise from one choice to the next (until a limit has to be lifted, see below).
3. The same input gives the same choice.
4. No two near-duplicates: of one camera, at most `NEAR_MS` apart, frames alike by `NEAR_LIKENESS`. Neither is one
   chosen that is near to an image of an earlier batch.
5. `hard` and `easy` get their shares of what is chosen wherever there are enough of them, and fill what the others
   leave. `control` never gets more than its share: a frame drawn at random teaches little.

**Facility location x severity x novelty.** A choice is good when every candidate, weighed by its severity, has
something like itself among the chosen or in an earlier batch: the sum over candidates of `weight * similarity to the
nearest`. The gain of an image is what it adds to that sum. Many severe findings of one kind are worth one image of that
kind, then the next kind is; what an earlier batch has is covered already; what is like nothing else (junk, mostly)
stands only for itself. Similarity is the cosine of `hub.likeness`, less its mean over all pairs: two frames of one
fixed camera are no more alike than average merely for that. From `ENOUGH` on it counts as whole: what is so much alike
need not be shown twice.

**Hard and easy.** Hard: the detector was wrong (`missed`, `suspect`). Easy: it was right or merely unsure
(`low_confidence`), and `control`, a frame drawn at random, with a share of its own within the easy ones.

**Spread.** No camera and no hour of the day gives more than twice its even share, or more where the others cannot fill
the batch. When the batch cannot be filled, the limits are lifted in the order hour, camera, shares of hard and easy.

**Prefilter.** The choice is quadratic: of more than `PREFILTER` candidates only those that hub.thinning keeps.
"""

import heapq
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hub.likeness import Floats, Ints, codes, unit
from hub.thinning import Thinned

PREFILTER: Final = 2000
EVEN_SHARE_FACTOR: Final = 2.0
LEAST_WEIGHT: Final = 0.25
LEAST_GAIN: Final = 0.05  # of an image that is like no other; under it, it is much like one that was chosen before
NEAR_MS: Final = 3_000
NEAR_LIKENESS: Final = 0.99  # cosine of the frames' features: a street a fifth of a second later
ENOUGH: Final = 0.8
HOUR_MS: Final = 3_600_000


class Kind(IntEnum):
    """How the detector did on an image, see the module."""

    HARD = 0
    EASY = 1
    CONTROL = 2


class Pick(NamedTuple):
    """One choice: the candidate's number, what it added to the objective, and what it stands for in words.

    A candidate that was not chosen is stood for by the one of the chosen that it is most like.
    """

    candidate: int
    gain: float
    why: str


@dataclass(frozen=True, slots=True)
class Pool:
    """What may be chosen, or has been: n images, one value of each.

    Attributes:
        vectors: `[n, d]`, such as `hub.likeness.describe` gives; compared by their cosine.
        severity: `[n]`, 0..1.
        camera: whose image it is.
        group: the near-duplicate group.
        frame: which frame it is: the same for two findings of one frame.
        at_ms: UTC milliseconds.
        kind: see `Kind`.
        looks: `[n, k]`, what the whole frame looks like, of length 1 or zeros: such as `hub.likeness.centred` gives.
    """

    vectors: Floats
    severity: Sequence[float] | NDArray[np.floating]
    camera: Sequence[Hashable]
    group: Sequence[Hashable]
    frame: Sequence[Hashable]
    at_ms: Sequence[int]
    kind: Sequence[Kind]
    looks: Floats

    def __post_init__(self) -> None:
        lengths = [len(one) for one in (self.severity, self.camera, self.group, self.frame, self.at_ms, self.kind)]
        shapes = self.vectors.shape, self.looks.shape
        if any(len(shape) != 2 for shape in shapes) or {shape[0] for shape in shapes} | set(lengths) != {lengths[0]}:
            msg = f"expected vectors [n, d], looks [n, k] and n of each; got {shapes} and {lengths}"
            raise ValueError(msg)
        if not all(np.isfinite(numbers).all() for numbers in (self.vectors, self.severity, self.looks)):
            msg = "vectors, severity and looks must be finite"
            raise ValueError(msg)

    def take(self, kept: Sequence[int] | NDArray[np.intp]) -> "Pool":
        """Return the pool of these candidates."""
        return Pool(
            vectors=self.vectors[kept],
            severity=np.asarray(self.severity)[kept],
            camera=[self.camera[index] for index in kept],
            group=[self.group[index] for index in kept],
            frame=[self.frame[index] for index in kept],
            at_ms=[self.at_ms[index] for index in kept],
            kind=[self.kind[index] for index in kept],
            looks=self.looks[kept],
        )


class Shares(NamedTuple):
    """How much of a batch is hard and how much is control, 0..1, together at most 1; the rest is easy."""

    hard: float
    control: float

    def of(self, size: int) -> tuple[int, int, int]:
        """Return how many images of each `Kind` a batch of `size` has."""
        hard = round(self.hard * size)
        control = min(round(self.control * size), size - hard)
        return hard, size - hard - control, control


def select(
    pool: Pool,
    size: int,
    *,
    shares: Shares,
    earlier: Pool | None = None,
    thinned: Thinned | None = None,
    accept: Callable[[int], bool] = lambda _: True,
) -> list[Pick]:
    """Choose up to `size` of n candidates, best first. Fewer come back when there are fewer groups.

    Args:
        pool: the candidates, not many more than `PREFILTER`: their similarities are `n * n` numbers.
        size: how many are wanted.
        shares: of the kinds.
        earlier: what earlier batches have, of the same `d` and `k`.
        thinned: what each of the n stands for; None: each for itself.
        accept: asked of each that is about to be chosen, once; one that it refuses is passed over.
    """
    vectors = unit(pool.vectors)
    weight = weights(pool.severity) if thinned is None else thinned.weight
    cosine = vectors @ vectors.T
    average = _average(cosine, weight)
    similarity = _similarity(cosine, average)
    np.fill_diagonal(similarity, 1.0)
    covered = np.zeros(len(vectors), np.float32)
    if earlier is not None and len(earlier.vectors):
        covered = _similarity(vectors @ unit(earlier.vectors).T, average).max(axis=1)
    chosen = _greedy(
        similarity, weight, covered=covered.copy(), rules=_Rules(pool, size, shares, earlier), accept=accept
    )
    count = np.ones(len(vectors), np.int64) if thinned is None else thinned.count
    stand_for = _stand_for(similarity, [index for index, _ in chosen], covered=covered, count=count)
    return [
        Pick(index, gain, _why(like_it, gain, seen=float(covered[index])))
        for (index, gain), like_it in zip(chosen, stand_for, strict=True)
    ]


def weights(severity: Sequence[float] | NDArray[np.floating]) -> NDArray[np.float64]:
    """Return what candidates count by their severity, `[n]`."""
    return LEAST_WEIGHT + (1 - LEAST_WEIGHT) * np.clip(np.asarray(severity, np.float64), 0.0, 1.0)


def even_cap(counts: Sequence[int], size: int) -> int:
    """Return how many of `size` images one place, such as a camera, may give: twice the even share, or what fills it.

    `counts` are the candidates of each.
    """
    if not counts:
        return 0
    wanted = min(size, sum(counts))
    cap = max(1, math.ceil(EVEN_SHARE_FACTOR * size / len(counts)))
    while sum(min(count, cap) for count in counts) < wanted:
        cap += 1
    return cap


class _Rules:
    """What may still be chosen. `limits`: of each candidate the number of its place, and how many a place may give."""

    def __init__(self, pool: Pool, size: int, shares: Shares, earlier: Pool | None) -> None:
        self.size = size
        self._group, self._frame, self._camera = codes(pool.group), codes(pool.frame), codes(pool.camera)
        self._at_ms = np.array(pool.at_ms, np.int64)
        self._looks = pool.looks
        self._out = np.zeros(len(pool.camera), np.bool_)
        hard, easy, control = shares.of(size)
        kind, hour = np.array(pool.kind, np.int64), codes([at_ms // HOUR_MS % 24 for at_ms in pool.at_ms])
        self._limits = [
            (hour, self._cap(hour)),
            (self._camera, self._cap(self._camera)),
            (kind, np.array([hard, easy, control])),
            (kind, np.array([size, size, control])),  # this one is never lifted
        ]
        self._given = [np.zeros(len(cap), np.int64) for _, cap in self._limits]
        if earlier is not None:
            self._shut_near(earlier, dict(zip(pool.camera, self._camera.tolist(), strict=True)))

    def is_out(self, index: int) -> bool:
        """Whether this candidate can never be chosen any more."""
        return bool(self._out[index])

    def is_over(self, index: int) -> bool:
        """Whether a limit holds this candidate back."""
        return any(
            given[of[index]] >= cap[of[index]] for (of, cap), given in zip(self._limits, self._given, strict=True)
        )

    def lift(self) -> bool:
        """Lift the first limit that is left; return whether there was one."""
        if len(self._limits) == 1:
            return False
        del self._limits[0], self._given[0]
        return True

    def take(self, index: int) -> None:
        """Count a choice, and shut out what may not stand beside it."""
        for (of, _), given in zip(self._limits, self._given, strict=True):
            given[of[index]] += 1
        self._out |= (self._group == self._group[index]) | (self._frame == self._frame[index])
        self._out |= self._near(self._camera[index], self._at_ms[index], self._looks[index])

    def refuse(self, index: int) -> None:
        """Shut out one candidate."""
        self._out[index] = True

    def _cap(self, place: Ints) -> Ints:
        # Groups, not findings, bound what a camera can give.
        pairs = np.unique(np.stack([place, self._group]), axis=1)[0] if len(place) else place
        counts = np.bincount(pairs)
        return np.full(len(counts), even_cap(counts.tolist(), self.size))

    def _near(self, camera: int, at_ms: int, looks: Floats) -> NDArray[np.bool_]:
        near: NDArray[np.bool_] = (self._camera == camera) & (np.abs(self._at_ms - at_ms) <= NEAR_MS)
        at = np.flatnonzero(near)
        near[at] = self._looks[at] @ looks >= NEAR_LIKENESS
        return near

    def _shut_near(self, earlier: Pool, cameras: Mapping[Hashable, int]) -> None:
        for camera, at_ms, looks in zip(earlier.camera, earlier.at_ms, earlier.looks, strict=True):
            if (number := cameras.get(camera)) is not None:
                self._out |= self._near(number, at_ms, looks)


def _greedy(
    similarity: Floats, weight: NDArray[np.float64], *, covered: Floats, rules: _Rules, accept: Callable[[int], bool]
) -> list[tuple[int, float]]:
    """Choose by lazy greedy: a gain can only have fallen since it was last computed (Minoux, 1978)."""
    gains = [float(weight @ np.maximum(row - covered, 0.0)) for row in similarity]
    heap = [(-gain, index, 0) for index, gain in enumerate(gains)]
    heapq.heapify(heap)
    held_back: list[tuple[float, int, int]] = []
    picks: list[tuple[int, float]] = []
    while len(picks) < rules.size and (heap or held_back):
        if not heap:
            if not rules.lift():
                break
            heap, held_back = held_back, []
            heapq.heapify(heap)
        negative, index, computed_at = heapq.heappop(heap)
        if rules.is_out(index):
            continue
        if rules.is_over(index):
            held_back.append((negative, index, computed_at))
        elif computed_at < len(picks):
            gain = float(weight @ np.maximum(similarity[index] - covered, 0.0))
            heapq.heappush(heap, (-gain, index, len(picks)))
        elif accept(index):
            picks.append((index, -negative))
            rules.take(index)
            covered = np.maximum(covered, similarity[index])
        else:
            rules.refuse(index)
    return picks


def _stand_for(similarity: Floats, chosen: Sequence[int], *, covered: Floats, count: Ints) -> list[int]:
    """Return for how many others each of the chosen is the nearest.

    What is like none of them, or more like an earlier batch, counts nowhere.
    """
    if not chosen:
        return []
    at = np.array(chosen)
    near = similarity[at]
    owner = np.where(near.max(axis=0) > covered, near.argmax(axis=0), -1)
    owner[at] = np.arange(len(at))
    mine = owner >= 0
    total = np.bincount(owner[mine], weights=count[mine], minlength=len(at))
    stand_for: list[int] = (total.astype(np.int64) - 1).tolist()
    return stand_for


def _why(stands_for: int, gain: float, *, seen: float) -> str:
    if stands_for:
        return f"stands for {stands_for} more like it"
    if gain >= LEAST_GAIN:
        return "like no other finding"
    return "much like an earlier batch" if seen > 0.5 else "fills the batch"


def _average(cosine: Floats, weight: NDArray[np.float64]) -> float:
    """Return the mean cosine of two findings drawn by weight, 0 to .99."""
    total = float(weight.sum())
    even = weight.astype(np.float32)  # of another type, the whole of `cosine` would be copied
    return min(max(float(even @ (cosine @ even)) / total**2, 0.0), 0.99) if total else 0.0


def _similarity(cosine: Floats, average: float) -> Floats:
    """Return cosines less their average: 1 from `ENOUGH` on, never negative."""
    similarity: Floats = np.clip((cosine - average) / (1.0 - average) / ENOUGH, 0.0, 1.0).astype(np.float32)
    return similarity
