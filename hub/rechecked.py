"""What a person's second look changed: settles re-checks, and says how good the audit's picks were. See hub.audit.

Laws:

1. A re-check is wrong exactly when the second look differs from the audited answer at its place: a box added, removed,
   relabelled, or moved to an IoU under `SAME_IOU`. One without a place stands for its whole image.
2. Only labels that both looked for are compared.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from edge.detector.detections import Floats, box_iou
from hub.annotation import Annotation, Xyxy
from hub.store import Store
from hub.store_labels import Drawn, Recheck
from hub.truth import Truth, truth_of, truths

SAME_IOU: Final = 0.7
MOVED_IOU: Final = 0.3  # two boxes that overlap so much are one object, drawn anew
AT_PLACE_IOU: Final = 0.3
RANDOM: Final = "random"  # the fault of an image drawn at random
OUTSIDE: Final = 0.05  # of the interval of what remains


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two answers; `before` or `after` is None where there was or is no box."""

    kind: Literal["added", "removed", "relabelled", "moved"]
    before: Annotation | None
    after: Annotation | None

    def is_at(self, place: Xyxy) -> bool:
        """Whether the box before or after overlaps `place`."""
        boxes = _corners([box for box in (self.before, self.after) if box is not None])
        return bool(box_iou(boxes, np.array([place], np.float32)).max() >= AT_PLACE_IOU)


@dataclass(frozen=True, slots=True)
class SecondLook:
    """An image that was looked at again.

    Attributes:
        recheck: the line of the list that pointed to it.
        before: the answer that was audited.
        asked: the labels that both looked for.
        changes: how the second look differs.
    """

    recheck: Recheck
    before: Truth
    asked: frozenset[str]
    changes: tuple[Change, ...]

    @property
    def wrong(self) -> bool:
        """Law 1."""
        place = self.recheck.xyxy
        return bool(self.changes) if place is None else any(change.is_at(place) for change in self.changes)


@dataclass(frozen=True, slots=True)
class Tally:
    """How many of some images were looked at again, and of these were wrong at the place named, and anywhere."""

    images: int
    settled: int
    wrong: int
    wrong_anywhere: int


@dataclass(frozen=True, slots=True)
class Measured:
    """How good a list was.

    Attributes:
        picks: the images that the audit picked.
        drawn: those drawn at random from the others.
        others: labelled images that nobody had looked at again before and the audit did not pick, those drawn among
            them.
        remaining: how many of the others that nobody looked at again are still wrong, and its 95 % interval; None
            before an image drawn at random was looked at again.
    """

    picks: Tally
    drawn: Tally
    others: int
    remaining: tuple[float, int, int] | None


def settle(store: Store, batch_id: int, event_ids: Iterable[str]) -> int:
    """Note for re-checks of these images whether they were wrong, and return how many were settled.

    Call it after the second look was stored as a label set of kind `review`. An image that is not on the batch's newest
    list, or has no review since, is passed over.
    """
    images = frozenset(event_ids)
    verdicts = {
        one.rank: look.wrong
        for one in store.labels.rechecks(batch_id)
        if one.event_id in images and (look := second_look(store, batch_id, one)) is not None
    }
    store.labels.settle_rechecks(batch_id, verdicts)
    return len(verdicts)


def second_look(store: Store, batch_id: int, recheck: Recheck) -> SecondLook | None:
    """Return what a second look changed in the whole image; None where nobody has looked since the list was made."""
    drawn = [one for one in store.labels.drawn_on(recheck.event_id) if one.label_set.batch_id in {batch_id, None}]
    second = [one for one in drawn if one.label_set.kind == "review" and one.label_set.at_ms >= recheck.at_ms]
    first = [one for one in drawn if one.label_set.at_ms <= recheck.at_ms and one not in second]
    if not first or not second:
        return None
    before, after = (truth_of(recheck.event_id, _newest(sets)) for sets in (first, second))
    asked = before.labels & after.labels
    was, now = ([box for box in truth.boxes if box.label in asked] for truth in (before, after))
    return SecondLook(recheck, before, asked, tuple(changes(was, now)))


def second_looks(store: Store) -> list[SecondLook]:
    """Return the second looks at the images of every batch's lists, one an image, by batch and rank."""
    found: dict[str, SecondLook] = {}
    for batch in store.batches():
        for rechecks in store.labels.recheck_lists(batch.id):
            for one in rechecks:
                if one.wrong is not None and one.event_id not in found:
                    look = second_look(store, batch.id, one)
                    found |= {} if look is None else {one.event_id: look}
    return list(found.values())


def measure(store: Store, batch_id: int) -> Measured | None:
    """Return how good the newest list was that people have begun to look through; None before."""
    lists = store.labels.recheck_lists(batch_id)
    rechecks = next((one for one in lists if any(line.wrong is not None for line in one)), None)
    if rechecks is None:
        return None
    picks, drawn = ([one for one in rechecks if (one.fault == RANDOM) == at_random] for at_random in (False, True))
    known = {one.event_id for one in picks}
    for one in store.labels.answers(batch_id):
        known |= {one.event_id} if one.label_set.kind == "review" and one.label_set.at_ms < rechecks[0].at_ms else set()
    others = len(truths(store, batch_id).keys() - known)
    of_drawn = _tally(store, batch_id, drawn)
    remaining = still_wrong(of_drawn.wrong_anywhere, of_drawn.settled, others) if of_drawn.settled else None
    return Measured(_tally(store, batch_id, picks), of_drawn, others, remaining)


def is_looked_through(store: Store, batch_id: int) -> bool:
    """Return whether people have looked through the whole newest list, and no labels but reviews came after it."""
    rechecks = store.labels.rechecks(batch_id)
    if not rechecks or any(one.wrong is None for one in rechecks):
        return False
    return all(one.kind == "review" or one.at_ms <= rechecks[0].at_ms for one in store.labels.sets(batch_id))


def still_wrong(wrong: int, looked_at: int, images: int) -> tuple[float, int, int]:
    """Return how many of the images not looked at are wrong when `wrong` of those drawn at random were.

    The estimate, and the exact 95 % interval of drawing without replacement.
    """
    rest = images - looked_at
    possible = [
        left
        for left in range(rest + 1)
        if min(_tails(wrong, looked_at, wrong=wrong + left, images=images)) >= OUTSIDE / 2
    ]
    return rest * wrong / looked_at, possible[0], possible[-1]


def _tails(seen: int, drawn: int, *, wrong: int, images: int) -> tuple[float, float]:
    """Return how likely at most, and at least, `seen` of `drawn` images are wrong when `wrong` of all are."""
    ways = [math.comb(wrong, k) * math.comb(images - wrong, drawn - k) for k in range(drawn + 1)]
    every = math.comb(images, drawn)
    return sum(ways[: seen + 1]) / every, sum(ways[seen:]) / every


def _tally(store: Store, batch_id: int, rechecks: Sequence[Recheck]) -> Tally:
    looks = [look for one in rechecks if (look := second_look(store, batch_id, one)) is not None]
    wrong = sum(look.wrong for look in looks)
    return Tally(len(rechecks), len(looks), wrong, sum(bool(look.changes) for look in looks))


def changes(before: Sequence[Annotation], after: Sequence[Annotation]) -> list[Change]:
    """Return the differences of two answers for one image, each object once."""
    left, right = dict(enumerate(before)), dict(enumerate(after))
    overlap = box_iou(_corners(before), _corners(after))
    found: list[Change] = []
    for same_label, least in ((True, SAME_IOU), (False, MOVED_IOU), (True, MOVED_IOU)):
        for i, j in _best_pairs(overlap, least=least):
            if i not in left or j not in right or (left[i].label == right[j].label) != same_label:
                continue
            old, new = left.pop(i), right.pop(j)
            if not same_label:
                found.append(Change("relabelled", old, new))
            elif least < SAME_IOU:
                found.append(Change("moved", old, new))
    found += [Change("removed", box, None) for box in left.values()]
    return found + [Change("added", None, box) for box in right.values()]


def _best_pairs(overlap: Floats, *, least: float) -> list[tuple[int, int]]:
    rows, columns = np.nonzero(overlap >= least)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    return [(int(rows[at]), int(columns[at])) for at in order]


def _newest(drawn: Sequence[Drawn]) -> list[Drawn]:
    """Return the newest of each kind, annotator and pass."""
    newest = {(one.label_set.kind, one.label_set.annotator, one.label_set.label_pass): one for one in drawn}
    return list(newest.values())


def _corners(boxes: Sequence[Annotation]) -> Floats:
    return np.array([box.xyxy for box in boxes], np.float32).reshape(-1, 4)
