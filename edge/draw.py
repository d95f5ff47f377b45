"""Boxes drawn on a picture, for people."""

import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edge.contract.errors import UnusableError
from edge.contract.samples import Box, Xyxy
from edge.frame import Image

Colour = tuple[int, int, int]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_REGION: Colour = (0, 0, 255)
_CLAIMED: Colour = (0, 200, 255)


def draw_boxes(image: Image, boxes: Sequence[Box], *, region: Xyxy | None = None) -> Image:
    """Return a copy of a BGR image with boxes, labels and scores; the best box is drawn last, on top.

    A box that a witness claims is drawn in one colour with the witness's name, and `region` as a red frame around
    everything.
    """
    canvas = np.ascontiguousarray(image).copy()
    thickness = max(1, round(max(canvas.shape[:2]) / 640))
    for box in sorted(boxes, key=lambda box: box.score):
        caption = f"{box.label} {box.score:.2f}" + (f" {box.witness}" if box.witness else "")
        colour = _CLAIMED if box.witness else _colour(box.label)
        _rectangle(canvas, box.xyxy, colour=colour, thickness=thickness)
        _caption(canvas, caption, box.xyxy, colour=colour, thickness=thickness)
    if region is not None:
        _rectangle(canvas, region, colour=_REGION, thickness=2 * thickness)
    return canvas


def save_drawn(picture: Image, folder: Path, *, name: str) -> Path:
    """Write a drawn picture as `NAME-detected.jpg` into a folder that is made. Raises `UnusableError` if it cannot."""
    path = folder / f"{name}-detected.jpg"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    except OSError as error:
        msg = f"cannot write {path}: {error.strerror}"
        raise UnusableError(msg) from error
    return path


def _rectangle(canvas: Image, xyxy: Xyxy, *, colour: Colour, thickness: int) -> None:
    x1, y1, x2, y2 = (round(value) for value in xyxy)
    cv2.rectangle(canvas, (x1, y1), (x2, y2), colour, thickness)


def _caption(canvas: Image, text: str, xyxy: Xyxy, *, colour: Colour, thickness: int) -> None:
    """Write above the box, or inside it where the picture ends."""
    scale = 0.4 * thickness
    (width, height), under = cv2.getTextSize(text, _FONT, scale, thickness)
    left = round(min(max(xyxy[0], 0), max(canvas.shape[1] - width, 0)))
    bottom = round(xyxy[1]) if xyxy[1] >= height + under else round(xyxy[1]) + height + under
    cv2.rectangle(canvas, (left, bottom - height - under), (left + width, bottom), colour, cv2.FILLED)
    blue, green, red = colour
    ink = (0, 0, 0) if 0.1 * blue + 0.6 * green + 0.3 * red > 120 else (255, 255, 255)
    cv2.putText(canvas, text, (left, bottom - under // 2 - 1), _FONT, scale, ink, thickness, cv2.LINE_AA)


def _colour(label: str) -> Colour:
    """Return a label's own colour, the same in every picture."""
    hue = zlib.crc32(label.encode()) % 180
    blue, green, red = cv2.cvtColor(np.array([[[hue, 200, 230]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0].tolist()
    return blue, green, red
