"""`missed` on made sequences: what it must report and what not, one finding an episode, few frames held.

Weights of its own, so that better ones need no other tests; where the built-in ones matter it says so.
"""

import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.policy import Weights
from edge.contract.samples import Reason, WitnessKind, Xyxy
from edge.detector.detections import Detections
from edge.frame import Frame
from edge.miners.episodes import MIN_FRAMES, MIN_S
from edge.miners.missed import MAX_WAITING, WAIT_S, Ask, MissedMiner
from edge.motion import Blob
from edge.observation import Mined, Observation
from edge.places import KnownPlaces
from edge.severity import BUILT_IN
from edge.tracks import MAX_TRACKS, Link, Tracker

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
    severities = []
    for found in (Detections(), None, "seen"):
        scene = Scene(zooms=True, min_severity=0.0, weights=BUILT_IN)
        ask = missing_walker(scene)
        if found is not None:
            scene.miner.note(ask, found if isinstance(found, Detections) else seen_at(ask.sight.xyxy))
        for _ in range(round(2 * WAIT_S * scene.fps)):
            scene.show()
        severities.append(scene.mined[0].severity)
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
