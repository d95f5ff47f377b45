"""One camera's trip: detect, track, watch for motion, mine, look twice.

`Pipeline.step` is the hot path and keeps no image longer than a miner needs it. What becomes of a mined frame stands in
edge.finding.

A picture that shows nothing (edge.blank) is passed over: nobody is missed in it. With another size of the picture all
that is held in its pixels is forgotten; episodes keep the frames that they have.

Laws:

1. Which frames are drawn as `control` depends on the seed, their times and `control_per_hour`, on nothing else. Each is
   handed on once: at once, or after its second look, or when there will be none.
2. The objects of all `control` frames that were handed on looked at twice are what `looks.recall` counts.
"""

import time
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.blank import is_blank
from edge.config import MiningConfig
from edge.contract.errors import UnusableError
from edge.contract.policy import BUILT_IN, Weights
from edge.contract.samples import Xyxy
from edge.detector.detections import Detections, box_iou
from edge.detector.detector import Detector, Inference
from edge.frame import Frame, Image
from edge.looks import SecondLooks
from edge.miners.control import ControlMiner
from edge.miners.episodes import RENAMED_IOU, is_taken
from edge.miners.low_confidence import LowConfidenceMiner
from edge.miners.missed import CARRY_S, SURE_MARGIN, MissedMiner
from edge.miners.suspect import SuspectMiner
from edge.motion import Blob, MotionWitness
from edge.observation import Mined, Observation, is_inside
from edge.places import KnownPlaces
from edge.privacy import NO_REDACTION, Redaction
from edge.tracks import Link, Track, Tracker

SAME_OBJECT_IOU: Final = 0.5
KEEP_SCORE: Final = 0.05
CARRY_COAST_S: Final = 0.5
QUIET_S: Final = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one frame gave.

    Attributes:
        detections: what the device publishes: the detector's own boxes and those of `merged`, best first.
        merged: which of them the second look added, `[n]`.
        tracks_ms, motion_ms, miners_ms, looks_ms: they stand beside the inference's own timings.
    """

    inference: Inference
    mined: list[Mined]
    detections: Detections
    merged: NDArray[np.bool_]
    tracks_ms: float
    motion_ms: float
    miners_ms: float
    looks_ms: float


class Pipeline:
    """Mines one camera's frames. Give it every frame once, in order.

    Attributes:
        places: where something was reported and is quiet, by what for. Load them before the first frame.
        looks: the second looks.
        wanted: whether anybody wants a finding of the frames to come; if not, none is drawn as `control`, and what
            waits for its second look is handed on without.

    Args:
        detector: may be shared between pipelines of one thread.
        score_threshold: at or above it a box counts as detected.
        mining: see `MiningConfig`. Raises `UnusableError` for a label that the model has not.
        seed: makes the control sample repeatable, and the names of the tracks; a daemon draws 32 bits at random.
        redaction: nothing is mined in its zones.
    """

    def __init__(
        self,
        *,
        detector: Detector,
        score_threshold: float,
        mining: MiningConfig,
        seed: int,
        redaction: Redaction = NO_REDACTION,
    ) -> None:
        self._detector = detector
        self._score_threshold = score_threshold
        self._merge = mining.merge
        self._mined_classes = _classes(mining.labels, detector.labels)
        self._tracker = Tracker(score_threshold=score_threshold)
        self._motion = MotionWitness()
        self._redaction = redaction
        missed_places = KnownPlaces(quiet_s=QUIET_S)
        self._missed = MissedMiner(
            weights=BUILT_IN, min_severity=mining.min_severity, zooms=mining.zoom_budget > 0, places=missed_places
        )
        self.looks = SecondLooks(
            detector, share=mining.zoom_budget, score_threshold=score_threshold, may_count=self._may_count
        )
        self._low_confidence = LowConfidenceMiner(band=mining.low_confidence_band)
        self._suspects = SuspectMiner()
        self.places = {"missed": missed_places, **self._suspects.places}
        self._control = ControlMiner(per_hour=mining.control_per_hour, seed=seed)
        self._start_id = f"{seed & 0xFFFFFFFF:08x}"
        self.wanted = True
        self._last: Observation | None = None
        self._size: tuple[int, ...] = ()

    def adopt(self, mining: MiningConfig, weights: Weights | None) -> None:
        """Go on with other rules; what was learned and is open stays. `weights`: None for the built-in ones."""
        self._merge = mining.merge
        self._mined_classes = _classes(mining.labels, self._detector.labels)
        self._missed.weights = BUILT_IN if weights is None else weights
        self._missed.min_severity = mining.min_severity
        self._missed.zooms = mining.zoom_budget > 0
        self.looks.budget.share = mining.zoom_budget
        self._low_confidence.band = mining.low_confidence_band
        self._control.per_hour = mining.control_per_hour

    def step(self, frame: Frame) -> Step:
        """Detect, track, watch for motion, mine, and take a second look."""
        inference = self._detector.detect(frame.image, score_threshold=KEEP_SCORE)
        begun = time.perf_counter()
        if not (inference.detections.score >= self._score_threshold).any() and is_blank(frame.image):
            return self._pass_over(frame, inference)
        ended = self._follow_size(frame.image)
        ended += self._tracker.update(inference.detections, time_s=frame.time_s)
        tracked = time.perf_counter()
        blobs = self._watch(frame, inference.detections)
        self._tracker.follow([blob.xyxy for blob in blobs], time_s=frame.time_s)
        watched = time.perf_counter()
        observation = Observation(
            frame=frame,
            detections=inference.detections,
            features=inference.features,
            score_threshold=self._score_threshold,
            tracks=self._tracker.tracks,
            ended=ended,
            blobs=blobs,
            hidden=self._redaction.hidden(self._tracker.tracks),
        )
        self._last = observation
        mined = self._mine(observation)
        done = time.perf_counter()
        looks_ms = self.looks.take(observation, missed=self._missed, tracker=self._tracker, carry=self._merge)
        mined += self.looks.release()
        detections, merged = self._published(observation)
        return Step(
            inference=inference,
            mined=mined,
            detections=detections,
            merged=merged,
            tracks_ms=(tracked - begun) * 1e3,
            motion_ms=(watched - tracked) * 1e3,
            miners_ms=(done - watched) * 1e3,
            looks_ms=looks_ms,
        )

    @property
    def last(self) -> Observation | None:
        """The newest frame as the miners saw it; None before the first. One that shows nothing is none of theirs."""
        return self._last

    def finish(self) -> list[Mined]:
        """Return what is still open when the recording ends."""
        self.looks.give_up()
        missed = [] if self._last is None else self._wanted(self._missed.finish(self._last))
        return missed + self.looks.release()

    def _pass_over(self, frame: Frame, inference: Inference) -> Step:
        """Take a picture that shows nothing: no more than a moment at which a frame may be drawn."""
        seen = Observation(frame, inference.detections, inference.features, self._score_threshold, [], [])
        none = np.zeros(len(inference.detections), np.bool_)
        drawn = self._draw(seen)
        looks_ms = self.looks.go_on()
        return Step(inference, drawn + self.looks.release(), inference.detections, none, 0.0, 0.0, 0.0, looks_ms)

    def _follow_size(self, image: Image) -> list[Track]:
        """Return the tracks that end because the picture has another size than before."""
        size, self._size = self._size, image.shape[:2]
        if self._size == size:
            return []
        self._suspects.forget()
        self.looks.forget()
        return self._tracker.end_all()

    def _watch(self, frame: Frame, detections: Detections) -> list[Blob]:
        strong = detections.xyxy[detections.score >= self._score_threshold]
        sure = detections.xyxy[detections.score >= self._score_threshold + SURE_MARGIN]
        return self._motion.update(frame.image, strong, sure, time_s=frame.time_s)

    def _mine(self, observation: Observation) -> list[Mined]:
        control = [self.looks.see(one) for one in self._draw(observation) if not self.looks.add_control(one)]
        mined = [
            *self._missed.mine(observation),
            *self._low_confidence.mine(observation),
            *self._suspects.mine(observation),
        ]
        return self._wanted(mined) + control

    def _draw(self, observation: Observation) -> list[Mined]:
        """Return the frame if it is drawn as `control`. The moment passes, wanted or not."""
        drawn = self._control.mine(observation)
        if self.wanted:
            return drawn
        self.looks.give_up()
        return []

    def _wanted(self, mined: list[Mined]) -> list[Mined]:
        """Return what is of a label that is mined and stands in no ignore zone, with the name of its track."""
        return [
            one if one.track_id is None else replace(one, track=f"{self._start_id}-{one.track_id}")
            for one in mined
            if self._is_wanted(one.region, one.class_id, one.at)
        ]

    def _is_wanted(self, xyxy: Xyxy, class_id: int | None, at: Observation) -> bool:
        if self._mined_classes is not None and class_id is not None and class_id not in self._mined_classes:
            return False
        height, width = at.frame.image.shape[:2]
        return not self._redaction.ignores(xyxy, (width, height))

    def _may_count(self, boxes: Detections, at: Observation) -> NDArray[np.bool_]:
        """Return `[n]`: which boxes of a `control` frame are of a label that is mined and stand in no ignore zone."""
        rows = zip(boxes.xyxy.tolist(), boxes.class_id.tolist(), strict=True)
        return np.array([self._is_wanted((x1, y1, x2, y2), of, at) for (x1, y1, x2, y2), of in rows], np.bool_)

    def _published(self, now: Observation) -> tuple[Detections, NDArray[np.bool_]]:
        """Return the detections with what the second look found, carried on by its track between two looks."""
        carried = _once_each([track for track in now.tracks if self._merge and _is_carried(track, now)])
        if not carried:
            return now.detections, np.zeros(len(now.detections), np.bool_)
        boxes = np.array([track.box if track.link is Link.WEAK else track.xyxy for track in carried], np.float32)
        scores = np.array([max(track.vouched_score, now.score_threshold) for track in carried], np.float32)
        classes = np.array([track.class_id for track in carried], np.int32)
        own = now.detections
        weak = own.score < now.score_threshold  # weak views of the same object give way
        same = (box_iou(own.xyxy, boxes) > SAME_OBJECT_IOU) & (own.class_id[:, None] == classes[None, :])
        own = own.take(~(weak & same.any(axis=1)))
        everything = Detections(
            np.concatenate([own.xyxy, boxes]),
            np.concatenate([own.score, scores]),
            np.concatenate([own.class_id, classes]),
        )
        order = np.argsort(-everything.score, kind="stable")
        return everything.take(order), order >= len(own)


def _classes(labels: tuple[str, ...], known: tuple[str, ...]) -> frozenset[int] | None:
    """Return the class ids of labels, None for all. Raises `UnusableError` on a label that the model has not."""
    if not labels:
        return None
    unknown = [label for label in labels if label not in known]
    if unknown:
        msg = f"`mining.labels` has {unknown[0]!r}, which the model does not know"
        raise UnusableError(msg)
    return frozenset(index for index, label in enumerate(known) if label in labels)


def _is_carried(track: Track, now: Observation) -> bool:
    """Return whether the second look has seen a track that the detector does not report now."""
    now_s = now.frame.time_s
    if track.link is Link.STRONG or track.vouched_s is None or now_s - track.vouched_s > CARRY_S:
        return False
    if now_s - track.last_linked_s > CARRY_COAST_S or not is_inside(track.xyxy, now, border_px=0.0):
        return False
    return not is_taken(track.xyxy, track.class_id, now)


def _once_each(carried: list[Track]) -> list[Track]:
    """Return the tracks without those that lie on a surer one: the second look may give one object two names."""
    if len(carried) < 2:
        return carried
    surest = sorted(carried, key=lambda track: -track.vouched_score)
    places = np.array([track.xyxy for track in surest], np.float32)
    iou = np.triu(box_iou(places, places), 1)
    return [track for index, track in enumerate(surest) if iou[:, index].max() < RENAMED_IOU]
