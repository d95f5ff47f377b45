"""Export a frozen batch into a folder that an annotator can open.

The folder holds the images as they came from the camera, the annotations in one format, `README.txt` for the
annotator, `contact-sheet.png`, and `batch.json`, which ties each image to the event it came from.

Laws:

1. The folder appears whole or not at all.
2. Only an untouched earlier export of the same batch and pass in the same format is replaced: no person's work is lost.
3. The image files are the JPEG bytes as they came. An image that is broken, of another size than its event states, or
   turned by its EXIF orientation is left out, and the report says so: boxes would lie wrong on what a tool shows.
4. Every proposed box that does not reach the annotator is counted by its reason. No text that a device sent can make a
   batch impossible to export.
5. Which images are the test share, never to be trained on, is said by the name of the image itself, in every format;
   by the format's own means of splitting; by `batch.json`, `README.txt` and the contact sheet.
6. A class has the same number in every export of the same list of labels, whatever the pass.
7. Nothing that is written tells an image with a known answer from the others.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Final
from urllib.parse import quote

from edge.contract.errors import UnusableError
from edge.contract.samples import plain_text
from edge.detector.pictures import decode_jpeg
from hub.annotation import CONTEXT, AnnotatedImage, Annotation, AnnotationSet, named, row_order
from hub.batch_view import BatchView, Member, image_names
from hub.carried import carried
from hub.contact_sheet import Image, Tile, contact_sheet
from hub.export_folder import MANIFEST, find_folder, write_whole
from hub.export_readme import MAX_LINE, readme, title_of
from hub.formats import coco, cvat, labelstudio, voc, yolo
from hub.pre_labels import pre_labels

README: Final = "README.txt"
CONTACT_SHEET: Final = "contact-sheet.png"


class Format(StrEnum):
    """The formats of an export."""

    CVAT = "cvat"
    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"
    LABELSTUDIO = "labelstudio"


_MODULES: Final[dict[Format, ModuleType]] = {
    Format.CVAT: cvat,
    Format.COCO: coco,
    Format.YOLO: yolo,
    Format.VOC: voc,
    Format.LABELSTUDIO: labelstudio,
}
_NAMED: Final = frozenset({Format.CVAT, Format.LABELSTUDIO})  # classes have names only: a pass lists what it needs

_SCAN: Final = b"\xff\xda"  # of a JPEG; its headers, and so its EXIF, come before
_TURNED: Final = re.compile(  # tag 0x112, a short, one of them, 2 to 8; in either order of bytes
    rb"Exif\x00\x00(?:II.*?\x12\x01\x03\x00\x01\x00\x00\x00[\x02-\x08]\x00"
    rb"|MM.*?\x01\x12\x00\x03\x00\x00\x00\x01\x00[\x02-\x08])",
    re.DOTALL,
)
_OF_MEMBER: Final = (
    "event_id",
    "site",
    "device",
    "camera",
    "captured_at_ms",
    "reason",
    "severity",
    "why",
    "region",
    "label",
    "test",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportReport:
    """What an export wrote.

    Attributes:
        out: the folder.
        images: how many images.
        test: how many of them are the test share.
        boxes: how many pre-labels, by origin.
        dropped: how many proposed boxes were not written, by reason.
        left_out: event id and reason of each image that was not written.
        notes: what else whoever exports it should know: one sentence each.
    """

    out: Path
    images: int
    test: int
    boxes: Mapping[str, int]
    dropped: Mapping[str, int]
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Page:
    """One member on its way out: the name of its file, and either its boxes or the reason why it stays behind."""

    member: Member
    name: str
    image: AnnotatedImage | None
    problem: str | None = None


def export_batch(
    batch: BatchView, fmt: Format, out: Path, *, answers: Mapping[str, Sequence[Annotation]] | None = None
) -> ExportReport:
    """Write the batch into the folder `out` and report what was written.

    The detector's boxes with at least `PRE_LABEL_SCORE` and all boxes of the witnesses become pre-labels, and what is
    carried over from an earlier frame; in a pass, those of its label, beside the context. With `answers`, by event id,
    only these images are written, each with its boxes to start from, to be looked at again. Raises `UnusableError` when
    `out` holds anything but an untouched earlier export of this batch and pass in this format, when there is no such
    pass, when no image of the batch can be used, and when the folder cannot be written.
    """
    title = title_of(batch)
    out = find_folder(out, batch=batch.id, fmt=fmt.value, label_pass=batch.label_pass)
    dropped: Counter[str] = Counter()
    pages = [
        _page(member, name, batch=batch, dropped=dropped)
        for member, name in zip(batch.members, image_names(batch), strict=True)
        if answers is None or member.event_id in answers
    ]
    if answers is not None:
        pages = [_answered(page, answers[page.member.event_id]) for page in pages]
    images = tuple(page.image for page in pages if page.image is not None)
    if not images:
        msg = f"batch {batch.id}: none of its {len(pages)} images can be used"
        raise UnusableError(msg)
    annotations = AnnotationSet(_labels(batch, images, fmt), images)
    test = frozenset(page.name for page in pages if page.member.test and page.image is not None)
    files = _annotation_files(annotations, batch, fmt, folder=out.name, test=test)
    for page in pages:
        if page.image is not None:
            folder = yolo.images_of(test=page.member.test) if fmt is Format.YOLO else _MODULES[fmt].IMAGES
            files[f"{folder}/{page.name}"] = page.member.jpeg
    files[README] = readme(
        batch,
        annotations,
        test=sorted(test),
        open_with=(fmt.value, _how_to_open(annotations, fmt)),
        files=(CONTACT_SHEET, MANIFEST),
        again=answers is not None,
    ).encode()
    files[CONTACT_SHEET] = contact_sheet([_tile(page) for page in pages], title=title)
    files[MANIFEST] = _manifest(batch, fmt, files, pages=pages)
    write_whole(out, files)
    return ExportReport(
        out=out,
        images=len(images),
        test=len(test),
        boxes=Counter(box.origin or "" for image in images for box in image.annotations),
        dropped=+dropped,
        left_out=tuple((page.member.event_id, page.problem) for page in pages if page.problem is not None),
        notes=batch.notes,
    )


def open_picture(jpeg: bytes, *, width: int, height: int) -> Image:
    """Return the picture as BGR. Raises `UnusableError` when it cannot be decoded or boxes would lie wrong on it."""
    picture = decode_jpeg(jpeg)
    found = picture.shape[1], picture.shape[0]
    if found != (width, height):
        msg = f"the JPEG is {found[0]} x {found[1]}, its event says {width} x {height}"
        raise UnusableError(msg)
    if _TURNED.search(jpeg, 0, jpeg.find(_SCAN)):
        msg = "the JPEG has an EXIF orientation, which tools would follow and boxes do not"
        raise UnusableError(msg)
    return picture


def _page(member: Member, name: str, *, batch: BatchView, dropped: Counter[str]) -> _Page:
    try:
        picture = open_picture(member.jpeg, width=member.width, height=member.height)
    except UnusableError as error:
        return _Page(member, name, None, str(error))
    with named(f"event {member.event_id}"):
        if batch.random:  # what is measured on must not lean towards what a model proposed
            return _Page(member, name, AnnotatedImage(name, member.width, member.height, member.context))
        proposed = pre_labels(member, labels=batch.asked, dropped=dropped)
        if batch.label_pass:
            mine = tuple(box for box in proposed if box.label == batch.label_pass)
            dropped["for another pass"] += len(proposed) - len(mine)
            proposed = mine
        for earlier in member.earlier:
            try:
                before = decode_jpeg(earlier.jpeg)
            except UnusableError:
                dropped["on an earlier image that is broken"] += len(earlier.boxes)
            else:
                proposed += carried(before, picture, earlier.boxes, there=proposed)
        boxes = (*member.context, *row_order(proposed))
        return _Page(member, name, AnnotatedImage(name, member.width, member.height, boxes))


def _answered(page: _Page, boxes: Sequence[Annotation]) -> _Page:
    if page.image is None:
        return page
    return replace(page, image=replace(page.image, annotations=row_order(boxes)))


def _labels(batch: BatchView, images: Sequence[AnnotatedImage], fmt: Format) -> tuple[str, ...]:
    """Return the labels that the files declare.

    All of them where classes are numbers; where they are names, a pass has its own and those of its context.
    """
    if not batch.label_pass or fmt not in _NAMED:
        return batch.asked
    needed = {batch.label_pass} | {box.label for image in images for box in image.annotations}
    return tuple(label for label in batch.asked if label in needed)


def _how_to_open(annotations: AnnotationSet, fmt: Format) -> str:
    context = any(box.origin == CONTEXT for image in annotations.images for box in image.annotations)
    module = _MODULES[fmt]
    return f"{module.HOW_TO_OPEN}{module.HOW_TO_SEE_CONTEXT * context}"


def _annotation_files(
    annotations: AnnotationSet, batch: BatchView, fmt: Format, *, folder: str, test: frozenset[str]
) -> dict[str, bytes]:
    match fmt:
        case Format.CVAT:
            return cvat.write_cvat(annotations, task=title_of(batch), test=test)
        case Format.COCO:
            return coco.write_coco(annotations, description=title_of(batch), test=test)
        case Format.YOLO:
            return yolo.write_yolo(annotations, test=test)
        case Format.VOC:
            return voc.write_voc(annotations, test=test)
        case Format.LABELSTUDIO:
            images_at = labelstudio.LOCAL_FILES + quote(f"{folder}/{labelstudio.IMAGES}/")
            model = plain_text(batch.model, most=MAX_LINE)
            return labelstudio.write_labelstudio(annotations, images_at=images_at, model=model, test=test)


def _tile(page: _Page) -> Tile:
    member = page.member
    boxes = page.image.annotations if page.image else ()
    return Tile(
        jpeg=member.jpeg,
        region=member.region,
        reason=member.reason,
        caption=(
            f"{member.rank:02d}{' TEST' * member.test} | {member.camera} | {_utc(member.captured_at_ms)}",
            f"{member.reason} {member.severity:.2f} | {member.label or 'no label'}",
            member.why,
        ),
        boxes=tuple((box.xyxy, box.origin or "") for box in boxes),
        problem=None if page.problem is None else f"left out: {page.problem}",
    )


def _utc(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):  # a device's clock may say anything
        return f"{milliseconds} ms"


def _manifest(batch: BatchView, fmt: Format, files: Mapping[str, bytes], *, pages: Sequence[_Page]) -> bytes:
    content = {
        "batch": batch.id,
        "format": fmt.value,
        "pass": batch.label_pass,
        "title": batch.title,
        "model": batch.model,
        "labels": list(batch.asked),
        "images": [
            {"name": page.name, "left_out": page.problem} | {key: getattr(page.member, key) for key in _OF_MEMBER}
            for page in pages
        ],
        "files": {path: hashlib.sha256(content).hexdigest() for path, content in sorted(files.items())},
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
