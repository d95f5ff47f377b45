"""The contact sheet: every image of a batch on one page, with the place where a miss is suspected marked.

A tile shows the whole frame with the region and the boxes already known, beside it the region enlarged with some of its
surroundings, and below what a person wants to know of it. A JPEG is decoded in this process, and only after
`hub.images` found its size and its scans within the limits; one that cannot be shown becomes a grey tile that says why.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.contract.errors import UnusableError
from edge.detector.pictures import decode_jpeg
from hub.annotation import CARRIED, CONTEXT, Xyxy

DETECTOR: Final = "detector"
PERSON: Final = "person"

Image = NDArray[Any]
Colour = tuple[int, int, int]  # blue, green, red

_FRAME = (240, 180)  # width, height
_CROP = (180, 180)
_GAP = 10
_LINE = 17
_CAPTION_LINES = 3
_TILE = (_FRAME[0] + 4 + _CROP[0], _FRAME[1] + 6 + _CAPTION_LINES * _LINE)
_HEADER = 2 * _GAP + 54

PAPER: Final = (32, 32, 32)
GREY: Final = (96, 96, 96)
INK: Final = (240, 240, 240)
FAINT_INK: Final = (176, 176, 176)
_ORIGIN_COLOURS: Final[dict[str, Colour]] = {
    DETECTOR: (120, 220, 120),
    CARRIED: (220, 220, 64),
    CONTEXT: (190, 190, 190),
    PERSON: (255, 255, 255),
}
_ORIGIN_LEGEND: Final = {
    DETECTOR: "box of the detector",
    CARRIED: "carried over from an earlier image",
    CONTEXT: "drawn in an earlier pass",
    PERSON: "drawn by a person",
}
_REASON_COLOURS: Final[dict[str, Colour]] = {
    "missed": (64, 96, 255),
    "low_confidence": (48, 196, 255),
    "suspect": (255, 96, 220),
    "control": (255, 184, 96),
    "missing": (64, 96, 255),
    "swapped": (255, 96, 220),
    "badly placed": (48, 196, 255),
    "extra": (255, 184, 96),
    "disagreement": (200, 200, 64),
    "random": (255, 170, 200),
}


@dataclass(frozen=True, slots=True)
class Tile:
    """One image on the sheet.

    Attributes:
        jpeg: the frame.
        region: where the miss is suspected, `xyxy` pixels of the frame; the whole frame shows no enlargement.
        reason: why the frame was mined; decides the colour.
        caption: at most three lines, cut to the tile's width.
        boxes: the boxes already known, each with its origin.
        problem: what to say instead of showing the frame.
    """

    jpeg: bytes
    region: Xyxy
    reason: str
    caption: tuple[str, ...] = ()
    boxes: tuple[tuple[Xyxy, str], ...] = ()
    problem: str | None = None


def contact_sheet(tiles: Sequence[Tile], *, title: str, columns: int = 5) -> bytes:
    """Return the sheet as a PNG; the tiles in their order, from left to right."""
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    width = max(columns * (_TILE[0] + _GAP) + _GAP, 3 * _TILE[0])
    sheet: Image = np.full((_HEADER + rows * (_TILE[1] + _GAP), width, 3), PAPER, np.uint8)
    _draw_header(sheet, title, tiles)
    for at, tile in enumerate(tiles):
        x, y = _GAP + at % columns * (_TILE[0] + _GAP), _HEADER + at // columns * (_TILE[1] + _GAP)
        _draw_tile(sheet[y : y + _TILE[1], x : x + _TILE[0]], tile)
    return cv2.imencode(".png", sheet)[1].tobytes()


def _draw_header(sheet: Image, title: str, tiles: Sequence[Tile]) -> None:
    write_line(sheet, title, at=(_GAP, _GAP + 20), big=True)
    x, y = _GAP, _GAP + 50
    reasons = [tile.reason for tile in tiles]
    drawn = {origin for tile in tiles for _, origin in tile.boxes}
    legend = [(_ORIGIN_LEGEND[origin], colour) for origin, colour in _ORIGIN_COLOURS.items() if origin in drawn]
    legend += [(f"{name} ({reasons.count(name)})", _colour(name)) for name in dict.fromkeys(reasons)]
    for text, colour in legend:
        cv2.rectangle(sheet, (x, y - 12), (x + 16, y + 2), colour, 2)
        x += 24 + write_line(sheet, text, at=(x + 24, y)) + 24


def _draw_tile(tile: Image, what: Tile) -> None:
    colour = _colour(what.reason)
    frame, crop = tile[: _FRAME[1], : _FRAME[0]], tile[: _CROP[1], _FRAME[0] + 4 :]
    frame[:], crop[:] = GREY, GREY
    try:
        image = _picture(what)
    except UnusableError as error:
        for line, text in enumerate(wrap(str(error), _FRAME[0] - 16)):
            write_line(frame, text, at=(8, 24 + line * _LINE))
    else:
        _draw_frame(frame, image, what)
        _draw_crop(crop, image, what)
    cv2.rectangle(tile, (0, _FRAME[1] + 6), (3, _TILE[1] - 1), colour, -1)
    for line, text in enumerate(what.caption[:_CAPTION_LINES]):
        cut = (wrap(text, _TILE[0] - 12) or [""])[0]
        write_line(tile, cut, at=(10, _FRAME[1] + 19 + line * _LINE), colour=FAINT_INK if line else INK)


def _picture(what: Tile) -> Image:
    if what.problem is not None:
        raise UnusableError(what.problem)
    return decode_jpeg(what.jpeg)


def _draw_frame(canvas: Image, image: Image, what: Tile) -> None:
    place, scale = fit(canvas, image)
    for xyxy, origin in what.boxes:
        outline(place, scaled(xyxy, scale), _ORIGIN_COLOURS.get(origin) or _colour(what.reason))
    x1, y1, x2, y2 = scaled(what.region, scale)
    outline(place, (x1 - 2, y1 - 2, x2 + 2, y2 + 2), _colour(what.reason), thickness=2)  # around it, not over it


def _draw_crop(canvas: Image, image: Image, what: Tile) -> None:
    height, width = image.shape[:2]
    x1, y1, x2, y2 = what.region
    if (x2 - x1) * (y2 - y1) > 0.8 * width * height:
        write_line(canvas, "the whole frame", at=(8, 24))
        return
    side = int(min(max(2 * (x2 - x1), 2 * (y2 - y1), 48), width, height))
    left = int(np.clip((x1 + x2 - side) / 2, 0, width - side))
    top = int(np.clip((y1 + y2 - side) / 2, 0, height - side))
    place, scale = fit(canvas, image[top : top + side, left : left + side])
    outline(place, scaled((x1 - left, y1 - top, x2 - left, y2 - top), scale), _colour(what.reason))


def fit(canvas: Image, image: Image) -> tuple[Image, float]:
    """Scale `image` into the middle of `canvas`; return the part of the canvas that it fills, and the scale."""
    height, width = image.shape[:2]
    scale = min(canvas.shape[1] / width, canvas.shape[0] / height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    top, left = (canvas.shape[0] - size[1]) // 2, (canvas.shape[1] - size[0]) // 2
    place = canvas[top : top + size[1], left : left + size[0]]
    place[:] = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    return place, scale


def scaled(xyxy: Xyxy, scale: float) -> Xyxy:
    """Return a box times `scale`."""
    x1, y1, x2, y2 = xyxy
    return x1 * scale, y1 * scale, x2 * scale, y2 * scale


def outline(place: Image, xyxy: Xyxy, colour: Colour, *, thickness: int = 1) -> None:
    """Draw a box, cut to `place`."""
    height, width = place.shape[:2]
    x1, x2 = (int(np.clip(round(x), 0, width - 1)) for x in (xyxy[0], xyxy[2]))
    y1, y2 = (int(np.clip(round(y), 0, height - 1)) for y in (xyxy[1], xyxy[3]))
    # A slice is not contiguous: drawing needs an array of its own.
    drawn = cv2.rectangle(place.copy(), (x1, y1), (x2, y2), colour, thickness)
    place[:] = drawn


def write_line(canvas: Image, text: str, *, at: tuple[int, int], colour: Colour = INK, big: bool = False) -> int:
    """Write one line, its base line starting `at`; return its width in pixels."""
    font, size = (cv2.FONT_HERSHEY_DUPLEX, 0.8) if big else (cv2.FONT_HERSHEY_SIMPLEX, 0.45)
    text = _drawable(text)
    written = cv2.putText(canvas.copy(), text, at, font, size, colour, 1, cv2.LINE_AA)
    canvas[:] = written
    return int(cv2.getTextSize(text, font, size, 1)[0][0])


def wrap(text: str, width_px: int) -> list[str]:
    """Break `text` into lines of at most `width_px`, at spaces; a longer word is cut."""
    lines: list[str] = []
    for word in _drawable(text).split():
        while word and _width(word) > width_px:
            word = word[:-1]  # noqa: PLW2901 - cut until it fits
        if lines and _width(f"{lines[-1]} {word}") <= width_px:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _width(text: str) -> int:
    return int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0])


def _drawable(text: str) -> str:
    """OpenCV before 5 draws printable ASCII only."""
    return "".join(char if " " <= char <= "~" else "?" for char in text)


def _colour(reason: str) -> Colour:
    return _REASON_COLOURS.get(reason, INK)
