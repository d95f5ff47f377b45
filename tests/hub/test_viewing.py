"""Passes, context and what is carried over, from a real database to the folder of an annotator."""

import json
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from edge.contract.errors import UnusableError
from edge.contract.samples import Box, WitnessKind
from hub.annotation import Annotation
from hub.batch_view import image_names
from hub.batches import batch_view
from hub.cli import app
from hub.export import Format, export_batch
from hub.formats.coco import read_coco
from hub.formats.cvat import read_cvat
from hub.formats.labelstudio import read_labelstudio
from hub.formats.voc import read_voc
from hub.formats.yolo import read_yolo
from hub.store import Store
from hub.store_labels import Annotated, Honeypot
from hub.viewing import nearest, unopened_view
from tests.hub.labelled import NOW, draw, event_id, freeze, made_batch, person, put

LABELS = ("person", "head", "bag")
READERS = {
    Format.CVAT: read_cvat,
    Format.COCO: read_coco,
    Format.YOLO: read_yolo,
    Format.VOC: read_voc,
    Format.LABELSTUDIO: read_labelstudio,
}


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def by_number(view):
    return {int(member.event_id, 16): member for member in view.members}


def context(*boxes):
    return tuple(Annotation(box.xyxy, box.label, None, "context") for box in boxes)


@pytest.mark.parametrize("random", [False, True])
def test_without_its_pictures_a_batch_has_the_same_names_and_labels(store, random):
    put(store, *range(1, 7))
    number = freeze(store, *range(1, 7), random=random)
    view = batch_view(store, number)
    bare = unopened_view(store, store.batch(number), store.batch_members(number), labels=())
    assert image_names(bare) == image_names(view)
    assert bare.asked == view.asked
    assert {member.jpeg for member in bare.members} == {b""}


def test_no_image_of_a_random_batch_is_called_one_to_train_on(store):
    """Nor are the known answers in it, which would stand out."""
    known = made_batch(store, 3)
    put(store, *range(4, 10))
    drawn = freeze(store, *range(4, 10), random=True)
    store.labels.freeze_honeypots(drawn, [Honeypot(event_id(1), 2, ())])
    assert any("-train-" in name for name in image_names(batch_view(store, known)))
    view = batch_view(store, drawn)
    assert view.random
    assert ["-test-" in name for name in image_names(view)] == [True] * 7


@pytest.mark.parametrize(
    ("boxes", "asked"),
    [
        ((Box((10, 5, 30, 40), "person", 0.9), Box((40, 5, 60, 40), "skis", 0.29)), ("person",)),  # too weak to propose
        ((Box((10, 5, 30, 40), "car", 0.3),), ("car", "person")),  # just sure enough; person is suspected
        ((Box((10, 5, 30, 40), "dog", 0.1, WitnessKind.ZOOM),), ("dog", "person")),  # a witness's, however weak
        ((), ("person",)),  # suspected alone
    ],
)
def test_without_a_list_what_is_proposed_or_suspected_is_asked_for(store, boxes, asked) -> None:
    assert batch_view(store, made_batch(store, 1, boxes=boxes, label="person")).asked == asked


@pytest.mark.parametrize("fmt", Format)
def test_a_pass_asks_for_one_label_and_shows_those_before(store, tmp_path, fmt) -> None:
    boxes = tuple(Box((10.0 * n, 5.0, 10.0 * n + 9, 40.0), label, 0.9) for n, label in enumerate(LABELS))
    batch = made_batch(store, 3, boxes=boxes)
    draw(store, batch, {n: [person(20)] for n in (1, 2, 3)}, label_pass="person", labels=("person",))
    view = batch_view(store, batch, labels=LABELS, label_pass="head")
    assert view.unanswered == ()
    report = export_batch(view, fmt, tmp_path / "out")
    assert dict(report.boxes) == {"context": 3, "detector": 3}
    assert dict(report.dropped) == {"for another pass": 6}
    read = READERS[fmt](tmp_path / "out")
    assert [[(box.label, box.origin) for box in image.annotations] for image in read.images] == [
        [("person", "context"), ("head", "detector")]
    ] * 3
    # where classes are numbers, all have theirs; where they are names, only those that are needed are there
    assert read.labels == (("person", "head") if fmt in {Format.CVAT, Format.LABELSTUDIO} else LABELS)
    manifest = json.loads((tmp_path / "out" / "batch.json").read_text())
    assert (manifest["pass"], manifest["labels"]) == ("head", list(LABELS))
    text = (tmp_path / "out" / "README.txt").read_text()
    for words in (
        "; pass 2 of 3: head\n",
        "1  person        done: its boxes are shown as context\n",
        "2  head          this pass\n",
        "3  bag           comes next\n",
        "around every head that you can",
        "Labels\n------\n  head\n\n",
        "3 boxes proposed, 3 boxes of context\n",
    ):
        assert words in text
    assert max(map(len, text.splitlines())) <= 120


def test_tools_that_can_lock_do(store, tmp_path) -> None:
    batch = made_batch(store, 1)
    draw(store, batch, {1: [person(20)]}, label_pass="person", labels=("person",))
    view = batch_view(store, batch, labels=("person", "head"), label_pass="head")
    export_batch(view, Format.CVAT, tmp_path / "cvat")
    box = ET.parse(tmp_path / "cvat" / "annotations.xml").getroot().find("image/box")
    assert box is not None
    assert box.get("z_order") == "-1"
    labels = json.loads((tmp_path / "cvat" / "labels.json").read_text())
    assert {label["name"]: label.get("color") for label in labels} == {"person": "#9e9e9e", "head": None}
    export_batch(view, Format.LABELSTUDIO, tmp_path / "ls")
    (task,) = json.loads((tmp_path / "ls" / "tasks.json").read_text())
    assert [region.get("readonly") for region in task["predictions"][0]["result"]] == [True]
    assert '<Label value="person" background="#9e9e9e"/>' in (tmp_path / "ls" / "config.xml").read_text()


def test_a_pass_out_of_order_is_allowed_and_said(store, tmp_path) -> None:
    batch = made_batch(store, 4)
    draw(store, batch, {1: [person(20)], 2: []}, label_pass="person", labels=("person",))
    view = batch_view(store, batch, labels=LABELS, label_pass="bag")
    assert view.unanswered == (("person", 2), ("head", 4))
    assert any("the pass head comes before and has no answer yet for 4 of 4 images" in note for note in view.notes)
    assert by_number(view)[1].context == context(person(20))
    assert by_number(view)[3].context == ()
    export_batch(view, Format.CVAT, tmp_path / "out")
    text = (tmp_path / "out" / "README.txt").read_text()
    assert "1  person        not done yet on 2 of 4 images: there no box of it is shown\n" in text
    assert "2  head          not done yet: no box of it is shown here\n" in text


def test_context_is_the_truth_of_the_batch_and_never_of_a_later_label(store) -> None:
    batch = made_batch(store, 1)
    draw(store, batch, {1: [person(20), person(40, label="head"), person(1, label="bag")]}, labels=LABELS)
    draw(store, batch, {1: [person(22)]}, kind="review", labels=("person",))
    assert by_number(batch_view(store, batch, labels=LABELS, label_pass="person"))[1].context == ()
    shown = by_number(batch_view(store, batch, labels=LABELS, label_pass="head"))[1].context
    assert shown == context(person(22))  # the second look outranks
    assert by_number(batch_view(store, batch, labels=LABELS))[1].context == ()


def test_a_honeypot_shows_what_was_drawn_on_it_here_and_not_its_answer(store) -> None:
    first = made_batch(store, 2)
    draw(store, first, {1: [person(1)]}, kind="review", labels=LABELS)
    second = made_batch(store, 2, first=10)
    store.labels.freeze_honeypots(second, [Honeypot(event_id(1), 2, (person(1),))])
    view = batch_view(store, second, labels=LABELS, label_pass="head")
    assert by_number(view)[1].context == ()
    assert view.unanswered == (("person", 3),)  # of all images alike
    draw(store, second, {1: [person(30)], 10: [person(2)], 11: []}, label_pass="person", labels=("person",))
    view = batch_view(store, second, labels=LABELS, label_pass="head")
    assert by_number(view)[1].context == context(person(30))
    assert view.unanswered == ()


def test_an_unknown_pass_is_refused_with_the_list(store) -> None:
    batch = made_batch(store, 1)
    with pytest.raises(UnusableError, match="no pass 'dog': asked for: person, head, bag"):
        batch_view(store, batch, labels=LABELS, label_pass="dog", honeypots=3)
    with pytest.raises(UnusableError, match="asked for: person;"):  # those that are proposed
        batch_view(store, batch, label_pass="dog")


def test_another_pass_needs_another_folder(store, tmp_path) -> None:
    batch = made_batch(store, 1)
    for label_pass, held in (("person", "all labels at once"), ("head", "the pass person"), ("", "the pass head")):
        out = tmp_path / held
        before = {"all labels at once": "", "the pass person": "person", "the pass head": "head"}[held]
        export_batch(batch_view(store, batch, labels=LABELS, label_pass=before), Format.YOLO, out)
        export_batch(batch_view(store, batch, labels=LABELS, label_pass=before), Format.YOLO, out)
        with pytest.raises(UnusableError, match=f"holds {held}; choose another folder"):
            export_batch(batch_view(store, batch, labels=LABELS, label_pass=label_pass), Format.YOLO, out)


def test_classes_have_the_same_number_in_every_batch_and_pass(store, tmp_path) -> None:
    one = made_batch(store, 1, label="bag", boxes=(Box((5.0, 5.0, 30.0, 40.0), "bag", 0.9),))
    two = made_batch(store, 1, first=2, label="person", boxes=(Box((5.0, 5.0, 30.0, 40.0), "person", 0.9),))
    for batch, label_pass, row in ((one, "", "2 "), (two, "", "0 "), (one, "bag", "2 "), (two, "person", "0 ")):
        out = tmp_path / f"{batch}{label_pass}"
        view = batch_view(store, batch, labels=LABELS, label_pass=label_pass)
        export_batch(view, Format.YOLO, out)
        (path,) = (out / "labels").rglob("*.txt")
        assert path.read_text().startswith(row)


# Carried over


def picture(*, car=True, shade=1.0):
    rng = np.random.default_rng(1)
    image = cv2.resize(rng.integers(60, 180, (12, 16), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
    if car:
        cv2.rectangle(image, (20, 16), (44, 34), 240, -1)
        cv2.rectangle(image, (24, 20), (32, 27), 10, -1)
    return cv2.imencode(".jpg", np.clip(image * shade, 0, 255).astype(np.uint8))[1].tobytes()


CAR = Annotation((19.0, 15.0, 46.0, 36.0), "car")


def test_what_stands_still_is_carried_from_the_last_annotated_frame(store, tmp_path) -> None:
    put(store, 1, 2, pictures={1: picture(), 2: picture()}, boxes=())
    first = freeze(store, 1, 2)
    draw(store, first, {1: [CAR], 2: [person(1)]}, labels=("car", "person"))
    draw(store, first, {1: [CAR], 2: [CAR]}, kind="machine", annotator="starter-1", labels=("car",))
    put(store, 3, pictures={3: picture(shade=0.7)}, boxes=(), captured_at_ms=NOW + 90_000)  # 1 is the last before it
    put(store, 4, pictures={4: picture(car=False)}, boxes=(), captured_at_ms=NOW + 91_000)
    put(store, 5, pictures={5: picture()}, boxes=(), captured_at_ms=NOW + 92_000, camera="gate")
    second = freeze(store, 3, 4, 5)
    view = batch_view(store, second, labels=("car", "person"))
    members = by_number(view)
    assert {number: [earlier.event_id for earlier in one.earlier] for number, one in members.items()} == {
        3: [event_id(1)],
        4: [event_id(1)],
        5: [],
    }
    report = export_batch(view, Format.COCO, tmp_path / "out")
    assert dict(report.boxes) == {"carried": 1}
    read = read_coco(tmp_path / "out")
    assert [(box.xyxy, box.label, box.origin) for box in read.images[0].annotations] == [(CAR.xyxy, "car", "carried")]
    assert "  carried    a person drew it on another image of this camera" in (tmp_path / "out/README.txt").read_text()
    # a pass carries its own label only
    assert not export_batch(
        batch_view(store, second, labels=("car", "person"), label_pass="person"), Format.COCO, tmp_path / "person"
    ).boxes
    assert [one.event_id for one in by_number(batch_view(store, first))[1].earlier] == [event_id(2)]  # never itself
    # who looked for people alone said nothing of cars: these still come from the frame before
    draw(store, second, {3: [person(1)]}, label_pass="person", labels=("person",))
    put(store, 6, pictures={6: picture()}, boxes=(), captured_at_ms=NOW + 93_000)
    last = by_number(batch_view(store, freeze(store, 6), labels=("car", "person")))[6]
    assert [(one.event_id, [box.label for box in one.boxes]) for one in last.earlier] == [
        (event_id(1), ["car"]),
        (event_id(3), ["person"]),
    ]


def test_a_broken_earlier_image_carries_nothing_and_is_counted(store, tmp_path) -> None:
    put(store, 1, 2, pictures={1: picture(), 2: picture()}, boxes=())
    first, second = freeze(store, 1), freeze(store, 2)
    draw(store, first, {1: [CAR]}, labels=("car",))
    store._connection.execute(
        "UPDATE frame SET jpeg = ? WHERE finding_id = (SELECT id FROM finding WHERE event_id = ?)",
        (picture()[:-40], event_id(1)),
    )
    report = export_batch(batch_view(store, second, labels=("car",)), Format.CVAT, tmp_path / "out")
    assert (report.images, dict(report.boxes), dict(report.dropped)) == (
        1,
        {},
        {"on an earlier image that is broken": 1},
    )


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ([], None),
        ([5, 9], 9),  # the last before it
        ([5, 10, 12], 10),  # one of the same moment counts as before
        ([12, 30], 12),  # none before: the first after it
    ],
)
def test_the_nearest_earlier_frame_is_taken(times, chosen) -> None:
    annotated = [Annotated(event_id(at), 1, "lab", "box", "door", at, ("car",)) for at in times]
    annotated += [Annotated(event_id(100), 1, "lab", "box", "door", 10, ("person",))]  # nobody looked for cars
    at_ten = SimpleNamespace(event_id=event_id(999), captured_at_ms=10)
    found = nearest(annotated, at_ten, "car")
    assert (found and found.captured_at_ms) == chosen
    itself = SimpleNamespace(event_id=event_id(chosen or 0), captured_at_ms=10)
    assert chosen is None or nearest(annotated, itself, "car") != found


# The command


def test_the_command_exports_a_pass_and_says_what_is_missing(store, tmp_path) -> None:
    batch = made_batch(store, 3)
    config = tmp_path / "hub.toml"
    config.write_text(f'database = "{tmp_path}/hub.db"\n[labels]\nnames = ["head", "person"]\n')
    out = tmp_path / "out"
    common = ["batch", "export", str(batch), "--format", "yolo", "--config", str(config), "--out", str(out)]
    done = CliRunner().invoke(app, [*common, "--pass", "person", "--honeypots", "2"])
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "the pass head comes before and has no answer yet for 3 of 3 images" in said
    assert "no honeypots: no image of an earlier batch has a settled answer" in said
    assert all(len(line) <= 80 for line in done.output.splitlines()[1:-1])  # the others name files
    assert '0: "head"\n  1: "person"\n' in (out / "data.yaml").read_text()
    names = image_names(batch_view(store, batch))
    assert {path.name for path in (out / "images").rglob("*.jpg")} == set(names)
    refused = CliRunner().invoke(app, [*common[:-1], str(tmp_path / "other"), "--pass", "dog"])
    assert "no pass 'dog': asked for: head, person" in str(refused.exception)


def test_a_second_look_is_told_as_one(store, tmp_path) -> None:
    view = batch_view(store, made_batch(store, 2), labels=("person",))
    export_batch(view, Format.CVAT, tmp_path / "first")
    export_batch(view, Format.CVAT, tmp_path / "again", answers={event_id(1): [person(20)]})
    first, again = ((tmp_path / name / "README.txt").read_text() for name in ("first", "again"))
    assert "A second look" not in first
    assert "what you leave counts as right" in again
    assert "(its origin)" not in again, "what people drew has no origin to explain"
