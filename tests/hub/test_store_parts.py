"""Parts of frames that are not whole: bounded, joined in any order, and held against the finding that is here."""

import hashlib

import pytest

from edge.contract.errors import UnusableError
from edge.contract.samples import FrameHeader, encode_frame
from edge.contract.topics import Kind
from hub.arrivals import Arrival, Outcome
from hub.store import FrameState, Store
from tests.hub.made import arrival, event_id, jpeg
from tests.hub.test_store import NOW, events, parts, store

__all__ = ["store"]  # a fixture


def part(number: int, offset: int, content: bytes, *, size: int | None = None, device: str = "box") -> Arrival:
    """Any bytes as a part of the frame of finding `number`."""
    whole = jpeg(number)
    header = FrameHeader(
        event_id=event_id(number), size=size or len(whole), sha256=hashlib.sha256(whole).hexdigest(), offset=offset
    )
    return arrival(Kind.FRAME, encode_frame(header, content), device=device)


def waiting(store: Store) -> tuple[int, int]:
    found = store._connection.execute("SELECT count(*), coalesce(sum(length(part)), 0) FROM frame_part").fetchone()
    return int(found[0]), int(found[1])


FULL = "too many parts of frames that are not whole"


@pytest.mark.parametrize("one_transaction", [True, False])
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(("limit", "value"), [("MAX_WAITING_BYTES", 1000), ("MAX_WAITING_PARTS", 10)])
def test_a_device_cannot_fill_the_disk_with_parts(store, monkeypatch, known, limit, value, one_transaction):
    """Known or not, wanted or not: a device has so many bytes and so many parts that are in no frame yet."""
    monkeypatch.setattr(f"hub.store_ingest.{limit}", value)
    if known:
        store.commit(events(*range(11)), now_ms=NOW)
    sent = [part(number, 0, b"x" * 100) for number in range(11)]
    if one_transaction:
        outcomes = store.commit(sent, now_ms=NOW)
    else:
        outcomes = [outcome for one in sent for outcome in store.commit([one], now_ms=NOW)]
    assert outcomes == [*[Outcome()] * 10, Outcome(refused=(event_id(10), FULL))]
    assert waiting(store) == (10, 1000)
    if known:
        assert store.status(now_ms=NOW).frames == {"held": 10, "refused": 1}
    assert store.commit([part(99, 0, b"x" * 100, device="other")], now_ms=NOW) == [Outcome()]  # its own limit


def test_what_has_become_a_frame_counts_no_more(store, monkeypatch):
    monkeypatch.setattr("hub.store_ingest.MAX_WAITING_BYTES", 2 * len(jpeg(1)))
    numbers = range(1, 9)
    store.commit(events(*numbers), now_ms=NOW)
    outcomes = store.commit([one for number in numbers for one in parts(number)], now_ms=NOW)
    assert [outcome.frame for outcome in outcomes if outcome.frame] == [event_id(number) for number in numbers]
    assert waiting(store) == (0, 0)


def test_overlapping_parts_are_bounded_by_the_frame(store):
    """The last byte never comes; without a limit every offset of the frame would be kept to its end."""
    store.commit(events(1), now_ms=NOW)
    size = len(jpeg(1))
    outcomes = [store.commit([part(1, at, b"x" * (size - at - 1))], now_ms=NOW)[0] for at in range(1, 4)]
    assert outcomes == [
        Outcome(),
        Outcome(),
        Outcome(refused=(event_id(1), "its parts are more than 2 times the frame")),
    ]
    assert waiting(store) == (0, 0)
    assert store.finding(event_id(1)).frame_state is FrameState.REFUSED


def test_the_longer_part_wins(store):
    store.commit(events(1), now_ms=NOW)
    whole = jpeg(1)
    store.commit([part(1, 0, whole[:200]), part(1, 0, whole[:100])], now_ms=NOW)
    assert waiting(store) == (1, 200)
    store.commit([part(1, 0, whole[:250])], now_ms=NOW)
    store.commit([part(1, 0, whole[:150])], now_ms=NOW)
    assert waiting(store) == (1, 250)
    assert store.commit([part(1, 250, whole[250:])], now_ms=NOW) == [Outcome(frame=event_id(1))]


def test_a_hole_is_waited_for_even_when_there_are_bytes_enough(store):
    """Overlapping parts have as many bytes as the frame, and are not the frame: it is neither made nor refused."""
    store.commit(events(1), now_ms=NOW)
    whole = jpeg(1)
    hole = len(whole) // 2
    sent = [part(1, 0, whole[:hole]), part(1, hole + 1, whole[hole + 1 :]), part(1, hole + 2, whole[hole + 2 :])]
    assert store.commit(sent, now_ms=NOW) == [Outcome()] * 3
    assert waiting(store)[1] >= len(whole)
    assert store.finding(event_id(1)).frame_state is FrameState.HELD
    assert store.commit([part(1, hole, whole[hole : hole + 1])], now_ms=NOW) == [Outcome(frame=event_id(1))]
    assert store.frame(event_id(1)) == whole


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"frame_bytes": 5}, "bytes, the finding says 5"), ({"width": 63}, "64x48 pixels, the finding says 63x48")],
)
def test_an_inline_frame_is_held_against_the_finding_that_is_here(store, changes, reason):
    """Law 3: the same event id comes twice; the first one stands, and a frame that is not its own is not put to it."""
    store.commit(events(1, **changes), now_ms=NOW)
    assert store.commit(events(1, inline=True), now_ms=NOW) == [Outcome(finding=event_id(1))]
    assert store.finding(event_id(1)).frame_state is FrameState.HELD
    (text,) = store._connection.execute("SELECT reason FROM refused_message").fetchone()
    assert reason in text
    assert not list(store.violations())


@pytest.mark.parametrize("how", ["delete", "move", "replace"])
def test_what_is_stored_in_a_lost_file_is_not_acknowledged(tmp_path, how):
    """Law 2: SQLite goes on writing into a file that has no name any more."""
    path = tmp_path / "hub.db"
    with Store.open(path) as store:
        store.commit(events(1), now_ms=NOW)
        path.rename(tmp_path / "old.db")
        if how == "delete":
            (tmp_path / "old.db").unlink()
        if how == "replace":
            path.write_bytes(b"another file")
        with pytest.raises(UnusableError, match="deleted or moved while it was in use"):
            store.commit(events(2), now_ms=NOW)
