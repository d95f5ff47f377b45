"""`hub weakspots` as it is typed: what it prints, what it refuses, its exit status."""

import json
import sys
import time

import pytest

import hub.cli
from edge.contract.errors import UnusableError
from hub.naming import refresh
from hub.store import BatchMember, Store
from hub.weakspots import SpotState, advance, sources, step_of, weak_spot
from tests.hub.sighted import TAGGER, mended, sight, weak

HOUR_MS = 3_600_000


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run `hub weakspots ...` on the database; return its status, what it printed, and what it said of errors."""

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["hub", *words, "--database", str(tmp_path / "hub.db")])
        with pytest.raises(SystemExit) as ended:
            hub.cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return command


@pytest.fixture
def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_the_table(run, store, now_ms) -> None:
    weak(store, at_ms=now_ms - 2 * HOUR_MS)
    status, printed, _ = run("weakspots")
    assert status == 0
    lines = printed.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].split() == ["1", "open", "dark", "+", "small", "37%", "(25-52)", "/", "6.2%", "60", "1"]
    assert "30 of 320 objects" in printed
    shown = json.loads(run("weakspots", "--json")[1])
    assert shown["base"] == {"found": 290, "overlooked": 30}
    (line,) = shown["weak_spots"]
    assert (line["spot"]["name"], line["cameras"]) == ("dark + small", 1)
    assert run("weakspots", "--state", "open")[0] == 0
    assert run("weakspots", "--state", "fixed")[:2] == (1, "no weak spot is fixed\n")


@pytest.mark.parametrize(
    ("sighted", "message"),
    [
        ({}, "nothing was sighted in 30 days"),
        ({"missed": [("dark", 40)]}, "no control frame was looked at twice"),
        ({"missed": [("dark", 40)], "found": [("dark", 40)]}, "40 objects, 0 of them overlooked"),
        ({"missed": [("dark", 3)], "found": [("dark", 40)], "overlooked": [("dark", 4)]}, "3 missed is too few"),
        ({"missed": [("dark", 40)], "found": [("dark", 40)], "overlooked": [("dark", 4)]}, "nothing stands out"),
    ],
)
def test_what_is_missing_is_said_with_what_to_do(run, store, now_ms, sighted, message) -> None:
    sight(store, at_ms=now_ms - HOUR_MS, **sighted)
    status, printed, _ = run("weakspots")
    assert status == 1
    assert message in " ".join(printed.split())


def batch_of_spot(store: Store, number: int, *, now_ms: int) -> int:
    """Freeze a batch of twelve of its frames."""
    rows = [
        row
        for row in store.sightings(since_ms=0, until_ms=10**15, limit=9999)
        if row.kind == "missed" and "small" in row.tags
    ][:12]
    events = store.spots.sighted([row.finding_id for row in rows])
    members = [BatchMember(events[row.finding_id][0], row.group_id, "why", 1.0) for row in rows]
    step = step_of(SpotState.BATCHED, weak_spot(store, number).rate, now_ms=now_ms)
    return store.freeze_batch(
        members, now_ms=now_ms, title="dark", weak_spot_id=number, step=step, from_states=sources(SpotState.BATCHED)
    )


def test_a_life_on_the_command_line(run, store, now_ms, tmp_path) -> None:
    weak(store, at_ms=now_ms - 4 * HOUR_MS, inline=True, model="old")
    refresh(store, TAGGER, now_ms - 3 * HOUR_MS)
    batch_of_spot(store, 1, now_ms=now_ms - 2 * HOUR_MS)
    assert run("weakspots", "mark", "1", "trained")[0] == 2  # not annotated yet
    status, printed, _ = run("weakspots", "mark", "1", "annotated", "--minutes", "12.5", "--note", "two people")
    assert (status, "hub weakspots mark 1 trained" in printed) == (0, True)
    run("weakspots", "mark", "1", "trained", "--release", "new", "--minutes", "7.5")
    mended(store, at_ms=now_ms + 60_000, model="new")
    sheet = tmp_path / "sheet.png"
    status, printed, _ = run("weakspots", "show", "1", "--sheet", str(sheet))
    assert status == 0
    assert sheet.read_bytes().startswith(b"\x89PNG")
    lines = printed.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[2] for line in lines if line.startswith("20") and "/" in line and ":" in line][:1] == ["open"]
    for word in ("two people", "batch 1", "annotated", "trained", "fixed", "by hour", "present"):
        assert word in printed, word
    (batch,) = (line for line in lines if line.startswith("    1 "))
    test = sum(member.test for member in store.batch_members(1))
    assert batch.split()[:4] == ["1", "12", str(test), "20"]
    assert batch.endswith("fixed")
    shown = json.loads(run("weakspots", "show", "1", "--json")[1])
    assert shown["batches"][0]["cost"]["minutes"] == 20
    assert shown["spot"]["state"] == "fixed"
    assert run("weakspots", "drop", "1")[2] == "hub: weak spot 1 has a batch: what was done for it is kept\n"


@pytest.mark.parametrize("minutes", ["nan", "inf", "-1"])
def test_minutes_that_are_none_are_refused_and_the_step_is_not_taken(run, store, now_ms, minutes) -> None:
    weak(store, at_ms=now_ms - 4 * HOUR_MS, inline=True, model="old")
    refresh(store, TAGGER, now_ms - 3 * HOUR_MS)
    batch = batch_of_spot(store, 1, now_ms=now_ms - 2 * HOUR_MS)
    run("weakspots", "mark", "1", "annotated", "--minutes", "5")
    before = store.spots.steps(1)
    with pytest.raises(UnusableError, match="minutes: expected a number from 0 up"):
        advance(store, 1, "trained", now_ms=now_ms, release="new", minutes=float(minutes))
    assert run("weakspots", "mark", "1", "trained", "--release", "new", "--minutes", minutes)[0] == 2
    assert store.batch(batch).minutes == 5
    assert store.spots.steps(1) == before


def test_new_and_drop(run, store, now_ms) -> None:
    weak(store, at_ms=now_ms - HOUR_MS)
    status, printed, _ = run("weakspots", "new", "--where", "medium and x < 0.5")
    assert status == 0
    assert "medium and x < 0.5: open, missed" in printed
    assert run("weakspots", "new", "--where", "medium and x < 0.50")[0] == 2
    assert run("weakspots", "new", "--where", "drak")[0] == 2
    assert run("weakspots", "drop", "1")[:2] == (0, "weak spot 1 is dropped\n")
    assert run("weakspots", "show", "1")[0] == 2


def test_a_sheet_needs_a_frame(run, store, now_ms, tmp_path) -> None:
    weak(store, at_ms=now_ms - HOUR_MS)
    run("weakspots")
    status, _, error = run("weakspots", "show", "1", "--sheet", str(tmp_path / "sheet.png"))
    assert (status, "no frame of weak spot 1 is here yet" in error) == (2, True)


def test_status_counts_them(run, store, now_ms) -> None:
    weak(store, at_ms=now_ms - HOUR_MS)
    assert "weak spots" not in run("status")[1]
    run("weakspots")
    assert "weak spots 1 open" in run("status")[1]
