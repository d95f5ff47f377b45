"""Honeypots: images with known answers, mixed into a batch to measure its annotators, whatever tool they use.

Laws:

1. A honeypot is an image of an earlier batch whose answer is settled for every label of this one: a person looked
   twice, or two annotators or more looked and do not disagree.
2. Those of a batch are drawn once, by its number, and stay: every later export and pass has the same.
3. They are no members: they count neither for the size of a batch nor for its test share, and nothing is trained on
   what is drawn on them here.

Images with a box come first, and among them those of the batch's own cameras: an image of a camera that the batch does
not have, or an empty one, would stand out.
"""

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hub.annotation import Annotation
from hub.batch_view import Member, name_end
from hub.store import Store
from hub.store_labels import Drawn, Honeypot
from hub.truth import Truth, truth_of


@dataclass(frozen=True, slots=True)
class Known:
    """An image whose answer is settled: what is on it, and the camera that it is of."""

    event_id: str
    boxes: tuple[Annotation, ...]
    camera: tuple[str, str, str]


def known_before(store: Store, batch_id: int, labels: Collection[str]) -> list[Known]:
    """Return the images of earlier batches whose answer is settled for all of `labels`, oldest batch first."""
    found = []
    for batch in store.batches():
        if batch.id >= batch_id:
            break
        drawn: dict[str, list[Drawn]] = {}
        for one in store.labels.answers(batch.id):
            drawn.setdefault(one.event_id, []).append(one)
        for member in store.batch_members(batch.id):
            sets = [one for one in drawn.get(member.event_id, ()) if one.label_set.labels]
            truth = settled(member.event_id, sets, labels)
            if truth is not None:
                row = store.finding(member.event_id)
                boxes = tuple(box for box in truth.boxes if box.label in labels)
                found.append(Known(member.event_id, boxes, (row.site, row.device, row.camera)))
    return found


def settled(event_id: str, drawn: Sequence[Drawn], labels: Collection[str]) -> Truth | None:
    """Return the answer for an image where it is settled for all of `labels`, None where it is not."""
    people = [one for one in drawn if one.label_set.kind != "machine"]
    for label in labels:
        looked = [one.label_set for one in people if label in one.label_set.labels]
        annotators = {one.annotator for one in looked if one.kind == "person"}
        if not any(one.kind == "review" for one in looked) and len(annotators) < 2:
            return None
    truth = truth_of(event_id, people) if people else None
    if truth is None or any(set(dispute.labels) & set(labels) for dispute in truth.disputes):
        return None
    return truth


def draw(known: Sequence[Known], count: int, *, batch_id: int, members: Sequence[Member]) -> list[Honeypot]:
    """Return at most `count` honeypots for a batch, each under the rank of a member drawn at random.

    The same arguments give the same. No two images are called alike.
    """
    if not members:
        return []
    dice = random.Random(f"honeypots of batch {batch_id}")  # noqa: S311  # a sample, not a secret
    cameras = {(member.site, member.device, member.camera) for member in members}
    ordered = sorted(known, key=lambda one: one.event_id)
    dice.shuffle(ordered)
    ordered.sort(key=lambda one: (not one.boxes, one.camera not in cameras))
    ranks = [member.rank for member in members]
    dice.shuffle(ranks)
    taken = {name_end(member.event_id) for member in members}
    chosen: list[Honeypot] = []
    for one in ordered:
        if len(chosen) < count and name_end(one.event_id) not in taken:
            taken.add(name_end(one.event_id))
            chosen.append(Honeypot(one.event_id, ranks[len(chosen) % len(ranks)], one.boxes))
    return chosen
