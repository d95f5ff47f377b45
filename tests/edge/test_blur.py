"""What edge.detector.blur says of made pictures whose blur is known, and of real crops blurred by a known amount."""

import itertools
import math

import cv2
import numpy as np
import pytest

from edge.detector.blur import MAX_NOISE, MIN_SIDE_PX, NO_SPREADS, edge_spreads
from edge.detector.light import noise_sigma
from edge.tags import object_tags, told_of_blur
from tests.benchmarks.bench_tags import COCO, DIRECTIONS, bell, crops, seen, smear
from tests.edge.test_tags import PLAIN


def polygons(seed, side=MIN_SIDE_PX, *, contrast=60.0):
    """Sharp edges of every direction: overlapping discs and turned squares, drawn large and averaged down."""
    rng = np.random.default_rng(seed)
    large = np.full((4 * side + 256, 4 * side + 256), 128.0, np.float32)
    for _ in range(40):
        at = tuple(rng.integers(0, large.shape[0], 2).tolist())
        grey = float(128 + rng.choice([-1, 1]) * rng.uniform(0.5, 1) * contrast)
        if rng.random() < 0.5:
            cv2.circle(large, at, int(rng.integers(40, 120)), grey, -1)
        else:
            turned = cv2.boxPoints((at, tuple(rng.uniform(60, 200, 2).tolist()), float(rng.uniform(0, 90))))
            cv2.fillPoly(large, [turned.astype(np.int32)], grey)
    return cv2.resize(large, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)


def tags_of(gray, noise):
    return told_of_blur(edge_spreads(gray, noise=noise))


@pytest.mark.parametrize("noise", [0.0, 5.0])
@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_the_spread_of_a_known_blur(sigma, noise):
    # of 20 such pictures the worst is .58 off
    for seed in range(4):
        spreads = edge_spreads(seen(polygons(seed), mask=bell(sigma), noise=noise, seed=seed), noise=noise)
        assert max(abs(spread - sigma) for spread in spreads) <= 0.75


@pytest.mark.parametrize("degrees", DIRECTIONS)
def test_the_spread_of_a_known_motion(degrees):
    # of 20 such pictures the worst have .99 and 1.49 of the smear's spread, and .56 of it across
    along = [0, 45, 90, 135].index(degrees)
    for seed in range(4):
        spreads = edge_spreads(seen(polygons(seed), mask=smear(8, degrees)), noise=0.0)
        assert 0.9 * 8 / math.sqrt(12) <= spreads[along] <= 1.6 * 8 / math.sqrt(12)
        assert spreads[(along + 2) % 4] < 0.65 * spreads[along]


@pytest.mark.parametrize("noise", [0.0, 5.0])
@pytest.mark.parametrize("gain", [1.0, 0.5])  # of the light
def test_made_pictures_get_their_tags(gain, noise):
    for seed in range(4):
        made = polygons(seed, contrast=100.0)
        assert tags_of(seen(made, gain=gain, noise=noise), noise) == ()
        assert tags_of(seen(made, mask=bell(1.0), gain=gain, noise=noise), noise) == ()  # just outside
        assert tags_of(seen(made, mask=bell(2.5), gain=gain, noise=noise), noise) == ("defocus",)
        assert tags_of(seen(made, mask=smear(4, 0), gain=gain, noise=noise), noise) == ()  # just outside
        for degrees, direction in DIRECTIONS.items():
            moved = seen(made, mask=smear(11, degrees), gain=gain, noise=noise)
            assert tags_of(moved, noise) == ("motion_blur", direction)


def test_spreads_are_of_the_object_not_of_the_frame():
    # the same object twice as near: twice the pixels, twice the smear
    far = seen(polygons(1), mask=bell(2.0))
    near = cv2.resize(far, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    assert edge_spreads(near, noise=0.0) == pytest.approx(edge_spreads(far, noise=0.0), abs=0.2)


def test_what_cannot_be_told():
    blurred = seen(polygons(1), mask=bell(3.0))
    assert tags_of(blurred, 0.0) == ("defocus",)
    assert edge_spreads(blurred[:-1], noise=0.0) == NO_SPREADS  # 95 pixels
    assert edge_spreads(blurred[:, :-1], noise=0.0) == NO_SPREADS
    assert edge_spreads(blurred[:0], noise=0.0) == NO_SPREADS
    assert edge_spreads(blurred, noise=MAX_NOISE + 0.1) == NO_SPREADS
    assert edge_spreads(np.full((200, 100), 90, np.uint8), noise=0.0) == NO_SPREADS  # no edges
    stripes = np.tile(np.where(np.arange(120) // 12 % 2, 200, 60).astype(np.uint8), (120, 1))
    across = edge_spreads(stripes, noise=0.0)
    assert across.vertical is None
    assert across.horizontal is not None
    assert tags_of(cv2.blur(stripes, (11, 1)), 0.0) == ()  # whether the stripes moved or are soft nobody knows


def test_only_a_region_of_96_pixels_is_measured():
    image = cv2.cvtColor(seen(polygons(2, side=256), mask=bell(9.0)), cv2.COLOR_GRAY2BGR)
    told = [
        object_tags(image, (20.0, 20.0, 20.0 + side, 180.0), light=PLAIN, input_scale=1.0, others=())
        for side in (95, 96)
    ]
    assert ["defocus" in tags for tags in told] == [False, True]


@pytest.mark.skipif(not COCO.is_dir(), reason="coco128 is not here")
@pytest.mark.parametrize(
    ("noise", "gain", "defocus", "motion"),
    [
        (0.0, 1.0, 0.85, 0.7),
        (8.0, 1.0, 0.8, 0.7),
        (0.0, 0.3, 0.7, 0.6),  # 30 % of the light
    ],
)
def test_real_objects_blurred_by_a_known_amount(noise, gain, defocus, motion):
    """The bounds lie ten points and more under what `bench_tags` measures on all of the held-out objects."""
    sharp, soft, moved = [], [], []
    for number, (crop, scale) in enumerate(itertools.islice(crops(), 0, None, 3)):
        degrees = list(DIRECTIONS)[number % 4]

        def told(mask, crop=crop, number=number):
            gray = seen(crop, mask=mask, noise=noise, gain=gain, seed=number)
            return tags_of(gray, noise_sigma(gray[:256, :256]))

        sharp.append(told(None))
        soft.append(told(bell(3 * scale)))
        moved.append((DIRECTIONS[degrees], told(smear(min(60.0, 10 * scale), degrees))))
    assert len(sharp) >= 30
    assert sum(map(bool, sharp)) <= 1
    assert sum("defocus" in tags for tags in soft) >= defocus * len(soft)
    assert sum(right in tags for right, tags in moved) >= motion * len(moved)
    wrong = [tags for right, tags in moved if tags and right not in tags]
    assert len(wrong) + sum("motion_blur" in tags for tags in soft) <= 0.1 * (len(soft) + len(moved))
