"""What edge.blur says of made pictures whose blur is known, and of real crops that were blurred by a known amount."""

import itertools
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.blur import MAX_NOISE, MIN_SIDE_PX, NO_SPREADS, edge_spreads
from edge.fingerprint import noise_sigma
from edge.tags import told_of_blur, object_tags
from tests.edge.test_tags import PLAIN

COCO = Path(__file__).parents[3] / "shared" / "data" / "coco128"
DIRECTIONS = {0: "motion_horizontal", 45: "motion_diagonal", 90: "motion_vertical", 135: "motion_diagonal"}


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


def smear(length, degrees):
    """The mask of a straight motion; degrees from the x axis to the y axis, which points down."""
    kernel = np.zeros((63, 63), np.float32)
    for t in np.linspace(-length / 2, length / 2, 400):
        x, y = 31 + t * math.cos(math.radians(degrees)), 31 + t * math.sin(math.radians(degrees))
        column, row = int(x), int(y)
        for i, j in itertools.product((0, 1), (0, 1)):
            kernel[row + i, column + j] += abs(1 - i - (y - row)) * abs(1 - j - (x - column))
    return kernel / kernel.sum()


def bell(sigma):
    kernel = cv2.getGaussianKernel(63, sigma)
    return (kernel @ kernel.T).astype(np.float32)


def seen(picture, *, mask=None, noise=0.0, gain=1.0, seed=0):
    """The inner part of a picture after blur, light and noise, as a camera gives it."""
    if mask is not None:
        picture = cv2.filter2D(picture, -1, mask)
    picture = picture[32:-32, 32:-32] * gain
    noisy = picture + np.random.default_rng(seed).normal(0, noise, picture.shape)
    return np.clip(noisy, 0, 255).round().astype(np.uint8)


def tags_of(gray, noise):
    return told_of_blur(edge_spreads(gray, noise=noise))


@pytest.mark.parametrize("noise", [0.0, 5.0])
@pytest.mark.parametrize("sigma", [1.0, 2.0, 3.0])
def test_the_spread_of_a_known_blur(sigma, noise):
    for seed in range(4):
        spreads = edge_spreads(seen(polygons(seed), mask=bell(sigma), noise=noise, seed=seed), noise=noise)
        for spread in spreads:
            assert abs(spread - sigma) <= 0.4 + 0.1 * sigma


@pytest.mark.parametrize("degrees", DIRECTIONS)
def test_the_spread_of_a_known_motion(degrees):
    along = [0, 45, 90, 135].index(degrees)
    for seed in range(4):
        spreads = edge_spreads(seen(polygons(seed), mask=smear(8, degrees)), noise=0.0)
        assert 0.95 * 8 / math.sqrt(12) <= spreads[along] <= 1.45 * 8 / math.sqrt(12)
        assert spreads[(along + 2) % 4] < 0.5 * spreads[along]


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


def crops():
    """Real objects of at least 96 pixels with 32 around them, and how far their own scale is from the measure's."""
    for label in sorted((COCO / "labels").rglob("*.txt"))[::2]:
        image = cv2.imread(str(next((COCO / "images").rglob(f"{label.stem}.jpg"))), cv2.IMREAD_GRAYSCALE)
        height, width = image.shape
        for line in label.read_text().splitlines():
            _, x, y, w, h = map(float, line.split())
            if min(w * width, h * height) >= MIN_SIDE_PX and w * h < 0.8:
                left, top = int((x - w / 2) * width), int((y - h / 2) * height)
                scale = MIN_SIDE_PX / min(w * width, h * height)
                crop = image[max(0, top) : top + int(h * height), max(0, left) : left + int(w * width)]
                if min(crop.shape) >= MIN_SIDE_PX:
                    yield cv2.copyMakeBorder(crop, 32, 32, 32, 32, cv2.BORDER_REFLECT).astype(np.float32), scale


@pytest.mark.skipif(not COCO.is_dir(), reason="coco128 is not here")
@pytest.mark.parametrize(
    ("noise", "gain", "recall"),
    [
        (0.0, 1.0, 0.75),
        (8.0, 1.0, 0.6),
        (0.0, 0.3, 0.6),  # 30 % of the light
    ],
)
def test_real_crops_blurred_by_a_known_amount(noise, gain, recall):
    found = {"sharp": [], "defocus": [], **{direction: [] for direction in DIRECTIONS.values()}}
    for crop, scale in itertools.islice(crops(), 30):

        def told(mask, crop=crop):
            gray = seen(crop, mask=mask, noise=noise, gain=gain)
            return tags_of(gray, noise_sigma(gray))

        found["sharp"].append(told(None))
        found["defocus"].append(told(bell(3 / scale)))
        for degrees, direction in DIRECTIONS.items():
            found[direction].append(told(smear(min(60, 10 / scale), degrees)))
    assert len(found["sharp"]) == 30
    assert sum(map(bool, found.pop("sharp"))) <= 1  # false alarms
    for wanted, several in found.items():
        assert sum(wanted in tags for tags in several) >= recall * len(several), wanted
        assert sum(bool(tags) and wanted not in tags for tags in several) <= 0.2 * len(several), wanted
