"""One camera with its tracker and its miner of misses, on made sequences; weights of its own."""

import weakref

import numpy as np

from edge.contract.policy import Weights
from edge.contract.samples import WitnessKind, Xyxy
from edge.detector.detections import Detections
from edge.frame import Frame
from edge.miners.missed import MissedMiner
from edge.motion import Blob
from edge.observation import Mined, Observation
from edge.places import KnownPlaces
from edge.tracks import Link, Tracker

THRESHOLD = 0.4
WIDTH, HEIGHT = 640, 480
QUIET_S = 3600.0
WEIGHTS = Weights(bias=-2.0, gap=6.0, candidate=6.0, motion=3.0, zoom=9.0, refuted=-4.0)
NOW_MS = 1_800_000_000_000

Row = tuple[float, float, float]  # x, y and score of a box of 20x40 px


class Scene:
    """One camera, its tracker and its miner. It holds no picture: `pictures` counts those that somebody else holds."""

    def __init__(
        self, *, fps: float = 10.0, zooms: bool = False, weights: Weights = WEIGHTS, min_severity: float = 0.5
    ) -> None:
        self.tracker = Tracker(score_threshold=THRESHOLD)
        self.miner = MissedMiner(
            weights=weights, min_severity=min_severity, zooms=zooms, places=KnownPlaces(quiet_s=QUIET_S)
        )
        self.fps = fps
        self.number = 0
        self.time_s = 0.0
        self.mined: list[Mined] = []
        self.missing: dict[int, list[list[int]]] = {}  # by track: its episodes, the numbers of their frames
        self._pictures: list[weakref.ref] = []
        self._over: set[int] = set()

    def show(
        self, *rows: Row, later_s: float | None = None, blobs: tuple[Blob, ...] = (), class_id: int = 0
    ) -> Observation:
        """One frame, so much later than the last."""
        ordered = sorted(rows, key=lambda row: -row[2])
        detections = Detections(
            np.array([(x, y, x + 20, y + 40) for x, y, _ in ordered], np.float32).reshape(-1, 4),
            np.array([score for _, _, score in ordered], np.float32),
            np.full(len(ordered), class_id, np.int32),
        )
        self.time_s += 1 / self.fps if later_s is None else later_s
        ended = self.tracker.update(detections, time_s=self.time_s)
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        self._pictures = [held for held in self._pictures if held() is not None] + [weakref.ref(image)]
        frame = Frame(image, "camera", self.number, NOW_MS + round(self.time_s * 1e3), self.time_s)
        none = np.zeros(0, np.float32)
        seen = Observation(frame, detections, none, THRESHOLD, self.tracker.tracks, ended, blobs)
        for track in self.tracker.tracks:
            episodes = self.missing.setdefault(track.id, [])
            if track.link is Link.STRONG:
                self._over.add(track.id)
            else:
                if track.id in self._over or not episodes:
                    episodes.append([])
                    self._over.discard(track.id)
                episodes[-1].append(self.number)
        self.mined += self.miner.mine(seen)
        self.number += 1
        return seen

    def pictures(self) -> int:
        return sum(held() is not None for held in self._pictures)


def walk(scene: Scene, scores: list[float | None], *, x: float = 20.0, step: float = 3.0) -> Scene:
    """One object walks to the right; None: no box at all."""
    for score in scores:
        scene.show(*([] if score is None else [(x + step * scene.number, 80.0, score)]))
    return scene


def seen_at(xyxy: Xyxy, *, score: float = 0.8, class_id: int = 0) -> Detections:
    """What a second look finds."""
    return Detections(np.float32([xyxy]), np.float32([score]), np.int32([class_id]))


def moved(xyxy: Xyxy, by: float) -> Xyxy:
    x1, y1, x2, y2 = xyxy
    return x1 + by, y1 + by, x2 + by, y2 + by


def kinds(mined: Mined) -> set[WitnessKind]:
    return {witness.kind for witness in mined.witnesses}
