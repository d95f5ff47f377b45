"""What kinds of mistakes there are, and how much each costs: TIDE (Bolya et al., ECCV 2020), counted by hotcoco.

    TIDE: A General Toolbox for Identifying Object Detection Errors

A wrong box overlaps a true one of another label (classification), one of its own too little (localisation), another
one too little (both), one that is taken (duplicate), or none (background). A true box that none of these would mend is
missed. What a kind costs is how much AP50 rises when its errors alone are mended, over all boxes; kinds do not add up.
How many there are is counted among the boxes from the working threshold up.
"""

from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from hub.evaluation.ap import count, labels_present
from hub.evaluation.columns import Columns

if TYPE_CHECKING:
    from hotcoco import COCOeval

KINDS: Final = {
    "Cls": "classification",
    "Loc": "localisation",
    "Both": "both",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}
WHAT: Final = {
    "classification": "right place, wrong label",
    "localisation": "right label, box too far off",
    "both": "wrong label, box too far off",
    "duplicate": "a second box on a found object",
    "background": "a box on nothing",
    "missed": "an object without a box",
}


class ErrorKind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of mistake.

    Attributes:
        name: of `WHAT`.
        count: at the working threshold.
        costs: how much AP50 rises when they are mended, 0..1.
    """

    name: str
    count: int
    costs: float


def error_kinds(
    columns: Columns, *, score_threshold: float, counted: "COCOeval | None" = None
) -> tuple[ErrorKind, ...]:
    """Return all kinds, in the order of `WHAT`; none without a true box. `counted` is of `hub.evaluation.ap.count`."""
    if not labels_present(columns):
        return ()
    costs, _ = _tide(columns, counted)
    _, counts = _tide(columns.with_boxes(np.flatnonzero(columns.score >= score_threshold)))
    return tuple(ErrorKind(name=name, count=counts[key], costs=costs[key]) for key, name in KINDS.items())


def _tide(columns: Columns, counted: "COCOeval | None" = None) -> tuple[dict[str, float], dict[str, int]]:
    if not len(columns.score):
        objects = int((~columns.ignored).sum())
        nothing = dict.fromkeys(KINDS, 0.0)
        return {**nothing, "Miss": 1.0}, {**dict.fromkeys(KINDS, 0), "Miss": objects}
    told = (counted or count(columns)).tide_errors()
    return {key: float(told["delta_ap"][key]) for key in KINDS}, {key: int(told["counts"][key]) for key in KINDS}
