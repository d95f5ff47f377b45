"""The tracker: laws on random boxes, and a table of what a track makes of a sequence."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.detector.detections import Detections
from edge.tracks import MAX_COAST_S, MAX_TRACKS, OUTAGE_S, Link, Tracker

THRESHOLD = 0.4


def boxes(*rows: tuple[float, float, float]) -> Detections:
    """Boxes of 20x40 px of class 0: x, y of the top left corner, score."""
    ordered = sorted(rows, key=lambda row: -row[2])
    xyxy = np.array([(x, y, x + 20, y + 40) for x, y, _ in ordered], np.float32).reshape(-1, 4)
    score = np.array([s for _, _, s in ordered], np.float32)
    return Detections(xyxy, score, np.zeros(len(ordered), np.int32))


def run(frames: list[Detections], *, fps: float = 10.0) -> Tracker:
    tracker = Tracker(score_threshold=THRESHOLD)
    for number, detections in enumerate(frames):
        tracker.update(detections, time_s=number / fps)
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
    assert track.velocity[0] == pytest.approx(30, abs=3), "pixels a second"
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


@pytest.mark.parametrize("fps", [1, 2, 5, 10, 25, 60])
def test_speed_is_in_pixels_a_second_whatever_the_frame_rate(fps: int) -> None:
    """Twenty pixels a second: at one frame a second a whole width from box to box."""
    tracker = run([boxes((10 + 20 * i / fps, 50, 0.7)) for i in range(max(8, 3 * fps))], fps=fps)
    (track,) = tracker.tracks
    assert track.link is Link.STRONG
    assert track.velocity[0] == pytest.approx(20, abs=3)
    assert track.velocity[1] == pytest.approx(0, abs=1)


@pytest.mark.parametrize("fps", [1, 5, 60])
def test_two_who_walk_side_by_side_stay_two(fps: int) -> None:
    """Wide boxes at a low frame rate reach the neighbour; each keeps its own track."""
    frames = [boxes((10 + 15 * i / fps, 50, 0.7), (50 + 15 * i / fps, 50, 0.8)) for i in range(max(8, 3 * fps))]
    tracker = run(frames, fps=fps)
    assert len(tracker.tracks) == 2
    assert {track.id for track in tracker.tracks} == {1, 2}
    for track in tracker.tracks:
        assert (track.origin[0] == 20) == (track.box[0] == pytest.approx(frames[-1].xyxy[:, 0].min()))


@pytest.mark.parametrize("fps", [1, 10, 60])
def test_a_known_object_outlives_a_short_hole_at_every_frame_rate(fps: int) -> None:
    seen, hole = max(4, fps), max(1, fps)  # a hole of a second
    frames = [boxes((50, 50, 0.7))] * seen + [boxes()] * hole + [boxes((50, 50, 0.7))]
    (track,) = run(frames, fps=fps).tracks
    assert (track.id, track.link) == (1, Link.STRONG)


@pytest.mark.parametrize("fps", [1, 10, 60])
def test_after_an_outage_nothing_is_known_of_any_object(fps: int) -> None:
    tracker = run([boxes((50, 50, 0.7))] * 5, fps=fps)
    ended = tracker.update(boxes((50, 50, 0.7)), time_s=4 / fps + OUTAGE_S + 0.1)
    assert [track.id for track in ended] == [1]
    assert [track.id for track in tracker.tracks] == [2]


def test_the_weakest_boxes_go_on_with_a_known_object_and_never_begin_one() -> None:
    weakest = 0.12  # under the weak threshold, over the one for known objects
    assert run([boxes((50, 50, weakest))] * 5).tracks == []
    (track,) = run([boxes((50, 50, 0.7))] * 4 + [boxes((50, 50, weakest))] * 4).tracks
    assert (track.link, track.weak, track.coasting) == (Link.WEAK, 4, 0)
    (young,) = run([boxes((50, 50, 0.3))] * 4 + [boxes((50, 50, weakest))] * 2).tracks
    assert young.link is Link.NONE, "an object that the detector has never reported is not known"


def test_a_vouched_object_is_known_as_if_it_had_been_detected() -> None:
    tracker = run([boxes((50, 50, 0.3))] * 2)
    (track,) = tracker.tracks
    assert not track.known
    assert tracker.vouch(0, (50, 50, 70, 90), 0.6, time_s=0.1, track_id=track.id) is track
    assert track.known
    assert not track.confirmed, "the detector itself has not said so"
    assert (track.vouched_s, track.vouched_score) == (0.1, 0.6)
    tracker.update(boxes((50, 50, 0.12)), time_s=0.2)
    assert track.link is Link.WEAK
    tracker.vouch(0, (50, 50, 70, 90), 0.5, time_s=0.2, track_id=track.id)
    assert (track.vouched_s, track.vouched_score) == (0.2, 0.6), "the newest time, the best score"


def test_the_second_look_begins_a_track_and_keeps_it_alive() -> None:
    tracker = run([boxes()] * 3)
    track = tracker.vouch(2, (50, 50, 70, 90), 0.6, time_s=0.2, track_id=None)
    assert track is not None
    assert (track.class_id, track.link, track.score, track.strong, track.weak) == (2, Link.NONE, 0.0, 0, 0)
    assert tracker.tracks == [track]
    for number in range(3, 200):
        time_s = number / 10
        assert tracker.update(boxes(), time_s=time_s) == []
        if number % 10 == 0:  # every second
            shift = 2.0 * number
            vouched = tracker.vouch(2, (50 + shift, 50, 70 + shift, 90), 0.5, time_s=time_s, track_id=track.id)
            assert vouched is track
    assert track.xyxy[0] == pytest.approx(50 + 2.0 * 199, abs=20), "followed by the second look alone, to its width"
    assert track.velocity[0] > 0
    ended = [one for number in range(200, 260) for one in tracker.update(boxes(), time_s=number / 10)]
    assert ended == [track]
    assert tracker.tracks == []


def test_a_track_that_has_ended_cannot_be_vouched_for() -> None:
    tracker = run([boxes((50, 50, 0.7)), *[boxes()] * 10])
    assert tracker.tracks == []
    assert tracker.vouch(0, (50, 50, 70, 90), 0.6, time_s=1.0, track_id=1) is None
    assert tracker.tracks == []


@pytest.mark.parametrize("score", [0.7, 0.2])
def test_the_second_look_changes_no_link_of_this_frame(score: float) -> None:
    tracker = run([boxes((50 + i, 50, score)) for i in range(6)])
    (track,) = tracker.tracks
    before = (track.link, track.strong, track.weak, track.unseen, track.score, track.box, track.velocity)
    tracker.vouch(0, (56, 50, 76, 90), 0.9, time_s=0.5, track_id=track.id)
    assert (track.link, track.strong, track.weak, track.unseen, track.score, track.box, track.velocity) == before
    assert track.xyxy[0] == pytest.approx(56, abs=1)


def test_there_is_room_for_so_many_tracks_and_no_more() -> None:
    rows = [(30.0 * column, 50.0 * row, 0.7) for column in range(20) for row in range(10)]
    tracker = run([boxes(*rows)])
    assert len(tracker.tracks) == MAX_TRACKS
    assert tracker.vouch(0, (2000, 2000, 2020, 2040), 0.9, time_s=0.0, track_id=None) is None
    assert tracker.vouch(0, tracker.tracks[0].xyxy, 0.9, time_s=0.0, track_id=tracker.tracks[0].id) is not None


ACTS = st.one_of(
    ROWS,
    st.tuples(st.floats(0, 300), st.floats(0, 200), st.floats(0.1, 1.0), st.none() | st.integers(1, 30)),
)


@given(st.lists(ACTS, max_size=25), st.sampled_from([1.0, 10.0, 60.0]))
def test_laws_with_second_looks_between_the_frames(acts: list, fps: float) -> None:
    tracker = Tracker(score_threshold=THRESHOLD)
    time_s, gone = 0.0, set()
    for act in acts:
        alive = {track.id for track in tracker.tracks}
        if isinstance(act, list):
            time_s += 1 / fps
            linked_before = len(act)
            gone |= {track.id for track in tracker.update(boxes(*act), time_s=time_s)}
            assert sum(track.link is not Link.NONE for track in tracker.tracks) <= linked_before
        else:
            x, y, score, track_id = act
            track = tracker.vouch(0, (x, y, x + 20, y + 40), score, time_s=time_s, track_id=track_id)
            assert (track is None) == (track_id is not None and track_id not in alive)
            assert track is None or track in tracker.tracks
        ids = [track.id for track in tracker.tracks]
        assert len(ids) == len(set(ids)) <= MAX_TRACKS
        assert not gone & set(ids)
        assert all(np.isfinite([*track.xyxy, *track.velocity]).all() for track in tracker.tracks)
