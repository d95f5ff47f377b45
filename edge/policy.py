"""What the hub's policies make of this device's rules, and the last ones, kept on disk.

A rule (`overlay`, `is_open`, `closed`: values in, values out) and a box that one thread feeds with messages.

Laws:

1. The device's own policy lies over its site's, and both lie over `edge.toml`, key by key.
2. Whatever the payload, `PolicyBox.take` raises nothing. A policy that is refused leaves the one before it in force.
3. What was followed last is followed after a restart, with or without a broker: it is on disk, by the topic it came on,
   so that a device that moves to another site does not take the old one's policy along.
4. `rules` and `verdicts` are replaced whole, and only by others: another thread reads them without a lock.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from edge.config import EdgeConfig, MiningConfig, QuotaConfig
from edge.contract.errors import UnusableError
from edge.contract.policy import Policy, Weights, decode_policy
from edge.contract.samples import plain_text
from edge.contract.status import PolicyVerdict
from edge.contract.topics import Kind, site_policy_topic, topic

Scope = Literal["site", "device"]
SCOPES: Final[tuple[Scope, Scope]] = ("site", "device")
_FILE: Final = "policies.json"
_MAX_FILE_BYTES: Final = 1_000_000

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """What this device follows now. `weights`: by camera; a camera that is not in it uses the built-in ones."""

    paused_by: Scope | None
    mining: MiningConfig
    quota: QuotaConfig
    weights: Mapping[str, Weights]


def overlay(config: EdgeConfig, site: Policy | None, device: Policy | None) -> Rules:
    """Return the rules of `edge.toml` with the policies laid over it, without weights of other devices' cameras."""
    paused_by: Scope | None = None
    mining, quota = config.mining, config.quota
    weights: dict[str, Weights] = {}
    for scope, policy in zip(SCOPES, (site, device), strict=True):
        if policy is None:
            continue
        if policy.paused is not None:
            paused_by = scope if policy.paused else None
        mining = msgspec.structs.replace(mining, **_given(policy.mining))
        quota = msgspec.structs.replace(quota, **_given(policy.quota))
        weights |= policy.weights
    names = {camera.name for camera in config.camera}
    own = {camera: weight for camera, weight in weights.items() if camera in names}
    return Rules(paused_by=paused_by, mining=mining, quota=quota, weights=MappingProxyType(own))


def _given(part: msgspec.Struct) -> dict[str, object]:
    return {name: value for name, value in msgspec.structs.asdict(part).items() if value is not None}


def is_open(hours: tuple[str, ...], *, local: datetime | time) -> bool:
    """Whether `local` lies in one of the spans; no span is always. `22:00-06:00` runs over midnight.

    A span that ends when it begins is the whole day.
    """
    minute = local.hour * 60 + local.minute
    for span in hours:
        begin, end = (int(at[:2]) * 60 + int(at[3:]) for at in span.split("-"))
        if begin <= minute < end if begin < end else (minute >= begin or minute < end):
            return True
    return not hours


def closed(rules: Rules, *, local: datetime | time) -> str | None:
    """Return why no finding is made now, None when they are made."""
    if rules.paused_by is not None:
        return "paused by the site's policy" if rules.paused_by == "site" else "paused by the device's policy"
    return None if is_open(rules.mining.hours, local=local) else "outside its hours"


def policy_topics(site: str, device: str) -> dict[str, Scope]:
    """Return the topics on which this device's policies come."""
    return {site_policy_topic(site): "site", topic(site, device, Kind.POLICY): "device"}


class _Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The file: the payloads as they came, by topic."""

    policies: dict[str, bytes]


class PolicyBox:
    """The policies of one device. `take` belongs to one thread.

    Attributes:
        rules: what follows from `edge.toml` and the policies in force.
        verdicts: of the last policy that came, or was kept, for each scope.
    """

    def __init__(self, config: EdgeConfig) -> None:
        """Read what was kept. A file that cannot be used is ignored, with a warning."""
        self._config = config
        self._path = config.data_dir / _FILE
        self._scopes = policy_topics(config.site, config.device)
        self._policies: dict[Scope, Policy] = {}
        self._payloads: dict[str, bytes] = {}
        self._judged: dict[Scope, PolicyVerdict] = {}
        self._kept = self._read()
        for where, payload in self._kept.items():
            self._settle(where, payload)
        self.rules, self.verdicts = self._stand()

    def take(self, where: str, payload: bytes) -> None:
        """Follow the policy that came on this topic, or refuse it; an empty payload takes the one before back.

        Waits for the disk when the policy is a new one.
        """
        if where in self._scopes:
            self._settle(where, payload)
            rules, verdicts = self._stand()
            if rules != self.rules:
                self.rules = rules
            if verdicts != self.verdicts:
                self.verdicts = verdicts
            self._keep()

    def _settle(self, where: str, payload: bytes) -> None:
        scope = self._scopes[where]
        if not payload:
            if self._policies.pop(scope, None) is not None:
                _log.info("the %s's policy is taken back", scope)
            self._judged.pop(scope, None)
            self._payloads.pop(where, None)
            return
        verdict = PolicyVerdict(scope=scope, digest=hashlib.sha256(payload).hexdigest()[:16])
        try:
            self._policies[scope] = self._read_policy(scope, payload)
            self._payloads[where] = payload
        except UnusableError as error:
            verdict = msgspec.structs.replace(verdict, refused=plain_text(str(error)) or "it cannot be read")
        if verdict != self._judged.get(scope):
            _log.log(
                logging.WARNING if verdict.refused else logging.INFO,
                "the %s's policy %s is %s",
                scope,
                verdict.digest,
                f"refused: {verdict.refused}" if verdict.refused else "followed",
            )
        self._judged[scope] = verdict

    def _read_policy(self, scope: Scope, payload: bytes) -> Policy:
        """Return the policy. Raises `UnusableError`, also where the device's own names a camera that is not here."""
        policy = decode_policy(payload)
        if scope == "device":
            names = {camera.name for camera in self._config.camera}
            for camera in policy.weights:
                if camera not in names:
                    msg = f"`weights`: there is no camera {camera!r} here"
                    raise UnusableError(msg)
        return policy

    def _stand(self) -> tuple[Rules, tuple[PolicyVerdict, ...]]:
        rules = overlay(self._config, self._policies.get("site"), self._policies.get("device"))
        return rules, tuple(self._judged[scope] for scope in SCOPES if scope in self._judged)

    def _read(self) -> dict[str, bytes]:
        try:
            with self._path.open("rb") as file:
                written = msgspec.json.decode(file.read(_MAX_FILE_BYTES), type=_Kept).policies
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _log.warning("%s cannot be used, the policies kept there are not followed: %s", self._path, error)
            return {}
        return {where: payload for where, payload in written.items() if where in self._scopes and payload}

    def _keep(self) -> None:
        if self._payloads == self._kept:
            return
        draft = self._path.with_name(f"{_FILE}.new")
        try:
            with draft.open("wb") as file:
                file.write(msgspec.json.encode(_Kept(policies=self._payloads)))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
            self._kept = dict(self._payloads)
        except OSError as error:
            _log.warning("the policies could not be kept in %s: %s", self._path, error)
