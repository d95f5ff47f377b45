"""`training.json` beside a candidate: where it comes from, and what its training was like."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from edge.contract.errors import UnusableError

TRAINING: Final = "training.json"
SCHEMA: Final = 1
_POINTS: Final = 100


class LossAt(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of the loss, by name, at a step, or as the mean of the steps up to it."""

    step: int
    parts: dict[str, float]


class Training(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `training.json` holds.

    Attributes:
        parent: the release that was trained on, `parent_sha256` its file.
        dataset: the digest of the dataset version, `folder` where it was.
        pictures: how many were trained on, by origin: see `parts_of`.
        input: WIDTHxHEIGHT.
        parent_input: that of the parent's card.
        recipe: every figure of it.
        command: the trainer that was run instead of the built-in one; "" for the built-in one.
        steps: done, of `planned`; fewer when it was stopped early.
        seconds: of all runs, when it was resumed.
        resumed: how often it went on after it was stopped or killed.
        peak_bytes: the most memory that its process held.
        losses: over time; at most 100 points.
        alpha: the share of the new weights in those released, the rest is the old; chosen on the validation split.
        validation: figures of the validation split, by name.
        new_labels: those that the parent did not have.
        versions: of what trained it, by name.
    """

    schema: int = SCHEMA
    release: str
    parent: str
    parent_sha256: str
    dataset: str
    folder: str
    pictures: dict[str, int]
    input: str
    parent_input: str
    recipe: dict[str, Any] = {}
    command: str = ""
    seed: int = 0
    threads: int = 0
    steps: int = 0
    planned: int = 0
    seconds: float
    resumed: int = 0
    peak_bytes: int = 0
    losses: tuple[LossAt, ...] = ()
    alpha: float = 1.0
    validation: dict[str, float] = {}
    new_labels: tuple[str, ...] = ()
    versions: dict[str, str] = {}


def read_training(folder: Path) -> Training:
    """Read the `training.json` of a candidate's folder. Raises `UnusableError` when there is none or it is wrong."""
    path = folder / TRAINING
    try:
        return msgspec.json.decode(path.read_bytes(), type=Training)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UnusableError(msg) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{path} is not valid: {error}"
        raise UnusableError(msg) from error


def thinned(losses: Sequence[LossAt], *, most: int = _POINTS) -> tuple[LossAt, ...]:
    """Return at most `most` points: each the mean of the steps since the one before, at its last step."""
    stride = max(1, -(-len(losses) // most))
    return tuple(_mean(losses[start : start + stride]) for start in range(0, len(losses), stride))


def _mean(losses: Sequence[LossAt]) -> LossAt:
    names = sorted({name for loss in losses for name in loss.parts})
    parts = {}
    for name in names:
        found = [loss.parts[name] for loss in losses if name in loss.parts]
        parts[name] = sum(found) / len(found)
    return LossAt(step=losses[-1].step, parts=parts)
