"""What cameras do to a pipeline: black pictures, night, other sizes, any frame rate, clocks that jump, a long life."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.blank import is_blank
from edge.config import MiningConfig
from edge.contract.samples import Reason, Xyxy
from edge.detector.detector import Detector, open_detector
from edge.finding import seal
from edge.frame import Frame, Image
from edge.motion import MAX_TRAILS
from edge.observation import Mined
from edge.pipeline import Pipeline, Step
from edge.replay import read_frames
from edge.tracks import MAX_TRACKS
from tests.edge.spots import BRIGHT, DIM, SpotDetector, street

CLIP = Path(__file__).parents[2] / "deploy" / "demo" / "street.mp4"
START_MS = 1_700_000_000_000
FPS = 10.0
NO_CONTROL = MiningConfig(control_per_hour=0)
ANYTHING = MiningConfig(control_per_hour=0, min_severity=0.0)
BLACK = np.zeros((576, 768, 3), np.uint8)
HOME = (200.0, 100.0, 216.0, 132.0)

Timed = tuple[Image, float]


@dataclass
class Watched:
    """What a pipeline gave: for each frame its step and the number of moving things, and all that was mined."""

    pipeline: Pipeline
    steps: list[Step] = field(default_factory=list)
    blobs: list[int] = field(default_factory=list)
    mined: list[Mined] = field(default_factory=list)

    def count(self, *reasons: Reason, since: int = 0) -> int:
        return sum(one.reason in reasons for step in self.steps[since:] for one in step.mined)


def watch(detector: Detector | SpotDetector, frames: Iterable[Timed], mining: MiningConfig = NO_CONTROL) -> Watched:
    watched = Watched(Pipeline(detector=detector, score_threshold=0.4, mining=mining, seed=1))
    for number, (image, time_s) in enumerate(frames):
        at_ms = START_MS + round(time_s * 1e3)
        step = watched.pipeline.step(Frame(image, "c", number, at_ms, time_s))
        last = watched.pipeline._last
        watched.blobs.append(len(last.blobs) if last is not None and last.frame.sequence == number else 0)
        watched.steps.append(step)
        watched.mined += step.mined
    watched.mined += watched.pipeline.finish()
    return watched


def timed(images: Iterable[Image], *, fps: float = FPS) -> list[Timed]:
    return [(image, number / fps) for number, image in enumerate(images)]


@pytest.fixture(scope="module")
def starter() -> Detector:
    return open_detector(input_size=(256, 192), threads=1)


@pytest.fixture(scope="module")
def clip() -> list[Image]:
    return [frame.image for (frame, _), _ in zip(read_frames(CLIP), range(330), strict=False)]


@pytest.fixture(scope="module")
def by_day(starter: Detector, clip: list[Image]) -> Watched:
    """Twelve seconds as they are."""
    return watch(starter, timed(clip[:120]))


def noisy(level: float, sigma: float, seed: int) -> Image:
    noise = np.random.default_rng(seed).normal(level, sigma, BLACK.shape)
    return np.clip(noise, 0, 255).astype(np.uint8)


def infrared(image: Image, seed: int) -> Image:
    """As the lamps of a camera show the night: grey, flatter, noisier."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) * 0.6 + 30
    grey += np.random.default_rng(seed).normal(0, 5, grey.shape)
    return cv2.cvtColor(np.clip(grey, 0, 255).astype(np.uint8), cv2.COLOR_GRAY2BGR)


# A picture that shows nothing


@pytest.mark.parametrize(
    ("make", "blank"),
    [
        (lambda _: BLACK, True),  # a closed lid
        (lambda _: noisy(4, 6, 0), True),  # the same, with the sensor's noise
        (lambda _: BLACK + 255, True),  # a lamp
        (lambda _: np.full((1080, 1920, 3), 128, np.uint8), True),  # a decoder without its key frame
        (lambda _: np.zeros((1, 1, 3), np.uint8), True),  # nothing can be seen in it
        (lambda clip: clip[0], False),
        (lambda clip: cv2.convertScaleAbs(clip[0], alpha=0.2), False),  # night
        (lambda clip: infrared(clip[0], 0), False),
        (lambda _: street((HOME, DIM)), False),  # one small thing before black
        (lambda clip: clip[0][:8, :8], False),  # as small as pictures come
    ],
)
def test_what_is_blank(make, blank: bool, clip: list[Image]) -> None:
    assert is_blank(make(clip)) is blank


@pytest.mark.parametrize(
    "nothing", [lambda _: BLACK, lambda n: noisy(4, 6, n), lambda _: BLACK + 60], ids=["black", "noisy", "grey"]
)
@pytest.mark.parametrize("length", [1, 4, 12, 40])
def test_a_blank_while_makes_no_misses(nothing, length: int) -> None:
    """A block is known, the picture is blank for up to four seconds, and the block is there again."""
    seen = cv2.resize(street((HOME, BRIGHT)), (768, 576))
    watched = watch(SpotDetector(), timed([seen] * 20 + [nothing(n) for n in range(length)] + [seen] * 20), ANYTHING)
    assert watched.mined == []


def test_a_block_that_is_missing_in_a_picture_is_still_missed() -> None:
    """The counterpart: the same hole in a picture that shows something."""
    there, gone = (street((HOME, level), ((400.0, 300.0, 420.0, 340.0), BRIGHT)) for level in (BRIGHT, DIM))
    watched = watch(SpotDetector(weak=0.15), timed([there] * 20 + [gone] * 4 + [there] * 20))
    assert watched.count(Reason.MISSED) == 1


def test_black_at_the_start_in_the_middle_and_for_ever(starter: Detector, clip: list[Image], by_day: Watched) -> None:
    pictures = [BLACK] * 10 + clip[:60] + [BLACK] * 12 + clip[60:120] + [BLACK] * 20
    watched = watch(starter, timed(pictures))
    assert not any(is_blank(one.at.frame.image) for one in watched.mined)
    assert len(watched.mined) <= len(by_day.mined) + 5, "the light that comes back is no event"
    assert max(watched.blobs) <= max(by_day.blobs) + 2, "nor does it move"
    assert sum(watched.blobs) <= 1.5 * sum(by_day.blobs)
    assert not any(step.mined for step in watched.steps[-20:])
    assert watched.pipeline.finish() == []


def test_frames_are_drawn_at_random_in_the_dark_as_well() -> None:
    watched = watch(SpotDetector(), timed([BLACK] * 200), MiningConfig(control_per_hour=3600))
    assert {one.reason for one in watched.mined} == {Reason.CONTROL}
    assert 5 <= len(watched.mined) <= 40


# Night


def test_the_switch_to_infrared_is_no_flood(starter: Detector, clip: list[Image], by_day: Watched) -> None:
    pictures = [image if n < 60 else infrared(image, n) for n, image in enumerate(clip[:120])]
    watched = watch(starter, timed(pictures))
    for reason in (Reason.MISSED, Reason.LOW_CONFIDENCE):
        assert watched.count(reason, since=60) <= 1.5 * by_day.count(reason, since=60) + 4
    assert watched.count(Reason.SUSPECT, since=60) <= by_day.count(Reason.SUSPECT, since=60) + 2
    assert max(watched.blobs[60:]) <= max(by_day.blobs) + 4


# Another size


def as_size(image: Image, size: tuple[int, int]) -> Image:
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def test_the_picture_changes_its_size_twice(starter: Detector, clip: list[Image]) -> None:
    sizes = [(768, 576)] * 40 + [(1280, 720)] * 40 + [(384, 288)] * 40
    pictures = [as_size(image, size) for image, size in zip(clip[:120], sizes, strict=True)]
    watched = watch(starter, timed(pictures), MiningConfig(control_per_hour=3600, merge=True, zoom_budget=0.3))
    assert {one.at.frame.image.shape for one in watched.mined} >= {(576, 768, 3), (720, 1280, 3)}
    for one in watched.mined:
        finding, jpeg = seal(one, detector=starter, site="s", device="d", jpeg_quality=90)
        width, height = sizes[finding.sequence]
        assert (finding.width, finding.height) == (width, height)
        assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (height, width, 3)
        x1, y1, x2, y2 = finding.region
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
    for step, (width, height) in zip(watched.steps, sizes, strict=True):
        assert (step.detections.xyxy <= (width, height, width, height)).all(), "nothing is carried over"


def test_no_track_and_no_ghost_lives_on_in_another_size() -> None:
    glimpse: Xyxy = (400.0, 300.0, 416.0, 332.0)
    before = [street((HOME, BRIGHT))] * 19 + [street((HOME, BRIGHT), (glimpse, BRIGHT))]
    after = [street((HOME, BRIGHT), size=(1280, 960))] * 20  # the same pixels, another place
    watched = watch(SpotDetector(), timed(before))
    old = {track.id for track in watched.pipeline._tracker.tracks}
    assert len(old) == 2
    watched = watch(SpotDetector(), timed(before + after))
    assert not old & {track.id for track in watched.pipeline._tracker.tracks}
    assert watched.mined == []


def test_a_sight_in_the_old_size_is_looked_at_in_the_old_frame() -> None:
    """An episode is open when the size changes; the look that decides it comes afterwards."""
    before = [street((HOME, BRIGHT))] * 20 + [street((HOME, DIM), ((500.0, 300.0, 520.0, 340.0), BRIGHT))] * 12
    after = [street((HOME, BRIGHT), size=(320, 240))] * 60
    watched = watch(
        SpotDetector(weak=0.15), timed(before + after), MiningConfig(control_per_hour=0, zoom_budget=1 / 40)
    )
    (missed,) = (one for one in watched.mined if one.reason is Reason.MISSED)
    assert missed.at.frame.image.shape == (480, 640, 3)
    assert missed.at.frame.sequence < 32
    assert np.allclose(missed.region, HOME, atol=8)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (8, 6), (640, 2), (3, 640), (17, 33), (3840, 2160)])
def test_no_size_is_too_odd(starter: Detector, size: tuple[int, int]) -> None:
    width, height = size
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (height, width, 3), np.uint8) for _ in range(4)]
    watched = watch(starter, timed(pictures), MiningConfig(control_per_hour=1e8, merge=True, zoom_budget=1.0))
    assert sum(one.reason is Reason.CONTROL for one in watched.mined) == 3, "some wait for their second look to the end"
    for one in watched.mined:
        assert seal(one, detector=starter, site="s", device="d", jpeg_quality=90)[0].width == width


# Frame rates


def per_minute(watched: Watched, reason: Reason, seconds: float) -> float:
    return watched.count(reason) / seconds * 60


def test_sixty_frames_a_second(starter: Detector, clip: list[Image], by_day: Watched) -> None:
    """Each frame fades into the next; the same four seconds at ten frames a second beside it."""
    pictures = [cv2.addWeighted(clip[i // 6], 1 - i % 6 / 6, clip[i // 6 + 1], i % 6 / 6, 0.0) for i in range(6 * 40)]
    fast, slow = watch(starter, timed(pictures, fps=60.0)), watch(starter, timed(clip[:40]))
    for reason in (Reason.MISSED, Reason.LOW_CONFIDENCE):
        assert fast.count(reason) <= 3 * slow.count(reason) + 4
    assert fast.count(Reason.SUSPECT) <= slow.count(Reason.SUSPECT) + 3
    assert fast.count(Reason.MISSED) >= slow.count(Reason.MISSED) / 2
    spent, before = (
        float(np.median([step.tracks_ms + step.motion_ms + step.miners_ms for step in watched.steps]))
        for watched in (fast, by_day)
    )
    assert spent <= 3 * before, "milliseconds a frame"


def test_one_frame_a_second(starter: Detector, clip: list[Image], by_day: Watched) -> None:
    seconds = len(clip) / FPS
    watched = watch(starter, timed(clip[::10], fps=1.0))
    assert watched.count(Reason.MISSED) >= 1
    for reason in (Reason.MISSED, Reason.LOW_CONFIDENCE):
        assert per_minute(watched, reason, seconds) <= 2 * per_minute(by_day, reason, 12.0) + 4
    assert watched.count(Reason.SUSPECT) <= 3


# Clocks


def test_after_an_hour_without_pictures_everything_is_new() -> None:
    seen = street((HOME, BRIGHT))
    times = [n / 10 for n in range(20)] + [3600 + n / 10 for n in range(20)]
    watched = watch(SpotDetector(), [(seen, time_s) for time_s in times])
    (track,) = watched.pipeline._tracker.tracks
    assert track.begun_s == 3600
    assert watched.mined == []


@pytest.mark.parametrize("step_s", [0.0, -0.03, -3600.0], ids=["equal", "back a little", "back an hour"])
def test_times_that_do_not_grow(step_s: float) -> None:
    """The clock jumps or stands still for four frames; one of two blocks is at another place from then on."""
    times, now_s = [], 5000.0
    for number in range(80):
        now_s += step_s if 10 <= number < 14 else 0.1
        times.append(now_s)
    ways = [50.0 + 3 * n + 200 * (n >= 12) for n in range(80)]
    pictures = [street(((x, 300, x + 16, 332), BRIGHT), (HOME, BRIGHT)) for x in ways]
    watched = watch(SpotDetector(), list(zip(pictures, times, strict=True)))
    assert len(watched.pipeline._tracker.tracks) <= 2, "none is left behind"
    assert all(np.isfinite(track.xyxy).all() for track in watched.pipeline._tracker.tracks)
    assert watched.mined == []


# A long life


def test_nothing_is_kept_of_what_is_gone() -> None:
    """Blocks that come, dim and go at random, with changes of size, gaps and dark moments."""
    chance = random.Random(1)
    detector = SpotDetector(input_size=(80, 60), weak=0.2)
    pipeline = Pipeline(
        detector=detector, score_threshold=0.85, mining=MiningConfig(control_per_hour=600, merge=True), seed=1
    )
    time_s, size = 0.0, (320, 240)
    most = 0
    for number in range(1000):
        if chance.random() < 0.005:
            size = chance.choice([(320, 240), (240, 320), (160, 120)])
        time_s += chance.choice([0.05, 0.1, 0.2]) if chance.random() < 0.995 else chance.choice([-0.1, 2.0, 60.0])
        image = street(*random_blocks(chance, number, size), size=size, class_id=int(chance.random() < 0.1))
        pipeline.step(Frame(image, "c", number, START_MS + round(time_s * 1e3), time_s))
        live = {track.id for track in pipeline._tracker.tracks}
        missed, low = pipeline._missed, pipeline._low_confidence
        flips = pipeline._suspects._rules[2]
        keyed = {
            "episodes": set(missed._episodes),
            "last_box": set(missed._last_box),
            "reported": set(low._reported_s),
            "began_on": set(flips._began_on),
            "seconds": {owner for owner, _ in flips._seconds._of},
        }
        for name, ids in keyed.items():
            assert ids <= live, name
        most = max(most, len(held_frames(pipeline)))
        assert len(missed._waiting) <= 9
        assert len(pipeline._motion._trails) <= MAX_TRAILS
        assert len(live) <= MAX_TRACKS
        assert all(len(places) <= 500 for places in pipeline.places.values())
    assert most <= 60, "frames held at once"


def random_blocks(chance: random.Random, number: int, size: tuple[int, int]) -> list[tuple[Xyxy, int]]:
    """Return six blocks on their ways, some not there now."""
    blocks: list[tuple[Xyxy, int]] = []
    if number % 400 > 380:
        return blocks
    for i in range(6):
        x, y = (number * (i + 1)) % size[0], 20 + 30 * i % (size[1] - 40)
        level = chance.choice([0, DIM, DIM, BRIGHT]) if (number // 20 + i) % 3 == 0 else BRIGHT
        if level:
            blocks.append(((x, y, x + 8, y + 16), level))
    return blocks


def held_frames(pipeline: Pipeline) -> dict[int, object]:
    """Return the frames that the miners and looks hold, by their number."""
    missed = pipeline._missed
    episodes = [*missed._episodes.values(), *missed._moving.values(), *(one.episode for one in missed._waiting)]
    sights = [sight for one in episodes for sight in (one.best, one.seen, one.place, *one.blind) if sight is not None]
    held = [sight.at for sight in sights] + [one.sight.at for one in missed._waiting]
    held += [one.at for one in pipeline._suspects._rules[0]._waiting]
    held += [one.mined.at for one in pipeline.looks._controls]
    return {id(at): at for at in held}
