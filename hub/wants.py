"""Which frames to ask the devices for: a rule over values, without I/O.

Laws:

1. What is asked of one device within 24 hours stays within its byte budget; `control` frames within their share of it,
   and everything else within the rest.
2. At most `outstanding_per_device` wants of a device wait for an answer.
3. At most `pool` frames that are in no batch are here or on their way, `control` aside: there is no hurry to ask, the
   devices keep the frames.
4. The fuller the pool, the more severe a finding must be: it is asked for only while the share of its device's findings
   of the same reason that are more severe is under the free share of the pool.
5. Within those, the most severe finding goes first.
"""

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from edge.contract.samples import Reason

DAY_MS = 24 * 60 * 60 * 1000


class WantRule(msgspec.Struct, frozen=True, kw_only=True):
    """The limits. See `[wants]` in hub.config for the words to the user."""

    bytes_per_day_per_device: int
    control_share: float
    outstanding_per_device: int
    pool: int
    max_age_ms: int


class OpenFinding(NamedTuple):
    """A finding whose frame may be asked for: its group has no other frame, or it is a `control`."""

    event_id: str
    site: str
    device: str
    reason: str
    severity: float
    frame_bytes: int
    received_at_ms: int

    @property
    def control(self) -> bool:
        """Whether it was drawn at random."""
        return self.reason == Reason.CONTROL


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
    open_findings: Sequence[OpenFinding],
    spent: Mapping[tuple[str, str], DeviceSpend],
    *,
    pooled: Sequence[OpenFinding],
    now_ms: int,
    rule: WantRule,
) -> Choice:
    """Apply the laws. What does not fit stays open for a later call.

    Args:
        open_findings: what may be asked for.
        spent: of the last 24 hours, by site and device.
        pooled: findings whose frames are here or on their way and in no batch, `control` aside.
        now_ms: UTC, milliseconds since 1970.
        rule: the limits.
    """
    control_limit = int(rule.bytes_per_day_per_device * rule.control_share)
    other_limit = rule.bytes_per_day_per_device - control_limit
    severities = _by_kind([*open_findings, *pooled])
    in_pool = len(pooled)
    spend = dict(spent)
    want: list[OpenFinding] = []
    expired: list[OpenFinding] = []
    for finding in sorted(open_findings, key=lambda f: (-f.severity, f.received_at_ms, f.event_id)):
        if now_ms - finding.received_at_ms > rule.max_age_ms:
            expired.append(finding)
            continue
        if not finding.control and not _is_worth_it(finding, severities, free=1 - in_pool / max(1, rule.pool)):
            continue
        device = (finding.site, finding.device)
        so_far = spend.get(device, DeviceSpend())
        control_bytes = so_far.control_bytes + (finding.frame_bytes if finding.control else 0)
        total = so_far.bytes + finding.frame_bytes
        fits = control_bytes <= control_limit if finding.control else total - control_bytes <= other_limit
        if fits and so_far.outstanding < rule.outstanding_per_device:
            want.append(finding)
            in_pool += not finding.control
            spend[device] = DeviceSpend(total, control_bytes, so_far.outstanding + 1)
    return Choice(tuple(want), tuple(expired))


def _by_kind(findings: Iterable[OpenFinding]) -> dict[tuple[str, str, str], list[float]]:
    """Return the severities of each device's findings of each reason, ascending."""
    severities: dict[tuple[str, str, str], list[float]] = {}
    for finding in findings:
        severities.setdefault((finding.site, finding.device, finding.reason), []).append(finding.severity)
    for known in severities.values():
        known.sort()
    return severities


def _is_worth_it(finding: OpenFinding, severities: Mapping[tuple[str, str, str], list[float]], *, free: float) -> bool:
    known = severities[finding.site, finding.device, finding.reason]
    more_severe = len(known) - bisect_right(known, finding.severity)
    return more_severe / len(known) < free
