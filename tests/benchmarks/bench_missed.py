"""How many true misses the findings show, on the annotated first half of `vtest.avi`.

An episode is a person without a detection (IoU >= .4) for at least 3 frames in a row. It is recalled by a finding
within 2 frames of it whose region overlaps the person (IoU >= .3). A finding is right when its region lies on a person
who is undetected in that frame. The boxes between two annotated frames are interpolated.

The data is not part of the project; without it the benchmark says so.
"""

import csv
import itertools
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from edge.config import MiningConfig
from edge.detector.detections import box_iou
from edge.detector.detector import open_detector
from edge.replay import replay

DATA = Path(__file__).parents[3] / "shared" / "data"
SETTINGS = (((256, 192), 0.4), ((320, 256), 0.3))


def read_people(path: Path) -> dict[int, dict[int, np.ndarray]]:
    """Return person by track by frame (from 0), boxes `[4]` xyxy, interpolated between annotated frames."""
    marks: dict[int, list[tuple[int, np.ndarray]]] = defaultdict(list)
    with path.open() as lines:
        for row in csv.DictReader(lines):
            x, y, w, h = (float(row[key]) for key in "xywh")
            marks[int(row["track"])].append((int(row["frame"]) - 1, np.array([x, y, x + w, y + h])))
    people: dict[int, dict[int, np.ndarray]] = defaultdict(dict)
    for track, known in marks.items():
        known.sort(key=lambda mark: mark[0])
        for (first, a), (second, b) in itertools.pairwise(known):
            for frame in range(first, second + 1):
                share = (frame - first) / (second - first)
                people[frame][track] = a + share * (b - a)
    return people


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float(box_iou(np.float32([a]), np.float32([b]))[0, 0])


def undetected(people: dict[int, dict[int, np.ndarray]], lines: list[dict], threshold: float) -> dict[int, list[int]]:
    """Return the frames by track in which nobody at or above the threshold overlaps the person."""
    missed: dict[int, list[int]] = defaultdict(list)
    for line in lines:
        seen = [box["xyxy"] for box in line["boxes"] if box["label"] == "person" and box["score"] >= threshold]
        for track, place in people.get(line["frame"], {}).items():
            if not any(iou(place, box) >= 0.4 for box in seen):
                missed[track].append(line["frame"])
    return missed


def episodes(missed: dict[int, list[int]]) -> list[tuple[int, int, int]]:
    """Return track, first and last frame of each run of at least three frames."""
    found = []
    for track, frames in missed.items():
        start = 0
        for i in range(1, len(frames) + 1):
            if i == len(frames) or frames[i] != frames[i - 1] + 1:
                if i - start >= 3:
                    found.append((track, frames[start], frames[i - 1]))
                start = i
    return found


def main() -> None:
    video, annotations = DATA / "vtest.avi", DATA / "vtest_annotations_first_half.csv"
    if not (video.is_file() and annotations.is_file()):
        print("Misses on vtest.avi: skipped, the annotated recording is not here")
        return
    people = read_people(annotations)
    print("Misses on the annotated first half of vtest.avi, starter model")
    print(
        f"{'input':>8} {'threshold':>9} {'episodes':>8} {'recall':>7} {'findings':>8} {'precision':>9} {'per 100':>8}"
    )
    for size, threshold in SETTINGS:
        detector = open_detector(input_size=size)
        with tempfile.TemporaryDirectory() as out:
            replay(video, Path(out), detector=detector, score_threshold=threshold, mining=MiningConfig())
            lines = [json.loads(line) for line in (Path(out) / "detections.jsonl").open()]
            found = [json.loads(line) for line in (Path(out) / "findings.jsonl").open()]
        last = max(people)
        missed = undetected(people, lines, threshold)
        runs = episodes(missed)
        regions = [(one["frame"], one["region"]) for one in found if one["reason"] == "missed" and one["frame"] <= last]
        recalled = sum(
            any(
                a - 2 <= frame <= b + 2 and track in people[frame] and iou(region, people[frame][track]) >= 0.3
                for frame, region in regions
            )
            for track, a, b in runs
        )
        right = sum(
            any(frame in frames and iou(region, people[frame][track]) >= 0.3 for track, frames in missed.items())
            for frame, region in regions
        )
        print(
            f"{size[0]:>4}x{size[1]} {threshold:>9} {len(runs):>8} {recalled / len(runs):>7.2f} {len(regions):>8}"
            f" {right / max(1, len(regions)):>9.2f} {100 * len(regions) / (last + 1):>8.1f}"
        )


if __name__ == "__main__":
    main()
