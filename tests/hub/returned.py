"""What an annotator returns, as files: boxes on the images of a batch in one of the formats."""

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from hub.annotation import AnnotatedImage, Annotation, AnnotationSet
from hub.batch_view import image_names
from hub.batches import batch_view
from hub.export import Format
from hub.formats.coco import write_coco
from hub.formats.cvat import write_cvat
from hub.formats.labelstudio import write_labelstudio
from hub.formats.voc import write_voc
from hub.formats.yolo import write_yolo
from hub.labeling import ImportReport, import_labels
from hub.store import Store
from tests.hub.labelled import NOW, event_id

WRITERS = {
    Format.CVAT: write_cvat,
    Format.COCO: write_coco,
    Format.YOLO: write_yolo,
    Format.VOC: write_voc,
    Format.LABELSTUDIO: write_labelstudio,
}
LABELS = ("person", "head")


def names_of(store: Store, batch: int) -> dict[str, str]:
    """Event id to the name of its image."""
    view = batch_view(store, batch)
    return {member.event_id: name for member, name in zip(view.members, image_names(view), strict=True)}


def annotated(
    store: Store, batch: int, drawn: Mapping[int, Sequence[Annotation]], *, labels: tuple[str, ...] = LABELS
) -> AnnotationSet:
    """Boxes by number of the finding, as a set that can be written."""
    names = names_of(store, batch)
    images = []
    for number, boxes in drawn.items():
        row = store.finding(event_id(number))
        images.append(AnnotatedImage(names[row.event_id], row.width, row.height, tuple(boxes)))
    return AnnotationSet(labels, tuple(images))


def files_of(store: Store, batch: int, drawn: Mapping[int, Sequence[Annotation]], *, fmt="cvat", **more):
    """The files of an answer by path."""
    return dict(WRITERS[Format(fmt)](annotated(store, batch, drawn, **more)))


def take(store: Store, batch: int, source, **more) -> ImportReport:
    """Import, with `LABELS` asked for unless said otherwise."""
    told = {"labels": LABELS, "now_ms": NOW, "annotator": "ann", **more}
    return import_labels(store, source, batch_id=batch, **told)


def stored(store: Store, batch: int, **where) -> dict[str, tuple[Annotation, ...]]:
    """What counts of a batch, by event id; `where` are fields of the label set."""
    return {
        one.event_id: one.boxes
        for one in store.labels.drawn(batch)
        if all(getattr(one.label_set, key) == value for key, value in where.items())
    }


def as_folder(files: Mapping[str, bytes], folder: Path) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return folder


def as_zip(files: Mapping[str, bytes], file: Path) -> Path:
    file.write_bytes(zipped(files))
    return file


def zipped(files: Mapping[str, bytes]) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as opened:
        for path, content in files.items():
            opened.writestr(path, content)
    return made.getvalue()


def bare(boxes: Sequence[Annotation]) -> tuple[Annotation, ...]:
    """The boxes without score and origin."""
    return tuple(Annotation(box.xyxy, box.label) for box in boxes)
