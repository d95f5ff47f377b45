"""Findings, JPEGs and arrivals for the hub's tests, made from numbers so that a failing example can be read."""

import hashlib
from typing import Any

import cv2
import msgspec
import numpy as np

from edge.contract.samples import Box, Finding, FrameHeader, Light, Reason, encode_event, encode_frame
from edge.contract.status import CameraHealth, Heartbeat, SpoolHealth, State, encode
from edge.contract.topics import Kind, topic
from hub.arrivals import Arrival
from hub.ingest import judge

WIDTH, HEIGHT = 64, 48


def event_id(number: int) -> str:
    return f"{number:032x}"


def jpeg(number: int = 0, *, width: int = WIDTH, height: int = HEIGHT, noise: bool = False) -> bytes:
    """A small JPEG that differs for every number."""
    rng = np.random.default_rng(number)
    if noise:
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
    else:
        image = np.full((height, width, 3), rng.integers(0, 256, 3, np.uint8), np.uint8)
    done, encoded = cv2.imencode(".jpg", image)
    assert done
    return encoded.tobytes()


def finding(number: int = 0, *, picture: bytes | None = None, **changes: Any) -> Finding:
    """A finding about `picture`, by default `jpeg(number)`."""
    picture = jpeg(number) if picture is None else picture
    whole = Finding(
        event_id=event_id(number),
        site="lab",
        device="box",
        camera="door",
        sequence=number,
        captured_at_ms=1_700_000_010_000 + number,
        reason=Reason.MISSED,
        severity=0.5,
        region=(1.0, 2.0, 30.0, 40.0),
        label="person",
        boxes=(Box((1.0, 2.0, 30.0, 40.0), "person", 0.4),),
        witnesses=(),
        tags=("dark",),
        width=WIDTH,
        height=HEIGHT,
        crop_hash=hashlib.sha256(b"crop%d" % number).hexdigest(),
        frame_hash=hashlib.sha256(b"frame%d" % number).hexdigest(),
        features=bytes(range(8)),
        light=Light(80.0, 20.0, 2.0, 5.0),
        model="starter-1",
        frame_bytes=len(picture),
        frame_sha256=hashlib.sha256(picture).hexdigest(),
    )
    return msgspec.structs.replace(whole, **changes)


def event_payload(number: int = 0, *, inline: bool = False, **changes: Any) -> bytes:
    return encode_event(finding(number, **changes), jpeg(number) if inline else b"")


def part_payloads(number: int, *, size: int = 200, picture: bytes | None = None) -> list[bytes]:
    """The frame of finding `number`, in parts."""
    whole = jpeg(number) if picture is None else picture
    sha256 = hashlib.sha256(whole).hexdigest()
    return [
        encode_frame(
            FrameHeader(event_id=event_id(number), size=len(whole), sha256=sha256, offset=at), whole[at : at + size]
        )
        for at in range(0, len(whole), size)
    ]


def gone_payload(number: int) -> bytes:
    return encode_frame(FrameHeader(event_id=event_id(number), size=0, sha256="", gone="evicted"))


def heartbeat_payload(*, boot_id: str = "boot-1", unsent: int = 0) -> bytes:
    camera = CameraHealth(
        name="door", state="running", frames=100, fps=5.0, restarts=0, frame_age_s=0.2, detect_ms=20.0
    )
    return encode(
        Heartbeat(
            boot_id=boot_id,
            at_ms=1_700_000_000_000,
            uptime_s=5.0,
            model="starter-1",
            cameras=(camera,),
            spool=SpoolHealth(samples=3, unsent=unsent, bytes=1000, limit_bytes=10000),
            findings={"missed": 3},
            dropped={"quota": 2},
            bytes_up=12345,
        )
    )


def state_payload(*, boot_id: str = "boot-1", online: bool = True) -> bytes:
    return encode(State(boot_id=boot_id, online=online, at_ms=1_700_000_000_000, model="starter-1", version="0.1.0"))


def arrival(kind: Kind, payload: bytes, *, site: str = "lab", device: str = "box") -> Arrival:
    """What `judge` makes of a message on the right topic."""
    return judge(topic(site, device, kind), payload, None)
