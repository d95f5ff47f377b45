"""A signed repository in memory, and a web server that may lie about it: alter, cut, drip, never end."""

import contextlib
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, TargetFile, Targets, Timestamp

from edge.contract.release import SignedRelease, target_name, to_custom
from edge.updating.time_floor import BUILT_S
from tests.hub.signed import MadeSigner

NOW_S = BUILT_S + 30 * 86400
ROLES = ("targets", "snapshot", "timestamp")
DAYS = {"root": 365, "targets": 180, "snapshot": 7, "timestamp": 7}


class MadeRepository:
    """Metadata and targets by path, as a server would send them. `files` is what is served; anyone may change it."""

    def __init__(self, prefix: str = "") -> None:
        self.signers = {role: [MadeSigner(prefix + role)] for role in ROLES}
        self.signers["root"] = [MadeSigner(f"{prefix}root-{n}") for n in range(3)]
        self.root = Root(version=1, expires=expiry("root"))
        for role, signers in self.signers.items():
            for signer in signers:
                self.root.add_key(signer.public_key, role)
        self.root.roles["root"].threshold = 2
        self.targets = Targets(version=1, expires=expiry("targets"))
        self.snapshot = Snapshot(version=1, expires=expiry("snapshot"))
        self.timestamp = Timestamp(version=1, expires=expiry("timestamp"))
        self.files: dict[str, bytes] = {}
        self.put_root()
        for role in ROLES:
            getattr(self, role).version = 0  # the first that is published is 1
        self.publish()

    @property
    def trusted(self) -> bytes:
        """The root that a device is given."""
        return self.files["metadata/1.root.json"]

    def put_root(self, *, signers: list[MadeSigner] | None = None) -> None:
        """Serve the root as it is now."""
        self.files[f"metadata/{self.root.version}.root.json"] = self.sign("root", self.root, signers=signers)

    def publish(self, *roles: str) -> None:
        """Sign and serve new versions of these roles, of all but the root where none is named."""
        for role in roles or ROLES:
            signed = getattr(self, role)
            signed.version += 1
            content = self.sign(role, signed)
            name = f"{role}.json" if role == "timestamp" else f"{signed.version}.{role}.json"
            self.files[f"metadata/{name}"] = content
            if role == "targets":
                self.snapshot.meta["targets.json"] = MetaFile(version=signed.version)
            if role == "snapshot":
                self.timestamp.snapshot_meta = MetaFile.from_data(signed.version, content, ["sha256"])

    def sign(self, role: str, signed: Signed, *, signers: list[MadeSigner] | None = None) -> bytes:
        """Return signed metadata."""
        metadata = Metadata(signed)
        for signer in self.signers[role] if signers is None else signers:
            metadata.sign(signer, append=True)
        return metadata.to_bytes()

    def add_release(self, number: int, content: bytes, **more: object) -> str:
        """Add a release to the targets (`publish` serves it). Return its target's name."""
        name = target_name("street", more.pop("as_number", number))
        target = TargetFile.from_data(name, content, ["sha256"])
        target.unrecognized_fields["custom"] = to_custom(signed_release(number, **more))
        self.targets.targets[name] = target
        self.files[self.place(name)] = content
        return name

    def place(self, name: str) -> str:
        """Return the path that a target is served at."""
        folder, _, last = name.rpartition("/")
        return f"targets/{folder}/{self.targets.targets[name].hashes['sha256']}.{last}"


def signed_release(number: int, **more: object) -> SignedRelease:
    fields = {"card_sha256": "0" * 64, "input": "320x192", "score_threshold_permille": 400, "files": 2}
    return SignedRelease(model="street", release=f"r{number}", number=number, unpacked_bytes=1000, **{**fields, **more})


def expiry(role: str, now_s: float = NOW_S) -> datetime:
    return datetime.fromtimestamp(now_s, UTC).replace(microsecond=0) + timedelta(days=DAYS[role])


class LyingServer:
    """Serves a dictionary of files over HTTP, with ranges.

    Attributes:
        cut_at: path -> bytes of the body after which the connection is closed.
        answers: path -> status instead of the file.
        endless: paths that never end.
        silent: paths that send the head and half of the body, and then nothing.
        ranges: False answers every range with the whole file.
        bytes_s: 0, or how many bytes a second are sent.
        asked: (path, first byte) of every request.
        sent: bytes of bodies, by path.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.cut_at: dict[str, int] = {}
        self.answers: dict[str, int] = {}
        self.endless: set[str] = set()
        self.silent: set[str] = set()
        self.ranges = True
        self.bytes_s = 0
        self.asked: list[tuple[str, int]] = []
        self.sent: dict[str, int] = {}
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    server.answer(self)

            def log_message(self, *_: object) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.lstrip("/")
        said = request.headers.get("Range", "")
        first = int(said.removeprefix("bytes=").rstrip("-")) if said and self.ranges else 0
        self.asked.append((path, int(said.removeprefix("bytes=").rstrip("-")) if said else 0))
        content = self.files.get(path)
        if content is None or path in self.answers or first > len(content):
            request.send_error(self.answers.get(path, 404 if content is None else 416))
            return
        body = content[first:]
        request.send_response(206 if first else 200)
        request.send_header("Content-Length", str(10**12 if path in self.endless else len(body)))
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        for chunk in self._chunks(path, body):
            request.wfile.write(chunk)
            self.sent[path] = self.sent.get(path, 0) + len(chunk)
        request.close_connection = request.close_connection or path in self.cut_at

    def _chunks(self, path: str, body: bytes) -> Iterator[bytes]:
        if path in self.endless:
            while not self.closing.is_set():
                yield b"\x20" * 65536
        if path in self.silent:
            yield body[: len(body) // 2]
            self.closing.wait(20)
            return
        body = body[: self.cut_at.get(path, len(body))]
        step = self.bytes_s // 10 or len(body) or 1
        for at in range(0, len(body), step):
            yield body[at : at + step]
            if self.bytes_s:
                time.sleep(0.1)  # this is the slow line


def write_files(files: dict[str, bytes], folder: Path) -> str:
    """Write a repository to a folder. Return its URL."""
    for path, content in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
    return folder.as_uri()
