"""Export a frozen batch into a folder that an annotator can open.

The folder holds the images as they came from the camera, the annotations in one format, `README.txt` for the
annotator, `contact-sheet.png`, and `batch.json`, which ties each image to the event it came from.

Laws:

1. The folder appears whole or not at all.
2. Only an untouched earlier export of the same batch in the same format is replaced: no person's work is lost.
3. The image files are the JPEG bytes as they came. An image that is broken, of another size than its event states, or
   turned by its EXIF orientation is left out, and the report says so: boxes would lie wrong on what a tool shows.
4. Every proposed box that does not reach the annotator is counted by its reason. No text that a device sent can make a
   batch impossible to export.
5. Which images are the test share, never to be trained on, is said by the name of the image itself, in every format;
   by the format's own means of splitting; by `batch.json`, `README.txt` and the contact sheet.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Final
from urllib.parse import quote

import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.samples import Box, WitnessKind, plain_text
from edge.detector.detections import Floats, box_iou
from hub.annotation import MIN_SIDE_PX, AnnotatedImage, Annotation, AnnotationSet, Xyxy, is_label, named, row_order
from hub.contact_sheet import DETECTOR, Image, Tile, contact_sheet, decode_jpeg
from hub.export_folder import MANIFEST, find_folder, write_whole
from hub.formats import coco, cvat, labelstudio, voc, yolo

PRE_LABEL_SCORE: Final = 0.3
DOUBLE_IOU: Final = 0.7
LABEL_WHEN_NONE: Final = "object"

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
_RANK: Final = {None: 0, WitnessKind.ZOOM: 1}

_MAX_LINE: Final = 500
_SCAN: Final = b"\xff\xda"  # of a JPEG; its headers, and so its EXIF, come before
_TURNED: Final = re.compile(  # tag 0x112, a short, one of them, 2 to 8; in either order of bytes
    rb"Exif\x00\x00(?:II.*?\x12\x01\x03\x00\x01\x00\x00\x00[\x02-\x08]\x00"
    rb"|MM.*?\x01\x12\x00\x03\x00\x00\x00\x01\x00[\x02-\x08])",
    re.DOTALL,
)

_RULES: Final = """\
- Draw a box around every object of the labels below that you can recognise, also around those that the detector
  missed. What you cannot recognise, leave.
- Nothing under 3 x 3 pixels.
- Look row by row, from top to bottom, in each row from RIGHT to LEFT: this is the order in which people overlook
  least. The proposed boxes are listed in this order.
- Proposed boxes may be wrong: move them, relabel them, delete them.
- Look at the whole image, not only where a miss is suspected. An image without any object stays empty.
"""

_TEST_SHARE: Final = """\
The images below, with "-test-" in their names, measure what the training brings. Annotate them as carefully as all
others. NEVER TRAIN ON THEM, and never choose a model's settings by them: it would make the model look better than it
is, and the weak point look fixed. Which images these are was decided by camera and time alone and does not change.

"""
_NO_TEST_SHARE: Final = "None of these images: all of them may be trained on.\n"

_ORIGINS: Final = {
    DETECTOR: "the detector reported it",
    WitnessKind.GAP.value: "suspected: a followed object vanished here for a while and came back",
    WitnessKind.CANDIDATE.value: "suspected: the detector was never sure enough, again and again at this place",
    WitnessKind.MOTION.value: "suspected: something of a fitting size moved here",
    WitnessKind.ZOOM.value: "suspected: the detector sees it when it looks at an enlarged part of the image",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One frame of a batch, as it was frozen.

    Attributes:
        event_id: of the finding.
        site: where the device stands.
        device, camera: that saw it.
        captured_at_ms: UTC, milliseconds since 1970.
        reason: why the device mined it.
        severity: 0..1.
        why: why it was chosen for this batch, in plain words.
        region: `xyxy` pixels of the frame where the miss is suspected.
        label: the label suspected there; empty when none is.
        boxes: the detector's and the witnesses'.
        jpeg: the frame.
        width, height: of the frame, in pixels, as the finding states.
        test: it is of the test share: annotated, and never trained on.
        rank: 1 for the first that was chosen; those of forgotten images are missing.
    """

    event_id: str
    site: str
    device: str
    camera: str
    captured_at_ms: int
    reason: str
    severity: float
    why: str
    region: Xyxy
    label: str
    boxes: tuple[Box, ...]
    jpeg: bytes
    width: int
    height: int
    rank: int
    test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """A frozen batch.

    Attributes:
        id: its number.
        title: the weak point that it was made for.
        model: the release that failed.
        members: by rank.
        labels: the labels that the annotator is asked for, in their fixed order; when empty, those that occur in the
            boxes or are suspected, in the order of the alphabet, else `LABEL_WHEN_NONE` alone.
    """

    id: int
    title: str
    model: str
    members: tuple[Member, ...]
    labels: tuple[str, ...] = ()


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
    """

    out: Path
    images: int
    test: int
    boxes: Mapping[str, int]
    dropped: Mapping[str, int]
    left_out: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Page:
    """One member on its way out: the name of its file, and either its boxes or the reason why it stays behind."""

    member: Member
    name: str
    image: AnnotatedImage | None
    problem: str | None = None


def export_batch(batch: BatchView, fmt: Format, out: Path) -> ExportReport:
    """Write the batch into the folder `out` and report what was written.

    The detector's boxes with at least `PRE_LABEL_SCORE` and all boxes of the witnesses become pre-labels. Raises
    `UnusableError` when `out` holds anything but an untouched earlier export of this batch in this format, when no
    image of the batch can be used, and when the folder cannot be written.
    """
    out = find_folder(out, batch=batch.id, fmt=fmt.value)
    labels = batch.labels or _labels_of(batch)
    dropped: Counter[str] = Counter()
    pages = [
        _page(member, name, labels=labels, dropped=dropped)
        for member, name in zip(batch.members, image_names(batch), strict=True)
    ]
    annotations = AnnotationSet(labels, tuple(page.image for page in pages if page.image is not None))
    if not annotations.images:
        msg = f"batch {batch.id}: none of its {len(pages)} images can be used"
        raise UnusableError(msg)
    test = frozenset(page.name for page in pages if page.member.test and page.image is not None)
    files = _annotation_files(annotations, batch, fmt, folder=out.name, test=test)
    for page in pages:
        if page.image is not None:
            folder = yolo.images_of(test=page.member.test) if fmt is Format.YOLO else _MODULES[fmt].IMAGES
            files[f"{folder}/{page.name}"] = page.member.jpeg
    files[README] = "".join(_readme(batch, annotations, fmt, test=sorted(test))).encode()
    files[CONTACT_SHEET] = contact_sheet([_tile(page) for page in pages], title=_title(batch))
    files[MANIFEST] = _manifest(batch, fmt, files, labels=labels, pages=pages)
    write_whole(out, files)
    return ExportReport(
        out=out,
        images=len(annotations.images),
        test=len(test),
        boxes=Counter(box.origin or "" for image in annotations.images for box in image.annotations),
        dropped=dropped,
        left_out=tuple((page.member.event_id, page.problem) for page in pages if page.problem is not None),
    )


def image_names(batch: BatchView) -> tuple[str, ...]:
    """Return the file name of each member: batch, rank, `test` or `train`, camera and event, in the order of rank."""
    digits = max(2, len(str(max((member.rank for member in batch.members), default=0))))
    return tuple(
        f"{batch.id:04d}-{member.rank:0{digits}d}-{'test' if member.test else 'train'}-"
        f"{re.sub('[^A-Za-z0-9_-]', '-', member.camera)[:40]}-"
        f"{re.sub('[^A-Za-z0-9]', '', member.event_id)[-8:]}.jpg"
        for member in batch.members
    )


def pre_labels(member: Member, *, labels: Sequence[str], dropped: Counter[str]) -> tuple[Annotation, ...]:
    """Return the boxes that the annotator starts from, row by row; count in `dropped` those that are not among them.

    A box is cut at the border of the frame. A witness's box without a label takes the label suspected in the region.
    Of two near-identical boxes (same label, IoU >= `DOUBLE_IOU`) the detector's stays, else the zoom's, else the surer.
    """
    kept: list[Annotation] = []
    for box in sorted(member.boxes, key=lambda box: (_RANK.get(box.witness, 2), -box.score, box.xyxy, box.label)):
        label = box.label or (member.label if box.witness else "")
        x1, y1, x2, y2 = box.xyxy
        xyxy = (max(x1, 0.0), max(y1, 0.0), min(x2, float(member.width)), min(y2, float(member.height)))
        same = [one.xyxy for one in kept if one.label == label]
        if box.witness is None and box.score < PRE_LABEL_SCORE:
            dropped["under the pre-label score"] += 1
        elif label and not is_label(label):
            dropped["label that cannot be written"] += 1
        elif label not in labels:
            dropped["label not asked for"] += 1
        elif min(round(xyxy[2], 2) - round(xyxy[0], 2), round(xyxy[3], 2) - round(xyxy[1], 2)) < MIN_SIDE_PX:
            dropped["under 3 x 3 px"] += 1
        elif same and box_iou(_array([xyxy]), _array(same)).max() >= DOUBLE_IOU:
            dropped["near-identical to another"] += 1
        else:
            kept.append(Annotation(xyxy, label, box.score, box.witness.value if box.witness else DETECTOR))
    return row_order(kept)


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


def _page(member: Member, name: str, *, labels: Sequence[str], dropped: Counter[str]) -> _Page:
    try:
        open_picture(member.jpeg, width=member.width, height=member.height)
    except UnusableError as error:
        return _Page(member, name, None, str(error))
    with named(f"event {member.event_id}"):
        boxes = pre_labels(member, labels=labels, dropped=dropped)
        return _Page(member, name, AnnotatedImage(name, member.width, member.height, boxes))


def _labels_of(batch: BatchView) -> tuple[str, ...]:
    found = {box.label for member in batch.members for box in member.boxes}
    found |= {member.label for member in batch.members}
    return tuple(sorted(filter(is_label, found))) or (LABEL_WHEN_NONE,)


def _annotation_files(
    annotations: AnnotationSet, batch: BatchView, fmt: Format, *, folder: str, test: frozenset[str]
) -> dict[str, bytes]:
    match fmt:
        case Format.CVAT:
            return cvat.write_cvat(annotations, task=_title(batch), test=test)
        case Format.COCO:
            return coco.write_coco(annotations, description=_title(batch), test=test)
        case Format.YOLO:
            return yolo.write_yolo(annotations, test=test)
        case Format.VOC:
            return voc.write_voc(annotations, test=test)
        case Format.LABELSTUDIO:
            images_at = labelstudio.LOCAL_FILES + quote(f"{folder}/{labelstudio.IMAGES}/")
            return labelstudio.write_labelstudio(annotations, images_at=images_at, model=_model(batch), test=test)


def _readme(batch: BatchView, annotations: AnnotationSet, fmt: Format, *, test: Sequence[str]) -> Iterator[str]:
    cameras = len({(member.site, member.device, member.camera) for member in batch.members})
    images, boxes = len(annotations.images), sum(len(image.annotations) for image in annotations.images)
    yield f"{_title(batch)}\n{'=' * len(_title(batch))}\n\n"
    yield f"The weak point: {plain_text(batch.title, most=_MAX_LINE)}\nThe model that failed: {_model(batch)}\n"
    yield f"{images} images of {cameras} camera{'s' * (cameras != 1)}, {boxes} boxes proposed\n"
    yield "\nWhat to do\n----------\n"
    yield f"{_RULES}\nWhere a proposed box comes from (its origin)\n\n"
    origins = {one.origin for image in annotations.images for one in image.annotations}
    yield from (f"  {origin:10} {meaning}\n" for origin, meaning in _ORIGINS.items() if origin in origins)
    yield "\nLabels\n------\n"
    yield from (f"  {label}\n" for label in annotations.labels)
    yield f"\nThe test share\n--------------\n{_TEST_SHARE if test else _NO_TEST_SHARE}"
    yield from (f"  {name}\n" for name in test)
    heading = f"How to open it ({fmt.value})"
    yield f"\n{heading}\n{'-' * len(heading)}\n{_MODULES[fmt].HOW_TO_OPEN}"
    yield f"\nThe images carry no marks: {CONTACT_SHEET} shows on one page where a miss is suspected and why.\n"
    yield f"{MANIFEST} ties each image to its event: keep it, and keep the names of the images.\n"


def _title(batch: BatchView) -> str:
    return f"Batch {batch.id}: {plain_text(batch.title, most=_MAX_LINE)}"


def _model(batch: BatchView) -> str:
    return plain_text(batch.model, most=_MAX_LINE)


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


def _manifest(
    batch: BatchView, fmt: Format, files: Mapping[str, bytes], *, labels: Sequence[str], pages: Sequence[_Page]
) -> bytes:
    kept = (
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
    content = {
        "batch": batch.id,
        "format": fmt.value,
        "title": batch.title,
        "model": batch.model,
        "labels": list(labels),
        "images": [
            {"name": page.name, "left_out": page.problem} | {key: getattr(page.member, key) for key in kept}
            for page in pages
        ],
        "files": {path: hashlib.sha256(content).hexdigest() for path, content in sorted(files.items())},
    }
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _array(boxes: Sequence[Xyxy]) -> Floats:
    return np.asarray(boxes, np.float32)
