"""What the devices of a site, or one of them, shall do: read from a TOML file, published, and who follows it.

Laws:

1. The database is the truth; the broker's retained messages are a copy. Every policy is published when it was set and
   again on every new connection, so that a broker that lost them has them back.
2. A policy that was cleared is published as an empty one: a device that was away would not hear that the broker's
   message is gone.
3. `parse_policy(policy_toml(policy)) == policy`.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.policy import Policy, decode_policy, encode_policy
from edge.contract.settings import parse_settings, read_settings
from edge.contract.status import PolicyVerdict
from hub.store import Store
from hub.store_policies import DeviceWord, PolicyRow

EXAMPLE: Final = """\
paused = false              # true: detect, but make no findings

[mining]                    # keys of edge.toml, those left out stay
hours = ["22:00-06:00"]     # local time of the device; [] is always
min_severity = 0.6
low_confidence_band = 0.1
control_per_hour = 2
zoom_budget = 0.05
merge = true

[quota]                     # samples an hour and camera
burst = 5
missed = 60
low_confidence = 20
suspect = 10
control = 10

[weights.door]              # of the witnesses, for a camera
bias = -3.0
gap = 2.0
candidate = 2.5
motion = 1.5
zoom = 6.0
refuted = -4.0
"""


class PolicyLine(Protocol):
    """The way to the devices: hub.link over MQTT, a list in tests."""

    @property
    def connection(self) -> int | None:
        """A number that no other connection had, None while there is none."""

    def policy(self, site: str, device: str, payload: bytes) -> bool:
        """Publish, retained. Return False when there was no connection. Does not raise."""


class PolicyPost:
    """Publishes what is set and was not published on this connection. It belongs to the thread of its store."""

    def __init__(self, store: Store, *, line: PolicyLine) -> None:
        self._store = store
        self._line = line
        self._connection: int | None = None
        self._published: dict[tuple[str, str], PolicyRow] = {}

    def step(self) -> int:
        """Return how many policies were published."""
        connection = self._line.connection
        if connection is None:
            return 0
        if connection != self._connection:
            self._connection = connection
            self._published.clear()
        sent = 0
        for row in self._store.policies():
            key = (row.site, row.device)
            if self._published.get(key) != row and self._line.policy(row.site, row.device, row.payload):
                self._published[key] = row
                sent += 1
        return sent


def read_policy(path: Path) -> Policy:
    """Read a policy's TOML file. Raises `UnusableError` with one line that names the key that is wrong."""
    return read_settings(path, lambda text, _: parse_policy(text))


def parse_policy(text: str) -> Policy:
    """Return the policy written in `text`. Raises `UnusableError`."""
    try:
        policy = parse_settings(text, Policy, folder=Path())
    except UnusableError as error:
        if "hours[" in str(error):
            msg = f"{str(error).partition(':')[0]}: a span of the day is written as in {'22:00-06:00'!r}"
            raise UnusableError(msg) from error
        raise
    return decode_policy(encode_policy(policy))  # as a device will


def policy_toml(policy: Policy) -> str:
    """Return the TOML of what the policy says."""
    lines = [] if policy.paused is None else [f"paused = {_toml(policy.paused)}"]
    tables: list[tuple[str, msgspec.Struct]] = [("mining", policy.mining), ("quota", policy.quota)]
    tables += [(f'weights."{camera}"', weights) for camera, weights in policy.weights.items()]
    for name, table in tables:
        given = [(key, value) for key, value in msgspec.structs.asdict(table).items() if value is not None]
        if given:
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in given)]
    return "\n".join(lines)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


class DeviceStanding(msgspec.Struct, frozen=True, kw_only=True):
    """What one device makes of a policy.

    Attributes:
        stands: `refused other` and `follows other` speak of a message that is not the policy set here: an older one, or
            one that the hub did not send.
        reason: why it was refused.
    """

    device: str
    stands: Literal["followed", "refused", "follows other", "refused other", "not heard yet"]
    reason: str = ""


class PolicyReport(msgspec.Struct, frozen=True, kw_only=True):
    """A site's policy, or with `device` a device's. `set_at_ms` and `policy` are None where the hub has set none."""

    site: str
    device: str
    set_at_ms: int | None
    policy: Policy | None
    devices: list[DeviceStanding]


def report_policies(store: Store, *, site: str = "", device: str = "") -> list[PolicyReport]:
    """Return every policy that is set, or that a device says it got; with `site`, only that of the place named."""
    rows = {(row.site, row.device): row for row in store.policies()}
    words = store.device_words()
    places = set(rows)
    for word in words:
        places |= {(word.site, _device_of(word, verdict)) for verdict in word.verdicts}
    if site:
        places &= {(site, device)}
    return [_report(*place, row=rows.get(place), words=words) for place in sorted(places)]


def _device_of(word: DeviceWord, verdict: PolicyVerdict) -> str:
    return word.device if verdict.scope == "device" else ""


def _report(site: str, device: str, *, row: PolicyRow | None, words: Sequence[DeviceWord]) -> PolicyReport:
    digest = "" if row is None else hashlib.sha256(row.payload).hexdigest()[:16]
    scope = "device" if device else "site"
    heard = [word for word in words if word.site == site and device in ("", word.device)]
    standings = [
        _standing(word.device, next((v for v in word.verdicts if v.scope == scope), None), digest) for word in heard
    ]
    if device and not heard:
        standings = [DeviceStanding(device=device, stands="not heard yet")]
    return PolicyReport(
        site=site,
        device=device,
        set_at_ms=None if row is None else row.set_at_ms,
        policy=None if row is None else decode_policy(row.payload),
        devices=standings,
    )


def _standing(device: str, verdict: PolicyVerdict | None, digest: str) -> DeviceStanding:
    if verdict is None:
        return DeviceStanding(device=device, stands="not heard yet")
    if verdict.refused:
        stands: Literal["refused", "refused other"] = "refused" if verdict.digest == digest else "refused other"
        return DeviceStanding(device=device, stands=stands, reason=verdict.refused)
    return DeviceStanding(device=device, stands="followed" if verdict.digest == digest else "follows other")


def report_lines(report: PolicyReport) -> list[str]:
    """Return one policy as lines: a TOML file, with who follows it in its comments."""
    place = f"{report.site} {report.device}".rstrip()
    if report.policy is None or report.set_at_ms is None:
        lines = [f"# {place}: the hub has set none, and a device got one"]
    else:
        at = datetime.fromtimestamp(report.set_at_ms / 1000, UTC)
        what = "set" if report.policy != Policy() else "empty, set"
        lines = [f"# {place}: {what} {at:%Y-%m-%d %H:%M:%S} UTC"]
        lines += policy_toml(report.policy).splitlines()
    lines += [f"#   {one.device}: {one.stands}{f': {one.reason}' if one.reason else ''}" for one in report.devices]
    if not report.devices:
        lines.append(f"#   no device of {report.site} was heard yet")
    return lines


def set_lines(store: Store, *, site: str, device: str) -> list[str]:
    """Return what to say after the policy of this place was changed, with what the hub already sees amiss."""
    place = f"{site} {device}".rstrip()
    lines = [f"stored; `hub serve` publishes it within seconds, `hub policy show {place}` says who follows it"]
    heard = [word for word in store.device_words() if word.site == site and device in ("", word.device)]
    if not heard:
        lines.append(f"note: no device of {place} was heard yet" if not device else f"note: {place} was not heard yet")
    rows = {(row.site, row.device): decode_policy(row.payload) for row in store.policies()}
    cameras = {camera for word in heard for camera in word.cameras}
    lines += [
        f"note: {place} has no camera {camera!r}" + ("; it will refuse this policy" if device else "")
        for camera in rows[site, device].weights
        if cameras and camera not in cameras
    ]
    above = rows.get((site, ""))
    if device and above is not None and above.paused and rows[site, device].paused is None:
        lines.append(f"note: the policy of {site} pauses all its devices, this one too")
    return lines
