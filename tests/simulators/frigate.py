"""A simulated Frigate: it speaks as the real one is documented to, over a real broker and a real HTTP server.

A track is played frame by frame (`begin`, `see`, `end`). As in Frigate, it is a false positive until the median of its
last ten scores has reached `threshold`; until then nothing is published of it and it has no snapshot. Then come `new`,
`update` when its best frame has changed, at most every five seconds, and `end`. Each best frame goes to
`PREFIX/CAMERA/LABEL/snapshot`, retained, after the message if there is one. Over HTTP a track that goes on gives its
best frame as the query asks, one that has ended as saved.
Every frame is dark with a bright object in the track's box, so that a test sees whether a region shows the object.
"""

import json
import threading
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Self
from urllib.parse import parse_qs, urlsplit

import cv2
import numpy as np
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.brokers import DEADLINE_S

DARK, BRIGHT = 40, 220
UPDATE_S = 5.0
Box = tuple[int, int, int, int]


def frame_of(box: Box, size: tuple[int, int]) -> np.ndarray:
    """Return a dark picture with some grain and a bright object in the box."""
    width, height = size
    image = np.random.default_rng(sum(box)).normal(DARK, 4, (height, width, 3))
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] += BRIGHT - DARK
    return np.clip(image, 0, 255).astype(np.uint8)


def jpeg_of(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


@dataclass
class SimulatedTrack:
    """One tracked object. `thumbnail` is (time, box, score) of its best frame."""

    id: str
    label: str
    start_time: float
    box: Box
    score: float
    frame_time: float
    history: deque[float] = field(default_factory=lambda: deque([0.0, 0.0], maxlen=10))
    top_score: float = 0.0
    false_positive: bool = True
    thumbnail: tuple[float, Box, float] | None = None
    end_time: float | None = None
    previous: dict | None = None
    published_s: float = 0.0


class SimulatedFrigate:
    """One Frigate with one or more cameras of one size. A context manager.

    Attributes:
        asked: the paths that the HTTP server was asked for.
        misbehave: None, or how the server answers: "hang", "redirect", "huge", "cut", "500", "nonsense".
    """

    def __init__(
        self,
        port: int,
        *,
        size: tuple[int, int] = (640, 480),
        threshold: float = 0.7,
        prefix: str = "frigate",
        mqtt_height: int | None = None,
        mqtt_crop: bool = False,
        saved_drawn: bool = False,
    ) -> None:
        self.size = size
        self.threshold = threshold
        self.prefix = prefix
        self.mqtt_height = mqtt_height
        self.mqtt_crop = mqtt_crop
        self.saved_drawn = saved_drawn
        self.asked: list[str] = []
        self.misbehave: str | None = None
        self.released = threading.Event()
        self._port = port
        self._tracks: dict[str, tuple[str, SimulatedTrack]] = {}
        self._number = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._serving = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._serving.start()
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.disconnect()
        self._server.shutdown()
        self._server.server_close()

    def connect(self) -> None:
        """Come online, as after a start."""
        ready = threading.Event()
        self._client = paho.Client(CallbackAPIVersion.VERSION2, client_id="frigate", protocol=paho.MQTTv311)
        self._client.on_connect = lambda *_: ready.set()
        self._client.will_set(f"{self.prefix}/available", b"offline", retain=True)
        self._client.connect("127.0.0.1", self._port)
        self._client.loop_start()
        assert ready.wait(DEADLINE_S)
        self.say("available", b"online", retain=True)

    def disconnect(self) -> None:
        """Go offline, and forget what was tracked."""
        self.say("available", b"offline", retain=True)
        self._client.disconnect()
        self._client.loop_stop()
        self._tracks.clear()

    def say(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Publish anything below the prefix."""
        self._client.publish(f"{self.prefix}/{topic}", payload, retain=retain).wait_for_publish(DEADLINE_S)

    def stats(self, **fps: float) -> None:
        """Publish the figures of the cameras by name."""
        cameras = {name: {"camera_fps": value, "process_fps": value, "pid": 7} for name, value in fps.items()}
        self.say("stats", json.dumps({"cameras": cameras, "service": {"version": "0.16.0"}}).encode())

    def begin(self, camera: str, label: str, *, box: Box, score: float, at_s: float = 1_700_000_000.0) -> str:
        """Begin to track; nothing is published yet. Return the track's id."""
        self._number += 1
        track_id = f"{at_s:.6f}-{self._number:06d}"
        track = SimulatedTrack(track_id, label, at_s, box, score, at_s)
        track.previous = self.to_dict(camera, track)
        self._tracks[track_id] = (camera, track)
        return track_id

    def see(self, track_id: str, *, after_s: float, score: float, box: Box | None = None) -> None:
        """Track one frame more, this long after the last."""
        camera, track = self._tracks[track_id]
        track.frame_time += after_s
        track.score, track.box = score, box or track.box
        track.history.append(score)
        track.top_score = max(track.top_score, median(track.history))
        track.false_positive = track.false_positive and track.top_score < self.threshold
        if track.false_positive:
            return
        if track.thumbnail is None or score > track.thumbnail[2]:
            track.thumbnail = (track.frame_time, track.box, score)
            if track.frame_time - track.published_s > UPDATE_S:
                self._publish("update", camera, track)
                track.published_s = track.frame_time
            self._publish_snapshot(camera, track)

    def end(self, track_id: str) -> None:
        """Lose the object, which is known after five seconds."""
        camera, track = self._tracks[track_id]
        track.end_time = track.frame_time + 5.0
        if not track.false_positive:
            self._publish("end", camera, track)

    def play(self, camera: str, label: str, *, box: Box, scores: list[float], step_s: float = 0.2) -> str:
        """Play a whole track that stands still. Return its id."""
        track_id = self.begin(camera, label, box=box, score=scores[0])
        for score in scores:
            self.see(track_id, after_s=step_s, score=score)
        self.end(track_id)
        return track_id

    def to_dict(self, camera: str, track: SimulatedTrack) -> dict:
        """Return a track as it stands in an event message."""
        shot = track.thumbnail
        x1, y1, x2, y2 = track.box
        return {
            "id": track.id,
            "camera": camera,
            "frame_time": track.frame_time,
            "snapshot": shot
            and {
                "frame_time": shot[0],
                "box": shot[1],
                "area": 1,
                "region": [0, 0, 320, 320],
                "score": shot[2],
                "attributes": [],
            },
            "label": track.label,
            "sub_label": None,
            "top_score": track.top_score,
            "false_positive": track.false_positive,
            "start_time": track.start_time,
            "end_time": track.end_time,
            "score": track.score,
            "box": track.box,
            "area": (x2 - x1) * (y2 - y1),
            "ratio": (x2 - x1) / (y2 - y1),
            "region": [0, 0, 320, 320],
            "active": True,
            "stationary": False,
            "motionless_count": 0,
            "position_changes": 2,
            "current_zones": [],
            "entered_zones": [],
            "has_clip": False,
            "has_snapshot": shot is not None,
            "attributes": {},
            "current_attributes": [],
        }

    def _publish(self, kind: str, camera: str, track: SimulatedTrack) -> None:
        after = self.to_dict(camera, track)
        if kind == "update" and track.previous["false_positive"]:
            kind = "new"
        self.say("events", json.dumps({"type": kind, "before": track.previous, "after": after}).encode())
        track.previous = after

    def _publish_snapshot(self, camera: str, track: SimulatedTrack) -> None:
        image = frame_of(track.thumbnail[1], self.size)
        if self.mqtt_crop:
            x1, y1, x2, y2 = track.thumbnail[1]
            image = image[y1:y2, x1:x2]
        if self.mqtt_height is not None:
            width = int(self.mqtt_height * image.shape[1] / image.shape[0])
            image = cv2.resize(image, (width, self.mqtt_height), interpolation=cv2.INTER_AREA)
        self.say(f"{camera}/{track.label}/snapshot", jpeg_of(image), retain=True)

    def saved(self, track_id: str, *, asked: dict[str, list[str]]) -> bytes | None:
        """Return the snapshot of a track as the HTTP API does."""
        if track_id not in self._tracks or self._tracks[track_id][1].thumbnail is None:
            return None
        track = self._tracks[track_id][1]
        image = frame_of(track.thumbnail[1], self.size)
        is_drawn = self.saved_drawn if track.end_time else asked.get("bbox") == ["1"]
        if is_drawn:
            cv2.rectangle(image, track.thumbnail[1][:2], track.thumbnail[1][2:], (0, 0, 255), 4)
        return jpeg_of(image)

    def config(self) -> bytes:
        """Return what `/api/config` answers, as far as anybody here reads it."""
        width, height = self.size
        camera = {
            "detect": {"enabled": True, "width": width, "height": height, "fps": 5},
            "snapshots": {"bounding_box": self.saved_drawn, "timestamp": False, "crop": False},
        }
        return json.dumps({"cameras": {"front": camera, "yard": camera}, "mqtt": {"host": "x"}}).encode()


def _handler_of(frigate: SimulatedFrigate) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            frigate.asked.append(self.path)
            parts = urlsplit(self.path)
            if frigate.misbehave is not None:
                self.misbehave(frigate.misbehave)
            elif parts.path == "/api/config":
                self.answer(frigate.config())
            else:
                track_id = parts.path.removeprefix("/api/events/").removesuffix("/snapshot.jpg")
                body = frigate.saved(track_id, asked=parse_qs(parts.query))
                self.answer(b"{}" if body is None else body, status=404 if body is None else 200)

        def answer(self, body: bytes, *, status: int = 200, length: int | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def misbehave(self, how: str) -> None:
            if how == "hang":
                frigate.released.wait()
            elif how == "redirect":
                self.send_response(302)
                self.send_header("Location", f"{frigate.url}/api/config")
                self.end_headers()
            elif how == "huge":
                self.answer(bytes(2_000_000))
            elif how == "cut":
                self.answer(b"\xff\xd8\xff", length=1000)
            elif how == "500":
                self.answer(b"{}", status=500)
            else:
                self.answer(b"\x00" * 50)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
