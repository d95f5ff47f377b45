"""What is under way on one connection of the publisher: the samples it has sent, the frame it is sending.

Forgotten with the connection: the spool is the queue.
"""

from dataclasses import dataclass, field
from typing import Final

from edge.contract.samples import FrameHeader, encode_frame
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

    @property
    def is_over(self) -> bool:
        """Whether all of it was taken."""
        return self.offset >= len(self.jpeg)

    def next_part(self, size: int) -> bytes:
        """Return the payload with the next `size` bytes of the frame, the last ones where fewer are left."""
        part = self.jpeg[self.offset : self.offset + size]
        header = FrameHeader(event_id=self.event_id, size=len(self.jpeg), sha256=self.sha256, offset=self.offset)
        self.offset += len(part)
        return encode_frame(header, part)


@dataclass(slots=True)
class Told:
    """What the hub was told of this device; None before it was."""

    model: str | None = None
    report: bytes | None = None


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

    def late(self, now_s: float) -> list[str]:
        """Return the samples that the hub should have answered by now."""
        return [one for one, sent in self.sent.items() if sent.deadline_s is not None and sent.deadline_s <= now_s]

    def end(self, event_id: str) -> None:
        """Forget a sample: it was answered, or given up."""
        self.sent.pop(event_id, None)
        if self.transfer is not None and self.transfer.event_id == event_id:
            self.transfer = None
