"""Naming: the weak spots of the last weeks, found, matched with those known, measured and judged.

Laws:

1. A spot that is found again keeps its number and name: it has the same tags, or at least `SAME_MISSED` of the missed
   sightings of either are of both.
2. A spot is named on what the devices run now. It is judged on the release that was trained for it, and on those first
   seen after that one.
3. What one naming has decided is stored in one transaction, and only if nothing was stored since it has read.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

import numpy as np

from edge.contract.errors import UnusableError
from hub.sighting_table import Base, Mask, SightingTable
from hub.slices import Rate, Slice, find_slices
from hub.spot_names import name_of
from hub.store import Store
from hub.store_weakspots import Move, NamingRecord, StepRow
from hub.tags import Tagger, Where, join_tags
from hub.verdict import Outcome, Verdict, came_back, judge
from hub.weakspots import SpotState, WeakSpot, parsed, rate_of, step_of, weak_spot, weak_spots

DAY_MS: Final = 24 * 60 * 60 * 1000
WINDOW_MS: Final = 30 * DAY_MS
MAX_SIGHTINGS: Final = 40_000  # the newest: `hub weakspots` answers within two seconds
SEARCHED: Final = 40_000  # of them, evenly, for new weak spots; the known ones are measured on all
MIN_SUPPORT: Final = 25
SAME_MISSED: Final = 0.5
UNSEEN_MS: Final = 7 * DAY_MS
AHEAD_MS: Final = DAY_MS  # a device's clock that is wrong by more would be the newest for ever
_TRIES: Final = 3


@dataclass(frozen=True)
class Naming:
    """What naming has seen.

    Attributes:
        table: the sightings of the window.
        base: what two looks at control frames have found, of what runs now.
        spots: every weak spot, oldest first.
    """

    table: SightingTable
    base: Base
    spots: tuple[WeakSpot, ...]
    regressed: tuple[WeakSpot, ...] = ()


@dataclass(frozen=True)
class Measured:
    """A known weak spot as it stands in the window.

    Attributes:
        model: the releases that `rate` is of.
        rate: of what runs now; once trained, of the release trained and later ones, as soon as there are sightings.
        verdict: where it is `trained` and has a rate before and after.
        relapse: the release under which it has come back.
    """

    model: str
    rate: Rate | None
    verdict: Verdict | None = None
    relapse: tuple[str, Rate] | None = None


def refresh(store: Store, tagger: Tagger, now_ms: int) -> Naming:
    """Name anew, measure and judge every weak spot, and store what has changed."""
    for _ in range(_TRIES):
        forgettings, last_step = store.upkeep.forgettings(), store.spots.last_step()
        rows = store.sightings(since_ms=now_ms - WINDOW_MS, until_ms=now_ms + AHEAD_MS, limit=MAX_SIGHTINGS)
        table = SightingTable(rows, tagger)
        base = table.base(table.present)
        record = _decide(store, table, weak_spots(store), _find(table, base), now_ms=now_ms)
        if store.spots.record(record, last=last_step, forgettings=forgettings):
            break
    return Naming(table, base, tuple(weak_spots(store)))


def open_by_hand(store: Store, tagger: Tagger, where: str, now_ms: int) -> WeakSpot:
    """Open a weak spot by a rule, in the grammar of hub.tags, and measure it at once.

    Raises `UnusableError` when the rule cannot be read, or there is a weak spot of the same meaning.
    """
    text = str(tagger.where(where))
    for spot in weak_spots(store):
        if _meaning(text) == (_meaning(spot.where) if spot.manual else set(spot.tags)):
            msg = f"weak spot {spot.id}, {spot.name}, already means that"
            raise UnusableError(msg)
    first = step_of(SpotState.OPEN, None, now_ms=now_ms)
    number = store.spots.open(text, text, manual=True, first=first)
    refresh(store, tagger, now_ms)
    return weak_spot(store, number)


def _meaning(where: str) -> set[str]:
    return {str(term) for term in Where.parse(where).terms}


def _find(table: SightingTable, base: Base) -> list[Slice]:
    """Return the slices of what runs now, with members among all rows of the table."""
    rows = np.flatnonzero(table.present & table.counted)
    rows = rows[:: -(-len(rows) // SEARCHED) or 1]
    if not base.is_enough or not table.missed[rows].any():
        return []
    support = table.has[rows].sum(axis=0)
    columns = np.flatnonzero((support >= MIN_SUPPORT) & (support < len(rows)))
    return find_slices(
        [table.names[column] for column in columns.tolist()],
        table.has[np.ix_(rows, columns)],
        table.missed[rows],
        base_rate=base.rate,
        min_support=MIN_SUPPORT,
    )


def _decide(
    store: Store, table: SightingTable, spots: Sequence[WeakSpot], slices: Sequence[Slice], *, now_ms: int
) -> NamingRecord:
    """Return what to store."""
    insides = {spot.id: inside_of(table, spot) for spot in spots}
    found, new = _matched(table, spots, insides, slices)
    measured: list[tuple[int, StepRow]] = []
    moves: list[Move] = []
    for spot in spots:
        now = measure_spot(store, table, spot, insides[spot.id])
        if now.verdict is not None and now.verdict.outcome is not Outcome.TOO_FEW:
            state = SpotState(now.verdict.outcome.value)
            moves.append(Move(spot.id, step_of(state, now.rate, now_ms=now_ms, model=now.model)))
        elif now.relapse is not None:
            model, rate = now.relapse
            step = step_of(SpotState.REGRESSED, rate, now_ms=now_ms, model=model)
            moves.append(Move(spot.id, step))
        elif now.rate is not None:
            measured.append((spot.id, step_of(spot.state, now.rate, now_ms=now_ms, model=now.model, measured=True)))
    opened = [_opened(table, one, now_ms=now_ms) for one in new]
    named = table.base(table.present).is_enough
    stale = [spot.id for spot in spots if named and _is_stale(spot, found, now_ms=now_ms)]
    return NamingRecord(now_ms, tuple(opened), tuple(measured), tuple(moves), frozenset(found), tuple(stale))


def inside_of(table: SightingTable, spot: WeakSpot) -> Mask:
    """Return the rows `[n]` of the table that are of a weak spot."""
    return table.where(parsed(spot.where, table.zone)) if spot.manual else table.inside(spot.tags)


def _matched(
    table: SightingTable, spots: Sequence[WeakSpot], insides: Mapping[int, Mask], slices: Sequence[Slice]
) -> tuple[set[int], list[Slice]]:
    """Return which known spots were found again, and the slices that are none of them (law 1)."""
    rows = table.present & table.missed
    missed = {spot.id: insides[spot.id][rows] for spot in spots}
    found, new = set(), []
    for one in slices:
        same = [spot.id for spot in spots if set(one.tags) == set(spot.tags)]
        inside = table.inside(one.tags)[rows]
        near = [(_overlap(inside, missed[spot.id]), -spot.id) for spot in spots]
        overlap, number = max(near, default=(0.0, 0))
        if same:
            found.add(same[0])
        elif overlap >= SAME_MISSED:
            found.add(-number)
        else:
            new.append(one)
    return found, new


def _overlap(one: Mask, other: Mask) -> float:
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 0.0


def measure_spot(store: Store, table: SightingTable, spot: WeakSpot, inside: Mask) -> Measured:
    """Measure a known weak spot, and judge it where its life asks for that."""
    steps = store.spots.steps(spot.id)
    now = table.present
    trained = trained_models(store, table, steps)
    since = table.of_models(trained)
    judged = spot.state in {SpotState.TRAINED, SpotState.FIXED, SpotState.NOT_FIXED, SpotState.REGRESSED}
    if judged and (after := table.rate(inside, since)) is not None:
        model = ", ".join(trained)
        if spot.state is SpotState.TRAINED and (before := rate_at_batching(steps)) is not None:
            return Measured(model, after, verdict=judge(before, after))
        relapse = None
        if spot.state is SpotState.FIXED:
            relapse = _relapse(table, trained, inside, at_fix=rate_of(steps_in(steps, SpotState.FIXED)[-1]))
        return Measured(model, after, relapse=relapse)
    return Measured(", ".join(table.models_of(now)), table.rate(inside, now))


def _relapse(
    table: SightingTable, models: Sequence[str], inside: Mask, *, at_fix: Rate | None
) -> tuple[str, Rate] | None:
    """Return the first release under which a fixed spot has come back, and its rate there."""
    for model in models:
        rate = table.rate(inside, table.of_models([model]) & table.present)
        if rate is not None and at_fix is not None and came_back(at_fix, rate):
            return model, rate
    return None


def trained_models(store: Store, table: SightingTable, steps: Sequence[StepRow]) -> list[str]:
    """Return the releases of the window that a spot is judged on: the one last trained, and those first seen later.

    Where no release was named, those first seen after the annotation.
    """
    trained = steps_in(steps, SpotState.TRAINED)
    if not trained:
        return []
    release = next((step.model for step in reversed(trained) if step.model), "")
    begun = [step.at_ms for step in steps_in(steps, SpotState.ANNOTATED)]
    since_ms = begun[-1] if begun else trained[-1].at_ms
    seen = {model: store.spots.first_sighting_of(model, since_ms=steps[0].at_ms - WINDOW_MS) for model in table.models}
    if release:
        first = seen.get(release)
        if first is None:
            return []
        since_ms = first
    return sorted(model for model, first in seen.items() if first is not None and first >= since_ms)


def rate_at_batching(steps: Sequence[StepRow]) -> Rate | None:
    """Return the rate that the newest batch was made at; where there was none yet, the first one measured after."""
    batched = steps_in(steps, SpotState.BATCHED)
    if not batched:
        return None
    since = steps[steps.index(batched[-1]) :]
    before = takewhile(lambda step: step.state != SpotState.TRAINED, since)
    return next((rate for step in before if (rate := rate_of(step)) is not None), None)


def steps_in(steps: Sequence[StepRow], state: SpotState) -> list[StepRow]:
    """Return the steps by which a life came into a state, oldest first; measurements are left out."""
    return [step for step in steps if step.state == state and not step.measured]


def _is_stale(spot: WeakSpot, found: Collection[int], *, now_ms: int) -> bool:
    forgotten = spot.id not in found and now_ms - spot.named_at_ms >= UNSEEN_MS
    return forgotten and spot.state is SpotState.OPEN and not spot.manual


def _opened(table: SightingTable, one: Slice, *, now_ms: int) -> tuple[str, str, StepRow]:
    inside, now = table.inside(one.tags), table.present
    name = name_of(one.tags, table.cameras_of(inside & now & table.missed), table.cameras)
    model = ", ".join(table.models_of(now))
    first = step_of(SpotState.OPEN, table.rate(inside, now), now_ms=now_ms, model=model)
    return name, join_tags(sorted(one.tags)), first
