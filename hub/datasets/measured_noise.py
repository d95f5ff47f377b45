"""What a camera's pictures are like, as its device measured them: the conditions that a noisy copy may be given.

The findings of a camera are put together by moments of `MOMENT_MS`. A moment is a real one: its brightness, contrast,
noise, colours, blur and JPEG belong together, as they were. A missed person in a black coat is dark by day, too: so the
light of a moment is told by looks at the whole frame (a `control`, or a frame that is here), else by the median of at
least `MIN_LOOKS` places; a moment that has neither is left out.

Laws:

1. Every figure is measured on that camera. What was not measured is not there, and nothing takes its place.
2. A blur that most objects of a moment have is the camera's (shaken, out of focus); any other is the object's.
3. Only figures leave a picture, and of the test share they are of no more use than the weather: they may be of any
   finding.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

import cv2
import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.samples import Light, Reason, Xyxy
from edge.detector.blur import MIN_SIDE_PX, edge_spreads
from edge.detector.light import measure_light
from edge.detector.pictures import decode_jpeg
from hub.datasets.quality import jpeg_quality
from hub.store import Store
from hub.store_light import SeenRow
from hub.tags import split_tags

MOMENT_MS: Final = 900_000
MIN_LOOKS: Final = 3
MAX_FRAMES: Final = 48
"""Frames of a camera that are decoded, spread over its moments."""
WHOLE: Final = (0.0, 0.0, 1.0, 1.0)
DEGREES: Final = {"motion_horizontal": (0.0,), "motion_vertical": (90.0,), "motion_diagonal": (45.0, 135.0)}

_SMEAR: Final = math.sqrt(12)  # length of a straight smear, of the standard deviation of its spread
_LEAST: Final = {"motion": 2.0 * _SMEAR / MIN_SIDE_PX, "defocus": 1.5 / MIN_SIDE_PX}  # from here on edge/TAGS.md has it
_MOST: Final = 0.6  # of a moment's objects
_MIN_TOLD: Final = 3
_MIN_PAIRS: Final = 30
_NO_NOISE: Final = 0.3

Blurred = Literal["", "motion", "defocus"]


class Look(NamedTuple):
    """The picture at one place.

    Attributes:
        place: `xyxy`, fractions of the frame.
        light: there, in grey levels of 0..255.
    """

    place: Xyxy
    light: Light

    @property
    def is_whole(self) -> bool:
        """Whether it is a look at the whole frame."""
        return self.place == WHOLE


class Blur(NamedTuple):
    """How the edges of one object are spread.

    Attributes:
        kind: "" is sharp.
        degrees: from the x axis to the y axis, which points down; of a motion, within 22.5.
        extent: length of a motion, standard deviation of a defocus, in shorter sides of the object.
        side: the object's shorter side, of the frame's width.
    """

    kind: Blurred
    degrees: float = 0.0
    extent: float = 0.0
    side: float = 0.0


@dataclass(frozen=True, slots=True)
class Moment:
    """What a camera saw within `MOMENT_MS`.

    Attributes:
        number: of the moment since 1970.
        looks: all at the whole frame, or `MIN_LOOKS` and more places.
        grey: it sees no colours.
        blurs: of the objects that are large enough to tell.
        quality: of its JPEG, 1..100; None where no frame of the camera is here.
    """

    number: int
    looks: tuple[Look, ...]
    grey: bool
    blurs: tuple[Blur, ...] = ()
    quality: int | None = None

    @property
    def brightness(self) -> float:
        """The median over the looks."""
        return statistics.median(look.light.brightness for look in self.looks)

    @property
    def noise(self) -> float:
        """The median over the looks, standard deviation in grey levels."""
        return statistics.median(look.light.noise for look in self.looks)

    @property
    def shaken(self) -> Blur | None:
        """The blur that most of the objects have; None where they are sharp, differ, or are too few."""
        alike = defaultdict(list)
        for blur in self.blurs:
            alike[blur.kind, blur.degrees].append(blur)
        for (kind, _), several in alike.items():
            if kind and len(self.blurs) >= _MIN_TOLD and len(several) >= _MOST * len(self.blurs):
                return sorted(several, key=lambda blur: blur.extent * blur.side)[len(several) // 2]
        return None


@dataclass(frozen=True, slots=True)
class CameraNoise:
    """What one camera's pictures are like.

    Attributes:
        camera: "site/device/camera".
        moments: in the order of time.
        shot: the share of the noise's variance that grows with the light, 0..1; 0 where that was not measured.
    """

    camera: str
    moments: tuple[Moment, ...]
    shot: float = 0.0

    @property
    def blurs(self) -> tuple[Blur, ...]:
        """Those of all moments."""
        return tuple(blur for moment in self.moments for blur in moment.blurs)


def measured_noise(store: Store, cameras: Collection[str]) -> dict[str, CameraNoise]:
    """Return what the newest findings tell of these cameras ("site/device/camera"); one of which none tells is not in.

    Raises `UnusableError` when a finding cannot be read.
    """
    by_camera: defaultdict[str, list[SeenRow]] = defaultdict(list)
    for row in store.lights.of(cameras):
        by_camera[row.camera].append(row)
    found = {}
    for camera, rows in sorted(by_camera.items()):
        seen = {row.number: _look_at(row, store.lights.frame(row.number)) for row in _spread(rows)}
        noise = noise_of(camera, rows, {number: picture for number, picture in seen.items() if picture is not None})
        if noise.moments:
            found[camera] = noise
    return found


def noise_of(camera: str, rows: Iterable[SeenRow], pictures: Mapping[int, "Picture"]) -> CameraNoise:
    """Return what the findings of one camera tell; `pictures` is what was seen in frames that are here, by finding."""
    quality = _median(picture.quality for picture in pictures.values())
    usual = {
        kind: statistics.median(extents)
        for kind in ("motion", "defocus")
        if (extents := [picture.blur.extent for picture in pictures.values() if picture.blur.kind == kind])
    }
    gathered: defaultdict[int, _Gathered] = defaultdict(_Gathered)
    for row in rows:
        gathered[row.captured_at_ms // MOMENT_MS].add(row, pictures.get(row.number), _LEAST | usual)
    moments = [moment for number, one in sorted(gathered.items()) if (moment := one.moment(number, quality))]
    return CameraNoise(camera, tuple(moments), _shot(gathered.values()))


@dataclass(frozen=True, slots=True)
class Picture:
    """What was measured in a frame that is here.

    Attributes:
        light: of the whole frame; its noise is that of the finding, which was measured before the JPEG.
        quality: of the JPEG, 1..100; None where its tables are not of the usual kind.
        blur: at the finding's region.
    """

    light: Light
    quality: int | None
    blur: Blur


@dataclass(slots=True)
class _Gathered:
    """What was found of a moment until now."""

    whole: list[Look] = field(default_factory=list)
    places: list[Look] = field(default_factory=list)
    grey: list[bool] = field(default_factory=list)
    blurs: list[Blur] = field(default_factory=list)
    qualities: list[int] = field(default_factory=list)

    def add(self, row: SeenRow, picture: Picture | None, extents: Mapping[str, float]) -> None:
        tags = split_tags(row.tags)
        self.grey.append("grayscale" in tags)
        x1, y1, x2, y2 = row.region
        place = (x1 / row.width, y1 / row.height, x2 / row.width, y2 / row.height)
        if row.reason is Reason.CONTROL:
            self.whole.append(Look(WHOLE, row.light))
            told = [_told(box.tags, box.xyxy, row, extents) for box in row.boxes if box.tags]
        else:
            self.places.append(Look(place, row.light))
            told = [_told(tags, row.region, row, extents)]
            if picture is not None:
                self.whole.append(Look(WHOLE, picture.light))
                told = [picture.blur if told[0] and told[0].kind and picture.blur.kind else told[0]]
        self.blurs += [blur for blur in told if blur is not None]
        if picture is not None and picture.quality is not None:
            self.qualities.append(picture.quality)

    def moment(self, number: int, quality: int | None) -> Moment | None:
        looks = self.whole or (self.places if len(self.places) >= MIN_LOOKS else [])
        if not looks:
            return None
        grey = 2 * sum(self.grey) > len(self.grey)
        return Moment(number, tuple(looks), grey, tuple(self.blurs), _median(self.qualities) or quality)


def _told(tags: Sequence[str], box: Xyxy, row: SeenRow, extents: Mapping[str, float]) -> Blur | None:
    """Return the blur that an object's tags tell of; None where it is too small for the device to tell."""
    side = min(box[2] - box[0], box[3] - box[1])
    if side < MIN_SIDE_PX:
        return None
    of_frame = side / row.width
    for tag in tags:
        if tag in DEGREES:
            choice = DEGREES[tag]
            return Blur("motion", choice[row.number % len(choice)], extents["motion"], of_frame)
    return Blur("defocus", 0.0, extents["defocus"], of_frame) if "defocus" in tags else Blur("", side=of_frame)


def _spread(rows: Sequence[SeenRow]) -> Iterator[SeenRow]:
    """Give the findings whose frames are looked at: round by round one a moment, the newest moments first."""
    by_moment: defaultdict[int, list[SeenRow]] = defaultdict(list)
    for row in rows:
        if row.here:
            by_moment[row.captured_at_ms // MOMENT_MS].append(row)
    newest = [by_moment[number] for number in sorted(by_moment, reverse=True)]
    step = max(1, len(newest) // MAX_FRAMES)
    newest = newest[::step]
    in_turn = (
        several[turn] for turn in range(max(map(len, newest), default=0)) for several in newest if turn < len(several)
    )
    for row, _ in zip(in_turn, range(MAX_FRAMES), strict=False):
        yield row


def _look_at(row: SeenRow, jpeg: bytes | None) -> Picture | None:
    """Measure a frame; None when it is not here, or cannot be read."""
    if jpeg is None:
        return None
    try:
        image = decode_jpeg(jpeg)
    except UnusableError:
        return None
    gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)
    height, width = gray.shape
    whole = measure_light(gray, (0.0, 0.0, float(width), float(height)))
    light = Light(whole.brightness, whole.contrast, row.light.noise, whole.sharpness)
    blur = Blur("")
    x1, y1, x2, y2 = (max(0, round(edge)) for edge in row.region)
    crop, side = gray[y1:y2, x1:x2], min(x2 - x1, y2 - y1)
    if row.reason is not Reason.CONTROL and min(crop.shape) >= MIN_SIDE_PX:
        tags = split_tags(row.tags)
        spreads = [-1.0 if spread is None else spread for spread in edge_spreads(crop, noise=row.light.noise)]
        most = max(range(4), key=spreads.__getitem__)
        if "motion_blur" in tags and spreads[most] > 0:
            blur = Blur("motion", (0.0, 45.0, 90.0, 135.0)[most], spreads[most] * _SMEAR / MIN_SIDE_PX, side / width)
        elif "defocus" in tags and min(spreads) > 0:
            blur = Blur("defocus", 0.0, min(spreads) / MIN_SIDE_PX, side / width)
    return Picture(light, jpeg_quality(jpeg), blur)


def _shot(gathered: Iterable[_Gathered]) -> float:
    """Return how far the noise's variance grows with the light, between places of one moment.

    Across moments it cannot be told: by night cameras amplify. The slope is a line's through shares of each moment's
    mean; one that is within two standard errors of 0 is none.
    """
    pairs = []
    for one in gathered:
        lights = [look.light for look in one.places if look.light.noise > _NO_NOISE]
        if len(lights) >= MIN_LOOKS:
            level = statistics.fmean(light.brightness for light in lights)
            variance = statistics.fmean(light.noise**2 for light in lights)
            pairs += [(light.brightness / max(level, 1.0) - 1, light.noise**2 / variance - 1) for light in lights]
    if len(pairs) < _MIN_PAIRS:
        return 0.0
    level_of, variance_of = np.array(pairs).T
    spread = float(level_of @ level_of)
    if spread < 1e-6:
        return 0.0
    slope = float(level_of @ variance_of) / spread
    error = math.sqrt(float(((variance_of - slope * level_of) ** 2).sum()) / (len(pairs) - 1) / spread)
    return round(min(slope, 1.0), 3) if slope > 2 * error else 0.0


def _median(values: Iterable[int | None]) -> int | None:
    known = sorted(value for value in values if value is not None)
    return known[len(known) // 2] if known else None
