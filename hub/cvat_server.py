"""One CVAT server, as much of it as pushing and pulling a batch needs. The only place where `cvat_sdk` is called.

Laws:

1. Every request goes to the server of the configuration, whatever address an answer names; a redirect to another host
   carries no token and no cookie. TLS is verified.
2. Every request ends: with an answer, or after `timeout_s`; every wait for the server's own work after `wait_s`.
3. Whatever fails becomes one sentence: `UnreachableError` where nobody answered, else `UnusableError`. No secret is in
   it, nor an answer's headers.
"""

import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from edge.contract.errors import UnreachableError, UnusableError, WeakspotError
from hub.config import CvatConfig
from hub.cvat_refusals import in_words
from hub.cvat_shapes import Annotations, Frames, Job, Label, Task, Users

IMAGE_QUALITY: Final = 100
EXPORT_FORMAT: Final = "CVAT for images 1.1"
IMPORT_FORMAT: Final = "CVAT 1.1"
NAME_LENGTH: Final = 256  # of a task

_FIRST_ANSWER_S: Final = 10.0
_PART_BYTES: Final = 8 * 2**20  # of images in one request, so that each can be sent within the time-out
_PAUSES_S: Final = (0.05, 2.0)
_RETRIED: Final = (502, 503, 504)
_quiet = logging.getLogger("cvat-sdk")  # what it says is in the errors
_quiet.propagate = False
_quiet.addHandler(logging.NullHandler())

Report = Callable[[str, float, float], None]
"""Hears how far the work is: what is being done, how much, of how much."""


@contextmanager
def open_server(config: CvatConfig, *, report: Report) -> Iterator["CvatServer"]:
    """Log in, and out again.

    Raises `UnusableError` when no server is configured, `cvat-sdk` is not installed, a file of `[cvat]` cannot be read,
    or the server refuses; `UnreachableError` when it does not answer.
    """
    if not config.url:
        msg = "no CVAT server is named: set `url` and `token_file` in [cvat] of hub.toml"
        raise UnusableError(msg)
    try:
        import cvat_sdk
        from cvat_sdk.api_client.rest import RESTClientObject
    except ModuleNotFoundError as missing:
        msg = f'{missing.name} is not installed; run: pip install "weakspot[cvat]"'
        raise UnusableError(msg) from missing
    import urllib3

    secret = _first_line(config.token_file or config.password_file)
    url = config.url.rstrip("/")
    client = cvat_sdk.Client(url, logger=_quiet, check_server_version=False)
    settings = client.api_client.configuration
    settings.ssl_ca_cert = None if config.ca is None else _readable(config.ca)
    settings.retries = urllib3.Retry(
        total=2,
        read=0,
        backoff_factor=0.5,
        status_forcelist=_RETRIED,
        raise_on_status=False,
        respect_retry_after_header=False,
    )
    with in_words(url, f"using {config.ca}"):
        client.api_client.rest_client = RESTClientObject(settings)
    _hold_to(client.api_client.rest_client, url, timeout_s=config.timeout_s)
    server = CvatServer(client, url, wait_s=config.wait_s, report=report)
    try:
        server.log_in(config, secret)
        yield server
    finally:
        with suppress(WeakspotError), in_words(url, "logging out"):
            client.logout()
        client.close()
        client.api_client.rest_client.pool_manager.clear()


class CvatServer:
    """A server that is logged in to. Made by `open_server`. Every method may raise as the module's third law says.

    Attributes:
        url: without a slash at its end.
        version: what the server says that it is.
        note: empty, or one sentence: the server is of another version than `cvat-sdk` is made for.
    """

    def __init__(self, client: Any, url: str, *, wait_s: float, report: Report) -> None:
        self.url = url
        self.version = ""
        self.note = ""
        self._client = client
        self._api = client.api_client
        self._wait_s = wait_s
        self._report = report
        client.wait_for_completion = self._wait

    def log_in(self, config: CvatConfig, secret: str) -> None:
        """Ask for the version, then prove who we are."""
        import cvat_sdk
        from cvat_sdk.core.client import AccessTokenCredentials
        from cvat_sdk.core.exceptions import IncompatibleVersionException

        first = min(_FIRST_ANSWER_S, config.timeout_s)
        with in_words(self.url, "asking for its version"):
            about, _ = self._api.server_api.retrieve_about(_request_timeout=(first, config.timeout_s))
            self.version = str(about.version)
            try:
                self._client.check_server_version(fail_if_unsupported=True)
            except IncompatibleVersionException:
                own = ".".join(self.version.split(".")[:2])
                self.note = (
                    f"the server is CVAT {self.version}, cvat-sdk here is {cvat_sdk.__version__}: should anything fail,"
                    f' pip install "cvat-sdk=={own}.*"'
                )
        with self._doing("logging in"):
            if config.username is None:
                self._client.login(AccessTokenCredentials(secret))
            else:
                self._client.login((config.username, secret))
            if config.organization:
                self._client.organization_slug = config.organization
            self._api.users_api.retrieve_self()

    # Tasks

    def user_id(self, name: str) -> int:
        """Return the number of a user. Raises `UnusableError` when there is none of that name, or none that we see."""
        with self._doing("looking for the user"):
            _, response = self._api.users_api.list(search=name, page_size=100)
            found = msgspec.json.decode(response.data, type=Users).results
        for user in found:
            if user.username == name:
                return user.id
        msg = f"{self.url} has no user {name!r} that this account can see"
        raise UnusableError(msg)

    def project_labels(self, project_id: int) -> dict[str, frozenset[str]]:
        """Return the labels of a project, each with the names of its attributes."""
        with self._doing(f"reading the labels of project {project_id}"):
            self._api.projects_api.retrieve(project_id)  # of a project that is not there, the list of labels is empty
            labels = self._labels(project_id=project_id)
        return {label.name: frozenset(one.name for one in label.attributes) for label in labels}

    def make_task(
        self, name: str, labels: Sequence[Mapping[str, object]], *, project_id: int | None, assignee_id: int | None
    ) -> int:
        """Make an empty task and return its number. `labels` is as of CVAT's raw constructor; not used in a project."""
        wanted: dict[str, object] = {"name": name[:NAME_LENGTH]}
        wanted |= {"labels": list(labels)} if project_id is None else {"project_id": project_id}
        wanted |= {} if assignee_id is None else {"assignee_id": assignee_id}
        try:
            with self._doing("making the task"):
                return int(self._client.tasks.create(wanted).id)
        except UnreachableError as error:
            msg = f"{error}; should a task {wanted['name']!r} without images be there, delete it"
            raise UnreachableError(msg) from error

    def task(self, task_id: int) -> Task | None:
        """Return a task, None when it is not there."""
        from cvat_sdk.api_client.exceptions import NotFoundException

        with self._doing(f"reading task {task_id}"):
            try:
                _, response = self._api.tasks_api.retrieve(task_id)
            except NotFoundException:
                return None
            return msgspec.json.decode(response.data, type=Task)

    def jobs(self, task_id: int) -> list[Job]:
        """Return the parts of a task that people annotate, by frame."""
        from cvat_sdk.core.helpers import get_paginated_collection

        with self._doing(f"reading the jobs of task {task_id}"):
            found = get_paginated_collection(self._api.jobs_api.list_endpoint, return_json=True, task_id=task_id)
            jobs = msgspec.convert(found, list[Job])
        return sorted((job for job in jobs if job.type == "annotation"), key=lambda job: (job.start_frame, job.id))

    def remove_task(self, task_id: int) -> None:
        """Delete a task and all in it; one that is not there is removed."""
        from cvat_sdk.api_client.exceptions import NotFoundException

        with self._doing(f"deleting task {task_id}"), suppress(NotFoundException):
            self._api.tasks_api.destroy(task_id)

    # What is in them

    def send_images(self, task_id: int, paths: Sequence[Path]) -> None:
        """Send the images at quality 100, to be numbered by their names, and wait until the server has read them."""
        from cvat_sdk.core.uploading import DataUploader

        with self._doing("sending the images"):
            url = f"{self.url}/api/tasks/{task_id}/data/"
            response = DataUploader(self._client, max_request_size=_PART_BYTES).upload_files(
                url,
                list(paths),
                pbar=_Bar(self._report, "sending the images"),
                image_quality=IMAGE_QUALITY,
                sorting_method="lexicographical",
            )
            request = json.loads(response.data)["rq_id"]
        with self._doing("reading the images"):
            self._wait(request, log_prefix="the server reads the images")

    def frames(self, task_id: int) -> Frames:
        """Return the frames as the server has numbered them."""
        with self._doing("reading the names of the frames"):
            _, response = self._api.tasks_api.retrieve_data_meta(task_id)
            return msgspec.json.decode(response.data, type=Frames)

    def send_annotations(self, task_id: int, path: Path) -> None:
        """Send a CVAT 1.1 file, and wait until the server has read it."""
        with self._doing("sending the pre-labels"):
            self._client.tasks.retrieve(task_id).import_annotations(
                IMPORT_FORMAT, path, pbar=_Bar(self._report, "sending the pre-labels")
            )

    def boxes(self, task_id: int) -> Counter[tuple[int, str]]:
        """Count the shapes by number of frame and label."""
        with self._doing("reading the boxes back"):
            _, response = self._api.tasks_api.retrieve_annotations(task_id)
            shapes = msgspec.json.decode(response.data, type=Annotations).shapes
            names = {label.id: label.name for label in self._labels(task_id=task_id)}
        return Counter((shape.frame, names.get(shape.label_id, "")) for shape in shapes)

    def download(self, task_id: int, path: Path) -> None:
        """Write the annotations without the images to `path`: a ZIP as 'CVAT for images 1.1'."""
        from cvat_sdk.core.downloading import Downloader

        with self._doing("writing the annotations out"):
            downloader = Downloader(self._client)
            request = downloader.prepare_file(
                self._api.tasks_api.create_dataset_export_endpoint,
                url_params={"id": task_id},
                query_params={"format": EXPORT_FORMAT, "save_images": False, "location": "local"},
            )
            if not request.result_url:
                msg = f"{self.url}: it does not say where the annotations of task {task_id} can be fetched"
                raise UnusableError(msg)
        with self._doing("fetching the annotations"):
            downloader.download_file(
                request.result_url, path, timeout=None, pbar=_Bar(self._report, "fetching the annotations")
            )

    def _labels(self, **of: int) -> tuple[Label, ...]:
        from cvat_sdk.core.helpers import get_paginated_collection

        found = get_paginated_collection(self._api.labels_api.list_endpoint, return_json=True, **of)
        return msgspec.convert(found, tuple[Label, ...])

    def _wait(self, request: str, *, status_check_period: float | None = None, log_prefix: str | None = None) -> Any:
        """Wait for work that the server does by itself; in the place of the sdk's own, which waits without end."""
        from cvat_sdk.core.exceptions import BackgroundRequestException

        started_s = time.monotonic()
        pause_s, longest_s = _PAUSES_S
        while True:
            answer, response = self._api.requests_api.retrieve(request)
            self._report(log_prefix or "waiting for the server", answer.get("progress") or 0.0, 1.0)
            if answer.status.value == "finished":
                return answer, response
            if answer.status.value == "failed":
                raise BackgroundRequestException(answer.get("message") or "no reason given")
            if time.monotonic() - started_s > self._wait_s:
                msg = f"{self.url}: not done after {self._wait_s:g} s (`cvat.wait_s`): {answer.status.value}"
                raise UnreachableError(msg)
            time.sleep(pause_s)
            pause_s = min(1.5 * pause_s, status_check_period or longest_s)

    def _doing(self, what: str) -> Any:
        return in_words(self.url, what, version=self.version)


class _Bar:
    """What the sdk reports bytes to."""

    def __init__(self, report: Report, what: str) -> None:
        self._report = report
        self._what = what
        self._done = self._total = 0.0

    @contextmanager
    def task(self, *, total: float | None, **_: object) -> Iterator[None]:
        self._done, self._total = 0.0, total or 0.0
        yield

    def advance(self, delta: float) -> None:
        self._done += delta
        self._report(self._what, self._done, self._total)


def _hold_to(rest: Any, url: str, *, timeout_s: float) -> None:
    """Let every request of the client go to `url`'s host, and end."""
    own = urlsplit(url)[:2]
    plain = rest.request

    def request(method: str, url: str, **more: Any) -> Any:
        if not more.get("_request_timeout"):
            more["_request_timeout"] = (timeout_s, timeout_s)
        return plain(method, urlunsplit((*own, *urlsplit(url)[2:])), **more)

    rest.request = request


def _first_line(path: Path | None) -> str:
    if path is None:
        msg = "[cvat] says no way to log in"
        raise UnusableError(msg)
    try:
        line = path.read_text(encoding="utf-8").split("\n", 1)[0].strip()
    except (OSError, ValueError) as error:
        msg = f"cannot use {path} of [cvat]: {error}"
        raise UnusableError(msg) from error
    if not line:
        msg = f"{path} of [cvat] is empty"
        raise UnusableError(msg)
    return line


def _readable(path: Path) -> str:
    try:
        path.read_bytes()
    except OSError as error:
        msg = f"cannot use {path} of [cvat]: {error.strerror}"
        raise UnusableError(msg) from error
    return str(path)
