"""Which frames to ask the devices for: a rule over values, without I/O.

Laws:

1. What is asked of one device within 24 hours stays within its byte budget; `control` frames within their share of it,
   and everything else within the rest.
2. Only living devices are asked, and at most `outstanding_per_device` wants of a device wait for an answer.
3. Nothing is asked for while `pool` frames that were asked for and are in no batch are here or on their way from living
   devices, `control` aside: there is no hurry, the devices keep the frames.
4. Half of the pool belongs to the living devices in equal parts, and nobody else's frames take a device's part. The
   other half is for whoever asks first.
5. Frames that nobody asked for, of a living device, count too, but fill no more than their own device's part.
6. The fuller the pool, the more severe a finding must be: it is asked for only while the share of its device's findings
   of the same reason that are more severe is under the free share of the pool, or of its device's part.
7. One picture is asked for once, however many findings it shows; `control` aside.
8. Within those, the most severe finding goes first.

A near-duplicate group counts as one frame. Black frames are neither asked for nor counted: hub.store_groups.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import NamedTuple

import msgspec

from edge.contract.samples import Reason

DAY_MS = 24 * 60 * 60 * 1000
DeviceKey = tuple[str, str]


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
    frame_sha256: bytes

    @property
    def control(self) -> bool:
        """Whether it was drawn at random."""
        return self.reason == Reason.CONTROL

    @property
    def of(self) -> DeviceKey:
        """Its site and device."""
        return self.site, self.device


class Pooled(NamedTuple):
    """A group whose frame is here or on its way and that is in no batch. `asked`: the hub has asked for the frame."""

    site: str
    device: str
    reason: str
    severity: float
    asked: bool

    @property
    def of(self) -> DeviceKey:
        """Its site and device."""
        return self.site, self.device


class DeviceSpend(NamedTuple):
    """What was asked of one device in the last 24 hours, and how many wants of any age still wait."""

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
    spent: Mapping[DeviceKey, DeviceSpend],
    *,
    pooled: Sequence[Pooled],
    living: AbstractSet[DeviceKey],
    now_ms: int,
    rule: WantRule,
) -> Choice:
    """Apply the laws. What does not fit stays open for a later call.

    Args:
        open_findings: what may be asked for.
        spent: of the last 24 hours, by site and device.
        pooled: the groups that fill the pool.
        living: the devices that would answer now, by site and device.
        now_ms: UTC, milliseconds since 1970.
        rule: the limits.
    """
    control_limit = int(rule.bytes_per_day_per_device * rule.control_share)
    other_limit = rule.bytes_per_day_per_device - control_limit
    severities = _by_kind([*open_findings, *pooled])
    pool = _Pool(pooled, living=living, size=rule.pool)
    spend = dict(spent)
    want: list[OpenFinding] = []
    pictures: set[tuple[DeviceKey, bytes]] = set()
    expired: list[OpenFinding] = []
    for finding in sorted(open_findings, key=lambda f: (-f.severity, f.received_at_ms, f.event_id)):
        if now_ms - finding.received_at_ms > rule.max_age_ms:
            expired.append(finding)
            continue
        device, picture = finding.of, (finding.of, finding.frame_sha256)
        if device not in living:
            continue
        if not finding.control and (
            picture in pictures or not _is_worth_it(finding, severities, free=pool.free(device))
        ):
            continue
        so_far = spend.get(device, DeviceSpend())
        control_bytes = so_far.control_bytes + (finding.frame_bytes if finding.control else 0)
        total = so_far.bytes + finding.frame_bytes
        fits = control_bytes <= control_limit if finding.control else total - control_bytes <= other_limit
        if fits and so_far.outstanding < rule.outstanding_per_device:
            want.append(finding)
            if not finding.control:
                pool.take(device)
                pictures.add(picture)
            spend[device] = DeviceSpend(total, control_bytes, so_far.outstanding + 1)
    return Choice(tuple(want), tuple(expired))


class _Pool:
    """How full the pool is for each device: laws 3 to 5."""

    def __init__(self, pooled: Iterable[Pooled], *, living: AbstractSet[DeviceKey], size: int) -> None:
        self._size = size
        self._part = size // (2 * max(1, len(living)))
        self._has = Counter(group.of for group in pooled if group.asked)
        unasked = Counter(group.of for group in pooled if not group.asked and group.of in living)
        for device, count in unasked.items():
            self._has[device] = max(self._has[device], min(self._has[device] + count, self._part))
        self._total = sum(self._has.values())
        # With every living device's part full.
        self._filled = self._total + sum(max(0, self._part - self._has[device]) for device in living)

    def free(self, device: DeviceKey) -> float:
        """Return the share of the pool that is free for a living device, or of its part if that is more."""
        if self._total >= self._size:
            return 0.0
        has = self._has[device]
        filled = self._filled - max(0, self._part - has)
        return max(1 - filled / self._size, 1 - has / self._part if self._part else 0.0)

    def take(self, device: DeviceKey) -> None:
        """Count one more frame of a living device."""
        self._filled += self._has[device] >= self._part
        self._has[device] += 1
        self._total += 1


def _by_kind(findings: Iterable[OpenFinding | Pooled]) -> dict[tuple[str, str, str], list[float]]:
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
