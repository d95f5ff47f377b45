"""`hub gate`, as a user runs it: real models on real pictures, and a weak spot whose life moves on."""

import hashlib
import json
import sys

import cv2
import msgspec
import numpy as np
import pytest

from edge.contract.card import read_card
from edge.detector.detector import open_detector
from edge.detector.written import write_card
from hub.cli import main
from hub.datasets.version import Member, MemberBox, make_version, write_version
from hub.store import Store
from hub.weakspots import SpotState, advance, step_of, weak_spot
from tests.edge.detector.golden_models import jpegs, scaled_scores, starter_folder

NOW = 1_700_000_000_000


@pytest.fixture
def hub(monkeypatch, tmp_path, capsys):
    """Run `hub` in an empty folder; return exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["hub", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def freeze(folder):
    """A version of 10 street pictures whose truth is what the starter sees of them at their full size."""
    detector = open_detector(input_size=(768, 576))
    pictures, members = jpegs(10), []
    for at, (name, jpeg) in enumerate(pictures.items()):
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        found = detector.detect(image, score_threshold=0.4).detections
        boxes = tuple(
            MemberBox(xyxy=tuple(xyxy), label="person", origin="person")
            for xyxy, label in zip(found.xyxy.tolist(), found.class_id, strict=True)
            if detector.labels[label] == "person"
        )
        members.append(
            Member(
                name=name,
                sha256=hashlib.sha256(jpeg).hexdigest(),
                width=768,
                height=576,
                split="test",
                labels=("person",),
                boxes=boxes,
                by="person",
                camera="lab/box/door",
                captured_at_ms=NOW + 60_000 * at,
                weak_spots=(1,),
            )
        )
    recipe = {"weak_spot": 1}
    version = make_version(members, labels=("person",), recipe=recipe, created_at_ms=NOW)
    write_version(version, folder, jpeg_of=lambda member: pictures[member.name])


@pytest.fixture
def room(tmp_path):
    """Two models, the larger input the better one; a version; a database with an annotated weak spot."""
    freeze(tmp_path / "version")
    starter_folder(tmp_path / "small", size=(128, 96))
    large = starter_folder(tmp_path / "large", size=(384, 288))
    content = scaled_scores(0.999)  # another file
    (large / "starter.onnx").write_bytes(content)
    card = read_card(large / "model.json")
    write_card(
        large / "model.json",
        msgspec.structs.replace(card, release="street-2", sha256=hashlib.sha256(content).hexdigest()),
    )
    with Store.open(tmp_path / "weakspot.db") as store:
        spot = store.spots.open("small", "small", manual=True, first=step_of(SpotState.OPEN, None, now_ms=NOW))
        assert spot == 1
        for state in (SpotState.BATCHED, SpotState.ANNOTATED):
            advance(store, spot, state, now_ms=NOW)
    return tmp_path


def state(room):
    with Store.open(room / "weakspot.db") as store:
        return weak_spot(store, 1).state


def test_a_better_candidate_passes_and_its_weak_spot_moves_on(hub, room):
    asked = ("gate", "large", "--against", "small", "--dataset", "version", "-d", "weakspot.db")
    status, out, err = hub(*asked)
    assert (status, err) == (0, "")
    assert all(len(line) <= 80 for line in out.splitlines())
    assert out.startswith("street-2 passes\nagainst starter-1, dataset ")
    assert "pass  better on weak spot 1: AP50" in out
    assert "Weak spot 1 is `trained`" in out
    assert state(room) is SpotState.TRAINED
    told = json.loads((room / "large" / "gate.json").read_text())
    assert (told["passed"], told["weak_spot"], told["release"]) == (True, 1, "street-2")
    assert told["sha256"] == hashlib.sha256((room / "large" / "starter.onnx").read_bytes()).hexdigest()
    assert told["variants"] == {}
    assert told["dataset"] == json.loads((room / "version" / "version.json").read_text())["digest"]
    assert told["comparison"]["groups"][0]["recall"]["difference"] > 0

    status, out, err = hub("gate", "small", "--against", "large", "--dataset", "version", "-d", "weakspot.db", "--json")
    assert (status, err) == (1, "")
    answer = json.loads(out)
    assert (answer["passed"], answer["moved"]) == (False, "no weak spot moves on")
    failed = {check["name"] for check in answer["checks"] if check["outcome"] == "fail"}
    assert {"better on weak spot 1", "recall over all", "AP50 over all"} <= failed
    with Store.open(room / "weakspot.db") as store:
        assert [step.model for step in store.spots.steps(1)].count("starter-1") == 0


def test_without_a_database_it_judges_and_moves_nothing(hub, room):
    status, out, _ = hub("gate", "large", "--against", "small", "--dataset", "version")
    assert status == 0
    assert "There is no database here, so no weak spot moves on" in " ".join(out.split())
    assert state(room) is SpotState.ANNOTATED


REFUSED = [
    # the same file
    (["large", "--against", "large", "--dataset", "version"], "are the same model"),
    # a number without a database
    (["large", "--against", "small", "--dataset", "7"], "hub.toml"),
    # no version
    (["large", "--against", "small", "--dataset", "large"], "is no dataset version"),
    # a file is no candidate
    (["large/starter.onnx", "--against", "small", "--dataset", "version"], "is no candidate's folder"),
    # a database that is not there was named
    (["large", "--against", "small", "--dataset", "version", "-d", "gone.db"], "gone.db"),
]


def test_what_cannot_be_done(hub, room):
    for arguments, message in REFUSED:
        status, out, err = hub("gate", *arguments)
        assert (status, out) == (2, ""), arguments
        assert message in err, arguments
    assert not (room / "large" / "gate.json").exists()
