"""The store's laws: on disk before an answer, at most one of each, groups and batches that count right."""

import hashlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from edge.contract.samples import Reason
from edge.contract.topics import Kind
from hub.arrivals import Arrival, Outcome
from hub.ingest import judge
from hub.store import BatchMember, FrameState, GroupAssignment, Store
from hub.store_groups import StaleError
from hub.store_ingest import MAX_PARTS, MAX_TOPIC_CHARS
from tests.hub.made import (
    arrival,
    event_id,
    event_payload,
    finding,
    gone_payload,
    heartbeat_payload,
    jpeg,
    part_payloads,
    state_payload,
)

NOW = 1_700_000_100_000


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def events(*numbers: int, inline: bool = False, **changes) -> list[Arrival]:
    return [arrival(Kind.EVENT, event_payload(number, inline=inline, **changes)) for number in numbers]


def parts(number: int, **changes) -> list[Arrival]:
    return [arrival(Kind.FRAME, payload) for payload in part_payloads(number, **changes)]


def group(store: Store, *numbers: int, group_id: int) -> None:
    """The first of `numbers` leads the group."""
    store.assign_groups([GroupAssignment(event_id(n), group_id, new=n == numbers[0]) for n in numbers])


def content(store: Store) -> list[object]:
    """Everything that must not depend on the order of arrival; ids and times do."""
    connection = store._connection
    findings = connection.execute(
        "SELECT event_id, site, device, reason, header, frame_state, jpeg FROM finding"
        " LEFT JOIN frame ON finding.id = finding_id ORDER BY event_id"
    ).fetchall()
    return [findings, connection.execute("SELECT event_id, offset, part FROM frame_part ORDER BY 1, 2").fetchall()]


def test_a_finding_comes_back_as_it_was_sent(store):
    assert store.commit(events(7), now_ms=NOW) == [Outcome(finding=event_id(7))]
    row = store.finding(event_id(7))
    assert row.finding() == finding(7)
    assert (row.region, row.reason, row.frame_state) == ((1.0, 2.0, 30.0, 40.0), Reason.MISSED, FrameState.HELD)
    assert row.crop_hash == hashlib.sha256(b"crop7").digest()
    assert row.features.dtype == np.int8
    assert row.features.tolist() == list(range(8))
    assert not list(store.violations())


def test_an_inline_frame_is_acknowledged_with_its_finding(store):
    assert store.commit(events(1, inline=True), now_ms=NOW) == [Outcome(finding=event_id(1), frame=event_id(1))]
    assert store.frame(event_id(1)) == jpeg(1)


def test_a_frame_is_acknowledged_with_its_last_part_only(store):
    store.commit(events(1), now_ms=NOW)
    *first, last = parts(1)
    assert set(store.commit(first, now_ms=NOW)) == {Outcome()}
    assert store.commit([last], now_ms=NOW) == [Outcome(frame=event_id(1))]
    assert store.frame(event_id(1)) == jpeg(1)
    assert store.commit([last], now_ms=NOW) == [Outcome(frame=event_id(1))]
    assert not list(store.violations())


def test_parts_of_another_size_fit_together(store):
    """A device that restarts with a smaller packet limit cuts the frame anew; the old parts are still here."""
    store.commit(events(1), now_ms=NOW)
    store.commit(parts(1, size=300)[:2], now_ms=NOW)
    outcomes = store.commit(parts(1, size=130)[1:], now_ms=NOW)
    assert outcomes[-1] == Outcome(frame=event_id(1))
    assert store.frame(event_id(1)) == jpeg(1)


def test_parts_may_come_before_their_finding(store):
    """Two processes share the work: one has the parts, the other still holds the finding."""
    store.commit(parts(1), now_ms=NOW)
    assert store.commit(events(1), now_ms=NOW) == [Outcome(finding=event_id(1), frame=event_id(1))]
    assert not list(store.violations())


def test_a_whole_frame_with_the_wrong_bytes_is_refused(store):
    store.commit(events(1), now_ms=NOW)
    wrong = bytearray(jpeg(1))
    wrong[-3] ^= 1
    payloads = part_payloads(1, picture=bytes(wrong))
    # The header repeats the finding's hash: only the bytes differ.
    lie = hashlib.sha256(wrong).hexdigest().encode(), hashlib.sha256(jpeg(1)).hexdigest().encode()
    outcomes = store.commit([arrival(Kind.FRAME, p.replace(*lie)) for p in payloads], now_ms=NOW)
    assert outcomes[-1].refused == (event_id(1), "the JPEG's SHA-256 is not the one the finding says")
    assert store.finding(event_id(1)).frame_state is FrameState.REFUSED
    assert content(store)[1] == []


def test_a_frame_in_crumbs_is_refused(store):
    picture = jpeg(1, width=64, height=48, noise=True)
    assert len(picture) > MAX_PARTS
    store.commit([arrival(Kind.EVENT, event_payload(1, picture=picture))], now_ms=NOW)
    outcomes = store.commit(parts(1, picture=picture, size=1)[: MAX_PARTS + 1], now_ms=NOW)
    assert outcomes[-1].refused == (event_id(1), f"more than {MAX_PARTS} parts")


def test_another_device_cannot_touch_an_event(store):
    store.commit(events(1), now_ms=NOW)
    thief = arrival(Kind.EVENT, event_payload(1, device="thief"), device="thief")
    stolen = arrival(Kind.FRAME, part_payloads(1)[0], device="thief")
    gone = arrival(Kind.FRAME, gone_payload(1), device="thief")
    outcomes = store.commit([thief, stolen, gone], now_ms=NOW)
    assert {outcome.refused for outcome in outcomes} == {(event_id(1), "this event id belongs to another device")}
    assert store.finding(event_id(1)).frame_state is FrameState.HELD


messages = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=messages, seed=st.randoms(use_true_random=False), cut=st.integers(1, 7))
def test_order_and_repetition_do_not_matter(sent, seed, cut, tmp_path_factory):
    """Law 3: the same messages, in any order, doubled and batched anyhow, make the same database."""
    kinds = {n: [*events(n), *events(n, inline=True), *parts(n, size=250)] for n in range(3)}
    chosen = [kinds[number][which % len(kinds[number])] for number, which in sent]
    shuffled = chosen + [one for one in chosen if seed.random() < 0.5]
    seed.shuffle(shuffled)
    folder = tmp_path_factory.mktemp("order")
    with Store.open(folder / "a.db") as a, Store.open(folder / "b.db") as b:
        for one in chosen:
            a.commit([one], now_ms=NOW)
        for start in range(0, len(shuffled), cut):
            b.commit(shuffled[start : start + cut], now_ms=NOW)
        assert content(a) == content(b)
        assert not list(a.violations())
        assert not list(b.violations())


def test_an_older_last_will_does_not_end_a_newer_session(store):
    said = [("one", True), ("two", True), ("one", False)]
    arrivals = [arrival(Kind.STATE, state_payload(boot_id=boot, online=online)) for boot, online in said]
    store.commit(arrivals, now_ms=NOW)
    assert store.status(now_ms=NOW).devices[0].online
    store.commit([arrival(Kind.STATE, state_payload(boot_id="two", online=False))], now_ms=NOW)
    assert not store.status(now_ms=NOW).devices[0].online


def test_status_counts(store):
    store.commit([*events(1, 2), *events(3, inline=True), *events(4, reason=Reason.CONTROL)], now_ms=NOW)
    heartbeat, broken = arrival(Kind.HEARTBEAT, heartbeat_payload(unsent=5)), arrival(Kind.EVENT, b"nonsense")
    store.commit([heartbeat, broken], now_ms=NOW)
    group(store, 1, 2, group_id=1)
    status = store.status(now_ms=NOW)
    assert status.findings == {"control": 1, "missed": 3}
    assert status.frames == {"held": 3, "present": 1}
    assert (status.groups, status.ungrouped, status.refused) == (1, 2, {"event": 1})
    assert status.frame_bytes == len(jpeg(3))
    (device,) = status.devices
    assert (device.findings, device.unsent, device.dropped, device.cameras_running) == (4, 5, 2, 1)


def test_refused_messages_are_kept_bounded(store, monkeypatch):
    monkeypatch.setattr("hub.store_ingest.REFUSED_KEPT", 5)
    for _ in range(3):
        store.commit([arrival(Kind.EVENT, b"x" * 9000)] * 4, now_ms=NOW)
    rows = store._connection.execute("SELECT id, bytes, length(head) FROM refused_message").fetchall()
    assert rows == [(n, 9000, 4096) for n in range(8, 13)]
    assert store.status(now_ms=NOW).refused == {"event": 12}


def test_the_topic_of_a_refused_message_is_cut(store):
    store.commit([judge("t" * 5000, b"", None)], now_ms=NOW)
    assert store._connection.execute("SELECT length(topic) FROM refused_message").fetchone() == (MAX_TOPIC_CHARS,)


def test_groups_are_assigned_all_or_none(store):
    store.commit(events(1, 2, 3), now_ms=NOW)
    assert [row.event_id for row in store.ungrouped()] == [event_id(n) for n in (1, 2, 3)]
    group(store, 1, 2, group_id=1)
    assert [row.event_id for row in store.ungrouped()] == [event_id(3)]
    assert store.group_sizes([1, 99]) == {1: 2}
    assert [leader.event_id for leader in store.leaders()] == [event_id(1)]
    assert list(store.leaders_after(1)) == []
    for stale in (
        GroupAssignment(event_id(2), 1, new=False),  # grouped by another process meanwhile
        GroupAssignment(event_id(3), 1, new=True),  # the number was taken meanwhile
        GroupAssignment(event_id(9), 1, new=False),  # no such finding
    ):
        with pytest.raises(StaleError):
            store.assign_groups([GroupAssignment(event_id(3), 1, new=False), stale])
    assert store.group_sizes([1]) == {1: 2}
    assert not list(store.violations())


def asked_for(store: Store) -> set[str]:
    """Which frames may be asked for."""
    held = store.held_frames(received_since_ms=0)
    return {known.event_id for known in store.frame_details([frame.id for frame in held]).values()}


def test_only_one_frame_of_a_group_is_open(store):
    store.commit([*events(1, 2, severity=0.2), *events(3, severity=0.9), *events(4, reason=Reason.CONTROL)], now_ms=NOW)
    group(store, 1, 2, 3, group_id=1)
    group(store, 4, group_id=2)
    assert asked_for(store) == {event_id(1), event_id(4)}
    assert store.mark_wanted([event_id(1), event_id(9)], now_ms=NOW) == {event_id(1)}
    assert store.mark_wanted([event_id(1)], now_ms=NOW) == set()  # it was asked for meanwhile
    assert asked_for(store) == {event_id(4)}
    # The device lost it: the most severe other member takes its place.
    store.commit([arrival(Kind.FRAME, gone_payload(1))], now_ms=NOW)
    assert asked_for(store) == {event_id(3), event_id(4)}
    assert store.finding(event_id(1)).frame_state is FrameState.GONE


def test_a_new_member_replaces_a_frame_that_was_lost(store):
    store.commit(events(1), now_ms=NOW)
    group(store, 1, group_id=1)
    store.mark_wanted([event_id(1)], now_ms=NOW)
    store.commit([arrival(Kind.FRAME, gone_payload(1)), *events(2)], now_ms=NOW)
    store.assign_groups([GroupAssignment(event_id(2), 1, new=False)])
    assert asked_for(store) == {event_id(2)}


def test_wants_are_overdue_for_living_devices_only(store):
    store.commit(events(1), now_ms=NOW)
    group(store, 1, group_id=1)
    store.mark_wanted([event_id(1)], now_ms=NOW)

    def overdue(before_ms: int) -> list[str]:
        found = store.overdue_wants(asked_before_ms=before_ms, alive_since_ms=NOW, limit_per_device=5)
        return [want.event_id for want in found]

    assert overdue(NOW + 1) == []  # the device was never heard
    store.commit([arrival(Kind.HEARTBEAT, heartbeat_payload())], now_ms=NOW)
    assert overdue(NOW + 1) == [event_id(1)]
    assert overdue(NOW) == []  # asked just now
    # A new session: the broker may have dropped what it held for the old one.
    store.commit([arrival(Kind.STATE, state_payload(boot_id="boot-2"))], now_ms=NOW)
    assert overdue(NOW) == [event_id(1)]
    store.mark_asked([event_id(1)], now_ms=NOW)
    assert overdue(NOW) == []
    assert store.spent_since(NOW)["lab", "box"].outstanding == 1


def test_a_want_that_is_never_answered_is_given_up(store):
    store.commit(events(1, 2), now_ms=NOW)
    store.commit(parts(9)[:1], now_ms=NOW)
    group(store, 1, 2, group_id=1)
    store.mark_wanted([event_id(1)], now_ms=NOW)
    assert store.give_up(wanted_before_ms=NOW, parts_before_ms=NOW) == 0
    assert store.give_up(wanted_before_ms=NOW + 1, parts_before_ms=NOW + 1) == 1
    assert content(store)[1] == []
    assert asked_for(store) == {event_id(2)}


def test_candidates_are_one_of_a_group_with_a_frame_and_not_batched(store):
    store.commit([*events(1), *events(2, inline=True), *events(3, inline=True, severity=0.9)], now_ms=NOW)
    store.commit([*events(4, 5, inline=True), *events(6)], now_ms=NOW)
    group(store, 1, 2, 3, group_id=1)  # the leader's frame is not here: the most severe stands in
    group(store, 4, 5, group_id=2)  # the leader, though both are here
    group(store, 6, group_id=3)  # no frame
    assert [row.event_id for row in store.candidates()] == [event_id(3), event_id(4)]
    number = store.freeze_batch([BatchMember(event_id(3), 1, "new", 0.5)], now_ms=NOW, title="t", model="m")
    assert [row.event_id for row in store.candidates()] == [event_id(4)]
    assert store.batch(number).size == 1
    assert store.batch_members(number) == [BatchMember(event_id(3), 1, "new", 0.5, rank=1)]
    assert [batch.id for batch in store.batches()] == [number]
    assert not list(store.violations())


@pytest.mark.parametrize(
    "member",
    [
        BatchMember(event_id(1), 1, "", 0.0),  # its frame is not here
        BatchMember(event_id(2), 2, "", 0.0),  # another group
        BatchMember(event_id(3), 1, "", 0.0),  # a second one of a group that is batched
        BatchMember(event_id(9), 1, "", 0.0),  # no such finding
    ],
)
def test_a_batch_that_cannot_be_is_not_frozen(store, member):
    store.commit([*events(1), *events(2, 3, inline=True)], now_ms=NOW)
    group(store, 1, 2, 3, group_id=1)
    with pytest.raises(UnusableError):
        store.freeze_batch([BatchMember(event_id(2), 1, "", 0.0), member], now_ms=NOW, title="t")
    assert store.batches() == []


def test_absent_rows_are_named(store):
    for call in (lambda: store.finding(event_id(1)), lambda: store.frame(event_id(1)), lambda: store.batch(3)):
        with pytest.raises(UnusableError, match=r"no finding|not here|no batch 3"):
            call()
    with pytest.raises(UnusableError, match="at least one"):
        store.freeze_batch([], now_ms=NOW, title="t")


def test_many_open_one_new_file_at_once(tmp_path):
    """Two hubs and a `hub status` start together: one schema, no error."""
    gate = threading.Barrier(8)

    def work() -> None:
        gate.wait()
        Store.open(tmp_path / "hub.db").close()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work) for _ in range(8)]:
            done.result()


def _text(path: Path) -> None:
    path.write_text("this is no database, it is a text of more than a hundred bytes " * 4)


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (x)")
    connection.close()


def _newer(path: Path) -> None:
    Store.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES ('weakspot-hub', '9999_later', '')"
        )
    connection.close()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "there is no database"),  # a typo in the name must not make an empty database
        (lambda path: path.mkdir(), "there is no database"),  # a folder
        (_text, "file is not a database"),
        (_foreign, "not one of weakspot's"),  # never write our tables into someone else's file
        (_newer, "newer weakspot"),  # a downgrade
    ],
)
def test_what_is_not_our_database_is_named(tmp_path, make, message):
    path = tmp_path / "hub.db"
    make(path)
    with pytest.raises(UnusableError, match=message):
        Store.open(path, create=False)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UnusableError, match="cannot open the database"):
        Store.open(tmp_path / "nowhere" / "hub.db")


def test_the_pragmas_stand(store):
    connection = store._connection
    read = {name: connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")}
    assert read == {"journal_mode": "wal", "synchronous": 2}
    assert connection.execute("PRAGMA foreign_keys").fetchone() == (1,)


def test_a_leader_comes_before_the_more_severe(store):
    store.commit([*events(5, inline=True, severity=0.1), *events(4, inline=True, severity=0.9)], now_ms=NOW)
    store.commit(events(3, inline=True, severity=0.1), now_ms=NOW)
    group(store, 3, 4, 5, group_id=1)
    assert [row.event_id for row in store.candidates()] == [event_id(3)]


def test_a_frame_that_was_gone_cost_nothing(store):
    store.commit(events(1, 2), now_ms=NOW)
    group(store, 1, group_id=1)
    group(store, 2, group_id=2)
    store.mark_wanted([event_id(1), event_id(2)], now_ms=NOW)
    store.commit([arrival(Kind.FRAME, gone_payload(1))], now_ms=NOW)
    assert store.spent_since(NOW) == {("lab", "box"): (len(jpeg(2)), 1)}
    assert store.spent_since(NOW + 1) == {("lab", "box"): (0, 1)}  # it still waits


@pytest.mark.parametrize("damage", ["header = x'7b22'", "header = x'22ff22'", "reason = 'evil'", "features = 1.5"])
def test_a_damaged_row_is_named(store, damage):
    store.commit(events(1, inline=True), now_ms=NOW)
    store._connection.execute(f"UPDATE finding SET {damage}")
    with pytest.raises(UnusableError, match=event_id(1)):
        store.finding(event_id(1)).finding()
