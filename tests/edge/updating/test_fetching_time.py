"""Expiry is judged by a time that cannot be set back: a clock at 1970, ten years ahead, or anywhere.

Nothing the clock did while it was wrong is left once it is right again.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.updating.fetching import Fetcher
from edge.updating.time_floor import BUILT_S, ExpiredError, TimeFloor
from tests.edge.updating.lying import NOW_S, LyingServer, MadeRepository, expiry

DAY_S = 86400.0


@pytest.fixture
def made() -> MadeRepository:
    return MadeRepository()


@pytest.fixture
def server(made: MadeRepository) -> Iterator[LyingServer]:
    with LyingServer(made.files) as serving:
        yield serving


def test_a_clock_at_1970_does_not_switch_expiry_off(tmp_path: Path, made: MadeRepository, server: LyingServer) -> None:
    """What had run out when this version was made is refused even so; and what had, when metadata was last believed."""
    fetcher = Fetcher(tmp_path, server.url, made.trusted, clock=lambda: NOW_S + 6 * DAY_S)
    fetcher.refresh()
    made.timestamp.expires = expiry("timestamp", NOW_S - 2 * DAY_S)  # five days from NOW: it has run out
    made.publish()
    with pytest.raises(ExpiredError, match="its clock is behind"):
        Fetcher(tmp_path, server.url, made.trusted, clock=lambda: 0.0).refresh()
    made.timestamp.expires = expiry("timestamp", BUILT_S - 8 * DAY_S)
    made.publish()
    with pytest.raises(ExpiredError, match=r"timestamp\.json is expired \(it is 2026-11-01"):
        Fetcher(tmp_path / "fresh", server.url, made.trusted, clock=lambda: 0.0).refresh()
    made.timestamp.expires = expiry("timestamp")
    made.publish()
    Fetcher(tmp_path, server.url, made.trusted, clock=lambda: 0.0).refresh()


def test_a_clock_ten_years_ahead_expires_everything_and_leaves_no_trace(
    tmp_path: Path, made: MadeRepository, server: LyingServer
) -> None:
    clock_s = NOW_S
    fetcher = Fetcher(tmp_path, server.url, made.trusted, clock=lambda: clock_s)
    fetcher.refresh()
    clock_s = NOW_S + 3650 * DAY_S
    for one in (fetcher, Fetcher(tmp_path, server.url, made.trusted, clock=lambda: clock_s)):
        with pytest.raises(ExpiredError, match=r"it is 2036-11-28 .*is this device's clock right"):
            one.refresh()
    clock_s = NOW_S
    fetcher.refresh()
    Fetcher(tmp_path, server.url, made.trusted, clock=lambda: clock_s).refresh()


@settings(max_examples=40, deadline=None)
@given(steps=st.lists(st.tuples(st.floats(-1e10, 1e12), st.floats(0, 1e6), st.booleans()), max_size=6))
def test_the_floor_keeps_what_was_accepted_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[float, float, bool]]
) -> None:
    """Clocks of any kind; metadata is accepted where it has not expired at the time that is judged."""
    path = tmp_path_factory.mktemp("floor") / "newest-time"
    now = {"clock": NOW_S, "uptime": 0.0}
    clocks: dict[str, Callable[[], float]] = {"clock": lambda: now["clock"], "uptime": lambda: now["uptime"]}
    expires_s, accepted_s = NOW_S + 7 * DAY_S, BUILT_S
    floor = TimeFloor(path, **clocks)
    for clock_s, ran_s, restarted in steps:
        now["clock"] = clock_s
        if restarted:
            floor = TimeFloor(path, **clocks)
            accepted_s = max(BUILT_S, accepted_s - 3600)  # it is written once an hour
        before_s = floor.now_s()
        now["uptime"] += ran_s
        now_s = floor.now_s()
        assert now_s >= max(accepted_s, before_s, min(clock_s, now_s))
        if now_s < expires_s:
            floor.accept(now_s)
            accepted_s = now_s
    now["clock"] = 0.0
    kept_s = TimeFloor(path, **clocks).now_s()
    assert max(BUILT_S, accepted_s - 3601) <= kept_s < expires_s
