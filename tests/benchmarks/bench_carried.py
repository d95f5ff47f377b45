"""Where an annotator starts from, on the annotated first half of `vtest.avi`: whose box fits, and what is carried over.

*Fit*: people whom the detector reports on the whole frame (score >= .3) and sees in a second look at that place, too.
The mean IoU of either box with the annotated one; an annotated box belongs to the one that overlaps it most.

*Carried*: frames 12 to 120 apart. Boxes of people whose place nobody stands in any more (IoU < .3 with everybody) must
not be carried; rectangles around things that do not move must, where nobody's box touches them in either frame. The
later frame as it is, darker, brighter, noisier, compressed harder; the frames are JPEGs as a device makes them. Pairs
of frames are not independent: the bound counts a person's box once, whatever the number of frames it is carried to.

The data is not part of the project; without it the benchmark says so.
"""

import csv
import time
from collections import defaultdict
from collections.abc import Callable

import cv2
import numpy as np

from edge.detector.detections import box_iou
from edge.detector.detector import open_detector
from edge.zoom import Target, look
from hub.carried import unchanged
from tests.benchmarks.bench_missed import DATA

STEP, FAR = 12, 120
SIZES = ((256, 192), (320, 256))
SCORE = 0.3

# Whole pixels, xyxy, by eye: what stands still for the whole clip.
STILL = {
    "van": (652, 43, 724, 102),
    "parked car": (734, 48, 768, 94),
    "sign": (412, 202, 445, 244),
    "warning sign": (585, 41, 612, 73),
    "cone 1": (164, 186, 178, 207),
    "cone 2": (293, 185, 307, 210),
    "cone 3": (439, 176, 455, 202),
    "cone 4": (36, 172, 48, 192),
    "tripod": (458, 337, 526, 482),
    "far tripod": (434, 118, 463, 181),
    "stone": (162, 250, 194, 277),
    "windows": (326, 33, 572, 84),
    "lamp": (396, 17, 439, 103),
    "jacket": (69, 497, 159, 527),
    "cloth": (325, 450, 353, 467),
    "board": (736, 154, 763, 224),
    "stone 2": (739, 251, 767, 287),
    "stone 3": (698, 207, 717, 238),
    "bollard": (595, 126, 612, 148),
    "far board": (30, 112, 48, 140),
    "cooler": (595, 33, 627, 109),
}

Picture = np.ndarray


def read_annotated() -> tuple[dict[int, Picture], dict[int, dict[int, np.ndarray]]]:
    """Return the annotated frames by number, and people by track in each, boxes `[4]` xyxy inside the frame."""
    people: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
    with (DATA / "vtest_annotations_first_half.csv").open() as lines:
        for row in csv.DictReader(lines):
            x, y, w, h = (float(row[key]) for key in "xywh")
            box = np.clip([x, y, x + w, y + h], 0, (768, 576, 768, 576))
            people[int(row["frame"]) - 1][int(row["track"])] = box
    frames = {}
    capture = cv2.VideoCapture(str(DATA / "vtest.avi"))
    for number in range(max(people) + 1):
        _, frame = capture.read()
        if number in people:
            frames[number] = frame
    return frames, people


def as_jpeg(frame: Picture, quality: int = 90) -> Picture:
    return cv2.imdecode(cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def changed(gain: float, noise: float, quality: int = 90) -> Callable[[Picture], Picture]:
    rng = np.random.default_rng(0)

    def change(frame: Picture) -> Picture:
        return as_jpeg(np.clip(frame * gain + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8), quality)

    return change


CHANGES: dict[str, tuple[Callable[[Picture], Picture], Callable[[Picture], Picture]]] = {
    "as it is": (as_jpeg, as_jpeg),
    "JPEG quality 40": (as_jpeg, changed(1, 0, 40)),
    "a quarter brighter": (as_jpeg, changed(1.25, 0)),
    "35 % of the light, noise 3": (as_jpeg, changed(0.35, 3)),
    "20 % of the light, noise 4": (as_jpeg, changed(0.2, 4)),
    "noise 15": (as_jpeg, changed(1, 15)),
    "noise 25": (as_jpeg, changed(1, 25)),
    "both 35 % of the light, noise 3": (changed(0.35, 3), changed(0.35, 3)),
    "both noise 15": (changed(1, 15), changed(1, 15)),
}


def overlap(a, b) -> np.ndarray:
    return box_iou(np.asarray(a, np.float32).reshape(-1, 4), np.asarray(b, np.float32).reshape(-1, 4))


def touches(a, b) -> bool:
    return min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])


def grey(frame: Picture) -> Picture:
    return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)


def fit(frames, people, size) -> tuple[int, float, float, float]:
    """Return how many people have both boxes, the mean IoU of the detector's and of the zoom's, its better share."""
    detector = open_detector(None, input_size=size)
    person = detector.labels.index("person")
    pairs = []
    for number, frame in frames.items():
        seen = detector.detect(as_jpeg(frame), score_threshold=SCORE).detections
        seen = seen.take(np.flatnonzero(seen.class_id == person))
        for truth in people[number].values():
            with_truth = overlap([truth], seen.xyxy)[0]
            if not len(seen) or with_truth.max() < 0.4:
                continue
            mine = seen.xyxy[with_truth.argmax()]
            (enlarged,), _ = look(detector, [Target(frame, tuple(map(float, mine)))])
            enlarged = enlarged.take(np.flatnonzero((enlarged.class_id == person) & (enlarged.score >= SCORE)))
            close = overlap([mine], enlarged.xyxy)[0] if len(enlarged) else np.zeros(0)
            if len(enlarged) and close.max() >= 0.5:
                zoomed = enlarged.xyxy[close.argmax()]
                pairs.append((with_truth.max(), overlap([truth], [zoomed])[0, 0]))
    both = np.array(pairs)
    return len(both), *both.mean(axis=0), (both[:, 1] > both[:, 0]).mean()


def carry(frames, people, changes) -> dict[str, list[tuple[object, bool]]]:
    """Return for each box that was compared whose it is and whether it was carried, by what it is of."""
    before, now = ({n: grey(change(frame)) for n, frame in frames.items()} for change in changes)
    told: dict[str, list[tuple[object, bool]]] = {"people who left": [], "things, free": []}
    for first in frames:
        for second in range(first + STEP, first + FAR + 1, STEP):
            if second not in frames:
                continue
            here = list(people[second].values())
            around = here + list(people[first].values())
            left = {
                (first, track): box
                for track, box in people[first].items()
                if not here or overlap([box], here).max() < 0.3
            }
            still = {name: box for name, box in STILL.items() if not any(touches(box, one) for one in around)}
            for what, boxes in (("people who left", left), ("things, free", still)):
                told[what] += [
                    (whose, unchanged(before[first], now[second], tuple(map(float, box))) is not None)
                    for whose, box in boxes.items()
                ]
    return told


def main() -> None:
    if not (DATA / "vtest.avi").exists():
        print(f"no vtest.avi in {DATA}")
        return
    frames, people = read_annotated()
    for size in SIZES:
        count, detector, zoom, better = fit(frames, people, size)
        print(
            f"{size[0]}x{size[1]}: {count} people with both boxes; mean IoU with the annotated box:"
            f" detector {detector:.3f}, second look {zoom:.3f}; the second look's fits better for {better:.0%}"
        )
    for name, changes in CHANGES.items():
        began = time.process_time()
        told = carry(frames, people, changes)
        each = (time.process_time() - began) / sum(len(boxes) for boxes in told.values())
        print(f"{name}: {each * 1000:.1f} ms of the processor a box, changing the frames included")
        for what, boxes in told.items():
            carried = sum(yes for _, yes in boxes)
            ever, whose = len({one for one, yes in boxes if yes}), len({one for one, _ in boxes})
            most = f", at most {3 / whose:.1%} of boxes with 95 % confidence" if not ever else ""
            print(f"  {what}: carried {carried} of {len(boxes)}, {ever} of {whose} boxes at least once{most}")


if __name__ == "__main__":
    main()
