"""Several annotators' boxes of one image as one answer, and where they do not agree. Pure.

Laws:

1. What one annotator alone drew is the answer, unchanged.
2. The answer does not depend on the order of the annotators.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hub.annotation import Annotation, Xyxy


@dataclass(frozen=True, slots=True)
class Dispute:
    """A place where annotators do not agree.

    Attributes:
        xyxy: pixels of the image.
        labels: the labels given there, those of most annotators first.
        why: one phrase.
    """

    xyxy: Xyxy
    labels: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Consensus:
    """The answer for one image."""

    boxes: tuple[Annotation, ...]
    disputes: tuple[Dispute, ...] = ()


def consolidate(drawn: Mapping[str, Sequence[Annotation]]) -> Consensus:
    """Return the answer for one image from what each annotator drew on it, by name."""
    if len(drawn) == 1:
        return Consensus(tuple(*drawn.values()))
    msg = "several annotators: not written yet"
    raise NotImplementedError(msg)
