"""`hub dataset freeze`, `list`, `show`, `export`, `take`, and what `hub forget` does to versions, as they are typed."""

import json
import re
import shutil
import sys

import pytest
from typer.testing import CliRunner

import hub.cli
from hub.check import check_lines
from hub.datasets.version import read_version
from hub.store import Store
from hub.testshare import is_test
from tests.hub.datasets.frozen import times
from tests.hub.labelled import draw, event_id, freeze, person, put
from tests.hub.made import jpeg


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run `hub ...` beside a hub.toml; return its status, what it printed, what it said of errors."""
    (tmp_path / "hub.toml").write_text('database = "hub.db"\n')

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["hub", *words])
        with pytest.raises(SystemExit) as ended:
            hub.cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return command


@pytest.fixture
def labelled(store):
    """3 images to train on, 1 for validation, 2 that measure; a frame of another camera; one of another device."""
    moments = [*times("train", 3), *times("val", 1), *times("test", 2)]
    for number, at_ms in enumerate(moments, 1):
        put(store, number, captured_at_ms=at_ms)
    put(store, 50, captured_at_ms=times("train", 1, camera="lab/box/gate")[0], camera="gate")
    put(store, 60, captured_at_ms=times("train", 1, camera="lab/other/yard")[0], camera="yard", device="other")
    draw(store, freeze(store, *range(1, 7)), {n: [person(4)] for n in range(1, 7)})
    return store


QUICK = ("dataset", "freeze", "--people-only", "--no-noise")


def narrow(printed: str) -> bool:
    return all(len(line) <= 80 or "/" in line for line in printed.splitlines())


def test_freeze_says_what_was_frozen_and_what_comes_next(run, labelled, tmp_path):
    status, printed, said = run(*QUICK)
    digest = read_version(tmp_path / "datasets" / "1").digest[:12]
    assert (status, said) == (0, "")
    assert printed.splitlines() == [
        f"dataset version 1, {digest}: 5 images to train on and 0 noisy copies, 1 for",
        "validation, 2 for the test",
        "  people                   3 train, 1 val, 2 test",
        "  for replay               2 train",
        f"folder: {tmp_path}/datasets/1",
        "next: hub train --dataset 1",
    ]


def test_list_and_show_as_text_and_json(run, labelled, tmp_path):
    run(*QUICK)
    run(*QUICK, "--seed", "7")
    status, printed, _ = run("dataset", "list")
    assert status == 0
    assert narrow(printed)
    first, second = (read_version(tmp_path / "datasets" / number).digest for number in ("1", "2"))
    lines = printed.splitlines()
    assert lines[0].split() == ["id", "frozen", "(UTC)", "for", "train", "val", "test", "after", "digest"]
    assert lines[1].split()[3:] == ["all", "5", "1", "2", "-", first[:12]]
    assert lines[2].strip() == "train: 3 people, 2 for replay; val: 1 people; test: 2 people"
    assert lines[3].strip() == f"{tmp_path}/datasets/1"
    assert lines[4].split()[3:] == ["all", "5", "1", "2", "1", second[:12]]
    rows = json.loads(run("dataset", "list", "--json")[1])
    assert [(row["id"], row["parent_id"], row["recipe"]["seed"]) for row in rows] == [(1, None, 0), (2, 1, 7)]
    status, printed, _ = run("dataset", "show", "2")
    assert (status, narrow(printed)) == (0, True)
    for piece in ("after " + first[:12], "lab/box/door", "person", "dark", "seed 7", "for replay"):
        assert piece in printed
    told = json.loads(run("dataset", "show", "2", "--json")[1])
    assert told["splits"]["train"] == {"images": 5, "copies": 0, "boxes": 3, "ignored": 0}
    assert told["labels"] == {"person": {"train": 3, "val": 1, "test": 2}}
    assert told["cameras"]["lab/other/yard"] == {"train": 1, "val": 0, "test": 0}


def test_freeze_as_json_and_into_a_folder_of_ones_own(run, labelled, tmp_path):
    told = json.loads(run(*QUICK, "--json", "--out", "mine")[1])
    assert (told["number"], told["by"]["person"]) == (1, {"train": 3, "val": 1, "test": 2})
    assert told["digest"] == read_version(tmp_path / "mine").digest
    assert run("dataset", "show", "1")[0] == 0
    assert labelled.datasets.one(1).folder == tmp_path / "mine"


def test_export_and_take(run, labelled, tmp_path):
    run(*QUICK)
    status, printed, _ = run("dataset", "export", "1", "--format", "coco", "--out", "out")
    assert status == 0
    assert printed.splitlines() == [
        "coco: 3 train, 1 val, 2 test",
        "2 pictures for replay are left out: nothing is known of them",
        "folder: out",
    ]
    status, printed, said = run("dataset", "take", "out", "--format", "coco", "--out", "taken")
    assert (status, said) == (0, "")
    assert narrow(printed)
    assert run("dataset", "show", "taken")[1] == printed
    version = read_version(tmp_path / "taken")
    assert {one.split for one in version.members} == {"test"}
    assert len(version.members) == 6


REFUSED = [
    (("dataset", "freeze"), "no image is labelled"),
    (("dataset", "freeze", "--weakspot", "3"), "there is no weak spot 3"),
    (("dataset", "freeze", "--self-taught"), "there is no unlabelled frame"),
    (("dataset", "freeze", "--self-taught", "--people-only"), "give one of them"),
    (("dataset", "freeze", "--database", "none.db"), "there is no database"),
    (("dataset", "show", "1"), "there is no dataset version 1"),
    (("dataset", "show", "nowhere"), "nowhere is no dataset version"),
    (("dataset", "export", "1", "--out", "x"), "there is no dataset version 1"),
    (("dataset", "take", "nowhere", "--out", "x"), "there is no folder nowhere"),
]


@pytest.mark.parametrize(("words", "says"), REFUSED)
def test_what_cannot_be_done_is_one_line_and_exit_2(run, store, tmp_path, words, says):
    status, printed, said = run(*words)
    assert (status, printed) == (2, "")
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "datasets").exists()


def test_an_empty_list_says_how_to_begin(run, store):
    assert run("dataset", "list")[:2] == (0, "no dataset version yet: `hub dataset freeze` makes one\n")


# hub forget


def bytes_in(folder) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_forget_says_which_versions_go_and_removes_them_whole(run, labelled, tmp_path):
    """Version 1 has a picture of lab/other; version 2, of another replay folder, has not."""
    (tmp_path / "any").mkdir()
    (tmp_path / "any" / "1.jpg").write_bytes(jpeg(99, noise=True))
    run(*QUICK)
    run(*QUICK, "--replay", "any")
    labelled.close()
    status, printed, _ = run("forget", "--device", "lab/other", "--dry-run")
    assert status == 0
    assert "dataset version 1 holds pictures of it: its folder goes, 8 pictures" in printed
    assert "dataset version 2" not in printed
    assert (tmp_path / "datasets" / "1").exists()
    assert run("forget", "--device", "lab/other", "--yes")[0] == 0
    assert not (tmp_path / "datasets" / "1").exists()
    assert jpeg(60) not in bytes_in(tmp_path)
    assert event_id(60).encode() not in bytes_in(tmp_path)
    assert read_version(tmp_path / "datasets" / "2")
    assert run("check")[0] == 0
    listed = run("dataset", "list")[1]
    assert re.search(r"removed \d{4}-\d\d-\d\d \d\d:\d\d: something in it was forgotten", listed)
    assert "something in it was forgotten: `hub dataset freeze`" in run("dataset", "show", "1")[2]


def test_who_does_not_confirm_forgets_nothing(run, labelled, tmp_path):
    run(*QUICK)
    words = ["forget", "--device", "lab/other", "--database", str(tmp_path / "hub.db")]
    asked = CliRunner().invoke(hub.cli.app, words, input="n\n")
    assert asked.exit_code == 1
    assert "Forget lab/other, and 1 dataset version with it? It cannot be undone." in asked.output
    assert "nothing was forgotten" in asked.output
    assert (tmp_path / "datasets" / "1").exists()
    assert check_lines(labelled)[1]


def test_a_moved_version_is_named_and_one_without_a_row_goes(run, labelled, tmp_path):
    """Version 2 is what a freeze leaves that was killed between its folder and its row."""
    run(*QUICK)
    run(*QUICK)
    labelled._connection.execute("DELETE FROM dataset_image WHERE version_id = 2")
    labelled._connection.execute("DELETE FROM dataset_version WHERE id = 2")
    labelled.close()
    shutil.move(tmp_path / "datasets" / "1", tmp_path / "elsewhere")
    half = tmp_path / "datasets" / ".3.12.part"
    (half / "images").mkdir(parents=True)
    (half / "images" / "x.jpg").write_bytes(jpeg(60))
    status, printed, _ = run("forget", "--device", "lab/other", "--yes")
    assert status == 0
    assert "dataset version 1 held pictures of it and was moved: delete it" in printed
    assert "a dataset version without a number holds pictures of it" in printed
    assert list((tmp_path / "datasets").iterdir()) == []
    assert run("check")[0] == 0


def test_a_forgetting_that_is_stopped_is_done_again(run, labelled, tmp_path, monkeypatch):
    """Killed when the folder was gone and its row not marked: the next one finds the row."""
    run(*QUICK)
    labelled.close()
    shutil.rmtree(tmp_path / "datasets" / "1")
    assert run("check")[0] == 1
    assert run("forget", "--device", "lab/other", "--yes")[0] == 0
    assert run("check")[0] == 0


def test_the_fixture_measures_with_two(labelled):
    rows = [labelled.finding(event_id(n)) for n in range(1, 7)]
    where = [{key: getattr(row, key) for key in ("site", "device", "camera", "captured_at_ms")} for row in rows]
    assert [is_test(**one) for one in where] == [False] * 4 + [True] * 2
