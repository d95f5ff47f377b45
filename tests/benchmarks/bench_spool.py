"""How long it takes until a sample of 50 KB is safe on the disk: `Spool.put`, p50 and p99.

Beside it, in the same run and folder (`TMPDIR` chooses the disk), one write and `fsync` of 50 KB: what the disk takes.
"""

import contextlib
import os
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

from edge.spool import SampleState, Spool
from tests.edge.samples import make_sample

FRAME_BYTES = 50_000
PUTS = 500


def percentiles(times_s: list[float]) -> str:
    cuts = statistics.quantiles(times_s, n=100)
    return f"p50 {cuts[49] * 1e3:6.2f} ms   p99 {cuts[98] * 1e3:6.2f} ms"


def timed_puts(folder: Path, *, limit_bytes: int) -> list[float]:
    with contextlib.closing(Spool(folder / f"spool-{limit_bytes}.db", limit_bytes=limit_bytes)) as spool:
        times_s = []
        for i in range(PUTS):
            sample = make_sample(size=FRAME_BYTES, severity=i % 10 / 10)
            start = time.perf_counter()
            spool.put(*sample)
            times_s.append(time.perf_counter() - start)
        leased = spool.lease(SampleState.NEW, now_s=0.0, limit=32)
        start = time.perf_counter()
        spool.ack_findings([sample.event_id for sample in leased])
        times_s.append(time.perf_counter() - start)
        return times_s


def timed_fsyncs(folder: Path) -> list[float]:
    body, times_s = os.urandom(FRAME_BYTES), []
    with (folder / "plain").open("wb", buffering=0) as file:
        for _ in range(PUTS):
            start = time.perf_counter()
            file.write(body)
            os.fsync(file.fileno())
            times_s.append(time.perf_counter() - start)
    return times_s


def main() -> None:
    print(f"Spool: {PUTS} puts of a frame of {FRAME_BYTES // 1000} KB; SQLite {sqlite3.sqlite_version}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        *roomy, ack = timed_puts(folder, limit_bytes=10**9)
        *full, _ = timed_puts(folder, limit_bytes=100 * FRAME_BYTES)
        print(f"  put, room left          {percentiles(roomy)}   {len(roomy) / sum(roomy):6.0f} a second")
        print(f"  put, spool full         {percentiles(full)}   {len(full) / sum(full):6.0f} a second")
        print(f"  ack of 32 findings      {ack * 1e3:10.2f} ms")
        print(f"  write and fsync, plain  {percentiles(timed_fsyncs(folder))}")


if __name__ == "__main__":
    main()
