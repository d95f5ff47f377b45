"""AP50 of pictures that count more or less than once, for many weightings at a time.

With every picture counted once it is what hotcoco and pycocotools give (tested); it is for the bootstrap.

Only what lies before the last right box matters, and precision only at right boxes, so all else is summed up once.
The resamples are taken a few at a time so that they stay in the processor's cache: that is three times as fast.
"""

from typing import Final

import numpy as np

from hub.evaluation.resampling import Weights
from hub.label_table import Floats, Ints, Mask

_IN_CACHE: Final = 1 << 18  # numbers
_FEWEST: Final = 16
_RECALLS: Final = np.linspace(0.0, 1.0, 101)[:, None]


def weighted_ap50(right: Mask, image: Ints, *, weights: Weights, positives: Floats) -> Floats:
    """Return the AP50 of one label in each resample, `[r]`; NaN where no object was drawn.

    Args:
        right: `[d]`, of the boxes that count, best first.
        image: `[d]`, of each box.
        weights: `[n, r]`, whole numbers: how often each picture is drawn.
        positives: `[r]`, how many true boxes were drawn.
    """
    hits = np.flatnonzero(right)
    if not len(hits):
        return np.where(positives > 0, 0.0, np.nan)
    image = image[: hits[-1] + 1]
    width = max(_FEWEST, _IN_CACHE // len(image))
    parts = []
    for start in range(0, weights.shape[1], width):
        some = np.ascontiguousarray(weights[:, start : start + width])
        every = some[image]
        true = every[hits]
        np.cumsum(true, axis=0, out=true)
        np.cumsum(every, axis=0, out=every)
        precision = every[hits]
        np.maximum(precision, 1, out=precision)
        np.divide(true, precision, out=precision)
        np.maximum.accumulate(precision[::-1], axis=0, out=precision[::-1])
        parts.append(_areas(true, precision, positives[start : start + width]))
    return np.concatenate(parts)


def _areas(true: Weights, precision: Weights, positives: Floats) -> Floats:
    """Return the mean precision at 101 recalls, `[r]`; `true` `[h, r]` are the right ones so far."""
    h, r = true.shape
    drawn = np.maximum(positives, 1)
    needed = np.ceil(_RECALLS * drawn - 1e-6)  # of the right ones, for each recall
    needed += needed / drawn < _RECALLS  # as pycocotools compares
    apart = np.arange(r) * (drawn.max() + 2)  # one search for all resamples: each in a range of its own
    where = np.searchsorted((true.T + apart[:, None]).ravel(), (needed + apart).T.ravel()).reshape(r, -1)
    where -= np.arange(r)[:, None] * h
    reached = where < h
    at = precision[np.minimum(where, h - 1), np.arange(r)[:, None]]
    return np.where(positives > 0, np.where(reached, at, 0).mean(axis=1, dtype=np.float64), np.nan)
