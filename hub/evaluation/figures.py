"""AP50, recall and precision of every group, in every resample at once.

Column 0 of every answer is the figure itself: each picture counted once.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hub.evaluation.columns import Columns
from hub.evaluation.groups import Group
from hub.evaluation.matching import RIGHT, UNCOUNTED, Matches
from hub.evaluation.resampling import Weights
from hub.evaluation.weighted_ap import weighted_ap50
from hub.label_table import Floats, Ints, Mask


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """Of one group, `[1 + r]` each; NaN where a resample has nothing to count."""

    ap50: Floats
    recall: Floats
    precision: Floats


def with_itself(weights: Weights) -> Weights:
    """Put before the resamples `[n, r]` the one in which each picture counts once."""
    return np.hstack([np.ones((len(weights), 1), np.float32), weights])


def figures(
    columns: Columns, matches: Matches, groups: Sequence[Group], *, score_threshold: float, weights: Weights
) -> list[Figures]:
    """Count each group under weights `[n, 1 + r]`; recall and precision at the threshold. All labels are among them."""
    best_first = np.argsort(-columns.score, kind="stable")
    counts = []
    for group in groups:
        true, boxes = group.true_rows(columns), group.box_rows(columns, matches)
        boxes &= columns.score >= score_threshold
        counts += [
            _by_image(columns.image, true & (matches.found >= score_threshold), len(columns)),
            _by_image(columns.image, true, len(columns)),
            _by_image(columns.box_image, boxes & (matches.state == RIGHT), len(columns)),
            _by_image(columns.box_image, boxes, len(columns)),
        ]
    found, objects, right, told = (np.array(counts, np.float32) @ weights).reshape(len(groups), 4, -1).swapaxes(0, 1)
    by_label: dict[int, Floats] = {}
    answer: list[Floats | None] = []
    for group in groups:
        if group.kind == "overall":  # the mean of its labels, which are groups themselves
            answer.append(None)
            continue
        ap50 = _ap50(columns, matches, group, best_first=best_first, weights=weights)
        if group.label is not None:
            by_label[group.label] = ap50
        answer.append(ap50)
    overall = _mean([by_label[label] for label in sorted(by_label)], weights.shape[1])
    return [
        Figures(overall if ap50 is None else ap50, _share(found[at], objects[at]), _share(right[at], told[at]))
        for at, ap50 in enumerate(answer)
    ]


def pooled_curve(columns: Columns, matches: Matches) -> tuple[float, ...]:
    """Return the best precision at the recalls 0, .01, ... 1 and above, boxes of all labels together, best first.

    Empty without a true box.
    """
    objects = int((~columns.ignored).sum())
    if not objects:
        return ()
    counted = np.flatnonzero(matches.state != UNCOUNTED)
    right = matches.state[counted[np.argsort(-columns.score[counted], kind="stable")]] == RIGHT
    found = np.cumsum(right)
    best = np.maximum.accumulate((found / np.arange(1, len(right) + 1))[::-1])[::-1]
    where = np.searchsorted(found / objects, np.linspace(0, 1, 101))
    curve = np.r_[best, 0.0][np.minimum(where, len(right))]
    return tuple(np.round(curve, 6).tolist())


def _ap50(columns: Columns, matches: Matches, group: Group, *, best_first: Ints, weights: Weights) -> Floats:
    """Return the mean over the labels that have an object in the group, `[1 + r]`."""
    true, boxes = group.true_rows(columns), group.box_rows(columns, matches)[best_first]
    ordered = best_first[boxes]
    label = columns.box_label[ordered]
    parts = []
    for code in np.unique(columns.label[true]).tolist():
        mine = ordered[label == code]
        positives = _by_image(columns.image, true & (columns.label == code), len(columns)) @ weights
        right = matches.state[mine] == RIGHT
        parts.append(weighted_ap50(right, columns.box_image[mine], weights=weights, positives=positives))
    return _mean(parts, weights.shape[1])


def _by_image(image: Ints, rows: Mask, n: int) -> Floats:
    return np.bincount(image[rows], minlength=n).astype(np.float64)


def _share(part: Floats, of: Floats) -> Floats:
    return np.divide(part, of, out=np.full(of.shape, np.nan, np.float64), where=of > 0, dtype=np.float64)


def _mean(parts: Sequence[Floats], resamples: int) -> Floats:
    """Return the mean of what is defined, `[r]`; NaN where nothing is."""
    if not parts:
        return np.full(resamples, np.nan)
    stacked = np.stack(parts)
    defined = np.isfinite(stacked)
    return _share(np.where(defined, stacked, 0.0).sum(axis=0), defined.sum(axis=0).astype(np.float64))
