"""The pipeline with the starter model on the bundled clip: findings that stand up, and a replay that repeats itself."""

import json
import time
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.config import MiningConfig
from edge.contract.errors import UnusableError
from edge.contract.samples import MAX_HEADER_BYTES, Finding, Reason, decode_event, encode_event
from edge.detector.detector import Detector, open_detector
from edge.finding import seal
from edge.pipeline import Pipeline
from edge.replay import STAGES, count_frames, read_frames, replay
from edge.zoom import MAX_SAVED

CLIP = Path(__file__).parents[2] / "deploy" / "demo" / "street.mp4"


@pytest.fixture(scope="module")
def detector() -> Detector:
    return open_detector(input_size=(256, 192))


@pytest.fixture(scope="module")
def short_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 120 frames of the bundled clip."""
    path = tmp_path_factory.mktemp("clip") / "short.avi"
    frames = [frame.image for frame, _ in zip_first(read_frames(CLIP), 120)]
    size = (frames[0].shape[1], frames[0].shape[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, size)
    for image in frames:
        writer.write(image)
    writer.release()
    return path


def zip_first(frames, count):
    return [frame for frame, _ in zip(frames, range(count), strict=False)]


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    "mining",
    [
        MiningConfig(control_per_hour=600),
        MiningConfig(control_per_hour=600, merge=True, zoom_budget=0.3),
    ],
)
def test_a_replay_writes_both_files_and_repeats_itself(
    short_clip: Path, detector: Detector, tmp_path: Path, mining: MiningConfig
) -> None:
    seen: list[int] = []
    report = replay(
        short_clip, tmp_path / "a", detector=detector, score_threshold=0.4, mining=mining, on_frame=seen.append
    )
    replay(short_clip, tmp_path / "b", detector=detector, score_threshold=0.4, mining=mining)
    for name in ("detections.jsonl", "findings.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert report.frames == seen[-1] == count_frames(short_clip) == 120
    frames = lines(tmp_path / "a" / "detections.jsonl")
    assert [frame["frame"] for frame in frames] == list(range(120))
    assert frames[10]["time_s"] == pytest.approx(1.0)
    scores = [box["score"] for frame in frames for box in frame["boxes"]]
    assert min(scores) >= 0.05
    assert any(box["label"] == "person" and box["score"] > 0.5 for box in frames[0]["boxes"])
    found = lines(tmp_path / "a" / "findings.jsonl")
    assert Counter(one["reason"] for one in found) == Counter({str(k): v for k, v in report.findings.items()})
    assert {"missed", "low_confidence", "control"} <= set(report.findings)


def test_every_line_of_findings_keeps_its_promises(short_clip: Path, detector: Detector, tmp_path: Path) -> None:
    mining = MiningConfig(control_per_hour=1800, zoom_budget=0.3)
    report = replay(short_clip, tmp_path, detector=detector, score_threshold=0.4, mining=mining, draw=True)
    found = lines(tmp_path / "findings.jsonl")
    assert {one["looked_twice"] for one in found if one["reason"] == "control"} == {True, False}
    assert all(len(report.stage_ms[stage]) == report.frames for stage in STAGES)
    looks = sum(1 for ms in report.stage_ms["looks"] if ms > 1.0)
    assert 1 <= looks <= mining.zoom_budget * report.frames + MAX_SAVED
    for one in found:
        assert set(one) >= {"frame", "time_s", "camera", "reason", "severity", "boxes", "tags"}
        assert 0 <= one["severity"] <= 1
        assert 0 <= one["frame"] < 120
        x1, y1, x2, y2 = one["region"]
        assert 0 <= x1 < x2 <= 768
        assert 0 <= y1 < y2 <= 576
        assert bool(one["track"]) <= (one["reason"] != "control")
        assert one["reason"] == "control" or not any(box.get("tags") for box in one["boxes"])
        if one["reason"] == "missed":
            assert one["boxes"][0]["witness"] == one["witnesses"][0]["kind"]
            assert one["witnesses"][0]["kind"] in {"gap", "candidate", "motion", "zoom"}
            assert one["boxes"][0]["xyxy"] == one["region"]
        elif not one["looked_twice"]:
            assert all("witness" not in box for box in one["boxes"])
    assert len(list((tmp_path / "frames").iterdir())) == len(found)


def test_a_sealed_finding_crosses_the_wire(detector: Detector) -> None:
    pipeline = Pipeline(detector=detector, score_threshold=0.4, mining=MiningConfig(control_per_hour=0), seed=1)
    sealed: list[tuple[Finding, bytes]] = []
    for frame, _ in zip_first(read_frames(CLIP), 60):
        for mined in pipeline.step(frame).mined:
            sealed.append(seal(mined, detector=detector, site="s", device="d", jpeg_quality=90))
    assert sealed
    for finding, jpeg in sealed:
        payload = encode_event(finding, jpeg)
        assert decode_event(payload) == (finding, jpeg)
        assert len(encode_event(finding)) < MAX_HEADER_BYTES / 2
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == (finding.height, finding.width, 3)
        assert finding.model == "starter-1"
        assert len(finding.features) == 120
    assert len({finding.event_id for finding, _ in sealed}) == len(sealed)
    missed = [finding for finding, _ in sealed if finding.reason is Reason.MISSED]
    assert all(finding.witnesses and finding.label for finding in missed)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no such video"),
        (b"", "not a video"),
        (b"this is text, not a video\n" * 100, "not a video"),
    ],
)
def test_what_is_not_a_video_is_one_clear_line(
    content: bytes | None, says: str, detector: Detector, tmp_path: Path
) -> None:
    video = tmp_path / "clip.mp4"
    if content is not None:
        video.write_bytes(content)
    with pytest.raises(UnusableError, match=says):
        replay(video, tmp_path / "out", detector=detector, score_threshold=0.4, mining=MiningConfig())


def test_a_black_picture_and_a_change_of_size_are_survived(detector: Detector) -> None:
    from edge.frame import Frame

    pipeline = Pipeline(detector=detector, score_threshold=0.4, mining=MiningConfig(), seed=1)
    shapes = [(576, 768)] * 5 + [(240, 320)] * 5 + [(1080, 1920)] * 3
    for number, (height, width) in enumerate(shapes):
        image = np.zeros((height, width, 3), np.uint8)
        step = pipeline.step(Frame(image, "c", number, time.time_ns() // 10**6, number * 0.2))
        for mined in step.mined:
            seal(mined, detector=detector, site="s", device="d", jpeg_quality=90)
    assert pipeline.finish() == []
