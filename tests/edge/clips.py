"""Clips made up for tests."""

from pathlib import Path

import cv2
import numpy as np


def write_clip(path: Path, *, frames: int, fps: float = 20.0, size: tuple[int, int] = (160, 120)) -> Path:
    """Write a file whose frame `i` is grey level `10 * i`, modulo 250."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, size)
    for i in range(frames):
        writer.write(np.full((size[1], size[0], 3), 10 * i % 250, np.uint8))
    writer.release()
    return path
