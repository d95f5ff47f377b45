"""`hub forget` that is stopped, disturbed or has no room: it is named as unfinished, and finished by the next."""

import signal
import subprocess
import sys

import pytest

from edge.contract.errors import UnusableError
from edge.contract.topics import Kind
from hub import store_erasure
from hub.check import check_lines
from hub.store import Store
from hub.store_forgotten import Scope
from tests.hub.made import arrival, jpeg, part_payloads
from tests.hub.two_devices import CAPTURED, LATER, NOW, WHOLE_BOX, event, fill, forget, one, require_sound


@pytest.fixture
def database(tmp_path):
    with Store.open(tmp_path / "hub.db") as store:
        fill(store)
        require_sound(store)
    return tmp_path / "hub.db"


def raw(path) -> bytes:
    return b"".join(part.read_bytes() for part in path.parent.iterdir() if part.name.startswith(path.name))


@pytest.mark.parametrize("pieces", [0, 1])
def test_a_kill_in_the_middle_is_named_and_a_second_run_finishes(database, pieces):
    """Killed after the list is written, or after the rows are gone: every other law holds, the bytes are not gone."""
    code = (
        "import os, signal, sys\nfrom hub.store import Store\nfrom hub.store_forgotten import Scope\n"
        f"with Store.open(sys.argv[1]) as store:\n"
        f"    for number, _ in enumerate(store.upkeep.forget(Scope('lab', 'box', {NOW}, True), now_ms={NOW})):\n"
        f"        if number == {pieces}: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(database)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with Store.open(database) as store:
        lines, holds = check_lines(store)
        assert not holds
        unfinished = "forgetting lab/box was not finished, its bytes may still be in the file: `hub forget` it again"
        assert lines[0] == unfinished
        assert all("rows of" in line for line in lines[1:]), lines  # what is still to go, and nothing else
        forget(store)
        require_sound(store)
        assert one(store, "SELECT count(*) FROM forgotten") == 1
        assert one(store, "SELECT name FROM weak_spot WHERE id = 2") == "tiny, camera (forgotten)"
    assert b"secretcam" not in raw(database)


def test_a_reader_that_keeps_the_journal_leaves_it_unfinished(database, monkeypatch):
    monkeypatch.setattr("hub.store_erasure._EMPTY_JOURNAL_S", 0.2)
    with Store.open(database) as reader, Store.open(database) as store:
        store._connection.execute("PRAGMA busy_timeout = 50")
        reader._connection.execute("BEGIN")
        reader._connection.execute("SELECT count(*) FROM finding").fetchone()
        with pytest.raises(UnusableError, match="another process is reading"):
            forget(store)
        reader._connection.execute("COMMIT")
        assert "was not finished" in check_lines(store)[0][0]
        forget(store)
        require_sound(store)


def test_an_unfinished_one_is_named_with_its_time_and_finished_by_a_wider_one(database):
    with Store.open(database) as store:
        for scope in (
            Scope("lab", "box", CAPTURED + 5, whole=False),
            Scope("lab", "", CAPTURED + 5000, whole=False),  # later than the wider one
            Scope("lab2", "box", CAPTURED, whole=True),  # elsewhere
            Scope("lab", "box", NOW, whole=True),  # and its policies
        ):
            store_erasure.begin(store._connection, scope, now_ms=NOW)
        assert "lab/box before 2023-11-14T22:13:30.005000+00:00 was not finished" in "".join(check_lines(store)[0])
        forget(store, Scope("lab", "", CAPTURED + 1000, whole=False))
        left = store._connection.execute("SELECT id FROM forgotten WHERE erased_at_ms IS NULL ORDER BY id").fetchall()
        assert left == [(2,), (3,), (4,)]
        for whole, ids in ((False, [(3,), (4,)]), (True, [(3,)])):
            forget(store, Scope("lab", "", NOW, whole=whole))
            left = store._connection.execute("SELECT id FROM forgotten WHERE erased_at_ms IS NULL ORDER BY id")
            assert left.fetchall() == ids


def test_a_weak_spot_named_while_it_runs_loses_the_name_as_well(database):
    """`hub serve` names weak spots of sightings that it has read before they went."""
    spot = "INSERT INTO weak_spot (name, tags, manual, state, opened_at_ms, named_at_ms) VALUES (?, ?, 0, 'open', ?, ?)"
    with Store.open(database) as store:
        pieces = store.upkeep.forget(WHOLE_BOX, now_ms=NOW)
        next(pieces)
        named = ("tiny, cameras secretcam and yardcam", " camera:lab/box/secretcam small ", NOW + 1, NOW + 1)
        store._connection.execute(spot, named)
        list(pieces)
        require_sound(store)
    assert b"secretcam" not in raw(database)


def test_a_disk_that_is_full_leaves_it_unfinished_and_all_else_sound(database):
    """The limit on the size of a file stands for it: the rows go, the new file cannot be written."""
    code = (
        "import resource, sys\nfrom hub.cli import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))\n"
        "sys.argv = ['hub', 'forget', '--device', 'lab/box', '--yes', '--database', sys.argv[2]]\nmain()\n"
    )
    with Store.open(database) as store:
        pictures = {n: jpeg(n, width=320, height=240, noise=True) for n in range(200, 230)}
        for number, picture in pictures.items():
            changes = {"picture": picture, "width": 320, "height": 240, "device": "other", "camera": "yardcam"}
            store.commit([event(number, inline=False, captured_at_ms=LATER, **changes)], now_ms=NOW)
            parts = part_payloads(number, picture=picture, size=9000)
            store.commit([arrival(Kind.FRAME, part, device="other") for part in parts], now_ms=NOW)
    limit = database.stat().st_size // 2
    assert limit > 500_000
    done = subprocess.run(
        [sys.executable, "-c", code, str(limit), str(database)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "hub: the database cannot be used: " in done.stderr
    with Store.open(database) as store:
        lines, _ = check_lines(store)
        assert len(lines) == 1
        assert "lab/box was not finished" in lines[0]
        assert one(store, "SELECT count(*) FROM finding") == 50
        forget(store)
        require_sound(store)
    assert b"secretcam" not in raw(database)
