"""The small miners, `low_confidence` and `control`: what they must report, and what they must not."""

import numpy as np
import pytest

from edge.contract.samples import Reason
from edge.detector.detections import Detections
from edge.frame import Frame
from edge.miners.control import ControlMiner
from edge.miners.low_confidence import REPEAT_S, LowConfidenceMiner
from edge.observation import Mined, Observation
from edge.tracks import Tracker

THRESHOLD = 0.4
BAND = 0.15
IMAGE = np.zeros((240, 320, 3), np.uint8)


class Scene:
    """One camera, its tracker, and its miner of low confidence."""

    def __init__(self, *, band: float = BAND) -> None:
        self.tracker = Tracker(score_threshold=THRESHOLD)
        self.miner = LowConfidenceMiner(band=band)
        self.number = 0
        self.mined: list[Mined] = []

    def walk(self, scores: list[float | None]) -> "Scene":
        """One object of 20x40 px walks to the right, a frame a score; None: no box at all."""
        for score in scores:
            x, n = 20.0 + self.number, int(score is not None)
            detections = Detections(
                np.float32([(x, 80, x + 20, 120)] * n).reshape(-1, 4), np.float32([score] * n), np.zeros(n, np.int32)
            )
            time_s = self.number / 10
            ended = self.tracker.update(detections, time_s=time_s)
            frame = Frame(IMAGE, "camera", self.number, 0, time_s)
            none = np.zeros(0, np.float32)
            self.mined += self.miner.mine(Observation(frame, detections, none, THRESHOLD, self.tracker.tracks, ended))
            self.number += 1
        return self


def test_low_confidence_once_a_track() -> None:
    (mined,) = Scene().walk([0.8] * 5 + [0.42] * 10).mined
    assert (mined.reason, mined.at.frame.sequence, mined.track_id) == (Reason.LOW_CONFIDENCE, 5, 1)
    assert mined.region == pytest.approx((25, 80, 45, 120))
    assert mined.witnesses == ()


@pytest.mark.parametrize(
    ("scores", "band", "count"),
    [
        ([0.8] * 20, BAND, 0),  # always sure
        ([0.42], BAND, 0),  # one frame is no object yet
        ([0.39] * 20, BAND, 0),  # below the threshold: that is a miss
        ([0.54] * 20, BAND, 1),  # just inside the band
        ([0.56] * 20, BAND, 0),  # just above it
        ([0.42] * 20, 0.01, 0),  # the same against a narrow band
        ([0.6] * 20, 0.3, 1),  # a wide one
        ([0.401] * 20, 0.0, 0),  # no band: nobody is unsure
    ],
)
def test_low_confidence_is_what_lies_in_the_band(scores: list[float | None], band: float, count: int) -> None:
    assert len(Scene(band=band).walk(scores).mined) == count


def test_the_band_may_change_at_any_time() -> None:
    scene = Scene(band=0.05).walk([0.5] * 10)
    assert scene.mined == []
    scene.miner.band = 0.2
    assert len(scene.walk([0.5] * 10).mined) == 1


def test_the_surer_the_less_severe() -> None:
    severities = [Scene().walk([score] * 3).mined[0].severity for score in (0.41, 0.45, 0.5, 0.54)]
    assert severities == sorted(severities, reverse=True)
    assert 0 < severities[-1] < severities[0] <= 0.5


def test_low_confidence_again_after_a_while() -> None:
    assert len(Scene().walk([0.42] * round(10 * 2.5 * REPEAT_S)).mined) == 3


def test_low_confidence_forgets_what_is_gone() -> None:
    scene = Scene().walk([0.42] * 5 + [None] * 60)
    assert len(scene.mined) == 1
    assert scene.miner._reported_s == {}


def test_control_draws_at_its_rate_whatever_the_frame_rate() -> None:
    for fps in (1, 10):
        miner = ControlMiner(per_hour=60, seed=1)
        drawn = 0
        for number in range(fps * 3600 * 4):
            frame = Frame(IMAGE, "camera", number, 0, number / fps)
            empty = Detections()
            drawn += len(miner.mine(Observation(frame, empty, np.zeros(0, np.float32), THRESHOLD, [], [])))
        assert 180 <= drawn <= 300  # 240 expected, four standard deviations


def test_control_does_not_pick_the_first_frame_after_an_outage() -> None:
    drawn = 0
    for seed in range(200):
        miner = ControlMiner(per_hour=4, seed=seed)
        for number, time_s in enumerate((0.0, 0.1, 8 * 3600.0)):
            frame = Frame(IMAGE, "c", number, 0, time_s)
            drawn += len(miner.mine(Observation(frame, Detections(), np.zeros(0, np.float32), THRESHOLD, [], [])))
    assert drawn < 15  # 2 expected; without the cap all 200


def test_control_is_repeatable_and_can_be_off() -> None:
    def draw(per_hour: float, seed: int) -> list[int]:
        miner = ControlMiner(per_hour=per_hour, seed=seed)
        return [
            number
            for number in range(2000)
            if miner.mine(
                Observation(
                    Frame(IMAGE, "c", number, 0, number), Detections(), np.zeros(0, np.float32), THRESHOLD, [], []
                )
            )
        ]

    assert draw(60, 1) == draw(60, 1) != draw(60, 2)
    assert draw(0, 1) == []
