"""What machine labels have brought: each certificate with its checks, each round of labels with its cost, for pictures.

A round is one label set. People's boxes are held against the machine's on the random images, the machine's against
people's on those that were checked. Nothing is looked at anew: where the model has not seen an image, it is left out.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from hub.certificates import GUARANTEE, Checks, checked_images, checks_of, details_of, in_force, is_void, machine_boxes
from hub.confidence import Boxes, confidence, kept, of_labels
from hub.costs import Prices, Work, cost_of, paid
from hub.ground_truth_rule import mean_iou, mean_score
from hub.label_plots import SHOWN, Example, Iteration
from hub.store import Store
from hub.store_labels import Certificate
from hub.truth import Truth, people_truths
from hub.validation import RefusedError

State = Literal["in force", "void", "ended", "refused"]
_REVIEW: Final = "review"


@dataclass(frozen=True, slots=True)
class Standing:
    """A certificate, how it stands, and what people found of what was labelled under it."""

    certificate: Certificate
    state: State
    checks: Checks


class Held(NamedTuple):
    """An image on which both people and the machine drew, or one of them."""

    event_id: str
    by: Literal["person", "machine"]
    confidence: float
    iou: float | None
    person: Boxes
    machine: Boxes


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that `hub autolabel report` tells. `standings` and `rounds` oldest first."""

    standings: tuple[Standing, ...]
    rounds: tuple[Iteration, ...]
    held: tuple[Held, ...]
    currency: str

    def ious(self, by: str) -> list[float]:
        """Return the mean IoU of each image of one kind on which both drew."""
        return [one.iou for one in self.held if one.by == by and one.iou is not None]


def report(store: Store, prices: Prices) -> Report:
    """Read what was certified, labelled and checked; the pictures' images are those of the newest certificate."""
    people = people_truths(store)
    certificates = store.labels.certificates()
    standings = tuple(_standing(store, one, people) for one in certificates)
    given = [one for one in certificates if one.threshold is not None] or certificates
    held = tuple(_held(store, given[-1], people)) if given else ()
    return Report(standings, tuple(rounds(store, prices)), held, prices.currency)


def rounds(store: Store, prices: Prices) -> Iterator[Iteration]:
    """Yield what each label set has brought and cost, oldest first; as in hub.costs, what is not changed is free."""
    done: defaultdict[int, Work] = defaultdict(Work)
    looked_at: Counter[int] = Counter()
    for one, work in paid(store.labels.history()):
        done[one.label_set.id] += work
        looked_at[one.label_set.id] += len(one.boxes)
    for made in store.labels.sets():
        work, minutes = done[made.id], made.minutes or 0.0
        images = work.images + work.reviews + work.machine
        boxes = work.boxes if made.kind == "person" else looked_at[made.id]
        if made.kind == "machine":
            person = (0, 0, 0.0)
            machine = (images, boxes, cost_of(prices, machine=images))
        else:
            cost = (
                cost_of(prices, reviews=images, minutes=minutes)
                if made.kind == _REVIEW
                else cost_of(prices, images=images, boxes=boxes, minutes=minutes)
            )
            person, machine = (images, boxes, cost), (0, 0, 0.0)
        yield Iteration(
            images_person=person[0],
            images_machine=machine[0],
            boxes_person=person[1],
            boxes_machine=machine[1],
            cost_person=person[2],
            cost_machine=machine[2],
            cost_all_person=cost_of(prices, images=images, boxes=boxes) if machine[0] else person[2],
        )


def examples(store: Store, held: Sequence[Held]) -> list[Example]:
    """Return the most confident of each kind with their pictures; those with a box first, for there is more to see."""
    found = []
    for by in ("person", "machine"):
        best = sorted((one for one in held if one.by == by), key=_most_telling)[:SHOWN]
        for one in best:
            row = store.finding(one.event_id)
            found.append(
                Example(
                    name=f"{row.camera} {row.event_id[-8:]}",
                    jpeg=store.frame(one.event_id),
                    by=one.by,
                    confidence=one.confidence,
                    iou=one.iou,
                    person=one.person,
                    machine=one.machine,
                )
            )
    return found


def _most_telling(one: Held) -> tuple[bool, float, str]:
    """Sort key: with a box, then the most confident."""
    return not (one.machine or one.person), -one.confidence, one.event_id


def _standing(store: Store, certificate: Certificate, people: Mapping[str, Truth]) -> Standing:
    checks = checks_of(store, certificate, people)
    if certificate.threshold is None:
        return Standing(certificate, "refused", checks)
    if is_void(certificate, checks):
        return Standing(certificate, "void", checks)
    try:
        holds = in_force(store, certificate.model).id == certificate.id
    except RefusedError:
        holds = False
    return Standing(certificate, "in force" if holds else "ended", checks)


def _held(store: Store, certificate: Certificate, people: Mapping[str, Truth]) -> Iterator[Held]:
    details = details_of(certificate)
    random_ones = [one.event_id for row in store.batches() if row.random for one in store.batch_members(row.id)]
    of_machine = machine_boxes(store, certificate)
    checked = frozenset(checked_images(store))
    for event_id in dict.fromkeys([*random_ones, *of_machine]):
        seen = store.labels.opinion(event_id, certificate.model)
        if seen is None or (event_id not in people and event_id not in of_machine):
            continue
        seen = of_labels(seen, details.labels)
        if certificate.rule == GUARANTEE:
            sure = confidence(seen, details.calibration)
        else:
            sure = mean_score(kept(seen, details.calibration)) or 0.0
        machine = of_machine[event_id] if event_id in of_machine else kept(seen, details.calibration)
        answered = event_id in people and people[event_id].labels.issuperset(details.labels)
        person = of_labels(people[event_id].boxes, details.labels) if answered else ()
        by: Literal["person", "machine"] = "machine" if event_id in of_machine else "person"
        if by == "person" and not answered:
            continue
        iou = mean_iou(machine, person) if answered and (by == "person" or event_id in checked) else None
        yield Held(event_id, by, sure, iou, person, machine)
