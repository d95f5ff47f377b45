"""A dataset version in the layout of other trainers: YOLO or COCO.

    yolo   images/SPLIT/*.jpg, labels/SPLIT/*.txt, data.yaml
    coco   images/SPLIT/*.jpg, annotations/instances_SPLIT.json

Neither layout has a word for what nobody looked for, and of a replay picture nothing else is known: it is left out. An
ignored box is a crowd (`iscrowd`) in COCO, and missing in YOLO. What an export has lost is said.
"""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from edge.contract.errors import UnusableError
from hub.annotation import MIN_SIDE_PX, AnnotatedImage, Annotation, AnnotationSet
from hub.datasets.version import Member, MemberBox, Split, Version, read_jpeg
from hub.formats.coco import ANNOTATIONS, write_coco
from hub.formats.yolo import write_yolo

SPLITS: Final[tuple[Split, ...]] = get_args(Split)


class Layout(StrEnum):
    """How a folder of annotated pictures is laid out."""

    YOLO = "yolo"
    COCO = "coco"


class Exported(NamedTuple):
    """What was written.

    Attributes:
        images: how many of each split that has some.
        notes: what the layout cannot say, a sentence each.
    """

    images: dict[Split, int]
    notes: tuple[str, ...]


def export_version(
    folder: Path,
    version: Version,
    *,
    layout: Layout,
    out: Path,
    on_image: Callable[[int, int], None] = lambda *_: None,
) -> Exported:
    """Write the version of `folder` to a new folder `out`; `on_image` is told how many of how many are written.

    Raises `UnusableError` when `out` is there, cannot be written, or nothing but replay pictures is in the version;
    nothing is left behind then.
    """
    members = [member for member in version.members if member.labels]
    if not members:
        msg = f"{folder} has pictures for replay only: there is nothing to export"
        raise UnusableError(msg)
    if out.exists():
        msg = f"{out} is there already: name another folder"
        raise UnusableError(msg)
    beside = out.with_name(f".{out.name}.part")
    try:
        if beside.exists():
            shutil.rmtree(beside)
        for path, content in _files(version, members, layout).items():
            (beside / path).parent.mkdir(parents=True, exist_ok=True)
            (beside / path).write_bytes(content)
        for done, member in enumerate(members, 1):
            place = beside / "images" / member.split
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{member.name}.jpg").write_bytes(read_jpeg(folder, member))
            on_image(done, len(members))
        beside.rename(out)
    except OSError as error:
        msg = f"cannot write {out}: {error.strerror}"
        raise UnusableError(msg) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    images = {split: sum(one.split == split for one in members) for split in SPLITS}
    return Exported({split: number for split, number in images.items() if number}, _notes(version, members, layout))


def _files(version: Version, members: Sequence[Member], layout: Layout) -> dict[str, bytes]:
    of_split = {split: [one for one in members if one.split == split] for split in SPLITS}
    files: dict[str, bytes] = {}
    for split, several in of_split.items():
        if several:
            annotated = _annotated(several, version.labels)
            files |= _yolo(annotated, split) if layout is Layout.YOLO else _coco(annotated, several, split)
    if layout is Layout.YOLO:
        files["data.yaml"] = _yaml({split: bool(several) for split, several in of_split.items()}, version.labels)
    return files


def _yolo(annotated: AnnotationSet, split: Split) -> dict[str, bytes]:
    written = write_yolo(annotated)
    return {
        f"labels/{split}/{path.rpartition('/')[2]}": text for path, text in written.items() if path.endswith(".txt")
    }


def _yaml(has: Mapping[Split, bool], labels: Sequence[str]) -> bytes:
    lines = [f"{split}: images/{split}" if there else f"{split}:  # none" for split, there in has.items()]
    names = [f"  {at}: {json.dumps(label, ensure_ascii=False)}" for at, label in enumerate(labels)]
    return "\n".join([*lines, "names:", *names, ""]).encode()


def _coco(annotated: AnnotationSet, members: Sequence[Member], split: Split) -> dict[str, bytes]:
    content: dict[str, Any] = json.loads(write_coco(annotated)[ANNOTATIONS])
    image_ids = {image["file_name"]: image["id"] for image in content["images"]}
    for image in content["images"]:
        image["split"] = split
    category = {one["name"]: one["id"] for one in content["categories"]}
    for member in members:
        for box in member.boxes:
            if box.ignored:
                x1, y1, x2, y2 = box.xyxy
                content["annotations"].append(
                    {
                        "id": len(content["annotations"]) + 1,
                        "image_id": image_ids[f"{member.name}.jpg"],
                        "category_id": category[box.label],
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "segmentation": [],
                        "iscrowd": 1,
                    }
                )
    return {f"annotations/instances_{split}.json": (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()}


def _annotated(members: Sequence[Member], labels: tuple[str, ...]) -> AnnotationSet:
    images = [
        AnnotatedImage(
            f"{member.name}.jpg",
            member.width,
            member.height,
            tuple(
                Annotation(box.xyxy, box.label, box.score, box.origin)
                for box in member.boxes
                if not box.ignored and _is_drawable(box)
            ),
        )
        for member in members
    ]
    return AnnotationSet(labels, tuple(images))


def _is_drawable(box: MemberBox) -> bool:
    x1, y1, x2, y2 = (round(value, 2) for value in box.xyxy)
    return min(x2 - x1, y2 - y1) >= MIN_SIDE_PX + 0.005


def _notes(version: Version, members: Sequence[Member], layout: Layout) -> tuple[str, ...]:
    replay = len(version.members) - len(members)
    ignored = sum(box.ignored for one in members for box in one.boxes)
    small = sum(not box.ignored and not _is_drawable(box) for one in members for box in one.boxes)
    partly = sum(set(one.labels) != set(version.labels) for one in members)
    said = (
        (replay, "pictures for replay are left out: nothing is known of them"),
        (ignored if layout is Layout.YOLO else 0, "uncertain boxes are left out: YOLO has no word for them"),
        (small, f"boxes under {MIN_SIDE_PX:g} px are left out"),
        (partly, "images were not looked at for every label: there, a label without a box is not known to be absent"),
    )
    return tuple(f"{number} {what}" for number, what in said if number)
