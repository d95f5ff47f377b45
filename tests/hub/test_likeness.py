"""What tells findings apart: every trait does, and what is not known of one has no part in it."""

import numpy as np
import pytest

from hub.likeness import SHARES, Trait, describe, log_fraction


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
        [trait(light=None), trait()],  # before the header is read
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
