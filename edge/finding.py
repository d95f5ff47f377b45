"""What makes a finding out of a mined frame: region, fingerprint, tags, boxes, an id, a JPEG.

`seal` is slow (it encodes a JPEG and hashes it) and belongs behind a queue.

Laws:

1. The boxes with tags of a `control` are the objects that its two looks count, or its first alone, each once;
   where the header has no room for all of them, a part of them drawn without regard to which look found which.
2. A header is never longer than `MAX_HEADER_BYTES` because of its boxes.
3. An object's tags are those that a finding about it would have: no zone shows, and the object itself is not blurred.
"""

import hashlib
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.contract.errors import UnusableError
from edge.contract.samples import MAX_BOXES, MAX_HEADER_BYTES, Box, Finding, Reason, WitnessKind, Xyxy
from edge.detector.detections import Detections, box_iou
from edge.detector.detector import Detector
from edge.detector.light import measure_light
from edge.fingerprint import Fingerprint, fingerprint, quantize_features
from edge.frame import Image
from edge.observation import Mined
from edge.privacy import NO_REDACTION, Redaction
from edge.recall import TwoLooks
from edge.tags import object_tags

SAME_OBJECT_IOU: Final = 0.5
_COMMA: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Description:
    """A mined frame in words and numbers, before it has an id, a device and a JPEG.

    Attributes:
        objects: the boxes that count for the rates.
        boxes: the others worth showing, best first.
    """

    fingerprint: Fingerprint
    label: str
    objects: tuple[Box, ...]
    boxes: tuple[Box, ...]
    tags: tuple[str, ...]
    region: Xyxy

    def shown(self, *, room: int = MAX_HEADER_BYTES) -> tuple[Box, ...]:
        """Return the boxes that `room` bytes of JSON can hold, at most `MAX_BOXES`: the objects, then the others.

        Of too many objects a part is drawn at random, as many as would fit if all were as long as the longest: how many
        are drawn, and which, does not depend on what each of them is. The same picture draws the same.
        """
        objects, lengths = self.objects, _lengths(self.objects)
        if len(objects) > MAX_BOXES or sum(lengths) > max(0, room):
            number = min(MAX_BOXES, max(0, room) // max(lengths))
            draw = random.Random(self.fingerprint.frame_hash)  # noqa: S311 (a sample, not a secret)
            objects = tuple(draw.sample(objects, number))
        room -= sum(_lengths(objects))
        others = self.boxes[: MAX_BOXES - len(objects)]
        ends = np.cumsum(_lengths(others))
        return objects + others[: int(np.searchsorted(ends, room, side="right"))]


def describe(mined: Mined, detector: Detector, *, measured: Image | None = None) -> Description:
    """Return the region inside the frame, its fingerprint and tags, the objects and the boxes worth showing.

    The boxes are what the witnesses claim, then the detector's own from half the threshold up, without the weak views
    of what is claimed or overlooked.

    Args:
        mined: what is described, its frame as it leaves the device.
        detector: that saw it.
        measured: the frame on which objects are measured, if another than that.
    """
    frame, detections = mined.at.frame, mined.at.detections
    height, width = frame.image.shape[:2]
    region = _clip(mined.region, width, height)
    print_ = fingerprint(frame.image, region)
    label = "" if mined.class_id is None else detector.labels[mined.class_id]
    shown = detections.score >= mined.at.score_threshold / 2
    claimed: list[Box] = []
    objects: list[Box] = []
    if mined.witnesses:
        shown &= ~_same_object(detections, mined.class_id, region)
        claimed = [Box(region, label, mined.severity, mined.witnesses[0].kind)]
    elif mined.looks is not None:
        looks = mined.looks
        objects = _objects(mined, looks, detector, frame.image if measured is None else measured)
        shown &= ~(looks.found | _weak_views(mined, looks))
        claimed = detection_boxes(looks.beside, detector.labels, merged=np.ones(len(looks.beside), np.bool_))
    of_region = object_tags(
        frame.image, region, light=print_.light, input_scale=_input_scale(mined, detector), others=_reported(mined)
    )
    return Description(
        fingerprint=print_,
        label=label,
        objects=tuple(objects),
        boxes=(*claimed, *detection_boxes(detections.take(shown), detector.labels)),
        tags=(*of_region, *mined.tags),
        region=region,
    )


def seal(
    mined: Mined, *, detector: Detector, site: str, device: str, jpeg_quality: int, redaction: Redaction = NO_REDACTION
) -> tuple[Finding, bytes]:
    """Return the finding with a new event id, and the frame as a JPEG.

    It is redacted first: hashes, light and the finding's tags describe what leaves the device.

    Raises:
        UnusableError: when the frame cannot be encoded.
    """
    measured = None if mined.looks is None else _without_zones(mined.at.frame.image, redaction)
    mined = _redacted(mined, redaction)
    described = describe(mined, detector, measured=measured)
    frame = mined.at.frame
    height, width = frame.image.shape[:2]
    done, encoded = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, jpeg_quality])
    if not done:
        msg = f"a frame of {width}x{height} could not be encoded as JPEG"
        raise UnusableError(msg)
    jpeg = encoded.tobytes()
    finding = Finding(
        event_id=_event_id(frame.captured_at_ms),
        site=site,
        device=device,
        camera=frame.camera,
        sequence=frame.sequence,
        captured_at_ms=frame.captured_at_ms,
        reason=mined.reason,
        severity=mined.severity,
        score_threshold=round(mined.at.score_threshold, 4),
        refuted=mined.refuted,
        region=described.region,
        label=described.label,
        boxes=(),
        witnesses=mined.witnesses,
        tags=described.tags,
        track=mined.track,
        looked_twice=mined.looked_twice,
        drawn_per_hour=round(mined.drawn_per_hour, 6),
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
    room = MAX_HEADER_BYTES - len(msgspec.json.encode(finding))
    return msgspec.structs.replace(finding, boxes=described.shown(room=room)), jpeg


def _event_id(captured_at_ms: int) -> str:
    """Return a new UUIDv7 (RFC 9562): time first, so that the hub's index of all ids grows at its end."""
    return f"{captured_at_ms & 0xFFFFFFFFFFFF:012x}7{uuid.uuid4().hex[13:]}"


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


def _without_zones(image: Image, redaction: Redaction) -> Image:
    """Return the picture with its zones painted and nobody blurred: objects are measured on it, it goes nowhere."""
    return redaction.redact(image, region=None, detections=Detections(), hidden=np.zeros((0, 4), np.float32))


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


def _objects(mined: Mined, looks: TwoLooks, detector: Detector, image: Image) -> list[Box]:
    """Return what two looks count, with tags: those found, those overlooked, each best first."""
    grey = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    scale, others = _input_scale(mined, detector), _reported(mined)
    alone = np.ones(len(looks.overlooked), np.bool_)
    boxes = [
        *detection_boxes(mined.at.detections.take(looks.found), detector.labels),
        *detection_boxes(looks.overlooked, detector.labels, merged=alone),
    ]
    return [
        msgspec.structs.replace(
            box,
            tags=object_tags(image, box.xyxy, light=measure_light(grey, box.xyxy), input_scale=scale, others=others),
        )
        for box in boxes
    ]


def _reported(mined: Mined) -> list[Xyxy]:
    return [xyxy for xyxy, _ in mined.at.reported]


def _input_scale(mined: Mined, detector: Detector) -> float:
    """Return the model input pixels of one frame pixel."""
    height, width = mined.at.frame.image.shape[:2]
    across, down = detector.input_size
    scale: float = min(across / width, down / height)
    return scale


def _weak_views(mined: Mined, looks: TwoLooks) -> NDArray[np.bool_]:
    """Return `[n]`: which of the detector's boxes are weak views of what only the second look reports."""
    seen = mined.at.detections
    alone = (looks.overlooked, looks.beside)
    same = box_iou(seen.xyxy, np.concatenate([one.xyxy for one in alone])) > SAME_OBJECT_IOU
    same &= seen.class_id[:, None] == np.concatenate([one.class_id for one in alone])
    weak: NDArray[np.bool_] = (seen.score < mined.at.score_threshold) & same.any(axis=1)
    return weak


def _lengths(boxes: Sequence[Box]) -> list[int]:
    """Return how many bytes each box takes in a header."""
    return [len(msgspec.json.encode(box)) + _COMMA for box in boxes]


def _same_object(detections: Detections, class_id: int | None, region: Xyxy) -> NDArray[np.bool_]:
    """Return which boxes are weak views of what the witnesses claim."""
    iou = box_iou(detections.xyxy, np.array([region], np.float32))[:, 0]
    same: NDArray[np.bool_] = iou > SAME_OBJECT_IOU
    if class_id is not None:
        same &= detections.class_id == class_id
    return same


def _clip(xyxy: Xyxy, width: int, height: int) -> Xyxy:
    """Return the part inside the frame, to a hundredth of a pixel; at least one pixel at the nearest border."""
    x1, y1, x2, y2 = xyxy
    x1, y1 = min(max(x1, 0.0), width - 1.0), min(max(y1, 0.0), height - 1.0)
    x2, y2 = min(max(x2, x1 + 1.0), float(width)), min(max(y2, y1 + 1.0), float(height))
    return round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)
