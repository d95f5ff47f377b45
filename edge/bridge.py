"""`edge bridge frigate`: Frigate's broker -> spool -> our publisher. Frigate's cameras become cameras of this device.

Threads, and what each may wait for:

- listener (edge.frigate_link): Frigate's broker;
- worker: Frigate's HTTP API and the disk. It asks for pictures, judges, describes and puts into the spool;
- publisher (edge.publisher): our broker;
- the caller's: heartbeats, the status file, systemd.

Laws:

1. Whatever Frigate says, both threads go on; what cannot be used is counted by reason.
2. One track of Frigate is one event id, over restarts as well.
3. No picture is decoded before its markers say that it is a JPEG of a bearable size.
"""

import contextlib
import logging
import math
import os
import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import datetime
from typing import Final, TypeVar

from edge.config import EdgeConfig, FrigateConfig
from edge.contract.errors import UnreachableError, UnusableError, WeakspotError
from edge.contract.samples import plain_text
from edge.contract.status import Heartbeat, encode
from edge.daemon import STOP_GRACE_S, WATCHDOG_S
from edge.frigate import FrigateTrack, Rules, UnfitError, judge, may_be_found, parse_event, parse_stats
from edge.frigate_cameras import FrigateCameras
from edge.frigate_http import FrigateApi, View
from edge.frigate_link import MAX_PICTURE_BYTES, FrigateListener, Heard
from edge.frigate_sample import MODEL, Origin, seal
from edge.frigate_tracks import PATIENCE_S, FrigateTracks, Pictured
from edge.health import Status, hold_folder, resume_day, write_status
from edge.opening import open_spool, version
from edge.policy import PolicyBox, closed
from edge.policy import Rules as Followed
from edge.publisher import Identity, Publisher
from edge.quota import Quota
from edge.spool import Spool

API_REST_S: Final = 10.0
EXPIRE_S: Final = 60.0
MISSING: Final = "no_snapshot"
BUSY: Final = "bridge_busy"
_WAIT_S: Final = 0.25

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


def run(config: EdgeConfig, *, stop: threading.Event, tell: Callable[[str], None] = lambda _: None) -> None:
    """Run the bridge until `stop` is set.

    Args:
        config: the whole configuration; `[frigate]` must be there. Its `[[camera]]`s are not run.
        stop: set it, from a signal or a test, to drain and return.
        tell: takes what systemd is told.

    Raises:
        UnusableError: when a file, a certificate or a key can never work as it is.
        UnreachableError: when the data folder cannot be written.
    """
    if config.frigate is None:
        msg = "there is no [frigate] in the configuration"
        raise UnusableError(msg)
    if config.privacy.blur != "none":
        msg = "`privacy.blur` cannot be kept here: Frigate tells of one object a picture, not of everybody in it"
        raise UnusableError(msg)
    with ExitStack() as stack:
        stack.enter_context(hold_folder(config.data_dir))
        spool = stack.enter_context(contextlib.closing(open_spool(config)))
        bridge = Bridge(config, config.frigate, spool=spool)
        bridge.start()
        stack.callback(bridge.stop)
        tell("READY=1")
        bridge.attend(stop, tell=tell)
        tell("STOPPING=1")


class Bridge:
    """The running bridge. `start` once, `attend` for as long as it should run, `stop` once."""

    def __init__(self, config: EdgeConfig, frigate: FrigateConfig, *, spool: Spool) -> None:
        self._config = config
        self._frigate = frigate
        self._spool = spool
        self._begun_s = self._beat_s = time.monotonic()
        self._expire_s = -math.inf
        self._halting = threading.Event()
        self._faults: Counter[str] = Counter()
        self._counters, self._spooled = spool.counters(), spool.health()
        self._day = resume_day(config.data_dir)
        self._policies = PolicyBox(config)
        self._followed: Followed | None = None
        self._quota = Quota(config.quota)
        self._api = None if frigate.url is None else FrigateApi(frigate.url)
        self._rest_s = -math.inf
        self._views: dict[str, View] | None = None
        self._sizes = {camera.name: camera.detect_size for camera in frigate.camera if camera.size is not None}
        self._tracks = FrigateTracks(patience_s=0.0 if self._api else PATIENCE_S)
        self._cameras = FrigateCameras(tuple(camera.name for camera in frigate.camera))
        self._listener = FrigateListener(config, frigate)
        self._lost = 0
        self._boot_id = uuid.uuid4().hex
        self._publisher = Publisher(
            config.mqtt,
            spool=spool,
            identity=Identity(
                site=config.site,
                device=config.device,
                boot_id=self._boot_id,
                model=MODEL,
                version=version(),
                labels=config.labels,
            ),
            upload_all=config.upload == "all",
            on_policy=self._policies.take,
        )
        self._worker = threading.Thread(target=self._work, name="worker", daemon=True)

    def start(self) -> None:
        """Start every thread."""
        self._publisher.start()
        self._worker.start()
        self._listener.start()

    def stop(self) -> None:
        """Stop listening, drain into the spool, give the publisher a short time."""
        self._halting.set()
        self._listener.stop()
        self._worker.join()
        self._publish_health()
        self._publisher.stop(grace_s=STOP_GRACE_S)
        self._publish_health()

    def attend(self, stop: threading.Event, *, tell: Callable[[str], None]) -> None:
        """Send heartbeats, one at once when a policy came, and pet the watchdog until `stop`."""
        due_s = time.monotonic()
        told = self._policies.verdicts
        while not stop.wait(_WAIT_S):
            now_s = time.monotonic()
            alive = self._publisher.alive and self._worker.is_alive() and self._listener.alive
            if alive and now_s - self._beat_s < WATCHDOG_S:
                tell("WATCHDOG=1")
            if now_s >= due_s or self._policies.verdicts is not told:
                told = self._policies.verdicts
                due_s = now_s + self._config.mqtt.heartbeat_s
                self._publish_health()

    # The worker's thread.

    def _work(self) -> None:
        going = True
        while going:
            self._beat_s = time.monotonic()
            try:
                heard = self._listener.inbox.get(timeout=_WAIT_S)
                going = heard is not None
                if heard is not None:
                    self._hear(heard)
            except queue.Empty:
                pass
            except UnusableError as error:
                self._note_fault("frigate_bad_message", f"Frigate: {error}")
            except Exception as error:  # noqa: BLE001 - the loop counts and goes on
                self._note_fault("worker_error", "a message of Frigate could not be taken in", error)
            try:
                self._follow()
            except WeakspotError as error:
                self._note_fault("spool_error", str(error))
            self._finish(now_s=time.monotonic() if going else math.inf)

    def _hear(self, heard: Heard) -> None:
        """Take one message. Raises `UnusableError` when it is not as Frigate documents it."""
        parts = heard.topic.split("/")
        if heard.topic == "events":
            track = parse_event(heard.payload)
            if self._cameras.take(track.camera):
                self._tracks.note(track, now_s=heard.at_s)
                self._ask_for_picture(track)
        elif heard.topic == "stats":
            self._cameras.note_rates(parse_stats(heard.payload))
        elif heard.topic == "available":
            if self._cameras.note_available(is_online=heard.payload == b"online", retained=heard.retained):
                self._tracks.forget()
                self._views = None
        elif len(parts) == 3 and parts[2] == "snapshot" and not heard.retained and self._cameras.take(parts[0]):
            self._cameras.note_picture(parts[0], now_s=heard.at_s)
            self._tracks.offer(parts[0], plain_text(parts[1]), heard.payload, now_s=heard.at_s)

    def _rules(self) -> Rules:
        mining = self._policies.rules.mining
        return Rules(
            threshold=self._frigate.threshold,
            band=mining.low_confidence_band,
            min_severity=mining.min_severity,
            labels=frozenset(mining.labels),
        )

    def _ask_for_picture(self, track: FrigateTrack) -> None:
        """Ask Frigate for the track's best frame, while it can still be had without anything drawn on it."""
        if self._api is None or not self._tracks.lacks(track) or not may_be_found(track, self._rules()):
            return
        if track.ended and not self._view(track.camera).saved_clean:
            return
        jpeg = self._ask(lambda api: api.snapshot(track.id, most=MAX_PICTURE_BYTES))
        if jpeg is not None:
            self._cameras.note_picture(track.camera, now_s=time.monotonic())
            self._tracks.keep(track, jpeg)

    def _view(self, camera: str) -> View:
        """Return what is known of a camera's configuration in Frigate."""
        if self._views is None:
            self._views = self._ask(lambda api: api.views())
        return (self._views or {}).get(camera, View(size=None, saved_clean=False))

    def _ask(self, question: Callable[[FrigateApi], _T]) -> _T | None:
        """Ask Frigate's API; None when there is no answer. After a silence it is left alone for `API_REST_S`."""
        if self._api is None or self._halting.is_set() or time.monotonic() < self._rest_s:
            return None
        try:
            return question(self._api)
        except UnreachableError as error:
            self._rest_s = time.monotonic() + API_REST_S
            self._note_fault("frigate_unreachable", str(error))
        except UnusableError as error:
            self._note_fault("frigate_refused", str(error))
        return None

    def _follow(self) -> None:
        """Count what was lost, let new limits bind, and old samples leave."""
        lost = self._listener.lost + self._tracks.pushed_out
        if lost > self._lost:
            self._spool.count(BUSY, lost - self._lost)
            self._lost = lost
        now_s = time.monotonic()
        followed = self._policies.rules
        if followed is not self._followed:
            self._followed = followed
            self._quota.adopt(followed.quota, now_s=now_s)
        if now_s - self._expire_s >= EXPIRE_S:
            self._expire_s = now_s
            keep_s = self._config.spool.keep_hours * 3600.0 or math.inf
            self._spool.expire(keep_s=keep_s, now_s=now_s, now_ms=time.time_ns() // 1_000_000)

    def _finish(self, *, now_s: float) -> None:
        """Make samples of the tracks that have ended."""
        for pictured in self._tracks.finished(now_s=now_s):
            try:
                self._sample(pictured)
            except UnfitError as error:
                _log.debug("track %s: %s", pictured.track.id, error)
                self._spool.count(error.reason)
            except Exception as error:  # noqa: BLE001 - the loop counts and goes on
                self._spool.count("sample_error")
                self._note_fault("sample_error", "a sample could not be made", error)

    def _sample(self, pictured: Pictured) -> None:
        track, picture = pictured
        verdict = judge(track, self._rules())
        if verdict is None or closed(self._policies.rules, local=datetime.now().astimezone()) is not None:
            return
        if picture is None:
            msg = "there is no snapshot"
            raise UnfitError(MISSING, msg)
        detect = self._sizes.get(track.camera) or self._view(track.camera).size
        origin = Origin(
            site=self._config.site,
            device=self._config.device,
            sequence=self._cameras.next_sample(track.camera),
        )
        finding = seal(track, picture, verdict=verdict, detect=detect, origin=origin)
        if finding is None:
            return
        if self._quota.admit(track.camera, verdict.reason, now_s=time.monotonic()):
            self._spool.put(finding, picture.jpeg)
        else:
            self._spool.count(f"quota_{verdict.reason}")

    def _note_fault(self, kind: str, text: str, error: Exception | None = None) -> None:
        """Count a fault; log the 1st, 2nd, 4th, 8th ... so that one that stays does not fill the disk."""
        self._faults[kind] += 1
        n = self._faults[kind]
        if n & (n - 1) == 0:
            _log.warning("%s (%d so far)", text, n, exc_info=error)

    # The caller's thread.

    def _publish_health(self) -> None:
        """Send the heartbeat whatever the disk does: with its last known figures, if need be."""
        for step in (self._spool.flush, self._read_spool):
            try:
                step()
            except (OSError, WeakspotError) as error:
                _log.warning("%s", error)
        heartbeat = self._heartbeat()
        self._publisher.offer_heartbeat(encode(heartbeat))
        status = Status(
            pid=os.getpid(),
            heartbeat=heartbeat,
            connected=self._publisher.connected,
            faults=dict(self._publisher.faults + self._listener.faults + self._faults),
            cameras_lost=self._cameras.lost(reachable=self._listener.reachable),
            day=self._day.marks,
        )
        try:
            write_status(self._config.data_dir, status)
        except OSError as error:
            _log.warning("the status could not be written: %s", error)

    def _read_spool(self) -> None:
        self._counters, self._spooled = self._spool.counters(), self._spool.health()

    def _heartbeat(self) -> Heartbeat:
        now_s, now_ms = time.monotonic(), time.time_ns() // 1_000_000
        findings, dropped = self._counters
        return Heartbeat(
            boot_id=self._boot_id,
            at_ms=now_ms,
            uptime_s=round(now_s - self._begun_s, 3),
            model=MODEL,
            cameras=self._cameras.health(now_s=now_s, reachable=self._listener.reachable),
            spool=self._spooled,
            findings=findings,
            dropped=dropped,
            bytes_up=self._publisher.bytes_up,
            findings_day=self._day.note(now_ms=now_ms, total=sum(findings.values())),
            policies=self._policies.verdicts,
        )
