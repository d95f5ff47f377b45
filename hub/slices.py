"""Slices: which tags and conjunctions of tags hold the objects that are missed. Pure.

Rows are the *missed* objects (the cases) and the *found* ones (the controls, drawn at random from what the detector
sees). How many of each there are says nothing of the rate, so it is that of a case-control study of known prevalence p,
the base miss rate: with M missed and D found rows, M_T and D_T of them in the slice T,

    odds(T) = p / (1 - p) * (M_T / M) / (D_T / D),    rate = odds / (1 + odds).

The 95 % interval is Katz's for the logarithm of a ratio of two shares, with a half added to each count (Walter 1975). p
is taken as known.

Significance is the one-sided hypergeometric tail of M_T given the slice's size (Fisher's exact test). All conjunctions
of up to `max_depth` tags that have `min_support` rows, and fewer than one without their last tag or the one before it,
are tried, so the search is not steered by what it sees, and their number does not change when `missed` is shuffled.
Each tail is multiplied by the number tried at its depth and by the number of depths: by the union bound, shuffled rows
name anything with a chance of at most `alpha`. Tags that exclude each other have no common rows and do not count.

The most significant slice is named, its rows are left out, and the search is repeated on the others. From the second
name on the bound holds as if the names before were given; the benchmark counts what is named beside the planted.

Laws:

1. What is named does not depend on the order of the rows or of the tags.
2. A slice holds at least `min_support` rows that no slice named before it holds, with significantly many missed ones
   among them or among those of a narrower one that it stands for (law 3). Its rate is above that of all other rows.
3. A slice has no tag that chance may have added: one stays only if what is seen is likelier with it than without it by
   a factor of the number of tags, as so many could have been it.
4. Of tags that hold the same rows one is named: a measured one before a told one, and these in the order `label:`,
   `hours:`, `camera:`, `site:`. Nearly the same (`SAME_ROWS`) is enough for a measured one, if it tells as much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import erfc
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hub.conjunctions import TagRows, Tried, conjunctions, log_tails

SAME_ROWS: Final = 0.8
"""From this share of common rows (of all rows of either) two slices are one thing with two names."""
_TOLD: Final = ("label:", "hours:", "camera:", "site:")
_Z: Final = 1.959964  # 95 %
_WARY: Final = 0.1  # of alpha: a narrower name for no reason costs more than a wider one
_ODDS_RATIO: Final = np.array([1, -1, -1, 1])
_NEAR: Final = 200  # candidates that are compared, row by row, with the best one

Rows = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Rate:
    """The miss rate of a slice, 0..1.

    Attributes:
        missed: rows in the slice that are missed.
        found: rows in it that are found.
        rate: see the module. The base rate, between 0 and 1, where there is nothing to compare.
        low: lower end of the 95 % interval.
        high: upper end.
        against: the rate of all rows outside the slice.
    """

    missed: int
    found: int
    rate: float
    low: float
    high: float
    against: float


@dataclass(frozen=True, eq=False)
class Slice:
    """A conjunction of tags that is missed more often than the rest.

    Attributes:
        tags: at most `max_depth`, the one that tells most first.
        rate: over all rows.
        p_value: the chance that shuffled rows name a slice as clear as this; corrected for what was tried.
        score: (low - against) * sqrt(rows), to rank by: times rows, a large and vague slice would hide a clear one.
        members: `[n]` whether a row is in the slice.
    """

    tags: tuple[str, ...]
    rate: Rate
    p_value: float
    score: float
    members: Rows


@dataclass(frozen=True)
class _Candidate:
    """A conjunction: ascending columns, missed rows, all rows, log of the corrected p-value of what it stands for."""

    columns: tuple[int, ...]
    missed: int
    size: int
    log_p: float


def measure(inside: Rows, missed: Rows, *, base_rate: float) -> Rate:
    """Return the rate of the rows `[n]` inside. Raises ValueError on shapes that differ or a rate outside 0..1."""
    if inside.shape != missed.shape or inside.ndim != 1:
        msg = f"expected two masks of one shape [n], got {inside.shape} and {missed.shape}"
        raise ValueError(msg)
    _check_rate(base_rate)
    cases, controls = int(missed.sum()), int((~missed).sum())
    m, d = int((inside & missed).sum()), int((inside & ~missed).sum())
    rate, low, high = _interval(m, d, cases=cases, controls=controls, base_rate=base_rate)
    against, *_ = _interval(cases - m, controls - d, cases=cases, controls=controls, base_rate=base_rate)
    return Rate(missed=m, found=d, rate=rate, low=low, high=high, against=against)


def find_slices(
    names: Sequence[str],
    has: Rows,
    missed: Rows,
    *,
    base_rate: float,
    max_depth: int = 3,
    min_support: int = 25,
    alpha: float = 0.05,
    limit: int = 20,
) -> list[Slice]:
    """Return the slices that are missed significantly more often than the rest, highest score first.

    Nothing is named where rates cannot differ: with a base rate of 0 or 1, or without missed or without found rows.

    Args:
        names: of the t tags.
        has: `[n, t]` whether a row has a tag.
        missed: `[n]` whether a row is missed; the others are found.
        base_rate: share of all objects that is missed, 0..1.
        max_depth: most tags of a slice.
        min_support: fewest rows of a slice that is tried.
        alpha: chance that anything is named where nothing is to be found.
        limit: most slices.

    Raises:
        ValueError: on shapes that do not fit, a tag that comes twice, or a number out of its range.
    """
    if missed.ndim != 1 or has.shape != (len(missed), len(names)):
        msg = f"expected has [n, {len(names)}] and missed [n], got {has.shape} and {missed.shape}"
        raise ValueError(msg)
    if len(set(names)) < len(names):
        msg = "expected each tag once"
        raise ValueError(msg)
    if min(max_depth, min_support) < 1 or not 0 < alpha < 1:
        msg = f"expected depth and support >= 1 and 0 < alpha < 1, got {max_depth}, {min_support} and {alpha}"
        raise ValueError(msg)
    _check_rate(base_rate)
    if base_rate in {0.0, 1.0}:
        return []
    rest = _distinct(names, has, missed, min_support)
    tried = list(conjunctions(rest, max_depth, min_support))
    slices: list[Slice] = []
    while len(slices) < limit:
        best = _best(rest, tried, min_support=min_support, alpha=alpha)
        if best is None:
            break
        slices.append(_slice(names, has, missed, base_rate=base_rate, rows=rest, named=best))
        inside = rest.inside(best.columns)
        gone, rest = rest.only(inside), rest.only(~inside)
        tried = [depth.less(gone) for depth in tried]
    weaker = [one for one in slices if one.rate.rate > one.rate.against]
    return sorted(weaker, key=lambda one: (-one.score, one.tags))


def _slice(
    names: Sequence[str], has: Rows, missed: Rows, *, base_rate: float, rows: TagRows, named: _Candidate
) -> Slice:
    """Return what was named, measured on all rows."""
    tags = tuple(rows.tags[column] for column in _by_weight(rows, named.columns))
    members = np.asarray(has[:, [names.index(tag) for tag in tags]].all(axis=1))
    rate = measure(members, missed, base_rate=base_rate)
    score = (rate.low - rate.against) * float(np.count_nonzero(members)) ** 0.5
    return Slice(tags, rate, float(np.exp(named.log_p)), score, members)


def _check_rate(base_rate: float) -> None:
    if not 0 <= base_rate <= 1:
        msg = f"expected a base rate of 0..1, got {base_rate}"
        raise ValueError(msg)


def _interval(missed: int, found: int, *, cases: int, controls: int, base_rate: float) -> tuple[float, float, float]:
    """Return the rate and its 95 % interval."""
    if not cases or not controls or not missed + found:
        return base_rate, 0.0, 1.0
    if base_rate in {0.0, 1.0}:
        return base_rate, base_rate, base_rate
    odds = base_rate / (1 - base_rate)

    def rate_at(ratio: float) -> float:
        return odds * ratio / (1 + odds * ratio)

    rate = rate_at(missed * controls / (found * cases)) if found else 1.0
    ratio = (missed + 0.5) * (controls + 0.5) / ((found + 0.5) * (cases + 0.5))
    spread = 1 / (missed + 0.5) - 1 / (cases + 0.5) + 1 / (found + 0.5) - 1 / (controls + 0.5)
    reach = float(np.exp(_Z * spread**0.5))
    low = rate_at(ratio / reach) if missed else 0.0
    high = rate_at(ratio * reach) if found else 1.0
    return rate, min(low, rate), max(high, rate)


def _distinct(names: Sequence[str], has: Rows, missed: Rows, min_support: int) -> TagRows:
    """Return the tags that can make a difference: each set of rows under one name, none that all rows have."""
    missed_first = np.argsort(~missed, kind="stable")
    whole = TagRows(tuple(names), has.take(missed_first, axis=0), int(np.count_nonzero(missed)))
    sizes = [int(np.count_nonzero(mask)) for mask in whole.masks]
    seen: set[bytes] = set()
    kept = []
    for column in sorted(range(len(names)), key=lambda column: (sizes[column], *_preference(names[column]))):
        if min_support <= sizes[column] < len(missed):
            packed = np.packbits(whole.masks[column]).tobytes()
            if packed not in seen:
                seen.add(packed)
                kept.append(column)
    return TagRows(tuple(names[column] for column in kept), whole.has.take(kept, axis=1), whole.cases)


def _preference(tag: str) -> tuple[int, str]:
    """Return a sort key: measured tags first, then the told ones."""
    return next((at for at, start in enumerate(_TOLD, 1) if tag.startswith(start)), 0), tag


def _best(rows: TagRows, tried: Sequence[Tried], *, min_support: int, alpha: float) -> _Candidate | None:
    """Return the most significant conjunction under its simplest name, None if none is significant."""
    cases, total = rows.cases, len(rows.has)
    if not 0 < cases < total:
        return None
    significant: dict[tuple[int, ...], _Candidate] = {}
    for depth in tried:
        supported = depth.sizes >= min_support
        log_tried = float(np.log(max(1, len(tried) * int(np.count_nonzero(supported)))))
        bound = float(np.log(alpha)) - log_tried
        tails = log_tails(depth.missed, depth.sizes, cases=cases, total=total, logs=rows.logs, bound=bound)
        at = np.flatnonzero((tails <= bound) & supported)
        found = (several[at].tolist() for several in (depth.columns, depth.missed, depth.sizes, tails + log_tried))
        for columns, missed, size, log_p in zip(*found, strict=True):
            significant[tuple(columns)] = _Candidate(tuple(columns), missed, size, log_p)
    if not significant:
        return None
    best = min(significant.values(), key=lambda one: (one.log_p, len(one.columns), one.columns))
    return _measured(rows, _sharpest(rows, _simplest(rows, best), significant, alpha), significant)


def _simplest(rows: TagRows, one: _Candidate) -> _Candidate:
    """Return the conjunction without the tags that may be there by chance; what is left need not be significant alone.

    "dark and crowded" may be significant where "dark" is not quite, only because many tags could have been "crowded".
    """
    parts = [part for length in range(1, len(one.columns) + 1) for part in combinations(one.columns, length)]
    missed, sizes = np.array([rows.count(part) for part in parts]).T
    tails = log_tails(missed, sizes, cases=rows.cases, total=len(rows.has), logs=rows.logs)
    chances = np.log(len(rows.tags)) * np.array([len(part) for part in parts])
    best = int((tails + chances).argmin())
    return _Candidate(parts[best], int(missed[best]), int(sizes[best]), one.log_p)


def _sharpest(
    rows: TagRows, one: _Candidate, significant: Mapping[tuple[int, ...], _Candidate], alpha: float
) -> _Candidate:
    """Return the conjunction with the tags that make the difference: those that matter in it, and more than outside it.

    It may be the most significant only because it holds several weak points: "tiny" for "tiny and dark" and "tiny and
    motion_blur". A tag that matters everywhere, inside as outside, is another slice's.
    """
    cases, total = rows.cases, len(rows.has)
    while True:
        longer = []
        for column in set(range(len(rows.tags))) - set(one.columns):
            other = significant.get(tuple(sorted((*one.columns, column))))
            if other is not None:
                missed, size = rows.count([column])
                inside, spread = _log_odds_ratio(other.missed, other.size, cases=one.missed, total=one.size)
                outside, more = _log_odds_ratio(
                    missed - other.missed, size - other.size, cases=cases - one.missed, total=total - one.size
                )
                longer.append((min(inside / spread**0.5, (inside - outside) / (spread + more) ** 0.5), other))
        z, sharper = max(longer, key=lambda pair: (pair[0], pair[1].columns), default=(0.0, one))
        if erfc(z / 2**0.5) / 2 * len(rows.tags) > _WARY * alpha:
            return one
        one = sharper


def _log_odds_ratio(m: int, n: int, *, cases: int, total: int) -> tuple[float, float]:
    """Return the logarithm of the odds ratio of a tag that n rows have, a half added to each count; its variance."""
    counts = np.array([m, cases - m, n - m, total - cases - n + m]) + 0.5
    return float(_ODDS_RATIO @ np.log(counts)), float((1 / counts).sum())


def _without_each(rows: TagRows, columns: tuple[int, ...]) -> list[tuple[float, tuple[int, ...]]]:
    """Return the conjunctions that lack one tag, and the log p-value of the tag among the rows of the others."""
    m, n = (np.array([count]) for count in rows.count(columns))
    tested = []
    for column in columns:
        parent = tuple(other for other in columns if other != column)
        cases, total = rows.count(parent)
        tested.append((float(log_tails(m, n, cases=cases, total=total, logs=rows.logs)[0]), parent))
    return tested


def _by_weight(rows: TagRows, columns: tuple[int, ...]) -> list[int]:
    """Return the columns, first the one that tells most among the rows of the others."""
    tested = sorted(_without_each(rows, columns), key=lambda one: (one[0], one[1]))
    return [next(iter(set(columns) - set(parent))) for _, parent in tested]


def _measured(rows: TagRows, one: _Candidate, significant: Mapping[tuple[int, ...], _Candidate]) -> _Candidate:
    """Return the conjunction of fewest told tags that holds the same rows, and as well (law 3) the missed ones."""
    told = np.array([tag.startswith(_TOLD) for tag in rows.tags])

    def count(candidate: _Candidate) -> int:
        return int(told[list(candidate.columns)].sum())

    most = count(one)
    if not most:
        return one
    inside = rows.inside(one.columns)
    enough = significant.get(one.columns, one).log_p + np.log(len(rows.tags))
    near = [
        (count(other), len(other.columns), other.log_p, other.columns)
        for other in significant.values()
        if SAME_ROWS * one.size <= other.size <= one.size / SAME_ROWS and other.log_p <= enough and count(other) < most
    ]
    for *_, columns in sorted(near)[:_NEAR]:
        around = rows.inside(columns)
        if np.count_nonzero(inside & around) >= SAME_ROWS * np.count_nonzero(inside | around):
            return significant[columns]
    return one
