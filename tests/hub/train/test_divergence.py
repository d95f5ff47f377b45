"""The divergence of scores: nothing for the old word, more the further, and a slope that brings it back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hub.train.divergence import NOTHING, SAID, divergence

torch.set_num_threads(1)
scores = st.floats(0, 1, width=32)


def apart(score: float, old: float) -> float:
    return float(divergence(torch.tensor(score), torch.tensor(old)))


@given(scores)
def test_the_old_word_costs_nothing(old):
    assert apart(old, old) == pytest.approx(0, abs=3e-6)


@given(scores, scores)
def test_it_is_never_negative_and_finite(score, old):
    assert -1e-5 <= apart(score, old) < 20


@given(st.floats(0.002, 0.998), st.floats(0.01, 0.4), st.floats(0.02, 0.4))
def test_further_off_costs_more(old, near, more):
    for way in (-1, 1):
        if 0 <= old + way * (near + more) <= 1:
            assert apart(old + way * (near + more), old) > apart(old + way * near, old)


@given(st.floats(0, NOTHING), st.floats(0, NOTHING))
def test_scores_next_to_nothing_say_the_same(score, old):
    assert apart(score, old) == pytest.approx(0, abs=1e-6)
    assert apart(1 - score, 1 - old) == pytest.approx(0, abs=1e-6)


@given(st.floats(SAID, 1 - SAID), st.sampled_from([0.0, 1e-5, 5e-4, 1 - 5e-4, 1.0]))
def test_a_score_that_is_altogether_gone_is_brought_back(old, score):
    now = torch.tensor(score, requires_grad=True)
    divergence(now, torch.tensor(old)).backward()
    assert now.grad < -40 if score < old else now.grad > 40
