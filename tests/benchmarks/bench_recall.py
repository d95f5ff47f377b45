"""Recall without ground truth: the interval's coverage, and the estimate against the truth on `vtest.avi`.

Every 12th frame of the annotated first half is taken for a control frame. A person is found when a detection overlaps
the annotation (IoU >= .4), one to one. The estimate sees no annotation; it counts people only, as they do. Control
frames of a camera in use are minutes apart; here the same people walk on from one to the next, so that there are fewer
independent objects than the interval takes for granted.

The recording is not part of the project; without it the benchmark says so.
"""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edge.contract.samples import Xyxy
from edge.contract.status import RecallCounts
from edge.detector.detections import Detections, box_iou
from edge.detector.detector import Detector, open_detector
from edge.detector.tiling import tiles
from edge.recall import RecallTally
from hub.recall import MIN_SECOND_LOOK, Estimate, estimate
from tests.benchmarks.bench_missed import DATA, SETTINGS, read_people

EVERY = 12
OBJECTS = (10, 20, 50, 100, 500)
RECALLS = (0.1, 0.3, 0.6, 0.8, 0.9, 0.95, 0.98)
SECOND_RECALLS = (0.5, 0.7, 0.9)
PERSON = 0


def two_looks(
    objects: int, first: float, second: float, *, runs: int, rng: np.random.Generator, hidden: float = 0.0
) -> Iterator[RecallCounts]:
    """Yield the counts of looks that find each object that is not hidden from both, independently of each other."""
    seen = rng.random((runs, objects)) >= hidden
    n1 = seen & (rng.random((runs, objects)) < first)
    n2 = seen & (rng.random((runs, objects)) < second)
    for counts in zip(n1.sum(axis=1), n2.sum(axis=1), (n1 & n2).sum(axis=1), strict=True):
        detector, second_look, both = map(int, counts)
        yield RecallCounts(frames=1, detector=detector, second_look=second_look, both=both)


def coverage(several: Iterator[RecallCounts], truth: float) -> tuple[float, float, float]:
    """Return the share of runs with an estimate; of these the share whose interval has the truth; the mean error."""
    made: list[Estimate | None] = [estimate(counts) for counts in several]
    shown = [one for one in made if one is not None]
    if not shown:
        return 0.0, float("nan"), float("nan")
    inside = sum(one.low <= truth <= one.high for one in shown)
    return len(shown) / len(made), inside / len(shown), float(np.mean([one.recall for one in shown])) - truth


def print_coverage() -> None:
    rng = np.random.default_rng(20)
    print(
        f"Independent looks: the 95 % interval, {len(RECALLS) * len(SECOND_RECALLS)} pairs of recalls a line, 2000 runs"
    )
    print(f"{'objects':>8} {'enough':>7} {'coverage':>9} {'at worst':>9} {'error at worst':>15}")
    for objects in OBJECTS:
        rows = [
            coverage(two_looks(objects, first, second, runs=2000, rng=rng), first)
            for first in RECALLS
            for second in SECOND_RECALLS
        ]
        rows = [row for row in rows if row[0] > 0]
        if not rows:
            print(f"{objects:>8}    none: fewer than {MIN_SECOND_LOOK} in the second look")
            continue
        enough, held, error = np.array(rows).T
        worst = error[abs(error).argmax()]
        print(f"{objects:>8} {enough.mean():>7.2f} {held.mean():>9.3f} {held.min():>9.3f} {worst:>+15.3f}")
    print("With a share of the objects hidden from both looks, recall .6 of all:")
    for hidden in (0.1, 0.2, 0.3):
        _, _, error = coverage(two_looks(500, 0.6 / (1 - hidden), 0.8, runs=500, rng=rng, hidden=hidden), 0.6)
        print(f"{hidden:>8.0%} hidden: the estimate is {error:+.3f} off")


def control_frames(video: Path, last: int) -> Iterator[tuple[int, np.ndarray]]:
    capture = cv2.VideoCapture(str(video))
    for number in range(last + 1):
        read, image = capture.read()
        if not read:
            return
        if number % EVERY == 0:
            yield number, image
    capture.release()


def people_in(detector: Detector, image: np.ndarray, tile: Xyxy) -> Detections:
    """Return the people in a tile, in pixels of the image."""
    x1, y1, x2, y2 = map(int, tile)
    found = detector.detect(image[y1:y2, x1:x2]).detections
    found = found.take(found.class_id == PERSON)
    return Detections(found.xyxy + np.float32([x1, y1, x1, y1]), found.score, found.class_id)


def matched(boxes: np.ndarray, people: np.ndarray) -> int:
    """Return how many people are found, one box a person."""
    iou = box_iou(boxes, people)
    found = 0
    while iou.size and iou.max() >= 0.4:
        box, person = divmod(int(iou.argmax()), iou.shape[1])
        iou[box], iou[:, person] = 0, 0
        found += 1
    return found


def print_recording(video: Path, annotations: Path) -> None:
    people = read_people(annotations)
    print("First half of vtest.avi, every 12th frame, starter model, people")
    print(f"{'input':>8} {'threshold':>9} {'true':>12} {'estimate':>18} {'frames':>7} {'n1':>4} {'n2':>4} {'m':>4}")
    for size, threshold in SETTINGS:
        detector = open_detector(input_size=size)
        tally = RecallTally(score_threshold=threshold)
        found = total = 0
        for number, image in control_frames(video, max(people)):
            height, width = image.shape[:2]
            first = people_in(detector, image, (0.0, 0.0, float(width), float(height)))
            grid = tiles((width, height), input_size=size)
            tally.add(first, [(tile, people_in(detector, image, tile)) for tile in grid])
            truth = np.array(list(people[number].values()), np.float32).reshape(-1, 4)
            found += matched(first.xyxy[first.score >= threshold], truth)
            total += len(truth)
        counts = tally.counts
        made = estimate(counts)
        said = "too few" if made is None else f"{made.recall:.2f} ({made.low:.2f}-{made.high:.2f})"
        true = f"{found / total:.2f} of {total}"
        print(
            f"{size[0]:>4}x{size[1]} {threshold:>9} {true:>12} {said:>18} {counts.frames:>7} {counts.detector:>4}"
            f" {counts.second_look:>4} {counts.both:>4}"
        )


def main() -> None:
    print_coverage()
    video, annotations = DATA / "vtest.avi", DATA / "vtest_annotations_first_half.csv"
    if not (video.is_file() and annotations.is_file()):
        print("The estimate on vtest.avi: skipped, the annotated recording is not here")
        return
    print_recording(video, annotations)


if __name__ == "__main__":
    main()
