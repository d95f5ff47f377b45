"""Control frames through the pipeline: a uniform sample whatever the second looks do, with the objects that count."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.config import MiningConfig
from edge.contract.samples import Finding, Reason, WitnessKind, decode_event, encode_event
from edge.detector.detector import Detector, open_detector
from edge.detector.tiling import tiles
from edge.finding import seal
from edge.frame import Frame, Image
from edge.observation import Mined
from edge.pipeline import Pipeline
from edge.privacy import Redaction
from edge.replay import read_frames
from tests.edge.spots import BRIGHT, DIM, SpotDetector, street

CLIP = Path(__file__).parents[2] / "deploy" / "demo" / "street.mp4"
SIZE = (640, 480)
BLACK = np.zeros((480, 640, 3), np.uint8)


@pytest.fixture(scope="module")
def starter() -> Detector:
    return open_detector(input_size=(256, 192), threads=1)


class Camera:
    """A pipeline and what it drew."""

    def __init__(self, mining: MiningConfig, *, detector: SpotDetector | Detector | None = None, **options) -> None:
        self.pipeline = Pipeline(
            detector=detector or SpotDetector(weak=0.2), score_threshold=0.4, mining=mining, seed=5, **options
        )
        self.controls: list[Mined] = []
        self.number = 0

    def show(self, image: Image) -> list[int]:
        """One frame, a fifth of a second later; return the numbers of the control frames that it gave."""
        step = self.pipeline.step(Frame(image, "c", self.number, self.number * 200, self.number / 5))
        self.number += 1
        new = [one for one in step.mined if one.reason is Reason.CONTROL]
        self.controls += new
        return [one.at.frame.sequence for one in new]

    def finish(self) -> list[Mined]:
        self.controls += [one for one in self.pipeline.finish() if one.reason is Reason.CONTROL]
        return self.controls


def walkers(number: int, size: tuple[int, int] = SIZE) -> Image:
    x = 40 + 3 * (number % 150)
    return street(((x, 60, x + 14, 90), BRIGHT), ((x, 160, x + 14, 190), DIM), size=size)


turns = st.lists(
    st.tuples(
        st.sampled_from(["walkers", "walkers", "walkers", "black", "other size"]),
        st.sampled_from([None, None, None, 0.0, 0.3, 1.0]),
    ),
    min_size=20,
    max_size=70,
)


@given(turns)
@settings(max_examples=25, deadline=None)
def test_the_sample_is_the_same_whatever_the_second_looks_do(happens: list) -> None:
    """Laws 1 and 2: dark moments, sizes and budgets that change; held against a camera without second looks."""

    def mining(budget: float) -> MiningConfig:
        return MiningConfig(control_per_hour=4000, zoom_budget=budget, merge=True)

    looking, plain = Camera(mining(1.0)), Camera(mining(0.0))
    for number, (what, budget) in enumerate(happens):
        if budget is not None:
            looking.pipeline.adopt(mining(budget), None)
        image = BLACK if what == "black" else walkers(number, (320, 240) if what == "other size" else SIZE)
        looking.show(image)
        plain.show(image)
    drawn = [one.at.frame.sequence for one in plain.finish()]
    assert sorted(one.at.frame.sequence for one in looking.finish()) == drawn == sorted(drawn)
    assert not any(one.looked_twice for one in plain.controls)
    counts = looking.pipeline.looks.recall
    twice = [one.looks for one in looking.controls if one.looked_twice]
    assert counts.frames == len(twice)
    assert counts.detector == sum(int(looks.found.sum()) for looks in twice)
    assert counts.second_look - counts.both == sum(len(looks.overlooked) for looks in twice)


def test_a_control_frame_waits_for_its_second_look_through_the_dark() -> None:
    camera = Camera(MiningConfig(control_per_hour=0, zoom_budget=1.0))
    camera.show(walkers(0))
    camera.pipeline.adopt(MiningConfig(control_per_hour=1e9, zoom_budget=1.0), None)
    assert camera.show(walkers(1)) == []
    camera.pipeline.adopt(MiningConfig(control_per_hour=0, zoom_budget=1.0), None)
    for _ in range(len(tiles(SIZE, input_size=(160, 120))) - 1):
        assert camera.controls == []
        camera.show(BLACK)
    (control,) = camera.controls
    assert control.at.frame.sequence == 1
    assert (int(control.looks.found.sum()), len(control.looks.overlooked)) == (1, 1)


def test_a_black_frame_that_is_drawn_is_not_kept_waiting() -> None:
    camera = Camera(MiningConfig(control_per_hour=1e9, zoom_budget=1.0))
    camera.show(BLACK)
    assert camera.show(BLACK) == [1]
    assert not camera.controls[0].looked_twice


def test_another_size_ends_the_wait() -> None:
    camera = Camera(MiningConfig(control_per_hour=1e9, zoom_budget=1.0))
    camera.show(walkers(0))
    assert camera.show(walkers(1)) == []
    assert camera.show(walkers(2, (320, 240))) == [1]
    assert not camera.controls[0].looked_twice
    assert [one.at.frame.sequence for one in camera.finish()] == [1, 2]


def test_while_nobody_wants_findings_none_is_drawn_and_what_waits_is_handed_on() -> None:
    camera = Camera(MiningConfig(control_per_hour=1e9, zoom_budget=1.0))
    camera.show(walkers(0))
    assert camera.show(walkers(1)) == []
    camera.pipeline.wanted = False
    assert camera.show(walkers(2)) == [1], "it was drawn before"
    for number in range(3, 30):
        assert camera.show(walkers(number)) == []
    camera.pipeline.wanted = True
    for number in range(30, 60):
        camera.show(walkers(number))
    assert sorted(one.at.frame.sequence for one in camera.finish()) == [1, *range(30, 60)]
    assert camera.pipeline.looks.recall.frames == sum(one.looked_twice for one in camera.controls)


@pytest.mark.parametrize(
    ("labels", "ignore", "found", "overlooked"),
    [
        ((), (), 1, 1),
        (("person",), (), 1, 1),
        (("car",), (), 0, 0),  # the walkers are people
        ((), (((0.0, 0.3), (1.0, 0.3), (1.0, 0.45), (0.0, 0.45)),), 1, 0),  # where the dim one walks
    ],
)
def test_an_object_that_is_not_mined_does_not_count(labels, ignore, found: int, overlooked: int) -> None:
    redaction = Redaction(ignore=ignore, blur="none", person_class=0)
    camera = Camera(MiningConfig(control_per_hour=1e9, zoom_budget=1.0, labels=labels), redaction=redaction)
    for number in range(20):
        camera.show(walkers(number))
    control = next(one for one in camera.controls if one.looked_twice)
    assert (int(control.looks.found.sum()), len(control.looks.overlooked)) == (found, overlooked)
    assert len(control.looks.beside) == 0, "what is not mined is not shown either"


@pytest.fixture(scope="module")
def street_findings(starter: Detector) -> tuple[Pipeline, list[Mined], list[Finding]]:
    """The bundled clip with second looks at a control frame every two seconds, sealed and sent."""
    mining = MiningConfig(control_per_hour=1800, zoom_budget=0.7)
    pipeline = Pipeline(detector=starter, score_threshold=0.4, mining=mining, seed=0xC0FFEE)
    mined: list[Mined] = []
    for frame, _ in read_frames(CLIP):
        mined += pipeline.step(frame).mined
    mined += pipeline.finish()
    options = {"detector": starter, "site": "s", "device": "d", "jpeg_quality": 90}
    sent = [decode_event(encode_event(seal(one, **options)[0]))[0] for one in mined]
    return pipeline, mined, sent


def test_the_boxes_of_the_control_findings_are_what_the_heartbeat_counts(street_findings) -> None:
    """The law between the two ways by which the hub learns of recall, with the starter model on the bundled clip."""
    pipeline, mined, sent = street_findings
    counts = pipeline.looks.recall
    controls = [one for one in sent if one.reason is Reason.CONTROL]
    assert {one.looked_twice for one in controls} == {True, False}
    objects = [box for one in controls if one.looked_twice for box in one.boxes if box.tags]
    seen = [box for one in controls if not one.looked_twice for box in one.boxes if box.tags]
    assert len(seen) >= 5
    assert all(box.witness is None and box.score >= 0.4 for box in seen)
    overlooked = [box for box in objects if box.witness is WitnessKind.ZOOM]
    assert counts.frames == sum(one.looked_twice for one in controls) >= 8
    assert counts.detector == len(objects) - len(overlooked) >= 20
    assert counts.second_look - counts.both == len(overlooked) >= 15
    assert all(box.witness in (None, WitnessKind.ZOOM) and box.score >= 0.4 for box in objects)
    for one, finding in zip(mined, sent, strict=True):
        if not one.looked_twice:
            assert finding.looked_twice is False
            assert finding.reason is Reason.CONTROL or not any(box.tags for box in finding.boxes)
            continue
        reported = [box for box in finding.boxes if box.witness is None and box.score >= 0.4]
        assert len(reported) == len(one.at.reported), "what does not count is shown too"
        assert [box.score for box in finding.boxes if box.witness is None and box.tags] == pytest.approx(
            one.at.detections.score[one.looks.found].tolist(), abs=1e-4
        )
        assert sum(box.witness is not None and not box.tags for box in finding.boxes) == len(one.looks.beside)


def test_a_finding_names_the_track_that_it_follows(street_findings) -> None:
    _, mined, sent = street_findings
    for one, finding in zip(mined, sent, strict=True):
        assert finding.track == ("" if one.track_id is None else f"00c0ffee-{one.track_id}")
    assert {one.track for one in sent if one.reason is Reason.CONTROL} == {""}
    followed = {reason: {one.track for one in sent if one.reason is reason} for reason in Reason}
    assert followed[Reason.MISSED] & followed[Reason.LOW_CONFIDENCE], "one object, one name, whatever is said of it"
    assert len(followed[Reason.MISSED]) > 20


def test_the_tracks_of_two_starts_and_of_two_cameras_have_other_names() -> None:
    names = []
    for _ in range(2):
        pipeline = Pipeline(
            detector=SpotDetector(),
            score_threshold=0.4,
            mining=MiningConfig(control_per_hour=0),
            seed=random.SystemRandom().getrandbits(32),
        )
        mined = []
        for number in range(60):
            x = 100 + 3 * number
            image = street(((x, 100, x + 16, 132), DIM if 12 <= number < 20 else BRIGHT))
            mined += pipeline.step(Frame(image, "c", number, number * 100, number / 10)).mined
        names.append([one.track for one in mined if one.reason is Reason.MISSED])
    assert len(names[0]) == len(names[1]) == 1
    assert names[0] != names[1]
    assert names[0][0].split("-")[1] == names[1][0].split("-")[1], "the tracker counts from 1 every time"
