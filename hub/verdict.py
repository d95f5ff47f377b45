"""Whether a training has fixed a weak spot, and whether a fixed one has come back. Pure.

What is compared is the excess: the logarithm of the ratio of the odds of being missed inside and outside (Woolf 1955),
whose error is sqrt(1 / missed + 1 / found) with a half added to each. The base miss rate, which is itself an estimate
and another one for each release, is not in it.

A spot is looked at again and again as sightings come in, so `SURE` asks for more than one look would: where nothing has
changed, at most 5 % of lives ever end in `fixed`.

Laws:

1. Before there is enough to see a halving of the rate four times in five, nothing is decided.
2. `fixed`: rate and excess are lower than before, the excess significantly, and either it is no longer significant or
   the new interval lies below the one before. `not_fixed`: the excess is significant and not lower than before. What is
   neither is not decided yet.
3. What was fixed without a significant excess has come back when it has one; what was fixed with one, when it is
   significantly higher than it was then.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from hub.slices import Rate

SURE: Final = 2.4  # standard errors: 0.8 % a look
_POWER: Final = 0.84  # standard errors: four times in five
_Z: Final = 1.959964  # 95 %
_NEVER: Final = 1e-6


class Outcome(StrEnum):
    """What a look has decided."""

    FIXED = "fixed"
    NOT_FIXED = "not_fixed"
    TOO_FEW = "too_few"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a look has decided.

    Attributes:
        outcome: see the module.
        sightings: that it was decided on.
        needed: how many it takes, about; more than there are where it is not decided.
    """

    outcome: Outcome
    sightings: int
    needed: int


def judge(before: Rate, after: Rate) -> Verdict:
    """Compare the rate that a batch was made at with that of the release trained on it."""
    sightings = after.missed + after.found
    needed = _needed(before, sightings, _error(after))
    if sightings < needed:
        return Verdict(Outcome.TOO_FEW, sightings, needed)
    lower = _rise(before, after) < -SURE and after.rate < before.rate
    if lower and (not is_worse(after) or after.high < before.low):
        return Verdict(Outcome.FIXED, sightings, needed)
    if is_worse(after) and not lower:
        return Verdict(Outcome.NOT_FIXED, sightings, needed)
    return Verdict(Outcome.TOO_FEW, sightings, 2 * sightings)


def came_back(at_fix: Rate, now: Rate) -> bool:
    """Whether a weak spot that was fixed at one rate is one again (law 3)."""
    return is_worse(now) and (not is_worse(at_fix) or _rise(at_fix, now) > SURE)


def is_worse(rate: Rate) -> bool:
    """Whether it is significantly worse than the rest, however often it is looked at."""
    return _excess(rate) > SURE * _error(rate)


def trend(before: Rate, after: Rate) -> int:
    """Return 1 where the rate has risen significantly, -1 where it has fallen, else 0."""
    width = math.hypot(_half_width(before), _half_width(after))
    rise = _logit(after.rate) - _logit(before.rate)
    return (rise > width) - (rise < -width)


def _needed(before: Rate, sightings: int, error: float) -> int:
    """Return from how many sightings on a halving would be seen: errors shrink with the root of their number."""
    halving = _logit(before.rate) - _logit(before.rate / 2)
    known = _error(before) ** 2
    allowed = max((halving / (SURE + _POWER)) ** 2 - known, known / 2)
    return max(1, math.ceil(max(1, sightings) * error**2 / allowed))


def _rise(before: Rate, after: Rate) -> float:
    """Return by how many standard errors the excess has risen."""
    return (_excess(after) - _excess(before)) / math.hypot(_error(before), _error(after))


def _excess(rate: Rate) -> float:
    return _logit(rate.rate) - _logit(rate.against)


def _error(rate: Rate) -> float:
    return math.sqrt(1 / (rate.missed + 0.5) + 1 / (rate.found + 0.5))


def _half_width(rate: Rate) -> float:
    return (_logit(rate.high) - _logit(rate.low)) / 2


def _logit(share: float) -> float:
    share = min(max(share, _NEVER), 1 - _NEVER)
    return math.log(share / (1 - share))
