"""`missed` with second looks and with what moves: who waits for what, what is believed, and how few frames are held."""

import numpy as np
import pytest

from edge.contract.policy import BUILT_IN, Weights
from edge.contract.samples import WitnessKind
from edge.detector.detections import Detections
from edge.miners.episodes import MIN_FRAMES
from edge.miners.missed import MAX_WAITING, WAIT_S, Ask
from edge.motion import Blob
from edge.tracks import MAX_TRACKS
from tests.edge.miners.missed_scene import Scene, kinds, moved, seen_at, walk

# The second look


def missing_walker(scene: Scene) -> Ask:
    """A walker was detected, has a hole of five frames, and is back: what is asked then."""
    walk(scene, [0.8] * 10 + [None] * 5 + [0.8])
    last = scene.show((20.0 + 3 * scene.number, 80.0, 0.8))
    (ask,) = scene.miner.asks(last, carry=False)
    return ask


def test_what_a_second_look_could_decide_waits_for_it_and_its_box_is_the_region() -> None:
    scene = Scene(zooms=True)
    ask = missing_walker(scene)
    assert scene.mined == []
    box = moved(ask.sight.xyxy, 2.5)
    assert scene.miner.note(ask, seen_at(box)) is not None
    scene.show()
    (mined,) = scene.mined
    assert mined.at is ask.sight.at
    assert mined.region == pytest.approx(box)
    assert kinds(mined) >= {WitnessKind.ZOOM, WitnessKind.GAP}


@pytest.mark.parametrize(
    "found",
    [
        Detections(),  # nothing at all: the object is hidden
        seen_at((300, 300, 320, 340)),  # something else, far off
        seen_at((0, 0, 640, 480)),  # a box that has nothing of its size
    ],
)
def test_where_the_second_look_sees_nothing_the_hole_is_no_finding(found: Detections) -> None:
    scene = Scene(zooms=True, weights=BUILT_IN)
    ask = missing_walker(scene)
    assert scene.miner.note(ask, found) is None
    for _ in range(round(2 * WAIT_S * scene.fps)):
        scene.show()
    assert scene.mined == []


def test_a_refuted_hole_is_weaker_than_one_that_nobody_looked_at_and_that_than_a_seen_one() -> None:
    severities, refuted = [], []
    for found in (Detections(), None, "seen"):
        scene = Scene(zooms=True, min_severity=0.0, weights=BUILT_IN)
        ask = missing_walker(scene)
        if found is not None:
            scene.miner.note(ask, found if isinstance(found, Detections) else seen_at(ask.sight.xyxy))
        for _ in range(round(2 * WAIT_S * scene.fps)):
            scene.show()
        severities.append(scene.mined[0].severity)
        refuted.append(scene.mined[0].refuted)
    assert refuted == [True, False, False], "the finding says so, for who fits the weights"
    assert severities[0] < severities[1] < severities[2]
    assert severities[0] < 0.5 < severities[2]


def test_what_only_shows_another_detected_one_refutes() -> None:
    """The second look sees the person who stands in front, and who is detected."""
    scene = Scene(zooms=True)
    for _ in range(10):
        scene.show((100.0, 80.0, 0.8), (111.0, 80.0, 0.8))
    for _ in range(5):
        last = scene.show((100.0, 80.0, 0.3), (111.0, 80.0, 0.8))
    ask = scene.miner.asks(last, carry=False)[0]
    assert ask.sight.xyxy == pytest.approx((100, 80, 120, 120))
    assert scene.miner.note(ask, seen_at((108, 80, 128, 120))) is None
    assert ask.episode.is_refuted


def test_what_the_border_cuts_is_not_claimed_by_the_second_look_either() -> None:
    scene = Scene(zooms=True, min_severity=0.0)
    walk(scene, [0.8] * 10 + [None] * 5 + [0.8], x=4.0, step=0.0)
    last = scene.show((4.0, 80.0, 0.8))
    (ask,) = scene.miner.asks(last, carry=False)
    assert scene.miner.note(ask, seen_at((0.0, 80.0, 22.0, 120.0))) is not None
    scene.show()
    (mined,) = scene.mined
    assert mined.region[0] >= 2
    assert kinds(mined) == {WitnessKind.GAP}


def test_another_class_is_not_the_missed_object() -> None:
    scene = Scene(zooms=True)
    ask = missing_walker(scene)
    assert scene.miner.note(ask, seen_at(ask.sight.xyxy, class_id=1)) is None


@pytest.mark.parametrize("fps", [1, 10, 60])
def test_waiting_ends(fps: int) -> None:
    """Nobody has the budget to look: the episode is judged without, a little late."""
    scene = Scene(fps=fps, zooms=True)
    scores = [0.8] * 10 + [0.35] * max(MIN_FRAMES, fps // 3)
    walk(scene, scores, step=0.2)
    since_s = scene.time_s
    while not scene.mined:
        scene.show((20.0 + 0.2 * scene.number, 80.0, 0.8))
        assert scene.time_s - since_s <= WAIT_S + 3 / fps
    assert scene.time_s - since_s > WAIT_S / 2


def test_without_second_looks_nothing_waits() -> None:
    scene = walk(Scene(zooms=False), [0.8] * 10 + [0.35] * 4)
    assert scene.mined == []
    last = scene.show((20.0 + 3 * scene.number, 80.0, 0.8))
    assert len(scene.mined) == 1
    assert scene.miner.asks(last, carry=False) == []


def test_what_waits_is_judged_when_second_looks_are_turned_off() -> None:
    scene = Scene(zooms=True)
    missing_walker(scene)
    scene.miner.zooms = False
    scene.show()
    assert len(scene.mined) == 1


def test_no_more_than_so_many_wait() -> None:
    scene = Scene(zooms=True, min_severity=0.0)
    places = [(20.0 + 60 * column, 20.0 + 80 * row) for column in range(10) for row in range(5)]
    for score in [0.8] * 10 + [None] * 5 + [0.8]:
        scene.show(*[(x, y, score) for x, y in places if score is not None])
    last = scene.show()
    assert len(scene.miner.asks(last, carry=False)) <= MAX_WAITING
    assert len(scene.mined) >= len(places) - MAX_WAITING


def test_an_episode_that_goes_on_is_asked_for_and_less_and_less_often() -> None:
    scene = Scene(zooms=True, min_severity=0.99)
    walk(scene, [0.8] * 10, step=0.5)
    looks = 0
    for _ in range(1000):
        last = scene.show((20.0 + 0.5 * scene.number, 80.0, 0.3))
        for ask in scene.miner.asks(last, carry=False):
            looks += 1
            scene.miner.note(ask, Detections())
    assert 2 <= looks <= 12


def test_carrying_asks_again_for_what_was_seen_and_only_then() -> None:
    scene = Scene(zooms=True)
    walk(scene, [0.8] * 10, step=0.0)
    asked = {False: 0, True: 0}
    for _ in range(200):
        last = scene.show((20.0, 80.0, 0.2))
        for carry in (False, True):
            for ask in scene.miner.asks(last, carry=carry):
                asked[carry] += 1
                scene.miner.note(ask, seen_at((20.0, 80.0, 40.0, 120.0)))
    assert asked[False] <= 2
    assert 5 <= asked[True] <= 40, "now and then, over twenty seconds"
    assert len(scene.mined) == 1


def test_a_look_beside_is_taken_in_for_a_track_that_had_no_episode() -> None:
    scene = Scene(zooms=True)
    for _ in range(6):
        last = scene.show()
    track = scene.tracker.vouch(0, (100.0, 80.0, 120.0, 120.0), 0.7, time_s=last.frame.time_s, track_id=None)
    assert track is not None
    scene.miner.see_beside(track, last, (100.0, 80.0, 120.0, 120.0), 0.7)
    for _ in range(30):
        scene.show()
    (mined,) = scene.mined
    assert mined.at is last
    assert mined.region == (100.0, 80.0, 120.0, 120.0)
    assert WitnessKind.ZOOM in kinds(mined)


# What moves


def moving(number: int, *, x: float = 100.0) -> Blob:
    x += 4.0 * number
    return Blob(7, (x, 80.0, x + 20, 120.0), 0.9, number / 10)


def test_what_moves_where_no_track_is_is_a_miss_by_itself() -> None:
    scene = Scene(weights=Weights(bias=-1.0, gap=0.0, candidate=0.0, motion=5.0, zoom=0.0, refuted=0.0))
    for number in range(12):
        scene.show(blobs=(moving(number),))
    assert scene.mined == []
    scene.show()
    (mined,) = scene.mined
    assert kinds(mined) == {WitnessKind.MOTION}
    assert (mined.class_id, mined.track_id) == (None, None)


def test_what_moves_is_named_by_the_second_look_and_goes_on_as_a_track() -> None:
    scene = Scene(zooms=True)
    for number in range(12):
        last = scene.show(blobs=(moving(number),))
    (ask,) = scene.miner.asks(last, carry=False)
    assert ask.sight.at is last
    seen = scene.miner.note(ask, seen_at(moved(ask.sight.xyxy, 1.0), class_id=3))
    assert seen is not None
    track = scene.tracker.vouch(3, seen.xyxy, seen.score, time_s=last.frame.time_s, track_id=None)
    scene.miner.adopt(ask.episode, track)
    for number in range(12, 50):
        scene.show(blobs=(moving(number),))
    (mined,) = scene.mined
    assert (mined.class_id, mined.track_id) == (3, track.id)
    assert kinds(mined) >= {WitnessKind.ZOOM, WitnessKind.MOTION}


def test_a_blob_on_a_track_is_a_witness_of_its_hole() -> None:
    scene = walk(Scene(), [0.8] * 10)
    for number in range(10, 15):
        x = 20.0 + 3 * number
        scene.show(blobs=(Blob(1, (x, 80.0, x + 20, 120.0), 0.8, 1.0),))
    walk(scene, [0.8] * 2)
    (mined,) = scene.mined
    assert kinds(mined) == {WitnessKind.GAP, WitnessKind.MOTION}


# What is held


def test_a_reported_episode_holds_no_frame() -> None:
    scene = walk(Scene(), [0.8] * 10 + [0.35] * 60, step=0.5)
    assert len(scene.mined) == 1
    scene.mined.clear()
    walk(scene, [0.35] * 60, step=0.5)
    assert scene.pictures() <= 1, "the newest"


def test_finish_empties_everything() -> None:
    scene = Scene(zooms=True, min_severity=0.0)
    missing_walker(scene)  # one that waits
    for number in range(8):  # one that goes on, and something that moves
        last = scene.show((20.0 + 3 * scene.number, 80.0, 0.3), blobs=(moving(number, x=400.0),))
    scene.mined += scene.miner.finish(last)
    claims = [kinds(mined) for mined in scene.mined]
    assert {WitnessKind.MOTION} in claims
    assert sum(WitnessKind.CANDIDATE in claim for claim in claims) == 1
    assert sum(WitnessKind.GAP in claim for claim in claims) == 1
    assert scene.miner.asks(last, carry=True) == []
    assert scene.miner.finish(last) == []
    scene.mined.clear()
    del last
    assert scene.pictures() == 0


def test_nothing_is_remembered_of_tracks_that_are_gone() -> None:
    scene = Scene()
    for number in range(40):
        for score in [0.8] * 3 + [0.3] * 5:
            scene.show((20.0 + 15 * number, 80.0, score))
        scene.show(later_s=10.0)
    assert scene.tracker.tracks == []
    assert scene.miner._episodes == scene.miner._last_box == {}


def test_few_frames_are_held_however_long_a_miss_goes_on() -> None:
    scene = Scene(zooms=True, min_severity=1.0)
    walk(scene, [0.8] * 10, step=0.0)
    held = []
    random = np.random.default_rng(0)
    for _ in range(3000):
        score = random.choice([0.0, 0.15, 0.25, 0.39])
        scene.show(*([(20.0, 80.0, float(score))] if score else []))
        held.append(scene.pictures())
    assert max(held) <= 16


def test_frames_held_are_bounded_with_every_track_missed() -> None:
    """As many objects as there can be tracks, all flickering under the threshold for minutes."""
    scene = Scene(zooms=True, min_severity=1.0)
    places = [(5.0 + 39 * column, 5.0 + 59 * row) for column in range(16) for row in range(8)]
    assert len(places) == MAX_TRACKS
    for _ in range(3):
        scene.show(*[(x, y, 0.8) for x, y in places])
    random = np.random.default_rng(0)
    held = []
    for _ in range(900):
        scores = random.choice([0.0, 0.15, 0.25, 0.39], size=len(places)) * random.uniform(0.9, 1.0, size=len(places))
        scene.show(*[(x, y, float(score)) for (x, y), score in zip(places, scores, strict=True) if score])
        held.append(scene.pictures())
    assert max(held[:450]) <= max(held[450:]) <= MAX_TRACKS + 16
