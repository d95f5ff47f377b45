"""Dataset versions of a few frames of the bundled street clip: quick to train on at a tiny input."""

import hashlib
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from edge.detector.detector import open_detector
from hub.datasets.version import Member, MemberBox, Split, Version, make_version, write_version

CLIP = Path(__file__).resolve().parents[3] / "deploy" / "demo" / "street.mp4"
NUMBERS = (0, 20, 40, 60, 150, 160, 280, 300)
SPLITS: tuple[Split, ...] = ("train", "train", "train", "train", "val", "val", "test", "test")


@cache
def jpegs() -> dict[int, bytes]:
    video = cv2.VideoCapture(str(CLIP))
    found = {}
    for number in range(max(NUMBERS) + 1):
        taken, frame = video.read()
        assert taken
        if number in NUMBERS:
            small = cv2.resize(frame, (384, 288), interpolation=cv2.INTER_AREA)
            found[number] = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    return found


@cache
def people() -> dict[int, tuple[tuple[float, float, float, float], ...]]:
    """What the starter sees at 384 wide stands in for people's boxes."""
    detector = open_detector(None, runtime="onnxruntime", input_size=(384, 288), threads=1)
    found = {}
    for number, jpeg in jpegs().items():
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        seen = detector.detect(image, score_threshold=0.35).detections
        found[number] = tuple(tuple(map(float, box)) for box in seen.xyxy[seen.class_id == 0])
    return found


def street_version(folder: Path, *, label: str = "person", boxes: bool = True, splits=SPLITS, **recipe) -> Version:
    """Write a version: four frames to train on, two to validate, two to test, unless `splits` says otherwise."""
    members = []
    for number, split in zip(NUMBERS, splits, strict=True):
        if split is None:
            continue
        told = [MemberBox(xyxy=box, label=label, origin="person") for box in people()[number]] if boxes else []
        members.append(
            Member(
                name=f"street-{number:03d}",
                sha256=hashlib.sha256(jpegs()[number]).hexdigest(),
                width=384,
                height=288,
                split=split,
                labels=(label,),
                boxes=tuple(told),
                by="person",
                camera="town/box/street",
                captured_at_ms=1_700_000_000_000 + number * 100,
            )
        )
    version = make_version(members, labels=(label,), recipe=recipe, created_at_ms=0)
    write_version(version, folder, jpeg_of=lambda member: jpegs()[int(member.name[-3:])])
    return version
