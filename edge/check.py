"""What `edge check` proves and `edge status` reports. It writes nothing and disturbs no running daemon.

`check_device` says one thing a line: the model opens, each camera gives a frame, the laws of the spool and of the
models on the disk hold, the broker takes this device. A camera or a broker session that a running daemon holds is not
taken from it: its own word counts.
"""

import contextlib
import functools
import hashlib
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from edge.camera import Camera, CameraState
from edge.config import CameraConfig, EdgeConfig, FrigateConfig, source_kind
from edge.contract.errors import UnreachableError, UnusableError, WeakspotError
from edge.contract.rollout import RolloutReport
from edge.contract.samples import decode_event
from edge.contract.status import CameraHealth
from edge.frigate_http import FrigateApi
from edge.frigate_link import open_frigate_link
from edge.health import Status, is_held, read_status
from edge.opening import factory_line, open_configured, spool_path
from edge.policy import PolicyBox, closed
from edge.publisher import Identity, open_link
from edge.slots import broken_slots, models_folder, read_slots
from edge.spool import SampleState

FRAME_S: Final = 20.0
_CHUNK: Final = 64


class Outcome(IntEnum):
    """What a check came to, as an exit status."""

    GOOD = 0
    BROKEN = 1
    FAILED = 2


class Verdict(NamedTuple):
    """One line of `edge check`."""

    name: str
    outcome: Outcome
    text: str


class SpoolReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the spool's file holds: samples by state, their bytes, and the counters since it was made."""

    samples: dict[str, int]
    bytes: int
    limit_bytes: int
    findings: dict[str, int]
    dropped: dict[str, int]


class DeviceReport(msgspec.Struct, frozen=True, kw_only=True):
    """`edge status`. `status` is the last word of the daemon, running or not; None when there never was one.

    `closed`: why no finding is made at this time, by the configuration and the policies on this disk.
    """

    site: str
    device: str
    running: bool
    status: Status | None
    closed: str | None
    spool: SpoolReport | None


def check_device(config: EdgeConfig, *, frame_s: float = FRAME_S) -> Iterator[Verdict]:
    """Yield a verdict a line, as it is reached."""
    status = read_status(config.data_dir) if is_held(config.data_dir) else None
    running = {} if status is None else {camera.name: camera for camera in status.heartbeat.cameras}
    if config.camera:
        yield _judge("model", lambda: _check_model(config))
    if config.frigate is not None and status is None:  # a running bridge has the same client id
        yield _judge("frigate", functools.partial(_check_frigate, config, config.frigate))
    for camera in config.camera:
        name = f"camera {camera.name}"
        if camera.name in running:
            yield _judge(name, functools.partial(_believe_camera, running[camera.name]))
        else:
            yield _judge(name, functools.partial(_check_camera, camera, within_s=frame_s))
    yield _check_spool(spool_path(config))
    if config.camera:
        yield _check_slots(config)
    yield _judge("broker", lambda: _check_broker(config) if status is None else _believe_broker(status))


def report_device(config: EdgeConfig) -> DeviceReport:
    """Return what is known of the device. Raises `UnusableError` when the spool cannot be read."""
    path = spool_path(config)
    return DeviceReport(
        site=config.site,
        device=config.device,
        running=is_held(config.data_dir),
        status=read_status(config.data_dir),
        closed=closed(PolicyBox(config).rules, local=datetime.now(UTC).astimezone()),
        spool=_report_spool(path, limit_bytes=int(config.spool.limit_mb * 1e6)) if path.is_file() else None,
    )


def status_lines(report: DeviceReport) -> list[str]:
    """Return `edge status` for a person."""
    lines = [f"device    {report.site}/{report.device}, {'running' if report.running else 'NOT RUNNING'}"]
    if report.status is None:
        lines.append("daemon    has never run with this data_dir")
    else:
        beat = report.status.heartbeat
        at = datetime.fromtimestamp(beat.at_ms / 1000, UTC)
        lines.append(f"daemon    up {beat.uptime_s:.0f} s, model {beat.model}, last word {at:%Y-%m-%d %H:%M:%S} UTC")
        lines += [f"model     {report.status.running}"] if report.status.running else []
        lines += _update_lines(report.status.update)
        lines.append(
            f"broker    {'connected' if report.status.connected else 'NOT CONNECTED'}, {beat.bytes_up} bytes up"
        )
        for camera in beat.cameras:
            lost = report.status.cameras_lost.get(camera.name)
            lines.append(
                f"camera    {camera.name}: {camera.state}, {camera.frames} frames, {camera.fps:.1f} a second, "
                f"{camera.detect_ms:.1f} ms each, {camera.restarts} restarts{f' (last: {lost})' if lost else ''}"
            )
        lines += [
            f"policy    the {one.scope}'s: {f'REFUSED: {one.refused}' if one.refused else 'followed'} ({one.digest})"
            for one in beat.policies
        ]
        lines += [f"fault     {name}: {n}" for name, n in sorted(report.status.faults.items())]
    if report.closed is not None:
        lines.append(f"mining    {report.closed}")
    if report.spool is None:
        return [*lines, "spool     not made yet"]
    spool = report.spool
    samples = ", ".join(f"{n} {state}" for state, n in spool.samples.items()) or "empty"
    lines.append(f"spool     {samples}; {spool.bytes / 1e6:.1f} of {spool.limit_bytes / 1e6:.0f} MB")
    lines += [f"findings  {reason}: {n}" for reason, n in spool.findings.items()]
    return lines + [f"dropped   {reason}: {n}" for reason, n in spool.dropped.items()]


def _update_lines(update: RolloutReport | None) -> list[str]:
    if update is None:
        return []
    frames = f", {update.frames} frames judged" if update.frames else ""
    reason = f": {update.reason}" if update.reason else ""
    return [f"update    {update.release} (number {update.number}) is {update.phase.replace('_', ' ')}{frames}{reason}"]


def broken_samples(path: Path) -> Iterator[str]:
    """Yield a sentence for everything in a spool that breaks its first law: a row implies its frame, whole.

    Raises `UnusableError` when the file cannot be read.
    """
    with _reading(path) as db:
        verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            yield f"the database is broken: {verdict}"
            return
        orphans = db.execute("SELECT count(*) FROM body WHERE seq NOT IN (SELECT seq FROM sample)").fetchone()[0]
        if orphans:
            yield f"{orphans} frames belong to no sample"
        last = -1
        rows = "SELECT seq, event_id, frame_bytes, frame_sha256, event, jpeg FROM sample LEFT JOIN body USING (seq)"
        # in chunks: one long read would keep the daemon's WAL from being emptied
        while chunk := db.execute(f"{rows} WHERE seq > ? ORDER BY seq LIMIT {_CHUNK}", (last,)).fetchall():
            for last, event_id, size, sha256, event, jpeg in chunk:  # noqa: B007
                fault = _fault(event_id, size=size, sha256=sha256, event=event, jpeg=jpeg)
                if fault is not None:
                    yield f"sample {event_id}: {fault}"


def _fault(event_id: str, *, size: int | None, sha256: str, event: bytes, jpeg: bytes) -> str | None:
    if size is None:
        return "it has no frame"
    if len(jpeg) != size or hashlib.sha256(jpeg).hexdigest() != sha256:
        return "its frame is not the one it was put with"
    try:
        finding, _ = decode_event(event)
    except WeakspotError as error:
        return f"its finding cannot be read: {error}"
    if (finding.event_id, finding.frame_bytes, finding.frame_sha256) != (event_id, size, sha256):
        return "its finding is another's"
    return None


def _judge(name: str, check: Callable[[], str]) -> Verdict:
    try:
        return Verdict(name, Outcome.GOOD, check())
    except WeakspotError as error:
        return Verdict(name, Outcome.FAILED, str(error))


def _check_model(config: EdgeConfig) -> str:
    detector = open_configured(config, cached=False)
    width, height = detector.input_size
    begun_s = time.perf_counter()
    detector.detect(np.full((height, width, 3), 114, np.uint8))
    spent_ms = (time.perf_counter() - begun_s) * 1e3
    variant = f", variant {detector.variant}" if detector.variant else ""
    how = f"{detector.runtime_name} in {detector.precision}"
    return f"{detector.card.release}{variant} on {how}, input {width}x{height}, {spent_ms:.0f} ms a frame"


def _check_camera(config: CameraConfig, *, within_s: float) -> str:
    changed = threading.Event()
    camera = Camera(config, on_frame=changed.set)
    camera.start()
    try:
        deadline_s = time.monotonic() + within_s
        while (frame := camera.newest()) is None:
            if camera.error is not None or not changed.wait(max(0.0, deadline_s - time.monotonic())):
                cause = camera.error or f"no frame within {within_s:.0f} s"
                msg = f"the {source_kind(config.source)} gives no frame: {cause}"
                raise UnreachableError(msg)
            changed.clear()
    finally:
        camera.stop()
    height, width = frame.image.shape[:2]
    return f"a frame of {width}x{height}"


def _check_spool(path: Path) -> Verdict:
    if not path.is_file():
        return Verdict("spool", Outcome.GOOD, "not made yet")
    try:
        faults = list(broken_samples(path))
        report = _report_spool(path, limit_bytes=0)
    except UnusableError as error:
        return Verdict("spool", Outcome.FAILED, str(error))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return Verdict("spool", Outcome.BROKEN, f"{faults[0]}{more}")
    total = sum(report.samples.values())
    return Verdict("spool", Outcome.GOOD, f"{total} samples, every frame of the size and hash of its finding")


def _check_slots(config: EdgeConfig) -> Verdict:
    """Prove laws 5 and 6 of the house: one model is active, it and every other is as it was signed."""
    folder = models_folder(config.data_dir)
    if not folder.is_dir():
        return Verdict("slots", Outcome.GOOD, "the model of edge.toml is active; no release was ever taken")
    try:
        line = factory_line(config)
    except UnusableError as error:
        return Verdict("slots", Outcome.FAILED, str(error))
    try:
        faults = list(broken_slots(folder, line))
        slots = read_slots(folder, line)
    except UnusableError as error:
        return Verdict("slots", Outcome.BROKEN, str(error))
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        return Verdict("slots", Outcome.BROKEN, f"{faults[0]}{more}")
    active = slots.slot(slots.active)
    name = "the model of edge.toml" if active is None else f"{active.number}, {active.release},"
    way = f"; below {slots.highest}, once confirmed, because {slots.below}" if slots.below else ""
    held = f"{len(slots.held)} releases held, each as it was signed"
    return Verdict("slots", Outcome.GOOD, f"{name} is active{' on trial' if slots.on_trial else ''}{way}; {held}")


def _believe_camera(health: CameraHealth) -> str:
    if health.state == CameraState.RUNNING and health.frame_age_s is not None:
        return f"the running daemon had a frame {health.frame_age_s:.1f} s before its last word"
    msg = f"the running daemon says: {health.state}"
    raise UnreachableError(msg)


def _check_broker(config: EdgeConfig) -> str:
    """Connect as the device: a broker that names clients after their certificates knows no other name."""
    identity = Identity(site=config.site, device=config.device, boot_id="", model="", version="")
    link = open_link(config.mqtt, identity)
    link.open()
    link.close()
    return f"{config.mqtt.host}:{config.mqtt.port_number} takes this device"


def _check_frigate(config: EdgeConfig, frigate: FrigateConfig) -> str:
    link = open_frigate_link(config, frigate)
    link.open()
    link.close()
    told = f"{frigate.host}:{frigate.port_number} takes this device"
    return (
        told
        if frigate.url is None
        else f"{told}, {frigate.url} tells of {len(FrigateApi(frigate.url).views())} cameras"
    )


def _believe_broker(status: Status) -> str:
    if status.connected:
        return "the running daemon is connected"
    msg = "the running daemon is not connected"
    raise UnreachableError(msg)


def _report_spool(path: Path, *, limit_bytes: int) -> SpoolReport:
    with _reading(path) as db:
        rows = db.execute("SELECT state, count(*), sum(cost) FROM sample GROUP BY state").fetchall()
        counters: dict[str, dict[str, int]] = {"findings": {}, "dropped": {}}
        for name, n in db.execute("SELECT name, n FROM counter ORDER BY name"):
            kind, _, reason = name.partition("/")
            counters[kind][reason] = n
    return SpoolReport(
        samples={SampleState(state).name.lower(): n for state, n, _ in rows},
        bytes=sum(cost for _, _, cost in rows),
        limit_bytes=limit_bytes,
        findings=counters["findings"],
        dropped=counters["dropped"],
    )


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a spool for reading beside a daemon that may be writing to it."""
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10.0)) as db:
            db.execute("PRAGMA query_only = ON")
            yield db
    except sqlite3.Error as error:
        msg = f"the spool {path} cannot be read: {error}"
        raise UnusableError(msg) from error
