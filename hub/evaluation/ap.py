"""Average precision as COCO defines it, counted by hotcoco in memory.

AP is the mean over ten overlaps from .50 to .95, AP50 that of .50 alone; over labels each label with a true box counts
once. An ignored box is `iscrowd`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from hub.evaluation.columns import Columns, columns
from hub.evaluation.seen import Seen
from hub.label_table import Floats

if TYPE_CHECKING:
    from hotcoco import COCOeval


class Precision(NamedTuple):
    """Average precision, 0..1."""

    ap: float
    ap50: float


def ap50_of(seen: Sequence[Seen], label: str | None = None) -> float:
    """Return the AP50 of a look, of one label or over labels; NaN where there is no such object."""
    return average_precision(seen, label=label).ap50


def average_precision(seen: Sequence[Seen], *, label: str | None = None) -> Precision:
    """Return AP and AP50 of a look, of one label or over labels; NaN where there is no such object."""
    return mean_of(precisions(columns(seen, labels=None if label is None else [label])))


def precisions(columns: Columns, counted: "COCOeval | None" = None) -> dict[str, Precision]:
    """Return AP and AP50 of each label that has a true box; `counted` is what `count` gave for these columns."""
    present = labels_present(columns)
    if not len(columns.score):
        return {columns.labels[code]: Precision(0.0, 0.0) for code in present}
    by_label = curves(counted or count(columns)).mean(axis=1) if present else np.zeros((0, 0))
    return {
        columns.labels[code]: Precision(float(by_label[:, code].mean()), float(by_label[0, code])) for code in present
    }


def labels_present(columns: Columns) -> list[int]:
    """Return the places of the labels that have a true box."""
    return [int(code) for code in np.unique(columns.label[~columns.ignored])]


def count(columns: Columns) -> "COCOeval":
    """Return hotcoco's evaluation, accumulated. There must be a true box and a detected one."""
    from hotcoco import COCO, COCOeval

    truth = COCO.from_arrays(
        [{"id": at, "width": one.width, "height": one.height} for at, one in enumerate(columns.members, start=1)],
        [{"id": at, "name": name} for at, name in enumerate(columns.labels, start=1)],
        columns.image + 1,
        columns.label + 1,
        np.hstack([columns.xyxy[:, :2], columns.xyxy[:, 2:] - columns.xyxy[:, :2]]),
        iscrowd=columns.ignored,
    )
    sides = columns.box_xyxy[:, 2:] - columns.box_xyxy[:, :2]
    rows = [columns.box_image + 1, columns.box_xyxy[:, :2], sides, columns.score, columns.box_label + 1]
    evaluated = COCOeval(truth, truth.load_res(np.column_stack(rows)), "bbox")
    evaluated.evaluate()
    evaluated.accumulate()
    return evaluated


def curves(evaluated: "COCOeval") -> Floats:
    """Return the precision at ten overlaps, 101 recalls, `[10, 101, k]`, of all sizes; -1 for labels without a box."""
    counted = cast("dict[str, Floats]", evaluated.eval)
    return counted["precision"][:, :, :, 0, -1]


def mean_of(by_label: dict[str, Precision]) -> Precision:
    """Return the mean over labels; NaN without any."""
    if not by_label:
        return Precision(np.nan, np.nan)
    ap, ap50 = np.mean(list(by_label.values()), axis=0).tolist()
    return Precision(ap, ap50)
