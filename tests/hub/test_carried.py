"""What stands still is carried over; what moved, is covered, or cannot be told is not."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.annotation import Annotation
from hub.carried import THERE_IOU, carried

CAR = (60.0, 50.0, 120.0, 90.0)


def street(*, car=CAR, walker=None, flat=False):
    """A picture of a street: a car with windows and wheels, and someone who walks."""
    rng = np.random.default_rng(3)
    image = np.full((160, 200, 3), 120, np.uint8)
    if not flat:
        rough = cv2.resize(rng.integers(80, 160, (40, 50), np.uint8), (200, 160), interpolation=cv2.INTER_CUBIC)
        image[:] = rough[:, :, None]
    if car:
        x, y = int(car[0]), int(car[1])
        cv2.rectangle(image, (x, y + 10), (x + 60, y + 34), (40, 40, 200), -1)
        cv2.rectangle(image, (x + 12, y), (x + 46, y + 12), (230, 200, 180), -1)
        for wheel in (14, 46):
            cv2.circle(image, (x + wheel, y + 34), 6, (10, 10, 10), -1)
    if walker:
        x, y = walker
        cv2.rectangle(image, (x, y), (x + 24, y + 60), (20, 60, 20), -1)
        cv2.circle(image, (x + 12, y + 8), 8, (150, 180, 230), -1)
    return image


def box(xyxy=CAR, label="car"):
    return Annotation(xyxy, label)


def dimmed(image, *, gain=1.0, more=0.0, noise=0.0, quality=90, seed=5):
    rng = np.random.default_rng(seed)
    seen = np.clip(image * gain + more + rng.normal(0, noise, image.shape), 0, 255).astype(np.uint8)
    return cv2.imdecode(cv2.imencode(".jpg", seen, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    "light",
    [
        {},  # as it was
        {"gain": 0.3, "noise": 3},  # at dusk
        {"gain": 1.2, "more": 10},  # in the sun
        {"noise": 15},  # a noisy sensor
        {"quality": 40},  # a poor line
    ],
)
def test_a_parked_car_is_carried_whatever_the_light(light) -> None:
    found = carried(dimmed(street()), dimmed(street(), **light), [box()])
    assert [(one.xyxy, one.label, one.origin) for one in found] == [(CAR, "car", "carried")]
    assert found[0].score is not None
    assert found[0].score >= 0.8


@pytest.mark.parametrize(
    "now",
    [
        street(car=None),  # driven away
        street(car=(64.0, 52.0, 0, 0)),  # parked anew, a little beside
        street(walker=(70, 40)),  # someone stands in front of a third of it
        street(car=None, flat=True),  # nothing at all is seen
        np.zeros((160, 200, 3), np.uint8),  # night
        255 - street(),  # every edge is there, the other way round
    ],
)
def test_what_changed_is_not_carried(now) -> None:
    assert carried(dimmed(street()), dimmed(now), [box()]) == ()


@pytest.mark.parametrize(
    ("width", "stays"),
    [
        (6, True),  # a sign pole: a tenth of the car is little
        (20, False),  # a pillar: a third
    ],
)
def test_what_stands_in_front_of_a_part_is_seen_where_the_whole_is_still_alike(width, stays, monkeypatch) -> None:
    now = street()
    cv2.rectangle(now, (54, 44), (54 + width, 96), (120, 120, 120), -1)
    before, now = dimmed(street()), dimmed(now)
    assert bool(carried(before, now, [box()])) == stays
    monkeypatch.setattr("hub.carried.CHANGED_PARTS", 1.0)
    assert len(carried(before, now, [box()])) == 1, "by the correlation of the whole it is the same"


def test_who_walked_on_is_not_carried_and_the_car_behind_is() -> None:
    before, now = dimmed(street(walker=(130, 80))), dimmed(street(walker=(20, 80)))
    walker = box((130.0, 80.0, 155.0, 141.0), "person")
    assert [one.label for one in carried(before, now, [walker, box()])] == ["car"]


@pytest.mark.parametrize("noise", [0, 2, 10])
def test_a_flat_place_proves_nothing(noise) -> None:
    wall, later = (dimmed(street(car=None, flat=True), noise=noise, seed=seed) for seed in (1, 2))
    assert carried(wall, later, [box()]) == ()
    # light falls on it from one side: alike, and still nothing
    slope = np.clip(street(car=None, flat=True) + np.linspace(0, 20, 200)[None, :, None], 0, 255).astype(np.uint8)
    assert carried(slope, slope, [box()]) == ()


def test_what_is_proposed_already_is_not_repeated() -> None:
    image = street()
    x1, y1, x2, y2 = CAR
    near = (x1 + 3, y1 + 3, x2 + 3, y2 + 3)
    assert carried(image, image, [box()], there=[box(near)]) == ()
    assert len(carried(image, image, [box()], there=[box(near, "van")])) == 1  # another label says something else
    assert len(carried(image, image, [box()], there=[box((0.0, 0.0, 50.0, 40.0))])) == 1
    assert 0 < THERE_IOU < 1


def test_pictures_of_different_sizes_carry_nothing() -> None:
    assert carried(street(), street()[:150], [box()]) == ()


@given(
    st.tuples(st.floats(0, 180), st.floats(0, 140), st.floats(3, 200), st.floats(3, 160)),
    st.floats(0.2, 1.3),
)
def test_a_suggestion_keeps_place_and_label_and_comes_again(place, gain) -> None:
    x, y, width, height = place
    one = box((x, y, min(200.0, x + max(3.1, width)), min(160.0, y + max(3.1, height))))
    before, now = street(), np.clip(street() * gain, 0, 255).astype(np.uint8)
    found = carried(before, now, [one])
    assert found == carried(before, now, [one])
    assert all((it.xyxy, it.label, it.origin) == (one.xyxy, one.label, "carried") for it in found)
