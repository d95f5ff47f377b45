"""Image files to BGR arrays."""

from pathlib import Path

import cv2
import numpy as np

from edge.contract.errors import UnusableError
from edge.frame import Image


def read_picture(path: Path) -> Image:
    """Read an image file of any kind that OpenCV knows, upright, as BGR `[height, width, 3]`.

    Raises `UnusableError` when the file cannot be read or is not an image.
    """
    try:
        content = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        msg = f"cannot read {path}: {error.strerror}"
        raise UnusableError(msg) from error
    try:
        image = cv2.imdecode(content, cv2.IMREAD_COLOR) if len(content) else None
    except cv2.error as error:  # larger than OpenCV's limit
        msg = f"cannot read {path}: {' '.join(str(error).split())}"
        raise UnusableError(msg) from error
    if image is None:
        msg = f"cannot read {path}: it is not an image, or it is cut short"
        raise UnusableError(msg)
    return np.asarray(image, np.uint8)
