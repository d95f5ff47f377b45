"""Conjunctions of tags, and how many rows, and how many missed ones, each of them holds. Pure and exhaustive.

All that share their tags but the last two are counted at once: as a product of matrices of 0 and 1 over the rows of the
shared tags. (60 tags have 36,050 conjunctions of up to three.)

Laws:

1. Which conjunctions are counted is told by the tags alone, not by what is missed.
2. Counts are exact; `less` gives those of the rows that are left.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

_CHUNK: Final = 65536  # rows that are counted at once
_BLOCK: Final = 512  # rows that are turned at once: ten times as fast as all
_PRECISION: Final = 1e-10  # of a tail, relative

Rows = NDArray[np.bool_]
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TagRows:
    """What is searched.

    Attributes:
        tags: `[t]` names, rarest first.
        has: `[n, t]`, the missed rows first.
        cases: how many rows are missed.
    """

    tags: tuple[str, ...]
    has: Rows
    cases: int

    @cached_property
    def masks(self) -> Rows:
        """`[t, n]`: the same, tag by tag."""
        blocks = [np.ascontiguousarray(self.has[at : at + _BLOCK].T) for at in range(0, len(self.has), _BLOCK)]
        return np.concatenate(blocks, axis=1) if blocks else np.zeros(self.has.shape[::-1], bool)

    @cached_property
    def logs(self) -> Floats:
        """`[n + 1]` the logarithms of `0! .. n!`."""
        return log_factorials(len(self.has))

    def inside(self, columns: Sequence[int]) -> Rows:
        """Return which rows have all of the tags."""
        inside = np.ones(len(self.has), bool)
        for column in columns:
            inside &= self.masks[column]
        return inside

    def count(self, columns: Sequence[int]) -> tuple[int, int]:
        """Return how many missed rows, and how many rows, have all of the tags."""
        inside = self.inside(columns)
        return int(np.count_nonzero(inside[: self.cases])), int(np.count_nonzero(inside))

    def only(self, inside: Rows) -> "TagRows":
        """Return those rows."""
        has = self.has.take(np.flatnonzero(inside), axis=0)
        return TagRows(self.tags, has, int(np.count_nonzero(inside[: self.cases])))


@dataclass(frozen=True)
class _Group:
    """Conjunctions that share all tags but the last two (of depth 1: all of them).

    Attributes:
        prefix: the columns of the shared tags.
        lasts: which columns the others are among.
        left: `[k]` the last but one, as a place in `lasts`.
        right: `[k]` the last; of depth 1 that of `left`.
    """

    prefix: tuple[int, ...]
    lasts: slice | Counts
    left: Counts
    right: Counts


@dataclass(frozen=True)
class Tried:
    """All conjunctions of one depth: ascending columns `[k, depth]`, missed rows `[k]`, all rows `[k]`."""

    groups: Sequence[_Group]
    columns: Counts
    missed: Counts
    sizes: Counts

    def less(self, gone: TagRows) -> "Tried":
        """Return them without some rows."""
        counts = [_products(gone, group.prefix, group.lasts) for group in self.groups]
        missed, sizes = (
            np.concatenate(
                [pair[which][group.left, group.right] for pair, group in zip(counts, self.groups, strict=True)]
            )
            for which in (0, 1)
        )
        return replace(self, missed=self.missed - missed.astype(int), sizes=self.sizes - sizes.astype(int))


def conjunctions(rows: TagRows, max_depth: int, min_support: int) -> Iterator[Tried]:
    """Yield, by depth, all with support that have fewer rows than without their last tag or the one before it."""
    every = np.arange(len(rows.tags))
    missed, sizes = np.array([rows.count([column]) for column in range(len(rows.tags))], int).reshape(-1, 2).T
    tried = Tried([_Group((), slice(None), every, every)], every[:, None], missed, sizes)
    for depth in range(1, max_depth + 1):
        if depth > 1:
            same = groupby(tried.columns.tolist(), key=lambda columns: tuple(columns[:-1]))
            tried = _joined(rows, [(prefix, [one[-1] for one in several]) for prefix, several in same], min_support)
        if not len(tried.columns):
            return
        yield tried


def _joined(rows: TagRows, families: Sequence[tuple[tuple[int, ...], list[int]]], min_support: int) -> Tried:
    """Return the conjunctions of a prefix and two of its last tags."""
    groups, columns, missed, sizes = [], [], [], []
    for prefix, ends in families:
        lasts = np.array(ends)
        dense = ends[-1] - ends[0] < 2 * len(ends)  # then a view of all columns between is faster than a choice
        among = slice(ends[0], ends[-1] + 1) if dense else lasts
        places = lasts - ends[0] if dense else np.arange(len(ends))
        of_missed, of_all = _products(rows, prefix, among)
        one, other = np.triu_indices(len(ends), 1)
        left, right = places[one], places[other]
        shared, alone = of_all[left, right], of_all.diagonal()
        kept = (shared >= min_support) & (shared < np.minimum(alone[left], alone[right]))
        if kept.any():
            left, right = left[kept], right[kept]
            groups.append(_Group(prefix, among, left, right))
            heads = np.tile(np.array(prefix, int), (len(left), 1))
            columns.append(np.column_stack([heads, lasts[one[kept]], lasts[other[kept]]]))
            missed.append(of_missed[left, right].astype(int))
            sizes.append(shared[kept].astype(int))
    none = np.zeros(0, int)
    return Tried(
        groups,
        np.concatenate(columns) if columns else none,
        np.concatenate([none, *missed]),
        np.concatenate([none, *sizes]),
    )


def _products(rows: TagRows, prefix: tuple[int, ...], lasts: slice | Counts) -> tuple[Floats, Floats]:
    """Return `[t, t]` how many missed rows, and how many rows, have the prefix and two of the last tags.

    They are products of matrices of 0 and 1 in float32: exact, as a chunk has fewer rows than 2**24.
    """
    if prefix:
        rows = rows.only(rows.inside(prefix))

    def counts(has: Rows) -> Floats:
        tags = has[:0, lasts].shape[1]
        total = np.zeros((tags, tags))
        for start in range(0, len(has), _CHUNK):
            ones = has[start : start + _CHUNK, lasts].astype(np.float32)
            total += ones.T @ ones
        return total

    missed = counts(rows.has[: rows.cases])
    return missed, missed + counts(rows.has[rows.cases :])


def log_tails(m: Counts, n: Counts, *, cases: int, total: int, logs: Floats, bound: float = 0.0) -> Floats:
    """Return `[k]` the logarithm of the chance of `m` or more of all `cases` among `n` of `total` rows.

    The hypergeometric tail, to ten digits. 0 where `m` is not above its expectation, and where the tail is surely above
    `bound` because its first term is. `logs`: of `0! .. total!`.
    """

    def log_choose(several: Counts | int, some: Counts | int) -> Floats:
        return np.asarray(logs[several] - logs[some] - logs[np.subtract(several, some)])

    tails = np.zeros(len(m))
    at = np.flatnonzero(m * total > n * cases)
    m, n = m[at], n[at]
    first = log_choose(cases, m) + log_choose(total - cases, n - m) - log_choose(total, n)
    open_ = first <= bound
    at, m, n, first = at[open_], m[open_], n[open_], first[open_]
    term = np.ones(len(m))
    whole = np.ones(len(m))
    k = m
    while (term > _PRECISION * whole).any():
        term = term * ((n - k) * (cases - k) / ((k + 1) * (total - cases - n + k + 1)))
        whole += term
        k = k + 1
    tails[at] = np.minimum(first + np.log(whole), 0.0)
    return tails


def log_factorials(most: int) -> Floats:
    """Return the logarithms of `0! .. most!`."""
    return np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, most + 1)))])
