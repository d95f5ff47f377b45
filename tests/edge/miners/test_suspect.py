"""`suspect` on made sequences: each kind, what it must not be, once and then quiet, at every frame rate."""

import random
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from edge.contract.samples import Reason
from edge.detector.detections import Detections
from edge.frame import Frame
from edge.miners.suspect import QUIET_S, SuspectMiner
from edge.observation import Mined, Observation
from edge.tracks import Tracker

THRESHOLD = 0.4
IMAGE = np.zeros((480, 640, 3), np.uint8)
NOW_MS = 1_800_000_000_000
PERSON, DOG, CAR, TRUCK = range(4)
HOUR_S = 3600.0

Row = tuple[float, float, float, float, float, int]  # x, y, width, height, score, class


class Scene:
    """One camera, its tracker and its miner of suspects. The clock on the wall goes with the camera's."""

    def __init__(self, *, fps: float = 10.0, miner: SuspectMiner | None = None, since_ms: int = NOW_MS) -> None:
        self.tracker = Tracker(score_threshold=THRESHOLD)
        self.miner = miner or SuspectMiner()
        self.step_s = 1.0 / fps
        self.since_ms = since_ms
        self.number = 0
        self.time_s = 0.0
        self.mined: list[Mined] = []

    def show(self, *rows: Row, later_s: float | None = None) -> "Scene":
        """One frame, so much later than the last."""
        ordered = sorted(rows, key=lambda row: -row[4])
        detections = Detections(
            np.array([(x, y, x + w, y + h) for x, y, w, h, _, _ in ordered], np.float32).reshape(-1, 4),
            np.array([row[4] for row in ordered], np.float32),
            np.array([row[5] for row in ordered], np.int32),
        )
        self.time_s += self.step_s if later_s is None else later_s
        ended = self.tracker.update(detections, time_s=self.time_s)
        frame = Frame(IMAGE, "camera", self.number, self.since_ms + round(self.time_s * 1e3), self.time_s)
        features = np.zeros(0, np.float32)
        seen = Observation(frame, detections, features, THRESHOLD, self.tracker.tracks, ended)
        self.mined += self.miner.mine(seen)
        self.number += 1
        return self

    def repeat(self, seconds: float, *rows: Row) -> "Scene":
        for _ in range(round(seconds / self.step_s)):
            self.show(*rows)
        return self

    @property
    def kinds(self) -> list[str]:
        return [tag for mined in self.mined for tag in mined.tags]


def box(x: float = 200.0, *, y: float = 100.0, score: float = 0.7, kind: int = PERSON, size=(40.0, 80.0)) -> Row:
    return (x, y, *size, score, kind)


def test_a_ghost_is_reported_at_its_own_frame() -> None:
    scene = Scene().repeat(1).show(box(score=0.7)).repeat(1)
    (mined,) = scene.mined
    assert (mined.reason, mined.tags, mined.at.frame.sequence) == (Reason.SUSPECT, ("ghost",), 10)
    assert mined.region == (200.0, 100.0, 240.0, 180.0)
    assert mined.class_id == PERSON
    assert mined.severity == pytest.approx(0.55, abs=1e-3)


@pytest.mark.parametrize(
    ("frames", "ghosts"),
    [
        ([None] * 5 + [0.7, 0.7] + [None] * 5, 0),  # two frames of ten a second: it was there
        ([None] * 5 + [0.7, 0.25] + [None] * 5, 0),  # a weak sight behind it
        ([0.25] + [None] + [0.7] + [None] * 5, 0),  # a weak sight before it
        ([None] * 5 + [0.7, None, 0.7] + [None] * 5, 0),  # it comes back
        ([None] * 5 + [0.7] + [0.1] * 6, 1),  # a tenth of nothing explains nothing
        ([0.7] + [None] * 8, 0),  # the very first frame: nobody saw what was before
        ([None] * 5 + [0.7], 0),  # the very last: nobody saw what comes
        ([None] * 5 + [0.3] + [None] * 5, 0),  # never a detection
    ],
)
def test_what_is_a_ghost(frames: list[float | None], ghosts: int) -> None:
    scene = Scene()
    for score in frames:
        scene.show(*([] if score is None else [box(score=score)]))
    assert scene.kinds == ["ghost"] * ghosts


@pytest.mark.parametrize(
    ("fps", "frames", "ghosts"),
    [
        (60, 1, 1),
        (60, 4, 1),  # 50 ms
        (60, 12, 0),  # 0.2 s
        (25, 2, 1),
        (25, 5, 0),
        (4, 1, 1),
        (1, 1, 0),  # who knows what was there for the second before and behind
    ],
)
def test_a_ghost_is_a_matter_of_time_not_of_frames(fps: int, frames: int, ghosts: int) -> None:
    scene = Scene(fps=fps).repeat(3)
    for _ in range(frames):
        scene.show(box())
    assert scene.repeat(3).kinds == ["ghost"] * ghosts


@pytest.mark.parametrize("stall", [0, 1])
def test_no_ghost_is_claimed_across_a_stall(stall: int) -> None:
    scene = Scene().repeat(1)
    scene.show(box(), later_s=2.0 if stall == 0 else None)
    scene.show(later_s=2.0 if stall == 1 else None)
    assert scene.repeat(1).kinds == []


def test_a_ghost_at_the_border_is_an_object_that_just_looked_in() -> None:
    assert Scene().repeat(1).show(box(3.0)).repeat(1).kinds == []


def test_what_runs_by_is_no_ghost() -> None:
    """It moves by nearly its own height a frame, so that no two boxes of it overlap."""
    scene = Scene().repeat(1)
    for step in range(4):
        scene.show(box(100.0 + 60.0 * step))
    assert scene.repeat(1).kinds == []


def test_few_frames_are_held_however_many_ghosts_there_are() -> None:
    scene = Scene(fps=60).repeat(1)
    for _ in range(200):
        scene.show(*(box(random.uniform(20, 560), y=random.uniform(20, 380)) for _ in range(3)))
    ghosts = scene.miner._rules[0]
    assert len(ghosts._waiting) <= 4


def test_no_frame_is_held_of_what_stays_weak() -> None:
    scene = Scene().repeat(1).show(box(score=0.7)).repeat(5, box(score=0.3))
    assert scene.miner._rules[0]._waiting == []
    assert scene.mined == []


def twins(score: float = 0.5, *, x: float = 200.0, kind: int = TRUCK) -> tuple[Row, Row]:
    """A car, and nearly the same box once more."""
    return box(x, score=0.8, kind=CAR, size=(80, 50)), box(x + 3, score=score, kind=kind, size=(80, 50))


@pytest.mark.parametrize(
    ("second", "duplicates"),
    [
        (twins()[1], 1),  # the same box as a truck
        (twins(kind=CAR)[1], 1),  # the same box of its own class
        (box(205.0, y=105.0, kind=CAR, size=(40, 30), score=0.5), 1),  # inside it, of its own class
        (box(205.0, y=105.0, kind=PERSON, size=(40, 30), score=0.5), 0),  # the driver inside the car
        (box(225.0, kind=TRUCK, size=(80, 50), score=0.5), 0),  # beside it: IoU .52
        (twins(score=0.3)[1], 0),  # below the threshold
    ],
)
def test_what_is_a_duplicate(second: Row, duplicates: int) -> None:
    scene = Scene().repeat(1, twins()[0]).repeat(1, twins()[0], second)
    assert scene.kinds == ["duplicate"] * duplicates
    for mined in scene.mined:
        assert mined.class_id == second[5]
        assert mined.region[:2] == second[:2]


@pytest.mark.parametrize("fps", [1, 4, 10, 60])
def test_a_duplicate_takes_several_frames_and_some_time(fps: int) -> None:
    scene = Scene(fps=fps).repeat(5, twins()[0])
    for _ in range(2):
        scene.show(*twins())
    assert scene.kinds == []
    scene.repeat(4, *twins())
    assert scene.kinds == ["duplicate"]
    assert scene.mined[0].at.frame.time_s == pytest.approx(5 + max(2.0 / fps, 0.2) + 1 / fps, abs=1.5 / fps)


def test_a_duplicate_of_what_was_never_confirmed_is_not_reported() -> None:
    """Two frames at each of four places: the tracker has never three of one."""
    scene = Scene()
    for step in range(40):
        scene.show(*twins(x=50.0 + 140 * (step // 2 % 4)))
    assert scene.kinds == []


def test_the_class_that_this_camera_rarely_reports_is_the_one_in_doubt() -> None:
    scene = Scene()
    for lane in range(4):
        scene.repeat(2, box(50.0 + 60 * lane, y=300.0, kind=CAR, size=(80, 50), score=0.8))
    scene.repeat(2, *twins(score=0.9))  # the truck has the better score
    assert [mined.class_id for mined in scene.mined if mined.tags == ("duplicate",)] == [TRUCK]


def test_the_same_pair_the_other_way_round_is_not_reported_again() -> None:
    scene = Scene().repeat(1, *twins(0.5)).repeat(3).repeat(1, *twins(0.9))
    assert scene.kinds == ["duplicate"]


def flip(scene: Scene, kinds: list[int], *, step: float = 3.0, score: float = 0.7) -> Scene:
    """One object walks to the right, reported as a class for half a second each."""
    x = 50.0
    for kind in kinds:
        for _ in range(5):
            scene.show(box(x, kind=kind, score=score))
            x += step
    return scene


@pytest.mark.parametrize(
    ("kinds", "in_doubt"),
    [
        ([PERSON, PERSON, DOG, PERSON], [DOG]),
        ([PERSON, DOG], [DOG]),
        ([PERSON, DOG, PERSON, DOG, PERSON], [DOG]),  # once
        ([PERSON, DOG, PERSON, CAR, PERSON], [DOG, CAR]),
        ([PERSON, PERSON, PERSON], []),
    ],
)
def test_what_is_a_class_flip(kinds: list[int], in_doubt: list[int]) -> None:
    scene = flip(Scene(), kinds)
    assert scene.kinds == ["class_flip"] * len(in_doubt)
    assert [mined.class_id for mined in scene.mined] == in_doubt


def test_a_flip_of_one_frame_is_not_enough() -> None:
    scene = flip(Scene(), [PERSON]).show(box(65.0, kind=DOG))
    assert flip(scene, [PERSON]).kinds == []


def test_two_that_pass_each_other_are_no_flip() -> None:
    """The dog comes from elsewhere and stands where the person was lost."""
    scene = Scene()
    for step in range(10):
        scene.show(box(200.0), box(400.0 - 20 * step, kind=DOG))
    for _ in range(10):
        scene.show(box(202.0, kind=DOG))
    assert scene.kinds == []


@pytest.mark.parametrize(
    "show",
    [
        lambda scene: scene.repeat(1, twins()[0]).repeat(1, *twins()),  # a truck on a car
        lambda scene: scene.repeat(1, twins()[0]).repeat(1, *twins(kind=CAR)),  # a car on a car
        lambda scene: flip(scene, [PERSON, DOG, PERSON]),
    ],
    ids=["duplicate", "duplicate of one class", "flip"],
)
def test_a_suspect_names_a_track_of_its_own_class(show: Callable[[Scene], Scene]) -> None:
    """The hub takes two tracks of one label for two objects: a dog must not bear the name of a person's track."""
    scene, classes = Scene(), {}
    update = scene.tracker.update

    def noted(*args, **options):
        ended = update(*args, **options)
        classes.update({track.id: track.class_id for track in scene.tracker.tracks})
        return ended

    scene.tracker.update = noted
    (mined,) = show(scene).mined
    assert classes[mined.track_id] == mined.class_id


def test_the_better_known_class_is_not_in_doubt_when_it_replaces_another() -> None:
    """Many people were seen here; that this one was a dog at first was the fault, and is over."""
    scene = Scene()
    for _ in range(5):
        scene.repeat(1, box(500.0)).repeat(3)
    assert flip(scene, [DOG, PERSON]).kinds == []


def hours(scene: Scene, count: float, rows: Callable[[int], list[Row]]) -> Scene:
    """Show for so many hours what `rows` gives for each second that has a frame."""
    for number in range(round(count * HOUR_S / scene.step_s)):
        scene.show(*rows(round(number * scene.step_s)))
    return scene


def jitter(seed: int, *, px: float = 1.0) -> Iterator[float]:
    source = random.Random(seed)
    while True:
        yield source.uniform(-px, px)


def test_what_has_not_moved_for_hours_is_reported_once() -> None:
    shaking = jitter(1)
    scene = hours(Scene(fps=0.2), 9, lambda _: [box(200 + next(shaking), y=100 + next(shaking), kind=CAR)])
    (mined,) = scene.mined
    assert (mined.tags, mined.class_id) == (("still",), CAR)
    assert mined.at.frame.time_s == pytest.approx(2 * HOUR_S, abs=10)
    assert mined.track_id is None


@pytest.mark.parametrize(
    ("rows", "stills"),
    [
        # covered for nearly ten minutes after an hour
        (lambda t: [] if 3600 <= t < 4180 else [box(kind=CAR)], 1),
        # gone for twenty minutes: another one may have come
        (lambda t: [] if 3600 <= t < 4800 else [box(kind=CAR)], 0),
        # missed for 25 seconds a minute
        (lambda t: [] if t % 60 > 35 else [box(kind=CAR)], 1),
        # below the threshold most of the time
        (lambda t: [box(kind=CAR, score=0.45 if t % 7 == 0 else 0.3)], 1),
        # never a detection
        (lambda _: [box(kind=CAR, score=0.39)], 0),
        # creeps by a pixel a minute
        (lambda t: [box(100 + t / 60, kind=CAR)], 0),
        # sways by a fifth of its width
        (lambda t: [box(200 + 8 * (t // 60 % 3), kind=CAR)], 0),
        # two minutes a car, then one a truck
        (lambda t: [box(kind=TRUCK if t // 60 % 3 == 2 else CAR)], 1),
        # somebody else at the door for ten seconds every minute
        (lambda t: [box(200 + t // 60 % 3)] if t % 60 < 10 else [], 0),
    ],
)
def test_what_is_still(rows: Callable[[int], list[Row]], stills: int) -> None:
    scene = hours(Scene(fps=0.25), 2.5, rows)
    assert scene.kinds.count("still") == stills
    assert len(scene.miner._rules[3]._stays) <= 4


def test_still_things_survive_a_busy_street_and_the_tracker_loses_them_often() -> None:
    passing = random.Random(5)

    def rows(second: int) -> list[Row]:
        walkers = [box(passing.uniform(20, 560), y=passing.uniform(200, 380)) for _ in range(5)]
        return walkers + ([box(50, y=20, kind=CAR)] if second % 20 else [])

    scene = hours(Scene(fps=0.25), 2.2, rows)
    assert [mined.class_id for mined in scene.mined if mined.tags == ("still",)] == [CAR]
    assert len(scene.miner._rules[3]._stays) <= 200


def test_a_still_thing_stays_quiet_over_restarts_for_as_long_as_it_stays() -> None:
    """Every day a restart: far longer than a place is quiet by itself."""
    since_ms, kinds = NOW_MS, []
    dumped: dict[str, object] = {}
    for _ in range(12):
        miner = SuspectMiner()
        for kind, places in dumped.items():
            miner.places[kind].load(places)
        scene = hours(Scene(fps=1 / 240, miner=miner, since_ms=since_ms), 24, lambda _: [box(kind=CAR)])
        kinds += scene.kinds
        dumped = {kind: places.dump() for kind, places in miner.places.items()}
        since_ms += 24 * 3_600_000
    assert kinds == ["still"]
    assert 12 * 24 * HOUR_S > QUIET_S


def test_a_still_thing_that_left_for_a_fortnight_is_new() -> None:
    scene = hours(Scene(fps=1 / 240), 3, lambda _: [box(kind=CAR)])
    scene.show(later_s=2 * QUIET_S)
    assert hours(scene, 3, lambda _: [box(kind=CAR)]).kinds == ["still", "still"]


@pytest.mark.parametrize(
    "episode",
    [
        lambda scene: scene.repeat(1).show(box()).repeat(3),
        lambda scene: scene.repeat(1, *twins()).repeat(3),
        lambda scene: scene.repeat(1, box()).repeat(0.5, box(kind=DOG)).repeat(3),
    ],
    ids=["ghost", "duplicate", "class_flip"],
)
def test_each_kind_is_reported_once_a_place_and_then_quiet(episode: Callable[[Scene], Scene]) -> None:
    scene = Scene()
    for _ in range(4):
        episode(scene)
    assert len(scene.mined) == 1
    again = SuspectMiner()
    for kind, places in scene.miner.places.items():
        again.places[kind].load([{"class_id": p.class_id, "xyxy": p.xyxy, "at_ms": p.at_ms} for p in places.dump()])
    assert episode(Scene(miner=again)).mined == [], "over a restart, too"


def test_black_frames_and_another_resolution_are_no_suspects() -> None:
    scene = Scene().repeat(2, box(), *twins(score=0.2)).repeat(2)
    scaled = box(100.0, y=50.0, size=(20, 40))
    assert scene.repeat(2, scaled).kinds == []
