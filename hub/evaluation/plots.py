"""Pictures of an evaluation, as PNG: precision against recall, groups, calibration, kinds of errors.

The baseline is grey, the model blue, in every picture; `hub.plots.save` writes them. Every interval is 95 %.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from hub.evaluation.evaluate import Evaluation, GroupFigures
from hub.evaluation.groups import Kind
from hub.evaluation.lines import names_of
from hub.evaluation.report import Measured, Report
from hub.plots import BLUE, GREY, ORANGE, WIDTH_IN, plain_axes, title
from hub.spot_names import printable

LABELS_SHOWN: Final = 15
CAMERAS_SHOWN: Final = 12
_KINDS: Final[tuple[Kind, ...]] = ("overall", "label", "size", "camera", "slice", "weak spot")
_RECALLS: Final = np.linspace(0, 1, 101)


def report_pictures(report: Report) -> Iterator[tuple[str, Figure]]:
    """Yield each picture with the name of its file; those that have nothing to show are left out."""
    models = [(report.model, BLUE)] if report.baseline is None else [(report.baseline, GREY), (report.model, BLUE)]
    if any(model.evaluation.curve for model, _ in models):
        yield "precision-recall.png", curve_picture(models)
    yield "groups.png", groups_picture(models)
    if any(model.evaluation.calibration.bins for model, _ in models):
        yield "calibration.png", calibration_picture(models)
    if report.model.evaluation.errors:
        yield "errors.png", errors_picture(models)


Models = Sequence[tuple[Measured, str]]


def curve_picture(models: Models) -> Figure:
    """Draw precision against recall, of all labels together, with the working threshold as a point."""
    figure = Figure(figsize=(6.4, 5.0), layout="constrained")
    axis = figure.subplots()
    plain_axes([axis])
    for model, colour in models:
        evaluation = model.evaluation
        if evaluation.curve:
            end = len(np.trim_zeros(evaluation.curve, "b"))
            axis.plot(_RECALLS[:end], evaluation.curve[:end], color=colour, linewidth=1.8, label=_told(model))
        here = evaluation.overall
        if here.recall.value is not None and here.precision.value is not None:
            axis.plot(here.recall.value, here.precision.value, "o", color=colour, markersize=7, markeredgecolor="white")
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.02)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_xlabel("recall", fontsize=9)
    axis.set_ylabel("precision", fontsize=9)
    title(axis, "IoU .5, boxes of all labels together; the points are at the working threshold")
    axis.legend(loc="lower left", fontsize=8, frameon=False)
    return figure


def groups_picture(models: Models) -> Figure:
    """Draw recall and precision of every group with intervals; groups of few objects are faint."""
    names = [(group.kind, group.name) for kind in _KINDS for group in _shown(models[-1][0].evaluation, kind)]
    places, headings, at, before = [], {}, 0.0, names[0][0]
    for kind, _ in names:
        if kind != before:
            at += 1.4
            headings[at] = kind
        at += 1.0
        places.append(at)
        before = kind
    figure = Figure(figsize=(WIDTH_IN, 1.25 + 0.27 * at), layout="constrained")
    axes = list(figure.subplots(1, 2, sharey=True))
    plain_axes(axes)
    for axis, measure in zip(axes, ("recall", "precision"), strict=True):
        axis.grid(axis="y", visible=False)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        for shift, (model, colour) in zip((-0.16, 0.16) if len(models) > 1 else (0.0,), models, strict=True):
            found = [model.evaluation.find(kind, name) for kind, name in names]
            mine = [(place + shift, group) for place, group in zip(places, found, strict=True) if group is not None]
            for few in (False, True):
                _intervals(axis, [row for row in mine if row[1].few == few], measure=measure, colour=colour)
        title(axis, f"{measure} at the working threshold")
        axis.set_xlim(0, 1.0)
        axis.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axis.margins(x=0)
    rows = [_row(models[-1][0].evaluation, kind, name) for kind, name in names]
    axes[0].set_yticks([*places, *headings], [*rows, *headings.values()])
    for label in axes[0].get_yticklabels()[len(places) :]:
        label.set_color(GREY)
        label.set_fontstyle("italic")
    axes[0].set_ylim(at + 0.7, 0.3)
    axes[0].set_xlabel("in brackets how many objects; faint where they are too few to tell", fontsize=8.5)
    axes[0].tick_params(axis="y", length=0)
    axes[1].tick_params(axis="y", length=0)
    _legend(figure, models)
    return figure


def calibration_picture(models: Models) -> Figure:
    """Draw the share that is right against the score, and how many boxes have it."""
    figure = Figure(figsize=(6.4, 5.6), layout="constrained")
    axes = list(figure.subplots(2, 1, sharex=True, height_ratios=[3, 1]))
    plain_axes(axes)
    axes[0].plot([0, 1], [0, 1], color=ORANGE, linewidth=1.2, linestyle="--", label="as good as it says")
    width = 0.1 / (len(models) + 0.4)
    for number, (model, colour) in enumerate(models):
        told = model.evaluation.calibration
        off = "" if told.by_score is None else f", D-ECE {100 * told.by_score:.1f} points"
        score, right = [one.score for one in told.bins], [one.right for one in told.bins]
        axes[0].plot(score, right, color=colour, marker="o", markersize=5, linewidth=1.6, label=_told(model) + off)
        left = [one.low + 0.2 * width + number * width for one in told.bins]
        axes[1].bar(left, [one.boxes for one in told.bins], width=width, align="edge", color=colour, linewidth=0)
    axes[0].grid(axis="x", color="#dddddd", linewidth=0.6)
    axes[0].set_xlim(0, 1)
    axes[0].set_ylim(0, 1.02)
    axes[0].yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes[0].set_ylabel("share of boxes that are right", fontsize=9)
    axes[0].legend(loc="lower right", fontsize=8, frameon=False)
    title(axes[0], "below the dashed line a model is too sure of itself, above it too modest")
    axes[1].set_ylabel("boxes", fontsize=9)
    axes[1].set_xlabel("score", fontsize=9)
    axes[1].set_yscale("log")
    return figure


def errors_picture(models: Models) -> Figure:
    """Draw what each kind of error costs, and how many there are."""
    figure = Figure(figsize=(WIDTH_IN, 3.4), layout="constrained")
    axes = list(figure.subplots(1, 2, sharey=True))
    plain_axes(axes)
    height = 0.8 / len(models)
    names = [kind.name for kind in models[-1][0].evaluation.errors]
    for number, (model, colour) in enumerate(models):
        errors = {kind.name: kind for kind in model.evaluation.errors}
        at = [place - 0.4 + height * (number + 0.5) for place in range(len(names))]
        costs = [100 * errors[name].costs if name in errors else 0.0 for name in names]
        counts = [errors[name].count if name in errors else 0 for name in names]
        for axis, values, form in ((axes[0], costs, "{:.1f}"), (axes[1], counts, "{:,.0f}")):
            bars = axis.barh(at, values, height=height * 0.92, color=colour, linewidth=0)
            axis.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=7.5)
    for axis, told in zip(axes, ("AP50 lost to it, points", "how many at the working threshold"), strict=True):
        axis.grid(axis="y", visible=False)
        axis.grid(axis="x", color="#dddddd", linewidth=0.6)
        axis.margins(x=0.14)
        axis.set_xlim(left=0)
        axis.tick_params(axis="y", length=0)
        title(axis, told)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    _legend(figure, models)
    return figure


def _shown(evaluation: Evaluation, kind: Kind) -> list[GroupFigures]:
    """Return the groups to draw, those with most objects where they are many."""
    groups = list(evaluation.of(kind))
    most = {"label": LABELS_SHOWN, "camera": CAMERAS_SHOWN}.get(kind, len(groups))
    return sorted(groups, key=lambda group: -group.objects)[:most] if len(groups) > most else groups


def _intervals(axis: Axes, rows: Sequence[tuple[float, GroupFigures]], *, measure: str, colour: str) -> None:
    """Draw groups that are all of few objects, or none of them, at their places."""
    drawn = []
    for at, group in rows:
        one = group.recall if measure == "recall" else group.precision
        if one.value is not None:
            low, high = (one.value if end is None else end for end in (one.low, one.high))
            reach = (np.nan, np.nan) if one.low is None else (max(0.0, one.value - low), max(0.0, high - one.value))
            drawn.append((at, one.value, *reach))
    if not drawn:
        return
    at_y, values, below, above = np.array(drawn).T
    axis.errorbar(
        values,
        at_y,
        xerr=np.stack([below, above]),
        fmt="o",
        color=colour,
        alpha=0.35 if rows[0][1].few else 1.0,
        clip_on=False,
        capsize=2,
        elinewidth=1.3,
        markersize=4.5,
    )


def _row(evaluation: Evaluation, kind: Kind, name: str) -> str:
    group = evaluation.find(kind, name)
    objects = 0 if group is None else group.objects
    said = {"overall": "all", "weak spot": f"weak spot {name}"}.get(kind, names_of(kind, evaluation.of(kind))[name])
    said = said.replace("$", r"\$")
    said = said if len(said) <= 30 else "..." + said[-27:]
    return f"{said}  ({objects:,})"


def _told(model: Measured) -> str:
    return f"{printable(model.release)} at {model.evaluation.input}".replace("$", r"\$")


def _legend(figure: Figure, models: Models) -> None:
    keys = [Patch(facecolor=colour, label=_told(model)) for model, colour in models]
    figure.legend(handles=keys, loc="outside upper right", ncols=2, fontsize=8, frameon=False)
