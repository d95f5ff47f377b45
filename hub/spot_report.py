"""What there is to say of a weak spot beside its row: how its rate went, what its batches brought, examples.

Law: what is told is counted from the same table of sightings that it was named on.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import takewhile
from typing import Final

import numpy as np

from edge.contract.errors import UnusableError
from hub.contact_sheet import DETECTOR, Tile, contact_sheet
from hub.naming import DAY_MS, Measured, Naming, inside_of, measure_spot, rate_at_batching
from hub.sighting_table import Camera, Mask, SightingTable
from hub.slices import Rate
from hub.store import FrameState, Store
from hub.store_weakspots import BatchCost, StepRow
from hub.tags import split_tags
from hub.verdict import trend
from hub.weakspots import MEASURED, SpotState, WeakSpot, rate_of

HOUR_MS: Final = 60 * 60 * 1000
MAX_EXAMPLES: Final = 24
_LOOKED_AT: Final = 2000  # newest missed sightings that examples are taken from
_DAILY_FROM_MS: Final = 3 * DAY_MS


@dataclass(frozen=True)
class Overview:
    """One line of the table.

    Attributes:
        cameras: that it was missed by in the window.
        rises: 1 where its rate rose within the window, -1 where it fell, 0 where neither is sure; None: too few.
    """

    spot: WeakSpot
    cameras: int
    rises: int | None


@dataclass(frozen=True)
class Point:
    """The rate of a span of time; None where nothing says it."""

    at_ms: int
    rate: Rate | None


@dataclass(frozen=True)
class Brought:
    """A batch, what it cost and what it brought.

    Attributes:
        release: that was trained on it; empty while none was.
        before: the rate that it was made at.
        after: the rate it was judged by, or the last one of that release.
        outcome: `fixed`, `not_fixed` or empty.
    """

    cost: BatchCost
    release: str
    before: Rate | None
    after: Rate | None
    outcome: str


@dataclass(frozen=True)
class Example:
    """A missed sighting, with whether its frame is here."""

    event_id: str
    camera: str
    captured_at_ms: int
    frame: FrameState


@dataclass(frozen=True)
class Report:
    """All that `hub weakspots show` says.

    Attributes:
        measured: as it stands now.
        seen_by: its cameras, each with how many missed sightings it has of it, the most first.
        step_ms: of the trend: an hour or a day.
        releases: the rate under each release of the window.
    """

    spot: WeakSpot
    measured: Measured
    steps: tuple[StepRow, ...]
    batches: tuple[Brought, ...]
    seen_by: tuple[tuple[Camera, int], ...]
    step_ms: int
    trend: tuple[Point, ...]
    releases: tuple[tuple[str, Rate], ...]
    examples: tuple[Example, ...]


def overviews(naming: Naming) -> list[Overview]:
    """Return every weak spot with its cameras and its trend, what has come back first, what is fixed last."""
    order = {SpotState.REGRESSED: 0, SpotState.FIXED: 2}
    lines = [_overview(naming.table, spot) for spot in naming.spots]
    return sorted(lines, key=lambda line: (order.get(line.spot.state, 1), -_harm(line.spot.rate), line.spot.id))


def _harm(rate: Rate | None) -> float:
    """Return what to rank by: how sure it is that it is worse than the rest, times the root of how many there are."""
    return (rate.low - rate.against) * float(rate.missed + rate.found) ** 0.5 if rate is not None else 0.0


def _overview(table: SightingTable, spot: WeakSpot) -> Overview:
    inside = inside_of(table, spot)
    return Overview(spot, len(table.cameras_of(inside & table.missed)), _rises(table, inside))


def _rises(table: SightingTable, inside: Mask) -> int | None:
    """Compare the newer half of the sightings with the older one."""
    newer = np.arange(len(table.rows)) < len(table.rows) // 2
    rates = [table.rate(inside, half) for half in (~newer, newer)]
    if any(rate is None or not rate.missed + rate.found for rate in rates):
        return None
    before, after = rates
    return trend(before, after) if before is not None and after is not None else None


def report(store: Store, naming: Naming, spot: WeakSpot) -> Report:
    """Return all that there is to say of a weak spot."""
    table, steps = naming.table, store.spots.steps(spot.id)
    inside = inside_of(table, spot)
    step_ms, points = trend_of(table, inside)
    rates = [(model, table.rate(inside, table.of_models([model]))) for model in table.models]
    return Report(
        spot=spot,
        measured=measure_spot(store, table, spot, inside),
        steps=tuple(steps),
        batches=tuple(brought(store.spots.batch_costs(spot.id), steps)),
        seen_by=tuple(table.cameras_of(inside & table.missed).items()),
        step_ms=step_ms,
        trend=tuple(points),
        releases=tuple((model, rate) for model, rate in sorted(rates) if rate is not None),
        examples=tuple(examples(store, table, inside)),
    )


def trend_of(table: SightingTable, inside: Mask) -> tuple[int, list[Point]]:
    """Return the rate by hour, or by day where the sightings span more than three days, oldest first."""
    if not len(table.rows):
        return HOUR_MS, []
    step_ms = DAY_MS if int(table.at_ms.max() - table.at_ms.min()) > _DAILY_FROM_MS else HOUR_MS
    return step_ms, [Point(at_ms, rate) for at_ms, rate in table.over_time(inside, step_ms)]


def brought(costs: Sequence[BatchCost], steps: Sequence[StepRow]) -> list[Brought]:
    """Return each batch with what came of it, until the next one."""
    return [_brought(cost, steps) for cost in costs]


def _brought(cost: BatchCost, steps: Sequence[StepRow]) -> Brought:
    at = next((number for number, step in enumerate(steps) if step.batch_id == cost.id), None)
    if at is None:
        return Brought(cost, "", None, None, "")
    until = list(takewhile(lambda step: step.batch_id is None, steps[at + 1 :]))
    release = next((step.model for step in until if step.state == SpotState.TRAINED and not step.measured), "")
    judged = [step for step in until if step.state in MEASURED and not step.measured]
    return Brought(
        cost=cost,
        release=release,
        before=rate_at_batching([steps[at], *until]),
        after=rate_of(judged[0]) if judged else None,
        outcome=judged[0].state if judged else "",
    )


def examples(store: Store, table: SightingTable, inside: Mask, *, limit: int = MAX_EXAMPLES) -> list[Example]:
    """Return missed sightings of a weak spot, those with a frame here first, the cameras in turn, the newest first."""
    newest = np.flatnonzero(inside & table.missed)[:_LOOKED_AT].tolist()
    rows = {table.rows[at].finding_id: table.rows[at] for at in newest}
    turns: Counter[tuple[bool, str, str, str]] = Counter()
    ordered = []
    for number, (event_id, frame) in store.spots.sighted(rows).items():
        row, away = rows[number], frame is not FrameState.PRESENT
        ordered.append((away, -row.captured_at_ms, Example(event_id, row.camera, row.captured_at_ms, frame), row))
    ordered.sort(key=lambda one: one[:2])
    in_turn = []
    for away, age, example, row in ordered:
        camera = away, row.site, row.device, row.camera
        turns[camera] += 1
        in_turn.append((away, turns[camera], age, example))
    return [example for *_, example in sorted(in_turn, key=lambda one: one[:3])][:limit]


def example_sheet(store: Store, shown: Report) -> bytes:
    """Return a contact sheet of the examples whose frame is here, a PNG. Raises `UnusableError` when none is."""
    tiles = [_tile(store, one) for one in shown.examples if one.frame is FrameState.PRESENT]
    if not tiles:
        msg = f"no frame of weak spot {shown.spot.id} is here yet: `hub serve` asks for them"
        raise UnusableError(msg)
    return contact_sheet(tiles, title=f"weak spot {shown.spot.id}: {shown.spot.name}")


def _tile(store: Store, example: Example) -> Tile:
    row = store.finding(example.event_id)
    captured = datetime.fromtimestamp(row.captured_at_ms / 1000, UTC)
    return Tile(
        jpeg=store.frame(row.event_id),
        region=row.region,
        reason=row.reason.value,
        caption=(
            f"{row.camera} | {captured:%Y-%m-%d %H:%M:%S} UTC",
            f"{row.reason} {row.severity:.2f} | {row.label or 'no label'}",
            ", ".join(split_tags(row.tags)),
        ),
        boxes=tuple((box.xyxy, DETECTOR) for box in row.finding().boxes if box.witness is None),
    )
