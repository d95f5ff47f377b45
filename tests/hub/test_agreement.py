"""How far annotators agree, counted by hand on small drawings, and what `hub labels show` says of them."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edge.contract.errors import UnusableError
from hub.agreement import agreement, agreement_of, label_alpha
from hub.annotation import Annotation
from hub.cli import app
from hub.label_lines import show_lines
from hub.label_standing import standing
from hub.shares import LEAST, Share, share_of
from hub.store import Store
from hub.store_labels import Drawn, Honeypot, LabelSet, Recheck
from tests.hub.labelled import NOW, draw, event_id, freeze, made_batch, person, put

PLACES = tuple(range(1, 61, 3))  # 20 boxes side by side in one row, none overlapping another by .5


def row(count: int, *, y: float = 4.0, skip: int = 0) -> list[Annotation]:
    """`count` small boxes side by side, without the first `skip` of them."""
    return [person(3.2 * at, y, size=3.0) for at in range(skip, count)]


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def run(tmp_path, *words: str):
    return CliRunner().invoke(app, ["labels", "show", *words, "-d", str(tmp_path / "hub.db")])


def test_pairs_are_counted_by_annotator_label_and_pass(store) -> None:
    batch = made_batch(store, 2)
    head = person(40, 30, size=10, label="head")
    draw(store, batch, {1: [*row(10), head], 2: row(4)}, annotator="ann")
    draw(store, batch, {1: [*row(9), person(40, 30, size=10)], 2: row(4)}, annotator="bob")
    draw(store, batch, {2: row(4, skip=1)}, annotator="cai")
    draw(store, batch, {1: [head]}, annotator="ann", label_pass="head", labels=("head",))
    draw(store, batch, {1: []}, annotator="rev", kind="review")
    draw(store, batch, {1: []}, annotator="m", kind="machine")
    found = agreement(store, batch)
    assert list(found.annotators) == ["ann", "bob", "cai"], "no review and no machine"
    pair = {(one.first, one.second): one.pairs for one in found.pairs}
    # ann and bob: 11 + 10 boxes on the first image, one of them named otherwise, 4 + 4 on the second.
    ab = pair["ann", "bob"]
    assert (ab.images, ab.boxes, ab.objects, ab.matched, ab.same) == (2, 29, 15, 14, 13)
    assert ab.f1 == round(2 * 13 / 29, 4)
    assert ab.mean_iou == 1.0
    bc = pair["bob", "cai"]
    assert (bc.images, bc.boxes, bc.same, bc.f1, bc.mean_iou) == (1, 7, 3, None, None), "4 objects are too few"
    assert found.annotators["bob"].boxes == 29 + 7
    assert found.passes[""].boxes == 29 + 7 + 7
    assert list(found.passes) == [""], "nobody else drew in the pass of heads"
    assert (found.labels["head"].boxes, found.labels["head"].same, found.labels["head"].matched) == (1, 0, 1)
    assert found.labels["person"].same == 13 + 3 + 3
    assert [(one.first, one.second, one.count) for one in found.confusions] == [("head", "person", 1)]


def test_only_labels_that_both_looked_for_are_compared(store) -> None:
    batch = made_batch(store, 1)
    draw(store, batch, {1: [*row(12), person(40, 30, label="head")]}, annotator="ann")
    draw(store, batch, {1: row(12)}, annotator="bob", labels=("person",))
    found = agreement(store, batch)
    assert (found.annotators["ann"].f1, list(found.labels)) == (1.0, ["person"])
    assert found.others["ann"].extra == 0


def test_against_the_others_only_what_they_agree_on_counts(store) -> None:
    batch = made_batch(store, 1)
    draw(store, batch, {1: row(15, skip=2)}, annotator="ann")  # overlooks two
    draw(store, batch, {1: [*row(14), person(40, 30)]}, annotator="bob")  # 14 of 15 and one that nobody else has
    draw(store, batch, {1: row(15)}, annotator="cai")
    others = agreement(store, batch).others
    ann = others["ann"]  # bob and cai agree on 14; on the 15th and bob's own they do not
    assert (ann.known, ann.found, ann.missed, ann.extra, ann.wrong_label) == (14, 12, 2, 0, 0)
    bob = others["bob"]  # ann and cai agree on 13; the first two are in dispute between them
    assert (bob.known, bob.found, bob.missed, bob.extra) == (13, 12, 1, 1)
    assert bob.found_share == share_of(12, 13)
    assert bob.right_share == share_of(12, 13)


def test_known_answers_say_what_each_found_missed_invented_and_misnamed(store) -> None:
    batch = made_batch(store, 1)
    put(store, 9)
    answer = (*row(14), person(40, 30, label="head"), person(52, 30, label="car"))
    store.labels.freeze_honeypots(batch, [Honeypot(event_id(9), 1, answer)])
    misnamed = person(40, 30)
    draw(store, batch, {1: [], 9: [*row(14, skip=2), misnamed, person(20, 30)]}, annotator="ann")
    draw(store, batch, {1: [], 9: row(5)}, annotator="bob", label_pass="person", labels=("person",))
    draw(store, batch, {1: []}, annotator="cai")
    pots = agreement(store, batch).honeypots
    assert list(pots) == ["ann", "bob"], "cai has not brought one back"
    ann = pots["ann"]  # did not look for cars
    assert (ann.images, ann.known, ann.found, ann.wrong_label, ann.missed, ann.extra) == (1, 15, 12, 1, 2, 1)
    assert ann.found_share == share_of(12, 15)
    assert ann.right_share == share_of(12, 14)
    assert ann.mean_iou == 1.0
    bob = pots["bob"]
    assert (bob.known, bob.found, bob.missed, bob.extra, bob.mean_iou) == (14, 5, 9, 0, None)


def test_without_labels_and_without_a_batch(store) -> None:
    batch = made_batch(store, 1)
    found = agreement(store, batch)
    assert (found.annotators, found.others, found.honeypots, found.label_alpha) == ({}, {}, {}, None)
    with pytest.raises(UnusableError, match="no batch 7"):
        agreement(store, 7)


drawings = st.dictionaries(
    st.sampled_from(["ann", "bob", "cai"]),
    st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(["person", "head"])), max_size=20),
    min_size=2,
)


@settings(deadline=None, max_examples=40)
@given(st.lists(drawings, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_no_order_counts_and_shares_are_shares(images, rng: random.Random) -> None:
    drawn = [
        Drawn(str(at), LabelSet(0, 1, "person", name, "", ("person", "head"), 0, ""), _boxes(boxes))
        for at, image in enumerate(images)
        for name, boxes in image.items()
    ]
    found = agreement_of(drawn)
    assert found == agreement_of(rng.sample(drawn, len(drawn)))
    for one in (*found.annotators.values(), *found.labels.values(), *found.passes.values()):
        assert 0 <= one.same <= one.matched <= one.objects <= one.boxes
        assert 2 * one.same <= one.boxes
        assert one.f1 is None or 0 <= one.f1 <= 1
    assert sum(one.boxes for one in found.annotators.values()) == 2 * found.passes[""].boxes
    assert sum(one.boxes for one in found.labels.values()) == found.passes[""].boxes
    for scored in found.others.values():
        assert scored.known == scored.found + scored.wrong_label + scored.missed


def _boxes(places) -> tuple[Annotation, ...]:
    return tuple(person(x, size=3.0, label=label) for x, label in places)


@pytest.mark.parametrize(
    ("named", "alpha"),
    [
        # Krippendorff 2011, section C: twelve units, four observers, values missing.
        ("111 2223 3333 3333 2222 1234 4444 1121 2222 555 11 3", 0.743),
        ("ab " * 20, -0.95),  # never alike: worse than chance
        ("aa bb " * 10, 1.0),
        ("aa bb ab ba", 0.125),  # 1 - 7 x 4 / 32
        ("aa " * 20, None),  # with one label chance alone brings agreement
        ("a b", None),  # objects that one drew say nothing
    ],
)
def test_alpha_is_krippendorffs(named, alpha) -> None:
    found = label_alpha(named.split())
    assert found == (alpha if alpha is None else pytest.approx(alpha, abs=0.0005))


def test_alpha_of_few_objects_is_not_told(store) -> None:
    batch = made_batch(store, 2)
    for number, count in ((1, LEAST - 2), (2, 1)):
        draw(store, batch, {number: [*row(count), person(40, 30, label="head")]}, annotator="ann")
        draw(store, batch, {number: [*row(count), person(40, 30, label="head")]}, annotator="bob")
        if number == 1:
            assert agreement(store, batch).label_alpha is None
    assert agreement(store, batch).label_alpha == 1.0


@pytest.mark.parametrize(
    ("count", "of", "expected"),
    [
        (81, 263, Share(0.308, 0.2553, 0.3662)),  # Newcombe 1998, table I
        (20, 20, Share(1.0, 0.8389, 1.0)),
        (0, 29, Share(0.0, 0.0, 0.117)),  # Newcombe 1998, table I: 0 to .1170
        (11, 11, None),
    ],
)
def test_shares_have_wilsons_interval_and_few_have_none(count, of, expected) -> None:
    assert share_of(count, of) == expected


def test_no_interval_is_wider_than_half() -> None:
    for of in range(LEAST, 60):
        for count in range(of + 1):
            share = share_of(count, of)
            assert share is not None
            assert 0 <= share.low <= share.share <= share.high <= 1
            assert share.high - share.low <= 0.5


# What is printed


def test_before_anything_is_imported_it_says_how(store, tmp_path) -> None:
    batch = made_batch(store, 2)
    told = run(tmp_path, str(batch))
    assert told.exit_code == 0, told.output
    assert "nothing has come back yet" in told.output
    assert f"next: hub batch export {batch} --format cvat --out batch-{batch}" in told.output
    assert f"next: hub labels import FILE --batch {batch} --annotator NAME" in told.output
    assert isinstance(run(tmp_path, "9").exception, UnusableError)


def test_the_history_says_what_was_replaced_and_what_is_missing(store, tmp_path) -> None:
    batch = made_batch(store, 3)
    draw(store, batch, {1: [person(1)], 2: []}, label_pass="person", labels=("person",), minutes=12.0)
    draw(store, batch, {1: [person(2), person(20)], 3: []}, label_pass="person", labels=("person",), minutes=3.5)
    shown = standing(store, batch, labels=("person", "head"))
    assert [(one.images, one.boxes, one.counts, one.minutes) for one in shown.history] == [
        (2, 1, 1, 12.0),
        (2, 2, 2, 3.5),
    ]
    assert [(one.label, len(one.images)) for one in shown.missing] == [("head", 3)]
    lines = show_lines(shown)
    assert any("1/2" in line for line in lines)
    assert "15.5 minutes of people's work" in lines
    assert "head: not looked for on 3 of 3 images" in lines
    assert lines[-1] == f"next: hub batch export {batch} --format cvat --pass head --out batch-{batch}-head"
    draw(store, batch, {1: []}, label_pass="head", labels=("head",))
    lines = show_lines(standing(store, batch, labels=("person", "head")))
    assert f"  0001-02-{'test' if store.batch_members(batch)[1].test else 'train'}-door-00000002.jpg" in lines
    assert lines[-1] == f"next: hub labels import FILE --batch {batch} --annotator NAME"


def test_everything_fits_eighty_columns_and_json_has_it_all(store, tmp_path) -> None:
    put(store, *range(1, 13), 40, 41)
    batch = freeze(
        store, *range(1, 13), title="tiny and far away, seen at night by the cameras dark, day, yard and roof"
    )
    pots = [Honeypot(event_id(number), 1, tuple(row(10))) for number in (40, 41)]
    store.labels.freeze_honeypots(batch, pots)
    names = ("ann-with-a-name-longer-than-the-column", "bob", "cai")
    for at, name in enumerate(names):
        images = {
            number: [*row(14, skip=at), person(40, 30, label=("head", "person", "head")[at])] for number in range(1, 13)
        }
        draw(store, batch, images | {40: row(10, skip=at), 41: row(10)}, annotator=name, minutes=30.0 + at)
    draw(store, batch, {1: row(14)}, annotator="rev", kind="review")
    shown = standing(store, batch, labels=("person", "head"))
    assert shown.missing == ()
    assert len(shown.disputes) == 11, "of the first image a review has said what is there"
    told = run(tmp_path, str(batch))
    assert told.exit_code == 0, told.output
    lines = told.output.splitlines()
    assert [line for line in lines if len(line) > 80 and ".jpg" not in line] == []
    assert lines[-1] == f"next: hub labels audit {batch}"
    as_json = json.loads(run(tmp_path, str(batch), "--json").output)
    assert as_json["agreement"]["honeypots"]["bob"]["missed"] == 1
    assert as_json["next"] == f"hub labels audit {batch}"
    assert len(as_json["disputes"]) == 11
    assert as_json["disputes"][0]["image"].endswith(".jpg")
    store.labels.add_rechecks(batch, [Recheck(event_id(1), 1, "random", "", None, 0.1, "drawn", NOW)])
    assert show_lines(standing(store, batch))[-1] == f"next: hub labels import FILE --batch {batch} --review"
    store.labels.settle_rechecks(batch, {1: False})
    assert show_lines(standing(store, batch))[-1] == f"next: hub labels audit {batch}", "what was drawn was wrong"
