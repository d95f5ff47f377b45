"""`hub forget`: no byte of what was forgotten is left in the file, the rest is sound, and it does not come back."""

import itertools
import threading
from types import SimpleNamespace

import msgspec
import pytest
from typer.testing import CliRunner

from edge.contract.errors import UnusableError
from edge.contract.topics import Kind
from hub import store_forgotten
from hub.arrivals import Outcome
from hub.check import check_lines
from hub.cli import app
from hub.config import WantsConfig
from hub.curator import Curator
from hub.dedupe import DuplicateIndex
from hub.recall import HOUR_MS
from hub.retention import parse_scope
from hub.store import Store
from hub.store_erasure import without_names
from hub.store_forgotten import Scope
from hub.tags import Tagger, TagsConfig
from tests.brokers import wait_until
from tests.hub.made import (
    arrival,
    event_id,
    event_payload,
    finding,
    gone_payload,
    jpeg,
    part_payloads,
    state_payload,
)
from tests.hub.two_devices import (
    CAPTURED,
    COUNTS,
    LATER,
    NOW,
    beat,
    event,
    fill,
    forget,
    one,
    require_sound,
)

runner = CliRunner()


@pytest.fixture
def database(tmp_path):
    with Store.open(tmp_path / "hub.db") as store:
        fill(store)
        require_sound(store)
    return tmp_path / "hub.db"


def raw(path) -> bytes:
    return b"".join(part.read_bytes() for part in path.parent.iterdir() if part.name.startswith(path.name))


def test_no_byte_of_it_is_left_and_all_of_the_rest_is(database):
    """The camera's name, every event id as text, the JPEGs, the hashes: searched for in the file and its journal."""
    before = raw(database)
    assert b"secretcam" in before
    done = runner.invoke(app, ["forget", "--device", "lab/box", "--yes", "--database", str(database)])
    assert done.exit_code == 0, done.output
    after = raw(database)
    assert b"secretcam" not in after
    for number in range(20):
        assert event_id(number).encode() in before
        assert event_id(number).encode() not in after
        assert bytes.fromhex(finding(number).crop_hash) not in after
    for number in range(0, 20, 3):
        assert jpeg(number) in before
        assert jpeg(number)[-60:] not in after
    for number in range(20, 40):
        assert event_id(number).encode() in after
    with Store.open(database) as store:
        assert store._connection.execute("PRAGMA freelist_count").fetchone() == (0,)
        require_sound(store)


def test_also_what_was_deleted_earlier_and_lay_in_free_pages(database):
    """A frame that `hub gc` deleted is in a free page until the space is used again."""
    with Store.open(database) as store:
        store._connection.execute("PRAGMA secure_delete = OFF")  # some systems' SQLite zeroes free pages anyway
        picture = jpeg(50, width=320, height=240, noise=True)
        changes = {"picture": picture, "width": 320, "height": 240}
        store.commit([event(50, inline=False, **changes)], now_ms=NOW)
        store.commit([arrival(Kind.FRAME, p) for p in part_payloads(50, picture=picture, size=9000)], now_ms=NOW)
        list(store.upkeep.sweep(came_before_ms=LATER, most_bytes=0))
    piece = picture[20_000:20_100]
    assert piece in raw(database)
    with Store.open(database) as store:
        forget(store)
    assert piece not in raw(database)


def test_groups_batches_and_sightings_go_on_without_it(database):
    with Store.open(database) as store:
        forget(store)
        assert store.group_sizes([1, 2, 3]) == {1: 1, 2: 1}
        leaders = {leader.group_id: leader.event_id for leader in store.leaders()}
        assert leaders[1] == event_id(20)
        assert leaders[2] == event_id(21)
        missed = {
            row.group_id for row in store.sightings(since_ms=0, until_ms=10**15, limit=1000) if row.kind == "missed"
        }
        assert {1, 2} <= missed
        assert {row.device for row in store.sightings(since_ms=0, until_ms=10**15, limit=1000)} == {"other"}
        assert [member.event_id for member in store.batch_members(1)] == [event_id(24), event_id(27)]
        assert store.batch(1).size == 5
        assert one(store, "SELECT forgotten FROM batch") == 3
        require_sound(store)


def test_texts_lose_the_names_of_forgotten_places_only(database):
    with Store.open(database) as store:
        forget(store)
        spots = store._connection.execute("SELECT name, tags FROM weak_spot ORDER BY id").fetchall()
        assert spots == [
            ("dark, cameras (forgotten) and yardcam", " dark "),
            ("tiny, camera (forgotten)", " camera:forgotten-2 tiny "),
            ("camera:forgotten-3 and dark", "camera:forgotten-3 and dark"),
            ("tiny, camera yardcam", " camera:lab/other/yardcam tiny "),
        ]
        assert store.batch(1).title == "missed person, mostly dark, cameras (forgotten) and yardcam"


NAMES = [
    ("tiny, person, camera 3", {"3"}, "tiny, person, camera (forgotten)"),
    ("person, cameras a, b and person", {"person"}, "person, cameras a, b and (forgotten)"),  # the label stays
    ("site plant, camera box/3", {"plant", "box/3"}, "site (forgotten), camera (forgotten)"),
    ("camera door", {"door"}, "camera (forgotten)"),
    ("tiny, 12 cameras", {"12", "cameras"}, "tiny, 12 cameras"),  # names none
]


@pytest.mark.parametrize(("text", "words", "left"), NAMES)
def test_without_names(text, words, left):
    assert without_names(text, frozenset(words)) == left


def test_a_sample_from_before_is_acknowledged_and_not_stored(database):
    with Store.open(database) as store:
        forget(store)
        late, new = event(5, captured_at_ms=NOW - 1), event(77, captured_at_ms=NOW)
        other = event(78, device="other", camera="yardcam", captured_at_ms=NOW - 1)
        outcomes = store.commit([late, new, other], now_ms=LATER)
        assert outcomes == [Outcome(event_id(n), event_id(n)) for n in (5, 77, 78)]
        assert one(store, f"SELECT count(*) FROM finding WHERE event_id = '{event_id(5)}'") == 0
        assert store.finding(event_id(77)).device == "box"
        require_sound(store)


def test_a_frame_under_way_when_it_was_forgotten_is_acknowledged_and_not_stored(database):
    with Store.open(database) as store:
        forget(store)
        parts = [arrival(Kind.FRAME, part) for part in part_payloads(1)]
        outcomes = store.commit([*parts, arrival(Kind.FRAME, gone_payload(1))], now_ms=LATER)
        assert {outcome.frame for outcome in outcomes} == {event_id(1)}
        assert one(store, "SELECT count(*) FROM frame_part") == 0
        # The frame of a finding that is here comes as ever, in parts too.
        store.commit([event(80, inline=False, captured_at_ms=LATER)], now_ms=LATER)
        assert store.commit([arrival(Kind.FRAME, p) for p in part_payloads(80)], now_ms=LATER)[-1].frame == event_id(80)
        require_sound(store)


def test_what_the_broker_retains_of_it_brings_no_device_back_and_others_go_on(database):
    """A hub that starts is told the last state of every device; and a part may come before its finding."""
    with Store.open(database) as store:
        forget(store)
        store.commit([arrival(Kind.STATE, state_payload())], now_ms=LATER)
        assert one(store, "SELECT count(*) FROM device WHERE device = 'box'") == 0
        parts = [arrival(Kind.FRAME, part, device="other") for part in part_payloads(85)]
        store.commit(parts[:1], now_ms=LATER)
        store.commit([event(85, device="other", inline=False)], now_ms=LATER)
        assert store.commit(parts[1:], now_ms=LATER)[-1].frame == event_id(85)
        require_sound(store)


def test_counts_of_a_boot_that_goes_on_start_from_zero(database):
    """A heartbeat carries the sums since the boot: what was forgotten must not come back with the next one."""
    with Store.open(database) as store:
        forget(store)
        store.commit([beat(at_ms=NOW - 1)], now_ms=LATER)  # was under way
        assert one(store, "SELECT count(*) FROM device WHERE device = 'box'") == 0
        more = msgspec.structs.replace(COUNTS, frames=110, detector=55)
        store.commit([beat(at_ms=LATER, uptime_s=500.0)], now_ms=LATER)
        store.commit([beat(at_ms=LATER, uptime_s=500.0, counts=more)], now_ms=LATER)
        booked = store._connection.execute("SELECT frames, detector FROM recall_hour WHERE device = 'box'").fetchall()
        assert booked == [(10, 5)]
        fresh = beat(at_ms=LATER, uptime_s=1.0, boot_id="boot-2")  # a boot after it counts in full
        store.commit([fresh], now_ms=LATER)
        assert one(store, "SELECT frames FROM recall_hour WHERE device = 'box'") == 110
        require_sound(store)


def test_before_a_time_only_what_is_older_goes(database):
    with Store.open(database) as store:
        policies = len(store.policies())
        forget(store, Scope("", "", CAPTURED + 10, whole=False))
        left = {row[0] for row in store._connection.execute("SELECT event_id FROM finding")}
        assert left == {event_id(n) for n in range(10, 40)}
        assert len(store.policies()) == policies
        assert one(store, "SELECT count(*) FROM device") == 2
        assert one(store, "SELECT count(*) FROM recall_hour") == 0  # the hour that the time falls into goes whole
        assert one(store, "SELECT count(*) FROM frame_part") == 0  # it came later, and is of what went
        require_sound(store)
        outcome = store.commit([event(3), event(60)], now_ms=LATER)
        assert [row.finding for row in outcome] == [event_id(3), event_id(60)]
        assert one(store, "SELECT count(*) FROM finding") == 31
        require_sound(store)


def test_before_a_time_counts_of_a_boot_that_goes_on_do_not_come_back(database):
    """Its next heartbeat carries the sums since the boot, also by a clock that runs a year ahead."""
    with Store.open(database) as store:
        forget(store, Scope("", "", NOW, whole=False))
        more = msgspec.structs.replace(COUNTS, frames=110, detector=55)
        for at_ms, device in ((LATER, "box"), (LATER + 365 * 24 * HOUR_MS, "other")):
            store.commit([beat(device=device, at_ms=at_ms, uptime_s=500.0)], now_ms=LATER)
            assert one(store, f"SELECT count(*) FROM recall_hour WHERE device = '{device}'") == 0
            store.commit([beat(device=device, at_ms=at_ms, uptime_s=500.0, counts=more)], now_ms=LATER)
        booked = store._connection.execute("SELECT device, frames, detector FROM recall_hour ORDER BY 1").fetchall()
        assert booked == [("box", 10, 5), ("other", 10, 5)]
        require_sound(store)


def test_before_a_time_also_what_came_before_it_by_a_clock_that_ran_ahead(database):
    """A device thought it was next year: what was here already had been captured."""
    with Store.open(database) as store:
        store.commit([event(70, captured_at_ms=NOW + 10**10)], now_ms=NOW - 1)
        store.commit([event(71, captured_at_ms=NOW + 10**10)], now_ms=NOW)
        index = curator(store)
        while index._group():
            pass
        assert any("rows of finding" in line for line in forgotten_on_paper(store))
        forget(store, Scope("lab", "", NOW, whole=False))
        assert [row[0] for row in store._connection.execute("SELECT event_id FROM finding")] == [event_id(71)]
        require_sound(store)


def forgotten_on_paper(store) -> list[str]:
    """What `hub check` would say of a forgetting that has only been written down, and is taken back."""
    store._connection.execute("BEGIN")
    row = ("lab", "", NOW, 0, NOW, NOW)
    store._connection.execute(
        "INSERT INTO forgotten (site, device, before_ms, whole, at_ms, erased_at_ms) VALUES (?, ?, ?, ?, ?, ?)", row
    )
    # Only the time of arrival is left to tell.
    store._connection.execute("UPDATE finding SET captured_at_ms = ? WHERE captured_at_ms < ?", (NOW + 1, NOW))
    lines = list(store_forgotten.traces(store._connection))
    store._connection.execute("ROLLBACK")
    return lines


def test_a_site_goes_whole_and_another_of_a_like_name_stays(database):
    with Store.open(database) as store:
        elsewhere = event_payload(90, inline=True, site="lab2", device="box")
        store.commit([arrival(Kind.EVENT, elsewhere, site="lab2", device="box")], now_ms=NOW)
        forget(store, Scope("lab", "", NOW, whole=True))
        assert one(store, "SELECT count(*) FROM finding") == 1
        assert one(store, "SELECT count(*) FROM near_duplicate_group") == 0
        assert store.policies() == []
        assert one(store, "SELECT forgotten FROM batch") == 5
        assert store.batch_members(1) == []
        require_sound(store)


def test_check_names_every_trace(database):
    """A row put back behind the program's back is found, whatever table it is in."""
    with Store.open(database) as store:
        forget(store)
        store._connection.execute("PRAGMA foreign_keys = OFF")
        puts = {
            "finding": "UPDATE finding SET device = 'box' WHERE id = 25",
            "sighting": "UPDATE sighting SET device = 'box' WHERE finding_id = 26",
            "frame_part": f"INSERT INTO frame_part VALUES ('e', 0, 'lab', 'box', {NOW - 1}, x'00')",
            "refused_message": f"INSERT INTO refused_message VALUES (9, 't', '', '', 'r', {NOW - 1}, 1, 'lab box')",
            "recall_hour": f"INSERT INTO recall_hour VALUES ({NOW - 2 * HOUR_MS}, 'lab', 'box', 'c', 1, 1, 1, 1)",
            "recall_mark": f"INSERT INTO recall_mark VALUES ('lab', 'box', 'b', 'c', {NOW - 1}, 1, 1, 1, 1)",
            "device": f"INSERT INTO device (site, device, heartbeat_at_ms) VALUES ('lab', 'box', {NOW - 1})",
            "policy": f"INSERT INTO policy VALUES ('lab', 'box', '{{}}', {NOW - 1})",
            "weak_spot": "UPDATE weak_spot SET tags = ' camera:lab/box/x ' WHERE id = 4",
        }
        for table, put in puts.items():
            store._connection.execute(put)
            assert any(f"rows of {table} are of it" in line for line in check_lines(store)[0]), table


def test_it_asks_and_a_dry_run_and_a_no_change_nothing(database):
    arguments = ["forget", "--site", "lab", "--database", str(database)]
    asked = runner.invoke(app, arguments, input="n\n")
    assert asked.exit_code == 1
    assert "40 findings" in asked.output
    assert "5 of them images of batches" in asked.output
    assert runner.invoke(app, [*arguments, "--dry-run"]).exit_code == 0
    assert runner.invoke(app, arguments).exit_code == 1  # nobody there to ask
    with Store.open(database) as store:
        assert one(store, "SELECT count(*) FROM finding") == 40
        assert one(store, "SELECT count(*) FROM forgotten") == 0


def test_a_name_that_is_nowhere_is_told_before_it_asks(database):
    arguments = ["forget", "--site", "lba", "--database", str(database)]
    asked = runner.invoke(app, arguments, input="n\n")
    assert asked.exit_code == 1
    assert asked.output.startswith("nothing of lba is here: `hub status` has the names\n")


WRONG = [
    ({}, "what shall be forgotten"),
    ({"site": "lab", "device": "lab/box"}, "give one of"),
    ({"device": "box"}, "SITE/DEVICE"),
    ({"device": "lab/"}, "SITE/DEVICE"),
    ({"site": "lab/box"}, "not the name of a site"),
    ({"before": "yesterday"}, "is no time"),
    ({"before": "2999-01-01"}, "still to come"),
]


@pytest.mark.parametrize(("words", "says"), WRONG)
def test_a_wrong_scope_is_named(words, says):
    with pytest.raises(UnusableError, match=says):
        parse_scope(**{"site": "", "device": "", "before": "", **words}, now_ms=NOW)


def test_scopes():
    assert parse_scope(site="", device="a/b", before="", now_ms=NOW) == Scope("a", "b", NOW, whole=True)
    assert parse_scope(site="a", device="", before="1970-01-02", now_ms=NOW) == Scope("a", "", 86_400_000, whole=False)
    moved = parse_scope(site="", device="", before="1970-01-02T01:00+01:00", now_ms=NOW)
    assert moved == Scope("", "", 86_400_000, whole=False)


def test_a_hub_that_runs_meanwhile_stores_nothing_of_it_and_all_else(database):
    """Another thread commits findings of both devices, old and new, and groups them, until well after the end."""
    done, failed, sent = threading.Event(), [], []

    def serve() -> None:
        try:
            with Store.open(database) as other:
                index = curator(other)
                after = 0
                for number in itertools.count(1000):
                    device, camera = (("box", "secretcam"), ("other", "yardcam"))[number % 2]
                    at_ms = CAPTURED + number if number % 4 < 2 else LATER + number
                    arrived = event(number, device=device, camera=camera, captured_at_ms=at_ms)
                    other.commit([arrived], now_ms=LATER)
                    index.step(LATER)
                    sent.append(number)
                    after += done.is_set()
                    if after > 8:
                        return
        except BaseException as error:
            failed.append(error)
            raise

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        wait_until(lambda: len(sent) > 20 or failed, what="findings come")
        with Store.open(database) as store:
            forget(store)
    finally:
        done.set()
        thread.join()
    assert not failed
    with Store.open(database) as store:
        require_sound(store)
        here = {int(row[0], 16) for row in store._connection.execute("SELECT event_id FROM finding")}
        assert {n for n in sent if n % 2 == 1} <= here
        assert not {n for n in here if n % 2 == 0 and n >= 1000 and n % 4 < 2}
        # Of the forgotten device what was captured later: what came before the forgetting went with it.
        assert max(n for n in sent if n % 4 == 2) in here


def curator(store) -> Curator:
    line = SimpleNamespace(want=lambda *_: None)
    return Curator(
        store, make_index=DuplicateIndex, line=line, wants=WantsConfig(), tagger=Tagger(TagsConfig()), pace_s=3600.0
    )
