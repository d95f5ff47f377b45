"""SQL of the policies: what was set for sites and devices, and what the devices say of it."""

import sqlite3
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from edge.contract.policy import Policy, decode_policy, encode_policy
from edge.contract.status import Heartbeat, PolicyVerdict
from edge.contract.topics import Kind, site_policy_topic, topic
from hub.store_rows import immediate

_heartbeat_decoder = msgspec.json.Decoder(Heartbeat)


class PolicyRow(NamedTuple):
    """One policy. `device` is empty for a site's own; `payload` is what is published."""

    site: str
    device: str
    payload: bytes
    set_at_ms: int


class DeviceWord(NamedTuple):
    """A device that was heard, its cameras and its verdicts on the policies that came, from its last heartbeat."""

    site: str
    device: str
    cameras: tuple[str, ...]
    verdicts: tuple[PolicyVerdict, ...]


def policy_topic(site: str, device: str) -> str:
    """Return where a policy is published. Raises `UnusableError` on a name that cannot be used."""
    return topic(site, device, Kind.POLICY) if device else site_policy_topic(site)


def policies(connection: sqlite3.Connection) -> list[PolicyRow]:
    """Return every policy, a site's own before its devices'."""
    rows = connection.execute("SELECT site, device, payload, set_at_ms FROM policy ORDER BY site, device")
    return [PolicyRow(*row) for row in rows]


def edit_policy(
    connection: sqlite3.Connection, site: str, device: str, edit: Callable[[Policy], Policy], *, now_ms: int
) -> None:
    """Replace a policy by what `edit` makes of it. Raises `UnusableError`, also when a device could not read it."""
    policy_topic(site, device)
    with immediate(connection):
        row = connection.execute("SELECT payload FROM policy WHERE site = ? AND device = ?", (site, device)).fetchone()
        payload = encode_policy(edit(Policy() if row is None else decode_policy(row[0])))
        decode_policy(payload)
        connection.execute(
            "INSERT INTO policy (site, device, payload, set_at_ms) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET payload = excluded.payload, set_at_ms = excluded.set_at_ms",
            (site, device, payload, now_ms),
        )


def device_words(connection: sqlite3.Connection) -> list[DeviceWord]:
    """Return every device that was heard, in order of site and device."""
    words = []
    for site, device, heartbeat in connection.execute("SELECT site, device, heartbeat FROM device ORDER BY 1, 2"):
        beat = None if heartbeat is None else _heartbeat_decoder.decode(heartbeat)
        cameras = () if beat is None else tuple(camera.name for camera in beat.cameras)
        words.append(DeviceWord(site, device, cameras, () if beat is None else beat.policies))
    return words
