"""`edge run`: every room of the device, put together.

Threads, and what each may wait for:

- one a camera (edge.camera): its capture process;
- detection: the newest frames and the detector, nothing else. It hands over without waiting and counts what is lost;
- writer: the disk. It encodes, hashes and puts into the spool;
- publisher (edge.publisher): the network;
- the caller's: heartbeats, the status file, systemd, and what is too old in the spool.

To stop: no more capture, then what was mined goes to the spool, then the publisher gets a short time.
"""

import contextlib
import logging
import math
import os
import queue
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge.camera import Camera, CameraState
from edge.config import CameraConfig, EdgeConfig, SourceKind, source_kind
from edge.contract.errors import UnusableError, WeakspotError
from edge.contract.samples import Reason
from edge.contract.status import Heartbeat, encode
from edge.detector.detector import Detector
from edge.eye import Eye
from edge.finding import seal
from edge.frame import Frame
from edge.health import Status, hold_folder, resume_day, write_status
from edge.home_assistant import open_announcement
from edge.memory import open_memory
from edge.observation import Mined
from edge.opening import open_configured, open_spool, version
from edge.pipeline import Pipeline
from edge.policy import PolicyBox, closed, overlay
from edge.privacy import Redaction, person_class
from edge.publisher import Identity, Publisher
from edge.quota import Quota
from edge.spool import Spool
from edge.stream import DetectionStream

WRITER_QUEUE: Final = 16
PATIENCE_S: Final = 5.0
STOP_GRACE_S: Final = 3.0
END_QUIET_S: Final = 5.0
END_GRACE_S: Final = 30.0
WATCHDOG_S: Final = 30.0
EXPIRE_S: Final = 60.0
_WAIT_S: Final = 0.5
_TURN_S: Final = 0.25

_log = logging.getLogger(__name__)


def run(
    config: EdgeConfig,
    *,
    stop: threading.Event,
    exit_at_end: bool = False,
    tell: Callable[[str], None] = lambda _: None,
) -> None:
    """Run the device until `stop` is set.

    Args:
        config: the whole configuration.
        stop: set it, from a signal or a test, to drain and return.
        exit_at_end: return as well when every camera is a file at its end and the hub has what it asked for.
        tell: takes what systemd is told.

    Raises:
        UnusableError: when a model, a file, a certificate or the data folder can never work as it is.
        UnreachableError: when the data folder cannot be written.
    """
    if not config.camera:
        msg = "no [[camera]] is given; for [frigate] there is `edge bridge frigate`"
        raise UnusableError(msg)
    for camera in config.camera:
        if source_kind(camera.source) is SourceKind.FILE and not Path(str(camera.source)).is_file():
            msg = f"camera {camera.name}: there is no file {camera.source}"
            raise UnusableError(msg)
    with ExitStack() as stack:
        stack.enter_context(hold_folder(config.data_dir))
        detector = open_configured(config)
        spool = stack.enter_context(contextlib.closing(open_spool(config)))
        daemon = Daemon(config, detector=detector, spool=spool)
        daemon.start()
        stack.callback(daemon.stop)
        tell("READY=1")
        daemon.attend(stop, exit_at_end=exit_at_end, tell=tell)
        tell("STOPPING=1")


class Daemon:
    """The running device. `start` once, `attend` for as long as it should run, `stop` once."""

    def __init__(self, config: EdgeConfig, *, detector: Detector, spool: Spool) -> None:
        self._config = config
        self._detector = detector
        self._spool = spool
        self._boot_id = uuid.uuid4().hex
        self._begun_s = time.monotonic()
        self._beat_s = time.monotonic()
        self._expired_s: float | None = None
        self._woken = threading.Event()
        self._halting = threading.Event()
        self._queue: queue.Queue[Mined | None] = queue.Queue(WRITER_QUEUE)
        self._policies = PolicyBox(config)
        self._rules = overlay(config, None, None)
        self._quota = Quota(config.quota)
        self._faults: Counter[str] = Counter()
        self._counters, self._spooled = spool.counters(), spool.health()
        self._day = resume_day(config.data_dir)
        threshold = config.model.score_threshold
        self._score_threshold = detector.score_threshold if threshold is None else threshold
        self._publisher = Publisher(
            config.mqtt,
            spool=spool,
            identity=Identity(
                site=config.site,
                device=config.device,
                boot_id=self._boot_id,
                model=detector.card.release,
                version=version(),
            ),
            upload_all=config.upload == "all",
            on_policy=self._policies.take,
            announcement=open_announcement(config, version=version()),
        )
        self._stream = DetectionStream(
            config.detections,
            labels=detector.labels,
            score_threshold=self._score_threshold,
            publish=self._publisher.offer_detections,
        )
        self._eyes = [self._open_eye(camera) for camera in config.camera]
        self._redactions = {eye.camera.name: eye.redaction for eye in self._eyes}
        places = {eye.camera.name: eye.pipeline.places for eye in self._eyes}
        self._memory = open_memory(config.data_dir, model=detector.card.release, cameras=places)
        self._detection = threading.Thread(target=self._detect, name="detection", daemon=True)
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)

    def _open_eye(self, camera: CameraConfig) -> Eye:
        config, detector = self._config, self._detector
        known = person_class(detector.labels)
        redaction = Redaction(ignore=camera.ignore, blur=config.privacy.blur, person_class=known)
        pipeline = Pipeline(
            detector=detector,
            score_threshold=self._score_threshold,
            mining=config.mining,
            seed=random.SystemRandom().getrandbits(32),
            redaction=redaction,
        )
        return Eye(Camera(camera, on_frame=self._woken.set), pipeline, redaction)

    def start(self) -> None:
        """Start every thread and every capture process."""
        self._publisher.start()
        self._writer.start()
        self._detection.start()
        for eye in self._eyes:
            eye.camera.start()

    def stop(self) -> None:
        """Stop capturing, drain into the spool, give the publisher a short time."""
        for eye in self._eyes:
            eye.camera.stop()
        self._halting.set()
        self._woken.set()
        self._detection.join()
        self._queue.put(None)
        self._writer.join()
        self._stream.close()
        self._publish_health()
        self._publisher.stop(grace_s=STOP_GRACE_S)
        self._publish_health()

    def attend(self, stop: threading.Event, *, exit_at_end: bool, tell: Callable[[str], None]) -> None:
        """Send heartbeats, one at once when a policy came, and pet the watchdog until `stop`, or the end if asked.

        Raises `UnusableError` for a file that is no video.
        """
        due_s = time.monotonic()
        ended_s: float | None = None
        told = self._policies.verdicts
        while not stop.wait(_TURN_S):
            self._require_videos()
            now_s = time.monotonic()
            if now_s - self._beat_s < WATCHDOG_S and self._publisher.alive and self._writer.is_alive():
                tell("WATCHDOG=1")
            if now_s >= due_s or self._policies.verdicts is not told:
                told = self._policies.verdicts
                due_s = now_s + self._config.mqtt.heartbeat_s
                self._publish_health()
            if exit_at_end and self._is_at_end():
                ended_s = now_s if ended_s is None else ended_s
                if self._is_quiet(now_s, ended_s) or now_s - ended_s > END_GRACE_S:
                    return

    def _require_videos(self) -> None:
        for camera, settings in zip((eye.camera for eye in self._eyes), self._config.camera, strict=True):
            if camera.hopeless:
                msg = f"camera {camera.name}: {settings.source} is no video that can be read"
                raise UnusableError(msg)

    def _is_at_end(self) -> bool:
        return self._queue.empty() and all(eye.finished for eye in self._eyes)

    def _is_quiet(self, now_s: float, ended_s: float) -> bool:
        """Whether the hub has every finding, and has asked for nothing for a while."""
        quiet_s = now_s - max(ended_s, self._publisher.active_s)
        return quiet_s > END_QUIET_S and self._spool.health().unsent == 0

    # Detection's thread: nothing here waits for disk or network.

    def _detect(self) -> None:
        self._follow()
        while not self._halting.is_set():
            self._woken.wait(_WAIT_S)
            self._woken.clear()
            self._beat_s = time.monotonic()
            self._follow()
            for eye in self._eyes:
                self._serve(eye)
        for eye in self._eyes:
            while not eye.finished:
                self._serve(eye)

    def _follow(self) -> None:
        """Take up what the policies have changed, between two frames."""
        if self._policies.rules is self._rules:
            return
        self._rules = rules = self._policies.rules
        try:
            self._quota.adopt(rules.quota, now_s=time.monotonic())
            for eye in self._eyes:
                eye.pipeline.adopt(rules.mining, rules.weights.get(eye.camera.name))
        except Exception as error:  # noqa: BLE001 - the loop counts and goes on
            self._note_fault("policy_error", "a policy could not be followed", error)

    def _serve(self, eye: Eye) -> None:
        """Look at a camera's newest frame; once there are no more, finish with it."""
        try:
            is_last = self._halting.is_set() or eye.camera.state is CameraState.ENDED  # before its last frame is taken
            frame = eye.camera.newest()
            if frame is not None:
                self._woken.set()
                self._look(eye, frame)
            elif is_last and not eye.finished:
                eye.finished = True
                self._finish(eye)
        except Exception as error:  # noqa: BLE001 - the loop counts and goes on
            self._note_fault("detection_error", "a frame could not be looked at", error)

    def _look(self, eye: Eye, frame: Frame) -> None:
        eye.watch(frame)
        eye.pipeline.wanted = not eye.frozen and not self._is_closed()
        begun_s = time.monotonic()
        step = eye.pipeline.step(frame)
        now_s = time.monotonic()
        if not step.inference.finite:
            self._note_fault("not_finite", "the model gave numbers that are not finite")
        eye.meter.note(now_s=now_s, detect_ms=(now_s - begun_s) * 1e3)
        self._stream.offer(frame, step.detections, merged=step.merged)
        self._hand_over(frame.camera, _drawn(step.mined) if eye.frozen else step.mined, wait_s=0.0)

    def _finish(self, eye: Eye) -> None:
        """Take what is still open when a recording ends or the daemon stops. Waits only when no camera is left."""
        nothing_left = self._halting.is_set() or all(other.finished for other in self._eyes)
        mined = eye.pipeline.finish()
        mined = _drawn(mined) if eye.frozen else mined
        self._hand_over(eye.camera.name, mined, wait_s=PATIENCE_S if nothing_left else 0.0)

    def _hand_over(self, camera: str, mined: list[Mined], *, wait_s: float) -> None:
        if mined and self._is_closed():  # nothing is counted of what is left out: nobody wants findings now
            mined = _drawn(mined)
        for one in mined:
            if not self._quota.admit(camera, one.reason, now_s=time.monotonic()):
                self._spool.count(f"quota_{one.reason}")
                continue
            try:
                self._queue.put(one, block=wait_s > 0, timeout=wait_s or None)
            except queue.Full:
                self._spool.count("writer_busy")

    def _is_closed(self) -> bool:
        return closed(self._rules, local=datetime.now(UTC).astimezone()) is not None

    def _note_fault(self, reason: str, text: str, error: Exception | None = None) -> None:
        """Count a fault; log the 1st, 2nd, 4th, 8th ... so that a fault of every frame does not fill the disk."""
        self._spool.count(reason)
        self._faults[reason] += 1
        n = self._faults[reason]
        if n & (n - 1) == 0:
            _log.error("%s (%d so far)", text, n, exc_info=error)

    # The writer's thread.

    def _write(self) -> None:
        while (mined := self._queue.get()) is not None:
            try:
                finding, jpeg = seal(
                    mined,
                    detector=self._detector,
                    site=self._config.site,
                    device=self._config.device,
                    jpeg_quality=self._config.mining.jpeg_quality,
                    redaction=self._redactions[mined.at.frame.camera],
                )
                self._spool.put(finding, jpeg)
            except Exception as error:  # noqa: BLE001 - the loop counts and goes on
                self._note_fault("writer_error", "a sample could not be written", error)

    # The caller's thread.

    def _publish_health(self) -> None:
        """Send the heartbeat whatever the disk does: with its last known figures, if need be."""
        remember = self._memory.save if self._halting.is_set() else self._memory.save_if_due
        for step in (self._expire, self._spool.flush, self._read_spool, remember):
            try:
                step()
            except (OSError, WeakspotError) as error:
                _log.warning("%s", error)
        heartbeat = self._heartbeat()
        self._publisher.offer_heartbeat(encode(heartbeat))
        lost = self._stream.lost
        status = Status(
            pid=os.getpid(),
            heartbeat=heartbeat,
            connected=self._publisher.connected,
            faults=dict(self._publisher.faults) | ({"detections_lost": lost} if lost else {}),
            cameras_lost={eye.camera.name: eye.camera.error for eye in self._eyes if eye.camera.error is not None},
            day=self._day.marks,
        )
        try:
            write_status(self._config.data_dir, status)
        except OSError as error:
            _log.warning("the status could not be written: %s", error)

    def _expire(self) -> None:
        """Let what is too old leave the disk, about once a minute. Without a limit the spool's time passes."""
        now_s = time.monotonic()
        if self._expired_s is not None and now_s - self._expired_s < EXPIRE_S:
            return
        self._expired_s = now_s
        keep_s = self._config.spool.keep_hours * 3600 or math.inf
        n = self._spool.expire(keep_s=keep_s, now_s=now_s, now_ms=time.time_ns() // 1_000_000)
        if n:
            _log.info("%d samples were older than %g hours and left the spool", n, self._config.spool.keep_hours)

    def _read_spool(self) -> None:
        self._counters, self._spooled = self._spool.counters(), self._spool.health()

    def _heartbeat(self) -> Heartbeat:
        now_s = time.monotonic()
        findings, dropped = self._counters
        return Heartbeat(
            boot_id=self._boot_id,
            at_ms=time.time_ns() // 1_000_000,
            uptime_s=round(now_s - self._begun_s, 3),
            model=self._detector.card.release,
            cameras=tuple(eye.health(now_s=now_s) for eye in self._eyes),
            spool=self._spooled,
            findings=findings,
            dropped=dropped,
            bytes_up=self._publisher.bytes_up,
            policies=self._policies.verdicts,
            findings_day=self._day.note(now_ms=time.time_ns() // 1_000_000, total=sum(findings.values())),
        )


def _drawn(mined: list[Mined]) -> list[Mined]:
    """Return the `control` frames: while nothing is mined none is drawn, and those that waited are not lost."""
    return [one for one in mined if one.reason is Reason.CONTROL]
