"""The objects of a control frame as the finding carries them: as many as fit, without bias; measured like findings."""

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.contract.samples import (
    MAX_BOXES,
    MAX_HEADER_BYTES,
    Box,
    Finding,
    Reason,
    WitnessKind,
    decode_event,
    encode_event,
)
from edge.detector.detections import Detections
from edge.finding import Description, describe, seal
from edge.fingerprint import fingerprint
from edge.frame import Frame, Image
from edge.observation import Mined, Observation
from edge.privacy import Redaction
from edge.recall import TwoLooks
from tests.edge.spots import LABELS

SIZE = (640, 480)
WHOLE = (0.0, 0.0, 640.0, 480.0)
THRESHOLD = 0.4


class Card(msgspec.Struct):
    release: str = "made-1"


class MadeDetector:
    """What `seal` asks of a detector."""

    input_size = (160, 120)
    card = Card()

    def __init__(self, labels: tuple[str, ...] = LABELS) -> None:
        self.labels = labels


def picture(seed: int = 0) -> Image:
    return np.random.default_rng(seed).integers(0, 255, (SIZE[1], SIZE[0], 3), np.uint8)


def boxes(places: list[tuple[float, float, float, float]], *, score: float = 0.9, class_id: int = 0) -> Detections:
    n = len(places)
    return Detections(
        np.array(places, np.float32).reshape(n, 4), np.full(n, score, np.float32), np.full(n, class_id, np.int32)
    )


def places(number: int, *, y: float = 20.0) -> list[tuple[float, float, float, float]]:
    """Boxes side by side, rows below each other."""
    return [
        (8.0 + 21 * (i % 29), y + 22 * (i // 29), 24.0 + 21 * (i % 29), y + 20 + 22 * (i // 29)) for i in range(number)
    ]


def control(
    found: int, overlooked: int, *, beside: int = 0, features: int = 120, seed: int = 0, class_id: int = 0
) -> Mined:
    """A control frame in which every box of the detector counts, and what only the second look saw."""
    own = boxes(places(found), class_id=class_id)
    at = Observation(
        Frame(picture(seed), "camera", seed, 0, 0.0),
        own,
        np.linspace(0.1, 1, features, dtype=np.float32),
        THRESHOLD,
        [],
        [],
    )
    looks = TwoLooks(
        np.ones(found, np.bool_),
        boxes(places(overlooked, y=200.0), score=0.6, class_id=class_id),
        0,
        boxes(places(beside, y=400.0), score=0.5, class_id=class_id),
    )
    return Mined(at, Reason.CONTROL, 0.0, WHOLE, looks=looks)


def sealed(mined: Mined, *, detector: MadeDetector | None = None, **options) -> tuple[Finding, bytes]:
    detector = detector or MadeDetector()
    finding, jpeg = seal(mined, detector=detector, site="s", device="d", jpeg_quality=90, **options)
    assert decode_event(encode_event(finding)) == (finding, b""), "it crosses the wire"
    return finding, jpeg


def objects(finding: Finding) -> tuple[int, int]:
    """Return how many are found and how many overlooked, as the hub counts them."""
    overlooked = [box.witness is WitnessKind.ZOOM for box in finding.boxes if box.tags]
    return len(overlooked) - sum(overlooked), sum(overlooked)


@pytest.mark.parametrize(("found", "overlooked", "beside"), [(0, 0, 0), (3, 0, 2), (0, 4, 0), (6, 5, 30)])
def test_what_fits_is_carried_whole(found: int, overlooked: int, beside: int) -> None:
    finding, _ = sealed(control(found, overlooked, beside=beside))
    assert finding.looked_twice
    assert objects(finding) == (found, overlooked)
    untagged = [box for box in finding.boxes if not box.tags]
    assert len(finding.boxes) == min(MAX_BOXES, found + overlooked + beside)
    assert all(box.witness is WitnessKind.ZOOM for box in untagged)
    assert all(box.tags for box in finding.boxes[: found + overlooked]), "the objects come first"


def test_weak_views_of_what_only_the_second_look_sees_are_not_shown_beside_it() -> None:
    mined = control(1, 1, beside=1)
    (overlooked,), (beside,) = places(1, y=200.0), places(1, y=400.0)
    other = (500.0, 300.0, 540.0, 380.0)
    weak = boxes([overlooked, beside, other], score=0.3)
    own = mined.at.detections
    at = Observation(
        mined.at.frame,
        Detections(
            *(np.concatenate([getattr(one, part) for one in (own, weak)]) for part in ("xyxy", "score", "class_id"))
        ),
        mined.at.features,
        THRESHOLD,
        [],
        [],
    )
    looks = TwoLooks(np.array([True, False, False, False]), mined.looks.overlooked, 0, mined.looks.beside)
    finding, _ = sealed(Mined(at, Reason.CONTROL, 0.0, WHOLE, looks=looks))
    assert [box.xyxy for box in finding.boxes if box.score == pytest.approx(0.3)] == [other]
    assert objects(finding) == (1, 1)


@given(
    st.integers(0, 60),
    st.integers(0, 60),
    st.sampled_from([0, 120, 1280]),
    st.sampled_from([("person", "car"), ("p" * 64,) * 2, ("\u6f22" * 64,) * 2, ('"\\' * 32,) * 2]),
)
@settings(max_examples=25, deadline=None)
def test_no_crowd_is_too_large_for_the_header(found: int, overlooked: int, features: int, labels: tuple) -> None:
    """Law 2, with the longest labels there are, and features as long as models make them."""
    finding, _ = sealed(control(found, overlooked, features=features), detector=MadeDetector(labels))
    assert len(encode_event(finding)) <= MAX_HEADER_BYTES + 8
    shown = objects(finding)
    assert shown[0] <= found
    assert shown[1] <= overlooked
    assert sum(shown) >= min(found + overlooked, 8)
    assert len({box.xyxy for box in finding.boxes}) == len(finding.boxes)


def crowd(found: int, overlooked: int, *, seed: int) -> Description:
    """Objects whose JSON differs in length with what they are: the overlooked have a witness and more tags."""
    made = [Box(xyxy, "person", 0.9, None, ("small",)) for xyxy in places(found)] + [
        Box(xyxy, "person", 0.6, WitnessKind.ZOOM, ("tiny", "dark", "flat", "crowded", "occluded"))
        for xyxy in places(overlooked, y=200.0)
    ]
    return Description(fingerprint(picture(seed), WHOLE), "", tuple(made), (), (), WHOLE)


@pytest.mark.parametrize("room", [7000, 2500])
def test_which_objects_of_a_crowd_are_carried_does_not_depend_on_what_they_are(room: int) -> None:
    """Law 1: of 40 found and 20 overlooked a third of those carried are overlooked, over many frames."""
    shown = [crowd(40, 20, seed=seed).shown(room=room) for seed in range(300)]
    numbers = {len(one) for one in shown}
    assert len(numbers) == 1, "how many are drawn is no matter of luck"
    (number,) = numbers
    assert 10 < number <= MAX_BOXES
    share = np.mean([box.witness is not None for one in shown for box in one])
    off = np.sqrt(1 / 3 * 2 / 3 / (300 * number))
    assert abs(share - 1 / 3) < 4 * off
    again = crowd(40, 20, seed=7).shown(room=room)
    assert again == shown[7], "the same picture draws the same"
    assert len(set(shown)) > 290


def test_nothing_is_shown_where_there_is_no_room() -> None:
    assert crowd(3, 3, seed=0).shown(room=0) == ()
    assert crowd(0, 0, seed=0).shown(room=-5) == ()


# What an object's tags are measured on


def smooth() -> Image:
    """A picture with edges and little noise, so that a blurred place is another one."""
    image = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
    for x in range(0, 640, 8):
        image[:, x : x + 4] = 160
    return image


def street_control(image: Image, *reported: tuple[float, float, float, float], overlooked: list) -> Mined:
    own = boxes(list(reported))
    at = Observation(Frame(image, "camera", 0, 0, 0.0), own, np.zeros(0, np.float32), THRESHOLD, [], [])
    at.enlarged.append(boxes(overlooked, score=0.6))
    looks = TwoLooks(np.ones(len(own), np.bool_), boxes(overlooked, score=0.6), 0, boxes([]))
    return Mined(at, Reason.CONTROL, 0.0, WHOLE, looks=looks)


def test_blurred_people_have_the_tags_of_sharp_ones_and_leave_blurred() -> None:
    """Law 3; and whom only the second look saw is blurred as well."""
    seen, hidden = (100.0, 100.0, 200.0, 300.0), (400.0, 100.0, 500.0, 300.0)
    mined = street_control(smooth(), seen, overlooked=[hidden])
    bare, bare_jpeg = sealed(mined)
    blurred, jpeg = sealed(mined, redaction=Redaction(ignore=(), blur="people", person_class=0))
    assert [box.tags for box in blurred.boxes] == [box.tags for box in bare.boxes]
    assert all(box.tags for box in blurred.boxes)
    before, after = (cv2.imdecode(np.frombuffer(one, np.uint8), 1) for one in (bare_jpeg, jpeg))
    for x1, y1, x2, y2 in ((int(a) + 10, int(b) + 10, int(c) - 10, int(d) - 10) for a, b, c, d in (seen, hidden)):
        assert before[y1:y2, x1:x2].std() > 20
        assert after[y1:y2, x1:x2].std() < 10


def test_an_object_has_the_tags_of_a_finding_about_it() -> None:
    """Measured by another path and the same rules: otherwise the rates would compare two kinds of measure."""
    image = smooth()
    image[250:, :] //= 6
    place = (300.0, 300.0, 340.0, 400.0)
    mined = street_control(image, overlooked=[place])
    (box,) = sealed(mined)[0].boxes
    miss = Mined(mined.at, Reason.MISSED, 0.9, place, class_id=0)
    assert sealed(miss)[0].tags == box.tags
    assert describe(miss, MadeDetector()).objects == ()


def test_nothing_of_a_zone_is_in_an_objects_tags() -> None:
    """Half of the object stands in a zone: what is behind it must not be told by its light."""
    place = (100.0, 100.0, 200.0, 300.0)
    zone = Redaction(ignore=(((0.0, 0.4), (1.0, 0.4), (1.0, 1.0), (0.0, 1.0)),), blur="none", person_class=0)
    tags = []
    for level in (0, 255):
        image = smooth()
        image[200:] = level
        (box,) = sealed(street_control(image, overlooked=[place]), redaction=zone)[0].boxes
        tags.append(box.tags)
    assert tags[0] == tags[1]
