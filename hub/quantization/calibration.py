"""The pictures whose ranges a quantization keeps: original field frames, letterboxed as on the device.

Laws:

1. Never a picture of the test split, never a noisy copy.
2. Replay pictures only where there are fewer than `FEWEST` others.
3. One version gives the same pictures at every call.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.contract.card import InputSpec
from edge.contract.errors import UnusableError
from edge.detector.letterbox import Letterbox, Size
from hub.datasets.version import Member, Version, read_image

MOST: Final = 100
FEWEST: Final = 30
MOST_TO_TUNE: Final = 200


def pictures_to_calibrate(version: Version, *, most: int = MOST) -> tuple[Member, ...]:
    """Return up to `most` pictures, spread over cameras and time. Raises `UnusableError` when there is none."""
    originals = _originals(version)
    field = [one for one in originals if one.labels or one.event_id]
    replay = [one for one in originals if not (one.labels or one.event_id)]
    chosen = spread(field, most)
    if len(chosen) < FEWEST:
        chosen = (*chosen, *spread(replay, min(FEWEST, most) - len(chosen)))
    if not chosen:
        msg = f"the dataset version {version.digest[:12]} has no picture in train or val to calibrate with"
        raise UnusableError(msg)
    return chosen


def pictures_to_tune_on(version: Version) -> tuple[Member, ...]:
    """Return the pictures on which float32 teaches its 8-bit self: field and replay, as no label is needed."""
    return spread(_originals(version), MOST_TO_TUNE)


def spread(members: Sequence[Member], most: int) -> tuple[Member, ...]:
    """Return at most `most` of them, evenly over cameras and time."""
    ordered = sorted(members, key=lambda one: (one.camera, one.captured_at_ms, one.name))
    if len(ordered) <= most:
        return tuple(ordered)
    return tuple(ordered[int(at)] for at in np.linspace(0, len(ordered) - 1, max(most, 0)).round())


def tensors_of(
    folder: Path, members: Sequence[Member], *, spec: InputSpec, size: Size
) -> tuple[NDArray[np.float32], ...]:
    """Return the input tensors of pictures. Raises `UnusableError` for one that was changed or is none."""
    letterbox = Letterbox(spec, input_size=size)
    return tuple(letterbox(read_image(folder, member))[0].copy() for member in members)


def _originals(version: Version) -> list[Member]:
    return [one for one in version.members if one.split in {"train", "val"} and not one.copy_of]
