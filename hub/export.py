"""Export a frozen batch into a folder that an annotator can open.

The folder holds the images as they came from the camera, the annotations in one format, `README.txt` for the
annotator, `contact-sheet.png`, and `batch.json`, which ties each image to the event it came from.

Laws:

1. The folder appears whole or not at all.
2. Only an untouched earlier export of the same batch in the same format is replaced: no person's work is lost.
3. The image files are the JPEG bytes as they came. An image that is broken, or of another size than its event states,
   is left out, and the report says so: boxes on a picture of another size would lie wrong.
4. Every proposed box that does not reach the annotator is counted by its reason.
"""

import hashlib
import json
import os
import re
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Final
from urllib.parse import quote

import msgspec
import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.samples import Box, WitnessKind
from edge.detector.detections import Floats, box_iou
from hub.annotation import MIN_SIDE_PX, AnnotatedImage, Annotation, AnnotationSet, Xyxy, named, row_order
from hub.contact_sheet import DETECTOR, Tile, contact_sheet, decode_jpeg
from hub.formats import coco, cvat, labelstudio, voc, yolo

PRE_LABEL_SCORE: Final = 0.3
DOUBLE_IOU: Final = 0.7

MANIFEST: Final = "batch.json"
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

_RULES: Final = """\
- Draw a box around every object of the labels below that you can recognise, also around those that the detector
  missed. What you cannot recognise, leave.
- Nothing under 3 x 3 pixels.
- Look row by row, from top to bottom, in each row from RIGHT to LEFT: this is the order in which people overlook
  least. The proposed boxes are listed in this order.
- Proposed boxes may be wrong: move them, relabel them, delete them.
- Look at the whole image, not only where a miss is suspected. An image without any object stays empty.
"""

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
        device: that saw it.
        camera: of the device.
        captured_at_ms: UTC, milliseconds since 1970.
        reason: why the device mined it.
        severity: 0..1.
        why: why it was chosen for this batch, in plain words.
        region: `xyxy` pixels of the frame where the miss is suspected.
        label: the label suspected there; empty when none is.
        boxes: the detector's and the witnesses'.
        jpeg: the frame.
        width: of the frame, in pixels, as the finding states.
        height: the same.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """A frozen batch.

    Attributes:
        id: its number.
        title: the weak point that it was made for.
        model: the release that failed.
        members: by rank.
        labels: the labels that the annotator is asked for, in their fixed order; when empty, those that occur in the
            boxes, in the order of the alphabet.
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
        boxes: how many pre-labels, by origin.
        dropped: how many proposed boxes were not written, by reason.
        left_out: event id and reason of each image that was not written.
    """

    out: Path
    images: int
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


class _Manifest(msgspec.Struct):
    """What an earlier export says of itself."""

    batch: int
    format: str
    files: dict[str, str]


def export_batch(batch: BatchView, fmt: Format, out: Path, *, pre_label_score: float = PRE_LABEL_SCORE) -> ExportReport:
    """Write the batch into the folder `out` and report what was written.

    The detector's boxes with at least `pre_label_score` and all boxes of the witnesses become pre-labels. Raises
    `UnusableError` when `out` holds anything but an untouched earlier export of this batch in this format, when no
    image of the batch can be used, and when the folder cannot be written.
    """
    out = out.resolve()
    require_replaceable(out, batch, fmt)
    labels = batch.labels or _labels_of(batch)
    dropped: Counter[str] = Counter()
    pages = [
        _page(member, name, labels=labels, least_score=pre_label_score, dropped=dropped)
        for member, name in zip(batch.members, image_names(batch), strict=True)
    ]
    annotations = AnnotationSet(labels, tuple(page.image for page in pages if page.image is not None))
    if not annotations.images:
        msg = f"batch {batch.id}: none of its {len(pages)} images can be used"
        raise UnusableError(msg)
    files = _annotation_files(annotations, batch, fmt, folder=out.name)
    files |= {f"{_MODULES[fmt].IMAGES}/{page.name}": page.member.jpeg for page in pages if page.image is not None}
    files[README] = "".join(_readme(batch, annotations, fmt)).encode()
    files[CONTACT_SHEET] = contact_sheet([_tile(at, page) for at, page in enumerate(pages, 1)], title=_title(batch))
    files[MANIFEST] = _manifest(batch, fmt, files, labels=labels, pages=pages)
    _write_whole(out, files)
    return ExportReport(
        out=out,
        images=len(annotations.images),
        boxes=Counter(box.origin or "" for image in annotations.images for box in image.annotations),
        dropped=dropped,
        left_out=tuple((page.member.event_id, page.problem) for page in pages if page.problem is not None),
    )


def image_names(batch: BatchView) -> tuple[str, ...]:
    """Return the file name of each member: batch, rank, camera and event. Sorted by name they stand by rank."""
    digits = max(2, len(str(len(batch.members))))
    return tuple(
        f"{batch.id:04d}-{rank:0{digits}d}-{re.sub('[^A-Za-z0-9_-]', '-', member.camera)[:40]}-"
        f"{re.sub('[^A-Za-z0-9]', '', member.event_id)[:8]}.jpg"
        for rank, member in enumerate(batch.members, 1)
    )


def pre_labels(
    member: Member, *, labels: Sequence[str], least_score: float, dropped: Counter[str]
) -> tuple[Annotation, ...]:
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
        if box.witness is None and box.score < least_score:
            dropped["under the pre-label score"] += 1
        elif label not in labels:
            dropped["label not asked for"] += 1
        elif min(round(xyxy[2], 2) - round(xyxy[0], 2), round(xyxy[3], 2) - round(xyxy[1], 2)) < MIN_SIDE_PX:
            dropped["under 3 x 3 px"] += 1
        elif same and box_iou(_array([xyxy]), _array(same)).max() >= DOUBLE_IOU:
            dropped["near-identical to another"] += 1
        else:
            kept.append(Annotation(xyxy, label, box.score, box.witness.value if box.witness else DETECTOR))
    return row_order(kept)


def require_replaceable(out: Path, batch: BatchView, fmt: Format) -> None:
    """Raise `UnusableError` unless `out` is absent, empty, or an untouched export of this batch in this format."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        earlier = msgspec.json.decode((out / MANIFEST).read_bytes(), type=_Manifest)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        msg = f"{out} is not empty and not an export; choose another folder"
        raise UnusableError(msg) from error
    if (earlier.batch, earlier.format) != (batch.id, fmt.value):
        msg = f"{out} holds batch {earlier.batch} as {earlier.format}; choose another folder"
        raise UnusableError(msg)
    for path in sorted(path for path in out.rglob("*") if not path.is_dir()):
        name = path.relative_to(out).as_posix()
        if name != MANIFEST and earlier.files.get(name) != hashlib.sha256(path.read_bytes()).hexdigest():
            msg = f"{out}: {name} was added or changed after the export; choose another folder or move it away"
            raise UnusableError(msg)


def _page(member: Member, name: str, *, labels: Sequence[str], least_score: float, dropped: Counter[str]) -> _Page:
    try:
        height, width = decode_jpeg(member.jpeg).shape[:2]
    except UnusableError as error:
        return _Page(member, name, None, str(error))
    if (width, height) != (member.width, member.height):
        problem = f"the JPEG is {width} x {height}, its event says {member.width} x {member.height}"
        return _Page(member, name, None, problem)
    with named(f"event {member.event_id}"):
        boxes = pre_labels(member, labels=labels, least_score=least_score, dropped=dropped)
        return _Page(member, name, AnnotatedImage(name, width, height, boxes))


def _labels_of(batch: BatchView) -> tuple[str, ...]:
    found = {box.label for member in batch.members for box in member.boxes}
    found |= {member.label for member in batch.members}
    if not found - {""}:
        msg = f"batch {batch.id} names no label to annotate"
        raise UnusableError(msg)
    return tuple(sorted(found - {""}))


def _annotation_files(annotations: AnnotationSet, batch: BatchView, fmt: Format, *, folder: str) -> dict[str, bytes]:
    match fmt:
        case Format.CVAT:
            return cvat.write_cvat(annotations, task=_title(batch))
        case Format.COCO:
            return coco.write_coco(annotations, description=_title(batch))
        case Format.YOLO:
            return yolo.write_yolo(annotations)
        case Format.VOC:
            return voc.write_voc(annotations)
        case Format.LABELSTUDIO:
            images_at = labelstudio.LOCAL_FILES + quote(f"{folder}/{labelstudio.IMAGES}/")
            return labelstudio.write_labelstudio(annotations, images_at=images_at, model=batch.model)


def _readme(batch: BatchView, annotations: AnnotationSet, fmt: Format) -> Iterator[str]:
    cameras = len({(member.site, member.device, member.camera) for member in batch.members})
    images, boxes = len(annotations.images), sum(len(image.annotations) for image in annotations.images)
    yield f"{_title(batch)}\n{'=' * len(_title(batch))}\n\n"
    yield f"The weak point: {' '.join(batch.title.split())}\nThe model that failed: {batch.model}\n"
    yield f"{images} images of {cameras} camera{'s' * (cameras != 1)}, {boxes} boxes proposed\n"
    yield "\nWhat to do\n----------\n"
    yield f"{_RULES}\nWhere a proposed box comes from (its origin)\n\n"
    origins = {one.origin for image in annotations.images for one in image.annotations}
    yield from (f"  {origin:10} {meaning}\n" for origin, meaning in _ORIGINS.items() if origin in origins)
    yield "\nLabels\n------\n"
    yield from (f"  {label}\n" for label in annotations.labels)
    heading = f"How to open it ({fmt.value})"
    yield f"\n{heading}\n{'-' * len(heading)}\n{_MODULES[fmt].HOW_TO_OPEN}"
    yield f"\nThe images carry no marks: {CONTACT_SHEET} shows on one page where a miss is suspected and why.\n"
    yield f"{MANIFEST} ties each image to its event: keep it, and keep the names of the images.\n"


def _title(batch: BatchView) -> str:
    return f"Batch {batch.id}: {' '.join(batch.title.split())}"


def _tile(rank: int, page: _Page) -> Tile:
    member = page.member
    boxes = page.image.annotations if page.image else ()
    return Tile(
        jpeg=member.jpeg,
        region=member.region,
        reason=member.reason,
        caption=(
            f"{rank:02d} | {member.camera} | {_utc(member.captured_at_ms)}",
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
    kept = ("event_id", "site", "device", "camera", "captured_at_ms", "reason", "severity", "why", "region", "label")
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


def _write_whole(out: Path, files: Mapping[str, bytes]) -> None:
    """Write beside `out`, then put the folder in its place by renaming."""
    token = secrets.token_hex(4)
    partial, old = out.with_name(f".{out.name}.{token}.partial"), out.with_name(f".{out.name}.{token}.old")
    try:
        for path, content in files.items():
            (partial / path).parent.mkdir(parents=True, exist_ok=True)
            with (partial / path).open("xb") as file:
                file.write(content)
                os.fsync(file.fileno())
        if out.exists():
            out.rename(old)
        partial.rename(out)
    except OSError as error:
        msg = f"{out}: cannot be written: {error.strerror}"
        raise UnusableError(msg) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        elif old.exists():
            old.rename(out)


def _array(boxes: Sequence[Xyxy]) -> Floats:
    return np.asarray(boxes, np.float32)
