"""What a batch looks like on its way to an annotator and back: its images by rank, and how they are called.

A file's name has batch, rank, side of the split, camera and the end of the event id: it is what ties an image that
comes back to its event, whatever a tool keeps beside it. No name tells an image with a known answer from the others.
"""

import re
from dataclasses import dataclass
from typing import Final

from edge.contract.samples import Box
from hub.annotation import Annotation, Xyxy, is_label
from hub.passes import Pass, find_pass

LABEL_WHEN_NONE: Final = "object"
PRE_LABEL_SCORE: Final = 0.3


@dataclass(frozen=True, slots=True)
class Earlier:
    """A frame of the same camera that a person annotated: its event, its JPEG, and what may be carried over from it."""

    event_id: str
    jpeg: bytes
    boxes: tuple[Annotation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One frame of a batch, as it was frozen.

    Attributes:
        event_id: of the finding.
        site: where the device stands.
        device, camera: that saw it.
        captured_at_ms: UTC, milliseconds since 1970.
        reason: why the device mined it.
        severity: 0..1.
        why: why it was chosen for this batch, in plain words.
        region: `xyxy` pixels of the frame where the miss is suspected.
        label: the label suspected there; empty when none is.
        boxes: the detector's and the witnesses'.
        jpeg: the frame.
        width, height: of the frame, in pixels, as the finding states.
        test: it is of the test share: annotated, and never trained on.
        rank: 1 for the first that was chosen; those of forgotten images are missing.
        honeypot: its answer is known; it is mixed in under the rank of a member, and nothing that is written tells it.
        context: of a pass, the boxes of the passes before.
        earlier: the frames to carry over from: for each label, the last one before this that was annotated for it.
    """

    event_id: str
    site: str
    device: str
    camera: str
    captured_at_ms: int
    reason: str
    severity: float
    why: str
    region: Xyxy
    label: str
    boxes: tuple[Box, ...]
    jpeg: bytes
    width: int
    height: int
    rank: int
    test: bool = False
    honeypot: bool = False
    context: tuple[Annotation, ...] = ()
    earlier: tuple[Earlier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """A frozen batch.

    Attributes:
        id: its number.
        title: the weak point that it was made for.
        model: the release that failed.
        members: by rank; images with known answers are among them.
        random: its images were drawn at random: all of them are for measuring.
        size: as it was frozen: names of images stay what they were when some are forgotten.
        labels: the labels in their fixed order, which gives the numbers of classes and the order of passes; when empty,
            those of `asked`.
        label_pass: the one label that is asked for; empty for all at once.
        unanswered: of a pass, the labels of passes before that nobody has drawn yet, and on how many images.
        notes: what whoever exports it should know: one sentence each.
    """

    id: int
    title: str
    model: str
    members: tuple[Member, ...]
    size: int
    random: bool = False
    labels: tuple[str, ...] = ()
    label_pass: str = ""
    unanswered: tuple[tuple[str, int], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def asked(self) -> tuple[str, ...]:
        """The labels in their fixed order.

        Without any listed, those of the proposed boxes and those suspected, in the order of the alphabet, else
        `LABEL_WHEN_NONE` alone. What was mixed in has no say: it comes and goes, the numbers of classes do not.
        """
        if self.labels:
            return self.labels
        own = [member for member in self.members if not member.honeypot]
        found = {box.label for member in own for box in member.boxes if is_proposed(box)}
        found |= {member.label for member in own}
        return tuple(sorted(filter(is_label, found))) or (LABEL_WHEN_NONE,)

    @property
    def this_pass(self) -> Pass | None:
        """The pass that this is, None where all labels are asked for at once. Raises `UnusableError`."""
        return find_pass(self.label_pass, self.asked) if self.label_pass else None


def is_proposed(box: Box) -> bool:
    """Return whether an annotator starts from a box: a witness's, or one that the detector is sure enough of."""
    return box.witness is not None or box.score >= PRE_LABEL_SCORE


def image_names(batch: BatchView) -> tuple[str, ...]:
    """Return the file name of each member: batch, rank, `test` or `train`, camera and event, in the order of rank."""
    digits = max(2, len(str(batch.size)))
    return tuple(
        f"{batch.id:04d}-{member.rank:0{digits}d}-{'test' if member.test else 'train'}-"
        f"{re.sub('[^A-Za-z0-9_-]', '-', member.camera)[:40]}-{name_end(member.event_id)}.jpg"
        for member in batch.members
    )


def name_end(event_id: str) -> str:
    """Return what stands for an event in the name of its image."""
    return re.sub("[^A-Za-z0-9]", "", event_id)[-8:]
