"""The camera pipeline over a recording, faster than real time and without a broker.

Law: the same recording, model and settings give the same two files, byte for byte.

Time is the recording's own: frame number over its frame rate. Quotas do not apply: every finding is written.
"""

import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import cv2
import msgspec
import numpy as np

from edge.config import MiningConfig
from edge.contract.errors import UnusableError
from edge.contract.samples import Box
from edge.detector.detector import Detector
from edge.draw import draw_boxes
from edge.finding import Description, describe, detection_boxes
from edge.frame import Frame
from edge.observation import Mined
from edge.pipeline import Pipeline

DEFAULT_FPS: Final = 25.0
SEED: Final = 0
STAGES: Final = ("decode", "letterbox", "infer", "head", "tracks", "motion", "miners", "looks")


@dataclass(slots=True)
class ReplayReport:
    """What a replay gave. `stage_ms`: milliseconds of each of `STAGES`, one value a frame."""

    frames: int = 0
    seconds: float = 0.0
    findings: Counter[str] = field(default_factory=Counter)
    stage_ms: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})


def replay(
    video: Path,
    out: Path,
    *,
    detector: Detector,
    score_threshold: float,
    mining: MiningConfig,
    draw: bool = False,
    on_frame: Callable[[int], None] = lambda _: None,
) -> ReplayReport:
    """Write `detections.jsonl` and `findings.jsonl` into `out`; with `draw` a picture of each finding as well.

    A finding is written once its miner is sure, so its frame can be earlier than that of the line before.

    Args:
        video: any recording that OpenCV reads.
        out: folder, made if it is not there; the two files in it are replaced.
        detector: used for every frame.
        score_threshold: at or above it a box counts as detected.
        mining: what is mined.
        draw: also write `frames/`, a picture of each finding.
        on_frame: called with the number of frames done, for a progress bar.

    Raises:
        UnusableError: when the recording cannot be read or `out` cannot be written.
    """
    frames = read_frames(video)
    report = ReplayReport()
    pipeline = Pipeline(detector=detector, score_threshold=score_threshold, mining=mining, seed=SEED)
    started = time.perf_counter()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for stale in (out / "frames").glob("[0-9]*-*-*.jpg"):
            stale.unlink()
        with (out / "detections.jsonl").open("wb") as detections, (out / "findings.jsonl").open("wb") as findings:

            def write(mined: list[Mined]) -> None:
                for one in mined:
                    described = describe(one, detector)
                    findings.write(finding_line(one, described))
                    report.findings[one.reason] += 1
                    if draw:
                        draw_finding(out, one, described, number=report.findings.total())

            for frame, decode_ms in frames:
                step = pipeline.step(frame)
                boxes = detection_boxes(step.detections, detector.labels, merged=step.merged)
                detections.write(_line({"frame": frame.sequence, "time_s": frame.time_s, "boxes": _boxes(boxes)}))
                write(step.mined)
                timings = step.inference.timings_ms
                ours = (step.tracks_ms, step.motion_ms, step.miners_ms, step.looks_ms)
                spent = (decode_ms, timings.letterbox, timings.infer, timings.head, *ours)
                for stage, stage_ms in zip(STAGES, spent, strict=True):
                    report.stage_ms[stage].append(stage_ms)
                report.frames += 1
                on_frame(report.frames)
            write(pipeline.finish())
    except OSError as error:
        msg = f"cannot write to {out}: {error.strerror}"
        raise UnusableError(msg) from error
    report.seconds = time.perf_counter() - started
    if not report.frames:
        msg = f"{video} has no frame that can be decoded"
        raise UnusableError(msg)
    return report


def summary_lines(report: ReplayReport, *, claimed: int) -> list[str]:
    """Return what `edge replay` prints at the end. `claimed`: the frames that the recording says it has, 0 unknown."""
    found = ", ".join(f"{reason} {count}" for reason, count in sorted(report.findings.items())) or "none"
    spent = ", ".join(f"{stage} {statistics.median(ms):.2f}" for stage, ms in report.stage_ms.items())
    short = [f"the recording ends early: {report.frames} of {claimed} frames"] if report.frames < claimed else []
    return [
        *short,
        f"{report.frames} frames in {report.seconds:.1f} s, {report.frames / report.seconds:.0f} a second",
        f"findings: {found}",
        f"median ms a frame: {spent}",
    ]


def count_frames(video: Path) -> int:
    """Return the number of frames that the recording claims, 0 where it does not say."""
    capture = _open(video)
    claimed = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    capture.release()
    return max(0, claimed)


def read_frames(video: Path) -> Iterator[tuple[Frame, float]]:
    """Yield every frame of a recording with the milliseconds its decoding took.

    Raises:
        UnusableError: at once when the file is not a video.
    """
    capture = _open(video)
    return _frames(capture, camera=video.stem)


def _open(video: Path) -> cv2.VideoCapture:
    if not video.is_file():
        msg = f"no such video: {video}"
        raise UnusableError(msg)
    capture = cv2.VideoCapture(str(video))
    if not capture.isOpened():
        msg = f"{video} is not a video that OpenCV can read"
        raise UnusableError(msg)
    return capture


def _frames(capture: cv2.VideoCapture, *, camera: str) -> Iterator[tuple[Frame, float]]:
    claimed = capture.get(cv2.CAP_PROP_FPS)
    fps = claimed if 0.1 <= claimed <= 1000 else DEFAULT_FPS
    sequence = 0
    try:
        while True:
            started = time.perf_counter()
            done, image = capture.read()
            if not done:
                return
            time_s = round(sequence / fps, 4)
            decode_ms = (time.perf_counter() - started) * 1e3
            yield Frame(np.asarray(image, np.uint8), camera, sequence, round(time_s * 1e3), time_s), decode_ms
            sequence += 1
    finally:
        capture.release()


def finding_line(mined: Mined, described: Description) -> bytes:
    """Return one line of `findings.jsonl`."""
    frame = mined.at.frame
    return _line(
        {
            "frame": frame.sequence,
            "time_s": frame.time_s,
            "camera": frame.camera,
            "reason": mined.reason,
            "severity": mined.severity,
            "region": described.region,
            "label": described.label,
            "track": mined.track,
            "looked_twice": mined.looked_twice,
            "boxes": described.shown(),
            "witnesses": mined.witnesses,
            "tags": described.tags,
        }
    )


def draw_finding(out: Path, mined: Mined, described: Description, *, number: int) -> None:
    """Write `frames/` with the boxes drawn and the region marked."""
    folder = out / "frames"
    folder.mkdir(exist_ok=True)
    frame = mined.at.frame
    picture = draw_boxes(frame.image, described.shown(), region=described.region)
    name = f"{number:05d}-{mined.reason}-{frame.sequence:06d}.jpg"
    cv2.imwrite(str(folder / name), picture)


def _boxes(boxes: list[Box]) -> list[dict[str, object]]:
    return [
        {"xyxy": box.xyxy, "label": box.label, "score": box.score}
        | ({} if box.witness is None else {"witness": box.witness})
        for box in boxes
    ]


def _line(value: object) -> bytes:
    return msgspec.json.encode(value) + b"\n"
