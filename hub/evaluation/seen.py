"""What a detector says of the pictures of a dataset version, through the very code of the devices.

Laws:

1. Every box from `LOWEST_SCORE` up is kept: how many a threshold would drop is the evaluation's to say.
2. A picture that is not the one that was frozen, or is none, stops the look: a score of other pictures is no score.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.contract.errors import UnusableError
from edge.detector.detections import Detections
from edge.detector.detector import Detector
from edge.detector.letterbox import Size
from edge.frame import Image
from hub.datasets.version import Member, Split, Version, read_image

LOWEST_SCORE: Final = 0.01


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One picture and what a detector says of it.

    Attributes:
        detections: boxes in pixels of the picture, best first; `class_id` points into `labels`.
        labels: all that the model tells apart.
        input_size: width and height of the model's input.
    """

    member: Member
    detections: Detections
    labels: tuple[str, ...]
    input_size: Size


def members_to_test(version: Version, split: Split = "test") -> tuple[Member, ...]:
    """Return the originals of a split on which something was looked for. Raises `UnusableError` without any."""
    chosen = tuple(member for member in version.of(split) if member.labels and not member.copy_of)
    if not chosen:
        msg = (
            f"the dataset version {version.digest[:12]} has no labelled image in its split {split!r}: "
            "freeze a version with labelled images of the test share: `hub dataset freeze`"
        )
        raise UnusableError(msg)
    return chosen


def look(
    detector: Detector, folder: Path, members: Iterable[Member], on_image: Callable[[], None] = lambda: None
) -> list[Seen]:
    """Run a detector over the pictures of a version's folder, in the order given; `on_image` is called after each.

    Raises `UnusableError` for a picture that was changed or cannot be read, and for a model that fails or gives NaN.
    """
    seen = []
    for member in members:
        seen.append(see(detector, member, read_image(folder, member)))
        on_image()
    return seen


def see(detector: Detector, member: Member, image: Image) -> Seen:
    """Run a detector over one picture `[h, w, 3]` that is at hand. Raises `UnusableError` as `look` does."""
    found = detector.detect(image, score_threshold=LOWEST_SCORE)
    if not found.finite:
        msg = f"{detector.card.release} gives NaN or infinity on the picture {member.name}: it cannot be measured"
        raise UnusableError(msg)
    return Seen(member, found.detections, detector.labels, detector.input_size)


def same_pictures(baseline: Sequence[Seen], candidate: Sequence[Seen]) -> bool:
    """Whether two looks are of the same pictures in the same order, with the same truth."""
    return [one.member for one in baseline] == [one.member for one in candidate]
