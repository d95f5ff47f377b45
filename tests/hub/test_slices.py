"""Slices: rates are those of the formula, planted weak points are named once and simply, and noise is not."""

from itertools import combinations, pairwise
from math import comb, exp, lgamma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.conjunctions import TagRows, conjunctions, log_factorials, log_tails
from hub.slices import find_slices, measure

BASE = 0.09
TAGS = ("tiny", "dark", "motion_blur", "crowded", "noisy", "occluded", "border", "flat", "left", "grayscale")


def mask(*runs):
    """Return a mask of runs of (value, length)."""
    return np.repeat(np.array([bool(value) for value, _ in runs], bool), [int(length) for _, length in runs])


def rows(rng, *weak, share=0.3, missed=1500, found=1500, base=BASE, high=0.41, tags=TAGS):
    """Return names, has and missed of case-control rows; objects with all tags of a weak point are missed at `high`."""
    objects = int(1.3 * max(missed / base, found / (1 - high)))
    has = rng.random((objects, len(tags))) < share
    inside = np.zeros(objects, bool)
    for point in weak:
        inside |= has[:, [tags.index(tag) for tag in point]].all(axis=1)
    is_missed = rng.random(objects) < np.where(inside, high, base)
    chosen = np.concatenate([np.flatnonzero(is_missed)[:missed], np.flatnonzero(~is_missed)[:found]])
    return list(tags), has[chosen], is_missed[chosen]


def named(slices):
    return [set(one.tags) for one in slices]


# --- rates


def test_the_rate_is_that_of_the_formula():
    """100 missed, 40 of them in the slice; 200 found, 20 in it; base rate .1.

    odds = .1/.9 * (40/100) / (20/200) = .4444, rate = .4444 / 1.4444 = 4/13. Outside: .1/.9 * .6 / .9 = 2/27; 2/29.
    Interval: the ratio with halves is (40.5/100.5) / (20.5/200.5) = 3.9413, its variance 1/40.5 - 1/100.5 + 1/20.5
    - 1/200.5 = .058534, so it lies within a factor of exp(1.96 * .24194) = 1.6067: 2.4531 .. 6.3324.
    """
    missed = mask((1, 100), (0, 200))
    inside = mask((1, 40), (0, 60), (1, 20), (0, 180))
    rate = measure(inside, missed, base_rate=0.1)
    assert (rate.missed, rate.found) == (40, 20)
    assert (rate.rate, rate.against) == pytest.approx((4 / 13, 2 / 29))
    low, high = (0.1 / 0.9 * ratio for ratio in (2.4531, 6.3324))
    assert (rate.low, rate.high) == pytest.approx((low / (1 + low), high / (1 + high)), abs=1e-4)


EDGES = {
    # nothing is known of an empty slice but the base rate
    "empty slice": (mask((0, 8)), mask((1, 4), (0, 4)), 0.1, (0.1, 0.0, 1.0, 0.1)),
    # the slice of all rows has the base rate; nothing is outside
    "all rows": (mask((1, 8)), mask((1, 4), (0, 4)), 0.1, (0.1, 0.1, 0.1, 0.1)),
    # no rows at all
    "no rows": (mask(), mask(), 0.1, (0.1, 0.0, 1.0, 0.1)),
    # without found rows there is nothing to compare with
    "all missed": (mask((1, 4), (0, 4)), mask((1, 8)), 0.1, (0.1, 0.0, 1.0, 0.1)),
    # nor here
    "none missed": (mask((1, 4), (0, 4)), mask((0, 8)), 0.1, (0.1, 0.0, 1.0, 0.1)),
    # where nothing is missed, nothing is missed in a slice
    "base rate 0": (mask((1, 4), (0, 4)), mask((1, 3), (0, 5)), 0.0, (0.0, 0.0, 0.0, 0.0)),
    # where everything is
    "base rate 1": (mask((1, 4), (0, 4)), mask((1, 3), (0, 5)), 1.0, (1.0, 1.0, 1.0, 1.0)),
}


@pytest.mark.parametrize(("inside", "missed", "base", "expected"), EDGES.values(), ids=EDGES)
def test_rates_at_the_edges(inside, missed, base, expected):
    rate = measure(inside, missed, base_rate=base)
    assert (rate.rate, rate.low, rate.high, rate.against) == pytest.approx(expected)
    assert rate.missed + rate.found == inside.sum()


def test_a_slice_without_found_rows_may_be_missed_always_and_one_without_missed_never():
    missed = mask((1, 50), (0, 50))
    always = measure(mask((1, 20), (0, 80)), missed, base_rate=0.1)
    never = measure(mask((0, 80), (1, 20)), missed, base_rate=0.1)
    assert (always.rate, always.high, never.rate, never.low) == (1, 1, 0, 0)
    assert 0.2 < always.low < 1
    assert 0 < never.high < 0.3


@given(
    st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60),
    st.floats(0, 1).filter(lambda rate: rate in {0, 1} or 1e-9 < rate < 1 - 1e-9),
)
def test_a_rate_lies_in_its_interval(drawn, base):
    inside, missed = (np.array([one[at] for one in drawn], bool) for at in (0, 1))
    rate = measure(inside, missed, base_rate=base)
    assert 0 <= rate.low <= rate.rate <= rate.high <= 1
    assert 0 <= rate.against <= 1


@pytest.mark.parametrize(("share", "high"), [(0.02, 0.41), (0.1, 0.41), (0.1, 0.15), (0.4, 0.7)])
@pytest.mark.parametrize("events", [150, 1500])
def test_the_interval_holds_the_rate(share, high, events):
    """3000 draws: the error of a coverage of .95 is .004."""
    rng = np.random.default_rng([int(100 * share), int(100 * high), events])
    prevalence = share * high + (1 - share) * BASE
    drawn = zip(
        rng.binomial(events, share * high / prevalence, 3000).tolist(),
        rng.binomial(events, share * (1 - high) / (1 - prevalence), 3000).tolist(),
        strict=True,
    )
    missed = mask((1, events), (0, events))
    held = []
    for m, d in drawn:
        rate = measure(mask((1, m), (0, events - m), (1, d), (0, events - d)), missed, base_rate=prevalence)
        held.append(rate.low <= high <= rate.high)
    assert np.mean(held) >= 0.93


# --- significance and counts


@given(st.data())
@settings(max_examples=200)
def test_the_tail_is_the_exact_one_and_falls_with_every_missed_row(data):
    total = data.draw(st.integers(2, 120))
    cases = data.draw(st.integers(1, total - 1))
    n = data.draw(st.integers(1, total))
    span = np.arange(max(0, n - (total - cases)), min(n, cases) + 1)
    tails = log_tails(span, np.full(len(span), n), cases=cases, total=total, logs=log_factorials(total))
    for m, tail in zip(span.tolist(), tails.tolist(), strict=True):
        exact = sum(comb(cases, k) * comb(total - cases, n - k) for k in range(m, min(n, cases) + 1)) / comb(total, n)
        assert exp(tail) == (pytest.approx(exact, rel=1e-8) if m * total > n * cases else 1)
    assert all(after <= before for before, after in pairwise(tails.tolist()))


def test_the_tail_of_200_000_rows_is_a_number_where_the_chance_is_none():
    """All 50,000 rows of a slice are missed: a chance of 10**-18741."""
    m, n = np.array([50_000]), np.array([50_000])
    tail = log_tails(m, n, cases=100_000, total=200_000, logs=log_factorials(200_000))
    exact = lgamma(100_001) - lgamma(50_001) - lgamma(200_001) + lgamma(150_001)  # 100000! 150000! / 50000! 200000!
    assert tail[0] == pytest.approx(exact, abs=1e-6)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_all_conjunctions_with_support_are_counted_exactly(seed, depth, support):
    rng = np.random.default_rng(seed)
    has = rng.random((60, 6)) < rng.choice([0.1, 0.3, 0.5, 0.9])
    whole = TagRows(tuple("abcdef"), has, 20)
    gone = rng.random(60) < 0.3
    expected = {}
    for size in range(1, depth + 1):
        for columns in combinations(range(6), size):
            inside = whole.inside(columns)
            shorter = [whole.inside(columns[:-1]), whole.inside((*columns[:-2], columns[-1]))] if size > 1 else []
            parents_kept = size == 1 or all(part in expected for part in (columns[:-1], (*columns[:-2], columns[-1])))
            if size == 1 or (
                parents_kept and inside.sum() >= support and all(one.sum() > inside.sum() for one in shorter)
            ):
                expected[columns] = inside
    counted = {}
    for tried in conjunctions(whole, depth, support):
        left = tried.less(whole.only(gone))
        for at, columns in enumerate(tried.columns.tolist()):
            counted[tuple(columns)] = tried.missed[at], tried.sizes[at], left.missed[at], left.sizes[at]
    assert counted == {
        columns: (inside[:20].sum(), inside.sum(), (inside & ~gone)[:20].sum(), (inside & ~gone).sum())
        for columns, inside in expected.items()
    }


# --- what is named

NOTHING = {
    # no rows
    "empty": (np.zeros((0, 2), bool), mask()),
    # no found rows
    "all missed": (np.tile([[True, False]], (90, 1)), mask((1, 90))),
    # nothing is missed
    "none missed": (np.tile([[True, False]], (90, 1)), mask((0, 90))),
    # a tag that all rows have tells nothing
    "one tag for all rows": (np.tile([[True, False]], (90, 1)), mask((1, 45), (0, 45))),
    # clear, but of fewer rows than asked
    "no support": (np.stack([mask((1, 24), (0, 176)), mask((0, 200))], axis=1), mask((1, 100), (0, 100))),
    # missed less often than the rest
    "better": (np.stack([mask((0, 100), (1, 60), (0, 40)), mask((0, 200))], axis=1), mask((1, 100), (0, 100))),
}


@pytest.mark.parametrize(("has", "missed"), NOTHING.values(), ids=NOTHING)
def test_nothing_is_named_where_nothing_is_to_be_found(has, missed):
    assert find_slices(["a", "b"], has, missed, base_rate=0.1) == []


@pytest.mark.parametrize("base", [0.0, 1.0])
def test_nothing_is_named_where_rates_cannot_differ(base):
    names, has, missed = rows(np.random.default_rng(0), ("dark",))
    assert find_slices(names, has, missed, base_rate=base) == []
    assert named(find_slices(names, has, missed, base_rate=BASE)) == [{"dark"}]


def test_without_tags_nothing_is_named():
    assert find_slices([], np.zeros((90, 0), bool), mask((1, 45), (0, 45)), base_rate=0.1) == []


BAD = {
    "names": {"names": ["a", "b"]},
    "rows": {"missed": np.zeros(8, bool)},
    "a tag twice": {"names": ["a", "a"], "has": np.zeros((9, 2), bool)},
    "rate": {"base_rate": 1.5},
    "depth": {"max_depth": 0},
    "support": {"min_support": 0},
    "alpha": {"alpha": 1.0},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused(bad):
    good = {"names": ["a"], "has": np.zeros((9, 1), bool), "missed": np.zeros(9, bool), "base_rate": 0.1}
    assert find_slices(**good) == []
    with pytest.raises(ValueError, match="expected"):
        find_slices(**{**good, **bad})


@pytest.mark.parametrize("inside", [np.zeros(8, bool), np.zeros((9, 1), bool)], ids=["length", "dimensions"])
def test_a_rate_of_other_rows_is_refused(inside):
    with pytest.raises(ValueError, match="expected two masks"):
        measure(inside, np.zeros(9, bool), base_rate=0.1)


PLANTED = {
    # one tag; not one of its conjunctions
    "one": [("dark",)],
    # only the pair is weak: neither half is named, nor the pair with a third
    "pair": [("tiny", "motion_blur")],
    "triple": [("dark", "crowded", "border")],
    # two different ones, both
    "two": [("tiny", "motion_blur"), ("dark", "crowded")],
    # they share a tag
    "two that share a tag": [("tiny", "motion_blur"), ("tiny", "dark")],
    "a tag and a triple": [("noisy",), ("dark", "crowded", "border")],
}


@pytest.mark.parametrize("weak", PLANTED.values(), ids=PLANTED)
def test_what_is_planted_is_named_and_nothing_else(weak):
    right = 0
    for seed in range(20):
        names, has, missed = rows(np.random.default_rng([seed, len(weak)]), *weak)
        slices = find_slices(names, has, missed, base_rate=BASE)
        right += sorted(map(sorted, named(slices))) == sorted(map(sorted, weak))
    assert right >= 18


def test_a_slice_tells_its_rows_and_its_rate():
    names, has, missed = rows(np.random.default_rng(1), ("tiny", "motion_blur"))
    (found,) = find_slices(names, has, missed, base_rate=BASE)
    assert (found.members == (has[:, names.index("tiny")] & has[:, names.index("motion_blur")])).all()
    assert found.rate == measure(found.members, missed, base_rate=BASE)
    assert found.rate.low > found.rate.against
    assert found.score == pytest.approx((found.rate.low - found.rate.against) * found.members.sum() ** 0.5)
    assert 0 <= found.p_value <= 0.05


def test_the_tag_that_tells_most_comes_first():
    """Of 200 each are missed: 180 of the tiny and dark, 70 of the tiny only, 50 of the dark only; 120 of 600 others."""
    tiny = mask((1, 400), (0, 800))
    dark = mask((1, 200), (0, 200), (1, 200), (0, 600))
    missed = mask((1, 180), (0, 20), (1, 70), (0, 130), (1, 50), (0, 150), (1, 120), (0, 480))
    (first, *_) = find_slices(["dark", "tiny"], np.stack([dark, tiny], axis=1), missed, base_rate=0.3)
    assert first.tags == ("tiny", "dark")


@pytest.mark.parametrize(
    ("crowded", "expected"),
    [
        # 47 of 60: the most significant of all, and more than the 43 of 75 without it (p = .008);
        # but there are twelve more tags, each of which could have been `crowded`
        ((47, 13), {"dark"}),
        # 50 of 60, 40 of 75 without it
        ((50, 10), {"dark", "crowded"}),
    ],
)
def test_a_tag_that_chance_may_have_added_is_left_out(crowded, expected):
    """Of 135 dark rows 90 are missed, of the other 1065 510."""
    dark, missed = mask((1, 135), (0, 1065)), mask((1, 90), (0, 45), (1, 510), (0, 555))
    m, n = crowded
    is_crowded = mask((1, m), (0, 90 - m), (1, n), (0, 45 - n), (1, 190), (0, 320), (1, 190), (0, 365))
    others = np.random.default_rng(9).random((1200, 12)) < 0.5
    tags = ["dark", "crowded", *(f"tag{number}" for number in range(12))]
    slices = find_slices(tags, np.column_stack([dark, is_crowded, others]), missed, base_rate=BASE)
    assert named(slices) == [expected]


def test_a_tag_that_makes_no_difference_in_a_slice_makes_its_name_no_narrower():
    """The tiny are missed at .6 whatever they are; of the others those with any of four tags less than the rest."""
    rng = np.random.default_rng(0)
    has = rng.random((20_000, 5)) < 0.3
    missed = rng.random(len(has)) < np.where(has[:, 0], 0.6, 0.4 - 0.1 * has[:, 1:].sum(axis=1))
    assert named(find_slices(list(TAGS[:5]), has, missed, base_rate=0.4)) == [{"tiny"}]


def test_shuffled_rows_name_nothing_in_more_than_five_of_a_hundred_sets():
    """At most 10 of 150: at a chance of .05, more come once in 7 suites; here the correction makes it far less."""
    anything = 0
    for seed in range(150):
        rng = np.random.default_rng(seed)
        has = rng.random((400, 12)) < rng.uniform(0.05, 0.5, 12)
        has[:, 1] |= has[:, 0]  # tags go together
        anything += bool(find_slices((*TAGS, "x", "y"), has, rng.permutation(400) < 200, base_rate=BASE))
    assert anything <= 10


def test_the_names_of_a_camera_give_way_to_what_is_measured_there():
    """All rows of one camera are dark, and hardly any other: `dark` it is, not the camera, site or hours."""
    names, has, missed = rows(np.random.default_rng(3), ("dark",))
    dark = has[:, names.index("dark")]
    told = np.stack([dark] * 4 + [dark & (np.arange(len(dark)) % 10 > 0)], axis=1)
    more = ["site:a", "camera:a/b/c", "hours:00-04", "label:cat", "camera:a/b/d"]
    for order in (range(len(names) + 5), reversed(range(len(names) + 5))):
        at = list(order)
        slices = find_slices([[*names, *more][i] for i in at], np.hstack([has, told])[:, at], missed, base_rate=BASE)
        assert named(slices) == [{"dark"}]


def test_a_camera_is_named_where_nothing_measured_says_it():
    names, has, missed = rows(np.random.default_rng(4), ("dark",))
    for told in ("site:a", "camera:a/b/c"):
        names[names.index("dark") if "dark" in names else names.index("site:a")] = told
        assert named(find_slices(names, has, missed, base_rate=BASE)) == [{told}]


def test_of_the_told_names_of_the_same_rows_the_camera_comes_before_the_site():
    names, has, missed = rows(np.random.default_rng(4), ("dark",), tags=("site:a", "dark", "tiny"))
    names[names.index("dark")] = "camera:a/b/c"
    has[:, 0] = has[:, 1]
    assert named(find_slices(names, has, missed, base_rate=BASE)) == [{"camera:a/b/c"}]


def test_two_measured_tags_that_nearly_always_go_together_are_one_thing():
    names, has, missed = rows(np.random.default_rng(5), ("dark",))
    rng = np.random.default_rng(6)
    has[:, names.index("flat")] = has[:, names.index("dark")] ^ (rng.random(len(has)) < 0.03)
    (first, *others) = named(find_slices(names, has, missed, base_rate=BASE))
    assert first == {"dark"}
    assert not any(tags & {"dark", "flat"} for tags in others)


def test_one_camera_changes_nothing():
    """With one camera, one site and one label all rows have these tags."""
    names, has, missed = rows(np.random.default_rng(7), ("dark", "tiny"))
    everywhere = np.ones((len(has), 3), bool)
    wider = find_slices(
        [*names, "camera:a/b/c", "site:a", "label:cat"], np.hstack([has, everywhere]), missed, base_rate=BASE
    )
    alone = find_slices(names, has, missed, base_rate=BASE)
    assert [(one.tags, one.p_value) for one in wider] == [(one.tags, one.p_value) for one in alone]
    assert named(wider) == [{"dark", "tiny"}]


def test_depth_support_and_limit_are_kept():
    names, has, missed = rows(np.random.default_rng(8), ("tiny", "motion_blur"), ("dark", "crowded"))
    assert len(find_slices(names, has, missed, base_rate=BASE)) == 2
    assert len(find_slices(names, has, missed, base_rate=BASE, limit=1)) == 1
    assert all(len(one.tags) == 1 for one in find_slices(names, has, missed, base_rate=BASE, max_depth=1))
    assert find_slices(names, has, missed, base_rate=BASE, min_support=len(has)) == []


@given(st.randoms(use_true_random=False), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_the_order_of_rows_and_of_tags_does_not_matter(random, seed):
    names, has, missed = rows(
        np.random.default_rng(seed), ("tiny", "motion_blur"), ("dark",), missed=300, found=300, high=0.5
    )
    has[:, names.index("flat")] = has[:, names.index("dark")]  # two names of one thing
    has[:, names.index("noisy")] = ~has[:, names.index("left")]
    by_row, by_tag = list(range(len(has))), list(range(len(names)))
    random.shuffle(by_row)
    random.shuffle(by_tag)
    before = find_slices(names, has, missed, base_rate=BASE)
    after = find_slices([names[at] for at in by_tag], has[by_row][:, by_tag], missed[by_row], base_rate=BASE)
    assert before
    assert [(one.tags, one.rate, one.p_value, one.score) for one in before] == [
        (one.tags, one.rate, one.p_value, one.score) for one in after
    ]
    assert all((one.members[by_row] == other.members).all() for one, other in zip(before, after, strict=True))
