"""What is counted of the sightings: like is compared with like."""

import pytest

from hub.naming import open_by_hand, refresh
from hub.spot_report import trend_of
from hub.store import Store
from tests.hub.sighted import NOW, TAGGER, sight, weak

HOUR_MS = 3_600_000


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "hub.db") as opened:
        yield opened


@pytest.mark.parametrize("times", [0.2, 0.5, 2, 10])
def test_a_camera_that_draws_more_or_less_often_is_no_weak_spot_and_makes_none(store, times) -> None:
    """Three equal cameras; one has so many times as many control frames, and says so."""
    for device, often in (("a", 1), ("b", 1), ("c", times)):
        found = [("medium", round(100 * often)), ("small", round(100 * often))]
        missed, overlooked = [("medium", 100), ("small", 100)], [("medium", round(20 * often))]
        sight(store, missed=missed, found=found, overlooked=overlooked, device=device, drawn_per_hour=60.0 * often)
    naming = refresh(store, TAGGER, NOW + HOUR_MS)
    assert naming.spots == ()
    counted = naming.table.counted
    shares = []
    for device in "abc":
        of = naming.table.inside([f"camera:lab/{device}/door"])
        shares.append((counted & of & naming.table.missed).sum() / (counted & of & ~naming.table.missed).sum())
    assert max(shares) < 1.35 * min(shares)


def test_a_camera_without_control_objects_is_no_weak_spot(store) -> None:
    """Its missed events have nothing to be compared with; neither have those of a release without any."""
    alike = [("medium", 100), ("small", 100)]
    for device in ("a", "b"):
        sight(store, missed=alike, found=alike, overlooked=[("medium", 20)], device=device)
    sight(store, found=alike, device="changed", model="before", at_ms=NOW - HOUR_MS)
    sight(store, missed=alike, device="changed")
    sight(store, missed=alike, device="blind")
    naming = refresh(store, TAGGER, NOW + HOUR_MS)
    assert naming.spots == ()
    assert naming.table.counted.sum() == 2 * 400 + 200


def test_a_clock_far_ahead_does_not_say_what_runs_now(store) -> None:
    """One picture of the year 9999 is the newest for ever: it is not counted."""
    weak(store)
    sight(store, missed=[("medium", 1)], model="older", at_ms=253_402_300_000_000)
    naming = refresh(store, TAGGER, NOW + HOUR_MS)
    assert [spot.name for spot in naming.spots] == ["dark + small"]
    assert len(trend_of(naming.table, naming.table.missed)[1]) < 5


def test_what_nothing_is_inside_of_has_no_rate(store) -> None:
    weak(store)
    assert open_by_hand(store, TAGGER, "dark and not dark", NOW + HOUR_MS).rate is None
