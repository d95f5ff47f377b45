"""One million findings through the real store and the real curator: does anything get slower as the database grows?

A fleet of 200 devices with two cameras each finds `COUNT` things within 30 days. Three of four are seen again a moment
later and are near-duplicates; one of ten is a `control` frame that was looked at twice; every 200th brings its frame.
They are committed 128 in a transaction and grouped in between by the curator, as in `hub serve`. The first and the last
tenth are compared. The checkpoint that SQLite makes now and then is part of the time, and so is the naming of weak
spots. Rates are given by the clock and by processor time: the clock tells something only where nothing else runs.

    python -m tests.benchmarks scale            1,000,000 findings, about 8 minutes, 4 GB in the temporary folder
    SCALE=100000 python -m tests.benchmarks scale
"""

import hashlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple, TypeVar

import cv2
import msgspec
import numpy as np

from edge.contract.samples import Box, Finding, Light, Reason, WitnessKind
from edge.contract.topics import Kind, topic
from hub.arrivals import Arrival, EventContent
from hub.check import check_lines
from hub.config import KeepConfig, WantsConfig
from hub.curator import Curator
from hub.dedupe import DuplicateIndex
from hub.naming import refresh
from hub.store import Store
from hub.tags import Tagger, TagsConfig
from tests.hub.made import arrival, event_payload, heartbeat_payload

COUNT = int(os.environ.get("SCALE", "1000000"))
DEVICES, CAMERAS, TOGETHER, FRAME_EVERY = 200, 2, 128, 200
TENTHS = 10
START_MS = 1_767_225_600_000
SPAN_MS = 30 * 24 * 3_600_000
WIDTH, HEIGHT, FEATURES = 1280, 720, 256
LIGHT = ((), ("dark",), ("noisy",), ("dark", "noisy"), ("grayscale",))
SIZES = ("tiny", "small", "medium", "big")
LABELS = ("person", "car", "dog")
Result = TypeVar("Result")
encode = msgspec.json.Encoder().encode


def pictures() -> list[bytes]:
    """A few real JPEGs of the frame's size."""
    rng = np.random.default_rng(1)
    blurred = [cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8), (0, 0), 4) for _ in range(8)]
    return [cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes() for image in blurred]


class Fleet:
    """Makes findings, in order of time. Every number of an event is drawn, so nothing but a repetition is alike."""

    def __init__(self, count: int) -> None:
        self._rng = np.random.default_rng(7)
        self._count = count
        self._made = 0
        self._pictures = [(jpeg, hashlib.sha256(jpeg).hexdigest()) for jpeg in pictures()]

    def arrivals(self) -> Iterator[list[Arrival]]:
        """Yield one transaction's worth at a time."""
        while self._made < self._count:
            size = min(TOGETHER, self._count - self._made)
            events = -(-size // 4)
            kinds = [self._event(at) for at in range(events)]
            yield [self._arrival(kinds[n % events], again=n // events) for n in range(size)]

    def _event(self, at: int) -> dict[str, object]:
        """What the findings of one event have in common."""
        rng = self._rng
        device, camera = int(rng.integers(DEVICES)), int(rng.integers(CAMERAS))
        x, y = float(rng.uniform(0, WIDTH - 200)), float(rng.uniform(0, HEIGHT - 300))
        size = int(rng.integers(len(SIZES)))
        light = LIGHT[int(rng.integers(len(LIGHT)))]
        return {
            "device": f"box-{device:03}",
            "camera": f"cam-{camera}",
            "captured_at_ms": START_MS + int(SPAN_MS * self._made / self._count) + at * 100,
            "label": LABELS[int(rng.integers(len(LABELS)))],
            "crop": rng.bytes(32),
            "frame": rng.bytes(32),
            "features": rng.integers(-127, 128, FEATURES, np.int8).tobytes(),
            "region": (x, y, x + 40.0 + 40 * size, y + 80.0 + 60 * size),
            "tags": (SIZES[size], *light),
            "track": f"{rng.integers(1 << 40):x}",
        }

    def _arrival(self, event: dict[str, object], *, again: int) -> Arrival:
        number = self._made
        self._made += 1
        control = number % 10 == 3
        jpeg, sha256 = self._pictures[number % len(self._pictures)]
        inline = number % FRAME_EVERY == 0
        captured_at_ms = int(str(event["captured_at_ms"])) + 400 * again
        finding = Finding(
            event_id=f"{captured_at_ms:012x}7{hashlib.md5(b'%d' % number, usedforsecurity=False).hexdigest()[13:]}",
            site=f"plant{int(str(event['device'])[4:]) // 50}",
            device=event["device"],
            camera=event["camera"],
            sequence=number,
            captured_at_ms=captured_at_ms,
            reason=Reason.CONTROL if control else (Reason.LOW_CONFIDENCE if number % 10 in {5, 7} else Reason.MISSED),
            severity=float(self._rng.uniform(0, 1)),
            region=(0.0, 0.0, float(WIDTH), float(HEIGHT)) if control else event["region"],
            label="" if control else event["label"],
            boxes=self._boxes(event, control=control),
            witnesses=(),
            tags=event["tags"],
            track="" if control else event["track"],
            looked_twice=control,
            width=WIDTH,
            height=HEIGHT,
            crop_hash=event["crop"].hex(),
            frame_hash=event["frame"].hex(),
            features=event["features"],
            light=Light(80.0, 20.0, 2.0, 5.0),
            model="starter-1",
            frame_bytes=len(jpeg),
            frame_sha256=sha256 if inline else hashlib.sha256(b"%d" % number).hexdigest(),
        )
        content = EventContent(finding, encode(finding), jpeg if inline else b"")
        return Arrival(topic(finding.site, finding.device, Kind.EVENT), finding.site, finding.device, b"", content)

    def _boxes(self, event: dict[str, object], *, control: bool) -> tuple[Box, ...]:
        rng = self._rng
        boxes = []
        for number in range(4):
            x, y = float(rng.uniform(0, WIDTH - 100)), float(rng.uniform(0, HEIGHT - 100))
            tags = (SIZES[int(rng.integers(len(SIZES)))], *event["tags"][1:]) if control else ()
            witness = WitnessKind.ZOOM if control and number == 3 and rng.uniform() < 0.6 else None
            boxes.append(Box((x, y, x + 60.5, y + 90.25), str(event["label"]), 0.5, witness, tags))
        return tuple(boxes)


class Deaf:
    """A line whose devices never answer."""

    def want(self, site: str, device: str, want: object) -> None:
        """Take it."""


def make_curator(store: Store, *, pace_s: float) -> Curator:
    """As `hub serve` makes it."""
    tagger = Tagger(TagsConfig())
    return Curator(
        store,
        make_index=DuplicateIndex,
        line=Deaf(),
        wants=WantsConfig(),
        tagger=tagger,
        pace_s=pace_s,
        keep=KeepConfig(),
    )


class Stopwatch:
    """Seconds by the clock and of processor time."""

    def __init__(self) -> None:
        self.clock_s = self.processor_s = 0.0

    def time(self, work: Callable[[], Result]) -> Result:
        """Do the work and add what it took."""
        clock_s, processor_s = time.perf_counter(), time.process_time()
        result = work()
        self.clock_s += time.perf_counter() - clock_s
        self.processor_s += time.process_time() - processor_s
        return result


class Tenth(NamedTuple):
    """One tenth of the findings."""

    findings: int
    ingest: Stopwatch
    grouping: Stopwatch


def fill(store: Store, count: int) -> list[Tenth]:
    """Commit and group everything."""
    curator = make_curator(store, pace_s=3600.0)
    tenths: list[Tenth] = []
    done, ingest, grouping = 0, Stopwatch(), Stopwatch()
    for arrivals in Fleet(count).arrivals():
        newest_ms = arrivals[-1].content.finding.captured_at_ms
        ingest.time(lambda: store.commit(arrivals, now_ms=newest_ms))  # noqa: B023
        done += len(arrivals)
        if done % (4 * TOGETHER) == 0 or done == count:
            grouping.time(lambda: group_all(curator, newest_ms))  # noqa: B023
        if done >= (len(tenths) + 1) * count / TENTHS:
            tenths.append(Tenth(done - sum(tenth.findings for tenth in tenths), ingest, grouping))
            print(f"  {done:>9} findings: {rates_of(tenths[-1:])}", file=sys.stderr, flush=True)
            ingest, grouping = Stopwatch(), Stopwatch()
    return tenths


def group_all(curator: Curator, now_ms: int) -> None:
    """Group what came."""
    while curator.step(now_ms).more:
        pass


def timed(name: str, work: Callable[[], Result]) -> Result:
    """Print how long `work` takes, twice: the first time its pages may have to be read from the disk."""
    first, again = Stopwatch(), Stopwatch()
    first.time(work)
    result = again.time(work)
    print(
        f"{name:18} {first.clock_s:7.2f} s ({first.processor_s:.2f} of processor),"
        f" again {again.clock_s:.2f} s ({again.processor_s:.2f})",
        flush=True,
    )
    return result


def main() -> None:
    """Print every figure."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "scale.db"
        with Store.open(path) as store:
            tenths = fill(store, COUNT)
            print_rates(tenths)
            size = sum(part.stat().st_size for part in Path(folder).iterdir())
            counted = timed("hub status", lambda: store.status(now_ms=START_MS + SPAN_MS))
            frame_bytes = counted.frame_bytes
            print(
                f"{'database':18} {size / 1e9:7.2f} GB, {frame_bytes / 1e9:.2f} GB of it frames:"
                f" {(size - frame_bytes) / COUNT:.0f} bytes a finding"
            )
            print(f"{'groups':18} {counted.groups:7d}, {counted.ungrouped} findings not grouped")
            alive = [
                arrival(Kind.HEARTBEAT, heartbeat_payload(), site=one.site, device=one.device)
                for one in counted.devices
            ]
            store.commit(alive, now_ms=START_MS + SPAN_MS)
            numbers = count(COUNT)
            timed("a fresh curator", lambda: first_step(store, next(numbers)))
            curator = make_curator(store, pace_s=0.0)
            timed("a round of wants", lambda: curator._ask(START_MS + SPAN_MS))
            name_weak_spots(store)
            started = time.perf_counter()
            lines, holds = check_lines(store)
            print(f"{'hub check':18} {time.perf_counter() - started:7.1f} s: {lines[0]}")
            assert holds, lines


def first_step(store: Store, number: int) -> None:
    """Group one more finding, name and ask with a curator that has just started."""
    now_ms = START_MS + SPAN_MS
    store.commit([arrival(Kind.EVENT, event_payload(number, captured_at_ms=now_ms))], now_ms=now_ms)
    make_curator(store, pace_s=0.0).step(now_ms)


def rates_of(tenths: list[Tenth]) -> str:
    """Return findings per second, by the clock and by processor time."""
    findings = sum(tenth.findings for tenth in tenths)
    ingest = [sum(each) for each in zip(*((t.ingest.clock_s, t.ingest.processor_s) for t in tenths), strict=True)]
    grouping = [sum(each) for each in zip(*((t.grouping.clock_s, t.grouping.processor_s) for t in tenths), strict=True)]
    return (
        f"ingest {findings / ingest[0]:6.0f}/s ({findings / ingest[1]:.0f}/s of processor),"
        f" grouping {findings / grouping[0]:6.0f}/s ({findings / grouping[1]:.0f}/s of processor)"
    )


def print_rates(tenths: list[Tenth]) -> None:
    """Print the rates of all, and of the first and the last tenth."""
    for name, part in (("all", tenths), ("the first tenth", tenths[:1]), ("the last tenth", tenths[-1:])):
        print(f"{name:18} {rates_of(part)}", flush=True)


def name_weak_spots(store: Store) -> None:
    """Time what `hub weakspots` does."""
    tagger = Tagger(TagsConfig())
    timed("hub weakspots", lambda: refresh(store, tagger, START_MS + SPAN_MS))


if __name__ == "__main__":
    main()
