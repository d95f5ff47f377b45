"""Pictures of numbers over time, as PNG: findings, recall, a weak spot's rate. matplotlib is imported here only.

`*_picture` functions take values and return a drawn figure, or None when there is nothing to draw; they open nothing.
Times are drawn in the zone that is given and the axis names it. Every interval is 95 %.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import tzinfo
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from edge.contract.errors import UnusableError
from hub.recall import HOUR_MS, CameraHour, estimate, total
from hub.store_plots import HourCount
from hub.store_weakspots import StepRow

CAMERAS_SHOWN: Final = 8
RECALL_CAMERAS: Final = 6
WIDTH_IN, DPI = 9.0, 120
BLUE, GREY, ORANGE, GREEN = "#2a6fb0", "#7f7f7f", "#c2571a", "#3a7d44"
BUCKET_HOURS: Final = (1, 3, 6, 12, 24)
ENOUGH: Final = 0.8  # of the times that have counts, so many must be enough for an estimate
_NAME_CHARS: Final = 60
_TIMES: Final = ["%Y", "%b", "%d %b", "%H:%M", "%H:%M", "%S.%f"]
_BESIDE: Final = ["", "%Y", "%Y", "%d %b %Y", "%d %b %Y", "%d %b %Y"]
_TIMES_AT_ZERO: Final = ["", "%b", "%d %b", "%d %b", "%H:%M", "%H:%M"]


def findings_picture(
    counts: Sequence[HourCount], *, since_ms: int, until_ms: int, zone: tzinfo, zone_name: str
) -> Figure | None:
    """Draw findings an hour, one row a camera: those with most findings, then all others together, on one scale."""
    if not counts:
        return None
    by_camera: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    for site, device, camera, hour_ms, count in counts:
        by_camera[f"{site}/{device}/{camera}"][hour_ms] += count
    order = sorted(by_camera, key=lambda name: (-sum(by_camera[name].values()), name))
    shown, rest = order[:CAMERAS_SHOWN], order[CAMERAS_SHOWN:]
    rows = [(name, by_camera[name], BLUE) for name in shown]
    if rest:
        others: defaultdict[int, int] = defaultdict(int)
        for name in rest:
            for hour_ms, count in by_camera[name].items():
                others[hour_ms] += count
        rows.append((f"{len(rest)} other camera{'s' * (len(rest) > 1)} together", others, GREY))
    figure, axes = _figure(len(rows), row_in=1.05, share_y=not rest)
    for axis, (name, counted, colour) in zip(axes, rows, strict=True):
        starts = sorted(counted)
        axis.bar(
            [_days(hour_ms) for hour_ms in starts],
            [counted[hour_ms] for hour_ms in starts],
            width=_days(HOUR_MS),
            align="edge",
            color=colour,
            linewidth=0,
        )
        all_of_it = sum(counted.values())
        title(axis, f"{_short(name)}: {all_of_it:,} finding{'s' * (all_of_it > 1)}")
        axis.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
        axis.set_ylim(bottom=0)
    if rest:  # one scale for the cameras; the others together would flatten them
        top = max(axis.get_ylim()[1] for axis in axes[:-1])
        for axis in axes[:-1]:
            axis.set_ylim(0, top)
    _time_axis(axes, since_ms=since_ms, until_ms=until_ms, zone=zone, zone_name=zone_name)
    figure.supylabel("findings an hour", fontsize=9)
    return figure


def recall_picture(
    rows: Sequence[CameraHour], *, since_ms: int, until_ms: int, zone: tzinfo, zone_name: str
) -> Figure | None:
    """Draw the recall estimate of each camera with its band; None when no camera has enough counts."""
    by_camera: defaultdict[str, list[CameraHour]] = defaultdict(list)
    for row in rows:
        by_camera["/".join(row[:3])].append(row)
    drawn = {name: found for name, mine in sorted(by_camera.items()) if (found := recall_points(mine))[1]}
    if not drawn:
        return None
    busiest = sorted(drawn, key=lambda name: -sum(row[4].frames for row in by_camera[name]))[:RECALL_CAMERAS]
    names = sorted(busiest)
    figure, axes = _figure(len(names), row_in=1.6, share_y=True)
    for axis, name in zip(axes, names, strict=True):
        hours, points = drawn[name]
        for run in _runs(points, step_ms=hours * HOUR_MS):
            times = [_days(at_ms + hours * HOUR_MS // 2) for at_ms, *_ in run]
            values, low, high = ([point[n] for point in run] for n in (1, 2, 3))
            axis.fill_between(times, low, high, color=BLUE, alpha=0.2, linewidth=0)
            axis.vlines(times, low, high, color=BLUE, alpha=0.45, linewidth=1)
            axis.plot(times, values, color=BLUE, marker="o", markersize=3, linewidth=1.3)
        every = "hour" if hours == 1 else f"{hours} hours"
        title(axis, f"{_short(name)}: of each {every}, with its 95 % interval")
        axis.set_ylim(0, 1.03)  # room for a point at 100 %
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    more = len(drawn) - len(names)
    if more:
        axes[-1].annotate(
            f"{more} more camera{'s' * (more > 1)}: draw one with --camera",
            (1, -0.5),
            xycoords="axes fraction",
            ha="right",
            fontsize=8,
            color=GREY,
        )
    _time_axis(axes, since_ms=since_ms, until_ms=until_ms, zone=zone, zone_name=zone_name)
    figure.supylabel("recall, an upper estimate", fontsize=9)
    return figure


RecallPoint = tuple[int, float, float, float]
"""Start (UTC milliseconds), estimate, low, high."""


def recall_points(rows: Sequence[CameraHour]) -> tuple[int, list[RecallPoint]]:
    """Return how many hours are taken together, and the estimates of one camera, in order of time.

    The fewest hours for which most times with counts have enough for an estimate.
    """
    points: list[RecallPoint] = []
    for hours in BUCKET_HOURS:
        buckets = defaultdict(list)
        for *_, hour_ms, counts in rows:
            buckets[hour_ms - hour_ms % (hours * HOUR_MS)].append(counts)
        estimates = {start_ms: estimate(total(several)) for start_ms, several in sorted(buckets.items())}
        points = [(at_ms, one.recall, one.low, one.high) for at_ms, one in estimates.items() if one is not None]
        if len(points) >= ENOUGH * len(buckets):
            break
    return hours, points


def weak_spot_picture(name: str, steps: Sequence[StepRow], *, zone: tzinfo, zone_name: str) -> Figure | None:
    """Draw a weak spot's miss rate with its band against the rest, its batches and releases as marks."""
    measured = [step for step in steps if step.rate is not None]
    if not measured:
        return None
    figure, (axis,) = _figure(1, row_in=3.6, share_y=False)
    times = [_days(step.at_ms) for step in measured]
    low, high = [step.low or 0.0 for step in measured], [step.high or 0.0 for step in measured]
    axis.fill_between(times, low, high, color=ORANGE, alpha=0.2, linewidth=0, label="95 % interval")
    axis.vlines(times, low, high, color=ORANGE, alpha=0.45, linewidth=1)
    axis.plot(
        times, [step.rate or 0.0 for step in measured], color=ORANGE, marker="o", markersize=3.5, label="missed in it"
    )
    rest = [step.against or 0.0 for step in measured]
    axis.plot(times, rest, color=GREY, linestyle="--", marker=".", markersize=4, label="missed elsewhere")
    for height, (at_ms, text) in enumerate(_marks(steps)):
        axis.axvline(_days(at_ms), color=GREEN, linewidth=1, linestyle=":")
        axis.annotate(
            text,
            (_days(at_ms), 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(3, -10 - 11 * (height % 4)),
            textcoords="offset points",
            fontsize=8,
            color=GREEN,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5},
        )
    figure.suptitle(_short(name, 90), fontsize=10)
    axis.set_ylabel("share of objects that are missed", fontsize=9)
    axis.set_ylim(0, min(1.0, 1.45 * max(*high, *rest) + 0.02))
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, fontsize=8, frameon=False)
    first_ms, last_ms = (pick(step.at_ms for step in steps) for pick in (min, max))
    edge_ms = max(HOUR_MS, (last_ms - first_ms) // 12)
    _time_axis([axis], since_ms=first_ms - edge_ms, until_ms=last_ms + edge_ms, zone=zone, zone_name=zone_name)
    return figure


def _marks(steps: Sequence[StepRow]) -> list[tuple[int, str]]:
    """Return when its batches were made and its releases trained, and what to write there."""
    marks = []
    for before, step in zip([None, *steps], steps, strict=False):
        if step.batch_id is not None and (before is None or before.batch_id != step.batch_id):
            marks.append((step.at_ms, f"batch {step.batch_id}"))
        elif before is not None and step.state != before.state:
            release = f" {_short(step.model, 24)}" if step.state == "trained" and step.model else ""
            marks.append((step.at_ms, f"{step.state.replace('_', ' ')}{release}"))
    return marks


def save(figure: Figure, path: Path) -> None:
    """Write a PNG. Raises `UnusableError`."""
    try:
        figure.savefig(path, format="png", dpi=DPI)
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise UnusableError(msg) from error


def _figure(rows: int, *, row_in: float, share_y: bool) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(WIDTH_IN, 0.75 + row_in * rows), layout="constrained")
    axes = list(figure.subplots(rows, 1, sharex=True, sharey=share_y, squeeze=False)[:, 0])
    plain_axes(axes)
    return figure, axes


def plain_axes(axes: Sequence[Axes]) -> None:
    """Give axes the one look: a faint grid behind, no frame above and to the right."""
    for axis in axes:
        axis.grid(axis="y", color="#dddddd", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=8)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)


def _time_axis(axes: Sequence[Axes], *, since_ms: int, until_ms: int, zone: tzinfo, zone_name: str) -> None:
    axis = axes[-1]
    axis.set_xlim(_days(since_ms), _days(until_ms))
    locator = AutoDateLocator(tz=zone, minticks=4, maxticks=9)  # type: ignore[no-untyped-call]
    axis.xaxis.set_major_locator(locator)
    formatter = ConciseDateFormatter(  # type: ignore[no-untyped-call]
        locator, tz=zone, formats=_TIMES, zero_formats=_TIMES_AT_ZERO, offset_formats=_BESIDE
    )
    axis.xaxis.set_major_formatter(formatter)
    axis.xaxis.get_offset_text().set_fontsize(8)
    axis.set_xlabel(f"time, {zone_name}", fontsize=9)


def title(axis: Axes, text: str) -> None:
    """Write what an axis shows, above it on the left."""
    axis.set_title(text, fontsize=8.5, loc="left", pad=3)


def _runs(points: Sequence[RecallPoint], *, step_ms: int) -> list[list[RecallPoint]]:
    """Cut where a time has no estimate: a line over a gap would claim what nobody measured."""
    runs: list[list[RecallPoint]] = []
    for point in points:
        if runs and point[0] - runs[-1][-1][0] == step_ms:
            runs[-1].append(point)
        else:
            runs.append([point])
    return runs


def _days(at_ms: int) -> float:
    """Return what matplotlib counts in: days since 1970, UTC."""
    return at_ms / (24 * HOUR_MS)


def _short(name: str, most: int = _NAME_CHARS) -> str:
    """Return the end of a name that is too long; matplotlib would read dollars as formulas."""
    name = name.replace("$", r"\$")
    return name if len(name) <= most else "..." + name[3 - most :]
