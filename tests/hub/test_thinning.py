"""The laws of hub.thinning, and that a rare kind survives it while junk does not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.thinning import cells, in_turn, thin


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 8), st.integers(0, 2**16))
@settings(max_examples=100, deadline=None)
def test_the_laws(n, limit, places, seed):
    rng = np.random.default_rng(seed)
    vectors, weight, severity = unit(rng.normal(size=(n, 3))), rng.uniform(0.3, 1, n), rng.uniform(0, 1, n)
    place = rng.integers(0, places, n)
    thinned = thin(vectors, weight, severity, place=place, limit=limit)
    kept = thinned.kept.tolist()
    assert kept == sorted(set(kept))
    assert len(kept) == min(n, limit)  # law 1
    assert len(thinned.weight) == len(thinned.count) == len(kept)
    assert thinned.count.min() >= 1
    assert thinned.count.sum() <= n
    if n > limit and len(set(place.tolist())) <= limit // 4:  # law 2
        assert {int(np.flatnonzero(place == one)[severity[place == one].argmax()]) for one in place} <= set(kept)
    mean = thinned.weight / np.sqrt(thinned.count)  # law 3
    assert ((weight.min() - 1e-9 <= mean) & (mean <= weight.max() + 1e-9)).all()
    again = thin(vectors, weight, severity, place=place, limit=limit)  # law 4
    assert again.kept.tolist() == kept
    assert again.weight.tolist() == thinned.weight.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_a_rare_kind_is_kept_and_junk_is_not(seed):
    # 20 of 20,000, milder than the nine common kinds; a tenth of all is like nothing
    rng = np.random.default_rng(seed)
    kind = np.concatenate([rng.integers(0, 9, 17_980), np.full(20, 9), np.full(2000, -1)])
    vectors = rng.normal(size=(20_000, 64))
    vectors[kind >= 0] = rng.normal(size=(10, 64))[kind[kind >= 0]] + 0.5 * vectors[kind >= 0]
    severity = np.where(kind == 9, 0.1, np.where(kind >= 0, 0.6, 0.9))
    thinned = thin(unit(vectors), np.ones(20_000), severity, place=np.zeros(20_000, int), limit=1000)
    kept = kind[thinned.kept]
    assert (kept == 9).sum() >= 2
    assert thinned.count[kept == 9].sum() >= 15
    assert (kept == -1).sum() <= 250 + 50  # the places' quarter goes by severity alone
    assert set(thinned.count[kept == -1].tolist()) <= {1, 2}


def test_what_is_alike_shares_a_cell_and_what_is_like_nothing_is_alone():
    vectors = np.eye(20, dtype=np.float32)[[0, 0, 0, 1, 1, *range(2, 20)]]
    cell = cells(vectors).tolist()
    assert len(set(cell[:3])) == len(set(cell[3:5])) == 1
    assert cell[0] != cell[3]
    assert set(cell[5:]) == {-1}


def test_places_take_turns():
    place = np.array([0, 0, 0, 1, 1, 2])
    severity = np.array([0.9, 0.8, 0.7, 0.2, 0.3, 0.1])
    assert in_turn(place, severity).tolist() == [0, 4, 5, 1, 3, 2]


@pytest.mark.parametrize("n", [0, 1, 5])
def test_few_are_kept_as_they_are(n):
    thinned = thin(np.ones((n, 2), np.float32), np.full(n, 0.5), np.zeros(n), place=np.zeros(n, int), limit=5)
    assert thinned.kept.tolist() == list(range(n))
    assert thinned.weight.tolist() == [0.5] * n
    assert thinned.count.tolist() == [1] * n
