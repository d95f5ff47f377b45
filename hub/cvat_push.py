"""A batch becomes a task on a CVAT server, with its pre-labels: `hub cvat push`.

What is pushed is what `hub batch export --format cvat` writes, file by file.

Laws:

1. No box is sent before the server was seen to hold exactly the batch's images, by name, order and size: it puts boxes
   of an image whose name it does not know on the frame of that number, silently.
2. A push that fails leaves no task behind; where the task cannot be deleted, the error names it, and the next push of
   this batch and pass deletes it. So does the push after one that was killed. One push of a batch and pass at a time.
"""

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
from defusedxml import ElementTree

from edge.contract.errors import UnusableError, WeakspotError
from edge.contract.samples import plain_text
from hub.batches import batch_view
from hub.config import HubConfig
from hub.cvat_server import IMAGE_QUALITY, CvatServer, Report, open_server
from hub.cvat_shapes import Frame
from hub.export import ExportReport, Format, export_batch
from hub.formats.cvat import ANNOTATIONS, IMAGES, LABELS
from hub.store import Store
from hub.store_cvat import CvatTask

_ATTRIBUTES: Final = frozenset({"score", "origin"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """What is to be pushed, and how.

    Attributes:
        batch_id: the batch.
        label_pass: the one label that the task is for; empty for all at once.
        honeypots: how many images with known answers are mixed in.
        project_id: of the project on the server that gets the task; None: a task by itself.
        assignee: the user name of who gets it; empty: nobody yet.
        again: make another task where one stands.
    """

    batch_id: int
    label_pass: str = ""
    honeypots: int = 0
    project_id: int | None = None
    assignee: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What a push has done.

    Attributes:
        batch_id, label_pass: of the task.
        task_id: its number on the server.
        url: its page.
        made: whether it was made now; else it stood there before, and nothing was sent.
        images: how many images were sent; 0 where it stood there.
        test: how many of them are the test share.
        boxes: how many pre-labels.
        left_out: event id and reason of each image that was not sent.
        notes: what whoever pushed should know, one sentence each.
    """

    batch_id: int
    label_pass: str
    task_id: int
    url: str
    made: bool
    images: int = 0
    test: int = 0
    boxes: int = 0
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Export:
    """An exported batch, as the server must come to hold it: frames by number, boxes by frame and label."""

    report: ExportReport
    labels: list[dict[str, Any]]
    frames: tuple[Frame, ...]
    boxes: Counter[tuple[int, str]]


def push_batch(store: Store, config: HubConfig, wish: Push, *, now_ms: int, report: Report) -> Pushed:
    """Make a task of a batch. Raises `UnusableError` and `UnreachableError`, see the laws and hub.cvat_server."""
    view = batch_view(
        store, wish.batch_id, labels=config.labels.names, label_pass=wish.label_pass, honeypots=wish.honeypots
    )
    with open_server(config.cvat, report=report) as server, tempfile.TemporaryDirectory(prefix="weakspot-") as scratch:
        notes = [server.note] if server.note else []
        standing = _standing(store, server, wish.batch_id, label_pass=wish.label_pass, notes=notes)
        if standing and not wish.again:
            return Pushed(
                batch_id=wish.batch_id,
                label_pass=wish.label_pass,
                task_id=standing[-1].task_id,
                url=task_url(server.url, standing[-1].task_id),
                made=False,
                notes=tuple(notes),
            )
        folder = Path(scratch) / f"batch-{wish.batch_id}"
        export = _read_export(export_batch(view, Format.CVAT, folder))
        if wish.project_id is not None:
            notes += _fit_project(server, wish.project_id, export.labels)
        assignee_id = server.user_id(wish.assignee) if wish.assignee else None
        task_id = server.make_task(
            _name(wish, view.title), export.labels, project_id=wish.project_id, assignee_id=assignee_id
        )
        with _whole(store, server, task_id, wish=wish, now_ms=now_ms):
            server.send_images(task_id, [folder / IMAGES / frame.name for frame in export.frames])
            _require_frames(server, task_id, export.frames)
            if export.boxes:
                server.send_annotations(task_id, folder / ANNOTATIONS)
            _require_boxes(server, task_id, export)
        return Pushed(
            batch_id=wish.batch_id,
            label_pass=wish.label_pass,
            task_id=task_id,
            url=task_url(server.url, task_id),
            made=True,
            images=export.report.images,
            test=export.report.test,
            boxes=export.boxes.total(),
            left_out=export.report.left_out,
            notes=(*notes, *view.notes),
        )


def task_url(server: str, task_id: int) -> str:
    """Return the page of a task."""
    return f"{server}/tasks/{task_id}"


def _standing(store: Store, server: CvatServer, batch_id: int, *, label_pass: str, notes: list[str]) -> list[CvatTask]:
    """Return the whole tasks that are there; remove half-made ones, and forget those that were deleted there."""
    found = []
    for row in store.cvat.of(batch_id, label_pass, server=server.url):
        if not row.complete:
            server.remove_task(row.task_id)
            store.cvat.drop(row.id)
            notes.append(f"task {row.task_id} was left half made by an earlier push: it is deleted")
        elif server.task(row.task_id) is None:
            store.cvat.drop(row.id)
            notes.append(f"task {row.task_id} of an earlier push was deleted on the server")
        else:
            found.append(row)
    return found


@contextmanager
def _whole(store: Store, server: CvatServer, task_id: int, *, wish: Push, now_ms: int) -> Iterator[None]:
    """Note the task, and that it is complete at the end; delete it when that is not reached."""
    row = None
    try:
        row = store.cvat.add(wish.batch_id, wish.label_pass, server=server.url, task_id=task_id, now_ms=now_ms)
        yield
        store.cvat.complete(row)
    except BaseException as error:
        try:
            server.remove_task(task_id)
        except WeakspotError:
            url = task_url(server.url, task_id)
            msg = f"{error}; the half-made task is still there: delete {url}, or push again"
            raise UnusableError(msg) from error
        if row is not None:
            store.cvat.drop(row)
        raise


def _read_export(report: ExportReport) -> _Export:
    root = ElementTree.fromstring((report.out / ANNOTATIONS).read_bytes())
    images = sorted(root.findall("image"), key=lambda image: image.attrib["name"])
    return _Export(
        report,
        msgspec.json.decode((report.out / LABELS).read_bytes(), type=list[dict[str, Any]]),
        tuple(Frame(one.attrib["name"], int(one.attrib["width"]), int(one.attrib["height"])) for one in images),
        Counter((number, box.attrib["label"]) for number, one in enumerate(images) for box in one.findall("box")),
    )


def _fit_project(server: CvatServer, project_id: int, labels: Sequence[dict[str, Any]]) -> list[str]:
    """Return what annotators will lack. Raises `UnusableError` where the project has not all labels."""
    there = server.project_labels(project_id)
    wanted = [str(label["name"]) for label in labels]
    if missing := [name for name in wanted if name not in there]:
        msg = f"project {project_id} on {server.url} lacks the labels {', '.join(missing)}: add them there first"
        raise UnusableError(msg)
    if bare := [name for name in wanted if not there[name] >= _ATTRIBUTES]:
        lacks = f"project {project_id} declares no attributes score and origin for {', '.join(bare)}"
        return [f"{lacks}: annotators will not see where a proposed box comes from"]
    return []


def _require_frames(server: CvatServer, task_id: int, expected: tuple[Frame, ...]) -> None:
    there = server.frames(task_id)
    if there.image_quality != IMAGE_QUALITY:
        msg = f"{server.url} shows the images at quality {there.image_quality}, asked for {IMAGE_QUALITY}"
        raise UnusableError(msg)
    for number, frame in enumerate(expected):
        found = there.frames[number] if number < len(there.frames) else None
        if found != frame:
            msg = f"{server.url} holds other images than were sent: frame {number} is {_called(found)}, not "
            msg += f"{_called(frame)}; no box was sent"
            raise UnusableError(msg)
    if len(there.frames) > len(expected):
        msg = f"{server.url} holds {len(there.frames)} images, {len(expected)} were sent; no box was sent"
        raise UnusableError(msg)


def _called(frame: Frame | None) -> str:
    return "missing" if frame is None else f"{plain_text(frame.name, most=200)} of {frame.width} x {frame.height}"


def _require_boxes(server: CvatServer, task_id: int, export: _Export) -> None:
    there = server.boxes(task_id)
    if there == export.boxes:
        return
    number, label = min((export.boxes - there) or (there - export.boxes))
    name = export.frames[number].name if number < len(export.frames) else f"frame {number}"
    msg = (
        f"{server.url} holds {there.total()} boxes, {export.boxes.total()} were sent: of {label} on {name}"
        f" {there[number, label]}, not {export.boxes[number, label]}"
    )
    raise UnusableError(msg)


def _name(wish: Push, title: str) -> str:
    of_pass = f", {wish.label_pass} only" if wish.label_pass else ""
    return f"Batch {wish.batch_id}{of_pass}: {plain_text(title, most=200)}"
