"""How old a sample is, whatever the device's clock says; and that nothing of it is left when it was too old."""

import contextlib
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.spool import SampleState, Spool
from edge.spool_age import MAX_OFF_MS
from tests.edge.samples import make_sample

NOW_MS = 1_800_000_000_000
MINUTE_S = 60.0
HOUR_S = 3600.0
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def open_spool(path: Path) -> Spool:
    return Spool(path, limit_bytes=10_000_000, reserve_bytes=100_000)


def put(spool: Spool) -> str:
    finding, jpeg = make_sample(size=20_000)
    assert spool.put(finding, jpeg)
    return finding.event_id


def test_what_is_too_old_leaves_whatever_its_state_and_is_counted(tmp_path: Path) -> None:
    with contextlib.closing(open_spool(tmp_path / "s.db")) as spool:
        old = [put(spool) for _ in range(200)]
        spool.ack_findings(old[:100])
        spool.want(old[:50])
        spool.lease(SampleState.WANTED, now_s=0.0, limit=10)
        assert spool.expire(keep_s=HOUR_S, now_s=0.0, now_ms=NOW_MS) == 0
        young = put(spool)
        assert spool.expire(keep_s=HOUR_S, now_s=HOUR_S - 1, now_ms=NOW_MS) == 0
        assert spool.expire(keep_s=HOUR_S, now_s=HOUR_S, now_ms=NOW_MS) == 200
        assert spool.counters()[1] == {"expired": 200}
        assert spool.health().samples == 1
        assert spool.want([old[0], young]) == [old[0]], "the hub is told that it is gone"
        assert spool.expire(keep_s=HOUR_S, now_s=3 * HOUR_S, now_ms=NOW_MS) == 1
        assert (spool.health().samples, spool.health().bytes) == (0, 0)


def test_without_a_limit_nothing_expires_but_time_passes(tmp_path: Path) -> None:
    with contextlib.closing(open_spool(tmp_path / "s.db")) as spool:
        put(spool)
        for hours in range(1000):
            assert spool.expire(keep_s=math.inf, now_s=hours * HOUR_S, now_ms=NOW_MS) == 0
        assert spool.expire(keep_s=HOUR_S, now_s=1000 * HOUR_S, now_ms=NOW_MS) == 1, "the key was set later"


@pytest.mark.parametrize(
    "clock",
    [
        lambda _: 0,  # never set: it stands in 1970
        lambda minute: NOW_MS + minute * 60_000,  # right
        lambda minute: 0 if minute < 5 else NOW_MS,  # set by the network after five minutes
        lambda minute: NOW_MS + (20 * 365 * DAY_MS if minute % 2 else 0),  # to 2047 and back
        lambda minute: NOW_MS - minute * HOUR_MS,  # it runs backwards
        lambda minute: NOW_MS + minute * DAY_MS,  # it runs wild
    ],
)
def test_no_jump_of_the_clock_ages_a_sample(tmp_path: Path, clock: Callable[[int], int]) -> None:
    with contextlib.closing(open_spool(tmp_path / "s.db")) as spool:
        put(spool)
        left = [spool.expire(keep_s=HOUR_S, now_s=m * MINUTE_S, now_ms=clock(m)) for m in range(70)]
        assert left == [0] * 60 + [1] + [0] * 9


@pytest.mark.parametrize(
    ("was_ms", "is_ms", "leaves"),
    [
        (NOW_MS, NOW_MS + HOUR_MS - 1, False),  # off for less than an hour
        (NOW_MS, NOW_MS + HOUR_MS, True),  # off for an hour
        (NOW_MS, NOW_MS + 30 * DAY_MS, True),  # off for a month
        (NOW_MS, NOW_MS, False),  # a clock that stands still while the device is off
        (NOW_MS, 3600, False),  # no battery: it starts in 1970
        (3600, NOW_MS, False),  # it was in 1970 and is set now
        (NOW_MS, NOW_MS - DAY_MS, False),  # it was ahead
        (NOW_MS, NOW_MS + MAX_OFF_MS + 1, False),  # the far future
    ],
)
def test_over_a_restart_only_a_clock_that_can_be_right_ages_a_sample(
    tmp_path: Path, was_ms: int, is_ms: int, leaves: bool
) -> None:
    spool = open_spool(tmp_path / "s.db")
    put(spool)
    spool.expire(keep_s=HOUR_S, now_s=500.0, now_ms=was_ms)
    put(spool)  # after the last call: as old as the call
    spool.close()
    with contextlib.closing(open_spool(tmp_path / "s.db")) as spool:
        put(spool)  # before the first call: new
        assert spool.expire(keep_s=HOUR_S, now_s=3.0, now_ms=is_ms) == (2 if leaves else 0)
        assert spool.health().samples == (1 if leaves else 3)


def holds(folder: Path, body: bytes) -> bool:
    """Whether any stretch of a body stands in any file of the folder."""
    content = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    return any(body[i : i + 64] in content for i in range(64, len(body) - 64, 64))


@pytest.mark.parametrize("leave", ["expire", "ack"])
def test_no_byte_of_what_is_too_old_stays_in_a_file(tmp_path: Path, leave: str) -> None:
    with contextlib.closing(open_spool(tmp_path / "s.db")) as spool:
        samples = [make_sample(size=20_000) for _ in range(30)]
        for sample in samples:
            spool.put(*sample)
        assert holds(tmp_path, samples[7][1])
        spool.expire(keep_s=HOUR_S, now_s=0.0, now_ms=NOW_MS)
        if leave == "ack":  # sent in time; what it leaves behind has the same time to live
            spool.ack_frames([finding.event_id for finding, _ in samples])
        spool.expire(keep_s=HOUR_S, now_s=HOUR_S, now_ms=NOW_MS)
        assert not any(holds(tmp_path, jpeg) for _, jpeg in samples)


def test_a_broken_spool_that_was_kept_aside_does_not_live_longer(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"not a database at all " * 1000)
    with contextlib.closing(open_spool(path)) as spool:
        spool.expire(keep_s=HOUR_S, now_s=0.0, now_ms=NOW_MS)
        spool.expire(keep_s=HOUR_S, now_s=HOUR_S - 1, now_ms=NOW_MS)
        assert (tmp_path / "s.db.corrupt").exists()
        spool.expire(keep_s=HOUR_S, now_s=HOUR_S, now_ms=NOW_MS)
        assert not (tmp_path / "s.db.corrupt").exists()
