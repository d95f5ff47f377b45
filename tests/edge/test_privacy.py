import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.errors import UnusableError
from edge.contract.samples import Reason
from edge.detector.detections import Detections
from edge.detector.detector import open_detector
from edge.finding import seal
from edge.frame import Frame, Image
from edge.observation import Mined, Observation
from edge.privacy import GREY, LOW_SCORE, Redaction, person_class, widen, widen_to_head, zone_mask
from edge.tracks import Link, Tracker

PERSON, CAR = 0, 2
NOBODY = np.zeros((0, 4), np.float32)
LEFT_HALF = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
SIZE = (160, 120)

points = st.tuples(st.floats(0, 1), st.floats(0, 1))
zones = st.lists(st.lists(points, min_size=3, max_size=6).map(tuple), max_size=3).map(tuple)
sizes = st.tuples(st.integers(8, 200), st.integers(8, 200))
boxes = st.tuples(*[st.floats(-50, 250, width=32)] * 4).map(
    lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3]))
)
blurs = st.sampled_from(["none", "heads", "people"])


def noise(size: tuple[int, int] = SIZE, *, seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)


def people(*places: tuple[float, ...], score: float = 0.9, class_id: int = PERSON) -> Detections:
    n = len(places)
    return Detections(
        np.array(places, np.float32).reshape(-1, 4), np.full(n, score, np.float32), np.full(n, class_id, np.int32)
    )


def make(*ignore: tuple[tuple[float, float], ...], blur: str = "none") -> Redaction:
    return Redaction(ignore=ignore, blur=blur, person_class=PERSON)


def touched(box: tuple[float, ...], size: tuple[int, int]) -> np.ndarray:
    """The pixels that a box touches, `[height, width]`."""
    x, y = np.arange(size[0])[None, :], np.arange(size[1])[:, None]
    x1, y1, x2, y2 = box
    return (x + 1 > x1) & (x < x2) & (y + 1 > y1) & (y < y2)


@given(ignore=zones, size=sizes, blur=blurs, seen=st.lists(boxes, max_size=4), region=st.none() | boxes)
@settings(max_examples=300, deadline=None)
def test_the_laws_of_redaction(ignore, size, blur, seen, region) -> None:
    image = noise(size)
    before = image.copy()
    detections, hidden = people(*seen[:2]), np.array(seen[2:], np.float32).reshape(-1, 4)
    redacted = make(*ignore, blur=blur).redact(image, region=region, detections=detections, hidden=hidden)
    assert np.array_equal(image, before), "the input is never written to"
    zone = zone_mask(ignore, size) > 0
    assert (redacted[zone] == GREY).all()
    changed = zone.copy()
    if blur != "none":
        grow = widen_to_head if blur == "heads" else widen
        for box in seen:
            changed |= touched(tuple(map(float, grow(box))), size)
    assert np.array_equal(redacted[~changed], image[~changed])
    if region is not None:
        claimed = touched(region, size) & ~zone
        assert np.array_equal(redacted[claimed], image[claimed])


@given(ignore=zones, size=sizes, blur=blurs, seen=st.lists(boxes, min_size=1, max_size=3), region=st.none() | boxes)
@settings(deadline=None)
def test_nothing_outside_a_zone_depends_on_what_is_in_it(ignore, size, blur, seen, region) -> None:
    one, other = noise(size, seed=1), noise(size, seed=1)
    zone = zone_mask(ignore, size) > 0
    other[zone] = noise(size, seed=2)[zone]
    made = make(*ignore, blur=blur)
    results = [made.redact(i, region=region, detections=people(*seen), hidden=NOBODY) for i in (one, other)]
    if ignore:
        assert np.array_equal(*results)


@given(zone=st.lists(points, min_size=3, max_size=6), size=sizes)
@settings(deadline=None)
def test_every_pixel_inside_a_zone_is_covered(zone, size) -> None:
    """By the even-odd rule at a thousand points, which is less than what is covered where a zone crosses itself."""
    mask = zone_mask([tuple(zone)], size)
    outline = (np.array(zone) * size).astype(np.float32)
    for x, y in np.random.default_rng(0).uniform((0, 0), size, (1000, 2)).tolist():
        if cv2.pointPolygonTest(outline, (x, y), False) > 0:
            assert mask[min(int(y), size[1] - 1), min(int(x), size[0] - 1)]


def test_a_zone_covers_hardly_more_than_itself() -> None:
    mask = zone_mask([((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))], SIZE)
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max()) == (pytest.approx(40, abs=2), pytest.approx(119, abs=2))
    assert (rows.min(), rows.max()) == (pytest.approx(30, abs=2), pytest.approx(89, abs=2))


def test_a_zone_that_crosses_itself_has_no_hole() -> None:
    turns = [math.tau * i * 2 / 5 for i in range(5)]
    star = tuple((0.5 + 0.4 * math.sin(a), 0.5 + 0.4 * math.cos(a)) for a in turns)
    assert zone_mask([star], SIZE)[60, 80]


def test_no_jpeg_carries_a_trace_of_a_zone() -> None:
    made = make(LEFT_HALF)
    encoded = [
        cv2.imencode(".jpg", made.redact(i, region=None, detections=people(), hidden=NOBODY))[1]
        for i in (noise(), np.concatenate([noise(seed=3)[:, :80], noise()[:, 80:]], axis=1))
    ]
    assert np.array_equal(*encoded)


@pytest.mark.parametrize(
    ("box", "ignored"),
    [
        ((10, 10, 50, 50), True),  # inside
        ((100, 10, 150, 50), False),  # outside
        ((50, 10, 90, 50), True),  # most of it
        ((0, 10, 159, 50), True),  # its centre, by a hair
        ((0, 10, 170, 50), True),  # the part in the picture counts
        ((70, 10, 150, 50), False),  # a corner only
        ((-60, -60, -10, -10), False),  # not in the picture
        ((30, 30, 30, 30), False),  # no extent
    ],
)
def test_what_stands_in_a_zone(box, ignored) -> None:
    assert make(LEFT_HALF).ignores(box, SIZE) is ignored


def test_a_place_over_two_zones_stands_in_their_union() -> None:
    left, right = ((0, 0), (0.4, 0), (0.4, 1), (0, 1)), ((0.6, 0), (1, 0), (1, 1), (0.6, 1))
    everywhere = (0.0, 0.0, 160.0, 120.0)
    assert make(left, right).ignores(everywhere, SIZE)
    assert not make(left).ignores(everywhere, SIZE)
    assert not make().ignores(everywhere, SIZE)


def test_a_zone_follows_the_size_of_the_picture() -> None:
    made = make(LEFT_HALF)
    for size in [SIZE, (320, 240), *[(i, i) for i in range(50, 60)], SIZE]:
        redacted = made.redact(noise(size), region=None, detections=people(), hidden=NOBODY)
        assert (redacted[:, : size[0] // 2] == GREY).all()
        assert not (redacted[:, size[0] // 2 + 2 :] == GREY).all()


def test_with_nothing_to_do_it_is_the_image_itself() -> None:
    image = noise()
    for made, seen in (
        (make(), people((10, 10, 50, 100))),  # nothing asked for
        (make(blur="people"), people()),  # nobody there
        (make(blur="people"), people((10, 10, 50, 100), class_id=CAR)),  # a car
        (make(blur="people"), people((10, 10, 50, 100), score=LOW_SCORE / 2)),  # next to nothing
        (make(blur="people"), people((200, 10, 250, 100))),  # outside
        (make(blur="people"), people((math.nan, 10, 50, math.inf))),  # no place
    ):
        assert made.redact(image, region=None, detections=seen, hidden=NOBODY) is image


@pytest.mark.parametrize("box", [(40, 20, 100, 110), (60, 10, 75, 40), (-30, -20, 60, 90), (0, 0, 160, 120)])
def test_what_is_finer_than_a_cell_leaves_no_trace(box) -> None:
    """Two faces that differ in every pixel and agree in their averages become the same."""
    x1, y1, x2, y2 = (round(edge) for edge in widen(box))
    checkers = ((np.indices(SIZE[::-1]).sum(axis=0) % 2) * 2 - 1)[..., None]
    flat = np.full((*SIZE[::-1], 3), 128, np.int16)
    one, other = ((flat + sign * 100 * checkers).astype(np.uint8) for sign in (1, -1))
    made = make(blur="people")
    a, b = (
        made.redact(i, region=None, detections=people(box), hidden=NOBODY)[max(0, y1) : y2, max(0, x1) : x2]
        for i in (one, other)
    )
    assert np.abs(a.astype(int) - b).max() <= 10
    assert np.abs(a.astype(int) - 128).max() <= 10


def test_no_more_than_a_few_numbers_are_left_of_a_face() -> None:
    """Whatever is in the box, what comes out spans a space of as many dimensions as there are cells."""
    box = (20.0, 10.0, 70.0, 100.0)
    made = make(blur="people")
    outcomes = [
        made.redact(noise(seed=i), region=None, detections=people(box), hidden=NOBODY)[10:100, 20:70, 0].ravel()
        for i in range(60)
    ]
    centred = np.array(outcomes, float) - np.mean(outcomes, axis=0)
    spectrum = np.linalg.svd(centred, compute_uv=False)
    assert spectrum[20:].max() < 0.05 * spectrum[0], "3 x 5 cells; the rest is rounding"


@pytest.mark.parametrize(
    ("box", "share"),
    [
        ((60, 10, 80, 110), 0.35),  # stands
        ((20, 10, 110, 110), 0.54),  # a bust in front of the camera: more of it
        ((10, 60, 110, 100), 1.0),  # lies: the head may be anywhere
    ],
)
def test_heads_only(box, share) -> None:
    image = noise()
    redacted = make(blur="heads").redact(image, region=None, detections=people(box), hidden=NOBODY)
    x1, y1, x2, y2 = box
    differs = (redacted != image).any(axis=2)[y1:y2, x1:x2]
    assert differs.any(axis=1).mean() == pytest.approx(share, abs=0.02)
    assert differs[differs.any(axis=1)].mean() > 0.9


def test_who_is_seen_faintly_and_who_was_seen_a_moment_ago_is_blurred() -> None:
    image, box = noise(), (40.0, 20.0, 80.0, 100.0)
    made = make(blur="people")
    faint = made.redact(image, region=None, detections=people(box, score=LOW_SCORE), hidden=NOBODY)
    assert (faint[20:100, 40:80] != image[20:100, 40:80]).any(axis=2).mean() > 0.9

    tracker = Tracker(score_threshold=0.4)
    for i in range(4):
        tracker.update(people(box), time_s=i / 10)
    assert len(made.hidden(tracker.tracks)) == 0, "who has a box needs no other"
    tracker.update(people(), time_s=0.4)
    hidden = made.hidden(tracker.tracks)
    assert hidden.shape == (1, 4)
    coasting = made.redact(image, region=None, detections=people(), hidden=hidden)
    assert (coasting[20:100, 40:80] != image[20:100, 40:80]).any(axis=2).mean() > 0.9
    assert len(make().hidden(tracker.tracks)) == 0


def test_who_has_a_box_too_weak_to_be_blurred_by_is_blurred_by_its_track() -> None:
    """With a low threshold known people are followed below `LOW_SCORE`."""
    tracker = Tracker(score_threshold=0.15)
    for i in range(4):
        tracker.update(people((40.0, 20.0, 80.0, 100.0)), time_s=i / 10)
    box = (42.0, 20.0, 82.0, 100.0)
    tracker.update(people(box, score=LOW_SCORE - 0.02), time_s=0.4)
    (track,) = tracker.tracks
    assert track.link is Link.WEAK
    assert make(blur="people").hidden(tracker.tracks).tolist() == [list(box)]


def test_whom_only_a_second_look_saw_is_blurred_beside_the_finding() -> None:
    frame = Frame(noise((320, 240)), "camera", 0, 0, 0.0)
    at = Observation(frame, people(), np.zeros(0, np.float32), 0.4, [], [])
    mined = Mined(at, Reason.MISSED, 0.9, (20.0, 20.0, 60.0, 120.0), class_id=PERSON)
    options = {"site": "s", "device": "d", "jpeg_quality": 95, "redaction": make(blur="people")}
    detector, left = open_detector(input_size=(128, 96)), []
    for _ in range(2):
        _, jpeg = seal(mined, detector=detector, **options)
        left.append(cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1)[110:190, 210:250].std())
        at.enlarged.append(people((200.0, 100.0, 260.0, 200.0)))
    assert left[1] < left[0] / 2


def test_the_region_of_a_control_protects_nobody() -> None:
    frame = Frame(noise((320, 240)), "camera", 0, 0, 0.0)
    at = Observation(frame, people((200.0, 100.0, 260.0, 200.0)), np.zeros(0, np.float32), 0.4, [], [])
    detector, left = open_detector(input_size=(128, 96)), {}
    for reason in (Reason.SUSPECT, Reason.CONTROL):
        mined = Mined(at, reason, 0.0, (0.0, 0.0, 320.0, 240.0))
        _, jpeg = seal(mined, detector=detector, site="s", device="d", jpeg_quality=95, redaction=make(blur="people"))
        left[reason] = cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1)[110:190, 210:250].std()
    assert left[Reason.CONTROL] < left[Reason.SUSPECT] / 2


def test_blurring_needs_a_model_that_knows_people() -> None:
    with pytest.raises(UnusableError, match="needs a model with the label 'person'"):
        Redaction(ignore=(), blur="heads", person_class=person_class(("car", "dog")))
    Redaction(ignore=(LEFT_HALF,), blur="none", person_class=person_class(("car", "dog")))
    assert person_class(("car", "person")) == 1
