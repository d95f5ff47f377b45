"""What one frame shows the miners, and what a miner hands on."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from edge.contract.samples import Reason, Witness, Xyxy
from edge.detector.detections import Detections, Floats
from edge.frame import Frame
from edge.motion import Blob
from edge.recall import TwoLooks
from edge.tracks import Track

BORDER_PX: Final = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class Observation:
    """One frame after detection and tracking.

    Attributes:
        detections: all boxes from score 0.05 up, pixels of the frame, best first.
        features: `[c]` pooled feature vector, or empty.
        score_threshold: at or above it a box counts as detected.
        tracks: the live tracks, linked to this frame. They change with the next frame: copy what is kept.
        ended: the tracks that were dropped with this frame.
        reported: place and class of each box at or above the threshold.
        blobs: what moves and is not detected.
        hidden: `[n, 4]`, where people are thought to be who have no box; see edge.privacy.
        enlarged: what second looks saw around places of this frame, as far as they were taken.
    """

    frame: Frame
    detections: Detections
    features: Floats
    score_threshold: float
    tracks: list[Track]
    ended: list[Track]
    blobs: Sequence[Blob] = ()
    hidden: Floats = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    enlarged: list[Detections] = field(default_factory=list)
    reported: tuple[tuple[Xyxy, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        """Note place and class of what the detector reports: it is asked for again and again."""
        strong = self.detections.take(self.detections.score >= self.score_threshold)
        pairs = zip(map(tuple, strong.xyxy.tolist()), strong.class_id.tolist(), strict=True)
        object.__setattr__(self, "reported", tuple(pairs))


@dataclass(frozen=True, slots=True, eq=False)
class Mined:
    """A frame worth a look, before it becomes a finding.

    Attributes:
        at: the frame that shows it; often an earlier one than the newest.
        severity: 0..1.
        region: `xyxy` pixels of the frame: where to look.
        class_id: what is suspected there; None where nothing is.
        witnesses: why a miss is claimed, strongest first; empty for other reasons.
        refuted: the second look was taken there and saw nothing.
        track_id: the track it belongs to; None where it belongs to none.
        track: the name of that track, unlike any other of the device; the pipeline gives it.
        tags: what the miner knows of its kind; they join the finding's tags.
        looks: of a `control`: its objects.
        drawn_per_hour: of a `control`: the rate at which it was drawn.
    """

    at: Observation
    reason: Reason
    severity: float
    region: Xyxy
    class_id: int | None = None
    witnesses: tuple[Witness, ...] = ()
    refuted: bool = False
    track_id: int | None = None
    track: str = ""
    tags: tuple[str, ...] = ()
    looks: TwoLooks | None = None
    drawn_per_hour: float = 0.0

    @property
    def looked_twice(self) -> bool:
        """Whether it is a `control` that got its second look."""
        return self.looks is not None and self.looks.twice


def is_inside(xyxy: Xyxy, at: Observation, *, border_px: float = BORDER_PX) -> bool:
    """Return whether the place stays off the frame's border by `border_px`: what touches it is cut by it."""
    height, width = at.frame.image.shape[:2]
    x1, y1, x2, y2 = xyxy
    return x1 >= border_px and y1 >= border_px and x2 <= width - border_px and y2 <= height - border_px
