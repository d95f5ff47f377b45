"""Known answers mixed in: settled ones only, drawn once, and told to nobody who annotates."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.batch_view import Member, image_names
from hub.batches import batch_view, read_batch
from hub.export import Format, export_batch
from hub.honeypots import Known, draw, known_before
from hub.store import Store
from hub.store_labels import Honeypot
from hub.truth import truths
from tests.hub.labelled import draw as annotate
from tests.hub.labelled import event_id, made_batch, person

LABELS = ("person", "head")


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def numbers(known):
    return sorted(int(one.event_id, 16) for one in known)


def test_settled_is_what_was_looked_at_twice_or_by_two_who_agree(store) -> None:
    first = made_batch(store, 9)
    annotate(store, first, {n: [person(1)] for n in (1, 2, 3, 4, 5, 6)})  # one annotator alone settles nothing
    annotate(store, first, {1: [person(9)]}, kind="review")  # looked at twice
    annotate(store, first, {2: [person(1)], 3: [person(40)]}, annotator="bob")  # bob agrees on 2, not on 3
    annotate(store, first, {3: [person(1)]}, kind="review", labels=("head",))  # not of what they dispute
    annotate(store, first, {4: [person(1)]}, kind="machine", annotator="starter-1")  # a machine is no second annotator
    annotate(store, first, {5: [person(1)]}, annotator="bob", labels=("person",))  # nobody else looked for heads
    annotate(store, first, {6: []}, annotator="ann")  # ann again, and not another
    annotate(store, first, {7: [], 8: []}, kind="review")  # nothing is there, and that is known
    later = made_batch(store, 2, first=20)
    assert numbers(known_before(store, later, LABELS)) == [1, 2, 7, 8]
    assert numbers(known_before(store, later, ("person",))) == [1, 2, 5, 7, 8]
    assert known_before(store, first, LABELS) == []  # nothing of its own, nor of later ones


def test_what_was_drawn_on_a_honeypot_settles_nothing(store) -> None:
    made_batch(store, 2)
    second = made_batch(store, 2, first=10)
    store.labels.freeze_honeypots(second, [Honeypot(event_id(1), 1, (person(1),))])
    annotate(store, second, {1: [person(1)]}, kind="review")
    third = made_batch(store, 2, first=20)
    assert known_before(store, third, LABELS) == []


def mixed(store, *, wanted=2):
    """A database with a reviewed batch of six and a second one of four with honeypots."""
    first = made_batch(store, 6)
    annotate(store, first, {n: [person(1 + n)] for n in range(1, 6)} | {6: []}, kind="review")
    second = made_batch(store, 4, first=10)
    return second, batch_view(store, second, labels=LABELS, honeypots=wanted)


def test_honeypots_are_drawn_once_and_stay(store) -> None:
    second, view = mixed(store)
    pots = [member for member in view.members if member.honeypot]
    assert len(pots) == 2
    assert {pot.rank for pot in pots} <= {1, 2, 3, 4}
    frozen = store.labels.honeypots(second)
    assert {pot.event_id: pot.boxes for pot in frozen} == {
        pot.event_id: truths(store, 1)[pot.event_id].boxes for pot in pots
    }
    for again in ({}, {"honeypots": 2}, {"honeypots": 4}, {"label_pass": "head", "honeypots": 3}):
        names = image_names(batch_view(store, second, labels=LABELS, **again))
        assert names == image_names(view)
    assert store.labels.honeypots(second) == frozen
    assert any("drawn before" in note for note in batch_view(store, second, honeypots=4).notes)


def test_they_are_no_members(store) -> None:
    second, view = mixed(store)
    batch = read_batch(store, second)
    assert (batch.size, len(batch.members), len(view.members)) == (4, 4, 6)
    assert not {member.event_id for member in view.members if member.honeypot} & {m.event_id for m in batch.members}
    pot = next(member for member in view.members if member.honeypot)
    before = truths(store)[pot.event_id]
    annotate(store, second, {int(pot.event_id, 16): [person(30)]})
    assert truths(store)[pot.event_id] == before
    assert not list(store.violations())


def test_images_with_boxes_come_first(store) -> None:
    _, view = mixed(store, wanted=5)
    pots = [int(member.event_id, 16) for member in view.members if member.honeypot]
    assert sorted(pots) == [1, 2, 3, 4, 5]  # not the empty one


def test_fewer_than_asked_for_says_so(store) -> None:
    second, view = mixed(store, wanted=9)
    assert sum(member.honeypot for member in view.members) == 6
    assert any(note.startswith("asked for 9 honeypots: no more images") for note in view.notes)
    third = made_batch(store, 2, first=30)
    store.labels.freeze_honeypots(third, [])
    assert second < third


def test_without_a_settled_image_a_note_says_so(store) -> None:
    batch = made_batch(store, 2)
    view = batch_view(store, batch, honeypots=3)
    assert len(view.members) == 2
    assert view.notes[0].startswith("no honeypots: no image of an earlier batch has a settled answer")


@pytest.mark.parametrize("fmt", Format)
def test_nothing_that_is_written_tells_them(store, tmp_path, fmt) -> None:
    _, view = mixed(store)
    report = export_batch(view, fmt, tmp_path / "out")
    assert report.images == 6
    texts = {
        path.relative_to(tmp_path / "out").as_posix(): path.read_text()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file() and path.suffix not in {".jpg", ".png"}
    }
    assert not [path for path, text in texts.items() if "honey" in text.lower() or "known answer" in text.lower()]
    assert "6 images of 1 camera" in texts["README.txt"]
    images = json.loads(texts["batch.json"])["images"]
    assert len({frozenset(image) for image in images}) == 1
    # the same proposals as ever, from their findings
    proposed = {member.event_id: member.boxes for member in view.members}
    assert {len(boxes) for boxes in proposed.values()} == {1}
    # as if they had been members all along, but for who they are
    plain = [name.split("-")[:4] for name in image_names(view)]
    assert all(part[0] == f"{view.id:04d}" and part[3] == "door" for part in plain)


def member(number, *, rank, camera="door"):
    return Member(
        event_id=event_id(number),
        site="lab",
        device="box",
        camera=camera,
        captured_at_ms=1,
        reason="missed",
        severity=0.5,
        why="",
        region=(0, 0, 1, 1),
        label="",
        boxes=(),
        jpeg=b"",
        width=64,
        height=48,
        rank=rank,
    )


@given(
    st.integers(0, 12),
    st.integers(1, 8),
    st.lists(st.tuples(st.booleans(), st.sampled_from(["door", "gate"])), max_size=10),
    st.randoms(),
)
def test_drawing_is_the_batch_numbers_alone(count, size, kinds, shuffle) -> None:
    members = [member(100 + rank, rank=rank) for rank in range(1, size + 1)]
    known = [
        Known(event_id(number), (person(1),) if boxed else (), ("lab", "box", camera))
        for number, (boxed, camera) in enumerate(kinds)
    ]
    drawn = draw(known, count, batch_id=7, members=members)
    shuffled = list(known)
    shuffle.shuffle(shuffled)
    assert draw(shuffled, count, batch_id=7, members=members) == drawn
    assert len(drawn) == min(count, len(known))
    assert len({pot.event_id for pot in drawn}) == len(drawn)
    assert {pot.rank for pot in drawn} <= set(range(1, size + 1))
    # none with less is taken while one with more is left
    worth = {one.event_id: (bool(one.boxes), one.camera[2] == "door") for one in known}
    left = [worth[one.event_id] for one in known if one.event_id not in {pot.event_id for pot in drawn}]
    assert not drawn or not left or min(worth[pot.event_id] for pot in drawn) >= max(left)


def test_two_images_are_never_called_alike() -> None:
    members = [member(1, rank=1)]
    twin = Known("f" * 24 + event_id(1)[-8:], (person(1),), ("lab", "box", "door"))
    assert draw([twin], 1, batch_id=1, members=members) == []
