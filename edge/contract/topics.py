"""The topic tree: `weakspot/1/{site}/{device}/{kind}`, one function to write it and one to read it.

Law: `parse_topic(topic(site, device, kind)) == Topic(site, device, kind)`.
"""

import re
from enum import StrEnum
from typing import Final, NamedTuple

from edge.contract.errors import UnusableError

ROOT: Final = "weakspot/1"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}")


class Kind(StrEnum):
    """The last level of a topic; the first six go up from the device, the others come down from the hub."""

    EVENT = "event"
    FRAME = "frame"
    HEARTBEAT = "heartbeat"
    STATE = "state"
    DETECTIONS = "detections"
    REPORT = "report"
    ACK = "ack"
    WANT = "want"
    POLICY = "policy"
    ASSIGN = "assign"


class Topic(NamedTuple):
    """Where a message belongs."""

    site: str
    device: str
    kind: Kind


def topic(site: str, device: str, kind: Kind) -> str:
    """Return the topic of one device's messages of one kind. Raises `UnusableError` on a name MQTT cannot carry."""
    for name in (site, device):
        if _NAME.fullmatch(name) is None:
            msg = f"{name!r} is not a usable name: letters, digits, '_', '-' and '.', at most 64"
            raise UnusableError(msg)
    return f"{ROOT}/{site}/{device}/{kind}"


def site_policy_topic(site: str) -> str:
    """Return the topic of a site's policy, for all its devices. Raises `UnusableError` as `topic` does."""
    if _NAME.fullmatch(site) is None:
        msg = f"{site!r} is not a usable name: letters, digits, '_', '-' and '.', at most 64"
        raise UnusableError(msg)
    return f"{ROOT}/{site}/{Kind.POLICY}"


def subscription(kind: Kind, *, group: str | None = None) -> str:
    """Return the filter for one kind from every device; with `group`, shared among its subscribers."""
    share = f"$share/{group}/" if group else ""
    return f"{share}{ROOT}/+/+/{kind}"


def parse_topic(text: str) -> Topic:
    """Return the parts of a topic. Raises `UnusableError` when it is not one of ours."""
    parts = text.split("/")
    if len(parts) == 5 and "/".join(parts[:2]) == ROOT and all(_NAME.fullmatch(p) for p in parts[2:4]):
        try:
            return Topic(parts[2], parts[3], Kind(parts[4]))
        except ValueError:
            pass
    msg = f"{text[:200]!r} is not a weakspot topic"
    raise UnusableError(msg)
