"""Pictures of labels by people and by the machine, as PNG: what each round brought and cost, how well both fit.

`*_picture` functions take values and return a drawn figure, or None when there is nothing to draw; they open nothing
and `hub.plots.save` writes them. People are blue, the machine is orange, in every picture. A JPEG is decoded in this
process by hub.contact_sheet, with its limits; one that cannot be shown becomes a grey tile that says so.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter, StrMethodFormatter

from edge.contract.errors import UnusableError
from edge.detector.pictures import decode_jpeg
from hub.annotation import Annotation
from hub.plots import BLUE, GREY, ORANGE, WIDTH_IN, plain_axes, title

PERSON, MACHINE = BLUE, ORANGE
IOU_BINS: Final = np.linspace(0.0, 1.0, 21)
GOOD_IOU: Final = 0.6  # what auto-labels are judged by
SHOWN: Final = 5
_NUMBERED: Final = 12  # so few rounds have their amounts written on them


@dataclass(frozen=True, slots=True, kw_only=True)
class Iteration:
    """One round of labelling: what people and the machine labelled in it, not since the beginning.

    Attributes:
        cost_all_person: what the round would have cost if people had labelled all its images.
    """

    images_person: int
    images_machine: int
    boxes_person: int
    boxes_machine: int
    cost_person: float
    cost_machine: float
    cost_all_person: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One labelled image to show.

    Attributes:
        name: of the image, as its caption.
        by: whose label counts for it; decides the row.
        confidence: 0..1, the machine's in what it sees on the image.
        iou: 0..1, of the boxes of both; None where only one of them drew, or neither has a box.
        person: boxes that people drew.
        machine: boxes that the machine drew.
    """

    name: str
    jpeg: bytes
    by: Literal["person", "machine"]
    confidence: float
    iou: float | None
    person: Sequence[Annotation] = ()
    machine: Sequence[Annotation] = ()


def iterations_picture(iterations: Sequence[Iteration], *, currency: str = "") -> Figure | None:
    """Draw images, boxes and cost of each round, people below and the machine on top of them.

    Beside the cost of a round stands what it would have cost with people alone; the titles have the sums. The cost is
    left out where nothing has a price.
    """
    if not iterations:
        return None
    priced = any(one.cost_person or one.cost_machine or one.cost_all_person for one in iterations)
    figure = Figure(figsize=(WIDTH_IN, 0.9 + 1.9 * (2 + priced)), layout="constrained")
    axes = list(figure.subplots(2 + priced, 1, sharex=True, squeeze=False)[:, 0])
    plain_axes(axes)
    counted = [
        ("images", [one.images_person for one in iterations], [one.images_machine for one in iterations]),
        ("boxes", [one.boxes_person for one in iterations], [one.boxes_machine for one in iterations]),
    ]
    for axis, (what, person, machine) in zip(axes, counted, strict=False):
        _stacked(axis, person, machine)
        both = [p + m for p, m in zip(person, machine, strict=True)]
        _numbers(axis, both, above=both, form="{:,.0f}")
        title(axis, f"{what}: {sum(person):,} by people, {sum(machine):,} by the machine")
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.set_ylabel(what, fontsize=9)
    if priced:
        _costs(axes[2], iterations, currency=currency)
    axes[-1].set_xlabel("round", fontsize=9)
    axes[-1].set_xlim(0.4, len(iterations) + 0.6)
    axes[-1].xaxis.set_major_locator(MaxNLocator(nbins=20, integer=True, min_n_ticks=1))
    keys: list[Patch | Line2D] = [
        Patch(facecolor=PERSON, label="people"),
        Patch(facecolor=MACHINE, label="the machine"),
    ]
    if priced:
        keys.append(Line2D([], [], color="black", linestyle="--", linewidth=1.2, label="if people had labelled all"))
    figure.legend(handles=keys, loc="outside upper right", ncols=3, fontsize=8, frameon=False)
    return figure


def iou_picture(human: Sequence[float], machine: Sequence[float]) -> Figure | None:
    """Draw how well the boxes of people and of the machine fit, one value an image: IoU 0..1, as histograms.

    Shares, not counts, so that few can be held against many; the titles have the counts. None without any value.
    """
    if not human and not machine:
        return None
    figure = Figure(figsize=(WIDTH_IN, 4.6), layout="constrained")
    axes = list(figure.subplots(2, 1, sharex=True, sharey=True))
    plain_axes(axes)
    for axis, (who, values, colour) in zip(
        axes, (("human labels", human, PERSON), ("auto labels", machine, MACHINE)), strict=True
    ):
        if not values:
            title(axis, f"{who}: none")
            continue
        axis.hist(values, bins=list(IOU_BINS), weights=[1 / len(values)] * len(values), color=colour, edgecolor="white")
        mean, bad = float(np.mean(values)), sum(value < GOOD_IOU for value in values)
        title(
            axis,
            f"{who}: {len(values):,} image{'s' * (len(values) != 1)}, mean IoU {mean:.2f}, "
            f"{bad / len(values):.1%} under {GOOD_IOU:g}".replace("%", " %"),
        )
        axis.axvline(mean, color="black", linewidth=1.2)
        axis.axvline(GOOD_IOU, color=GREY, linewidth=1, linestyle=":")
    for axis in axes:
        axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0, symbol=" %"))
        axis.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    axes[-1].set_xlim(0, 1)
    axes[-1].set_xlabel("mean IoU of an image's boxes with those they are held against", fontsize=9)
    figure.supylabel("share of images", fontsize=9)
    keys = [
        Line2D([], [], color="black", linewidth=1.2, label="mean"),
        Line2D([], [], color=GREY, linewidth=1, linestyle=":", label=f"IoU {GOOD_IOU:g}"),
    ]
    figure.legend(handles=keys, loc="outside upper right", ncols=2, fontsize=8, frameon=False)
    return figure


def confident_picture(examples: Sequence[Example]) -> Figure | None:
    """Draw the five images of each in which the machine is most confident, with the boxes of both."""
    rows = [
        (who, sorted((one for one in examples if one.by == by), key=lambda one: (-one.confidence, one.name))[:SHOWN])
        for by, who in (("person", "labelled by people"), ("machine", "labelled by the machine"))
    ]
    rows = [(who, shown) for who, shown in rows if shown]
    if not rows:
        return None
    figure = Figure(figsize=(12.0, 0.45 + 2.15 * len(rows)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (who, shown) in zip(parts, rows, strict=True):
        how_many = f"the {len(shown)} most confident" if len(shown) > 1 else "the most confident"
        part.suptitle(f"{who}: {how_many}", fontsize=10, x=0.005, ha="left")
        axes = part.subplots(1, SHOWN, squeeze=False)[0]
        for axis in axes:
            axis.set_axis_off()
            axis.set_anchor("N")  # the captions in one line, whatever the shapes
        for axis, one in zip(axes, shown, strict=False):
            _example(axis, one)
    keys = [
        Patch(fill=False, edgecolor=PERSON, linewidth=1.6, label="box of a person"),
        Patch(fill=False, edgecolor=MACHINE, linewidth=1.6, linestyle="--", label="box of the machine"),
    ]
    figure.legend(handles=keys, loc="upper right", ncols=2, fontsize=8, frameon=False)
    return figure


def _stacked(axis: Axes, person: Sequence[float], machine: Sequence[float]) -> None:
    at = range(1, len(person) + 1)
    axis.bar(at, person, color=PERSON, width=0.7)
    axis.bar(at, machine, bottom=person, color=MACHINE, width=0.7)


def _numbers(axis: Axes, amounts: Sequence[float], *, above: Sequence[float], form: str) -> None:
    """Write each amount on its bar, above a line that lies just there; leave room for it."""
    top = 1.16 * max(1e-9, *amounts, *above)
    axis.set_ylim(0, top)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=4, steps=[1, 2, 5, 10]))
    if len(amounts) > _NUMBERED:
        return
    for where, (amount, line) in enumerate(zip(amounts, above, strict=True), 1):
        if amount:
            height = max(amount, line) if abs(line - amount) < 0.1 * top else amount
            axis.annotate(
                form.format(amount),
                (where, height),
                xytext=(0, 2),
                textcoords="offset points",
                ha="center",
                fontsize=7.5,
            )


def _costs(axis: Axes, iterations: Sequence[Iteration], *, currency: str) -> None:
    person, machine = [one.cost_person for one in iterations], [one.cost_machine for one in iterations]
    alone = [one.cost_all_person for one in iterations]
    _stacked(axis, person, machine)
    for where, cost in enumerate(alone, 1):
        axis.hlines(cost, where - 0.44, where + 0.44, color="black", linestyle="--", linewidth=1.2)
    _numbers(axis, [p + m for p, m in zip(person, machine, strict=True)], above=alone, form="{:,.2f}")
    unit = f" {currency}" if currency else ""
    spent, instead = sum(person) + sum(machine), sum(alone)
    saved = f" ({1 - spent / instead:.0%} less)".replace("%", " %") if instead > spent else ""
    title(axis, f"cost: {spent:,.2f}{unit}; people alone: {instead:,.2f}{unit}{saved}".replace("$", r"\$"))
    axis.set_ylabel(f"cost,{unit}".replace("$", r"\$") if unit else "cost", fontsize=9)


def _example(axis: Axes, one: Example) -> None:
    fit = "" if one.iou is None else f", IoU {one.iou:.2f}"
    name = one.name if len(one.name) <= 34 else f"{one.name[:16]}...{one.name[-15:]}"
    axis.set_title(f"confidence {one.confidence:.2f}{fit}\n{name}".replace("$", r"\$"), fontsize=7.5)
    try:
        picture: Any = cv2.cvtColor(decode_jpeg(one.jpeg), cv2.COLOR_BGR2RGB)
    except UnusableError as error:
        axis.imshow(np.full((3, 4, 3), 150, np.uint8), extent=(0, 4, 3, 0))
        axis.text(2, 1.5, textwrap.fill(str(error), 24), ha="center", va="center", fontsize=8)
        return
    axis.imshow(picture)
    for boxes, colour, line in ((one.person, PERSON, "-"), (one.machine, MACHINE, "--")):
        for box in boxes:
            x1, y1, x2, y2 = box.xyxy
            where = (x1 - 0.5, y1 - 0.5), x2 - x1, y2 - y1  # imshow puts the middle of a pixel at its number
            axis.add_patch(Rectangle(*where, fill=False, edgecolor="white", linewidth=2.6, alpha=0.7))
            axis.add_patch(Rectangle(*where, fill=False, edgecolor=colour, linewidth=1.6, linestyle=line))
