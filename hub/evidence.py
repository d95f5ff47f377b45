"""What speaks for and against each annotation of an image, and each box that a model sees where nobody drew one. Pure.

A *sign* is one number of an annotation (`OF_ANNOTATION`) or of a box without one (`OF_BOX`); hub.fault_odds makes
probabilities of them. Scores become log odds, and sizes are shares of the image, so that they mean the same for any
model and camera.

What a model is worth differs by label: it sees every bus and few chairs. `Record` counts it in the very images that are
looked at: how many of its boxes of a label have an annotation, how many annotations of a label it sees, each against
what is usual for the score and size. Few counts say little (`_DOUBT`), and an image never speaks for itself.

Law: the signs do not depend on the order of boxes or images.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edge.detector.detections import Floats, box_iou
from hub.annotation import Annotation, Xyxy

OF_ANNOTATION: Final = (
    "one",
    "own",  # the best box of its label at its place
    "fit",  # how much better or worse that one fits than boxes usually do
    "loose",  # 1: it fits badly
    "other",  # the best box of another label at its place that no other annotation explains
    "other_over",  # by how much that exceeds `own`
    "near",  # the best box of its label beside it that no other annotation explains
    "near_over",
    "usual",  # how sure the model usually is to see such an annotation
    "unseen",  # `usual` where it saw nothing
    "any",  # the best box of whatever label that touches it
    "size",
    "crowd",
    "before",  # whether annotators draw it there in other images of the camera
)
OF_BOX: Final = (
    "one",
    "usual",  # how often a box of this score and size has an annotation
    "record",  # of its label here, against that
    "same",  # the IoU with the nearest annotation of its label
    "other",  # the IoU with the nearest annotation of another label
    "inside",  # the share of it that lies in an annotation of its label
    "around",  # the share of an annotation of its label that lies in it
    "size",
    "crowd",
    "second",  # 1: at its place there is a surer box of another label
    "double",  # 1: at its place there is a surer box of its label
    "image",  # how many of the surer boxes of the model in this image have an annotation
    "again",  # whether annotators draw such boxes of the model in other images of the camera, or do not
)
AT_IOU: Final = 0.5
SEEN: Final = 0.3

UNSEEN: Final = 0.03  # the score of what was not seen: less than any that is kept
_MOST: Final = 0.97
_USUAL_FIT: Final = 0.8
_LOOSE: Final = 0.65
_BESIDE: Final = 0.1
_BEFORE: Final = 0.7
_AGAIN: Final = 0.6
_DOUBT: Final = (10.0, 3.0)  # counts that the usual is worth: of all labels together, of one label
_SIZE: Final = 3.0  # doublings from the usual size, an eighth of the image's side, to the whole

Signs = NDArray[np.float64]
Names = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Claim:
    """What a device's witnesses say that its detector missed, before any person looked.

    Attributes:
        xyxy: pixels of the frame.
        severity: 0..1, the probability that it is so.
        witnesses: those that speak for it.
    """

    xyxy: Xyxy
    label: str
    severity: float
    witnesses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """One image to look through.

    Attributes:
        name: unlike that of every other.
        size: width and height, pixels.
        labels: those that were looked for.
        boxes: the annotations.
        seen: what the model sees, of any label, with scores.
        camera: images with the same one show the same place; empty: unlike every other.
        claims: of the device's witnesses.
    """

    name: str
    size: tuple[int, int]
    labels: frozenset[str]
    boxes: tuple[Annotation, ...]
    seen: tuple[Annotation, ...]
    camera: str = ""
    claims: tuple[Claim, ...] = ()


class Usual(NamedTuple):
    """What is usual of a model: weights of log odds.

    Attributes:
        annotated: that a box has an annotation: one, log odds of its score, its size.
        seen: that it sees an annotation: one, its size.
    """

    annotated: tuple[float, float, float]
    seen: tuple[float, float]


class Compared:
    """A page with its annotations held against what the model sees.

    Attributes:
        page: the page.
        of_box: index of the annotation of each box of the model, -1 for none; one to one.
        own: the best score of its label at each annotation's place.
        open: indices of the boxes of labels that were looked for, which have no annotation.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.drawn, self.seen = corners(page.boxes), corners(page.seen)
        self.drawn_labels, self.seen_labels = _labels(page.boxes), _labels(page.seen)
        self.scores = np.clip([box.score or 0.0 for box in page.seen], UNSEEN, _MOST)
        self.iou = box_iou(self.drawn, self.seen).astype(np.float64)
        self.same = _alike(self.drawn_labels, self.seen_labels)
        self.drawn_size, self.seen_size = (_sizes(boxes, page.size) for boxes in (self.drawn, self.seen))
        self.of_box = self._matched()
        at_place = np.where(self.same & (self.iou >= AT_IOU), self.scores, UNSEEN)
        self.own = at_place.max(axis=1, initial=UNSEEN)
        self.asked = np.array([label in page.labels for label in self.seen_labels], bool)
        self.open = np.flatnonzero((self.of_box < 0) & self.asked)

    def _matched(self) -> NDArray[np.int64]:
        of_box = np.full(len(self.seen), -1)
        worth = np.where(self.same & (self.iou >= AT_IOU), self.iou + 0.5 * self.scores, 0.0)
        taken: set[int] = set()
        rows, columns = np.nonzero(worth)
        for at in np.argsort(-worth[rows, columns], kind="stable"):
            row, column = int(rows[at]), int(columns[at])
            if row not in taken and of_box[column] < 0:
                of_box[column] = row
                taken.add(row)
        return of_box

    def of_annotations(self) -> Signs:
        """Return the signs `[n, OF_ANNOTATION]`, without those that need the other images."""
        table = np.zeros((len(self.drawn), len(OF_ANNOTATION)))
        if not len(self.drawn):
            return table
        free = self.of_box < 0
        good = np.where(self.same & (self.iou >= AT_IOU), self.scores * self.iou, 0.0)
        best = good.argmax(axis=1) if good.shape[1] else np.zeros(len(good), np.int64)
        rows = np.arange(len(self.drawn))
        has = good.max(axis=1, initial=0.0) > 0
        fit = self.iou[rows, best] if good.shape[1] else np.zeros(len(good))
        own = log_odds(self.own)
        other = log_odds(_best(self.scores * np.clip(self.iou / 0.75, 0, 1), ~self.same & free & (self.iou >= AT_IOU)))
        beside = self.same & free & (self.iou >= _BESIDE) & (self.iou < AT_IOU)
        near = log_odds(_best(np.broadcast_to(self.scores, self.iou.shape), beside))
        touched = log_odds(_best(np.broadcast_to(self.scores, self.iou.shape), self.iou >= SEEN))
        belief = np.clip((own - log_odds(UNSEEN)) / 4, 0, 1)
        among = box_iou(self.drawn, self.drawn)
        np.fill_diagonal(among, 0)
        among = np.where(_alike(self.drawn_labels, self.drawn_labels), among, 0)
        columns = {
            "one": np.ones(len(rows)),
            "own": own,
            "fit": np.where(has, (fit - _USUAL_FIT) * belief, 0.0),
            "loose": has & (fit < _LOOSE),
            "other": other,
            "other_over": np.maximum(0, other - own),
            "near": near,
            "near_over": np.maximum(0, near - own),
            "any": touched,
            "size": self.drawn_size,
            "crowd": np.minimum(3, (among > 0.05).sum(axis=1)),
        }
        for name, values in columns.items():
            table[:, OF_ANNOTATION.index(name)] = values
        return table

    def of_boxes(self) -> Signs:
        """Return the signs `[len(open), OF_BOX]`, without those that need the other images."""
        chosen = self.open
        table = np.zeros((len(chosen), len(OF_BOX)))
        if not len(chosen):
            return table
        same, iou = self.same[:, chosen], self.iou[:, chosen]
        common = shared(self.drawn, self.seen[chosen])
        among = box_iou(self.seen[chosen], self.seen)
        among[np.arange(len(chosen)), chosen] = 0
        surer = self.scores[None, :] > self.scores[chosen][:, None]
        above, told = (surer & self.asked).astype(bool), self.of_box >= 0
        alike = _alike(self.seen_labels[chosen], self.seen_labels)
        columns = {
            "one": np.ones(len(chosen)),
            "same": np.where(same, iou, 0).max(axis=0, initial=0),
            "other": np.where(same, 0, iou).max(axis=0, initial=0),
            "inside": np.where(same, common / areas(self.seen[chosen])[None, :], 0).max(axis=0, initial=0),
            "around": np.where(same, common / areas(self.drawn)[:, None], 0).max(axis=0, initial=0),
            "size": self.seen_size[chosen],
            "crowd": np.log1p(same.sum(axis=0)),
            "image": np.log((above & told).sum(axis=1) + 1) - np.log((above & ~told).sum(axis=1) + 1),
            "second": (surer & ~alike & (among >= AT_IOU)).any(axis=1),
            "double": (surer & alike & (among >= SEEN)).any(axis=1),
        }
        for name, values in columns.items():
            table[:, OF_BOX.index(name)] = values
        return table


class Record:
    """What the model is worth for each label and place, by all pages. See the module."""

    def __init__(self, pages: Sequence[Compared], usual: Usual) -> None:
        self._usual = usual
        self._cameras: defaultdict[str, list[Compared]] = defaultdict(list)
        self._boxes, self._annotations = _Counts(), _Counts()
        for one in pages:
            if one.page.camera:
                self._cameras[one.page.camera].append(one)
            asked = one.asked
            self._boxes.add(
                one.page.name, one.seen_labels[asked], (one.of_box >= 0)[asked], expected(self.annotated(one)[asked])
            )
            self._annotations.add(one.page.name, one.drawn_labels, one.own >= SEEN, expected(self._seen(one)))

    def annotated(self, one: Compared) -> Signs:
        """Return the log odds that each box of the model has an annotation, by its score and size alone."""
        bias, score, size = self._usual.annotated
        usual: Signs = bias + score * log_odds(one.scores) + size * one.seen_size
        return usual

    def _seen(self, one: Compared) -> Signs:
        bias, size = self._usual.seen
        return bias + size * one.drawn_size

    def of_annotations(self, one: Compared) -> Signs:
        """Return the signs `[n, OF_ANNOTATION]` of a page."""
        table = one.of_annotations()
        usual = self._seen(one) + self._annotations.surplus(one.page.name, one.drawn_labels)
        table[:, OF_ANNOTATION.index("usual")] = usual
        table[:, OF_ANNOTATION.index("unseen")] = np.where(one.own < SEEN / 2, np.maximum(0, usual), 0)
        there = self._elsewhere(one)
        if there is not None and len(one.drawn):
            held = (box_iou(one.drawn, there.drawn) >= _BEFORE) & _alike(one.drawn_labels, there.drawn_labels)
            table[:, OF_ANNOTATION.index("before")] = np.minimum(2, np.log1p(held.sum(axis=1)))
        return table

    def of_boxes(self, one: Compared) -> Signs:
        """Return the signs `[len(open), OF_BOX]` of a page."""
        table = one.of_boxes()
        chosen = one.open
        labels = one.seen_labels[chosen]
        table[:, OF_BOX.index("usual")] = self.annotated(one)[chosen]
        table[:, OF_BOX.index("record")] = self._boxes.surplus(one.page.name, labels)
        there = self._elsewhere(one)
        if there is not None and len(chosen):
            held = (box_iou(one.seen[chosen], there.seen) >= _AGAIN) & _alike(labels, there.seen_labels)
            told, untold = ((held & mine).sum(axis=1) for mine in (there.told, ~there.told))
            table[:, OF_BOX.index("again")] = np.clip(np.log((told + 1) / (untold + 1)), -2, 2)
        return table

    def _elsewhere(self, one: Compared) -> "_Place | None":
        """Return what the other images of the camera have."""
        mine = [other for other in self._cameras.get(one.page.camera, ()) if other.page.name != one.page.name]
        if not mine:
            return None
        return _Place(
            np.concatenate([other.drawn for other in mine]),
            np.concatenate([other.drawn_labels for other in mine]),
            np.concatenate([other.seen for other in mine]),
            np.concatenate([other.seen_labels for other in mine]),
            np.concatenate([other.of_box >= 0 for other in mine]),
        )


class _Place(NamedTuple):
    """Annotations and boxes of a model in images of one camera; `told`: which boxes have an annotation."""

    drawn: Floats
    drawn_labels: Names
    seen: Floats
    seen_labels: Names
    told: NDArray[np.bool_]


class _Counts:
    """Observed and expected counts by label and page."""

    def __init__(self) -> None:
        self._all: defaultdict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(2))
        self._of: dict[tuple[str, str], NDArray[np.float64]] = {}

    def add(self, name: str, labels: Names, happened: NDArray[np.bool_], expected_: Signs) -> None:
        for label in {"", *labels}:
            mine = np.ones(len(labels), bool) if label == "" else labels == label
            counts = np.array([happened[mine].sum(), expected_[mine].sum()], np.float64)
            self._of[name, label] = counts
            self._all[label] += counts

    def surplus(self, name: str, labels: Names) -> Signs:
        """Return the log of how much more often than expected it happened to each label, in the other pages."""
        every = self._ratio(name, "", factor=1.0, doubt=_DOUBT[0])
        of = {label: every * self._ratio(name, label, factor=every, doubt=_DOUBT[1]) for label in {*labels}}
        return np.log([of[label] for label in labels])

    def _ratio(self, name: str, label: str, *, factor: float, doubt: float) -> float:
        nothing = np.zeros(2)
        happened, awaited = self._all.get(label, nothing) - self._of.get((name, label), nothing)
        return float((happened + doubt) / (awaited * factor + doubt))


def corners(boxes: Sequence[Annotation]) -> Floats:
    """Return `[n, 4]` xyxy."""
    return np.array([box.xyxy for box in boxes], np.float32).reshape(-1, 4)


def log_odds(share: Any) -> Any:
    """Return the log odds of shares in 0..1, both excluded."""
    return np.log(share) - np.log1p(-np.asarray(share))


def expected(logits: Signs) -> Signs:
    """Return shares from log odds."""
    shares: Signs = 1 / (1 + np.exp(-np.clip(logits, -30, 30)))
    return shares


def _labels(boxes: Sequence[Annotation]) -> Names:
    names = np.empty(len(boxes), object)
    names[:] = [box.label for box in boxes]
    return names


def areas(boxes: Floats) -> Signs:
    """Return `[n]` square pixels, at least 1."""
    sides: Signs = (boxes[:, 2:] - boxes[:, :2]).astype(np.float64)
    found: Signs = np.maximum(sides.prod(axis=1), 1)
    return found


def _sizes(boxes: Floats, size: tuple[int, int]) -> Signs:
    """Return doublings of the side against an eighth of the image's."""
    sizes: Signs = np.log2(np.sqrt(areas(boxes) / (size[0] * size[1]))) + _SIZE
    return sizes


def shared(a: Floats, b: Floats) -> Signs:
    """Return `[n, m]`: the area in square pixels that boxes `[n, 4]` and `[m, 4]` share."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    common: Signs = np.clip(high - low, 0, None).prod(axis=2).astype(np.float64)
    return common


def _best(values: Signs, where: NDArray[np.bool_]) -> Signs:
    best: Signs = np.where(where, values, UNSEEN).max(axis=1, initial=UNSEEN)
    return best


def _alike(mine: Names, theirs: Names) -> NDArray[np.bool_]:
    """Return `[n, m]`: which labels are the same."""
    number = {label: at for at, label in enumerate({*mine, *theirs})}
    a, b = (np.array([number[label] for label in labels], np.int64) for labels in (mine, theirs))
    alike: NDArray[np.bool_] = a[:, None] == b[None, :]
    return alike
