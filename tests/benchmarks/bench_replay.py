"""Replay of 768x576 at 320 input on one core: milliseconds a frame, by stage, on each runtime that is installed."""

import importlib.util
import os
import statistics
import tempfile
from pathlib import Path

import cv2

from edge.config import MiningConfig
from edge.detector.detector import open_detector
from edge.replay import STAGES, replay

CLIP = Path(__file__).parents[2] / "deploy" / "demo" / "street.mp4"


def main() -> None:
    cores, threads = os.sched_getaffinity(0), cv2.getNumThreads()
    os.sched_setaffinity(0, {min(cores)})
    cv2.setNumThreads(1)
    try:
        measure()
    finally:
        os.sched_setaffinity(0, cores)
        cv2.setNumThreads(threads)


def measure() -> None:
    print("Replay of the bundled clip (768x576, 330 frames) on one core, starter model, median ms a frame")
    print(f"{'input':>9} {'runtime':<12}", *(f"{stage:>9}" for stage in STAGES), f"{'sum':>7} {'added':>7}")
    for size in ((320, 256), (320, 320)):
        for runtime in ("onnxruntime", "openvino"):
            if importlib.util.find_spec(runtime) is None:
                print(f"{size[0]}x{size[1]} {runtime}: not installed")
                continue
            detector = open_detector(input_size=size, runtime=runtime, threads=1)
            with tempfile.TemporaryDirectory() as out:
                report = replay(CLIP, Path(out), detector=detector, score_threshold=0.3, mining=MiningConfig())
            spent = {stage: statistics.median(report.stage_ms[stage]) for stage in STAGES}
            whole = sum(spent.values())
            added = spent["tracks"] + spent["motion"] + spent["miners"]
            row = " ".join(f"{spent[stage]:9.2f}" for stage in STAGES)
            print(f"{size[0]:>5}x{size[1]} {runtime:<12} {row} {whole:7.2f} {added:7.2f}")
    print("added: tracks, motion and miners; the aim is at most 5 ms")


if __name__ == "__main__":
    main()
