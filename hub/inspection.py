"""Images looked through for wrong annotations: every place in question with its probability. Pure; see hub.audit.

The faults: `missing`, an object without a box; `swapped`, the wrong label; `badly_placed`; `extra`, a box without an
object; `disagreement`, a place where annotators differ (hub.consolidate).

Laws:

1. Probabilities lie in 0..1, and what is found does not depend on the order of boxes or images.
2. A box of the model that an annotation of its label explains is no fault: where the annotation is taken away, it
   becomes one.
3. Where the model's boxes lie on each other, the place is one missing object, whatever labels they have.
4. Of a label that the model does not know nothing is said but what hub.oddities can say without a model, and what the
   device's witnesses claim.
5. A claim of witnesses is a missing object where no annotation touches it. Where the model sees one at that place, too,
   they are one, and the likelier of the two counts.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from edge.detector.detections import box_iou
from hub.annotation import Xyxy
from hub.consolidate import Dispute
from hub.evidence import (
    AT_IOU,
    OF_ANNOTATION,
    UNSEEN,
    Claim,
    Compared,
    Page,
    Record,
    Signs,
    areas,
    corners,
    expected,
    log_odds,
    shared,
)
from hub.fault_odds import OF_BOXES_DRAWN, Odds, of_annotations, of_boxes
from hub.fault_weights import BUILT_IN
from hub.oddities import Oddity, doubles, oddities

Kind = Literal["missing", "swapped", "badly_placed", "extra", "disagreement"]
DISPUTED: Final = 0.5  # how likely the answer is wrong where annotators differ
TOLD: Final = 0.001  # what is less likely than this is not told
OVERLOOKED: Final = (
    0.1  # people miss about one object in ten: so much a person who drew nothing there speaks against it
)
TOUCHED_IOU: Final = 0.3  # of a claim with what explains it: as hub.finding_verdicts judges a finding's region
INSIDE: Final = 0.8  # the share of one that lies in the other

_SURE: Final = (0.01, 0.99)  # no witness is surer


@dataclass(frozen=True, slots=True)
class Fault:
    """A place that may be wrong.

    Attributes:
        kind: what may be wrong.
        label: of the annotation; of a missing object, the model's.
        xyxy: pixels of the frame.
        probability: 0..1.
        why: one phrase.
    """

    kind: Kind
    label: str
    xyxy: Xyxy
    probability: float
    why: str


@dataclass(frozen=True, slots=True)
class Inspected:
    """What an image's annotations are worth.

    Attributes:
        page: the image.
        faults: the likeliest first.
        unknown: labels looked for that the model does not know.
    """

    page: Page
    faults: tuple[Fault, ...]
    unknown: frozenset[str]

    @property
    def expected(self) -> float:
        """The expected number of faults."""
        return sum(fault.probability for fault in self.faults)

    @property
    def score(self) -> float:
        """How likely anything is wrong, 0..1."""
        return 1 - math.prod(1 - fault.probability for fault in self.faults)


def inspect(
    pages: Sequence[Page],
    *,
    known: frozenset[str],
    odds: Odds = BUILT_IN,
    disputes: Mapping[str, Sequence[Dispute]] | None = None,
) -> list[Inspected]:
    """Return what each image's annotations are worth, in the order of the pages.

    Args:
        pages: the images, as many as there are: what a model is worth for a label shows in all of them together.
        known: the labels that the model can tell.
        odds: the weights.
        disputes: where annotators differ, by the page's name.
    """
    compared = [Compared(_of(page, known)) for page in pages]
    record = Record(compared, odds.usual)
    strange = frozenset(box.label for page in pages for box in page.boxes) - known
    odd = oddities(pages, strange)
    found = []
    for page, one in zip(pages, compared, strict=True):
        faults = claimed(judge(one, record, odds), page)
        faults += [_odd(page, oddity) for oddity in odd[page.name]]
        faults += [_disputed(dispute) for dispute in (disputes or {}).get(page.name, ())]
        faults.sort(key=lambda fault: (-fault.probability, fault.kind, fault.label, fault.xyxy))
        found.append(Inspected(page, tuple(f for f in faults if f.probability >= TOLD), page.labels - known))
    return found


def _of(page: Page, known: frozenset[str]) -> Page:
    """Return the page without the annotations that the model cannot judge."""
    return replace(page, boxes=tuple(box for box in page.boxes if box.label in known))


def judge(one: Compared, record: Record, odds: Odds) -> list[Fault]:
    """Return every place in question of a page, whose labels the model knows, in no order."""
    twice = [_odd(one.page, oddity) for oddity in doubles(one.page)]
    return [*_drawn(one, record, odds), *_missing(one, record, odds), *twice]


def _odd(page: Page, oddity: Oddity) -> Fault:
    box = page.boxes[oddity.index]
    return Fault(oddity.kind, box.label, box.xyxy, oddity.probability, oddity.why)


def _drawn(one: Compared, record: Record, odds: Odds) -> list[Fault]:
    signs = record.of_annotations(one)
    shares = of_annotations(signs, odds)
    return [
        Fault(kind, box.label, box.xyxy, float(share), _why(kind, at, one, signs[at]))
        for at, (box, row) in enumerate(zip(one.page.boxes, shares, strict=True))
        for kind, share in zip(OF_BOXES_DRAWN, row, strict=True)
    ]


def _why(kind: str, at: int, one: Compared, signs: Signs) -> str:
    """Return in one phrase what the model sees where an annotation is."""
    label, overlap = one.page.boxes[at].label, one.iou[at]
    own = f"{label} {one.own[at]:.2f}" if one.own[at] > UNSEEN else f"no {label}"
    if kind == "extra":
        usual = float(expected(signs[OF_ANNOTATION.index("usual")][None])[0])
        return f"the model sees {own} here, where it usually sees {usual:.0%}"
    if kind == "swapped":
        other = np.where(one.same[at] | (overlap < AT_IOU), 0, one.scores)
        if other.max(initial=0) > 0:
            best = int(other.argmax())
            return f"the model sees {one.seen_labels[best]} {other[best]:.2f} here, {own}"
        return f"the model sees {own} here"
    beside = np.where(one.same[at] & (overlap > 0), one.scores, 0)
    if beside.max(initial=0) > 0:
        best = int((beside * overlap).argmax())
        return f"the model's box {one.scores[best]:.2f} overlaps it by {overlap[best]:.2f}"
    return "the model sees no such box here"


def _missing(one: Compared, record: Record, odds: Odds) -> list[Fault]:
    shares = of_boxes(record.of_boxes(one), odds)
    chosen = one.seen[one.open]
    overlap = box_iou(chosen, chosen)
    faults: list[Fault] = []
    told: list[int] = []
    for at in np.lexsort((one.seen_labels[one.open].astype(str), -shares)):
        if (overlap[at, told] >= AT_IOU).any():
            continue
        told.append(int(at))
        box = one.page.seen[one.open[at]]
        why = f"the model sees {box.label} {one.scores[one.open[at]]:.2f} where nobody drew one"
        faults.append(Fault("missing", box.label, box.xyxy, float(shares[at]), why))
    return faults


def claimed(faults: Sequence[Fault], page: Page) -> list[Fault]:
    """Return the faults of a page with what its witnesses claim that nobody drew (law 5)."""
    found = list(faults)
    for claim in sorted(page.claims, key=lambda one: (-one.severity, one.label, one.xyxy, one.witnesses)):
        if claim.label not in page.labels or _is_drawn(claim, page):
            continue
        place = np.array([claim.xyxy], np.float32)
        known = [at for at, fault in enumerate(found) if fault.kind == "missing"]
        overlap = box_iou(place, np.array([found[at].xyxy for at in known], np.float32).reshape(-1, 4))[0]
        new = _claim(claim)
        if overlap.max(initial=0) < TOUCHED_IOU:
            found.append(new)
        elif found[nearest := known[int(overlap.argmax())]].probability < new.probability:
            found[nearest] = new
    return found


def _claim(claim: Claim) -> Fault:
    probability = float(expected(log_odds(np.clip(claim.severity, *_SURE)) + math.log(OVERLOOKED)))
    why = f"the device's witnesses say so at {claim.severity:.2f}"
    return Fault(
        "missing",
        claim.label,
        claim.xyxy,
        probability,
        why + f" ({', '.join(claim.witnesses)})" * bool(claim.witnesses),
    )


def _is_drawn(claim: Claim, page: Page) -> bool:
    """Return whether an annotation touches the place, has it inside, or is of the label and lies in it."""
    place, drawn = np.array([claim.xyxy], np.float32), corners(page.boxes)
    common = shared(place, drawn)[0]
    own = np.array([box.label == claim.label for box in page.boxes], bool)
    inside = (common >= INSIDE * areas(place)) | (own & (common >= INSIDE * areas(drawn)))
    return bool(inside.any() or box_iou(place, drawn).max(initial=0) >= TOUCHED_IOU)


def _disputed(dispute: Dispute) -> Fault:
    return Fault("disagreement", dispute.labels[0], dispute.xyxy, DISPUTED, dispute.why)
