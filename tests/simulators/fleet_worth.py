"""What the hub's batches are worth with what it asks a simulated fleet for, against everything sent.

The same findings go to two hubs: one asks for frames, to the other every finding comes with its frame. Both name their
weak spots at the same time, or are told them, and make a batch for each. A batch's coverage is what hub.selection
looks for, over all events of the weak spot that anybody knows: each event's likeness to the nearest of the batch,
weighed by severity. The modes are the simulation's own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from edge.contract.samples import Reason
from hub.batches import Batch, new_batch
from hub.candidates import traits_of
from hub.config import WantsConfig
from hub.likeness import describe
from hub.selection import weights
from hub.store import Candidate, Store
from hub.tags import Tagger, TagsConfig, join_tags
from hub.weakspots import WeakSpot, belongs, weak_spots
from tests.simulators.fleet import Fleet, Plan, Play

BATCH: Final = 50
ANSWERS: Final = 4  # ticks in which what was asked for comes
TAGGER: Final = Tagger(TagsConfig())


@dataclass(frozen=True)
class Worth:
    """One batch with what was asked for, against the batch with everything. `coverage`: of all events of it, 0..1."""

    name: str
    images: tuple[int, int]
    modes: tuple[int, int]
    coverage: tuple[float, float]

    @property
    def kept(self) -> float:
        """What is left of the coverage."""
        return self.coverage[0] / self.coverage[1]


@dataclass(frozen=True)
class Report:
    """What was sent, what it would have been, and what the batches are worth."""

    findings: int
    frames: int
    bytes_up: int
    bytes_of_all: int
    worths: tuple[Worth, ...]
    lacking: tuple[str, ...]

    @property
    def share(self) -> float:
        """Of the bytes of every finding's frame."""
        return self.bytes_up / self.bytes_of_all


def measure(plan: Plan, folder: Path, *, by_hand: bool, batch: int = BATCH, wants: WantsConfig | None = None) -> Report:
    """Play the plan on both hubs, make a batch of every weak spot on both, and compare.

    `by_hand`: the weak spots are told, not named by the hub.
    """
    fleet, everything = Fleet(plan), Fleet(plan)
    with Store.open(folder / "want.db") as asking, Store.open(folder / "all.db") as knowing:
        nothing = WantsConfig(bytes_per_day_per_device=0)
        plays = (Play(fleet, asking, wants or WantsConfig()), Play(everything, knowing, nothing, inline=True))
        for play in plays:
            play.tick(plan.named_at)
            if by_hand:
                for pair in plan.planted:
                    _tell(play.store, pair, play.now_ms)
            else:
                play.name()
            play.tick(plan.ticks - plan.named_at + ANSWERS)
        assert asking.last_group() == knowing.last_group()
        spots = [_spots(play.store) for play in plays]
        pairs = [(spots[0][key], spots[1][key]) for key in spots[0] if key in spots[1]]
        events = [_events(knowing, spot) for _, spot in pairs]
        worths = []
        for (mine, other), rows in zip(pairs, events, strict=True):
            batches = [
                new_batch(play.store, size=batch, weak_spot_id=spot.id, tagger=TAGGER, now_ms=play.now_ms)
                for play, spot in zip(plays, (mine, other), strict=True)
            ]
            worths.append(_worth(fleet, mine.name, batches, rows))
            plays[0].tick(ANSWERS)  # a batch makes room for more
        frames = asking.status(now_ms=0).frames.get("present", 0)
    lacking = [pair for pair in plan.planted if not any(set(mine.tags) & set(pair) for mine, _ in pairs)]
    return Report(
        len(fleet.sent), frames, fleet.bytes_up, fleet.bytes_of_all, tuple(worths), tuple(map(" ".join, lacking))
    )


def lines(report: Report) -> list[str]:
    """Return the report for people."""
    sent = f"{report.bytes_up / 1e6:.2f} of {report.bytes_of_all / 1e6:.1f} MB = {report.share:.2%}"
    return [
        f"{report.findings} findings; asked for {report.frames} frames, {sent} of the bytes of every finding's frame",
        f"  {'weak spot':28} {'images':>9} {'modes':>8} {'coverage':>13}  (asked for / everything sent)",
        *(
            f"  {worth.name[:28]:28} {worth.images[0]:>6}/{worth.images[1]} {worth.modes[0]:>5}/{worth.modes[1]}"
            f" {worth.coverage[0]:>7.3f}/{worth.coverage[1]:.3f} = {worth.kept:.1%}"
            for worth in report.worths
        ),
        *(f"  planted, and not named: {name}" for name in report.lacking),
    ]


def _tell(store: Store, pair: tuple[str, str], now_ms: int) -> None:
    """Write a weak spot as naming would."""
    store._connection.execute(
        "INSERT INTO weak_spot (name, tags, manual, state, opened_at_ms, named_at_ms) VALUES (?, ?, 0, 'open', ?, ?)",
        (" + ".join(pair), join_tags(sorted(pair)), now_ms, now_ms),
    )


def _spots(store: Store) -> dict[tuple[tuple[str, ...], str], WeakSpot]:
    return {(spot.tags, spot.where): spot for spot in weak_spots(store)}


def _events(knowing: Store, spot: WeakSpot) -> list[Candidate]:
    """Return the events of a weak spot, all that anybody knows of."""
    return [row for row in knowing.candidates() if row.reason is not Reason.CONTROL and belongs(spot, row, TAGGER)]


def _worth(fleet: Fleet, name: str, batches: Sequence[Batch], events: Sequence[Candidate]) -> Worth:
    # A group is one event; which of its findings stands for it may differ between the hubs.
    number_of = {row.group_id: number for number, row in enumerate(events)}
    vectors = describe(traits_of(events))
    mean = vectors.mean(axis=0)
    average = float(np.clip(mean @ mean, 0.0, 0.99))
    weight = weights(np.array([row.severity for row in events]))
    coverage, modes = [], []
    for batch in batches:
        at = [number_of[member.group_id] for member in batch.members if member.group_id in number_of]
        near = np.clip((vectors[at] @ vectors.T - average) / (1 - average), 0.0, 1.0).max(axis=0)
        coverage.append(float(weight @ near / weight.sum()))
        shown = [fleet.mode_of[member.event_id] for member in batch.members]
        modes.append(len({mode.number for mode in shown if mode is not None}))
    sizes = [batch.size for batch in batches]
    return Worth(name, (sizes[0], sizes[1]), (modes[0], modes[1]), (coverage[0], coverage[1]))
