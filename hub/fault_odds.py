"""From signs to probabilities: how likely an annotation is swapped, badly placed or extra, and a box a missing object.

Two logistic models over the signs of hub.evidence: one with four outcomes for each annotation (right and the three
faults; together 1), one with two for each box of the model that has no annotation. The built-in weights were fitted on
images of coco128 and of the first half of `vtest.avi` with planted errors (`python -m tests.benchmarks audit` prints
them, and measures on images that its weights were not fitted on). `fitted` fits them anew, held towards given ones:
settled re-checks move them only as far as they are many.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from hub.evidence import OF_ANNOTATION, OF_BOX, Signs, Usual, expected

Drawn = Literal["swapped", "badly_placed", "extra"]
OF_BOXES_DRAWN: Final[tuple[Drawn, ...]] = ("swapped", "badly_placed", "extra")

_HELD: Final = 1.0  # a weight's pull towards the given one, as in ridge regression
_HELD_BIAS: Final = 0.1
_STEPS: Final = 30


@dataclass(frozen=True, slots=True)
class Odds:
    """Weights.

    Attributes:
        usual: what is usual of a model.
        annotation: for each of `OF_BOXES_DRAWN`, a weight for each of `OF_ANNOTATION`.
        box: a weight for each of `OF_BOX`.
    """

    usual: Usual
    annotation: tuple[tuple[float, ...], ...]
    box: tuple[float, ...]


def of_annotations(signs: Signs, odds: Odds) -> Signs:
    """Return `[n, 3]`: how likely each annotation has each of `OF_BOXES_DRAWN`. A row sums to at most 1."""
    return _shares(signs @ np.array(odds.annotation).T)


def of_boxes(signs: Signs, odds: Odds) -> Signs:
    """Return `[n]`: how likely each box is an object that the annotations miss."""
    return expected(signs @ np.array(odds.box))


def fitted(
    annotations: tuple[Signs, Sequence[int]], boxes: tuple[Signs, Sequence[bool]], towards: Odds, *, held: float = _HELD
) -> Odds:
    """Return the weights that explain what turned out, held towards given ones.

    Args:
        annotations: signs `[n, OF_ANNOTATION]`, and what each was: 0 right, else 1 + the place in `OF_BOXES_DRAWN`.
        boxes: signs `[m, OF_BOX]`, and whether each was a missing object.
        towards: what they are held to; its `usual` stays.
        held: how strongly, 1 as one observation of weight 1 does.
    """
    outcomes = np.eye(1 + len(OF_BOXES_DRAWN))[np.array(annotations[1], int)][:, 1:]
    of_drawn = _newton(annotations[0], outcomes, np.array(towards.annotation), held=held)
    of_box = _newton(boxes[0], np.array(boxes[1], float)[:, None], np.array([towards.box]), held=held)
    return Odds(towards.usual, tuple(tuple(row) for row in of_drawn.tolist()), tuple(of_box[0].tolist()))


def logistic(x: Signs, y: Sequence[bool]) -> list[float]:
    """Return the weights `[signs]` of a logistic model; the first column of `x` is 1."""
    row = _newton(x, np.array(y, float)[:, None], np.zeros((1, x.shape[1])), held=0.1)[0]
    return [float(weight) for weight in row]


def _shares(logits: Signs) -> Signs:
    """Return the shares of the outcomes but the first, whose logit is 0."""
    grown = np.exp(np.clip(logits, -30, 30))
    shares: Signs = grown / (1 + grown.sum(axis=1, keepdims=True))
    return shares


def _newton(x: Signs, y: Signs, towards: NDArray[np.float64], *, held: float) -> NDArray[np.float64]:
    """Maximise the likelihood of a logistic model less the pull; weights `[outcomes, signs]`."""
    outcomes, signs = towards.shape
    pull = np.full(signs, held)
    pull[0] = held * _HELD_BIAS
    weights = towards.copy()
    best = _loss(x, y, weights, towards, pull)
    for _ in range(_STEPS):
        p = _shares(x @ weights.T)
        gradient = (y - p).T @ x - pull * (weights - towards)
        hessian = np.zeros((outcomes, signs, outcomes, signs))
        for i in range(outcomes):
            for j in range(outcomes):
                spread = p[:, i] * ((i == j) - p[:, j])
                hessian[i, :, j, :] = (x * spread[:, None]).T @ x
            hessian[i, :, i, :] += np.diag(pull)
        flat = hessian.reshape(outcomes * signs, -1)
        step = np.linalg.solve(flat, gradient.reshape(-1)).reshape(weights.shape)
        size = 1.0
        while size > 1e-4 and (loss := _loss(x, y, weights + size * step, towards, pull)) > best:
            size /= 2
        if size <= 1e-4:
            break
        weights, improved, best = weights + size * step, best - loss, loss
        if improved < 1e-6:
            break
    return weights


def _loss(x: Signs, y: Signs, weights: Signs, towards: Signs, pull: Signs) -> float:
    p = np.clip(_shares(x @ weights.T), 1e-12, 1)
    right = np.clip(1 - p.sum(axis=1), 1e-12, 1)
    likelihood = (y * np.log(p)).sum() + ((1 - y.sum(axis=1)) * np.log(right)).sum()
    return float(-likelihood + 0.5 * (pull * (weights - towards) ** 2).sum())


NONE: Final = Odds(
    Usual((0.0, 1.0, 0.0), (1.0, 0.0)), ((0.0,) * len(OF_ANNOTATION),) * len(OF_BOXES_DRAWN), (0.0,) * len(OF_BOX)
)
"""Weights that know nothing, to fit from."""
