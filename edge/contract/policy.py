"""What the hub may change on a device without a restart: a retained message for a site, one for a device.

A policy lays over the keys of the same names in `[mining]` and `[quota]` of `edge.toml`: a key that is left out stays
as it is. The device's own policy lies over its site's. An empty payload takes a policy back.

Law: `decode_policy(encode_policy(policy)) == policy`; the decoder raises `UnusableError` and nothing else.
"""

from typing import Annotated, Final

import msgspec

from edge.contract.errors import UnusableError
from edge.contract.samples import SCHEMA, Name, Score, WitnessKind
from edge.contract.settings import plain_error

MAX_POLICY_BYTES: Final = 65536

Weight = Annotated[float, msgspec.Meta(ge=-50.0, le=50.0)]
PerHour = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
Burst = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
Share = Annotated[float, msgspec.Meta(ge=0.0, le=4.0)]
Hours = Annotated[str, msgspec.Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)\Z")]
"""A span of the day in the device's local time, as in `22:00-06:00`; the end is not part of it."""


class Weights(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the witnesses are weighed: severity = logistic(bias + the sum of weight times witness score).

    Attributes:
        bias: of a miss for which no witness speaks.
        gap: for one unit of the witness `gap`.
        candidate: for one unit of the witness `candidate`.
        motion: for one unit of the witness `motion`.
        zoom: for one unit of the witness `zoom`.
        refuted: added when the second look was taken and saw nothing there.
    """

    bias: Weight
    gap: Weight
    candidate: Weight
    motion: Weight
    zoom: Weight
    refuted: Weight


BUILT_IN: Final = Weights(bias=-0.8, gap=1.45, candidate=1.55, motion=1.9, zoom=3.13, refuted=-1.2)
"""What a camera without weights of its own uses; edge.severity says where they come from."""

WEIGHED: Final = (WitnessKind.GAP, WitnessKind.CANDIDATE, WitnessKind.MOTION, WitnessKind.ZOOM)
"""The witnesses that have a weight; `peer` speaks alone, its score is the severity."""


class QuotaPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of `[quota]`."""

    burst: Burst | None = None
    low_confidence: PerHour | None = None
    missed: PerHour | None = None
    suspect: PerHour | None = None
    control: PerHour | None = None


class MiningPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys of `[mining]`."""

    control_per_hour: PerHour | None = None
    min_severity: Score | None = None
    low_confidence_band: Score | None = None
    zoom_budget: Share | None = None
    merge: bool | None = None
    hours: tuple[Hours, ...] | None = None


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One policy. `paused`: no findings are made; detection goes on. `weights`: by camera name."""

    schema: int = SCHEMA
    paused: bool | None = None
    mining: MiningPolicy = MiningPolicy()
    quota: QuotaPolicy = QuotaPolicy()
    weights: Annotated[dict[Name, Weights], msgspec.Meta(max_length=256)] = {}


class _Peek(msgspec.Struct):
    schema: int


def encode_policy(policy: Policy) -> bytes:
    """Return the JSON payload."""
    return msgspec.json.encode(policy)


def decode_policy(payload: bytes) -> Policy:
    """Return the policy. Raises `UnusableError` with the key that is wrong."""
    if len(payload) > MAX_POLICY_BYTES:
        msg = f"policy of {len(payload)} bytes, the limit is {MAX_POLICY_BYTES}"
        raise UnusableError(msg)
    try:
        schema = msgspec.json.decode(payload, type=_Peek).schema
        if schema != SCHEMA:
            msg = f"schema {schema}, this side speaks {SCHEMA}"
            raise UnusableError(msg)
        return msgspec.json.decode(payload, type=Policy)
    except msgspec.ValidationError as error:
        raise UnusableError(plain_error(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"policy is not valid: {error}"
        raise UnusableError(msg) from error
