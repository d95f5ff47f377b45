"""The miners on made sequences: what they must report, and what they must not."""

import numpy as np
import pytest

from edge.contract.samples import Reason, WitnessKind
from edge.detector.detections import Detections
from edge.frame import Frame
from edge.miners.control import ControlMiner
from edge.miners.low_confidence import LowConfidenceMiner
from edge.miners.missed import QUIET_S, MissedMiner
from edge.miners.suspect import SuspectMiner
from edge.observation import Mined, Observation
from edge.tracks import Tracker

THRESHOLD = 0.4
IMAGE = np.zeros((240, 320, 3), np.uint8)


class Scene:
    """One camera, its tracker, and one miner."""

    def __init__(self, miner: MissedMiner | LowConfidenceMiner | SuspectMiner) -> None:
        self.tracker = Tracker(score_threshold=THRESHOLD)
        self.miner = miner
        self.number = 0
        self.time_s = 0.0
        self.mined: list[Mined] = []

    def show(self, *rows: tuple[float, float, float], class_id: int = 0, later_s: float = 0.1) -> "Scene":
        """One frame, so much later than the last; each row is x, y and score of a box of 20x40 px."""
        ordered = sorted(rows, key=lambda row: -row[2])
        detections = Detections(
            np.array([(x, y, x + 20, y + 40) for x, y, _ in ordered], np.float32).reshape(-1, 4),
            np.array([score for _, _, score in ordered], np.float32),
            np.full(len(ordered), class_id, np.int32),
        )
        time_s = self.time_s = self.time_s + later_s
        ended = self.tracker.update(detections, time_s=time_s)
        frame = Frame(IMAGE, "camera", self.number, 0, time_s)
        features = np.zeros(0, np.float32)
        self.last = Observation(frame, detections, features, THRESHOLD, self.tracker.tracks, ended)
        self.mined += self.miner.mine(self.last)
        self.number += 1
        return self


def walk(scene: Scene, scores: list[float | None], *, x: float = 20.0, step: float = 3.0) -> Scene:
    """One object walks to the right; None: no box at all."""
    for score in scores:
        scene.show(*([] if score is None else [(x + step * scene.number, 80.0, score)]))
    return scene


def test_a_hole_that_closes_is_a_miss_at_the_place_between() -> None:
    scene = walk(Scene(MissedMiner()), [0.8] * 10 + [None] * 4 + [0.8] * 3)
    (mined,) = scene.mined
    assert mined.reason is Reason.MISSED
    assert [witness.kind for witness in mined.witnesses] == [WitnessKind.GAP]
    sequence = mined.at.frame.sequence
    assert 10 <= sequence < 14
    assert mined.region[0] == pytest.approx(20 + 3 * sequence, abs=4)
    assert mined.severity > 0.6


def test_weaker_boxes_in_the_hole_are_a_second_witness() -> None:
    scene = walk(Scene(MissedMiner()), [0.8] * 10 + [0.2, 0.3, 0.35, 0.2] + [0.8] * 3)
    (mined,) = scene.mined
    assert {witness.kind for witness in mined.witnesses} == {WitnessKind.GAP, WitnessKind.CANDIDATE}
    assert mined.at.frame.sequence == 12  # where the weaker box was best


@pytest.mark.parametrize(
    "scores",
    [
        [0.8] * 20,  # always detected
        [0.8] * 10 + [None] * 2 + [0.8] * 3,  # a hole of two frames is a flicker
        [0.8] * 10 + [None] * 40,  # it left: a hole that never closes
        [None] * 10,  # nothing there
        [0.45] * 5 + [None] * 4 + [0.45] * 5,  # never clearly over the threshold: the track itself is in doubt
    ],
)
def test_what_is_no_miss(scores: list[float | None]) -> None:
    scene = walk(Scene(MissedMiner()), scores)
    assert scene.mined + scene.miner.finish(scene.last) == []


def test_a_walker_the_detector_never_saw_counts_once_its_class_is_known_here() -> None:
    never = [0.3] * 20
    assert walk(Scene(MissedMiner()), never).mined == []
    scene = Scene(MissedMiner())
    for lane in range(3):  # three others are seen surely first
        for step in range(8):
            scene.show((30.0 + 4 * step, 10.0 + 60 * lane, 0.8))
        for _ in range(25):
            scene.show()
    start = scene.number
    for step in range(20):
        scene.show((20.0 + 4 * step, 80.0, 0.3))
    for _ in range(4):
        scene.show()
    (mined,) = [one for one in scene.mined if one.at.frame.sequence >= start]
    assert [witness.kind for witness in mined.witnesses] == [WitnessKind.CANDIDATE]


def test_a_parked_thing_that_flickers_is_reported_once() -> None:
    pattern = ([0.8] * 8 + [None] * 4) * 6
    assert len(walk(Scene(MissedMiner()), pattern + [0.8] * 3, step=0.0).mined) == 1


def test_a_walker_is_reported_for_every_episode() -> None:
    pattern = ([0.8] * 8 + [None] * 4) * 4
    assert len(walk(Scene(MissedMiner()), pattern + [0.8] * 3).mined) == 4


@pytest.mark.parametrize("frames", [29, 33, 64, 130])
def test_one_finding_an_episode_and_a_long_hole_is_weaker(frames: int) -> None:
    """Weak boxes all along, so that the track lives: however long it goes on, it is one episode."""
    scene = walk(Scene(MissedMiner()), [0.8] * 10 + [0.2] * frames + [0.8] * 3, step=0.5)
    (mined,) = scene.mined
    gap = [witness.score for witness in mined.witnesses if witness.kind is WitnessKind.GAP]
    assert max(gap, default=0.0) < 0.3


def test_the_middle_of_a_hole_is_interpolated_by_its_share() -> None:
    scene = walk(Scene(MissedMiner()), [0.8] * 10 + [None] * 7 + [0.8] * 3, step=2.0)
    (mined,) = scene.mined
    assert mined.region[0] == pytest.approx(20 + 2 * mined.at.frame.sequence, abs=2)


def test_an_outage_is_no_evidence_of_a_miss() -> None:
    scene = walk(Scene(MissedMiner()), [0.8] * 10)
    scene.show()
    scene.show((50.0, 80.0, 0.8), later_s=8 * 3600.0)
    assert walk(scene, [0.8] * 5).mined == []


def test_a_still_thing_is_reported_again_after_its_quiet_time() -> None:
    pattern = [0.8] * 8 + [None] * 4 + [0.8] * 3
    scene = walk(Scene(MissedMiner()), pattern, step=0.0)
    scene.show((20.0, 80.0, 0.8), later_s=QUIET_S + 1)
    assert len(walk(scene, pattern, step=0.0).mined) == 2


def test_the_miners_hold_no_frame_of_a_thing_that_is_only_weak() -> None:
    scene = walk(Scene(SuspectMiner()), [None] + [0.7] + [0.2] * 60, step=0.0)
    assert scene.miner._first == {}
    assert scene.mined == []


def test_low_confidence_forgets_what_is_gone() -> None:
    scene = walk(Scene(LowConfidenceMiner()), [0.42] * 5 + [None] * 60)
    assert len(scene.mined) == 1
    assert scene.miner._reported_s == {}


def test_a_ghost_at_the_border_is_an_object_that_just_looked_in() -> None:
    scene = walk(Scene(SuspectMiner()), [None] * 3)
    scene.show((3.0, 80.0, 0.7))
    assert walk(scene, [None] * 5).mined == []


def test_a_place_cut_by_the_border_is_not_claimed() -> None:
    scene = Scene(MissedMiner())
    for score in [0.8] * 10 + [0.3] * 4 + [0.8] * 3:
        scene.show((0.0, 80.0, score))
    assert scene.mined == []


def test_low_confidence_once_a_track() -> None:
    scene = walk(Scene(LowConfidenceMiner()), [0.8] * 5 + [0.42] * 10)
    (mined,) = scene.mined
    assert (mined.reason, mined.at.frame.sequence) == (Reason.LOW_CONFIDENCE, 5)
    assert walk(Scene(LowConfidenceMiner()), [0.8] * 20).mined == []  # always sure


def test_a_one_frame_ghost_is_suspect_at_its_own_frame() -> None:
    scene = walk(Scene(SuspectMiner()), [None] * 3 + [0.7] + [None] * 5)
    (mined,) = scene.mined
    assert (mined.reason, mined.at.frame.sequence) == (Reason.SUSPECT, 3)
    assert walk(Scene(SuspectMiner()), [None] * 3 + [0.7] * 2 + [None] * 5).mined == []  # two frames are no ghost
    assert walk(Scene(SuspectMiner()), [0.2, 0.2, 0.7, 0.2] + [None] * 5).mined == []  # weak sights before and after


def test_no_ghost_is_claimed_across_a_stall() -> None:
    for stall_before, stall_after in ((2.0, 0.1), (0.1, 2.0)):
        scene = walk(Scene(SuspectMiner()), [None] * 3)
        scene.show((50.0, 80.0, 0.7), later_s=stall_before)
        scene.show(later_s=stall_after)
        assert walk(scene, [None] * 5).mined == []


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
