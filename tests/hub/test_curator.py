"""The curator on the real store, step by step: groups that a restart does not change, wants, and the pool."""

from typing import ClassVar

import pytest

from edge.contract.samples import Box, Reason
from edge.contract.topics import Kind
from hub.config import HOUR_MS, WantsConfig
from hub.curator import Curator
from hub.dedupe import DuplicateIndex
from hub.store import BatchMember, FrameState, GroupAssignment, Store
from hub.store_forgotten import Scope
from hub.store_groups import StaleError
from hub.store_labels import LabelSet
from hub.tags import Tagger, TagsConfig
from tests.hub.made import arrival, event_id, event_payload, finding, gone_payload, heartbeat_payload, part_payloads
from tests.hub.two_devices import forget

NOW = 1_700_000_100_000
DAY_MS = 24 * HOUR_MS
BLACK = "0" * 64


class Line:
    """Keeps what is asked for, by event; `watch` runs before."""

    def __init__(self, watch=lambda want: None) -> None:
        self.asked: list[tuple[str, str]] = []
        self._watch = watch

    def want(self, site, device, want) -> None:
        self._watch(want)
        self.asked += [(device, event_id) for event_id in want.event_ids]

    def of(self, device: str) -> int:
        return sum(name == device for name, _ in self.asked)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


def curator(store, line=None, **wants) -> Curator:
    rule = WantsConfig(**wants)
    return Curator(
        store, make_index=DuplicateIndex, line=line or Line(), wants=rule, tagger=Tagger(TagsConfig()), pace_s=0
    )


def step(curator: Curator, now_ms: int = NOW, *, times: int = 1) -> None:
    for _ in range(times):
        curator._ask_from_s = 0.0  # the time that the last round took does not hold the next one back
        curator.step(now_ms)


def put(store, *numbers, device="box", now_ms=NOW, **changes) -> None:
    payloads = [event_payload(number, device=device, **changes) for number in numbers]
    store.commit([arrival(Kind.EVENT, payload, device=device) for payload in payloads], now_ms=now_ms)


def beat(store, *devices, now_ms=NOW) -> None:
    store.commit([arrival(Kind.HEARTBEAT, heartbeat_payload(), device=device) for device in devices], now_ms=now_ms)


def groups(store) -> list[tuple[str, int]]:
    return [(row.event_id, row.group_id) for n in range(1, 10) if (row := known(store, n)) is not None]


def known(store, number):
    count = store._connection.execute("SELECT count(*) FROM finding WHERE event_id = ?", (event_id(number),))
    return store.finding(event_id(number)) if count.fetchone()[0] else None


SAME = {"crop_hash": "ab" * 32}


@pytest.mark.parametrize(
    "captured_ms",
    [
        [0, 1000, 2000],
        [0, -4 * DAY_MS, -4 * DAY_MS + 1000],  # late by days: from before all that the index has read
        [5 * DAY_MS, 6 * DAY_MS, 0, 6 * DAY_MS + 1000, 7 * DAY_MS, 1000],
        [0, 5 * DAY_MS, 6 * DAY_MS, 1000],  # late, in a process that has read the newer groups only
        [DAY_MS, 0, -1000],  # joins by the first member, which is not the leader
    ],
)
def test_a_restart_changes_no_group(tmp_path, captured_ms):
    """Law 3."""
    made = []
    for restarts in ((), (3,), (2, 3, 4, 5, 6)):
        with Store.open(tmp_path / f"{len(restarts)}.db") as store:
            now = curator(store)
            for number, at_ms in enumerate(captured_ms, start=1):
                put(store, number, captured_at_ms=NOW - 30 * DAY_MS + at_ms, **SAME)
                now = curator(store) if number in restarts else now
                step(now)
            made.append(groups(store))
    assert made[0] == made[1] == made[2]
    assert len({group for _, group in made[0]}) < len(captured_ms)


def test_after_a_failed_assignment_the_groups_are_read_again(store, monkeypatch):
    """Until the transaction stands the index knows groups that do not exist."""
    now, assign = curator(store), store.assign_groups
    put(store, 1, **SAME)
    step(now)
    put(store, 2)
    put(store, 3, **SAME)

    def stale(assignments: list[GroupAssignment], *, forgettings: tuple[int, int]) -> None:
        monkeypatch.setattr(store, "assign_groups", assign)
        msg = "another process was faster"
        raise StaleError(msg)

    monkeypatch.setattr(store, "assign_groups", stale)
    step(now)
    assert groups(store) == [(event_id(1), 1), (event_id(2), None), (event_id(3), None)]
    put(store, 4, crop_hash=finding(2).crop_hash, captured_at_ms=finding(2).captured_at_ms)
    step(now)
    assert groups(store) == [(event_id(1), 1), (event_id(2), 2), (event_id(3), 1), (event_id(4), 2)]


def test_a_want_is_recorded_before_it_is_sent(store):
    """Law 2."""
    states = []
    line = Line(lambda want: states.extend(store.finding(one).frame_state for one in want.event_ids))
    beat(store, "box")
    put(store, 1, 2)
    step(curator(store, line))
    assert states == [FrameState.WANTED] * 2


def test_dead_devices_do_not_hold_the_pool(store):
    line = Line()
    now = curator(store, line, explore=20)
    beat(store, "dead")
    put(store, *range(80), device="dead")
    step(now)
    assert line.of("dead") == 20
    later = NOW + HOUR_MS
    beat(store, "alive", now_ms=later)
    put(store, *range(100, 180), device="alive", now_ms=later)
    step(now, later)
    assert (line.of("dead"), line.of("alive")) == (20, 20)


def test_black_frames_fill_no_pool_and_are_not_asked_for(store):
    line = Line()
    beat(store, "box")
    put(store, *range(30), inline=True, frame_hash=BLACK)
    put(store, 50, frame_hash=BLACK, crop_hash="cd" * 32)
    put(store, 51, captured_at_ms=finding(50).captured_at_ms, crop_hash="cd" * 32)  # of the same group
    put(store, 52, reason=Reason.CONTROL, frame_hash=BLACK)
    put(store, *range(100, 110))
    step(curator(store, line, explore=100))
    asked = {event for _, event in line.asked}
    assert store.finding(event_id(50)).group_id == store.finding(event_id(51)).group_id
    assert asked == {event_id(number) for number in (51, *range(100, 110))}


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_hash": BLACK},  # a flat region
        {"region": (0.0, 0.0, 64.0, 48.0)},  # nothing that it points at
        {"region": (1.0, 1.0, 1.5, 30.0)},  # nothing to see
    ],
)
def test_junk_is_not_asked_for(store, changes):
    line = Line()
    beat(store, "box")
    put(store, 1, **changes)
    put(store, 2)
    step(curator(store, line))
    assert line.asked == [("box", event_id(2))]


def test_a_lost_frame_is_not_replaced_by_a_black_one(store):
    line = Line()
    now = curator(store, line)
    beat(store, "box")
    put(store, 1, **SAME)
    put(store, 2, frame_hash=BLACK, severity=0.9, **SAME)
    step(now)
    store.commit([arrival(Kind.FRAME, gone_payload(1))], now_ms=NOW)
    step(now)
    assert [event for _, event in line.asked] == [event_id(1)]


@pytest.mark.parametrize(
    ("changes", "least"),
    [
        (SAME, 35),  # many frames of one group: it is one of the pool of 40
        ({}, 10),  # many groups: they fill their device's part and what the other leaves
    ],
)
def test_frames_that_nobody_asked_for_do_not_starve_the_others(store, changes, least):
    line = Line()
    beat(store, "all", "alive")
    put(store, *range(150), device="all", inline=True, severity=0.1, **changes)
    put(store, *range(500, 700), device="alive")
    step(curator(store, line, explore=40))
    assert line.of("alive") >= least


def test_wants_of_any_age_wait(store):
    line = Line()
    now = curator(store, line, outstanding_per_device=5, resend_s=10**7)
    beat(store, "box")
    put(store, *range(20))
    step(now)
    later = NOW + 2 * DAY_MS
    beat(store, "box", now_ms=later)
    step(now, later)
    assert len(line.asked) == 5


class TestOnePictureOfTwoFindings:
    PICTURE: ClassVar = {"picture": b"\xff\xd8 the same picture \xff\xd9"}

    def test_it_is_asked_for_once(self, store):
        line = Line()
        now = curator(store, line)
        beat(store, "box")
        put(store, 1, severity=0.9, **self.PICTURE)
        put(store, 2, region=(31.0, 2.0, 60.0, 40.0), **self.PICTURE)
        step(now, times=2)
        assert line.asked == [("box", event_id(1))]
        # The device has lost it: the other finding does not keep quiet because of what never came.
        store.commit([arrival(Kind.FRAME, gone_payload(1))], now_ms=NOW)
        step(now)
        assert line.asked == [("box", event_id(1)), ("box", event_id(2))]

    def test_it_is_asked_for_again_when_its_group_gave_another(self, store):
        line = Line()
        now = curator(store, line)
        beat(store, "box")
        put(store, 1, inline=True, **SAME)
        put(store, 2, inline=True, **SAME)
        put(store, 3, region=(31.0, 2.0, 60.0, 40.0), frame_sha256=finding(2).frame_sha256)
        step(now)
        assert line.asked == []
        store.freeze_batch([BatchMember(event_id(1), 1, "", 1.0)], now_ms=NOW, title="t")
        step(now)
        assert line.asked == [("box", event_id(3))]


def answer(store, line) -> None:
    for _, event in line.asked:
        store.commit([arrival(Kind.FRAME, payload) for payload in part_payloads(int(event, 16))], now_ms=NOW)


def test_what_a_device_answers_leaves_the_pool_with_its_batch(store):
    line = Line()
    now = curator(store, line, explore=5)
    beat(store, "box")
    put(store, *range(1, 29))
    step(now, times=2)
    assert line.of("box") == 5
    answer(store, line)
    step(now)
    assert line.of("box") == 5
    members = [BatchMember(row.event_id, row.group_id, "", 1.0) for row in store.candidates()]
    store.freeze_batch(members, now_ms=NOW, title="t")
    step(now)
    assert line.of("box") == 10


def test_what_a_machine_has_labelled_fills_no_pool(store):
    """No batch takes it, so that others are asked for in its place; but never another of the same group."""
    line = Line()
    now = curator(store, line, explore=5)
    beat(store, "box")
    put(store, *range(1, 29))
    step(now, times=2)
    answer(store, line)
    step(now)
    assert line.of("box") == 5
    made = LabelSet(0, None, "machine", "m", "", ("person",), NOW, "certificate 1", None)
    store.labels.add(made, {event: () for _, event in line.asked[:3]})
    assert len(store.candidates()) == 2
    step(now)
    assert line.of("box") == 8
    assert len({event for _, event in line.asked}) == 8


def test_what_is_too_old_is_asked_for_no_more(store):
    line = Line()
    now = curator(store, line, max_age_h=1.0)
    put(store, 1, 2)
    step(now)  # no device is alive, and nothing is asked
    assert len(store.held_frames(received_since_ms=0)) == 2
    later = NOW + 2 * HOUR_MS
    beat(store, "box", now_ms=later)
    step(now, later)
    assert line.asked == []
    assert store.held_frames(received_since_ms=0) == []


def test_a_number_that_names_another_finding_is_read_again(store):
    """After a forgetting the numbers of what went are given again."""
    line = Line()
    now = curator(store, line)
    put(store, *range(1, 29))
    step(now, times=2)  # no device is alive: they are read and not asked for
    forget(store, Scope("lab", "box", NOW, whole=True))
    put(store, *range(100, 128), device="other")
    beat(store, "other")
    step(now, times=2)
    assert line.of("other") > 0
    assert line.of("other") == len(line.asked)


def test_what_another_process_has_changed_meanwhile_is_not_asked_for(store, monkeypatch):
    line = Line()
    now, spent = curator(store, line), store.spent_since
    beat(store, "box")
    put(store, *range(1, 29))

    def changed(since_ms):
        store._connection.execute("UPDATE finding SET frame_state = 'gone', want_open = 0 WHERE id <> 3")
        return spent(since_ms)

    monkeypatch.setattr(store, "spent_since", changed)
    step(now)
    assert {event for _, event in line.asked} <= {event_id(3)}
    assert not list(store.violations())


class TestAWeakSpot:
    """A weak spot of all that is `tiny`, opened when the frames of other findings are here."""

    def opened(self, store) -> int:
        row = store._connection.execute(
            "INSERT INTO weak_spot (name, tags, manual, state, opened_at_ms, named_at_ms)"
            " VALUES ('tiny', ' tiny ', 0, 'open', ?, ?) RETURNING id",
            (NOW, NOW),
        )
        return row.fetchone()[0]

    def test_it_gets_what_the_devices_still_hold_and_nothing_else_comes(self, store):
        line = Line()
        now = curator(store, line, explore=5, pool=20)
        beat(store, "box")
        put(store, *range(100, 140))
        put(store, *range(1, 11), tags=("dark", "tiny"))
        step(now, times=2)
        before = {event for _, event in line.asked}
        assert len(before) == 5
        self.opened(store)
        later = NOW + HOUR_MS
        beat(store, "box", now_ms=later)
        put(store, *range(200, 230), now_ms=later)
        step(now, later, times=2)
        after = {int(event, 16) for _, event in line.asked if event not in before}
        assert after
        assert after <= set(range(1, 11))

    def test_control_frames_that_show_it_go_first(self, store):
        line = Line()
        beat(store, "box")
        put(store, *range(1, 81), tags=("tiny",))
        shown = {number: ("tiny",) if number in {305, 309} else ("big",) for number in range(300, 320)}
        for number, tags in shown.items():
            box = Box((1.0, 2.0, 30.0, 40.0), "person", 0.9, tags=tags)
            put(store, number, reason=Reason.CONTROL, looked_twice=True, boxes=(box,))
        self.opened(store)
        step(curator(store, line, pool=20))
        asked = {int(event, 16) for _, event in line.asked}
        assert len([number for number in asked if number < 300]) == 20
        assert asked - set(range(1, 81)) == {305, 309}

    def test_one_that_is_batched_gets_what_its_batch_lacked(self, store):
        line = Line()
        now = curator(store, line, pool=10, explore=0)
        number = self.opened(store)
        beat(store, "box")
        put(store, *range(1, 81), tags=("tiny",))
        step(now)
        assert len(line.asked) == 10
        answer(store, line)
        members = [BatchMember(row.event_id, row.group_id, "", 1.0) for row in list(store.candidates())[:4]]
        store.freeze_batch(members, now_ms=NOW, title="t", weak_spot_id=number)
        store._connection.execute("UPDATE weak_spot SET state = 'batched'")
        step(now)
        assert len(line.asked) == 10  # six are here: as many as a pool less the batch
        store._connection.execute("UPDATE weak_spot SET state = 'not_fixed'")
        step(now)
        assert len(line.asked) == 14
        store._connection.execute("UPDATE weak_spot SET state = 'trained'")
        put(store, *range(100, 140), tags=("tiny",))
        step(now)
        assert len(line.asked) == 14


def test_black_frames_do_not_stand_for_a_group(store):
    put(store, 1, 3, inline=True, frame_hash=BLACK)
    put(store, 2, inline=True)
    put(store, 4, inline=True, reason=Reason.CONTROL)
    leads = {1: True, 2: False, 3: True, 4: True}
    store.assign_groups(
        [GroupAssignment(event_id(n), 1 if n < 3 else n - 1, new=leads_it) for n, leads_it in leads.items()]
    )
    assert [row.event_id for row in store.candidates()] == [event_id(2), event_id(4)]
