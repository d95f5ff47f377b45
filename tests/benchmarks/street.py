"""Dataset versions of the street recording and of COCO pictures, for the benchmarks of training.

The annotated frames of the first half of `vtest.avi`: the first two thirds to train on, the rest to test on; what lies
within 3 s before the first test frame is in neither. `coco128`: every second picture for replay, the others to test on.
"""

import collections
import csv
import hashlib
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from edge.contract.card import read_card
from edge.detector.opening import CARD_NAME, find_starter
from hub.datasets.version import Member, MemberBox, Split, Version, make_version, write_version

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CAMERA = "town/box/street"
FPS = 10.0
APART = 30  # frames: 3 s
LABELS = read_card(find_starter() / CARD_NAME).labels


@cache
def frames() -> list[np.ndarray]:
    """The frames of the first half, BGR."""
    video = cv2.VideoCapture(str(DATA / "vtest.avi"))
    found = [video.read()[1] for _ in range(397)]
    assert all(frame is not None for frame in found)
    return found


@cache
def people() -> dict[int, list[tuple[float, float, float, float]]]:
    """The boxes of the people on each annotated frame, by its number from 0."""
    marks = collections.defaultdict(list)
    with (DATA / "vtest_annotations_first_half.csv").open() as file:
        for row in csv.DictReader(file):
            x, y, w, h = (float(row[key]) for key in "xywh")
            box = (max(x, 0.0), max(y, 0.0), min(x + w, 768.0), min(y + h, 576.0))
            marks[int(row["frame"]) - 1].append(box)
    return dict(marks)


def split() -> tuple[list[int], list[int]]:
    """Return the numbers of the annotated frames to train on and to test on."""
    annotated = sorted(people())
    test = annotated[int(len(annotated) * 2 / 3) :]
    return [number for number in annotated if number < test[0] - APART], test


class Pictures:
    """Members and the bytes of their pictures, gathered for one version."""

    def __init__(self) -> None:
        self.members: list[Member] = []
        self._jpeg: dict[str, bytes] = {}

    def add(self, name: str, jpeg: bytes, *, split: Split, boxes: Iterable[MemberBox] = (), **more: object) -> None:
        height, width = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
        sha256 = hashlib.sha256(jpeg).hexdigest()
        known = {"name": name, "sha256": sha256, "width": width, "height": height, "split": split}
        self.members.append(Member(**known, boxes=tuple(boxes), **more))
        self._jpeg[name] = jpeg

    def add_frame(self, number: int, *, split: Split, labelled: bool = True) -> None:
        """Add a frame of the recording, with the people on it, or without any label."""
        jpeg = cv2.imencode(".jpg", frames()[number], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
        known = {"camera": CAMERA, "captured_at_ms": 1_700_000_000_000 + round(number * 1000 / FPS)}
        if labelled:
            boxes = [MemberBox(xyxy=box, label="person", origin="person") for box in people()[number]]
            known |= {"labels": ("person",), "by": "person", "weak_spots": (1,), "boxes": boxes}
        self.add(f"street-{number:04d}", jpeg, split=split, **known)

    def add_coco(self, *, replay: bool, split: Split, labelled: bool = False) -> None:
        """Add every second picture of coco128: those for replay, or the others; all classes are labelled, or none."""
        names = (DATA / "coco128" / "names.txt").read_text().split("\n")
        for path in sorted((DATA / "coco128" / "images").glob("**/*.jpg"))[int(replay) :: 2]:
            jpeg = path.read_bytes()
            height, width = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[:2]
            text = Path(str(path).replace("images", "labels")).with_suffix(".txt")
            boxes = []
            for line in text.read_text().split("\n") if labelled and text.exists() else ():
                if line.strip():
                    number, x, y, w, h = map(float, line.split())
                    xyxy = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
                    boxes.append(MemberBox(xyxy=xyxy, label=names[int(number)], origin="person"))
            known = {"labels": LABELS, "by": "person", "boxes": boxes} if labelled else {}
            self.add(f"coco-{path.stem}", jpeg, split=split, **known)

    def write(self, folder: Path, **recipe: str | float | bool) -> Version:
        version = make_version(self.members, labels=LABELS, recipe=recipe, created_at_ms=0)
        write_version(version, folder, jpeg_of=self.jpeg_of)
        return version

    @property
    def jpeg_of(self) -> Callable[[Member], bytes]:
        return lambda member: self._jpeg[member.name]


def street_to_test(folder: Path) -> Version:
    """Write the street's test frames as a version."""
    pictures = Pictures()
    for number in split()[1]:
        pictures.add_frame(number, split="test")
    return pictures.write(folder, of="street, test")


def coco_to_test(folder: Path) -> Version:
    """Write the COCO pictures to test on as a version."""
    pictures = Pictures()
    pictures.add_coco(replay=False, split="test", labelled=True)
    return pictures.write(folder, of="coco128, test")
