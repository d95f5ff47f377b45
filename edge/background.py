"""What a camera's picture shows when nothing moves, and which parts of a new picture differ from it.

A running mean and a running noise figure for each pixel of a small grey picture. Changes of the whole picture are
taken out first: a robust linear fit finds gain and offset (auto-exposure) and a shift of up to a pixel (shake); phase
correlation finds a larger shift. Rules only: no clock, no I/O.

Laws:

1. A picture is judged only against a background made of `WARM_UP_PICTURES` pictures.
2. At most `MAX_CHANGED_SHARE` of a judged picture is changed. A picture with more is not judged and not learned, and a
   scene that stays so for `GIVE_UP_S` (day to night, a camera that was turned) is learned anew.
3. A flat picture and a repeated one are neither judged nor learned.
4. Memory is bounded by the size of the picture.
"""

import math
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float32]
Mask = NDArray[np.uint8]

WARM_UP_PICTURES: Final = 7
WARM_UP_EVERY_S: Final = 0.4
MAX_CHANGED_SHARE: Final = 0.3
GIVE_UP_S: Final = 2.0
MIN_CONTRAST: Final = 3.0  # grey levels; a picture below it shows nothing

_MEAN_TAU_S: Final = 8.0
_NOISE_TAU_S: Final = 10.0
_STAYS_S: Final = 5.0
_ALIKE_LEVELS: Final = 4.0
_EXPOSURE_TAU_S: Final = 3.0
_MAX_STEP_S: Final = 1.0
_NOISES: Final = (1.5, 40.0)  # grey levels, least and most
_CHANGED_NOISES: Final = 5.0
_FIT_PIXELS: Final = 1200
_FIT_ROUNDS: Final = 3
_GAINS: Final = (0.4, 2.5)
_LEAST_SHIFT_PX: Final = 0.05
_SHAKE_SHARE: Final = 0.1  # so much changed may be shake
_MIN_SHIFT_SIDE_PX: Final = 24
_MAX_SHIFT_SHARE: Final = 0.1  # of the picture's side
_NORMAL: Final = 1.4826  # median absolute deviation to standard deviation


class Background:
    """The background of one scene of `height` x `width` grey pixels."""

    def __init__(self, height: int, width: int) -> None:
        self._first: list[Grey] = []
        self._ready = False
        self._mean: Grey = np.zeros((height, width), np.float32)
        self._noise: Grey = np.zeros((height, width), np.float32)
        self._last: Grey | None = None
        self._exposure = (1.0, 0.0)
        self._candidate: Grey = np.zeros((height, width), np.float32)
        self._stays_s: Grey = np.zeros((height, width), np.float32)
        self._learned_s = -math.inf
        self._looked_s = -math.inf
        self._judged_s = -math.inf

    def changed(self, grey: Grey, explained: Mask, *, time_s: float) -> Mask | None:
        """Return 255 where the picture differs from the background and 0 elsewhere; None where it cannot be judged.

        Args:
            grey: `[height, width]` 0..255; kept, so not to be written to afterwards.
            explained: `[height, width]`, not 0 where objects are known to stand: nothing is learned there.
            time_s: monotonic seconds.
        """
        last, self._last = self._last, grey
        if float(grey[::2, ::2].std()) < MIN_CONTRAST:
            return None
        if last is not None and np.array_equal(last, grey):
            return None
        if not self._ready:
            self._warm_up(grey, time_s)
            return None
        residual = self._compare(grey)
        changed = None if residual is None else _is_changed(residual, self._noise)
        if residual is None or changed is None or _share(changed) > MAX_CHANGED_SHARE:
            if time_s - self._judged_s > GIVE_UP_S:
                self._ready = False
                self._learned_s = -math.inf
            return None
        self._judged_s = time_s
        mask: Mask = changed.view(np.uint8) * np.uint8(255)
        free = (explained == 0).astype(np.float32)
        self._learn(residual, free, time_s)
        if time_s - self._looked_s >= WARM_UP_EVERY_S:
            self._adopt(grey, free, time_s)
        return mask

    def _warm_up(self, grey: Grey, time_s: float) -> None:
        if time_s - self._learned_s < WARM_UP_EVERY_S:
            return
        self._learned_s = self._judged_s = time_s
        self._first.append(grey)
        if len(self._first) < WARM_UP_PICTURES:
            return
        pictures = np.stack(self._first)
        self._first = []
        self._mean = np.median(pictures, axis=0)
        spread = _NORMAL * np.median(np.abs(pictures - self._mean), axis=0)
        self._noise = np.clip(spread, *_NOISES).astype(np.float32)
        self._ready = True

    def _compare(self, grey: Grey) -> Grey | None:
        """Return the picture less the background at the picture's exposure and place; None where neither is found."""
        residual = self._fit(grey)
        if residual is not None and self._differs(residual) <= _SHAKE_SHARE:
            return residual
        steady = self._unshaken(grey)
        again = None if steady is None else self._fit(steady)
        if residual is None or again is None:
            return residual if again is None else again
        return again if self._differs(again) < self._differs(residual) else residual

    def _differs(self, residual: Grey) -> float:
        return _share(_is_changed(residual, self._noise))

    def _fit(self, grey: Grey) -> Grey | None:
        """Return the residual of the best `gain * mean + offset + shift * gradient`, found on some of the pixels."""
        mean = self._mean
        height, width = mean.shape
        if min(height, width) < 3:
            return grey - mean
        s = max(1, round(math.sqrt(height * width / _FIT_PIXELS)))
        few = mean[1:-1:s, 1:-1:s].ravel()
        dx = (mean[1:-1:s, 2::s][:, : -(-(width - 2) // s)] - mean[1:-1:s, :-2:s]).ravel()
        dy = (mean[2::s, 1:-1:s][: -(-(height - 2) // s)] - mean[:-2:s, 1:-1:s]).ravel()
        wanted = grey[1:-1:s, 1:-1:s].ravel()
        middle = float(few.mean())
        terms = np.stack([few - middle, np.ones_like(few), dx, dy])
        left = wanted - few
        left -= _median(left)
        found = np.zeros(4, np.float32)
        for _ in range(_FIT_ROUNDS):  # what moves does not follow the rest, and drops out
            size = np.abs(left)
            kept = terms * (size <= max(1.0, 2.5 * _NORMAL * _median(size)))
            square = (kept @ terms.T).astype(np.float64)
            square.flat[::5] += len(few) * 1e-3  # a shift or gain that the picture cannot tell stays 0
            found = np.linalg.solve(square, (kept @ wanted).astype(np.float64)).astype(np.float32)
            left = wanted - found @ terms
        gain, offset, u, v = (float(x) for x in found)
        if not _GAINS[0] <= gain <= _GAINS[1]:
            return None
        self._exposure = (gain, offset - gain * middle)
        predicted = mean * np.float32(gain)
        predicted += np.float32(self._exposure[1])
        if max(abs(u), abs(v)) > _LEAST_SHIFT_PX:
            predicted[:, 1:-1] += np.float32(u) * (mean[:, 2:] - mean[:, :-2])
            predicted[1:-1] += np.float32(v) * (mean[2:] - mean[:-2])
        np.clip(predicted, 0, 255, out=predicted)
        residual: Grey = grey - predicted
        return residual

    def _unshaken(self, grey: Grey) -> Grey | None:
        """Return the picture moved back by the shift that phase correlation finds; None where there is none."""
        height, width = grey.shape
        if min(height, width) < _MIN_SHIFT_SIDE_PX:
            return None
        half = (width // 2, height // 2)
        here, there = (cv2.resize(picture, half, interpolation=cv2.INTER_AREA) for picture in (self._mean, grey))
        (dx, dy), _ = cv2.phaseCorrelate(here, there, cv2.createHanningWindow(half, cv2.CV_32F))
        dx, dy = dx * width / half[0], dy * height / half[1]
        if not (abs(dx) <= _MAX_SHIFT_SHARE * width and abs(dy) <= _MAX_SHIFT_SHARE * height):
            return None
        move = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        steady: Any = cv2.warpAffine(grey, move, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        moved_back: Grey = steady
        return moved_back

    def _learn(self, residual: Grey, free: Grey, time_s: float) -> None:
        """Move mean and noise towards the picture; an outlier pulls no more than three noises."""
        step_s = min(_MAX_STEP_S, max(0.0, time_s - self._learned_s))
        self._learned_s = time_s
        mean, noise = self._mean, self._noise
        gain, offset = self._exposure
        adopted = 1 - math.exp(-step_s / _EXPOSURE_TAU_S)
        mean *= np.float32(1 + adopted * (gain - 1))
        mean += np.float32(adopted * offset)
        bound = noise * np.float32(3)
        pull = cv2.max(cv2.min(residual, bound), -bound)
        mean += pull * free * np.float32(1 - math.exp(-step_s / _MEAN_TAU_S))
        pull = np.abs(pull) * np.float32(1.25) - noise  # the mean size of a normal error is .8 of its deviation
        noise += pull * free * np.float32(1 - math.exp(-step_s / _NOISE_TAU_S))
        np.clip(noise, *_NOISES, out=noise)

    def _adopt(self, grey: Grey, free: Grey, time_s: float) -> None:
        """Take for background what has replaced it and stays: a thing put down, the place of one taken away."""
        step_s = min(_MAX_STEP_S, time_s - self._looked_s)
        self._looked_s = time_s
        candidate, noise = self._candidate, self._noise
        same = np.abs(grey - candidate) <= np.maximum(noise * np.float32(2), _ALIKE_LEVELS)
        self._stays_s += np.float32(step_s)
        self._stays_s *= same * free
        candidate += (grey - candidate) * np.where(same, np.float32(0.3), np.float32(1))
        new = self._stays_s >= _STAYS_S
        np.copyto(self._mean, candidate, where=new)


def _is_changed(residual: Grey, noise: Grey) -> NDArray[np.bool_]:
    changed: NDArray[np.bool_] = np.abs(residual) > noise * np.float32(_CHANGED_NOISES)
    return changed


def _share(changed: NDArray[np.bool_]) -> float:
    return np.count_nonzero(changed) / max(1, changed.size)


def _median(values: Grey) -> float:
    middle = len(values) // 2
    return float(np.partition(values, middle)[middle])
