"""What two models see in a camera's made-up pictures: the figures that a simulated device judges.

An object has a logit of its own; about it each model has a lasting opinion and a new error in every frame. So a good
release, too, differs from the old one, and the frames of one object are not independent. It is counted once a moment,
as edge.contract.judgement asks. Clutter gives both models boxes of low score.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.contract.judgement import LOWEST_SCORE, SLACK, Figures, Side

MOMENT: Final = 50
"""Frames of one moment, about ten seconds: an object is there for as long, and is counted once."""
THRESHOLD: Final = 0.4
_LOGIT_OF_THRESHOLD: Final = float(np.log(THRESHOLD / (1 - THRESHOLD)))

_SCORE_EDGES: Final = np.arange(1, 10) / 10
_TIME_BIN: Final = float(np.log(1.02))

Floats = NDArray[np.float64]


class Ailment(StrEnum):
    """What is wrong with a release."""

    CRASH = "crash"
    NAN = "nan"
    BLIND = "blind"
    EVERYTHING = "everything"
    SLOW = "slow"
    WORSE = "worse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """An ailment and how strong it is.

    Attributes:
        strength: crash and nan: the share of frames that show it, 0..1. everything and slow: how many times the boxes,
            the milliseconds. worse: by how much the logit of every object falls. blind: not used.
    """

    ailment: Ailment
    strength: float


USUAL: Final[dict[Ailment, float]] = {
    Ailment.CRASH: 0.05,
    Ailment.NAN: 0.1,
    Ailment.BLIND: 1.0,
    Ailment.EVERYTHING: 6.0,
    Ailment.SLOW: 2.0,
    Ailment.WORSE: 1.5,
}
"""The strength where none is given."""


class Scene:
    """One camera. `objects`: in the picture at once, on average."""

    def __init__(self, rng: np.random.Generator, *, objects: float, detect_ms: float) -> None:
        self._rng = rng
        self._objects = objects
        self._detect_ms = detect_ms

    def look(self, frames: int, fault: Fault | None, *, moments: int = 1) -> Figures | None:
        """Let both models look at so many moments; None when the new one took its process with it.

        Args:
            frames: of each moment, at most `MOMENT`.
            fault: of the new model.
            moments: one after another, each with objects of its own.
        """
        ailment, strength = (None, 0.0) if fault is None else (fault.ailment, fault.strength)
        if ailment is Ailment.CRASH and self._rng.geometric(min(1.0, strength)) <= frames * moments:
            return None
        things, clutter = (int(self._rng.poisson(moments * mean)) for mean in (self._objects, 1.5))
        old, new = self._logits(frames, things, clutter)
        if ailment is Ailment.WORSE:
            new[:, :things] -= strength
        elif ailment is Ailment.BLIND:
            new[:] = -10.0
        elif ailment is Ailment.EVERYTHING:
            more = int(self._rng.poisson((strength - 1) * max(things, moments)))
            new = np.concatenate([new, self._rng.normal(0.5, 0.8, (frames, more))], axis=1)
        noticed = np.less(self._rng.random(new.shape[1]), 0.3)
        shown = frames * moments
        bad = int(self._rng.binomial(shown, min(1.0, strength))) if ailment is Ailment.NAN else 0
        slower = strength if ailment is Ailment.SLOW else 1.0
        return Figures(
            frames=shown,
            old=self._side(old, noticed, frames=shown, things=things),
            new=self._side(new, noticed, frames=shown, things=things, slower=slower, not_finite=bad),
        )

    def _logits(self, frames: int, things: int, clutter: int) -> tuple[Floats, Floats]:
        """Return the logits of both models, frames x boxes; the clutter stands behind the objects."""
        count = things + clutter
        own = np.concatenate([self._rng.normal(1.0, 1.2, things), self._rng.normal(-2.5, 0.7, clutter)])
        shared = self._rng.normal(0.0, 0.2, (frames, count))
        old, new = (
            own + shared + self._rng.normal(0.0, 0.35, count) + self._rng.normal(0.0, 0.2, (frames, count))
            for _ in range(2)
        )
        return old, new

    def _side(
        self,
        logits: Floats,
        noticed: NDArray[np.bool_],
        *,
        frames: int,
        things: int,
        slower: float = 1.0,
        not_finite: int = 0,
    ) -> Side:
        """Count: of the objects that are not reported half of the time a part is noticed, and of lasting clutter."""
        noticed = noticed[: logits.shape[1]]
        reported = (logits >= _LOGIT_OF_THRESHOLD).mean(axis=0)
        return count_side(
            1 / (1 + np.exp(-logits[0])),
            slower * self._detect_ms * self._rng.lognormal(0.0, 0.15, frames),
            not_finite=not_finite,
            missed=int((noticed & (reported < 0.5))[:things].sum()),
            suspect=int((noticed & (reported > 0.04))[things:].sum()),
        )


def count_side(scores: Floats, spent_ms: Floats, *, not_finite: int, missed: int, suspect: int) -> Side:
    """Return what `edge.contract.judgement.side` does, for many numbers at once.

    Args:
        scores: of the boxes that count, (n,); the working threshold is `THRESHOLD`.
        spent_ms: of each detection, (m,), above 1e-3.
        not_finite: frames.
        missed: findings.
        suspect: findings.
    """
    counted = scores[scores >= LOWEST_SCORE]
    histogram = np.bincount(np.searchsorted(_SCORE_EDGES, counted, side="right"), minlength=len(_SCORE_EDGES) + 1)
    bins = np.floor(np.log(spent_ms) / _TIME_BIN).astype(int)
    first = int(bins.min(initial=0))
    times = np.bincount(bins - first).tolist()
    return Side(
        boxes=int((counted >= THRESHOLD).sum()),
        near=int((counted >= THRESHOLD - SLACK).sum()),
        scores=tuple(histogram.tolist()),
        spent={first + number: n for number, n in enumerate(times) if n},
        not_finite=not_finite,
        missed=missed,
        suspect=suspect,
    )
