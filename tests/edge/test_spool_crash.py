"""The spool against a real SIGKILL, a real full disk and a real power cut."""

import contextlib
import fcntl
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.check import broken_samples
from edge.spool import SampleState, Spool
from tests.edge.samples import make_sample

ROUNDS = 8
WRITER = """
import sys
from pathlib import Path
from edge.check import broken_samples
from edge.spool import Spool
from tests.edge.samples import make_sample
spool = Spool(Path(sys.argv[1]), limit_bytes=10**9, reserve_bytes=100_000)
while True:
    finding, jpeg = make_sample(size=30_000)
    assert spool.put(finding, jpeg)
    print(finding.event_id, flush=True)
"""


def test_nothing_put_is_lost_to_sigkill(tmp_path: Path) -> None:
    """A process puts samples and says so; it is killed at a random moment; every one it named is there, whole."""
    path = tmp_path / "spool.db"
    root = Path(__file__).resolve().parents[2]
    random_ = random.Random()
    said: list[str] = []
    for _ in range(ROUNDS):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=root
        )
        assert writer.stdout is not None
        for _ in range(random_.randint(1, 30)):
            said.append(writer.stdout.readline().strip())
        writer.send_signal(signal.SIGKILL)
        said += writer.stdout.read().split("\n")[:-1]  # lines written before the signal; the last may be cut
        writer.stdout.close()
        writer.wait()
    said = [line for line in said if len(line) == 32]
    assert len(said) >= ROUNDS
    with contextlib.closing(Spool(path, limit_bytes=10**9, reserve_bytes=100_000)) as spool:
        for event_id in said:
            assert spool.frame(event_id) == make_sample(size=30_000, event_id=event_id)[1]
        assert spool.health().samples - len(said) <= ROUNDS  # at most one a round was stored and not yet said


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB of its own."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small disk")
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", mount], capture_output=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"cannot mount here: {made.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", mount], check=True)


def fill(disk: Path) -> Path:
    """Take what is left of the disk, to the last byte."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(b"\x00" * 4096)
    return filler


def open_spool(disk: Path) -> Spool:
    return Spool(disk / "spool.db", limit_bytes=10**9, reserve_bytes=1_000_000)


def test_a_limit_above_the_disk_shrinks_to_the_disk(small_disk: Path) -> None:
    with contextlib.closing(open_spool(small_disk)) as spool:
        for _ in range(400):
            assert spool.put(*make_sample(size=50_000))
        assert 20 < spool.health().samples < 240
        assert spool.counters()[0] == {"missed": 400}
        assert sum(spool.counters()[1].values()) == 400 - spool.health().samples
        assert (small_disk / "spool.db.reserve").stat().st_size == 1_000_000


def test_a_disk_filled_by_others_does_not_stop_the_spool(small_disk: Path) -> None:
    with contextlib.closing(open_spool(small_disk)) as spool:
        kept = []
        for _ in range(60):
            finding, jpeg = make_sample(size=50_000)
            assert spool.put(finding, jpeg)
            kept.append(finding.event_id)
        filler = fill(small_disk)
        stored = sum(spool.put(*make_sample(size=50_000)) for _ in range(200))
        fill(small_disk)
        stored += sum(spool.put(*make_sample(size=50_000)) for _ in range(200))
        findings, dropped = spool.counters()
        assert findings["missed"] == 60 + stored
        assert findings["missed"] + dropped.get("disk_full", 0) == 460
        evicted = sum(n for reason, n in dropped.items() if reason.startswith("evicted_"))
        assert spool.health().samples == findings["missed"] - evicted
        assert stored > 300, dropped
        newest = [leased.event_id for leased in spool.lease(SampleState.NEW, now_s=0.0, limit=3)]
        assert spool.ack_findings(newest) == newest
        assert spool.ack_frames(newest[:1]) == newest[:1]

        filler.unlink()
        spool.flush()
        assert (small_disk / "spool.db.reserve").stat().st_size == 1_000_000
        before = spool.counters()[1]
        for _ in range(20):
            assert spool.put(*make_sample(size=50_000))
        assert spool.counters()[1] == before, "nothing is evicted once there is room again"


def test_a_spool_starts_on_a_full_disk(small_disk: Path) -> None:
    with contextlib.closing(open_spool(small_disk)) as spool:
        finding, jpeg = make_sample(size=50_000)
        spool.put(finding, jpeg)
    fill(small_disk)
    with contextlib.closing(open_spool(small_disk)) as spool:
        assert spool.frame(finding.event_id) == jpeg
        assert spool.ack_frames([finding.event_id]) == [finding.event_id]


def test_without_any_room_a_put_is_a_counted_drop(small_disk: Path) -> None:
    with contextlib.closing(open_spool(small_disk)) as spool:
        fill(small_disk)
        (small_disk / "spool.db.reserve").unlink()
        fill(small_disk)
        results = [spool.put(*make_sample(size=500_000)) for _ in range(30)]
        assert not all(results)
        assert spool.counters()[1]["disk_full"] + sum(results) + spool.counters()[1].get("spool_full", 0) == 30
        fill(small_disk).unlink()
        assert spool.put(*make_sample(size=500_000))


FS_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = struct.pack("i", 2)
POWER_CUTS = 5


class Disk:
    """An ext4 file system in a file, whose power can be cut: what was not synced is gone."""

    def __init__(self, folder: Path) -> None:
        if os.geteuid() != 0 or shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/sbin") is None:
            pytest.skip("needs root and mkfs.ext4: cuts the power of a disk of its own")
        self.image, self.mount = folder / "disk.img", folder / "ext4"
        self.mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(64_000_000)
        self._do("mkfs.ext4", "-q", "-F", self.image)
        self._do("mount", "-o", "loop", self.image, self.mount)

    def cut_power(self) -> None:
        fd = os.open(self.mount, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, FS_IOC_SHUTDOWN, NO_LOG_FLUSH)
        finally:
            os.close(fd)

    def power_on(self) -> None:
        self._do("umount", self.mount)
        self._do("mount", "-o", "loop", self.image, self.mount)

    def close(self) -> None:
        subprocess.run(["umount", "--lazy", self.mount], check=False, capture_output=True)

    def _do(self, *command: object) -> None:
        environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin"}
        done = subprocess.run([str(c) for c in command], capture_output=True, check=False, env=environment)
        if done.returncode != 0:
            pytest.skip(f"cannot {command[0]} here: {done.stderr.decode().strip()}")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path)
    yield made
    made.close()


def lost_to_power_cuts(disk: Disk, *, synchronous: str) -> tuple[int, int]:
    """Put samples, cut the power, and count: those put, and those of them that are gone afterwards."""
    put: list[str] = []
    for _ in range(POWER_CUTS):
        spool = Spool(disk.mount / "spool.db", limit_bytes=10**9, reserve_bytes=100_000)
        spool._db.execute(f"PRAGMA synchronous = {synchronous}")
        for _ in range(random.randint(5, 40)):
            finding, jpeg = make_sample(size=20_000)
            assert spool.put(finding, jpeg)
            put.append(finding.event_id)
        disk.cut_power()
        with contextlib.suppress(sqlite3.Error):
            spool._db.close()
        disk.power_on()
    with contextlib.closing(Spool(disk.mount / "spool.db", limit_bytes=10**9, reserve_bytes=100_000)) as spool:
        here = {i: spool.frame(i) for i in put}
        assert all(jpeg is None or jpeg == make_sample(size=20_000, event_id=i)[1] for i, jpeg in here.items())
        assert list(broken_samples(disk.mount / "spool.db")) == []
    return len(put), sum(jpeg is None for jpeg in here.values())


def test_nothing_put_is_lost_to_a_power_cut(disk: Disk) -> None:
    put, lost = lost_to_power_cuts(disk, synchronous="FULL")
    assert put >= 5 * POWER_CUTS
    assert lost == 0


def test_the_power_cut_is_real(disk: Disk) -> None:
    """The control: without syncing, samples are lost."""
    _, lost = lost_to_power_cuts(disk, synchronous="OFF")
    assert lost > 0
