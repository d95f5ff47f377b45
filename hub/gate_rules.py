"""The gate's rules: what is asked of a candidate, judged by what was measured. Pure. The rules stand in hub.gate."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import NormalDist
from typing import Final, Literal

import msgspec

from hub.evaluation.compare import Change, Comparison, GroupChange
from hub.evaluation.groups import FEW_OBJECTS, FEW_UNITS
from hub.lines import points

ALARM: Final = 0.05  # of the candidates that lose nothing, those refused for a group
BUDGET: Final = 1.0
_Z: Final = NormalDist().inv_cdf(0.975)
_MEASURES: Final = (("ap50", "AP50"), ("recall", "recall"))
_PARTS: Final = ("label", "size", "camera")

Outcome = Literal["pass", "fail", "insufficient"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One rule, on one thing.

    Attributes:
        required: whether the candidate is stopped by anything but `pass`; else it is stopped by `fail` alone.
        text: what was measured, in points of 100, and what would help.
    """

    name: str
    outcome: Outcome
    text: str
    required: bool = True

    @property
    def stops(self) -> bool:
        """Whether the candidate does not pass because of this."""
        return self.outcome == "fail" or (self.required and self.outcome != "pass")


def judge(
    comparison: Comparison, *, weak_spot: int | None, fixed: Mapping[int, str] | None, budget: float = BUDGET
) -> list[Check]:
    """Judge what was measured by the first four rules. `budget` is in points of 100."""
    checks = [_gain(comparison) if weak_spot is None else _weak_spot(comparison, weak_spot)]
    checks += _fixed(comparison, fixed, but=weak_spot)
    checks += _over_all(comparison.overall, budget=budget)
    checks += _elsewhere(comparison, weak_spot, budget=budget)
    checks += _precision(comparison, budget=budget)
    checks += _parts(comparison, budget=budget)
    return checks


def _weak_spot(comparison: Comparison, number: int) -> Check:
    name = f"better on weak spot {number}"
    group = comparison.find("weak spot", str(number))
    if group is None:
        text = f"no test picture is of it; it takes {FEW_OBJECTS} objects in {FEW_UNITS} moments: label more of them"
        return Check(name=name, outcome="insufficient", text=text)
    if group.few or comparison.resampled != "moments":
        more = max(FEW_OBJECTS / max(1, group.objects), FEW_UNITS / max(1, group.units))
        images = max(1, math.ceil(group.images * more) - group.images)
        text = f"only {_extent(group)}; about {_images(images)} more of the test share would do. {_told(group)}"
        return Check(name=name, outcome="insufficient", text=text)
    return _better(name, group, both=True)


def _gain(comparison: Comparison) -> Check:
    """Judge a candidate that is for no weak spot: it must be better at all."""
    return _better("better over all", comparison.overall, both=False)


def _better(name: str, group: GroupChange, *, both: bool) -> Check:
    changes = [change for _, change in _changes(group)]
    better = [change.is_better for change in changes]
    if all(better) if both else any(better):
        return Check(name=name, outcome="pass", text=_told(group))
    if any(change.low is None for change in changes):
        return Check(name=name, outcome="insufficient", text=f"no interval can be told: {_told(group)}")
    text = f"not shown: {_told(group)}"
    rising = [change for change, is_better in zip(changes, better, strict=True) if not is_better]
    if all((change.difference or 0) > 0 for change in rising):
        more = max(_times(change, _Z) for change in rising)
        text += f"; if that is the gain, about {_images(math.ceil(group.images * (more - 1)))} more would show it"
        return Check(name=name, outcome="insufficient", text=text)
    return Check(name=name, outcome="fail", text=text)


def _fixed(comparison: Comparison, fixed: Mapping[int, str] | None, *, but: int | None) -> Iterator[Check]:
    """Judge the weak spots that are fixed; where nobody tells which are, all that the test pictures are of."""
    groups = {int(group.name): group for group in comparison.of("weak spot")}
    known = dict.fromkeys(groups, "") if fixed is None else fixed
    watched = {number: told for number, told in known.items() if number != but}
    critical = _critical(2 * sum(number in groups for number in watched))
    for number, told in sorted(watched.items()):
        group, name = groups.get(number), f"weak spot {number} stays fixed"
        of = f"{told}: " if told else ""
        if group is None:
            text = f"{of}no test picture is of it; it is watched live after the rollout"
            yield Check(name=name, outcome="insufficient", text=text, required=False)
        elif any(_shown(change, critical) for _, change in _changes(group)):
            yield Check(name=name, outcome="fail", text=f"{of}it came back: {_told(group)}")
        elif group.few:
            text = f"{of}only {_extent(group)}: cannot be told. {_told(group)}"
            yield Check(name=name, outcome="insufficient", text=text, required=False)
        else:
            yield Check(name=name, outcome="pass", text=f"{of}{_told(group)}")


def _over_all(overall: GroupChange, *, budget: float) -> Iterator[Check]:
    for measure_name, change in _changes(overall):
        name, text = f"{measure_name} over all", _figures(change)
        if change.difference is None or change.low is None:
            yield Check(name=name, outcome="insufficient", text=f"no interval can be told: {text}")
        elif 100 * change.difference >= -budget:
            yield Check(name=name, outcome="pass", text=text)
        elif _shown(change, _critical(2)):
            yield Check(name=name, outcome="fail", text=f"a loss of more than {points(budget)}: {text}")
        else:
            more = math.ceil(overall.images * (_times(change, _Z) - 1))
            text = f"perhaps a loss of more than {points(budget)}: {text}; about {_images(more)} more would tell"
            yield Check(name=name, outcome="insufficient", text=text)


def _elsewhere(comparison: Comparison, weak_spot: int | None, *, budget: float) -> Iterator[Check]:
    """Judge the pictures that are not of the weak spot: over all, its gain hides what they have lost."""
    if weak_spot is None:
        return
    group = comparison.find("elsewhere", str(weak_spot))
    if group is None:
        text = "no test picture shows anything but the weak spot: label a random batch; it is watched live"
        yield Check(name="elsewhere", outcome="insufficient", text=text, required=False)
        return
    for measure_name, change in _changes(group):
        name, text = f"{measure_name} elsewhere", _figures(change)
        lost = change.difference is not None and 100 * change.difference < -budget
        if lost and _shown(change, _critical(2)):
            yield Check(name=name, outcome="fail", text=f"a loss of more than {points(budget)}: {text}")
        elif group.few or change.low is None:
            text = f"only {_extent(group)}: cannot be told. {text}"
            yield Check(name=name, outcome="insufficient", text=text, required=False)
        elif lost:
            more = math.ceil(group.images * (_times(change, _Z) - 1))
            text = f"perhaps a loss of more than {points(budget)}: {text}; about {_images(more)} more would tell"
            yield Check(name=name, outcome="insufficient", text=text, required=False)
        else:
            yield Check(name=name, outcome="pass", text=text)


def _precision(comparison: Comparison, *, budget: float) -> Iterator[Check]:
    """Judge false alarms. Fewer are had by a higher threshold, so a loss counts when that would cost recall."""
    change, recall, level = comparison.overall.precision, comparison.overall.recall.baseline, comparison.level
    if change.difference is None or 100 * change.difference >= -budget:
        return
    name, text = "precision over all", _figures(change)
    if not _shown(change, _critical(1)):
        text = f"a loss of more than {points(budget)}, which may be chance: {text}"
        yield Check(name=name, outcome="insufficient", text=text, required=False)
    elif level is None or recall is None or 100 * (level.recall - recall) < -budget:
        found = "never"
        if level is not None:
            found = f"from score {level.score:.2f} up, with a recall of {_percent(level.recall)}"
        yield Check(name=name, outcome="fail", text=f"{text}; as precise as the baseline {found}")
    else:
        text = (
            f"{text}: more false alarms. From score {level.score:.2f} up it is as precise as the baseline, and its "
            f"recall is {_percent(recall)} -> {_percent(level.recall)}"
        )
        yield Check(name=name, outcome="pass", text=text)


def _parts(comparison: Comparison, *, budget: float) -> Iterator[Check]:
    """Judge labels, sizes and cameras; one line of all that is well, one of each that is not."""
    parts = [group for kind in _PARTS for group in comparison.groups if group.kind == kind]
    enough = [group for group in parts if not group.few and group.objects < comparison.overall.objects]
    few = [group for group in parts if group.few]
    critical = _critical(2 * len(enough))
    stopped = 0
    for group in enough:
        for measure_name, change in _changes(group):
            if change.difference is None or 100 * change.difference >= -budget:
                continue
            name, text = f"{measure_name} of {group.kind} {group.name or 'from elsewhere'}", _figures(change)
            if _shown(change, critical):
                stopped += 1
                yield Check(name=name, outcome="fail", text=f"a loss of more than {points(budget)}: {text}")
            else:
                text = f"a loss of more than {points(budget)}, which may be chance: {text}"
                yield Check(name=name, outcome="insufficient", text=text, required=False)
    if enough and not stopped:
        text = f"no loss of more than {points(budget)} is shown in any of {len(enough)}"
        yield Check(name="labels, sizes and cameras", outcome="pass", text=text)
    if few:
        told = ", ".join(f"{group.kind} {group.name or 'from elsewhere'} ({group.objects})" for group in few)
        text = f"too few objects or moments: {told}"
        yield Check(name="not judged", outcome="insufficient", text=text, required=False)


def _changes(group: GroupChange) -> Sequence[tuple[str, Change]]:
    return [(told, getattr(group, name)) for name, told in _MEASURES]


def _critical(comparisons: int) -> float:
    """Return how many standard errors show a loss, when so many figures are looked at together."""
    return NormalDist().inv_cdf(1 - ALARM / max(1, comparisons))


def _shown(change: Change, critical: float) -> bool:
    """Whether a loss is so many standard errors off 0; the error is that of the interval's upper half."""
    if change.difference is None or change.high is None:
        return False
    return change.difference < 0 and change.difference + critical / _Z * (change.high - change.difference) < 0


def _times(change: Change, critical: float) -> float:
    """Return how many times as many pictures would show a difference that is as large as it now seems."""
    difference, low, high = change.difference or 0.0, change.low or 0.0, change.high or 0.0
    half = (high - low) / 2
    return max(1.0, (critical / _Z * half / abs(difference)) ** 2) if difference else math.inf


def _told(group: GroupChange) -> str:
    return "; ".join(f"{name} {_figures(change)}" for name, change in _changes(group))


def _figures(change: Change) -> str:
    if change.difference is None or change.baseline is None or change.candidate is None:
        return "not defined"
    between = (
        "" if change.low is None or change.high is None else f" ({100 * change.low:+.1f} to {100 * change.high:+.1f})"
    )
    values = f"{100 * change.baseline:.1f} -> {100 * change.candidate:.1f}"
    return f"{values}, {100 * change.difference:+.1f}{between}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


def _extent(group: GroupChange) -> str:
    return f"{group.objects} objects in {_images(group.images)} of {group.units} moments"


def _images(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"
