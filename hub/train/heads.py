"""Which heads can be taught: each with its loss, and with what it makes of a look at twice the size where it can."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from edge.contract.errors import UnusableError
from hub.train import centernet_loss, yolox_loss
from hub.train.lesson import HeadLoss, Tensor


class Taught(NamedTuple):
    """A head that can be taught.

    Attributes:
        loss: see `hub.train.lesson.HeadLoss`.
        pooled: from the outputs for twice the input size to those for `input_size`; None where there is no way.
    """

    loss: HeadLoss
    pooled: Callable[[Mapping[str, Tensor], tuple[int, int]], dict[str, Tensor]] | None = None


HEADS: Final[Mapping[str, Taught]] = {
    "centernet": Taught(centernet_loss.loss, centernet_loss.pooled),
    "yolox": Taught(yolox_loss.loss),
}


def taught(head: str | None) -> Taught:
    """Return how a head is taught. Raises `UnusableError` naming those that can be."""
    found = HEADS.get(head or "")
    if found is None:
        msg = f"there is no training for the head {head}: {', '.join(sorted(HEADS))} can be trained"
        raise UnusableError(msg)
    return found
