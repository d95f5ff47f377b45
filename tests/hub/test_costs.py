"""The account: what is paid for, and that the parts are the whole."""

import json
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import hub.cli
from hub.account import account
from hub.autolabel_report import rounds
from hub.costs import Prices, Work, by_hand, cost_of, cost_of_work, work_by_batch
from hub.naming import open_by_hand
from hub.store import Store
from hub.store_labels import Drawn, Honeypot, LabelSet
from hub.weakspots import SpotState, sources, step_of
from tests.hub.labelled import NOW, draw, event_id, freeze, made_batch, person, put
from tests.hub.sighted import TAGGER

GROUND_TRUTH = Prices(currency="USD", image=0.26, machine=0.08)
EACH = Prices(image=1.0, box=0.1, review=10.0, machine=0.01, hour=60.0)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


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


def drawn(number: int, *boxes, kind="person", annotator="ann", label_pass="", batch=1, set_id=1) -> Drawn:
    of = LabelSet(set_id, batch, kind, annotator, label_pass, ("person",), NOW, "test")
    return Drawn(event_id(number), of, boxes)


def test_the_published_run() -> None:
    """1,000 images, 608 labelled by people and 392 by the machine, as Ground Truth's notebook has it."""
    people = [drawn(number, person(1), batch=1) for number in range(608)]
    machine = [drawn(number, person(1), kind="machine", batch=None) for number in range(608, 1000)]
    done = work_by_batch([*people, *machine])
    work = sum(done.values(), Work())
    assert (work.images, work.machine) == (608, 392)
    assert cost_of_work(GROUND_TRUTH, work) == pytest.approx(189.44)
    assert by_hand(GROUND_TRUTH, work, images=392, boxes=392) == pytest.approx(260.00)
    assert cost_of(GROUND_TRUTH, images=608, machine=392) == pytest.approx(189.44)


def test_by_hand_takes_the_minutes_that_the_others_took() -> None:
    work = Work(images=10, boxes=20, machine=5, minutes=30.0)
    assert cost_of_work(EACH, work) == pytest.approx(10 + 2 + 0.05 + 30)
    assert by_hand(EACH, work, images=5, boxes=8) == pytest.approx(10 + 2 + 30 + 5 + 0.8 + 15)


TWO = (person(1), person(20))


@pytest.mark.parametrize(
    ("history", "expected"),
    [
        ([drawn(1, *TWO)], Work(images=1, boxes=2)),
        ([drawn(1)], Work(images=1)),  # nothing is there: somebody has looked
        ([drawn(1, *TWO), drawn(1, *TWO[::-1], set_id=2)], Work(images=1, boxes=2)),  # the same file again
        ([drawn(1), drawn(1, set_id=2)], Work(images=1)),  # an empty one again
        ([drawn(1, *TWO), drawn(1, TWO[0], set_id=2)], Work(images=2, boxes=2)),  # one taken away: looked at again
        ([drawn(1, TWO[0]), drawn(1, *TWO, set_id=2)], Work(images=2, boxes=2)),  # one more: it alone costs
        ([drawn(1, TWO[0]), drawn(1, TWO[0], TWO[0], set_id=2)], Work(images=2, boxes=2)),  # the same box twice
        ([drawn(1, *TWO), drawn(1, *TWO, annotator="bob")], Work(images=2, boxes=4)),  # two people
        ([drawn(1, *TWO, label_pass="person"), drawn(1, label_pass="head")], Work(images=2, boxes=2)),  # two passes
        ([drawn(1, *TWO), drawn(1, *TWO, kind="review")], Work(images=1, boxes=2, reviews=1)),  # she agrees
        ([drawn(1, *TWO, kind="machine"), drawn(1, *TWO)], Work(images=1, boxes=2, machine=1)),
        ([drawn(1, kind="machine"), drawn(1, kind="machine", set_id=2)], Work(machine=1)),
    ],
)
def test_what_is_paid_for(history, expected) -> None:
    assert work_by_batch(history) == {1: expected}


history = st.lists(
    st.builds(
        drawn,
        st.integers(1, 3),
        kind=st.sampled_from(["person", "review", "machine"]),
        annotator=st.sampled_from(["ann", "bob"]),
        batch=st.sampled_from([None, 1, 2]),
    ).flatmap(lambda one: st.lists(st.sampled_from(TWO)).map(lambda boxes: one._replace(boxes=tuple(boxes)))),
    max_size=12,
)


@given(history)
@settings(max_examples=25)
def test_to_import_all_of_it_again_in_its_order_costs_no_less_and_the_last_again_nothing(imports) -> None:
    once = sum(work_by_batch(imports).values(), Work())
    assert sum(work_by_batch([*imports, *imports[-1:]]).values(), Work()) == once
    assert once.images + once.reviews + once.machine <= len(imports)
    kinds = {(one.label_set[1:5], one.event_id) for one in imports}
    assert once.images + once.reviews + once.machine >= len(kinds), "who looked once is paid once at least"


def spot_with_a_batch(store: Store) -> int:
    """Freeze a batch of a weak spot with four images."""
    put(store, 1, 2, 3, 4, boxes=())
    spot = open_by_hand(store, TAGGER, "dark", NOW)
    batched = step_of(SpotState.BATCHED, None, now_ms=NOW)
    return freeze(store, 1, 2, 3, 4, weak_spot_id=spot.id, step=batched, from_states=sources(SpotState.BATCHED))


def test_the_account_of_a_database(store) -> None:
    first = spot_with_a_batch(store)
    second = made_batch(store, 2, first=11, boxes=())
    store.labels.freeze_honeypots(second, [Honeypot(event_id(1), 1, (person(4),))])
    missed = person(1, 2, size=29)  # where the findings of hub.made claim a miss
    draw(store, first, {1: [missed], 2: [missed, person(40)], 3: [], 4: []}, minutes=12)
    draw(store, second, {11: [missed], 12: [], 1: [person(4)]}, annotator="bob", minutes=3)
    draw(store, first, {3: [missed]}, kind="review", annotator="eve")
    put(store, 21, 22)
    draw(store, None, {21: [person(4)], 22: []}, kind="machine", annotator="yard-2")
    told = account(store, EACH)
    works = {line.batch_id: line.work for line in told.batches}
    assert works[first] == Work(images=4, boxes=3, reviews=1, minutes=12)
    assert works[second] == Work(images=3, boxes=2, minutes=3), "the known answer costs as any other image"
    assert works[None] == Work(machine=2)
    assert sum(line.cost for line in told.batches) == pytest.approx(told.total.cost)
    assert told.total.work == sum(works.values(), Work())
    assert told.all_by_hand == pytest.approx(told.total.cost - 0.02 + 2 + 0.1 + 60 * 15 * 2 / 7 / 60)
    (spot,) = told.spots
    assert (spot.batches, spot.cost, spot.outcome) == (1, told.batches[0].cost, "batched")
    lines = {line.batch_id: line for line in told.batches}
    assert (lines[first].settled, lines[first].misses, lines[first].boxes) == (4, 3, 4), "the review found the third"
    assert (lines[second].settled, lines[second].misses) == (2, 1)
    assert told.cost_per_fixed is None


def test_the_rounds_of_the_report_cost_what_the_account_says(store) -> None:
    batch = made_batch(store, 2)
    for boxes in ([person(4)], [person(4)], [person(4), person(40)]):  # the second brings back the first
        draw(store, batch, {1: boxes, 2: []}, minutes=3)
    draw(store, batch, {1: [person(4)]}, kind="review", annotator="eve")
    told = list(rounds(store, EACH))
    assert [one.images_person for one in told] == [2, 0, 1, 1]
    assert [one.boxes_person for one in told] == [1, 0, 1, 1]
    assert sum(one.cost_person for one in told) == pytest.approx(account(store, EACH).total.cost)


def test_the_command(run, store, tmp_path) -> None:
    status, printed, _ = run("costs")
    assert (status, printed) == (1, "nothing was labelled yet: hub labels import FILE --batch ID\n")
    (tmp_path / "hub.toml").write_text('[costs]\ncurrency = "USD"\nimage = 0.26\nmachine = 0.08\n')
    batch = spot_with_a_batch(store)
    draw(store, batch, {1: [person(4)], 2: [], 3: [], 4: []}, minutes=12.5)
    put(store, 21)
    draw(store, None, {21: [person(4)]}, kind="machine", annotator="yard-2")
    status, printed, _ = run("costs")
    assert status == 0
    lines = printed.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert lines[1].split() == ["1", "4", "1", "0", "0", "12.5", "1.04", "4", "0"]
    assert lines[2].split() == ["-", "0", "0", "0", "1", "0", "0.08", "0", "0"]
    assert lines[3].split()[0] == "all"
    assert "a true box cost 0.560 USD: 2 of them" in printed
    assert "all by people would have cost 1.30 USD, this was 1.12: 0.18 less (14 %)" in " ".join(printed.split())
    shown = json.loads(run("costs", "--json")[1])
    assert shown["total"]["cost"] == pytest.approx(1.12)
    assert [one["batch_id"] for one in shown["batches"]] == [batch, None]
    assert shown["spots"][0]["work"]["images"] == 4


def test_without_prices_it_says_where_they_stand(run, store) -> None:
    draw(store, made_batch(store, 1), {1: []})
    assert "no prices are set: [costs] in hub.toml" in run("costs")[1]
