"""What is on an image, as far as anyone knows: the one answer that training, measuring and counting take.

Laws:

1. A person's second look outranks annotators, annotators outrank the machine.
2. The answer of several annotators is hub.consolidate's; of several passes it is all of them together.
3. A truth depends on what is stored and on nothing else: the same database gives the same truths.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from hub.annotation import Annotation
from hub.consolidate import consolidate
from hub.store import Store
from hub.store_labels import Drawn

By = Literal["review", "person", "machine"]
_RANK: Final = {"review": 0, "person": 1, "machine": 2}


@dataclass(frozen=True, slots=True)
class Truth:
    """The answer for one image.

    Attributes:
        boxes: what is there; empty: nothing of `labels` is.
        labels: those that were looked for.
        by: the highest rank among those who looked.
        annotators: who looked, in the order of the alphabet.
    """

    event_id: str
    boxes: tuple[Annotation, ...]
    labels: frozenset[str]
    by: By
    annotators: tuple[str, ...]


def truths(store: Store, batch_id: int | None = None) -> dict[str, Truth]:
    """Return the answer for every labelled image by its event id, or for those of one batch.

    What was drawn on a known answer that was mixed into a batch counts for measuring annotators, not here.
    """
    of_image: defaultdict[str, list[Drawn]] = defaultdict(list)
    mixed_in: dict[int, frozenset[str]] = {}
    for one in store.labels.drawn(batch_id):
        batch = one.label_set.batch_id
        if batch is not None and batch not in mixed_in:
            mixed_in[batch] = frozenset(pot.event_id for pot in store.labels.honeypots(batch))
        if batch is None or one.event_id not in mixed_in[batch]:
            of_image[one.event_id].append(one)
    return {event_id: truth_of(event_id, drawn) for event_id, drawn in of_image.items()}


def truth_of(event_id: str, drawn: Sequence[Drawn]) -> Truth:
    """Return the answer for one image from all that counts of it; at least one set."""
    boxes: list[Annotation] = []
    known: frozenset[str] = frozenset()
    names: set[str] = set()
    ranks: list[By] = []
    for by, sets in _by_rank(drawn):
        labels = frozenset(label for one in sets for label in one.label_set.labels) - known
        if not labels:
            continue
        answer = (
            sets[-1].boxes
            if by != "person"
            else consolidate({one.label_set.annotator: one.boxes for one in sets}).boxes
        )
        boxes += [box for box in answer if box.label in labels]
        known |= labels
        names |= {one.label_set.annotator for one in sets}
        ranks.append(by)
    return Truth(event_id, tuple(boxes), known, ranks[0], tuple(sorted(names)))


def _by_rank(drawn: Sequence[Drawn]) -> list[tuple[By, list[Drawn]]]:
    """Return what belongs together, the highest rank first: a pass of annotators is one group, newest pass first."""
    groups: defaultdict[tuple[int, str], list[Drawn]] = defaultdict(list)
    for one in sorted(drawn, key=lambda one: one.label_set.id):
        groups[_RANK[one.label_set.kind], one.label_set.label_pass].append(one)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], -item[1][-1].label_set.id))
    return [(sets[0].label_set.kind, sets) for _, sets in ordered]
