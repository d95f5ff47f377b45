"""The second look's geometry: enlarged enough, inside the frame, there and back; and its budget."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from edge.detector.detections import Detections
from edge.detector.detector import Inference, Timings
from edge.zoom import (
    KEEP_SCORE,
    MAX_SAVED,
    MAX_TARGETS,
    Budget,
    Target,
    Tile,
    can_enlarge,
    compose,
    fits_quarter,
    look,
)
from tests.edge.spots import BRIGHT, DIM, HARD_PX, SpotDetector, street

sizes = st.tuples(st.integers(1, 1600), st.integers(1, 1600))
inputs = st.tuples(st.integers(2, 20), st.integers(2, 20)).map(lambda side: (32 * side[0], 32 * side[1]))
numbers = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-100, 2000)
anywhere = st.tuples(numbers, numbers, numbers, numbers)


@st.composite
def places(draw: st.DrawFn, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A box that touches a frame of that size."""
    x1, y1 = draw(st.floats(0, size[0])), draw(st.floats(0, size[1]))
    return x1, y1, x1 + draw(st.floats(0, size[0] / 2)), y1 + draw(st.floats(0, size[1] / 2))


@st.composite
def small_targets(draw: st.DrawFn) -> list[Target]:
    """One to four targets, each in a frame of its own size."""
    frames = draw(st.lists(sizes, min_size=1, max_size=MAX_TARGETS))
    return [Target(np.zeros((height, width, 3), np.uint8), draw(places((width, height)))) for width, height in frames]


def sides(corners: tuple[int, int, int, int]) -> tuple[int, int]:
    return corners[2] - corners[0], corners[3] - corners[1]


@given(small_targets(), inputs)
def test_what_is_looked_at_gets_twice_the_pixels_and_lies_in_the_frame(targets, input_size):
    tiles, canvas = compose(targets, input_size=input_size)
    assert canvas.shape == (input_size[1], input_size[0], 3)
    assert len(tiles) == len(targets)
    for tile, target in zip(tiles, targets, strict=True):
        if tile is None:
            continue
        height, width = target.image.shape[:2]
        assert tile.frame_size == (width, height)
        x1, y1, x2, y2 = tile.crop
        assert 0 <= x1 < x2 <= width
        assert 0 <= y1 < y2 <= height
        full_scale = min(input_size[0] / width, input_size[1] / height)
        (crop_w, crop_h), (cell_w, cell_h) = sides(tile.crop), sides(tile.place)
        assert cell_w * cell_h / (crop_w * crop_h) >= 2 * full_scale**2 * (1 - 1e-9)
        assert abs(crop_w - crop_h * cell_w / cell_h) <= 1 + cell_w / cell_h, "the cell's shape, but for whole pixels"


@pytest.mark.parametrize("side", [5, 11, 40])
def test_twice_the_pixels_also_where_a_pixel_is_much(side):
    image = np.zeros((side, side, 3), np.uint8)
    enlarged = 0
    for height in np.arange(0.1, side, side / 1000):
        (tile,), _ = compose([Target(image, (1, 1, 2, 1 + height))], input_size=(256, 256))
        if tile is not None:
            enlarged += 1
            crop_w, crop_h = sides(tile.crop)
            assert side * side / (crop_w * crop_h) >= 2
    assert enlarged > 100


@given(st.lists(st.tuples(sizes, anywhere), min_size=1, max_size=MAX_TARGETS), inputs)
def test_no_frame_and_no_box_is_refused(rows, input_size):
    targets = [Target(np.zeros((height, width, 3), np.uint8), xyxy) for (width, height), xyxy in rows]
    tiles, _ = compose(targets, input_size=input_size)
    for tile, ((width, height), _) in zip(tiles, rows, strict=True):
        if tile is not None:
            assert 0 <= tile.crop[0] < tile.crop[2] <= width
            assert 0 <= tile.crop[1] < tile.crop[3] <= height


@given(small_targets(), inputs)
def test_the_cells_lie_side_by_side_in_the_input(targets, input_size):
    tiles, _ = compose(targets, input_size=input_size)
    taken = np.zeros((input_size[1], input_size[0]), np.uint8)
    for tile in tiles:
        if tile is not None:
            x1, y1, x2, y2 = tile.place
            assert 0 <= x1 < x2 <= input_size[0]
            assert 0 <= y1 < y2 <= input_size[1]
            taken[y1:y2, x1:x2] += 1
    assert taken.max() <= 1


@given(st.data())
def test_whether_a_place_can_be_enlarged_is_told_before(data):
    size, input_size = data.draw(sizes), data.draw(inputs)
    xyxy = data.draw(places(size))
    target = Target(np.zeros((size[1], size[0], 3), np.uint8), xyxy)
    (alone,), _ = compose([target], input_size=input_size)
    among_four, _ = compose([target] * 4, input_size=input_size)
    assert (alone is not None) == can_enlarge(xyxy, size, input_size)
    assert [tile is not None for tile in among_four] == [fits_quarter(xyxy, size, input_size)] * 4


@settings(suppress_health_check=[HealthCheck.filter_too_much])
@given(st.data())
def test_two_that_fit_a_quarter_each_are_both_looked_at(data):
    size, input_size = data.draw(sizes), data.draw(inputs)
    two = [data.draw(places(size)), data.draw(places(size))]
    assume(all(fits_quarter(xyxy, size, input_size) for xyxy in two))
    image = np.zeros((size[1], size[0], 3), np.uint8)
    tiles, _ = compose([Target(image, xyxy) for xyxy in two], input_size=input_size)
    assert None not in tiles


def test_two_wide_places_of_a_wide_frame_share_a_square_input():
    image = np.zeros((432, 768, 3), np.uint8)
    cars = [(240.0, 220.0, 430.0, 370.0), (540.0, 230.0, 711.0, 328.0)]
    tiles, _ = compose([Target(image, car) for car in cars], input_size=(320, 320))
    assert [tile and tile.place for tile in tiles] == [(0, 0, 160, 160), (160, 0, 320, 160)]


@given(st.data())
def test_a_place_inside_the_frame_is_whole_in_its_crop(data):
    size, input_size = data.draw(sizes), data.draw(inputs)
    x1, y1, x2, y2 = data.draw(places(size))
    xyxy = (x1, y1, min(x2, size[0]), min(y2, size[1]))
    tiles, _ = compose([Target(np.zeros((size[1], size[0], 3), np.uint8), xyxy)], input_size=input_size)
    assume(tiles[0] is not None)
    left, top, right, bottom = tiles[0].crop
    assume(right - left >= 2)  # of a crop of a pixel or two nothing can be said
    assert left <= xyxy[0] + 1
    assert top <= xyxy[1] + 1
    assert right >= xyxy[2] - 1
    assert bottom >= xyxy[3] - 1


@st.composite
def tiles_of_a_frame(draw: st.DrawFn) -> Tile:
    width, height = draw(sizes)
    x1, y1 = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    crop = (x1, y1, draw(st.integers(x1 + 1, width)), draw(st.integers(y1 + 1, height)))
    left, top = draw(st.integers(0, 300)), draw(st.integers(0, 300))
    place = (left, top, left + draw(st.integers(8, 320)), top + draw(st.integers(8, 320)))
    return Tile(crop, place, (width, height))


@given(tiles_of_a_frame(), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_there_and_back_within_a_pixel(tile, shares):
    low, high = np.array(tile.crop[:2]), np.array(tile.crop[2:])
    in_frame = np.concatenate([low + np.sort(np.reshape(shares, (2, 2)), axis=0)[i] * (high - low) for i in (0, 1)])
    scale = np.array(sides(tile.place)) / np.array(sides(tile.crop))
    in_input = (in_frame.reshape(2, 2) - low) * scale + tile.place[:2]
    back = tile.to_frame(np.float32(in_input.reshape(1, 4)))
    assert np.abs(back[0] - in_frame).max() < 1


@given(tiles_of_a_frame(), st.lists(st.tuples(*[st.floats(-400, 1000, width=32)] * 4), max_size=6))
def test_nothing_is_seen_outside_the_crop(tile, rows):
    back = tile.to_frame(np.float32(rows).reshape(-1, 4)).reshape(-1, 2)
    assert (back >= tile.crop[:2]).all()
    assert (back <= tile.crop[2:]).all()


@pytest.mark.parametrize(
    ("crop", "box", "owned"),
    [
        ((100, 100, 200, 200), (20, 20, 40, 40), True),  # whole, in the middle
        ((100, 100, 200, 200), (0, 20, 40, 40), False),  # cut at the left
        ((100, 100, 200, 200), (20, 0, 40, 40), False),  # cut at the top
        ((100, 100, 200, 200), (60, 20, 100, 40), False),  # cut at the right
        ((100, 100, 200, 200), (20, 60, 40, 100), False),  # cut at the bottom
        ((0, 100, 100, 200), (0, 20, 40, 40), True),  # the frame ends there, too: nothing is cut
        ((100, 0, 200, 100), (20, 0, 40, 40), True),  # the same at the top
        ((300, 100, 400, 200), (60, 20, 100, 40), True),  # at the right
        ((100, 200, 200, 300), (20, 60, 40, 100), True),  # at the bottom
        ((0, 100, 100, 200), (20, 0, 40, 40), False),  # at the left border of the frame, cut at the top
        ((0, 0, 400, 300), (101, 20, 140, 40), False),  # of the tile beside
        ((0, 0, 400, 300), (90, 20, 120, 40), False),  # more in the tile beside
    ],
)
def test_a_tile_owns_what_its_inner_edges_do_not_cut(crop, box, owned):
    tile = Tile(crop, (0, 0, 100, 100), (400, 300))
    assert tile.owned(np.float32([box])).tolist() == [owned]


@given(st.data())
def test_a_box_belongs_to_one_tile_at_most(data):
    targets, input_size = data.draw(small_targets()), data.draw(inputs)
    tiles, _ = compose(targets, input_size=input_size)
    coordinate = st.floats(0, max(input_size), width=32)
    xyxy = np.float32(data.draw(st.lists(st.tuples(*[coordinate] * 4), min_size=1, max_size=8)))
    assert np.sum([tile.owned(xyxy) for tile in tiles if tile is not None] or [np.zeros(len(xyxy))], axis=0).max() <= 1


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_target_gets_its_own_boxes_where_they_stand(count):
    """Dim blocks that the full frame does not show, each in a picture of its own size."""
    detector = SpotDetector()
    sizes_ = [(640, 480), (1280, 720), (480, 640), (800, 600)]
    boxes = [(100, 200, 112, 224), (1200, 20, 1224, 70), (30, 560, 46, 600), (400, 300, 416, 334)]
    pictures = [street((box, DIM), size=size) for box, size in zip(boxes, sizes_, strict=True)]
    for picture in pictures:
        assert len(detector.detect(picture).detections) == 0
    found, inference = look(detector, [Target(*pair) for pair in zip(pictures[:count], boxes[:count], strict=True)])
    assert inference is not None
    for box, seen in zip(boxes, found, strict=False):
        assert len(seen) == 1
        assert seen.xyxy[0] == pytest.approx(box, abs=3)


def test_what_stands_beside_is_seen_too_and_what_the_crop_cuts_is_not():
    image = street(((300, 200, 316, 232), DIM), ((330, 200, 346, 232), DIM), size=(640, 480))
    detector = SpotDetector()
    (seen,), _ = look(detector, [Target(image, (300, 200, 316, 232))])
    assert sorted(seen.xyxy[:, 0].tolist()) == pytest.approx([300, 330], abs=2)
    tiles, _ = compose([Target(image, (300, 200, 316, 232))], input_size=detector.input_size)
    right = tiles[0].crop[2]
    cut = street(((300, 200, 316, 232), DIM), ((right - 8, 200, right + 8, 232), DIM))
    (seen,), _ = look(detector, [Target(cut, (300, 200, 316, 232))])
    assert seen.xyxy[:, 0].tolist() == pytest.approx([300], abs=2)


def test_a_target_too_large_to_be_enlarged_costs_nothing():
    detector = SpotDetector()
    image = street(((100, 50, 400, 450), BRIGHT))
    found, inference = look(detector, [Target(image, (100, 50, 400, 450))])
    assert (len(found[0]), inference, detector.calls) == (0, None, 0)
    assert look(detector, []) == ([], None)


def test_a_large_target_does_not_keep_a_small_one_from_being_seen():
    small = (500, 200, 516, 232)
    image = street(((100, 50, 400, 450), BRIGHT), (small, DIM))
    detector = SpotDetector()
    found, inference = look(detector, [Target(image, (100, 50, 400, 450)), Target(image, small)])
    assert inference is not None
    assert len(found[0]) == 0
    assert found[1].xyxy[0] == pytest.approx(small, abs=3)


def test_a_look_keeps_weak_boxes_but_not_the_weakest():
    class Weak(SpotDetector):
        def detect(self, image, *, score_threshold=0.05):
            self.asked = score_threshold
            middle = np.float32([[70, 50, 90, 70]])
            return Inference(Detections(middle, np.float32([0.2]), np.int32([0])), np.zeros(0), Timings(0, 0, 0))

    detector = Weak()
    (seen,), _ = look(detector, [Target(street(), (300, 200, 316, 232))])
    assert detector.asked == KEEP_SCORE
    assert seen.score.tolist() == pytest.approx([0.2])


def test_the_dim_block_of_these_tests_is_seen_by_size_only():
    detector = SpotDetector(input_size=(640, 480))
    for height, seen in ((HARD_PX - 2, 0), (HARD_PX + 2, 1)):
        assert len(detector.detect(street(((100, 100, 120, 100 + height), DIM))).detections) == seen


@given(st.floats(0, 4), st.integers(1, 400), st.integers(0, 300))
def test_over_any_frames_the_looks_stay_within_the_budget(share, frames, since):
    budget = Budget(share)
    taken = []
    for _ in range(frames):
        earned = budget.earn()
        taken.append(earned)
        if earned:
            budget.spend()
    window = taken[min(since, frames - 1) :]
    assert sum(window) <= share * len(window) + MAX_SAVED + 1e-6
    assert sum(taken) >= math.floor(min(1.0, share) * frames - 1e-6) - 1, "what is earned can be spent"


@given(st.floats(0, 4), st.integers(0, 200), st.integers(1, 100))
def test_a_long_rest_saves_no_more_than_a_few_looks(share, idle, frames):
    budget = Budget(share)
    for _ in range(idle):
        budget.earn()
    taken = 0
    for _ in range(frames):
        if budget.earn():
            budget.spend()
            taken += 1
    assert taken <= share * frames + MAX_SAVED + 1e-6


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.1, 0.5, 2.0]), st.booleans()), max_size=200))
def test_a_share_that_changes_binds_from_then_on(turns):
    budget = Budget(0.1)
    allowance = MAX_SAVED
    for share, wants in turns:
        budget.share = share
        allowance = min(allowance + share, allowance + 1e9)
        earned = budget.earn()
        assert not (earned and share == 0), "0 turns it off at once"
        if earned and wants:
            budget.spend()
            allowance -= 1
        assert allowance >= -1e-6
