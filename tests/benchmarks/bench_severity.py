"""Whether severity is a probability: the witnesses of findings against the truth, fitted weights, reliability.

The findings come from the annotated first half of `vtest.avi` (at three settings, with and without the second look) and
from clips made of every second image of coco128: a slow pan with sensor noise, its 80 classes. A finding is right when
its region lies (IoU >= .3) on an object that is undetected (IoU < .4) in that frame. The recording's cars and its far
walker are not annotated and left out.

The built-in weight `refuted` is not the fitted one: people who are really hidden are annotated, so that the fit trusts
the second look less than an annotator would, who must see what is claimed.

The printed weights are fitted on all of it. The reliability table is of severities that were predicted for parts that
their weights were not fitted on (five folds of clips and of stretches of the recording).

The data is not part of the project; without it the benchmark says so.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.config import MiningConfig
from edge.contract.policy import BUILT_IN, Weights
from edge.contract.samples import Reason
from edge.detector.detections import box_iou
from edge.detector.detector import Detector, open_detector
from edge.detector.pictures import read_picture
from edge.frame import Frame
from edge.observation import Mined
from edge.pipeline import Pipeline
from tests.benchmarks.bench_missed import DATA, read_people

KINDS = ("gap", "candidate", "motion", "zoom")
VTEST_SETTINGS = (((256, 192), 0.4), ((320, 256), 0.3), ((320, 256), 0.4))
VEHICLES = (2, 5, 7)
COCO_SETTINGS = (((256, 192), 0.4), ((320, 256), 0.3))
PAN_FRAMES = 16
PAN_PX = 2
FOLDS = 5
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 1.001)


@dataclass(frozen=True)
class Case:
    """One finding: its witnesses' scores, whether the second look refuted it, whether it was right."""

    scores: tuple[float, ...]
    right: bool
    part: int


def as_case(mined: Mined, *, right: bool, part: int) -> Case:
    """Read the witnesses."""
    scores = dict.fromkeys(KINDS, 0.0)
    for witness in mined.witnesses:
        scores[witness.kind] = witness.score
    return Case((*scores.values(), float(mined.refuted)), right, part)


def mine(detector: Detector, frames: Iterator[np.ndarray], *, threshold: float, budget: float):
    """Yield every finding of `missed`, however unlikely, with the detections of its frame."""
    mining = MiningConfig(control_per_hour=0, min_severity=0, zoom_budget=budget)
    pipeline = Pipeline(detector=detector, score_threshold=threshold, mining=mining, seed=0)
    mined = []
    for index, image in enumerate(frames):
        mined += pipeline.step(Frame(image, "clip", index, 1_700_000_000_000 + 100 * index, index / 10)).mined
    mined += pipeline.finish()
    return [one for one in mined if one.reason is Reason.MISSED]


def is_right(mined: Mined, objects: np.ndarray, classes: np.ndarray | None, threshold: float) -> bool:
    """Whether the region lies on one of the objects `[n, 4]` that no detection (of its class, where given) covers."""
    if not len(objects):
        return False
    detections = mined.at.detections
    strong = detections.take(detections.score >= threshold)
    covering = box_iou(objects, strong.xyxy) >= 0.4
    if classes is not None:
        covering &= classes[:, None] == strong.class_id[None, :]
    on = box_iou(objects, np.float32([mined.region]))[:, 0] >= 0.3
    if classes is not None:
        on &= classes == mined.class_id
    return bool((on & ~covering.any(axis=1)).any())


def street_cases() -> Iterator[Case]:
    """From the recording."""
    people = read_people(DATA / "vtest_annotations_first_half.csv")
    images = list(read_frames(DATA / "vtest.avi", max(people) + 1))
    for size, threshold in VTEST_SETTINGS:
        detector = open_detector(input_size=size)
        for budget in (0.0, 0.1):
            for one in mine(detector, iter(images), threshold=threshold, budget=budget):
                index = one.at.frame.sequence
                _, y1, _, y2 = one.region
                if one.class_id in VEHICLES or (y2 - y1 < 50 and y2 < 150):
                    continue
                objects = np.float32(list(people[index].values()))
                right = is_right(one, objects, None, threshold)
                yield as_case(one, right=right, part=index * FOLDS // len(images))


def coco_cases() -> Iterator[Case]:
    """From pans over the images."""
    paths = sorted((DATA / "coco128" / "images").glob("*.jpg"))[::2]
    for size, threshold in COCO_SETTINGS:
        detector = open_detector(input_size=size)
        for number, path in enumerate(paths):
            image = read_picture(path)
            height, width = image.shape[:2]
            classes, boxes = read_labels(path, width, height)
            pan = PAN_FRAMES * PAN_PX
            for one in mine(detector, pan_over(image, seed=number), threshold=threshold, budget=0.25):
                offset = one.at.frame.sequence * PAN_PX
                shifted = boxes - np.float32([offset, 0, offset, 0])
                shifted[:, 0::2] = shifted[:, 0::2].clip(0, width - pan)
                yield as_case(one, right=is_right(one, shifted, classes, threshold), part=number % FOLDS)


def pan_over(image: np.ndarray, *, seed: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    width = image.shape[1] - PAN_FRAMES * PAN_PX
    for index in range(PAN_FRAMES):
        part = image[:, index * PAN_PX : index * PAN_PX + width].astype(np.float32)
        yield (part + random.normal(0, 2, part.shape)).clip(0, 255).astype(np.uint8)


def read_labels(path: Path, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    file = path.parents[1] / "labels" / f"{path.stem}.txt"
    rows = [line.split() for line in file.read_text().splitlines()] if file.is_file() else []
    boxes = np.array([[float(value) for value in row[1:5]] for row in rows], np.float32).reshape(-1, 4)
    x, y, w, h = (boxes * np.float32([width, height, width, height])).T
    return np.array([int(row[0]) for row in rows]), np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=1)


def read_frames(path: Path, count: int) -> Iterator[np.ndarray]:
    capture = cv2.VideoCapture(str(path))
    for _ in range(count):
        done, image = capture.read()
        if not done:
            return
        yield image


def fit(cases: list[Case]) -> np.ndarray:
    """Return bias and weights by iteratively reweighted least squares, held a little towards 0 (ridge 1)."""
    x = np.array([(1.0, *case.scores) for case in cases])
    y = np.array([case.right for case in cases], np.float64)
    w = np.zeros(x.shape[1])
    ridge = np.diag([0.0, *[1.0] * (x.shape[1] - 1)])
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ w))
        gradient = x.T @ (y - p) - ridge @ w
        hessian = (x * (p * (1 - p))[:, None]).T @ x + ridge
        w = w + np.linalg.solve(hessian, gradient)
    return w


def predict(w: np.ndarray, cases: list[Case]) -> np.ndarray:
    return 1 / (1 + np.exp(-np.array([(1.0, *case.scores) for case in cases]) @ w))


def print_reliability(title: str, predicted: np.ndarray, right: np.ndarray) -> None:
    print(title)
    print(f"{'severity':>12} {'findings':>9} {'predicted':>10} {'true':>6}")
    error = 0.0
    for low, high in itertools.pairwise(BINS):
        inside = (predicted >= low) & (predicted < high)
        if not inside.any():
            continue
        mean, true = predicted[inside].mean(), right[inside].mean()
        error += inside.mean() * abs(mean - true)
        print(f"{low:>6.2f}-{min(high, 1):.2f} {inside.sum():>9} {mean:>10.2f} {true:>6.2f} {'#' * round(40 * true)}")
    brier = float(((predicted - right) ** 2).mean())
    print(f"expected calibration error {error:.3f}, Brier score {brier:.3f}, of {len(right)} findings")


def main() -> None:
    if not (DATA / "vtest.avi").is_file() or not (DATA / "coco128").is_dir():
        print("Severity: skipped, the annotated recordings are not here")
        return
    sources = {"vtest.avi": list(street_cases()), "coco128 pans": list(coco_cases())}
    cases = [case for some in sources.values() for case in some]
    w = fit(cases)
    fitted = Weights(**{key: round(float(v), 2) for key, v in zip(("bias", *KINDS, "refuted"), w, strict=True)})
    print(f"fitted   {fitted}\nbuilt in {BUILT_IN}")
    held_out = np.zeros(len(cases))
    for part in range(FOLDS):
        rest = [case for case in cases if case.part != part]
        chosen = [i for i, case in enumerate(cases) if case.part == part]
        held_out[chosen] = predict(fit(rest), [cases[i] for i in chosen])
    right = np.array([case.right for case in cases], np.float64)
    print_reliability("Held out, both sources", held_out, right)
    built_in = np.array([getattr(BUILT_IN, key) for key in ("bias", *KINDS, "refuted")])
    for name, some in sources.items():
        print_reliability(
            f"Built-in weights, {name}", predict(built_in, some), np.array([case.right for case in some], np.float64)
        )


if __name__ == "__main__":
    main()
