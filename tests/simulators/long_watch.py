"""A camera that is watched for hours, faster than real time: `python -m tests.simulators.long_watch FRAMES`.

The bundled clip in a loop, five frames a second of its own time, with changing noise and light, through one pipeline
with the starter model. Prints a JSON object a line, `LINES` in all: what the process and the pipeline hold.
"""

import gc
import json
import math
import os
import sys
import types
import weakref
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from edge.config import MiningConfig
from edge.detector.detector import Detector, open_detector
from edge.finding import seal
from edge.frame import Frame, Image
from edge.pipeline import Pipeline
from edge.replay import read_frames

CLIP = Path(__file__).parents[2] / "deploy" / "demo" / "street.mp4"
SIZE = (384, 288)
INPUT = (128, 96)
FPS = 5.0
LINES = 40
NOISE_LEVELS = 32
SEALED = 10  # of so many findings one is encoded
_NOT_STATE = (type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, Detector)


def pictures(frames: int) -> Iterator[Image]:
    """The clip over and over, no picture twice."""
    rng = np.random.default_rng(0)
    clip = [cv2.resize(frame.image, SIZE, interpolation=cv2.INTER_AREA) for frame, _ in read_frames(CLIP)]
    width, height = SIZE
    noise = rng.integers(0, NOISE_LEVELS, (height + 64, width + 64, 3), np.uint8)
    for number in range(frames):
        x, y = rng.integers(0, 64, 2)
        light = 0.8 + 0.2 * math.sin(number / 5000)
        image = clip[2 * number % len(clip)]
        yield cv2.addWeighted(image, light, noise[y : y + height, x : x + width], 1.0, -NOISE_LEVELS / 2)


def held_by(pipeline: Pipeline) -> int:
    """Return how many containers, arrays and objects a pipeline holds, its detector left out."""
    seen = {id(pipeline): pipeline}
    front: list[object] = [pipeline]
    while front:
        front = [one for one in gc.get_referents(*front) if not isinstance(one, _NOT_STATE) and id(one) not in seen]
        seen.update((id(one), one) for one in front)
    return len(seen)


def rss_bytes() -> int:
    """Return the memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    """Watch for as many frames as the first argument says."""
    frames = int(sys.argv[1])
    detector = open_detector(input_size=INPUT, threads=1)
    pipeline = Pipeline(
        detector=detector, score_threshold=0.4, mining=MiningConfig(control_per_hour=60, merge=True), seed=1
    )
    alive: weakref.WeakValueDictionary[int, Image] = weakref.WeakValueDictionary()
    findings = most_alive = 0
    for number, image in enumerate(pictures(frames)):
        alive[number] = image
        time_s = number / FPS
        step = pipeline.step(Frame(image, "street", number, round(time_s * 1e3), time_s))
        for mined in step.mined:
            findings += 1
            if findings % SEALED == 0:
                seal(mined, detector=detector, site="s", device="d", jpeg_quality=90)
        most_alive = max(most_alive, len(alive))
        if (number + 1) % max(1, frames // LINES) == 0:
            step = mined = None
            gc.collect()
            figures = {
                "frames": number + 1,
                "rss": rss_bytes(),
                "objects": len(gc.get_objects()),
                "held": held_by(pipeline),
                "alive": len(alive),
                "most_alive": most_alive,
                "findings": findings,
            }
            print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
