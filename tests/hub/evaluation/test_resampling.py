"""What is drawn, and whether the intervals hold what they should as often as they say."""

import numpy as np
import pytest

from hub.evaluation.resampling import FEW, draw, interval, share_interval, units
from tests.hub.evaluation.scenes import START_MS, member


def of(*places):
    """Members at (camera, seconds)."""
    return [
        member(f"p{at}", camera=camera, at_ms=START_MS + round(1000 * second) if camera else 0)
        for at, (camera, second) in enumerate(places)
    ]


def test_frames_of_one_camera_within_20_s_are_one_moment():
    found = units(of(("a", 0), ("a", 19), ("a", 20), ("b", 0), ("b", 1), ("", 0), ("", 0), ("c", 100)))
    assert found.kind == "moments"
    assert found.of.tolist() == [0, 0, 1, 2, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("places", "kind", "count"),
    [
        ([("a", second) for second in range(15)], "pictures", 15),  # all of one moment
        ([("a", 30 * at) for at in range(FEW)], "moments", FEW),
        ([("a", 30 * at) for at in range(FEW - 1)], "pictures", FEW - 1),
        ([("a", 0)], "too few", 1),
        ([], "too few", 0),
    ],
)
def test_few_moments_make_single_pictures_the_units(places, kind, count):
    found = units(of(*places))
    assert (found.kind, found.count) == (kind, count)


def test_every_resample_draws_as_many_units_as_there_are_and_the_pictures_of_one_together():
    drawn = units(of(*((camera, second) for camera in "abcdef" for second in (0, 1, 2))))
    weights = draw(drawn, seed=1, resamples=200)
    assert weights.shape == (18, 200)
    np.testing.assert_array_equal(weights[::3].sum(axis=0), 6)
    np.testing.assert_array_equal(weights[0], weights[1])
    np.testing.assert_array_equal(weights, draw(drawn, seed=1, resamples=200))
    assert weights.mean() == pytest.approx(1)


def test_an_interval_is_wider_where_there_are_fewer_units():
    samples = np.random.default_rng(0).normal(size=1000)
    width = {count: np.ptp(interval(samples, units=count)) for count in (3, 5, 10, 30, 1000)}
    assert list(width.values()) == sorted(width.values(), reverse=True)
    assert width[1000] == pytest.approx(2 * 1.96, rel=0.05)


def test_what_most_resamples_do_not_define_has_no_interval():
    samples = np.linspace(0, 1, 1000)
    assert interval(samples, units=1) is None
    samples[:50] = np.nan
    assert interval(samples, units=20) is not None
    samples[:150] = np.nan
    assert interval(samples, units=20) is None


def test_all_or_nothing_is_not_certain():
    low, high = share_interval(np.ones(1000), value=1.0, units=10)
    assert high == 1
    assert low == pytest.approx(0.7225, abs=1e-3)  # Wilson's, ten of ten
    low, high = share_interval(np.zeros(1000), value=0.0, units=10)
    assert low == 0
    assert high == pytest.approx(0.2775, abs=1e-3)
    assert share_interval(np.full(1000, 0.5), value=0.5, units=10) == (0.5, 0.5)


@pytest.mark.parametrize(("moments", "least"), [(8, 0.89), (20, 0.91), (60, 0.92)])
def test_intervals_of_a_share_over_moments_hold_the_truth_about_95_times_in_100(moments, least):
    """Moments differ in how hard they are; objects of one moment are found or missed alike."""
    rng = np.random.default_rng(moments)
    times, held, naive = 300, 0, 0
    for _ in range(times):
        chance = rng.beta(2.8, 1.2, moments)  # mean .7
        objects = rng.integers(4, 16, moments)
        found = rng.binomial(objects, chance)
        share = found.sum() / objects.sum()
        weights = rng.multinomial(moments, np.full(moments, 1 / moments), size=400)
        low, high = share_interval((weights @ found) / (weights @ objects), value=share, units=moments)
        held += low <= 0.7 <= high
        naive += abs(share - 0.7) <= 1.96 * np.sqrt(share * (1 - share) / objects.sum())
    assert least <= held / times <= 0.99
    assert naive / times < 0.8  # as if each object were a toss of its own
