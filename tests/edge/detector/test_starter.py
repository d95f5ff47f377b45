"""The starter model through the whole detector: what it finds on real pictures is what its card says."""

import contextlib
import io
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.detector.detector import open_detector
from edge.detector.pictures import read_picture

ROOT = Path(__file__).parents[3]
CLIP = ROOT / "deploy" / "demo" / "street.mp4"
DATASET = ROOT.parent / "shared" / "data" / "coco128"


def test_the_people_of_the_bundled_clip_are_found():
    detector = open_detector(input_size=(768, 576))
    capture = cv2.VideoCapture(str(CLIP))
    for number in range(121):
        _, frame = capture.read()
        if number % 60 == 0:
            found = detector.detect(frame, score_threshold=0.4).detections
            counted = Counter(detector.labels[i] for i in found.class_id)
            # four to seven people walk there, and two cars are parked at the upper right
            assert 4 <= counted["person"] <= 9
            cars = found.take(np.isin(found.class_id, [detector.labels.index(name) for name in ("car", "truck")]))
            assert ((cars.xyxy[:, 0] > 600) & (cars.xyxy[:, 3] < 150)).sum() >= 2
    capture.release()


def test_accuracy_is_the_cards():
    """The same protocol as the card: letterboxed to 320x320, scores from .01, at most 100 boxes an image."""
    if not DATASET.is_dir():
        pytest.skip("coco128 is not beside the checkout")
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    detector = open_detector(input_size=(320, 320))
    images, annotations, results = [], [], []
    for number, path in enumerate(sorted((DATASET / "images").iterdir()), start=1):
        picture = read_picture(path)
        height, width = picture.shape[:2]
        images.append({"id": number, "width": width, "height": height})
        annotations += read_boxes(DATASET / "labels" / f"{path.stem}.txt", number, width, height)
        found = detector.detect(picture, score_threshold=0.01).detections.take(slice(100))
        results += [
            {"image_id": number, "category_id": class_id, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
            for (x1, y1, x2, y2), score, class_id in zip(
                found.xyxy.tolist(), found.score.tolist(), found.class_id.tolist(), strict=True
            )
        ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = {
            "info": {},
            "images": images,
            "categories": [{"id": i, "name": name} for i, name in enumerate(detector.labels)],
            "annotations": [one | {"id": i, "iscrowd": 0} for i, one in enumerate(annotations, start=1)],
        }
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    person = precision[:, :, evaluation.params.catIds.index(0)]
    stated = {one.label: one for one in detector.card.accuracy if (one.dataset, one.input) == ("coco128", "320x320")}
    for label, measured in (("person", person), ("all", precision)):
        assert measured[measured > -1].mean() == pytest.approx(stated[label].ap, abs=0.005)
        assert measured[0][measured[0] > -1].mean() == pytest.approx(stated[label].ap50, abs=0.005)


def read_boxes(path: Path, image_id: int, width: int, height: int) -> list[dict[str, object]]:
    if not path.is_file():
        return []
    boxes = []
    for line in path.read_text().splitlines():
        class_id, *fractions = line.split()
        x, y, w, h = (float(value) for value in fractions)
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        boxes.append({"image_id": image_id, "category_id": int(class_id), "bbox": box, "area": box[2] * box[3]})
    return boxes
