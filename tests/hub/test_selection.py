"""The laws of hub.selection, and what it finds on made long-tail data with junk."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.selection import PREFILTER, SHARES, Trait, camera_cap, describe, kept_of, log_fraction, select


@st.composite
def problems(draw):
    n = draw(st.integers(0, 30))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    return {
        "features": rng.normal(size=(n, 5)) * draw(st.sampled_from([0.0, 1.0])),
        "severity": rng.uniform(0, 1, n),
        "camera": rng.integers(0, draw(st.integers(1, 4)), n).tolist(),
        "group": rng.integers(0, draw(st.integers(1, 40)), n).tolist(),
        "size": draw(st.integers(0, 12)),
        "frame": rng.integers(0, draw(st.integers(1, 40)), n).tolist(),
        "prefilter": draw(st.sampled_from([7, PREFILTER])),
    }


@given(problems())
@settings(max_examples=200, deadline=None)
def test_size_groups_and_frames_are_respected(problem):
    # law 1
    picks = select(**problem)
    chosen = [pick.candidate for pick in picks]
    assert len(chosen) == len(set(chosen)) <= problem["size"]
    assert len({problem["group"][i] for i in chosen}) == len(chosen)
    assert len({problem["frame"][i] for i in chosen}) == len(chosen)
    assert all(0 <= i < len(problem["severity"]) for i in chosen)
    assert all(pick.gain >= 0 and pick.why for pick in picks)


@given(problems())
@settings(max_examples=100, deadline=None)
def test_gains_do_not_rise(problem):
    # law 2, where no cap can need lifting: one camera, and every candidate its own group and frame
    n = len(problem["severity"])
    picks = select(**{**problem, "camera": [0] * n, "group": range(n), "frame": range(n)})
    gains = [pick.gain for pick in picks]
    assert all(later <= earlier + 1e-5 for earlier, later in itertools.pairwise(gains))
    assert len(picks) == min(problem["size"], n, problem["prefilter"])


@given(problems())
@settings(max_examples=50, deadline=None)
def test_the_same_input_gives_the_same_choice(problem):
    # law 3
    assert select(**problem) == select(**problem)


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 60))
def test_the_cap_fills_the_batch_and_no_lower_one_does(counts, size):
    cap = camera_cap(counts, size)
    wanted = min(size, sum(counts))
    assert sum(min(count, cap) for count in counts) >= wanted
    if counts and cap > max(1, -(-2 * size // len(counts))):
        assert sum(min(count, cap - 1) for count in counts) < wanted


def long_tail(seed, *, n=1000, modes=50, junk=0.05, dimensions=64):
    """Made findings: modes of very different frequency, and outliers with high severity, as junk has."""
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, modes + 1) ** 1.3
    outliers = int(n * junk)
    mode = np.concatenate(
        [
            np.arange(modes),
            rng.choice(modes, n - outliers - modes, p=frequency / frequency.sum()),
            np.full(outliers, -1),
        ]
    )
    centre = rng.normal(size=(modes, dimensions)) / np.sqrt(dimensions)
    features = rng.normal(size=(n, dimensions)) / np.sqrt(dimensions)
    features[mode >= 0] = centre[mode[mode >= 0]] + 0.5 * features[mode >= 0]
    severity = np.where(mode >= 0, rng.uniform(0.3, 0.9, modes)[mode], 0.75) + rng.normal(0, 0.15, n)
    shuffled = rng.permutation(n)
    return features[shuffled], np.clip(severity, 0, 1)[shuffled], mode[shuffled]


def covered_and_junk(chosen, mode):
    found = mode[chosen]
    return len(set(found[found >= 0])) / (mode.max() + 1), float(np.mean(found < 0))


@pytest.mark.parametrize("seed", range(5))
def test_the_long_tail_is_covered_and_junk_kept_out(seed):
    features, severity, mode = long_tail(seed)
    picks = select(features, severity, [0] * 1000, range(1000), 50)
    coverage, junk = covered_and_junk([pick.candidate for pick in picks], mode)
    random = [np.random.default_rng(i).choice(1000, 50, replace=False) for i in range(20)]
    assert coverage >= 0.83
    assert junk <= 0.08
    assert coverage > 1.5 * np.mean([covered_and_junk(chosen, mode)[0] for chosen in random])
    assert coverage > 1.5 * covered_and_junk(np.argsort(-severity)[:50], mode)[0]


def test_the_severe_kind_comes_before_the_frequent_one():
    # 20 mild findings of one kind, 12 severe ones of another: weights .325 * 20 < .925 * 12
    kinds = np.repeat(np.eye(2), (20, 12), axis=0)
    picks = select(kinds, [0.1] * 20 + [0.9] * 12, ["a"] * 32, range(32), 2)
    assert picks[0].candidate >= 20
    assert picks[1].candidate < 20
    assert [pick.why for pick in picks] == ["stands for 11 more like it", "stands for 19 more like it"]


def test_what_is_like_nothing_stands_only_for_itself():
    features = np.eye(4)[[0, 0, 0, 1]]
    picks = select(features, [0.5] * 4, ["a"] * 4, range(4), 2)
    assert picks[1].candidate == 3
    assert picks[1].why == "like no other finding"


def test_what_is_like_nothing_chosen_is_stood_for_by_none():
    # the third kind finds no place in the batch, and its one finding is like neither of the others
    picks = select(np.eye(3)[[0, 0, 0, 1, 1, 2]], [0.5] * 6, ["a"] * 6, range(6), 2)
    assert [pick.why for pick in picks] == ["stands for 2 more like it", "stands for 1 more like it"]


def test_a_copy_of_the_first_fills_the_batch():
    picks = select(np.eye(3)[[0, 0, 1]], [0.5] * 3, ["a"] * 3, range(3), 3)
    assert [pick.why for pick in picks] == ["like no other finding", "like no other finding", "fills the batch"]
    assert picks[2].gain == pytest.approx(0, abs=1e-6)


def test_no_camera_takes_more_than_twice_its_share():
    # the busy camera has all the variety
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(90, 8)), np.ones((30, 8)) + rng.normal(0, 0.01, (30, 8))])
    camera = ["busy"] * 90 + ["b"] * 10 + ["c"] * 10 + ["d"] * 10
    chosen = [camera[p.candidate] for p in select(features, [0.5] * 120, camera, range(120), 20)]
    assert chosen.count("busy") == 10
    assert len(chosen) == 20


def test_a_camera_may_give_more_where_the_others_have_nothing():
    camera = ["busy"] * 30 + ["quiet"] * 2
    picks = select(np.random.default_rng(0).normal(size=(32, 4)), [0.5] * 32, camera, range(32), 20)
    assert len(picks) == 20


def test_a_cap_is_lifted_where_shared_frames_keep_the_batch_from_filling():
    # a and b show the same four frames, so b cannot fill what a's cap leaves
    camera = ["a"] * 8 + ["b"] * 4 + ["c", "d"]
    frame = [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 8, 9]
    picks = select(np.random.default_rng(1).normal(size=(14, 4)), [0.5] * 14, camera, range(14), 10, frame=frame)
    assert len(picks) == 10


def test_the_prefilter_keeps_the_severe_of_every_camera():
    camera = ["loud"] * 90 + ["quiet"] * 10
    severity = np.concatenate([np.full(90, 0.9), np.linspace(0.1, 0.5, 10)])
    picks = select(np.random.default_rng(2).normal(size=(100, 4)), severity, camera, range(100), 10, prefilter=20)
    assert sum(camera[pick.candidate] == "quiet" for pick in picks) > 0
    kept = kept_of(severity.tolist(), camera, 20)
    assert kept == [*range(10), *range(90, 100)]
    assert {pick.candidate for pick in picks} <= set(kept)


@pytest.mark.parametrize(
    "change",
    [
        {"severity": [0.5]},  # one number short
        {"camera": ["a"] * 3},
        {"features": np.zeros(2)},  # not a table
        {"features": np.array([[np.nan], [0.0]])},
        {"severity": [0.5, np.inf]},
    ],
)
def test_what_does_not_fit_is_refused(change):
    fitting = {"features": np.zeros((2, 1)), "severity": [0.5, 0.5], "camera": ["a", "a"], "group": [1, 2], "size": 1}
    with pytest.raises(ValueError, match=r"expected features|must be finite"):
        select(**{**fitting, **change})


def trait(**change):
    fitting = {
        "features": np.array([90, 90], np.int8),
        "space": "m1",
        "place": (0.5, 0.5),
        "size": (0.3, 0.4),
        "light": (0.5, 0.5, 0.1, 0.3),
        "label": "person",
        "reason": "missed",
    }
    return Trait(**{**fitting, **change})


def test_the_shares_are_the_whole():
    assert sum(SHARES.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"features": np.array([127, 0], np.int8)},  # another scene
        {"place": (0.1, 0.5)},  # the other end of the frame
        {"size": (0.8, 0.9)},  # much nearer to the camera
        {"light": (0.1, 0.2, 0.6, 0.1)},  # night
        {"label": "dog"},
        {"reason": "suspect"},
    ],
)
def test_every_trait_tells_findings_apart(change):
    vectors = describe([trait(), trait(), trait(**change)])
    likeness = vectors @ vectors.T
    assert np.allclose(np.diag(likeness), 1, atol=1e-5)
    assert likeness[0, 1] == pytest.approx(1, abs=1e-5)
    assert likeness[0, 2] < 0.97


@pytest.mark.parametrize(
    "traits",
    [
        [],
        [trait()],
        [trait(features=np.zeros(0, np.int8))],  # a model without features
        [trait(), trait(features=np.zeros(0, np.int8)), trait(features=np.ones(9, np.int8), space="m2")],  # two models
        [trait(light=(9.0, -1.0, 0.0, 2.0), place=(-3.0, 4.0))],  # out of range is clipped
    ],
)
def test_every_set_of_traits_has_vectors(traits):
    vectors = describe(traits)
    assert len(vectors) == len(traits)
    assert np.isfinite(vectors).all()


@pytest.mark.parametrize(
    ("value", "fraction"),
    [
        (0, 0.0),  # below the lower bound
        (4, 0.0),
        (16, 0.5),
        (64, 1.0),
        (1e9, 1.0),
    ],
)
def test_log_fraction(value, fraction):
    assert log_fraction(value, 4, 64) == pytest.approx(fraction)
