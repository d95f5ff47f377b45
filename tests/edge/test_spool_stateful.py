"""The laws of the spool under any order of steps, "crash here" among them."""

import hashlib
import random
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from edge.contract.samples import Reason, decode_event
from edge.spool import SampleState, Spool
from tests.edge.samples import make_sample

LIMIT_BYTES = 12 * 8192


class SpoolMachine(RuleBasedStateMachine):
    samples = Bundle("samples")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="weakspot-spool-"))
        self.generation = 0
        self.now_s = 0.0
        self.put_ids: set[str] = set()
        self.left_by_hub: set[str] = set()
        self.wanted: set[str] = set()
        self.not_new: set[str] = set()
        self.leased: set[str] = set()
        self.findings: dict[str, int] = {}
        self.counted = 0
        self.durably_counted = 0
        self.age_ms: dict[str, int | None] = {}
        self.passed_s: float | None = None
        self.wall_ms = 1_700_000_000_000
        self.spool = self.open()

    def open(self) -> Spool:
        path = self.folder / str(self.generation) / "spool.db"
        return Spool(path, limit_bytes=LIMIT_BYTES, reserve_bytes=8192, rng=random.Random(0))

    def present(self) -> dict[str, int]:
        return dict(self.spool._db.execute("SELECT event_id, state FROM sample").fetchall())

    @rule(target=samples, severity=st.floats(0, 1), size=st.integers(2, 9000), reason=st.sampled_from(Reason))
    def put(self, severity: float, size: int, reason: Reason) -> str:
        finding, jpeg = make_sample(severity=severity, size=size, reason=reason)
        before = self.present()
        stored = self.spool.put(finding, jpeg)
        self.durably_counted = self.counted
        gone = before.keys() - self.present().keys()
        assert not gone & (self.wanted | self.leased), "law 6"
        if any(before[i] == SampleState.NEW for i in gone):
            held = {i for i, state in self.present().items() if state == SampleState.HELD}
            assert held <= self.leased, "a new one was evicted although an unwanted frame was there"
        if stored:
            self.put_ids.add(finding.event_id)
            self.age_ms[finding.event_id] = None
            self.findings[reason] = self.findings.get(reason, 0) + 1
        else:
            assert not gone, "evicted for nothing"
        return finding.event_id

    @rule(event_id=samples)
    def put_again(self, event_id: str) -> None:
        if event_id in self.present():
            finding, jpeg = make_sample(event_id=event_id)
            assert self.spool.put(finding, jpeg)
            self.durably_counted = self.counted

    @rule(state=st.sampled_from(SampleState), limit=st.integers(0, 4), wait_s=st.floats(0, 500))
    def lease(self, state: SampleState, limit: int, wait_s: float) -> None:
        self.now_s += wait_s
        present = self.present()
        for leased in self.spool.lease(state, now_s=self.now_s, limit=limit):
            assert leased.event_id not in self.leased
            assert present[leased.event_id] == state
            assert decode_event(leased.event)[0].event_id == leased.event_id
            self.leased.add(leased.event_id)

    @rule(event_id=samples)
    def retry(self, event_id: str) -> None:
        self.spool.retry(event_id, now_s=self.now_s)
        self.leased.discard(event_id)

    @rule()
    def release_all(self) -> None:
        self.spool.release_all()
        self.leased.clear()

    @rule(some=st.lists(samples, max_size=3))
    def ack_findings(self, some: list[str]) -> None:
        present = self.present()
        moved = self.spool.ack_findings(some)
        assert set(moved) == {i for i in some if present.get(i) == SampleState.NEW}
        self.durably_counted = self.counted
        self.not_new |= set(moved)
        self.leased -= set(moved)

    @rule(some=st.lists(samples, max_size=3))
    def want(self, some: list[str]) -> None:
        present = self.present()
        assert set(self.spool.want(some)) == set(some) - present.keys()
        self.durably_counted = self.counted
        here = set(some) & present.keys()
        self.leased -= here - self.wanted
        self.wanted |= here
        self.not_new |= here

    @rule(some=st.lists(consumes(samples), max_size=2))
    def ack_frames(self, some: list[str]) -> None:
        present = self.present()
        assert set(self.spool.ack_frames(some)) == set(some) & present.keys()
        self.leave(some, present)

    @rule(event_id=consumes(samples))
    def refuse(self, event_id: str) -> None:
        present = self.present()
        self.spool.refuse({event_id: "because"})
        self.leave([event_id], present)
        if event_id in present:
            self.counted += 1
            self.durably_counted += 1

    def leave(self, some: list[str], present: dict[str, int]) -> None:
        self.durably_counted = self.counted
        self.left_by_hub |= set(some) & present.keys()
        self.wanted -= set(some)
        self.leased -= set(some)

    @rule(n=st.integers(1, 3))
    def count(self, n: int) -> None:
        self.spool.count("writer_busy", n)
        self.counted += n

    @rule()
    def flush(self) -> None:
        self.spool.flush()
        self.durably_counted = self.counted

    @rule(wait_s=st.integers(0, 100), keep_s=st.integers(0, 300), wall_ms=st.integers(0, 10**14))
    def expire(self, wait_s: int, keep_s: int, wall_ms: int) -> None:
        """Whatever the wall clock says, what is too old leaves and nothing else does."""
        self.now_s += wait_s
        passed_ms = 0
        if self.passed_s is not None:
            passed_ms = round((self.now_s - self.passed_s) * 1e3)
            self.wall_ms = wall_ms
        self.passed_s = self.now_s
        before = self.present()
        self.age_ms = {i: 0 if (age_ms := self.age_ms[i]) is None else age_ms + passed_ms for i in before}
        n = self.spool.expire(keep_s=keep_s, now_s=self.now_s, now_ms=self.wall_ms)
        gone = before.keys() - self.present().keys()
        assert gone == {i for i in before if self.age_ms[i] >= keep_s * 1000}, "law 7"
        assert n == len(gone)
        self.leave(sorted(gone), before)
        self.counted += n
        self.durably_counted = self.counted

    @rule()
    def restart(self) -> None:
        self.spool.close()
        self.durably_counted = self.counted
        self.forget()
        self.spool = self.open()

    @rule()
    def crash_here(self) -> None:
        """Carry on from what the disk holds now, with a connection that was never closed."""
        old = self.folder / str(self.generation)
        self.generation += 1
        (self.folder / str(self.generation)).mkdir()
        for name in ("spool.db", "spool.db-wal"):
            if (old / name).exists():
                shutil.copy(old / name, self.folder / str(self.generation) / name)
        self.spool._db.close()
        self.forget()
        self.counted = self.durably_counted
        self.spool = self.open()

    def forget(self) -> None:
        """What was kept in memory is gone. What was put after the last call of `expire` is as old as that call."""
        self.leased.clear()
        self.passed_s = None
        self.age_ms = {i: age_ms or 0 for i, age_ms in self.age_ms.items()}

    @invariant()
    def laws_hold(self) -> None:
        present = self.present()
        findings, dropped = self.spool.counters()
        evicted = sum(n for reason, n in dropped.items() if reason.startswith("evicted_"))
        assert findings == self.findings
        assert sum(dropped.get(reason, 0) for reason in ("writer_busy", "refused", "expired")) == self.counted
        assert len(self.put_ids - self.left_by_hub - present.keys()) == evicted, "law 4"
        assert present.keys() <= self.put_ids - self.left_by_hub, "law 3"
        assert self.wanted <= present.keys(), "law 6"
        assert all((present[i] == SampleState.NEW) == (i not in self.not_new) for i in present), "law 2"
        assert self.spool.health().bytes <= LIMIT_BYTES, "law 5"
        for event_id, size, sha256 in self.spool._db.execute(
            "SELECT event_id, frame_bytes, frame_sha256 FROM sample JOIN body USING (seq)"
        ).fetchall():
            jpeg = self.spool.frame(event_id)
            assert jpeg is not None
            assert (len(jpeg), hashlib.sha256(jpeg).hexdigest()) == (size, sha256), "law 1"
        assert len(present) == self.spool.health().samples
        orphans = "SELECT count(*) FROM body WHERE seq NOT IN (SELECT seq FROM sample)"
        assert self.spool._db.execute(orphans).fetchone()[0] == 0

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.folder)


TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
