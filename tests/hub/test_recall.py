"""Recall without ground truth: the estimate holds what it promises, and heartbeats add up, however they come."""

import itertools
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from edge.contract.status import Heartbeat, RecallCounts, decode, encode
from edge.contract.topics import Kind
from hub.arrivals import Arrival
from hub.check import status_lines
from hub.cli import app
from hub.recall import HOUR_MS, MIN_SECOND_LOOK, CameraRecall, Recall, by_camera, estimate, step, total
from hub.store import Store
from hub.store_recall import KEPT_DAYS, SHOWN_DAYS
from hub.store_status import HubStatus
from tests.brokers import broker, wait_until
from tests.hub.devices import Device, Hub
from tests.hub.made import arrival, heartbeat_payload

__all__ = ["broker"]  # a fixture
DAY_MS = 24 * HOUR_MS
NOW = 1_700_000_100_000  # 22:15 UTC
THIS_HOUR = NOW - NOW % HOUR_MS
NOTHING = RecallCounts()
runner = CliRunner()


def counts(frames: int, detector: int, second_look: int, both: int) -> RecallCounts:
    return RecallCounts(frames=frames, detector=detector, second_look=second_look, both=both)


def payload(cameras: dict[str, RecallCounts], *, boot_id: str = "boot-1") -> bytes:
    whole = decode(heartbeat_payload(boot_id=boot_id), Heartbeat)
    each = [msgspec.structs.replace(whole.cameras[0], name=name, recall=recall) for name, recall in cameras.items()]
    return encode(msgspec.structs.replace(whole, cameras=tuple(each)))


def heartbeat(recall: RecallCounts, *, boot_id: str = "boot-1", camera: str = "door", device: str = "box") -> Arrival:
    return arrival(Kind.HEARTBEAT, payload({camera: recall}, boot_id=boot_id), device=device)


def sums(recall: Recall) -> RecallCounts:
    return counts(recall.frames, recall.detector, recall.second_look, recall.both)


def cameras_of(store: Store, now_ms: int = NOW) -> dict[str, CameraRecall]:
    return {f"{one.device}/{one.camera}": one for one in store.status(now_ms=now_ms).recall}


ESTIMATES = {
    "all found": (counts(9, 50, 50, 50), (1.0, 0.9148, 1.0)),
    "none found": (counts(9, 0, 50, 0), (0.0, 0.0, 0.0852)),
    "61 * 51 / 41 - 1 = 74.88 objects; 41.92 of 53.84": (counts(9, 60, 50, 40), (0.8013, 0.6676, 0.8896)),
    "the second look finds more than the first": (counts(9, 40, 60, 38), (0.6336, 0.5066, 0.7440)),
    "just enough": (counts(1, 12, MIN_SECOND_LOOK, 6), (0.5185, 0.2538, 0.7462)),
}


@pytest.mark.parametrize(("counted", "expected"), ESTIMATES.values(), ids=ESTIMATES)
def test_estimates(counted, expected):
    made = estimate(counted)
    assert made is not None
    assert (made.recall, made.low, made.high) == pytest.approx(expected, abs=1e-4)


possible = st.tuples(st.integers(0, 5000), st.integers(0, 5000), st.floats(0, 1)).map(
    lambda drawn: counts(9, drawn[0], drawn[1], int(min(drawn[:2]) * drawn[2]))
)


@given(possible)
def test_an_estimate_lies_in_its_interval_and_the_interval_says_something(counted):
    made = estimate(counted)
    assert (made is None) == (counted.second_look < MIN_SECOND_LOOK)
    if made is not None:
        assert 0 <= made.low <= made.recall <= made.high <= 1
        assert made.high - made.low <= 0.5


@pytest.mark.parametrize("objects", [20, 60, 500])
@pytest.mark.parametrize("second", [0.5, 0.9])
@pytest.mark.parametrize("first", [0.1, 0.5, 0.8, 0.95])
def test_the_interval_holds_the_recall_of_independent_looks(objects, first, second):
    """3000 runs: the error of a coverage of .95 is .004, so .93 is missed by chance once in a million times."""
    rng = np.random.default_rng([objects, int(100 * first), int(100 * second)])
    n1 = rng.binomial(objects, first, 3000)
    both = rng.binomial(n1, second)
    n2 = both + rng.binomial(objects - n1, second)
    held = [
        made.low <= first <= made.high
        for numbers in zip(n1.tolist(), n2.tolist(), both.tolist(), strict=True)
        if (made := estimate(counts(1, *numbers))) is not None
    ]
    assert len(held) > 300
    assert np.mean(held) >= 0.93


def test_what_neither_look_can_see_makes_the_estimate_too_high():
    """Half of 400 objects are hidden from both looks, which find .8 of the rest: the recall is .4, the estimate .8."""
    made = estimate(counts(40, 160, 160, 128))
    assert made is not None
    assert made.recall == pytest.approx(0.8, abs=0.01)


STEPS = {
    "the first of a boot": (NOTHING, counts(2, 5, 6, 4), counts(2, 5, 6, 4)),
    "one more": (counts(2, 5, 6, 4), counts(3, 9, 8, 6), counts(1, 4, 2, 2)),
    "an empty street": (counts(2, 5, 6, 4), counts(3, 5, 6, 4), counts(1, 0, 0, 0)),
    "the same again": (counts(2, 5, 6, 4), counts(2, 5, 6, 4), None),
    "an older one, late": (counts(3, 9, 8, 6), counts(2, 5, 6, 4), None),
    "more found by both than by one": (NOTHING, counts(1, 5, 1, 2), None),
    "a counter that went down": (counts(2, 5, 6, 4), counts(3, 4, 6, 4), None),
    "objects without a frame": (counts(2, 5, 6, 4), counts(2, 6, 7, 5), None),
    "more objects than a frame can have": (NOTHING, counts(1, 2**53 - 1, 2**53 - 1, 0), None),
    "more frames than there can be": (NOTHING, counts(2**53 - 1, 1, 1, 1), None),
}


@pytest.mark.parametrize(("mark", "now", "expected"), STEPS.values(), ids=STEPS)
def test_a_step(mark, now, expected):
    assert step(mark, now) == expected


one_frame = st.tuples(st.integers(0, 9), st.integers(0, 9), st.floats(0, 1)).map(
    lambda drawn: counts(1, drawn[0], drawn[1], int(min(drawn[:2]) * drawn[2]))
)
boots = st.dictionaries(st.sampled_from(["boot-1", "boot-2", "boot-3"]), st.lists(one_frame, min_size=1, max_size=6))


@settings(max_examples=40, deadline=None)
@given(boots, st.randoms(use_true_random=False), st.data())
def test_heartbeats_add_up_in_any_order_lost_or_twice(tmp_path_factory, frames_of_boots, shuffler: random.Random, data):
    """Law 1 of the store: what is booked is the last counts of each boot, if at least the last heartbeat of it came."""
    heard, expected = [], []
    for boot_id, frames in frames_of_boots.items():
        cumulative = list(itertools.accumulate(frames, lambda a, b: total([a, b])))
        expected.append(cumulative[-1])
        others = data.draw(st.lists(st.sampled_from(cumulative), max_size=8))
        heard += [heartbeat(one, boot_id=boot_id) for one in [cumulative[-1], *others]]
    shuffler.shuffle(heard)
    with Store.open(tmp_path_factory.mktemp("hub") / "hub.db") as store:
        cut = shuffler.randrange(len(heard) + 1)
        store.commit(heard[:cut], now_ms=NOW - 2 * HOUR_MS)
        store.commit(heard[cut:], now_ms=NOW)
        booked = cameras_of(store)
        if heard:
            assert sums(booked["box/door"].last_day) == total(expected)
            assert total(sums(hour.recall) for hour in booked["box/door"].hours) == total(expected)
        assert not list(store.violations())


def test_counts_stand_in_the_hour_in_which_they_were_heard(tmp_path):
    with Store.open(tmp_path / "hub.db") as store:
        store.commit([heartbeat(counts(1, 5, 6, 4))], now_ms=THIS_HOUR - HOUR_MS)
        store.commit([heartbeat(counts(2, 7, 9, 6))], now_ms=THIS_HOUR - 1)
        store.commit([heartbeat(counts(4, 9, 9, 6))], now_ms=THIS_HOUR)
        (camera,) = cameras_of(store).values()
    hours = [(hour.hour_ms, sums(hour.recall)) for hour in camera.hours]
    assert hours == [(THIS_HOUR - HOUR_MS, counts(2, 7, 9, 6)), (THIS_HOUR, counts(2, 2, 0, 0))]
    assert sums(camera.last_hour) == counts(2, 7, 9, 6)
    assert sums(camera.last_day) == counts(4, 9, 9, 6)


def test_the_last_day_is_this_hour_and_the_23_before():
    rows = [("lab", "box", "door", THIS_HOUR - hour * HOUR_MS, counts(1, hour, 0, 0)) for hour in (0, 1, 23, 24)]
    (camera,) = by_camera(reversed(rows), now_ms=NOW)
    assert (camera.last_hour.detector, camera.last_day.detector) == (1, 24)
    assert [hour.recall.detector for hour in camera.hours] == [24, 23, 1, 0]


def test_cameras_devices_and_boots_do_not_mix(tmp_path):
    two = payload({"door": counts(1, 3, 3, 3), "yard": counts(2, 4, 5, 1)})
    with Store.open(tmp_path / "hub.db") as store:
        store.commit([arrival(Kind.HEARTBEAT, two)], now_ms=NOW)
        store.commit([heartbeat(counts(1, 7, 7, 7), device="other")], now_ms=NOW)
        store.commit([heartbeat(counts(1, 2, 2, 2), boot_id="boot-2"), arrival(Kind.HEARTBEAT, two)], now_ms=NOW)
        booked = {name: sums(one.last_day) for name, one in cameras_of(store).items()}
    assert booked == {"box/door": counts(2, 5, 5, 5), "box/yard": counts(2, 4, 5, 1), "other/door": counts(1, 7, 7, 7)}


def test_a_camera_named_twice_in_a_heartbeat_is_booked_once(tmp_path):
    whole = decode(payload({"door": counts(2, 4, 5, 3)}), Heartbeat)
    twice = encode(msgspec.structs.replace(whole, cameras=whole.cameras * 2))
    with Store.open(tmp_path / "hub.db") as store:
        store.commit([arrival(Kind.HEARTBEAT, twice)], now_ms=NOW)
        assert sums(cameras_of(store)["box/door"].last_day) == counts(2, 4, 5, 3)


def test_a_camera_without_control_frames_takes_no_room(tmp_path):
    with Store.open(tmp_path / "hub.db") as store:
        store.commit([heartbeat(NOTHING, boot_id=f"boot-{n}") for n in range(50)], now_ms=NOW)
        assert rows(store) == (0, 0)
        assert "recall" not in "\n".join(status_lines(store.status(now_ms=NOW)))


def test_impossible_counts_are_not_booked_and_do_no_harm(tmp_path):
    """The device is still heard; when its counts make sense again they are taken."""
    with Store.open(tmp_path / "hub.db") as store:
        store.commit([heartbeat(counts(2**53 - 1, 2**53 - 1, 2**53 - 1, 0))] * 3, now_ms=NOW)
        assert rows(store) == (0, 0)
        assert store.status(now_ms=NOW).devices[0].heartbeat_at_ms == NOW
        store.commit([heartbeat(counts(1, 2, 3, 1))], now_ms=NOW)
        assert sums(cameras_of(store)["box/door"].last_day) == counts(1, 2, 3, 1)


def rows(store: Store) -> tuple[int, int]:
    one = "SELECT (SELECT count(*) FROM recall_hour), (SELECT count(*) FROM recall_mark)"
    return store._connection.execute(one).fetchone()


def test_old_hours_go_and_the_mark_of_a_boot_that_still_counts_stays(tmp_path):
    """A device that runs for a year: its counts go on from where they were, they do not start again."""
    later = NOW + (KEPT_DAYS + 1) * DAY_MS
    with Store.open(tmp_path / "hub.db") as store:
        store.commit([heartbeat(counts(1, 1, 1, 1), boot_id="boot-0"), heartbeat(counts(9, 9, 9, 9))], now_ms=NOW)
        assert rows(store) == (1, 2)
        assert len(cameras_of(store, NOW + SHOWN_DAYS * DAY_MS - HOUR_MS)) == 1
        assert cameras_of(store, NOW + SHOWN_DAYS * DAY_MS + HOUR_MS) == {}
        store.commit([heartbeat(counts(10, 12, 10, 9))], now_ms=later)
        assert rows(store) == (1, 1)
        assert sums(cameras_of(store, later)["box/door"].last_day) == counts(1, 3, 1, 0)


def test_the_mark_of_a_camera_that_was_quiet_for_long_stays(tmp_path):
    """It has no control frames for months while its neighbour has: its old counts are not booked once more."""
    later = NOW + (KEPT_DAYS + 1) * DAY_MS
    with Store.open(tmp_path / "hub.db") as store:
        store.commit([arrival(Kind.HEARTBEAT, payload({"door": counts(9, 9, 9, 9)}))], now_ms=NOW)
        both = payload({"yard": counts(1, 2, 2, 2), "door": counts(9, 9, 9, 9)})
        store.commit([arrival(Kind.HEARTBEAT, both)] * 2, now_ms=later)
        assert {name: sums(one.last_day) for name, one in cameras_of(store, later).items()} == {
            "box/yard": counts(1, 2, 2, 2)
        }


@pytest.fixture
def database(tmp_path):
    """A camera with enough in the last hour, one with enough in a day, one with too few, and one long silent."""
    with Store.open(tmp_path / "hub.db") as store:
        store.commit([heartbeat(counts(4, 5, 6, 4), camera="old")], now_ms=NOW - 3 * DAY_MS)
        store.commit([heartbeat(counts(4, 8, 9, 7), camera="yard")], now_ms=NOW - 5 * HOUR_MS)
        store.commit([heartbeat(counts(4, 60, 50, 41))], now_ms=NOW - HOUR_MS)
        store.commit([heartbeat(counts(8, 17, 18, 14), camera="yard")], now_ms=NOW - HOUR_MS)
        store.commit([heartbeat(counts(7, 90, 82, 71))], now_ms=NOW)
        one = payload({"front-left": counts(1, 1, 1, 1)})
        where = {"site": "headquarters", "device": "gatehouse-at-the-north-entrance"}
        store.commit([arrival(Kind.HEARTBEAT, one, **where)], now_ms=NOW)
    return tmp_path / "hub.db"


def test_status_shows_a_table_that_fits_80_columns(database):
    with Store.open(database) as store:
        lines = status_lines(store.status(now_ms=NOW))
    assert max(map(len, lines)) <= 80
    start = next(number for number, line in enumerate(lines) if line.startswith("recall"))
    assert lines[start : start + 7] == [
        "recall                                 last hour       last 24 h  control frames",
        "...the-north-entrance/front-left               -         too few               1",
        "lab/box/door                       .82 (.69-.90)   .87 (.77-.93)               7",
        "lab/box/old                                    -               -               0",
        "lab/box/yard                             too few   .78 (.54-.92)               8",
        "An upper estimate (95 % interval): the share that the detector found of what a",
        "closer look at the control frames finds. What neither look sees is not in it.",
    ]


def test_status_as_json_has_the_hours(database):
    with Store.open(database) as store:
        told = msgspec.json.decode(msgspec.json.encode(store.status(now_ms=NOW)))["recall"]
    yard = next(camera for camera in told if camera["camera"] == "yard")
    assert [hour["hour_ms"] for hour in yard["hours"]] == [THIS_HOUR - 5 * HOUR_MS, THIS_HOUR - HOUR_MS]
    assert yard["hours"][0]["recall"] == {"frames": 4, "detector": 8, "second_look": 9, "both": 7, "estimate": None}
    assert yard["last_day"]["estimate"]["recall"] == pytest.approx(0.78, abs=0.001)


@pytest.mark.broker
def test_a_heartbeat_comes_over_the_broker_into_the_status(broker, tmp_path):
    """The real path: device, broker, `hub serve`, database, `hub status --json`; one heartbeat comes twice."""
    with Hub(tmp_path, broker.port) as hub, Device(broker.port) as device:
        device.come_online("boot-1")
        for told in (counts(1, 9, 10, 8), counts(2, 20, 22, 18), counts(2, 20, 22, 18), counts(1, 9, 10, 8)):
            device.send(Kind.HEARTBEAT, payload({"door": told}))
        device.send(Kind.HEARTBEAT, payload({"door": counts(3, 26, 28, 24), "last": counts(1, 0, 0, 0)}))

        def cameras() -> dict:
            done = runner.invoke(app, ["status", "--json", "--database", str(hub.database)])
            status = msgspec.json.decode(done.output, type=HubStatus)
            return {one.camera: one for one in status.recall}

        wait_until(lambda: "last" in cameras())
        assert hub.stop() == 0
    door = cameras()["door"]
    assert sums(door.last_day) == counts(3, 26, 28, 24)
    assert door.last_day.estimate is not None
    assert 0.6 < door.last_day.estimate.low < door.last_day.estimate.recall < 1
    assert total(sums(hour.recall) for hour in door.hours) == counts(3, 26, 28, 24)
