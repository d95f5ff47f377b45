"""The one answer for an image: who outranks whom, label by label, from a real database."""

import pytest

from hub.store import Store
from hub.store_labels import Honeypot
from hub.truth import truths
from tests.hub.labelled import draw, event_id, made_batch, person, put


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def head(x: float, **more):
    return person(x, label="head", **more)


def test_an_image_that_was_drawn_empty_has_an_answer_and_one_that_was_not_has_none(store) -> None:
    batch = made_batch(store, 2)
    draw(store, batch, {1: []})
    found = truths(store)
    assert list(found) == [event_id(1)]
    truth = found[event_id(1)]
    assert (truth.boxes, truth.labels, truth.by, truth.annotators) == ((), {"person", "head"}, "person", ("ann",))


def test_a_review_outranks_annotators_even_newer_ones_and_its_empty_image_counts(store) -> None:
    batch = made_batch(store, 2)
    draw(store, batch, {1: [person(1)], 2: [person(2)]})
    draw(store, batch, {1: []}, kind="review", annotator="rev")
    draw(store, batch, {1: [person(30)], 2: [person(30)]})
    found = truths(store, batch)
    assert (found[event_id(1)].boxes, found[event_id(1)].by, found[event_id(1)].annotators) == ((), "review", ("rev",))
    assert (found[event_id(2)].boxes, found[event_id(2)].by) == ((person(30),), "person"), "not looked at again"


def test_of_two_reviews_the_newest_answers(store) -> None:
    batch = made_batch(store, 1)
    draw(store, batch, {1: [person(1)]}, kind="review", annotator="zoe")
    draw(store, batch, {1: [person(20)]}, kind="review", annotator="abe")
    assert truths(store)[event_id(1)].boxes == (person(20),)


def test_a_review_of_one_pass_leaves_the_other_labels_to_the_annotators(store) -> None:
    batch = made_batch(store, 1)
    draw(store, batch, {1: [person(1), head(20)]})
    draw(
        store,
        batch,
        {1: [person(40), head(30)]},
        kind="review",
        annotator="rev",
        label_pass="person",
        labels=("person",),
    )
    truth = truths(store)[event_id(1)]
    assert set(truth.boxes) == {person(40), head(20)}, "the review did not look for heads"
    assert (truth.by, truth.annotators, truth.labels) == ("review", ("ann", "rev"), {"person", "head"})


def test_passes_add_up_and_a_newer_one_takes_its_label_from_the_set_of_all_labels(store) -> None:
    batch = made_batch(store, 1)
    draw(store, batch, {1: [person(1), head(20)]})
    draw(store, batch, {1: [person(40)]}, label_pass="person", labels=("person",))
    assert set(truths(store)[event_id(1)].boxes) == {person(40), head(20)}
    draw(store, batch, {1: [head(50)]}, label_pass="head", labels=("head",))
    assert set(truths(store)[event_id(1)].boxes) == {person(40), head(50)}
    draw(store, batch, {1: [person(5)]})
    assert set(truths(store)[event_id(1)].boxes) == {person(5)}, "all labels again: newer than both passes"


def test_several_annotators_are_consolidated_and_who_did_not_look_for_a_label_has_no_vote_on_it(store) -> None:
    batch = made_batch(store, 1)
    draw(store, batch, {1: [person(1), head(20)]}, annotator="ann")
    draw(store, batch, {1: [person(2)]}, annotator="bob", label_pass="person", labels=("person",))
    draw(store, batch, {1: [person(4.5)]}, annotator="cai", label_pass="person", labels=("person",))
    truth = truths(store)[event_id(1)]
    assert set(truth.boxes) == {person(2.5), head(20)}, "the mean of three, and the head that one alone looked for"
    assert truth.disputes == ()
    draw(store, batch, {1: [head(40)]}, annotator="dee", label_pass="head", labels=("head",))
    truth = truths(store)[event_id(1)]
    assert set(truth.boxes) == {person(2.5), head(20), head(40)}
    assert [(one.labels, one.kept, one.annotators) for one in truth.disputes] == [
        (("head",), True, ("ann",)),
        (("head",), True, ("dee",)),
    ]


def test_a_second_look_ends_a_dispute(store) -> None:
    batch = made_batch(store, 3)
    draw(store, batch, {number: [person(1)] for number in (1, 2, 3)}, annotator="ann")
    draw(store, batch, {number: [head(1)] for number in (1, 2, 3)}, annotator="bob")
    assert [one.why for one in truths(store)[event_id(1)].disputes] == ["head or person: no majority"]
    draw(store, batch, {1: [person(1)]}, kind="review", annotator="rev")
    # Of one label only: it is a person, so it is no head; it is no person, so it is the head that bob drew.
    only = {"kind": "review", "annotator": "rev", "label_pass": "person", "labels": ("person",)}
    draw(store, batch, {2: [person(1.5)], 3: []}, **only)
    found = truths(store)
    assert (found[event_id(1)].boxes, found[event_id(1)].disputes) == ((person(1),), ())
    assert (found[event_id(2)].boxes, found[event_id(2)].disputes) == ((person(1.5),), ())
    assert found[event_id(3)].boxes == (head(1),)


def test_the_machine_counts_only_for_labels_that_no_person_looked_for(store) -> None:
    batch = made_batch(store, 2)
    put(store, 9)
    seen = [person(1, score=0.9, origin="machine"), head(20, score=0.8, origin="machine")]
    draw(store, None, {1: seen, 2: seen, 9: seen}, kind="machine", annotator="r1")
    draw(store, batch, {1: [person(40)]}, label_pass="person", labels=("person",))
    draw(store, batch, {2: []}, annotator="bob")
    found = truths(store)
    assert set(found[event_id(1)].boxes) == {person(40), seen[1]}
    assert (found[event_id(1)].by, found[event_id(1)].annotators) == ("person", ("ann", "r1"))
    assert (found[event_id(2)].boxes, found[event_id(2)].annotators) == ((), ("bob",))
    assert (found[event_id(9)].boxes, found[event_id(9)].by) == (tuple(seen), "machine"), "with score and origin"
    assert found[event_id(9)].annotators == ("r1",)


def test_of_two_models_the_newest_answers_and_is_never_merged_with_the_other(store) -> None:
    put(store, 9)
    draw(store, None, {9: [person(1)]}, kind="machine", annotator="r2")
    draw(store, None, {9: [person(30)]}, kind="machine", annotator="r1")
    assert truths(store)[event_id(9)].boxes == (person(30),)


def test_what_was_drawn_on_a_known_answer_is_no_answer(store) -> None:
    home, other = made_batch(store, 1), made_batch(store, 1, first=2)
    put(store, 9)
    draw(store, home, {1: [person(1)]})
    pots = [Honeypot(event_id(1), 1, (person(1),)), Honeypot(event_id(9), 1, (person(9),))]
    store.labels.freeze_honeypots(other, pots)
    draw(store, other, {1: [], 2: [person(3)], 9: []}, annotator="bob")
    assert {number: truth.boxes for number, truth in truths(store).items()} == {
        event_id(1): (person(1),),
        event_id(2): (person(3),),
    }
    assert list(truths(store, other)) == [event_id(2)]


def test_an_image_has_one_truth_whether_its_batch_is_read_or_all(store) -> None:
    first, second = made_batch(store, 2), made_batch(store, 2, first=3)
    draw(store, None, {1: [head(9)], 3: [head(9)]}, kind="machine", annotator="r1")
    for batch, number in ((first, 1), (second, 3)):
        draw(store, batch, {number: [person(1)], number + 1: []}, label_pass="person", labels=("person",))
        draw(store, batch, {number: [person(2)]}, annotator="bob", label_pass="person", labels=("person",))
    everything = truths(store)
    assert truths(store, first) | truths(store, second) == everything
    assert set(truths(store, first)) == {event_id(1), event_id(2)}
    assert {one.label for one in everything[event_id(1)].boxes} == {"person", "head"}


def test_all_images_are_read_with_one_query(store) -> None:
    for first in (1, 11, 21):
        draw(store, made_batch(store, 5, first=first), {first + step: [person(step)] for step in range(5)})
    asked: list[str] = []
    store._connection.set_trace_callback(asked.append)
    assert len(truths(store)) == 15
    assert len([one for one in asked if one.startswith("SELECT")]) == 1
