import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.frame import Image
from edge.frozen import BLACK, FROZEN_S, MIN_EQUAL, FrozenPicture

FPS = 5.0
LONG = int(FROZEN_S * FPS) + 1


def noise(seed: int, *, size: tuple[int, int] = (160, 120)) -> Image:
    return np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), np.uint8)


def verdicts(images: list[Image], *, fps: float = FPS, frozen_s: float = FROZEN_S) -> list[bool]:
    watch = FrozenPicture(frozen_s=frozen_s)
    return [watch.update(image, time_s=i / fps) for i, image in enumerate(images)]


def grey(level: int) -> Image:
    return np.full((120, 160, 3), level, np.uint8)


@pytest.mark.parametrize(
    ("images", "fps", "frozen"),
    [
        ([noise(0)] * LONG, FPS, True),  # the same picture for 30 s
        ([noise(0)] * (LONG - 1), FPS, False),  # not quite
        ([noise(0)] * 31, 1.0, True),  # one a second
        ([noise(0)] * 1801, 60.0, True),  # sixty a second
        ([noise(0)] * MIN_EQUAL, 0.05, False),  # minutes, but hardly any pictures
        ([noise(i) for i in range(LONG)], FPS, False),  # a sensor
        ([noise(i % 10) for i in range(2 * LONG)], FPS, False),  # a recording that loops
        ([noise(i // 50) for i in range(2 * LONG)], FPS, False),  # an encoder that repeats itself for 10 s
        ([noise(0), *[noise(1)] * (LONG - 2), noise(2)], FPS, False),  # it moves again in time
        ([noise(0)] * 100 + [noise(0, size=(320, 240))] * 100, FPS, False),  # another size
        ([grey(0)] * LONG, FPS, False),  # black: a closed lid
        ([grey(BLACK)] * LONG, FPS, False),  # what video calls black
        ([grey(BLACK + 1)] * LONG, FPS, True),  # a grey one: "no signal"
    ],
)
def test_what_is_frozen(images: list[Image], fps: float, frozen: bool) -> None:
    assert verdicts(images, fps=fps)[-1] is frozen


def test_it_begins_after_its_time_and_ends_with_the_first_change() -> None:
    said = verdicts([noise(0)] * 20 + [noise(1)] * 3 + [noise(2)] * 12, frozen_s=2.0)
    assert said == [False] * 10 + [True] * 10 + [False] * 3 + [False] * 10 + [True] * 2


def test_an_outage_proves_nothing() -> None:
    watch = FrozenPicture()
    assert not watch.update(noise(0), time_s=0.0)
    assert not watch.update(noise(0), time_s=3600.0)
    assert not watch.update(noise(0), time_s=3600.2)


@given(
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    where=st.tuples(st.floats(0, 1, exclude_max=True), st.floats(0, 1, exclude_max=True)),
    extent=st.floats(0.05, 1),
)
def test_a_change_of_a_twentieth_of_each_side_is_seen(
    size: tuple[int, int], where: tuple[float, float], extent: float
) -> None:
    still = noise(0, size=size)
    moved = still.copy()
    height, width = still.shape[:2]
    y, x = int(where[1] * height), int(where[0] * width)
    tall, wide = int(extent * height) + 1, int(extent * width) + 1
    patch = moved[max(0, min(y, height - tall)) :, max(0, min(x, width - wide)) :][:tall, :wide]
    patch ^= 1
    assert verdicts([still] * 20 + [moved], frozen_s=2.0)[-2:] == [True, False]


def test_the_street_clip_is_never_frozen() -> None:
    """A real recording, as the demo plays it: looped, five frames a second."""
    path = Path(__file__).resolve().parents[2] / "deploy" / "demo" / "street.mp4"
    capture = cv2.VideoCapture(str(path))
    images = []
    while capture.grab():
        images.append(capture.retrieve()[1])
    capture.release()
    assert not any(verdicts(images[::4] * 5, frozen_s=1.0))


def test_a_look_at_a_large_picture_is_cheap() -> None:
    watch, images = FrozenPicture(), [noise(i, size=(1920, 1080)) for i in range(2)]
    times_s = []
    for i in range(200):
        begun_s = time.perf_counter()
        watch.update(images[i % 2], time_s=i / FPS)
        times_s.append(time.perf_counter() - begun_s)
    assert np.median(times_s) < 1e-3, "ten times what was measured when it was written"
