"""Passes: one kind of thing at a time, in a fixed order. People make fewer mistakes so.

The order is that of the labels, as `hub.toml` lists them, else the alphabet. A pass shows what the passes before have
drawn, as context: boxes to see and to leave alone.

Laws:

1. What is shown as context has a label of a pass before, never of this one or of one that follows.
2. Context keeps place and label of the box that was drawn; it says of itself that it is context.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edge.contract.errors import UnusableError
from hub.annotation import CONTEXT, Annotation


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass.

    Attributes:
        label: the one that is asked for.
        before: the labels of the passes before it, in their order.
        after: those of the passes that follow.
    """

    label: str
    before: tuple[str, ...]
    after: tuple[str, ...]

    @property
    def number(self) -> int:
        """Its place, 1 for the first."""
        return len(self.before) + 1

    @property
    def count(self) -> int:
        """How many passes there are."""
        return len(self.before) + 1 + len(self.after)

    def context(self, drawn: Iterable[Annotation]) -> tuple[Annotation, ...]:
        """Return what was drawn in the passes before, as context."""
        return tuple(Annotation(box.xyxy, box.label, None, CONTEXT) for box in drawn if box.label in self.before)


def find_pass(label: str, labels: Sequence[str]) -> Pass:
    """Return the pass of `label` in the order of `labels`. Raises `UnusableError` that lists them."""
    if label not in labels:
        msg = f"no pass {label!r}: asked for: {', '.join(labels)}; [labels] names in hub.toml says which"
        raise UnusableError(msg)
    at = labels.index(label)
    return Pass(label, tuple(labels[:at]), tuple(labels[at + 1 :]))
