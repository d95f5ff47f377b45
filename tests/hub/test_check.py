"""`hub check` finds what breaks a law; `hub status` fits a terminal."""

import subprocess
import sys

import msgspec
import pytest
from typer.testing import CliRunner

from edge.contract.samples import Reason
from edge.contract.status import CameraHealth, Heartbeat, RecallCounts, SpoolHealth, encode
from edge.contract.topics import Kind
from hub.check import check_lines, status_lines
from hub.cli import app
from hub.store import BatchMember, GroupAssignment, Store
from hub.store_status import HubStatus
from tests.hub.made import arrival, event_id, event_payload, heartbeat_payload, part_payloads, state_payload

NOW = 1_700_000_100_000
MOST = 2**53 - 1
runner = CliRunner()


@pytest.fixture
def database(tmp_path):
    """Four findings in two groups, three frames, a batch, a device."""
    with Store.open(tmp_path / "hub.db") as store:
        arrivals = [arrival(Kind.EVENT, event_payload(n, inline=n < 3)) for n in range(4)]
        arrivals += [arrival(Kind.HEARTBEAT, heartbeat_payload()), arrival(Kind.STATE, state_payload())]
        store.commit([*arrivals, arrival(Kind.EVENT, b"junk")], now_ms=NOW)
        groups = [(0, 1, True), (1, 1, False), (2, 2, True), (3, 2, False)]
        store.assign_groups([GroupAssignment(event_id(n), group, new=new) for n, group, new in groups])
        store.freeze_batch([BatchMember(event_id(0), 1, "why", 1.0)], now_ms=NOW, title="t")
    return tmp_path / "hub.db"


def test_a_sound_database_passes(database):
    done = runner.invoke(app, ["check", "--database", str(database)])
    assert (done.exit_code, done.output) == (0, "every law holds; 3 frames were read and hashed\n")


BREAKS = {
    "its frame is present and there is none": "DELETE FROM frame WHERE finding_id = 2",
    "a frame is here and its finding says otherwise": "UPDATE finding SET frame_state = 'gone' WHERE id = 2",
    "a frame has no finding": "INSERT INTO frame VALUES (99, x'00')",
    "parts of it are left": "INSERT INTO frame_part SELECT event_id, 0, '', '', 0, x'00' FROM finding WHERE id = 2",
    "a group's size is not": "UPDATE near_duplicate_group SET size = 7 WHERE id = 1",
    "a group's leader is not its member": "UPDATE finding SET group_id = 1 WHERE id = 3",
    "a batch does not have the size it says": "UPDATE batch SET size = 2",
    "an image of a batch has no frame": "UPDATE finding SET frame_state = 'held' WHERE id = 1",
    "is on the wrong side of the test share": "UPDATE batch_member SET test = 1 - test",
    "not as many, or as large, as were counted": "UPDATE finding_count SET findings = findings + 1",
    "as were counted: lab/box": "DELETE FROM finding_count",
    "a want is marked without a time": "UPDATE finding SET frame_state = 'wanted' WHERE id = 4",
    "does not have the SHA-256": "UPDATE frame SET jpeg = zeroblob(length(jpeg)) WHERE finding_id = 2",
    "bytes, its finding says": "UPDATE frame SET jpeg = x'ffd8ff' WHERE finding_id = 2",
    "pixels, the finding says": "UPDATE finding SET width = 65 WHERE id = 2",
    "cannot be read": "UPDATE finding SET header = x'7b22' WHERE id = 2",
    "header of finding 3 cannot be read": "UPDATE finding SET header = 5 WHERE id = 3",
    "finding 2 is not what its header says: reason": "UPDATE finding SET reason = 'evil' WHERE id = 2",
    "its header says: severity, x1": "UPDATE finding SET severity = 0.75, x1 = 0.5 WHERE id = 2",
    "its header says: features": "UPDATE finding SET features = x'00' WHERE id = 4",
    "points to a row of": "UPDATE finding SET group_id = 77 WHERE id = 4",
}


@pytest.mark.parametrize(("message", "change"), BREAKS.items(), ids=BREAKS)
def test_a_broken_law_is_named(database, message, change):
    with Store.open(database) as store:
        store._connection.execute("PRAGMA foreign_keys = OFF")
        store._connection.execute(change)
    done = runner.invoke(app, ["check", "--database", str(database)])
    assert done.exit_code == 1
    assert message in done.output


def test_a_damaged_file_is_named(database):
    """A page of zeros in the middle: SQLite's own check says so, or the file cannot be read at all."""
    with Store.open(database) as store:
        store._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(database.read_bytes())
    content[8192 * 5 : 8192 * 6] = bytes(8192)
    database.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "hub", "check", "--database", str(database)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (1, "")
    assert "the file is damaged" in done.stdout


def test_many_violations_are_cut_short(database):
    with Store.open(database) as store:
        store.commit([arrival(Kind.EVENT, event_payload(n)) for n in range(10, 80)], now_ms=NOW)
        store._connection.execute("UPDATE finding SET frame_state = 'wanted'")
        lines, holds = check_lines(store)
    assert not holds
    assert len(lines) == 51
    assert lines[-1] == "... more than 50"


def test_status_fits_80_columns(database):
    with Store.open(database) as store:
        for number in range(3):
            device = f"a-device-with-a-rather-long-name-{number}"
            store.commit([arrival(Kind.HEARTBEAT, heartbeat_payload(unsent=10**6), device=device)], now_ms=NOW)
        others = [arrival(Kind.EVENT, event_payload(10 + n, reason=reason)) for n, reason in enumerate(Reason)]
        store.commit([*others, *(arrival(Kind.FRAME, part) for part in part_payloads(99))], now_ms=NOW)
        lines = status_lines(store.status(now_ms=NOW + 200_000))
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for expected in ("lab/box", "online", "3m", "1/1", "5 missed", "3 present", "2 near-duplicate groups", "1 event"):
        assert expected in text, text
    assert "1 with 1 images" in text


def test_status_fits_80_columns_whatever_a_device_says(database):
    cameras = tuple(
        CameraHealth(
            name=f"{number}{'c' * 60}",
            state="frozen",
            frames=MOST,
            fps=1,
            restarts=0,
            frame_age_s=1.0,
            detect_ms=1,
            recall=RecallCounts(frames=10**7, detector=10**10, second_look=10**10, both=0),
        )
        for number in range(100)
    )
    spool = SpoolHealth(samples=MOST, unsent=MOST, bytes=MOST, limit_bytes=MOST)
    beat = Heartbeat(
        boot_id="b",
        at_ms=NOW,
        uptime_s=1,
        model="m",
        cameras=cameras,
        spool=spool,
        findings={},
        dropped={f"{n}{'r' * 60}": MOST for n in range(60)},
        bytes_up=MOST,
    )
    with Store.open(database) as store:
        store.commit([arrival(Kind.HEARTBEAT, encode(beat), site="s" * 64, device="d" * 64)], now_ms=NOW)
        lines = status_lines(store.status(now_ms=NOW))
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("frozen") for line in lines) == 100
    assert any(line.endswith(f"/99{'c' * 60}") for line in lines)


def test_status_of_an_empty_database(tmp_path):
    with Store.open(tmp_path / "hub.db") as store:
        assert "no device has been heard yet" in "\n".join(status_lines(store.status(now_ms=NOW)))


def test_status_as_json(database):
    done = runner.invoke(app, ["status", "--json", "--database", str(database)])
    status = msgspec.json.decode(done.output, type=HubStatus)
    assert status.groups == 2
    assert status.devices[0].frames == 100


@pytest.mark.parametrize("name", ["status", "check"])
def test_a_missing_database_is_one_line_and_exit_2(tmp_path, name):
    done = subprocess.run(
        [sys.executable, "-m", "hub", name, "--database", str(tmp_path / "no.db")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"hub: there is no database {tmp_path / 'no.db'}: `hub serve` makes it\n"
    assert not (tmp_path / "no.db").exists()
