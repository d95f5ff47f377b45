"""How good one model is on a set of pictures: every figure with its interval, in every group.

AP and AP50 are COCO's, by hotcoco. Recall and precision are of the boxes from the working threshold up, at IoU .5.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from hub.evaluation.ap import Precision, count, labels_present, mean_of, precisions
from hub.evaluation.calibration import Reliability, reliability
from hub.evaluation.columns import Columns, columns
from hub.evaluation.compare import extent, is_few, known
from hub.evaluation.error_kinds import ErrorKind, error_kinds
from hub.evaluation.figures import figures, pooled_curve, with_itself
from hub.evaluation.groups import Group, Kind, groups
from hub.evaluation.matching import match
from hub.evaluation.resampling import RESAMPLES, draw, share_interval, units
from hub.evaluation.seen import Seen
from hub.label_table import Floats

if TYPE_CHECKING:
    from hotcoco import COCOeval


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A figure, 0..1, with its 95 % interval; None where it is not defined or cannot be told."""

    value: float | None
    low: float | None
    high: float | None


class GroupFigures(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of one group; `kind` to `few` as in hub.evaluation.compare.

    Attributes:
        ap: COCO's, .50 to .95; None for sizes.
    """

    kind: Kind
    name: str
    images: int
    objects: int
    units: int
    few: bool
    ap: float | None
    ap50: Estimate
    recall: Estimate
    precision: Estimate


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        score_threshold: from which a box counts as found.
        input: WIDTHxHEIGHT of the model's input.
        images: that were looked at.
        resampled, units: as in hub.evaluation.compare.
        labels: those that are evaluated.
        lacking: labels that were looked for and that the model cannot tell; they count for nothing.
        groups: overall first.
        curve: precision at the recalls 0, .01, ... 1 at IoU .5, boxes of all labels together; empty without an object.
        calibration: see hub.evaluation.calibration.
        errors: see hub.evaluation.error_kinds.
    """

    score_threshold: float
    input: str
    images: int
    resampled: str
    units: int
    labels: tuple[str, ...]
    lacking: tuple[str, ...]
    groups: tuple[GroupFigures, ...]
    curve: tuple[float, ...]
    calibration: Reliability
    errors: tuple[ErrorKind, ...]

    @property
    def overall(self) -> GroupFigures:
        """The group of all."""
        return self.groups[0]

    def of(self, kind: Kind) -> tuple[GroupFigures, ...]:
        """Return the groups of a kind."""
        return tuple(group for group in self.groups if group.kind == kind)

    def find(self, kind: Kind, name: str) -> GroupFigures | None:
        """Return one group; None where no object of it was there."""
        return next((group for group in self.of(kind) if group.name == name), None)


def evaluate(
    seen: Sequence[Seen],
    *,
    score_threshold: float,
    input_size: tuple[int, int] | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Evaluation:
    """Evaluate one look. Raises `ValueError` without a picture.

    Args:
        seen: by one model.
        score_threshold: from which a box counts as found.
        input_size: by which sizes are told; None: the model's own.
        seed: of the resamples.
        resamples: how many.
    """
    if not seen:
        msg = "expected a look at one picture at least"
        raise ValueError(msg)
    table = columns(seen, input_size=input_size)
    matches = match(table)
    found = groups(table)
    drawn = units(table.members)
    weights = with_itself(draw(drawn, seed=seed, resamples=resamples if drawn.kind != "too few" else 0))
    counted = figures(table, matches, found, score_threshold=score_threshold, weights=weights)
    whole = count(table) if labels_present(table) and len(table.score) else None
    aps = _aps(table, found, whole)
    width, height = seen[0].input_size
    told = []
    for group, each in zip(found, counted, strict=True):
        images, objects, count_of_units = extent(group, table, drawn)
        ap = aps.get((group.kind, group.name))
        told.append(
            GroupFigures(
                kind=group.kind,
                name=group.name,
                images=images,
                objects=objects,
                units=count_of_units,
                few=is_few(objects=objects, units=count_of_units),
                ap=None if ap is None else known(ap.ap),
                ap50=_estimate(each.ap50, units=count_of_units),
                recall=_estimate(each.recall, units=count_of_units),
                precision=_estimate(each.precision, units=count_of_units),
            )
        )
    return Evaluation(
        score_threshold=score_threshold,
        input=f"{width}x{height}",
        images=len(seen),
        resampled=drawn.kind,
        units=drawn.count,
        labels=table.labels,
        lacking=table.lacking,
        groups=tuple(told),
        curve=pooled_curve(table, matches),
        calibration=reliability(table, matches, score_threshold=score_threshold),
        errors=error_kinds(table, score_threshold=score_threshold, counted=whole),
    )


def _aps(table: Columns, found: Sequence[Group], whole: "COCOeval | None") -> dict[tuple[Kind, str], Precision]:
    """Return AP and AP50 of all, of each label and of each group of whole pictures."""
    by_label = precisions(table, whole)
    answer: dict[tuple[Kind, str], Precision] = {("label", name): ap for name, ap in by_label.items()}
    for group in found:
        if group.kind == "overall":
            answer[group.kind, group.name] = mean_of(by_label)
        elif group.label is None and group.size is None:
            answer[group.kind, group.name] = mean_of(precisions(table.with_images(np.flatnonzero(group.images))))
    return answer


def _estimate(figure: Floats, *, units: int) -> Estimate:
    value = known(float(figure[0]))
    between = None
    if value is not None and len(figure) > 1:
        between = share_interval(figure[1:], value=value, units=units)
    return Estimate(
        value=value, low=None if between is None else between[0], high=None if between is None else between[1]
    )
