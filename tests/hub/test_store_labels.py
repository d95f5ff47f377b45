"""What was drawn is stored whole, the newest counts, and nothing of it outlives its image."""

import pytest

from edge.contract.errors import UnusableError
from hub.store import Store
from hub.store_forgotten import Scope
from hub.store_labels import Certificate, Honeypot, LabelSet, Recheck
from tests.hub.labelled import NOW, draw, event_id, freeze, made_batch, person, put


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def test_the_newest_of_each_annotator_counts_image_by_image(store) -> None:
    batch = made_batch(store, 2)
    draw(store, batch, {1: [person(1)], 2: []})
    draw(store, batch, {1: [person(2)]}, annotator="bob")
    draw(store, batch, {1: [person(3)]})
    counts = {(one.label_set.annotator, one.event_id): one.boxes for one in store.labels.drawn(batch)}
    assert counts == {
        ("ann", event_id(1)): (person(3),),
        ("bob", event_id(1)): (person(2),),
        ("ann", event_id(2)): (),
    }
    assert [one.boxes for one in store.labels.drawn_on(event_id(1))] == [(person(1),), (person(2),), (person(3),)]
    assert list(store.violations()) == []


def test_a_set_with_an_image_of_another_batch_is_not_stored_at_all(store) -> None:
    first, second = made_batch(store, 2), made_batch(store, 2, first=3)
    with pytest.raises(UnusableError, match=f"no image of batch {first}"):
        draw(store, first, {1: [person(1)], 3: [person(1)]}, minutes=5.0)
    assert store.labels.sets() == []
    assert store.batch(first).minutes is None
    draw(store, second, {3: []}, minutes=5.0)
    draw(store, second, {3: []}, minutes=2.5)
    assert store.batch(second).minutes == 7.5


def test_known_answers_and_rechecks_are_read_back(store) -> None:
    batch = made_batch(store, 2)
    made_batch(store, 1, first=5)
    pots = [Honeypot(event_id(5), 2, (person(4),))]
    store.labels.freeze_honeypots(batch, pots)
    store.labels.freeze_honeypots(batch, [Honeypot(event_id(1), 1, ())])
    assert store.labels.honeypots(batch) == pots, "a batch that has some gets no others"
    draw(store, batch, {1: [], 5: [person(4)]})
    one = Recheck(event_id(1), 1, "missing", "person", (1.0, 2.0, 9.0, 9.0), 0.8, "seen at .9", NOW)
    two = Recheck(event_id(2), 2, "random", "", None, 0.1, "drawn", NOW)
    store.labels.add_rechecks(batch, [one._replace(at_ms=NOW - 1)])
    store.labels.add_rechecks(batch, [two, one])
    store.labels.settle_rechecks(batch, {2: False})
    assert store.labels.rechecks(batch) == [one, two._replace(wrong=False)]
    assert list(store.violations()) == []


def test_opinions_and_certificates_are_read_back(store) -> None:
    put(store, 1)
    assert store.labels.opinion(event_id(1), "m") is None
    store.labels.add_opinions("m", {event_id(1): [person(1, score=0.5, origin="model")]})
    assert store.labels.opinion(event_id(1), "m") == (person(1, score=0.5, origin="model"),)
    assert store.labels.opinion(event_id(1), "other") is None
    made = Certificate(0, NOW, "m", "guarantee", 0.1, 0.1, 200, 150, 5, None, 0.0, "{}")
    assert store.labels.add_certificate(made) == 1
    assert store.labels.certificates() == [made._replace(id=1)]


def test_what_is_labelled_is_never_swept_and_is_forgotten_with_its_image(store) -> None:
    batch = made_batch(store, 1)
    put(store, 5, 6)
    draw(store, None, {5: [person(1)]}, kind="machine", annotator="m")
    draw(store, batch, {1: [person(1)]})
    swept = sum(one.frames for one in store.upkeep.sweep(came_before_ms=NOW + 10, most_bytes=0))
    assert swept == 1, "the frame that is in no batch and has no labels"
    assert list(store.violations()) == []
    for _ in store.upkeep.forget(Scope("lab", "", NOW * 2, whole=True), now_ms=NOW):
        pass
    assert store.labels.drawn() == []
    assert list(store.violations()) == []


@pytest.mark.parametrize(
    ("came_before_ms", "most_bytes"),
    [
        (NOW + 10, 10**9),  # all came too long ago
        (NOW - 10, 0),  # none did, and all are more than allowed
    ],
)
def test_a_dry_run_does_not_count_what_is_labelled(store, came_before_ms, most_bytes) -> None:
    put(store, 5, 6, 7)
    draw(store, None, {5: [person(1)]}, kind="machine", annotator="m")
    limits = {"came_before_ms": came_before_ms, "most_bytes": most_bytes}
    would = sum(one.frames for one in store.upkeep.sweep(**limits, dry_run=True))
    assert would == sum(one.frames for one in store.upkeep.sweep(**limits)) == 2


def test_an_answer_stays_when_its_annotator_meets_the_image_again_as_a_known_answer(store) -> None:
    first, second = made_batch(store, 1), made_batch(store, 1, first=2)
    draw(store, first, {1: [person(1)]})
    store.labels.freeze_honeypots(second, [Honeypot(event_id(1), 1, (person(1),))])
    draw(store, second, {1: [], 2: []})
    assert [one.boxes for one in store.labels.answers(first)] == [(person(1),)]
    assert [one.boxes for one in store.labels.drawn(first)] == [(person(1),)]


def test_no_trace_of_labels_is_left_of_what_was_forgotten(tmp_path) -> None:
    """Not who drew, nor the name of the file, which a camera's name may be in."""
    with Store.open(tmp_path / "hub.db") as store:
        put(store, 1, camera="secretcam")
        put(store, 2, 3, 4, device="yard")
        batch, later = freeze(store, 1, 2), freeze(store, 3)
        for images, who in (({1: [person(1)], 2: [person(2)]}, "both"), ({1: [person(1)]}, "gonewho")):
            drawn = {event_id(number): boxes for number, boxes in images.items()}
            about = LabelSet(0, batch, "person", who, "", ("person",), NOW, "voc: 0001-01-secretcam.xml", 4.0)
            store.labels.add(about, drawn)
        store.labels.freeze_honeypots(later, [Honeypot(event_id(1), 1, (person(13.37),))])
        store.labels.add_opinions("m", {event_id(1): [person(13.37, score=0.5)]})
        store.labels.add_rechecks(batch, [Recheck(event_id(1), 1, "missing", "person", None, 0.9, "secretcam", NOW)])
        list(store.upkeep.forget(Scope("lab", "box", NOW * 2, whole=True), now_ms=NOW))
        assert [(one.annotator, one.source) for one in store.labels.sets()] == [("both", "voc")]
        assert (store.batch(batch).forgotten, store.batch(batch).minutes) == (1, 8.0), "what it cost stays"
        assert (store.batch(later).forgotten, store.batch(later).forgotten_honeypots) == (0, 1)
        assert list(store.violations()) == []
    found = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert [word for word in (b"secretcam", b"gonewho", b"13.37") if word in found] == []
    assert b"yard" in found


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("DELETE FROM label_image", "a label set has no image: 1"),
        ("UPDATE honeypot SET boxes = '[1]'", "the known answer on "),
        ("""UPDATE opinion SET boxes = '[{"xyxy":[1,2,900,40],"label":"a"}]'""", "the opinion on "),
        ("UPDATE label_image SET boxes = '{'", "what label set 1 has of "),
        ("DELETE FROM finding WHERE id = 1", "points to a row of finding that does not exist"),
    ],
)
def test_check_finds_labels_that_are_damaged(store, spoil, says) -> None:
    batch = made_batch(store, 2)
    draw(store, batch, {1: [person(1)]})
    store.labels.freeze_honeypots(batch, [Honeypot(event_id(2), 1, (person(3),))])
    store.labels.add_opinions("m", {event_id(1): [person(1, score=0.5)]})
    assert list(store.violations()) == []
    store._connection.execute("PRAGMA foreign_keys = OFF")
    store._connection.execute(spoil)
    assert any(says in line for line in store.violations())
