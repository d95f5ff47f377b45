"""What a device says of itself, and what the hub answers. All of it is JSON without a body.

Law: `decode(encode(x), type(x)) == x`; a decoder raises `UnusableError` and nothing else.
"""

from typing import Annotated, Literal, TypeVar

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.rollout import Assignment, RolloutReport
from edge.contract.samples import SCHEMA, Count, EventId, Name, Text

Amount = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Counts = Annotated[dict[Text, Count], msgspec.Meta(max_length=64)]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Retained. The last will is the same with `online = False` and the boot id of the session it ends.

    Attributes:
        labels: of the device, as its configuration has them: a rollout may be for those with one of them.
        updates: whether it takes releases over the air.
    """

    schema: int = SCHEMA
    boot_id: Text
    online: bool
    at_ms: Count
    model: Text
    version: Text
    labels: tuple[Name, ...] = ()
    updates: bool = False


class RecallCounts(msgspec.Struct, frozen=True, kw_only=True):
    """What two looks at the same control frames found, since the daemon's start.

    Attributes:
        frames: control frames that were looked at twice.
        detector: objects that the detector found in them.
        second_look: objects that the tiled, enlarged second look found.
        both: objects that both found.
    """

    frames: Count = 0
    detector: Count = 0
    second_look: Count = 0
    both: Count = 0


class CameraHealth(msgspec.Struct, frozen=True, kw_only=True):
    """One camera since the daemon's start.

    Attributes:
        state: see edge.camera.CameraState.
        frame_age_s: None before the first frame.
        looks: inferences that were spent on second looks.
        recall: from the control frames.
    """

    name: Name
    state: Text
    frames: Count
    fps: Amount
    restarts: Count
    frame_age_s: Amount | None
    detect_ms: Amount
    looks: Count = 0
    recall: RecallCounts = RecallCounts()


class SpoolHealth(msgspec.Struct, frozen=True, kw_only=True):
    """The spool now. `unsent`: findings that the hub has not acknowledged."""

    samples: Count
    unsent: Count
    bytes: Count
    limit_bytes: Count


class PolicyVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the last policy that came: `digest` is the first 16 hexadecimal digits of its SHA-256."""

    scope: Literal["site", "device"]
    digest: Text
    refused: Text = ""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """Counters of this device.

    Attributes:
        findings: since the spool was made, by reason.
        dropped: since the spool was made, by reason.
        findings_day: findings of the last 24 hours.
        policies: the policies that came, and whether they are followed.
    """

    schema: int = SCHEMA
    boot_id: Text
    at_ms: Count
    uptime_s: Amount
    model: Text
    cameras: tuple[CameraHealth, ...]
    spool: SpoolHealth
    findings: Counts
    dropped: Counts
    bytes_up: Count
    findings_day: Count = 0
    policies: tuple[PolicyVerdict, ...] = ()


class Ack(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub has committed: findings, whole frames; and what it refused, with the reason."""

    schema: int = SCHEMA
    findings: tuple[EventId, ...] = ()
    frames: tuple[EventId, ...] = ()
    refused: dict[str, str] = {}


class Want(msgspec.Struct, frozen=True, kw_only=True):
    """The frames the hub asks for."""

    schema: int = SCHEMA
    event_ids: tuple[EventId, ...]


_T = TypeVar("_T", State, Heartbeat, Ack, Want, Assignment, RolloutReport)


class _Peek(msgspec.Struct):
    schema: int


def encode(message: State | Heartbeat | Ack | Want | Assignment | RolloutReport) -> bytes:
    """Return the JSON payload."""
    return msgspec.json.encode(message)


def decode(payload: bytes, kind: type[_T]) -> _T:
    """Return the message. Raises `UnusableError` on anything but a valid one of this schema."""
    try:
        schema = msgspec.json.decode(payload, type=_Peek).schema
        if schema != SCHEMA:
            msg = f"schema {schema}, this side speaks {SCHEMA}"
            raise UnusableError(msg)
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"{kind.__name__} is not valid: {error}"
        raise UnusableError(msg) from error
