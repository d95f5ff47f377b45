"""Other people's readers find the same boxes in what we write: pycocotools, globox, panlabel."""

import io
import json
import subprocess
from contextlib import redirect_stdout

import cv2
import numpy as np
import pytest

from hub.annotation import AnnotatedImage, Annotation, AnnotationSet
from hub.formats import coco, cvat, labelstudio, voc, yolo

ANNOTATIONS = AnnotationSet(
    ("person", "traffic light"),
    (
        AnnotatedImage(
            "0007-01-cam-a-00c0ffee.jpg",
            1917,
            1079,
            (
                Annotation((1500.25, 10.5, 1917, 400.75), "person", 0.8125, "detector"),
                Annotation((0, 0, 3.01, 3), "traffic light", 0.0625, "gap"),
                Annotation((33.33, 66.67, 99.99, 1079), "person"),
            ),
        ),
        AnnotatedImage("0007-02-cam-a-00c0ffef.jpg", 64, 48),
        AnnotatedImage(
            "0007-03-cam-b-00c0fff0.jpg", 640, 480, (Annotation((1, 2, 639.99, 479.5), "traffic light", 1.0),)
        ),
    ),
)


def expected(*, with_score=False):
    return sorted(
        (image.name, box.label, *box.xyxy, *((box.score,) if with_score else ()))
        for image in ANNOTATIONS.images
        for box in image.annotations
    )


def images_at(module):
    return yolo.images_of(test=False) if module is yolo else module.IMAGES


def write(folder, files, images):
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    (folder / images).mkdir(parents=True, exist_ok=True)
    for image in ANNOTATIONS.images:
        cv2.imwrite(str(folder / images / image.name), np.zeros((image.height, image.width, 3), np.uint8))


def assert_same(found, wanted):
    found = sorted(found)
    assert [row[:2] for row in found] == [row[:2] for row in wanted]
    for row, want in zip(found, wanted, strict=True):
        assert row[2:6] == pytest.approx(want[2:6], abs=1e-5)


def by_panlabel(path, name, tmp_path):
    out = tmp_path / "ir.json"
    command = ["panlabel", "convert", "--from", name, "--to", "ir-json", "--input", path, "--output", out]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("the command panlabel is not installed")
    except subprocess.CalledProcessError as error:
        pytest.fail(f"panlabel refuses it: {error.stderr}")
    content = json.loads(out.read_text())
    images = {image["id"]: image["file_name"].removeprefix("train/") for image in content["images"]}
    labels = {category["id"]: category["name"] for category in content["categories"]}
    assert len(images) == len(ANNOTATIONS.images)
    boxes = [
        (
            images[one["image_id"]],
            labels[one["category_id"]],
            *(one["bbox"][k] for k in ("xmin", "ymin", "xmax", "ymax")),
        )
        for one in content["annotations"]
    ]
    return boxes, content["annotations"]


@pytest.fixture(autouse=True)
def _tools_of_this_python(monkeypatch):
    import os
    import sys
    from pathlib import Path

    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def test_pycocotools_loads_coco(tmp_path):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    write(tmp_path, coco.write_coco(ANNOTATIONS), coco.IMAGES)
    with redirect_stdout(io.StringIO()):
        loaded = COCO(str(tmp_path / coco.ANNOTATIONS))
        results = loaded.loadRes([{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}])
    assert loaded.getCatIds() == [1, 2]
    assert len(results.anns) == 1
    found = []
    for one in loaded.loadAnns(loaded.getAnnIds()):
        x, y, width, height = one["bbox"]
        name = loaded.loadImgs(one["image_id"])[0]["file_name"]
        found.append((name, loaded.loadCats(one["category_id"])[0]["name"], x, y, x + width, y + height))
        assert one["area"] == pytest.approx(width * height)
        assert one["segmentation"] == []
    assert_same(found, expected())
    assert [one.get("score") for one in loaded.loadAnns([1, 2, 3])] == [0.8125, 0.0625, None]


def test_globox_reads_cvat_coco_yolo_and_voc(tmp_path):
    globox = pytest.importorskip("globox")
    for name, module, files in (
        ("cvat", cvat, cvat.write_cvat(ANNOTATIONS)),
        ("coco", coco, coco.write_coco(ANNOTATIONS)),
        ("yolo", yolo, yolo.write_yolo(ANNOTATIONS)),
        ("voc", voc, voc.write_voc(ANNOTATIONS)),
    ):
        (tmp_path / name).mkdir()
        write(tmp_path / name, files, images_at(module))
    sets = globox.AnnotationSet
    read = {
        "cvat": sets.from_cvat(tmp_path / "cvat" / cvat.ANNOTATIONS),
        "coco": sets.from_coco(tmp_path / "coco" / coco.ANNOTATIONS),
        "yolo": sets.from_yolo_v5(
            tmp_path / "yolo" / "labels" / "train", image_folder=tmp_path / "yolo" / yolo.images_of(test=False)
        ),
        "voc": sets.from_pascal_voc(tmp_path / "voc" / "Annotations"),
    }
    for name, annotations in read.items():
        labels = dict(enumerate(ANNOTATIONS.labels)) if name == "yolo" else {}
        found = [
            (one.image_id, labels.get(int(box.label) if name == "yolo" else -1, box.label), *box.ltrb)
            for one in annotations
            for box in one.boxes
        ]
        assert_same(found, expected())
        assert {one.image_id: one.image_size for one in annotations} == {
            image.name: (image.width, image.height) for image in ANNOTATIONS.images
        }


@pytest.mark.parametrize(
    ("name", "module", "path"),
    [
        ("cvat", cvat, cvat.ANNOTATIONS),
        ("coco", coco, coco.ANNOTATIONS),
        ("yolo", yolo, ""),
        ("voc", voc, ""),
        ("label-studio", labelstudio, labelstudio.TASKS),
    ],
)
def test_panlabel_reads_every_format(name, module, path, tmp_path):
    writers = {
        "cvat": cvat.write_cvat,
        "coco": coco.write_coco,
        "yolo": yolo.write_yolo,
        "voc": voc.write_voc,
        # panlabel finds the image's name in a plain address only, not in `?d=`
        "label-studio": lambda a: labelstudio.write_labelstudio(a, images_at="http://localhost/images/"),
    }
    folder = tmp_path / "export"
    folder.mkdir()
    write(folder, writers[name](ANNOTATIONS), images_at(module))
    found, raw = by_panlabel(folder / path, name, tmp_path)
    assert_same(found, expected())
    if name == "cvat":
        assert sorted(one["attributes"].get("cvat_attr_origin", "") for one in raw) == ["", "", "detector", "gap"]
    if name in {"coco", "label-studio"}:
        assert sorted(one.get("confidence", -1) for one in raw) == [-1, 0.0625, 0.8125, 1.0]
