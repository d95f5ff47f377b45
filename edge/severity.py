"""From witnesses to one number: the probability that what they claim is a true miss.

A logistic model: severity = logistic(bias + the sum of weight times witness score + `refuted`, where the second look
saw nothing). The built-in weights were fitted on the annotated first half of `vtest.avi` and on clips made from coco128
(`python -m tests.benchmarks severity` fits them anew and draws the reliability diagram), but for `refuted`, which is
set: the annotations have people who are really hidden, and what nobody can see is no miss. The hub can send better
weights for a camera.
"""

import math
from collections.abc import Sequence

from edge.contract.policy import Weights
from edge.contract.samples import Witness


def severity(witnesses: Sequence[Witness], *, refuted: bool, weights: Weights) -> float:
    """Return the probability, 0..1 to four digits, that a miss with these witnesses is a true one."""
    logit = weights.bias + (weights.refuted if refuted else 0.0)
    for witness in witnesses:
        weight: float = getattr(weights, witness.kind.value)
        logit += weight * witness.score
    return round(1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit)))), 4)
