"""A folder of annotated pictures from elsewhere, in YOLO or COCO layout, as a dataset version of one split.

Laws:

1. Every picture that the annotations name is taken, or nothing is: a missing or broken one, and a box that is none, is
   an error that names it. A picture without annotations is not taken: nobody says that nothing is on it.
2. Every label that the folder declares was looked for in every picture.
3. A box is cut at the border of its picture; one that has no area there is left out, and counted. A COCO crowd is
   ignored.
"""

import hashlib
import json
import math
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import Label
from edge.detector.pictures import decode_jpeg
from hub.datasets.layouts import Layout
from hub.datasets.replay import read_picture
from hub.datasets.version import Member, MemberBox, Split, Version, make_version, write_version
from hub.drawn import DrawnBox, DrawnImage, DrawnSet, Fault, Faults
from hub.formats import Files, open_files
from hub.formats.coco import parse_coco
from hub.formats.yolo import parse_yolo
from hub.label_faults import FaultsError

_PICTURE: Final = re.compile(r"\.(jpe?g|png)\Z", re.IGNORECASE)
_NOT_A_STEM: Final = re.compile(r"[^A-Za-z0-9_-]+")
_LABELS: Final = tuple[Label, ...]

Sizes = dict[str, tuple[int, int]]


class Took(NamedTuple):
    """What was taken. `notes`: what whoever uses it should know, a sentence each."""

    version: Version
    notes: tuple[str, ...]


def take_folder(source: Path, *, layout: Layout, split: Split, out: Path) -> Took:
    """Write a folder of annotated pictures as a dataset version to the new folder `out`.

    Raises `UnusableError`, naming what is wrong and where, and leaves nothing behind then.
    """
    if not source.is_dir():
        msg = f"there is no folder {source}"
        raise UnusableError(msg)
    pictures = _pictures(source)
    drawn, crowds = _coco(open_files(source)) if layout is Layout.COCO else _yolo(source, pictures)
    if drawn.faults:
        raise FaultsError(drawn.faults)
    labels = _labels(drawn)
    members, paths = _members(drawn, crowds, pictures, labels=labels, split=split)
    version = make_version(
        members,
        labels=labels,
        recipe={"taken_from": layout.value},
        created_at_ms=time.time_ns() // 1_000_000,
    )
    write_version(version, out, jpeg_of=lambda member: read_picture(paths[member.name]))
    drawn_boxes = sum(len(image.boxes) for image in drawn.images) + sum(map(len, crowds.values()))
    said = (
        (len(pictures) - len(members), "without annotations left out: nobody says that nothing is on it", "picture"),
        (drawn_boxes - sum(len(one.boxes) for one in members), "without area in its picture left out", "box"),
    )
    return Took(version, tuple(f"{number} x {what} {says}" for number, says, what in said if number))


def _pictures(source: Path) -> dict[str, Path]:
    """Return the pictures by the names that annotations give them: a stem and ".jpg"."""
    found: dict[str, Path] = {}
    for path in sorted(source.rglob("*")):
        if _PICTURE.search(path.name) and path.is_file():
            name = f"{path.stem}.jpg"
            if name in found:
                msg = f"{found[name]} and {path} have one name: take one folder of them at a time"
                raise UnusableError(msg)
            found[name] = path
    if not found:
        msg = f"no JPEG or PNG lies in {source}"
        raise UnusableError(msg)
    return found


def _yolo(source: Path, pictures: Mapping[str, Path]) -> tuple[DrawnSet, dict[str, list[DrawnBox]]]:
    sizes: Sizes = {}
    for name, path in pictures.items():
        try:
            sizes[name] = _size(path)
        except UnusableError as error:
            msg = f"{path}: {error}"
            raise UnusableError(msg) from error
    return parse_yolo(source, sizes=sizes), {}


def _coco(files: Files) -> tuple[DrawnSet, dict[str, list[DrawnBox]]]:
    """Return what is drawn, and the crowds by image, which the reader of COCO refuses."""
    plain: dict[str, bytes] = {}
    crowds: defaultdict[str, list[DrawnBox]] = defaultdict(list)
    for path in files:
        if path.endswith(".json"):
            content = _json(files[path], path)
            if isinstance(content, dict) and isinstance(content.get("annotations"), list):
                _split_crowds(content, path, crowds)
                plain[path] = json.dumps(content).encode()
    return parse_coco(plain), crowds


def _json(content: bytes, path: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        msg = f"{path}: not JSON: {error}"
        raise UnusableError(msg) from error


def _split_crowds(content: dict[str, Any], path: str, crowds: dict[str, list[DrawnBox]]) -> None:
    """Take the crowds out of a file's content."""
    several = [one for one in content["annotations"] if isinstance(one, dict) and one.get("iscrowd") == 1]
    content["annotations"] = [
        one for one in content["annotations"] if not (isinstance(one, dict) and one.get("iscrowd") == 1)
    ]
    try:
        names = {image["id"]: re.split(r"[/\\]", image["file_name"])[-1] for image in content["images"]}
        labels = {category["id"]: category["name"] for category in content["categories"]}
        for one in several:
            x, y, width, height = (float(value) for value in one["bbox"])
            box = DrawnBox((x, y, x + width, y + height), labels[one["category_id"]], f"{path}: annotation {one['id']}")
            crowds[names[one["image_id"]]].append(box)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        msg = f"{path}: not a COCO detection file: {type(error).__name__} {error}"
        raise UnusableError(msg) from error


def _labels(drawn: DrawnSet) -> tuple[str, ...]:
    labels = drawn.labels or ()
    try:
        msgspec.convert(labels, _LABELS)
    except msgspec.ValidationError as error:
        msg = f"a label cannot be used: {error}"
        raise UnusableError(msg) from error
    if len(set(labels)) != len(labels):
        msg = "a label is declared twice"
        raise UnusableError(msg)
    return labels


def _members(
    drawn: DrawnSet,
    crowds: Mapping[str, list[DrawnBox]],
    pictures: Mapping[str, Path],
    *,
    labels: tuple[str, ...],
    split: Split,
) -> tuple[list[Member], dict[str, Path]]:
    faults = Faults()
    members: list[Member] = []
    paths: dict[str, Path] = {}
    for image in drawn.images:
        with faults.at(image.place, image.name):
            path = pictures.get(f"{Path(image.name).stem}.jpg")
            if path is None:
                msg = "there is no such picture"
                raise UnusableError(msg)
            jpeg = read_picture(path)
            height, width = decode_jpeg(jpeg).shape[:2]
            size = width, height
            _require_size(image, size)
            boxes = [
                *_boxes(image.boxes, size, faults),
                *_boxes(crowds.get(image.name, ()), size, faults, ignored=True),
            ]
            name = _name(path.stem, paths)
            paths[name] = path
            members.append(
                Member(
                    name=name,
                    sha256=hashlib.sha256(jpeg).hexdigest(),
                    width=width,
                    height=height,
                    split=split,
                    labels=labels,
                    boxes=tuple(boxes),
                    by="person",
                )
            )
    if not drawn.images:
        faults.append(Fault("annotations", "", "no image is annotated"))
    if faults:
        raise FaultsError(faults)
    return members, paths


def _boxes(
    drawn: Sequence[DrawnBox], size: tuple[int, int], faults: Faults, *, ignored: bool = False
) -> Iterator[MemberBox]:
    """Yield the boxes, cut at the border; those that have no area in the picture are left out."""
    width, height = size
    for box in drawn:
        if not all(map(math.isfinite, box.xyxy)):
            faults.append(Fault(box.place, "", f"{box.xyxy} is not four finite numbers"))
            continue
        x1, y1, x2, y2 = (round(value, 2) for value in box.xyxy)  # as hub.annotation has them
        cut = max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
        if cut[0] < cut[2] and cut[1] < cut[3]:
            yield MemberBox(xyxy=cut, label=box.label, origin="person", ignored=ignored)


def _require_size(image: DrawnImage, size: tuple[int, int]) -> None:
    if (image.width or size[0], image.height or size[1]) != size:
        msg = f"the annotations say {image.width} x {image.height}, the picture is {size[0]} x {size[1]}"
        raise UnusableError(msg)


def _size(path: Path) -> tuple[int, int]:
    height, width = decode_jpeg(read_picture(path)).shape[:2]
    return width, height


def _name(stem: str, taken: Mapping[str, Path]) -> str:
    """Return the stem as a member can be called, unlike any other."""
    plain = (_NOT_A_STEM.sub("-", stem).strip("-_") or "picture")[:180]
    folded = {one.casefold() for one in taken}
    name, number = plain, 1
    while name.casefold() in folded:
        number += 1
        name = f"{plain}-{number}"
    return name
