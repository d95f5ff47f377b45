"""What `hub evaluate` prints, in lines of at most 80 characters. Figures are in percent, differences in points.

`comparison_lines` serves every command that holds a candidate against its baseline.
"""

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from hub.evaluation.compare import Change, Comparison, GroupChange
from hub.evaluation.error_kinds import WHAT
from hub.evaluation.evaluate import Estimate, Evaluation, GroupFigures
from hub.evaluation.groups import FEW_OBJECTS, FEW_UNITS, Kind
from hub.evaluation.report import Measured, Report
from hub.lines import counted, cut, wrapped
from hub.spot_names import camera_names, printable

_Row = TypeVar("_Row", GroupFigures, GroupChange)
_NAME: Final = 17
_MOST: Final = 20  # rows of a kind
_TITLES: Final[dict[Kind, str]] = {
    "overall": "",
    "label": "label",
    "size": "size",
    "camera": "camera",
    "slice": "slice",
    "weak spot": "weak spot",
    "elsewhere": "not of weak spot",
}
_MEASURES: Final = {"ap50": "AP50", "recall": "recall", "precision": "precision"}


def report_lines(report: Report) -> list[str]:
    """Return `hub evaluate`."""
    evaluation, baseline = report.model.evaluation, report.baseline
    lines = [_model(report.model)]
    if baseline is not None:
        lines.append(f"against {_model(baseline)}")
    objects = counted(evaluation.overall.objects, "object")
    lines.append(
        f"dataset {report.dataset[:12]}, split {report.split}: {counted(evaluation.images, 'image')}, {objects}"
    )
    if evaluation.lacking:
        lines += wrapped(f"left out, the model cannot tell: {', '.join(evaluation.lacking)}")
    if report.comparison is not None and baseline is not None:
        lines += ["", *comparison_lines(report.comparison)]
    else:
        lines += ["", *_figures(evaluation)]
    lines += ["", *_errors(evaluation, None if baseline is None else baseline.evaluation)]
    lines += ["", *_calibration(evaluation, None if baseline is None else baseline.evaluation)]
    return [*lines, "", *wrapped(how_sure(evaluation.resampled, evaluation.units))]


def how_sure(resampled: str, units: int) -> str:
    """Return what the intervals are made of."""
    if resampled == "moments":
        return f"intervals: 95 %, by drawing {units} moments again (a camera's frames within 20 s together)"
    if resampled == "pictures":
        return (
            f"intervals: 95 %, by drawing {units} single pictures again, as there are fewer than five moments (a "
            "camera's frames within 20 s): frames of one moment are alike, so they are narrower than they should be"
        )
    return "no intervals: one picture is too few"


def comparison_lines(comparison: Comparison) -> list[str]:
    """Return baseline -> candidate of all, with intervals, then the groups."""
    lines = []
    if comparison.left_out:
        lines += wrapped(f"left out, one of the models cannot tell: {', '.join(comparison.left_out)}")
    overall = comparison.overall
    for name, told in _MEASURES.items():
        change: Change = getattr(overall, name)
        lines.append(f"{told:<10}{_overall(change, few=overall.few)}")
    rows = comparison.groups[1:]
    if not rows:
        return lines
    lines += ["", f"{'':<{_NAME + 7}}{'AP50':^19}{'recall':^19}{'precision':^18}".rstrip()]
    for kind, groups in _by_kind(rows):
        told = f"size at {comparison.input}" if kind == "size" else _TITLES[kind]
        lines.append(f"{told:<{_NAME - 1}}{'objects':>7}{'   old   new  diff ' * 3}".rstrip())
        names = names_of(kind, groups)
        lines += [_changed(group, names[group.name]) for group in groups[:_MOST]]
        lines += _more(groups)
    lines += wrapped(
        f"* the 95 % interval of the difference is off 0. ? fewer than {FEW_OBJECTS} objects, or in fewer than "
        f"{FEW_UNITS} {'pictures' if comparison.resampled == 'pictures' else 'moments'}: nothing follows from it."
    )
    return lines


def _model(measured: Measured) -> str:
    evaluation = measured.evaluation
    told = f" at {evaluation.input}, {measured.runtime}, boxes from score {evaluation.score_threshold:.2f}"
    return cut(measured.release, 80 - len("against ") - len(told)) + told


def _figures(evaluation: Evaluation) -> list[str]:
    lines = [f"{'':<{_NAME}}{'objects':>8}{'AP':>6}{'AP50':>7}{'recall':>17}{'precision':>20}"]
    lines.append(_figured(evaluation.overall, "all"))
    for kind, groups in _by_kind(evaluation.groups[1:]):
        names = names_of(kind, groups)
        lines += ["", _TITLES[kind], *(_figured(group, names[group.name]) for group in groups[:_MOST]), *_more(groups)]
    if any(group.few for group in evaluation.groups):
        lines += wrapped(f"? fewer than {FEW_OBJECTS} objects, or in fewer than {FEW_UNITS} moments: hardly a measure.")
    return lines


def _figured(group: GroupFigures, name: str) -> str:
    ap = "" if group.ap is None else f"{100 * group.ap:.1f}"
    objects = f"{group.objects}{'?' * group.few}"
    each = "".join(_estimated(one) for one in (group.ap50, group.recall, group.precision))
    return f"{_cut(name):<{_NAME}}{objects:>8}{ap:>6}{each}".rstrip()


def _estimated(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"{'-':>6}{'':<10}"
    between = (
        "" if estimate.low is None or estimate.high is None else f" {_short(estimate.low)}-{_short(estimate.high)}"
    )
    return f"{100 * estimate.value:6.1f}{between:<10}"


def _short(share: float) -> str:
    return f"{100 * share:.0f}"


def _overall(change: Change, *, few: bool) -> str:
    if change.difference is None:
        return f"{_percent(change.baseline)} -> {_percent(change.candidate)}"
    told = f"{_percent(change.baseline)} -> {_percent(change.candidate)}  {100 * change.difference:+6.1f}"
    if change.low is None or change.high is None:
        return told
    between = f"({100 * change.low:+.1f} to {100 * change.high:+.1f})"
    verdict = "better" if change.is_better else "worse" if change.is_worse else "not told apart from no change"
    return f"{told}  {between:<17}{'too few objects to tell' if few else verdict}"


def _changed(group: GroupChange, name: str) -> str:
    each = "".join(_both(change, few=group.few) for change in (group.ap50, group.recall, group.precision))
    return f"{_cut(name):<{_NAME}}{group.objects:>6}{each}".rstrip()


def _both(change: Change, *, few: bool) -> str:
    mark = "?" if few else "*" if change.is_better or change.is_worse else ""
    difference = "" if change.difference is None else f"{_signed(change.difference)}{mark or ' '}"
    return f" {_percent(change.baseline)}{_percent(change.candidate):>6}{difference:>7}"


def _signed(difference: float) -> str:
    told = f"{100 * difference:+.1f}"
    return "0.0" if told in {"+0.0", "-0.0"} else told


def _percent(share: float | None) -> str:
    return f"{'-':>5}" if share is None else f"{100 * share:5.1f}"


def names_of(kind: Kind, groups: Sequence[GroupFigures] | Sequence[GroupChange]) -> dict[str, str]:
    """Return what the groups of a kind are called where they are shown, cameras as short as they can be told apart."""
    names = {group.name: printable(group.name) for group in groups}
    if kind == "camera":
        parts = {name: name.split("/") for name in names if name.count("/") == 2}
        cameras = {name: (site, device, camera) for name, (site, device, camera) in parts.items()}
        short = camera_names(cameras.values())
        return {
            name: short[cameras[name]] if name in cameras else told or "from elsewhere" for name, told in names.items()
        }
    return {name: told.replace("_", " ") for name, told in names.items()} if kind == "slice" else names


def _cut(name: str) -> str:
    """Return a name that fits: its beginning and its end, of which one tells it from others."""
    return name if len(name) < _NAME else f"{name[:6]}...{name[-7:]}"


def _by_kind(rows: Sequence[_Row]) -> Iterator[tuple[Kind, list[_Row]]]:
    """Yield the groups kind by kind, those with most objects first, but sizes from small to big."""
    for kind in _TITLES:
        if groups := [group for group in rows if group.kind == kind]:
            yield kind, groups if kind == "size" else sorted(groups, key=lambda group: -group.objects)


def _more(groups: Sequence[GroupFigures] | Sequence[GroupChange]) -> list[str]:
    more = len(groups) - _MOST
    return [f"{more} more, with at most {groups[_MOST].objects} objects: see --json"] if more > 0 else []


def _errors(evaluation: Evaluation, baseline: Evaluation | None) -> list[str]:
    if not evaluation.errors:
        return []
    old = {one.name: one for one in baseline.errors} if baseline is not None else {}
    lines = [f"{'errors (TIDE)':<16}{'count':>14}   {'AP50 lost':>14}"]
    for kind in evaluation.errors:
        before = old.get(kind.name)
        count = f"{before.count} -> {kind.count}" if before else f"{kind.count}"
        costs = f"{100 * before.costs:.1f} -> {100 * kind.costs:.1f}" if before else f"{100 * kind.costs:.1f}"
        lines.append(f"{kind.name:<16}{count:>14}   {costs:>14}   {WHAT[kind.name]}")
    return lines


def _calibration(evaluation: Evaluation, baseline: Evaluation | None) -> list[str]:
    now = evaluation.calibration
    old = None if baseline is None else baseline.calibration
    told = {
        "from the working threshold up": (None if old is None else old.from_threshold, now.from_threshold),
        "of all boxes": (None if old is None else old.by_score, now.by_score),
        "by size": (None if old is None else old.by_size, now.by_size),
        "by place": (None if old is None else old.by_place, now.by_place),
    }
    parts = [
        f"{name} {'' if old is None else f'{_percent(before).strip()} -> '}{_percent(after).strip()}"
        for name, (before, after) in told.items()
    ]
    lines = wrapped(f"calibration (D-ECE, how far scores are off): {', '.join(parts)}")
    if now.said is not None and now.right is not None:
        whose = "boxes" if old is None else "the candidate's boxes"
        lines.append(f"{whose} from the threshold up say {100 * now.said:.0f} %, and {100 * now.right:.0f} % are right")
    return lines
