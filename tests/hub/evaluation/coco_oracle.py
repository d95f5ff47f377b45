"""AP by pycocotools, for the tests only: built from the looks by hand, not from the columns that are under test."""

import contextlib
import io

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval


def oracle(looks, labels=None):
    """Return {label: (ap, ap50)} of the labels with an object."""
    told = looks[0].labels
    wanted = [name for name in told if (labels is None or name in labels)]
    images, truth, boxes = [], [], []
    for at, one in enumerate(looks, start=1):
        images.append({"id": at, "width": one.member.width, "height": one.member.height})
        asked = set(one.member.labels) & set(wanted)
        for box in one.member.boxes:
            if box.label in asked:
                x1, y1, x2, y2 = box.xyxy
                truth.append(
                    {
                        "id": len(truth) + 1,
                        "image_id": at,
                        "category_id": told.index(box.label) + 1,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": int(box.ignored),
                    }
                )
        found = one.detections
        for xyxy, score, code in zip(found.xyxy.astype(float), found.score, found.class_id, strict=True):
            if told[code] in asked:
                x1, y1, x2, y2 = xyxy.tolist()
                box = {"image_id": at, "category_id": int(code) + 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
                boxes.append(box | {"score": float(score)})
    known = [{"id": at, "name": name} for at, name in enumerate(told, start=1) if name in wanted]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = {"images": images, "annotations": truth, "categories": known}
        coco.createIndex()
        evaluated = COCOeval(coco, coco.loadRes(boxes), "bbox")
        evaluated.evaluate()
        evaluated.accumulate()
    precision = evaluated.eval["precision"][:, :, :, 0, -1].mean(axis=1)
    by_label = {one["name"]: (precision[:, at].mean(), precision[0, at]) for at, one in enumerate(known)}
    return {name: values for name, values in by_label.items() if np.min(values) > -1}
