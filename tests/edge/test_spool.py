import contextlib
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from edge.contract.errors import UnusableError
from edge.contract.samples import MAX_JPEG_BYTES, Reason, decode_event
from edge.leases import RETRY_MAX_S
from edge.spool import SampleState, Spool
from tests.edge.samples import make_sample

NEW, HELD, WANTED = SampleState.NEW, SampleState.HELD, SampleState.WANTED
ROOMY = 10_000_000
SMALL_RESERVE = 100_000


def open_spool(path: Path, *, limit_bytes: int = ROOMY) -> Spool:
    return Spool(path, limit_bytes=limit_bytes, reserve_bytes=SMALL_RESERVE, rng=random.Random(1))


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with contextlib.closing(open_spool(tmp_path / "spool.db")) as opened:
        yield opened


def ids(spool: Spool, state: SampleState, *, now_s: float = 0.0, limit: int = 100) -> list[str]:
    return [leased.event_id for leased in spool.lease(state, now_s=now_s, limit=limit)]


def dropped(spool: Spool) -> dict[str, int]:
    return spool.counters()[1]


def test_a_sample_goes_from_new_to_held_to_wanted_to_gone(spool: Spool) -> None:
    finding, jpeg = make_sample()
    assert spool.put(finding, jpeg)
    (leased,) = spool.lease(NEW, now_s=0.0, limit=5)
    assert decode_event(leased.event + jpeg) == (finding, jpeg)
    assert (leased.frame_bytes, leased.frame_sha256) == (finding.frame_bytes, finding.frame_sha256)
    assert spool.health().unsent == 1
    assert spool.ack_findings([finding.event_id]) == [finding.event_id]
    assert ids(spool, NEW) == []
    assert (spool.health().samples, spool.health().unsent) == (1, 0)
    assert spool.want([finding.event_id]) == []
    assert ids(spool, WANTED) == [finding.event_id]
    assert spool.frame(finding.event_id) == jpeg
    assert spool.ack_frames([finding.event_id]) == [finding.event_id]
    assert spool.frame(finding.event_id) is None
    assert (spool.health().samples, spool.health().bytes) == (0, 0)
    assert spool.counters() == ({"missed": 1}, {})


def test_what_is_worth_most_is_sent_first(spool: Spool) -> None:
    samples = [make_sample(severity=s) for s in (0.1, 0.9, 0.5, 0.5)]
    for sample in samples:
        spool.put(*sample)
    order = [samples[i][0].event_id for i in (1, 3, 2, 0)]  # of two alike the later
    assert ids(spool, NEW) == order


def test_a_sample_on_its_way_is_not_leased_again_until_its_retry(spool: Spool) -> None:
    finding, jpeg = make_sample()
    spool.put(finding, jpeg)
    waits = []
    now_s = 0.0
    for attempt in range(12):
        (leased,) = spool.lease(NEW, now_s=now_s, limit=1)
        assert leased.attempts == attempt
        assert ids(spool, NEW, now_s=1e9) == []
        spool.retry(finding.event_id, now_s=now_s)
        assert ids(spool, NEW, now_s=now_s) == []
        waited = next(s for s in range(1, 1000) if spool._leases.is_due(finding.event_id, now_s=now_s + s))
        waits.append(waited)
        now_s += waited
    assert waits[0] <= 8
    assert waits[4] > waits[0]
    assert max(waits) <= RETRY_MAX_S * 1.5 + 1
    assert len(set(waits[-4:])) > 1, "no jitter"


def test_a_reconnect_makes_everything_due(spool: Spool) -> None:
    finding, jpeg = make_sample()
    spool.put(finding, jpeg)
    assert ids(spool, NEW) == [finding.event_id]
    spool.release_all()
    assert ids(spool, NEW) == [finding.event_id]


def test_a_want_that_overtakes_the_ack_proves_the_finding(spool: Spool) -> None:
    finding, jpeg = make_sample()
    spool.put(finding, jpeg)
    ids(spool, NEW)
    assert spool.want([finding.event_id, "f" * 32, "f" * 32]) == ["f" * 32]
    assert ids(spool, WANTED) == [finding.event_id]
    assert spool.ack_findings([finding.event_id]) == []  # the late ack changes nothing
    assert spool.health().unsent == 0


def test_a_second_want_does_not_send_a_frame_twice(spool: Spool) -> None:
    finding, jpeg = make_sample()
    spool.put(finding, jpeg)
    spool.want([finding.event_id])
    assert ids(spool, WANTED) == [finding.event_id]
    spool.want([finding.event_id])
    assert ids(spool, WANTED) == []


def test_putting_twice_stores_once(spool: Spool) -> None:
    finding, jpeg = make_sample()
    assert spool.put(finding, jpeg)
    assert spool.put(finding, jpeg)
    assert spool.health().samples == 1
    assert spool.counters()[0] == {"missed": 1}


def test_a_body_that_is_not_the_findings_is_refused(spool: Spool) -> None:
    finding, jpeg = make_sample()
    with pytest.raises(ValueError, match="is not the frame of"):
        spool.put(finding, jpeg + b"x")
    with pytest.raises(ValueError, match="is not the frame of"):
        spool.put(finding, jpeg[:-1] + bytes([jpeg[-1] ^ 1]))
    assert spool.health().samples == 0


def test_what_the_hub_refuses_leaves_and_is_counted(spool: Spool) -> None:
    finding, jpeg = make_sample()
    spool.put(finding, jpeg)
    assert spool.refuse({finding.event_id: "not a JPEG", "0" * 32: "unknown"}) == [finding.event_id]
    assert dropped(spool) == {"refused": 1}
    assert spool.health().samples == 0


def test_too_large_for_the_wire_is_dropped_and_counted(spool: Spool) -> None:
    big, jpeg = make_sample(size=MAX_JPEG_BYTES + 1)
    assert not spool.put(big, jpeg)
    wordy, jpeg = make_sample()
    assert not spool.put(msgspec.structs.replace(wordy, tags=("x" * 9000,)), jpeg)
    assert dropped(spool) == {"oversize": 2}


def test_unwanted_frames_leave_first_the_least_worthy_first(tmp_path: Path) -> None:
    with contextlib.closing(open_spool(tmp_path / "s.db", limit_bytes=10 * 8192)) as spool:
        severities = (0.2, 0.9, 0.1, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
        samples = [make_sample(severity=s)[0] for s in severities]
        for finding in samples:
            assert spool.put(finding, make_sample(event_id=finding.event_id)[1])
        names = [s.event_id for s in samples]
        spool.ack_findings(names[:4])
        spool.want([names[2]])
        for _ in range(3):  # held: 0.2, then 0.6, then 0.9
            assert spool.put(*make_sample(severity=0.0))
        assert [spool.frame(n) is None for n in names[:4]] == [True, True, False, True]
        assert dropped(spool) == {"evicted_held": 3}
        assert spool.put(*make_sample(severity=0.0))  # now the oldest of the worthless new ones
        assert spool.frame(names[4]) is None
        assert spool.frame(names[2]) is not None
        assert dropped(spool) == {"evicted_held": 3, "evicted_new": 1}


def test_a_newcomer_worth_less_than_all_is_dropped_itself(tmp_path: Path) -> None:
    with contextlib.closing(open_spool(tmp_path / "s.db", limit_bytes=4 * 8192)) as spool:
        kept = [make_sample(severity=0.9) for _ in range(4)]
        for sample in kept:
            spool.put(*sample)
        assert not spool.put(*make_sample(severity=0.1))
        assert dropped(spool) == {"spool_full": 1}
        assert all(spool.frame(finding.event_id) for finding, _ in kept)
        assert spool.counters()[0] == {"missed": 4}


def test_what_was_asked_for_and_what_is_on_its_way_is_never_evicted(tmp_path: Path) -> None:
    with contextlib.closing(open_spool(tmp_path / "s.db", limit_bytes=4 * 8192)) as spool:
        asked, sent = [make_sample(severity=0.0)[0].event_id for _ in range(2)], []
        for name in asked:
            spool.put(*make_sample(event_id=name))
        spool.want(asked)
        for _ in range(2):
            finding, jpeg = make_sample(severity=0.0)
            spool.put(finding, jpeg)
            sent.append(finding.event_id)
        assert set(ids(spool, NEW)) == set(sent)
        assert not spool.put(*make_sample(severity=1.0))
        assert all(spool.frame(name) for name in asked + sent)


def test_the_file_stays_within_the_limit_and_its_own_tables(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with contextlib.closing(open_spool(path, limit_bytes=2_000_000)) as spool:
        for i in range(300):
            spool.put(*make_sample(size=1000 + 97 * i, severity=i % 7 / 7))
            assert spool.health().bytes <= 2_000_000
        assert spool.health().samples > 40
    assert path.stat().st_size < 2_000_000 * 1.1


def test_counts_survive_a_restart_and_a_kill(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "s.db")
    spool.count("writer_busy", 3)
    spool.put(*make_sample(reason=Reason.CONTROL))  # carries the count to the disk
    spool.count("quota_missed")
    assert dropped(spool) == {"quota_missed": 1, "writer_busy": 3}
    spool._db.close()  # as if killed: the last count was in memory only
    spool = open_spool(tmp_path / "s.db")
    assert spool.counters() == ({"control": 1}, {"writer_busy": 3})
    spool.count("quota_missed")
    spool.flush()
    spool._db.close()
    spool = open_spool(tmp_path / "s.db")
    assert dropped(spool) == {"quota_missed": 1, "writer_busy": 3}
    spool.close()


def test_a_broken_database_is_moved_aside_and_its_counters_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.db"
    spool = open_spool(path)
    for _ in range(20):
        spool.put(*make_sample(size=20_000))
    spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    spool._db.close()
    content = bytearray(path.read_bytes())
    content[200_000:300_000] = b"\x00" * 100_000
    path.write_bytes(content)
    with contextlib.closing(open_spool(path)) as spool:
        assert dropped(spool) == {"spool_corrupt": 20}
        assert spool.counters()[0] == {"missed": 20}
        assert spool.health().samples == 0
        assert spool.put(*make_sample())
    assert (tmp_path / "s.db.corrupt").exists()
    assert "is broken" in caplog.text


def test_a_file_that_is_no_database_is_moved_aside(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    path.write_bytes(b"not a database at all " * 1000)
    with contextlib.closing(open_spool(path)) as spool:
        assert spool.put(*make_sample())
        assert dropped(spool) == {"spool_corrupt": 1}


def test_a_database_that_breaks_while_in_use_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with contextlib.closing(open_spool(path)) as spool:
        for _ in range(50):
            spool.put(*make_sample(size=20_000))
        spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        spool._db.execute("PRAGMA cache_size = 0")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\x55" * (path.stat().st_size - 4096))
        assert spool.put(*make_sample())
        assert spool.health().samples == 1
        assert dropped(spool)["spool_corrupt"] >= 1


def test_a_spool_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    open_spool(path).close()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UnusableError, match="made by a newer weakspot"):
        open_spool(path)


def test_what_is_put_survives_a_power_cut(spool: Spool) -> None:
    assert spool._db.execute("PRAGMA synchronous").fetchone()[0] == 2, "FULL"


def test_a_folder_that_is_gone_is_counted_and_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    spool = open_spool(tmp_path / "data" / "s.db")
    (tmp_path / "data").rename(tmp_path / "elsewhere")
    assert not spool.put(*make_sample())
    spool.flush()
    assert dropped(spool) == {"disk_full": 1}
    spool.close()


def test_what_the_hub_says_is_logged_short_and_on_one_line(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    finding, jpeg = make_sample()
    spool.put(finding, jpeg)
    spool.refuse({finding.event_id: "a\nb" + "z" * 50_000})
    assert "refused" in caplog.messages[-1]
    assert "\n" not in caplog.messages[-1]
    assert len(caplog.messages[-1]) < 300


def test_a_path_that_cannot_be_opened_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "s.db").mkdir()
    with pytest.raises(UnusableError, match="cannot open the spool"):
        open_spool(tmp_path / "s.db")
