"""Pictures of a data set's health, as PNG: classes, sizes, looks, cameras and hours, the split and who labelled.

What is trained on is green, the test share is black, in every picture; `hub.plots.save` writes them. Shares are of the
images, or boxes, of their own side of the split, so that a small test share can be held against the rest.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter, StrMethodFormatter
from numpy.typing import NDArray

from hub.health import Health
from hub.label_counts import AIM, CameraCount, ClassCount, Group
from hub.label_table import SIZE_EDGES, Floats, LabelTable, Mask
from hub.plots import BLUE, GREEN, GREY, ORANGE, WIDTH_IN, plain_axes, title
from hub.spot_names import camera_names, printable

TRAIN, TEST = GREEN, "#1a1a1a"
CLASSES_SHOWN: Final = 25
CAMERAS_SHOWN: Final = 25
_SIZE_STEPS: Final = 2.0 ** np.arange(0, 9.5, 0.5)
_STEPS: Final = [1, 2, 5, 10]
_SIZE_TICKS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_PARTS: Final = {
    "labelled by": (BLUE, "#8fbce6", ORANGE),
    "difficulty": ("#5b3f8c", "#a695cf", GREY),
    "the detector had": ("#23807f", "#d9b036"),
}
FOUND, NOT_FOUND = _PARTS["the detector had"]


def health_pictures(table: LabelTable, health: Health, *, zone_name: str) -> Iterator[tuple[str, Figure]]:
    """Yield each picture with the name of its file; those that have nothing to show are left out."""
    if health.classes:
        yield "classes.png", classes_picture(health.classes)
    if not np.isnan(table.shorter_px).all():
        yield "sizes.png", sizes_picture(table)
    if len(table):
        yield "looks.png", looks_picture(table)
        yield "cameras.png", cameras_picture(health.cameras, zone_name=zone_name)
        yield "split.png", split_picture(health)


def classes_picture(classes: Sequence[ClassCount]) -> Figure:
    """Draw the labels of each class, those to train on and of the test share, with the aim as a line."""
    shown = classes[:CLASSES_SHOWN]
    figure, axis = _one(0.32 * len(shown) + 1.3)
    axis.grid(axis="y", visible=False)
    axis.grid(axis="x", color="#dddddd", linewidth=0.6)
    at = np.arange(len(shown))
    axis.barh(at - 0.17, [one.train for one in shown], height=0.4, color=TRAIN)
    axis.barh(at + 0.2, [one.test for one in shown], height=0.22, color=TEST)
    axis.axvline(AIM, color=ORANGE, linewidth=1.2, linestyle="--")
    for where, one in zip(at, shown, strict=True):
        told = f"{one.train:,} ({_percent(one.share)}), test {one.test:,}"
        axis.annotate(
            told,
            (max(one.train, one.test), where),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7.5,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 0.5},
        )
    axis.set_yticks(at, [_name(one.label) for one in shown])
    axis.set_ylim(len(shown) - 0.45, -0.55)
    axis.set_xlim(0, 1.3 * max(AIM, *(one.train for one in shown)))
    axis.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=_STEPS, integer=True))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.set_xlabel("labels", fontsize=9)
    more = len(classes) - len(shown)
    title(axis, f"labels a class{f'; {more} more have fewer' if more > 0 else ''}")
    aim = Line2D([], [], color=ORANGE, linestyle="--", linewidth=1.2, label=f"aim {AIM:,}")
    _legend(figure, aim, test_face=TEST)
    return figure


def sizes_picture(table: LabelTable) -> Figure:
    """Draw how large the objects are for the model, and which of them the detector had found."""
    figure = Figure(figsize=(WIDTH_IN, 5.2), layout="constrained")
    axes = list(figure.subplots(2, 1, sharex=True))
    plain_axes(axes)
    sizes = np.clip(table.shorter_px, _SIZE_STEPS[0], _SIZE_STEPS[-1] * 0.999)
    known = ~np.isnan(sizes)
    test = table.test[table.image]
    _overlay(axes[0], sizes[known & ~test], sizes[known & test], _SIZE_STEPS)
    axes[0].set_ylabel("share of labels", fontsize=9)
    title(
        axes[0], f"{int((known & ~test).sum()):,} labels to train on, {int((known & test).sum()):,} in the test share"
    )
    found, all_of_it = (np.histogram(sizes[known & which], _SIZE_STEPS)[0] for which in (table.found, known))
    missed = all_of_it - found
    wide = {"width": np.diff(_SIZE_STEPS), "align": "edge", "edgecolor": "white", "linewidth": 0.6}
    axes[1].bar(_SIZE_STEPS[:-1], missed, color=NOT_FOUND, label="it had not found", **wide)
    axes[1].bar(_SIZE_STEPS[:-1], found, bottom=missed, color=FOUND, label="the detector had found", **wide)
    axes[1].legend(loc="upper right", fontsize=8, frameon=False, reverse=True)
    share = found.sum() / max(1, all_of_it.sum())
    title(axes[1], f"the detector had found {_percent(share)} of them")
    axes[1].set_xscale("log", base=2)
    axes[1].set_xlim(_SIZE_STEPS[0], _SIZE_STEPS[-1])
    axes[1].set_xticks(_SIZE_TICKS, [f"{tick}" for tick in _SIZE_TICKS])
    axes[1].minorticks_off()
    axes[1].set_xlabel("shorter side of the object, pixels of the model's input", fontsize=9)
    for axis in axes:
        for _, edge in list(SIZE_EDGES.values())[:-1]:
            axis.axvline(edge, color=GREY, linewidth=0.8, linestyle=":")
    for name, (low, high) in SIZE_EDGES.items():
        middle = np.sqrt(max(low, _SIZE_STEPS[0]) * min(high, _SIZE_STEPS[-1]))
        axes[0].annotate(
            name,
            (middle, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, -9),
            textcoords="offset points",
            ha="center",
            fontsize=8,
            color=GREY,
        )
    axes[0].margins(y=0.25)
    _legend(figure)
    axes[1].set_ylabel("labels", fontsize=9)
    axes[1].yaxis.set_major_locator(MaxNLocator(nbins=4, steps=_STEPS, integer=True))
    axes[1].yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    return figure


def looks_picture(table: LabelTable) -> Figure:
    """Draw light, noise, shapes and how many objects there are, test share against the rest."""
    figure = Figure(figsize=(WIDTH_IN, 5.2), layout="constrained")
    axes = list(figure.subplots(2, 2).flat)
    plain_axes(axes)
    width, height = (table.xyxy[:, 2:] - table.xyxy[:, :2]).T
    aspect = np.clip(np.log2(width / height), -3, 2.999)
    objects = np.clip(np.bincount(table.image, minlength=len(table)), 0, 20)
    test = table.test
    drawn: list[tuple[str, str, NDArray[Any], Mask, NDArray[Any]]] = [
        ("brightness at the finding", "grey level", np.clip(table.brightness, 0, 255), test, np.linspace(0, 255, 18)),
        (
            "noise at the finding",
            "sigma, grey levels, 19 and more together",
            np.clip(table.noise, 0, 19.9),
            test,
            np.linspace(0, 20, 21),
        ),
        ("shape of the objects", "width : height", aspect, test[table.image], np.linspace(-3, 3, 25)),
        ("objects an image", "objects, 20 and more together", objects, test, np.arange(-0.5, 21.5)),
    ]
    for axis, (name, unit, values, of_test, steps) in zip(axes, drawn, strict=True):
        _overlay(axis, values[~of_test], values[of_test], steps)
        title(axis, name)
        axis.set_xlabel(unit, fontsize=8.5)
        axis.set_xlim(steps[0], steps[-1])
    axes[2].xaxis.set_major_formatter(FuncFormatter(_ratio))
    axes[3].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supylabel("share of its side of the split", fontsize=9)
    _legend(figure)
    return figure


def cameras_picture(cameras: Sequence[CameraCount], *, zone_name: str) -> Figure:
    """Draw images by camera and hour of day, the cameras with most first, all others together."""
    names = camera_names([(one.site, one.device, one.camera) for one in cameras])
    shown, rest = cameras[:CAMERAS_SHOWN], cameras[CAMERAS_SHOWN:]
    rows = [(_name(names[one.site, one.device, one.camera]), np.array(one.hours)) for one in shown]
    if rest:
        rows.append((f"{len(rest)} more", np.sum([one.hours for one in rest], axis=0)))
    counts = np.stack([hours for _, hours in rows])
    figure, axis = _one(0.3 * len(rows) + 1.6)
    axis.grid(visible=False)
    top = max(2, int(counts.max()))
    picture = axis.imshow(np.where(counts, counts, np.nan), cmap="Greens", norm=LogNorm(0.5, top), aspect="auto")
    axis.set_facecolor("#f4f4f4")
    for row, column in np.argwhere(counts > 0):
        count = int(counts[row, column])
        colour = "white" if np.log(2 * count) > 0.6 * np.log(2 * top) else "black"
        told = f"{count}" if count < 10_000 else f"{count // 1000}k"
        axis.text(column, row, told, ha="center", va="center", fontsize=6.5, color=colour)
    axis.set_yticks(range(len(rows)), [f"{name} ({int(hours.sum()):,})" for name, hours in rows])
    axis.set_xticks(range(24))
    axis.set_xlabel(f"hour of day, {zone_name}", fontsize=9)
    empty = int((counts.sum(axis=0) == 0).sum())
    title(axis, f"labelled images by camera and hour; {empty} of 24 hours have none" if empty else "labelled images")
    axis.tick_params(length=0)
    for side in axis.spines.values():
        side.set_visible(False)
    picture.set_clim(0.5, top)
    return figure


def split_picture(health: Health) -> Figure:
    """Draw both sides of the split: who labelled, how hard the images are, what the detector had found."""
    chosen = [group for name in _PARTS for group in health.groups if group.title == name]
    figure = Figure(figsize=(WIDTH_IN, 0.7 + 1.25 * len(chosen)), layout="constrained")
    axes = list(figure.subplots(len(chosen), 1, squeeze=False)[:, 0])
    plain_axes(axes)
    for axis, group in zip(axes, chosen, strict=True):
        _parts(axis, group)
    figure.suptitle(f"{health.train:,} images to train on, {health.test:,} of the test share", fontsize=10)
    return figure


def _parts(axis: Axes, group: Group) -> None:
    """Draw the rows of a group as parts of the two sides, side by side."""
    axis.grid(visible=False)
    totals = [sum(row.train for row in group.rows), sum(row.test for row in group.rows)]
    left = np.zeros(2)
    for row, colour in zip(group.rows, _PARTS[group.title], strict=True):
        counts = np.array([row.train, row.test])
        share = counts / np.maximum(totals, 1)
        axis.barh([0, 1], share, left=left, color=colour, height=0.72, label=row.name)
        for at in range(2):
            if share[at] >= 0.03:
                told = f"{counts[at]:,} ({_percent(share[at])})" if share[at] >= 0.12 else f"{counts[at]:,}"
                ink = "black" if sum(to_rgb(colour)) > 1.7 else "white"
                axis.text(left[at] + share[at] / 2, at, told, ha="center", va="center", fontsize=8, color=ink)
        left += share
    unit = "images" if group.of == "images" else "labels"
    title(axis, f"{group.title} ({unit})")
    axis.set_yticks([0, 1], ["to train on", "test share"])
    axis.set_ylim(1.5, -0.5)
    axis.set_xlim(0, 1)
    axis.xaxis.set_visible(False)
    axis.spines["bottom"].set_visible(False)
    axis.tick_params(length=0)
    axis.legend(loc="lower right", bbox_to_anchor=(1, 0.98), ncols=3, fontsize=8, frameon=False, borderaxespad=0)


def _overlay(axis: Axes, train: Floats, test: Floats, steps: NDArray[Any]) -> None:
    """Draw two histograms as shares: to train on filled, the test share as a line."""
    looks: list[tuple[Floats, dict[str, Any]]] = [
        (train, {"color": TRAIN, "alpha": 0.75}),
        (test, {"histtype": "step", "color": TEST, "linewidth": 1.4}),
    ]
    for values, look in looks:
        if len(values):
            axis.hist(values, bins=list(steps), weights=np.full(len(values), 1 / len(values)), **look)
    axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
    axis.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=_STEPS))


def _one(height_in: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    axis = figure.subplots()
    plain_axes([axis])
    return figure, axis


def _legend(figure: Figure, *more: Line2D, test_face: str = "none") -> None:
    keys = [Patch(facecolor=TRAIN, label="to train on"), Patch(facecolor=test_face, edgecolor=TEST, label="test share")]
    figure.legend(handles=[*keys, *more], loc="outside upper right", ncols=3, fontsize=8, frameon=False)


def _percent(share: float) -> str:
    return "<1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def _ratio(log2: float, _: int | None = None) -> str:
    return f"{2**log2:g}:1" if log2 >= 0 else f"1:{2**-log2:g}"


def _name(text: str) -> str:
    """Return a name that matplotlib does not take for a formula, the end of it where it is long."""
    text = printable(text).replace("$", r"\$")
    return text if len(text) <= 32 else "..." + text[-29:]
