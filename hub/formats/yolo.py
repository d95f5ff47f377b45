"""Ultralytics YOLO detection: one text file an image, each line `class x_centre y_centre width height` of 0..1.

The images that are never trained on have folders of their own, `images/test` and `labels/test`, and `data.yaml` names
them as its `test`; the others are in `images/train` and `labels/train`.

A line has five columns: a sixth would be taken for a track's id. Ten digits after the point keep the pixels of law 1 of
`hub.annotation` in images of any size. What the text cannot carry stands in `weakspot.json` outside `labels/`: the size
and order of the images, score and origin of each box. Score and origin belong to a box exactly where it was written; a
box that a person moved or relabelled has neither. `data.yaml` has no `path`, so that paths count from its own folder.
"""

import json
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.jpeg import jpeg_size
from hub.annotation import AnnotatedImage, Annotation, AnnotationSet, SidePx, Xyxy, named
from hub.drawn import DrawnBox, DrawnImage, DrawnSet, Faults
from hub.formats import Files, Source, number, open_files, text_of
from hub.label_faults import strict

IMAGES: Final = "images"
SIDECAR: Final = "weakspot.json"
NAMES: Final = "data.yaml"

HOW_TO_OPEN: Final = """\
The images are in images/train/ and images/test/, the boxes of each in the text file of the same name in labels/train/
and labels/test/ (class x-centre y-centre width height, as fractions of the image), the classes in data.yaml. Open the
folder in any tool that edits Ultralytics YOLO data sets. Keep the names of the files. An image without objects keeps an
empty text file. weakspot.json says what proposed each box; leave it as it is.
"""
HOW_TO_SEE_CONTEXT: Final = """
The boxes of the passes before have the origin "context". Lock or hide their labels where the tool can, and leave them
as they are: one that comes back moved counts as a mistake.
"""

_NAME_FILES: Final = ("classes.txt", "obj.names")
_NOT_LABELS: Final = frozenset({"README.txt", "classes.txt"})
_IMAGE_PATH = re.compile(r"\.(jpe?g|png|bmp|webp|tiff?)$", re.IGNORECASE)
_MAP_ENTRY = re.compile(r"\s+([0-9]{1,9})\s*:\s*(.+)")
_CLASS = re.compile(r"[0-9]{1,9}")
_LIST_ENTRY = re.compile(r"\s*-\s+(.+)")

Sizes = Mapping[str, tuple[int, int]]


class _Box(msgspec.Struct, frozen=True):
    label: str
    xyxy: Xyxy
    score: float | None = None
    origin: str | None = None


class _Image(msgspec.Struct, frozen=True):
    name: str
    width: SidePx
    height: SidePx
    boxes: tuple[_Box, ...] = ()


class _Sidecar(msgspec.Struct, frozen=True):
    images: tuple[_Image, ...]


def images_of(*, test: bool) -> str:
    """Return the folder of an image."""
    return f"{IMAGES}/{_split(test=test)}"


def write_yolo(annotations: AnnotationSet, *, test: AbstractSet[str] = frozenset()) -> dict[str, bytes]:
    """Return `data.yaml`, `labels/*/*.txt` (empty for an image without boxes) and `weakspot.json`.

    `test` has the names of the images that are never trained on.
    """
    classes = {label: at for at, label in enumerate(annotations.labels)}
    names = {image.name for image in annotations.images}
    if not test <= names:
        msg = f"{min(test - names)} is to be a test image and is not among the images"
        raise UnusableError(msg)
    files = {
        f"labels/{_split(test=image.name in test)}/{image.stem}.txt": "".join(
            _row(box, image, classes[box.label]) for box in image.annotations
        ).encode()
        for image in annotations.images
    }
    files[NAMES] = "".join(
        (
            f"train: {images_of(test=False)}" if len(names) > len(test) else "train:  # none here",
            "\nval:  # none here: validate on images of another time or place\n",
            f"test: {images_of(test=True)}  # never to be trained on" if test else "test:  # none here",
            "\nnames:\n",
            *(f"  {at}: {json.dumps(label, ensure_ascii=False)}\n" for label, at in classes.items()),
        )
    ).encode()
    files[SIDECAR] = msgspec.json.format(msgspec.json.encode(_sidecar_of(annotations)), indent=1) + b"\n"
    return files


def read_yolo(source: Source, *, sizes: Sizes | None = None) -> AnnotationSet:
    """Return the boxes of a YOLO folder, see `parse_yolo`. Raises `UnusableError` for any fault."""
    return strict(parse_yolo(source, sizes=sizes))


def parse_yolo(source: Source, *, sizes: Sizes | None = None) -> DrawnSet:
    """Return what stands in a YOLO folder; the label files (*.txt) may lie in any folder of it.

    An image's size comes from `weakspot.json`, else from `sizes` (by name), else from the JPEG itself. The classes come
    from `data.yaml`, else from `classes.txt` or `obj.names`. An image without a label file that a list (`train.txt`)
    beside `data.yaml` names has no boxes: so Ultralytics, and CVAT for it, write it. Any other that is named and has no
    label file is unanswered. Raises `UnusableError` when there are no classes or a file is no text.
    """
    files = open_files(source)
    labels = _labels(files)
    sidecar = {image.name: image for image in _sidecar(files).images}
    known = {name: (image.width, image.height) for name, image in sidecar.items()}
    texts, listed = _texts(files)
    answered = {name for name, _, _ in texts}
    if any(PurePosixPath(path).name == NAMES for path in files):
        texts += [(name, path, []) for name, path in listed.items() if name not in answered]
        answered |= listed.keys()
    named_here = tuple(dict.fromkeys((*sidecar, *listed)))
    place = {name: at for at, name in enumerate(named_here)}
    faults = Faults()
    images = []
    for name, path, rows in sorted(texts, key=lambda text: (place.get(text[0], len(place)), text[0])):
        size = known.get(name) or _given(name, sizes or {}) or _of_jpeg(name, files, faults)
        if size is None:
            images.append(DrawnImage(name, path, None, None))
        else:
            image = _Image(name, *size, sidecar[name].boxes if name in sidecar else ())
            images.append(DrawnImage(name, path, *size, _boxes(path, rows, image, labels, faults)))
    unanswered = tuple(name for name in named_here if name not in answered)
    return DrawnSet(tuple(images), labels, tuple(faults), unanswered)


def _texts(files: Files) -> tuple[list[tuple[str, str, list[str]]], dict[str, str]]:
    """Return image, path and lines of each label file, and each image that a list names, with the list."""
    texts: list[tuple[str, str, list[str]]] = []
    listed: dict[str, str] = {}
    for path in sorted(path for path in files if path.endswith(".txt") and PurePosixPath(path).name not in _NOT_LABELS):
        rows = [row.strip() for row in text_of(files, path).split("\n")]
        if any(rows) and all(_IMAGE_PATH.search(row) for row in rows if row):
            listed |= {f"{PurePosixPath(row).stem}.jpg": path for row in rows if row}
        else:
            texts.append((f"{PurePosixPath(path).stem}.jpg", path, rows))
    return texts, listed


def _split(*, test: bool) -> str:
    return "test" if test else "train"


def _row(box: Annotation, image: AnnotatedImage, class_id: int) -> str:
    x1, y1, x2, y2 = box.xyxy
    columns = (
        (x1 + x2) / 2 / image.width,
        (y1 + y2) / 2 / image.height,
        (x2 - x1) / image.width,
        (y2 - y1) / image.height,
    )
    return " ".join((str(class_id), *(f"{column:.10f}" for column in columns))) + "\n"


def _sidecar_of(annotations: AnnotationSet) -> _Sidecar:
    return _Sidecar(
        tuple(
            _Image(
                image.name,
                image.width,
                image.height,
                tuple(_Box(box.label, box.xyxy, box.score, box.origin) for box in image.annotations),
            )
            for image in annotations.images
        )
    )


def _sidecar(files: Files) -> _Sidecar:
    if SIDECAR not in files:
        return _Sidecar(())
    try:
        return msgspec.json.decode(files[SIDECAR], type=_Sidecar)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{SIDECAR}: {error}"
        raise UnusableError(msg) from error


def _given(name: str, sizes: Sizes) -> tuple[int, int] | None:
    return sizes.get(name) or next((sizes[one] for one in sizes if one.casefold() == name.casefold()), None)


def _of_jpeg(name: str, files: Files, faults: Faults) -> tuple[int, int] | None:
    path = next((path for path in files if PurePosixPath(path).name == name), None)
    if path is not None:
        with faults.at(path):
            return jpeg_size(files[path])
    return None


def _boxes(path: str, rows: list[str], image: _Image, labels: tuple[str, ...], faults: Faults) -> tuple[DrawnBox, ...]:
    proposed = list(image.boxes)
    boxes = []
    for line, row in enumerate(rows, 1):
        place = f"{path}: line {line}"
        with faults.at(place, image.name):
            if row:
                box = _box(row.split(), image, labels, place)
                xyxy = tuple(round(value, 2) for value in box.xyxy)
                at = next((at for at, one in enumerate(proposed) if (one.label, one.xyxy) == (box.label, xyxy)), None)
                match = proposed.pop(at) if at is not None else None
                boxes.append(replace(box, score=match.score, origin=match.origin) if match else box)
    return tuple(boxes)


def _box(columns: list[str], image: _Image, labels: tuple[str, ...], place: str) -> DrawnBox:
    if len(columns) != 5:
        msg = f"{len(columns)} columns, expected 5: class x_centre y_centre width height"
        raise UnusableError(msg)
    if not _CLASS.fullmatch(columns[0]) or int(columns[0]) >= len(labels):
        msg = f"class {columns[0]!r}, expected 0 to {len(labels) - 1}"
        raise UnusableError(msg)
    x, y, width, height = (number(column, "a coordinate") for column in columns[1:])
    xyxy = (
        (x - width / 2) * image.width,
        (y - height / 2) * image.height,
        (x + width / 2) * image.width,
        (y + height / 2) * image.height,
    )
    return DrawnBox(xyxy, labels[int(columns[0])], place)


def _labels(files: Files) -> tuple[str, ...]:
    named_so = [(name, path) for name in (NAMES, *_NAME_FILES) for path in files if PurePosixPath(path).name == name]
    if not named_so:
        msg = f"no names of classes here: {NAMES}, {' or '.join(_NAME_FILES)} is needed"
        raise UnusableError(msg)
    name, path = named_so[0]
    with named(path):
        lines = [line.rstrip() for line in text_of(files, path).split("\n")]
        return _yaml_names(lines) if name == NAMES else tuple(line for line in lines if line)


def _yaml_names(lines: list[str]) -> tuple[str, ...]:
    """The names of a `data.yaml`, written as a map from 0, as a list of lines, or as one line `[a, b]`."""
    start = next((at for at, line in enumerate(lines) if line.startswith("names:")), None)
    if start is None:
        msg = "no names: in it"
        raise UnusableError(msg)
    if inline := lines[start].removeprefix("names:").strip():
        return _inline_names(inline)
    names: list[str] = []
    for line in lines[start + 1 :]:
        if entry := _MAP_ENTRY.fullmatch(line):
            if int(entry[1]) != len(names):
                msg = f"class {entry[1]} follows {len(names)} names: classes must count from 0"
                raise UnusableError(msg)
            names.append(_scalar(entry[2]))
        elif entry := _LIST_ENTRY.fullmatch(line):
            names.append(_scalar(entry[1]))
        elif line.strip() and not line.lstrip().startswith("#"):
            break
    return tuple(names)


def _inline_names(text: str) -> tuple[str, ...]:
    if not (text.startswith("[") and text.endswith("]")):
        msg = f"names: {text!r}, expected a list or a map"
        raise UnusableError(msg)
    parts = re.findall(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'|[^,\[\]]+", text)
    return tuple(_scalar(part) for part in parts if part.strip())


def _scalar(text: str) -> str:
    """A YAML scalar: plain, in single quotes, or in double quotes as JSON writes it."""
    text = text.strip()
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError as error:
            msg = f"{text} is not a name"
            raise UnusableError(msg) from error
    if text.startswith("'") and text.endswith("'") and len(text) > 1:
        return text[1:-1].replace("''", "'")
    return text.split(" #", maxsplit=1)[0].strip()
