"""What Frigate's messages mean, which of its tracks are findings, and where they stand in a snapshot.

Rules only, no I/O. The fields are those of Frigate's published MQTT documents in two forms: the older one with
`snapshot_time` (about 0.12) and the one with `snapshot` (seen in 0.13, and in the documents of 2026), compared with its
public source. The tests speak to a simulator that behaves so; no Frigate was run.

How Frigate behaves: it begins a track with any box above `min_score`, and calls it a false positive until the median
of its last scores has reached `threshold`. Only then does it publish the first message of the track on `events`
(`new`), then `update`s, then `end`. A track that never reaches the threshold is published nowhere and has no snapshot.
So to hear of the tracks that Frigate drops, its `threshold` is lowered there and kept in `[frigate]` here: what lies
between the two is what Frigate would have dropped.

The rules, the first that fits:

1. `missed`: a track that Frigate dropped: it is marked `false_positive`, or its top score stays under `threshold`.
   Whoever uses Frigate was told nothing: a miss if an object was there. The witness is `candidate`, the surer the
   nearer the score came and the longer the track was seen.
2. `suspect`: a track that Frigate believed and saw for less than `BRIEF_S`, and not at the picture's border, where
   things come and go.
3. `low_confidence`: a track whose top score is within the band above `threshold`.

`box` and `region` are pixels of Frigate's `detect` picture; a snapshot may have another size.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Final, Literal, NamedTuple, TypeVar

import msgspec

from edge.contract.errors import UnusableError, WeakspotError
from edge.contract.samples import Name, Reason, Score, Witness, WitnessKind, Xyxy, plain_text

MAX_MESSAGE_BYTES: Final = 262_144
BRIEF_S: Final = 1.0
STEADY_S: Final = 1.0
BORDER_SHARE: Final = 0.015  # of the longer side: a box rarely reaches the very last pixel
ASPECT_TOLERANCE: Final = 0.02
CROPPED: Final = "snapshot_cropped"
OUTSIDE: Final = "region_outside"
_SAME_FRAME_S: Final = 1e-3

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e10)]
_Pixel = Annotated[float, msgspec.Meta(ge=-1e5, le=1e5)]
_Box = tuple[_Pixel, _Pixel, _Pixel, _Pixel]
_Id = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._\-]{0,63}\Z")]  # it becomes part of a path
_Rate = Annotated[float, msgspec.Meta(ge=0, le=1e6)]


class UnfitError(WeakspotError):
    """A snapshot that does not show its track. `reason` is what it is counted under."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Sight(NamedTuple):
    """Where a track stands in its best frame, which is the one of its snapshot.

    Attributes:
        time_s: of the frame, UTC seconds.
        xyxy: pixels of Frigate's `detect` picture.
        searched_px: side of the square that Frigate's detector looked at, in the same pixels.
    """

    time_s: float
    xyxy: Xyxy
    searched_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class FrigateTrack:
    """One track as the newest message tells of it.

    Attributes:
        label: as Frigate names it, made fit to be shown.
        began_s: UTC seconds, like `seen_s`: when it was last seen.
        age_s: how long Frigate has followed it, a track that ended for some seconds longer than it was seen.
        ended: nothing more will be said of it.
        score: the highest median of its scores, 0..1.
        doubted: Frigate itself calls it a false positive.
        sight: None when the message does not say where it stands in its snapshot.
    """

    id: str
    camera: str
    label: str
    began_s: float
    seen_s: float
    age_s: float
    ended: bool
    score: float
    doubted: bool
    sight: Sight | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What counts: see `[frigate]` and `[mining]`. `labels`: only these; empty is all of them."""

    threshold: float
    band: float
    min_severity: float
    labels: frozenset[str]


class Verdict(NamedTuple):
    """Why a track is a finding."""

    reason: Reason
    severity: float
    witnesses: tuple[Witness, ...]


class _Snapshot(msgspec.Struct, frozen=True):
    frame_time: _Seconds
    box: _Box
    region: _Box | None = None


class _Tracked(msgspec.Struct, frozen=True):
    id: _Id
    camera: Name
    label: str
    frame_time: _Seconds
    start_time: _Seconds
    box: _Box
    score: Score = 0.0
    top_score: Score | None = None
    end_time: _Seconds | None = None
    region: _Box | None = None
    false_positive: bool = False
    snapshot: _Snapshot | None = None
    snapshot_time: _Seconds | None = None


class _Event(msgspec.Struct, frozen=True):
    type: Literal["new", "update", "end"]
    after: _Tracked


class _CameraStats(msgspec.Struct, frozen=True):
    camera_fps: _Rate = 0.0
    process_fps: _Rate = 0.0


class _Stats(msgspec.Struct, frozen=True):
    cameras: dict[str, _CameraStats]


_T = TypeVar("_T", _Event, _Stats)

_event_decoder = msgspec.json.Decoder(_Event)
_stats_decoder = msgspec.json.Decoder(_Stats)


def parse_event(payload: bytes) -> FrigateTrack:
    """Return the track of a message on `events`. Raises `UnusableError` and nothing else, whatever the bytes."""
    event = _decode(_event_decoder, payload)
    after = event.after
    began_s = min(after.start_time, after.frame_time)
    return FrigateTrack(
        id=after.id,
        camera=after.camera,
        label=plain_text(after.label),
        began_s=began_s,
        seen_s=after.frame_time,
        age_s=max(after.frame_time, after.end_time or 0.0) - began_s,
        ended=event.type == "end",
        score=after.top_score or after.score,
        doubted=after.false_positive,
        sight=_sight(after),
    )


def parse_stats(payload: bytes) -> dict[str, tuple[float, float]]:
    """Return each camera's frames a second, captured and looked at. Raises `UnusableError`."""
    stats = _decode(_stats_decoder, payload)
    return {name: (camera.camera_fps, camera.process_fps) for name, camera in stats.cameras.items()}


def is_camera(name: str) -> bool:
    """Return whether a camera of this name can be one of this device."""
    try:
        msgspec.convert(name, Name)
    except msgspec.ValidationError:
        return False
    return True


def judge(track: FrigateTrack, rules: Rules) -> Verdict | None:
    """Return why the track, as far as it goes, is a finding; None when it is none."""
    if rules.labels and track.label not in rules.labels:
        return None
    length_s = track.seen_s - track.began_s
    if track.doubted or track.score < rules.threshold:
        near = min(1.0, track.score / max(rules.threshold, 1e-6))
        severity = round(near * (0.7 + 0.3 * min(1.0, length_s / STEADY_S)), 4)
        if severity < rules.min_severity:
            return None
        return Verdict(Reason.MISSED, severity, (Witness(WitnessKind.CANDIDATE, severity),))
    above = track.score - rules.threshold
    if length_s < BRIEF_S:
        return Verdict(Reason.SUSPECT, round(0.3 + 0.5 * above / max(1e-6, 1.0 - rules.threshold), 4), ())
    if above < rules.band:  # a band of 0 is none, and no divisor
        return Verdict(Reason.LOW_CONFIDENCE, round(0.5 - 0.3 * above / rules.band, 4), ())
    return None


def may_be_found(track: FrigateTrack, rules: Rules) -> bool:
    """Return whether a track that goes on may end as a finding. Once it is False it stays so: no top score falls."""
    return judge(track, replace(rules, min_severity=0.0)) is not None


def place(sight: Sight, *, picture: tuple[int, int], detect: tuple[int, int] | None) -> Xyxy:
    """Return where the track stands in a picture of a size (width, height), cut at its border, to a hundredth.

    `detect` is the size in whose pixels `sight` is; None when it is the picture's own.

    Raises `UnfitError` for a picture of another shape, which is a part of the frame, and for a place outside it.
    """
    (width, height), (from_width, from_height) = picture, detect or picture
    if abs(width * from_height / (height * from_width) - 1.0) > ASPECT_TOLERANCE:
        msg = f"a snapshot of {width}x{height} is no whole picture of {from_width}x{from_height}"
        raise UnfitError(CROPPED, msg)
    x_scale, y_scale = width / from_width, height / from_height
    x1, y1, x2, y2 = sight.xyxy
    left, top = max(0.0, x1 * x_scale), max(0.0, y1 * y_scale)
    right, bottom = min(float(width), x2 * x_scale), min(float(height), y2 * y_scale)
    if right - left < 1.0 or bottom - top < 1.0:
        msg = f"the box {sight.xyxy} lies outside the snapshot of {width}x{height}"
        raise UnfitError(OUTSIDE, msg)
    return round(left, 2), round(top, 2), round(right, 2), round(bottom, 2)


def is_at_border(xyxy: Xyxy, size: tuple[int, int]) -> bool:
    """Return whether a place touches the border of a picture of a size (width, height)."""
    edge_px = BORDER_SHARE * max(size)
    x1, y1, x2, y2 = xyxy
    return x1 < edge_px or y1 < edge_px or x2 > size[0] - edge_px or y2 > size[1] - edge_px


def _sight(after: _Tracked) -> Sight | None:
    """Return where the track stands in its snapshot. The older form tells only its time, not its box."""
    if after.snapshot is not None:
        shot = after.snapshot
        return _require_order(Sight(shot.frame_time, shot.box, _side(shot.region or after.region)))
    if after.snapshot_time is not None and abs(after.snapshot_time - after.frame_time) > _SAME_FRAME_S:
        return None
    return _require_order(Sight(after.frame_time, after.box, _side(after.region)))


def _side(region: Xyxy | None) -> float:
    return 0.0 if region is None else max(0.0, region[2] - region[0], region[3] - region[1])


def _require_order(sight: Sight) -> Sight:
    x1, y1, x2, y2 = sight.xyxy
    if not (x1 < x2 and y1 < y2):
        msg = f"the box {sight.xyxy} has no area"
        raise UnusableError(msg)
    return sight


def _decode(decoder: msgspec.json.Decoder[_T], payload: bytes) -> _T:
    if len(payload) > MAX_MESSAGE_BYTES:
        msg = f"a message of {len(payload)} bytes, the limit is {MAX_MESSAGE_BYTES}"
        raise UnusableError(msg)
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        msg = f"a message of Frigate is not valid: {error}"
        raise UnusableError(msg) from error
