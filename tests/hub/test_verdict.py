"""When a weak spot counts as fixed: by table, and by lives that are drawn at random."""

from collections import Counter

import numpy as np
import pytest

from hub.slices import Rate, measure
from hub.verdict import Outcome, Verdict, came_back, is_worse, judge, trend

BASE = 0.12


def drawn(rng, *, share: float, rate: float, against: float, missed: int, found: int) -> tuple[int, int]:
    """Return how many of so many missed and found objects are inside, a share of the found ones."""
    odds = rate / (1 - rate) / (against / (1 - against))
    cases = share * odds / (share * odds + 1 - share)
    return rng.binomial(missed, cases), rng.binomial(found, share)


def rate_of(inside_missed: int, missed: int, inside_found: int, found: int) -> Rate:
    cases = np.arange(missed + found) < missed
    inside = np.concatenate([np.arange(missed) < inside_missed, np.arange(found) < inside_found])
    return measure(inside, cases, base_rate=BASE)


def life(rng, spot: dict, after: float, *, looks: int = 40) -> tuple[Outcome, int]:
    """Draw one life, looked at `looks` times while sightings come in: what it ends with, and at which look."""
    before = None
    while before is None or not is_worse(before):
        inside = drawn(rng, **spot, missed=600, found=600)
        before = rate_of(inside[0], 600, inside[1], 600)
    m = f = looked = 0
    for look in range(1, looks + 1):
        more = drawn(rng, **(spot | {"rate": after}), missed=60, found=60)
        m, f, looked = m + more[0], f + more[1], looked + 60
        outcome = judge(before, rate_of(m, looked, f, looked)).outcome
        if outcome is not Outcome.TOO_FEW:
            return outcome, look
    return Outcome.TOO_FEW, looks


SPOTS = [
    {"share": 0.1, "rate": 0.41, "against": 0.09},  # rare and much worse
    {"share": 0.3, "rate": 0.3, "against": 0.1},  # a third of all
    {"share": 0.05, "rate": 0.5, "against": 0.1},
    {"share": 0.1, "rate": 0.18, "against": 0.1},  # hardly worse
]


@pytest.mark.parametrize("spot", SPOTS)
def test_nothing_changed_is_hardly_ever_called_fixed(spot) -> None:
    """However often it is looked at: 5 % of lives at most."""
    rng = np.random.default_rng(7)
    ends = Counter(life(rng, spot, spot["rate"])[0] for _ in range(200))
    assert ends[Outcome.FIXED] <= 10, ends


@pytest.mark.parametrize("spot", SPOTS)
def test_a_spot_that_is_no_worse_than_the_rest_any_more_is_fixed(spot) -> None:
    rng = np.random.default_rng(7)
    ends = Counter(life(rng, spot, spot["against"])[0] for _ in range(200))
    assert ends[Outcome.FIXED] >= 160, ends


@pytest.mark.parametrize("spot", SPOTS[:3])
def test_a_halved_rate_is_seen_four_times_in_five(spot) -> None:
    rng = np.random.default_rng(7)
    ends = Counter(life(rng, spot, spot["rate"] / 2)[0] for _ in range(200))
    assert ends[Outcome.FIXED] >= 150, ends


def rate(share: float, *, against: float = 0.1, n: int = 1000, width: float = 0.03) -> Rate:
    missed = round(n * share)
    return Rate(
        missed=missed, found=n - missed, rate=share, low=share * (1 - width), high=share * (1 + width), against=against
    )


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        (rate(0.1), Outcome.FIXED),  # as the rest
        (rate(0.05), Outcome.FIXED),  # better than the rest
        (rate(0.2), Outcome.FIXED),  # still worse than the rest, and half of what it was
        (rate(0.4), Outcome.NOT_FIXED),
        (rate(0.6), Outcome.NOT_FIXED),  # worse than before
        (rate(0.1, n=6), Outcome.TOO_FEW),
        (rate(0.4, n=6), Outcome.TOO_FEW),
        (rate(0.2, against=0.05), Outcome.NOT_FIXED),  # all is half of what it was: this is as much worse as before
        (rate(0.3, width=0.4), Outcome.TOO_FEW),  # lower, yet worse than the rest, and the intervals meet
    ],
)
def test_verdicts(after: Rate, outcome: Outcome) -> None:
    assert judge(rate(0.4), after).outcome is outcome


def test_how_many_it_takes_is_told() -> None:
    verdict = judge(rate(0.4), rate(0.4, n=10))
    assert verdict == Verdict(Outcome.TOO_FEW, 10, verdict.needed)
    assert 20 < verdict.needed < 500
    assert judge(rate(0.4), rate(0.4, n=2 * verdict.needed)).outcome is not Outcome.TOO_FEW


@pytest.mark.parametrize("before", [rate(0.4), rate(1.0), rate(0.01), rate(0.4, n=1)])
@pytest.mark.parametrize(
    "after", [Rate(0, 0, 0.1, 0.0, 1.0, 0.1), Rate(0, 9, 0.0, 0.0, 0.3, 0.1), rate(1.0), rate(0.0)]
)
def test_nothing_breaks_a_verdict(before: Rate, after: Rate) -> None:
    assert judge(before, after).needed >= 1


@pytest.mark.parametrize(
    ("at_fix", "now", "back"),
    [
        (rate(0.1), rate(0.1), False),
        (rate(0.1), rate(0.4), True),
        (rate(0.1, n=20), rate(0.15), True),  # few when it was fixed; it is worse than the rest now
        (rate(0.2), rate(0.2), False),  # fixed though worse than the rest, and as it was
        (rate(0.2), rate(0.4), True),
        (rate(0.1), rate(0.4, n=5), False),  # too few to say
    ],
)
def test_what_was_fixed_comes_back(at_fix: Rate, now: Rate, back: bool) -> None:
    assert came_back(at_fix, now) is back


@pytest.mark.parametrize(("before", "after", "sign"), [(0.2, 0.4, 1), (0.4, 0.2, -1), (0.2, 0.2, 0), (0.2, 0.204, 0)])
def test_trend(before: float, after: float, sign: int) -> None:
    assert trend(rate(before), rate(after)) == sign


def test_a_spot_whose_rate_has_not_fallen_is_not_fixed() -> None:
    """The rest got much worse: the excess is gone, and the spot is missed more often than before."""
    before = Rate(missed=300, found=300, rate=0.4, low=0.35, high=0.45, against=0.1)
    after = Rate(missed=300, found=300, rate=0.45, low=0.4, high=0.5, against=0.45)
    assert not is_worse(after)
    assert judge(before, after).outcome is Outcome.TOO_FEW
    fallen = Rate(missed=300, found=300, rate=0.1, low=0.08, high=0.12, against=0.1)
    assert judge(before, fallen).outcome is Outcome.FIXED


@pytest.mark.parametrize(
    ("now", "rises"),
    [
        ((0.40, 0.36, 0.44), 1),  # far above
        ((0.22, 0.18, 0.26), 0),  # within the error of both
        ((0.18, 0.15, 0.22), 0),
        ((0.05, 0.04, 0.07), -1),  # far below
    ],
)
def test_a_trend_is_told_only_where_it_is_sure(now, rises) -> None:
    before = Rate(missed=100, found=100, rate=0.2, low=0.16, high=0.24, against=0.1)
    after = Rate(missed=100, found=100, rate=now[0], low=now[1], high=now[2], against=0.1)
    assert trend(before, after) == rises
