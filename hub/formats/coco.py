"""COCO object detection: one JSON file with images, annotations and categories.

`split` is a further key of an image: `test` for one that is never trained on, else `train`.
`score` and `origin` are further keys of an annotation; loaders pass them by. `segmentation` stays empty: a box is no
outline. The reader also finds score and origin under `attributes`, where CVAT puts what it knows of a box.
"""

import json
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final

import msgspec

from edge.contract.errors import UnusableError
from hub.annotation import Annotation, AnnotationSet, doubled, named
from hub.drawn import DrawnBox, DrawnImage, DrawnSet, Faults
from hub.formats import Source, find_file, image_name, open_files
from hub.label_faults import strict

IMAGES: Final = "images"
ANNOTATIONS: Final = "annotations/instances_default.json"

HOW_TO_OPEN: Final = """\
The images are in images/, their boxes in annotations/instances_default.json (COCO object detection: [x, y, width,
height] in pixels). In a tool with an import "COCO 1.0" or "COCO JSON", create the labels listed above, add the images,
then import that file. When done, export as COCO again. "score" and "origin" of each annotation say what proposed the
box, "split" of each image whether it may be trained on ("train") or never ("test").
"""
HOW_TO_SEE_CONTEXT: Final = """
The boxes of the passes before have the origin "context". Lock or hide their labels where the tool can, and leave them
as they are: one that comes back moved counts as a mistake.
"""


_SPLIT_FILE: Final = re.compile(r"(^|/)(instances_[^/]*|_annotations\.coco)\.json$")


class _Image(msgspec.Struct):
    id: int
    file_name: str
    width: int
    height: int


class _Category(msgspec.Struct):
    id: int
    name: str


class _Extra(msgspec.Struct):
    score: float | str | None = None
    origin: str | None = None
    rotation: float = 0.0


class _Annotation(msgspec.Struct):
    id: int
    image_id: int
    category_id: int
    bbox: tuple[float, float, float, float]
    iscrowd: int = 0
    score: float | None = None
    origin: str | None = None
    attributes: _Extra = msgspec.field(default_factory=_Extra)


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def write_coco(
    annotations: AnnotationSet, *, description: str = "weakspot", test: AbstractSet[str] = frozenset()
) -> dict[str, bytes]:
    """Return the one file; `test` has the names of the images that are never trained on.

    Ids of images, annotations and categories count from 1 in the order of the set.
    """
    category = {label: at for at, label in enumerate(annotations.labels, 1)}
    boxes = [(at, box) for at, image in enumerate(annotations.images, 1) for box in image.annotations]
    content = {
        "info": {"description": description, "version": "1.0"},
        "licenses": [],
        "categories": [{"id": at, "name": label, "supercategory": ""} for label, at in category.items()],
        "images": [
            {
                "id": at,
                "file_name": image.name,
                "width": image.width,
                "height": image.height,
                "split": "test" if image.name in test else "train",
            }
            for at, image in enumerate(annotations.images, 1)
        ],
        "annotations": [
            {"id": at, "image_id": image_id, "category_id": category[box.label], **_box_keys(box)}
            for at, (image_id, box) in enumerate(boxes, 1)
        ],
    }
    return {ANNOTATIONS: (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()}


def read_coco(source: Source) -> AnnotationSet:
    """Return the boxes of a COCO data set. Raises `UnusableError` for any fault."""
    return strict(parse_coco(source))


def parse_coco(source: Source) -> DrawnSet:
    """Return what stands in a COCO file, or in the several `instances_*.json` of a data set that is split.

    Raises `UnusableError` when one is no such file.
    """
    files = open_files(source)
    paths = sorted(path for path in files if _SPLIT_FILE.search(path))
    if len(paths) < 2:
        paths = [find_file(files, name="instances_default.json", suffix=".json")]
    faults = Faults()
    contents = [(path, _content(files[path], path)) for path in paths]
    images = [image for path, content in contents for image in _images(content, path, faults)]
    labels = dict.fromkeys(category.name for _, content in contents for category in content.categories)
    return DrawnSet(tuple(images), tuple(labels), tuple(faults))


def _box_keys(box: Annotation) -> dict[str, object]:
    x1, y1, x2, y2 = box.xyxy
    width, height = round(x2 - x1, 2), round(y2 - y1, 2)
    keys: dict[str, object] = {
        "bbox": [x1, y1, width, height],
        "area": round(width * height, 4),
        "segmentation": [],
        "iscrowd": 0,
    }
    if box.score is not None:
        keys["score"] = box.score
    if box.origin is not None:
        keys["origin"] = box.origin
    return keys


def _content(content: bytes, path: str) -> _File:
    with named(path):
        try:
            read = msgspec.json.decode(content, type=_File)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            msg = f"not a COCO detection file: {error}"
            raise UnusableError(msg) from error
        for what, ids in (
            ("image id", [image.id for image in read.images]),
            ("category id", [category.id for category in read.categories]),
            ("category", [category.name for category in read.categories]),
        ):
            if twice := doubled(map(str, ids)):
                msg = f"{what} {twice} occurs twice"
                raise UnusableError(msg)
    return read


def _images(content: _File, path: str, faults: Faults) -> Iterator[DrawnImage]:
    labels = {category.id: category.name for category in content.categories}
    names = {image.id: image_name(image.file_name) for image in content.images}
    boxes: dict[int, list[DrawnBox]] = {image.id: [] for image in content.images}
    for annotation in content.annotations:
        place = f"{path}: annotation {annotation.id}"
        with faults.at(place, names.get(annotation.image_id, str(annotation.image_id))):
            if annotation.image_id not in names:
                msg = "no such image"
                raise UnusableError(msg)
            boxes[annotation.image_id].append(_box(annotation, labels, place))
    for image in content.images:
        place = f"{path}: image {image.id}"
        yield DrawnImage(names[image.id], place, image.width, image.height, tuple(boxes[image.id]))


def _box(annotation: _Annotation, labels: dict[int, str], place: str) -> DrawnBox:
    if annotation.category_id not in labels:
        msg = f"no category {annotation.category_id}"
        raise UnusableError(msg)
    extra = annotation.attributes
    if annotation.iscrowd or extra.rotation % 360:
        msg = "a crowd region or a rotated box cannot be used as a box"
        raise UnusableError(msg)
    try:
        score = annotation.score if extra.score in {None, ""} else float(str(extra.score))
    except ValueError as error:
        msg = f"score is {extra.score!r}, expected a number"
        raise UnusableError(msg) from error
    x, y, width, height = annotation.bbox
    origin = annotation.origin or extra.origin or None
    return DrawnBox((x, y, x + width, y + height), labels[annotation.category_id], place, score, origin)
