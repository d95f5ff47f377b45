"""The detections themselves, for whoever uses them: JSON on the device's `detections` topic, or lines in a file.

Law: `offer` never waits. A message over the rate is left out; one that the disk or the network is too slow for is lost
and counted in `lost`.
"""

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.config import DetectionsConfig
from edge.contract.errors import UnusableError
from edge.contract.samples import SCHEMA, WitnessKind, Xyxy
from edge.detector.detections import Detections
from edge.finding import detection_boxes
from edge.frame import Frame

WAITING_LINES: Final = 256
CLOSE_S: Final = 2.0
_log = logging.getLogger(__name__)


class DetectedBox(msgspec.Struct, frozen=True, omit_defaults=True):
    """One object, `xyxy` in pixels of the frame. `witness` is `zoom` for what only the second look has seen."""

    xyxy: Xyxy
    label: str
    score: float
    witness: WitnessKind | None = None


class DetectedFrame(msgspec.Struct, frozen=True, kw_only=True):
    """What was detected in one frame: one message, or one line of the file."""

    schema: int = SCHEMA
    camera: str
    sequence: int
    captured_at_ms: int
    width: int
    height: int
    boxes: tuple[DetectedBox, ...]


class DetectionStream:
    """Both outlets. Owns the file and its thread; `close` when done.

    Args:
        config: what is on.
        labels: the model's.
        score_threshold: boxes below it are left out.
        publish: takes one payload for the topic and returns at once.

    Raises `UnusableError` when the file cannot be opened.
    """

    def __init__(
        self,
        config: DetectionsConfig,
        *,
        labels: tuple[str, ...],
        score_threshold: float,
        publish: Callable[[bytes], None],
    ) -> None:
        self.lost = 0
        self._labels = labels
        self._score_threshold = score_threshold
        self._period_s = 1.0 / config.max_hz
        self._due_s: dict[str, float] = {}
        self._publish = publish if config.mqtt else None
        self._lines: queue.Queue[bytes | None] = queue.Queue(WAITING_LINES)
        self._thread: threading.Thread | None = None
        if config.file is not None:
            writer = _open_lines(config.file, limit_bytes=int(config.file_mb * 1e6))
            self._thread = threading.Thread(target=self._write, args=(writer,), name="detections", daemon=True)
            self._thread.start()

    def adopt(self, *, labels: tuple[str, ...], score_threshold: float) -> None:
        """Tell of another model's detections from the next frame on. For the thread that offers."""
        self._labels, self._score_threshold = labels, score_threshold

    def offer(self, frame: Frame, detections: Detections, *, merged: NDArray[np.bool_] | None = None) -> None:
        """Pass one frame's detections on, if it is this camera's turn. `merged` `[n]`: seen by the second look only."""
        if self._publish is None and self._thread is None:
            return
        due_s = self._due_s.get(frame.camera, frame.time_s)
        if frame.time_s < due_s - 1e-3:
            return
        self._due_s[frame.camera] = max(due_s, frame.time_s - self._period_s) + self._period_s
        payload = self._encode(frame, detections, merged)
        if self._publish is not None:
            self._publish(payload)
        if self._thread is not None:
            try:
                self._lines.put_nowait(payload)
            except queue.Full:
                self.lost += 1

    def close(self) -> None:
        """Write what waits and close the file, if the disk allows it within `CLOSE_S`."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._lines.put(None, timeout=CLOSE_S)
            self._thread.join(CLOSE_S)

    def _encode(self, frame: Frame, detections: Detections, merged: NDArray[np.bool_] | None) -> bytes:
        strong = detections.score >= self._score_threshold
        boxes = tuple(
            DetectedBox(box.xyxy, box.label, box.score, box.witness)
            for box in detection_boxes(
                detections.take(strong), self._labels, merged=None if merged is None else merged[strong]
            )
        )
        height, width = frame.image.shape[:2]
        detected = DetectedFrame(
            camera=frame.camera,
            sequence=frame.sequence,
            captured_at_ms=frame.captured_at_ms,
            width=width,
            height=height,
            boxes=boxes,
        )
        return msgspec.json.encode(detected)

    def _write(self, writer: "_Lines") -> None:
        while (line := self._lines.get()) is not None:
            try:
                writer.write(line, flush=self._lines.empty())
            except OSError as error:
                if not self.lost:
                    _log.warning("detections are lost: %s", error)
                self.lost += 1
        writer.close()


def _open_lines(path: Path, *, limit_bytes: int) -> "_Lines":
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _Lines(path, limit_bytes=limit_bytes)
    except OSError as error:
        msg = f"cannot write the detections to {path}: {error.strerror}"
        raise UnusableError(msg) from error


class _Lines:
    """A file of lines that starts anew at its limit; one older file is kept."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self._path = path
        self._limit_bytes = limit_bytes
        self._file: IO[bytes] = path.open("ab")
        self._size = path.stat().st_size

    def write(self, line: bytes, *, flush: bool) -> None:
        if self._size >= self._limit_bytes:
            self._file.close()
            self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            self._file = self._path.open("ab")
            self._size = 0
        self._size += self._file.write(line + b"\n")
        if flush:
            self._file.flush()

    def close(self) -> None:
        try:
            self._file.close()
        except OSError as error:
            _log.warning("the last detections are lost: %s", error)
