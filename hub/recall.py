"""What share of the objects a detector finds, without ground truth: from two looks at frames drawn at random.

The first look is the detector, the second the same detector on enlarged tiles (edge.recall counts them). Chapman's
estimator says how many objects there are, N = (n1 + 1)(n2 + 1) / (m + 1) - 1, and the recall is n1 / N. (Chapman 1951;
Seber, The Estimation of Animal Abundance, 2nd edition, 3.1.)

It is an upper estimate. The looks share one model, so they miss the same objects: what neither can see is not in N.

The interval is Agresti and Coull's (The American Statistician 52, 1998) for m of n2: whatever the second look finds is
a sample on which the first is tried. Simulated with independent looks, N from 10 to 500, recalls from .1 to .98 and .5
to .9, it holds the detector's recall in at least .94 of cases. Intervals for N (Sadinle 2009) hold the share n1 / N of
these very objects, and the detector's recall in as few as half of the cases.

Laws:

1. Whether there are enough objects is decided by n2 alone: a rule that looked at the answer would spoil the interval.
2. Cumulative counts of one boot, in any order and however often they come, add up to the last of them.
"""

import itertools
from collections.abc import Iterable
from typing import Final

import msgspec

from edge.contract.status import RecallCounts

MIN_SECOND_LOOK: Final = 12  # from here on no interval is wider than .5
HOUR_MS: Final = 3_600_000
DAY_HOURS: Final = 24
_Z: Final = 1.959964  # 95 %
_MAX_FRAMES: Final = 10**7  # between two heartbeats that were heard
_MAX_OBJECTS: Final = 1000  # in a frame


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """The detector's recall, 0..1, with its 95 % interval; an upper estimate."""

    recall: float
    low: float
    high: float


class Recall(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of some span of time and what they say. `estimate` is None where they are too few."""

    frames: int
    detector: int
    second_look: int
    both: int
    estimate: Estimate | None


class RecallHour(msgspec.Struct, frozen=True, kw_only=True):
    """What was heard of one camera in one UTC hour. `hour_ms`: the hour's first millisecond, UTC."""

    hour_ms: int
    recall: Recall


class CameraRecall(msgspec.Struct, frozen=True, kw_only=True):
    """One camera.

    Attributes:
        last_hour: the last whole UTC hour.
        last_day: this UTC hour, as far as it went, and the 23 before it.
        hours: those with counts, oldest first.
    """

    site: str
    device: str
    camera: str
    last_hour: Recall
    last_day: Recall
    hours: list[RecallHour]


CameraHour = tuple[str, str, str, int, RecallCounts]
"""Site, device, camera, `hour_ms`, counts."""


def estimate(counts: RecallCounts) -> Estimate | None:
    """Return the recall of the first look, None when the counts are too few."""
    n1, n2, m = counts.detector, counts.second_look, counts.both
    if n2 < MIN_SECOND_LOOK:
        return None
    objects = (n1 + 1) * (n2 + 1) / (m + 1) - 1
    trials = n2 + _Z**2
    centre = (m + _Z**2 / 2) / trials
    half = _Z * (centre * (1 - centre) / trials) ** 0.5
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(recall=round(n1 / objects, 4), low=round(low, 4), high=round(high, 4))


def recall(counts: RecallCounts) -> Recall:
    """Return the counts with their estimate."""
    return Recall(
        frames=counts.frames,
        detector=counts.detector,
        second_look=counts.second_look,
        both=counts.both,
        estimate=estimate(counts),
    )


def step(mark: RecallCounts, counts: RecallCounts) -> RecallCounts | None:
    """Return what is new in a boot's cumulative counts since `mark`, the highest that was booked of it.

    None: nothing is; the counts are older than the mark, or no camera can have counted so.
    """
    new = RecallCounts(
        frames=counts.frames - mark.frames,
        detector=counts.detector - mark.detector,
        second_look=counts.second_look - mark.second_look,
        both=counts.both - mark.both,
    )
    possible = (
        0 < new.frames <= _MAX_FRAMES
        and 0 <= new.both <= min(new.detector, new.second_look)
        and max(new.detector, new.second_look) <= new.frames * _MAX_OBJECTS
    )
    return new if possible else None


def total(several: Iterable[RecallCounts]) -> RecallCounts:
    """Return the sum."""
    frames = detector = second_look = both = 0
    for counts in several:
        frames += counts.frames
        detector += counts.detector
        second_look += counts.second_look
        both += counts.both
    return RecallCounts(frames=frames, detector=detector, second_look=second_look, both=both)


def hour_of(at_ms: int) -> int:
    """Return the first millisecond of the UTC hour."""
    return at_ms - at_ms % HOUR_MS


def by_camera(rows: Iterable[CameraHour], *, now_ms: int) -> list[CameraRecall]:
    """Return one value a camera, in order of its names, from rows in any order."""
    this_hour = hour_of(now_ms)
    first_hour = this_hour - (DAY_HOURS - 1) * HOUR_MS
    cameras = []
    ordered = sorted(rows, key=lambda row: row[:4])
    for (site, device, camera), group in itertools.groupby(ordered, key=lambda row: row[:3]):
        hours = [(hour_ms, counts) for *_, hour_ms, counts in group]
        last_hour = total(counts for hour_ms, counts in hours if hour_ms == this_hour - HOUR_MS)
        last_day = total(counts for hour_ms, counts in hours if first_hour <= hour_ms <= this_hour)
        cameras.append(
            CameraRecall(
                site=site,
                device=device,
                camera=camera,
                last_hour=recall(last_hour),
                last_day=recall(last_day),
                hours=[RecallHour(hour_ms=hour_ms, recall=recall(counts)) for hour_ms, counts in hours],
            )
        )
    return cameras
