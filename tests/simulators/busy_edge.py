"""A device whose camera is simulated and the rest is not: made samples go through the real spool and publisher.

`python -m tests.simulators.busy_edge FOLDER PORT UPLOAD` runs until it is killed. Every event id whose `put` returned
True is appended to `FOLDER/put.txt`: what stands there the device has promised to deliver.
"""

import hashlib
import os
import random
import sys
import time
import uuid
from pathlib import Path

import cv2
import numpy as np

from edge.config import MqttConfig
from edge.contract.samples import Finding, Light, Reason
from edge.publisher import Identity, Publisher
from edge.spool import Spool

PUTS_PER_S = 60
BACKLOG = 60
WIDTH, HEIGHT = 320, 240


def make_sample(number: random.Random) -> tuple[Finding, bytes]:
    """Return a finding of its own with a real JPEG of about 30 kB."""
    noise = np.frombuffer(number.randbytes(WIDTH * HEIGHT), np.uint8).reshape(HEIGHT, WIDTH)
    jpeg = cv2.imencode(".jpg", noise, [cv2.IMWRITE_JPEG_QUALITY, 35])[1].tobytes()
    x, y = number.uniform(0, WIDTH - 40), number.uniform(0, HEIGHT - 60)
    finding = Finding(
        event_id=uuid.uuid4().hex,
        site="lab",
        device="busy",
        camera="c",
        sequence=0,
        captured_at_ms=time.time_ns() // 1_000_000,
        reason=Reason.MISSED,
        severity=number.random(),
        region=(x, y, x + 30.0, y + 50.0),
        label="person",
        boxes=(),
        witnesses=(),
        tags=(),
        width=WIDTH,
        height=HEIGHT,
        crop_hash=number.randbytes(32).hex(),
        frame_hash=number.randbytes(32).hex(),
        features=number.randbytes(16),
        light=Light(100.0, 20.0, 1.0, 50.0),
        model="starter-1",
        frame_bytes=len(jpeg),
        frame_sha256=hashlib.sha256(jpeg).hexdigest(),
    )
    return finding, jpeg


def main() -> None:
    folder, port, upload = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    number = random.Random()
    spool = Spool(folder / "spool.db", limit_bytes=2_000_000_000, reserve_bytes=1_000_000)
    identity = Identity(site="lab", device="busy", boot_id=uuid.uuid4().hex, model="starter-1", version="0")
    config = MqttConfig(host="127.0.0.1", port=port, ack_timeout_s=3.0, keepalive_s=5)
    publisher = Publisher(config, spool=spool, identity=identity, upload_all=upload == "all")
    publisher.start()
    journal = os.open(folder / "put.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while True:
        (folder / "alive").touch()
        if not (folder / "quiet").exists() and spool.health().unsent < BACKLOG:
            finding, jpeg = make_sample(number)
            if spool.put(finding, jpeg):
                os.write(journal, finding.event_id.encode() + b"\n")
        time.sleep(1 / PUTS_PER_S)


if __name__ == "__main__":
    main()
