"""Made-up cameras before two models: what a device has counted after every 10 frames of a phase.

Some objects stay, ten minutes in the mean, and count once in ten seconds and at most ten times; others come and count
once; clutter is of low score. An object has a logit; about it the new model has an opinion that lasts as long as the
object, and each model an error in every count. Findings come at each camera's own rates, and on each camera the new
model's rates differ a little for good.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.contract.judgement import LOWEST_SCORE, SLACK, STAYS_S, Figures, Side
from edge.updating.sightings import MOST_TIMES

EVERY = 10
THRESHOLD = 0.3
STAY_S = 600.0
_BIN = math.log(1.02)
_EDGES = np.arange(1, 10) / 10

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Worse:
    """How a release differs from a good one: what is added to each object's logit, and factors."""

    logit: float = 0.0
    clutter: float = 1.0
    misses: float = 1.0
    suspects: float = 1.0
    slower: float = 1.0


class Camera:
    """One camera, and how the new release differs from the old one."""

    def __init__(self, rng: np.random.Generator, worse: Worse) -> None:
        self._rng, self._worse = rng, worse
        self._places = int(rng.integers(1, 9))
        self._coming = rng.uniform(0.025, 0.75)  # a second
        self._clutter = rng.uniform(0.2, 2.0)  # a second
        self._findings = np.array([rng.uniform(0.025, 0.2), rng.uniform(0.01, 0.1)])  # a second
        self._differ = np.exp(rng.normal(0.0, 0.05, 2))
        self._ms, self._spread = rng.uniform(5, 80), rng.uniform(0.02, 0.3)

    def look(self, steps_s: Floats) -> list[Figures]:
        """Return what was counted after each step; a step is `EVERY` frames, and takes so many seconds."""
        ends_s = np.cumsum(steps_s)
        step, logits = self._seen(ends_s)
        return self._counted(steps_s, step, logits)

    def _seen(self, ends_s: Floats) -> tuple[list[Counts], list[Floats]]:
        """Return of each model the step and the logit of each box that counts."""
        rng, last_s = self._rng, float(ends_s[-1])
        at_s, own, opinion = [], [], []
        for _ in range(self._places):
            begun_s = 0.0
            while begun_s < last_s:
                gone_s = begun_s + rng.exponential(STAY_S)
                times_s = np.arange(begun_s, min(gone_s, last_s, begun_s + MOST_TIMES * STAYS_S - 1e-6), STAYS_S)
                at_s.append(times_s)
                own.append(np.full(len(times_s), rng.normal(0.3, 1.2)))
                opinion.append(np.full(len(times_s), rng.normal(0.0, 0.4)))
                begun_s = gone_s
        come = int(rng.poisson(self._coming * last_s))
        at_s.append(rng.uniform(0, last_s, come))
        own.append(rng.normal(0.3, 1.2, come))
        opinion.append(rng.normal(0.0, 0.4, come))
        times_s, logit, bias = (np.concatenate(one) for one in (at_s, own, opinion))
        steps, logits = [], []
        for is_new in (False, True):
            weak = int(rng.poisson(self._clutter * last_s * (self._worse.clutter if is_new else 1.0)))
            seen = logit + rng.normal(0.0, 0.3, len(logit)) + is_new * bias
            seen = np.concatenate([seen, rng.normal(-2.3, 0.4, weak)]) + is_new * self._worse.logit
            when_s = np.concatenate([times_s, rng.uniform(0, last_s, weak)])
            steps.append(np.searchsorted(ends_s, when_s).clip(max=len(ends_s) - 1))
            logits.append(seen)
        return steps, logits

    def _counted(self, steps_s: Floats, step: list[Counts], logits: list[Floats]) -> list[Figures]:
        rng, worse, count = self._rng, self._worse, len(steps_s)
        busy = np.exp(rng.normal(0, self._spread, (count, EVERY))) * np.where(rng.random((count, EVERY)) < 0.03, 3.0, 1)
        sides = []
        for is_new in (0, 1):
            score = 1 / (1 + np.exp(-logits[is_new]))
            ms = self._ms * busy * np.exp(rng.normal(0, self._spread, busy.shape)) * (worse.slower if is_new else 1.0)
            factor = np.array([worse.misses, worse.suspects]) * self._differ if is_new else np.ones(2)
            found = rng.poisson(steps_s[:, None] * self._findings * factor).cumsum(axis=0)
            sides.append(_sides(score, step[is_new], ms, found))
        return [
            Figures(frames=EVERY * number, old=old, new=new)
            for number, (old, new) in enumerate(zip(*sides, strict=True), 1)
        ]


def _sides(score: Floats, step: Counts, ms: Floats, found: Counts) -> list[Side]:
    """Return one model's counts after each step."""
    count = len(ms)
    heavy = score >= LOWEST_SCORE
    bins = np.searchsorted(_EDGES, score[heavy], side="right")
    scores = np.bincount(step[heavy] * 10 + bins, minlength=10 * count).reshape(count, 10).cumsum(axis=0).tolist()
    boxes, near = (
        np.bincount(step[score >= limit], minlength=count).cumsum().tolist() for limit in (THRESHOLD, THRESHOLD - SLACK)
    )
    time_bins = np.floor(np.log(ms) / _BIN).astype(int)
    first = int(time_bins.min())
    width = int(time_bins.max()) - first + 1
    rows = np.repeat(np.arange(count), ms.shape[1])
    spent = np.bincount(rows * width + time_bins.ravel() - first, minlength=width * count).reshape(count, width)
    spent = spent.cumsum(axis=0)
    return [
        Side(
            boxes=boxes[one],
            near=near[one],
            scores=tuple(scores[one]),
            spent={first + int(at): int(spent[one, at]) for at in np.flatnonzero(spent[one])},
            missed=int(found[one, 0]),
            suspect=int(found[one, 1]),
        )
        for one in range(count)
    ]
