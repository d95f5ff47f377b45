"""The gate: whether a candidate may take its baseline's place. `judge` is pure; `hold` measures and writes.

Rules:

1. It is better on its weak spot: the 95 % intervals of the differences of recall and of AP50, on the weak spot's
   pictures of the test split, both lie above 0. Recall alone could be bought with a lower threshold. A candidate that
   is for no weak spot must be better over all in one of the two.
2. No weak spot that is `fixed` comes back: on none is a loss of recall or AP50 shown.
3. Nothing else is worse by more than the budget: over all, and for each label, size and camera with enough objects, no
   loss of recall or AP50 is shown that is larger than the budget.
4. Each variant that the card lists was measured, and kept the budget.

A loss is shown when it is significant: over all, when the 95 % interval lies below 0. Where many groups are looked at,
one of them is off by chance: their significance is Bonferroni's, so that a candidate as good as its baseline is refused
for a group in at most 5 % of the cases. On 300 pairs of made models of one quality that find different objects, 120
pictures with 470 objects each, a loss was shown in 3.7 % for a group, 2.0 % over all, 1.7 % on a fixed weak spot, and
3.0 % passed the gate; in 28 % more than a point seemed lost over all, which is `insufficient`.

Missing data is `insufficient`, never `pass`. It stops a candidate where the answer is what the gate is for: on its weak
spot, and over all when more than the budget seems lost. Of a fixed weak spot, or a group, with too few test pictures it
is a warning: both are watched live after the rollout, and a gate that nothing can pass would be turned off.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Final, Literal

import msgspec

from edge.contract.card import ModelCard
from edge.contract.errors import UnusableError
from edge.detector.opening import read_model
from edge.detector.written import write_whole
from hub.datasets.version import read_version
from hub.evaluation.compare import Change, Comparison, GroupChange
from hub.evaluation.groups import FEW_OBJECTS, FEW_UNITS
from hub.evaluation.report import Baseline, OnImage, Report, measure
from hub.quantization.report import REPORT as QUANTIZATION
from hub.quantization.report import read_quantization
from hub.store import Store
from hub.weakspots import SpotState, advance, weak_spots

GATE: Final = "gate.json"
SCHEMA: Final = 1
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


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """What `gate.json` holds.

    Attributes:
        release, sha256: of the candidate and its ONNX file.
        baseline, baseline_sha256: what it was held against.
        dataset: the digest of the version.
        weak_spot: what it was made for; None for none.
        budget: points of 100 that may be lost.
        comparison: all figures.
        at_ms: UTC milliseconds.
    """

    schema: int = SCHEMA
    release: str
    sha256: str
    baseline: str
    baseline_sha256: str
    dataset: str
    weak_spot: int | None
    budget: float
    passed: bool
    checks: tuple[Check, ...]
    comparison: Comparison
    at_ms: int


def hold(
    candidate: Path,
    *,
    against: Baseline,
    version: Path,
    weak_spot: int | None,
    fixed: Mapping[int, str] | None,
    budget: float = BUDGET,
    now_ms: int,
    on_image: OnImage = lambda *_: None,
) -> GateReport:
    """Hold a candidate's folder against its baseline and write `gate.json` into it.

    Args:
        candidate: a folder with a card.
        against: what runs now.
        version: the folder of a dataset version.
        weak_spot: what it was made for; None for none.
        fixed: weak spots that are fixed, by number, with their names; None where no database tells.
        budget: points of 100 that may be lost.
        now_ms: UTC milliseconds.
        on_image: as in hub.evaluation.report.measure.

    Raises `UnusableError` as that, when both are the same file, and when the folder cannot be written.
    """
    found = read_model(candidate)
    if found.card is None or not candidate.is_dir():
        msg = f"{candidate} is no candidate's folder, with a model.json"
        raise UnusableError(msg)
    if read_model(against.model).sha256 == found.sha256:
        msg = f"{candidate} and {against.model} are the same model: name the release that it was trained from"
        raise UnusableError(msg)
    report = measure(version, model=candidate, against=against, on_image=on_image)
    assert report.baseline is not None
    assert report.comparison is not None
    checks = [
        *judge(report.comparison, weak_spot=weak_spot, fixed=fixed, budget=budget),
        *_lost_labels(report),
        *variant_checks(candidate, found.card, budget=budget),
    ]
    judged = GateReport(
        release=report.model.release,
        sha256=found.sha256,
        baseline=report.baseline.release,
        baseline_sha256=report.baseline.sha256,
        dataset=report.dataset,
        weak_spot=weak_spot,
        budget=budget,
        passed=not any(check.stops for check in checks),
        checks=tuple(checks),
        comparison=report.comparison,
        at_ms=now_ms,
    )
    write_whole(candidate / GATE, msgspec.json.format(msgspec.json.encode(judged), indent=1) + b"\n")
    return judged


def judge(
    comparison: Comparison, *, weak_spot: int | None, fixed: Mapping[int, str] | None, budget: float = BUDGET
) -> list[Check]:
    """Judge what was measured by the first three rules. `budget` is in points of 100."""
    checks = [_gain(comparison) if weak_spot is None else _weak_spot(comparison, weak_spot)]
    checks += _fixed(comparison, fixed, but=weak_spot)
    checks += _over_all(comparison.overall, budget=budget)
    checks += _parts(comparison, budget=budget)
    return checks


def variant_checks(folder: Path, card: ModelCard, *, budget: float) -> list[Check]:
    """Judge the card's variants by the fourth rule."""
    if not card.variants:
        return []
    try:
        measured = read_quantization(folder)
    except UnusableError as error:
        return [Check(name="variants", outcome="insufficient", text=f"{error}: run `hub quantize` again")]
    name = f"variants in {QUANTIZATION}"
    if measured.model_sha256 != card.sha256 or measured.budget > budget:
        why = (
            "it is of another model file"
            if measured.model_sha256 != card.sha256
            else f"its budget was {measured.budget:g} points, not {budget:g}"
        )
        return [Check(name=name, outcome="insufficient", text=f"{why}: run `hub quantize` again")]
    checks = []
    for variant in card.variants:
        good = {
            one.runtime
            for one in measured.tried
            if one.name == variant.name and one.sha256 == variant.sha256 and one.kept and not one.parity
        }
        missing = sorted(set(variant.runtimes) - good) if variant.runtimes else ["any runtime"]
        text = f"not measured within {budget:g} points on {', '.join(missing)}" if missing else "within the budget"
        checks.append(Check(name=f"variant {variant.name}", outcome="fail" if missing else "pass", text=text))
    return checks


def weak_spot_of(version: Path) -> int | None:
    """Return the weak spot that a dataset version was frozen for; None for none."""
    told = read_version(version).recipe.get("weak_spot")
    return told if isinstance(told, int) else None


def fixed_spots(store: Store) -> dict[int, str]:
    """Return the weak spots that are fixed, by number, with their names."""
    return {spot.id: spot.name for spot in weak_spots(store) if spot.state is SpotState.FIXED}


def move_on(store: Store, report: GateReport) -> str:
    """Take the weak spot of a report that passed to `trained`; return what came of it, one sentence."""
    if report.weak_spot is None or not report.passed:
        return "no weak spot moves on"
    try:
        advance(
            store,
            report.weak_spot,
            SpotState.TRAINED,
            now_ms=report.at_ms,
            release=report.release,
            note=f"passed the gate against {report.baseline}",
        )
    except UnusableError as error:
        return f"its life does not move on: {error}"
    return f"weak spot {report.weak_spot} is `trained`; `hub weakspots` measures whether {report.release} fixed it"


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
            yield Check(name=name, outcome="fail", text=f"more than {budget:g} points are lost: {text}")
        else:
            more = math.ceil(overall.images * (_times(change, _Z) - 1))
            text = f"more than {budget:g} points seem lost: {text}; about {_images(more)} more would tell"
            yield Check(name=name, outcome="insufficient", text=text)


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
                yield Check(name=name, outcome="fail", text=f"more than {budget:g} points are lost: {text}")
            else:
                text = f"more than {budget:g} points seem lost, which may be chance: {text}"
                yield Check(name=name, outcome="insufficient", text=text, required=False)
    if enough and not stopped:
        text = f"no loss of more than {budget:g} points is shown in any of {len(enough)}"
        yield Check(name="labels, sizes and cameras", outcome="pass", text=text)
    if few:
        told = ", ".join(f"{group.kind} {group.name or 'from elsewhere'} ({group.objects})" for group in few)
        text = f"too few objects or moments: {told}"
        yield Check(name="not judged", outcome="insufficient", text=text, required=False)


def _lost_labels(report: Report) -> Iterator[Check]:
    """Judge labels that were looked for, that the baseline could tell and the candidate cannot."""
    assert report.baseline is not None
    lost = set(report.model.evaluation.lacking) - set(report.baseline.evaluation.lacking)
    if lost:
        yield Check(name="labels", outcome="fail", text=f"it cannot tell {', '.join(sorted(lost))} any more")


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


def _extent(group: GroupChange) -> str:
    return f"{group.objects} objects in {_images(group.images)} of {group.units} moments"


def _images(count: int) -> str:
    return f"{count} picture{'' if count == 1 else 's'}"
