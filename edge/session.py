"""What is under way on one connection of the publisher: the samples it has sent, the frame it is sending.

Forgotten with the connection: the spool is the queue.
"""

from dataclasses import dataclass, field
from typing import Final

from edge.spool import SampleState

FIRST_WINDOW: Final = 8


@dataclass(slots=True)
class Sent:
    """A sample on its way. `deadline_s` is None until the broker has confirmed all of it."""

    event_id: str
    state: SampleState
    unconfirmed: int = 0
    deadline_s: float | None = None


@dataclass(slots=True)
class Transfer:
    """The frame that is being sent."""

    event_id: str
    sha256: str
    jpeg: bytes
    offset: int = 0


@dataclass(slots=True)
class Told:
    """What the hub was told of this device; None and empty before it was."""

    model: str | None = None
    report: bytes = b""


@dataclass(slots=True)
class Session:
    """What is under way.

    Attributes:
        sent: the samples on their way, by event id.
        owners: the sample of each publish that the broker has not confirmed, by the link's number.
        transfer: the frame that is being sent.
        window: how many findings may wait for the hub's ack.
        complaints: the refusals that were logged.
        told: the device's retained words.
    """

    sent: dict[str, Sent] = field(default_factory=dict)
    owners: dict[int, Sent] = field(default_factory=dict)
    transfer: Transfer | None = None
    window: int = FIRST_WINDOW
    complaints: set[str] = field(default_factory=set)
    told: Told = field(default_factory=Told)

    def frames(self) -> list[Sent]:
        """Return the samples on their way whose finding the hub already has."""
        return [sent for sent in self.sent.values() if sent.state is not SampleState.NEW]
