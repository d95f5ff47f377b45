"""Label Studio: `tasks.json` with pre-annotations, and `config.xml`, the labelling interface.

All boxes of an image stand in ONE prediction: Label Studio shows one prediction at a time. Coordinates are percent of
the image. The score of a region stands on the region, its origin under `meta`. (A region's own key `origin` is Label
Studio's: whether a person changed it.) `split` of a task's data is `test` for an image that is never trained on, else
`train`.

The reader takes what people submitted (`annotations`) where a task has that key, else the prediction. Several people
may have submitted one task: the file says who (`completed_by`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, TypeVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from edge.contract.errors import UnusableError
from hub.annotation import CONTEXT, AnnotatedImage, Annotation, AnnotationSet, named
from hub.drawn import DrawnBox, DrawnImage, DrawnSet, Faults
from hub.formats import Files, Source, escape, find_file, image_name, open_files, parse_xml
from hub.label_faults import strict

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
HOW_TO_SEE_CONTEXT: Final = """
The boxes of the passes before are grey and can only be looked at.
"""
_GREY: Final = "#9e9e9e"

Sizes = Mapping[str, tuple[int, int]]

_T = TypeVar("_T")
_MANIFEST: Final = "batch.json"  # what an export says of itself
_UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # Label Studio puts this before the name of an uploaded file


class _Task(msgspec.Struct):
    data: dict[str, object]
    id: int | str | None = None
    annotations: list["_Result"] | None = None
    predictions: list[msgspec.Raw] = []


class _Result(msgspec.Struct):
    result: list[msgspec.Raw]
    was_cancelled: bool = False
    completed_by: object = None


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
    original_width: int | None = None
    original_height: int | None = None
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
        INTERFACE: "".join(_interface(annotations)).encode(),
    }


def read_labelstudio(source: Source) -> AnnotationSet:
    """Return the boxes of a task file that one annotator has drawn. Raises `UnusableError` for any fault."""
    return strict(parse_labelstudio(source))


def parse_labelstudio(source: Source, *, sizes: Sizes | None = None) -> DrawnSet:
    """Return what stands in a task file that this module or Label Studio wrote (export format "JSON").

    A task stands in the answer once for each annotator who submitted it; one that nobody did is unanswered. The labels
    are those of `config.xml`. An image's size comes from the file, else from `sizes` (by name). Raises `UnusableError`
    when it is no task file.
    """
    files = open_files(source)
    path = _task_file(files)
    with named(path):
        try:
            tasks = msgspec.json.decode(files[path], type=list[_Task])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            msg = f'not a task file of Label Studio (export format "JSON"): {error}'
            raise UnusableError(msg) from error
    faults = Faults()
    images: list[DrawnImage] = []
    unanswered: list[str] = []
    for at, task in enumerate(tasks, 1):
        place = f"{path}: task {at if task.id is None else task.id}"
        with faults.at(place):
            name = _name(task.data)
            drawn = _drawn(task)
            unanswered += [name] * (not drawn)
            images += [_image(name, task, one, place=place, sizes=sizes or {}, faults=faults) for one in drawn]
    predicted = any(task.annotations is None for task in tasks)
    notes = ("it has predictions that nobody submitted as an annotation; they count as drawn",) * predicted
    return DrawnSet(tuple(images), _labels(files), tuple(faults), tuple(unanswered), notes)


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
    if box.origin == CONTEXT:
        region["readonly"] = True
    return region


def _interface(annotations: AnnotationSet) -> Iterator[str]:
    context = {box.label for image in annotations.images for box in image.annotations if box.origin == CONTEXT}
    yield '<View>\n  <Image name="image" value="$image" zoom="true" zoomControl="true"/>\n'
    yield '  <RectangleLabels name="label" toName="image" canRotate="false">\n'
    for label in annotations.labels:
        colour = f' background="{_GREY}"' if label in context else ""
        yield f'    <Label value="{escape(label)}"{colour}/>\n'
    yield "  </RectangleLabels>\n</View>\n"


def _task_file(files: Files) -> str:
    """Return the one file with tasks; what an export wrote of itself is none."""
    return find_file({path: b"" for path in files if image_name(path) != _MANIFEST}, name="", suffix=".json")


def _labels(files: Files) -> tuple[str, ...] | None:
    if INTERFACE not in files:
        return None
    labels = parse_xml(files, INTERFACE).all("RectangleLabels", "Label")
    with named(INTERFACE):
        return tuple(label.need("value") for label in labels)


def _image(name: str, task: _Task, result: _Result, *, place: str, sizes: Sizes, faults: Faults) -> DrawnImage:
    regions: list[tuple[str, _Region]] = []
    for at, raw in enumerate(result.result, 1):
        with faults.at(f"{place}, region {at}", name):
            regions.append((f"{place}, region {at}", _decoded(raw, _Region)))
    told: list[tuple[object, object]] = [(region.original_width, region.original_height) for _, region in regions]
    told.append((task.data.get("width"), task.data.get("height")))
    known = {(w, h) for w, h in told if isinstance(w, int) and isinstance(h, int)} or {
        size for one, size in sizes.items() if one.casefold() == name.casefold()
    }
    if len(known) > 1:
        msg = f"image {name}: its size is not plain: {sorted(known)}"
        raise UnusableError(msg)
    boxes = []
    for size in known:
        for where, region in regions:
            with faults.at(where, name):
                boxes.append(_box(region, size, where))
    width, height = known.pop() if known else (None, None)
    return DrawnImage(name, place, width, height, tuple(boxes), _annotator(result.completed_by))


def _name(task_data: dict[str, object]) -> str:
    if isinstance(name := task_data.get("name"), str):
        return name
    if not isinstance(address := task_data.get("image"), str):
        msg = "no image in its data"
        raise UnusableError(msg)
    try:
        parts = urlsplit(address)
    except ValueError as error:
        msg = f"its image {address!r} is no address: {error}"
        raise UnusableError(msg) from error
    if local := parse_qs(parts.query).get("d"):
        return image_name(local[0])
    return _UPLOAD.sub("", image_name(unquote(parts.path)))


def _drawn(task: _Task) -> list[_Result]:
    """What people submitted; where the task knows nothing of people, what was predicted."""
    if task.annotations is not None:
        return [one for one in task.annotations if not one.was_cancelled]
    if len(task.predictions) != 1:
        msg = f"{len(task.predictions)} predictions, expected one"
        raise UnusableError(msg)
    return [_decoded(task.predictions[0], _Result)]


def _annotator(completed_by: object) -> str:
    """Return an annotator's e-mail address, else a name made of the number that Label Studio gave."""
    number: object = completed_by
    if isinstance(completed_by, dict):
        if isinstance(email := completed_by.get("email"), str) and email:
            return email
        number = completed_by.get("id")
    return f"user-{number}" if isinstance(number, int | str) else ""


def _box(region: _Region, size: tuple[int, int], place: str) -> DrawnBox:
    if region.type != "rectanglelabels":
        msg = f"a region of type {region.type}; only labelled rectangles can be used"
        raise UnusableError(msg)
    value = _decoded(region.value, _Value)
    if len(value.rectanglelabels) != 1:
        msg = f"{len(value.rectanglelabels)} labels on one rectangle, expected one"
        raise UnusableError(msg)
    if value.rotation % 360:
        msg = f"{value.rectanglelabels[0]} is rotated; draw it upright"
        raise UnusableError(msg)
    x, y = value.x * size[0] / 100, value.y * size[1] / 100
    x2, y2 = x + value.width * size[0] / 100, y + value.height * size[1] / 100
    origin = region.meta.origin if region.meta else None
    return DrawnBox((x, y, x2, y2), value.rectanglelabels[0], place, region.score, origin)


def _decoded(raw: msgspec.Raw, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"not a labelled rectangle: {error}"
        raise UnusableError(msg) from error
