"""A CVAT server's stand-in: in memory, over real HTTP, with the REST shape that cvat-sdk 2.80 uses.

No real CVAT server was run against it, nor is any code of CVAT in it. Paths, headers and answers were taken from what
cvat-sdk 2.80.0 sends and parses (its generated models refuse an answer of another shape), behaviour from reading the
server's source (cvat/apps/dataset_manager: bindings.py, formats/cvat.py):

- Every request but `about` and `login` needs an access token, or the session's cookies, and then for anything but GET
  the CSRF header. A login sets both cookies, as Django does.
- An upload has a start, parts (multipart, or TUS for one large file), and a finish that names a request; the request
  is `started` when first asked for, then `finished` or `failed`, with the last lines of a traceback as its message.
- Frames are numbered by the sorting method. Frame names are the base names of the files.
- On import an image is matched by its name without suffix, else by its id; else the whole import fails. An unknown
  label fails it, too. Undeclared attributes are lost. `source` is overwritten. What was drawn before is replaced.
- An export has every frame that was not deleted, in order, with its annotations and no images.
- Lists come in pages of 10.

It calls itself the version of the installed sdk. `faults` lets requests go wrong, each entry once.
"""

import io
import itertools
import ssl
import threading
import zipfile
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import Self
from xml.sax.saxutils import quoteattr

import cv2
import numpy as np
from cvat_sdk.version import VERSION
from defusedxml import ElementTree

from tests.brokers import DEADLINE_S

TOKEN, USER, PASSWORD = "token-of-ann", "ann", "secret-of-ann"
WHEN = "2026-01-02T03:04:05.000000Z"
FAILED = 'Traceback (most recent call last):\n  File "x.py", line 1, in run\n{}'


@dataclass
class Shape:
    """One rectangle: `points` are x1, y1, x2, y2; `attributes` only those that its label declares."""

    frame: int
    label: str
    points: tuple[float, float, float, float]
    attributes: dict[str, str] = field(default_factory=dict)
    source: str = "manual"


@dataclass
class StandInJob:
    id: int
    start: int
    stop: int
    assignee: str | None = None
    state: str = "new"
    type: str = "annotation"


@dataclass
class StandInTask:
    id: int
    name: str
    labels: dict[str, tuple[str, ...]]
    project: int | None = None
    assignee: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    quality: int | None = None
    sorting: str | None = None
    frames: list[tuple[str, int, int]] = field(default_factory=list)
    deleted: set[int] = field(default_factory=set)
    shapes: list[Shape] = field(default_factory=list)
    jobs: list[StandInJob] = field(default_factory=list)
    imports: int = 0

    def frame_of(self, name: str) -> int:
        return next(number for number, (known, _, _) in enumerate(self.frames) if known == name)

    def finish(self) -> None:
        """Do what a person does at the end: every job's state becomes `completed`."""
        for job in self.jobs:
            job.state = "completed"


class ImportFailedError(Exception):
    """What the server's worker raises."""


class StandInCvat:
    """One server with the users `ann`, `bob` and `cy`. A context manager.

    Attributes:
        tasks: by number.
        projects: number to labels with their attributes.
        asked: method and path of every request, in order.
        organizations: the organizations that requests named.
        faults: (method, part of the path, what goes wrong): a status, `hang`, `cut`, `nonsense`, or
            the URL of another server to redirect to.
        rename: frame names that the server changes when it reads the images.
        lose: how many boxes of an import get lost.
        quality: the image quality that it uses whatever is asked for.
        reading: what the worker raises when it reads the images; empty for nothing.
        slow: requests that never get further than `started`, by a part of their number.
    """

    def __init__(self, *, version: str = VERSION, tls: ssl.SSLContext | None = None) -> None:
        self.version = version
        self.users = {USER: 1, "bob": 2, "cy": 3}
        self.tasks: dict[int, StandInTask] = {}
        self.projects: dict[int, dict[str, tuple[str, ...]]] = {}
        self.asked: list[tuple[str, str]] = []
        self.organizations: set[str] = set()
        self.faults: list[tuple[str, str, int | str]] = []
        self.rename: dict[str, str] = {}
        self.lose = 0
        self.quality: int | None = None
        self.reading = ""
        self.slow = "-"
        self.numbers = itertools.count(1)
        self._requests: dict[str, dict] = {}
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self.exports: dict[str, bytes] = {}
        self.sessions: set[str] = set()
        self._open = threading.Event()
        self.lock = threading.RLock()
        self.came = threading.Condition(self.lock)
        from tests.simulators.cvat_http import Handler

        handler = type("HandlerOfOne", (Handler,), {"server_of": self})
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._http.daemon_threads = True
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.url = f"http{'s' * (tls is not None)}://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def count(self, method: str, part: str) -> int:
        """Return how many requests of this method had this part in their path."""
        return sum(one == method and part in path for one, path in self.asked)

    def wait_for(self, method: str, part: str) -> bool:
        """Wait until such a request has come."""
        with self.came:
            return self.came.wait_for(lambda: self.count(method, part) > 0, DEADLINE_S)

    def wait_while_open(self) -> None:
        """Hang until the stand-in is closed."""
        self._open.wait(DEADLINE_S)

    # What the server does

    def make_task(self, wanted: dict) -> StandInTask:
        project = wanted.get("project_id")
        labels = self.projects[project] if project else _declared(wanted["labels"])
        by_number = {number: name for name, number in self.users.items()}
        task = StandInTask(
            next(self.numbers), wanted["name"], labels, project, by_number.get(wanted.get("assignee_id"))
        )
        self.tasks[task.id] = task
        return task

    def read_images(self, task: StandInTask, wanted: dict) -> None:
        if self.reading:
            raise ImportFailedError(self.reading)
        task.quality = self.quality or wanted["image_quality"]
        task.sorting = wanted.get("sorting_method", "lexicographical")
        if task.sorting != "lexicographical":
            msg = f"the stand-in does not sort {task.sorting}"
            raise ImportFailedError(msg)
        for name in sorted(self.rename.get(name, name) for name in task.files):
            was = next((old for old, new in self.rename.items() if new == name), name)
            image = cv2.imdecode(np.frombuffer(task.files[was], np.uint8), cv2.IMREAD_COLOR)
            task.frames.append((name, image.shape[1], image.shape[0]))
        task.jobs = [StandInJob(next(self.numbers), 0, len(task.frames) - 1)]

    def read_annotations(self, task: StandInTask, xml: bytes) -> None:
        stems = {PurePosixPath(name).stem: number for number, (name, _, _) in enumerate(task.frames)}
        shapes = []
        for image in ElementTree.fromstring(xml).iter("image"):
            frame = stems.get(PurePosixPath(image.attrib["name"]).stem)
            if frame is None and int(image.attrib["id"]) < len(task.frames):
                frame = int(image.attrib["id"])  # this is how boxes get onto the wrong frame
            if frame is None:
                msg = f"Could not match item id: '{image.attrib['name']}' with any task frame"
                raise ImportFailedError(msg)
            for box in image.iter("box"):
                label = box.attrib["label"]
                if label not in task.labels:
                    msg = f"Label '{label}' is not registered for this task"
                    raise ImportFailedError(msg)
                points = tuple(float(box.attrib[name]) for name in ("xtl", "ytl", "xbr", "ybr"))
                found = {one.attrib["name"]: one.text or "" for one in box.iter("attribute")}
                declared = {name: found.get(name, "") for name in task.labels[label]}
                shapes.append(Shape(frame, label, points, declared, "file"))
        task.shapes = shapes[: len(shapes) - self.lose]
        task.imports += 1

    def export(self, task: StandInTask) -> bytes:
        held = io.BytesIO()
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("annotations.xml", "".join(_xml(task)))
        return held.getvalue()

    def start(self, kind: str, task: StandInTask, work) -> dict:
        """Do the work and return what names the request for it."""
        number = f"action={kind}&target=task&id={task.id}&n={next(self.numbers)}"
        answer = {
            "status": "started",
            "id": number,
            "operation": {"type": kind, "target": "task", "task_id": task.id},
            "created_date": WHEN,
            "message": "",
            "progress": 0.5,
            "result_url": None,
            "result_id": None,
        }
        self._requests[number] = answer
        try:
            answer["then"] = {"status": "finished", "progress": 1.0, "result_url": work()}
        except ImportFailedError as error:
            answer["then"] = {"status": "failed", "message": FAILED.format(error)}
        return {"rq_id": number}

    def request(self, number: str) -> dict | None:
        """Return how a request stands, and let it get on."""
        answer = self._requests.get(number)
        if answer is None:
            return None
        now = {key: value for key, value in answer.items() if key != "then"}
        if self.slow not in number:
            answer |= answer.pop("then", {})
        return now

    def keep_export(self, number: str, task: StandInTask) -> str:
        self.exports[number] = self.export(task)
        return f"{self.url}/api/tasks/{task.id}/dataset/download?rq_id={number}"


def _declared(labels: list[dict]) -> dict[str, tuple[str, ...]]:
    return {label["name"]: tuple(one["name"] for one in label.get("attributes", ())) for label in labels}


def _xml(task: StandInTask):
    yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n  <meta>\n    <task>\n'
    yield f"      <id>{task.id}</id>\n      <name>x</name>\n      <size>{len(task.frames)}</size>\n      <labels>\n"
    for name, attributes in task.labels.items():
        yield f"        <label><name>{name}</name><type>rectangle</type><attributes>"
        for one in attributes:
            yield f"<attribute><name>{one}</name><mutable>True</mutable><input_type>text</input_type></attribute>"
        yield "</attributes></label>\n"
    yield f"      </labels>\n    </task>\n    <dumped>{WHEN}</dumped>\n  </meta>\n"
    for number, (name, width, height) in enumerate(task.frames):
        if number in task.deleted:
            continue
        yield f'  <image id="{number}" name={quoteattr(name)} width="{width}" height="{height}">\n'
        for shape in (one for one in task.shapes if one.frame == number):
            x1, y1, x2, y2 = shape.points
            yield f'    <box label={quoteattr(shape.label)} source="{shape.source}" occluded="0" '
            yield f'xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}" z_order="0">\n'
            for key, value in shape.attributes.items():
                yield f'      <attribute name="{key}">{value}</attribute>\n'
            yield "    </box>\n"
        yield "  </image>\n"
    yield "</annotations>\n"
