"""Ingest against the disk itself: the same bytes, the same pragmas, the same number of messages in a transaction.

`raw` writes header and frame into one table of three columns and does nothing else. `ingest` is the hub's own path:
decode, check, hash, de-duplicate, insert, commit, acknowledge; the messages are handed over as the network's thread
does. The two run in turn, several times; the ratio is that of the best of each, its spread that of the pairs. The hash
of the frames, which the raw loop does not make, is timed by itself: on a processor without instructions for it, it
takes about as long as the writing. `broker` adds a real mosquitto and a real `hub serve`, and a device that sends as
fast as it is acknowledged: all on the same cores.
"""

import hashlib
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import msgspec
import numpy as np

from edge.contract.samples import Box, Finding, encode_event
from edge.contract.topics import Kind, topic
from hub.config import IngestConfig
from hub.ingest import Committer, Ticket, judge
from hub.serve import SWITCH_S
from hub.store import Store
from hub.store_file import open_connection
from tests.brokers import Broker, mosquitto_path
from tests.hub.devices import Device, Hub
from tests.hub.made import event_id, finding

EVENTS = 1000
ROUNDS = 10
FRAME_BYTES = 30_000
WHERE = topic("lab", "box", Kind.EVENT)


def picture(number: int) -> bytes:
    """A JPEG of 640x480 and exactly `FRAME_BYTES`: noise of the strength that needs them, and a comment to fill up."""
    rng = np.random.default_rng(number)
    image = cv2.GaussianBlur(rng.integers(0, 256, (480, 640, 3), np.uint8), (0, 0), 1.3)
    for quality in range(95, 5, -5):
        encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(encoded) <= FRAME_BYTES - 4:
            break
    missing = FRAME_BYTES - len(encoded)
    return encoded[:2] + b"\xff\xfe" + (missing - 2).to_bytes(2, "big") + bytes(missing - 4) + encoded[2:]


def make_payloads(count: int) -> list[bytes]:
    pictures = [picture(number) for number in range(16)]
    boxes = tuple(Box((10.5 * n, 20.25, 10.5 * n + 30.0, 90.75), "person", 0.4) for n in range(8))
    features = np.random.default_rng(0).integers(-127, 128, 480).astype(np.int8).tobytes()
    whole: Finding = finding(0, width=640, height=480, boxes=boxes, features=features)
    payloads = []
    for number in range(count):
        jpeg = pictures[number % len(pictures)]
        mine = msgspec.structs.replace(
            whole,
            event_id=hashlib.md5(b"%d" % number, usedforsecurity=False).hexdigest(),
            frame_bytes=len(jpeg),
            frame_sha256=hashlib.sha256(jpeg).hexdigest(),
        )
        payloads.append(encode_event(mine, jpeg))
    return payloads


def raw_seconds(folder: Path, payloads: Sequence[bytes], *, together: int) -> float:
    """Write header and frame of every payload, `together` in a transaction."""
    Store.open(folder / "raw.db").close()  # the same page size and journal
    connection = open_connection(folder / "raw.db", create=False)
    connection.execute("CREATE TABLE raw (id INTEGER PRIMARY KEY, header BLOB, jpeg BLOB)")
    rows = [(payload[:-FRAME_BYTES], payload[-FRAME_BYTES:]) for payload in payloads]
    started = time.perf_counter()
    for start in range(0, len(rows), together):
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO raw (header, jpeg) VALUES (?, ?)", rows[start : start + together])
        connection.execute("COMMIT")
    seconds = time.perf_counter() - started
    connection.close()
    return seconds


class Sink:
    """A line that only counts."""

    def __init__(self, count: int) -> None:
        self.acked = 0
        self.batches: list[int] = []
        self.done = threading.Event()
        self._count = count

    def answer(self, site: str, device: str, ack) -> None:
        self.acked += len(ack.frames)

    def take(self, tickets: Sequence[Ticket]) -> None:
        self.batches.append(len(tickets))
        if self.acked >= self._count:
            self.done.set()


def ingest_seconds(folder: Path, payloads: Sequence[bytes]) -> tuple[float, float]:
    """Hand every payload over as the network's thread does; also return the messages in a transaction on average."""
    committer = Committer(IngestConfig(), capacity=512)
    sink = Sink(len(payloads))
    ready = threading.Event()

    def run() -> None:
        with Store.open(folder / "hub.db") as store:
            ready.set()
            committer.run(store, sink)

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait()
    started = time.perf_counter()
    for mid, payload in enumerate(payloads):
        committer.put(judge(WHERE, payload, None), Ticket(1, mid, 1))
    sink.done.wait()
    seconds = time.perf_counter() - started
    committer.drain()
    thread.join()
    assert sink.acked == len(payloads)
    return seconds, statistics.mean(sink.batches)


def broker_seconds(folder: Path, payloads: Sequence[bytes]) -> float:
    """From the first message sent until the hub's own ack for the last frame is here."""
    with Broker() as broker, Hub(folder, broker.port), Device(broker.port) as device:
        done = threading.Event()
        started = time.perf_counter()
        for number, payload in enumerate(payloads):
            device.send(Kind.EVENT, payload, event_id=event_id(number))
        while len(device.frames_acked) < len(payloads):
            done.wait(0.005)
        return time.perf_counter() - started


def line(name: str, seconds: float) -> str:
    return f"{name:8} {EVENTS / seconds:7.0f} events/s {EVENTS * FRAME_BYTES / seconds / 1e6:7.1f} MB/s"


def hash_seconds(payloads: Sequence[bytes]) -> float:
    """What the SHA-256 of the frames alone takes: a good part of it on a processor without instructions for it."""
    frames = [payload[-FRAME_BYTES:] for payload in payloads]
    started = time.perf_counter()
    for frame in frames:
        hashlib.sha256(frame).digest()
    return time.perf_counter() - started


def main() -> None:
    sys.setswitchinterval(SWITCH_S)  # as `hub serve` does
    payloads = make_payloads(EVENTS)
    raws, ingests, hashes, together = [], [], [], IngestConfig().batch_messages
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as folder:
            raws.append(raw_seconds(Path(folder), payloads, together=together))
        with tempfile.TemporaryDirectory() as folder:
            seconds, batch = ingest_seconds(Path(folder), payloads)
            ingests.append(seconds)
        hashes.append(hash_seconds(payloads))
    ratios = sorted(raw / ingest for raw, ingest in zip(raws, ingests, strict=True))
    print(f"{EVENTS} events with a frame of {FRAME_BYTES} bytes, {ROUNDS} rounds in turn, the best of each")
    print(f"{line('raw', min(raws))}   {together} in a transaction")
    print(f"{line('ingest', min(ingests))}   {batch:.0f} in a transaction")
    print(f"{line('sha256', min(hashes))}   of that, the hash of the frames alone")
    spread = f"of the pairs {ratios[0]:.2f} to {ratios[-1]:.2f}, median {statistics.median(ratios):.2f}"
    print(f"ratio    {min(raws) / min(ingests):7.2f} of the best, {spread}; wanted 0.6")
    hashed = (min(raws) + min(hashes)) / min(ingests)
    print(f"         {hashed:7.2f} of a raw loop that hashes the frames too")
    if mosquitto_path() is None:
        print("broker   not measured: mosquitto is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        print(f"{line('broker', broker_seconds(Path(folder), payloads))}   device, mosquitto and hub on the same cores")


if __name__ == "__main__":
    main()
