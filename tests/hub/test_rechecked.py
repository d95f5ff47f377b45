"""The list of images to look at again, what the second look says of it, and what is left."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.contract.samples import Reason, Witness
from edge.contract.topics import Kind
from hub.annotation import Annotation
from hub.audit import RANDOM, chosen, is_enough, list_rechecks, measure, settle
from hub.evidence import Page
from hub.inspection import Fault, Inspected
from hub.label_lines import next_step
from hub.label_standing import standing
from hub.rechecked import Measured, Tally, changes, is_looked_through, still_wrong
from hub.refitting import ENOUGH, odds_of, page_of
from hub.store import Store
from hub.store_labels import LabelSet, Recheck
from hub.truth import Truth
from tests.hub.labelled import NOW, draw, event_id, made_batch, person
from tests.hub.made import arrival, event_payload, jpeg


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def inspected(number: int, probability: float) -> Inspected:
    page = Page(event_id(number), (64, 48), frozenset({"person"}), (), ())
    return Inspected(page, (Fault("missing", "person", (1, 2, 20, 20), probability, "seen"),), frozenset())


def audited(count: int) -> list[Inspected]:
    return [inspected(number, 0.9 / number) for number in range(1, count + 1)]


@given(st.integers(0, 80), st.integers(1, 90))
def test_a_list_has_the_first_and_always_random_ones_from_outside(images, size) -> None:
    ranked = audited(images)
    made = chosen(ranked, size=size, seed="s", now_ms=NOW)
    picks = [one for one in made if one.fault != "random"]
    drawn = [one for one in made if one.fault == "random"]
    assert [one.event_id for one in picks] == [one.page.name for one in ranked[: len(picks)]]
    assert len(drawn) == min(RANDOM, max(0, images - 1))
    assert not {one.event_id for one in picks} & {one.event_id for one in drawn}
    assert [one.rank for one in made] == list(range(1, len(made) + 1))
    assert len(picks) == min(size, max(images - RANDOM, min(1, images)))


def test_the_random_ones_are_drawn_evenly() -> None:
    counts = dict.fromkeys(range(11, 51), 0)
    for seed in range(400):
        for one in chosen(audited(50), size=10, seed=str(seed), now_ms=NOW)[10:]:
            counts[int(one.event_id, 16)] += 1
    assert sum(counts.values()) == 400 * RANDOM
    assert min(counts.values()) > 20, "of 50 on average"
    assert max(counts.values()) < 85


def test_a_list_stays_until_something_changes_and_leaves_out_what_was_looked_at(store) -> None:
    batch = made_batch(store, 12)
    draw(store, batch, {n: [] for n in range(1, 13)})
    first = list_rechecks(store, batch, audited(12), now_ms=NOW + 1)
    assert len(first) == 2 + RANDOM, "a fifth of 12, and those at random"
    assert list_rechecks(store, batch, audited(12), now_ms=NOW + 2) == first
    draw(store, batch, {1: [], 2: []}, kind="review")
    second = list_rechecks(store, batch, audited(12), now_ms=NOW + 3)
    assert not {one.event_id for one in second} & {event_id(1), event_id(2)}
    assert [len(one) for one in store.labels.recheck_lists(batch)] == [2 + RANDOM] * 2


BEFORE = Annotation((1, 4, 21, 24), "person")


@pytest.mark.parametrize(
    ("after", "kinds"),
    [
        ([BEFORE], []),
        ([Annotation((2, 4, 21, 24), "person")], []),  # a pixel off is no fault: IoU .95
        ([Annotation((9, 4, 29, 24), "person")], ["moved"]),  # IoU .43
        ([], ["removed"]),
        ([Annotation(BEFORE.xyxy, "head")], ["relabelled"]),
        ([BEFORE, Annotation((40, 4, 60, 24), "person")], ["added"]),
        ([BEFORE, Annotation(BEFORE.xyxy, "person")], ["added"]),  # one to one: doubles are not the same object
        ([Annotation((40, 4, 60, 24), "person")], ["removed", "added"]),  # elsewhere: another object
    ],
)
def test_what_a_second_look_changes(after, kinds) -> None:
    assert [change.kind for change in changes([BEFORE], after)] == kinds


def recheck(number: int, rank: int, fault="missing", xyxy=(40.0, 4.0, 60.0, 24.0)) -> Recheck:
    return Recheck(event_id(number), rank, fault, "person", xyxy, 0.5, "why", NOW)


@pytest.mark.parametrize(
    ("review", "wrong"),
    [
        ({"person": [BEFORE]}, False),  # as it was
        ({"person": [BEFORE, Annotation((41, 4, 60, 24), "person")]}, True),  # added at the place
        ({"person": []}, False),  # removed, but elsewhere
    ],
)
def test_a_recheck_is_wrong_when_the_second_look_differs_at_its_place(store, review, wrong) -> None:
    batch = made_batch(store, 2)
    draw(store, batch, {1: [BEFORE], 2: [BEFORE]})
    store.labels.add_rechecks(batch, [recheck(1, 1), recheck(2, 2, "random", None)])
    assert settle(store, batch, [event_id(1), event_id(2)]) == 0, "nobody has looked again"
    draw(store, batch, {1: review["person"]}, kind="review", annotator="eve")
    assert settle(store, batch, [event_id(1), event_id(2)]) == 1
    assert [one.wrong for one in store.labels.rechecks(batch)] == [wrong, None]


def test_a_label_that_the_second_look_did_not_look_for_is_not_compared(store) -> None:
    batch = made_batch(store, 1)
    draw(store, batch, {1: [BEFORE, Annotation((40, 4, 60, 24), "head")]})
    store.labels.add_rechecks(batch, [recheck(1, 1, "random", None)])
    draw(store, batch, {1: [BEFORE]}, kind="review", labels=("person",))
    assert settle(store, batch, [event_id(1)]) == 1
    assert store.labels.rechecks(batch)[0].wrong is False


def test_the_audit_is_measured_by_picks_and_by_what_was_drawn(store) -> None:
    batch = made_batch(store, 20)
    draw(store, batch, {n: [BEFORE] for n in range(1, 21)})
    assert measure(store, batch) is None
    picks = [recheck(n, n, "extra", BEFORE.xyxy) for n in range(1, 5)]
    store.labels.add_rechecks(batch, picks + [recheck(n, n, "random", None) for n in range(5, 10)])
    draw(store, batch, {1: [], 2: [], 3: [BEFORE], 5: [], **{n: [BEFORE] for n in range(6, 10)}}, kind="review")
    settle(store, batch, [event_id(n) for n in range(1, 21)])
    found = measure(store, batch)
    assert (found.picks.images, found.picks.settled, found.picks.wrong, found.picks.wrong_anywhere) == (4, 3, 2, 2)
    assert (found.drawn.images, found.drawn.settled, found.drawn.wrong_anywhere) == (5, 5, 1)
    assert found.others == 16
    estimate, low, high = found.remaining
    assert estimate == pytest.approx(11 / 5)
    assert low <= estimate <= high <= 11


@pytest.mark.parametrize(("images", "drawn"), [(20, 5), (45, 5), (12, 8)])
def test_the_interval_of_what_remains_holds_nineteen_times_of_twenty(images, drawn) -> None:
    for wrong in range(images + 1):
        inside = 0.0
        for seen in range(max(0, drawn - (images - wrong)), min(drawn, wrong) + 1):
            _, low, high = still_wrong(seen, drawn, images)
            if low <= wrong - seen <= high:
                inside += math.comb(wrong, seen) * math.comb(images - wrong, drawn - seen) / math.comb(images, drawn)
        assert inside >= 0.95 - 1e-9, wrong


def test_second_looks_move_the_weights_only_when_there_are_enough(store) -> None:
    batch = made_batch(store, ENOUGH)
    numbers = range(1, ENOUGH + 1)
    unseen = person(20, 20)
    draw(store, batch, {n: [unseen] for n in numbers})
    store.labels.add_opinions("m", {event_id(n): [person(1, score=0.5, origin="model")] for n in numbers})
    store.labels.add_rechecks(batch, [recheck(n, n, "random", None) for n in numbers])
    known = frozenset({"person"})
    built_in = odds_of(store, "m", known=known)
    for few, many in itertools.pairwise((1, ENOUGH, ENOUGH + 1)):
        draw(store, batch, {n: [unseen, person(1)] for n in range(few, many)}, kind="review", annotator=f"a{few}")
        settle(store, batch, [event_id(n) for n in range(few, many)])
        if many == ENOUGH:
            assert odds_of(store, "m", known=known) == built_in
    moved = odds_of(store, "m", known=known)
    assert moved.usual == built_in.usual
    assert moved.box[0] > built_in.box[0], "what the model alone saw was always missing"


def measured(*, drawn_wrong: int, remaining: float, drawn: int = 5) -> Measured:
    left = (remaining, 0, 9) if drawn else None
    return Measured(Tally(4, 4, 2, 2), Tally(drawn, drawn, drawn_wrong, drawn_wrong), 16, left)


@pytest.mark.parametrize(
    ("left", "found", "looked_through", "enough"),
    [
        ([], None, False, True),  # everything was looked at again
        ([0.1], None, True, False),  # nobody has looked at a list
        ([0.9, 0.9], measured(drawn_wrong=0, remaining=0), True, False),  # five clean ones prove little
        ([0.08] * 20, measured(drawn_wrong=0, remaining=0), True, True),  # fewer than a tenth of many
        ([0.9, 0.9], measured(drawn_wrong=0, remaining=0), False, False),  # of a list that is not done
        ([0.3, 0.3], measured(drawn_wrong=1, remaining=0.4), True, True),  # fewer than one is expected by both
        ([0.6, 0.6], measured(drawn_wrong=1, remaining=0.4), True, False),  # the audit expects more
        (
            [0.3, 0.3],
            measured(drawn_wrong=1, remaining=2.2),
            True,
            False,
        ),  # those at random say more: it overlooks some
        ([0.3, 0.3], measured(drawn_wrong=0, remaining=0, drawn=0), True, True),  # so few that none was drawn at random
        ([0.8, 0.3], measured(drawn_wrong=0, remaining=0, drawn=0), True, False),
    ],
)
def test_when_it_is_enough(left, found, looked_through, enough) -> None:
    images = [inspected(number, probability) for number, probability in enumerate(left, 1)]
    assert is_enough(images, found, looked_through=looked_through) is enough


@pytest.mark.parametrize(
    ("wrong", "then"),
    [
        (0, "hub dataset health"),
        (1, "hub labels audit 1"),  # one of five at random: errors are left
    ],
)
def test_show_asks_for_an_audit_only_while_errors_are_left(store, wrong, then) -> None:
    batch = made_batch(store, 20)
    draw(store, batch, {n: [BEFORE] for n in range(1, 21)})
    assert next_step(standing(store, batch, labels=("person",))) == "hub labels audit 1"
    store.labels.add_rechecks(batch, [recheck(n, n, "random" if n > 4 else "extra", BEFORE.xyxy) for n in range(1, 10)])
    assert next_step(standing(store, batch, labels=("person",))) == "hub labels import FILE --batch 1 --review"
    draw(store, batch, {n: [] if 5 <= n < 5 + wrong else [BEFORE] for n in range(1, 10)}, kind="review")
    settle(store, batch, [event_id(n) for n in range(1, 10)])
    assert next_step(standing(store, batch, labels=("person",))) == then


def test_labels_that_come_after_a_list_begin_anew(store) -> None:
    batch = made_batch(store, 4)
    draw(store, batch, {n: [BEFORE] for n in (1, 2)})
    store.labels.add_rechecks(batch, [recheck(1, 1), recheck(2, 2, "random", None)])
    assert not is_looked_through(store, batch)
    draw(store, batch, {1: [BEFORE], 2: [BEFORE]}, kind="review")
    settle(store, batch, [event_id(1), event_id(2)])
    assert is_looked_through(store, batch)
    later = LabelSet(0, batch, "person", "ann", "", ("person", "head"), NOW + 1, "test", None)
    store.labels.add(later, {event_id(3): [], event_id(4): []})
    assert not is_looked_through(store, batch)


def test_what_was_looked_at_again_before_a_list_is_not_left_after_it(store) -> None:
    batch = made_batch(store, 12)
    draw(store, batch, {n: [BEFORE] for n in range(1, 13)})
    draw(store, batch, {1: [BEFORE], 2: [BEFORE]}, kind="review")
    late = [recheck(n, n, "random", None)._replace(at_ms=NOW + 1) for n in (3, 4, 5)]
    store.labels.add_rechecks(batch, late)
    second = LabelSet(0, batch, "review", "eve", "", ("person", "head"), NOW + 2, "test", None)
    store.labels.add(second, {event_id(n): [BEFORE] for n in (3, 4, 5)})
    settle(store, batch, [event_id(n) for n in (3, 4, 5)])
    assert measure(store, batch).others == 10, "of twelve two were looked at again before"


@pytest.mark.parametrize(
    ("by", "claims"),
    [
        ("person", [("person", 0.93, ("gap", "zoom")), ("person", 0.4, ("zoom",))]),
        ("review", []),  # a second look has answered
        ("machine", []),  # no person has overlooked anything
    ],
)
def test_the_claims_are_of_every_missed_finding_on_the_picture(store, by, claims) -> None:
    picture = jpeg(1)
    at = {"captured_at_ms": NOW, "picture": picture}
    strong = {"severity": 0.93, "witnesses": (Witness("gap", 0.9), Witness("zoom", 0.5), Witness("motion", 0.0))}
    weak = {"severity": 0.4, "witnesses": (Witness("zoom", 0.5),)}
    names = [f"{NOW:012x}{number:020x}" for number in range(3)]
    payloads = [
        event_payload(0, event_id=names[0], label="person", **strong, **at),
        event_payload(1, event_id=names[1], label="person", sequence=1, **weak, **at),
        event_payload(2, event_id=names[2], label="person", sequence=2, reason=Reason.SUSPECT, **at),
    ]
    store.commit([arrival(Kind.EVENT, payload + picture) for payload in payloads], now_ms=NOW)
    page = page_of(store, Truth(names[0], (), frozenset({"person"}), by, ("ann",)), ())
    assert [(one.label, one.severity, one.witnesses) for one in page.claims] == claims
