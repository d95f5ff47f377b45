"""How many true misses the findings show, on the annotated first half of `vtest.avi`, and what the second look costs.

An episode is a person without a detection (IoU >= .4) for at least 3 frames in a row. It is recalled by a finding
within 2 frames of it whose region overlaps the person (IoU >= .3). A finding is right when its region lies on a person
who is undetected in that frame. The boxes between two annotated frames are interpolated.

Beside the findings, at the same number of uploads: *low confidence only*, the frames with the boxes nearest to the
threshold, each with that box for a region; and *random*, frames drawn at random, each with a box of it drawn at random.

Live recall counts the people of every frame whom a published detection covers (IoU >= .4), and of the annotated frames
alone, where nothing is interpolated. The second look's time is a share of the detector's in the same run.

The data is not part of the project; without it the benchmark says so.
"""

import csv
import itertools
import json
import random
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np

from edge.config import MiningConfig
from edge.detector.detections import box_iou
from edge.detector.detector import Detector, open_detector
from edge.replay import ReplayReport, replay

DATA = Path(__file__).parents[3] / "shared" / "data"
SETTINGS = (((256, 192), 0.4), ((320, 256), 0.3))
MERGE_BUDGET = 0.13
STEP = 12

Episode = tuple[int, int, int]
Place = tuple[int, list[float]]


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


def persons(line: dict, threshold: float) -> list[list[float]]:
    return [box["xyxy"] for box in line["boxes"] if box["label"] == "person" and box["score"] >= threshold]


def undetected(people: dict[int, dict[int, np.ndarray]], lines: list[dict], threshold: float) -> dict[int, list[int]]:
    """Return the frames by track in which nobody at or above the threshold overlaps the person."""
    missed: dict[int, list[int]] = defaultdict(list)
    for line in lines:
        seen = persons(line, threshold)
        for track, place in people.get(line["frame"], {}).items():
            if not any(iou(place, box) >= 0.4 for box in seen):
                missed[track].append(line["frame"])
    return missed


def episodes(missed: dict[int, list[int]]) -> list[Episode]:
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


def near_threshold(lines: list[dict], threshold: float, count: int) -> list[Place]:
    """Return the frames whose least sure box is nearest to the threshold, from above or below, with that box."""
    unsure = []
    for line in lines:
        if line["boxes"]:
            box = min(line["boxes"], key=lambda box: abs(box["score"] - threshold))
            unsure.append((abs(box["score"] - threshold), line["frame"], box["xyxy"]))
    return [(frame, xyxy) for _, frame, xyxy in sorted(unsure)[:count]]


def at_random(lines: list[dict], count: int) -> list[Place]:
    drawn = random.Random(0).sample([line for line in lines if line["boxes"]], min(count, len(lines)))
    return [(line["frame"], random.Random(line["frame"]).choice(line["boxes"])["xyxy"]) for line in drawn]


def score(picks: list[Place], people: dict, runs: list[Episode], missed: dict[int, list[int]]) -> tuple[float, float]:
    """Return the share of episodes that are recalled and the share of picks that are right."""
    recalled = sum(
        any(
            a - 2 <= frame <= b + 2 and track in people[frame] and iou(region, people[frame][track]) >= 0.3
            for frame, region in picks
        )
        for track, a, b in runs
    )
    right = sum(
        any(frame in frames and iou(region, people[frame][track]) >= 0.3 for track, frames in missed.items())
        for frame, region in picks
    )
    return recalled / len(runs), right / max(1, len(picks))


def live_recall(people: dict, lines: list[dict], threshold: float, *, step: int) -> tuple[float, float]:
    """Return the share of people covered by a detection, and of detections of people that cover one."""
    covered = total = right = claimed = 0
    for line in lines[: max(people) + 1 : step]:
        here = np.float32(list(people[line["frame"]].values())).reshape(-1, 4)
        seen = np.float32(persons(line, threshold)).reshape(-1, 4)
        overlap = box_iou(here, seen) >= 0.4
        total, claimed = total + len(here), claimed + len(seen)
        covered, right = covered + overlap.any(axis=1).sum(), right + overlap.any(axis=0).sum()
    return covered / total, right / max(1, claimed)


def run(video: Path, detector: Detector, threshold: float, mining: MiningConfig):
    with tempfile.TemporaryDirectory() as out:
        report = replay(video, Path(out), detector=detector, score_threshold=threshold, mining=mining)
        lines = [json.loads(line) for line in (Path(out) / "detections.jsonl").open()]
        found = [json.loads(line) for line in (Path(out) / "findings.jsonl").open()]
    return report, lines, found


def extra_time(report: ReplayReport) -> float:
    """Return the second looks' time as a share of the detector's."""
    spent = {stage: sum(ms) for stage, ms in report.stage_ms.items()}
    return spent["looks"] / (spent["letterbox"] + spent["infer"] + spent["head"])


def main() -> None:
    video, annotations = DATA / "vtest.avi", DATA / "vtest_annotations_first_half.csv"
    if not (video.is_file() and annotations.is_file()):
        print("Misses on vtest.avi: skipped, the annotated recording is not here")
        return
    people = read_people(annotations)
    last = max(people)
    print("Misses on the annotated first half of vtest.avi, starter model")
    columns = f"{'uploads':>7} {'recall':>7} {'right':>6} {'per 100':>8} {'looks':>6}"
    print(f"{'input':>8} {'at':>4} {'picked by':<22} {columns}")
    live: list[tuple] = []
    for size, threshold in SETTINGS:
        detector = open_detector(input_size=size)
        for budget in (0.1, 0.0):
            report, lines, found = run(video, detector, threshold, MiningConfig(zoom_budget=budget))
            lines = lines[: last + 1]
            missed = undetected(people, lines, threshold)
            runs = episodes(missed)
            picks = [(f["frame"], f["region"]) for f in found if f["reason"] == "missed" and f["frame"] <= last]
            kinds = {f"missed, zoom {budget:.0%}": picks}
            if budget:
                kinds["low confidence only"] = near_threshold(lines, threshold, len(picks))
                kinds["random"] = at_random(lines, len(picks))
                live.append((size, threshold, "detector alone", lines, 0.0))
            for name, some in kinds.items():
                recalled, right = score(some, people, runs, missed)
                looks = f"{extra_time(report):6.1%}" if some is picks else ""
                print(
                    f"{size[0]:>4}x{size[1]} {threshold:>4} {name:<22} {len(some):>7} {recalled:>7.2f} {right:>6.2f}"
                    f" {100 * len(some) / (last + 1):>8.1f} {looks:>6}"
                )
        print(f"{'':13} {len(runs)} episodes")
        mining = MiningConfig(zoom_budget=MERGE_BUDGET, merge=True)
        report, lines, _ = run(video, detector, threshold, mining)
        live.append((size, threshold, f"merge, zoom {MERGE_BUDGET:.0%}", lines, extra_time(report)))
    print("\nLive recall, with the precision of the published boxes in brackets")
    print(f"{'input':>8} {'at':>4} {'published':<18} {'every frame':>12} {'annotated frames':>17} {'more time':>10}")
    for size, threshold, name, lines, extra in live:
        cells = ["{:.2f} ({:.2f})".format(*live_recall(people, lines, threshold, step=step)) for step in (1, STEP)]
        print(f"{size[0]:>4}x{size[1]} {threshold:>4} {name:<18} {cells[0]:>12} {cells[1]:>17} {extra:>10.1%}")


if __name__ == "__main__":
    main()
