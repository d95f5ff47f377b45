"""Two models look at the same frames: what is counted of each, and what only the one sees that does not serve.

Laws:

1. Both see every frame, in an order that alternates: neither always finds the caches warm.
2. A frame that one of them fails on counts as its failure; one that both fail on counts for nothing.
3. A `peer` is a sure box where the model that serves has none of that label, not even one a little below its threshold:
   one a frame, one in `STAYS_S` a camera, one in `QUIET_S` a place. None is in an ignore zone or of a label that is not
   mined.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.config import MiningConfig, Polygon
from edge.contract.judgement import SLACK, STAYS_S, Figures, Side, time_bin
from edge.contract.samples import Reason, Xyxy
from edge.detector.detections import Detections, Floats, box_iou
from edge.detector.detector import Detector
from edge.frame import Frame
from edge.pipeline import QUIET_S, SAME_OBJECT_IOU, Pipeline, Step
from edge.places import KnownPlaces
from edge.privacy import Blur, Redaction, person_class
from edge.updating.sightings import Sightings

SURE_MARGIN: Final = 0.1
_SEED: Final = 0  # nothing is drawn at random here
_DEVICES: Final = ("CPU", "CUDA", "TensorRT")  # the fastest last

_log = logging.getLogger(__name__)

Row = tuple[float, float, float, float, float, int]
Boxes = tuple[Row, ...]
"""Detections as they go through the pipe: corners, score, class id."""


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """A box that only the model sees that does not serve; its class id is the serving model's."""

    xyxy: Xyxy
    score: float
    class_id: int


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """A frame on which the two differ: all boxes of both in the class ids of the one that serves.

    `hidden` `[n, 4]`: where people are beside them, see edge.privacy. Features and threshold are the serving model's.
    """

    peers: tuple[Peer, ...]
    serving: Detections
    other: Detections
    hidden: Floats
    features: Floats
    score_threshold: float


@dataclass(slots=True, eq=False)
class _Seat:
    """One model and what it counts, by camera."""

    detector: Detector
    score_threshold: float
    turn: int
    pipelines: dict[str, Pipeline] = field(default_factory=dict)
    sightings: dict[str, Sightings] = field(default_factory=dict)
    failures: int = 0


class Pair:
    """Looks with both. Give it a camera's frames in order; some may be left out.

    Args:
        old: the model that is to be replaced.
        new: the one that is judged.
        score_threshold: of both; None is each one's own.
        mining: as the device mines; no frame is drawn as `control`.
        blur: as the device blurs.
        zones: in which nothing is mined, by camera.
        new_serves: whether it is the new one that serves.
        turn: is told whose turn it is, 1 for the old and 2 for the new, before that model is asked.
    """

    def __init__(
        self,
        *,
        old: Detector,
        new: Detector,
        score_threshold: float | None,
        mining: MiningConfig,
        blur: Blur,
        zones: Mapping[str, tuple[Polygon, ...]],
        new_serves: bool,
        turn: Callable[[int], None],
    ) -> None:
        self._seats = [
            _Seat(one, one.score_threshold if score_threshold is None else score_threshold, number)
            for number, one in ((1, old), (2, new))
        ]
        self._mining = msgspec.structs.replace(mining, control_per_hour=0.0)
        self._blur: Blur = blur
        self._zones = zones
        self._serving, self._other = (self._seats[::-1]) if new_serves else self._seats
        self._turn = turn
        self._fallback = fallback(old.runtime.device, new.runtime.device)
        self._same_label = _mapping(self._other.detector.labels, self._serving.detector.labels)
        self._told: dict[str, float] = {}
        self._places: dict[str, KnownPlaces] = {}
        self._frames = 0
        for name in zones:
            self._open(name)

    def look(self, frame: Frame) -> tuple[Figures, Sight | None]:
        """Look with both; return what the frame adds to the figures, and itself where the two differ."""
        if frame.camera not in self._zones:
            return Figures(), None
        self._frames += 1
        order = self._seats if self._frames % 2 else self._seats[::-1]
        steps = {seat.turn: self._step(seat, frame) for seat in order}
        self._turn(0)
        old, new = steps[1], steps[2]
        if old is None or new is None:
            failed = [
                Side(failures=int(mine is None and other is not None)) for mine, other in ((old, new), (new, old))
            ]
            return Figures(old=failed[0], new=failed[1]), None
        sides = [self._count(seat, steps[seat.turn], frame) for seat in self._seats]
        figures = Figures(frames=1, old=sides[0], new=sides[1], fallback=self._fallback)
        return figures, self._differ(frame)

    def _open(self, camera: str) -> None:
        self._places[camera] = KnownPlaces(quiet_s=QUIET_S)
        for seat in self._seats:
            labels = seat.detector.labels
            seat.pipelines[camera] = Pipeline(
                detector=seat.detector,
                score_threshold=seat.score_threshold,
                mining=self._mining,
                seed=_SEED,
                redaction=Redaction(ignore=self._zones[camera], blur=self._blur, person_class=person_class(labels)),
            )
            seat.sightings[camera] = Sightings(score_threshold=seat.score_threshold)

    def _step(self, seat: _Seat, frame: Frame) -> Step | None:
        self._turn(seat.turn)
        try:
            return seat.pipelines[frame.camera].step(frame)
        except Exception as error:  # noqa: BLE001 - a failure is what is counted here, of whatever kind
            seat.failures += 1
            if seat.failures == 1:
                _log.warning("%s failed on a frame", seat.detector.card.release, exc_info=error)
            return None

    def _count(self, seat: _Seat, step: Step | None, frame: Frame) -> Side:
        assert step is not None
        counted = seat.sightings[frame.camera].count(step.inference.detections, time_s=frame.time_s)
        reasons = [one.reason for one in step.mined]
        return msgspec.structs.replace(
            counted,
            spent={time_bin(sum(step.inference.timings_ms)): 1},
            not_finite=int(not step.inference.finite),
            missed=reasons.count(Reason.MISSED),
            suspect=reasons.count(Reason.SUSPECT),
        )

    def _differ(self, frame: Frame) -> Sight | None:
        """Return the frame with its surest peer, None where there is none to tell of."""
        camera, now_s = frame.camera, frame.time_s
        mine, theirs = self._serving.pipelines[camera].last, self._other.pipelines[camera].last
        if mine is None or theirs is None or not (mine.frame is theirs.frame is frame):
            return None  # a blank picture
        if camera in self._told and 0 <= now_s - self._told[camera] < STAYS_S:
            return None
        other = _renamed(theirs.detections, self._same_label)
        surely = other.take(other.score >= self._other.score_threshold + SURE_MARGIN)
        seen = mine.detections.take(mine.detections.score >= self._serving.score_threshold - SLACK)
        same = box_iou(surely.xyxy, seen.xyxy) > SAME_OBJECT_IOU
        same &= surely.class_id[:, None] == seen.class_id[None, :]
        alone = surely.take(np.flatnonzero(~same.any(axis=1)))
        rows = zip(alone.xyxy.tolist(), alone.score.tolist(), alone.class_id.tolist(), strict=True)
        for (x1, y1, x2, y2), score, class_id in rows:
            xyxy: Xyxy = (x1, y1, x2, y2)
            places = self._places[camera]
            now_ms = frame.captured_at_ms
            if places.is_known(xyxy, class_id, now_ms=now_ms) or not self._is_mined(xyxy, class_id, frame):
                continue
            places.remember(xyxy, class_id, now_ms=now_ms)
            self._told[camera] = now_s
            return Sight(
                peers=(Peer(xyxy=xyxy, score=min(score, 1.0), class_id=class_id),),
                serving=mine.detections,
                other=other,
                hidden=np.concatenate([mine.hidden, theirs.hidden]),
                features=mine.features,
                score_threshold=self._serving.score_threshold,
            )
        return None

    def _is_mined(self, xyxy: Xyxy, class_id: int, frame: Frame) -> bool:
        wanted = self._mining.labels
        if wanted and self._serving.detector.labels[class_id] not in wanted:
            return False
        height, width = frame.image.shape[:2]
        zones = Redaction(ignore=self._zones[frame.camera], blur="none", person_class=None)
        return not zones.ignores(xyxy, (width, height))


def fallback(old: str, new: str) -> str:
    """Return from what to what a model fell back, by the devices that run the two; "" where it did not."""
    known = old in _DEVICES and new in _DEVICES
    return f"{old} to {new}" if known and _DEVICES.index(new) < _DEVICES.index(old) else ""


def pack(found: Detections) -> Boxes:
    """Return detections as rows."""
    rows = zip(found.xyxy.tolist(), found.score.tolist(), found.class_id.tolist(), strict=True)
    return tuple((x1, y1, x2, y2, score, class_id) for (x1, y1, x2, y2), score, class_id in rows)


def unpack(boxes: Boxes) -> Detections:
    """Return rows as detections."""
    table = np.array(boxes, np.float32).reshape(-1, 6)
    return Detections(table[:, :4].copy(), table[:, 4].copy(), table[:, 5].astype(np.int32))


def _mapping(labels: tuple[str, ...], known: tuple[str, ...]) -> NDArray[np.int32]:
    """Return the class id of each label among the known ones, -1 where it is not among them."""
    return np.array([known.index(label) if label in known else -1 for label in labels], np.int32)


def _renamed(found: Detections, class_ids: NDArray[np.int32]) -> Detections:
    """Return the boxes of the labels that are known, under their other class ids."""
    ids = class_ids[found.class_id]
    return Detections(found.xyxy, found.score, np.asarray(ids, np.int32)).take(ids >= 0)
