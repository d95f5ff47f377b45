"""Whether a machine may label: exact tests on images whose right answer is known. Pure.

The question is the risk of a confidence threshold: how likely an image that reaches it is labelled wrong. Each level is
a threshold; the levels are tested from the least share of images to the largest, and the first that fails ends it
(fixed sequence: Bauer, Statistics in Medicine 10, 1991; Angelopoulos et al., "Learn then Test", 2021).

Laws:

1. With probability >= 1 - delta over the draw of the validation images, no level that passes has a risk above epsilon.
2. The levels depend on the number of validation images and on the confidences of unlabelled images, never on what is
   right or wrong, nor on the confidences of the validation images.
3. Nothing is certified on fewer accepted images than `fewest`.

Why the first law is exact, whatever the confidence is worth: the validation images are drawn as the unlabelled ones
are, so given the thresholds each that reaches one is wrong with that level's risk, independently: the wrong ones are
binomial. (Drawn without replacement from few, they vary less: the tail below the mean is no larger.) Of the levels
whose risk is above epsilon one comes first, and it is fixed before the draw. To pass any of them that one has to pass,
which the test allows with probability delta.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from edge.contract.errors import UnusableError

LEVELS: Final = 25  # from the first share to all
POWER: Final = 0.8  # with which a number of images that is asked for is enough
_FIRST_IMAGES: Final = 4.0  # times `fewest`: what half of the images should carry
_FIRST_LEAST: Final = 1.25  # times `fewest`: what it must carry, for how many are accepted varies
_FIRST_SHARE: Final = (0.2, 0.5)
_MOST_IMAGES: Final = 20_000  # nobody draws more
_SHARES_OF_DELTA: Final = (0.8, 0.2)


class Judged(NamedTuple):
    """A validation image: how sure the machine was, and whether what it says is wrong."""

    confidence: float
    wrong: bool


@dataclass(frozen=True, slots=True)
class Level:
    """One threshold.

    Attributes:
        share: of the unlabelled images that reach it.
        threshold: the least confidence.
        accepted: validation images that reach it; `wrong` of them are wrong.
        p_value: how likely so few wrong ones are at a risk of epsilon.
        passed: None: not tested, an earlier one failed.
    """

    share: float
    threshold: float
    accepted: int
    wrong: int
    p_value: float
    passed: bool | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the tests say. `levels` from the least share to the largest."""

    images: int
    epsilon: float
    delta: float
    levels: tuple[Level, ...]

    @property
    def certified(self) -> Level | None:
        """The level with the largest share that passed; None: refused."""
        return next((level for level in reversed(self.levels) if level.passed), None)


def certify(validation: Sequence[Judged], pool: Sequence[float], *, epsilon: float, delta: float) -> Verdict:
    """Test the levels. `pool`: confidences of unlabelled images, drawn as the validation images were.

    Raises `UnusableError` when epsilon or delta is not between 0 and 1, or the pool is empty.
    """
    require_rates(epsilon=epsilon, delta=delta)
    if not pool:
        msg = "there is no unlabelled image: nothing is left to label"
        raise UnusableError(msg)
    levels: list[Level] = []
    going = True
    for threshold in thresholds(pool, shares(len(validation), epsilon=epsilon, delta=delta)):
        reached = [one.wrong for one in validation if one.confidence >= threshold]
        p_value = binomial_cdf(sum(reached), len(reached), epsilon)
        passed = p_value <= delta if going else None
        going = bool(passed)
        share = sum(confidence >= threshold for confidence in pool) / len(pool)
        levels.append(Level(share, threshold, len(reached), sum(reached), p_value, passed))
    return Verdict(len(validation), epsilon, delta, tuple(levels))


def shares(images: int, *, epsilon: float, delta: float) -> tuple[float, ...]:
    """Return the shares of unlabelled images to accept, ascending to 1, for so many validation images.

    The first is where passing is likely: half of all where that carries four times `fewest`. Of more images it is less,
    by the root of their number, so that it carries more, too, down to a fifth; of few as much as it takes, up to all.
    (Measured: one sequence from there certifies more than several with a part of delta each.)
    """
    least = fewest(epsilon=epsilon, delta=delta)
    low, high = _FIRST_SHARE
    first = min(max(low, high * math.sqrt(_FIRST_IMAGES / high * least / max(1, images))), high)
    first = min(1.0, max(first, _FIRST_LEAST * least / max(1, images)))
    step = (1 - first) / (LEVELS - 1)
    return tuple(dict.fromkeys([*(first + step * number for number in range(LEVELS - 1)), 1.0]))


def thresholds(pool: Sequence[float], wanted: Sequence[float]) -> tuple[float, ...]:
    """Return, descending, the confidences that the wanted shares of the pool reach at least; equal ones once."""
    ordered = sorted(pool, reverse=True)
    places = (min(len(ordered), max(1, math.ceil(share * len(ordered) - 1e-9))) for share in wanted)
    return tuple(dict.fromkeys(ordered[place - 1] for place in places))


def fewest(*, epsilon: float, delta: float) -> int:
    """Return how many images without a single error pass a test."""
    return math.ceil(math.log(delta) / math.log1p(-epsilon) - 1e-9)


def most_wrong(accepted: int, *, epsilon: float, delta: float) -> int:
    """Return how many of so many may be wrong in a level that passes; -1: it cannot pass."""
    most = -1
    while most < accepted and binomial_cdf(most + 1, accepted, epsilon) <= delta:
        most += 1
    return most


def needs(validation: Sequence[Judged], pool: Sequence[float], *, epsilon: float, delta: float) -> int | None:
    """Return how many more validation images let a refused first level pass at `delta` with a probability of `POWER`.

    At the rate that was seen in it (with few images: in the more confident half), half an error added, for few images
    without any promise too much. None: no number does, for that rate is not below epsilon.
    """
    images = len(validation)
    share = min(_FIRST_SHARE[1], shares(images, epsilon=epsilon, delta=delta)[0])
    least = thresholds(pool, [share])[0]
    reached = [one.wrong for one in validation if one.confidence >= least]
    seen = sum(reached) / max(1, len(reached))
    if seen >= epsilon:
        return None
    rate = min((sum(reached) + 0.5) / (len(reached) + 1), (seen + epsilon) / 2)
    low, high = images, _MOST_IMAGES
    if not _is_enough(high, rate, epsilon=epsilon, delta=delta):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if _is_enough(middle, rate, epsilon=epsilon, delta=delta):
            high = middle
        else:
            low = middle
    return high - images


def _is_enough(images: int, rate: float, *, epsilon: float, delta: float) -> bool:
    """Whether the first level of so many images passes with a probability of `POWER`."""
    accepted = math.floor(shares(images, epsilon=epsilon, delta=delta)[0] * images)
    allowed = most_wrong(accepted, epsilon=epsilon, delta=delta)
    return binomial_cdf(allowed, accepted, rate) >= POWER


def spent(delta: float, attempt: int) -> float:
    """Return what the n-th attempt, from 1, may take of delta: four fifths of what those before it left.

    So all attempts together stay under delta, however often one tries again with a few images more.
    """
    share, left = _SHARES_OF_DELTA
    return delta * share * left ** (attempt - 1)


def binomial_cdf(most: int, images: int, rate: float) -> float:
    """Return the probability of at most `most` wrong among `images` of which each is wrong with `rate` in [0, 1]."""
    if most < 0:
        return 0.0
    if most >= images or rate <= 0:
        return 1.0
    if rate >= 1:
        return 0.0
    wrong, right, whole = math.log(rate), math.log1p(-rate), math.lgamma(images + 1)
    return min(
        1.0,
        math.fsum(
            math.exp(whole - math.lgamma(k + 1) - math.lgamma(images - k + 1) + k * wrong + (images - k) * right)
            for k in range(most + 1)
        ),
    )


def interval(wrong: int, images: int, *, outside: float = 0.05) -> tuple[float, float]:
    """Return the exact interval (Clopper and Pearson, 1934) of the rate, `outside` of it half on each side."""
    if images == 0:
        return 0.0, 1.0
    tail = outside / 2
    low = 0.0 if wrong == 0 else _rate_where(lambda rate: 1 - binomial_cdf(wrong - 1, images, rate) < tail)
    high = 1.0 if wrong == images else _rate_where(lambda rate: binomial_cdf(wrong, images, rate) > tail)
    return low, high


def contradicts(wrong: int, images: int, *, epsilon: float, level: float = 0.05) -> bool:
    """Whether so many wrong ones among checked images are unlikely (`level`) at a rate of at most epsilon."""
    return 1 - binomial_cdf(wrong - 1, images, epsilon) <= level


def _rate_where(holds: Callable[[float], bool]) -> float:
    """Return the rate at which what holds for smaller ones ceases to."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return (low + high) / 2


def alike(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how likely two draws from one source differ so much: Kolmogorov and Smirnov's p-value, 1 without any.

    The limit for many, with Stephens's correction for few; ties make it larger.
    """
    if not one or not other:
        return 1.0
    values = sorted([(value, 0) for value in one] + [(value, 1) for value in other])
    counts, furthest = [0, 0], 0.0
    for place, (value, which) in enumerate(values):
        counts[which] += 1
        if place + 1 == len(values) or values[place + 1][0] != value:
            furthest = max(furthest, abs(counts[0] / len(one) - counts[1] / len(other)))
    root = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    scaled = furthest * (root + 0.12 + 0.11 / root)
    if scaled < 0.2:
        return 1.0
    return min(
        1.0, max(0.0, 2 * math.fsum((-1.0) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101)))
    )


def require_rates(*, epsilon: float, delta: float) -> None:
    """Raise `UnusableError` unless both are more than 0 and less than 1."""
    for name, value in (("epsilon", epsilon), ("delta", delta)):
        if not 0 < value < 1:
            msg = f"{name} is {value:g}: it must be more than 0 and less than 1"
            raise UnusableError(msg)
