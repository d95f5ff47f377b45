"""A message on its way into the database: what it was judged to be, and what may be answered to it."""

from dataclasses import dataclass
from typing import NamedTuple

from edge.contract.rollout import Assignment, RolloutReport
from edge.contract.samples import Finding, FrameHeader
from edge.contract.status import Heartbeat, State


@dataclass(frozen=True, slots=True)
class EventContent:
    """A finding, checked, with its JSON as it came and its JPEG, checked, or nothing."""

    finding: Finding
    header: bytes
    jpeg: bytes


@dataclass(frozen=True, slots=True)
class FrameContent:
    """One part of a frame, or the word that it is gone."""

    header: FrameHeader
    part: bytes


@dataclass(frozen=True, slots=True)
class HeartbeatContent:
    """A heartbeat, checked."""

    heartbeat: Heartbeat


@dataclass(frozen=True, slots=True)
class StateContent:
    """A state or a last will, checked."""

    state: State


@dataclass(frozen=True, slots=True)
class ReportContent:
    """How far a device is with an order, checked."""

    report: RolloutReport


@dataclass(frozen=True, slots=True)
class OrderContent:
    """What the broker keeps for a device of the hub's own orders, checked."""

    order: Assignment


@dataclass(frozen=True, slots=True)
class ClearedContent:
    """Nothing to store, and nothing wrong: a retained message was deleted, or this is of what was forgotten.

    `event_id`: the finding or the frame that is acknowledged all the same, so that the device drops it.
    """

    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedContent:
    """A message that cannot be used. `event_id` is None when not even that could be read."""

    reason: str
    event_id: str | None


Content = (
    EventContent
    | FrameContent
    | HeartbeatContent
    | StateContent
    | ReportContent
    | OrderContent
    | ClearedContent
    | RefusedContent
)


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message: where it came from, what it is, and the payload for the record of refused ones.

    `site` and `device` are those of the topic; empty when the topic names none.
    """

    topic: str
    site: str
    device: str
    payload: bytes
    content: Content


class Outcome(NamedTuple):
    """What may be acknowledged to the device that sent one message."""

    finding: str | None = None
    frame: str | None = None
    refused: tuple[str, str] | None = None
