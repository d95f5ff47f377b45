"""Label Studio: `tasks.json` with pre-annotations, and `config.xml`, the labelling interface.

All boxes of an image stand in ONE prediction: Label Studio shows one prediction at a time. Coordinates are percent of
the image. The score of a region stands on the region, its origin under `meta`. (A region's own key `origin` is Label
Studio's: whether a person changed it.) `split` of a task's data is `test` for an image that is never trained on, else
`train`.

The reader takes what people drew (`annotations`) where a task has that key, else the prediction.
"""

import json
import re
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from typing import Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from edge.contract.errors import UnusableError
from hub.annotation import AnnotatedImage, Annotation, AnnotationSet, named
from hub.formats import Files, Source, escape, find_file, image_name, open_files, parse_xml

IMAGES: Final = "images"
TASKS: Final = "tasks.json"
INTERFACE: Final = "config.xml"
LOCAL_FILES: Final = "/data/local-files/?d="

HOW_TO_OPEN: Final = """\
1. Start Label Studio so that it may read this folder (the folder above it is the document root):
      LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT=THE-FOLDER-ABOVE \\
          label-studio start
2. Create a project. "Settings", "Labeling Interface", "Code": paste the content of config.xml, save.
3. "Settings", "Cloud Storage", "Add Source Storage", "Local files", path: the folder images/ of this export. Save it,
   do NOT press "Sync": the storage only gives the permission to show the images.
4. "Import" tasks.json. The boxes of the prediction are where you start from.
5. When done: "Export", format "JSON".
The column "split" of the data manager says which images may be trained on ("train") and which never ("test").
The folder must keep its name, since tasks.json points into it.
"""

_UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts this before the name of an uploaded file


class _Task(msgspec.Struct):
    data: dict[str, object]
    annotations: list["_Result"] | None = None
    predictions: list["_Result"] = []


class _Result(msgspec.Struct):
    result: list["_Region"]
    was_cancelled: bool = False


class _Value(msgspec.Struct):
    x: float
    y: float
    width: float
    height: float
    rectanglelabels: list[str]
    rotation: float = 0.0


class _Meta(msgspec.Struct):
    origin: str | None = None


class _Region(msgspec.Struct):
    type: str
    value: msgspec.Raw
    original_width: int
    original_height: int
    score: float | None = None
    meta: _Meta | None = None


def write_labelstudio(
    annotations: AnnotationSet,
    *,
    images_at: str = f"{LOCAL_FILES}images/",
    model: str = "weakspot",
    test: AbstractSet[str] = frozenset(),
) -> dict[str, bytes]:
    """Return `tasks.json` and `config.xml`.

    `images_at` is put before each image's name to make the address under which Label Studio finds it; `model` is the
    version named on the predictions; `test` has the names of the images that are never trained on.
    """
    tasks = [
        {
            "id": at,
            "data": {
                "image": images_at + quote(image.name),
                "name": image.name,
                "width": image.width,
                "height": image.height,
                "split": "test" if image.name in test else "train",
            },
            "predictions": [
                {
                    "model_version": model,
                    "result": [_region(box, image, at=at) for at, box in enumerate(image.annotations, 1)],
                }
            ],
        }
        for at, image in enumerate(annotations.images, 1)
    ]
    return {
        TASKS: (json.dumps(tasks, indent=1, ensure_ascii=False) + "\n").encode(),
        INTERFACE: "".join(_interface(annotations.labels)).encode(),
    }


def read_labelstudio(source: Source) -> AnnotationSet:
    """Return the boxes of a task file that this module or Label Studio wrote (export format "JSON").

    The labels and their order are those of `config.xml`; without it, those that occur, in the order of the alphabet.
    Raises `UnusableError` that names the file, the task, the image and the region.
    """
    files = open_files(source)
    path = find_file(files, name=TASKS, suffix=".json")
    with named(path):
        try:
            tasks = msgspec.json.decode(files[path], type=list[_Task])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            msg = f"not a task file of Label Studio: {error}"
            raise UnusableError(msg) from error
        images = []
        for at, task in enumerate(tasks, 1):
            with named(f"task {at}"):
                images.append(_image(task))
        found = {box.label for image in images for box in image.annotations}
        return AnnotationSet(_labels(files, found), tuple(images))


def _region(box: Annotation, image: AnnotatedImage, *, at: int) -> dict[str, object]:
    x1, y1, x2, y2 = box.xyxy
    region: dict[str, object] = {
        "id": f"box{at:04d}",
        "type": "rectanglelabels",
        "from_name": "label",
        "to_name": "image",
        "original_width": image.width,
        "original_height": image.height,
        "image_rotation": 0,
        "value": {
            "x": x1 * 100 / image.width,
            "y": y1 * 100 / image.height,
            "width": (x2 - x1) * 100 / image.width,
            "height": (y2 - y1) * 100 / image.height,
            "rotation": 0,
            "rectanglelabels": [box.label],
        },
    }
    if box.score is not None:
        region["score"] = box.score
    if box.origin is not None:
        region["meta"] = {"text": [f"origin: {box.origin}"], "origin": box.origin}
    return region


def _interface(labels: tuple[str, ...]) -> Iterator[str]:
    yield '<View>\n  <Image name="image" value="$image" zoom="true" zoomControl="true"/>\n'
    yield '  <RectangleLabels name="label" toName="image" canRotate="false">\n'
    yield from (f'    <Label value="{escape(label)}"/>\n' for label in labels)
    yield "  </RectangleLabels>\n</View>\n"


def _labels(files: Files, found: set[str]) -> tuple[str, ...]:
    if INTERFACE not in files:
        return tuple(sorted(found))
    labels = parse_xml(files, INTERFACE).all("RectangleLabels", "Label")
    with named(INTERFACE):
        return tuple(label.need("value") for label in labels)


def _image(task: _Task) -> AnnotatedImage:
    name = _name(task.data)
    with named(f"image {name}"):
        regions = _drawn(task)
        sizes = {(region.original_width, region.original_height) for region in regions}
        width, height = task.data.get("width"), task.data.get("height")
        if isinstance(width, int) and isinstance(height, int):
            sizes.add((width, height))
        if len(sizes) != 1:
            msg = f"its size is not plain: {sorted(sizes) or 'none is given'}"
            raise UnusableError(msg)
        size = sizes.pop()
        boxes = []
        for at, region in enumerate(regions, 1):
            with named(f"region {at}"):
                boxes.append(_box(region))
                boxes[-1].require_inside(*size)
    return AnnotatedImage(name, *size, tuple(boxes))


def _name(task_data: dict[str, object]) -> str:
    if isinstance(name := task_data.get("name"), str):
        return name
    if not isinstance(address := task_data.get("image"), str):
        msg = "no image in its data"
        raise UnusableError(msg)
    parts = urlsplit(address)
    if local := parse_qs(parts.query).get("d"):
        return image_name(local[0])
    return _UPLOAD.sub("", image_name(unquote(parts.path)))


def _drawn(task: _Task) -> list[_Region]:
    """The regions people drew, else those predicted."""
    if task.annotations is None:
        results, what = task.predictions, "predictions"
    else:
        results, what = [one for one in task.annotations if not one.was_cancelled], "annotations"
    if len(results) != 1:
        msg = f"{len(results)} {what}, expected one"
        raise UnusableError(msg)
    return results[0].result


def _box(region: _Region) -> Annotation:
    if region.type != "rectanglelabels":
        msg = f"a region of type {region.type}; only labelled rectangles can be used"
        raise UnusableError(msg)
    try:
        value = msgspec.json.decode(region.value, type=_Value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not a labelled rectangle: {error}"
        raise UnusableError(msg) from error
    if len(value.rectanglelabels) != 1:
        msg = f"{len(value.rectanglelabels)} labels on one rectangle, expected one"
        raise UnusableError(msg)
    if value.rotation % 360:
        msg = f"{value.rectanglelabels[0]} is rotated; draw it upright"
        raise UnusableError(msg)
    x, y = value.x * region.original_width / 100, value.y * region.original_height / 100
    x2 = x + value.width * region.original_width / 100
    y2 = y + value.height * region.original_height / 100
    origin = region.meta.origin if region.meta else None
    return Annotation((x, y, x2, y2), value.rectanglelabels[0], region.score, origin)
