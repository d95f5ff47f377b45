"""`hub labels import` as it is typed: what it prints, what it refuses, its exit status."""

import json
import sys

import pytest

import hub.cli
from hub.annotation import Annotation
from hub.store import Store
from tests.hub.labelled import event_id, made_batch, person
from tests.hub.returned import as_zip, files_of, names_of, stored

KEPT = Annotation((1, 2, 30, 40), "person")  # as the detector proposed it


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run `hub labels import ...` beside a hub.toml; return its status, what it printed, what it said of errors."""
    (tmp_path / "hub.toml").write_text('database = "hub.db"\n[labels]\nnames = ["person", "head"]\n')

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["hub", "labels", "import", *words])
        with pytest.raises(SystemExit) as ended:
            hub.cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return command


def test_an_import_says_what_was_stored_and_what_comes_next(run, store, tmp_path) -> None:
    batch = made_batch(store, 3)
    as_zip(files_of(store, batch, {1: [KEPT, person(40)], 2: []}), tmp_path / "answer.zip")
    status, printed, said = run("answer.zip", "--batch", "1", "--annotator", "ann", "--minutes", "12")
    assert (status, said) == (0, "")
    missing = names_of(store, batch)[event_id(3)]
    assert printed.splitlines() == [
        "batch 1, cvat: 2 images, 2 boxes by ann (set 1)",
        "looked for: person, head",
        "kept untouched: 1 of 2 proposed boxes (50%)",
        "1 image of the batch not in it:",
        f"  {missing}",
        "not yet looked for in the batch: person on 1, head on 1 of 3 images",
        "next: hub labels show 1, hub labels audit 1",
    ]
    assert all(len(line) <= 80 for line in printed.splitlines())
    assert stored(store, batch) == {event_id(1): (KEPT, person(40)), event_id(2): ()}
    assert store.batch(batch).minutes == 12


def test_a_second_import_says_what_changed(run, store, tmp_path) -> None:
    batch = made_batch(store, 1)
    for boxes in ([KEPT], [KEPT, person(40)]):
        as_zip(files_of(store, batch, {1: boxes}), tmp_path / "answer.zip")
        _, printed, _ = run("answer.zip", "-b", "1")
    assert "it replaces an earlier import, 1 image changed: boxes 1 added" in printed.splitlines()
    _, printed, _ = run("answer.zip", "-b", "1")
    assert "nothing has changed since the earlier import" in printed.splitlines()


def test_a_review_is_a_part_of_the_batch_and_the_rest_is_not_missed(run, store, tmp_path) -> None:
    batch = made_batch(store, 3)
    as_zip(files_of(store, batch, {1: [KEPT, person(40)]}), tmp_path / "again.zip")
    _, printed, _ = run("again.zip", "-b", "1", "--annotator", "eve", "--review")
    assert "1 image, 2 boxes by eve" in printed
    assert "not in it" not in printed


def test_who_is_not_named_is_asked_for(run, store, tmp_path) -> None:
    as_zip(files_of(store, made_batch(store, 1), {1: [person(40)]}), tmp_path / "answer.zip")
    _, printed, _ = run("answer.zip", "-b", "1")
    assert "nobody is named: with --annotator NAME" in printed
    _, printed, _ = run("answer.zip", "-b", "1", "-a", "ann")
    assert "nobody is named" not in printed


def test_a_file_that_nobody_has_touched_is_asked_about(run, store, tmp_path) -> None:
    as_zip(files_of(store, made_batch(store, 1), {1: [KEPT]}), tmp_path / "answer.zip")
    _, printed, _ = run("answer.zip", "-b", "1")
    assert "is this the file that came back" in " ".join(printed.split())


def test_faults_are_named_and_nothing_is_stored(run, store, tmp_path) -> None:
    batch = made_batch(store, 1)
    files = files_of(store, batch, {1: [KEPT, person(40)]})
    spoiled = (
        files["annotations.xml"].replace(b'xtl="1.00"', b'xtl="-9"').replace(b'"person" source', b'"dog" source', 1)
    )
    (tmp_path / "annotations.xml").write_bytes(spoiled.replace(b'xbr="50.00"', b'xbr="90"'))
    status, printed, said = run("annotations.xml", "-b", "1")
    name = names_of(store, batch)[event_id(1)]
    assert (status, printed) == (2, "")
    assert said.splitlines() == [
        "hub: nothing is imported, 2 faults:",
        f"  annotations.xml: line 31, image {name}: label 'dog' is not one of person, head",
        f"  annotations.xml: line 33, image {name}: person at (40, 4, 90, 14) lies outside the image of 64 x 48",
        "--fix repairs 1 of them; its help says how",
        "the labels asked for: [labels] names in hub.toml, else those of the batch",
    ]
    assert store.labels.sets() == []


def test_fix_says_what_it_did(run, store, tmp_path) -> None:
    batch = made_batch(store, 1)
    files = files_of(store, batch, {1: [KEPT, person(40)]})
    (tmp_path / "a.xml").write_bytes(files["annotations.xml"].replace(b'xbr="50.00"', b'xbr="90"'))
    status, printed, _ = run("a.xml", "-b", "1", "--fix")
    assert status == 0
    assert f"fixed {names_of(store, batch)[event_id(1)]}: cut at the border (line 33)" in printed.splitlines()


def test_json_has_the_report_or_all_faults(run, store, tmp_path) -> None:
    batch = made_batch(store, 1)
    files = files_of(store, batch, {1: [KEPT]})
    (tmp_path / "a.xml").write_bytes(files["annotations.xml"])
    status, printed, _ = run("a.xml", "-b", "1", "--json")
    report = json.loads(printed)
    assert (status, report["set_ids"], report["images"], report["kept"], report["changed"]) == (0, [1], 1, 1, None)
    (tmp_path / "a.xml").write_bytes(files["annotations.xml"].replace(b'"person" source', b'"dog" source'))
    status, printed, _ = run("a.xml", "-b", "1", "--json")
    (fault,) = json.loads(printed)["faults"]
    assert (status, fault["place"], fault["fixable"]) == (2, "a.xml: line 31", False)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("none.xml", "-b", "1"), "hub: none.xml: no such file or folder"),
        (("hub.toml", "-b", "1"), "hub: no annotations in a known format here, only hub.toml"),
        (("hub.toml", "-b", "7"), "hub: there is no batch 7"),
        (("hub.toml", "-b", "1", "--pass", "dog"), "hub: no pass 'dog': asked for: person, head"),
    ],
)
def test_what_cannot_be_done_is_one_line(run, store, words, says) -> None:
    made_batch(store, 1)
    status, printed, said = run(*words)
    assert (status, printed) == (2, "")
    assert said.startswith(says)
    assert said.count("\n") == 1


def test_no_terminal_obeys_what_a_file_says(run, store, tmp_path) -> None:
    made_batch(store, 1)
    (tmp_path / "back").mkdir()
    (tmp_path / "back" / "data.yaml").write_bytes(b'names: ["\\u001b[2J"]')
    status, _, said = run("back", "--batch", "1")
    assert (status, said) == (2, "hub: the annotator's labels are [2J, asked for is person, head\n")
