"""Two looks at one frame: tiles that cover it, parts that are no objects, and counts that are fair to both looks."""

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from edge.contract.status import RecallCounts
from edge.detector.detections import Detections
from edge.detector.tiling import CUT, OVERLAP, join_tiles, tiles
from edge.recall import REMEMBERED, SURE, RecallTally, compare

sides = st.integers(32, 4000)
SIZE, INPUT = (768, 576), (256, 192)
GRID = tiles(SIZE, input_size=INPUT)  # 3 x 3 tiles of 384x288, half overlapping


def boxes(*xyxy, score=0.9, class_id=0) -> Detections:
    n = len(xyxy)
    scores = np.full(n, score, np.float32) if np.isscalar(score) else np.float32(score)
    classes = np.full(n, class_id, np.int32) if np.isscalar(class_id) else np.int32(class_id)
    return Detections(np.array(xyxy, np.float32).reshape(n, 4), scores, classes)


def found(**by_tile: Detections) -> list:
    """Every tile of `GRID`, with detections in those named as in `t4`."""
    return [(tile, by_tile.get(f"t{i}", Detections())) for i, tile in enumerate(GRID)]


def counted(first: Detections, second: Detections, **options) -> tuple[int, int, int]:
    counts = compare(first, second, grid=GRID, score_threshold=0.4, **options).counts
    assert counts.frames == 1
    return counts.detector, counts.second_look, counts.both


def test_the_usual_grid():
    assert len(GRID) == 9
    assert GRID[0] == (0, 0, 384, 288)
    assert GRID[4] == (192, 144, 576, 432)
    assert GRID[8] == (384, 288, 768, 576)


@given(st.tuples(sides, sides), st.tuples(st.integers(64, 1280), st.integers(64, 1280)), st.floats(1, 4))
def test_tiles_cover_the_frame_and_are_enlarged(size, input_size, enlarge):
    grid = tiles(size, input_size=input_size, enlarge=enlarge)
    scale = min(input_size[0] / size[0], input_size[1] / size[1])
    for axis in (0, 1):
        spans = sorted({(tile[axis], tile[axis + 2]) for tile in grid})
        assert spans[0][0] == 0
        assert spans[-1][1] == size[axis]
        for (first, end), (start, _) in itertools.pairwise(spans):
            assert end - start >= OVERLAP * (end - first)
    assert len(grid) == len(set(grid))
    for x1, y1, x2, y2 in grid:
        assert all(value == int(value) for value in (x1, y1, x2, y2))
        assert min(input_size[0] / (x2 - x1), input_size[1] / (y2 - y1)) >= enlarge * scale * (1 - 1e-9)


shares = st.integers(0, 1000).map(lambda n: n / 1000)


@given(
    st.tuples(sides, sides),
    st.tuples(st.integers(64, 1280), st.integers(64, 1280)),
    st.tuples(shares, shares),
    st.tuples(shares, shares),
)
def test_a_box_of_usual_size_is_whole_in_a_tile_wherever_it_is(size, input_size, large, place):
    """A law of the tiles, seen from outside: both looks report it, and it is counted."""
    grid = tiles(size, input_size=input_size)
    usual = [(OVERLAP - 2 * CUT) * side - 0.01 for side in grid[0][2:]]
    width, height = (1 + share * (side - 1) for share, side in zip(large, usual, strict=True))
    x, y = (share * (side - own) for share, side, own in zip(place, size, (width, height), strict=True))
    box = boxes((x, y, x + width, y + height))
    counts = compare(box, box, grid=grid, score_threshold=0.4).counts
    assert (counts.detector, counts.second_look, counts.both) == (1, 1, 1)


JOINED = {
    "whole in two tiles: one object": (
        found(t0=boxes((200, 150, 240, 250), score=0.5), t4=boxes((202, 150, 241, 251), score=0.8)),
        [(202, 150, 241, 251)],
    ),
    "cut in one, whole in the next": (
        found(t0=boxes((350, 10, 384, 100)), t1=boxes((350, 10, 410, 100), score=0.6)),
        [(350, 10, 410, 100)],
    ),
    "cut a little short of the border": (found(t0=boxes((350, 10, 380, 100))), []),
    "larger than a tile: parts of it in every one": (
        found(t0=boxes((50, 100, 384, 288)), t1=boxes((192, 100, 576, 288)), t4=boxes((192, 144, 576, 432))),
        [],
    ),
    "cut by the frame's own border": (
        found(t0=boxes((0, 10, 40, 100)), t8=boxes((700, 500, 768, 576), score=0.5)),
        [(0, 10, 40, 100), (700, 500, 768, 576)],
    ),
    "another class in the same place": (
        found(t0=boxes((20, 20, 60, 90), (20, 20, 60, 90), score=[0.9, 0.8], class_id=[0, 2])),
        [(20, 20, 60, 90), (20, 20, 60, 90)],
    ),
    "nothing at all": (found(), []),
}


@pytest.mark.parametrize(("tiled", "expected"), JOINED.values(), ids=JOINED)
def test_tiles_joined(tiled, expected):
    joined = join_tiles(tiled)
    assert joined.xyxy.tolist() == [list(box) for box in expected]
    assert list(joined.score) == sorted(joined.score, reverse=True)


def test_no_tiles_show_nothing():
    assert len(join_tiles([])) == 0


NEAR, FAR, LARGE = (20, 20, 60, 120), (300, 20, 340, 120), (20, 20, 70, 420)
STOOD = (500, 400, 560, 440)
COUNTED = {
    "both see it, not quite alike": (boxes(NEAR), boxes((23, 22, 62, 118)), (1, 1, 1)),
    "each sees another": (boxes(NEAR), boxes(FAR), (1, 1, 0)),
    "a box too far off to be the same": (boxes(NEAR), boxes((45, 20, 85, 120)), (1, 1, 0)),
    "another class": (boxes(NEAR), boxes(NEAR, class_id=1), (1, 1, 0)),
    "one box of the first for two of the second": (boxes(NEAR), boxes(NEAR, (24, 20, 64, 120)), (1, 2, 1)),
    "two couples, the better pairs": (
        boxes(NEAR, (40, 20, 80, 120)),
        boxes((38, 20, 78, 120), (18, 20, 58, 120)),
        (2, 2, 2),
    ),
    "below the threshold": (boxes(NEAR, score=0.39), boxes(NEAR), (0, 1, 0)),
    "below the threshold at the second look": (boxes(NEAR), boxes(NEAR, score=0.39), (1, 0, 0)),
    "higher than a tile: only one look can see it": (boxes(LARGE), Detections(), (0, 0, 0)),
    "one look says it is larger than a tile": (boxes((20, 20, 60, 284)), boxes((20, 20, 60, 262)), (0, 0, 0)),
    "an empty street": (Detections(), Detections(), (0, 0, 0)),
}


@pytest.mark.parametrize(("first", "second", "expected"), COUNTED.values(), ids=COUNTED)
def test_counts(first, second, expected):
    assert counted(first, second) == expected


def test_the_second_look_must_be_sure_where_the_threshold_is_low():
    unsure = boxes(NEAR, score=SURE - 0.05)
    counts = compare(unsure, unsure, grid=GRID, score_threshold=0.2).counts
    assert (counts.detector, counts.second_look, counts.both) == (1, 0, 0)


def test_what_stood_there_before_is_left_out_by_both_looks():
    """One of the pair's boxes is enough; another class or a place a step away is no reason."""
    first, second = boxes(NEAR, FAR), boxes((23, 22, 62, 118), FAR)
    assert counted(first, second, standing=boxes((22, 20, 62, 120))) == (1, 1, 1)
    assert counted(first, second, standing=boxes((14, 20, 54, 120))) == (1, 1, 1)
    assert counted(first, second, standing=boxes(NEAR, class_id=1)) == (2, 2, 2)
    assert counted(first, second, standing=boxes((35, 20, 75, 120))) == (2, 2, 2)


some_boxes = st.lists(
    st.tuples(st.integers(0, 700), st.integers(0, 500), st.integers(4, 300), st.integers(4, 300)), max_size=12
).map(lambda all_: boxes(*((x, y, min(x + w, 768), min(y + h, 576)) for x, y, w, h in all_)))


@given(some_boxes, some_boxes, some_boxes)
def test_no_look_finds_less_than_both(first, second, standing):
    """Law 2; and the same look twice finds the same."""
    n1, n2, m = counted(first, second, standing=standing)
    assert 0 <= m <= min(n1, n2)
    alone = counted(first, first)
    assert alone == (alone[0],) * 3


OBJECTS = {
    # first, second, what counts of the first, what only the second shows and counts, what does not count beside
    "a pair is one object, in the detector's box": (boxes(NEAR), boxes((23, 22, 62, 118)), [True], [], []),
    "each sees another": (boxes(NEAR), boxes(FAR), [True], [FAR], []),
    "a box below the threshold is no object": (boxes(NEAR, FAR, score=[0.9, 0.3]), Detections(), [True, False], [], []),
    "a weak box of the detector does not hide an overlooked object": (
        boxes(NEAR, score=0.39),
        boxes(NEAR),
        [False],
        [NEAR],
        [],
    ),
    "too large for a tile": (boxes(LARGE), boxes(LARGE, FAR), [False], [FAR], []),
    "too large for a tile, seen by the second look alone": (Detections(), boxes(LARGE), [], [], [LARGE]),
    "stood there before": (boxes(FAR), boxes(STOOD), [True], [], [STOOD]),
    "not wanted, by either": (boxes(FAR, class_id=7), boxes(NEAR, class_id=7), [False], [], []),
}


@pytest.mark.parametrize(("first", "second", "found", "overlooked", "beside"), OBJECTS.values(), ids=OBJECTS)
def test_the_objects_of_two_looks(first, second, found, overlooked, beside):
    looks = compare(
        first,
        second,
        grid=GRID,
        score_threshold=0.4,
        standing=boxes(STOOD),
        may_count=lambda look: look.class_id != 7,
    )
    assert looks.found.tolist() == found
    assert looks.overlooked.xyxy.tolist() == [list(box) for box in overlooked]
    assert looks.beside.xyxy.tolist() == [list(box) for box in beside]


@given(some_boxes, some_boxes, some_boxes, st.integers(0, 3))
def test_the_counts_are_those_of_the_objects(first, second, standing, modulus):
    """Law 4; and whatever counts is wanted, sure and named once."""
    looks = compare(
        first,
        second,
        grid=GRID,
        score_threshold=0.4,
        standing=standing,
        may_count=lambda look: look.xyxy[:, 0] % 4 != modulus,
    )
    counts = looks.counts
    assert (counts.frames, counts.detector) == (1, looks.found.sum())
    assert counts.second_look - counts.both == len(looks.overlooked)
    for shown in (first.take(looks.found), looks.overlooked, looks.beside):
        assert not (shown.xyxy[:, 0] % 4 == modulus).any()
    assert len(looks.overlooked) + len(looks.beside) + counts.both <= len(second)


def test_what_stands_still_is_forgotten_with_the_size_of_the_picture():
    tally = RecallTally(score_threshold=0.4)
    for objects in (1, 0):
        assert tally.add(boxes(NEAR), found(t0=boxes(NEAR))).counts.both == objects
    tally.forget()
    assert tally.add(boxes(NEAR), found(t0=boxes(NEAR))).counts.both == 1
    assert tally.counts == RecallCounts(frames=3, detector=2, second_look=2, both=2)


def test_a_tally_counts_what_stands_still_once_and_what_walks_every_time():
    tally = RecallTally(score_threshold=0.4)
    for i in range(30):
        walker = (20 + 12 * i, 20, 60 + 12 * i, 90)
        parked = boxes((500, 400, 560, 440), score=0.5)  # found by the second look alone
        tally.add(boxes(walker), [*found(t8=parked), (GRID[0], Detections())] if i % 3 else found(t8=parked))
    assert tally.counts == RecallCounts(frames=30, detector=30, second_look=1, both=0)


def test_a_tally_forgets_what_left():
    tally = RecallTally(score_threshold=0.4)
    visits = [True, *[False] * REMEMBERED, True]
    for here in visits:
        tally.add(boxes(NEAR) if here else Detections(), found(t0=boxes(NEAR)) if here else found())
    assert tally.counts == RecallCounts(frames=len(visits), detector=2, second_look=2, both=2)


def test_frames_seen_once_and_frames_seen_twice_do_not_take_objects_from_each_other():
    """What stands still is seen once in the frames without a second look, and once in those with one."""
    tally = RecallTally(score_threshold=0.4)
    one = boxes((20, 20, 60, 120))

    def see() -> int:
        looks = tally.see(one, grid=GRID)
        assert not looks.twice
        return int(looks.found.sum())

    def add() -> int:
        before = tally.counts.detector
        tally.add(one, found(t0=one))
        return tally.counts.detector - before

    assert (see(), see()) == (1, 0)
    assert (add(), add()) == (1, 0), "or what the detector finds would be left out more often than what it overlooks"
    assert see() == 0
    tally.forget()
    assert (add(), see()) == (1, 0), "what was counted is not seen again"
