import msgspec
import numpy as np
import pytest

from edge.contract.errors import UnusableError
from hub.datasets.version import read_version
from hub.train.candidate import card_of, open_parent
from hub.train.fit import Fit
from hub.train.heads import taught
from hub.train.recipe import Recipe
from tests.hub.train.street_versions import street_version

SIZE = (64, 64)
RECIPE = Recipe(steps=4, people=2, machine=0, replay=1, check=2, warm_up=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("fit") / "version"
    street_version(found)
    return found


@pytest.fixture(scope="module")
def parent():
    return open_parent(None)[0]


def fit_of(parent, folder, **recipe):
    changed = msgspec.structs.replace(RECIPE, **recipe)
    return Fit(model=parent, version=read_version(folder), folder=folder, input_size=SIZE, recipe=changed, threads=1)


def weights(fit):
    return {name: value for name, value in fit.state().items() if name.startswith(("weight/", "average/"))}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


def test_a_seed_gives_the_same_weights_and_a_stopped_training_ends_with_them_too(parent, folder):
    whole = fit_of(parent, folder)
    told = [whole.step() for _ in range(3)]
    begun = fit_of(parent, folder)
    assert [begun.step()] == told[:1]
    kept = begun.state()
    begun.step()  # a state is a copy: what comes after does not change it
    resumed = fit_of(parent, folder)
    resumed.load(kept)
    assert [resumed.step(), resumed.step()] == told[1:]
    assert resumed.done == 3
    assert same(weights(resumed), weights(whole))
    assert same(
        {name: value for name, value in resumed.state().items() if isinstance(value, np.ndarray)},
        {name: value for name, value in whole.state().items() if isinstance(value, np.ndarray)},
    )


def test_another_seed_gives_others(parent, folder):
    one, other = fit_of(parent, folder), fit_of(parent, folder, seed=1)
    one.step()
    other.step()
    assert not same(weights(one), weights(other))


def test_a_loss_that_is_no_number_changes_nothing(parent, folder):
    fit = fit_of(parent, folder, place=float("inf"))
    before = weights(fit)
    assert not np.isfinite(fit.step()["place"])
    assert fit.done == 1
    assert same(weights(fit), before)


def test_what_brings_nothing_is_stopped(parent, folder):
    fit = fit_of(parent, folder, steps=20, rate=0.0, check=1, patience=2)
    while not fit.stopped and fit.done < fit.steps:
        fit.step()
    assert fit.done == 3  # the first check is the best, two are no better
    resumed = fit_of(parent, folder, steps=20, rate=0.0, check=1, patience=2)
    resumed.load(fit.state())
    assert resumed.stopped


def test_a_state_of_another_model_is_refused(parent, folder):
    fit = fit_of(parent, folder)
    state = {name: value for name, value in fit.state().items() if not name.startswith("weight/")}
    with pytest.raises(UnusableError, match="start it anew"):
        fit.load(state)


def test_a_head_that_cannot_be_taught_is_named(parent):
    with pytest.raises(UnusableError, match=r"head detr: centernet, yolox can be trained"):
        taught("detr")
    assert taught(card_of(parent).head).pooled is not None


@pytest.mark.slow
def test_it_learns_what_it_is_shown(parent, folder):
    fit = fit_of(parent, folder, steps=30, check=1000, people=4, replay=0, keep=0.0, as_deployed=1.0, light=0.0)
    told = [sum(fit.step().values()) for _ in range(30)]
    first, last = np.mean(told[:5]), np.mean(told[-5:])
    assert last < 0.8 * first
