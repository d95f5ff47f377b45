"""One node of an ONNX graph, as its operator sees it."""

from dataclasses import dataclass
from typing import Any

from hub.train.lesson import Tensor


@dataclass(frozen=True, slots=True)
class Node:
    """What the file says of one node.

    Attributes:
        kind: the operator.
        name: the node's own name, else its first output's.
        inputs: names of values; "" stands for one that is left out.
        outputs: names of values; "" for one that nobody reads.
        attributes: as plain values; text as `str`, a tensor as an array.
        opset: the version of the operators.
        seen: it works on the picture, not only on constants and on the shapes of values.
        batch: how many pictures are run at once.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    opset: int
    seen: bool
    batch: int = 1

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute's value."""
        return self.attributes.get(name, default)

    def ints(self, name: str, given: Tensor = None) -> list[int] | None:
        """Return whole numbers that newer opsets give as an input and older ones as an attribute, else None."""
        if given is not None:
            return [int(value) for value in given.reshape(-1).tolist()]
        stated = self.attributes.get(name)
        return None if stated is None else [int(value) for value in stated]
