"""What people drew in the tasks of a batch on a CVAT server, imported as label sets: `hub cvat pull`.

Laws:

1. Nothing of a task that is not completed is imported unless that is asked for.
2. Each annotator's images become one label set. Who drew is who the job is assigned to, else the task.
3. What was imported before and has not changed since is not imported again, also after a pull that was killed.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final
from xml.etree.ElementTree import Element, tostring  # only writes; what is read goes through defusedxml

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from edge.contract.errors import UnusableError
from hub.config import HubConfig
from hub.cvat_push import task_url
from hub.cvat_server import CvatServer, Report, open_server
from hub.cvat_shapes import Job, Task
from hub.formats import find_file, open_files
from hub.formats.cvat import ANNOTATIONS
from hub.labeling import ImportReport, import_labels
from hub.store import Store
from hub.store_cvat import CvatTask

COMPLETED: Final = "completed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """What is to be pulled, and how.

    Attributes:
        batch_id: the batch.
        label_pass: the pass that its tasks were pushed for; empty for all labels at once.
        annotator: who drew it all; empty: the users to whom jobs and tasks are assigned.
        minutes: of people's work; of several annotators each gets the share of their images.
        fix: repair what is safe to repair.
        unfinished: import tasks that are not completed, too.
    """

    batch_id: int
    label_pass: str = ""
    annotator: str = ""
    minutes: float | None = None
    fix: bool = False
    unfinished: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What one annotator has drawn in one task.

    Attributes:
        task_id: of the server.
        annotator: who drew.
        imported: what the import says; None where nothing has changed since the last pull.
    """

    task_id: int
    annotator: str
    imported: ImportReport | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pulled:
    """What a pull has found.

    Attributes:
        answers: by task, then by first image.
        unfinished: the tasks that are not completed and were left, each with the jobs' states.
        notes: what whoever pulled should know, one sentence each.
    """

    answers: tuple[Answer, ...]
    unfinished: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Part:
    """The images of one annotator.

    Attributes:
        annotator: who drew.
        xml: a CVAT file of these images alone.
        mark: a hash of what is drawn on them.
        share: of the task's images.
        others: the names of the images of the other annotators.
    """

    annotator: str
    xml: bytes
    mark: str
    share: float
    others: frozenset[str]


def pull_batch(store: Store, config: HubConfig, wish: Pull, *, now_ms: int, report: Report) -> Pulled:
    """Import what was drawn in every task of a batch and pass.

    Raises `UnusableError` when there is no such task, nobody is assigned to one, or what was drawn cannot be imported
    (`hub.labeling.FaultsError`): what was imported before that stays. See also hub.cvat_server.
    """
    answers: list[Answer] = []
    unfinished: list[tuple[str, str]] = []
    with open_server(config.cvat, report=report) as server, tempfile.TemporaryDirectory(prefix="weakspot-") as scratch:
        notes = [server.note] if server.note else []
        for row, task in _tasks(store, server, wish, notes=notes):
            jobs = server.jobs(task.id)
            if not wish.unfinished and (states := _unfinished(jobs)):
                unfinished.append((task_url(server.url, task.id), states))
                continue
            who = [wish.annotator or _who(server, task, job) for job in jobs]
            path = Path(scratch) / f"task-{task.id}.zip"
            server.download(task.id, path)
            for part in _parts(path, jobs, who, annotator=wish.annotator):
                imported = _import(store, config, wish, row=row, part=part, now_ms=now_ms)
                answers.append(Answer(task.id, part.annotator, imported))
    return Pulled(answers=tuple(answers), unfinished=tuple(unfinished), notes=tuple(notes))


def _tasks(store: Store, server: CvatServer, wish: Pull, *, notes: list[str]) -> list[tuple[CvatTask, Task]]:
    rows = [row for row in store.cvat.of(wish.batch_id, wish.label_pass, server=server.url) if row.complete]
    found = []
    for row in rows:
        task = server.task(row.task_id)
        if task is None:
            notes.append(f"task {row.task_id} was deleted on the server: what was drawn in it is lost")
        else:
            found.append((row, task))
    if not found:
        of_pass = f" --pass {wish.label_pass}" if wish.label_pass else ""
        why = "; ".join(notes) or f"batch {wish.batch_id} has no task there"
        msg = f"{server.url}: {why}; `hub cvat push {wish.batch_id}{of_pass}` makes one"
        raise UnusableError(msg)
    return found


def _unfinished(jobs: Sequence[Job]) -> str:
    """Return what is not completed; empty when all is."""
    if not jobs:
        return "no job"
    return ", ".join(f"job {job.id} is {job.state}" for job in jobs if job.state != COMPLETED)


def _who(server: CvatServer, task: Task, job: Job) -> str:
    user = job.assignee or task.assignee
    if user is None:
        url = task_url(server.url, task.id)
        msg = f"nobody is assigned to job {job.id} of {url}: assign it there, or say who drew with --annotator"
        raise UnusableError(msg)
    return user.username


def _parts(path: Path, jobs: Sequence[Job], who: Sequence[str], *, annotator: str) -> list[_Part]:
    """Return the parts of the annotators, in the order of their first images."""
    files = open_files(path)
    whole = files[find_file(files, name=ANNOTATIONS, suffix=".xml")]
    try:
        root = fromstring(whole)
        images = [(image, _of_frame(int(image.attrib["id"]), jobs, who) or annotator) for image in root.iter("image")]
        names = list(dict.fromkeys(name for _, name in images if name))
        return [_part(root, images, name, whole=whole if len(names) == 1 else None) for name in names]
    except (ParseError, DefusedXmlException, KeyError, ValueError, RecursionError) as error:
        msg = f"what CVAT has written cannot be read: {error}"
        raise UnusableError(msg) from error


def _of_frame(frame: int, jobs: Sequence[Job], who: Sequence[str]) -> str:
    """Return who drew on a frame; empty where no job has it."""
    of = (name for job, name in zip(jobs, who, strict=True) if job.start_frame <= frame <= job.stop_frame)
    return next(of, "")


def _part(root: Element, images: Sequence[tuple[Element, str]], name: str, *, whole: bytes | None) -> _Part:
    own = [image for image, annotator in images if annotator == name]
    mark = hashlib.sha256(b"".join(tostring(image) for image in own)).hexdigest()
    if whole is None:
        alone = Element(root.tag)
        alone.extend([*(child for child in root if child.tag != "image"), *own])
        whole = tostring(alone)
    others = frozenset(image.attrib.get("name", "") for image, annotator in images if annotator != name)
    return _Part(name, whole, mark, len(own) / len(images), others)


def _import(
    store: Store, config: HubConfig, wish: Pull, *, row: CvatTask, part: _Part, now_ms: int
) -> ImportReport | None:
    """Import what one annotator drew and note it; None where it is what the last pull imported."""
    pulled = store.cvat.pulled(row.id)
    if pulled.get(part.annotator) == part.mark:
        return None

    def note() -> None:
        if store.cvat.pulled(row.id) != pulled:
            msg = f"another pull of {task_url(row.server, row.task_id)} has just imported from it: pull again"
            raise UnusableError(msg)
        store.cvat.note_pulled(row.id, {**pulled, part.annotator: part.mark})

    imported = import_labels(
        store,
        {ANNOTATIONS: part.xml},
        batch_id=wish.batch_id,
        annotator=part.annotator,
        label_pass=wish.label_pass,
        minutes=None if wish.minutes is None else round(wish.minutes * part.share, 2),
        fix=wish.fix,
        labels=config.labels.names,
        now_ms=now_ms,
        source_name=f"CVAT, {task_url(row.server, row.task_id)}",
        alongside=note,
    )
    return replace(imported, missing=tuple(name for name in imported.missing if name not in part.others))
