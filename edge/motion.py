"""The witness `motion`: what moves like an object, has the size that objects have there, and is not detected.

It works on a small grey picture. What differs from the background and is not explained by a detection falls into
places; places and detections together are followed over time, so that an object that the detector loses keeps its
trail. A trail is told when it has lasted, has moved as a whole, and has a plausible size. Rules only: no clock, no I/O.

Laws:

1. A blob lies inside the frame; its score is within 0..1; its id is never used again.
2. Before sizes are known no blob is returned.
3. The number of trails is at most `MAX_TRAILS`.
"""

import itertools
import math
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.background import Background, Grey, Mask
from edge.contract.samples import Xyxy
from edge.detector.detections import Floats
from edge.frame import Image
from edge.sizes import Sizes

SMALL_SIDE_PX: Final = 160
MAX_TRAILS: Final = 48
MIN_SEEN_S: Final = 0.4
MIN_SEEN_FRAMES: Final = 3
MIN_SCORE: Final = 0.1
OUTAGE_S: Final = 5.0
COVERED_SHARE: Final = 0.5  # of a blob, by one box that explains it

_MIN_PLACE_PX: Final = 3  # of the small picture, either side
_LIMBS: Final = (0.15, 0.05, 0.1)  # beside, above and below a detection, in its widths and heights
_SOLID_PX: Final = (3, 3)
_FEW_PLACES: Final = 12  # rain and snow make more
_FILLED: Final = (0.3, 0.6)  # of a place: hardly, and surely an object
_CLOSED_PX: Final = (1, 5)
_BLUR_PX: Final = 0.5  # by which the small picture's blur widens a place
MAX_ABREAST: Final = 2
_WHOLE: Final = 0.8  # so plausible a place is not split
_CUT_SLACK: Final = 0.3  # of a part's width
_PATH_S: Final = 3.0
_STEP_S: Final = 0.25
_LOST_S: Final = 0.6
_LOST_FRAMES: Final = 2
_REACH: Final = (0.3, 1.5)  # heights, and heights a second
_MAX_RATIO: Final = 1.7
_MOVED: Final = (0.1, 0.4)  # heights: no motion, and surely motion
_MIN_STRAIGHT: Final = 0.3
_SIZE_TAU_S: Final = 0.5
_GAIN: Final = 0.4


@dataclass(frozen=True, slots=True)
class Blob:
    """Something that moves and is not detected.

    Attributes:
        id: of the blob's own trail; never used again.
        xyxy: pixels of the frame.
        score: 0..1, how surely this is a moving object of a size that objects have there.
        seen_s: how long it has been followed, seconds; detections of it count.
    """

    id: int
    xyxy: Xyxy
    score: float
    seen_s: float


@dataclass(slots=True, eq=False)
class _Trail:
    """One thing that is followed. `path`: time, centre x and y."""

    id: int
    xyxy: Xyxy
    explained: bool
    size_now: float
    size_score: float
    first_s: float
    last_s: float
    frames: int = 1
    missing: int = 0
    velocity: tuple[float, float] = (0.0, 0.0)
    path: deque[tuple[float, float, float]] = field(default_factory=deque)


class MotionWitness:
    """Watches one camera. Call `update` once a frame, in order."""

    def __init__(self) -> None:
        self._ids = count(1)
        self._shape: tuple[int, ...] = ()
        self._last_s = -math.inf
        self._trails: list[_Trail] = []

    def update(self, image: Image, boxes: Floats, sure: Floats, *, time_s: float) -> list[Blob]:
        """Return what moves in this frame, is not detected and has been followed over several frames.

        Args:
            image: BGR `[h, w, 3]`. Another size than before starts anew.
            boxes: `[n, 4]` xyxy of all places that are explained in this frame.
            sure: `[k, 4]` xyxy of detections well above the threshold: the sizes that objects have are learned there.
            time_s: the camera's monotonic time.
        """
        self._begin(image, time_s)
        height, width = image.shape[:2]
        boxes, sure = _sane(boxes, height, width), _sane(sure, height, width)
        self._sizes.learn(sure, time_s=time_s)
        grey = _shrink(image)
        explained = _explained(boxes, grey.shape, (height, width))
        changed = self._background.changed(grey, explained, time_s=time_s)
        self._last_s = time_s
        if changed is None:
            self._trails = [trail for trail in self._trails if time_s - trail.last_s <= _LOST_S]
            return []
        places, scores = self._places(changed, explained, (height, width))
        scores = np.concatenate([np.ones(len(boxes), np.float32), scores])
        self._follow(np.concatenate([boxes, places]), scores, n_explained=len(boxes), time_s=time_s)
        return self._told(boxes, time_s)

    def _begin(self, image: Image, time_s: float) -> None:
        if image.shape != self._shape:
            self._shape = image.shape
            self._sizes = Sizes(*image.shape[:2])
            self._last_s = -math.inf
        if not 0 <= time_s - self._last_s <= OUTAGE_S:
            self._background = Background(*_small_size(*image.shape[:2]))
            self._trails = []

    def _places(self, changed: Mask, explained: Mask, size: tuple[int, int]) -> tuple[Floats, Floats]:
        """Return the places that changed and are not explained, `[n, 4]` xyxy, and their scores, `[n]`."""
        changed[explained != 0] = 0
        solid = cv2.morphologyEx(changed, cv2.MORPH_OPEN, np.ones(_SOLID_PX, np.uint8))
        closed: Any = cv2.morphologyEx(solid, cv2.MORPH_CLOSE, np.ones(_CLOSED_PX[::-1], np.uint8))
        _, _, stats, _ = cv2.connectedComponentsWithStats(closed)
        stats = stats[1:]
        stats = stats[stats[:, cv2.CC_STAT_WIDTH : cv2.CC_STAT_AREA].min(axis=1) >= _MIN_PLACE_PX]
        clear = min(1.0, _FEW_PLACES / max(1, len(stats)))
        stats = stats[np.argsort(-stats[:, cv2.CC_STAT_AREA])[:MAX_TRAILS]]
        x, y, w, h = stats[:, :4].T.astype(np.float32)
        whole: Floats = np.stack([x + _BLUR_PX, y + _BLUR_PX, x + w - _BLUR_PX, y + h - _BLUR_PX], axis=1)
        scale = np.array([size[1] / changed.shape[1], size[0] / changed.shape[0]] * 2, np.float32)
        places, scores = self._split(whole, closed, scale)
        return places * scale, scores * np.float32(clear)

    def _split(self, whole: Floats, closed: Mask, scale: Floats) -> tuple[Floats, Floats]:
        """Return places of the small picture with their scores; those more plausible in parts are split."""
        sums: Any = cv2.integral(closed)
        scores = self._scores(whole, sums, scale)
        places, found = [whole[scores >= _WHOLE]], [scores[scores >= _WHOLE]]
        doubtful = scores < _WHOLE
        trials = [_columns(place, n, closed) for place in whole[doubtful] for n in range(2, MAX_ABREAST + 1)]
        if trials:
            parts = np.concatenate(trials)
            in_parts = self._scores(parts, sums, scale).reshape(-1, sum(range(2, MAX_ABREAST + 1)))
            parts = parts.reshape(*in_parts.shape, 4)
            for i, (place, score) in enumerate(zip(whole[doubtful], scores[doubtful], strict=True)):
                best, start = float(score), 0
                chosen, chosen_scores = place[None], np.array([score], np.float32)
                for n in range(2, MAX_ABREAST + 1):
                    abreast = in_parts[i, start : start + n]
                    if float(abreast.mean()) > best:
                        best, chosen, chosen_scores = float(abreast.mean()), parts[i, start : start + n], abreast
                    start += n
                places.append(chosen)
                found.append(chosen_scores)
        return np.concatenate(places)[:MAX_TRAILS], np.concatenate(found)[:MAX_TRAILS]

    def _scores(self, places: Floats, sums: NDArray[np.int32], scale: Floats) -> Floats:
        scores: Floats = self._sizes.plausible(places * scale) * _filled(places, sums)
        return scores

    def _follow(self, places: Floats, scores: Floats, *, n_explained: int, time_s: float) -> None:
        """Link places to trails; the first `n_explained` are detections."""
        free = set(range(len(places)))
        for trail in self._trails:
            trail.missing += 1
        for i, j in self._pairs(places, time_s):
            trail = self._trails[i]
            if trail.missing and j in free:
                free.discard(j)
                x1, y1, x2, y2 = places[j].tolist()
                _go_on(trail, (x1, y1, x2, y2), explained=j < n_explained, score=float(scores[j]), time_s=time_s)
        kept = [t for t in self._trails if not t.missing or t.missing <= _LOST_FRAMES or time_s - t.last_s <= _LOST_S]
        for j in sorted(free)[: MAX_TRAILS - len(kept)]:
            x1, y1, x2, y2 = places[j].tolist()
            trail = _Trail(
                next(self._ids), (x1, y1, x2, y2), j < n_explained, float(scores[j]), float(scores[j]), time_s, time_s
            )
            trail.path.append((time_s, (x1 + x2) / 2, (y1 + y2) / 2))
            kept.append(trail)
        self._trails = kept

    def _pairs(self, places: Floats, time_s: float) -> list[tuple[int, int]]:
        """Return the pairs of trail and place that may be one thing, nearest first."""
        if not self._trails or not len(places):
            return []
        old = np.array([t.xyxy for t in self._trails], np.float32)
        gone_s = np.array([time_s - t.last_s for t in self._trails], np.float32)[:, None]
        velocity = np.array([t.velocity for t in self._trails], np.float32)
        (ox, oy, ow, oh), (x, y, w, h) = _centres(old), _centres(places)
        off_x = x - (ox[:, None] + velocity[:, :1] * gone_s)
        off_y = y - (oy[:, None] + velocity[:, 1:] * gone_s)
        side = np.sqrt(ow * oh)[:, None]
        distance = np.hypot(off_x, off_y) / np.maximum(oh, ow)[:, None]
        ratio = np.abs(np.log(np.sqrt(w * h) / side))
        rows, columns = np.nonzero((distance <= _REACH[0] + _REACH[1] * gone_s) & (ratio <= math.log(_MAX_RATIO)))
        order = np.argsort((distance + 0.5 * ratio)[rows, columns], kind="stable")
        return list(zip(rows[order].tolist(), columns[order].tolist(), strict=True))

    def _told(self, boxes: Floats, time_s: float) -> list[Blob]:
        blobs = []
        for trail in self._trails:
            seen_s = time_s - trail.first_s
            if trail.missing or trail.explained or trail.frames < MIN_SEEN_FRAMES or seen_s < MIN_SEEN_S:
                continue
            score = min(trail.size_score, trail.size_now) * _moved(trail)
            if score >= MIN_SCORE and _covered(trail.xyxy, boxes) < COVERED_SHARE:
                blobs.append(Blob(trail.id, trail.xyxy, score, seen_s))
        return blobs


def _small_size(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, SMALL_SIDE_PX / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _shrink(image: Image) -> Grey:
    height, width = _small_size(*image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.blur(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), (3, 3)).astype(np.float32)


def _sane(boxes: Floats, height: int, width: int) -> Floats:
    """Return the parts of boxes that lie inside the frame, of at least a pixel."""
    boxes = boxes[np.isfinite(boxes).all(axis=1)]
    limit = np.array([width, height, width, height], np.float32)
    boxes = np.clip(boxes, 0, limit)
    kept: Floats = boxes[((boxes[:, 2:] - boxes[:, :2]) >= 1).all(axis=1)]
    return kept


def _explained(boxes: Floats, small: tuple[int, ...], size: tuple[int, int]) -> Mask:
    """Return 1 where a box is, with room for limbs and the shadow at its feet, on the small picture."""
    mask: Mask = np.zeros(small, np.uint8)
    beside, above, below = _LIMBS
    x1, y1, x2, y2 = boxes.T
    w, h = x2 - x1, y2 - y1
    wide = np.stack([x1 - beside * w, y1 - above * h, x2 + beside * w, y2 + below * h], axis=1)
    wide *= np.array([small[1] / size[1], small[0] / size[0]] * 2, np.float32)
    for left, top, right, bottom in wide.tolist():
        mask[max(0, int(top)) : math.ceil(bottom), max(0, int(left)) : math.ceil(right)] = 1
    return mask


def _filled(places: Floats, sums: NDArray[np.int32]) -> Floats:
    """Return 0..1 for places `[n, 4]` of the mask whose integral is given: by how much of each is changed."""
    x1, y1, x2, y2 = np.rint(places).astype(np.intp).T
    share = (sums[y2, x2] - sums[y1, x2] - sums[y2, x1] + sums[y1, x1]) / (255.0 * np.maximum(1, (x2 - x1) * (y2 - y1)))
    none, surely = _FILLED
    filled: Floats = np.clip((share - none) / (surely - none), 0, 1).astype(np.float32)
    return filled


def _columns(place: Floats, n: int, closed: Mask) -> Floats:
    """Return `n` upright parts of a place `[4]`, `[n, 4]`, cut where the mask is lowest, as high as it is there."""
    x1, y1, x2, y2 = (int(v) for v in (place[0], place[1], math.ceil(place[2]), math.ceil(place[3])))
    inside = closed[y1:y2, x1:x2] > 0
    height = inside.sum(axis=0)
    width, cuts = (x2 - x1) / n, [0]
    for i in range(1, n):
        first = max(cuts[-1] + 1, round((i - _CUT_SLACK) * width))
        last = max(first + 1, round((i + _CUT_SLACK) * width))
        cuts.append(first + int(height[first:last].argmin()) if first < len(height) else first)
    parts = []
    for left, right in itertools.pairwise([*cuts, x2 - x1]):
        rows = np.flatnonzero(inside[:, left:right].any(axis=1))
        top, bottom = (rows[0], rows[-1] + 1) if len(rows) else (0, y2 - y1)
        parts.append((x1 + left, y1 + top, x1 + right, y1 + bottom))
    return np.array(parts, np.float32)


def _centres(boxes: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    x1, y1, x2, y2 = boxes.T
    return (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1


def _go_on(trail: _Trail, xyxy: Xyxy, *, explained: bool, score: float, time_s: float) -> None:
    x1, y1, x2, y2 = xyxy
    ox1, oy1, ox2, oy2 = trail.xyxy
    step_s = max(1e-3, time_s - trail.last_s)
    vx, vy = trail.velocity
    dx, dy = (x1 + x2 - ox1 - ox2) / 2 / step_s, (y1 + y2 - oy1 - oy2) / 2 / step_s
    gain = max(_GAIN, 1 / trail.frames) if explained == trail.explained else 0.0
    gain = 1 - (1 - gain) ** min(1.0, step_s / 0.1)
    trail.velocity = (vx + gain * (dx - vx), vy + gain * (dy - vy))
    trail.size_now = score
    trail.size_score += (score - trail.size_score) * (1 - math.exp(-step_s / _SIZE_TAU_S))
    trail.xyxy, trail.explained, trail.last_s = xyxy, explained, time_s
    trail.frames += 1
    trail.missing = 0
    path = trail.path
    if time_s - path[-1][0] >= _STEP_S:
        path.append((time_s, (x1 + x2) / 2, (y1 + y2) / 2))
        while time_s - path[0][0] > _PATH_S and len(path) > 2:
            path.popleft()


def _moved(trail: _Trail) -> float:
    """Return 0..1: how surely it moved as a whole, and not to and fro."""
    x1, y1, x2, y2 = trail.xyxy
    points = [*((x, y) for _, x, y in trail.path), ((x1 + x2) / 2, (y1 + y2) / 2)]
    net = math.dist(points[0], points[-1])
    way = sum(math.dist(a, b) for a, b in itertools.pairwise(points))
    if way <= 0 or net < _MIN_STRAIGHT * way:
        return 0.0
    none, surely = _MOVED
    return max(0.0, min(1.0, (net / max(1.0, y2 - y1) - none) / (surely - none)))


def _covered(xyxy: Xyxy, boxes: Floats) -> float:
    """Return the largest share of a place that one box covers."""
    if not len(boxes):
        return 0.0
    x1, y1, x2, y2 = xyxy
    w = np.minimum(boxes[:, 2], x2) - np.maximum(boxes[:, 0], x1)
    h = np.minimum(boxes[:, 3], y2) - np.maximum(boxes[:, 1], y1)
    return float((np.maximum(w, 0) * np.maximum(h, 0)).max()) / max(1e-6, (x2 - x1) * (y2 - y1))
