"""The frames that devices hold, and of which weak spots each is, remembered from round to round of asking.

Laws:

1. What may be asked for is read anew every round, by its numbers; of each number the frame is read once.
2. A number names one finding for as long as nothing is forgotten: after that the memory is to be dropped.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final

from edge.contract.samples import Reason
from hub.store_groups import DeviceKey, FrameRow
from hub.store_sightings import SightingRow
from hub.tags import Taggable, Tagger
from hub.testshare import is_beside_test
from hub.wants import Told, told
from hub.weakspots import WeakSpot, belongs

CONTROL_A_ROUND: Final = 2000  # of so many, the newest, the objects are read at once
_Part = tuple[DeviceKey, bool, tuple[int, ...]]


def _is_beside_test(frame: FrameRow) -> bool:
    """Whether no batch would take it, see hub.testshare: it is held, and never asked for."""
    where = {"site": frame.site, "device": frame.device, "camera": frame.camera}
    return is_beside_test(**where, captured_at_ms=frame.captured_at_ms)


class SpotMemory:
    """Which frames are held, and of which weak spots each frame is: reading and telling take longer than all the rest.

    A `control` frame is of those that an object in it is of; of none before its objects were read.
    """

    def __init__(self, tagger: Tagger) -> None:
        self._tagger = tagger
        self._spots: list[WeakSpot] = []
        self._held: dict[int, FrameRow] = {}
        self._untold: set[int] = set()  # of the held ones
        self._here: set[int] = set()
        self._spots_of: dict[int, tuple[int, ...]] = {}
        self._parts: dict[_Part, dict[int, FrameRow]] = {}
        self._part_of: dict[int, _Part] = {}

    def hold(self, numbers: set[int], read: Callable[[Collection[int]], Iterable[FrameRow]]) -> None:
        """Hold the frames of these findings and no others; `read` returns the frames of those not known yet."""
        for number in [number for number in self._held if number not in numbers]:
            del self._held[number]
            self._untold.discard(number)
            self._take_out(number)
            if number not in self._here:
                self._spots_of.pop(number, None)
        for frame in read(new) if (new := numbers.difference(self._held)) else ():
            self._held[frame.id] = frame
            if not _is_beside_test(frame):
                self._untold.add(frame.id)

    @property
    def holds_any(self) -> bool:
        """Whether any device holds a frame that may be asked for."""
        return bool(self._held)

    def begin(
        self,
        spots: Sequence[WeakSpot],
        here: Sequence[FrameRow],
        objects: Callable[[Sequence[int]], Iterable[SightingRow]],
    ) -> None:
        """Begin a round with these weak spots; what is neither held nor here is forgotten.

        Args:
            spots: the weak spots that need frames.
            here: frames beside the held ones that the round will ask about.
            objects: returns the objects of `control` frames, by the numbers of their findings.
        """
        if _meanings(spots) != _meanings(self._spots):
            self._spots_of, self._parts, self._part_of, self._untold = {}, {}, {}, set(self._held)
        self._spots = list(spots)
        before, self._here = self._here, {frame.id for frame in here}
        for number in before - self._here:
            if number not in self._held:
                self._spots_of.pop(number, None)
        untold = [self._held[number] for number in self._untold]
        self._tell([*untold, *(f for f in here if f.id not in self._spots_of and f.id not in self._untold)], objects)
        for frame in untold:
            self._put_in(frame)
        self._untold = {frame.id for frame in untold if frame.id not in self._spots_of}

    def _tell(self, frames: Iterable[FrameRow], objects: Callable[[Sequence[int]], Iterable[SightingRow]]) -> None:
        by_chance = []
        for frame in frames:
            if frame.reason == Reason.CONTROL:
                by_chance.append(frame.id)
            else:
                self._spots_of[frame.id] = self._told(frame)
        if not self._spots:
            self._spots_of.update(dict.fromkeys(by_chance, ()))
            return
        new = sorted(by_chance, reverse=True)[:CONTROL_A_ROUND]
        self._spots_of.update(dict.fromkeys(new, ()))
        for one in objects(new) if new else ():
            numbers = (*self._spots_of[one.finding_id], *self._told(one))
            self._spots_of[one.finding_id] = tuple(dict.fromkeys(numbers))

    def held(self, living: Collection[DeviceKey]) -> Told:
        """Return the frames that these devices hold."""
        return told(
            (is_control, spots, frames.values())
            for (device, is_control, spots), frames in self._parts.items()
            if device in living
        )

    def told(self, frames: Iterable[FrameRow]) -> Told:
        """Return frames that are not held."""
        return told((frame.reason == Reason.CONTROL, self.spots_of(frame), (frame,)) for frame in frames)

    def spots_of(self, frame: FrameRow) -> tuple[int, ...]:
        """Return the numbers of the weak spots that a frame is of."""
        numbers = self._spots_of.get(frame.id)
        if numbers is None:
            return () if frame.reason == Reason.CONTROL else self._told(frame)
        return numbers

    def _told(self, one: Taggable) -> tuple[int, ...]:
        return tuple(spot.id for spot in self._spots if belongs(spot, one, self._tagger))

    def _put_in(self, frame: FrameRow) -> None:
        self._take_out(frame.id)
        part = (frame.of, frame.reason == Reason.CONTROL, self._spots_of.get(frame.id, ()))
        self._parts.setdefault(part, {})[frame.id] = frame
        self._part_of[frame.id] = part

    def _take_out(self, number: int) -> None:
        part = self._part_of.pop(number, None)
        if part is not None:
            del self._parts[part][number]
            if not self._parts[part]:
                del self._parts[part]


def _meanings(spots: Iterable[WeakSpot]) -> list[tuple[int, tuple[str, ...], str]]:
    return [(spot.id, spot.tags, spot.where) for spot in spots]
