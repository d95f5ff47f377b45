"""The picture of a sweep: AP50 over milliseconds, each point an input size. The baseline is grey, the model blue."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from hub.plots import BLUE, GREEN, GREY, WIDTH_IN, plain_axes, title
from hub.sweep import Line, Row, Sweep


def sweep_picture(sweep: Sweep) -> Figure:
    """Draw the sweep. Squares stand for square inputs, circles for those of the frames' shape."""
    figure = Figure(figsize=(WIDTH_IN, 5.2), layout="constrained")
    axis = figure.subplots()
    plain_axes([axis])
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    if sweep.baseline is not None:
        _draw(axis, sweep.baseline, GREY, below=True)
    _draw(axis, sweep.model, BLUE, below=False)
    if sweep.needed is not None:
        base = sweep.baseline or sweep.model
        text = f"{sweep.keep:.0%} of {base.release} at {base.runs_at}"
        axis.axhline(sweep.needed, color=GREEN, linewidth=1, linestyle="--", label=text)
    row = None if sweep.picked is None else sweep.model.at(sweep.picked.input)
    if row is not None and row.ap50.value is not None:
        axis.plot(row.ms, row.ap50.value, "o", ms=17, mfc="none", mec=GREEN, mew=2, label="picked")
    axis.set_xlim(left=0)
    axis.margins(y=0.12)
    axis.set_ylim(bottom=max(axis.get_ylim()[0], 0.0), top=min(axis.get_ylim()[1], 1.03))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.set_xlabel(f"milliseconds of a detection, {sweep.runtime}, threads: {sweep.threads}", fontsize=9)
    axis.set_ylabel("AP50", fontsize=9)
    shapes = f"squares: square inputs; circles: the shape of the frames, {sweep.frame}; lines: the best for the time"
    title(axis, f"{sweep.images} images, {sweep.objects} objects; {shapes}")
    axis.legend(loc="lower right", labelspacing=0.9, fontsize=8, frameon=False)
    return figure


def _draw(axis: Axes, line: Line, colour: str, *, below: bool) -> None:
    """Draw one model: the best AP50 for the time as a line, every size as a point with its name."""
    rows = sorted((row for row in line.rows if row.ap50.value is not None), key=lambda row: row.ms)
    best: list[Row] = []
    for row in rows:
        if not best or (row.ap50.value or 0) > (best[-1].ap50.value or 0):
            best.append(row)
    axis.plot(
        [row.ms for row in best], [row.ap50.value or 0 for row in best], color=colour, linewidth=1.6, label=line.release
    )
    for row in rows:
        width, height = row.input.split("x")
        value, square = row.ap50.value or 0, width == height
        axis.plot(row.ms, value, "s" if square else "o", color=colour, markersize=6, markeredgecolor="white")
        axis.annotate(
            width if square else row.input,
            (row.ms, value),
            xytext=(6, -11) if below else (-6, 6),
            ha="left" if below else "right",
            textcoords="offset points",
            fontsize=7.5,
            color=colour,
        )
