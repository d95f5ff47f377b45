"""The audit's judgement, without a database: what speaks against annotations, and how strongly."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.annotation import Annotation
from hub.consolidate import Dispute
from hub.evidence import Claim, Page
from hub.inspection import OVERLOOKED, inspect

KNOWN = frozenset({"person", "car", "truck"})
SIZE = (640, 480)


def box(x, y=100.0, w=60.0, h=120.0, label="person", score=None):
    return Annotation((x, y, x + w, y + h), label, score, None if score is None else "model")


def page(name, boxes, seen, *, labels=KNOWN, camera=""):
    return Page(name, SIZE, labels, tuple(boxes), tuple(seen), camera)


def others(count=12):
    """Images on which annotators and the model agree."""
    made = []
    for number in range(count):
        drawn = [box(20 + 5 * number), box(300, 200, 150, 90, "car"), box(480, 50, 120, 100, "truck")]
        made.append(
            page(f"other-{number}", drawn, [dataclasses.replace(one, score=0.85, origin="model") for one in drawn])
        )
    return made


def looked(boxes, seen, **more):
    """What is said of one image beside the others."""
    return inspect([page("it", boxes, seen, **more), *others()], known=KNOWN)[0]


def likeliest(found):
    return found.faults[0].kind, found.faults[0].label


SEEN = box(100, score=0.85)


@pytest.mark.parametrize(
    ("drawn", "seen", "fault"),
    [
        ([], [SEEN], ("missing", "person")),  # nobody drew what the model is sure of
        ([box(100), box(300)], [SEEN, box(300, score=0.8), box(500, score=0.8)], ("missing", "person")),  # one of three
        ([box(100, label="car")], [SEEN], ("swapped", "car")),  # another label at the very place
        ([box(124)], [SEEN], ("badly_placed", "person")),  # 0.4 of its width beside
        ([box(100, 148)], [SEEN], ("badly_placed", "person")),  # 0.4 of its height below
        ([box(100), box(420, 200, 150, 90, "car")], [SEEN], ("extra", "car")),  # on background
        ([box(100), box(103)], [SEEN], ("extra", "person")),  # one person drawn twice
    ],
)
def test_the_fault_that_was_made_is_the_likeliest(drawn, seen, fault) -> None:
    found = looked(drawn, seen)
    assert likeliest(found) == fault
    assert found.faults[0].probability > 0.3
    assert found.score > 5 * looked([box(100)], [SEEN]).score


def test_the_place_of_a_fault_is_the_annotation_or_of_a_missing_object_the_model_s_box() -> None:
    assert looked([], [SEEN]).faults[0].xyxy == SEEN.xyxy
    assert looked([box(124)], [SEEN]).faults[0].xyxy == box(124).xyxy


def test_boxes_of_several_labels_at_one_place_are_one_missing_object() -> None:
    found = looked([], [box(300, 200, 150, 90, "car", 0.6), box(302, 201, 150, 90, "truck", 0.5)])
    assert [fault.kind for fault in found.faults] == ["missing"]


def test_a_label_that_nobody_looked_for_is_not_missing() -> None:
    assert looked([box(100)], [SEEN, box(300, 200, 150, 90, "car", 0.9)], labels=frozenset({"person"})).score < 0.1


def test_a_place_where_the_model_is_always_wrong_counts_less_on_a_fixed_camera() -> None:
    sign = box(500, 50, 30, 60, score=0.6)
    street = [page(f"s{n}", [box(20 + 40 * n)], [box(20 + 40 * n, score=0.85), sign], camera="c") for n in range(8)]
    once = [street[0], *(dataclasses.replace(one, seen=one.seen[:1]) for one in street[1:])]
    always, alone = (inspect([*pages, *others()], known=KNOWN)[0].score for pages in (street, once))
    assert always < alone / 2


def test_a_label_that_the_model_does_not_know_is_said_and_searched_without_it() -> None:
    heads = [page(f"h{n}", [box(50 + 20 * n, 100, 20, 20, "head")], [], labels=frozenset({"head"})) for n in range(12)]
    odd = page("odd", [box(60, 90, 90, 90, "head")], [], labels=frozenset({"head"}))
    twice = page("twice", [box(70, 100, 20, 20, "head"), box(71, 100, 20, 20, "head")], [], labels=frozenset({"head"}))
    found = {one.page.name: one for one in inspect([*heads, odd, twice], known=KNOWN)}
    assert found["odd"].unknown == {"head"}
    assert likeliest(found["odd"]) == ("badly_placed", "head")
    assert likeliest(found["twice"]) == ("extra", "head")
    assert all(found[one.name].score < 0.05 for one in heads)


def claim(severity=0.93, label="person", at=SEEN):
    return Claim(at.xyxy, label, severity, ("gap", "zoom"))


def claimed(drawn, *claims, seen=(), labels=KNOWN):
    """The missing objects of one image with claims of witnesses, beside the others."""
    it = dataclasses.replace(page("it", drawn, seen, labels=labels), claims=tuple(claims))
    return [one for one in inspect([it, *others()], known=KNOWN)[0].faults if one.kind == "missing"]


def test_what_witnesses_claim_and_nobody_drew_is_missing() -> None:
    (fault,) = claimed([], claim())
    assert (fault.label, fault.xyxy) == ("person", SEEN.xyxy)
    odds = 0.93 / 0.07 * OVERLOOKED
    assert fault.probability == pytest.approx(odds / (1 + odds))
    assert fault.why == "the device's witnesses say so at 0.93 (gap, zoom)"
    assert claimed([], claim(0.5))[0].probability < 0.1 < fault.probability
    assert 0.9 < claimed([], claim(1.0))[0].probability < 1, "no witness is sure"


@pytest.mark.parametrize(
    ("drawn", "claims"),
    [
        ([box(100)], [claim()]),  # somebody drew it
        ([box(125)], [claim()]),  # IoU .41: drawn badly
        ([box(100, label="car")], [claim()]),  # drawn, by another name
        ([box(40, 40, 300, 300, "truck")], [claim()]),  # inside of what is drawn: IoU .08
        ([box(120, 130, 20, 40)], [claim()]),  # around what is drawn, of its label: IoU .11
        ([], [claim(label="head")]),  # nobody looked for heads
        ([], [claim(label="")]),  # of no label
    ],
)
def test_a_claim_that_the_annotations_explain_or_nobody_looked_for_says_nothing(drawn, claims) -> None:
    assert claimed(drawn, *claims) == []


@pytest.mark.parametrize(
    "drawn",
    [
        [],
        [box(300)],  # elsewhere
        [box(145)],  # beside: IoU .14
        [box(120, 100, 20, 20, "car")],  # something small of another label in it
    ],
)
def test_a_claim_that_no_annotation_touches_stays(drawn) -> None:
    assert [fault.label for fault in claimed(drawn, claim())] == ["person"]


@pytest.mark.parametrize(("severity", "score"), [(0.99, 0.3), (0.2, 0.9), (0.93, 0.85)])
def test_what_the_model_sees_too_is_counted_once_and_the_likelier_counts(severity, score) -> None:
    seen = [box(104, score=score)]
    (alone,), (claims,), (both,) = (
        claimed([], seen=seen),
        claimed([], claim(severity)),
        claimed([], claim(severity), seen=seen),
    )
    assert both == max(alone, claims, key=lambda fault: fault.probability)


def test_several_claims_of_one_place_are_one_object_whatever_their_order() -> None:
    claims = [claim(0.6), claim(0.9, at=box(106)), claim(0.7, "car"), claim(0.8, at=box(300))]
    first, second = claimed([], *claims), claimed([], *claims[::-1])
    assert first == second
    assert [fault.xyxy for fault in first] == [box(106).xyxy, box(300).xyxy]


def test_claims_of_a_label_that_the_model_does_not_know_count() -> None:
    labels = frozenset({"head"})
    assert [fault.label for fault in claimed([], claim(label="head"), labels=labels)] == ["head"]
    assert claimed([box(100, label="head")], claim(label="head"), labels=labels) == []


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_surer_claim_is_likelier(a, b) -> None:
    low, high = (sum(fault.probability for fault in claimed([], claim(one))) for one in sorted((a, b)))
    assert 0 <= low <= high <= 1


def test_what_annotators_dispute_is_a_fault() -> None:
    dispute = Dispute(box(400).xyxy, ("person",), "one of two drew it")
    found = inspect([page("it", [box(100)], [SEEN]), *others()], known=KNOWN, disputes={"it": [dispute]})[0]
    assert (found.faults[0].kind, found.faults[0].why) == ("disagreement", "one of two drew it")


def test_the_expected_number_and_the_probability_of_any_fault_follow_from_the_places() -> None:
    found = looked([box(420, 200, 150, 90, "car")], [SEEN])
    probabilities = [fault.probability for fault in found.faults]
    assert len(probabilities) >= 2
    assert found.expected == pytest.approx(sum(probabilities))
    assert found.score == pytest.approx(1 - math.prod(1 - p for p in probabilities))
    assert looked([], []).score == 0, "nothing drawn, nothing seen: nothing to say"


places = st.tuples(st.integers(0, 9), st.integers(0, 2), st.sampled_from(sorted(KNOWN)))
scores = st.floats(0.05, 1.0)


def at(place, score=None):
    column, row, label = place
    return box(10.0 + 62 * column, 10.0 + 150 * row, label=label, score=score)


apart = st.lists(places, min_size=1, max_size=8, unique_by=lambda place: place[:2])


@settings(max_examples=40, deadline=None)
@given(apart, st.lists(st.tuples(places, scores), max_size=10), st.randoms())
def test_probabilities_lie_in_0_to_1_whatever_the_order(drawn, seen, random) -> None:
    boxes, views = [at(place) for place in drawn], [at(place, score) for place, score in seen]
    first = looked(boxes, views)
    random.shuffle(boxes)
    second = looked(boxes, views)
    assert first.faults == second.faults
    assert all(0 <= fault.probability <= 1 for fault in first.faults)
    assert 0 <= first.score <= 1
    pages = [page("it", boxes, views), *others()]
    random.shuffle(pages)
    assert next(one for one in inspect(pages, known=KNOWN) if one.page.name == "it").score == pytest.approx(first.score)


@settings(max_examples=40, deadline=None)
@given(apart, st.floats(0.3, 1.0), st.data())
def test_a_perfect_annotation_scores_lowest(drawn, score, data) -> None:
    views = [at(place, score) for place in drawn]
    perfect = [at(place) for place in drawn]
    spoiled = list(perfect)
    which = data.draw(st.integers(0, len(drawn) - 1))
    how = data.draw(st.sampled_from(["missing", "swapped", "badly_placed"]))
    mine = spoiled.pop(which)
    x1, y1, x2, y2 = mine.xyxy
    if how == "swapped":
        spoiled.append(Annotation(mine.xyxy, next(label for label in sorted(KNOWN) if label != mine.label)))
    elif how == "badly_placed":
        spoiled.append(Annotation((x1, y1 + 54, x2, y2 + 54), mine.label))
    assert looked(perfect, views).score < looked(spoiled, views).score


@settings(max_examples=40, deadline=None)
@given(apart, st.lists(scores, min_size=8, max_size=8), st.data())
def test_taking_a_box_away_never_lowers_how_likely_one_is_missing_there(drawn, sure, data) -> None:
    views = [at(place, score) for place, score in zip(drawn, sure, strict=False)]
    boxes = [at(place) for place in drawn]
    gone = data.draw(st.integers(0, len(drawn) - 1))

    def missing_at(some) -> float:
        there = views[gone].xyxy
        return max(
            (f.probability for f in looked(some, views).faults if (f.kind, f.xyxy) == ("missing", there)), default=0
        )

    assert missing_at(boxes) <= missing_at(boxes[:gone] + boxes[gone + 1 :])
