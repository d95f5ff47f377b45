"""How the weights move: Adam, in steps that are a share of each tensor's size, and only where the gradients agree.

Laws:

1. A tensor's step is a share of its size when the training began. In a released graph the batch norms are folded into
   the weights, so that one tensor is ten thousand times another: steps of one length undo the small ones and leave the
   large ones.
2. A weight whose gradients do not agree stays where it is. Adam moves every weight, those that the lessons say nothing
   of too, by chance to and fro; over a hundred steps that undoes what the model knew of everything else. So from the
   ratio of the gradients' mean to their root mean square, which is what Adam steps by and lies between -1 and 1, the
   recipe's `doubt` is taken off. Of pure noise the ratio is .23 (root mean square).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from hub.train.lesson import Tensor

_FIRST, _SECOND = 0.9, 0.98  # what of the moments stays at each step
_GATHERED: Final = 10  # steps before the first move, of a long training: of fewer gradients the mean is not known
_LEAST_SIZE: Final = 1e-3  # of a tensor that is next to zero
_TINY: Final = 1e-12


class Descent:
    """The moments of the gradients of one training.

    Attributes:
        steps: how many gradients were seen.
    """

    def __init__(self, parameters: Sequence[Tensor], *, doubt: float, planned: int) -> None:
        """`doubt`: 0 is plain Adam. `planned`: how many steps there will be."""
        self.steps = 0
        self._gathered = min(_GATHERED, planned // 10)
        self._parameters, self._doubt = parameters, doubt
        self._sizes = [max(_LEAST_SIZE, float(one.detach().square().mean().sqrt())) for one in parameters]
        self._first = [torch.zeros_like(one) for one in parameters]
        self._second = [torch.zeros_like(one) for one in parameters]

    def step(self, rate: float) -> None:
        """Move the weights by at most `rate` of their tensors' sizes, against the gradients that they have now."""
        self.steps += 1
        moves = self.steps > self._gathered
        bias_1, bias_2 = 1 - _FIRST**self.steps, 1 - _SECOND**self.steps
        with torch.no_grad():
            for parameter, size, first, second in zip(
                self._parameters, self._sizes, self._first, self._second, strict=True
            ):
                if parameter.grad is None:
                    continue
                first.lerp_(parameter.grad, 1 - _FIRST)
                second.mul_(_SECOND).addcmul_(parameter.grad, parameter.grad, value=1 - _SECOND)
                if moves:
                    agreed = (first / bias_1) / (second / bias_2).sqrt().add_(_TINY)
                    sure = (agreed.abs() - self._doubt).clamp_(min=0).mul_(1 / (1 - self._doubt))
                    parameter.add_(sure.mul_(agreed.sign()), alpha=-rate * size)

    def state(self, names: Sequence[str]) -> dict[str, NDArray[Any] | int]:
        """Return the moments under the parameters' names: arrays are copies."""
        found: dict[str, NDArray[Any] | int] = {"gradients": self.steps}
        for name, first, second in zip(names, self._first, self._second, strict=True):
            found |= {f"first/{name}": first.numpy().copy(), f"second/{name}": second.numpy().copy()}
        return found

    def load(self, state: Mapping[str, Any], names: Sequence[str]) -> None:
        """Take moments over. Raises `KeyError`, `TypeError` or `RuntimeError` when they are not of these parameters."""
        self.steps = int(state["gradients"])
        for name, first, second in zip(names, self._first, self._second, strict=True):
            first.copy_(torch.from_numpy(np.asarray(state[f"first/{name}"])))
            second.copy_(torch.from_numpy(np.asarray(state[f"second/{name}"])))


def falling(rate: float, *, done: int, steps: int, warm_up: int) -> float:
    """Return the rate of a step: it rises over the warm-up, then falls along a cosine."""
    rise = min(1.0, (done + 1) / max(1, warm_up))
    return rate * rise * (0.5 * (1 + math.cos(math.pi * done / steps)) + 0.02)
