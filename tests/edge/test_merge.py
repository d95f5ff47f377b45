"""What the second look adds to the published detections, and what else a pipeline can be told while it runs."""

import json
import sys
import weakref
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.cli import main
from edge.config import MiningConfig
from edge.contract.errors import UnusableError
from edge.contract.policy import BUILT_IN, Weights
from edge.contract.samples import Reason, WitnessKind, Xyxy
from edge.detector.detections import box_iou
from edge.detector.detector import Detector, open_detector
from edge.finding import describe, detection_boxes, seal
from edge.frame import Frame, Image
from edge.observation import Mined
from edge.pipeline import Pipeline, Step
from edge.privacy import GREY, Redaction
from edge.replay import read_frames
from edge.zoom import MAX_SAVED
from tests.edge.spots import BRIGHT, DIM, LABELS, SpotDetector, street

CLIP = Path(__file__).parents[2] / "deploy" / "demo" / "street.mp4"
THRESHOLD = 0.4
NO_CONTROL = MiningConfig(control_per_hour=0)
MERGE = MiningConfig(control_per_hour=0, merge=True, zoom_budget=0.5)


@pytest.fixture(scope="module")
def starter() -> Detector:
    return open_detector(input_size=(256, 192))


@pytest.fixture(scope="module")
def clip_frames() -> list[Frame]:
    return [frame for (frame, _), _ in zip(read_frames(CLIP), range(80), strict=False)]


def make(mining: MiningConfig, *, weak: float = 0.15, **options) -> Pipeline:
    return Pipeline(detector=SpotDetector(weak=weak), score_threshold=THRESHOLD, mining=mining, seed=1, **options)


class Camera:
    """Shows made pictures to a pipeline. `steps` has what each gave."""

    def __init__(self, pipeline: Pipeline, *, fps: float = 10.0) -> None:
        self.pipeline = pipeline
        self.fps = fps
        self.number = 0
        self.steps: list[Step] = []

    def show(self, image: Image) -> Step:
        time_s = self.number / self.fps
        step = self.pipeline.step(Frame(image, "camera", self.number, round(time_s * 1e3), time_s))
        self.steps.append(step)
        self.number += 1
        return step

    @property
    def mined(self) -> list[Mined]:
        return [mined for step in self.steps for mined in step.mined]


def at(x: float, y: float = 100.0) -> Xyxy:
    return (x, y, x + 16, y + 32)


def published(step: Step, xyxy: Xyxy) -> list[bool]:
    """Return for each published detection at a place whether the second look added it."""
    strong = step.detections.score >= THRESHOLD
    there = strong & (box_iou(step.detections.xyxy, np.float32([xyxy]))[:, 0] >= 0.4)
    return step.merged[there].tolist()


# Merging


@pytest.mark.parametrize("fps", [5, 10, 30])
def test_whom_only_the_zoom_sees_is_published_carried_and_gone_with_him(fps: int) -> None:
    camera = Camera(make(MERGE), fps=fps)
    for _ in range(2 * fps):
        camera.show(street((at(200), BRIGHT)))
    assert all(published(step, at(200)) == [False] for step in camera.steps)
    begun = camera.number
    for _ in range(12 * fps):
        step = camera.show(street((at(200), DIM)))
        assert published(step, at(200)) in ([], [True])
    shown = [published(step, at(200)) == [True] for step in camera.steps[begun:]]
    assert np.mean(shown) > 0.8, "carried between two looks"
    assert camera.pipeline.looks.taken < len(shown) / 2
    since = camera.number
    for _ in range(5 * fps):
        camera.show(street())
    gone = [published(step, at(200)) == [] for step in camera.steps[since:]]
    assert all(gone[3 * fps :])
    assert all(not step.merged.any() for step in camera.steps[-fps:])


def test_a_walker_is_carried_along_his_way() -> None:
    camera = Camera(make(MERGE))
    shown = []
    for number in range(130):
        place = at(60 + 3 * number)
        step = camera.show(street((place, BRIGHT if number < 12 else DIM)))
        shown.append(published(step, place))
    assert all(one == [False] for one in shown[:12])
    assert np.mean([one == [True] for one in shown[20:]]) > 0.8


def test_what_is_not_looked_at_again_is_not_carried_for_long() -> None:
    """The detector's weak box goes on, and nobody looks whether it is still an object."""
    camera = Camera(make(MERGE))
    for level in [BRIGHT] * 12 + [DIM] * 30:
        camera.show(street((at(200), level)))
    assert published(camera.steps[-1], at(200)) == [True]
    camera.pipeline.looks.budget.share = 0.0
    for _ in range(60):
        step = camera.show(street((at(200), DIM)))
    assert len(step.detections) == 1
    assert not step.merged.any()


def test_what_the_second_look_names_twice_is_published_once() -> None:
    camera = Camera(make(MERGE))
    for level in [BRIGHT] * 12 + [DIM] * 30:
        camera.show(street((at(200), level)) | street((at(200), DIM), class_id=1))
    assert max(len(published(step, at(200))) for step in camera.steps) == 1


def test_who_is_detected_again_is_published_once_as_the_detectors_own() -> None:
    camera = Camera(make(MERGE))
    for level in [BRIGHT] * 20 + [DIM] * 30 + [BRIGHT] * 20:
        step = camera.show(street((at(200), level)))
        assert len(published(step, at(200))) <= 1
    assert published(camera.steps[48], at(200)) == [True]
    assert all(published(step, at(200)) == [False] for step in camera.steps[52:])


levels = st.sampled_from([0, DIM, BRIGHT])


@given(st.lists(st.tuples(levels, levels, levels), min_size=5, max_size=60), st.booleans())
@settings(max_examples=25, deadline=None)
def test_laws_of_merging(scenes: list[tuple[int, int, int]], merge: bool) -> None:
    mining = MiningConfig(control_per_hour=0, merge=merge, zoom_budget=1.0)
    camera, plain = Camera(make(mining)), SpotDetector(weak=0.15)
    for number, shown in enumerate(scenes):
        blocks = [(at(80 + 150 * i + 2 * number), level) for i, level in enumerate(shown) if level]
        image = street(*blocks)
        step, own = camera.show(image), plain.detect(image).detections
        for name in ("xyxy", "score", "class_id"):
            assert np.array_equal(getattr(step.inference.detections, name), getattr(own, name)), "never changed"
        assert step.merged.shape == (len(step.detections),)
        assert (np.diff(step.detections.score) <= 0).all(), "best first"
        if not merge:
            assert step.detections is step.inference.detections
            assert not step.merged.any()
            continue
        kept = step.detections.take(~step.merged)
        strong = own.score >= THRESHOLD
        assert np.array_equal(kept.xyxy[kept.score >= THRESHOLD], own.xyxy[strong]), "its own stay as they are"
        added = step.detections.take(step.merged)
        assert (added.score >= THRESHOLD).all(), "it is published"
        assert (box_iou(added.xyxy, kept.xyxy) <= 0.5).all(), "nobody twice, weakly neither"


@pytest.mark.parametrize("mining", [NO_CONTROL, MiningConfig(control_per_hour=0, merge=True, zoom_budget=0.0)])
def test_without_merge_or_without_looks_the_detections_are_the_detectors_own(mining: MiningConfig) -> None:
    camera = Camera(make(mining))
    for level in [BRIGHT] * 12 + [DIM] * 60:
        step = camera.show(street((at(200), level)))
        assert step.detections is step.inference.detections
        assert not step.merged.any()


def test_the_starter_finds_more_people_with_merge(starter: Detector, clip_frames: list[Frame]) -> None:
    plain, merging = (
        Pipeline(
            detector=starter,
            score_threshold=THRESHOLD,
            mining=MiningConfig(control_per_hour=0, merge=merge, zoom_budget=0.2),
            seed=1,
        )
        for merge in (False, True)
    )
    before = after = 0
    for frame in clip_frames:
        one, other = plain.step(frame), merging.step(frame)
        assert np.array_equal(one.detections.xyxy, other.inference.detections.xyxy)
        own = int((one.detections.score >= THRESHOLD).sum())
        before += own
        after += int((other.detections.score >= THRESHOLD).sum())
        assert int(other.merged.sum()) == int((other.detections.score >= THRESHOLD).sum()) - own
        boxes = detection_boxes(other.detections, starter.labels, merged=other.merged)
        assert [box.witness is WitnessKind.ZOOM for box in boxes] == other.merged.tolist()
    assert after > 1.1 * before
    assert merging.looks.taken <= 0.2 * len(clip_frames) + MAX_SAVED


# What is mined


@pytest.mark.parametrize("fps", [1, 10, 60])
def test_a_miss_is_found_at_every_frame_rate(fps: int) -> None:
    """Ten seconds seen, four missed, ten seen; the block goes five pixels a second."""
    camera = Camera(make(NO_CONTROL), fps=fps)
    for number in range(24 * fps):
        missing = 10 <= number / fps < 14
        camera.show(street((at(100 + 5 * number / fps), DIM if missing else BRIGHT)))
    missed = [mined for mined in camera.mined if mined.reason is Reason.MISSED]
    assert len(missed) == 1
    assert missed[0].witnesses[0].kind is WitnessKind.ZOOM
    place = at(100 + 5 * missed[0].at.frame.sequence / fps)
    assert box_iou(np.float32([missed[0].region]), np.float32([place]))[0, 0] > 0.5


@pytest.mark.parametrize(
    ("labels", "mined"),
    [
        ((), {0, 1}),  # all of them
        (("person",), {0}),
        (("car",), {1}),
        (("car", "person"), {0, 1}),
    ],
)
def test_only_the_labels_that_are_asked_for_are_mined(labels: tuple[str, ...], mined: set[int]) -> None:
    camera = Camera(make(MiningConfig(control_per_hour=3600, labels=labels)))
    for number in range(80):
        level = DIM if 12 <= number < 22 else BRIGHT
        image = street((at(100 + 3 * number), level))
        image |= street((at(100 + 3 * number, 300), level), class_id=1)
        camera.show(image)
    assert {one.class_id for one in camera.mined if one.class_id is not None} == mined
    assert any(one.reason is Reason.CONTROL for one in camera.mined), "a control frame is of no label"


def test_a_label_that_the_model_has_not_is_one_clear_error() -> None:
    with pytest.raises(UnusableError, match=r"`mining.labels` has 'cat'"):
        make(MiningConfig(labels=("person", "cat")))
    pipeline = make(NO_CONTROL)
    with pytest.raises(UnusableError, match=r"`mining.labels` has 'cat'"):
        pipeline.adopt(MiningConfig(labels=("cat",)), None)


def test_other_rules_are_adopted_while_it_runs_and_what_is_open_stays() -> None:
    camera = Camera(make(MiningConfig(control_per_hour=0, zoom_budget=0.0, min_severity=1.0)))

    def miss(frames: int) -> None:
        for number in range(frames):
            level = DIM if 10 <= number % 30 < 20 else BRIGHT
            camera.show(street((at(30 + 2 * camera.number), level)))

    miss(45)  # ends in the middle of an episode
    assert camera.mined == []
    heavy = Weights(bias=5.0, gap=1.0, candidate=1.0, motion=1.0, zoom=1.0, refuted=0.0)
    camera.pipeline.adopt(MiningConfig(control_per_hour=0, zoom_budget=0.0, min_severity=0.5), heavy)
    camera.show(street((at(30 + 2 * camera.number), DIM)))
    for _ in range(5):
        camera.show(street((at(30 + 2 * camera.number), BRIGHT)))
    (mined,) = camera.mined
    assert (mined.track_id, camera.pipeline.looks.taken) == (1, 0)
    camera.steps.clear()
    camera.pipeline.adopt(MiningConfig(control_per_hour=0, zoom_budget=1.0, merge=True), None)
    for _ in range(20):
        camera.show(street((at(30 + 2 * camera.number), DIM)))
    assert camera.pipeline.looks.taken > 0
    assert any(step.merged.any() for step in camera.steps)
    camera.pipeline.adopt(MiningConfig(control_per_hour=0, zoom_budget=0.0), BUILT_IN)
    taken = camera.pipeline.looks.taken
    for _ in range(60):
        step = camera.show(street((at(30 + 2 * camera.number), DIM)))
    assert camera.pipeline.looks.taken == taken
    assert not step.merged.any()


def test_two_cameras_on_one_detector_do_not_mix(starter: Detector, clip_frames: list[Frame]) -> None:
    mining = MiningConfig(control_per_hour=0, merge=True, zoom_budget=0.3)

    def pipeline() -> Pipeline:
        return Pipeline(detector=starter, score_threshold=THRESHOLD, mining=mining, seed=1)

    ways = (clip_frames[:30], clip_frames[50:80])
    alone = [[told(one.step(frame)) for frame in way] for one, way in zip((pipeline(), pipeline()), ways, strict=True)]
    both = (pipeline(), pipeline())
    mixed = [[told(one.step(frame)) for one, frame in zip(both, pair, strict=True)] for pair in zip(*ways, strict=True)]
    assert [list(way) for way in zip(*mixed, strict=True)] == alone


def told(step: Step) -> tuple:
    """What a step says, without its images and times."""
    mined = [(one.reason, one.severity, one.region, one.at.frame.sequence, one.witnesses) for one in step.mined]
    return step.detections.xyxy.tolist(), step.detections.score.tolist(), step.merged.tolist(), mined


def test_few_pictures_are_held_however_long_it_runs() -> None:
    """Objects flicker under the threshold without end, with control frames and second looks."""
    pipeline = make(MiningConfig(control_per_hour=3600, merge=True, min_severity=0.0), weak=0.3)
    held: list[weakref.ref] = []
    most = []
    for number in range(1200):
        blocks = [
            (at(20 + 100 * i + number % 97, 40 + 90 * i), DIM if (number // (7 + i)) % 3 else BRIGHT) for i in range(4)
        ]
        image = street(*blocks, size=(480, 360))
        held = [one for one in held if one() is not None] + [weakref.ref(image)]
        pipeline.step(Frame(image, "camera", number, number * 100, number / 10))
        del image
        most.append(sum(one() is not None for one in held))
    assert max(most[600:]) <= max(most[:600]) + 4
    assert max(most) < 60


# Findings


def found_miss(**options) -> tuple[Pipeline, Mined]:
    camera = Camera(make(NO_CONTROL, **options))
    for number in range(60):
        image = street((at(100 + 3 * number), DIM if 12 <= number < 20 else BRIGHT))
        image[400:480, :100] = 200  # what the zone of a test hides
        camera.show(image)
    (mined,) = [one for one in camera.mined if one.reason is Reason.MISSED]
    return camera.pipeline, mined


def test_a_finding_of_the_second_look_shows_its_box_first() -> None:
    _, mined = found_miss()
    described = describe(mined, SpotDetector())
    first = described.boxes[0]
    assert (first.witness, first.label, first.xyxy) == (WitnessKind.ZOOM, "person", described.region)
    assert first.score == mined.severity
    assert all(box.witness is None for box in described.boxes[1:])


def test_what_is_sealed_is_redacted_first(starter: Detector) -> None:
    zone = ((0.0, 0.8), (0.3, 0.8), (0.3, 1.0), (0.0, 1.0))
    redaction = Redaction(ignore=(zone,), blur="none", person_class=0)
    _, mined = found_miss()
    options = {"detector": starter, "site": "s", "device": "d", "jpeg_quality": 95}
    (bare, bare_jpeg), (finding, jpeg) = seal(mined, **options), seal(mined, **options, redaction=redaction)
    picture, bare_picture = (cv2.imdecode(np.frombuffer(one, np.uint8), 1) for one in (jpeg, bare_jpeg))
    assert abs(picture[420:, 20:100].astype(int) - GREY).max() < 12
    assert abs(bare_picture[420:, 20:100].astype(int) - 200).max() < 12
    assert finding.frame_hash != bare.frame_hash, "what leaves tells nothing of the zone"
    assert finding.crop_hash == bare.crop_hash, "the region is far from it"
    assert finding.region == bare.region
    assert (finding.score_threshold, finding.refuted) == (mined.at.score_threshold, False), "for who judges it"
    assert not (mined.at.frame.image[420:, 20:100] == GREY).any(), "the picture itself is not written to"


def test_nothing_is_mined_in_an_ignore_zone() -> None:
    everything = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    camera = Camera(
        make(
            MiningConfig(control_per_hour=3600, zoom_budget=1.0),
            redaction=Redaction(ignore=(everything,), blur="none", person_class=0),
        )
    )
    for number in range(80):
        camera.show(street((at(100 + 3 * number), DIM if 12 <= number < 22 else BRIGHT)))
    assert {one.reason for one in camera.mined + camera.pipeline.finish()} == {Reason.CONTROL}
    counts = camera.pipeline.looks.recall
    assert counts.frames > 0
    assert (counts.detector, counts.second_look) == (0, 0)


# The command


def test_the_command_merges_within_its_budget(monkeypatch, tmp_path: Path, clip_frames: list[Frame]) -> None:
    clip = tmp_path / "clip.avi"
    height, width = clip_frames[0].image.shape[:2]
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (width, height))
    for frame in clip_frames[:40]:
        writer.write(frame.image)
    writer.release()

    def witnesses(*options: str) -> Counter[str | None]:
        keys = ["--input", "256x192", "--score-threshold", "0.4"]
        monkeypatch.setattr(sys, "argv", ["edge", "replay", str(clip), "--out", str(tmp_path / "out"), *keys, *options])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        rows = [json.loads(line) for line in (tmp_path / "out" / "detections.jsonl").read_text().splitlines()]
        return Counter(box.get("witness") for row in rows for box in row["boxes"])

    assert witnesses("--merge", "--zoom-budget", "0.5")["zoom"] > 10
    assert set(witnesses("--merge", "--zoom-budget", "0")) == {None}


def test_the_made_detector_has_the_labels_of_its_pictures() -> None:
    for class_id in range(len(LABELS)):
        found = SpotDetector().detect(street((at(100), BRIGHT), class_id=class_id)).detections
        assert found.class_id.tolist() == [class_id]
