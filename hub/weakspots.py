"""Weak spots: what the detector misses more than the rest, by name, and the life of each until it is fixed.

A weak spot is a conjunction of tags that hub.naming found, or a rule that a person wrote. Its life:

    open -> batched -> annotated -> trained -> fixed | not_fixed
    fixed -> regressed;  not_fixed, regressed -> batched

Laws:

1. Only these steps are ever stored; a refused one names those that may follow.
2. `fixed`, `not_fixed` and `regressed` are measured (hub.verdict), never told.
3. A number is of one weak spot for ever: naming anew finds the known ones again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import tzinfo
from enum import StrEnum
from functools import lru_cache
from typing import Final

from edge.contract.errors import UnusableError
from hub.slices import Rate
from hub.store import Store
from hub.store_weakspots import SpotRow, StepRow
from hub.tags import Taggable, Tagger, Where, split_tags


class SpotState(StrEnum):
    """Where a weak spot is in its life."""

    OPEN = "open"
    BATCHED = "batched"
    ANNOTATED = "annotated"
    TRAINED = "trained"
    FIXED = "fixed"
    NOT_FIXED = "not_fixed"
    REGRESSED = "regressed"


MEASURED: Final = frozenset({SpotState.FIXED, SpotState.NOT_FIXED, SpotState.REGRESSED})
NEXT: Final[Mapping[SpotState, tuple[SpotState, ...]]] = {
    SpotState.OPEN: (SpotState.BATCHED,),
    SpotState.BATCHED: (SpotState.BATCHED, SpotState.ANNOTATED),
    SpotState.ANNOTATED: (SpotState.TRAINED,),
    SpotState.TRAINED: (SpotState.BATCHED, SpotState.TRAINED, SpotState.FIXED, SpotState.NOT_FIXED),
    SpotState.FIXED: (SpotState.REGRESSED,),
    SpotState.NOT_FIXED: (SpotState.BATCHED,),
    SpotState.REGRESSED: (SpotState.BATCHED,),
}


@dataclass(frozen=True, slots=True)
class WeakSpot:
    """One weak spot as it was last measured.

    Attributes:
        tags: sorted; what is of it has all of them. Empty for a manual one.
        where: the rule of a manual one, in the grammar of hub.tags; else empty.
        rate: the last one measured; None before the first.
        named_at_ms: when it was last found by naming.
    """

    id: int
    name: str
    tags: tuple[str, ...]
    where: str
    state: SpotState
    rate: Rate | None
    opened_at_ms: int
    named_at_ms: int

    @property
    def manual(self) -> bool:
        """Whether a person wrote it."""
        return bool(self.where)


def weak_spots(store: Store) -> list[WeakSpot]:
    """Return every weak spot, oldest first."""
    newest = store.spots.newest_measurements()
    return [_weak_spot(row, newest.get(row.id)) for row in store.spots.all()]


def weak_spot(store: Store, spot_id: int) -> WeakSpot:
    """Return one. Raises `UnusableError`, naming those there are, when it does not exist."""
    row = store.spots.one(spot_id)
    return _weak_spot(row, store.spots.newest_measurements().get(row.id))


def belongs(spot: WeakSpot, one: Taggable, tagger: Tagger) -> bool:
    """Whether a finding or a sighting is of the weak spot."""
    tags = tagger.tags(one)
    return parsed(spot.where, tagger.zone).holds(one, tags) if spot.where else set(spot.tags).issubset(tags)


def advance(
    store: Store,
    spot_id: int,
    state: SpotState | str,
    *,
    now_ms: int,
    release: str = "",
    minutes: float | None = None,
    note: str = "",
) -> WeakSpot:
    """Take a step of a weak spot's life that was done, not measured: it was batched, annotated or trained.

    Args:
        store: the database.
        spot_id: the weak spot.
        state: `batched`, `annotated` or `trained`.
        now_ms: UTC milliseconds.
        release: the model that was trained, for `trained`; it is judged on the sightings of that model.
        minutes: of people's work; they are added to those of the newest batch.
        note: one line of what was done.

    Raises:
        UnusableError: when there is no such weak spot, or the step may not follow; nothing is stored then.
    """
    state = SpotState(state)
    spot = weak_spot(store, spot_id)
    if state in MEASURED or state is SpotState.OPEN:
        msg = f"`{state}` is measured, not told: `hub weakspots` measures anew"
        raise UnusableError(msg)
    if release:
        _require_new(store, spot_id, release)
    step = step_of(state, spot.rate, now_ms=now_ms, model=release, note=note)
    if not store.spots.add_step(spot_id, step, from_states=sources(state), minutes=minutes):
        legal = [f"`{one}`" for one in NEXT[spot.state] if one not in MEASURED]
        follow = f"{' or '.join(legal)} may follow" if legal else "only a measurement changes that"
        if NEXT[spot.state] == (SpotState.BATCHED,):
            follow = f"first comes a batch: hub batch new --weakspot {spot_id}"
        msg = f"weak spot {spot_id} is `{spot.state}`, so it cannot be `{state}` now: {follow}"
        raise UnusableError(msg)
    return weak_spot(store, spot_id)


def _require_new(store: Store, spot_id: int, release: str) -> None:
    """Refuse a release that was at work before the batch was made: it cannot have been trained on it."""
    batched = [step.at_ms for step in store.spots.steps(spot_id) if step.state == SpotState.BATCHED]
    first = store.spots.first_sighting_of(release, since_ms=0)
    if batched and first is not None and first < batched[0]:
        msg = f"release {release} was at work before the batch was made: name the one that was trained on it"
        raise UnusableError(msg)


def sources(state: SpotState) -> list[SpotState]:
    """Return the states that this one may follow."""
    return [before for before, after in NEXT.items() if state in after]


def step_of(
    state: SpotState,
    rate: Rate | None,
    *,
    now_ms: int,
    model: str = "",
    batch_id: int | None = None,
    note: str = "",
    measured: bool = False,
) -> StepRow:
    """Return a step with the rate that it was taken at; `measured`: it is a measurement only."""
    return StepRow(
        at_ms=now_ms,
        state=state.value,
        model=model,
        rate=rate.rate if rate is not None else None,
        low=rate.low if rate is not None else None,
        high=rate.high if rate is not None else None,
        against=rate.against if rate is not None else None,
        missed=rate.missed if rate is not None else 0,
        found=rate.found if rate is not None else 0,
        batch_id=batch_id,
        note=note,
        measured=measured,
    )


def rate_of(step: StepRow) -> Rate | None:
    """Return the rate of a step; None where it has none."""
    if step.rate is None or step.low is None or step.high is None or step.against is None:
        return None
    return Rate(
        missed=step.missed, found=step.found, rate=step.rate, low=step.low, high=step.high, against=step.against
    )


@lru_cache(maxsize=256)
def parsed(where: str, zone: tzinfo) -> Where:
    """Return a rule; it was checked when its weak spot was opened."""
    return Where.parse(where, zone=zone)


def _weak_spot(row: SpotRow, newest: StepRow | None) -> WeakSpot:
    return WeakSpot(
        id=row.id,
        name=row.name,
        tags=() if row.manual else split_tags(row.tags),
        where=row.tags if row.manual else "",
        state=SpotState(row.state),
        rate=rate_of(newest) if newest is not None else None,
        opened_at_ms=row.opened_at_ms,
        named_at_ms=row.named_at_ms,
    )
