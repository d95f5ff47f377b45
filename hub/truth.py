"""What is on an image, as far as anyone knows: the one answer that training, measuring and counting take.

Who answers is decided label by label, among those who looked for it. So the passes of one image add up, and a review or
a pass for one label leaves the others as they were.

Laws:

1. A person's second look outranks annotators, annotators outrank the machine: a machine's box is in the answer only for
   a label that no person looked for in that image.
2. What an annotator says of a label is in the newest of their sets that looked for it. What several say is consolidated
   (hub.consolidate): labels that the same sets answer together, so that a swapped one is seen as such.
3. Of several reviews, and of several models, the newest that looked for a label answers it.
4. What a second look has answered is not disputed any more: where the annotators' names for one object differ and the
   review says it is of one of them, the others' boxes of it are gone.
5. A truth depends on what is stored and on nothing else: that of an image alone is that of its batch and of all.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hub.annotation import Annotation
from hub.consolidate import Dispute, consolidate, objects
from hub.store import Store
from hub.store_labels import Drawn

By = Literal["review", "person", "machine"]
_RANKS: Final[tuple[By, ...]] = ("review", "person", "machine")
_REVIEW: Final = " review"  # no annotator's name begins with a space

Answers = dict[str, Drawn]


@dataclass(frozen=True, slots=True)
class Truth:
    """The answer for one image.

    Attributes:
        boxes: what is there; empty: nothing of `labels` is.
        labels: those that were looked for.
        by: the highest rank among those who looked.
        annotators: who answered, in the order of the alphabet.
        disputes: where annotators do not agree and no second look has answered.
    """

    event_id: str
    boxes: tuple[Annotation, ...]
    labels: frozenset[str]
    by: By
    annotators: tuple[str, ...]
    disputes: tuple[Dispute, ...] = ()


def truths(store: Store, batch_id: int | None = None) -> dict[str, Truth]:
    """Return the answer for every labelled image by its event id, or for those of one batch.

    What was drawn on a known answer that was mixed into a batch counts for measuring annotators, not here.
    """
    of_image: defaultdict[str, list[Drawn]] = defaultdict(list)
    for one in store.labels.answers(batch_id):
        if one.label_set.labels:
            of_image[one.event_id].append(one)
    return {event_id: truth_of(event_id, drawn) for event_id, drawn in of_image.items()}


def people_truths(store: Store) -> dict[str, Truth]:
    """Return people's answer for every image that people have looked at, by its event id, whatever a machine says."""
    of_image: defaultdict[str, list[Drawn]] = defaultdict(list)
    for one in store.labels.answers():
        if one.label_set.kind != "machine" and one.label_set.labels:
            of_image[one.event_id].append(one)
    return {event_id: truth_of(event_id, drawn) for event_id, drawn in of_image.items()}


def truth_of(event_id: str, drawn: Sequence[Drawn]) -> Truth:
    """Return the answer for one image from all that counts of it; at least one set, each with a label or more."""
    boxes: list[Annotation] = []
    disputes: list[Dispute] = []
    known: frozenset[str] = frozenset()
    names: set[str] = set()
    ranks: list[By] = []
    for by in _RANKS:
        looked = [one for one in drawn if one.label_set.kind == by]
        reviewed = tuple(boxes)
        before = known
        for labels, answers in _answering(looked, before, together=by == "person"):
            votes = {name: one.boxes for name, one in answers.items()}
            consensus = consolidate(_open(votes, labels, before, reviewed))
            boxes += consensus.boxes
            disputes += consensus.disputes
            known |= labels
            names |= votes.keys()
            ranks.append(by)
    return Truth(event_id, tuple(boxes), known, ranks[0], tuple(sorted(names)), tuple(disputes))


def _answering(
    drawn: Sequence[Drawn], known: frozenset[str], *, together: bool
) -> Iterator[tuple[frozenset[str], Answers]]:
    """Yield labels with those who answer them, by annotator: of each the newest; unless `together`, only the last."""
    of_label: defaultdict[str, Answers] = defaultdict(dict)
    for one in sorted(drawn, key=lambda one: one.label_set.id):
        for label in one.label_set.labels:
            answers = of_label[label]
            if not together:
                answers.clear()
            answers[one.label_set.annotator] = one
    by_sets: defaultdict[frozenset[int], list[str]] = defaultdict(list)
    for label in sorted(of_label.keys() - known):
        by_sets[frozenset(one.label_set.id for one in of_label[label].values())].append(label)
    for labels in by_sets.values():
        yield frozenset(labels), of_label[labels[0]]


def _open(
    votes: Mapping[str, Sequence[Annotation]],
    labels: frozenset[str],
    known: frozenset[str],
    reviewed: Sequence[Annotation],
) -> dict[str, list[Annotation]]:
    """Return the boxes of `labels` that no look of a higher rank has answered."""
    left: dict[str, list[Annotation]] = {name: [] for name in votes}
    mine = {name: [box for box in boxes if box.label in labels | known] for name, boxes in votes.items()}
    for one in (
        objects(mine | {_REVIEW: reviewed}) if reviewed else ({name: box} for name in mine for box in mine[name])
    ):
        answer = one.pop(_REVIEW, None)
        if answer is None or all(box.label != answer.label for box in one.values()):
            for name, box in one.items():
                left[name] += [box] * (box.label in labels)
    return left
