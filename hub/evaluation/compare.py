"""Baseline against candidate on the same pictures: differences with paired intervals.

Both are counted in the same resamples, so that what is hard for both cancels out. A difference is candidate less
baseline; its 95 % interval is that of hub.evaluation.resampling.

Laws:

1. Only labels that both models tell apart are compared; those that one of them lacks are named.
2. Both matched each true box by itself: no box of one is matched with one of the other.
3. A group with few objects, or with objects in few moments, says so (`few`): that its interval holds 0 is no proof that
   nothing changed.
"""

from collections.abc import Collection, Sequence

import msgspec
import numpy as np

from hub.evaluation.columns import Columns, columns
from hub.evaluation.figures import figures, with_itself
from hub.evaluation.groups import FEW_OBJECTS, FEW_UNITS, Group, Kind, groups
from hub.evaluation.matching import RIGHT, UNCOUNTED, Matches, match
from hub.evaluation.resampling import RESAMPLES, Units, draw, interval, units
from hub.evaluation.seen import Seen, same_pictures
from hub.label_table import Floats


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of both, 0..1; None where it is not defined or, for the interval, cannot be told.

    Attributes:
        difference: candidate less baseline.
        low, high: its 95 % interval.
    """

    baseline: float | None
    candidate: float | None
    difference: float | None
    low: float | None
    high: float | None

    @property
    def is_better(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low is not None and self.low > 0

    @property
    def is_worse(self) -> bool:
        """Whether the interval lies below 0."""
        return self.high is not None and self.high < 0


class GroupChange(msgspec.Struct, frozen=True, kw_only=True):
    """What changed in one group.

    Attributes:
        kind, name: a label, a size of hub.label_table, a camera ("" is of pictures from elsewhere), a tag, the number
            of a weak spot, also of the one that `elsewhere` is not of; "all" of all.
        images: that it may be seen on.
        objects: true boxes.
        units: moments, or pictures, that hold one of them.
        few: too few of either for the intervals to say that nothing changed.
    """

    kind: Kind
    name: str
    images: int
    objects: int
    units: int
    few: bool
    ap50: Change
    recall: Change
    precision: Change


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """Where the candidate is as precise as the baseline at its working threshold, boxes of all labels together.

    Attributes:
        score: from which its boxes would have to count.
        recall: then, 0..1.
    """

    score: float
    recall: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Baseline against candidate.

    Attributes:
        score_threshold: of the candidate, where recall and precision are taken.
        baseline_threshold: of the baseline.
        images: that were looked at.
        resampled: what was drawn: "moments" (camera and 20 s), "pictures" where there are fewer than five moments, or
            "too few", which gives no intervals.
        units: how many of them there are.
        left_out: labels that were looked for and that one of the models lacks.
        input: WIDTHxHEIGHT of the candidate's input, by which sizes are told for both.
        groups: overall first.
        level: what it would find were it as precise as the baseline; None where it never is.
    """

    score_threshold: float
    baseline_threshold: float
    input: str
    images: int
    resampled: str
    units: int
    labels: tuple[str, ...]
    left_out: tuple[str, ...]
    groups: tuple[GroupChange, ...]
    level: Level | None = None

    @property
    def overall(self) -> GroupChange:
        """The group of all."""
        return self.groups[0]

    def of(self, kind: Kind) -> tuple[GroupChange, ...]:
        """Return the groups of a kind."""
        return tuple(group for group in self.groups if group.kind == kind)

    def find(self, kind: Kind, name: str) -> GroupChange | None:
        """Return one group; None where no object of it was there."""
        return next((group for group in self.of(kind) if group.name == name), None)


def compare(
    baseline: Sequence[Seen],
    candidate: Sequence[Seen],
    *,
    score_threshold: float,
    baseline_threshold: float | None = None,
    labels: Collection[str] | None = None,
    apart_from: int | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare two looks at the same pictures. Raises `ValueError` when they are not the same, or none.

    Args:
        baseline: of the old model.
        candidate: of the new one, of the same members in the same order.
        score_threshold: from which a box counts as found.
        baseline_threshold: the baseline's own; None: the same.
        labels: compare these only; None: all that both tell apart.
        apart_from: the weak spot that has a group `elsewhere`; None: no such group.
        seed: of the resamples.
        resamples: how many.
    """
    if not candidate or not same_pictures(baseline, candidate):
        msg = "expected two looks at the same pictures"
        raise ValueError(msg)
    both = set(baseline[0].labels) & set(candidate[0].labels) & set(candidate[0].labels if labels is None else labels)
    looked_for = {name for one in candidate for name in one.member.labels}
    asked = looked_for if labels is None else looked_for & set(labels)
    size = candidate[0].input_size
    after = columns(candidate, labels=both, input_size=size)
    before = columns(baseline, labels=both, input_size=size)
    known = groups(after, apart_from=apart_from)
    drawn = units([one.member for one in candidate])
    weights = with_itself(draw(drawn, seed=seed, resamples=resamples if drawn.kind != "too few" else 0))
    old_threshold = score_threshold if baseline_threshold is None else baseline_threshold
    old = figures(before, match(before), _same(known, before, after), score_threshold=old_threshold, weights=weights)
    matched = match(after)
    new = figures(after, matched, known, score_threshold=score_threshold, weights=weights)
    changes = []
    for group, first, second in zip(known, old, new, strict=True):
        images, objects, count = extent(group, after, drawn)
        changes.append(
            GroupChange(
                kind=group.kind,
                name=group.name,
                images=images,
                objects=objects,
                units=count,
                few=is_few(objects=objects, units=count),
                ap50=_change(first.ap50, second.ap50, units=count),
                recall=_change(first.recall, second.recall, units=count),
                precision=_change(first.precision, second.precision, units=count),
            )
        )
    return Comparison(
        score_threshold=score_threshold,
        baseline_threshold=old_threshold,
        input=f"{size[0]}x{size[1]}",
        images=len(candidate),
        resampled=drawn.kind,
        units=drawn.count,
        labels=after.labels,
        left_out=tuple(sorted(asked - both)),
        groups=tuple(changes),
        level=_level(after, matched, precision=float(old[0].precision[0])),
    )


def extent(group: Group, columns: Columns, drawn: Units) -> tuple[int, int, int]:
    """Return how many pictures a group has, how many true boxes, and how many units hold one."""
    image = columns.image[group.true_rows(columns)]
    return int(group.images.sum()), len(image), len(np.unique(drawn.of[image]))


def is_few(*, objects: int, units: int) -> bool:
    """Whether there is too little to say that nothing changed."""
    return objects < FEW_OBJECTS or units < FEW_UNITS


def known(value: float) -> float | None:
    """Return a figure, or None for one that is not defined."""
    return value if np.isfinite(value) else None


def _change(old: Floats, new: Floats, *, units: int) -> Change:
    between = interval(new[1:] - old[1:], units=units) if len(new) > 1 else None
    return Change(
        baseline=known(float(old[0])),
        candidate=known(float(new[0])),
        difference=known(float(new[0] - old[0])),
        low=None if between is None else between[0],
        high=None if between is None else between[1],
    )


def _level(columns: Columns, matches: Matches, *, precision: float) -> Level | None:
    """Return the lowest score from which boxes are so precise; None where there is none."""
    objects = int((~columns.ignored).sum())
    counted = np.flatnonzero(matches.state != UNCOUNTED)
    ordered = counted[np.argsort(-columns.score[counted], kind="stable")]
    found = np.cumsum(matches.state[ordered] == RIGHT)
    last = np.flatnonzero(np.diff(columns.score[ordered], append=-np.inf))  # of equal scores all count or none
    enough = last[found[last] >= precision * (last + 1) - 1e-9]
    if not objects or not len(enough):
        return None
    return Level(score=float(columns.score[ordered[enough[-1]]]), recall=float(found[enough[-1]] / objects))


def _same(found: Sequence[Group], before: Columns, after: Columns) -> list[Group]:
    """Return the groups for the other columns, whose labels may stand in another order."""
    where = [before.labels.index(name) for name in after.labels]
    return [
        group if group.label is None else Group(group.kind, group.name, group.images, where[group.label])
        for group in found
    ]
