"""What the hub orders of a device, and what the device reports: one release of one rollout. JSON, see status.py.

An assignment is what a device is to run, not a step: it is retained, so that a device that was away finds the newest.
A report is retained, too, and has its place in the device's own order: what comes twice or late is known by it.

Laws:

1. `decode(encode(x), type(x)) == x`; a decoder raises `UnusableError` and nothing else.
2. A release that an assignment names is trusted no further than what is signed: see edge.contract.release.
"""

from typing import Annotated, Final, Literal

import msgspec

from edge.contract.judgement import Figures
from edge.contract.samples import SCHEMA, Count, Name, Text

Phase = Literal[
    "assigned", "downloading", "verified", "staged", "golden", "shadow", "trial", "confirmed", "rolled_back"
]
PHASES: Final[tuple[Phase, ...]] = (
    "assigned",
    "downloading",
    "verified",
    "staged",
    "golden",
    "shadow",
    "trial",
    "confirmed",
    "rolled_back",
)
ENDED: Final[frozenset[Phase]] = frozenset({"confirmed", "rolled_back"})


MOST_FRAMES: Final = 1_000_000
BAKE_REPORTS: Final = 12
"""A hub judges all devices together while they bake: so often it hears from each."""


class TrialPlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a device looks before it trusts a release.

    Attributes:
        shadow_frames: judged while the old model serves.
        trial_frames: judged while the new one serves.
        bake_s: the trial lasts at least so long from its first judged frame, however many frames that are; both models
            go on looking, and the figures are told about every `bake_s / BAKE_REPORTS`.
        within_s: from the first judged frame of a phase, where none is from the first that cameras gave, and after
            `bake_s` in the trial; a phase that has too few by then ends as `insufficient`.
    """

    shadow_frames: Annotated[int, msgspec.Meta(ge=1, le=MOST_FRAMES)] = 200
    trial_frames: Annotated[int, msgspec.Meta(ge=1, le=MOST_FRAMES)] = 300
    bake_s: Annotated[int, msgspec.Meta(ge=0, le=30 * 86400)] = 3600
    within_s: Annotated[int, msgspec.Meta(ge=1, le=30 * 86400)] = 86400


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a device is to run.

    Attributes:
        rollout: its id at the hub; "" where nothing is assigned any more.
        action: `install` the release, or go `back` from it to what it replaced.
        model: the model line.
        release, number: of it, as signed.
        target: its name in the signed repository.
        instead_of: the number of a release that is known to be bad, which this one is to take the place of as its
            signed baseline; 0 for none. It is then not compared with that: it has to hold its golden set, where it has
            one, and to work.
    """

    schema: int = SCHEMA
    rollout: Text
    action: Literal["install", "back"]
    model: Name
    release: Text
    number: Count
    target: Text
    instead_of: Count = 0
    plan: TrialPlan = TrialPlan()
    at_ms: Count


class RolloutReport(msgspec.Struct, frozen=True, kw_only=True):
    """How far a device is with an assignment.

    Attributes:
        sequence: rises with every report of this device, also over restarts.
        boot_id: of the daemon that says so.
        phase: see `PHASES`.
        reason: why it was rolled back, one sentence; else what is to be known, or "".
        frames: judged so far in this phase.
        no_frames: it waits because no camera gives a frame to judge by, which is no fault of the release.
        serving: the release that the device runs now.
        figures: what was judged of the release on this device, shadow and trial together; None before there are any.
    """

    schema: int = SCHEMA
    rollout: Text
    model: Name
    release: Text
    number: Count
    sequence: Count
    boot_id: Text
    phase: Phase
    reason: Text = ""
    frames: Count = 0
    no_frames: bool = False
    serving: Text
    figures: Figures | None = None
    at_ms: Count
