"""The tracks of Frigate that have not ended, and which picture shows which. Rules only: values and `now_s` come in.

A picture from Frigate's API is asked for by the track's id (`keep`). One from the broker names its camera and label,
neither the track nor its time (`offer`). Frigate publishes it right after the message in which that frame became the
track's best, and later ones without any message: so it is bound to a track and a place when it is the first after such
a message, and no other track of that camera and label lives. A track of which only the end was heard takes the picture
that came while it must have been followed, or comes then.

Laws:

1. A track comes out of `finished` at most once.
2. At most `MAX_LIVE` tracks and `MAX_STRAY` other pictures are held; the one least lately spoken of leaves first. A
   track that leaves so is counted.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from edge.frigate import FrigateTrack, Sight

MAX_LIVE: Final = 32
MAX_STRAY: Final = 16
MAX_DONE: Final = 512
PATIENCE_S: Final = 2.0
FRESH_S: Final = 0.5
FORGET_S: Final = 300.0
_SLACK_S: Final = 1.0


class Picture(NamedTuple):
    """A JPEG that shows a track at `sight`."""

    jpeg: bytes
    sight: Sight


class Pictured(NamedTuple):
    """A track that has ended, and its picture, None where there is none."""

    track: FrigateTrack
    picture: Picture | None


@dataclass(slots=True)
class _Live:
    """`fresh_s`: when its best frame was told, while the picture of that frame has not come."""

    track: FrigateTrack
    touched_s: float
    ended_s: float | None = None
    fresh_s: float | None = None
    only_end: bool = False
    picture: Picture | None = None


@dataclass(slots=True)
class FrigateTracks:
    """The tracks of one Frigate. `now_s` is the caller's monotonic time.

    Attributes:
        patience_s: how long a track that has ended waits for a picture.
        pushed_out: tracks for which there was no room.
    """

    patience_s: float = PATIENCE_S
    pushed_out: int = 0
    _live: OrderedDict[str, _Live] = field(default_factory=OrderedDict)
    _stray: OrderedDict[tuple[str, str], tuple[bytes, float]] = field(default_factory=OrderedDict)
    _done: OrderedDict[str, None] = field(default_factory=OrderedDict)

    def note(self, track: FrigateTrack, *, now_s: float) -> None:
        """Take what a message says of a track."""
        if track.id in self._done:
            return
        live = self._live.get(track.id)
        if live is None:
            live = self._live[track.id] = _Live(track, now_s, only_end=track.ended)
        live.track, live.touched_s = track, now_s
        if track.ended:
            live.ended_s = now_s if live.ended_s is None else live.ended_s
        elif track.sight is not None and track.sight.time_s == track.seen_s:
            live.fresh_s = now_s
        self._live.move_to_end(track.id)
        if live.only_end:
            self._adopt(live, now_s)
        if len(self._live) > MAX_LIVE:
            self._live.popitem(last=False)
            self.pushed_out += 1

    def offer(self, camera: str, label: str, jpeg: bytes, *, now_s: float) -> None:
        """Take a picture of the best track of a camera and label."""
        takers = self._of(camera, label)
        if not takers:
            self._stray[camera, label] = (jpeg, now_s)
            self._stray.move_to_end((camera, label))
            if len(self._stray) > MAX_STRAY:
                self._stray.popitem(last=False)
        elif len(takers) == 1:
            live = takers[0]
            is_fresh = live.fresh_s is not None and now_s - live.fresh_s <= FRESH_S
            if live.track.sight is not None and (is_fresh or live.only_end):
                live.picture = Picture(jpeg, live.track.sight)
        for live in takers:
            live.fresh_s = None

    def lacks(self, track: FrigateTrack) -> bool:
        """Return whether a picture of the track's best frame is to be asked for.

        When it has ended, an older frame will do: what Frigate saved then may have boxes drawn on it.
        """
        live = self._live.get(track.id)
        if live is None or track.sight is None:
            return False
        return live.picture is None or (not track.ended and live.picture.sight != track.sight)

    def keep(self, track: FrigateTrack, jpeg: bytes) -> None:
        """Take the picture of a track's best frame."""
        live = self._live.get(track.id)
        if live is not None and track.sight is not None:
            live.picture = Picture(jpeg, track.sight)

    def finished(self, *, now_s: float) -> list[Pictured]:
        """Take the tracks that have ended and have a picture, or have waited `patience_s` for one."""
        out = []
        for live in list(self._live.values()):
            waited_s = None if live.ended_s is None else now_s - live.ended_s
            if waited_s is not None and (live.picture is not None or waited_s >= self.patience_s):
                self._finish(live)
                out.append(Pictured(live.track, live.picture))
            elif waited_s is None and now_s - live.touched_s > FORGET_S:
                del self._live[live.track.id]  # its end was not heard
        return out

    def forget(self) -> None:
        """Drop what has not ended: Frigate was started anew and will not end it."""
        for live in list(self._live.values()):
            if live.ended_s is None:
                del self._live[live.track.id]
        self._stray.clear()

    def _of(self, camera: str, label: str) -> list[_Live]:
        return [live for live in self._live.values() if (live.track.camera, live.track.label) == (camera, label)]

    def _adopt(self, live: _Live, now_s: float) -> None:
        """Give a track of which only the end was heard the picture that came while it was followed."""
        key, sight = (live.track.camera, live.track.label), live.track.sight
        if sight is not None and len(self._of(*key)) == 1:
            jpeg, at_s = self._stray.pop(key, (None, 0.0))
            if jpeg is not None and now_s - at_s <= live.track.age_s + _SLACK_S:
                live.picture = Picture(jpeg, sight)

    def _finish(self, live: _Live) -> None:
        del self._live[live.track.id]
        self._done[live.track.id] = None
        if len(self._done) > MAX_DONE:
            self._done.popitem(last=False)
