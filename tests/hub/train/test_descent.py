"""Steps by the size of a tensor, where the gradients agree."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hub.train.descent import Descent, falling

RATE = 0.01


def descended(gradients, *, size=1.0, doubt=0.5):
    """A tensor of this size after these gradients, and what it was."""
    torch.set_num_threads(1)
    began = torch.full(gradients[0].shape, size)
    parameter = began.clone().requires_grad_(True)
    descent = Descent([parameter], doubt=doubt, planned=100)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        descent.step(RATE)
    return parameter.detach(), began


@given(size=st.floats(0.01, 100), scale=st.floats(1e-4, 1e4))
def test_where_the_gradients_agree_each_step_is_a_share_of_the_size(size, scale):
    """Whatever the gradients' own length: ten steps gather, the others move."""
    after, before = descended([torch.full((3,), scale)] * 20, size=size)
    np.testing.assert_allclose((before - after).numpy(), 10 * RATE * size, rtol=1e-3)


def test_what_does_not_agree_stays_and_plain_adam_would_move_it():
    drawn = torch.Generator().manual_seed(0)
    gradients = [torch.randn(4000, generator=drawn) for _ in range(60)]
    doubted, began = descended(gradients)
    plain, _ = descended(gradients, doubt=0.0)
    moved, wandered = ((one - began).square().mean().sqrt() for one in (doubted, plain))
    assert moved < 0.25 * wandered


def test_a_small_agreement_within_noise_is_followed():
    drawn = torch.Generator().manual_seed(0)
    after, before = descended([torch.randn(4000, generator=drawn) + 1.5 for _ in range(60)])
    assert float((before - after).mean()) > 10 * RATE


def test_a_weight_without_a_gradient_stays():
    parameter = torch.ones(2, requires_grad=True)
    descent = Descent([parameter], doubt=0.5, planned=100)
    for _ in range(12):
        descent.step(RATE)
    assert parameter.tolist() == [1, 1]


def test_a_state_goes_on_as_if_never_stopped():
    drawn = torch.Generator().manual_seed(1)
    gradients = [torch.randn(50, generator=drawn) + 1 for _ in range(30)]
    whole, _ = descended(gradients)
    parameter = torch.ones(50, requires_grad=True)
    descent = Descent([parameter], doubt=0.5, planned=100)
    for number, gradient in enumerate(gradients):
        if number == 17:
            kept, weights = descent.state(["w"]), parameter.detach().clone()
            parameter = torch.ones(50, requires_grad=True)
            descent = Descent([parameter], doubt=0.5, planned=100)
            with torch.no_grad():
                parameter.copy_(weights)
            descent.load(kept, ["w"])
        parameter.grad = gradient.clone()
        descent.step(RATE)
    assert torch.equal(parameter.detach(), whole)


def test_a_state_of_other_tensors_is_refused():
    kept = Descent([torch.ones(3, requires_grad=True)], doubt=0.5, planned=100).state(["w"])
    other = Descent([torch.ones(4, requires_grad=True)], doubt=0.5, planned=100)
    with pytest.raises(RuntimeError):
        other.load(kept, ["w"])
    with pytest.raises(KeyError):
        other.load(kept, ["v"])


def test_the_rate_rises_and_falls():
    rates = [falling(1.0, done=done, steps=100, warm_up=20) for done in range(100)]
    assert rates[0] < rates[10] < rates[19]
    assert rates[20] > rates[60] > rates[99] > 0
    assert max(rates) <= 1.02
