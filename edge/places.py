"""`KnownPlaces`: the places of one camera that were reported for one thing, and are therefore quiet.

Laws:

1. A place that was remembered is known for `quiet_s` of wall clock, and no longer.
2. At most `most` places are held; the one remembered longest ago leaves first.
3. `load(dump())` gives the same answers. What is broken raises `UnusableError` and changes nothing.
4. A clock that is wrong does no harm. One that was set back ends no quiet and makes none longer than `quiet_s` from
   the moment that it is noticed. One that has not been set yet (a device without a battery begins in 1970) lets no
   place of a set clock grow old, and what was remembered under it begins anew when the clock is set.
   One that runs ahead ends the quiet early: a report too many.

Times are UTC milliseconds since 1970, so that they hold over restarts. Class ids are the model's: whoever stores a
dump stores the model's release beside it.

One thread remembers; any thread may dump meanwhile.
"""

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.samples import Count, Xyxy
from edge.detector.detections import box_iou

SET_MS: Final = 1_577_836_800_000  # 2020-01-01: a clock before it was never set
_FAR: Final = 1e9


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One place that was reported, `xyxy` in pixels of the frame, and when it was last remembered."""

    class_id: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    xyxy: Xyxy
    at_ms: Count


class KnownPlaces:
    """Remembers where one thing was reported.

    Args:
        quiet_s: how long a place is known after it was last remembered.
        min_iou: from here on two boxes of one class are the same place.
        most: number of places held.
    """

    def __init__(self, *, quiet_s: float, min_iou: float = 0.7, most: int = 500) -> None:
        self._quiet_ms = quiet_s * 1e3
        self._min_iou = min_iou
        self._most = most
        self._places: tuple[Place, ...] = ()  # replaced as a whole: a dump of another thread sees one state

    def __len__(self) -> int:
        """Return the number of places held, known or about to be forgotten."""
        return len(self._places)

    def is_known(self, xyxy: Xyxy, class_id: int, *, now_ms: int) -> bool:
        """Return whether the place was remembered within `quiet_s`. Renews nothing."""
        self._forget(now_ms)
        return self._find(xyxy, class_id) is not None

    def remember(self, xyxy: Xyxy, class_id: int, *, now_ms: int) -> None:
        """Make the place known from now on. One that is known keeps its box, so that it cannot creep."""
        self._forget(now_ms)
        known = self._find(xyxy, class_id)
        place = Place(class_id, xyxy if known is None else known.xyxy, max(0, now_ms))
        others = [other for other in self._places if other is not known]
        self._places = (*others, place)[-self._most :]

    def dump(self) -> list[Place]:
        """Return the places, the one remembered longest ago first."""
        return list(self._places)

    def load(self, places: object) -> None:
        """Take the places of a dump, or of its JSON or msgpack once decoded, instead of those held.

        Raises `UnusableError` when they are not such a list, or one of them is no place.
        """
        try:
            read = msgspec.convert(places, list[Place])
        except msgspec.ValidationError as error:
            msg = f"the places are not valid: {error}"
            raise UnusableError(msg) from error
        _require_boxes(read)
        self._places = tuple(read[-self._most :])

    def _find(self, xyxy: Xyxy, class_id: int) -> Place | None:
        """Return the held place of that class that overlaps the box most, if it is the same place."""
        of_class = [place for place in self._places if place.class_id == class_id]
        boxes = np.array([place.xyxy for place in of_class], np.float32).reshape(-1, 4)
        iou = box_iou(boxes, np.array([xyxy], np.float32))[:, 0]
        return of_class[int(iou.argmax())] if iou.max(initial=0.0) >= self._min_iou else None

    def _forget(self, now_ms: int) -> None:
        """Drop what is no longer quiet, and mend the times that the clock contradicts."""
        held = (_mended(place, now_ms) for place in self._places)
        self._places = tuple(place for place in held if now_ms - place.at_ms < self._quiet_ms)


def _mended(place: Place, now_ms: int) -> Place:
    """Return the place as of `now_ms`, of an age that can be believed."""
    was_set, is_set = place.at_ms >= SET_MS, now_ms >= SET_MS
    if was_set and not is_set:
        return place  # its age is not known as long as the clock is not set
    if was_set != is_set or place.at_ms > now_ms:
        return msgspec.structs.replace(place, at_ms=max(0, now_ms))
    return place


def _require_boxes(places: Iterable[Place]) -> None:
    for place in places:
        x1, y1, x2, y2 = place.xyxy
        if not (-_FAR < x1 < x2 < _FAR and -_FAR < y1 < y2 < _FAR):  # false for what is not finite, too
            msg = f"the place {place.xyxy} is no box"
            raise UnusableError(msg)
