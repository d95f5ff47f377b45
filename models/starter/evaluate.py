"""Measure the starter model's box AP on a folder in YOLO layout.

    python models/starter/evaluate.py DATASET [--card] [--sizes 512 320]

The folder holds `images/*.jpg`, `labels/*.txt` (class, then centre x, centre y, width,
height as fractions of the image) and `names.txt`. Needs numpy, opencv, onnxruntime and
pycocotools. The protocol stands in README.md. `--card` writes the measured values into
`model.json`; it owns no other field of the card.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
from pathlib import Path
from typing import Any, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime
from pycocotools.coco import COCO  # type: ignore[import-untyped]
from pycocotools.cocoeval import COCOeval  # type: ignore[import-untyped]

HERE = Path(__file__).resolve().parent

SIZES = (512, 416, 320, 256, 192)
SCORE_THRESHOLD = 0.01
MAX_BOXES = 100
STRIDE = 4
AREA_ALL = (0.0, 1e10)

Floats: TypeAlias = npt.NDArray[np.float32]
Pixels: TypeAlias = npt.NDArray[np.uint8]


def main() -> None:
    """Evaluate every size, print the table, and write the card if asked."""
    parser = argparse.ArgumentParser(description="Measure the starter model's AP.")
    parser.add_argument("dataset", type=Path, help="folder in YOLO layout")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="SIDE")
    parser.add_argument("--card", action="store_true", help="write into model.json")
    arguments = parser.parse_args()

    dataset = read_dataset(arguments.dataset)
    session = onnxruntime.InferenceSession(HERE / "starter.onnx", providers=["CPUExecutionProvider"])
    rows = []
    print("input      label    AP     AP50")
    for size in arguments.sizes:
        for label, ap, ap50 in evaluate(session, dataset, size):
            print(f"{size}x{size}    {label:7}  {ap:.3f}  {ap50:.3f}")
            rows.append(
                {
                    "dataset": dataset.name,
                    "input": f"{size}x{size}",
                    "label": label,
                    "ap": round(ap, 3),
                    "ap50": round(ap50, 3),
                }
            )
    if arguments.card:
        write_accuracy(HERE / "model.json", rows)


def write_accuracy(path: Path, rows: list[dict[str, Any]]) -> None:
    """Put the rows into the card, in place of older ones of the same measurement."""
    card = json.loads(path.read_text())
    measured = {(row["dataset"], row["input"], row["label"]) for row in rows}
    kept = [row for row in card["accuracy"] if (row["dataset"], row["input"], row["label"]) not in measured]
    path.write_text(json.dumps(card | {"accuracy": kept + rows}, indent=2) + "\n")


def read_dataset(folder: Path) -> Dataset:
    """Read the folder's images by name, and its boxes as COCO annotations."""
    names = (folder / "names.txt").read_text().split("\n")
    images = sorted((folder / "images").iterdir())
    annotations: list[dict[str, Any]] = []
    sizes = []
    for image_id, path in enumerate(images, start=1):
        height, width = read_rgb(path).shape[:2]
        sizes.append({"id": image_id, "width": width, "height": height})
        label_file = folder / "labels" / f"{path.stem}.txt"
        lines = label_file.read_text().splitlines() if label_file.exists() else []
        for line in lines:
            class_id, *fractions = line.split()
            x, y, w, h = (float(value) for value in fractions)
            box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": int(class_id),
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
            )
    truth = {
        "info": {},
        "images": sizes,
        "categories": [{"id": i, "name": n} for i, n in enumerate(names) if n],
        "annotations": annotations,
    }
    return Dataset(name=folder.name, images=images, truth=truth)


def evaluate(session: onnxruntime.InferenceSession, dataset: Dataset, size: int) -> list[tuple[str, float, float]]:
    """Return label, AP and AP50 for persons and for all classes at this input size."""
    results: list[dict[str, Any]] = []
    for image_id, path in enumerate(dataset.images, start=1):
        image = read_rgb(path)
        tensor, scale = letterbox(image, size)
        heatmap, wh = session.run(["heatmap", "wh"], {"images": tensor})
        boxes, scores, classes = decode(heatmap[0], wh[0])
        boxes /= scale
        results.extend(
            {
                "image_id": image_id,
                "category_id": int(class_id),
                "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
                "score": float(score),
            }
            for (x1, y1, x2, y2), score, class_id in zip(boxes, scores, classes, strict=True)
        )
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset.truth
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # IoU thresholds, recalls, classes, areas (first: all), most boxes (last: 100)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    classes_present = evaluation.params.catIds
    person = precision[:, :, classes_present.index(0)]
    return [
        ("person", *mean_precision(person)),
        ("all", *mean_precision(precision)),
    ]


def mean_precision(precision: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return AP over IoU .50 to .95, and AP50. Classes without a box (-1) are left out."""
    first = precision[0]
    return float(precision[precision > -1].mean()), float(first[first > -1].mean())


def letterbox(image: Pixels, size: int) -> tuple[Floats, float]:
    """Scale the long side to `size`, place top left on grey; return tensor and scale.

    The other side is cut to whole pixels, not rounded.
    """
    height, width = image.shape[:2]
    scale = size / max(height, width)
    target = (int(width * scale), int(height * scale))
    canvas = np.full((size, size, 3), 114, np.uint8)
    resized = cv2.resize(image, target, interpolation=cv2.INTER_LINEAR)
    canvas[: target[1], : target[0]] = resized
    return canvas.transpose(2, 0, 1)[None].astype(np.float32), scale


def decode(heatmap: Floats, wh: Floats) -> tuple[Floats, Floats, npt.NDArray[np.int64]]:
    """Return boxes (xyxy in input pixels), scores and classes, best first.

    A box stands at every cell that is the highest of its class among 3 x 3 cells.
    """
    planes = np.ascontiguousarray(heatmap.transpose(1, 2, 0))
    around = np.stack([cv2.dilate(plane, np.ones((3, 3), np.uint8)) for plane in heatmap], axis=-1)
    peak = (planes == around) & (planes >= SCORE_THRESHOLD)
    rows, columns, classes = np.nonzero(peak)
    scores = planes[rows, columns, classes]
    best = np.argsort(-scores, kind="stable")[:MAX_BOXES]
    rows, columns = rows[best], columns[best]
    left, top, right, bottom = wh[:, rows, columns]
    x, y = columns * STRIDE, rows * STRIDE
    boxes = np.stack([x - left, y - top, x + right, y + bottom], axis=1)
    return boxes.astype(np.float32), scores[best], classes[best]


def read_rgb(path: Path) -> Pixels:
    """Read an image as RGB rows, columns, channels."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        message = f"{path}: not an image"
        raise SystemExit(message)
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images in order, and their boxes as one COCO dictionary."""

    name: str
    images: list[Path]
    truth: dict[str, Any]


if __name__ == "__main__":
    main()
