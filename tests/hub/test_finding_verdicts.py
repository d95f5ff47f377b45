"""What annotated images say of findings: who was right, by whom, and what is printed of it."""

import json
import sys

import pytest

import hub.cli
from edge.contract.samples import Box, Reason, Witness, WitnessKind
from edge.contract.topics import Kind
from hub.annotation import Annotation
from hub.consolidate import Dispute
from hub.finding_verdicts import judge, objects_of, table, verdicts
from hub.store import BatchMember, Store
from hub.store_labels import LabelSet
from hub.truth import Truth
from tests.hub.labelled import NOW, draw, freeze, made_batch, put
from tests.hub.made import arrival, event_payload, finding, jpeg
from tests.hub.sighted import group

REGION = (10.0, 10.0, 30.0, 40.0)
BESIDE = (40.0, 10.0, 60.0, 40.0)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def there(*boxes: Annotation, labels=("person", "head"), disputes=()) -> Truth:
    return Truth("0" * 32, boxes, frozenset(labels), "person", ("ann",), disputes)


def one(xyxy=REGION, label="person") -> Annotation:
    return Annotation(xyxy, label)


def seen(xyxy=REGION, label="person", score=0.9, witness=None) -> Box:
    return Box(xyxy, label, score, witness)


def claim(reason: Reason, *boxes: Box, label="person", **changes):
    return finding(1, reason=reason, region=REGION, label=label, boxes=boxes, score_threshold=0.4, **changes)


NEAR = (14.0, 10.0, 34.0, 40.0)  # IoU with REGION .67
FAR = (22.0, 10.0, 42.0, 40.0)  # IoU with REGION .25


@pytest.mark.parametrize(
    ("boxes", "truth", "expected"),
    [
        ([], there(one()), True),
        ([], there(one(NEAR)), True),
        ([], there(), False),  # nobody is there
        ([], there(one(FAR)), False),  # somebody is beside it
        ([], there(one(label="head")), False),  # something else is there
        ([seen()], there(one()), False),  # it was detected
        ([seen(score=0.39)], there(one()), True),  # under the threshold: not detected
        ([seen(witness=WitnessKind.ZOOM)], there(one()), True),  # the witness's own box, not a detection
        ([seen(NEAR)], there(one()), False),  # detected a little off
        ([seen(FAR)], there(one()), True),  # its neighbour was detected
        ([seen(label="dog")], there(one()), False),  # detected, by a wrong name
        ([seen(NEAR)], there(one(NEAR), one((6.0, 10.0, 26.0, 40.0))), True),  # two people, one of them detected
        ([], there(one(), labels=("head",)), None),  # nobody looked for people
        ([], there(one(), disputes=(Dispute(REGION, ("person",), "one of two"),)), None),  # annotators do not agree
        ([], there(one(), disputes=(Dispute(BESIDE, ("person",), "one of two"),)), True),  # ... on something else
    ],
)
def test_missed(boxes, truth, expected) -> None:
    assert judge(claim(Reason.MISSED, *boxes), truth) is expected


@pytest.mark.parametrize(
    ("truth", "names", "expected"),
    [
        (there(one(label="head")), (), True),  # something was missed, whatever it is
        (there(), (), False),
        (there(), ("person", "head"), False),
        (there(labels=("person",)), ("person", "head"), None),  # the pass for heads is still to come
    ],
)
def test_missed_without_a_label(truth, names, expected) -> None:
    assert judge(claim(Reason.MISSED, label=""), truth, names=names) is expected


@pytest.mark.parametrize(
    ("truth", "expected"),
    [
        (there(one(NEAR)), True),
        (there(one(FAR)), False),
        (there(one(label="head")), False),
        (there(labels=("head",)), None),
    ],
)
def test_low_confidence(truth, expected) -> None:
    assert judge(claim(Reason.LOW_CONFIDENCE, seen(score=0.45)), truth) is expected


WITHIN = (12.0, 11.0, 29.0, 39.0)


@pytest.mark.parametrize(
    ("boxes", "tags", "truth", "expected"),
    [
        ([seen()], ("ghost",), there(), True),
        ([seen()], ("ghost",), there(one()), False),
        ([seen()], ("class_flip",), there(one(label="head")), True),  # swapped
        ([seen(), seen(WITHIN)], ("duplicate",), there(one()), True),  # two boxes, one object, it has the better one
        ([seen(), seen(WITHIN)], ("duplicate",), there(one(WITHIN)), True),  # ... the other one
        ([seen(), seen(WITHIN)], ("duplicate",), there(one(), one(WITHIN)), False),  # two people, one behind the other
        ([seen(), seen(WITHIN, label="dog")], ("duplicate",), there(one()), False),  # nobody looked for dogs
        ([seen(), seen(BESIDE)], ("duplicate",), there(one()), False),  # the false one is no twin
        ([seen(), seen(NEAR)], ("ghost",), there(one(NEAR)), True),  # the object is the other box's
        ([seen()], ("still",), there(labels=("head",)), None),
    ],
)
def test_suspect(boxes, tags, truth, expected) -> None:
    assert judge(claim(Reason.SUSPECT, *boxes, tags=tags), truth) is expected


def test_control_is_not_judged_its_objects_are_counted() -> None:
    whole = claim(Reason.CONTROL, seen(NEAR), seen(BESIDE, score=0.3), label="")
    truth = there(one(), one(BESIDE), one((0.0, 0.0, 5.0, 5.0), "head"))
    assert judge(whole, truth) is None
    counted = objects_of(whole, truth, known={"person"})
    assert (counted.found, counted.overlooked) == (1, 1), "a head is nothing that this detector could find"


# In a database.

FOUND = (1.0, 2.0, 30.0, 40.0)  # the region of hub.made's findings
SPEAKS = (Witness(WitnessKind.ZOOM, 0.9), Witness(WitnessKind.MOTION, 0.4))


def beside(store: Store, event_id: str, *, number: int, **changes) -> None:
    """Commit one more finding, with the picture of `number` unless told otherwise."""
    told = {"picture": jpeg(number), "captured_at_ms": NOW + 60_000 * number, "track": event_id} | changes
    store.commit([arrival(Kind.EVENT, event_payload(number, event_id=event_id, **told))], now_ms=NOW)
    group(store)


def rights(store: Store) -> dict[str, bool]:
    return {one.finding.event_id: one.right for one in verdicts(store).verdicts}


def test_an_image_judges_every_finding_on_its_picture(store) -> None:
    moment = NOW + 60_000
    own, other, dark, elsewhere = (f"{moment:012x}7{mark * 19}" for mark in "1234")
    later = f"{moment + 1:012x}7{'5' * 19}"
    beside(store, own, number=1, inline=True)
    beside(store, other, number=1, reason=Reason.SUSPECT)
    beside(store, dark, number=1, picture=jpeg(2))  # the same moment, but other people are blurred in its picture
    beside(store, later, number=1, captured_at_ms=moment + 1)
    beside(store, elsewhere, number=1, camera="yard")
    row = store.finding(own)
    batch = store.freeze_batch([BatchMember(own, row.group_id, "why", 1.0)], now_ms=NOW, title="dark")
    label_set = LabelSet(0, batch, "person", "ann", "", ("person",), NOW, "test")
    store.labels.add(label_set, {own: [Annotation(FOUND, "person")]})
    # The box of hub.made's finding is a detection: the object was reported.
    assert rights(store) == {own: False, other: False}


def test_only_people_judge_and_who_looks_again_has_the_last_word(store) -> None:
    batch = made_batch(store, 3, boxes=(), witnesses=SPEAKS)
    draw(store, batch, {1: [one(FOUND)], 2: [one(FOUND)]}, kind="machine", annotator="yard-2")
    assert rights(store) == {}
    draw(store, batch, {1: [one(FOUND)], 2: []})
    assert list(rights(store).values()) == [True, False]
    draw(store, batch, {2: [one(FOUND)]}, kind="review", annotator="eve")
    assert list(rights(store).values()) == [True, True]


def test_the_table_by_camera_reason_and_witness(store) -> None:
    put(store, *range(1, 15), boxes=(), witnesses=SPEAKS[:1])
    put(store, *range(15, 19), boxes=(), witnesses=SPEAKS, camera="yard")
    put(store, 21, reason=Reason.CONTROL, boxes=(seen(FOUND),), label="", region=(0.0, 0.0, 64.0, 48.0))
    batch = freeze(store, *range(1, 19), 21)
    draw(store, batch, {number: [one(FOUND)] * (number % 4 != 0) for number in (*range(1, 19), 21)})
    told = {
        (row.camera and row.camera[2], row.reason, row.witness): (row.right, row.of, row.share is not None)
        for row in table(verdicts(store))
    }
    assert told == {
        (None, "missed", None): (14, 18, True),
        (None, "missed", "motion"): (3, 4, False),
        (None, "missed", "zoom"): (14, 18, True),
        (None, "control", None): (1, 1, False),
        ("door", "control", None): (1, 1, False),
        ("door", "missed", None): (11, 14, True),
        ("door", "missed", "zoom"): (11, 14, True),
        ("yard", "missed", None): (3, 4, False),
        ("yard", "missed", "motion"): (3, 4, False),
        ("yard", "missed", "zoom"): (3, 4, False),
    }


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run `hub ...` on the database; return its status, what it printed, and what it said of errors."""

    def command(*words: str) -> tuple[int, str, str]:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["hub", *words, "--database", str(tmp_path / "hub.db")])
        with pytest.raises(SystemExit) as ended:
            hub.cli.main()
        return (ended.value.code or 0, *capsys.readouterr())

    return command


def test_the_command_and_its_sheet(run, store, tmp_path) -> None:
    status, printed, _ = run("verdicts")
    assert status == 1
    assert "no finding is judged yet" in printed
    batch = made_batch(store, 14, boxes=(), witnesses=SPEAKS)
    draw(store, batch, {number: [one(FOUND)] * (number > 2) for number in range(1, 15)})
    status, printed, _ = run("verdicts", "--sheet", str(tmp_path / "wrong.png"))
    assert status == 0
    lines = printed.splitlines()
    assert all(len(line) <= 80 for line in lines if not line.startswith("drawn: "))  # but for what names a file
    assert lines[1].split() == ["all", "missed", "14", "12", "86%", "60-96"]
    assert "needs 16 more" in printed, "of the thirty that weights take"
    assert (tmp_path / "wrong.png").read_bytes().startswith(b"\x89PNG")
    shown = json.loads(run("verdicts", "--json")[1])
    assert [row["right"] for row in shown["table"][:1]] == [12]
    assert len(shown["findings"]) == 14
    assert shown["weights"][0]["missing"] == 16


def test_a_sheet_needs_a_wrong_one(run, store, tmp_path) -> None:
    batch = made_batch(store, 1, boxes=(), witnesses=SPEAKS)
    draw(store, batch, {1: [one(FOUND)]})
    status, _, error = run("verdicts", "--sheet", str(tmp_path / "wrong.png"))
    assert (status, error) == (2, "hub: there is no picture of a wrong finding: none was wrong\n")
