"""`suspect`: a likely false positive. Here the one-frame ghost: reported once, and nothing there before or after.

Frames more than `MAX_STEP_S` apart say nothing about it: an object can come and go between them.
An isolated detection is mostly a false positive, a hole in a track mostly a miss (Jin et al., ECCV 2018).
"""

from typing import Final

from edge.contract.samples import Reason
from edge.observation import Mined, Observation, is_inside
from edge.tracks import Link

MAX_WEAK: Final = 1
MAX_STEP_S: Final = 0.35
BORDER_SHARE: Final = 0.015  # of the longer side: a box rarely reaches the very last pixel


class SuspectMiner:
    """Holds the first sight of every young track until the track ends or is seen again."""

    def __init__(self) -> None:
        self._first: dict[int, Mined] = {}
        self._last_s: float | None = None

    def mine(self, observation: Observation) -> list[Mined]:
        """Return the tracks that ended with this frame and were detected in one frame only."""
        now_s = observation.frame.time_s
        is_next = self._last_s is not None and now_s - self._last_s <= MAX_STEP_S
        self._last_s = now_s
        if not is_next:
            self._first.clear()
            return []
        border_px = BORDER_SHARE * max(observation.frame.image.shape[:2])
        for track in observation.tracks:
            if track.strong > 1 or track.weak > MAX_WEAK or not is_inside(track.box, observation, border_px=border_px):
                self._first.pop(track.id, None)  # the frame is held no longer
                continue
            if track.link is not Link.STRONG:
                continue
            above = (track.score - observation.score_threshold) / max(1e-6, 1.0 - observation.score_threshold)
            self._first[track.id] = Mined(
                at=observation,
                reason=Reason.SUSPECT,
                severity=round(0.3 + 0.5 * above, 4),
                region=track.box,
                class_id=track.class_id,
                track_id=track.id,
            )
        ghosts: list[Mined] = []
        for track in observation.ended:
            first = self._first.pop(track.id, None)
            if first is not None and track.weak <= MAX_WEAK:
                ghosts.append(first)
        return ghosts
