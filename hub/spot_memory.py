"""Of which weak spots a frame is, remembered from round to round of asking."""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from edge.contract.samples import Reason
from hub.store_groups import FrameRow
from hub.store_sightings import SightingRow
from hub.tags import Taggable, Tagger
from hub.weakspots import WeakSpot, belongs

CONTROL_A_ROUND: Final = 2000  # of so many, the newest, the objects are read at once


class SpotMemory:
    """Of which weak spots each frame is. It is told once and remembered: telling takes longer than all the rest.

    A `control` frame is of those that an object in it is of.
    """

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger
        self._spots: list[WeakSpot] = []
        self._before: dict[int, tuple[int, ...]] = {}
        self._now: dict[int, tuple[int, ...]] = {}

    def begin(
        self,
        spots: Sequence[WeakSpot],
        frames: Iterable[FrameRow],
        objects: Callable[[Sequence[int]], Iterable[SightingRow]],
    ) -> None:
        """Begin a round with these weak spots; frames that the last round did not ask about are forgotten.

        Args:
            spots: the weak spots that need frames.
            frames: all of the round.
            objects: returns the objects of `control` frames, by the numbers of their findings.
        """
        same = _meanings(spots) == _meanings(self._spots)
        self._spots, self._before, self._now = list(spots), self._now if same else {}, {}
        chance = [one.id for one in frames if one.reason == Reason.CONTROL and one.id not in self._before]
        new = sorted(chance, reverse=True)[:CONTROL_A_ROUND] if spots else []
        for one in objects(new) if new else ():
            self._before[one.finding_id] = (*self._before.get(one.finding_id, ()), *self._told(one))
        for number in new:
            self._before.setdefault(number, ())

    def spots_of(self, frame: FrameRow) -> tuple[int, ...]:
        """Return the numbers of the weak spots that a frame is of."""
        numbers = self._before.get(frame.id)
        if numbers is None:
            if frame.reason == Reason.CONTROL:
                return ()  # a later round looks at its objects
            numbers = self._told(frame)
        self._now[frame.id] = numbers
        return numbers

    def _told(self, one: Taggable) -> tuple[int, ...]:
        return tuple(spot.id for spot in self._spots if belongs(spot, one, self._tagger))


def _meanings(spots: Iterable[WeakSpot]) -> list[tuple[int, tuple[str, ...], str]]:
    return [(spot.id, spot.tags, spot.where) for spot in spots]
