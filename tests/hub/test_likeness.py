"""What tells findings apart: every trait does, and what is not known of one has no part in it."""

import numpy as np
import pytest

from hub.likeness import SHARES, Traits, centred, describe, log_fraction


def trait(**change):
    fitting = {
        "features": np.array([90, 90], np.int8),
        "space": "m1",
        "place": (0.4, 0.4, 0.6, 0.6),
        "size_px": (30.0, 60.0),
        "light": (0.5, 0.5, 0.1, 0.3),
        "label": "person",
    }
    return {**fitting, **change}


def traits(*each):
    columns = {name: [one[name] for one in each] for name in trait()}
    return Traits(**{**columns, "light": np.array(columns["light"], np.float32).reshape(-1, 4)})


def test_the_shares_are_the_whole():
    assert sum(SHARES.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    "change",
    [
        {"features": np.array([127, 0], np.int8)},  # another scene
        {"place": (0.0, 0.4, 0.2, 0.6)},  # the other end of the frame
        {"size_px": (600.0, 300.0)},  # much nearer to the camera
        {"light": (0.1, 0.2, 0.6, 0.1)},  # night
        {"label": "dog"},
    ],
)
def test_every_trait_tells_findings_apart(change):
    vectors = describe(traits(trait(), trait(), trait(**change)))
    likeness = vectors @ vectors.T
    assert np.allclose(np.diag(likeness), 1, atol=1e-5)
    assert likeness[0, 1] == pytest.approx(1, abs=1e-5)
    assert likeness[0, 2] < 0.97


@pytest.mark.parametrize(
    "each",
    [
        [],
        [trait()],
        [trait(features=np.zeros(0, np.int8))],  # a model without features
        [trait(), trait(features=np.zeros(0, np.int8)), trait(features=np.ones(9, np.int8), space="m2")],  # two models
        [trait(light=(np.nan,) * 4), trait()],  # a header that cannot be read
        # out of range is clipped
        [trait(light=(9.0, -1.0, 0.0, 2.0), place=(-3.0, 4.0, -2.0, 5.0), size_px=(-1.0, 1e9))],
    ],
)
def test_every_set_of_traits_has_vectors(each):
    vectors = describe(traits(*each))
    assert len(vectors) == len(each)
    assert np.isfinite(vectors).all()
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_what_is_not_known_of_any_has_no_part():
    each = [trait(features=np.zeros(0, np.int8)), trait(features=np.zeros(0, np.int8), label="dog")]
    known = traits(*each)
    vectors = describe(Traits(known.features, known.space, known.place, known.size_px, known.label))
    left = SHARES["place"] + SHARES["size"]
    assert vectors[0] @ vectors[1] == pytest.approx(left / (left + SHARES["label"]), abs=1e-5)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_kind_is_alike_however_frequent_it_is(share):
    """Less their mean, the findings of a kind that is the mean would be nothing but noise."""
    rng = np.random.default_rng(0)
    kind = np.where(rng.random(1000) < share, 0, rng.integers(1, 20, 1000))
    vectors = rng.normal(size=(20, 64))[kind] + 0.5 * rng.normal(size=(1000, 64))
    features = np.round(127 * vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.int8)
    alike = centred(list(features), ["m1"] * 1000)
    likeness = alike @ alike.T
    frequent = kind == 0
    assert likeness[np.ix_(frequent, frequent)].mean() > 0.6
    assert likeness[np.ix_(frequent, ~frequent)].mean() < 0.3


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
    assert log_fraction(np.float32([value]), 4, 64) == pytest.approx([fraction])
