"""`low_confidence`: a tracked object that the detector reports only just above its threshold.

Once a track, then again after `REPEAT_S`: the frame in which it was first unsure.
"""

from typing import Final

from edge.contract.samples import Reason
from edge.observation import Mined, Observation
from edge.tracks import Link

MIN_STRONG: Final = 2
REPEAT_S: Final = 60.0


class LowConfidenceMiner:
    """Remembers which tracks of one camera were reported.

    Attributes:
        band: a detection this close above the threshold is unsure; may be replaced at any time.
    """

    def __init__(self, *, band: float) -> None:
        self.band = band
        self._reported_s: dict[int, float] = {}

    def mine(self, observation: Observation) -> list[Mined]:
        """Return the unsure detections of this frame that were not reported lately."""
        mined: list[Mined] = []
        for track in observation.tracks:
            if track.link is not Link.STRONG or track.strong < MIN_STRONG:
                continue
            margin = (track.score - observation.score_threshold) / max(1e-6, self.band)
            if margin >= 1.0:
                continue
            now_s = observation.frame.time_s
            if now_s - self._reported_s.get(track.id, -REPEAT_S) < REPEAT_S:
                continue
            self._reported_s[track.id] = now_s
            mined.append(
                Mined(
                    at=observation,
                    reason=Reason.LOW_CONFIDENCE,
                    severity=round(0.5 - 0.3 * max(0.0, margin), 4),
                    region=track.box,
                    class_id=track.class_id,
                    track_id=track.id,
                )
            )
        for track in observation.ended:
            self._reported_s.pop(track.id, None)
        return mined
