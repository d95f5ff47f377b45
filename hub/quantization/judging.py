"""What a variant lost against float32 on the same pictures, and on which pictures that is asked.

Laws:

1. What is chosen is chosen on val; where val has too few labelled boxes, on train too; where those have too few, the
   float32 model's own boxes are the truth. The test split is for the verdict only.
2. A figure of fewer than `ENOUGH` boxes is shown and not judged: one box would be more than a point. The verdict alone
   refuses by it, when its whole interval lies beyond the budget.
3. Both looks go through the detector of the device.

The choice takes float32 boxes from a little below the working threshold up: then a box right at the threshold that
falls below it and one that rises above it weigh the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

import msgspec

from edge.detector.detector import Detector
from hub.datasets.version import Member, MemberBox, Version
from hub.evaluation.compare import compare
from hub.evaluation.seen import Seen, look
from hub.quantization.calibration import spread
from hub.quantization.report import Judged, Loss

ENOUGH: Final = 100
MOST_PICTURES: Final = 200
_BELOW: Final = 0.75
_RESAMPLES: Final = 300

Truth = Literal["labels", "float32"]


@dataclass(frozen=True, slots=True)
class Asked:
    """Pictures to look at, and whose boxes are their truth."""

    of: str
    truth: Truth
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Judge:
    """Pictures that float32 was seen on, by one runtime."""

    asked: Asked
    folder: Path
    before: tuple[Seen, ...]
    score_threshold: float
    resamples: int

    def __call__(self, detector: Detector, on_image: Callable[[], None] = lambda: None) -> Judged:
        """Return what a detector lost. Raises `UnusableError` when it fails or gives NaN."""
        members = [seen.member for seen in self.before]
        after = look(detector, self.folder, members, on_image)
        found = compare(self.before, after, score_threshold=self.score_threshold, resamples=self.resamples)
        losses = []
        for group in (found.overall, *found.of("size")):
            for measure, change in (("ap50", group.ap50), ("recall", group.recall)):
                if change.baseline is not None and change.candidate is not None:
                    losses.append(
                        Loss(
                            group=group.name,
                            measure="ap50" if measure == "ap50" else "recall",
                            objects=group.objects,
                            before=change.baseline,
                            after=change.candidate,
                            judged=group.objects >= ENOUGH,
                            least=None if change.high is None else -100 * change.high,
                        )
                    )
        asked = self.asked
        return Judged(of=asked.of, truth=asked.truth, images=len(members), losses=tuple(losses))


def pictures_to_choose_on(version: Version, labels: Sequence[str]) -> Asked:
    """Return the pictures on which layers are chosen; never one of the test split."""
    val = _labelled(version, ("val",))
    if _boxes(val, labels) >= ENOUGH:
        return Asked("val", "labels", spread(val, MOST_PICTURES))
    both = _labelled(version, ("val", "train"))
    if _boxes(both, labels) >= ENOUGH:
        return Asked("val and train", "labels", spread(both, MOST_PICTURES))
    every = [one for one in version.members if one.split != "test" and not one.copy_of]
    field = [one for one in every if one.labels or one.event_id]
    return Asked("val and train", "float32", spread(field or every, MOST_PICTURES))


def pictures_to_judge_on(version: Version, labels: Sequence[str]) -> Asked | None:
    """Return the labelled pictures of the test split; None where they have no box."""
    test = _labelled(version, ("test",))
    return Asked("test", "labels", tuple(test)) if _boxes(test, labels) else None


def judge_by(detector: Detector, asked: Asked, folder: Path, on_image: Callable[[], None] = lambda: None) -> Judge:
    """Let the float32 detector look. Raises `UnusableError`."""
    threshold = detector.score_threshold
    seen = look(detector, folder, asked.members, on_image)
    if asked.truth == "float32":
        seen = [replace(one, member=_own_truth(one, score=threshold * _BELOW)) for one in seen]
    return Judge(asked, folder, tuple(seen), threshold, _RESAMPLES if asked.of == "test" else 0)


def _own_truth(seen: Seen, *, score: float) -> Member:
    """Return the member with the detector's own boxes as its truth."""
    found = seen.detections
    rows = zip(found.xyxy.tolist(), found.score.tolist(), found.class_id.tolist(), strict=True)
    boxes = tuple(
        MemberBox(xyxy=(x1, y1, x2, y2), label=seen.labels[class_id], origin="self")
        for (x1, y1, x2, y2), one, class_id in rows
        if one >= score
    )
    return msgspec.structs.replace(seen.member, labels=seen.labels, boxes=boxes, by="self")


def _labelled(version: Version, splits: Sequence[str]) -> list[Member]:
    return [one for one in version.members if one.split in splits and one.labels and not one.copy_of]


def _boxes(members: Sequence[Member], labels: Sequence[str]) -> int:
    known = set(labels)
    return sum(not box.ignored and box.label in known for one in members for box in one.boxes)
