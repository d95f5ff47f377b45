"""Several people's boxes become one answer; nobody's order counts, and people side by side stay two."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.annotation import Annotation
from hub.consolidate import SAME_IOU, Dispute, consolidate, objects

WIDTH, HEIGHT = 200, 120
NAMES = ("ann", "bob", "cai", "dee", "eve")


def box(x1, y1, x2, y2, label="person") -> Annotation:
    return Annotation((x1, y1, x2, y2), label)


def iou(a: Annotation, b: Annotation) -> float:
    (a1, b1, a2, b2), (c1, d1, c2, d2) = a.xyxy, b.xyxy
    both = max(0.0, min(a2, c2) - max(a1, c1)) * max(0.0, min(b2, d2) - max(b1, d1))
    return both / ((a2 - a1) * (b2 - b1) + (c2 - c1) * (d2 - d1) - both)


@st.composite
def any_box(draw) -> Annotation:
    x1 = draw(st.integers(0, WIDTH * 100 - 300)) / 100
    y1 = draw(st.integers(0, HEIGHT * 100 - 300)) / 100
    x2 = draw(st.integers(round(x1 * 100) + 300, WIDTH * 100)) / 100
    y2 = draw(st.integers(round(y1 * 100) + 300, HEIGHT * 100)) / 100
    return box(x1, y1, x2, y2, draw(st.sampled_from(("person", "head"))))


@st.composite
def near(draw, one: Annotation) -> Annotation:
    """A box that somebody else may have drawn for the same object, in hundredths so that means fall between them."""
    x1, y1, x2, y2 = one.xyxy
    moves = [draw(st.integers(-150, 150)) / 100 for _ in range(4)]
    x1, y1 = max(0.0, x1 + moves[0]), max(0.0, y1 + moves[1])
    x2, y2 = min(float(WIDTH), max(x1 + 3.01, x2 + moves[2])), min(float(HEIGHT), max(y1 + 3.01, y2 + moves[3]))
    if x2 - x1 < 3.01 or y2 - y1 < 3.01:
        return one
    return box(x1, y1, x2, y2, draw(st.sampled_from((one.label, one.label, "head"))))


@st.composite
def drawings(draw, least=0, most=5) -> dict[str, list[Annotation]]:
    """Of several annotators: most things drawn by most of them, some by one, some twice by one."""
    names = NAMES[: draw(st.integers(least, most))]
    things = draw(st.lists(any_box(), max_size=4))
    return {
        name: [draw(near(thing)) for thing in things if draw(st.integers(0, 4))]
        + draw(st.lists(st.one_of(any_box(), st.sampled_from(things)) if things else any_box(), max_size=2))
        for name in names
    }


@settings(deadline=None)
@given(st.lists(any_box(), max_size=6))
def test_what_one_drew_alone_is_the_answer_as_it_is(boxes) -> None:
    scored = [Annotation(one.xyxy, one.label, 0.5, "model") for one in boxes]
    assert consolidate({"ann": scored}).boxes == tuple(scored)
    assert consolidate({"ann": scored}).disputes == ()


def test_of_nobody_there_is_no_answer() -> None:
    assert consolidate({}).boxes == ()


@settings(deadline=None)
@given(st.lists(any_box(), max_size=6), st.integers(2, 5))
def test_what_all_drew_alike_is_the_answer_without_a_dispute(boxes, count) -> None:
    agreed = consolidate(dict.fromkeys(NAMES[:count], boxes))
    assert sorted(map(str, agreed.boxes)) == sorted(map(str, boxes))
    assert agreed.disputes == ()


@settings(deadline=None)
@given(drawings(), st.randoms(use_true_random=False))
def test_no_order_counts(drawn, rng: random.Random) -> None:
    shuffled = {name: rng.sample(boxes, len(boxes)) for name, boxes in rng.sample(list(drawn.items()), len(drawn))}
    if len(drawn) != 1:
        assert consolidate(shuffled) == consolidate(drawn)
    boxes_of = [sorted((name, str(box)) for name, box in one.items()) for one in objects(drawn)]
    assert boxes_of == [sorted((name, str(box)) for name, box in one.items()) for one in objects(shuffled)]


@settings(deadline=None)
@given(drawings())
def test_every_box_is_in_one_object_and_an_object_has_one_of_each(drawn) -> None:
    found = [(name, box) for one in objects(drawn) for name, box in one.items()]
    assert sorted(map(str, found)) == sorted(str((name, box)) for name, boxes in drawn.items() for box in boxes)


@settings(deadline=None)
@given(drawings(least=2))
def test_no_more_boxes_are_answered_than_were_drawn_and_each_lies_in_its_image(drawn) -> None:
    answer = consolidate(drawn)
    assert len(answer.boxes) <= len(objects(drawn))
    for one in answer.boxes:
        one.require_inside(WIDTH, HEIGHT)
    for one in objects(drawn):
        low = [min(box.xyxy[side] for box in one.values()) for side in range(4)]
        high = [max(box.xyxy[side] for box in one.values()) for side in range(4)]
        made = consolidate({name: [one[name]] if name in one else [] for name in drawn})
        assert len(made.boxes) <= 1
        for box in made.boxes:
            assert all(a <= v <= b for a, v, b in zip(low, box.xyxy, high, strict=True))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.booleans(), st.booleans(), st.booleans()), max_size=4), st.data())
def test_who_draws_the_answer_itself_removes_nothing(things, data) -> None:
    """Of objects that stand apart: where they overlap much, one more drawing may divide them otherwise."""
    drawn: dict[str, list[Annotation]] = {"ann": [], "bob": [], "cai": []}
    for place, (_, *who) in enumerate(things):
        thing = box(50 * place + 10, 20, 50 * place + 40, 100)
        for name, drew in zip(drawn, who, strict=True):
            if drew:
                drawn[name].append(data.draw(near(thing)))
    before = consolidate(drawn)
    after = consolidate({**drawn, "dee": before.boxes})
    assert len(after.boxes) >= len(before.boxes)
    for one in before.boxes:
        assert max(iou(one, other) for other in after.boxes) >= SAME_IOU


@pytest.mark.parametrize(
    ("drew", "of", "kept", "disputed"),
    [
        (2, 2, True, False),
        (1, 2, True, True),  # the one may have seen what the other overlooked
        (2, 3, True, False),  # the majority decides
        (1, 3, False, True),  # one against two: not in the answer, but somebody should look
        (2, 4, True, True),
        (1, 4, False, True),
        (3, 5, True, False),
        (2, 5, False, True),
    ],
)
def test_half_of_the_annotators_are_enough(drew, of, kept, disputed) -> None:
    drawn = {name: [box(10, 10, 40, 90)] if number < drew else [] for number, name in enumerate(NAMES[:of])}
    answer = consolidate(drawn)
    assert answer.boxes == ((box(10, 10, 40, 90),) if kept else ())
    why = f"{drew} of {of} drew it: {'kept' if kept else 'left out'}"
    expected = Dispute((10, 10, 40, 90), ("person",), why, kept, NAMES[:drew])
    assert answer.disputes == ((expected,) if disputed else ())


@pytest.mark.parametrize(
    ("labels", "answer", "disputed"),
    [
        (("person", "person", "head"), "person", False),  # two against one
        (("person", "head"), "head", True),  # a tie: the first of the alphabet, and somebody should look
        (("person", "person", "head", "head"), "head", True),
        (("person", "person", "head", "car", "bus"), "person", True),  # the most, but no majority
    ],
)
def test_the_label_is_that_of_most(labels, answer, disputed) -> None:
    drawn = {name: [box(10, 10, 40, 90, label)] for name, label in zip(NAMES, labels, strict=False)}
    consensus = consolidate(drawn)
    assert consensus.boxes == (box(10, 10, 40, 90, answer),)
    assert bool(consensus.disputes) == disputed
    for one in consensus.disputes:
        assert one.labels[0] == answer
        assert set(one.labels) == set(labels)
        assert one.why.endswith("no majority")


@pytest.mark.parametrize(
    ("boxes", "mean"),
    [
        ([(10, 10, 40, 90), (11, 12, 41, 91), (12, 11, 60, 92)], (11, 11, 47, 91)),  # the third is too wide
        ([(10, 10, 40, 90), (10, 11, 41, 90), (10, 10, 40, 90)], (10, 10.33, 40.34, 90)),  # thirds go outwards
        ([(10, 10, 13, 13), (10.01, 10, 13.01, 13)], (10, 10, 13.01, 13)),  # and so the least size is kept
    ],
)
def test_the_place_is_the_mean_rounded_outwards(boxes, mean) -> None:
    drawn = {name: [box(*xyxy)] for name, xyxy in zip(NAMES, boxes, strict=False)}
    assert consolidate(drawn).boxes == (box(*mean),)


def test_a_label_that_fewer_gave_counts_for_the_place_and_who_drew_nothing_does_not() -> None:
    drawn = {
        "ann": [box(10, 10, 40, 90)],
        "bob": [box(12, 10, 42, 90)],
        "cai": [box(14, 10, 44, 90, "head")],
        "dee": [],
    }
    assert consolidate(drawn).boxes == (box(12, 10, 42, 90),)


def test_people_side_by_side_stay_two() -> None:
    """Two who overlap by IoU .5 and more, drawn a little off by three; one annotator overlooks the one behind."""
    front, behind = box(20, 20, 60, 110), box(32, 20, 72, 110)
    assert iou(front, behind) > SAME_IOU
    drawn = {
        "ann": [front, behind],
        "bob": [box(21, 21, 61, 110), box(33, 19, 73, 109)],
        "cai": [box(19, 19, 59, 110)],
    }
    answer = consolidate(drawn)
    assert answer.boxes == (box(20, 20, 60, 110), box(32.5, 19.5, 72.5, 109.5))
    assert answer.disputes == ()


def test_a_rider_and_the_bicycle_stay_two_however_alike_their_boxes() -> None:
    """One label is joined before two, even where the other label's box fits better."""
    drawn = {
        "ann": [box(20, 20, 60, 100, "person"), box(22, 22, 62, 102, "bicycle")],
        "bob": [box(23, 23, 63, 103, "person"), box(18, 18, 58, 98, "bicycle")],
    }
    answer = consolidate(drawn)
    assert sorted(one.label for one in answer.boxes) == ["bicycle", "person"]
    assert answer.disputes == ()


def test_a_box_of_the_other_size_is_not_the_same_thing() -> None:
    """A head within its person, called alike by mistake: IoU far under .5."""
    answer = consolidate({"ann": [box(20, 20, 60, 110)], "bob": [box(30, 20, 50, 40)]})
    assert len(answer.boxes) == 2
    assert [one.why for one in answer.disputes] == ["1 of 2 drew it: kept"] * 2
