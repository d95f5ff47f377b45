"""What the witness `motion` tells of the people whom the detector misses, and what it costs.

On the annotated first half of `vtest.avi`: of the people without a detection (IoU < .4) in a frame, the share that has
a blob (IoU >= .3); of the blobs, the share that lies on such a person. People who enter at the border are not annotated
before they are whole: a blob there counts as wrong. The time is one thread's own, beside whatever else runs.

The data is not part of the project; without it the benchmark says so.
"""

import statistics
import time
from pathlib import Path

import cv2
import numpy as np

from edge.detector.detections import box_iou
from edge.detector.detector import open_detector
from edge.motion import MotionWitness
from tests.benchmarks.bench_missed import DATA, SETTINGS, read_people

SURE_MARGIN = 0.1
SCORES = (0.3, 0.5, 0.7)


def read_frames(path: Path, count: int) -> list[np.ndarray]:
    video, frames = cv2.VideoCapture(str(path)), []
    while len(frames) < count:
        read, image = video.read()
        if not read:
            break
        frames.append(image)
    return frames


def main() -> None:
    video, annotations = DATA / "vtest.avi", DATA / "vtest_annotations_first_half.csv"
    if not (video.is_file() and annotations.is_file()):
        print("Motion on vtest.avi: skipped, the annotated recording is not here")
        return
    people = read_people(annotations)
    frames = read_frames(video, max(people) + 1)
    print("Motion on the annotated first half of vtest.avi, starter model")
    print(f"{'input':>8} {'threshold':>9} {'score':>6} {'missed':>7} {'told':>6} {'blobs':>6} {'right':>6} {'ms':>6}")
    for size, threshold in SETTINGS:
        detector, witness = open_detector(input_size=size), MotionWitness()
        everything = [detector.detect(image, score_threshold=threshold).detections for image in frames]
        times_ms, missed = [], 0
        told, blobs, right = (dict.fromkeys(SCORES, 0) for _ in range(3))
        for i, (image, found) in enumerate(zip(frames, everything, strict=True)):
            sure = found.xyxy[found.score >= threshold + SURE_MARGIN]
            start = time.thread_time()
            seen = witness.update(image, found.xyxy, sure, time_s=i / 10)
            times_ms.append((time.thread_time() - start) * 1e3)
            is_person = np.array([detector.labels[c] == "person" for c in found.class_id], bool)
            there = np.float32(list(people.get(i, {}).values())).reshape(-1, 4)
            lost = there[box_iou(there, found.xyxy[is_person]).max(axis=1, initial=0) < 0.4]
            missed += len(lost)
            for score in SCORES:
                places = np.float32([blob.xyxy for blob in seen if blob.score >= score]).reshape(-1, 4)
                match = box_iou(lost, places) >= 0.3
                told[score] += int(match.any(axis=1).sum())
                right[score] += int(match.any(axis=0).sum())
                blobs[score] += len(places)
        for score in SCORES:
            print(
                f"{size[0]:>4}x{size[1]} {threshold:>9} {score:>6} {missed:>7} {told[score] / missed:>6.2f}"
                f" {blobs[score]:>6} {right[score] / max(1, blobs[score]):>6.2f} {statistics.median(times_ms):>6.2f}"
            )


if __name__ == "__main__":
    main()
