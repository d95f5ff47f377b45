"""What the findings of a camera tell of its pictures: from a real database, from frames, from tags alone."""

import cv2
import numpy as np
import pytest

from edge.contract.samples import Box, Light, Reason
from hub.datasets.measured_noise import MIN_LOOKS, MOMENT_MS, WHOLE, _look_at, measured_noise, noise_of
from hub.store import Store
from hub.store_light import SeenRow
from tests.hub.datasets.lit import CAMERA, HEIGHT, NIGHT_MS, WHOLE_FRAME, WIDTH, jpeg_of, seen, street, under
from tests.hub.labelled import put

AT_MS = NIGHT_MS - NIGHT_MS % MOMENT_MS


def row(number, *, moment=0, region=(100.0, 100.0, 220.0, 260.0), tags="", light=(120.0, 40.0, 2.0, 100.0), **more):
    """A finding of something missed, as the store gives it."""
    reason = more.get("reason", Reason.MISSED)
    boxes, at_ms = more.get("boxes", ()), AT_MS + moment * MOMENT_MS + number
    return SeenRow(number, CAMERA, at_ms, reason, region, WIDTH, HEIGHT, f" {tags} ", False, Light(*light), boxes)


def control(number, **more):
    return row(number, region=WHOLE_FRAME, reason=Reason.CONTROL, **more)


def test_a_black_coat_is_no_night():
    """One place tells nothing of the light; a look at the whole frame tells it; so do several places together."""
    coat = row(0, light=(20.0, 8.0, 2.0, 10.0))
    assert noise_of(CAMERA, [coat], {}).moments == ()
    (moment,) = noise_of(CAMERA, [coat, control(1)], {}).moments
    assert moment.brightness == 120
    assert [look.place for look in moment.looks] == [WHOLE]
    (moment,) = noise_of(CAMERA, [coat, *(row(n) for n in range(1, MIN_LOOKS))], {}).moments
    assert moment.brightness == 120


def test_moments_are_apart_and_in_order():
    rows = [control(0, moment=4, light=(20.0, 8.0, 9.0, 10.0)), control(1, moment=2), control(2, moment=2)]
    first, second = noise_of(CAMERA, rows, {}).moments
    assert (first.brightness, first.noise, len(first.looks)) == (120, 2, 2)
    assert (second.brightness, second.noise, len(second.looks)) == (20, 9, 1)


def test_most_findings_of_a_moment_decide_whether_it_is_grey():
    rows = [control(0, tags="grayscale"), control(1, tags="grayscale"), control(2)]
    assert noise_of(CAMERA, rows, {}).moments[0].grey
    assert not noise_of(CAMERA, [*rows[1:]], {}).moments[0].grey


@pytest.mark.parametrize(
    ("tags", "kind", "degrees"),
    [
        ("big middle centre", "", {0.0}),
        ("big motion_blur motion_horizontal", "motion", {0.0}),
        ("big motion_blur motion_vertical", "motion", {90.0}),
        ("big motion_blur motion_diagonal", "motion", {45.0, 135.0}),  # the device does not say which
        ("big defocus", "defocus", {0.0}),
    ],
)
def test_blur_is_told_by_tags_of_objects_that_are_large_enough(tags, kind, degrees):
    region = (100.0, 100.0, 220.0, 260.0)
    rows = [row(number, tags=tags, region=region) for number in range(4)]
    rows += [row(9, tags=tags, region=(100.0, 100.0, 190.0, 300.0))]  # 90 px wide: the device cannot tell
    blurs = noise_of(CAMERA, rows, {}).blurs
    assert len(blurs) == 4
    assert {blur.kind for blur in blurs} == {kind}
    assert {blur.degrees for blur in blurs} == degrees
    assert {blur.side for blur in blurs} == {120 / WIDTH}
    boxes = tuple(Box((10.0, 10.0, 130.0, 200.0), "person", 0.8, tags=tuple(tags.split())) for _ in range(3))
    of_objects = noise_of(CAMERA, [control(0, boxes=(*boxes, Box(region, "person", 0.2)))], {}).blurs  # one not counted
    assert [blur.kind for blur in of_objects] == [kind] * 3


@pytest.mark.parametrize(
    ("several", "shaken"),
    [
        (["motion_horizontal"] * 3 + [""], "motion"),  # most objects in one direction: the camera
        (["motion_horizontal", "motion_vertical", "motion_horizontal", "motion_vertical"], None),  # in two directions
        (["motion_horizontal"] * 2, None),  # too few to tell
        (["defocus"] * 4, "defocus"),
        ([""] * 4, None),
    ],
)
def test_a_blur_of_most_objects_is_the_cameras(several, shaken):
    rows = [row(number, tags=tag) for number, tag in enumerate(several)]
    (moment,) = noise_of(CAMERA, [*rows, control(9)], {}).moments
    assert (moment.shaken.kind if moment.shaken else None) == shaken


@pytest.mark.parametrize(("follows", "shot"), [(1.0, 1.0), (0.5, 0.5), (0.0, 0.0)])
def test_noise_that_grows_with_the_light_is_told_within_moments(follows, shot):
    rng = np.random.default_rng(5)
    rows = []
    for moment in range(8):
        gain = rng.uniform(1, 4)  # a camera amplifies by night: across moments dark places are the noisier
        for i in range(6):
            level = rng.uniform(20, 160) / gain
            sigma = 3 * gain * np.sqrt(1 - follows + follows * level * gain / 90) * rng.normal(1, 0.03)
            rows.append(row(10 * moment + i, moment=moment, light=(level, 10.0, sigma, 50.0)))
    assert noise_of(CAMERA, rows, {}).shot == pytest.approx(shot, abs=0.15)
    assert noise_of(CAMERA, rows[:20], {}).shot == 0  # too few


def test_from_a_database_with_frames(tmp_path):
    """Light of the whole frame, JPEG quality and the length of a smear are read from frames that are here."""
    dusk = {"light": 0.8, "noise": 3}
    smear = np.full((1, 35), 1 / 35, np.float32)
    pictures, findings = {}, {}
    for number in range(6):
        enlarged = cv2.resize(street(98 + number)[150:400, 200:530], (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        picture = under(cv2.filter2D(enlarged, -1, smear) if number < 4 else enlarged, seed=number, **dusk)
        region = (250.0, 100.0, 500.0, 420.0)
        pictures[number], findings[number] = jpeg_of(picture, 70), seen(number, picture, region=region)
    with Store.open(tmp_path / "hub.db") as store:
        for number, told in findings.items():
            assert ("motion_horizontal" in told.tags) is (number < 4)
            put(
                store,
                number,
                pictures=pictures,
                region=told.region,
                tags=tuple(told.tags.split()),
                light=told.light,
                width=WIDTH,
                height=HEIGHT,
                captured_at_ms=AT_MS + number,
            )
        put(store, 7, camera="yard", captured_at_ms=AT_MS)  # a single place: nothing is known of the light there
        measured = measured_noise(store, ["lab/box/door", "lab/box/yard", "lab/box/gone"])
    assert list(measured) == ["lab/box/door", "lab/box/yard"]  # the frame of `yard` is here: a look at all of it
    (moment,) = measured["lab/box/door"].moments
    assert moment.quality == 70
    assert all(look.is_whole for look in moment.looks)
    whole = [cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE).mean() for jpeg in pictures.values()]
    assert moment.brightness == pytest.approx(np.median(whole), abs=0.1)
    assert moment.noise == pytest.approx(np.median([told.light.noise for told in findings.values()]), abs=0.01)
    extents = [blur.extent * 250 for blur in moment.blurs if blur.kind == "motion"]
    assert len(extents) == 4
    assert np.median(extents) == pytest.approx(35, rel=0.35)
    assert moment.shaken is not None


@pytest.mark.parametrize("broken", [None, b"", b"\xff\xd8\xff", jpeg_of(np.zeros((9, 9, 3), np.uint8))[:-300]])
def test_a_frame_that_is_not_here_or_broken_tells_nothing(broken):
    assert _look_at(row(0), broken) is None
