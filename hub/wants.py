"""Which frames to ask the devices for: a rule over values, without I/O.

Laws:

1. What is asked of one device within 24 hours stays within its byte budget; `control` frames within their share of it,
   and everything else within the rest.
2. At most `outstanding_per_device` wants of a device wait for an answer.
3. Within those, the most severe finding goes first.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

DAY_MS = 24 * 60 * 60 * 1000


class WantRule(msgspec.Struct, frozen=True, kw_only=True):
    """The limits. See `[wants]` in hub.config for the words to the user."""

    bytes_per_day_per_device: int
    control_share: float
    outstanding_per_device: int
    max_age_ms: int


class OpenFinding(NamedTuple):
    """A finding whose frame may be asked for: its group has no other frame, or it is a `control`."""

    event_id: str
    site: str
    device: str
    control: bool
    severity: float
    frame_bytes: int
    received_at_ms: int


class DeviceSpend(NamedTuple):
    """What was asked of one device in the last 24 hours, and how many wants still wait."""

    bytes: int = 0
    control_bytes: int = 0
    outstanding: int = 0


class Overdue(NamedTuple):
    """A want to send again."""

    event_id: str
    site: str
    device: str


class Choice(NamedTuple):
    """What to ask for now, and what is too old to ask for ever."""

    want: tuple[OpenFinding, ...]
    expired: tuple[OpenFinding, ...]


def choose(
    open_findings: Iterable[OpenFinding],
    spent: Mapping[tuple[str, str], DeviceSpend],
    *,
    now_ms: int,
    rule: WantRule,
) -> Choice:
    """Apply the laws. What does not fit stays open for a later call."""
    control_limit = int(rule.bytes_per_day_per_device * rule.control_share)
    other_limit = rule.bytes_per_day_per_device - control_limit
    spend = dict(spent)
    want: list[OpenFinding] = []
    expired: list[OpenFinding] = []
    for finding in sorted(open_findings, key=lambda f: (-f.severity, f.received_at_ms, f.event_id)):
        if now_ms - finding.received_at_ms > rule.max_age_ms:
            expired.append(finding)
            continue
        device = (finding.site, finding.device)
        so_far = spend.get(device, DeviceSpend())
        control_bytes = so_far.control_bytes + (finding.frame_bytes if finding.control else 0)
        total = so_far.bytes + finding.frame_bytes
        fits = control_bytes <= control_limit if finding.control else total - control_bytes <= other_limit
        if fits and so_far.outstanding < rule.outstanding_per_device:
            want.append(finding)
            spend[device] = DeviceSpend(total, control_bytes, so_far.outstanding + 1)
    return Choice(tuple(want), tuple(expired))
