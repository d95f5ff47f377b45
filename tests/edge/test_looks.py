"""Who gets a second look: within the budget, the worthiest first, control frames in turn, and what is done with it."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.policy import Weights
from edge.contract.samples import Reason, WitnessKind, Xyxy
from edge.detector.detections import box_iou
from edge.detector.tiling import tiles
from edge.frame import Frame, Image
from edge.looks import MAX_CONTROLS, SecondLooks
from edge.miners.missed import MissedMiner
from edge.motion import Blob
from edge.observation import Mined, Observation
from edge.places import KnownPlaces
from edge.tracks import Tracker
from edge.zoom import MAX_SAVED
from tests.edge.spots import BRIGHT, DIM, SpotDetector, street

THRESHOLD = 0.4
SIZE = (640, 480)
WEIGHTS = Weights(bias=-2.0, gap=6.0, candidate=6.0, motion=3.0, zoom=9.0, refuted=-4.0)


class Scene:
    """One camera with a detector that sees dim blocks only enlarged."""

    def __init__(self, *, share: float, carry: bool = False, weak: float = 0.0, min_severity: float = 0.5) -> None:
        self.detector = SpotDetector(weak=weak)
        self.tracker = Tracker(score_threshold=THRESHOLD)
        self.miner = MissedMiner(
            weights=WEIGHTS, min_severity=min_severity, zooms=share > 0, places=KnownPlaces(quiet_s=3600)
        )
        self.looks = SecondLooks(
            self.detector,
            share=share,
            score_threshold=THRESHOLD,
            may_count=lambda boxes, _: np.ones(len(boxes), np.bool_),
        )
        self.carry = carry
        self.number = 0
        self.mined: list[Mined] = []
        self.drawn: list[Observation] = []
        self.controls: list[Mined] = []

    def show(self, image: Image, *, blobs: tuple[Blob, ...] = (), control: bool = False) -> Observation:
        """One frame, a tenth of a second later."""
        time_s = self.number / 10
        found = self.detector.detect(image).detections
        ended = self.tracker.update(found, time_s=time_s)
        frame = Frame(image, "camera", self.number, self.number * 100, time_s)
        none = np.zeros(0, np.float32)
        seen = Observation(frame, found, none, THRESHOLD, self.tracker.tracks, ended, blobs)
        self.mined += self.miner.mine(seen)
        if control:
            self.drawn.append(seen)
            one = Mined(seen, Reason.CONTROL, 0.0, (0.0, 0.0, float(image.shape[1]), float(image.shape[0])))
            self.controls += [] if self.looks.add_control(one) else [one]
        self.looks.take(seen, missed=self.miner, tracker=self.tracker, carry=self.carry)
        self.controls += self.looks.release()
        self.number += 1
        return seen


def at(x: float, y: float = 100.0) -> Xyxy:
    return (x, y, x + 16, y + 32)


def walker(scene: Scene, frames: int, *, level: int, since: float = 50.0) -> Scene:
    """A block goes to the right, bright or dim, or is hidden (0)."""
    for _ in range(frames):
        scene.show(street((at(since + 3 * scene.number), level)))
    return scene


@given(st.sampled_from([0.0, 0.05, 0.1, 0.3, 1.0]), st.lists(st.booleans(), min_size=30, max_size=80), st.booleans())
@settings(max_examples=25, deadline=None)
def test_the_looks_taken_stay_within_the_budget(share: float, seen: list[bool], carry: bool) -> None:
    scene = Scene(share=share, carry=carry, weak=0.3)
    for number, bright in enumerate(seen):
        scene.show(street((at(50 + 3 * number), BRIGHT if bright else DIM)), control=number % 7 == 0)
    assert scene.looks.taken <= share * len(seen) + MAX_SAVED
    assert scene.detector.calls == len(seen) + scene.looks.taken, "every look is one inference"
    assert scene.looks.taken or share * len(seen) < 2


def test_a_walker_who_is_missed_is_seen_by_the_second_look() -> None:
    scene = walker(Scene(share=0.2), 10, level=BRIGHT)
    walker(scene, 20, level=DIM)
    walker(scene, 20, level=BRIGHT)
    (mined,) = scene.mined
    assert mined.witnesses[0].kind is WitnessKind.ZOOM
    assert mined.region == pytest.approx(at(50 + 3 * mined.at.frame.sequence), abs=3)
    assert 10 <= mined.at.frame.sequence < 30


def test_a_walker_who_is_hidden_is_not_claimed() -> None:
    scene = walker(Scene(share=0.2), 10, level=BRIGHT)
    walker(scene, 6, level=0)
    walker(scene, 80, level=BRIGHT)
    assert scene.mined == []
    assert scene.looks.taken >= 1


def test_a_look_at_an_earlier_frame_tells_the_tracker_nothing() -> None:
    """The hole is closed when the budget allows the look: where the walker was then is not where he is now."""
    scene = walker(Scene(share=0.1), 10, level=BRIGHT)
    scene.looks.budget.share = 0.0
    walker(scene, 6, level=DIM)
    walker(scene, 20, level=BRIGHT)
    scene.looks.budget.share = 1.0
    (track,) = scene.tracker.tracks
    walker(scene, 2, level=BRIGHT)
    assert scene.looks.taken == 1
    assert (track.vouched_s, track.xyxy) == (None, pytest.approx(at(50 + 3 * 37), abs=4))
    (mined,) = scene.mined
    assert 10 <= mined.at.frame.sequence < 16
    assert mined.witnesses[0].kind is WitnessKind.ZOOM


def test_nothing_is_looked_at_where_nothing_is_suspicious() -> None:
    scene = Scene(share=1.0, carry=True)
    for _ in range(20):
        scene.show(street())
    walker(scene, 50, level=BRIGHT)
    assert scene.looks.taken == 0


def test_no_budget_no_look() -> None:
    scene = walker(Scene(share=0.0, carry=True, weak=0.3), 10, level=BRIGHT)
    walker(scene, 20, level=DIM)
    scene.show(street(), control=True)
    assert scene.looks.taken == 0
    scene = walker(Scene(share=1.0, weak=0.3, carry=True), 10, level=BRIGHT)
    walker(scene, 10, level=DIM)
    taken = scene.looks.taken
    assert taken
    scene.looks.budget.share = 0.0
    walker(scene, 30, level=DIM)
    assert scene.looks.taken == taken, "0 turns them off at once"


def test_four_small_sights_share_one_inference() -> None:
    scene = Scene(share=0.05)
    places = [at(100 + 120 * i) for i in range(4)]
    for frame in range(60):
        level = DIM if 20 <= frame < 36 else BRIGHT
        scene.show(street(*[(place, level) for place in places]))
    assert len(scene.mined) == 4
    assert all(mined.witnesses[0].kind is WitnessKind.ZOOM for mined in scene.mined)
    assert scene.looks.taken <= 3


def test_who_stands_beside_a_sight_becomes_a_track_and_a_miss() -> None:
    """Two walk together; the detector knows one of them, and never sees the other."""
    scene = Scene(share=0.3)
    for frame in range(50):
        x = 50 + 3 * frame
        known = DIM if 12 <= frame < 24 else BRIGHT
        scene.show(street((at(x), known), (at(x + 28), DIM)))
        if frame == 11:
            assert len(scene.tracker.tracks) == 1
    for _ in range(80):
        scene.show(street())
    by_track = Counter(mined.track_id for mined in scene.mined)
    assert len(by_track) == 2
    assert set(by_track.values()) == {1}
    other = next(mined for mined in scene.mined if mined.track_id != 1)
    assert other.region == pytest.approx(at(78 + 3 * other.at.frame.sequence), abs=3)
    known = next(mined for mined in scene.mined if mined.track_id == 1)
    beside = at(78 + 3 * known.at.frame.sequence)
    seen = np.concatenate([around.xyxy for around in known.at.enlarged])
    assert box_iou(seen, np.array([beside], np.float32)).max() > 0.5, "the frame knows of who was seen beside"


def test_what_the_second_look_sees_is_tracked_once_not_once_a_look() -> None:
    scene = Scene(share=1.0, carry=True, weak=0.15)
    walker(scene, 10, level=BRIGHT)
    walker(scene, 60, level=DIM)
    assert [track.id for track in scene.tracker.tracks] == [1]
    assert scene.looks.taken > 2


def test_what_moves_is_named_and_becomes_a_track() -> None:
    """The detector's hint is too weak to begin a track, and enough to go on with one."""
    scene = Scene(share=0.5, weak=0.12)
    for number in range(40):
        box = at(60 + 4 * number)
        scene.show(street((box, DIM), class_id=1), blobs=(Blob(3, box, 0.9, number / 10),))
    (track,) = scene.tracker.tracks
    assert (track.class_id, track.strong, track.known) == (1, 0, True)
    for _ in range(40):
        scene.show(street())
    (mined,) = scene.mined
    assert (mined.class_id, mined.track_id) == (1, track.id)


def test_what_moves_and_is_no_object_stays_nameless() -> None:
    scene = Scene(share=0.5, min_severity=0.6)
    for number in range(60):
        scene.show(street(), blobs=(Blob(3, at(60 + 4 * number), 0.9, number / 10),) if number < 40 else ())
    assert scene.looks.taken >= 1
    assert scene.tracker.tracks == []
    assert scene.mined == []


def test_a_large_sight_is_looked_at_alone_or_not_at_all() -> None:
    """So large a block cannot be enlarged: no inference is spent, and nobody waits for ever."""
    scene = Scene(share=1.0, weak=0.3)
    large = (100.0, 40.0, 420.0, 440.0)
    scene.detector.detect(street((large, DIM)))
    for frame in range(120):
        scene.show(street((large, BRIGHT if frame < 10 or frame > 20 else 0)))
    assert scene.looks.taken == 0
    assert len(scene.mined) == 1, "judged by what else there is"


# Control frames


def test_a_control_frame_is_looked_at_tile_by_tile_and_counted() -> None:
    scene = Scene(share=0.5)
    image = street((at(150, 100), BRIGHT), (at(330, 300), DIM), (at(470, 100), DIM))
    assert scene.looks.recall.frames == 0
    scene.show(image, control=True)
    tile_count = len(tiles(SIZE, input_size=scene.detector.input_size))
    frames = 1
    while not scene.looks.recall.frames:
        scene.show(street())
        frames += 1
        assert frames < 4 * tile_count
    assert scene.looks.taken == tile_count
    counts = scene.looks.recall
    assert (counts.frames, counts.detector, counts.second_look, counts.both) == (1, 1, 3, 1)


def test_a_control_frame_comes_back_when_its_last_tile_was_looked_at() -> None:
    scene = Scene(share=1.0)
    scene.show(street((at(150, 100), BRIGHT), (at(330, 300), DIM)), control=True)
    tile_count = len(tiles(SIZE, input_size=scene.detector.input_size))
    for _ in range(tile_count - 1):
        assert scene.controls == []
        scene.show(street())
    (control,) = scene.controls
    assert control.at is scene.drawn[0]
    assert control.looks.found.tolist() == [True]
    assert control.looks.overlooked.xyxy[0].tolist() == pytest.approx(at(330, 300), abs=3)
    assert len(control.at.enlarged) == tile_count, "whoever blurs the frame knows of whom the second look saw"


def test_a_control_frame_that_cannot_be_looked_at_comes_back_with_what_the_detector_found() -> None:
    scene = Scene(share=0.3)
    for _ in range(MAX_CONTROLS + 1):
        scene.show(street((at(150), BRIGHT)), control=True)
    assert [one.at for one in scene.controls] == [scene.drawn[-1]], "the queue is full"
    scene.looks.budget.share = 0.0
    scene.show(street())
    assert [one.at for one in scene.controls[1:]] == scene.drawn[:-1], "the budget is gone while they wait"
    scene.show(street(), control=True)
    assert scene.controls[-1].at is scene.drawn[-1], "there is no budget"
    assert not any(one.looked_twice for one in scene.controls)
    assert scene.looks.recall.frames == 0


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.2, 1.0, 1.0, 1.0]), st.booleans(), st.integers(0, 9)), max_size=60),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_every_control_frame_comes_back_once(turns: list, carry: bool) -> None:
    """Laws 1 and 2, with budgets that come and go, and sizes that change."""
    scene = Scene(share=1.0, carry=carry, weak=0.2)
    for number, (share, control, chance) in enumerate(turns):
        scene.looks.budget.share = share
        if chance == 0:
            scene.looks.forget()
        scene.show(street((at(50 + 3 * number), BRIGHT), (at(50 + 3 * number, 300), DIM)), control=control)
    scene.looks.give_up()
    scene.controls += scene.looks.release()
    assert scene.looks.release() == []
    assert sorted(one.at.frame.sequence for one in scene.controls) == [one.frame.sequence for one in scene.drawn]
    twice = [one for one in scene.controls if one.looked_twice]
    assert [one.at.frame.sequence for one in twice] == sorted(one.at.frame.sequence for one in twice)
    counts = scene.looks.recall
    assert counts.frames == len(twice)
    assert counts.detector == sum(int(one.looks.found.sum()) for one in twice)
    assert counts.second_look - counts.both == sum(len(one.looks.overlooked) for one in twice)


def test_what_stood_still_in_another_size_counts_again() -> None:
    """Its place in pixels says nothing of the new picture; while the size stays, it is one object."""
    scene = Scene(share=1.0)
    tile_count = len(tiles(SIZE, input_size=scene.detector.input_size))

    def count() -> int:
        scene.show(street((at(150), BRIGHT)), control=True)
        for _ in range(tile_count):
            scene.looks.go_on()
        scene.looks.release()
        return scene.looks.recall.detector

    assert (count(), count()) == (1, 1)
    scene.looks.forget()
    assert count() == 2


def test_a_turn_without_a_picture_goes_to_the_control_frames() -> None:
    scene = Scene(share=1.0)
    scene.show(street((at(150), BRIGHT)), control=True)
    taken = scene.looks.taken
    for _ in range(40):
        scene.looks.go_on()
    (control,) = scene.looks.release()
    assert control.looked_twice
    tile_count = len(tiles(SIZE, input_size=scene.detector.input_size))
    assert scene.looks.taken == tile_count > taken, "and no more than it has tiles"


def test_control_and_sights_take_turns() -> None:
    """Three sights so wide that each needs a look alone, more often than the budget allows."""
    scene = Scene(share=0.1, weak=0.15, carry=True)
    places = [(100.0, y, 400.0, y + 40.0) for y in (50.0, 200.0, 350.0)]
    for _ in range(10):
        scene.show(street(*[(place, BRIGHT) for place in places]))
    dim = street(*[(place, DIM) for place in places])
    scene.show(dim, control=True)
    tile_count = len(tiles(SIZE, input_size=scene.detector.input_size))
    for _ in range(25 * tile_count):
        scene.show(dim)
    assert scene.looks.recall.frames == 1, "the sights do not starve it"
    assert [track.vouched_s for track in scene.tracker.tracks].count(None) == 0, "nor it the sights"


def test_only_so_many_control_frames_wait() -> None:
    scene = Scene(share=0.1)
    for _ in range(400):
        scene.show(street(), control=True)
        assert len(scene.looks._controls) <= MAX_CONTROLS
    assert scene.looks.recall.frames >= 2
    assert scene.looks.taken <= 0.1 * 400 + MAX_SAVED


def test_several_sizes_of_picture_in_one_look() -> None:
    """The camera changes its resolution while sights of the old pictures wait."""
    scene = Scene(share=0.02, weak=0.3)
    for size in (SIZE, (1280, 960), (320, 240), (800, 600)):
        for frame in range(16):
            image = street((at(100, 60), BRIGHT if frame < 10 else DIM), size=size)
            scene.show(image)
    for _ in range(100):
        scene.show(street(size=(64, 48)))
    for mined in scene.mined:
        height, width = mined.at.frame.image.shape[:2]
        assert mined.region[2] <= width
        assert mined.region[3] <= height


@given(st.lists(st.lists(st.tuples(st.integers(0, 600), st.integers(0, 440)), max_size=4), min_size=5, max_size=30))
@settings(max_examples=25, deadline=None)
def test_whatever_is_there_looks_claim_only_what_the_detector_sees_enlarged(scenes: list) -> None:
    """Law: every region that the second look claims has a block in it."""
    scene = Scene(share=1.0, carry=True, weak=0.2)
    for number, corners in enumerate(scenes):
        scene.show(street(*[(at(x, y), DIM if (number + i) % 3 else BRIGHT) for i, (x, y) in enumerate(corners)]))
    for mined in scene.mined:
        if mined.witnesses[0].kind is WitnessKind.ZOOM:
            x1, y1, x2, y2 = (round(side) for side in mined.region)
            assert mined.at.frame.image[y1:y2, x1:x2].any()
    boxes = np.array([track.xyxy for track in scene.tracker.tracks], np.float32).reshape(-1, 4)
    assert np.isfinite(box_iou(boxes, boxes)).all()
