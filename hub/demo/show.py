"""The demo's course: clips, broker, hub, cameras; live counters; weak spots; a batch for the first; where to look.

The devices stay until the hub has what it asked for: a weak spot is named while they play, and its frames are theirs.
"""

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from edge.contract.errors import UnreachableError, UnusableError
from hub.batches import batch_view, new_batch
from hub.demo import Upload
from hub.demo.broker import local_broker
from hub.demo.cameras import CAMERAS, count_frames, find_clip, make_clips
from hub.export import Format, export_batch
from hub.naming import refresh
from hub.spot_report import overviews
from hub.store import Store
from hub.store_status import HubStatus
from hub.tags import Tagger, TagsConfig
from hub.weakspot_lines import table_lines

MARK: Final = ".weakspot-demo"
QUIET_S: Final = 4.0
PATIENCE_S: Final = 240.0
STOP_S: Final = 20.0
HEARTBEAT_S: Final = 1.0

_EDGE: Final = """\
site = "demo"
device = "{camera}"
data_dir = "device-{camera}"
upload = "{upload}"

[model]
input = "256x192"
score_threshold = 0.4
threads = 1

[mqtt]
host = "127.0.0.1"
port = {port}
heartbeat_s = {heartbeat_s}

[mining]
control_per_hour = 3600
zoom_budget = 0.5

[quota]
burst = 1000

[[camera]]
name = "{camera}"
source = "{source}"
fps = 0
"""

LABELS: Final = ("person",)

_HUB: Final = """\
database = "hub.db"

[mqtt]
host = "127.0.0.1"
port = {port}

[labels]
names = {labels}
"""


def run_demo(out: Path, *, upload: Upload, size: int, console: Console) -> int:
    """Run the loop once and return the number of images in the batch.

    Args:
        out: folder of everything the demo writes; an earlier demo in it is replaced.
        upload: `want` (frames on the hub's want) or `all` (every frame with its finding).
        size: images in the batch.
        console: where the counters and the result are printed.

    Raises:
        UnusableError: when `out` holds something else, or the cameras gave nothing to make a batch of.
        UnreachableError: when the broker, the hub or a camera's device did not start.
    """
    _clear(out)
    clips = _make_clips(out, console)
    with ExitStack() as stack:
        broker, port = stack.enter_context(local_broker(out))
        console.print(f"broker [bold]{broker}[/] on 127.0.0.1:{port}; hub and three devices beside it, logs in {out}/")
        (out / "hub.toml").write_text(_HUB.format(port=port, labels=json.dumps(LABELS)))
        hub = stack.enter_context(_running("hub", ["serve", "--config", "hub.toml"], out, name="hub"))
        _wait_for_database(hub, out)
        store = stack.enter_context(Store.open(out / "hub.db", create=False))
        devices = []
        for camera, source in clips.items():
            text = _EDGE.format(camera=camera, source=source.name, port=port, upload=upload, heartbeat_s=HEARTBEAT_S)
            (out / f"edge-{camera}.toml").write_text(text)
            command = ["run", "--config", f"edge-{camera}.toml"]
            devices.append(stack.enter_context(_running("edge", command, out, name=f"edge-{camera}")))
        _watch(store, devices, hub, out=out, console=console)
        return _batch(store, out, size=size, console=console)


def _clear(out: Path) -> None:
    try:
        if out.exists() and any(out.iterdir()):
            if not (out / MARK).is_file():
                msg = f"{out} holds something that no demo wrote; name another folder with --out"
                raise UnusableError(msg)
            shutil.rmtree(out)
        out.mkdir(parents=True, exist_ok=True)
        (out / MARK).touch()
    except OSError as error:
        msg = f"{out} cannot be used as the demo's folder: {error.strerror}"
        raise UnusableError(msg) from error


def _make_clips(out: Path, console: Console) -> dict[str, Path]:
    bar = Progress(TextColumn("making the cameras' clips"), BarColumn(), TimeRemainingColumn(), console=console)
    with bar:
        clip = find_clip()
        task = bar.add_task("", total=count_frames(clip) * len(CAMERAS))
        return make_clips(clip, out, on_frame=lambda: bar.advance(task))


@contextmanager
def _running(program: str, arguments: list[str], out: Path, *, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run one of our own programs in `out`; SIGTERM at the end, SIGKILL if it does not go."""
    with (out / f"{name}.log").open("wb") as log:
        command = [sys.executable, "-m", program, *arguments]
        process = subprocess.Popen(command, cwd=out, stdout=log, stderr=log, stdin=subprocess.DEVNULL)  # noqa: S603 (ours)
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_database(hub: subprocess.Popen[bytes], out: Path) -> None:
    deadline = time.monotonic() + STOP_S
    while not (out / "hub.db").is_file():
        if hub.poll() is not None or time.monotonic() > deadline:
            msg = f"the hub did not start: {_last_line(out / 'hub.log')}"
            raise UnreachableError(msg)
        time.sleep(0.05)


def _watch(
    store: Store,
    devices: list[subprocess.Popen[bytes]],
    hub: subprocess.Popen[bytes],
    *,
    out: Path,
    console: Console,
) -> None:
    """Show the counters until nothing has moved for a while: every clip is at its end, what was wanted is here.

    Then the weak spots are named once more, and what that makes the hub ask for is waited for, too.
    """
    started = moved = time.monotonic()
    seen: tuple[object, ...] = ()
    named = False
    with Live(console=console, refresh_per_second=4) as live:
        while True:
            status = store.status(now_ms=time.time_ns() // 1_000_000)
            live.update(_counters(status, seconds=time.monotonic() - started))
            if hub.poll() is not None:
                msg = f"the hub stopped: {_last_line(out / 'hub.log')}"
                raise UnreachableError(msg)
            for device, camera in zip(devices, CAMERAS, strict=True):
                if device.poll() is not None:
                    msg = f"the device {camera} stopped: {_last_line(out / f'edge-{camera}.log')}"
                    raise UnreachableError(msg)
            now = time.monotonic()
            if _is_busy(status, devices) or _moving(status) != seen:
                seen, moved = _moving(status), now
            if now - started > PATIENCE_S or (named and now - moved > QUIET_S):
                return
            if now - moved > QUIET_S:
                refresh(store, Tagger(TagsConfig()), time.time_ns() // 1_000_000)
                named, moved = True, now
            time.sleep(0.25)


def _is_busy(status: HubStatus, devices: list[subprocess.Popen[bytes]]) -> bool:
    """Whether something is known to be under way."""
    waiting = status.ungrouped or status.frames.get("wanted", 0) or any(device.unsent for device in status.devices)
    return bool(waiting) or len(status.devices) < len(devices) or not all(device.frames for device in status.devices)


def _moving(status: HubStatus) -> tuple[object, ...]:
    return tuple(device.frames for device in status.devices), status.findings, status.frames


def _counters(status: HubStatus, *, seconds: float) -> Group:
    devices = Table(title=f"{seconds:.0f} s", title_justify="left")
    devices.add_column("camera")
    for column in ("frames", "findings", "frames here", "sent"):
        devices.add_column(column, justify="right")
    for device in status.devices:
        devices.add_row(
            f"{device.device} ({CAMERAS[device.device]})",
            str(device.frames),
            str(device.findings),
            str(device.frames_present),
            _bytes(device.bytes_up),
        )
    up = sum(device.bytes_up for device in status.devices)
    everything = status.finding_frame_bytes + sum(status.findings.values()) * 1500
    by_reason = ", ".join(f"{reason} {n}" for reason, n in status.findings.items()) or "none yet"
    lines = Table.grid(padding=(0, 2))
    lines.add_row("findings", by_reason)
    lines.add_row("deduped", f"{sum(status.findings.values()) - status.ungrouped} into {status.groups} groups")
    frames = status.frames
    lines.add_row("wanted", f"{frames.get('wanted', 0)} on their way, {frames.get('present', 0)} here")
    lines.add_row("sent", f"{_bytes(up)} up; every finding's frame would be {_bytes(everything)}")
    return Group(devices, lines)


def _batch(store: Store, out: Path, *, size: int, console: Console) -> int:
    """Print the weak spots, make a batch for the first of them, else a general one; return its number of images."""
    naming = refresh(store, Tagger(TagsConfig()), time.time_ns() // 1_000_000)
    named = overviews(naming)
    console.print()
    for line in table_lines(named, naming):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    batch = new_batch(store, size=size, weak_spot_id=named[0].spot.id if named else None)
    folder = out / f"batch-{batch.id}"
    export_batch(batch_view(store, batch.id, labels=LABELS), Format.CVAT, folder)
    console.print(f"\nbatch {batch.id}: {batch.size} images, [bold]{batch.title}[/]")
    console.print(f"look at {folder / 'contact-sheet.png'}")
    console.print(f"open in CVAT: {folder / 'README.txt'} says how")
    console.print(f"go on: cd {out}; hub weakspots; hub weakspots show 1; hub batch show {batch.id}", soft_wrap=True)
    return batch.size


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.0f} kB"


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
