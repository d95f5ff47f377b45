"""Severity: a probability, whatever the witnesses and the weights."""

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.policy import BUILT_IN, WEIGHED, Weights
from edge.contract.samples import Witness
from edge.severity import severity

kinds = st.sampled_from(WEIGHED)
scores = st.floats(0, 1)
claims = st.lists(st.builds(Witness, kinds, scores), max_size=6)


def weights_from(low: float) -> st.SearchStrategy[Weights]:
    any_weight, claim = st.floats(-50, 50), st.floats(low, 50)
    return st.builds(
        Weights, bias=any_weight, gap=claim, candidate=claim, motion=claim, zoom=claim, refuted=st.floats(-50, 50)
    )


@given(claims, st.booleans(), weights_from(-50))
def test_it_is_a_probability_to_four_digits(witnesses, refuted, weights):
    value = severity(witnesses, refuted=refuted, weights=weights)
    assert 0 <= value <= 1
    assert value == round(value, 4)


@given(claims, kinds, scores, scores, st.booleans(), weights_from(0))
def test_who_is_surer_makes_it_no_less_likely(others, kind, one, two, refuted, weights):
    less, more = (
        severity([*others, Witness(kind, score)], refuted=refuted, weights=weights) for score in sorted((one, two))
    )
    assert less <= more
    assert severity(others, refuted=refuted, weights=weights) <= less, "one witness more makes it no less likely"


@given(st.permutations([Witness(kind, 0.3) for kind in WEIGHED]), weights_from(-50))
def test_the_order_of_the_witnesses_is_nothing(witnesses, weights):
    assert severity(witnesses, refuted=False, weights=weights) == pytest.approx(
        severity(sorted(witnesses, key=lambda witness: witness.kind), refuted=False, weights=weights), abs=1e-4
    )


@pytest.mark.parametrize("kind", WEIGHED)
def test_each_witness_has_the_weight_of_its_name(kind):
    flat = Weights(bias=-1.0, gap=0.0, candidate=0.0, motion=0.0, zoom=0.0, refuted=0.0)
    weights = msgspec.structs.replace(flat, **{kind.value: 2.0})
    assert severity([Witness(kind, 1.0)], refuted=False, weights=weights) == round(1 / (1 + math.exp(-1.0)), 4)
    for other in set(WEIGHED) - {kind}:
        assert severity([Witness(other, 1.0)], refuted=False, weights=weights) == round(1 / (1 + math.exp(1.0)), 4)


@pytest.mark.parametrize("kind", WEIGHED)
def test_built_in_every_witness_counts_for_a_miss_and_a_second_look_that_saw_nothing_against_it(kind):
    nobody = severity([], refuted=False, weights=BUILT_IN)
    one = severity([Witness(kind, 1.0)], refuted=False, weights=BUILT_IN)
    assert nobody < one
    assert nobody < 0.5
    assert severity([Witness(kind, 1.0)], refuted=True, weights=BUILT_IN) < one
