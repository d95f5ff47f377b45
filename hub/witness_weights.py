"""Better severity weights from verdicts: what the witnesses of each camera are worth, as far as verdicts say. Pure.

Severity is a logistic model (edge.severity): bias, one weight a witness, and `refuted` where the second look saw
nothing. The weights of the whole fleet and of each camera are fitted together, as the most likely ones when the fleet's
lie around the built-in ones and each camera's around the fleet's (Gaussian priors): a camera with few verdicts stays
near the fleet, a fleet with few near what is built in. Newton's method on the convex posterior, within the signs: a
witness never lowers the severity, a second look that saw nothing never raises it.

What was reported was selected: by the severity of that time, which is a function of the witnesses alone. Given the
witnesses, the share of true ones is the same among the reported and the others, so the fit is not biased by it
(truncation on the explaining variables); this is why witnesses are fitted, and not the share of true ones alone, which
would rise with `min_severity`. Two things cannot be corrected. Below the severities that were reported nothing is
known: there the prior speaks, and what falls below `min_severity` is not seen any more, so it cannot be learned back
(`hub policy clear`, or a lower `min_severity`, asks again). And batches are chosen for weak spots, so that the verdicts
are of some kinds more than of others: where a witness is worth less for a kind, the fit takes the kinds as annotated.

Laws:

1. Without verdicts the weights are the built-in ones.
2. The result does not depend on the order of the cases.
3. A camera gets new weights only where they foresee verdicts that they were not fitted on better than the present ones
   do, by a margin and beyond chance, on at least `MIN_VERDICTS`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge.contract.policy import BUILT_IN, WEIGHED, Weights
from edge.contract.samples import Witness

MIN_VERDICTS: Final = 30
MIN_GAIN: Final = 0.01  # nats a finding, of log loss
SURE: Final = 1.645  # standard errors that the gain lies above 0: 5 % by chance
FOLDS: Final = 5
KEYS: Final = ("bias", *(kind.value for kind in WEIGHED), "refuted")
_DIGITS: Final = 2

Floats = NDArray[np.float64]
CameraT = TypeVar("CameraT", bound=Hashable)

_FLEET_SD: Final = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 1.0])  # of the fleet's weights around the built-in ones
_CAMERA_SD: Final = np.array([1.0, 0.7, 0.7, 0.7, 0.7, 0.7])  # of a camera's around the fleet's
_LEAST: Final = np.array([-50.0, 0.0, 0.0, 0.0, 0.0, -50.0])
_MOST: Final = np.array([50.0, 50.0, 50.0, 50.0, 50.0, 0.0])
_ROUNDS: Final = 200
_STEPS: Final = 50
_STILL: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Case:
    """One judged `missed` finding.

    Attributes:
        row: `[6]`, 1, the score of each witness, whether it was refuted; in the order of `KEYS`.
        right: whether something was missed.
        at_ms: when it was captured; those of one moment are never split between fitting and trying.
    """

    row: tuple[float, ...]
    right: bool
    at_ms: int


@dataclass(frozen=True, slots=True)
class Fit:
    """The fleet's weights `[6]`, in the order of `KEYS`, and each camera's."""

    fleet: Floats
    cameras: Mapping[Any, Floats]


@dataclass(frozen=True, slots=True)
class Quality:
    """How well severities foresee verdicts: log loss in nats a finding, and Brier score. Lower is better."""

    log_loss: float
    brier: float


@dataclass(frozen=True, slots=True)
class Proposal(Generic[CameraT]):
    """What the verdicts say of one camera's weights.

    Attributes:
        present: the weights that it uses.
        fitted: those that were fitted on all verdicts.
        before: of the present weights.
        after: of fitted ones on verdicts that they were not fitted on; None where there are too few to tell.
        missing: how many more verdicts it takes, 0 where there are enough.
        better: whether the camera should get them.
        foreseen: `[n, 2]`, severities by the present weights and by those fitted without the case.
        right: `[n]`, the verdicts.
    """

    camera: CameraT
    verdicts: int
    present: Weights
    fitted: Weights
    before: Quality | None
    after: Quality | None
    missing: int
    better: bool
    foreseen: Floats
    right: Floats


def case_of(witnesses: Sequence[Witness], *, refuted: bool, right: bool, at_ms: int) -> Case:
    """Return a finding as the model sees it."""
    scores = {witness.kind.value: witness.score for witness in witnesses}
    return Case((1.0, *(scores.get(kind.value, 0.0) for kind in WEIGHED), float(refuted)), right, at_ms)


def proposals(cases: Mapping[CameraT, Sequence[Case]], present: Mapping[CameraT, Weights]) -> list[Proposal[CameraT]]:
    """Return what the verdicts say of each camera in `cases`, in their order.

    `present` has the weights of the cameras that use others than the built-in ones.
    """
    ordered = {camera: _ordered(of) for camera, of in cases.items()}
    whole = fit(ordered)
    parts = {camera: _parts(of) for camera, of in ordered.items()}
    without = [
        fit(
            {
                camera: [c for c, at in zip(of, parts[camera], strict=True) if at != fold]
                for camera, of in ordered.items()
            }
        )
        for fold in range(FOLDS)
    ]
    return [
        _proposal(
            camera,
            of,
            present.get(camera, BUILT_IN),
            whole,
            [(one, parts[camera] == k) for k, one in enumerate(without)],
        )
        for camera, of in ordered.items()
    ]


def fit(cases: Mapping[CameraT, Sequence[Case]]) -> Fit:
    """Return the most likely weights of the fleet and of each camera in `cases`, which may have none."""
    built_in = as_row(BUILT_IN)
    tables = {camera: (_rows(of), _rights(of)) for camera, of in cases.items() if of}
    fleet = built_in
    found = dict.fromkeys(tables, built_in)
    around, within = _FLEET_SD**-2.0, _CAMERA_SD**-2.0
    for _ in range(_ROUNDS):
        found = {camera: _most_likely(*tables[camera], centre=fleet, start=found[camera]) for camera in tables}
        drawn = around * built_in + within * sum(found.values(), np.zeros(len(KEYS)))
        moved = np.clip(drawn / (around + len(found) * within), _LEAST, _MOST)
        if np.abs(moved - fleet).max() < _STILL:
            break
        fleet = moved
    return Fit(fleet, {camera: found.get(camera, fleet) for camera in cases})


def as_row(weights: Weights) -> Floats:
    """Return the weights as `[6]`."""
    return np.array([getattr(weights, key) for key in KEYS], np.float64)


def as_weights(row: Floats) -> Weights:
    """Return `[6]` as weights, rounded to two digits: what is sent is what was tried."""
    return Weights(**{key: round(float(value), _DIGITS) + 0.0 for key, value in zip(KEYS, row, strict=True)})


def severities(weights: Weights, cases: Sequence[Case]) -> Floats:
    """Return `[n]`, the severity that a device with these weights gives each case."""
    return _logistic(_rows(cases) @ as_row(weights))


def quality(foreseen: Floats, right: Floats) -> Quality:
    """Return how well `[n]` severities foresee `[n]` verdicts, at least one."""
    return Quality(round(float(_losses(foreseen, right).mean()), 4), round(float(((foreseen - right) ** 2).mean()), 4))


def _proposal(
    camera: CameraT,
    cases: Sequence[Case],
    present: Weights,
    whole: Fit,
    held_out: Sequence[tuple[Fit, NDArray[np.bool_]]],
) -> Proposal[CameraT]:
    right = _rights(cases)
    before = severities(present, cases)
    after = before.copy()
    for without, part in held_out:
        chosen = [case for case, is_in in zip(cases, part.tolist(), strict=True) if is_in]
        after[part] = severities(as_weights(without.cameras[camera]), chosen)
    missing = max(0, MIN_VERDICTS - len(cases))
    fitted = as_weights(whole.cameras[camera])
    tried = bool(cases) and not missing
    return Proposal(
        camera=camera,
        verdicts=len(cases),
        present=present,
        fitted=fitted,
        before=quality(before, right) if cases else None,
        after=quality(after, right) if tried else None,
        missing=missing,
        better=tried and fitted != present and _is_better(before, after, right),
        foreseen=np.stack([before, after], axis=1),
        right=right,
    )


def _is_better(before: Floats, after: Floats, right: Floats) -> bool:
    """Return whether the gain is enough, and more than chance.

    One right and one wrong case of the mean severity are added: a few verdicts that are all alike prove little.
    """
    right = np.append(right, (1.0, 0.0))
    before, after = (np.append(one, (one.mean(), one.mean())) for one in (before, after))
    gains = _losses(before, right) - _losses(after, right)
    mean, error = float(gains.mean()), float(gains.std(ddof=1)) / len(gains) ** 0.5
    return mean >= MIN_GAIN and mean > SURE * error


def _ordered(cases: Sequence[Case]) -> list[Case]:
    return sorted(cases, key=lambda case: (case.at_ms, case.row, case.right))


def _parts(cases: Sequence[Case]) -> NDArray[np.int64]:
    """Return `[n]`, to which of the folds each case belongs: stretches of time, so that a fold is not its neighbour."""
    parts = np.arange(len(cases)) * FOLDS // max(1, len(cases))
    for at in range(1, len(cases)):
        if cases[at].at_ms == cases[at - 1].at_ms:
            parts[at] = parts[at - 1]
    return parts


def _most_likely(rows: Floats, right: Floats, *, centre: Floats, start: Floats) -> Floats:
    """Minimise the negative log posterior within the signs, by projected Newton steps (Bertsekas, 1982)."""
    precision = _CAMERA_SD**-2.0

    def cost(w: Floats) -> float:
        away = w - centre
        return float(
            np.logaddexp(0.0, np.where(right > 0, -1.0, 1.0) * (rows @ w)).sum() + 0.5 * away @ (precision * away)
        )

    w = np.clip(start, _LEAST, _MOST)
    for _ in range(_STEPS):
        p = _logistic(rows @ w)
        gradient = rows.T @ (p - right) + precision * (w - centre)
        hessian = (rows * (p * (1 - p))[:, None]).T @ rows + np.diag(precision)
        free = ~(((w <= _LEAST) & (gradient > 0)) | ((w >= _MOST) & (gradient < 0)))
        step = np.zeros(len(w))
        step[free] = np.linalg.solve(hessian[np.ix_(free, free)], -gradient[free])
        now, length = cost(w), 1.0
        while cost(moved := np.clip(w + length * step, _LEAST, _MOST)) > now and length > 1e-6:
            length /= 2
        if np.abs(moved - w).max() < _STILL:
            return moved
        w = moved
    return w


def _rows(cases: Sequence[Case]) -> Floats:
    return np.array([case.row for case in cases], np.float64).reshape(-1, len(KEYS))


def _rights(cases: Sequence[Case]) -> Floats:
    return np.array([case.right for case in cases], np.float64)


def _logistic(logits: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0))), np.float64)


def _losses(foreseen: Floats, right: Floats) -> Floats:
    p = np.clip(foreseen, 1e-4, 1 - 1e-4)  # a severity has four digits
    return np.asarray(-np.log(np.where(right > 0, p, 1 - p)), np.float64)
