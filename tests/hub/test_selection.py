"""The laws of hub.selection, and what it finds on made long-tail data with junk."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.selection import HOUR_MS, NEAR_LIKENESS, NEAR_MS, Kind, Pool, Shares, even_cap, select

ANY = Shares(1.0, 0.0)
MINUTE_MS = 60_000


def pool(vectors, severity=0.5, **changes):
    """Candidates with nothing in common but what is said."""
    n = len(vectors)
    fitting = {
        "vectors": np.asarray(vectors, np.float32),
        "severity": [severity] * n if isinstance(severity, float) else severity,
        "camera": ["a"] * n,
        "group": range(n),
        "frame": range(n),
        "at_ms": [number * MINUTE_MS for number in range(n)],
        "kind": [Kind.HARD] * n,
        "looks": np.zeros((n, 2), np.float32),
    }
    return Pool(**{**fitting, **changes})


def chosen(picks):
    return [pick.candidate for pick in picks]


@st.composite
def problems(draw):
    n = draw(st.integers(0, 30))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    looks = rng.normal(size=(n, 2)).astype(np.float32)
    made = pool(
        rng.normal(size=(n, 5)) * draw(st.sampled_from([0.0, 1.0])),
        rng.uniform(0, 1, n),
        camera=rng.integers(0, draw(st.integers(1, 4)), n).tolist(),
        group=rng.integers(0, draw(st.integers(1, 40)), n).tolist(),
        frame=rng.integers(0, draw(st.integers(1, 40)), n).tolist(),
        at_ms=rng.integers(0, draw(st.sampled_from([10_000, 10**8])), n).tolist(),
        kind=[Kind(one) for one in rng.integers(0, 3, n)],
        looks=looks / np.linalg.norm(looks, axis=1, keepdims=True),
    )
    hard = draw(st.sampled_from([0.0, 0.5, 0.6, 1.0]))
    shares = Shares(hard, draw(st.sampled_from([0.0, 0.1, 1.0])) * (1 - hard))
    earlier = made.take(range(0, n, 7)) if draw(st.booleans()) else None
    return made, draw(st.integers(0, 12)), shares, earlier


@given(problems())
@settings(max_examples=200, deadline=None)
def test_size_groups_frames_and_near_duplicates_are_respected(problem):
    # laws 1 and 4
    made, size, shares, earlier = problem
    refused = set(range(0, len(made.camera), 5))
    asked = []
    picks = select(
        made, size, shares=shares, earlier=earlier, accept=lambda one: asked.append(one) or one not in refused
    )
    found = chosen(picks)
    assert len(found) == len(set(found)) <= size
    assert len({made.group[i] for i in found}) == len(found)
    assert len({made.frame[i] for i in found}) == len(found)
    assert not refused & set(found)
    assert len(asked) == len(set(asked))
    assert all(pick.gain >= 0 and pick.why for pick in picks)
    before = [] if earlier is None else zip(earlier.camera, earlier.at_ms, earlier.looks, strict=True)
    images = [*before, *((made.camera[i], made.at_ms[i], made.looks[i]) for i in found)]
    for a, b in itertools.product(images, images[len(images) - len(found) :]):
        assert a is b or a[0] != b[0] or abs(a[1] - b[1]) > NEAR_MS or a[2] @ b[2] < NEAR_LIKENESS + 1e-6


@given(problems())
@settings(max_examples=100, deadline=None)
def test_gains_do_not_rise(problem):
    # law 2, where nothing can need lifting: one camera, hour and kind, and every candidate its own group and frame
    made, size, _, _ = problem
    plain = pool(made.vectors, made.severity, at_ms=[n * 10 * HOUR_MS * 24 for n in range(len(made.camera))])
    picks = select(plain, size, shares=ANY)
    gains = [pick.gain for pick in picks]
    assert all(later <= earlier + 1e-5 for earlier, later in itertools.pairwise(gains))
    assert len(picks) == min(size, len(made.camera))


@given(problems())
@settings(max_examples=50, deadline=None)
def test_the_same_input_gives_the_same_choice(problem):
    # law 3
    made, size, shares, earlier = problem
    assert select(made, size, shares=shares, earlier=earlier) == select(made, size, shares=shares, earlier=earlier)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(1, 20), st.integers(0, 2**16))
@settings(max_examples=100, deadline=None)
def test_every_kind_gets_its_share_where_there_is_enough(hard, easy, control, size, seed):
    # law 5
    rng = np.random.default_rng(seed)
    kind = [Kind.HARD] * hard + [Kind.EASY] * easy + [Kind.CONTROL] * control
    made = pool(rng.normal(size=(len(kind), 4)), rng.uniform(0, 1, len(kind)), kind=kind, camera=list(range(len(kind))))
    found = [kind[i] for i in chosen(select(made, size, shares=Shares(0.6, 0.1)))]
    wanted = Shares(0.6, 0.1).of(size)
    assert sum(wanted) == size
    assert found.count(Kind.CONTROL) == min(wanted[Kind.CONTROL], control)
    rest = size - found.count(Kind.CONTROL)
    assert found.count(Kind.HARD) + found.count(Kind.EASY) == min(rest, hard + easy)
    assert found.count(Kind.HARD) >= min(wanted[Kind.HARD], hard)
    assert found.count(Kind.EASY) >= min(wanted[Kind.EASY], easy)


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 60))
def test_the_cap_fills_the_batch_and_no_lower_one_does(counts, size):
    cap = even_cap(counts, size)
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


def covered_and_junk(found, mode):
    modes = mode[found]
    return len(set(modes[modes >= 0])) / (mode.max() + 1), float(np.mean(modes < 0))


@pytest.mark.parametrize("seed", range(5))
def test_the_long_tail_is_covered_and_junk_kept_out(seed):
    features, severity, mode = long_tail(seed)
    found = chosen(select(pool(features, severity), 50, shares=ANY))
    coverage, junk = covered_and_junk(found, mode)
    random = [np.random.default_rng(i).choice(1000, 50, replace=False) for i in range(20)]
    assert coverage >= 0.83
    assert junk <= 0.08
    assert coverage > 1.5 * np.mean([covered_and_junk(drawn, mode)[0] for drawn in random])
    assert coverage > 1.5 * covered_and_junk(np.argsort(-severity)[:50], mode)[0]


def test_the_severe_kind_comes_before_the_frequent_one():
    # 20 mild findings of one kind, 12 severe ones of another: weights .325 * 20 < .925 * 12
    kinds = np.repeat(np.eye(2), (20, 12), axis=0)
    picks = select(pool(kinds, [0.1] * 20 + [0.9] * 12), 2, shares=ANY)
    assert picks[0].candidate >= 20
    assert picks[1].candidate < 20
    assert [pick.why for pick in picks] == ["stands for 11 more like it", "stands for 19 more like it"]


def test_what_is_like_nothing_stands_only_for_itself():
    picks = select(pool(np.eye(4)[[0, 0, 0, 1]]), 2, shares=ANY)
    assert picks[1].candidate == 3
    assert picks[1].why == "like no other finding"


def test_what_is_like_nothing_chosen_is_stood_for_by_none():
    # the third kind finds no place in the batch, and its one finding is like neither of the others
    picks = select(pool(np.eye(3)[[0, 0, 0, 1, 1, 2]]), 2, shares=ANY)
    assert [pick.why for pick in picks] == ["stands for 2 more like it", "stands for 1 more like it"]


def test_a_copy_of_the_first_fills_the_batch():
    picks = select(pool(np.eye(3)[[0, 0, 1]]), 3, shares=ANY)
    assert [pick.why for pick in picks] == ["like no other finding", "like no other finding", "fills the batch"]
    assert picks[2].gain == pytest.approx(0, abs=1e-6)


def test_what_an_earlier_batch_has_comes_last():
    # ten of the kind that an earlier batch has, two of a new one
    made = pool(np.eye(3)[[0] * 10 + [1] * 2])
    earlier = pool(np.eye(3)[[0]], at_ms=[-(10**9)])
    picks = select(made, 2, shares=ANY, earlier=earlier)
    assert picks[0].candidate in {10, 11}
    assert picks[1].why == "much like an earlier batch"
    assert select(made, 1, shares=ANY)[0].candidate < 10


def test_one_that_is_refused_is_replaced():
    made = pool(np.eye(3)[[0, 0, 0, 1, 1, 2]])
    assert chosen(select(made, 2, shares=ANY, accept=lambda one: one not in {0, 1})) == [2, 3]


@pytest.mark.parametrize(
    ("camera", "at_ms", "looks", "size"),
    [
        ("aa", (0, 1000), [[1, 0], [1, 0.1]], 1),  # a second apart, nearly the same picture
        ("ab", (0, 1000), [[1, 0], [1, 0.1]], 2),  # two cameras
        ("aa", (0, NEAR_MS + 1), [[1, 0], [1, 0.1]], 2),  # later
        ("aa", (0, 1000), [[1, 0], [0.6, 0.8]], 2),  # another picture
        ("aa", (0, 1000), [[0, 0], [0, 0]], 2),  # a model without features
    ],
)
def test_near_duplicates(camera, at_ms, looks, size):
    looks = np.array(looks, np.float32)
    looks /= np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-9)
    made = pool(np.eye(2), camera=camera, at_ms=at_ms, looks=looks)
    assert len(select(made, 2, shares=ANY)) == size
    one = made.take([0])
    assert len(select(made.take([1]), 2, shares=ANY, earlier=one)) == size - 1


def test_no_camera_takes_more_than_twice_its_share():
    # the busy camera has all the variety
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(90, 8)), np.ones((30, 8)) + rng.normal(0, 0.01, (30, 8))])
    camera = ["busy"] * 90 + ["b"] * 10 + ["c"] * 10 + ["d"] * 10
    found = [camera[i] for i in chosen(select(pool(features, camera=camera), 20, shares=ANY))]
    assert found.count("busy") == 10
    assert len(found) == 20


def test_no_hour_takes_more_than_twice_its_share():
    # the same by hours of the day: noon of three days counts as one
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.normal(size=(90, 8)), np.ones((30, 8)) + rng.normal(0, 0.01, (30, 8))])
    hour = [12] * 90 + [1] * 10 + [2] * 10 + [3] * 10
    at_ms = [(n % 3 * 24 + hour[n]) * HOUR_MS + n * 10_000 for n in range(120)]
    found = [hour[i] for i in chosen(select(pool(features, at_ms=at_ms), 20, shares=ANY))]
    assert found.count(12) == 10
    assert len(found) == 20


def test_a_camera_may_give_more_where_the_others_have_nothing():
    camera = ["busy"] * 30 + ["quiet"] * 2
    made = pool(np.random.default_rng(0).normal(size=(32, 4)), camera=camera)
    assert len(select(made, 20, shares=ANY)) == 20


def test_a_cap_is_lifted_where_shared_frames_keep_the_batch_from_filling():
    # a and b show the same four frames, so b cannot fill what a's cap leaves
    camera = ["a"] * 8 + ["b"] * 4 + ["c", "d"]
    frame = [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 8, 9]
    made = pool(np.random.default_rng(1).normal(size=(14, 4)), camera=camera, frame=frame)
    assert len(select(made, 10, shares=ANY)) == 10


def test_the_share_asked_for_comes_before_the_spread():
    # every hard one is of one camera and hour, whose caps are 2 of 4
    camera = ["a"] * 4 + list("bcdefgh")
    kind = [Kind.HARD] * 4 + [Kind.EASY] * 7
    at_ms = [n * 5000 for n in range(4)] + [n * HOUR_MS for n in range(1, 8)]
    made = pool(np.random.default_rng(3).normal(size=(11, 4)), camera=camera, kind=kind, at_ms=at_ms)
    assert sorted(chosen(select(made, 4, shares=ANY))) == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "change",
    [
        {"severity": [0.5]},  # one number short
        {"camera": ["a"] * 3},
        {"vectors": np.zeros(2)},  # not a table
        {"looks": np.zeros((3, 1))},
        {"vectors": np.array([[np.nan], [0.0]])},
        {"severity": [0.5, np.inf]},
    ],
)
def test_what_does_not_fit_is_refused(change):
    with pytest.raises(ValueError, match=r"expected vectors|must be finite"):
        replace(pool(np.zeros((2, 1))), **change)
