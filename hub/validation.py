"""The images that people have answered, as far as a machine's labels are measured on them.

Laws:

1. Validation images are the members of random batches that people have answered whole: were the hard ones still open,
   the rest would be no random draw.
2. A validation image never calibrates a confidence.
3. Where checks have contradicted a certificate, only images that were drawn after it speak for the same model: what it
   was measured on did not tell what it labelled.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from edge.contract.errors import UnusableError
from hub.store import Store
from hub.truth import Truth, people_truths

CALIBRATING: Final = 300  # images, the newest


class RefusedError(UnusableError):
    """The answer is no. The message: what is missing, a line for each reason, and at last what to do about it."""


@dataclass(frozen=True, slots=True)
class Validation:
    """What a machine is measured on.

    Attributes:
        images: of random batches, in the order of batch and rank.
        calibrating: other images that people have answered, the newest first, at most `CALIBRATING`.
        labels: that the machine labels, and that people looked for on all these images.
        notes: what was left out and why, a sentence each.
    """

    images: tuple[Truth, ...]
    calibrating: tuple[Truth, ...]
    labels: tuple[str, ...]
    notes: tuple[str, ...]


def validation(
    store: Store, *, can_tell: Sequence[str], names: Sequence[str] = (), after_ms: int | None = None
) -> Validation:
    """Return what a machine that can tell `can_tell` is measured on.

    Args:
        store: the database.
        can_tell: the labels that it can tell.
        names: the labels that are asked for; without any, those that people looked for.
        after_ms: only batches that were drawn after this count: see law 3.

    Raises:
        RefusedError: when there is no random batch, none is answered whole, or none of the labels can be told.
    """
    people = people_truths(store)
    every = {row.id: store.batch_members(row.id) for row in store.batches() if row.random}
    drawn = {row.id: every[row.id] for row in store.batches() if row.random and row.created_at_ms > (after_ms or -1)}
    if not drawn:
        since = " since its certificate, which the checks contradict" if every else ""
        msg = (
            f"no images were drawn at random{since}\n"
            "`hub batch new --random` draws some; export, label and import all of them"
        )
        raise RefusedError(msg)
    members = {member.event_id for of_batch in every.values() for member in of_batch}
    counting = [one.event_id for of_batch in drawn.values() for one in of_batch if one.event_id in people]
    asked = tuple(names) or _looked_for([people[one] for one in counting])
    labels = tuple(label for label in asked if label in can_tell)
    if asked and not labels:
        msg = f"the model can tell none of the labels asked for: {', '.join(asked)}"
        raise RefusedError(msg)
    notes = [f"the model cannot tell {label}: it stays for people" for label in asked if label not in can_tell]
    images: list[Truth] = []
    for number, of_batch in drawn.items():
        answered = [people[one.event_id] for one in of_batch if _answers(people.get(one.event_id), labels)]
        if len(answered) == len(of_batch):
            images += answered
        else:
            notes.append(
                f"batch {number} does not count: {len(of_batch) - len(answered)} of its {len(of_batch)} images are not"
                f" answered yet{' for ' + ', '.join(labels) if labels else ''}"
            )
    if not images:
        msg = "no random batch is answered by people"
        raise RefusedError("\n".join([msg, *notes, "export these batches, label and import all of their images"]))
    others = sorted(one for one, truth in people.items() if one not in members and _answers(truth, labels))
    calibrating = tuple(people[one] for one in others[::-1][:CALIBRATING])
    return Validation(tuple(images), calibrating, labels, tuple(notes))


def _looked_for(truths: Sequence[Truth]) -> tuple[str, ...]:
    return tuple(sorted({label for truth in truths for label in truth.labels}))


def _answers(truth: Truth | None, labels: Collection[str]) -> bool:
    return truth is not None and bool(labels) and truth.labels.issuperset(labels)
