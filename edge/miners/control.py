"""`control`: frames drawn uniformly at random in time, so that rates can be estimated.

A Poisson process in the camera's own time: every moment is equally likely, whatever the frame rate. A moment without
pictures is none: after an outage the first frame is no likelier than any other.
"""

import math
import random
from typing import Final

from edge.contract.samples import Reason
from edge.observation import Mined, Observation

MAX_STEP_S: Final = 10.0


class ControlMiner:
    """Draws frames of one camera. The same seed and times draw the same frames.

    Attributes:
        per_hour: how many an hour, on average; may be replaced at any time.
    """

    def __init__(self, *, per_hour: float, seed: int) -> None:
        self.per_hour = per_hour
        self._random = random.Random(seed)  # noqa: S311 (a sample, not a secret)
        self._last_s: float | None = None

    def mine(self, observation: Observation) -> list[Mined]:
        """Return the whole frame if it was drawn."""
        now_s = observation.frame.time_s
        elapsed_s = 0.0 if self._last_s is None else min(MAX_STEP_S, max(0.0, now_s - self._last_s))
        self._last_s = now_s
        if self._random.random() >= 1.0 - math.exp(-self.per_hour / 3600.0 * elapsed_s):
            return []
        height, width = observation.frame.image.shape[:2]
        region = (0.0, 0.0, float(width), float(height))
        return [Mined(observation, Reason.CONTROL, severity=0.0, region=region, drawn_per_hour=self.per_hour)]
