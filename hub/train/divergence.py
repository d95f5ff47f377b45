"""How far a score is from the old model's: what every head pays for leaving the old model's word.

It is the divergence of two answers of yes or no (Kullback and Leibler): zero where both say the same, with a slope that
grows with the distance. A focal weight by the distance would leave small moves of many scores next to free.

Law: two scores below `NOTHING` say the same, and two as near to 1. Where the old model says something, the slope does
not end, however far the score has gone.
"""

from typing import Final

import torch

from hub.train.lesson import Tensor

NOTHING: Final = 1e-3
SAID: Final = 0.05
"""From here on the old model says something: the lowest score that a device looks at."""
_EPSILON: Final = 1e-6


def divergence(score: Tensor, old: Tensor) -> Tensor:
    """Return it for each of two tensors of scores, 0..1, of one shape."""
    said = old.clamp(NOTHING, 1 - NOTHING)
    now = _EPSILON + (1 - 2 * _EPSILON) * score
    now = torch.where(old < SAID, now.clamp(min=NOTHING), now)
    now = torch.where(old > 1 - SAID, now.clamp(max=1 - NOTHING), now)
    return said * (said / now).log() + (1 - said) * ((1 - said) / (1 - now)).log()
