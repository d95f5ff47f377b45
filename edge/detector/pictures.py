"""Image files and JPEGs to BGR arrays."""

from pathlib import Path

import cv2
import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.jpeg import jpeg_size
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


def decode_jpeg(jpeg: bytes) -> Image:
    """Return the picture as BGR, not turned by its EXIF orientation.

    Raises `UnusableError` when the header is broken or states too large a picture, or when decoding fails.
    """
    width, height = jpeg_size(jpeg)
    try:
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        msg = f"broken JPEG: {error.err}"
        raise UnusableError(msg) from error
    if image is None or image.shape[:2] != (height, width):
        msg = "broken JPEG"
        raise UnusableError(msg)
    return np.asarray(image, np.uint8)
