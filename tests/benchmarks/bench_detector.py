"""The detector's cost beyond the bare `infer()`, on 1080p frames, on each runtime that is installed."""

import statistics
import time
from pathlib import Path

import cv2
import numpy as np

from edge.detector.detector import Detector, open_detector
from edge.detector.letterbox import Letterbox
from edge.detector.runtimes import AUTO_ORDER, installed_runtimes

CLIP = Path(__file__).parents[2] / "deploy" / "demo" / "street.mp4"
SIZES = ((320, 320), (320, 192))
FRAMES = 20
ROUNDS = 6


def main() -> None:
    frames = full_hd_frames()
    print(f"Detector on {FRAMES} frames of the bundled clip enlarged to 1920x1080, starter model, scores from .05,")
    print("all cores, ms at the 10th percentile (other load slows infer() first and would flatter the ratio);")
    print(f"a bare infer() and a whole detect() take turns, {ROUNDS} rounds")
    columns = ("letterbox", "infer", "head", "bare", "detect", "beyond")
    print(f"{'input':>9} {'runtime':<12}", *(f"{column:>9}" for column in columns))
    for size in SIZES:
        for runtime in AUTO_ORDER:
            if runtime not in installed_runtimes():
                print(f"{size[0]:>5}x{size[1]} {runtime}: not installed")
                continue
            measure(open_detector(runtime=runtime, input_size=size), frames)
    print("beyond: (letterbox + head) over a bare infer(); the aim is at most 15 %")


def full_hd_frames() -> list[np.ndarray]:
    capture = cv2.VideoCapture(str(CLIP))
    frames = [cv2.resize(capture.read()[1], (1920, 1080)) for _ in range(FRAMES)]
    capture.release()
    return frames


def measure(detector: Detector, frames: list[np.ndarray]) -> None:
    """Print one row."""
    tensor = Letterbox(detector.card.input, input_size=detector.input_size)(frames[0])[0]
    steps, bare, whole = [], [], []
    for _ in range(ROUNDS):
        for _ in frames:
            start = time.perf_counter()
            detector.runtime.infer(tensor)
            bare.append((time.perf_counter() - start) * 1e3)
        for frame in frames:
            start = time.perf_counter()
            steps.append(detector.detect(frame).timings_ms)
            whole.append((time.perf_counter() - start) * 1e3)
    letterbox, infer, head, alone, together = (
        statistics.quantiles(column, n=10)[0] for column in (*zip(*steps, strict=True), bare, whole)
    )
    width, height = detector.input_size
    row = " ".join(f"{value:9.2f}" for value in (letterbox, infer, head, alone, together))
    print(f"{width:>5}x{height} {detector.runtime_name:<12} {row} {(letterbox + head) / alone:9.1%}")


if __name__ == "__main__":
    main()
