"""Whether a machine may label: exact tests on images whose right answer is known. Pure.

The question is the risk of a confidence threshold: how likely an image that reaches it is labelled wrong. Each level is
a threshold; the levels are tested from the least share of images to the largest, and the first that fails ends it
(fixed sequence: Bauer, Statistics in Medicine 10, 1991; Angelopoulos et al., "Learn then Test", 2021).

Laws:

1. With probability >= 1 - delta over the draw of the validation images, no level that passes has a risk above epsilon.
   Each level is also tested for the images that are left to label: that at most epsilon of those are wrong.
2. The levels depend on the number of validation images and on the confidences of unlabelled images, never on what is
   right or wrong, nor on the confidences of the validation images.
3. Nothing is certified on fewer accepted images than `fewest`.

Why the first law is exact, whatever the confidence is worth: the validation images are drawn as the unlabelled ones
are, so given the thresholds each that reaches one is wrong with that level's risk, independently: the wrong ones are
binomial. Of the levels whose risk is above epsilon one comes first, and it is fixed before the draw. To pass any of
them that one has to pass, which the test allows with probability delta.

The images that are left are finitely many: where people drew few wrong ones, the more are left, and of 60 images at a
risk of 8 % more than 10 % are wrong by chance. So a level has to pass a second test, of all its images with those
drawn: how likely so few wrong ones are drawn where more than epsilon of what is left is wrong (hypergeometric). Of very
many it asks what the first one asks. It is exact for each level; over the sequence it is measured
(tests.benchmarks.bench_autolabel).
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
_VERY_MANY: Final = 10**7  # unlabelled images: how many there are makes no difference
_TRIED: Final = 50  # numbers of images
_WORST: Final = 5.0  # times epsilon
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
        left: how many unlabelled images reach it; of a sample of them, as its share tells.
        accepted: validation images that reach it; `wrong` of them are wrong.
        p_value: how likely so few wrong ones are at a risk of epsilon, or with more than epsilon of those left wrong.
        passed: None: not tested, an earlier one failed.
    """

    share: float
    threshold: float
    left: int
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


def certify(
    validation: Sequence[Judged], pool: Sequence[float], *, epsilon: float, delta: float, population: int | None = None
) -> Verdict:
    """Test the levels. `pool`: confidences of unlabelled images, drawn as the validation images were.

    `population`: how many unlabelled images there are; None: the pool is all of them. Raises `UnusableError` when
    epsilon or delta is not between 0 and 1, or the pool is empty.
    """
    require_rates(epsilon=epsilon, delta=delta)
    if not pool:
        msg = "there is no unlabelled image: nothing is left to label"
        raise UnusableError(msg)
    levels: list[Level] = []
    going = True
    for threshold in thresholds(pool, shares(len(validation), epsilon=epsilon, delta=delta)):
        reached = [one.wrong for one in validation if one.confidence >= threshold]
        share = sum(confidence >= threshold for confidence in pool) / len(pool)
        left = round(share * (len(pool) if population is None else population))
        p_value = chance_of(sum(reached), len(reached), epsilon=epsilon, left=left)
        passed = p_value <= delta if going else None
        going = bool(passed)
        levels.append(Level(share, threshold, left, len(reached), sum(reached), p_value, passed))
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


def chance_of(wrong: int, accepted: int, *, epsilon: float, left: int) -> float:
    """Return the p-value of a level: how likely at most `wrong` are among those accepted though too many are wrong.

    Too many: a risk of epsilon, or more than epsilon of the `left`.
    """
    in_all = wrong + math.floor(epsilon * left + 1e-9) + 1
    of_risk = binomial_cdf(wrong, accepted, epsilon)
    return max(of_risk, hypergeometric_cdf(wrong, accepted, bad=in_all, everything=accepted + left))


def most_wrong(accepted: int, *, epsilon: float, delta: float, left: int) -> int:
    """Return how many of so many may be wrong in a level that passes; -1: it cannot pass."""
    low, high = -1, accepted
    while low < high:
        middle = (low + high + 1) // 2
        if chance_of(middle, accepted, epsilon=epsilon, left=left) <= delta:
            low = middle
        else:
            high = middle - 1
    return low


def needs(
    validation: Sequence[Judged], pool: Sequence[float], *, epsilon: float, delta: float, population: int | None = None
) -> int | None:
    """Return how many more validation images let a refused first level pass at `delta` with a probability of `POWER`.

    At the rate that was seen in it (with few images: in the more confident half), half an error added, for few images
    without any promise too much. They are taken of the unlabelled ones, so that fewer are left; as many as there are,
    or more: so many have to come first. None: no number does, for that rate is not below epsilon.
    """
    there_are = len(pool) if population is None else population
    images = len(validation)
    share = min(_FIRST_SHARE[1], shares(images, epsilon=epsilon, delta=delta)[0])
    least = thresholds(pool, [share])[0]
    reached = [one.wrong for one in validation if one.confidence >= least]
    seen = sum(reached) / max(1, len(reached))
    if seen >= epsilon:
        return None
    rate = min((sum(reached) + 0.5) / (len(reached) + 1), (seen + epsilon) / 2)

    def enough(more: int, left: int) -> bool:
        return _is_enough(images + more, rate, epsilon=epsilon, delta=delta, left=left)

    low, high = 0, _MOST_IMAGES - images
    if high <= 0 or not enough(high, _VERY_MANY):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle, _VERY_MANY) else (middle, high)
    tried = range(high, there_are, max(1, there_are // _TRIED))
    return next((more for more in tried if enough(more, there_are - more)), max(high, there_are))


def _is_enough(images: int, rate: float, *, epsilon: float, delta: float, left: int) -> bool:
    """Whether the first level of so many images passes with a probability of `POWER`; `left` are not labelled then."""
    share = shares(images, epsilon=epsilon, delta=delta)[0]
    accepted = math.floor(share * images)
    allowed = most_wrong(accepted, epsilon=epsilon, delta=delta, left=round(share * left))
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


def hypergeometric_cdf(most: int, drawn: int, *, bad: int, everything: int) -> float:
    """Return the probability of at most `most` bad ones among so many drawn of everything, `bad` of which are bad."""
    good = everything - bad
    if good < 0 or most < max(0, drawn - good):
        return 0.0
    if most >= min(drawn, bad):
        return 1.0
    whole = _log_choose(everything, drawn)
    return min(
        1.0,
        math.fsum(
            math.exp(_log_choose(bad, k) + _log_choose(good, drawn - k) - whole)
            for k in range(max(0, drawn - good), most + 1)
        ),
    )


def _log_choose(of: int, count: int) -> float:
    return math.lgamma(of + 1) - math.lgamma(count + 1) - math.lgamma(of - count + 1)


def interval(wrong: int, images: int, *, outside: float = 0.05) -> tuple[float, float]:
    """Return the exact interval (Clopper and Pearson, 1934) of the rate, `outside` of it half on each side."""
    if images == 0:
        return 0.0, 1.0
    tail = outside / 2
    low = 0.0 if wrong == 0 else _rate_where(lambda rate: 1 - binomial_cdf(wrong - 1, images, rate) < tail)
    high = 1.0 if wrong == images else _rate_where(lambda rate: binomial_cdf(wrong, images, rate) > tail)
    return low, high


def contradicts(wrong: int, images: int, *, epsilon: float, level: float = 0.05) -> bool:
    """Whether so many wrong ones among checked images speak against a rate of at most epsilon.

    Asked after every image, it is ever true with a probability of at most `level` where the rate is epsilon or less:
    how much likelier what was found is at the rates up to `_WORST` times epsilon, on average, than at epsilon, is a
    martingale there, and reaches 1 / level so seldom (Ville, 1939). A test of a fixed number, asked each time, would be
    true four times as often.
    """
    worst = min(1.0, _WORST * epsilon)
    between = binomial_cdf(wrong, images + 1, epsilon) - binomial_cdf(wrong, images + 1, worst)
    if between <= 0:
        return False
    ordered = -_log_choose(images, wrong) - math.log(images + 1)
    at_epsilon = wrong * math.log(epsilon) + (images - wrong) * math.log1p(-epsilon)
    return ordered + math.log(between / (worst - epsilon)) - at_epsilon >= -math.log(level)


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
