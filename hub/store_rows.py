"""The rows of the hub's database as frozen values, and how a row becomes one."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.contract.errors import UnusableError
from edge.contract.samples import Finding, Reason, Xyxy

Features = NDArray[np.int8]
_finding_decoder = msgspec.json.Decoder(Finding)


class FrameState(StrEnum):
    """Where the JPEG of a finding is.

    `held`: on the device. `wanted`: asked for. `present`: here. `gone`: the device no longer has it. `refused`: it came
    and was not what the finding had announced.
    """

    HELD = "held"
    WANTED = "wanted"
    PRESENT = "present"
    GONE = "gone"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One committed finding.

    Attributes:
        region: `xyxy` pixels of the original frame.
        track: as the device calls the object; empty where it follows none.
        tags: the device's, words between spaces.
        crop_hash: 32 bytes, as `frame_hash`.
        features: `[n]` int8, L2-normalised times 127; n may be 0.
        group_id: its near-duplicate group; None until the curator has seen it.
        header: the JSON as it came.
    """

    event_id: str
    site: str
    device: str
    camera: str
    reason: Reason
    severity: float
    label: str
    captured_at_ms: int
    region: Xyxy
    width: int
    height: int
    track: str
    tags: str
    crop_hash: bytes = field(repr=False)
    frame_hash: bytes = field(repr=False)
    features: Features = field(repr=False, compare=False)
    model: str
    frame_state: FrameState
    group_id: int | None
    header: bytes = field(repr=False)

    @property
    def place(self) -> Xyxy:
        """The region in fractions of the frame's width and height."""
        x1, y1, x2, y2 = self.region
        return x1 / self.width, y1 / self.height, x2 / self.width, y2 / self.height

    def finding(self) -> Finding:
        """Decode the stored header: boxes, witnesses, tags, light. Raises `UnusableError` when it is damaged."""
        try:
            return _finding_decoder.decode(self.header)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            msg = f"finding {self.event_id}: its stored header cannot be read: {error}"
            raise UnusableError(msg) from error


@dataclass(frozen=True, slots=True)
class LeaderRow:
    """The first finding of a near-duplicate group: what later ones are compared with.

    Attributes:
        first_at_ms, last_at_ms: when its earliest and its newest member were captured.
        track: of its newest member of this camera and label that has one; empty where none has.
        track_at_ms: when the group was first seen on that track.
        looks: crop hashes of members beside the leader's, 32 bytes each.
    """

    group_id: int
    event_id: str
    site: str
    device: str
    camera: str
    label: str
    captured_at_ms: int
    first_at_ms: int
    last_at_ms: int
    region: Xyxy
    width: int
    height: int
    track: str
    track_at_ms: int
    crop_hash: bytes = field(repr=False)
    frame_hash: bytes = field(repr=False)
    features: Features = field(repr=False, compare=False)
    looks: bytes = field(default=b"", repr=False)

    @property
    def place(self) -> Xyxy:
        """The region in fractions of the frame's width and height."""
        x1, y1, x2, y2 = self.region
        return x1 / self.width, y1 / self.height, x2 / self.width, y2 / self.height


@dataclass(frozen=True, slots=True)
class GroupAssignment:
    """`event_id` joins `group_id`; with `new`, it founds that group as its leader.

    Attributes:
        tracked: the group goes on to follow the finding's track.
        looks: what the group is known by from now on beside its leader; empty where that stays as it was.
    """

    event_id: str
    group_id: int
    new: bool
    tracked: bool = False
    looks: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class BatchMember:
    """One image of a batch. `test` and `rank` are decided when the batch is frozen.

    Attributes:
        why: one phrase for the annotator's engineer: why this image was chosen.
        gain: what it added to the selection's objective.
        test: it is of the test share: it measures what a training brought, and is never trained on.
        rank: 1 for the first that was chosen; it stays when others are forgotten.
    """

    event_id: str
    group_id: int
    why: str
    gain: float
    test: bool = False
    rank: int = 0


@dataclass(frozen=True, slots=True)
class BatchRow:
    """One frozen batch.

    Attributes:
        weak_spot_id: the weak spot it was made for; None when it was made for none.
        minutes: of people's work on it, as far as it was told.
        forgotten: how many of its images `hub forget` removed; their ranks stay empty.
        forgotten_honeypots: how many known answers that were mixed into it.
        random: its images were drawn from all, each as likely as the others: rates are measured on it.
    """

    id: int
    created_at_ms: int
    size: int
    title: str
    weak_spot_id: int | None
    model: str
    minutes: float | None = None
    forgotten: int = 0
    forgotten_honeypots: int = 0
    random: bool = False


FINDING_COLUMNS: Final = (
    "event_id, site, device, camera, reason, severity, label, captured_at_ms, x1, y1, x2, y2, width, height,"
    " track, tags, crop_hash, frame_hash, features, model, frame_state, group_id, header"
)
LEADER_COLUMNS: Final = (
    "g.id, f.event_id, f.site, f.device, f.camera, f.label, f.captured_at_ms, g.first_at_ms, g.last_at_ms,"
    " f.x1, f.y1, f.x2, f.y2, f.width, f.height, g.track, g.track_at_ms, f.crop_hash, f.frame_hash,"
    " f.features, g.looks"
)


def finding_row(row: tuple[Any, ...]) -> FindingRow:
    """Build the value from a row of `FINDING_COLUMNS`. Raises `UnusableError` when it is damaged."""
    try:
        return _finding_row(row)
    except (ValueError, TypeError) as error:
        msg = f"finding {row[0]}: its row is damaged: {error}"
        raise UnusableError(msg) from error


def _finding_row(row: tuple[Any, ...]) -> FindingRow:
    return FindingRow(
        event_id=row[0],
        site=row[1],
        device=row[2],
        camera=row[3],
        reason=Reason(row[4]),
        severity=row[5],
        label=row[6],
        captured_at_ms=row[7],
        region=(row[8], row[9], row[10], row[11]),
        width=row[12],
        height=row[13],
        track=row[14],
        tags=row[15],
        crop_hash=row[16],
        frame_hash=row[17],
        features=np.frombuffer(row[18], np.int8),
        model=row[19],
        frame_state=FrameState(row[20]),
        group_id=row[21],
        header=row[22],
    )


def leader_row(row: tuple[Any, ...]) -> LeaderRow:
    """Build the value from a row of `LEADER_COLUMNS`."""
    return LeaderRow(
        group_id=row[0],
        event_id=row[1],
        site=row[2],
        device=row[3],
        camera=row[4],
        label=row[5],
        captured_at_ms=row[6],
        first_at_ms=row[7],
        last_at_ms=row[8],
        region=(row[9], row[10], row[11], row[12]),
        width=row[13],
        height=row[14],
        track=row[15],
        track_at_ms=row[16],
        crop_hash=row[17],
        frame_hash=row[18],
        features=np.frombuffer(row[19], np.int8),
        looks=row[20],
    )


@contextmanager
def immediate(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction: committed at the end, rolled back on any exception. Inside another it is part of it."""
    if connection.in_transaction:
        yield
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
