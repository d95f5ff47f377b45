"""Which certificate of machine labels is in force, and what people found when they checked its labels.

Laws:

1. Of a model the newest certificate that was given is in force; a later refusal by the same rule, at the same epsilon
   or a larger one, ends it.
2. A certificate that its checks contradict is void.
"""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from edge.contract.errors import UnusableError
from hub.certify import Level, contradicts, interval
from hub.confidence import Calibration, is_right, of_labels
from hub.store import Store
from hub.store_labels import Boxes, Certificate
from hub.truth import Truth, people_truths
from hub.validation import RefusedError

CHECKS: Final = "checks of machine labels"
GUARANTEE: Final = "guarantee"
GROUND_TRUTH: Final = "ground-truth"
NO_LIMIT: Final = 1.0  # epsilon and delta of a rule that promises nothing


class Details(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate's report says beside its row.

    Attributes:
        labels: that the machine labels.
        calibration: of scores.
        levels: that were tested; of the rule `ground-truth` none.
        attempt: the how manieth of this model, from 1, and the `delta` that was left for it.
        looked_at: unlabelled images whose confidence was seen, of `population`.
        needs: how many more random images, if refused; None: certified, or no number helps.
        alike: the p-value of the confidences of validation and unlabelled images.
        basis: a digest of the answers that it was measured on.
        notes: sentences.
    """

    labels: tuple[str, ...]
    calibration: Calibration
    levels: tuple[Level, ...] = ()
    attempt: int
    delta: float
    looked_at: int
    population: int
    needs: int | None
    alike: float
    basis: str
    notes: tuple[str, ...] = ()


class Checks(NamedTuple):
    """What people found on images that a machine had labelled under one certificate.

    Attributes:
        labelled: by the machine; `drawn` of them went to people, who have answered `answered`.
        wrong: of those answered.
    """

    labelled: int
    drawn: int
    answered: int
    wrong: int

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the wrong share."""
        return interval(self.wrong, self.answered)


def source_of(certificate: Certificate) -> str:
    """Return the source of the label sets that were made under a certificate."""
    return f"certificate {certificate.id}"


def details_of(certificate: Certificate) -> Details:
    """Decode the details. Raises `UnusableError` when they are damaged."""
    try:
        return msgspec.json.decode(certificate.details, type=Details)
    except msgspec.DecodeError as error:
        msg = f"certificate {certificate.id} cannot be read: {error}"
        raise UnusableError(msg) from error


def machine_boxes(store: Store, certificate: Certificate) -> dict[str, Boxes]:
    """Return what the machine has labelled under a certificate, event id to boxes."""
    source = source_of(certificate)
    return {
        one.event_id: one.boxes
        for one in store.labels.answers()
        if one.label_set.kind == "machine" and one.label_set.source == source
    }


def checks_of(store: Store, certificate: Certificate, people: Mapping[str, Truth]) -> Checks:
    """Count what people found; `people` has their answers."""
    machine = machine_boxes(store, certificate)
    labels = details_of(certificate).labels
    drawn = [one for one in checked_images(store) if one in machine]
    answered = [people[one] for one in drawn if one in people and people[one].labels.issuperset(labels)]
    wrong = sum(not is_right(machine[one.event_id], of_labels(one.boxes, labels)) for one in answered)
    return Checks(len(machine), len(drawn), len(answered), wrong)


def checked_images(store: Store) -> list[str]:
    """Return the event ids of the batches that check machine labels."""
    return [member.event_id for row in store.batches() if row.title == CHECKS for member in store.batch_members(row.id)]


def is_void(certificate: Certificate, checks: Checks) -> bool:
    """Whether the checks contradict the certificate: so many wrong ones are unlikely (5 %) at its epsilon."""
    return certificate.rule == GUARANTEE and contradicts(checks.wrong, checks.answered, epsilon=certificate.epsilon)


def voided_at_ms(store: Store, model: str) -> int | None:
    """Return when the newest certificate of a model that its checks contradict was made; None: there is none."""
    given = [one for one in store.labels.certificates() if one.model == model and one.threshold is not None]
    people = people_truths(store) if given else {}
    void = [one.at_ms for one in given if is_void(one, checks_of(store, one, people))]
    return max(void, default=None)


def in_force(store: Store, model: str) -> Certificate:
    """Return the certificate under which a model may label. Raises `RefusedError` when there is none."""
    of_model = [one for one in store.labels.certificates() if one.model == model]
    given = [one for one in of_model if one.threshold is not None]
    if not given:
        others = sorted({one.model for one in store.labels.certificates() if one.threshold is not None})
        there_are = f" (there are some of {', '.join(others)})" if others else ""
        msg = f"model {model} has no certificate{there_are}: run `hub autolabel certify`"
        raise RefusedError(msg)
    newest = given[-1]
    ended = [
        one for one in of_model if one.id > newest.id and one.rule == newest.rule and one.epsilon >= newest.epsilon
    ]
    if ended:
        msg = f"certificate {newest.id} of {model} was ended by refusal {ended[-1].id}: label more random images"
        raise RefusedError(msg)
    checks = checks_of(store, newest, people_truths(store))
    if is_void(newest, checks):
        msg = (
            f"certificate {newest.id} is void: {checks.wrong} of {checks.answered} checked images are wrong, at most"
            f" {newest.epsilon:.0%} was promised; draw random images anew and certify again"
        )
        raise RefusedError(msg)
    return newest
