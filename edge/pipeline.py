"""One camera's trip: detect, track, mine. And what makes a finding out of a mined frame.

`Pipeline.step` is the hot path and keeps no image longer than a miner needs it. `seal` is slow (it encodes a JPEG and
hashes it) and belongs behind a queue.
"""

import hashlib
import time
import uuid
from dataclasses import dataclass

import cv2
import numpy as np

from edge.config import MiningConfig
from edge.contract.errors import UnusableError
from edge.contract.samples import MAX_BOXES, Box, Finding, Xyxy
from edge.detector.detections import Detections, box_iou
from edge.detector.detector import Detector, Inference
from edge.fingerprint import Fingerprint, fingerprint, quantize_features
from edge.frame import Frame
from edge.miners.control import ControlMiner
from edge.miners.low_confidence import LowConfidenceMiner
from edge.miners.missed import MissedMiner
from edge.miners.suspect import SuspectMiner
from edge.observation import Mined, Observation
from edge.tags import finding_tags
from edge.tracks import Tracker

KEEP_SCORE = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one frame gave. `tracks_ms` and `miners_ms` stand beside the inference's own timings."""

    inference: Inference
    mined: list[Mined]
    tracks_ms: float
    miners_ms: float


class Pipeline:
    """Mines one camera's frames. Give it every frame once, in order.

    Args:
        detector: may be shared between pipelines of one thread.
        score_threshold: at or above it a box counts as detected.
        seed: makes the control sample repeatable; a daemon draws it at random.
    """

    def __init__(self, *, detector: Detector, score_threshold: float, mining: MiningConfig, seed: int) -> None:
        self._detector = detector
        self._score_threshold = score_threshold
        self._tracker = Tracker(score_threshold=score_threshold)
        self._missed = MissedMiner()
        self._last: Observation | None = None
        self._miners = (
            LowConfidenceMiner(),
            SuspectMiner(),
            ControlMiner(per_hour=mining.control_per_hour, seed=seed),
        )

    def step(self, frame: Frame) -> Step:
        """Detect, track and mine one frame."""
        inference = self._detector.detect(frame.image, score_threshold=KEEP_SCORE)
        detected = time.perf_counter()
        ended = self._tracker.update(inference.detections, time_s=frame.time_s)
        tracked = time.perf_counter()
        observation = Observation(
            frame=frame,
            detections=inference.detections,
            features=inference.features,
            score_threshold=self._score_threshold,
            tracks=self._tracker.tracks,
            ended=ended,
        )
        self._last = observation
        mined = self._missed.mine(observation)
        for miner in self._miners:
            mined += miner.mine(observation)
        done = time.perf_counter()
        return Step(inference, mined, (tracked - detected) * 1e3, (done - tracked) * 1e3)

    def finish(self) -> list[Mined]:
        """Return what is still open when the recording ends."""
        return [] if self._last is None else self._missed.finish(self._last)


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """A mined frame in words and numbers, before it has an id, a device and a JPEG."""

    fingerprint: Fingerprint
    label: str
    boxes: tuple[Box, ...]
    tags: tuple[str, ...]
    region: Xyxy


def describe(mined: Mined, detector: Detector) -> Description:
    """Return the region inside the frame, its fingerprint and tags, and the boxes worth showing, best first.

    The boxes are what the witnesses claim, then the detector's own from half the threshold up.
    """
    frame, detections = mined.at.frame, mined.at.detections
    height, width = frame.image.shape[:2]
    region = _clip(mined.region, width, height)
    print_ = fingerprint(frame.image, region)
    threshold = mined.at.score_threshold
    label = "" if mined.class_id is None else detector.labels[mined.class_id]
    shown = detections.take(detections.score >= threshold / 2)
    claimed: list[Box] = []
    if mined.witnesses and mined.class_id is not None:
        shown = shown.take(~_same_object(shown, mined.class_id, region))
        claimed.append(Box(region, label, mined.severity, mined.witnesses[0].kind))
    return Description(
        fingerprint=print_,
        label=label,
        boxes=tuple(claimed + detection_boxes(shown, detector.labels))[:MAX_BOXES],
        tags=finding_tags(
            region,
            print_.light,
            frame_size=(width, height),
            input_scale=min(detector.input_size[0] / width, detector.input_size[1] / height),
            detected=int(np.count_nonzero(detections.score >= threshold)),
        ),
        region=region,
    )


def seal(mined: Mined, *, detector: Detector, site: str, device: str, jpeg_quality: int) -> tuple[Finding, bytes]:
    """Return the finding with a new event id, and the frame as a JPEG.

    Raises:
        UnusableError: when the frame cannot be encoded.
    """
    described = describe(mined, detector)
    frame = mined.at.frame
    height, width = frame.image.shape[:2]
    done, encoded = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    if not done:
        msg = f"a frame of {width}x{height} could not be encoded as JPEG"
        raise UnusableError(msg)
    jpeg = encoded.tobytes()
    finding = Finding(
        event_id=uuid.uuid4().hex,
        site=site,
        device=device,
        camera=frame.camera,
        sequence=frame.sequence,
        captured_at_ms=frame.captured_at_ms,
        reason=mined.reason,
        severity=mined.severity,
        region=described.region,
        label=described.label,
        boxes=described.boxes,
        witnesses=mined.witnesses,
        tags=described.tags,
        width=width,
        height=height,
        crop_hash=described.fingerprint.crop_hash,
        frame_hash=described.fingerprint.frame_hash,
        features=quantize_features(mined.at.features),
        light=described.fingerprint.light,
        model=detector.card.release,
        frame_bytes=len(jpeg),
        frame_sha256=hashlib.sha256(jpeg).hexdigest(),
    )
    return finding, jpeg


def detection_boxes(detections: Detections, labels: tuple[str, ...]) -> list[Box]:
    """Return detections as boxes: pixels to a hundredth, scores to four digits."""
    return [
        Box((round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)), labels[class_id], round(score, 4))
        for (x1, y1, x2, y2), score, class_id in zip(
            detections.xyxy.tolist(), detections.score.tolist(), detections.class_id.tolist(), strict=True
        )
    ]


def _same_object(detections: Detections, class_id: int, region: Xyxy) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Return which boxes are weak views of what the witnesses claim."""
    iou = box_iou(detections.xyxy, np.array([region], np.float32))[:, 0]
    same: np.ndarray[tuple[int], np.dtype[np.bool_]] = (iou > 0.5) & (detections.class_id == class_id)
    return same


def _clip(xyxy: Xyxy, width: int, height: int) -> Xyxy:
    """Return the part inside the frame, to a hundredth of a pixel; at least one pixel at the nearest border."""
    x1, y1, x2, y2 = xyxy
    x1, y1 = min(max(x1, 0.0), width - 1.0), min(max(y1, 0.0), height - 1.0)
    x2, y2 = min(max(x2, x1 + 1.0), float(width)), min(max(y2, y1 + 1.0), float(height))
    return round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)
