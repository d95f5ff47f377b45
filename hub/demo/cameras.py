"""Three simulated cameras: one street clip as it is, in the dark, and with a noisy sensor."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.contract.errors import UnusableError

Image = NDArray[np.uint8]
SEED: Final = 7
DARK_GAIN: Final = 0.3
DARK_NOISE: Final = 3.0
NOISY_SIGMA: Final = 14.0
JPEG_QUALITY: Final = 92
CAMERAS: Final = {"day": "as it is", "dark": "30 % of the light", "noisy": "sensor noise of 14 grey levels"}


def find_clip() -> Path:
    """Return the bundled clip: the checkout's, else the one that pip installed. Raises `UnusableError`."""
    name = Path("deploy") / "demo" / "street.mp4"
    for root in (Path(__file__).resolve().parents[2], Path(sys.prefix) / "share" / "weakspot"):
        if (root / name).is_file():
            return root / name
    msg = "the demo's clip deploy/demo/street.mp4 is not there; run the demo from a checkout"
    raise UnusableError(msg)


def make_clips(clip: Path, folder: Path, *, on_frame: Callable[[], None]) -> dict[str, Path]:
    """Write one Motion-JPEG file a camera and return them by camera. Motion JPEG keeps the noise that H.264 would eat.

    Raises:
        UnusableError: when the clip cannot be read or a file cannot be written.
    """
    capture = cv2.VideoCapture(str(clip))
    fps = capture.get(cv2.CAP_PROP_FPS)
    size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
    paths = {camera: folder / f"{camera}.avi" for camera in CAMERAS}
    codec = cv2.VideoWriter.fourcc(*"MJPG")
    writers = {camera: cv2.VideoWriter(str(path), codec, fps, size) for camera, path in paths.items()}
    for writer in writers.values():
        writer.set(cv2.VIDEOWRITER_PROP_QUALITY, JPEG_QUALITY)
    if not capture.isOpened() or not all(writer.isOpened() for writer in writers.values()):
        msg = f"cannot turn {clip} into Motion JPEG in {folder}"
        raise UnusableError(msg)
    random = np.random.default_rng(SEED)
    while True:
        done, image = capture.read()
        if not done:
            break
        frame = np.asarray(image, np.uint8)
        for camera, writer in writers.items():
            writer.write(_seen_by(camera, frame, random))
        on_frame()
    for writer in writers.values():
        writer.release()
    capture.release()
    return paths


def _seen_by(camera: str, frame: Image, random: np.random.Generator) -> Image:
    if camera == "dark":
        return _noise(cv2.convertScaleAbs(frame, alpha=DARK_GAIN), DARK_NOISE, random)
    if camera == "noisy":
        return _noise(frame, NOISY_SIGMA, random)
    return frame


def _noise(frame: NDArray[np.uint8] | cv2.typing.MatLike, sigma: float, random: np.random.Generator) -> Image:
    grain = random.standard_normal(frame.shape[:2], np.float32)[..., None] * sigma
    return np.clip(np.asarray(frame, np.float32) + grain, 0, 255).astype(np.uint8)
