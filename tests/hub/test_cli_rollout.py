"""`hub rollout`, as a user runs it: a signed repository, a database with devices, and what is printed."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from edge.contract.status import State, encode
from edge.contract.topics import Kind
from hub.cli import main
from hub.rollout_rules import halt
from hub.rollout_state import STAYS_MS, Member, Place, Rollout
from hub.rollouts import find_rollout, step_rollouts
from hub.store import Store
from tests.hub.made import arrival
from tests.hub.signed import made_repository, small_model

NOW = 1_700_000_000_000
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run `hub` in a folder with a repository of two releases and a database that has heard 40 devices."""
    monkeypatch.chdir(tmp_path)
    models = [small_model(tmp_path / f"yard-{n}", release=f"yard-{n}", content=str(n)) for n in (1, 2)]
    made_repository(tmp_path / "repository", *models)
    with Store.open("weakspot.db") as store:
        for n in range(40):
            labels = ("gate",) if n % 2 else ()
            state = State(
                boot_id="b", online=n != 15, at_ms=NOW, model="yard-0", version="0.1", labels=labels, updates=True
            )
            store.commit([arrival(Kind.STATE, encode(state), device=f"cam{n}")], now_ms=NOW)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hub", "rollout", *map(str, arguments), *CONFIG])
        status = 0
        try:
            main()
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        captured = capsys.readouterr()
        assert "--json" in arguments or all(len(line) <= 80 for line in captured.out.splitlines()), captured.out
        return status, captured.out, captured.err

    return run


CONFIG = ("--database", "weakspot.db")


def stored(change: Callable[[Rollout], Rollout]) -> Rollout:
    with Store.open("weakspot.db") as store:
        before = find_rollout(store, "")
        after = change(before)
        store.rollouts.put(after, before=before)
    return after


def stepped() -> None:
    with Store.open("weakspot.db") as store:
        step_rollouts(store, now_ms=NOW)


def test_it_begins_is_shown_halted_resumed_and_rolled_back(hub: Run) -> None:
    status, out, _ = hub("start", "yard", "--bake", 0)
    assert status == 0
    assert out.splitlines() == [
        "yard/2 yard-2: begun; `hub serve` gives the orders",
        "for all devices: 40 devices heard, 39 of them online",
        "A device that has confirmed it may go back to number 1; one that does not hold",
        "it installs 1 anew.",
        "next: hub rollout status yard",
    ]
    status, out, _ = hub("status")
    assert status == 0
    assert "no device was ordered yet" in out
    stepped()
    status, out, _ = hub("status", "yard")
    assert status == 0
    assert "yard/2 yard-2: running, canary" in out
    assert [line.split() for line in out.splitlines() if line.startswith("canary")] == [
        ["canary", "1", "0", "0", "1", "0", "0", "0", "0"]
    ]
    status, out, _ = hub("halt")
    assert (status, out.splitlines()[0]) == (0, "yard/2 yard-2: halted")
    assert hub("status")[0] == 1
    assert hub("resume")[0] == 0
    assert hub("status")[0] == 0
    status, out, _ = hub("rollback", "yard")
    assert (status, out.splitlines()[0]) == (0, "yard/2 yard-2: rolled back")
    assert [line.split()[6] for line in out.splitlines() if line.startswith("canary")] == ["1"]
    status, _, err = hub("rollback", "yard")
    assert (status, err) == (2, "hub: the rollout of yard-2 is rolled back already\n")


def test_scope_and_plan_are_what_was_asked_for(hub: Run) -> None:
    status, out, _ = hub(
        *("start", "yard/1", "--site", "lab", "--label", "gate", "--canary", "lab/cam3", "--waves", "10,100"),
        *("--bake", 5, "--timeout", 2, "--shadow-frames", 50, "--trial-frames", 60, "--json"),
    )
    assert status == 0
    told = json.loads(out)
    assert told["plan"] == {
        "sites": ["lab"],
        "labels": ["gate"],
        "canary": "lab/cam3",
        "waves_permille": [100, 1000],
        "timeout_s": 7200,
        "trial": {"shadow_frames": 50, "trial_frames": 60, "bake_s": 300, "within_s": 86400},
    }
    assert (told["number"], told["in_scope"], told["state"]) == (1, 20, "running")


def test_a_device_that_keeps_the_release_is_named(hub: Run) -> None:
    hub("start", "yard")

    def stuck(one: Rollout, *, instead: bool) -> Rollout:
        place = Place("lab", "cam3")
        phase = "rolled_back" if instead else "confirmed"
        why = "it fails" if instead else "nothing signed allows the way back"
        member = Member(place=place, wave=0, action="back", instead=instead, ordered_at_ms=NOW, phase=phase, reason=why)
        member = replace(member, waited_ms=STAYS_MS)
        baseline = one.baseline if instead else None
        return replace(one, state="rolled_back", wave=0, sizes=(1,), members={place: member}, baseline=baseline)

    for instead, said in (
        (True, "1 device keeps yard-2: yard/1 was ordered instead, and did not hold there."),
        (False, "1 device keeps yard-2: to go back from it to what they had before is not signed"),
    ):
        stored(lambda one, instead=instead: stuck(one, instead=instead))
        _, out, _ = hub("status")
        assert said in out.replace("\n", " ")
        assert [line.split()[-1] for line in out.splitlines() if line.startswith("canary")] == ["1"]
        told = json.loads(hub("status", "--json")[1])["rollouts"][0]
        assert (told["devices"][0]["standing"], told["devices"][0]["instead"]) == ("stays", instead)
        assert told["waves"][0]["count"]["stays"] == 1


def test_the_first_release_of_a_line_goes_back_to_the_factory_s(hub: Run, tmp_path: Path) -> None:
    other = small_model(tmp_path / "gate", name="gate", release="gate-1", content="g")
    made_repository(tmp_path / "another", other)
    _, out, _ = hub("start", "gate", "-r", "another")
    assert "it may go back to number 0, the model it was installed with." in out.replace("\n", " ")
    assert json.loads(hub("status", "gate", "--json")[1])["rollouts"][0]["baseline"] is None


def test_a_repository_that_has_ended_or_is_for_trials_is_said_at_the_start(hub: Run, tmp_path: Path) -> None:
    ended = datetime.now(UTC) - timedelta(days=8)
    made_repository(tmp_path / "ended", small_model(tmp_path / "m", content="m"), now=ended, development=True)
    status, out, err = hub("start", "yard", "-r", "ended")
    assert (status, out.splitlines()[0]) == (0, "*** DEVELOPMENT KEYS ***")
    assert "timestamp has ended: no device takes anything now; run: hub repository refresh" in err


def test_wait_ends_with_the_rollout(hub: Run) -> None:
    hub("start", "yard")
    stored(lambda one: replace(one, state="complete"))
    assert hub("status", "--wait")[0] == 0
    stored(lambda one: replace(one, state="running"))
    stored(lambda one: halt(one, reason="by hand"))
    assert hub("status", "yard", "--wait")[0] == 1


def test_what_bakes_and_what_failed_after_the_end_is_said(hub: Run) -> None:
    hub("start", "yard", "--bake", 30)

    def changed(one: Rollout, state: str, phase: str) -> Rollout:
        places = [Place("lab", f"cam{n}") for n in range(3)]
        late = phase == "rolled_back"
        members = {
            place: Member(place=place, wave=3, ordered_at_ms=NOW, phase=phase, failed=late, failed_late=late)
            for place in places
        }
        return replace(one, state=state, wave=3, sizes=(0, 0, 0, 3), members=members)

    stored(lambda one: changed(one, "running", "trial"))
    _, out, _ = hub("status")
    said = "3 devices on trial: they serve it beside the old model, and confirm when they have baked for 30 minutes"
    assert said in out.replace("\n", " ")
    stored(lambda one: changed(one, "complete", "rolled_back"))
    status, out, _ = hub("status")
    said = "3 devices failed since it was complete; the others keep it: hub rollout rollback yard sends every device"
    assert said in out.replace("\n", " ")
    assert status == 0
    assert json.loads(hub("status", "--json")[1])["rollouts"][0]["failed_late"] == 3


def test_the_devices_that_did_not_confirm_are_named_with_their_reason(hub: Run) -> None:
    hub("start", "yard")
    reason = "blind: the old model saw 14, the new one 0; " + "x" * 100

    def changed(one: Rollout) -> Rollout:
        members = {}
        for n in range(39):
            place = Place("lab", f"cam{n}")
            failed = n < 2
            phase = "rolled_back" if failed else "confirmed" if n < 10 else "shadow"
            members[place] = Member(
                place=place, wave=3, ordered_at_ms=NOW, phase=phase, failed=failed, reason=reason if failed else ""
            )
        return replace(one, wave=3, sizes=(1, 1, 8, 39), members=members)

    stored(changed)
    _, out, _ = hub("status")
    lines = out.splitlines()
    assert sum(line.startswith("lab/cam") for line in lines) == 20
    assert lines[lines.index("* offline now") + 1] == "and 11 more: --json has all"
    assert any(line.startswith("lab/cam0 ") and "failed" in line for line in lines)
    assert any(line.startswith("  blind: the old model saw 14") and line.endswith("...") for line in lines)
    assert not any(line.startswith("lab/cam5 ") for line in lines), "it has confirmed"
    told = json.loads(hub("status", "--json")[1])
    assert len(told["rollouts"][0]["devices"]) == 39


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["start", "yard/9"], "has no release yard/9"),
        (["start", "yard", "--waves", "25,5"], "this plan cannot be followed"),
        (["start", "yard", "--timeout", "1"], "a timeout of 3600 s is less than twice the bake of 3600 s"),
        (["start", "yard", "--waves", "5,50"], "the last wave must be 100 %"),
        (["start", "yard", "--waves", "a"], "--waves are percentages from 0.1 to 100 with commas between them"),
        (["start", "yard", "--waves", "5,inf"], "--waves are percentages from 0.1 to 100"),
        (["start", "yard", "--waves", "0,100"], "--waves are percentages from 0.1 to 100"),
        (["start", "yard", "--waves", "nan,100"], "--waves are percentages from 0.1 to 100"),
        (["start", ""], "is a variable of a script empty?"),
        (["start", "yard", "--label", ""], "is a variable of a script empty?"),
        (["start", "yard", "--canary", "lab/nobody"], "no device lab/nobody was heard"),
        (["start", "yard", "--repository", "nowhere"], "nowhere"),
        (["status", "street"], "there is no rollout of street"),
        (["halt"], "there is no rollout: `hub rollout start` begins one"),
    ],
)
def test_a_mistake_is_one_line_and_exit_status_2(hub: Run, arguments: list[str], said: str) -> None:
    status, out, err = hub(*arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_without_a_rollout_status_says_so(hub: Run) -> None:
    status, out, _ = hub("status")
    assert (status, out) == (1, "there is no rollout yet: `hub rollout start` begins one\n")
    assert json.loads(hub("status", "--json")[1]) == {"rollouts": []}


def test_a_second_one_of_a_line_has_to_wait(hub: Run) -> None:
    assert hub("start", "yard/1")[0] == 0
    status, _, err = hub("start", "yard/2")
    assert (status, err) == (2, "hub: yard-1 is being rolled out on yard: `hub rollout halt` it first\n")
