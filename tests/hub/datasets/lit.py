"""Street frames under light, noise and blur of known amounts, and the findings that a device makes of them."""

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from edge.contract.samples import Reason
from edge.detector.light import measure_light
from edge.tags import object_tags
from hub.store_light import SeenRow

STREET = Path(__file__).resolve().parents[3] / "deploy" / "demo" / "street.mp4"
CAMERA = "lab/box/door"
WIDTH, HEIGHT = 768, 576
WHOLE_FRAME = (0.0, 0.0, float(WIDTH), float(HEIGHT))
PLACE = (300.0, 180.0, 420.0, 340.0)  # large enough for the device to tell its blur
DAY_MS = 86_400_000
NIGHT_MS = 1_700_000_000_000


@cache
def street(number: int) -> np.ndarray:
    """A frame of the clip by its number, BGR."""
    video = cv2.VideoCapture(str(STREET))
    video.set(cv2.CAP_PROP_POS_FRAMES, number)
    done, frame = video.read()
    assert done
    return frame


def under(image, *, light=1.0, veil=0.0, noise=0.0, shot=0.0, grey=False, seed=0):
    """The picture as a camera with this light and noise gives it; `shot` of the noise's variance follows the light."""
    lit = image.astype(np.float32) * light + veil
    if grey:
        lit[:] = lit.mean(axis=2, keepdims=True)
    grain = np.random.default_rng(seed).normal(0, 1, lit.shape[:2]) * noise
    level = lit.mean(axis=2)
    grain *= np.sqrt(1 - shot + shot * level / level.mean())
    return np.clip(np.rint(lit + grain[:, :, None]), 0, 255).astype(np.uint8)


def jpeg_of(image, quality=95):
    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def seen(number, image, *, region=WHOLE_FRAME, at_ms=NIGHT_MS, here=False):
    """The finding that a device makes of a picture: measured by the device's own functions."""
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    light = measure_light(gray, region)
    tags = object_tags(image, region, light=light, input_scale=0.4, others=[])
    reason = Reason.CONTROL if region == WHOLE_FRAME else Reason.MISSED
    height, width = gray.shape
    words = f" {' '.join(tags)} "
    return SeenRow(number, CAMERA, at_ms, reason, region, width, height, words, here, light, ())
