"""Of very many candidates those that a quadratic choice looks at, and what each stands for. Pure arrays.

Laws:

1. What is kept is at most `limit`; with no more candidates than that, all are kept.
2. Every place (a camera and a kind) keeps its most severe while there are no more places than a quarter of `limit`.
3. What stands for n candidates weighs their mean weight times the root of n: a frequent kind stays heavier than a rare
   one, and fifty thousand of one kind do not outweigh all others.
4. The same input gives the same answer.

**Cells.** Candidates that are alike share a cell, whose centre is one of them. Centres are drawn at random, then again
among the candidates that no centre is like, and so on: each round looks where the last has found nothing, so that a
kind of twenty among a hundred thousand is found, at the cost of a few matrix products. What nothing is like (junk,
mostly) is a loner. A quarter of what is kept comes from the places in turn, each with its most severe, the rest from
the cells in turn; loners come last.

What it does not do: alike is measured from the average of two candidates, and where one kind is more than nine tenths
of all, that is the kind's own likeness. It then falls apart into many cells, and rare kinds are lost.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hub.likeness import Floats, Ints

CELLS_PER_ROUND: Final = 256
ROUNDS: Final = 5
ALIKE: Final = 0.6  # of the cosine, from the average of two candidates (0) to a copy (1)
_CHUNK: Final = 16_384
_PAIRS: Final = 4096


@dataclass(frozen=True, slots=True)
class Thinned:
    """What is kept of n candidates.

    Attributes:
        kept: their numbers `[k]`, ascending.
        weight: `[k]`, see law 3.
        count: `[k]`, how many candidates each stands for, itself among them.
    """

    kept: NDArray[np.intp]
    weight: NDArray[np.float64]
    count: Ints


def thin(
    vectors: Floats, weight: NDArray[np.float64], severity: NDArray[np.float64], *, place: Ints, limit: int
) -> Thinned:
    """Choose the candidates to keep.

    Args:
        vectors: `[n, d]` of length 1.
        weight: `[n]`, what each counts.
        severity: `[n]`; of a cell or a place the most severe come first.
        place: `[n]`, numbers of the places.
        limit: how many may be kept, at least 1.
    """
    if len(vectors) <= limit:
        return Thinned(np.arange(len(vectors)), weight, np.ones(len(vectors), np.int64))
    cell = cells(vectors)
    of_places = in_turn(place, severity)[: limit // 4]
    taken = np.zeros(len(vectors), np.bool_)
    taken[of_places] = True
    loner = cell < 0
    of_cells = np.flatnonzero(~loner)[in_turn(cell[~loner], severity[~loner])]
    loners = np.flatnonzero(loner)[np.argsort(-severity[loner], kind="stable")]
    rest = np.concatenate([of_cells, loners])
    kept = np.sort(np.concatenate([of_places, rest[~taken[rest]][: limit - len(of_places)]]))
    owner = _owners(vectors, cell, kept)
    owned = owner >= 0
    count = np.bincount(owner[owned], minlength=len(kept))
    total = np.bincount(owner[owned], weights=weight[owned], minlength=len(kept))
    return Thinned(kept, total / np.sqrt(count), count)


def cells(vectors: Floats) -> Ints:
    """Return the number of each candidate's cell `[n]`; -1 for a loner: like no centre, or alone in its cell.

    The centre of a cell is one of the candidates, and what is in the cell is like it.
    """
    random = np.random.default_rng(0)
    n = len(vectors)
    pairs = random.integers(0, n, (2, _PAIRS))
    average = float(np.clip((vectors[pairs[0]] * vectors[pairs[1]]).sum(axis=1).mean(), 0.0, 0.99))
    least = average + ALIKE * (1 - average)
    best = np.full(n, least, np.float32)
    cell = np.full(n, -1, np.int64)
    made = 0
    for _ in range(ROUNDS):
        centres = random.permutation(np.flatnonzero(cell < 0))[:CELLS_PER_ROUND]
        if not len(centres):
            break
        for start in range(0, n, _CHUNK):
            likeness = vectors[start : start + _CHUNK] @ vectors[centres].T
            nearest = likeness.argmax(axis=1)
            score = likeness[np.arange(len(nearest)), nearest]
            better = np.flatnonzero(score > best[start : start + _CHUNK])
            best[start + better] = score[better]
            cell[start + better] = made + nearest[better]
        made += len(centres)
    alone = np.bincount(cell + 1, minlength=made + 1)[cell + 1] == 1
    return np.where(alone, -1, cell)


def in_turn(place: Ints, severity: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return all candidates, the most severe of each place first, then the second of each, and so on."""
    number = np.arange(len(place))
    order = np.lexsort((number, -severity, place))
    starts = np.searchsorted(place[order], place[order], side="left")
    first: NDArray[np.intp] = order[np.lexsort((order, -severity[order], number - starts))]
    return first


def _owners(vectors: Floats, cell: Ints, kept: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return for each candidate the place in `kept` of the nearest of its cell's kept; -1 where there is none.

    A loner that is kept owns itself.
    """
    owner = np.full(len(vectors), -1, np.intp)
    order = np.argsort(cell, kind="stable")
    starts = np.flatnonzero(np.diff(cell[order], prepend=-2))
    for members in np.split(order, starts[1:]):
        own = np.flatnonzero(cell[kept] == cell[members[0]])
        if cell[members[0]] >= 0 and len(own):
            owner[members] = own[(vectors[members] @ vectors[kept[own]].T).argmax(axis=1)]
    owner[kept] = np.arange(len(kept))
    return owner
