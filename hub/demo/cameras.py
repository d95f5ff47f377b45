"""Three simulated cameras: one street clip as it is, in the dark, and with a noisy sensor."""

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.contract.errors import UnusableError

Image = NDArray[np.uint8]
SEED: Final = 7
DARK_GAIN: Final = 0.1
SIGMAS: Final = {"day": 0.0, "dark": 3.0, "noisy": 60.0}
CAMERAS: Final = {"day": "as it is", "dark": "10 % of the light", "noisy": "noise of 60 grey levels"}


def find_clip() -> Path:
    """Return the bundled clip: the checkout's, else the one that pip installed. Raises `UnusableError`."""
    name = Path("deploy") / "demo" / "street.mp4"
    for root in (Path(__file__).resolve().parents[2], Path(sys.prefix) / "share" / "weakspot"):
        if (root / name).is_file():
            return root / name
    msg = "the demo's clip deploy/demo/street.mp4 is not there; run the demo from a checkout"
    raise UnusableError(msg)


def count_frames(clip: Path) -> int:
    """Return the number of frames that the clip claims."""
    return int(cv2.VideoCapture(str(clip)).get(cv2.CAP_PROP_FRAME_COUNT))


def make_clips(clip: Path, folder: Path, *, on_frame: Callable[[], None]) -> dict[str, Path]:
    """Write one Motion-JPEG file a camera and return them by camera. Motion JPEG keeps the noise that H.264 would eat.

    Args:
        clip: any recording that OpenCV reads.
        folder: where `CAMERA.avi` is written.
        on_frame: called once a frame and camera, from several threads.

    Raises:
        UnusableError: when the clip cannot be read or a file cannot be written.
    """
    paths = {camera: folder / f"{camera}.avi" for camera in CAMERAS}
    with ThreadPoolExecutor(len(paths)) as pool:
        work = [pool.submit(_make_clip, clip, path, camera=camera, on_frame=on_frame) for camera, path in paths.items()]
        for one in work:
            one.result()
    return paths


def _make_clip(clip: Path, path: Path, *, camera: str, on_frame: Callable[[], None]) -> None:
    capture = cv2.VideoCapture(str(clip))
    width, height = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    fps = capture.get(cv2.CAP_PROP_FPS)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    if not capture.isOpened() or not writer.isOpened():
        msg = f"cannot turn {clip} into the Motion JPEG {path}"
        raise UnusableError(msg)
    grain = Grain(width, height, sigma=SIGMAS[camera])
    done, image = capture.read()
    while done:
        lit = cv2.convertScaleAbs(image, alpha=DARK_GAIN) if camera == "dark" else image
        writer.write(grain.on(np.asarray(lit, np.uint8)))
        on_frame()
        done, image = capture.read()
    writer.release()
    capture.release()


class Grain:
    """Sensor noise. One large field is drawn once; every picture takes its own random part of it."""

    def __init__(self, width: int, height: int, *, sigma: float) -> None:
        self._random = np.random.default_rng(SEED)
        self._sigma = sigma
        field = self._random.standard_normal((2 * height, 2 * width), np.float32) * sigma
        self._field = cv2.merge([np.rint(field).astype(np.int16)] * 3)

    def on(self, frame: Image) -> Image:
        """Return the frame with grey noise of `sigma` grey levels."""
        if not self._sigma:
            return frame
        height, width = frame.shape[:2]
        top, left = self._random.integers(0, (height, width))
        part = self._field[top : top + height, left : left + width]
        return np.asarray(cv2.add(frame, part, dtype=cv2.CV_8U), np.uint8)
