"""Labels by machine with a guarantee: certify a model on random images, then label what it is sure of.

    hub batch new --random       people label a random batch, whole
    hub autolabel certify        hub.certify says from which confidence on the model may label, or refuses
    hub autolabel apply          it labels what reaches that, and 5 % of it go to people
    hub autolabel report         what they found; a certificate that this contradicts is void

Laws:

1. Nothing is labelled without a certificate in force of the very same model, by name: see hub.certificates.
2. Of what was labelled at once, at least `CHECKED` goes to people, drawn at random, each as likely as the others.
3. What people were given is never labelled by the machine.
4. Trying again costs: the n-th attempt of a model tests at a smaller delta, so that all of them together keep it. Where
   nothing has changed since an attempt, its result stands and nothing is tested.

The certificate speaks for the images that no person has been given, as they were when the random batches were drawn;
what a machine has labelled is still among them, so a new model is measured on the same images and labels them anew.
Right is what people say: what they got wrong together with the machine is not seen.
"""

import hashlib
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import msgspec

from edge.contract.errors import UnusableError
from hub import ground_truth_rule
from hub.certificates import (
    CHECKS,
    GUARANTEE,
    NO_LIMIT,
    Details,
    details_of,
    in_force,
    source_of,
    voided_at_ms,
)
from hub.certify import Judged, alike, certify, needs, require_rates, spent
from hub.confidence import Boxes, Calibration, confidence, fitted, is_right, kept, of_labels, outcomes
from hub.opinions import Onlooker, opinions
from hub.random_batches import can_be_opened, shuffled
from hub.store import BatchMember, Candidate, Store
from hub.store_labels import Certificate, LabelSet
from hub.validation import RefusedError, Validation, validation

CHECKED: Final = 0.05
POOL: Final = 500
COMPARED: Final = 200  # unlabelled images that are held against the validation images before anything is labelled
DRIFTED: Final = 0.001  # below this p-value nothing is labelled
DIFFERENT: Final = 0.01  # below this one the certificate has a note

Watch = Callable[[int, int], None]
"""Told how many images were looked at, and of how many."""


class Asked(NamedTuple):
    """What a certificate is asked for: at most `epsilon` of the accepted are wrong, with confidence 1 - `delta`.

    Attributes:
        rule: `guarantee` or `ground-truth`; the latter has no use for epsilon and delta.
        pool: unlabelled images that are looked at, at most, drawn at random.
        names: the labels that are asked for; empty: those that people looked for.
    """

    epsilon: float = 0.10
    delta: float = 0.10
    rule: str = GUARANTEE
    pool: int = POOL
    names: tuple[str, ...] = ()


class Found(NamedTuple):
    """What a rule has found: the threshold (None: refused), and what the certificate says of it."""

    threshold: float | None
    accepted: int
    wrong: int
    share: float


@dataclass(frozen=True, slots=True)
class Applied:
    """What was labelled.

    Attributes:
        looked_at: images; `unreadable` of them could not be opened.
        labelled: of those, with `boxes` boxes.
        set_id: the label set; None when nothing was labelled.
        batch_id: the batch of checks; None when there is nothing to check.
        checks: its images.
    """

    certificate: Certificate
    looked_at: int
    unreadable: int
    labelled: int
    boxes: int
    set_id: int | None
    batch_id: int | None
    checks: int


def certify_model(
    store: Store,
    onlooker: Onlooker,
    asked: Asked,
    *,
    rng: random.Random | None = None,
    now_ms: int | None = None,
    watch: Watch = lambda *_: None,
) -> Certificate:
    """Measure a model on the random images that people have labelled, and store what that gives.

    Returns the certificate; refused, its threshold is None. Raises `RefusedError` when there is nothing to measure on,
    `UnusableError` when epsilon or delta makes no sense.
    """
    require_rates(epsilon=asked.epsilon, delta=asked.delta)
    after_ms = voided_at_ms(store, onlooker.name)
    basis = validation(store, can_tell=onlooker.labels, names=asked.names, after_ms=after_ms)
    digest = _digest(basis)
    if (known := _same(store, onlooker, asked, digest)) is not None:
        return known
    rows = list(shuffled(store, rng or random.SystemRandom()))
    total = len(basis.images) + len(basis.calibrating) + len(rows[: asked.pool])
    looks = _Looks(store, onlooker, total=total, watch=watch)
    calibration = _calibrated(basis, looks, onlooker)
    judged = [
        (_confidence(asked.rule, seen, calibration), seen, of_labels(truth.boxes, basis.labels))
        for truth in basis.images
        if (seen := looks.at(truth.event_id, basis.labels)) is not None
    ]
    _require_all(basis, len(judged))
    pool = _pool(asked, rows, looks, basis.labels, calibration)
    attempt = 1 + sum(one.model == onlooker.name and one.rule == asked.rule for one in store.labels.certificates())
    delta = spent(asked.delta, attempt)
    details = Details(
        labels=basis.labels,
        calibration=calibration,
        attempt=attempt,
        delta=delta,
        looked_at=len(pool),
        population=len(rows),
        needs=None,
        alike=alike([one[0] for one in judged], pool),
        basis=digest,
        notes=basis.notes,
    )
    if asked.rule == GUARANTEE:
        found, details = _guaranteed(judged, pool, asked, calibration=calibration, details=details)
    else:
        found, details = _by_ground_truth(judged, pool, calibration=calibration, details=details)
    certificate = Certificate(
        id=0,
        at_ms=_now(now_ms),
        model=onlooker.name,
        rule=asked.rule,
        epsilon=asked.epsilon if asked.rule == GUARANTEE else NO_LIMIT,
        delta=asked.delta if asked.rule == GUARANTEE else NO_LIMIT,
        images=len(judged),
        accepted=found.accepted,
        wrong=found.wrong,
        threshold=found.threshold,
        share=found.share,
        details=msgspec.json.encode(details).decode(),
    )
    return certificate._replace(id=store.labels.add_certificate(certificate))


Seen = tuple[float, Boxes, Boxes]
"""An image: its confidence, all that the model sees, and what is there."""


def _guaranteed(
    judged: Sequence[Seen], pool: Sequence[float], asked: Asked, *, calibration: Calibration, details: Details
) -> tuple[Found, Details]:
    marked = [Judged(sure, not is_right(kept(seen, calibration), truth)) for sure, seen, truth in judged]
    population = len(pool) if len(pool) < asked.pool else details.population
    verdict = certify(marked, pool, epsilon=asked.epsilon, delta=details.delta, population=population)
    best = verdict.certified
    left = spent(asked.delta, details.attempt + 1)
    more = needs(marked, pool, epsilon=asked.epsilon, delta=left, population=population) if best is None else None
    details = msgspec.structs.replace(details, levels=verdict.levels, needs=more)
    if best is None:
        first = verdict.levels[0]
        return Found(None, first.accepted, first.wrong, first.share), details
    return Found(best.threshold, best.accepted, best.wrong, best.share), details


def _by_ground_truth(
    judged: Sequence[Seen], pool: Sequence[float], *, calibration: Calibration, details: Details
) -> tuple[Found, Details]:
    whole, missing = ground_truth_rule.finished(len(judged))
    measured, wrong = [], []
    for sure, seen, truth in judged[:whole]:
        boxes = kept(seen, calibration)
        if (iou := ground_truth_rule.mean_iou(boxes, truth)) is not None:
            measured.append(ground_truth_rule.Measured(sure, iou))
            wrong.append(not is_right(boxes, truth))
    least = ground_truth_rule.threshold(measured)
    if least is None:
        return Found(None, 0, 0, 0.0), msgspec.structs.replace(details, needs=None if whole else missing)
    accepted = [bad for one, bad in zip(measured, wrong, strict=True) if one.confidence >= least]
    share = sum(sure >= least for sure in pool) / max(1, len(pool))
    return Found(least, len(accepted), sum(accepted), share), details


def apply_certificate(
    store: Store,
    onlooker: Onlooker,
    *,
    limit: int | None = None,
    rng: random.Random | None = None,
    now_ms: int | None = None,
    watch: Watch = lambda *_: None,
) -> Applied:
    """Label what reaches the certified confidence, at most `limit` images, and draw the checks.

    Raises `RefusedError` when there is no certificate in force of this model, or what is unlabelled now is not like
    what it was measured on.
    """
    rng = rng or random.SystemRandom()
    certificate = in_force(store, onlooker.name)
    details = details_of(certificate)
    done = set(store.machine_labelled(source_of(certificate)).values())
    everything = list(shuffled(store, rng))
    looks = _Looks(store, onlooker, total=len(everything) + certificate.images, watch=watch)
    _require_alike(store, certificate, everything[:COMPARED], looks=looks)
    looked_at, labelled = 0, dict[str, Boxes]()
    for row in everything:
        if limit is not None and len(labelled) >= limit:
            break
        looked_at += 1
        if row.group_id in done or (seen := looks.at_row(row, details.labels)) is None:
            continue
        if _confidence(certificate.rule, seen, details.calibration) >= (certificate.threshold or 0.0):
            labelled[row.event_id] = kept(seen, details.calibration)
    now_ms = _now(now_ms)
    set_id = None
    if labelled:
        made = LabelSet(
            0, None, "machine", onlooker.name, "", details.labels, now_ms, source_of(certificate), minutes=None
        )
        set_id = store.labels.add(made, labelled)
    batch_id, checks = _draw_checks(store, certificate, rng=rng, now_ms=now_ms)
    boxes = sum(map(len, labelled.values()))
    return Applied(certificate, looked_at, looks.unreadable, len(labelled), boxes, set_id, batch_id, checks)


def _draw_checks(store: Store, certificate: Certificate, *, rng: random.Random, now_ms: int) -> tuple[int | None, int]:
    """Freeze a batch with the checks that are due: of each label set so many, also of one whose checks were cut off."""
    source = source_of(certificate)
    groups = store.machine_labelled(source)
    given = {member.event_id for row in store.batches() for member in store.batch_members(row.id)}
    of_set: dict[int, list[str]] = {}
    for one in store.labels.answers():
        if one.label_set.source == source and one.label_set.kind == "machine":
            of_set.setdefault(one.label_set.id, []).append(one.event_id)
    members = []
    for event_ids in of_set.values():
        left = sorted(set(event_ids) - given)
        due = math.ceil(CHECKED * len(event_ids) - 1e-9) - (len(event_ids) - len(left))
        drawn = rng.sample(left, max(0, due))
        members += [BatchMember(one, groups[one], f"check of {certificate.model}", 0.0) for one in drawn]
    if not members:
        return None, 0
    rng.shuffle(members)
    batch = store.freeze_batch(members, now_ms=now_ms, title=CHECKS, model=certificate.model)
    return batch, len(members)


class _Looks:
    """What the model sees, image by image, with the progress of it."""

    def __init__(self, store: Store, onlooker: Onlooker, *, total: int, watch: Watch) -> None:
        self._store, self._onlooker = store, onlooker
        self._total, self._watch = total, watch
        self._at: dict[str, Boxes | None] = {}
        self.unreadable = 0

    def at(self, event_id: str, labels: Iterable[str]) -> Boxes | None:
        """Return what is seen of these labels, None where the frame cannot be opened."""
        return self._look(event_id, lambda: True, labels)

    def at_row(self, row: Candidate, labels: Iterable[str]) -> Boxes | None:
        """Return what is seen of these labels, None where the frame would not be drawn for a random batch."""
        return self._look(row.event_id, lambda: can_be_opened(self._store, row), labels)

    def _look(self, event_id: str, usable: Callable[[], bool], labels: Iterable[str]) -> Boxes | None:
        if event_id not in self._at:
            self._at[event_id] = self._opinion(event_id) if usable() else None
            self.unreadable += self._at[event_id] is None
            self._watch(len(self._at), self._total)
        boxes = self._at[event_id]
        return None if boxes is None else of_labels(boxes, frozenset(labels))

    def _opinion(self, event_id: str) -> Boxes | None:
        try:
            return opinions(self._store, self._onlooker, [event_id])[event_id]
        except UnusableError:
            return None


def _confidence(rule: str, seen: Boxes, calibration: Calibration) -> float:
    """Return how sure the model is of an image, -1 where the rule of Ground Truth has no answer."""
    if rule == GUARANTEE:
        return confidence(seen, calibration)
    mean = ground_truth_rule.mean_score(kept(seen, calibration))
    return -1.0 if mean is None else mean


def _calibrated(basis: Validation, looks: _Looks, onlooker: Onlooker) -> Calibration:
    """Fit the scores on images that certify nothing; few of them stay near the model's own threshold."""
    rows = [
        outcome
        for truth in basis.calibrating
        if (seen := looks.at(truth.event_id, basis.labels)) is not None
        for outcome in outcomes(seen, of_labels(truth.boxes, basis.labels))
    ]
    return fitted(rows, Calibration(onlooker.score_threshold))


def _pool(
    asked: Asked, rows: Sequence[Candidate], looks: _Looks, labels: tuple[str, ...], calibration: Calibration
) -> list[float]:
    """Return the confidences of unlabelled images, the first in random order that can be opened."""
    found: list[float] = []
    for row in rows:
        if len(found) == asked.pool:
            break
        if (seen := looks.at_row(row, labels)) is not None:
            found.append(_confidence(asked.rule, seen, calibration))
    return found


def _require_all(basis: Validation, judged: int) -> None:
    if judged < len(basis.images):
        msg = (
            f"{len(basis.images) - judged} of the {len(basis.images)} random images cannot be opened any more:"
            " `hub check` says which; draw a new random batch"
        )
        raise RefusedError(msg)


def _require_alike(store: Store, certificate: Certificate, rows: Sequence[Candidate], *, looks: _Looks) -> None:
    """Raise `RefusedError` when what is unlabelled now is not like the random images, by the model's confidence."""
    details = details_of(certificate)
    after_ms = voided_at_ms(store, certificate.model)
    drawn = validation(store, can_tell=details.labels, names=details.labels, after_ms=after_ms).images
    seen = (
        [looks.at(one.event_id, details.labels) for one in drawn],
        [looks.at_row(one, details.labels) for one in rows],
    )
    here, there = (
        [_confidence(certificate.rule, one, details.calibration) for one in side if one is not None] for side in seen
    )
    if alike(here, there) < DRIFTED:
        msg = (
            f"the images here are not like those that certificate {certificate.id} was measured on: draw random ones"
            " (`hub batch new --random`), label them and certify again"
        )
        raise RefusedError(msg)


def _same(store: Store, onlooker: Onlooker, asked: Asked, digest: str) -> Certificate | None:
    """Return what an earlier attempt has found on the very same answers."""
    limits = (asked.epsilon, asked.delta) if asked.rule == GUARANTEE else (NO_LIMIT, NO_LIMIT)
    wanted = (onlooker.name, asked.rule, *limits)
    for one in store.labels.certificates():
        if (one.model, one.rule, one.epsilon, one.delta) == wanted and details_of(one).basis == digest:
            return one
    return None


def _digest(basis: Validation) -> str:
    """Return what tells apart answers that a certificate can be measured on."""
    answers = sorted((one.event_id, of_labels(one.boxes, basis.labels)) for one in basis.images)
    return hashlib.sha256(msgspec.json.encode((basis.labels, answers))).hexdigest()


def _now(now_ms: int | None) -> int:
    return time.time_ns() // 1_000_000 if now_ms is None else now_ms
