"""Is a model usable here? Open it on every installed runtime, time it, and hold the runtimes' boxes together.

The picture is made, so that the check needs nothing but the model; the comparison therefore takes the best boxes at
any score. Agreement on real pictures is a matter for tests.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge.contract.errors import UnusableError
from edge.detector.detections import Detections, box_iou
from edge.detector.detector import Detector, open_detector
from edge.detector.letterbox import Letterbox, Size
from edge.detector.opening import read_model
from edge.detector.runtimes import installed_runtimes
from edge.detector.tuned import TUNED_NAME, read_tuned, why_not
from edge.frame import Image

_LEAST_RUNS, _MOST_RUNS, _MOST_SECONDS = 5, 50, 2.0
_LOWEST_SCORE = 0.001
_COMPARED = 100
_SCORE_TOLERANCE = 0.01
_IOU_AT_LEAST = 0.98
_AGREEING_SHARE = 0.98  # two boxes of nearly the same score may change places


@dataclass(frozen=True, slots=True)
class RuntimeReport:
    """One runtime: how long a bare inference takes at the median, or why it cannot run the model."""

    name: str
    version: str = ""
    device: str = ""
    infer_ms: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What is known of a usable model.

    Attributes:
        release: the card's, or one made from the file's name and sha256.
        head: which head decodes it.
        carded: whether a `model.json` describes it; else all this was read from the graph.
        input_size: (width, height).
        labels: the classes.
        features: how long the feature vector is, 0 without.
        runtimes: one report for each installed runtime.
        agreement: the share of the best boxes that two runtimes both find; None with one runtime.
        tuned: the way that `edge tune` chose for it here, or why that is not followed; "" where it was not tuned.
    """

    file: str
    release: str
    head: str
    carded: bool
    input_size: Size
    labels: tuple[str, ...]
    features: int
    runtimes: tuple[RuntimeReport, ...]
    agreement: float | None
    tuned: str = ""

    @property
    def agrees(self) -> bool:
        """Whether no two runtimes contradict each other."""
        return self.agreement is None or self.agreement >= _AGREEING_SHARE


def check_model(model: Path | None, *, input_size: Size | None = None, threads: int | None = None) -> ModelReport:
    """Open and time a model on every installed runtime. Raises `UnusableError` when none can run it."""
    reports: list[RuntimeReport] = []
    found: list[Detections] = []
    detector: Detector | None = None
    features = 0
    for name in installed_runtimes():
        try:
            opened = open_detector(model, runtime=name, input_size=input_size, threads=threads)
            inference = opened.detect(made_picture(), score_threshold=_LOWEST_SCORE)
        except UnusableError as error:
            reports.append(RuntimeReport(name, error=str(error)))
            continue
        detector, features = opened, len(inference.features)
        found.append(inference.detections)
        running = opened.runtime
        reports.append(RuntimeReport(name, running.version, running.device, _infer_ms(opened)))
    if detector is None:
        raise UnusableError(
            reports[0].error if reports else 'no runtime is installed; run: pip install "weakspot[openvino]"'
        )
    return ModelReport(
        file=detector.card.file,
        release=detector.card.release,
        head=detector.head_name,
        carded=read_model(model).card is not None,
        input_size=detector.input_size,
        labels=detector.labels,
        features=features,
        runtimes=tuple(reports),
        agreement=agreement(found[0], found[1]) if len(found) > 1 else None,
        tuned=_tuned(model, detector.input_size),
    )


def agreement(first: Detections, second: Detections) -> float:
    """Return the share of the best boxes of each that the other has too: same class, same place, same score."""
    return min(_share(first, second), _share(second, first))


def made_picture() -> Image:
    """Return a 640x480 picture with edges, blobs and texture, always the same."""
    noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    picture = cv2.resize(noise, (640, 480), interpolation=cv2.INTER_CUBIC)
    for index in range(6):
        left, top = 20 + 100 * index, 40 + 50 * index
        shade = (40 * index, 250 - 40 * index, 128)
        cv2.rectangle(picture, (left, top), (left + 60, top + 120), shade, cv2.FILLED)
        cv2.circle(picture, (600 - left, top + 60), 30, shade[::-1], cv2.FILLED)
    return np.asarray(picture, np.uint8)


def _tuned(model: Path | None, size: Size) -> str:
    found = read_model(model)
    try:
        tuned = read_tuned(found.path.parent / TUNED_NAME)
        reason = "" if tuned is None else why_not(tuned, model=found, size=size)
    except UnusableError as error:
        return f"not followed: {error}"
    if tuned is None:
        return ""
    return f"not followed: {reason}" if reason else str(tuned.choice)


def _share(these: Detections, those: Detections) -> float:
    """Return the share of the best of `these` that have a twin in `those`."""
    best = these.take(slice(_COMPARED))
    if len(best) == 0:
        return 1.0
    twin = box_iou(best.xyxy, those.xyxy) > _IOU_AT_LEAST
    twin &= best.class_id[:, None] == those.class_id[None, :]
    twin &= np.abs(best.score[:, None] - those.score[None, :]) <= _SCORE_TOLERANCE
    return float(twin.any(axis=1).mean()) if len(those) else 0.0


def _infer_ms(detector: Detector) -> float:
    """Return the median milliseconds of a bare inference."""
    tensor, _ = Letterbox(detector.card.input, input_size=detector.input_size)(made_picture())
    spent: list[float] = []
    end = time.perf_counter() + _MOST_SECONDS
    while len(spent) < _LEAST_RUNS or (len(spent) < _MOST_RUNS and time.perf_counter() < end):
        start = time.perf_counter()
        detector.runtime.infer(tensor)
        spent.append((time.perf_counter() - start) * 1e3)
    return statistics.median(spent)
