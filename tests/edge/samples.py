"""Samples made up for tests: a finding and the JPEG (any bytes will do) that it describes."""

import hashlib
import random
import uuid

from edge.contract.samples import Finding, Light, Reason


def make_sample(
    *,
    size: int = 2000,
    severity: float = 0.5,
    reason: Reason = Reason.MISSED,
    event_id: str | None = None,
    sequence: int = 0,
) -> tuple[Finding, bytes]:
    """Return a finding and a body of `size` bytes that fits it; the body depends on the event id only."""
    event_id = event_id or uuid.uuid4().hex
    jpeg = b"\xff\xd8" + random.Random(event_id).randbytes(size - 2)
    finding = Finding(
        event_id=event_id,
        site="yard",
        device="gate",
        camera="front",
        sequence=sequence,
        captured_at_ms=1_700_000_000_000,
        reason=reason,
        severity=severity,
        region=(0.0, 0.0, 10.0, 10.0),
        label="person",
        boxes=(),
        witnesses=(),
        tags=(),
        width=640,
        height=480,
        crop_hash="0" * 64,
        frame_hash="0" * 64,
        features=b"",
        light=Light(1.0, 1.0, 1.0, 1.0),
        model="starter-1",
        frame_bytes=len(jpeg),
        frame_sha256=hashlib.sha256(jpeg).hexdigest(),
    )
    return finding, jpeg
