"""What one step of training sees, and what a head's loss makes of it: the joint between the pictures and the heads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Tensor = Any  # torch.Tensor: torch is not followed by the type checker


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """`n` pictures of one step, `k` classes.

    Attributes:
        images: `[n, 3, h, w]` or `[n, h, w, 3]`, as the card says: colours, mean and std as on the device.
        boxes: for each picture `[m, 4]`, xyxy in pixels of the input; they may reach outside.
        class_id: for each picture `[m]`.
        ignored: for each picture `[m]`: neither an object to learn nor background.
        looked_for: `[n, k]`: where True, what has no box is background; where False, the old model says what is there.
    """

    images: Floats
    boxes: tuple[Floats, ...]
    class_id: tuple[Ints, ...]
    ignored: tuple[Mask, ...]
    looked_for: Mask


class HeadLoss(Protocol):
    """What a head's outputs cost. The modules `hub.train.*_loss` are such."""

    def __call__(
        self, outputs: Mapping[str, Tensor], old: Mapping[str, Tensor], lesson: Lesson, *, input_size: tuple[int, int]
    ) -> dict[str, Tensor]:
        """Return the parts of the loss by name, each a scalar to be added up with its weight.

        `find`: the objects of the labels that were looked for; `place`: where their boxes end; `keep`: how far the
        model has moved from the old one where nothing was looked for. `outputs` and `old` are the raw outputs of the
        graph and of the old graph, by name, for a batch of `n`.
        """
