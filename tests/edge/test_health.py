import fcntl
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.errors import UnreachableError, UnusableError
from edge.contract.status import Heartbeat, SpoolHealth
from edge.health import HOUR_MS, CameraMeter, DayCount, Status, hold_folder, is_held, notify, read_status, write_status

ROOT = Path(__file__).resolve().parents[2]


def test_a_meter_tells_rate_and_time_over_its_window() -> None:
    meter = CameraMeter()
    for i in range(300):
        meter.note(now_s=i / 5, detect_ms=20.0 if i < 200 else 40.0)
    health = meter.health(name="front", state="running", restarts=2, frame_age_s=0.12345, now_s=299 / 5)
    assert health.frames == 300
    assert health.fps == pytest.approx(5.0, abs=0.2)
    assert health.detect_ms == pytest.approx(40.0)
    assert health.frame_age_s == 0.123
    later = meter.health(name="front", state="lost", restarts=2, frame_age_s=None, now_s=200.0)
    assert (later.fps, later.detect_ms, later.frame_age_s) == (0.0, 0.0, None)


def test_a_meter_is_right_from_the_first_seconds() -> None:
    meter = CameraMeter()
    for i in range(11):
        meter.note(now_s=100 + i / 5, detect_ms=1.0)
    health = meter.health(name="front", state="running", restarts=0, frame_age_s=0.0, now_s=102.0)
    assert health.fps == pytest.approx(5.5)


@pytest.mark.parametrize(
    ("beats", "count"),
    [
        ([(0.0, 0)], 0),
        ([(0.0, 500)], 0),  # what was there before the first count is not of this day
        ([(0.0, 0), (0.5, 7), (23.9, 9)], 9),
        ([(0.0, 0), (0.5, 7), (1.0, 7), (24.1, 9)], 2),  # the first hour is over
        ([(0.0, 0), (0.5, 7), (20.0, 7)], 7),  # off from 0.5 to 20
        ([(0.0, 0), (0.5, 7), (200.0, 7), (200.1, 8)], 1),  # off for a week
        ([(0.0, 100), (0.5, 107), (0.6, 0), (0.7, 3)], 3),  # a new spool counts from nothing
        ([(50.0, 5), (0.0, 6), (0.1, 8)], 2),  # the clock was set back
    ],
)
def test_the_findings_of_a_day(beats: list[tuple[float, int]], count: int) -> None:
    day = DayCount({})
    for at_h, total in beats:
        last = day.note(now_ms=int(at_h * HOUR_MS), total=total)
    assert last == count


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0, 0, 0, 0, 30, 400, 9000])), max_size=400))
def test_a_day_is_23_to_24_hours_over_restarts(steps: list[tuple[int, int]]) -> None:
    day, minute, total = DayCount({}), 0, 0
    found: list[tuple[int, int]] = []
    day.note(now_ms=0, total=0)
    for n, off_min in steps:
        minute += 10
        total += n
        found.append((minute, n))
        count = day.note(now_ms=minute * 60_000, total=total)
        assert (
            sum(n for at, n in found if at > minute - 1370) <= count <= sum(n for at, n in found if at > minute - 1440)
        )
        assert len(day.marks) <= 24
        if off_min:
            minute += off_min
            day = DayCount(day.marks)
            day.note(now_ms=minute * 60_000, total=total)


def test_the_status_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_status(tmp_path) is None
    spool = SpoolHealth(samples=1, unsent=1, bytes=2, limit_bytes=3)
    beat = Heartbeat(
        boot_id="b", at_ms=1, uptime_s=1.0, model="m", cameras=(), spool=spool, findings={}, dropped={}, bytes_up=0
    )
    status = Status(pid=1, heartbeat=beat, connected=True, faults={"ack_timeout": 1}, cameras_lost={"front": "died"})
    write_status(tmp_path, status)
    assert read_status(tmp_path) == status
    for other in ("", "{", "[1]", '{"of_another_version": ' + "[" * 100_000):
        (tmp_path / "status.json").write_text(other)
        assert read_status(tmp_path) is None


def test_a_folder_has_one_daemon_and_a_killed_one_lets_go(tmp_path: Path) -> None:
    assert not is_held(tmp_path)
    with hold_folder(tmp_path):
        assert is_held(tmp_path)
        with pytest.raises(UnusableError, match="another `edge run`"), hold_folder(tmp_path):
            pass
    assert not is_held(tmp_path)
    program = "import sys\nfrom pathlib import Path\nfrom edge.health import hold_folder\n"
    program += "with hold_folder(Path(sys.argv[1])):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    other = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert other.stdout is not None
    other.stdout.readline()
    assert is_held(tmp_path)
    other.kill()
    other.communicate()
    assert not is_held(tmp_path)


def test_a_look_at_the_folder_does_not_turn_a_daemon_away(tmp_path: Path) -> None:
    with (tmp_path / "daemon.lock").open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, (looking, fcntl.LOCK_UN)).start()
        with hold_folder(tmp_path):
            assert is_held(tmp_path)


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError, match="cannot write to data_dir"), hold_folder(tmp_path / "file" / "below"):
        pass


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, abstract: bool) -> None:
    name = f"weakspot-test-{tmp_path.name}"
    address = f"@{name}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"\0{name}" if abstract else address)
        systemd.settimeout(5)
        notify(address, "READY=1")
        assert systemd.recv(100) == b"READY=1"


def test_without_systemd_nothing_happens(tmp_path: Path) -> None:
    notify(None, "READY=1")
    notify(str(tmp_path / "nobody"), "READY=1")
