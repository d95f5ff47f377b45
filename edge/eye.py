"""One camera of the running daemon: its capture, its pipeline, its meter, and whether its picture stands still."""

import logging
from dataclasses import dataclass, field

import msgspec

from edge.camera import Camera, CameraState
from edge.contract.status import CameraHealth, RecallCounts
from edge.frame import Frame
from edge.frozen import FrozenPicture
from edge.health import CameraMeter
from edge.pipeline import Pipeline
from edge.privacy import Redaction

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Eye:
    """One camera with its pipeline. Detection's thread owns it; any thread may ask for its health.

    Attributes:
        frozen: whether its picture stands still. Nothing is mined from it then: it shows nothing that happens.
        redaction: what of its pictures must not leave the device.
        finished: whether its last frame was looked at.
        size: (width, height) of the last frame; None before the first.
    """

    camera: Camera
    pipeline: Pipeline
    redaction: Redaction
    meter: CameraMeter = field(default_factory=CameraMeter)
    picture: FrozenPicture = field(default_factory=FrozenPicture)
    frozen: bool = False
    finished: bool = False
    size: tuple[int, int] | None = None
    _looks_before: int = 0
    _recall_before: RecallCounts = field(default_factory=RecallCounts)

    def adopt(self, pipeline: Pipeline, redaction: Redaction) -> None:
        """Go on with another pipeline. What the one before has counted still counts."""
        looks = self.pipeline.looks
        self._looks_before += looks.taken
        self._recall_before = _sum(self._recall_before, looks.recall)
        self.pipeline, self.redaction = pipeline, redaction

    def watch(self, frame: Frame) -> None:
        """Look whether the picture stands still; log when that begins and when it ends."""
        self.size = (frame.image.shape[1], frame.image.shape[0])
        was, self.frozen = self.frozen, self.picture.update(frame.image, time_s=frame.time_s)
        if self.frozen and not was:
            _log.warning("camera %s is frozen: it goes on sending the same picture", self.camera.name)
        elif was and not self.frozen:
            _log.warning("camera %s is no longer frozen: its picture changes again", self.camera.name)

    def health(self, *, now_s: float) -> CameraHealth:
        """Return the camera's line of the heartbeat."""
        state = self.camera.state
        health = self.meter.health(
            name=self.camera.name,
            state=CameraState.FROZEN if self.frozen and state is CameraState.RUNNING else state,
            restarts=self.camera.restarts,
            frame_age_s=self.camera.frame_age_s(),
            now_s=now_s,
        )
        looks = self.pipeline.looks
        recall = _sum(self._recall_before, looks.recall)
        return msgspec.structs.replace(health, looks=self._looks_before + looks.taken, recall=recall)


def _sum(a: RecallCounts, b: RecallCounts) -> RecallCounts:
    return RecallCounts(
        frames=a.frames + b.frames,
        detector=a.detector + b.detector,
        second_look=a.second_look + b.second_look,
        both=a.both + b.both,
    )
