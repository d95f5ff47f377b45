import json
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from edge.contract.samples import Reason, Witness, WitnessKind, decode_event, encode_event
from edge.frigate import (
    CROPPED,
    OUTSIDE,
    FrigateTrack,
    Rules,
    Sight,
    UnfitError,
    Verdict,
    judge,
    may_be_found,
    parse_event,
    parse_stats,
    place,
)
from edge.frigate_cameras import CAMERAS, FrigateCameras
from edge.frigate_sample import BROKEN, Origin, event_id, seal
from edge.frigate_tracks import FORGET_S, FRESH_S, MAX_LIVE, MAX_STRAY, PATIENCE_S, FrigateTracks, Picture
from tests.simulators.frigate import frame_of, jpeg_of

# As Frigate's own documents print it: in the older form, without `snapshot` ...
OLD = {
    "type": "update",
    "before": {},
    "after": {
        "id": "1607123955.475377-mxklsc",
        "camera": "front_door",
        "frame_time": 1607123962.082975,
        "snapshot_time": 1607123961.837752,
        "label": "person",
        "top_score": 0.958984375,
        "false_positive": False,
        "start_time": 1607123955.475377,
        "end_time": None,
        "score": 0.87890625,
        "box": [432, 496, 544, 854],
        "area": 40096,
        "region": [218, 440, 693, 915],
        "current_zones": ["yard", "driveway"],
        "thumbnail": None,
        "has_snapshot": False,
    },
}
# ... and in the newer one.
NEW = {
    "type": "end",
    "before": {},
    "after": OLD["after"]
    | {
        "snapshot": {
            "frame_time": 1607123965.975463,
            "box": [415, 489, 528, 700],
            "area": 12728,
            "region": [260, 446, 660, 846],
            "score": 0.77546,
            "attributes": [],
        },
        "sub_label": ["John Smith", 0.79],
        "end_time": 1607123970.0,
    },
}
RULES = Rules(threshold=0.7, band=0.15, min_severity=0.5, labels=frozenset())
SIGHT = Sight(1_700_000_000.25, (100.0, 120.0, 180.0, 300.0), 320.0)
ORIGIN = Origin(site="yard", device="gate", sequence=3)
MISSED = Verdict(Reason.MISSED, 0.8, (Witness(WitnessKind.CANDIDATE, 0.8),))


def track(
    number: int = 1,
    *,
    camera: str = "front",
    label: str = "person",
    score: float = 0.6,
    seen_s: float = 3.0,
    ended: bool = False,
    doubted: bool = False,
    sight: Sight | None = SIGHT,
) -> FrigateTrack:
    return FrigateTrack(
        id=f"17.5-{number:06d}",
        camera=camera,
        label=label,
        began_s=1_700_000_000.0,
        seen_s=1_700_000_000.0 + seen_s,
        age_s=seen_s + (5.0 if ended else 0.0),
        ended=ended,
        score=score,
        doubted=doubted,
        sight=sight,
    )


def test_messages_as_documented() -> None:
    old, new = parse_event(json.dumps(OLD).encode()), parse_event(json.dumps(NEW).encode())
    assert (old.id, old.camera, old.label, old.ended) == ("1607123955.475377-mxklsc", "front_door", "person", False)
    assert old.sight is None, "the box is not that of the snapshot, which is of another frame"
    assert new.ended
    assert new.sight == Sight(1607123965.975463, (415.0, 489.0, 528.0, 700.0), 400.0)
    assert (new.score, new.doubted) == (0.958984375, False)
    assert new.seen_s - new.began_s == pytest.approx(6.6, abs=0.01)
    assert new.age_s == pytest.approx(14.5, abs=0.1)


def test_the_box_is_the_snapshots_where_both_are_of_one_frame() -> None:
    for time_s in (None, OLD["after"]["frame_time"]):
        message = {"type": "new", "after": OLD["after"] | {"snapshot_time": time_s}}
        assert parse_event(json.dumps(message).encode()).sight.xyxy == (432.0, 496.0, 544.0, 854.0)


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../etc/passwd"},  # it becomes part of a path
        {"id": "a/b"},
        {"id": ".."},
        {"id": "x" * 65},
        {"camera": "a b"},  # no topic of ours can carry it
        {"camera": ""},
        {"label": 3},
        {"frame_time": -1},
        {"frame_time": 1e300},
        {"start_time": None},
        {"box": [1, 2, 3]},
        {"box": [5, 5, 5, 9]},  # no area
        {"box": [9, 9, 1, 1]},
        {"box": [0, 0, 1e9, 5]},
        {"top_score": 1.5},
        {"score": "high"},
        {"snapshot": {"frame_time": 1}},
        {"snapshot": {"frame_time": 1, "box": [0, 0, 0, 0]}},
    ],
)
def test_what_is_not_as_documented_is_refused(change: dict[str, object]) -> None:
    after = OLD["after"] | {"snapshot_time": None} | change
    with pytest.raises(UnusableError):
        parse_event(json.dumps({"type": "new", "after": after}).encode())


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(json.dumps))
def test_nonsense_is_one_kind_of_error(payload: bytes | str) -> None:
    for parse in (parse_event, parse_stats):
        with pytest.raises(UnusableError):
            parse(payload if isinstance(payload, bytes) else payload.encode())


def test_too_deep_and_too_long_messages_are_refused() -> None:
    for payload in (b"[" * 100_000, b'{"after":' * 20_000, b" " * 300_000):
        with pytest.raises(UnusableError):
            parse_event(payload)


@given(st.text(min_size=1, max_size=80))
@settings(deadline=None)
def test_every_label_can_travel(label: str) -> None:
    parsed = parse_event(json.dumps({"type": "end", "after": NEW["after"] | {"label": label}}).encode())
    jpeg = jpeg_of(frame_of((100, 120, 180, 300), (640, 480)))
    finding = seal(track(label=parsed.label), Picture(jpeg, SIGHT), verdict=MISSED, detect=None, origin=ORIGIN)
    assert decode_event(encode_event(finding))[0] == finding


@pytest.mark.parametrize(
    ("given_track", "expected"),
    [
        (track(score=0.65), (Reason.MISSED, 0.9286)),  # under the threshold: dropped
        (track(score=0.65, seen_s=0.0), (Reason.MISSED, 0.65)),  # seen in one frame: less sure
        (track(score=0.9, doubted=True), (Reason.MISSED, 1.0)),  # Frigate says so itself
        (track(score=0.3), None),  # too weak for `min_severity`
        (track(score=0.7), (Reason.LOW_CONFIDENCE, 0.5)),  # just believed
        (track(score=0.84), (Reason.LOW_CONFIDENCE, 0.22)),
        (track(score=0.86), None),  # believed and sure
        (track(score=0.86, seen_s=0.6), (Reason.SUSPECT, 0.5667)),  # sure, but gone at once
        (track(score=0.72, seen_s=0.6), (Reason.SUSPECT, 0.3333)),  # the first rule that fits
        (track(score=0.0), None),
    ],
)
def test_each_rule(given_track: FrigateTrack, expected: tuple[Reason, float] | None) -> None:
    verdict = judge(given_track, RULES)
    assert (verdict and (verdict.reason, verdict.severity)) == expected
    if verdict is not None:
        kinds = [witness.kind for witness in verdict.witnesses]
        assert kinds == ([WitnessKind.CANDIDATE] if verdict.reason is Reason.MISSED else [])


def test_only_the_labels_that_are_mined() -> None:
    rules = Rules(threshold=0.7, band=0.15, min_severity=0.5, labels=frozenset({"car"}))
    assert judge(track(label="car"), rules) is not None
    assert judge(track(label="person"), rules) is None


Scores = st.floats(0, 1)


@given(Scores, Scores, Scores, st.floats(0, 60), st.booleans())
def test_every_verdict_is_a_share(threshold: float, band: float, score: float, seen_s: float, doubted: bool) -> None:
    rules = Rules(threshold=threshold, band=band, min_severity=0.0, labels=frozenset())
    verdict = judge(track(score=score, seen_s=seen_s, doubted=doubted), rules)
    assert verdict is None or 0.0 <= verdict.severity <= 1.0


@given(Scores, Scores, st.floats(0, 9), st.floats(0, 9), st.booleans())
def test_what_cannot_be_a_finding_stays_none(first: float, then: float, seen_s: float, more_s: float, doubted: bool):
    """A track only gets older, and its top score only higher; it is doubted first, if ever."""
    before = track(score=first, seen_s=seen_s, doubted=doubted)
    after = track(score=max(first, then), seen_s=seen_s + more_s)
    if not may_be_found(before, RULES):
        assert judge(after, RULES) is None


@pytest.mark.parametrize(
    ("picture", "detect", "expected"),
    [
        ((640, 480), None, (100.0, 120.0, 180.0, 300.0)),  # nothing known: the picture's own pixels
        ((640, 480), (640, 480), (100.0, 120.0, 180.0, 300.0)),
        ((320, 240), (640, 480), (50.0, 60.0, 90.0, 150.0)),  # a snapshot made smaller
        ((1280, 960), (640, 480), (200.0, 240.0, 360.0, 600.0)),
        ((361, 270), (640, 480), (56.41, 67.5, 101.53, 168.75)),  # rounded to whole pixels, as `height = 270` is
        ((160, 150), (160, 150), (100.0, 120.0, 160.0, 150.0)),  # cut at the border
        ((300, 300), (640, 480), CROPPED),
        ((320, 256), (640, 480), CROPPED),
        ((100, 120), None, OUTSIDE),
    ],
)
def test_where_a_track_stands_in_a_picture(picture, detect, expected) -> None:
    if isinstance(expected, str):
        with pytest.raises(UnfitError) as caught:
            place(SIGHT, picture=picture, detect=detect)
        assert caught.value.reason == expected
    else:
        assert place(SIGHT, picture=picture, detect=detect) == expected


Sides = st.integers(1, 4000)


@given(st.tuples(Sides, Sides), st.tuples(Sides, Sides), st.lists(st.floats(-1e5, 1e5), min_size=4, max_size=4))
def test_a_place_lies_in_its_picture(picture: tuple[int, int], detect: tuple[int, int], box: list[float]) -> None:
    x1, x2, y1, y2 = min(box[:2]), max(box[:2]), min(box[2:]), max(box[2:])
    try:
        left, top, right, bottom = place(Sight(0.0, (x1, y1, x2, y2), 0.0), picture=picture, detect=detect)
    except UnfitError:
        return
    assert 0.0 <= left < right <= picture[0]
    assert 0.0 <= top < bottom <= picture[1]


def seen_at(time_s: float, left: float) -> Sight:
    return Sight(1_700_000_000.0 + time_s, (left, 120.0, left + 80.0, 300.0), 320.0)


def test_a_picture_right_after_its_message_is_the_tracks() -> None:
    tracks = FrigateTracks()
    best = seen_at(3.0, 100.0)
    tracks.note(track(1, sight=best), now_s=0.0)
    tracks.note(track(2, label="car", sight=best), now_s=0.0)
    tracks.offer("front", "person", b"one", now_s=0.1)
    tracks.offer("yard", "car", b"another camera's", now_s=0.1)
    for number, label in ((1, "person"), (2, "car")):
        tracks.note(track(number, label=label, ended=True), now_s=0.2)
    assert tracks.finished(now_s=0.3) == [(track(1, ended=True), Picture(b"one", best))]
    assert tracks.finished(now_s=0.2 + PATIENCE_S) == [(track(2, label="car", ended=True), None)], "it waited for one"
    assert tracks.finished(now_s=99.0) == []


@pytest.mark.parametrize(
    ("told_s", "came_s"),
    [
        (2.0, 0.1),  # the best frame is an older one: the picture is of a frame that no message tells of
        (3.0, FRESH_S + 0.1),  # too late to be of the frame that was told
    ],
)
def test_a_picture_of_an_unknown_frame_is_not_taken(told_s: float, came_s: float) -> None:
    tracks = FrigateTracks()
    tracks.note(track(sight=seen_at(told_s, 100.0)), now_s=0.0)
    tracks.offer("front", "person", b"when?", now_s=came_s)
    tracks.note(track(ended=True), now_s=3.0)
    assert [one.picture for one in tracks.finished(now_s=9.0)] == [None]


def test_the_second_picture_after_a_message_is_of_another_frame() -> None:
    tracks = FrigateTracks()
    best = seen_at(3.0, 100.0)
    tracks.note(track(sight=best), now_s=0.0)
    tracks.offer("front", "person", b"one", now_s=0.1)
    tracks.offer("front", "person", b"it moved", now_s=0.3)
    tracks.note(track(ended=True, sight=seen_at(3.2, 300.0)), now_s=3.0)
    assert [one.picture for one in tracks.finished(now_s=3.0)] == [Picture(b"one", best)]


def test_a_picture_that_may_be_anothers_is_nobodys() -> None:
    tracks = FrigateTracks()
    best = seen_at(3.0, 100.0)
    tracks.note(track(1, sight=best), now_s=0.0)
    tracks.offer("front", "person", b"one", now_s=0.1)
    tracks.note(track(1, sight=seen_at(3.0, 200.0)), now_s=0.2)
    tracks.note(track(2, sight=seen_at(3.0, 400.0)), now_s=0.2)
    tracks.offer("front", "person", b"whose?", now_s=0.3)
    for number in (1, 2):
        tracks.note(track(number, ended=True), now_s=0.4)
    assert [one.picture for one in tracks.finished(now_s=9.0)] == [Picture(b"one", best), None]


@pytest.mark.parametrize(
    ("came_s", "expected"),
    [
        (-7.0, Picture(b"early", SIGHT)),  # while it was followed: it ended after 8 s, of which one message tells
        (-60.0, None),  # long before it began
    ],
)
def test_a_track_of_which_only_the_end_is_heard(came_s: float, expected: Picture | None) -> None:
    tracks = FrigateTracks()
    tracks.offer("front", "person", b"early", now_s=came_s)
    tracks.note(track(ended=True), now_s=0.0)
    assert [one.picture for one in tracks.finished(now_s=PATIENCE_S)] == [expected]


def test_a_picture_that_comes_after_the_end() -> None:
    tracks = FrigateTracks()
    tracks.note(track(ended=True), now_s=0.0)
    assert tracks.finished(now_s=0.1) == []
    tracks.offer("front", "person", b"late", now_s=0.2)
    assert [one.picture for one in tracks.finished(now_s=0.3)] == [Picture(b"late", SIGHT)]


def test_a_picture_asked_for_goes_with_the_place_it_was_asked_for() -> None:
    tracks = FrigateTracks(patience_s=0.0)
    first, better = track(), track(sight=seen_at(3.2, 300.0))
    tracks.note(first, now_s=0.0)
    assert tracks.lacks(first)
    tracks.keep(first, b"one")
    assert not tracks.lacks(first)
    tracks.note(better, now_s=1.0)
    assert tracks.lacks(better), "its best frame is another now"
    last = track(ended=True, sight=better.sight)
    tracks.note(last, now_s=2.0)
    assert not tracks.lacks(last), "what is saved at the end may be drawn upon: the older one will do"
    assert [one.picture for one in tracks.finished(now_s=2.0)] == [Picture(b"one", SIGHT)]


def test_a_track_ends_once() -> None:
    tracks = FrigateTracks(patience_s=0.0)
    for _ in range(2):
        tracks.note(track(ended=True), now_s=0.0)
        tracks.note(track(), now_s=0.0)  # an older message that comes late
    assert len(tracks.finished(now_s=0.0)) == 1
    tracks.note(track(ended=True), now_s=1.0)
    assert tracks.finished(now_s=9.0) == []


def test_the_memory_is_bounded() -> None:
    tracks = FrigateTracks()
    for number in range(3 * MAX_LIVE):
        tracks.note(track(number), now_s=0.0)
        tracks.offer("front", f"label {number}", b"x", now_s=0.0)
    assert (len(tracks._live), tracks.pushed_out) == (MAX_LIVE, 2 * MAX_LIVE)
    assert len(tracks._stray) == MAX_STRAY
    assert tracks.finished(now_s=FORGET_S + 1.0) == []
    assert len(tracks._live) == 0, "their ends were not heard"


def test_a_restart_of_frigate_ends_nothing_twice() -> None:
    tracks = FrigateTracks()
    tracks.note(track(1), now_s=0.0)
    tracks.note(track(2, ended=True), now_s=0.0)
    tracks.forget()
    assert [one.track.id for one in tracks.finished(now_s=9.0)] == [track(2).id]
    assert len(tracks._live) == 0


def test_a_finding_shows_the_object() -> None:
    jpeg = jpeg_of(cv2.resize(frame_of((100, 120, 180, 300), (640, 480)), (320, 240), interpolation=cv2.INTER_AREA))
    finding = seal(track(ended=True), Picture(jpeg, SIGHT), verdict=MISSED, detect=(640, 480), origin=ORIGIN)
    assert finding.region == (50.0, 60.0, 90.0, 150.0)
    assert finding.light.brightness > 200
    assert (finding.width, finding.height, finding.frame_bytes) == (320, 240, len(jpeg))
    assert (finding.camera, finding.label, finding.model) == ("front", "person", "frigate")
    assert finding.captured_at_ms == 1_700_000_000_250
    assert [(box.xyxy, box.witness) for box in finding.boxes] == [(finding.region, WitnessKind.CANDIDATE)]
    assert (finding.features, finding.looked_twice) == (b"", False)
    assert finding.track == "17.5-000001", "Frigate's own name of the event"
    assert finding.event_id == event_id(track(), ORIGIN)
    assert len({event_id(track(n, camera=c), ORIGIN) for n in range(9) for c in ("a", "b")}) == 18
    assert decode_event(encode_event(finding))[0] == finding


def test_a_size_at_the_model_is_what_makes_it_tiny() -> None:
    """An object of 80 px in a square of 320 px is not small; in one of 4000 px, made smaller for the model, it is."""
    jpeg = jpeg_of(frame_of((100, 120, 180, 300), (640, 480)))
    near = seal(track(), Picture(jpeg, SIGHT), verdict=MISSED, detect=None, origin=ORIGIN)
    far = seal(track(), Picture(jpeg, SIGHT._replace(searched_px=4000.0)), verdict=MISSED, detect=None, origin=ORIGIN)
    unknown = seal(track(), Picture(jpeg, SIGHT._replace(searched_px=0.0)), verdict=MISSED, detect=None, origin=ORIGIN)
    assert ["tiny" in finding.tags for finding in (near, far, unknown)] == [False, True, False]


def test_a_suspect_at_the_border_is_none() -> None:
    jpeg = jpeg_of(frame_of((0, 120, 180, 300), (640, 480)))
    suspect = Verdict(Reason.SUSPECT, 0.5, ())
    at_border = SIGHT._replace(xyxy=(0.0, 120.0, 180.0, 300.0))
    assert seal(track(), Picture(jpeg, at_border), verdict=suspect, detect=None, origin=ORIGIN) is None
    assert seal(track(), Picture(jpeg, SIGHT), verdict=suspect, detect=None, origin=ORIGIN).boxes[0].witness is None


def with_size(jpeg: bytes, *, width: int, height: int) -> bytes:
    at = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:at] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + jpeg[at + 4 :]


JPEG = jpeg_of(frame_of((100, 120, 180, 300), (640, 480)))


@pytest.mark.parametrize(
    "picture",
    [
        b"",
        b"\xff\xd8\xff",
        b"not a picture",
        JPEG[:-1000],  # cut off
        cv2.imencode(".png", np.zeros((480, 640, 3), np.uint8))[1].tobytes(),  # JPEG only
        with_size(JPEG, width=60_000, height=60_000),  # 3.6 gigapixels, if one believes it
        with_size(JPEG, width=0, height=480),
        JPEG[:20] + bytes(len(JPEG) - 22) + b"\xff\xd9",
    ],
)
def test_a_picture_that_cannot_be_decoded_safely_is_refused(picture: bytes) -> None:
    with pytest.raises(UnfitError) as caught:
        seal(track(), Picture(picture, SIGHT), verdict=MISSED, detect=None, origin=ORIGIN)
    assert caught.value.reason == BROKEN


def test_cameras_as_the_heartbeat_tells_of_them() -> None:
    cameras = FrigateCameras(())
    assert cameras.take("front")
    assert not cameras.take("a b"), "no camera of ours has such a name"
    cameras.note_rates({"yard": (5.0, 4.5), "attic": (0.0, 0.0)})
    cameras.note_picture("front", now_s=10.0)
    health = {one.name: one for one in cameras.health(now_s=12.0, reachable=True)}
    assert {name: one.state for name, one in health.items()} == {"front": "running", "yard": "running", "attic": "lost"}
    assert (health["front"].frames, health["front"].frame_age_s, health["yard"].fps) == (1, 2.0, 4.5)
    assert cameras.lost(reachable=True) == {"attic": "Frigate gets no frames"}
    assert not cameras.note_available(is_online=True, retained=True), "the first word is what was so already"
    assert cameras.note_available(is_online=False, retained=False)
    assert set(cameras.lost(reachable=True).values()) == {"Frigate is offline"}
    assert cameras.note_available(is_online=True, retained=False)
    assert {one.restarts for one in cameras.health(now_s=12.0, reachable=True)} == {1}
    assert set(cameras.lost(reachable=False).values()) == {"Frigate's broker is not reached"}
    for number in range(100):
        cameras.take(f"c{number}")
    assert len(cameras.health(now_s=math.inf, reachable=True)) == CAMERAS


def test_only_the_cameras_that_are_configured() -> None:
    cameras = FrigateCameras(("front",))
    cameras.note_rates({"yard": (5.0, 5.0)})
    assert cameras.take("front")
    assert not cameras.take("yard")
    assert [one.name for one in cameras.health(now_s=0.0, reachable=True)] == ["front"]
