"""What a dataset version holds for a training: its parts by origin, and whether a model can learn from it."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge.contract.errors import UnusableError
from hub.datasets.version import Member, Version

PEOPLE, MACHINE, SELF, REPLAY, NOISY = "people", "machine", "self-taught", "replay", "noisy copies"
PARTS: Final = (PEOPLE, MACHINE, SELF, REPLAY, NOISY)


def part_of_training(member: Member) -> str:
    """Return which part of what is trained on a picture is."""
    if member.copy_of:
        return NOISY
    if member.by in {"person", "review"}:
        return PEOPLE
    return {"machine": MACHINE, "self": SELF}.get(member.by, REPLAY)


def parts_of(version: Version) -> dict[str, int]:
    """Return how many pictures of each part are trained on; those without any are left out."""
    found = Counter(part_of_training(member) for member in version.of("train"))
    return {part: found[part] for part in PARTS if found[part]}


def require_teachable(version: Version, folder: Path, *, labels: Sequence[str]) -> None:
    """Raise `UnusableError`, saying what to do, when a model of these labels can learn nothing from a version."""
    shown = version.of("train")
    if not shown:
        msg = f"{folder} has no picture to train on: `hub dataset show {folder}` says what it holds"
        raise UnusableError(msg)
    learned = {box.label for member in version.members for box in member.boxes}
    if missing := [label for label in version.labels if label in learned and label not in labels]:
        many = "labels" if len(missing) > 1 else "label"
        named = ", ".join(repr(label) for label in missing)
        rows = " ".join(f"--new-label {_quoted(label)}" for label in missing)
        adds = "add rows for them" if len(missing) > 1 else "adds a row for it"
        msg = f"the model has no {many} {named}: `hub train ... {rows}` {adds}"
        raise UnusableError(msg)
    if not any(not box.ignored for member in shown for box in member.boxes):
        msg = f"no picture of {folder} that is trained on has a box: there is nothing to learn"
        raise UnusableError(msg)


def _quoted(label: str) -> str:
    return f'"{label}"' if " " in label else label
