"""The witness `motion` on made scenes: what must be told, and the much longer list of what must not."""

import math
import tracemalloc
from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edge.background import WARM_UP_EVERY_S, WARM_UP_PICTURES
from edge.detector.detections import box_iou
from edge.motion import MAX_TRAILS, MIN_SEEN_S, Blob, MotionWitness
from edge.sizes import CELL_EXAMPLES, EXAMPLE_EVERY_S, GRID, Sizes

HEIGHT, WIDTH = 240, 320
PERSON = (24, 60)
SPEED_PX_S = 50.0
FOOT_Y = 180.0
NOTHING = np.zeros((0, 4), np.float32)
LEARNED_S = 12.0  # the first part of each scene: a detected person walks to and fro


def texture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    rough = np.random.default_rng(seed).normal(size=(height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(rough, (0, 0), 4)
    return 120 + 25 * smooth / smooth.std()


STREET = texture(1)
COAT = texture(2, 400, 400) - 70


def place(x: float) -> np.ndarray:
    """Return the box of a person whose centre is at `x`."""
    return np.float32([x - PERSON[0] / 2, FOOT_Y - PERSON[1], x + PERSON[0] / 2, FOOT_Y])


def walk(time_s: float) -> float:
    """Return the x of a person who walks to and fro across the picture."""
    way = WIDTH - 80
    return 40 + way - abs(time_s * SPEED_PX_S % (2 * way) - way)


def scene(box: np.ndarray | None = None) -> np.ndarray:
    """Return the grey street, with a person."""
    picture = STREET.copy()
    if box is not None:
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        picture[y1:y2, x1:x2] = COAT[: y2 - y1, : x2 - x1]
    return picture


def shot(picture: np.ndarray, rng: np.random.Generator, noise: float = 2.0) -> np.ndarray:
    """Return what a camera makes of a grey picture: sensor noise, 8 bits, three colours."""
    noisy = picture + rng.normal(scale=noise, size=picture.shape)
    return cv2.merge([np.clip(noisy, 0, 255).astype(np.uint8)] * 3)


def learn(witness: MotionWitness, rng: np.random.Generator, *, fps: float = 10.0, until_s: float = LEARNED_S) -> float:
    """Show a person who walks and is detected; return the time after it."""
    for i in range(math.ceil(until_s * fps)):
        box = place(walk(i / fps))
        assert not witness.update(shot(scene(box), rng), box[None], box[None], time_s=i / fps)
    return math.ceil(until_s * fps) / fps


def watch(
    witness: MotionWitness,
    paint: Callable[[float], np.ndarray],
    rng: np.random.Generator,
    *,
    start_s: float,
    for_s: float,
    fps: float = 10.0,
) -> list[tuple[float, Blob]]:
    """Show frames without any detection; return the blobs with their times."""
    told = []
    for i in range(math.ceil(for_s * fps)):
        now_s = start_s + i / fps
        image = shot(paint(now_s), rng)
        blobs = witness.update(image, NOTHING, NOTHING, time_s=now_s)
        assert_lawful(blobs, image.shape)
        told += [(now_s, blob) for blob in blobs]
    return told


def assert_lawful(blobs: list[Blob], shape: tuple[int, ...]) -> None:
    assert len({blob.id for blob in blobs}) == len(blobs) <= MAX_TRAILS
    for blob in blobs:
        x1, y1, x2, y2 = blob.xyxy
        assert 0 <= x1 < x2 <= shape[1]
        assert 0 <= y1 < y2 <= shape[0]
        assert 0 <= blob.score <= 1
        assert blob.seen_s >= MIN_SEEN_S


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


@pytest.mark.parametrize(
    ("fps", "share"),
    [
        (1.0, 0.5),  # fifty pixels from frame to frame: more than the person is wide
        (5.0, 0.8),  # the usual camera of a recorder
        (25.0, 0.8),  # the usual stream
        (60.0, 0.8),  # less than a pixel of the small picture from frame to frame
    ],
)
def test_a_person_whom_the_detector_stops_seeing_is_told_at_every_frame_rate(fps, share, rng):
    witness = MotionWitness()
    start_s = learn(witness, rng, fps=fps, until_s=max(LEARNED_S, 20 / fps))
    told = watch(witness, lambda t: scene(place(walk(t))), rng, start_s=start_s, for_s=max(4, 10 / fps), fps=fps)
    right = {t for t, blob in told if blob.score >= 0.5 and overlap(blob, place(walk(t))) >= 0.5}
    assert len(right) >= share * max(4, 10 / fps) * fps
    assert all(overlap(blob, place(walk(t))) >= 0.3 for t, blob in told if blob.score >= 0.5)
    assert len({blob.id for _, blob in told if blob.score >= 0.5}) <= 2


def overlap(blob: Blob, box: np.ndarray) -> float:
    return float(box_iou(np.float32([blob.xyxy]), box[None])[0, 0])


def test_a_person_who_was_never_detected_is_told_once_sizes_are_known(rng):
    witness = MotionWitness()
    start_s = learn(witness, rng)
    watch(witness, lambda _: scene(), rng, start_s=start_s, for_s=3)  # the street is empty, then somebody comes in
    told = watch(
        witness, lambda t: scene(place(60 + (t - start_s - 3) * SPEED_PX_S)), rng, start_s=start_s + 3, for_s=3
    )
    assert sum(blob.score >= 0.5 for _, blob in told) >= 15
    assert max(blob.seen_s for _, blob in told) <= 3


def test_nothing_is_told_before_sizes_are_known(rng):
    witness = MotionWitness()
    watch(witness, lambda _: scene(), rng, start_s=0, for_s=4)
    assert not watch(witness, lambda t: scene(place(walk(t))), rng, start_s=4, for_s=6)


def test_what_is_detected_is_not_told_and_nor_are_its_limbs_and_its_shadow(rng):
    witness = MotionWitness()
    start_s = learn(witness, rng)
    for i in range(60):
        box = place(walk(start_s + i / 10))
        x1, _, x2, y2 = (round(float(v)) for v in box)
        picture = scene(box)
        picture[y2 - 8 : y2 + 4, x2 : x2 + 40] *= 0.7  # a shadow to the right of the feet
        picture[y2 - 40 : y2 - 32, x1 - 10 : x1] = 30.0  # an arm
        assert not list(witness.update(shot(picture, rng), box[None], box[None], time_s=start_s + i / 10))


def wrong_size(t: float) -> np.ndarray:
    picture = scene()
    x = round(walk(t))
    picture[174:180, x - 5 : x + 5] = 20.0  # a cat where only people were seen
    return picture


def big(t: float) -> np.ndarray:
    picture = scene()
    x = round(walk(t))
    picture[30:200, max(0, x - 100) : x + 20] = 30.0 + COAT[:170, : x + 20 - max(0, x - 100)] / 4
    return picture


def rain(t: float) -> np.ndarray:
    picture, drops = scene(), np.random.default_rng(round(t * 1000))
    for _ in range(120):
        x, y = drops.integers(0, WIDTH), drops.integers(0, HEIGHT - 30)
        cv2.line(picture, (int(x), int(y)), (int(x) + 2, int(y) + 25), 220.0, 1)
    return picture


def leaves(t: float) -> np.ndarray:
    picture = scene()
    for k, x in enumerate((60, 150, 240)):  # as large as a person, swaying by half their width
        sway = round(6 * math.sin(2 * math.pi * (0.7 * t + 0.31 * k)))
        picture[120:180, x + sway : x + sway + 24] = COAT[100 * k : 100 * k + 60, :24]
    return picture


def lamp(t: float) -> np.ndarray:
    picture = scene()
    if int(t * 3) % 2:
        cv2.circle(picture, (160, 150), 40, 235.0, -1)
    return picture


def exposure_ramp(t: float) -> np.ndarray:
    return (scene() - 60) * (1 + 0.25 * math.sin(t)) + 60


def exposure_step(t: float) -> np.ndarray:
    return scene() * (0.6 if int(t) % 2 else 1.0)


def shaken(t: float) -> np.ndarray:
    dx, dy = np.random.default_rng(round(t * 1000)).normal(scale=4.0, size=2)
    move = np.float32([[1, 0, dx], [0, 1, dy]])
    return cv2.warpAffine(scene(), move, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)


def put_down(t: float) -> np.ndarray:
    return scene(place(100))  # as large as a person, and never moves


@pytest.mark.parametrize(
    "paint",
    [
        wrong_size,  # moves, but is no object known there
        big,  # moves, and is larger than any object
        rain,  # moves everywhere, as nothing in particular
        leaves,  # moves to and fro at its place
        lamp,  # comes and goes without moving
        exposure_ramp,  # the whole picture changes slowly
        exposure_step,  # and at once
        shaken,  # the whole picture moves
        put_down,  # appears and stays
        lambda t: texture(5),  # another scene altogether: the camera was turned
        lambda t: 255 - scene(),  # day to night: what was dark is bright
        lambda t: np.zeros((HEIGHT, WIDTH)),  # black
        lambda t: np.full((HEIGHT, WIDTH), 200.0 if int(t * 5) % 2 else 20.0),  # flashing
    ],
)
def test_what_is_no_object_is_not_told(paint, rng):
    witness = MotionWitness()
    start_s = learn(witness, rng)
    watch(witness, lambda _: scene(), rng, start_s=start_s, for_s=2)
    told = watch(witness, paint, rng, start_s=start_s + 2, for_s=12)
    assert [blob for _, blob in told if blob.score >= 0.5] == []


@pytest.mark.parametrize(
    ("change", "again_s"),
    [
        (exposure_ramp, 0.0),  # compensated
        (shaken, 0.0),  # compensated
        (lambda t: 255 - scene(), 6.0),  # learned anew
    ],
)
def test_a_person_is_told_after_the_picture_has_changed(change, again_s, rng):
    witness = MotionWitness()
    start_s = learn(witness, rng)
    watch(witness, change, rng, start_s=start_s, for_s=2 + again_s)
    start_s += 2 + again_s

    def paint(t: float) -> np.ndarray:
        box = place(60 + (t - start_s) * SPEED_PX_S)
        picture = change(t)
        x1, y1, x2, y2 = (round(float(v)) for v in box)
        picture[y1:y2, x1:x2] = COAT[: y2 - y1, : x2 - x1] if change(t).mean() < 128 else 30.0
        return picture

    told = watch(witness, paint, rng, start_s=start_s, for_s=3.6)
    assert (
        sum(blob.score >= 0.5 and overlap(blob, place(60 + (t - start_s) * SPEED_PX_S)) >= 0.3 for t, blob in told) >= 5
    )


def test_a_frozen_picture_tells_nothing_and_teaches_nothing(rng):
    witness = MotionWitness()
    start_s = learn(witness, rng)
    assert watch(witness, lambda t: scene(place(walk(t))), rng, start_s=start_s, for_s=2)
    frozen = shot(scene(place(walk(start_s + 2))), rng)
    witness.update(frozen, NOTHING, NOTHING, time_s=start_s + 2)
    for i in range(1, 100):
        assert witness.update(frozen, NOTHING, NOTHING, time_s=start_s + 2 + i / 10) == []
    told = watch(witness, lambda t: scene(place(walk(t))), rng, start_s=start_s + 12, for_s=3)
    assert [t for t, blob in told if blob.score >= 0.5 and overlap(blob, place(walk(t))) >= 0.5]


def test_another_size_starts_anew_and_forgets_the_sizes(rng):
    witness = MotionWitness()
    start_s = learn(witness, rng)

    def half(t: float) -> np.ndarray:
        return cv2.resize(scene(place(walk(t))), (WIDTH // 2, HEIGHT // 2))

    assert watch(witness, half, rng, start_s=start_s, for_s=8) == []


def test_a_clock_that_jumps_starts_anew(rng):
    witness = MotionWitness()
    start_s = learn(witness, rng)
    warm_s = WARM_UP_EVERY_S * (WARM_UP_PICTURES - 1)
    for jump_s in (start_s + 3600.0, 0.0):
        assert watch(witness, lambda t: scene(place(walk(t))), rng, start_s=jump_s, for_s=warm_s) == []
        assert watch(witness, lambda t: scene(place(walk(t))), rng, start_s=jump_s + warm_s, for_s=4)


def test_sizes_follow_the_perspective_and_hold_several_kinds():
    sizes = Sizes(400, 400)
    for i in range(60):
        y = 120 + 4 * i
        person = (100 + i, y - y / 4, 100 + i + y / 10, y)
        car = (250, y - y / 4, 250 + y / 2, y)
        sizes.learn(np.float32([person, car]), time_s=float(i))
    asked = np.float32(
        [
            (180, 150, 200, 200),  # a person
            (240, 150, 340, 200),  # a car
            (180, 190, 184, 200),  # a cat
            (180, 10, 270, 200),  # a giant
            (196, 20, 200, 30),  # a person much further away than any seen: half as sure
        ]
    )
    person, car, cat, giant, far = sizes.plausible(asked).tolist()
    assert person > 0.7
    assert car > 0.7
    assert cat < 0.1
    assert giant < 0.1
    assert 0.1 < far <= 0.5


def test_an_object_that_stands_still_fills_no_cell_at_once():
    sizes = Sizes(100, 100)
    box = np.float32([(40, 40, 60, 90)])
    for i in range(100):
        sizes.learn(box, time_s=i * EXAMPLE_EVERY_S / 100)
    assert 0 < sizes.plausible(box)[0] < 0.6


def test_boxes_cut_by_the_border_teach_no_size():
    sizes = Sizes(100, 100)
    for i in range(100):
        sizes.learn(np.float32([(0, 40, 20, 90), (40, 50, 60, 100)]), time_s=float(i))
    assert sizes.plausible(np.float32([(0, 40, 20, 90)])).tolist() == [0.0]


def test_memory_does_not_grow(rng):
    witness = MotionWitness()
    now_s = learn(witness, rng)
    pictures = [shot(paint(i / 7), rng) for i in range(12) for paint in (rain, lamp, leaves, shaken)]
    boxes = np.float32([place(x) for x in range(40, 280, 20)])

    def hours(n: int) -> None:
        nonlocal now_s
        for _ in range(n):
            now_s += 0.1
            image = pictures[rng.integers(len(pictures))]
            witness.update(image, boxes[rng.random(len(boxes)) < 0.3], boxes, time_s=now_s)

    hours(200)
    tracemalloc.start()
    hours(100)
    before = tracemalloc.get_traced_memory()[0]
    hours(400)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 50_000
    assert len(witness._trails) <= MAX_TRAILS
    assert len(witness._sizes._known) <= GRID[0] * GRID[1] * CELL_EXAMPLES


EDGES = st.floats(width=32, allow_nan=True, allow_infinity=True)
BOXES = st.integers(0, 4).flatmap(lambda n: arrays(np.float32, (n, 4), elements=EDGES | st.floats(0, 64, width=32)))


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_law_any_pictures_and_boxes_give_lawful_blobs(data):
    height, width = data.draw(st.tuples(st.integers(1, 64), st.integers(1, 64)))
    seed, step_s = data.draw(st.integers(0, 99)), data.draw(st.sampled_from([0.0, 0.02, 0.5, 1.0, -1.0, 1e6]))
    made = np.random.default_rng(seed)
    witness = MotionWitness()
    still = made.integers(0, 256, (height, width, 3), np.uint8)
    for i in range(14):
        image = still.copy()
        x, y = made.integers(0, width), made.integers(0, height)
        image[y : y + 20, x : x + 10] = made.integers(0, 256)
        drawn = data.draw(arrays(np.uint8, (height, width, 3))) if i == 13 else image
        blobs = witness.update(drawn, data.draw(BOXES), data.draw(BOXES), time_s=i * step_s)
        assert_lawful(blobs, image.shape)


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (2, 2), (3, 700), (1080, 1920)])
def test_law_holds_for_odd_sizes(size, rng):
    witness = MotionWitness()
    box = np.float32([(0, 0, size[1], size[0])])
    for i in range(12):
        image = rng.integers(0, 256, (*size, 3), np.uint8)
        assert_lawful(witness.update(image, box, box, time_s=float(i)), image.shape)
