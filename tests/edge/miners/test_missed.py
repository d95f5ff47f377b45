"""`missed` on made sequences: what it must report and what not, and one finding an episode."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.samples import Reason, WitnessKind
from edge.detector.detections import Detections
from edge.miners.episodes import MIN_FRAMES, MIN_S
from edge.miners.missed import Ask
from edge.observation import Mined
from tests.edge.miners.missed_scene import HEIGHT, QUIET_S, THRESHOLD, WIDTH, Scene, kinds, moved, seen_at, walk

# What is a miss


def test_a_hole_that_closes_is_a_miss_at_the_place_between() -> None:
    scene = walk(Scene(), [0.8] * 10 + [None] * 4 + [0.8] * 3)
    (mined,) = scene.mined
    assert (mined.reason, mined.class_id, mined.track_id) == (Reason.MISSED, 0, 1)
    assert kinds(mined) == {WitnessKind.GAP}
    sequence = mined.at.frame.sequence
    assert 10 <= sequence < 14
    assert mined.region[0] == pytest.approx(20 + 3 * sequence, abs=4)


def test_weaker_boxes_in_the_hole_are_a_second_witness_at_the_best_of_them() -> None:
    scene = walk(Scene(), [0.8] * 10 + [0.2, 0.3, 0.35, 0.2] + [0.8] * 3)
    (mined,) = scene.mined
    assert kinds(mined) == {WitnessKind.GAP, WitnessKind.CANDIDATE}
    assert mined.at.frame.sequence == 12
    assert mined.region == pytest.approx((56, 80, 76, 120))


def test_the_witnesses_stand_strongest_first() -> None:
    scene = walk(Scene(), [0.8] * 10 + [0.2, 0.3, 0.35, 0.2] + [0.8] * 3)
    scores = [witness.score for witness in scene.mined[0].witnesses]
    assert scores == sorted(scores, reverse=True)


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
    scene = Scene(min_severity=0.3)
    walk(scene, scores)
    assert scene.mined + scene.miner.finish(scene.show()) == []


def test_a_walker_the_detector_never_saw_counts_once_its_class_is_known_here() -> None:
    never = [0.35] * 20
    assert walk(Scene(), never).mined == []
    scene = Scene()
    for lane in range(3):  # three others are seen surely first
        for step in range(8):
            scene.show((30.0 + 4 * step, 10.0 + 60 * lane, 0.8))
        for _ in range(25):
            scene.show()
    start = scene.number
    for step in range(20):
        scene.show((20.0 + 4 * step, 80.0, 0.35))
    for _ in range(4):
        scene.show()
    (mined,) = [one for one in scene.mined if one.at.frame.sequence >= start]
    assert kinds(mined) == {WitnessKind.CANDIDATE}


def test_the_middle_of_a_hole_is_interpolated_by_its_share() -> None:
    """The frame that is held lies before the middle."""
    scene = walk(Scene(), [0.8] * 10 + [None] * 5 + [0.8] * 3, step=6.0)
    (mined,) = scene.mined
    assert mined.at.frame.sequence == 11
    assert mined.region[0] == pytest.approx(20 + 6 * 11, abs=2)


def test_an_outage_is_no_evidence_of_a_miss() -> None:
    scene = walk(Scene(), [0.8] * 10)
    scene.show()
    scene.show((50.0, 80.0, 0.8), later_s=8 * 3600.0)
    assert walk(scene, [0.8] * 5).mined == []


def test_a_place_cut_by_the_border_is_not_claimed() -> None:
    scene = Scene()
    for score in [0.8] * 10 + [0.3] * 4 + [0.8] * 3:
        scene.show((0.0, 80.0, score))
    assert scene.mined == []


def test_a_place_where_another_of_its_class_is_detected_is_not_claimed() -> None:
    """Two meet: the one behind has no box of its own there, and the one before has."""
    scene = Scene()
    for number in range(30):
        hidden = 13 <= number < 18
        rows = [(200.0 + 2 * number, 80.0, 0.8)]
        if not hidden:
            rows.append((260.0 - 2 * number if number < 15 else 200.0 + 4 * (number - 15), 82.0, 0.7))
        scene.show(*rows)
    for mined in scene.mined:
        detected = mined.at.detections.xyxy[mined.at.detections.score >= THRESHOLD]
        assert abs(detected[:, 0] - mined.region[0]).min() > 5


# How often


@pytest.mark.parametrize("fps", [1, 10, 60])
@given(length=st.integers(1, 9), weak=st.booleans())
@settings(max_examples=15)
def test_what_is_shorter_than_an_episode_gives_nothing(fps: int, length: int, weak: bool) -> None:
    too_short = length < MIN_FRAMES or (length - 1) / fps < MIN_S - 1e-6
    sure = [0.8] * 6
    scene = walk(Scene(fps=fps, min_severity=0.01), sure + [0.35 if weak else None] * length + sure, step=0.0)
    if too_short:
        assert scene.mined == []
    elif weak:
        assert len(scene.mined) == 1


@pytest.mark.parametrize("frames", [29, 33, 64, 130])
def test_one_finding_an_episode_and_a_long_hole_is_weaker(frames: int) -> None:
    """Weak boxes all along, so that the track lives: however long it goes on, it is one episode."""
    scene = walk(Scene(), [0.8] * 10 + [0.2] * frames + [0.8] * 3, step=0.5)
    (mined,) = scene.mined
    gap = [witness.score for witness in mined.witnesses if witness.kind is WitnessKind.GAP]
    assert max(gap, default=0.0) < 0.3


def test_a_walker_is_reported_for_every_episode() -> None:
    pattern = ([0.8] * 8 + [None] * 4) * 4
    assert len(walk(Scene(), pattern + [0.8] * 3).mined) == 4


def test_a_parked_thing_that_flickers_is_reported_once() -> None:
    pattern = ([0.8] * 8 + [None] * 4) * 6
    assert len(walk(Scene(), pattern + [0.8] * 3, step=0.0).mined) == 1


def test_a_still_thing_is_reported_again_after_its_quiet_time() -> None:
    pattern = [0.8] * 8 + [None] * 4 + [0.8] * 3
    scene = walk(Scene(), pattern, step=0.0)
    scene.show((20.0, 80.0, 0.8), later_s=QUIET_S / 2)
    assert len(walk(scene, pattern, step=0.0).mined) == 1
    scene.show((20.0, 80.0, 0.8), later_s=QUIET_S + 1)
    assert len(walk(scene, pattern, step=0.0).mined) == 2


def test_a_still_thing_that_is_never_detected_is_reported_once_however_long_it_stays() -> None:
    scene = Scene()
    walk(scene, [0.8] * 10, step=0.0)
    walk(scene, [0.3] * 3000, step=0.0)
    assert len(scene.mined) == 1


LANES = st.lists(
    st.lists(st.none() | st.sampled_from([0.12, 0.2, 0.35, 0.8, 0.9]), min_size=1, max_size=60), min_size=1, max_size=3
)
LOOKS = st.lists(st.sampled_from(["no", "nothing", "there", "beside", "border"]), min_size=60, max_size=60)


@given(LANES, LOOKS, st.booleans(), st.sampled_from([1.0, 5.0, 10.0, 60.0]), st.sampled_from([0.0, 3.0]))
@settings(max_examples=150, deadline=None)
def test_laws_of_episodes(
    lanes: list[list[float | None]], looks: list[str], zooms: bool, fps: float, step: float
) -> None:
    """Whatever is detected, and whatever second looks see: one finding an episode, of a frame of it, in the frame."""
    scene = Scene(fps=fps, zooms=zooms, min_severity=0.0)
    play(scene, lanes, looks=looks, step=step)
    claimed = [check_claim(scene, mined) for mined in scene.mined]
    assert len(claimed) == len(set(claimed)), "one finding an episode"
    scene.mined.clear()
    assert scene.pictures() == 0, "nothing is held after the end"


def play(scene: Scene, lanes: list[list[float | None]], *, looks: list[str], step: float) -> None:
    """Show every lane's object with its scores, look twice in between, and finish."""
    last = scene.show()
    for number, act in enumerate(looks):
        rows = [
            (40.0 + step * number, 60.0 + 120 * lane, score)
            for lane, scores in enumerate(lanes)
            if number < len(scores) and (score := scores[number]) is not None
        ]
        last = scene.show(*rows)
        asks = scene.miner.asks(last, carry=False)
        assert [ask.worth for ask in asks] == sorted((ask.worth for ask in asks), reverse=True)
        if scene.miner.zooms and asks and act != "no":
            scene.miner.note(asks[0], around(asks[0], act))
    scene.mined += scene.miner.finish(last)


def around(ask: Ask, act: str) -> Detections:
    """Return what a made second look sees at a sight."""
    return {
        "nothing": Detections(),
        "there": seen_at(moved(ask.sight.xyxy, 1.0)),
        "beside": seen_at(moved(ask.sight.xyxy, 60.0)),
        "border": seen_at((0.0, 0.0, 20.0, 40.0)),
    }[act]


def check_claim(scene: Scene, mined: Mined) -> tuple[int | None, int]:
    """Return the track and the number of the episode that a finding is of."""
    x1, y1, x2, y2 = mined.region
    assert 0 <= x1 < x2 <= WIDTH
    assert 0 <= y1 < y2 <= HEIGHT
    assert mined.witnesses
    assert 0 <= mined.severity <= 1
    assert mined.track_id is not None
    episodes = scene.missing[mined.track_id]
    (number,) = [n for n, frames in enumerate(episodes) if mined.at.frame.sequence in frames]
    frames = episodes[number]
    assert len(frames) >= MIN_FRAMES
    assert (frames[-1] - frames[0]) / scene.fps >= MIN_S - 1e-6
    return mined.track_id, number
