"""What makes a finding out of a mined frame: region, fingerprint, tags, boxes, an id, a JPEG.

`seal` is slow (it encodes a JPEG and hashes it) and belongs behind a queue.
"""

import hashlib
import uuid
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.contract.errors import UnusableError
from edge.contract.samples import MAX_BOXES, Box, Finding, Reason, WitnessKind, Xyxy
from edge.detector.detections import Detections, box_iou
from edge.detector.detector import Detector
from edge.fingerprint import Fingerprint, fingerprint, quantize_features
from edge.observation import Mined
from edge.privacy import NO_REDACTION, Redaction
from edge.tags import finding_tags


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
    if mined.witnesses:
        shown = shown.take(~_same_object(shown, mined.class_id, region))
        claimed.append(Box(region, label, mined.severity, mined.witnesses[0].kind))
    return Description(
        fingerprint=print_,
        label=label,
        boxes=tuple(claimed + detection_boxes(shown, detector.labels))[:MAX_BOXES],
        tags=(
            *finding_tags(
                region,
                print_.light,
                frame_size=(width, height),
                input_scale=min(detector.input_size[0] / width, detector.input_size[1] / height),
                detected=int(np.count_nonzero(detections.score >= threshold)),
            ),
            *mined.tags,
        ),
        region=region,
    )


def seal(
    mined: Mined, *, detector: Detector, site: str, device: str, jpeg_quality: int, redaction: Redaction = NO_REDACTION
) -> tuple[Finding, bytes]:
    """Return the finding with a new event id, and the frame as a JPEG.

    It is redacted first: hashes, light and tags describe what leaves the device.

    Raises:
        UnusableError: when the frame cannot be encoded.
    """
    mined = _redacted(mined, redaction)
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


def _redacted(mined: Mined, redaction: Redaction) -> Mined:
    at = mined.at
    seen = (at.detections, *at.enlarged)
    image = redaction.redact(
        at.frame.image,
        region=None if mined.reason is Reason.CONTROL else mined.region,
        detections=Detections(
            np.concatenate([one.xyxy for one in seen]),
            np.concatenate([one.score for one in seen]),
            np.concatenate([one.class_id for one in seen]),
        ),
        hidden=at.hidden,
    )
    return replace(mined, at=replace(at, frame=replace(at.frame, image=image)))


def detection_boxes(
    detections: Detections, labels: tuple[str, ...], *, merged: NDArray[np.bool_] | None = None
) -> list[Box]:
    """Return detections as boxes: pixels to a hundredth, scores to four digits. `merged` `[n]`: by the second look."""
    rows = zip(detections.xyxy.tolist(), detections.score.tolist(), detections.class_id.tolist(), strict=True)
    return [
        Box(
            (round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)),
            labels[class_id],
            round(score, 4),
            WitnessKind.ZOOM if merged is not None and merged[index] else None,
        )
        for index, ((x1, y1, x2, y2), score, class_id) in enumerate(rows)
    ]


def _same_object(detections: Detections, class_id: int | None, region: Xyxy) -> NDArray[np.bool_]:
    """Return which boxes are weak views of what the witnesses claim."""
    iou = box_iou(detections.xyxy, np.array([region], np.float32))[:, 0]
    same: NDArray[np.bool_] = iou > 0.5
    if class_id is not None:
        same &= detections.class_id == class_id
    return same


def _clip(xyxy: Xyxy, width: int, height: int) -> Xyxy:
    """Return the part inside the frame, to a hundredth of a pixel; at least one pixel at the nearest border."""
    x1, y1, x2, y2 = xyxy
    x1, y1 = min(max(x1, 0.0), width - 1.0), min(max(y1, 0.0), height - 1.0)
    x2, y2 = min(max(x2, x1 + 1.0), float(width)), min(max(y2, y1 + 1.0), float(height))
    return round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)
