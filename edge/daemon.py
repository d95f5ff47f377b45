"""`edge run`: every room of the device, put together.

Threads, and what each may wait for:

- one a camera (edge.camera): its capture process;
- detection (edge.detection): the newest frames and the detector, nothing else;
- writer: the disk. It encodes, hashes and puts into the spool;
- publisher (edge.publisher): the network;
- updater (edge.updating): the disk, the network, and the process in which a new model is judged;
- the caller's: heartbeats, the status file, systemd, and what is too old in the spool.

To stop: no more capture, then what was mined goes to the spool, then the publisher gets a short time.
"""

import contextlib
import logging
import math
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from edge.camera import Camera
from edge.config import EdgeConfig, SourceKind, source_kind
from edge.contract.errors import UnusableError, WeakspotError
from edge.contract.status import Heartbeat, encode
from edge.detection import Detection
from edge.detector.detector import Detector
from edge.eye import Eye
from edge.finding import seal
from edge.health import Status, hold_folder, resume_day, write_status
from edge.home_assistant import open_announcement
from edge.memory import open_memory
from edge.opening import open_slot, open_spool, version
from edge.policy import PolicyBox, overlay
from edge.publisher import Identity, Publisher
from edge.quota import Quota
from edge.serving import open_serving, places_of, running_words
from edge.slots import SlotStore
from edge.spool import Spool
from edge.stream import DetectionStream
from edge.updating.proving import release_folder
from edge.updating.updater import Updater, begin_start

STOP_GRACE_S: Final = 3.0
END_QUIET_S: Final = 5.0
END_GRACE_S: Final = 30.0
WATCHDOG_S: Final = 30.0
EXPIRE_S: Final = 60.0
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
        slots = begin_start(config)
        spool = stack.enter_context(contextlib.closing(open_spool(config)))
        active = release_folder(slots, slots.slots.active)
        daemon = Daemon(config, detector=open_slot(config, active), spool=spool, slots=slots)  # no name keeps it
        daemon.start()
        stack.callback(daemon.stop)
        tell("READY=1")
        daemon.attend(stop, exit_at_end=exit_at_end, tell=tell)
        tell("STOPPING=1")


class Daemon:
    """The running device. `start` once, `attend` for as long as it should run, `stop` once."""

    def __init__(self, config: EdgeConfig, *, detector: Detector, spool: Spool, slots: SlotStore | None = None) -> None:
        self._config = config
        self._spool = spool
        self._boot_id = uuid.uuid4().hex
        self._begun_s = time.monotonic()
        self._expired_s: float | None = None
        self._halted = False
        self._closed = "" if slots is None else slots.closed
        self._policies = PolicyBox(config)
        self._counters, self._spooled = spool.counters(), spool.health()
        self._day = resume_day(config.data_dir)
        serving = open_serving(config, detector, number=0 if slots is None else slots.slots.active)
        self._publisher = Publisher(
            config.mqtt,
            spool=spool,
            identity=Identity(
                site=config.site,
                device=config.device,
                boot_id=self._boot_id,
                model=serving.release,
                version=version(),
                labels=config.labels,
                updates=config.updates is not None and not self._closed,
            ),
            upload_all=config.upload == "all",
            on_policy=self._policies.take,
            announcement=open_announcement(config, version=version()),
        )
        self._stream = DetectionStream(
            config.detections,
            labels=detector.labels,
            score_threshold=serving.score_threshold,
            publish=self._publisher.offer_detections,
        )
        woken = threading.Event()
        self._eyes = [
            Eye(Camera(camera, on_frame=woken.set), serving.pipelines[camera.name], serving.redactions[camera.name])
            for camera in config.camera
        ]
        self._memory = open_memory(config.data_dir, model=serving.release, cameras=places_of(serving))
        self._detection = Detection(
            self._eyes,
            serving,
            quota=Quota(config.quota),
            policies=self._policies,
            rules=overlay(config, None, None),
            spool=spool,
            stream=self._stream,
            woken=woken,
        )
        self._writer = threading.Thread(target=self._write, name="writer", daemon=True)
        self._updater = None
        if slots is not None and not self._closed:
            self._updater = Updater(
                config, slots, detection=self._detection, publisher=self._publisher, boot_id=self._boot_id
            )
            self._publisher.on_assign = self._updater.take

    def start(self) -> None:
        """Start every thread and every capture process."""
        self._publisher.start()
        self._writer.start()
        self._detection.start()
        for eye in self._eyes:
            eye.camera.start()
        if self._updater is not None:
            self._updater.start()

    def stop(self) -> None:
        """Stop capturing, drain into the spool, give the publisher a short time."""
        if self._updater is not None:
            self._updater.stop()
        for eye in self._eyes:
            eye.camera.stop()
        self._halted = True
        self._detection.stop()
        self._detection.queue.put(None)
        self._writer.join()
        self._stream.close()
        self._publish_health()
        self._publisher.stop(grace_s=STOP_GRACE_S)
        self._publish_health()

    def attend(self, stop: threading.Event, *, exit_at_end: bool, tell: Callable[[str], None]) -> None:
        """Send heartbeats, one at once when a policy came, and pet the watchdog until `stop`, or the end if asked.

        Raises `UnusableError` for a file that is no video, and where a model that has to be left cannot be.
        """
        due_s = time.monotonic()
        ended_s: float | None = None
        told = self._policies.verdicts
        while not stop.wait(_TURN_S):
            self._require_videos()
            if self._updater is not None and self._updater.fault:
                raise UnusableError(self._updater.fault)
            now_s = time.monotonic()
            threads = (self._publisher.alive, self._writer.is_alive(), self._updater is None or self._updater.alive)
            if now_s - self._detection.beat_s < WATCHDOG_S and all(threads):
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
        return self._detection.queue.empty() and all(eye.finished for eye in self._eyes)

    def _is_quiet(self, now_s: float, ended_s: float) -> bool:
        """Whether the hub has every finding, and has asked for nothing for a while."""
        quiet_s = now_s - max(ended_s, self._publisher.active_s)
        return quiet_s > END_QUIET_S and self._spool.health().unsent == 0

    # The writer's thread.

    def _write(self) -> None:
        while (sighted := self._detection.queue.get()) is not None:
            mined, serving = sighted
            try:
                finding, jpeg = seal(
                    mined,
                    detector=serving.detector,
                    site=self._config.site,
                    device=self._config.device,
                    jpeg_quality=self._config.mining.jpeg_quality,
                    redaction=serving.redactions[mined.at.frame.camera],
                )
                self._spool.put(finding, jpeg)
            except Exception as error:  # noqa: BLE001 - the loop counts and goes on
                self._detection.count_fault("writer_error", "a sample could not be written", error)

    # The caller's thread.

    def _publish_health(self) -> None:
        """Send the heartbeat whatever the disk does: with its last known figures, if need be."""
        serving = self._detection.serving
        self._memory.adopt(model=serving.release, cameras=places_of(serving))
        remember = self._memory.save if self._halted else self._memory.save_if_due
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
            running=f"{running_words(serving.detector)}{f'; UPDATES ARE OFF: {self._closed}' if self._closed else ''}",
            update=None if self._updater is None else self._updater.last_report,
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
            model=self._detection.serving.release,
            cameras=tuple(eye.health(now_s=now_s) for eye in self._eyes),
            spool=self._spooled,
            findings=findings,
            dropped=dropped,
            bytes_up=self._publisher.bytes_up,
            policies=self._policies.verdicts,
            findings_day=self._day.note(now_ms=time.time_ns() // 1_000_000, total=sum(findings.values())),
        )
