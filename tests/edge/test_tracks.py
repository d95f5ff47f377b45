"""The tracker: laws on random boxes, and a table of what a track makes of a sequence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.detector.detections import Detections
from edge.tracks import MAX_COAST_S, MAX_TRACKS, Link, Tracker

THRESHOLD = 0.4


def boxes(*rows: tuple[float, float, float]) -> Detections:
    """Boxes of 20x40 px of class 0: x, y of the top left corner, score."""
    ordered = sorted(rows, key=lambda row: -row[2])
    xyxy = np.array([(x, y, x + 20, y + 40) for x, y, _ in ordered], np.float32).reshape(-1, 4)
    score = np.array([s for _, _, s in ordered], np.float32)
    return Detections(xyxy, score, np.zeros(len(ordered), np.int32))


def run(frames: list[Detections]) -> Tracker:
    tracker = Tracker(score_threshold=THRESHOLD)
    for number, detections in enumerate(frames):
        tracker.update(detections, time_s=number * 0.1)
    return tracker


ROWS = st.lists(st.tuples(st.floats(0, 300), st.floats(0, 200), st.floats(0.05, 1.0)), max_size=12)


@given(st.lists(ROWS, max_size=15))
def test_ids_are_never_used_again_and_links_are_one_to_one(frames: list[list[tuple[float, float, float]]]) -> None:
    tracker = Tracker(score_threshold=THRESHOLD)
    alive: set[int] = set()
    ended_ever: set[int] = set()
    for number, rows in enumerate(frames):
        ended = {track.id for track in tracker.update(boxes(*rows), time_s=number * 0.1)}
        alive = {track.id for track in tracker.tracks}
        assert not alive & ended_ever
        assert not alive & ended
        ended_ever |= ended
        assert len(alive) == len(tracker.tracks) <= MAX_TRACKS
        linked = [track for track in tracker.tracks if track.link is not Link.NONE]
        assert len(linked) <= len(rows)


def test_a_walker_keeps_its_id() -> None:
    tracker = run([boxes((10 + 3 * i, 50, 0.7)) for i in range(20)])
    (track,) = tracker.tracks
    assert (track.strong, track.confirmed, track.link) == (20, True, Link.STRONG)
    assert track.velocity[0] == pytest.approx(3, abs=0.3)
    assert track.displacement > 1


def test_a_weaker_box_carries_the_track() -> None:
    tracker = run([boxes((10 + 3 * i, 50, 0.7 if i < 8 else 0.2)) for i in range(12)])
    (track,) = tracker.tracks
    assert (track.link, track.strong, track.weak, track.unseen) == (Link.WEAK, 8, 4, 4)


def test_a_hole_is_bridged_by_the_prediction() -> None:
    frames = [boxes((10 + 3 * i, 50, 0.7)) if i < 8 or i > 11 else boxes() for i in range(14)]
    (track,) = run(frames).tracks
    assert (track.strong, track.coasting, track.link) == (10, 0, Link.STRONG)


def test_a_confirmed_track_ends_after_its_time_a_young_one_soon() -> None:
    tracker = run([boxes((10, 50, 0.7))] * 5)
    ended = [tracker.update(boxes(), time_s=0.5 + 0.1 * i) for i in range(30)]
    lost_after_s = next(i for i, tracks in enumerate(ended) if tracks) * 0.1
    assert MAX_COAST_S - 0.2 <= lost_after_s <= MAX_COAST_S + 0.3
    young = run([boxes((10, 50, 0.7)), boxes(), boxes(), boxes()])
    assert young.tracks == []


@pytest.mark.parametrize(
    ("rows", "tracks"),
    [
        ([(10, 50, 0.9), (12, 51, 0.5)], 1),  # two boxes on one object: the better one
        ([(10, 50, 0.9), (100, 50, 0.5)], 2),  # two objects
        ([(10, 50, 0.9), (11, 51, 0.2)], 1),  # a weak view of a strong one
        ([(10, 50, 0.1)], 0),  # under the weak threshold
    ],
)
def test_one_frame(rows: list[tuple[float, float, float]], tracks: int) -> None:
    assert len(run([boxes(*rows)]).tracks) == tracks


def test_classes_do_not_mix() -> None:
    first = boxes((10, 50, 0.9))
    other = Detections(first.xyxy, first.score, np.ones(1, np.int32))
    tracker = run([first, other])
    assert sorted(track.class_id for track in tracker.tracks) == [0, 1]
