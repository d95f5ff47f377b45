"""`hub gc`: which frames go, what stays, that the file shrinks, and that a kill leaves a sound database."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
from typer.testing import CliRunner

from edge.contract.errors import UnusableError
from edge.contract.topics import Kind
from hub import store_retention
from hub.check import check_lines
from hub.cli import app
from hub.config import KeepConfig
from hub.retention import DAY_MS, gently, keep_within, parse_bytes, sweep
from hub.store import BatchMember, FrameState, GroupAssignment, Store
from tests.brokers import wait_until
from tests.hub.made import arrival, event_id, event_payload, heartbeat_payload, jpeg, part_payloads

NOW = 1_700_000_000_000
SIZE = len(jpeg(0))
KEEP = KeepConfig(frame_days=10.0, frame_bytes=10**9)
runner = CliRunner()


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def put(store, numbers, *, days_ago=0.0) -> None:
    arrivals = [arrival(Kind.EVENT, event_payload(number, inline=True)) for number in numbers]
    store.commit(arrivals, now_ms=NOW - int(days_ago * DAY_MS))


def group(store, numbers, group_id=1) -> None:
    store.assign_groups([GroupAssignment(event_id(n), group_id, new=n == numbers[0]) for n in numbers])


def present(store, numbers) -> list[int]:
    return [n for n in numbers if store.finding(event_id(n)).frame_state is FrameState.PRESENT]


def require_sound(store) -> None:
    lines, holds = check_lines(store)
    assert holds, lines


def test_frames_go_by_age_and_findings_stay(store):
    put(store, range(3), days_ago=11)
    put(store, range(3, 6), days_ago=9)
    group(store, range(6))
    gone = list(sweep(store, KEEP, now_ms=NOW))
    assert sum(one.frames for one in gone) == 3
    assert sum(one.bytes for one in gone) == sum(len(jpeg(n)) for n in range(3))
    assert present(store, range(6)) == [3, 4, 5]
    assert store.finding(event_id(0)).frame_state is FrameState.GONE
    assert store.group_sizes([1]) == {1: 6}
    require_sound(store)


def test_over_the_size_the_oldest_go_until_it_holds(store):
    put(store, range(10), days_ago=1)
    total = sum(len(jpeg(n)) for n in range(10))
    limit = total - len(jpeg(0)) - len(jpeg(1)) - 1  # so three have to go
    list(sweep(store, KeepConfig(frame_bytes=limit), now_ms=NOW))
    assert present(store, range(10)) == list(range(3, 10))
    assert store.upkeep.frames_total().bytes <= limit
    require_sound(store)


def test_a_batch_keeps_its_frames_also_one_made_while_the_sweep_runs(store):
    put(store, range(600), days_ago=20)
    group(store, [0])
    group(store, [599], 2)
    store.freeze_batch([BatchMember(event_id(0), 1, "why", 1.0)], now_ms=NOW, title="t")
    pieces = sweep(store, KEEP, now_ms=NOW)
    next(pieces)
    store.freeze_batch([BatchMember(event_id(599), 2, "why", 1.0)], now_ms=NOW, title="t")
    list(pieces)
    assert present(store, range(600)) == [0, 599]
    require_sound(store)


def test_exactly_the_allowed_size_is_allowed(store):
    put(store, range(4), days_ago=1)
    rest = sum(len(jpeg(n)) for n in range(1, 4))
    list(sweep(store, KeepConfig(frame_bytes=rest), now_ms=NOW))
    assert present(store, range(4)) == [1, 2, 3]


def test_a_frame_that_comes_into_a_batch_after_it_was_chosen_stays(store):
    """Another process froze the batch between the reading of a piece and its transaction."""
    put(store, range(3), days_ago=20)
    group(store, [1])
    (piece,) = store_retention.due(store._connection, came_before_ms=NOW, most_bytes=10**9)
    store.freeze_batch([BatchMember(event_id(1), 1, "why", 1.0)], now_ms=NOW, title="t")
    assert store_retention.delete_frames(store._connection, piece).frames == 2
    assert present(store, range(3)) == [1]
    require_sound(store)


def test_a_dry_run_counts_the_same_and_deletes_nothing(store):
    put(store, range(5), days_ago=20)
    put(store, range(5, 9), days_ago=1)
    keep = KeepConfig(frame_days=10.0, frame_bytes=2 * SIZE)
    would = [one.frames for one in sweep(store, keep, now_ms=NOW, dry_run=True)]
    assert len(present(store, range(9))) == 9
    did = [one.frames for one in sweep(store, keep, now_ms=NOW)]
    assert sum(would) == sum(did) == 7


def test_what_is_gone_is_not_asked_for_again_and_no_other_of_its_group_is(store):
    put(store, [0], days_ago=20)
    store.commit([arrival(Kind.EVENT, event_payload(1))], now_ms=NOW - 20 * DAY_MS)
    group(store, [0, 1])
    store.commit([arrival(Kind.HEARTBEAT, heartbeat_payload())], now_ms=NOW)
    list(sweep(store, KEEP, now_ms=NOW))
    assert store._connection.execute("SELECT count(*) FROM finding WHERE want_open").fetchone() == (0,)


def test_the_hourly_tidying_also_bounds_the_recall_counts(store):
    store.commit([arrival(Kind.HEARTBEAT, heartbeat_payload())], now_ms=NOW)
    mark = "INSERT INTO recall_mark VALUES ('lab', ?, ?, 'door', ?, 1, 1, 1, 1)"
    old_ms = NOW - 100 * DAY_MS
    rows = [("box", "boot-1", old_ms), ("box", "boot-0", old_ms), ("gone", "boot-7", old_ms), ("new", "boot-9", NOW)]
    store._connection.executemany(mark, rows)
    list(keep_within(store, KEEP, now_ms=NOW))
    left = store._connection.execute("SELECT device, boot_id FROM recall_mark ORDER BY 1, 2").fetchall()
    assert left == [("box", "boot-1"), ("new", "boot-9")]  # the boot that a device is in still counts on


def test_the_command_gives_the_space_back(tmp_path):
    path = tmp_path / "hub.db"
    with Store.open(path) as store:
        pictures = [jpeg(n, width=320, height=240, noise=True) for n in range(60)]
        for number, picture in enumerate(pictures):
            event = event_payload(number, picture=picture, width=320, height=240)
            store.commit([arrival(Kind.EVENT, event)], now_ms=NOW)
            store.commit(
                [arrival(Kind.FRAME, p) for p in part_payloads(number, picture=picture, size=9000)], now_ms=NOW
            )
    before = path.stat().st_size
    done = runner.invoke(app, ["gc", "--frames-older-than", "1", "--json", "--database", str(path)])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["frames"] == 60
    assert said["left_frames"] == 0
    assert said["frame_bytes"] == sum(map(len, pictures))
    after = path.stat().st_size
    assert after < before - 0.9 * said["frame_bytes"]
    assert said["file_bytes"] >= 0.9 * said["frame_bytes"]
    with Store.open(path) as store:
        assert store._connection.execute("PRAGMA freelist_count").fetchone() == (0,)
        require_sound(store)


def test_the_configuration_says_what_the_options_leave_open(tmp_path):
    with Store.open(tmp_path / "hub.db") as store:
        put(store, range(4), days_ago=5)
    (tmp_path / "hub.toml").write_text(f'database = "hub.db"\n[keep]\nframe_days = 1e6\nframe_bytes = {2 * SIZE}\n')
    config = ["--config", str(tmp_path / "hub.toml")]
    dry = runner.invoke(app, ["gc", "--dry-run", *config])
    assert "2 frames" in dry.stdout
    assert "would go" in dry.stdout
    assert "4 frames" in runner.invoke(app, ["gc", "--frames-over", "0", *config]).stdout


@pytest.mark.parametrize(
    ("text", "size"), [("20G", 20 * 10**9), ("1.5T", 1_500_000_000_000), ("500 MB", 500_000_000), ("7", 7)]
)
def test_sizes(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "G", "-1", "20X", "1e9"])
def test_what_is_no_size(text):
    with pytest.raises(UnusableError, match="is no size"):
        parse_bytes(text)


def test_others_write_while_it_runs(tmp_path):
    """A committer beside it never waits for more than a piece or two."""
    with Store.open(tmp_path / "hub.db") as store:
        put(store, range(3000), days_ago=20)
    waits, done = [], threading.Event()

    def write() -> None:
        with Store.open(tmp_path / "hub.db") as other:
            number = 5000
            while not done.is_set():
                started = time.monotonic()
                other.commit([arrival(Kind.EVENT, event_payload(number))], now_ms=NOW)
                waits.append(time.monotonic() - started)
                number += 1

    thread = threading.Thread(target=write)
    thread.start()
    try:
        wait_until(lambda: len(waits) > 3, what="the other process writes")
        with Store.open(tmp_path / "hub.db") as store:
            gone = sum(one.frames for one in gently(sweep(store, KEEP, now_ms=NOW)))
    finally:
        done.set()
        thread.join()
    assert gone == 3000
    assert max(waits) < 5.0
    with Store.open(tmp_path / "hub.db") as store:
        require_sound(store)


KILLED = """
import sys, time
from hub.config import KeepConfig
from hub.retention import sweep
from hub.store import Store
with Store.open(sys.argv[1], create=False) as store:
    for number, _ in enumerate(sweep(store, KeepConfig(frame_days=1.0), now_ms=int(sys.argv[2]))):
        print(number, flush=True)
        time.sleep(0.02)
"""


def test_a_kill_in_the_middle_leaves_a_sound_database_and_a_second_run_finishes(tmp_path):
    path = tmp_path / "hub.db"
    with Store.open(path) as store:
        put(store, range(1500), days_ago=20)
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), str(NOW)], stdout=subprocess.PIPE, text=True)
    assert re.match(r"\d", process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with Store.open(path) as store:
        require_sound(store)
        left = store.upkeep.frames_total().frames
        assert 0 < left < 1500
        list(sweep(store, KEEP, now_ms=NOW))
        assert store.upkeep.frames_total().frames == 0
        require_sound(store)
