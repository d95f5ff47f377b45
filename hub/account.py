"""The account: what each batch and weak spot has cost, and what it brought. The arithmetic is hub.costs'.

Laws:

1. Every cost is in one batch, or outside any; a weak spot's is the sum of its batches'.
2. A box is a true one when it is in the answer (hub.truth), whoever drew it. A finding is settled when people's
   annotations judge it (hub.finding_verdicts); a settled `missed` one that was right is a true miss, proven.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from edge.contract.samples import Reason
from hub.costs import Prices, Work, by_hand, cost_of_work, work_by_batch
from hub.finding_verdicts import verdicts
from hub.slices import Rate
from hub.spot_report import Brought, brought
from hub.store import Store
from hub.truth import truths
from hub.weakspots import SpotState, weak_spots


@dataclass(frozen=True, slots=True)
class Line:
    """What one batch, one weak spot, or all has cost and brought.

    Attributes:
        batch_id: None for a weak spot, for what is in no batch, and for all.
        weak_spot_id: None where it is of none.
        title: of the batch or the weak spot.
        batches: how many batches it counts.
        cost: in the currency of the prices.
        boxes: true ones.
        settled: findings that were judged.
        misses: true ones, proven.
        before: how often its kind was missed when the batch was made, of a weak spot the first batch.
        after: the same under the release that was trained on it; None before it is measured.
        outcome: `fixed`, `not_fixed` or empty; of a weak spot its state.
    """

    batch_id: int | None
    weak_spot_id: int | None
    title: str
    batches: int
    work: Work
    cost: float
    boxes: int
    settled: int
    misses: int
    before: Rate | None = None
    after: Rate | None = None
    outcome: str = ""

    @property
    def cost_per_box(self) -> float | None:
        """Of a true box; None where there is none."""
        return self.cost / self.boxes if self.boxes else None


@dataclass(frozen=True, slots=True)
class Account:
    """Everything.

    Attributes:
        batches: those on which work was done, oldest first; what is in none at last.
        spots: those that have such a batch.
        total: of all batches.
        all_by_hand: what it would have cost had people labelled what only the machine did.
        fixed: how many weak spots are fixed.
        cost_per_fixed: what the batches of all weak spots have cost for each fixed one; None where none is.
    """

    currency: str
    batches: tuple[Line, ...]
    spots: tuple[Line, ...]
    total: Line
    all_by_hand: float
    fixed: int
    cost_per_fixed: float | None


def account(store: Store, prices: Prices, *, names: Collection[str] = ()) -> Account:
    """Return the account of all that is in the database. `names`: all labels that annotators are asked for."""
    batch_of = {member.event_id: row.id for row in store.batches() for member in store.batch_members(row.id)}
    answers = truths(store)
    boxes: Counter[int | None] = Counter()
    for image, truth in answers.items():
        boxes[batch_of.get(image)] += len(truth.boxes)
    judged = verdicts(store, names=names).verdicts
    settled = Counter(one.batch_id for one in judged)
    misses = Counter(one.batch_id for one in judged if one.right and one.finding.reason is Reason.MISSED)
    came_of = _brought_by(store)
    done = work_by_batch(store.labels.history())
    lines = []
    for row in store.batches():
        work = replace(done.pop(row.id, Work()), minutes=row.minutes or 0.0)
        if work == Work():
            continue
        one = came_of.get(row.id)
        lines.append(
            Line(
                row.id,
                row.weak_spot_id,
                row.title,
                1,
                work,
                cost_of_work(prices, work),
                boxes[row.id],
                settled[row.id],
                misses[row.id],
                before=one.before if one else None,
                after=one.after if one else None,
                outcome=one.outcome if one else "",
            )
        )
    if None in done:
        work = done[None]
        cost = cost_of_work(prices, work)
        lines.append(Line(None, None, "outside any batch", 0, work, cost, boxes[None], settled[None], misses[None]))
    spots = _spots(store, lines)
    total = _sum(lines, title="all")
    alone = [truth for truth in answers.values() if truth.by == "machine"]
    fixed = sum(line.outcome == SpotState.FIXED for line in spots)
    return Account(
        currency=prices.currency,
        batches=tuple(lines),
        spots=tuple(spots),
        total=total,
        all_by_hand=by_hand(prices, total.work, images=len(alone), boxes=sum(len(truth.boxes) for truth in alone)),
        fixed=fixed,
        cost_per_fixed=sum(line.cost for line in spots) / fixed if fixed else None,
    )


def _brought_by(store: Store) -> dict[int, Brought]:
    return {
        one.cost.id: one
        for spot in store.spots.all()
        for one in brought(store.spots.batch_costs(spot.id), store.spots.steps(spot.id))
    }


def _spots(store: Store, lines: Sequence[Line]) -> list[Line]:
    spots = []
    for spot in weak_spots(store):
        own = [line for line in lines if line.weak_spot_id == spot.id]
        if own:
            after = next((line.after for line in reversed(own) if line.after), None)
            told = _sum(own, title=spot.name, weak_spot_id=spot.id)
            spots.append(replace(told, before=own[0].before, after=after, outcome=spot.state.value))
    return spots


def _sum(lines: Sequence[Line], *, title: str, weak_spot_id: int | None = None) -> Line:
    return Line(
        batch_id=None,
        weak_spot_id=weak_spot_id,
        title=title,
        batches=sum(line.batches for line in lines),
        work=sum((line.work for line in lines), Work()),
        cost=sum(line.cost for line in lines),
        boxes=sum(line.boxes for line in lines),
        settled=sum(line.settled for line in lines),
        misses=sum(line.misses for line in lines),
    )
