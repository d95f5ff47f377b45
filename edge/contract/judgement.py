"""Does a new model see as well as the old one? What was counted of both on the same frames, and the verdict on it.

The device counts and judges; the hub's simulator judges by the same rules. Nothing here opens anything.

Laws:

1. What is missing is `insufficient`, never `pass`. No verdict is `pass` before `enough` frames.
2. A clear failure is one at once. A difference fails only where it is over its limit and beyond chance: an exact test
   of two counts on the same frames, stricter while frames are still to come, because it is asked again and again.
3. `add` is associative and commutative, `NOTHING` is its neutral element, but for which of two fallbacks is named.

A thing that is seen again is not seen anew with every frame: an object is counted once in `STAYS_S` (who counts follows
it from frame to frame, and ends after some times), else a parked car right at the threshold would decide.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Annotated, Final, Literal

import msgspec

from edge.contract.samples import Count, Text

LOWEST_SCORE: Final = 0.05
SLACK: Final = 0.05
"""How far a score may lie below the threshold and still speak against blindness."""
STAYS_S: Final = 10.0
LEAST_BOXES: Final = 10
LEAST_SCORES: Final = 200
MOST_SLOWER: Final = 1.25
MOST_FINDINGS: Final = 1.3
MOST_BOXES: Final = 2.0
LEAST_SHARE: Final = 0.5
MOST_SHIFT: Final = 0.25
POOL_LEAST_SHARE: Final = 0.75
"""Of the boxes, as the mean of several devices. It may be narrower than one device's, and without `SLACK`: what is odd
about one camera averages out. Releases that were trained on one street, and are better there, keep .75 to .82 of their
boxes on pictures of other places, and lose a seventh to a fifth of what is really there."""
POOL_LEAST_DEVICES: Final = 3

_EDGES: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_NO_SCORES: Final = (0,) * (len(_EDGES) + 1)
_STEP: Final = math.log(1.02)  # two times that share a bin differ by 2 %
_LEAST_MS: Final = 1e-3
_LEAST_TIMED: Final = 20  # fewer have no 95th percentile
_CHANCE: Final = 2e-3  # of six tests: together about 1 %
_CHANCE_EARLY: Final = 1e-6  # asked hundreds of times, of figures that grow from some seconds to an hour
_CHANCE_POOL: Final = 0.02  # shared among the devices: each of them brings as many looks
_LEAST_FINDINGS: Final = 3  # of both models together; fewer have no ratio
_BOXES_SPREAD: Final = 0.1
_FINDINGS_SPREAD: Final = 0.5
_SLICES: Final = 2000

Histogram = Annotated[tuple[Count, ...], msgspec.Meta(min_length=len(_NO_SCORES), max_length=len(_NO_SCORES))]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted of one model.

    Attributes:
        boxes: at or above the working threshold, of one object once in `STAYS_S`.
        near: the same from `SLACK` below the threshold up; never fewer than `boxes`.
        scores: of all boxes from `LOWEST_SCORE` up, of one object once in `STAYS_S`: how many are below .1, .2 ... 1.
        spent: how many detections took about as long, by `time_bin`.
        not_finite: frames with NaN or infinity.
        failures: frames that it failed on and the other did not.
        missed, suspect: findings.
    """

    boxes: Count = 0
    near: Count = 0
    scores: Histogram = _NO_SCORES
    spent: dict[int, Count] = {}
    not_finite: Count = 0
    failures: Count = 0
    missed: Count = 0
    suspect: Count = 0


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted on frames that both models looked at.

    Attributes:
        frames: on which both gave an answer.
        fallback: from what to what the new model fell back, such as `CUDA to CPU`; "" where it did not.
    """

    frames: Count = 0
    old: Side = Side()
    new: Side = Side()
    fallback: Text = ""


NOTHING: Final = Figures()


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """A verdict and its reason, one sentence that fits a report; "" for `pass`."""

    outcome: Literal["pass", "fail", "insufficient"]
    reason: Text = ""


def side(
    *,
    scores: Iterable[float] = (),
    threshold: float,
    spent_ms: Iterable[float] = (),
    not_finite: int = 0,
    failures: int = 0,
    missed: int = 0,
    suspect: int = 0,
) -> Side:
    """Count one model's side.

    Args:
        scores: of the boxes that count, see `Side`; what is below `LOWEST_SCORE` does not.
        threshold: the working threshold of this model.
        spent_ms: one number a detection.
        not_finite: frames.
        failures: frames.
        missed: findings.
        suspect: findings.
    """
    counted = [score for score in scores if score >= LOWEST_SCORE]
    histogram = list(_NO_SCORES)
    for score in counted:
        histogram[sum(score >= edge for edge in _EDGES)] += 1
    spent: dict[int, int] = {}
    for ms in spent_ms:
        spent[time_bin(ms)] = spent.get(time_bin(ms), 0) + 1
    return Side(
        boxes=sum(score >= threshold for score in counted),
        near=sum(score >= threshold - SLACK for score in counted),
        scores=tuple(histogram),
        spent=spent,
        not_finite=not_finite,
        failures=failures,
        missed=missed,
        suspect=suspect,
    )


def time_bin(ms: float) -> int:
    """Return the bin of milliseconds: the next one begins 2 % later."""
    return math.floor(math.log(max(ms, _LEAST_MS)) / _STEP)


def add(these: Figures, those: Figures) -> Figures:
    """Return the figures of both, counted on different frames."""
    return Figures(
        frames=these.frames + those.frames,
        old=_add(these.old, those.old),
        new=_add(these.new, those.new),
        fallback=these.fallback or those.fallback,
    )


def judge(figures: Figures, *, enough: int) -> Verdict:
    """Judge the new model by what was counted, `enough` frames being asked for."""
    chance = _CHANCE if figures.frames >= enough else _CHANCE_EARLY
    reason = _broken(figures) or _beyond(figures, chance=chance)
    if reason:
        return Verdict(outcome="fail", reason=reason)
    reason = _missing(figures, enough=enough)
    return Verdict(outcome="insufficient", reason=reason) if reason else Verdict(outcome="pass")


def judge_pool(devices: Sequence[Figures]) -> Verdict:
    """Judge the new model by what several devices counted, one `Figures` each.

    Finds what is too little to show on one device: fewer boxes, more `missed`, more `suspect` findings. Frames of one
    camera resemble each other, so the devices are the sample: of each the logarithm of new through old counts once,
    however much it saw. It fails where they differ from 0 beyond chance and their mean is over the limit: one busy
    camera that is well hides nobody. Of boxes the mean is that of the shares, each at most `MOST_BOXES`: a logarithm's
    is drawn down by the few cameras where little was seen and is now lost, and good releases have such, too. One
    camera that rightly loses a false box decides nothing: it widens the spread. It may be asked again
    and again while figures grow and devices join.
    Never `pass` where a device's figures fail by themselves, or fewer than `POOL_LEAST_DEVICES` have counted anything.
    """
    seen = [one for one in devices if one.frames]
    for one in seen:
        reason = _broken(one)
        if reason:
            return Verdict(outcome="fail", reason=reason)
    if len(seen) < POOL_LEAST_DEVICES:
        reason = f"{len(seen)} devices have counted, of {POOL_LEAST_DEVICES}"
        return Verdict(outcome="insufficient", reason=reason)
    chance = _CHANCE_POOL / len(seen)
    boxes = [(one.old.boxes, one.new.boxes) for one in seen if one.old.boxes >= LEAST_BOXES]
    share = _mean([min(now / before, MOST_BOXES) for before, now in boxes]) if boxes else 1.0
    if share < POOL_LEAST_SHARE and _is_over(1.0, _logs(boxes), spread=_BOXES_SPREAD, chance=chance):
        return Verdict(outcome="fail", reason=f"{share:.0%} of the old model's boxes, mean of {len(boxes)} devices")
    missed = [(one.new.missed, one.old.missed) for one in seen]
    suspect = [(one.new.suspect, one.old.suspect) for one in seen]
    for name, pairs in (("missed", missed), ("suspect", suspect)):
        more = _logs(pair for pair in pairs if sum(pair) >= _LEAST_FINDINGS)
        if _is_over(MOST_FINDINGS, more, spread=_FINDINGS_SPREAD, chance=chance):
            times = math.exp(_mean(more))
            return Verdict(outcome="fail", reason=f"{times:.2f} times the {name} findings, mean of {len(more)} devices")
    if sum(one.old.boxes for one in seen) < LEAST_BOXES:
        return Verdict(outcome="insufficient", reason="the old model saw too few boxes to judge by")
    return Verdict(outcome="pass")


def p95_ms(of: Side) -> float | None:
    """Return the milliseconds that 95 % of the detections stay under, to 2 %; None for fewer than 20 detections."""
    timed = sum(of.spent.values())
    if timed < _LEAST_TIMED:
        return None
    above = math.floor(0.05 * timed)
    slowest = sorted(of.spent, reverse=True)
    reached = next(
        key for key, n in zip(slowest, accumulate(map(of.spent.__getitem__, slowest)), strict=True) if n > above
    )
    return math.exp((reached + 1) * _STEP)


def score_shift(figures: Figures) -> float | None:
    """Return the population stability index of the scores; None where a side has fewer than `LEAST_SCORES`."""
    old, new = figures.old.scores, figures.new.scores
    if min(sum(old), sum(new)) < LEAST_SCORES:
        return None
    return math.fsum((b - a) * math.log(b / a) for a, b in zip(_shares(old), _shares(new), strict=True))


def by_chance(fewer: int, more: int) -> float:
    """Return how often two counts of the same mean lie so far apart, in this direction: an exact binomial test."""
    total = fewer + more
    if fewer >= more:
        return 1.0
    logs = [_log_choose(total, k) - total * math.log(2) for k in range(max(0, fewer - 400), fewer + 1)]
    return math.fsum(map(math.exp, logs))


def _logs(pairs: Iterable[tuple[int, int]]) -> list[float]:
    """Return of each camera the logarithm of the first count through the second; of equal counts it is exactly 0."""
    return [math.log((first + 0.5) / (second + 0.5)) for first, second in pairs]


def _mean(logs: Sequence[float]) -> float:
    return math.fsum(logs) / len(logs)


def _is_over(limit: float, logs: Sequence[float], *, spread: float, chance: float) -> bool:
    """Return whether the cameras lie over the limit in the mean, and above 0 beyond chance."""
    return (
        len(logs) >= POOL_LEAST_DEVICES
        and _mean(logs) > math.log(limit)
        and _by_chance_above(logs, spread=spread) < chance
    )


def _by_chance_above(logs: Sequence[float], *, spread: float) -> float:
    """Return how often cameras lie so clearly above 0 by chance.

    Student's t, one-sided, with a moderated variance (Smyth 2004): one camera more, `spread` away from the mean, is
    taken into it. Of three or four cameras the variance is hardly known, and without that nothing is ever clear.
    """
    mean = _mean(logs)
    variance = (spread**2 + math.fsum((one - mean) ** 2 for one in logs)) / len(logs)
    return _student_tail(mean / math.sqrt(variance / len(logs)), len(logs))


def _student_tail(value: float, freedom: int) -> float:
    """Return how often chance exceeds Student's t: with t = sqrt(freedom) tan(x) its density is cos(x) ** (n - 1)."""

    def area(start: float) -> float:
        step = (math.pi / 2 - start) / _SLICES
        middles = (start + (index + 0.5) * step for index in range(_SLICES))
        return step * math.fsum(math.cos(middle) ** (freedom - 1) for middle in middles)

    return area(math.atan(value / math.sqrt(freedom))) / area(-math.pi / 2)


def _broken(figures: Figures) -> str:
    """Return what no number of good frames makes good."""
    old, new = figures.old, figures.new
    if new.not_finite:
        return f"NaN or infinity on {new.not_finite} frames"
    if figures.fallback:
        return f"it fell back from {figures.fallback}"[:64]
    if new.failures:
        return f"it failed on {new.failures} frames that the old model read"
    if new.near == 0 and old.boxes >= LEAST_BOXES:
        return f"it is blind: no box where the old model saw {old.boxes}"
    return ""


def _beyond(figures: Figures, *, chance: float) -> str:
    """Return which limit is passed beyond chance; "" for none."""
    old, new = figures.old, figures.new
    if new.near < LEAST_SHARE * old.boxes and by_chance(new.near, old.boxes) < chance:
        return f"too few boxes: {new.boxes} where the old model has {old.boxes}"
    if new.boxes > MOST_BOXES * old.near and by_chance(old.near, new.boxes) < chance:
        return f"too many boxes: {new.boxes} where the old model has {old.boxes}"
    for name, before, now in (("missed", old.missed, new.missed), ("suspect", old.suspect, new.suspect)):
        if now > MOST_FINDINGS * before and by_chance(before, now) < chance:
            return f"too many {name} findings: {now} after {before}"
    return _slower(old, new, chance=chance) or _shifted(figures, chance=chance)


def _slower(old: Side, new: Side, *, chance: float) -> str:
    before, now = p95_ms(old), p95_ms(new)
    if before is None or now is None or now <= MOST_SLOWER * before:
        return ""
    limit = time_bin(MOST_SLOWER * before)
    slow = [sum(n for key, n in one.spent.items() if key > limit) for one in (old, new)]
    return f"too slow: p95 of {now:.1f} ms after {before:.1f}" if by_chance(slow[0], slow[1]) < chance else ""


def _shifted(figures: Figures, *, chance: float) -> str:
    shift = score_shift(figures)
    if shift is None or shift <= MOST_SHIFT:
        return ""
    spread = 1 / sum(figures.old.scores) + 1 / sum(figures.new.scores)
    freedom = len(_NO_SCORES) - 1
    return f"its scores have shifted: PSI {shift:.2f}" if _chi_square_tail(shift / spread, freedom) < chance else ""


def _missing(figures: Figures, *, enough: int) -> str:
    """Return what is missing for a `pass`; "" for nothing."""
    if figures.frames < enough:
        return f"{figures.frames} frames were judged, of {enough}"
    if figures.old.boxes < LEAST_BOXES:
        return f"the old model saw {figures.old.boxes} boxes, of {LEAST_BOXES} to judge by"
    if p95_ms(figures.old) is None or p95_ms(figures.new) is None:
        return "too few detections were timed"
    return ""


def _add(these: Side, those: Side) -> Side:
    spent = dict(these.spent)
    for key, n in those.spent.items():
        spent[key] = spent.get(key, 0) + n
    return Side(
        boxes=these.boxes + those.boxes,
        near=these.near + those.near,
        scores=tuple(a + b for a, b in zip(these.scores, those.scores, strict=True)),
        spent=spent,
        not_finite=these.not_finite + those.not_finite,
        failures=these.failures + those.failures,
        missed=these.missed + those.missed,
        suspect=these.suspect + those.suspect,
    )


def _shares(histogram: tuple[int, ...]) -> list[float]:
    """Return each bin's share; half a count more in each, so that none is nothing."""
    total = sum(histogram) + 0.5 * len(histogram)
    return [(n + 0.5) / total for n in histogram]


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def _chi_square_tail(value: float, freedom: int) -> float:
    """Return how often chance exceeds a chi-square (Wilson and Hilferty 1931: a cube root is nearly normal)."""
    spread = 2 / (9 * freedom)
    return 0.5 * math.erfc(((value / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(2 * spread))
