"""A training, step by step: the pictures, the loss, the weights, and what holds the old model's knowledge.

    fit = Fit(model=model, version=version, folder=folder, input_size=(192, 192), recipe=Recipe(), threads=2)
    while not fit.stopped and fit.done < fit.steps:
        fit.step()
    chosen = fit.finish(write)

Laws:

1. The same seed, pictures and threads give the same weights; what was loaded from a state goes on as if never stopped.
2. The old model is what is not forgotten: its word counts wherever nothing was looked for, on every picture. Where
   there is no picture for replay it is held on the field's pictures only, for the labels nobody looked for.
3. What is judged and released is the running average of the weights, which wavers less than the last step.
4. A weight moves only where its gradients agree: see hub.train.descent.
5. How much of the new weights is released is chosen on the validation split: see hub.train.interpolation.
"""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from edge.contract.errors import UnusableError
from edge.detector.letterbox import Size
from edge.detector.opening import ModelFile
from hub.datasets.version import Version
from hub.train.batch import batch_of
from hub.train.descent import Descent, falling
from hub.train.graph import TorchGraph
from hub.train.heads import taught
from hub.train.interpolation import Chosen, Interpolation
from hub.train.lesson import Tensor
from hub.train.lessons import Exercise, Lessons
from hub.train.recipe import Recipe

State = dict[str, NDArray[Any] | int | float]
_CHECKED: Final = 16  # pictures of each kind that a check looks at


class Fit:
    """One training of one model on one version.

    Attributes:
        steps: planned.
        done: steps taken.
        stopped: the validation pictures say that more steps bring nothing.
    """

    def __init__(
        self, *, model: ModelFile, version: Version, folder: Path, input_size: Size, recipe: Recipe, threads: int
    ) -> None:
        card = model.card
        if card is None:
            msg = f"{model.path} has no card: `edge model check` writes one"
            raise UnusableError(msg)
        torch.set_num_threads(threads)
        self.steps, self.done, self.stopped = recipe.steps, 0, False
        self._recipe, self._input_size, self._threads = recipe, input_size, threads
        self._head = taught(card.head)
        self._graph = TorchGraph.open(model.path)
        self._old = TorchGraph.open(model.path, trained=False)
        self._parameters = self._graph.parameters()
        self._average = [one.detach().clone() for one in self._parameters]
        self._descent = Descent(self._parameters, doubt=recipe.doubt, planned=recipe.steps)
        lessons = partial(
            Lessons,
            folder=folder,
            spec=card.input,
            labels=card.labels,
            input_size=input_size,
            recipe=recipe,
            closer=self._head.pooled is not None,
        )
        self._lessons = lessons(version.of("train"), repeat=_repeated(version))
        self._checks = lessons(version.of("val"))
        self._best: list[Tensor] = []
        self._best_loss, self._worse = math.inf, 0
        self._interpolation = Interpolation(
            version.of("val"), folder=folder, model=model, input_size=input_size, recipe=recipe, threads=threads
        )

    def step(self) -> dict[str, float]:
        """Take one step; return the parts of the loss as they were before it, weighted.

        Where a part is not finite, or the gradient, which is a part then, the weights stay as they are. Raises
        `UnusableError` when a picture cannot be read.
        """
        exercise = self._lessons.exercise(self.done)
        weighted = self._weighted(exercise)
        total: Tensor = sum(weighted.values())
        self.done += 1
        if bool(torch.isfinite(total)):
            for parameter in self._parameters:
                parameter.grad = None
            total.backward()
            steepness = torch.nn.utils.clip_grad_norm_(self._parameters, self._recipe.clip)
            if not bool(torch.isfinite(steepness)):
                return {**_told(weighted), "gradient": float(steepness)}
            self._descent.step(self._rate())
            self._follow()
        if self.done % self._recipe.check == 0:
            self._check()
        return _told(weighted)

    def state(self) -> State:
        """Return all that a later `load` needs to go on: arrays are copies."""
        found: State = {"done": self.done, "stopped": int(self.stopped)}
        found |= {"best_loss": np.array(self._best_loss), "worse": self._worse}
        for name, best in zip(self._graph.named(), self._best, strict=False):
            found[f"best/{name}"] = best.numpy().copy()
        found |= self._descent.state(list(self._graph.named()))
        for name, parameter, average in zip(self._graph.named(), self._parameters, self._average, strict=True):
            found[f"weight/{name}"] = parameter.detach().numpy().copy()
            found[f"average/{name}"] = average.numpy().copy()
        return found

    def load(self, state: State) -> None:
        """Take a state over. Raises `UnusableError` when it is not one of this model."""
        try:
            self._graph.load({name: np.asarray(state[f"weight/{name}"]) for name in self._graph.named()})
            for name, average in zip(self._graph.named(), self._average, strict=True):
                average.copy_(torch.from_numpy(state[f"average/{name}"]))
            self._descent.load(state, list(self._graph.named()))
            self.done, self.stopped = int(state["done"]), bool(state["stopped"])
            self._best_loss, self._worse = float(state["best_loss"]), int(state["worse"])
            best = [state.get(f"best/{name}") for name in self._graph.named()]
            self._best = [torch.from_numpy(one).clone() for one in best if one is not None]
        except (KeyError, TypeError, RuntimeError) as error:
            msg = "what was kept of the training is not of this model: start it anew"
            raise UnusableError(msg) from error

    def finish(self, write: Callable[[dict[str, NDArray[np.float32]]], Path]) -> Chosen:
        """Choose between old and new weights. `write` makes a model folder of weights, over the one before."""
        released = self._best if self.stopped else self._average
        new = {name: one.numpy().copy() for name, one in zip(self._graph.named(), released, strict=True)}
        return self._interpolation.choose(self._old.state(), new, write)

    def _rate(self) -> float:
        recipe = self._recipe
        return falling(recipe.rate, done=self.done, steps=self.steps, warm_up=recipe.warm_up)

    def _weighted(self, exercise: Exercise) -> dict[str, Tensor]:
        """Return the parts of the loss, each times its weight."""
        outputs = self._graph(torch.from_numpy(exercise.lesson.images))
        old = self._old_word(exercise, outputs)
        parts = self._head.loss(outputs, old, exercise.lesson, input_size=self._input_size)
        return {name: part * getattr(self._recipe, name) for name, part in parts.items()}

    def _old_word(self, exercise: Exercise, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return what the old model says of the pictures on which something was not looked for; zeros of the others."""
        found = {name: torch.zeros_like(one) for name, one in outputs.items()}
        asked = np.flatnonzero(~exercise.lesson.looked_for.all(axis=1))
        if not len(asked):
            return found
        with torch.no_grad():
            if exercise.closer is None or self._head.pooled is None:
                said = self._old(torch.from_numpy(exercise.lesson.images[asked]))
            else:
                said = self._head.pooled(self._old(torch.from_numpy(exercise.closer)), self._input_size)
        for name, one in said.items():
            found[name][torch.from_numpy(asked)] = one
        return found

    def _check(self) -> None:
        """Look at the validation pictures as the device would; stop when it has only got worse for a while."""
        names = [*self._checks.labelled[:_CHECKED], *self._checks.replay[:_CHECKED]]
        if not self._checks.labelled:
            return
        weights = [one.detach().clone() for one in self._parameters]
        self._set(self._average)
        size = batch_of(self._recipe)
        losses = [self._loss_of(names[at : at + size]) for at in range(0, len(names), size)]
        self._set(weights)
        loss = float(np.mean(losses))
        if loss < self._best_loss:
            self._best_loss, self._worse = loss, 0
            self._best = [one.clone() for one in self._average]
        else:
            self._worse += 1
            self.stopped = self._worse >= self._recipe.patience

    def _loss_of(self, names: list[str]) -> float:
        exercise = self._checks.as_deployed(names)
        with torch.no_grad():
            parts = _told(self._weighted(exercise))
        total: float = sum(parts.values())
        return total

    def _set(self, weights: list[Tensor]) -> None:
        with torch.no_grad():
            for parameter, weight in zip(self._parameters, weights, strict=True):
                parameter.copy_(weight)

    def _follow(self) -> None:
        """Let the average follow the weights, quickly at first."""
        slow = min(self._recipe.average, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            for average, parameter in zip(self._average, self._parameters, strict=True):
                average.lerp_(parameter, 1 - slow)


def _told(parts: dict[str, Tensor]) -> dict[str, float]:
    return {name: float(part.detach()) for name, part in parts.items()}


def _repeated(version: Version) -> dict[str, int]:
    """Return how often the pictures of the weak spot that is trained for are shown, as the version says."""
    spot, times = version.recipe.get("weak_spot"), version.recipe.get("weak_spot_repeat")
    if not isinstance(spot, int) or not isinstance(times, int):
        return {}
    return {member.name: times for member in version.of("train") if spot in member.weak_spots}
