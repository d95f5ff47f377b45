"""The exact tests behind a certificate: their arithmetic, their order, what they refuse."""

import itertools
import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from hub.certify import (
    POWER,
    Judged,
    alike,
    binomial_cdf,
    certify,
    chance_of,
    contradicts,
    fewest,
    hypergeometric_cdf,
    interval,
    most_wrong,
    needs,
    shares,
    spent,
    thresholds,
)

RATES = st.fractions(min_value=Fraction(1, 50), max_value=Fraction(49, 50), max_denominator=50)
MANY = 10**7
CONFIDENCES = st.lists(st.integers(0, 20).map(lambda n: n / 20), min_size=1, max_size=60)


def exact(most: int, images: int, rate: Fraction) -> Fraction:
    """By counting, in fractions."""
    return sum(
        (math.comb(images, k) * rate**k * (1 - rate) ** (images - k) for k in range(most + 1)), start=Fraction(0)
    )


@given(st.integers(0, 40), st.integers(-1, 41), RATES)
def test_the_binomial_tail_is_exact(images, most, rate):
    assert binomial_cdf(most, images, float(rate)) == pytest.approx(float(exact(min(most, images), images, rate)))


def test_the_binomial_tail_by_every_outcome():
    images, rate = 10, 0.3
    for most in range(images + 1):
        brute = sum(
            rate ** sum(row) * (1 - rate) ** (images - sum(row))
            for row in itertools.product((0, 1), repeat=images)
            if sum(row) <= most
        )
        assert binomial_cdf(most, images, rate) == pytest.approx(brute)


def test_the_binomial_tail_of_many_does_not_overflow():
    assert binomial_cdf(1000, 10_000, 0.1) == pytest.approx(0.5, abs=0.01)
    assert binomial_cdf(900, 10_000, 0.1) < 0.001


@given(st.integers(1, 200), RATES, RATES)
def test_a_test_errs_with_delta_at_most_at_any_risk_above_epsilon(images, epsilon, delta):
    allowed = most_wrong(images, epsilon=float(epsilon), delta=float(delta), left=0)
    assert allowed < images
    for risk in (epsilon, (epsilon + 1) / 2):
        assert exact(allowed, images, risk) <= delta + Fraction(1, 10**9)
    if allowed + 1 < images:  # one more would be too many, by the first test or by the second
        one_more = chance_of(allowed + 1, images, epsilon=float(epsilon), left=0)
        assert one_more > float(delta) - 1e-9


@given(st.integers(2, 25), st.data())
def test_drawn_from_few_without_replacement_the_test_errs_no_more(everything, data):
    """The tail of the hypergeometric distribution, which a draw from finitely many follows, lies under the binomial's.

    `wrong` is the least number that is more than epsilon of all.
    """
    drawn = data.draw(st.integers(1, everything))
    epsilon, delta = data.draw(RATES), data.draw(st.fractions(Fraction(1, 50), Fraction(1, 4), max_denominator=50))
    wrong = math.floor(epsilon * everything) + 1
    allowed = most_wrong(drawn, epsilon=float(epsilon), delta=float(delta), left=everything - drawn)
    ways = sum(math.comb(wrong, k) * math.comb(everything - wrong, drawn - k) for k in range(allowed + 1))
    assert Fraction(ways, math.comb(everything, drawn)) <= delta


@given(st.integers(1, 25), st.integers(1, 25), RATES, st.fractions(Fraction(1, 50), Fraction(1, 4), max_denominator=50))
def test_what_is_left_is_seldom_worse_than_epsilon_however_few_they_are(drawn, left, epsilon, delta):
    """Over every number of wrong ones: the probability to pass while more than epsilon of those left is wrong.

    By counting. With the first test alone it is up to one half: of 25 drawn none are wrong, and one of two left is.
    """
    allowed = most_wrong(drawn, epsilon=float(epsilon), delta=float(delta), left=left)
    everything = drawn + left
    for wrong in range(everything + 1):
        ways = sum(
            math.comb(wrong, k) * math.comb(everything - wrong, drawn - k)
            for k in range(allowed + 1)
            if wrong - k > epsilon * left
        )
        assert Fraction(ways, math.comb(everything, drawn)) <= delta


@given(st.integers(0, 30), st.integers(0, 30), st.integers(-1, 31), st.data())
def test_the_hypergeometric_tail_is_exact(bad, good, most, data):
    drawn = data.draw(st.integers(0, bad + good))
    ways = sum(math.comb(bad, k) * math.comb(good, drawn - k) for k in range(min(most, drawn) + 1))
    found = hypergeometric_cdf(most, drawn, bad=bad, everything=bad + good)
    assert found == pytest.approx(ways / math.comb(bad + good, drawn))


def test_of_very_many_the_second_test_asks_what_the_first_one_asks():
    for wrong in (0, 8, 12):
        expected = binomial_cdf(wrong, 150, 0.1)
        assert chance_of(wrong, 150, epsilon=0.1, left=MANY) == pytest.approx(expected, rel=1e-3)
        assert chance_of(wrong, 150, epsilon=0.1, left=200) > expected


def test_of_few_that_are_left_the_promise_holds_for_them():
    """Of 300 images, 8 % wrong, 200 are drawn: by the first test alone 1 in 6 or more would be a broken promise."""
    rng, broken, passed = random.Random(11), 0, 0
    for _ in range(300):
        everything = [Judged(rng.random(), rng.random() < 0.08) for _ in range(300)]
        rest = everything[200:]
        level = certify(everything[:200], [one.confidence for one in rest], epsilon=0.1, delta=0.1).certified
        if level is not None:
            accepted = [one.wrong for one in rest if one.confidence >= level.threshold]
            passed += 1
            broken += sum(accepted) > 0.1 * len(accepted)
    assert passed > 10
    assert broken / 300 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 300)


@given(RATES, RATES)
def test_fewest_is_the_first_number_that_can_pass(epsilon, delta):
    least = fewest(epsilon=float(epsilon), delta=float(delta))
    assert (1 - epsilon) ** least <= delta * Fraction(1_000_001, 1_000_000)
    assert (1 - epsilon) ** (least - 1) > delta * Fraction(999_999, 1_000_000)


@given(st.integers(1, 5000), RATES, RATES)
def test_shares_ascend_to_all(images, epsilon, delta):
    found = shares(images, epsilon=float(epsilon), delta=float(delta))
    assert list(found) == sorted(set(found))
    assert 0 < found[0] <= found[-1] == 1.0


@given(CONFIDENCES)
def test_each_share_is_reached_and_no_threshold_is_doubled(pool):
    wanted = shares(200, epsilon=0.1, delta=0.1)
    found = thresholds(pool, wanted)
    assert list(found) == sorted(set(found), reverse=True)
    assert set(found) <= set(pool)
    for share in wanted:
        assert any(sum(one >= least for one in pool) >= share * len(pool) - 1e-9 for least in found)
    assert found[-1] == min(pool)


@given(CONFIDENCES, st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=80))
def test_levels_are_tested_in_order_until_one_fails(pool, drawn):
    verdict = certify([Judged(n / 20, wrong) for n, wrong in drawn], pool, epsilon=0.2, delta=0.2)
    passed = [level.passed for level in verdict.levels]
    count = passed.index(False) if False in passed else len(passed)
    assert passed == [True] * count + [False][: len(passed) - count] + [None] * (len(passed) - count - 1)
    for level in verdict.levels:
        reached = [wrong for n, wrong in drawn if n / 20 >= level.threshold]
        assert (level.accepted, level.wrong) == (len(reached), sum(reached))
        assert level.passed is not True or level.accepted >= fewest(epsilon=0.2, delta=0.2)
    assert verdict.certified == (verdict.levels[count - 1] if count else None)


@given(CONFIDENCES, st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=30, max_size=80), st.integers(0))
def test_mending_an_error_never_lowers_what_is_certified(pool, drawn, which):
    def share(rows):
        level = certify([Judged(n / 20, wrong) for n, wrong in rows], pool, epsilon=0.2, delta=0.2).certified
        return 0.0 if level is None else level.share

    mended = list(drawn)
    mended[which % len(mended)] = (mended[which % len(mended)][0], False)
    assert share(mended) >= share(drawn)


@given(CONFIDENCES, st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=60))
def test_the_levels_do_not_depend_on_right_or_wrong(pool, drawn):
    one, other = (
        certify([Judged(n / 20, wrong != turned) for n, wrong in drawn], pool, epsilon=0.1, delta=0.1).levels
        for turned in (False, True)
    )
    assert [level.threshold for level in one] == [level.threshold for level in other]


def test_violations_stay_under_delta_at_a_risk_just_above_epsilon():
    """Every level is too much: what passes at all is a violation. 400 runs, 3 standard errors."""
    rng = random.Random(5)
    passed = sum(
        certify(
            [Judged(rng.random(), rng.random() < 0.101) for _ in range(100)],
            [rng.random() for _ in range(60)],
            epsilon=0.1,
            delta=0.2,
        ).certified
        is not None
        for _ in range(400)
    )
    assert passed / 400 <= 0.2 + 3 * math.sqrt(0.2 * 0.8 / 400)
    assert passed  # it is no test that nothing passes


@pytest.mark.parametrize(
    ("images", "wrong", "certified"),
    [
        (0, 0, False),  # nobody has labelled anything
        (21, 0, False),  # 0.9 ** 21 is more than .1
        (22, 0, True),  # and 0.9 ** 22 is less
        (22, 1, False),
        (200, 12, True),
        (200, 30, False),
    ],
)
def test_what_is_refused_when_all_are_equally_sure(images, wrong, certified):
    drawn = [Judged(0.5, number < wrong) for number in range(images)]
    verdict = certify(drawn, [0.5] * 10, epsilon=0.1, delta=0.1, population=5000)
    assert (verdict.certified is not None) == certified
    assert len(verdict.levels) == 1


@pytest.mark.parametrize(("epsilon", "delta"), [(0, 0.1), (1, 0.1), (0.1, 0), (0.1, 1), (float("nan"), 0.1)])
def test_rates_that_make_no_sense_are_refused(epsilon, delta):
    with pytest.raises(UnusableError, match="more than 0 and less than 1"):
        certify([], [0.5], epsilon=epsilon, delta=delta)


def test_nothing_left_to_label_is_refused():
    with pytest.raises(UnusableError, match="no unlabelled image"):
        certify([Judged(0.5, False)], [], epsilon=0.1, delta=0.1)


@pytest.mark.parametrize(
    ("images", "wrong"),
    [
        (10, 0),  # too few to tell
        (30, 1),
        (100, 5),
        (200, 15),  # close to the limit: many more
    ],
)
def test_so_many_more_images_are_enough(images, wrong):
    drawn, pool = [Judged(0.5, n < wrong) for n in range(images)], [0.5, 0.4]
    assert certify(drawn, pool, epsilon=0.1, delta=0.01, population=MANY).certified is None
    more = needs(drawn, pool, epsilon=0.1, delta=0.01, population=MANY)
    assert more is not None
    assert more > 0
    carried = math.floor(shares(images + more, epsilon=0.1, delta=0.01)[0] * (images + more))
    allowed = most_wrong(carried, epsilon=0.1, delta=0.01, left=MANY)
    assert binomial_cdf(allowed, carried, wrong / images) >= POWER


def test_the_fewer_are_left_the_more_are_needed():
    drawn, pool = [Judged(0.5, n < 1) for n in range(30)], [0.5, 0.4]
    found = [needs(drawn, pool, epsilon=0.1, delta=0.05, population=left) for left in (MANY, 3000, 60)]
    assert None not in found
    assert found[0] < found[1] < 3000  # these are here
    assert found[2] >= 60  # and so many are not


def test_no_number_helps_where_the_most_confident_are_wrong_too_often():
    assert needs([Judged(0.5, n < 10) for n in range(60)], [0.5], epsilon=0.1, delta=0.1) is None


def test_few_images_are_judged_by_the_more_confident_half():
    """Of 20 all have to be accepted to carry a test at all; that half of them are wrong does not say that none pass."""
    drawn = [Judged(n / 20, n < 10) for n in range(20)]
    pool = [n / 20 for n in range(20)]
    assert shares(20, epsilon=0.1, delta=0.1)[0] == 1.0
    more = needs(drawn, pool, epsilon=0.1, delta=0.1, population=MANY)
    assert more is not None
    assert more > 20


def test_without_any_image_a_number_is_named():
    assert 100 < needs([], [0.5], epsilon=0.1, delta=0.1, population=MANY) < 600


@given(st.floats(0.001, 0.999))
def test_all_attempts_together_keep_delta(delta):
    assert sum(spent(delta, attempt) for attempt in range(1, 60)) <= delta * (1 + 1e-9)
    assert spent(delta, 1) > delta / 2


@pytest.mark.parametrize(
    ("wrong", "images", "low", "high"),
    [
        (0, 0, 0.0, 1.0),  # nothing is known
        (0, 10, 0.0, 0.3085),  # from tables of Clopper and Pearson
        (10, 10, 0.6915, 1.0),
        (5, 20, 0.0866, 0.4910),
        (1, 100, 0.0003, 0.0545),
    ],
)
def test_the_exact_interval(wrong, images, low, high):
    assert interval(wrong, images) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "images", "says"),
    [
        (0, 0, False),
        (2, 20, False),  # as promised
        (5, 20, False),  # 1 in 23 for a single look, but one looks again and again
        (7, 20, True),
        (2, 2, False),  # two images
        (3, 3, True),
        (40, 200, True),
    ],
)
def test_what_contradicts_ten_percent(wrong, images, says):
    assert contradicts(wrong, images, epsilon=0.1) is says


def test_a_promise_that_is_kept_is_seldom_contradicted_however_often_one_looks():
    """Exactly, over all ways of 200 checks at the very limit, looked at after each."""
    stopped, alive = 0.0, {0: 1.0}
    for images in range(1, 201):
        grown: dict[int, float] = {}
        for wrong, chance in alive.items():
            grown[wrong] = grown.get(wrong, 0.0) + chance * 0.9
            grown[wrong + 1] = grown.get(wrong + 1, 0.0) + chance * 0.1
        stopped += sum(chance for wrong, chance in grown.items() if contradicts(wrong, images, epsilon=0.1))
        alive = {wrong: chance for wrong, chance in grown.items() if not contradicts(wrong, images, epsilon=0.1)}
    assert 0.01 < stopped <= 0.05


def test_a_promise_that_is_broken_twice_over_is_contradicted_by_a_hundred_checks():
    rng = random.Random(2)
    found = 0
    for _ in range(200):
        wrong = itertools.accumulate(rng.random() < 0.2 for _ in range(100))
        found += any(contradicts(count, images, epsilon=0.1) for images, count in enumerate(wrong, 1))
    assert found / 200 > 0.55


def test_alike_tells_what_has_shifted():
    rng = random.Random(1)
    same = [[rng.random() for _ in range(200)] for _ in range(2)]
    assert alike(*same) > 0.05
    assert alike(same[0], [one + 0.3 for one in same[1]]) < 1e-6
    assert alike([], [1.0]) == 1.0
    assert alike([1.0] * 50, [1.0] * 50) == 1.0
    # of many draws from one source few are called different
    calls = [alike([rng.random() for _ in range(60)], [rng.random() for _ in range(90)]) < 0.05 for _ in range(300)]
    assert sum(calls) / 300 <= 0.09
