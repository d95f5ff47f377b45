"""How the stand-in of tests.simulators.cvat is spoken to: logins, uploads in parts, pages, and what goes wrong."""

import base64
import email.parser
import email.policy
import json
import re
from http.server import BaseHTTPRequestHandler
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from tests.simulators.cvat import PASSWORD, TOKEN, USER, StandInCvat, StandInTask
from tests.simulators.cvat_answers import (
    annotations_answer,
    job_answer,
    labels_answer,
    meta_answer,
    project_answer,
    task_answer,
    user_answer,
)

PAGE = 10


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_of: StandInCvat
    cut = False

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        self._serve("GET")

    def do_POST(self) -> None:
        self._serve("POST")

    def do_PATCH(self) -> None:
        self._serve("PATCH")

    def do_DELETE(self) -> None:
        self._serve("DELETE")

    def _serve(self, method: str) -> None:
        server = self.server_of
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        with server.lock:
            server.asked.append((method, parts.path))
            server.came.notify_all()
            fault = next((one for one in server.faults if one[0] == method and one[1] in parts.path), None)
            if fault is not None:
                server.faults.remove(fault)
        self.cut = fault is not None and fault[2] == "cut"
        if fault is not None and not self.cut:
            self._misbehave(fault[2])
            return
        with server.lock:
            self._route(method, parts.path.rstrip("/"), query, body)

    def _misbehave(self, how: int | str) -> None:
        match how:
            case int():
                self._answer(how, {"detail": f"the stand-in was told to say {how}"})
            case "hang":
                self.server_of.wait_while_open()
                self.close_connection = True
            case "nonsense":
                self._answer(200, None, raw=b"<html>hello</html>")
            case host:
                self._answer(302, None, headers={"Location": host + self.path})

    def _answer(self, status: int, body: object, *, headers: dict | None = None, raw: bytes | None = None) -> None:
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/vnd.cvat+json" if raw is None else "application/zip")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            for one in value if isinstance(value, list) else [value]:
                self.send_header(name, one)
        self.end_headers()
        if self.cut:
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content)

    def _page(self, found: list[dict], query: dict) -> None:
        page = int(query.get("page", 1))
        size = int(query.get("page_size", PAGE))
        more = len(found) > page * size
        results = found[(page - 1) * size : page * size]
        self._answer(
            200,
            {
                "count": len(found),
                "next": f"{self.server_of.url}/?page={page + 1}" if more else None,
                "previous": None,
                "results": results,
            },
        )

    def _who(self, method: str) -> str | None:
        if self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return USER
        cookies = dict(one.strip().split("=", 1) for one in self.headers.get("Cookie", "").split(";") if "=" in one)
        if cookies.get("sessionid") not in self.server_of.sessions:
            return None
        if method != "GET" and self.headers.get("X-CSRFTOKEN") != cookies.get("csrftoken"):
            return None
        return USER

    def _route(self, method: str, path: str, query: dict, body: bytes) -> None:
        server = self.server_of
        if path == "/api/server/about":
            about = {"name": "CVAT", "description": "", "version": server.version, "logo_url": "", "subtitle": ""}
            self._answer(200, about)
            return
        if path == "/api/auth/login":
            self._log_in(json.loads(body))
            return
        if self._who(method) is None:
            self._answer(401, {"detail": "Authentication credentials were not provided."})
            return
        if organization := self.headers.get("X-Organization"):
            server.organizations.add(organization)
            if organization != "yard":
                self._answer(404, {"detail": f"{organization} organization does not exist."})
                return
        if found := re.fullmatch(r"/api/tasks/(\d+)(/.*)?", path):
            task = server.tasks.get(int(found[1]))
            if task is None:
                self._answer(404, {"detail": "Not found."})
            else:
                self._task(method, task, found[2] or "", query, body)
            return
        self._others(method, path, query, body)

    def _others(self, method: str, path: str, query: dict, body: bytes) -> None:
        server = self.server_of
        if path == "/api/auth/logout":
            self._answer(200, {"detail": "Successfully logged out."})
        elif path == "/api/users/self":
            self._answer(200, user_answer(server, USER) | {"groups": ["user"]})
        elif path == "/api/users":
            names = [name for name in server.users if query.get("search", "") in name]
            self._page([user_answer(server, name) | {"groups": ["user"]} for name in names], query)
        elif found := re.fullmatch(r"/api/projects/(\d+)", path):
            known = int(found[1]) in server.projects
            self._answer(
                200 if known else 404, project_answer(server, int(found[1])) if known else {"detail": "Not found."}
            )
        elif path == "/api/tasks" and method == "POST":
            task = server.make_task(json.loads(body))
            self._answer(201, task_answer(server, task))
        elif path == "/api/labels":
            of = server.tasks[int(query["task_id"])].labels if "task_id" in query else None
            self._page(labels_answer(server.projects.get(int(query["project_id"]), {}) if of is None else of), query)
        elif path == "/api/jobs":
            task = server.tasks[int(query["task_id"])]
            self._page([job_answer(server, task, job) for job in task.jobs], query)
        elif path.startswith("/api/requests/"):
            answer = server.request(unquote(path.removeprefix("/api/requests/")))
            self._answer(404 if answer is None else 200, answer)
        else:
            self._answer(404, {"detail": f"the stand-in has no {method} {path}"})

    def _log_in(self, wanted: dict) -> None:
        if (wanted.get("username"), wanted.get("password")) != (USER, PASSWORD):
            self._answer(400, {"non_field_errors": ["Unable to log in with provided credentials."]})
            return
        server = self.server_of
        session = f"session{next(server.numbers)}"
        server.sessions.add(session)
        until = "expires=Fri, 01 Jan 2027 00:00:00 GMT; Path=/; SameSite=Lax"
        cookies = [f"csrftoken=csrf-of-{session}; {until}", f"sessionid={session}; HttpOnly; {until}"]
        self._answer(200, {"key": "k"}, headers={"Set-Cookie": cookies})

    def _task(self, method: str, task: StandInTask, below: str, query: dict, body: bytes) -> None:
        server = self.server_of
        match method, below:
            case "GET", "":
                self._answer(200, task_answer(server, task))
            case "DELETE", "":
                del server.tasks[task.id]
                self._answer(204, None)
            case "GET", "/data/meta":
                self._answer(200, meta_answer(task))
            case "GET", "/annotations":
                self._answer(200, annotations_answer(task))
            case "POST", "/dataset/export":
                if query["format"] != "CVAT for images 1.1" or query["save_images"] != "False":
                    self._answer(400, {"detail": f"the stand-in does not export {query}"})
                    return
                name = f"export{next(server.numbers)}"
                self._answer(202, server.start("export:dataset", task, lambda: server.keep_export(name, task)))
            case "GET", "/dataset/download":
                self._answer(200, None, raw=server.exports[query["rq_id"]])
            case _, upload if upload.startswith(("/data", "/annotations")):
                self._upload(method, task, upload.split("/")[1:], query, body)
            case _:
                self._answer(404, {"detail": f"the stand-in has no {method} {below} of a task"})

    def _upload(self, method: str, task: StandInTask, path: list[str], query: dict, body: bytes) -> None:
        server, kind = self.server_of, path[0]
        if method == "PATCH":
            name, held = server.uploads[path[-1]]
            held += body
            self._answer(204, None, headers={"Upload-Offset": str(len(held)), "Upload-Filename": name})
        elif "Upload-Start" in self.headers:
            self._answer(202, None)
        elif "Upload-Multiple" in self.headers:
            task.files |= _files(self.headers["Content-Type"], body)
            self._answer(200, {})
        elif "Upload-Finish" in self.headers:
            self._finish(task, kind, query, body)
        else:
            pairs = (one.split(" ") for one in self.headers["Upload-Metadata"].split(","))
            name = next(base64.b64decode(value).decode() for key, value in pairs if key == "filename")
            number = f"file{next(server.numbers)}"
            server.uploads[number] = (name, bytearray())
            # The address is that of a server behind a proxy that is set up badly.
            at = f"http://cvat.internal:8080/api/tasks/{task.id}/{kind}/{number}"
            self._answer(201, None, headers={"Location": at, "Upload-Filename": name})

    def _finish(self, task: StandInTask, kind: str, query: dict, body: bytes) -> None:
        server = self.server_of
        if kind == "data":
            task.files |= {name: bytes(held) for name, held in server.uploads.values() if name.endswith(".jpg")}
            wanted = json.loads(body)
            self._answer(202, server.start("create:task", task, lambda: server.read_images(task, wanted)))
            return
        if query.get("format") != "CVAT 1.1":
            self._answer(400, {"detail": f"the stand-in does not import {query.get('format')}"})
            return
        xml = next(bytes(held) for name, held in reversed(server.uploads.values()) if name == query["filename"])
        self._answer(202, server.start("import:annotations", task, lambda: server.read_annotations(task, xml)))


def _files(content_type: str, body: bytes) -> dict[str, bytes]:
    """Return the files of a multipart body by their base names, as Django takes them."""
    whole = b"Content-Type: " + content_type.encode() + b"\r\n\r\n" + body
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(whole)
    found = {}
    for part in message.iter_parts():
        if name := part.get_filename():
            found[PurePosixPath(name).name] = part.get_payload(decode=True)
    return found
