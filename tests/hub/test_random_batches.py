"""Batches that are drawn: each picture as likely as the others, whatever it is."""

import random
import sys
from collections import Counter

import pytest

import hub.cli
from edge.contract.errors import UnusableError
from edge.contract.samples import Reason
from hub.batches import NothingToChooseError, new_batch
from hub.random_batches import TITLE, random_batch, shuffled
from hub.store import Store
from tests.hub.labelled import NOW, draw, event_id, freeze, person, put
from tests.hub.made import jpeg


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def numbers(batch):
    return [int(member.event_id, 16) for member in batch.members]


def test_a_drawn_batch_is_frozen_as_any_other_and_says_that_it_is_drawn(store):
    put(store, *range(1, 31))
    batch = random_batch(store, size=10, now_ms=NOW)
    assert (batch.size, batch.title, batch.row.random, batch.row.weak_spot_id) == (10, TITLE, True, None)
    assert len(set(numbers(batch))) == 10
    assert any("label all of them, and train on none" in note for note in batch.notes)
    assert not new_batch(store, size=5, now_ms=NOW).row.random
    assert not list(store.violations())


def test_every_picture_is_drawn_as_often_as_the_others(store):
    """Chi-square over 2,000 draws of 5 of 20, whose reasons, severities and labels by a machine differ."""
    put(store, *range(1, 11), severity=0.99)
    put(store, *range(11, 16), severity=0.01, reason=Reason.LOW_CONFIDENCE)
    put(store, *range(16, 21), reason=Reason.CONTROL, region=(0.0, 0.0, 64.0, 48.0), label="")
    draw(store, None, {3: [person(1)], 12: []}, kind="machine", annotator="m")
    rng, drawn = random.Random(7), Counter()
    for _ in range(2000):
        order = shuffled(store, rng)
        drawn.update(next(order).event_id for _ in range(5))
    assert len(drawn) == 20
    expected = 2000 * 5 / 20
    chi_square = sum((count - expected) ** 2 / expected for count in drawn.values()) / (1 - 5 / 20)
    assert chi_square < 36.2  # 19 degrees of freedom: 1 in 100


def test_the_draw_cannot_be_foretold(tmp_path):
    drawn = set()
    for name in ("a.db", "b.db", "c.db"):
        with Store.open(tmp_path / name) as store:
            put(store, *range(1, 41))
            drawn.add(tuple(numbers(random_batch(store, size=20, now_ms=NOW))))
    assert len(drawn) == 3


def test_what_a_person_has_is_not_drawn_and_what_a_machine_labelled_is(store):
    put(store, *range(1, 11))
    freeze(store, 1, 2, 3)
    draw(store, None, {4: [], 5: [person(1)]}, kind="machine", annotator="m")
    assert {int(row.event_id, 16) for row in store.candidates()} == {6, 7, 8, 9, 10}
    assert sorted(numbers(random_batch(store, size=50, now_ms=NOW))) == [4, 5, 6, 7, 8, 9, 10]


def test_a_picture_of_two_findings_is_drawn_once_and_labelled_once(store):
    put(store, 1, 2, captured_at_ms=NOW)
    put(store, 3)
    assert len(list(shuffled(store, random.Random(0)))) == 2
    draw(store, None, {1: []}, kind="machine", annotator="m")
    assert [int(row.event_id, 16) for row in store.candidates()] == [3]


def test_what_nobody_can_annotate_is_passed_over(store):
    put(store, *range(1, 7))
    store._connection.execute(
        "UPDATE frame SET jpeg = ? WHERE finding_id = (SELECT id FROM finding WHERE event_id = ?)",
        (jpeg(2)[:-20], event_id(2)),
    )
    batch = random_batch(store, size=6, now_ms=NOW)
    assert sorted(numbers(batch)) == [1, 3, 4, 5, 6]
    assert batch.notes[:2] == (
        "asked for 6: there is no other picture here that no person has",
        "1 frame passed over that nobody can annotate",
    )


def test_nothing_to_draw_from(store):
    with pytest.raises(NothingToChooseError, match="nothing to draw from"):
        random_batch(store)
    with pytest.raises(UnusableError, match="at least 1"):
        random_batch(store, size=0)


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--random", "--size", "3"], 0, "batch 1: 3 images, drawn at random"),
        (["--random"], 0, "batch 1: 12 images, drawn at random"),  # 200 are asked for
        (["--size", "3"], 0, "batch 1: 3 images, missed person"),
        (["--random", "--weakspot", "1"], 2, "leave out --weakspot"),
    ],
)
def test_the_command(tmp_path, monkeypatch, capsys, words, status, says):
    with Store.open(tmp_path / "hub.db") as store:
        put(store, *range(1, 13))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["hub", "batch", "new", *words, "--database", "hub.db"])
    with pytest.raises(SystemExit) as ended:
        hub.cli.main()
    assert (ended.value.code or 0) == status
    assert says in "".join(capsys.readouterr())
