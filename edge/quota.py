"""Token buckets, one a camera and reason. A rule: values and `now_s` come in, nothing is opened or counted.

Law: in any span of `t` seconds at most `burst + per_hour / 3600 * t` samples of one camera and reason are admitted.
Where the limits change within the span, its burst is the largest and each second counts at the rate it had.
"""

from dataclasses import dataclass, field

from edge.config import QuotaConfig
from edge.contract.samples import Reason


@dataclass(slots=True)
class Quota:
    """The buckets of one device. `now_s` never runs backwards for one camera; where it does, no time has passed."""

    config: QuotaConfig
    _buckets: dict[tuple[str, Reason], tuple[float, float]] = field(default_factory=dict)

    def admit(self, camera: str, reason: Reason, *, now_s: float) -> bool:
        """Return whether one more sample may be made, and take its token."""
        tokens, filled_s = self._filled(camera, reason, now_s)
        admitted = tokens >= 1.0
        self._buckets[camera, reason] = (tokens - admitted, filled_s)
        return admitted

    def adopt(self, config: QuotaConfig, *, now_s: float) -> None:
        """Go on with other limits. Tokens are kept as far as the new burst allows; a rate of 0 leaves none."""
        for camera, reason in self._buckets:
            tokens, filled_s = self._filled(camera, reason, now_s)
            most = float(config.burst) if config.per_hour(reason) > 0 else 0.0
            self._buckets[camera, reason] = (min(most, tokens), filled_s)
        self.config = config

    def _filled(self, camera: str, reason: Reason, now_s: float) -> tuple[float, float]:
        """Return the tokens of a bucket and up to when it is filled."""
        burst = float(self.config.burst)
        rate = self.config.per_hour(reason) / 3600.0
        tokens, filled_s = self._buckets.get((camera, reason), (burst if rate > 0 else 0.0, now_s))
        return min(burst, tokens + rate * max(0.0, now_s - filled_s)), max(now_s, filled_s)
