"""The audit's weights: the built-in ones, moved by what people's second looks have shown. See hub.fault_odds.

A second look shows for every annotation of its image, and every box of the model on it, whether it was wrong. That the
audit chose most of these images does no harm: it chose by the very signs that the weights belong to.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from edge.contract.samples import Reason
from edge.detector.detections import box_iou
from hub.annotation import Annotation
from hub.evidence import AT_IOU, Claim, Compared, Page, Record, corners
from hub.fault_odds import OF_BOXES_DRAWN, Odds, fitted
from hub.fault_weights import BUILT_IN
from hub.rechecked import SecondLook, second_looks
from hub.store import FindingRow, Store
from hub.truth import Truth

ENOUGH: Final = 30  # images looked at twice, from which on they move the weights
HELD: Final = 10.0  # how strongly the weights are held to the built-in ones

_OUTCOMES: Final = {"relabelled": "swapped", "moved": "badly_placed", "removed": "extra"}


def odds_of(store: Store, model: str, *, known: frozenset[str]) -> Odds:
    """Return the weights for the opinions of a model (hub.opinions) that can tell the labels `known`."""
    looks = [
        (Compared(_asked(page_of(store, look.before, seen), look, known)), look)
        for look in second_looks(store)
        if (seen := store.labels.opinion(look.before.event_id, model)) is not None
    ]
    return BUILT_IN if len(looks) < ENOUGH else refitted(looks, BUILT_IN)


def page_of(store: Store, truth: Truth, seen: Sequence[Annotation]) -> Page:
    """Return an image as the audit takes it; its name is the event id.

    The witnesses' claims are of all findings on the picture, unless a second look has answered them or no person has.
    """
    row = store.finding(truth.event_id)
    camera = f"{row.site}/{row.device}/{row.camera}"
    size = row.width, row.height
    claims = _claims(store, row) if truth.by == "person" else ()
    return Page(truth.event_id, size, truth.labels, truth.boxes, tuple(seen), camera, claims)


def _claims(store: Store, row: FindingRow) -> tuple[Claim, ...]:
    return tuple(
        Claim(one.region, one.label, one.severity, _speaking(one))
        for one in (row, *store.labels.findings_on(row))
        if one.reason is Reason.MISSED
    )


def _speaking(row: FindingRow) -> tuple[str, ...]:
    return tuple(witness.kind.value for witness in row.finding().witnesses if witness.score > 0)


def refitted(looks: Sequence[tuple[Compared, SecondLook]], odds: Odds) -> Odds:
    """Return weights moved by second looks at pages, each with what it changed; at least one."""
    record = Record([one for one, _ in looks], odds.usual)
    faults: list[int] = []
    missing: list[bool] = []
    for one, look in looks:
        wrong = {change.before: _OUTCOMES[change.kind] for change in look.changes if change.kind in _OUTCOMES}
        faults += [1 + OF_BOXES_DRAWN.index(wrong[box]) if box in wrong else 0 for box in one.page.boxes]
        missing += _were_missing(one, [change.after for change in look.changes if change.kind == "added"])
    of_drawn = np.concatenate([record.of_annotations(one) for one, _ in looks])
    of_box = np.concatenate([record.of_boxes(one) for one, _ in looks])
    return fitted((of_drawn, faults), (of_box, missing), odds, held=HELD)


def _were_missing(one: Compared, added: Sequence[Annotation | None]) -> list[bool]:
    """Return for each open box whether it was the best for an object that a second look has added."""
    found = [False] * len(one.open)
    for box in added:
        if box is None:
            continue
        overlap = box_iou(corners([box]), one.seen[one.open])[0] * (one.seen_labels[one.open] == box.label)
        if overlap.max(initial=0) >= AT_IOU:
            found[int(overlap.argmax())] = True
    return found


def _asked(page: Page, look: SecondLook, known: frozenset[str]) -> Page:
    """Return the page with what the second look has answered and the model can tell."""
    boxes = tuple(box for box in page.boxes if box.label in look.asked & known)
    return replace(page, labels=look.asked, boxes=boxes)
