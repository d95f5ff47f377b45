"""What comes back is stored as it was drawn, whole or not at all, and nothing else is."""

import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from hub.annotation import CONTEXT, Annotation
from hub.batches import batch_view
from hub.export import Format, export_batch
from hub.import_lines import fault_lines, faults_as_json
from hub.label_faults import DOUBLE_IOU, MAX_BOXES, overlap
from hub.labeling import Changed, FaultsError, ImportReport
from hub.naming import refresh
from hub.store import Store
from hub.store_forgotten import Scope
from hub.store_labels import Honeypot, Recheck
from hub.weakspots import SpotState, sources, step_of, weak_spot
from tests.hub.labelled import NOW, draw, event_id, freeze, made_batch, person, put
from tests.hub.made import jpeg
from tests.hub.returned import LABELS, as_folder, as_zip, bare, files_of, names_of, stored, take
from tests.hub.sighted import TAGGER, weak

BIG = (1920, 1080)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


# Export and import, through files and the database


@pytest.fixture(scope="module")
def big_and_small(tmp_path_factory):
    """A batch of two small images and a big one."""
    with Store.open(tmp_path_factory.mktemp("law") / "hub.db") as opened:
        put(opened, 1, 2)
        put(opened, 3, pictures={3: jpeg(3, width=BIG[0], height=BIG[1])}, width=BIG[0], height=BIG[1])
        yield opened, freeze(opened, 1, 2, 3)


@st.composite
def boxes_in(draw_, width, height):
    """Boxes of which none doubles another."""
    boxes = []
    for _ in range(draw_(st.integers(0, 4))):
        x, y = draw_(st.floats(0, width - 3.01)), draw_(st.floats(0, height - 3.01))
        x2, y2 = draw_(st.floats(x + 3.01, width)), draw_(st.floats(y + 3.01, height))
        score, origin = draw_(st.sampled_from([(None, None), (0.5, "detector"), (0.25, "zoom")]))
        box = Annotation((x, y, x2, y2), draw_(st.sampled_from(LABELS)), score, origin)
        same = [one.xyxy for one in boxes if one.label == box.label]
        if not (overlap([box.xyxy], same) >= DOUBLE_IOU).any():
            boxes.append(box)
    return boxes


@pytest.mark.parametrize("fmt", list(Format))
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(small=boxes_in(64, 48), other=boxes_in(64, 48), big=boxes_in(*BIG), packed=st.booleans(), fix=st.booleans())
def test_what_was_exported_is_imported_as_it_was(big_and_small, tmp_path_factory, fmt, small, other, big, packed, fix):
    store, batch = big_and_small
    drawn = {3: big, 1: small, 2: other}
    files = files_of(store, batch, drawn, fmt=fmt)
    folder = tmp_path_factory.mktemp("answer")
    source = as_zip(files, folder / "answer.zip") if packed else as_folder(files, folder)
    report = take(store, batch, source, fix=fix, annotator=f"by {fmt}")
    assert stored(store, batch, annotator=f"by {fmt}") == {event_id(key): bare(boxes) for key, boxes in drawn.items()}
    assert (report.images, report.boxes, report.format) == (3, sum(map(len, drawn.values())), fmt.value)
    assert (report.missing, report.fixed, report.labels) == ((), (), LABELS)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("fmt", list(Format))
def test_an_untouched_export_comes_back(store, tmp_path, fmt, packed) -> None:
    """With all that an export puts beside the annotations: images, a manifest, a page of all of them."""
    batch = made_batch(store, 3)
    out = export_batch(batch_view(store, batch, labels=LABELS), fmt, tmp_path / "out").out
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    report = take(store, batch, as_zip(files, tmp_path / "answer.zip") if packed else out)
    assert (report.format, report.images, report.missing, report.fixed) == (fmt.value, 3, (), ())
    assert report.kept == report.proposed == report.boxes == 3
    proposed = Annotation((1, 2, 30, 40), "person")
    assert stored(store, batch) == {event_id(number): (proposed,) for number in (1, 2, 3)}


def test_the_database_keeps_its_laws(store) -> None:
    batch = made_batch(store, 2)
    take(store, batch, files_of(store, batch, {1: [person(1)], 2: []}), minutes=5)
    assert list(store.violations()) == []


# Names


@pytest.mark.parametrize(
    "renamed",
    [
        "images/{}",  # CVAT names the folder that the images were uploaded in
        "train\\{}",  # a tool on Windows
        "/data/upload/{}",
    ],
)
def test_an_image_is_found_whatever_folder_a_tool_names(store, renamed) -> None:
    batch = made_batch(store, 1)
    files = files_of(store, batch, {1: [person(1)]})
    (name,) = names_of(store, batch).values()
    xml = files["annotations.xml"].replace(name.encode(), renamed.format(name).encode())
    take(store, batch, {"annotations.xml": xml})
    assert stored(store, batch) == {event_id(1): (person(1),)}


@pytest.mark.parametrize(("old", "new"), [(".jpg", ".JPG"), ("door", "Door"), (".jpg", ".png")])
def test_an_image_is_found_in_another_case_and_suffix(store, old, new) -> None:
    batch = made_batch(store, 1)
    files = files_of(store, batch, {1: [person(1)]})
    take(store, batch, {"annotations.xml": files["annotations.xml"].replace(old.encode(), new.encode())})
    assert stored(store, batch) == {event_id(1): (person(1),)}


def test_an_image_that_was_forgotten_meanwhile_is_passed_over(store) -> None:
    put(store, 1)
    put(store, 2, device="yard")
    batch = freeze(store, 1, 2)
    files = files_of(store, batch, {1: [person(1)], 2: [person(2)]})
    list(store.upkeep.forget(Scope("lab", "yard", NOW * 2, whole=True), now_ms=NOW))
    report = take(store, batch, files)
    assert stored(store, batch) == {event_id(1): (person(1),)}
    assert any("1 images were forgotten" in note for note in report.notes)


# Partly, again, by several


def test_missing_images_are_told_and_may_follow(store) -> None:
    batch = made_batch(store, 3)
    names = names_of(store, batch)
    report = take(store, batch, files_of(store, batch, {2: [person(1)]}))
    assert report.missing == (names[event_id(1)], names[event_id(3)])
    assert "not yet looked for in the batch: person on 2, head on 2 of 3 images" in report.notes
    report = take(store, batch, files_of(store, batch, {1: [], 3: []}))
    assert report.missing == (names[event_id(2)],)
    assert report.notes == ()
    assert stored(store, batch) == {event_id(1): (), event_id(2): (person(1),), event_id(3): ()}


def test_an_import_replaces_the_earlier_one_and_says_what_changed(store) -> None:
    batch = made_batch(store, 3)
    first = {1: [person(1), person(20)], 2: [person(30)], 3: []}
    second = {1: [person(2), person(40)], 2: [person(30, label="head")], 3: []}
    assert take(store, batch, files_of(store, batch, first)).changed is None
    assert take(store, batch, files_of(store, batch, first), annotator="bob").changed is None, "it is of another"
    changed = take(store, batch, files_of(store, batch, second)).changed
    assert changed == Changed(images=2, added=1, removed=1, moved=1, relabelled=1)
    assert take(store, batch, files_of(store, batch, second)).changed == Changed(0, 0, 0, 0, 0)
    assert stored(store, batch, annotator="ann")[event_id(1)] == (person(2), person(40))
    assert [len(one.boxes) for one in store.labels.drawn_on(event_id(2))] == [1, 1, 1, 1], "the history stays"


def test_minutes_are_added_once(store) -> None:
    batch = made_batch(store, 1)
    files = files_of(store, batch, {1: []})
    take(store, batch, files, minutes=12.5)
    take(store, batch, files)
    assert store.batch(batch).minutes == 12.5


def test_untouched_proposals_are_counted(store) -> None:
    batch = made_batch(store, 2)  # the detector proposes (1, 2, 30, 40), person, on each
    same, moved = Annotation((1, 2, 30.04, 40), "person"), Annotation((1, 4, 30, 40), "person")
    report = take(store, batch, files_of(store, batch, {1: [same, person(40)], 2: [moved]}))
    assert (report.proposed, report.kept, report.boxes) == (2, 1, 3)
    relabelled = Annotation((1, 2, 30, 40), "head")
    report = take(store, batch, files_of(store, batch, {1: [relabelled]}))
    assert (report.proposed, report.kept) == (1, 0)


# Which labels were looked for


@pytest.mark.parametrize(
    ("asked", "declared", "looked_for"),
    [
        (("person", "head"), ("head", "person"), ("person", "head")),  # in the order asked for
        (("person", "head"), ("person", "dog"), ("person",)),  # the tool had no head: nobody looked for one
        ((), ("person", "dog"), ("person",)),  # nothing configured: what occurs in the batch
    ],
)
def test_a_label_was_looked_for_when_asked_for_and_possible(store, asked, declared, looked_for) -> None:
    batch = made_batch(store, 1)
    report = take(store, batch, files_of(store, batch, {1: []}, labels=declared), labels=asked)
    assert report.labels == looked_for
    assert [one.label_set.labels for one in store.labels.drawn(batch)] == [looked_for]
    lacking = [one for one in asked if one not in looked_for]
    assert [note for note in report.notes if "did not have" in note] == [
        f"the annotator's tool did not have {one}: it counts as not looked for" for one in lacking
    ]


def test_without_a_declaration_all_that_was_asked_for_counts(store) -> None:
    batch = made_batch(store, 1)
    files = files_of(store, batch, {1: [person(1)]}, fmt="labelstudio")
    report = take(store, batch, {"export.json": files["tasks.json"]})
    assert report.labels == LABELS


def test_a_tool_with_none_of_the_labels_is_refused(store) -> None:
    batch = made_batch(store, 1)
    with pytest.raises(UnusableError, match="labels are persons, asked for is person, head; is 'persons' meant"):
        take(store, batch, files_of(store, batch, {1: []}, labels=("persons",)))


# Passes


def test_a_pass_takes_its_own_label_and_leaves_the_context(store) -> None:
    batch = made_batch(store, 2)
    take(
        store, batch, files_of(store, batch, {1: [person(1)], 2: [person(5)]}, labels=("person",)), label_pass="person"
    )
    shown = Annotation(person(1).xyxy, "person", None, "context")
    untold = person(5)  # a tool that loses the origin
    head = person(30, label="head")
    files = files_of(store, batch, {1: [shown, head], 2: [untold]})
    report = take(store, batch, files, label_pass="head")
    assert stored(store, batch, label_pass="head") == {event_id(1): (head,), event_id(2): ()}
    assert stored(store, batch, label_pass="person") == {event_id(1): (person(1),), event_id(2): (person(5),)}
    assert report.labels == ("head",)
    with pytest.raises(FaultsError, match="this is pass head: 'person' is not asked for") as refused:
        take(store, batch, files_of(store, batch, {1: [person(40)]}), label_pass="head")
    assert "[labels]" not in "".join(fault_lines(refused.value, fix=False)), "those are not to be changed for a pass"


# A weak spot's life


def weak_batch(store: Store) -> tuple[int, int]:
    """A batch of two images for a weak spot."""
    weak(store)
    refresh(store, TAGGER, NOW)
    spot = weak_spot(store, 1)
    put(store, 9001, 9002)
    batch = freeze(
        store,
        9001,
        9002,
        weak_spot_id=1,
        step=step_of(SpotState.BATCHED, spot.rate, now_ms=NOW),
        from_states=sources(SpotState.BATCHED),
    )
    return batch, 1


def test_a_weak_spot_is_annotated_when_nothing_is_left_to_look_at(store) -> None:
    batch, spot = weak_batch(store)
    only_person = {9001: [], 9002: []}
    take(store, batch, files_of(store, batch, only_person, labels=("person",)), minutes=30)
    assert weak_spot(store, spot).state is SpotState.BATCHED, "nobody has looked for heads"
    take(store, batch, files_of(store, batch, {9001: []}), annotator="bob")
    assert weak_spot(store, spot).state is SpotState.BATCHED, "on one image nobody has"
    report = take(store, batch, files_of(store, batch, {9002: []}), annotator="bob", minutes=10)
    assert weak_spot(store, spot).state is SpotState.ANNOTATED
    assert "the batch is complete: weak spot 1 is `annotated`" in report.notes
    assert store.batch(batch).minutes == 40
    take(store, batch, files_of(store, batch, {9002: [person(1)]}), annotator="bob")  # stays so
    assert weak_spot(store, spot).state is SpotState.ANNOTATED


# A second look


def test_a_review_settles_the_rechecks_and_counts_only_what_was_looked_at(store) -> None:
    batch = made_batch(store, 3)
    before = {1: [person(1)], 2: [person(20)], 3: [person(30)]}
    draw(store, batch, before)
    place = person(40).xyxy
    rechecks = [
        Recheck(event_id(1), 1, "missing", "person", place, 0.9, "seen", NOW),
        Recheck(event_id(2), 2, "random", "", None, 0.1, "drawn", NOW),
    ]
    store.labels.add_rechecks(batch, rechecks)
    after = before | {1: [person(1), person(40)]}
    report = take(store, batch, files_of(store, batch, after), review=True, annotator="eve", now_ms=NOW + 1)
    assert stored(store, batch, kind="review") == {event_id(1): (person(1), person(40)), event_id(2): (person(20),)}
    assert [one.wrong for one in store.labels.rechecks(batch)] == [True, False]
    assert any("1 images are not on the re-check list" in note for note in report.notes)
    with pytest.raises(UnusableError, match="no image of the re-check list"):
        take(store, batch, files_of(store, batch, {3: [person(30)]}), review=True)


# Nothing on a fault


def test_nothing_is_stored_on_a_fault(store) -> None:
    batch, spot = weak_batch(store)
    files = files_of(store, batch, {9001: [person(1)], 9002: [person(1)]})
    files["annotations.xml"] = files["annotations.xml"].replace(b'xtl="1.00"', b'xtl="900"', 1)
    with pytest.raises(FaultsError):
        take(store, batch, files, minutes=30)
    assert store.labels.sets() == []
    assert store.batch(batch).minutes is None
    assert weak_spot(store, spot).state is SpotState.BATCHED


def test_a_file_that_answers_nothing_is_refused(store) -> None:
    batch = made_batch(store, 1)
    with pytest.raises(UnusableError, match=f"it answers no image of batch {batch}"):
        take(store, batch, files_of(store, batch, {}))
    with pytest.raises(UnusableError, match="there is no batch 9"):
        take(store, 9, {})


def test_the_report_is_whole(store) -> None:
    batch = made_batch(store, 1)
    report = take(store, batch, files_of(store, batch, {1: [person(1)]}), source_name="from bob")
    (kept,) = store.labels.sets()
    assert (kept.source, kept.kind, kept.annotator, kept.at_ms) == ("cvat: from bob", "person", "ann", NOW)
    assert isinstance(report, ImportReport)
    assert (report.set_id, report.set_ids, report.annotators) == (kept.id, (kept.id,), ("ann",))


# What an attacker or a careless hand would do


def odd(images, *, boxes=()):
    """A COCO file of these names of images, with boxes on the first."""
    told = [{"id": at, "file_name": name, "width": 64, "height": 48} for at, name in enumerate(images)]
    drawn = [{"id": at, "image_id": 0, "category_id": 1, "bbox": box} for at, box in enumerate(boxes)]
    content = {"images": told, "annotations": drawn, "categories": [{"id": 1, "name": "person"}]}
    return {"a.json": json.dumps(content).encode()}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("\x1b[2J\r\x00.jpg", "[2J .jpg is no image of batch 1"),  # no terminal obeys a file
        ("\u202egpj.exe", "gpj.exe is no image of batch 1"),
        ("0" * 5000 + "1-01-train-x.jpg", "0" * 800),  # more digits than int() takes
        ("0001-" + "1" * 5000 + "-train-x.jpg", "0001-" + "1" * 795),
        ("x" * 1_000_000, "x" * 800),
    ],
)
def test_an_odd_name_is_told_in_plain_text(store, name, says) -> None:
    made_batch(store, 1)
    with pytest.raises(FaultsError) as refused:
        take(store, 1, odd([name]))
    assert str(refused.value) == f"a.json: image 0: {says}"


def test_a_name_of_a_file_that_is_no_text_can_be_told_as_json(store, tmp_path) -> None:
    made_batch(store, 1)
    (tmp_path / os.fsdecode(b"\xff.xml")).write_bytes(b"<annotation></annotation>")
    os.mkfifo(tmp_path / "pipe.xml")  # a pipe has no end
    (tmp_path / "link.xml").symlink_to("/etc/passwd")
    with pytest.raises(FaultsError) as refused:
        take(store, 1, tmp_path)
    assert [fault["place"] for fault in json.loads(faults_as_json(refused.value))["faults"]] == [".xml"]


def test_more_boxes_than_can_be_compared_are_a_fault(store) -> None:
    batch = made_batch(store, 1)
    name = names_of(store, batch)[event_id(1)]
    with pytest.raises(FaultsError, match=f"{MAX_BOXES + 1:,} boxes; an image can have {MAX_BOXES:,}"):
        take(store, batch, odd([name], boxes=[[1, 2, 9, 9]] * (MAX_BOXES + 1)))


@pytest.mark.parametrize("minutes", [float("nan"), float("inf"), -1.0])
def test_minutes_that_are_none_are_refused(store, minutes) -> None:
    batch = made_batch(store, 1)
    take(store, batch, files_of(store, batch, {1: []}), minutes=5)
    with pytest.raises(UnusableError, match="minutes: expected a number from 0 up"):
        take(store, batch, files_of(store, batch, {1: []}), minutes=minutes)
    assert store.batch(batch).minutes == 5


def test_a_name_with_an_accent_is_one_annotator_however_it_is_written(store) -> None:
    batch = made_batch(store, 1)
    for who in ("Jos\u00e9", " Jose\u0301"):
        take(store, batch, files_of(store, batch, {1: []}), annotator=who)
    assert {one.annotator for one in store.labels.sets(batch)} == {"Jos\u00e9"}


def test_a_pass_that_is_imported_as_all_labels_is_refused(store, tmp_path) -> None:
    batch = made_batch(store, 1)
    out = export_batch(batch_view(store, batch, labels=LABELS, label_pass="person"), Format.COCO, tmp_path / "out").out
    with pytest.raises(UnusableError, match="it answers the pass person: import it with --pass person"):
        take(store, batch, out)
    with pytest.raises(UnusableError, match="it answers the pass person"):
        take(store, batch, out, label_pass="head")
    context = person(3, origin=CONTEXT)  # the file alone, without its folder
    with pytest.raises(UnusableError, match="boxes of earlier passes as context"):
        take(store, batch, files_of(store, batch, {1: [context]}))
    assert store.labels.sets(batch) == []
    take(store, batch, out, label_pass="person")


def test_names_stay_what_they_were_when_the_last_images_are_forgotten(store) -> None:
    """With 100 images the ranks have three digits; one of those left has not."""
    put(store, *range(1, 100))
    put(store, 100, 101, device="yard")
    batch = freeze(store, *range(1, 102))
    files = files_of(store, batch, {1: [person(1)]})
    list(store.upkeep.forget(Scope("lab", "yard", NOW * 2, whole=True), now_ms=NOW))
    assert take(store, batch, files).images == 1


def test_a_forgotten_known_answer_does_not_keep_the_others_out(store) -> None:
    put(store, 9, device="yard")
    freeze(store, 9)
    batch = made_batch(store, 2)
    store.labels.freeze_honeypots(batch, [Honeypot(event_id(9), 1, (person(3),))])
    files = files_of(store, batch, {1: [person(1)], 2: [], 9: [person(3)]})
    list(store.upkeep.forget(Scope("lab", "yard", NOW * 2, whole=True), now_ms=NOW))
    report = take(store, batch, files)
    assert stored(store, batch) == {event_id(1): (person(1),), event_id(2): ()}
    assert any("1 images were forgotten" in note for note in report.notes)
    assert list(store.violations()) == []


def test_what_fails_within_an_import_leaves_nothing_of_it(store) -> None:
    """A kill between two steps would leave a weak spot behind its labels, or a pull that is imported twice."""
    batch = made_batch(store, 1)

    def fail() -> None:
        assert len(store.labels.sets(batch)) == 1
        raise UnusableError

    with pytest.raises(UnusableError):
        take(store, batch, files_of(store, batch, {1: []}), minutes=3, alongside=fail)
    assert (store.labels.sets(batch), store.batch(batch).minutes) == ([], None)
