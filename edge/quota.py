"""Token buckets, one a camera and reason. A rule: values and `now_s` come in, nothing is opened or counted.

Law: in any span of `t` seconds at most `burst + per_hour / 3600 * t` samples of one camera and reason are admitted.
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
        burst = float(self.config.burst)
        rate = self.config.per_hour(reason) / 3600.0
        tokens, filled_s = self._buckets.get((camera, reason), (burst if rate > 0 else 0.0, now_s))
        tokens = min(burst, tokens + rate * max(0.0, now_s - filled_s))
        admitted = tokens >= 1.0
        self._buckets[camera, reason] = (tokens - admitted, max(now_s, filled_s))
        return admitted
