"""The laws of edge.fingerprint and edge.detector.light, and what its figures mean on made pictures."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge.detector.light import measure_light, noise_sigma
from edge.fingerprint import (
    HASH_BYTES,
    crop_with_context,
    fingerprint,
    level_hash,
    perceptual_hash,
    quantize_features,
)

coordinates = st.floats(-500, 500, allow_nan=False)
pictures = arrays.arrays(np.uint8, st.tuples(st.integers(1, 40), st.integers(1, 40), st.just(3)))


def bits_between(a, b):
    return (int.from_bytes(a) ^ int.from_bytes(b)).bit_count()


def scene(seed, *, width=160, height=120):
    """A smooth random picture: what a camera could see, without fine texture."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (9, 12)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


@given(pictures, st.tuples(coordinates, coordinates), st.tuples(st.floats(0, 600), st.floats(0, 600)))
@settings(max_examples=150, deadline=None)
def test_every_picture_and_region_has_a_fingerprint(image, corner, side):
    # law 2, and the form that the wire demands
    region = (corner[0], corner[1], corner[0] + side[0], corner[1] + side[1])
    print_ = fingerprint(image, region)
    assert len(print_.crop_hash) == len(print_.frame_hash) == 2 * HASH_BYTES
    assert bytes.fromhex(print_.crop_hash).hex() == print_.crop_hash
    light = print_.light
    for value in (light.brightness, light.contrast, light.noise, light.sharpness):
        assert math.isfinite(value)
        assert value >= 0


@pytest.mark.parametrize("gray", [0, 1, 37, 128, 255])
@pytest.mark.parametrize(
    "shape",
    [
        (1, 1),  # one pixel
        (1, 7),  # one row
        (33, 65),  # no whole multiple of the 64 points
        (480, 640),
    ],
)
def test_a_flat_picture_hashes_to_zeros(gray, shape):
    assert perceptual_hash(np.full(shape, gray, np.uint8)) == bytes(HASH_BYTES)
    assert level_hash(np.full(shape, gray, np.uint8)) == bytes(HASH_BYTES)


def test_a_hash_is_as_long_and_half_of_its_bits_are_set():
    hashed = perceptual_hash(scene(1))
    assert len(hashed) == HASH_BYTES
    assert int.from_bytes(hashed).bit_count() == 128


@pytest.mark.parametrize(
    ("change", "at_most"),
    [
        (lambda g: cv2.resize(g, (320, 240), interpolation=cv2.INTER_AREA), 16),  # another size
        (lambda g: np.clip(g * 0.6 + 20, 0, 255).astype(np.uint8), 16),  # less light
        (lambda g: cv2.imdecode(cv2.imencode(".jpg", g, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], 0), 16),  # JPEG
        (lambda g: np.clip(g + np.random.default_rng(2).normal(0, 8, g.shape), 0, 255).astype(np.uint8), 31),  # noise
    ],
)
def test_a_hash_bears_what_does_not_change_the_scene(change, at_most):
    for seed in range(5):
        gray = scene(seed, width=640, height=480)
        assert bits_between(perceptual_hash(gray), perceptual_hash(change(gray))) <= at_most


def test_the_crop_hash_bears_a_box_that_is_not_exact():
    # what a detector does from frame to frame; the hash of whole frames cannot bear it
    rng = np.random.default_rng(4)
    gray = cv2.resize(rng.integers(0, 256, (30, 40)).astype(np.uint8), (640, 480), interpolation=cv2.INTER_CUBIC)
    coarse, fine = [], []
    for x, y, dx, dy in zip(*rng.uniform(150, 350, (2, 30)), *rng.uniform(-3, 3, (2, 30)), strict=True):
        a = crop_with_context(gray, (x, y, x + 40, y + 80))
        b = crop_with_context(gray, (x + dx, y + dy, x + dx + 40, y + dy + 80))
        coarse.append(bits_between(level_hash(a), level_hash(b)))
        fine.append(bits_between(perceptual_hash(a), perceptual_hash(b)))
    assert np.median(coarse) <= 40
    assert np.median(fine) > 1.4 * np.median(coarse)


def test_crop_hashes_of_different_places_lie_apart():
    hashes = [level_hash(scene(seed)) for seed in range(20)]
    assert np.median([bits_between(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]) > 70


def test_hashes_of_different_scenes_lie_far_apart():
    hashes = [perceptual_hash(scene(seed)) for seed in range(20)]
    apart = [bits_between(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(apart) > 80
    assert 115 < np.mean(apart) < 141  # 128 for unrelated pictures


def test_the_crop_hash_sees_the_region_and_the_frame_hash_the_frame():
    image = cv2.cvtColor(scene(3, width=640, height=480), cv2.COLOR_GRAY2BGR)
    changed = image.copy()
    cv2.rectangle(changed, (300, 200), (320, 240), (0, 0, 0), -1)
    region = (300.0, 200.0, 320.0, 240.0)
    before, after = fingerprint(image, region), fingerprint(changed, region)
    assert bits_between(bytes.fromhex(before.crop_hash), bytes.fromhex(after.crop_hash)) > 50
    assert bits_between(bytes.fromhex(before.frame_hash), bytes.fromhex(after.frame_hash)) < 31


@pytest.mark.parametrize(
    ("region", "shape"),
    [
        ((40, 40, 60, 50), (20, 40)),  # well inside: twice the sides
        ((0, 0, 20, 10), (15, 30)),  # at the corner: cut at the borders
        ((-50, -50, 10, 10), (40, 40)),  # partly outside
        ((500, 500, 600, 600), (1, 1)),  # wholly outside: the nearest pixel
        ((10.2, 10.2, 10.4, 10.4), (2, 2)),  # less than a pixel: grown to one, which touches two each way
        ((0, 0, 100, 80), (80, 100)),  # the whole frame
    ],
)
def test_crop_with_context(region, shape):
    assert crop_with_context(np.zeros((80, 100), np.uint8), region).shape == shape


def test_light_is_measured_at_the_region():
    gray = np.full((200, 200), 30, np.uint8)
    gray[50:100, 50:100] = 200
    assert measure_light(gray, (55, 55, 95, 95)).brightness == 200
    assert measure_light(gray, (55, 55, 95, 95)).contrast == 0
    assert measure_light(gray, (120, 120, 190, 190)).brightness == 30
    assert measure_light(gray, (40, 50, 60, 100)).contrast == 85  # half and half


def test_a_black_picture_has_no_light_at_all():
    light = measure_light(np.zeros((120, 160), np.uint8), (10, 10, 11, 11))
    assert (light.brightness, light.contrast, light.noise, light.sharpness) == (0, 0, 0, 0)


@pytest.mark.parametrize("sigma", [2, 5, 10, 20])
def test_noise_is_found_under_texture(sigma):
    # a third of the picture is a hard chessboard, which a plain Immerkaer mean takes for noise
    gray = np.full((240, 240), 120, np.float64)
    rows, columns = np.mgrid[0:240, 0:80]
    gray[:, :80] = np.where((rows // 3 + columns // 3) % 2, 60, 190)
    noisy = np.clip(gray + np.random.default_rng(sigma).normal(0, sigma, gray.shape), 0, 255).astype(np.uint8)
    assert noise_sigma(noisy) == pytest.approx(sigma, rel=0.1)


def test_a_clipped_half_does_not_hide_the_noise():
    gray = np.full((128, 128), 120.0)
    gray += np.random.default_rng(0).normal(0, 6, gray.shape)
    gray[:, :64] = 255  # a burnt sky: no noise to be seen in it
    assert noise_sigma(np.clip(gray, 0, 255).astype(np.uint8)) == pytest.approx(6, rel=0.15)


def test_sharpness_falls_with_blur_and_noise_adds_what_is_said():
    gray = scene(5, width=200, height=200)
    cv2.putText(gray, "EDGE", (30, 110), cv2.FONT_HERSHEY_SIMPLEX, 2, 255, 3)
    region = (20, 40, 180, 140)
    sharp = [measure_light(cv2.GaussianBlur(gray, (0, 0), s) if s else gray, region).sharpness for s in (0, 1, 2, 4)]
    assert sharp == sorted(sharp, reverse=True)
    noise = np.clip(np.random.default_rng(1).normal(128, 5, (300, 300)), 0, 255).astype(np.uint8)
    assert measure_light(noise, (20, 20, 280, 280)).sharpness == pytest.approx(20 * 25, rel=0.05)


@given(arrays.arrays(np.float32, st.integers(0, 64), elements=st.floats(-100, 100, width=32)), st.floats(0.1, 1e6))
def test_quantized_features_do_not_know_the_length(vector, factor):
    # law 3; within one step, since the product itself is rounded
    first = np.frombuffer(quantize_features(vector), np.int8).astype(int)
    second = np.frombuffer(quantize_features(vector.astype(np.float64) * factor), np.int8).astype(int)
    assert len(first) == len(vector)
    assert np.abs(first - second).max(initial=0) <= 1
    if vector.any():
        assert np.linalg.norm(first) == pytest.approx(127, abs=0.5 * math.sqrt(len(vector)) + 0.01)


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        ([], b""),  # a model without a feature output
        ([0.0, 0.0], b"\x00\x00"),  # no direction
        ([3.0, 4.0], bytes([76, 102])),  # .6 and .8 of 127
        ([0.0, -2.0], bytes([0, 129])),  # -127 in two's complement
        ([1e-320, 0.0], bytes([127, 0])),  # the smallest numbers do not underflow
        ([1e308, 1e308], bytes([90, 90])),  # nor do the largest overflow
        ([float("nan"), 1.0], b""),  # a broken model: no features
        ([float("inf"), 1.0], b""),
    ],
)
def test_quantize_features(vector, expected):
    assert quantize_features(np.array(vector)) == expected


@pytest.mark.parametrize("shape", [(0, 0, 3), (4, 0, 3), (4, 4), (4, 4, 4)])
def test_a_picture_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"expected a BGR frame"):
        fingerprint(np.zeros(shape, np.uint8), (0, 0, 1, 1))


@pytest.mark.parametrize("shape", [(0, 0), (4, 4, 3)])
def test_a_hash_is_of_a_grey_picture(shape):
    with pytest.raises(ValueError, match=r"expected a grey picture"):
        perceptual_hash(np.zeros(shape, np.uint8))
