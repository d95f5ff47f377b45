"""`hub labels audit` as it is typed: real pictures, the real model, from the list to what the second look says."""

import json
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import hub.cli
from hub.annotation import Annotation
from hub.opinions import Onlooker, opinions
from hub.store import Store
from tests.edge.detector.made_graphs import save_graph, yolo_cells
from tests.hub.labelled import draw, event_id, freeze, put
from tests.hub.returned import as_zip, files_of

STREET = Path(__file__).parents[2] / "deploy" / "demo" / "street.mp4"
COUNT = 9
STEP = 12
OVERLOOKED, INVENTED = 2, 5
NOTHING = (4.0, 4.0, 44.0, 104.0)  # a wall


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """A batch of frames of the street, labelled with what the model is sure of, but for one error on each of two."""
    path = tmp_path_factory.mktemp("made") / "hub.db"
    video = cv2.VideoCapture(str(STREET))
    frames = [video.read()[1] for _ in range(COUNT * STEP)][::STEP]
    video.release()
    height, width = frames[0].shape[:2]
    pictures = {at: cv2.imencode(".jpg", frame)[1].tobytes() for at, frame in enumerate(frames, 1)}
    with Store.open(path) as store:
        put(store, *pictures, pictures=pictures, width=width, height=height)
        batch = freeze(store, *pictures)
        seen = opinions(store, Onlooker.open(), [event_id(n) for n in pictures])
        drawn = {
            n: [
                Annotation(box.xyxy, "person") for box in seen[event_id(n)] if box.score > 0.4 and box.label == "person"
            ]
            for n in pictures
        }
        assert all(drawn.values()), "the street has people"
        gone = max(drawn[OVERLOOKED], key=lambda box: box.xyxy[3] - box.xyxy[1])
        right = {n: list(boxes) for n, boxes in drawn.items()}
        drawn[OVERLOOKED].remove(gone)
        drawn[INVENTED].append(Annotation(NOTHING, "person"))
        draw(store, batch, drawn, labels=("person",))
    return path, right


@pytest.fixture
def run(filled, tmp_path, monkeypatch, capsys):
    """Run `hub labels ...` beside a hub.toml; return its status, what it printed, what it said of errors."""
    (tmp_path / "hub.db").write_bytes(filled[0].read_bytes())
    (tmp_path / "hub.toml").write_text('database = "hub.db"\n[labels]\nnames = ["person"]\n')

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["hub", "labels", *words])
        with pytest.raises(SystemExit) as ended:
            hub.cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return command


def test_what_was_planted_leads_the_list_and_the_second_look_measures_it(run, filled, tmp_path) -> None:
    status, said, _ = run("audit", "1", "--sheet", "sheet.png", "--export", "again", "--size", "2")
    assert status == 0
    assert all(len(line) <= 80 for line in said.splitlines())
    assert said.startswith("batch 1: dark\nlooked for: person\n")
    assert "drawn: sheet.png\nwritten: again, 7 images with the labels as they are\n" in said
    assert said.endswith(
        "next: look again at the images in again, then\n"
        "      hub labels import again --batch 1 --review --annotator NAME\n"
    )
    listed = re.findall(r"^ +[12] (\w+) +(\w+) ", said, re.MULTILINE)
    assert sorted(listed) == [(event_id(OVERLOOKED)[-8:], "missing"), (event_id(INVENTED)[-8:], "extra")]
    assert len(re.findall("random", said)) >= 5
    assert cv2.imread(str(tmp_path / "sheet.png")).shape[1] > 800
    images = sorted(path.name for path in (tmp_path / "again").rglob("*.jpg"))
    assert len(images) == 7, "two picked, five at random"
    xml = (tmp_path / "again" / "annotations.xml").read_text()
    assert 'xtl="4.00" ytl="4.00" xbr="44.00" ybr="104.00"' in xml, "the labels as they are, to be corrected"

    with Store.open(tmp_path / "hub.db") as store:
        listed = {int(one.event_id, 16) for one in store.labels.rechecks(1)}
        as_zip(files_of(store, 1, {n: filled[1][n] for n in listed}), tmp_path / "again.zip")
    status, said, _ = run("import", "again.zip", "--batch", "1", "--review", "--annotator", "eve")
    assert (status, "7 re-checks" in said) == (0, True)
    status, said, _ = run("audit", "1")
    assert "picked by the audit: 2 of 2 wrong" in said
    assert "drawn at random: 0 of 5 wrong" in said
    assert "nobody looked at again, about 0 are still wrong" in " ".join(said.split())
    assert re.search("enough: (no|about 1) wrong image is expected among the 2 left", said)
    assert said.endswith("next: hub dataset health\n")
    assert "rank" not in said, "no further list"
    assert run("show", "1")[1].endswith("next: hub dataset health\n")
    lists = len(json.loads(run("audit", "1", "--json")[1])["rechecks"])
    assert (lists, stored_lists(tmp_path)) == (0, 1)

    status, said, _ = run("audit", "1", "--size", "1")
    assert (status, "enough: " in said, stored_lists(tmp_path)) == (0, True, 2)
    assert "next: hub labels audit 1 --export again, look again, then" in said


def stored_lists(folder: Path) -> int:
    with Store.open(folder / "hub.db") as store:
        return len(store.labels.recheck_lists(1))


def test_asked_twice_there_is_one_list_as_json(run) -> None:
    first, second = (json.loads(run("audit", "1", "--json")[1]) for _ in range(2))
    assert first == second
    assert first["measured"] is None
    assert len(first["images"]) == COUNT
    assert [one["rank"] for one in first["rechecks"]] == list(range(1, 8))
    worst = first["images"][0]
    assert worst["score"] >= worst["faults"][0]["probability"] > 0.3


def test_labels_that_the_model_does_not_know_are_named(run, tmp_path) -> None:
    with Store.open(tmp_path / "hub.db") as store:
        draw(
            store, 1, {1: [Annotation((20, 20, 40, 40), "head")]}, labels=("head",), annotator="bob", label_pass="head"
        )
    status, said, _ = run("audit", "1")
    assert status == 0
    assert "the model does not know head" in said


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["audit", "7"], "no batch 7"),  # there is none
        (["audit", "1", "--model", "none.onnx"], "none.onnx"),  # no such model
        (["audit", "1", "--sheet", "none/sheet.png"], "cannot write none/sheet.png"),  # no such folder
    ],
)
def test_what_cannot_be_done_is_one_line(run, words, problem) -> None:
    status, said, errors = run(*words)
    assert (status, said) == (2, "")
    assert problem in errors
    assert errors.count("\n") == 1


def test_a_batch_without_labels_says_what_to_do(run, tmp_path) -> None:
    with Store.open(tmp_path / "empty.db") as store:
        put(store, 1)
        freeze(store, 1)
    status, _, errors = run("audit", "1", "--database", "empty.db")
    assert status == 2
    assert "hub labels import" in errors


def test_opinions_are_of_the_larger_look_where_the_model_allows_it() -> None:
    onlooker = Onlooker.open()
    assert onlooker.name == "starter-1-cf1528a3@512x512x2"
    small = Onlooker.open(input_size=(320, 320))
    assert small.name == "starter-1-cf1528a3@320x320x2"
    grey = cv2.imencode(".jpg", np.full((120, 160, 3), 128, np.uint8))[1].tobytes()
    assert all(box.origin == "model" and box.score >= 0.05 for box in onlooker.look(grey))


def test_a_model_that_takes_one_size_only_is_looked_through_at_that(tmp_path) -> None:
    path = save_graph(tmp_path / "made.onnx", {"output0": yolo_cells((96, 64), [(3, 40, 30, 20, 20, 1, 0.9)])})
    onlooker = Onlooker.open(path)
    assert onlooker.name.endswith("@96x64x2")
    grey = cv2.imencode(".jpg", np.full((64, 96, 3), 128, np.uint8))[1].tobytes()
    assert {box.label for box in onlooker.look(grey)} == {"class_1"}
