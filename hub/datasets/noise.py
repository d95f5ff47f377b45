"""One picture becomes two: the copy gets the light, noise, blur, colours and JPEG of another moment of its camera.

The moment is a real one (hub.datasets.measured_noise), drawn the more often the more it differs from the picture. The
copy is measured with the device's own functions (edge.detector.light) and corrected until it shows what was measured.

A device measures noise before it makes a JPEG, and a detector sees the picture before that, too; JPEG takes most of
the noise away. So the copy is compressed as the camera's pictures are, then gets its noise, and is written at a quality
that keeps it.

Laws:

1. The same picture, figures and seed give the same bytes, and the boxes stay where they are.
2. A copy is never brighter than `MAX_GAIN` times, never less noisy than its original, never given colours: what the
   camera did not see cannot be made, and noise that is there is not taken away.
3. A camera without figures gets no copies, and is named.
4. An object that cannot be seen any more in the copy is not to be learned there: its box is ignored. It is told by the
   correlation of the place before and after. Of people on `street.mp4`, darkened and with noise, a second look found
   none of 68 below .9 and 87 % of 238 above; lit up again, 7 % of 44 below .8 and 46 % of 24 between the two.
"""

import hashlib
import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.contract.samples import Xyxy
from edge.detector.light import is_grayscale, measure_light
from edge.detector.pictures import decode_jpeg
from hub.datasets.blurring import blur_all, blur_boxes
from hub.datasets.measured_noise import MOMENT_MS, WHOLE, CameraNoise, Look, Moment
from hub.datasets.quality import jpeg_quality
from hub.datasets.version import Member, MemberBox

MAX_GAIN: Final = 1.5
SUFFIX: Final = "-noise"

_LIT = ("dark", "bright", "flat", "noisy", "grayscale", "defocus", "motion_blur")  # tags that a copy may not keep
_LIT_TAG: Final = re.compile(rf"(?:{'|'.join(_LIT)}|motion_\w+)\Z")
_ROUNDS: Final = 5
_NOISE_NEAR: Final = 0.02  # of the noise aimed at
_LIGHT_NEAR: Final = 0.5  # grey levels
_VEILED: Final = 0.8  # less contrast than this, of what the light alone would leave, is a veil
_LEAST_CONTRAST: Final = 0.1
_SMALL: Final = math.log(1.25)  # of light, in a variation
_ALIKE: Final = 0.15  # a moment that does not differ is drawn so often as one that differs by so much
_FAR: Final = 3.0
_LIGHT_SAID: Final = 0.02  # of the light's logarithm
_NOISE_SAID: Final = 0.5  # grey levels; less cannot be seen
_NOISE_UNIT: Final = 6.0  # grey levels of noise that differ as much as half the light
_BY: Final = ("person", "review", "machine")
_USUAL_QUALITY: Final = 90
_SEEN_CORRELATION: Final = 0.8
_SURROUNDINGS: Final = 0.25  # of the shorter side: what an object stands out from
_DETAIL: Final = 8  # of the shorter side: what is finer is averaged, as an eye does with noise
_KEEPS_NOISE: Final = 95  # of the noise a tenth is lost at most; at 90 it is half

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Copies:
    """What was made.

    Attributes:
        copies: each member with its JPEG.
        without: cameras ("site/device/camera"; "" is none) of whose light nothing is known: no copies of theirs.
        unreached: originals that no moment of their camera can be made of, and that have nothing to vary by.
    """

    copies: tuple[tuple[Member, bytes], ...]
    without: tuple[str, ...]
    unreached: int = 0


def noisy_copies(
    members: Iterable[Member],
    *,
    jpeg_of: Callable[[Member], bytes],
    measured: Mapping[str, CameraNoise],
    seed: int,
    on_image: Callable[[], None] = lambda: None,
) -> Copies:
    """Return a copy of each original that a training sees with a person's or a certified machine's word.

    `measured` has what is known of each camera; `on_image` is called after each original. Raises `UnusableError` for a
    picture that is no JPEG.
    """
    copies: list[tuple[Member, bytes]] = []
    without, unreached = set(), 0
    for member in members:
        if member.split != "train" or member.copy_of or member.by not in _BY:
            continue
        noise = measured.get(member.camera)
        if noise is None or not noise.moments:
            without.add(member.camera)
        elif (made := noisy_copy(member, jpeg_of(member), noise=noise, seed=seed)) is not None:
            copies.append(made)
        else:
            unreached += 1
        on_image()
    return Copies(tuple(copies), tuple(sorted(without)), unreached)


def noisy_copy(member: Member, jpeg: bytes, *, noise: CameraNoise, seed: int) -> tuple[Member, bytes] | None:
    """Return a member's copy with its JPEG; None when nothing that its camera saw can be made of it.

    Raises `UnusableError` for a picture that is no JPEG.
    """
    image = np.asarray(decode_jpeg(jpeg), np.uint8)
    random = np.random.default_rng(list(hashlib.sha256(f"{seed} {member.sha256}".encode()).digest()[:16]))
    moment = _drawn(noise, _Original.of(image, member), random)
    if moment is None:
        return None
    blurred, words = _blurred(image, member.boxes, noise=noise, moment=moment, random=random)
    if moment.grey and not is_grayscale(blurred):
        blurred = np.asarray(cv2.cvtColor(cv2.cvtColor(blurred, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8)
        words.append("grey")
    own = jpeg_quality(jpeg) or _USUAL_QUALITY
    quality = moment.quality if moment.quality is not None and moment.quality < own else None
    lit = _Lit(blurred, shot=noise.shot, quality=quality, written=max(own, _KEEPS_NOISE), random=random)
    encoded, more = _brought_to(moment, lit)
    words += more
    if not words:
        return None
    copy = msgspec.structs.replace(
        member,
        name=member.name[: 200 - len(SUFFIX)] + SUFFIX,
        sha256=hashlib.sha256(encoded).hexdigest(),
        boxes=_still_seen(member.boxes, before=_gray(blurred), after=_gray(decode_jpeg(encoded))),
        tags=tuple(tag for tag in member.tags if not _LIT_TAG.match(tag)),
        copy_of=member.name,
        noise=tuple(words),
    )
    return copy, encoded


@dataclass(frozen=True, slots=True, eq=False)
class _Original:
    """What of a picture decides which moments can be made of it."""

    gray: Image
    grey: bool
    moment: int

    @classmethod
    def of(cls, image: Image, member: Member) -> "_Original":
        return cls(_gray(image), is_grayscale(image), member.captured_at_ms // MOMENT_MS)


def _drawn(noise: CameraNoise, original: _Original, random: np.random.Generator) -> Moment | None:
    """Draw a moment that the picture can be made to show; else a variation of its own light; None without either."""
    reached, weights, near = [], [], []
    for moment in noise.moments:
        level, present = _seen(original.gray, moment.looks)
        gain = moment.brightness / max(level, 1.0)
        if moment.grey == original.grey and abs(math.log(max(gain, 1e-3))) <= _SMALL:
            near.append(moment.brightness)
        if moment.number == original.moment or (original.grey and not moment.grey):
            continue
        left = present * gain
        if gain <= MAX_GAIN and left <= max(1.25 * moment.noise, moment.noise + 1):
            apart = abs(math.log2(max(gain, 1 / 256))) + abs(moment.noise - left) / _NOISE_UNIT
            reached.append(moment)
            weights.append(_ALIKE + min(_FAR, apart + (moment.grey != original.grey) + (moment.shaken is not None)))
    if reached:
        return reached[int(random.choice(len(reached), p=np.array(weights) / sum(weights)))]
    return _variation(noise, original, near, random)


def _variation(
    noise: CameraNoise, original: _Original, near: Sequence[float], random: np.random.Generator
) -> Moment | None:
    """Return a moment as bright as two of the camera's moments of this light differ; None where there are not two."""
    if len(near) < 2:
        return None
    one, other = random.choice(len(near), 2, replace=False)
    gain = min(1.25, max(0.8, near[int(one)] / near[int(other)]))
    own = measure_light(original.gray, _on(WHOLE, original.gray))
    light = msgspec.structs.replace(own, brightness=own.brightness * gain, contrast=own.contrast * gain)
    blurs = tuple(blur for moment in noise.moments if moment.grey == original.grey for blur in moment.blurs)
    return Moment(original.moment, (Look(WHOLE, light),), original.grey, blurs)


def _blurred(
    image: Image, boxes: Sequence[MemberBox], *, noise: CameraNoise, moment: Moment, random: np.random.Generator
) -> tuple[Image, list[str]]:
    """Blur the whole picture as the camera was shaken, else each object as one that the camera saw."""
    if moment.shaken is not None:
        return blur_all(image, moment.shaken)
    told = moment.blurs or noise.blurs
    if not any(blur.kind for blur in told):
        return image, []
    drawn = [told[int(random.integers(len(told)))] for _ in boxes]
    return blur_boxes(image, boxes, drawn)


def _brought_to(moment: Moment, lit: "_Lit") -> tuple[bytes, list[str]]:
    """Return the JPEG of a picture in the light and the noise of a moment, and the words for it.

    Both are measured in the very file, at the places where the moment's were, and corrected.
    """
    gray = _gray(lit.image)
    level, _ = _seen(gray, moment.looks)
    aimed, target = moment.brightness, moment.noise
    gain = min(MAX_GAIN, aimed / max(level, 1.0))
    slope = _contrast_kept(gray, moment, gain) * gain
    veil, added = (gain - slope) * level, 0.0
    for attempt in range(_ROUNDS):
        encoded = lit.jpeg(slope=slope, veil=veil, added=added)
        seen, noisy = _seen(_gray(decode_jpeg(encoded)), moment.looks)
        off = aimed - seen
        light_is_near = abs(off) <= _LIGHT_NEAR or (off > 0 and slope >= MAX_GAIN)
        missing = target * target - noisy * noisy
        noise_is_near = abs(noisy - target) <= _NOISE_NEAR * target or (added == 0 and missing <= 0)
        if (light_is_near and noise_is_near) or attempt == _ROUNDS - 1:
            break
        if not light_is_near:
            scale = min(2.0, max(0.5, aimed / max(seen, 0.5)))
            slope, veil = min(MAX_GAIN, slope * scale), veil * scale
        if not noise_is_near:
            added = min(4 * target, math.sqrt(max(added * added + missing, 0.25 * added * added)))
    final = (slope * level + veil) / max(level, 1.0)
    words = [f"light x{final:.2f}"] if abs(math.log(max(final, 1e-3))) > _LIGHT_SAID else []
    if veil >= 1:
        words.append(f"veil {veil:.0f}")
    if lit.quality is not None:
        words.append(f"jpeg {lit.quality}")
    if added >= _NOISE_SAID:
        words.append(f"noise {target:.0f}" if target >= 10 else f"noise {target:.1f}")
    return encoded, words


def _still_seen(boxes: Sequence[MemberBox], *, before: Image, after: Image) -> tuple[MemberBox, ...]:
    """Return the boxes, those ignored whose object is in the one picture and no more in the other."""
    return tuple(
        msgspec.structs.replace(box, ignored=box.ignored or _correlation(box.xyxy, before, after) < _SEEN_CORRELATION)
        for box in boxes
    )


def _correlation(box: Xyxy, before: Image, after: Image) -> float:
    """Return how alike a place is in two pictures, whatever their light; 1 where there was nothing to see."""
    height, width = before.shape
    shorter = min(box[2] - box[0], box[3] - box[1])
    around = _SURROUNDINGS * shorter
    left, top = (max(0, math.floor(side - around)) for side in box[:2])
    right, bottom = (min(end, math.ceil(side + around)) for end, side in zip((width, height), box[2:], strict=True))
    if right <= left or bottom <= top:
        return 1.0
    detail = max(1, int(shorter / _DETAIL))
    one, other = (
        cv2.blur(image[top:bottom, left:right].astype(np.float32), (detail, detail)) for image in (before, after)
    )
    one, other = one - one.mean(), other - other.mean()
    own = float((one * one).sum())
    if own < one.size:  # less than a grey level
        return 1.0
    return float((one * other).sum()) / math.sqrt(own * max(float((other * other).sum()), 1e-9))


class _Lit:
    """A picture that can be given light, JPEG and noise, always of the same grain.

    Attributes:
        image: BGR.
        quality: that it is compressed with before it gets its noise; None is not at all.
    """

    def __init__(
        self, image: Image, *, shot: float, quality: int | None, written: int, random: np.random.Generator
    ) -> None:
        """`shot` is the share of the noise's variance that grows with the light; `written` the file's quality."""
        self.image = image
        self.quality = quality
        self._source = image.astype(np.float32)
        self._grain = random.standard_normal(image.shape[:2], np.float32)  # alike in all colours: so noise is measured
        self._shot = shot
        self._written = written

    def jpeg(self, *, slope: float, veil: float, added: float) -> bytes:
        """Return the file: pixels times `slope` plus `veil`, with noise of the standard deviation `added`."""
        lit = _rounded(self._source * np.float32(slope) + np.float32(veil))
        if self.quality is not None:
            lit = decode_jpeg(_encoded(lit, self.quality))
        if added > 0:
            noise = self._grain * np.float32(added)
            if self._shot > 0:
                level = lit.mean(axis=2, dtype=np.float32)
                noise *= np.sqrt(np.maximum(0.0, 1 + self._shot * (level / max(float(level.mean()), 1.0) - 1)))
            lit = _rounded(lit + noise[:, :, None])
        return _encoded(lit, self._written)


def _contrast_kept(gray: Image, moment: Moment, gain: float) -> float:
    """Return what a veil (fog, stray light of a lamp) leaves of the contrast that the light alone would; 1 is no veil.

    It is told by looks at the whole frame only: of what stands at a place the contrast is its own.
    """
    shares = []
    for look in moment.looks:
        if look.is_whole:
            there = measure_light(gray, _on(look.place, gray))
            own = there.contrast**2 - there.noise**2
            seen = look.light.contrast**2 - look.light.noise**2
            if own > 1 and seen > 0:
                shares.append(math.sqrt(seen / own) / max(gain, 1e-3))
    kept = statistics.median(shares) if shares else 1.0
    return max(_LEAST_CONTRAST, kept) if kept < _VEILED else 1.0


def _seen(gray: Image, looks: Sequence[Look]) -> tuple[float, float]:
    """Return brightness and noise of a picture, each the median over these places."""
    places = dict.fromkeys(look.place for look in looks)
    lights = {place: measure_light(gray, _on(place, gray)) for place in places}
    return (
        statistics.median(lights[look.place].brightness for look in looks),
        statistics.median(lights[look.place].noise for look in looks),
    )


def _on(place: Xyxy, gray: Image) -> Xyxy:
    height, width = gray.shape
    return place[0] * width, place[1] * height, place[2] * width, place[3] * height


def _gray(image: Image) -> Image:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), np.uint8)


def _rounded(picture: Floats) -> Image:
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def _encoded(image: Image, quality: int) -> bytes:
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
