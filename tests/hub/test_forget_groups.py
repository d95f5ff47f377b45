"""What `hub forget` leaves of groups that lose members: another leader, sighting, track and want."""

import pytest

from edge.contract.samples import Reason
from hub.store import GroupAssignment, Store
from hub.store_groups import StaleError
from hub.store_weakspots import NamingRecord
from hub.weakspots import SpotState, step_of
from tests.hub.made import event_id
from tests.hub.two_devices import CAPTURED, NOW, event, fill, forget, one, require_sound


@pytest.fixture
def database(tmp_path):
    with Store.open(tmp_path / "hub.db") as store:
        fill(store)
        require_sound(store)
    return tmp_path / "hub.db"


def test_a_group_follows_the_track_of_its_new_leader_since_then(database):
    with Store.open(database) as store:
        forget(store)
        leaders = {leader.group_id: leader for leader in store.leaders()}
        assert {number: (leaders[number].track, leaders[number].track_at_ms) for number in (1, 2, 24)} == {
            1: ("yardcam:20", CAPTURED + 20),  # it followed 1
            2: ("yardcam:21", CAPTURED + 21),  # it followed 2
            24: ("yardcam:24", CAPTURED + 24),
        }
        assert {leader.looks for leader in leaders.values()} == {b""}


def test_a_group_that_loses_its_frame_asks_for_that_of_a_member_that_stays(database):
    with Store.open(database) as store:
        wanted = f"SELECT want_open FROM finding WHERE event_id = '{event_id(20)}'"
        assert one(store, wanted) == 0  # finding 0, of its group, is here with its frame
        forget(store)
        assert one(store, wanted) == 1


def test_a_group_that_loses_its_sighting_has_one_of_the_next_miss(database):
    """The member that leads it now is no miss: one that came later is."""
    numbers = (81, 82, 83)
    with Store.open(database) as store:
        unsure, missed = {"reason": Reason.LOW_CONFIDENCE}, {"reason": Reason.MISSED}
        store.commit(
            [
                event(81, **missed),
                event(82, device="other", camera="yardcam", **unsure),
                event(83, device="other", camera="yardcam", **missed),
            ],
            now_ms=NOW - 1,
        )
        store.assign_groups([GroupAssignment(event_id(n), 100, new=n == 81) for n in numbers])
        forget(store)
        (sighting,) = [row for row in store.sightings(since_ms=0, until_ms=10**15, limit=1000) if row.group_id == 100]
        assert store.finding(event_id(83)).captured_at_ms == sighting.captured_at_ms
        require_sound(store)


def test_what_was_read_before_a_forgetting_is_not_written_after_it(database):
    """A curator and a naming hold findings in memory: what they would write may tell of what was forgotten."""
    with Store.open(database) as store:
        before, last = store.upkeep.forgettings(), store.spots.last_step()
        store.commit([event(90)], now_ms=NOW)
        group = GroupAssignment(event_id(90), store.last_group() + 1, new=True)
        forget(store)
        name = NamingRecord(
            NOW, opened=(("dark, camera x", "camera:x dark", step_of(SpotState.OPEN, None, now_ms=NOW)),)
        )
        assert not store.spots.record(name, last=last, forgettings=before)
        assert "dark, camera x" not in {spot.name for spot in store.spots.all()}
        with pytest.raises(StaleError, match="forgotten"):
            store.assign_groups([group], forgettings=before)
        assert store.spots.record(name, last=last, forgettings=store.upkeep.forgettings())
