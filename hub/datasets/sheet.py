"""The contact sheet of a dataset version: each original with its boxes, its noisy copy beside it, by split.

A picture is shown as it is; one too dark to be judged has itself in a corner again, lit up. What does not fit is
counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import cv2
import numpy as np

from edge.contract.errors import UnusableError
from edge.detector.pictures import decode_jpeg
from hub.contact_sheet import (
    FAINT_INK,
    GREY,
    INK,
    PAPER,
    Colour,
    Image,
    fit,
    outline,
    scaled,
    wrap,
    write_line,
)
from hub.datasets.version import Member, MemberBox, Origin, Split, Version
from hub.lines import counted

COLUMNS: Final = 6
LIMIT: Final = 60
REPLAY_SHOWN: Final = 6
"""Pictures for replay, of each split: they have no boxes to look at."""

_PANEL: Final = (280, 210)  # width, height
_BETWEEN: Final = 4  # an original and its copy
_GAP: Final = 12
_LINE: Final = 17
_LINES: Final = 3
_TILE: Final = (_PANEL[0], _PANEL[1] + 6 + _LINES * _LINE)
_HEADER: Final = 84
_SECTION: Final = 34
_DARK: Final = 50.0  # as edge/TAGS.md has it
_LIT_UP: Final = 105.0  # grey level that a dark picture is shown at again
_INSET: Final = 0.42  # of the panel
_DASH_PX: Final = 4
_SPLITS: Final[tuple[Split, ...]] = ("train", "val", "test")
_COLOURS: Final[dict[Origin, Colour]] = {
    "person": (120, 220, 120),
    "review": (120, 220, 120),
    "machine": (255, 196, 96),
    "self": (64, 170, 255),
}
_LEGEND: Final[dict[Origin, str]] = {
    "person": "drawn by a person",
    "machine": "by a certified machine",
    "self": "self-taught",
}


class _Tile(NamedTuple):
    original: Member
    copy: Member | None

    @property
    def columns(self) -> int:
        return 1 if self.copy is None else 2


@dataclass(frozen=True, slots=True)
class Sheet:
    """A contact sheet.

    Attributes:
        png: the picture.
        shown: originals on it.
        more: originals that did not fit.
    """

    png: bytes
    shown: int
    more: int


def version_sheet(
    version: Version, *, jpeg_of: Callable[[Member], bytes], limit: int = LIMIT, title: str = ""
) -> Sheet:
    """Return the contact sheet of a version, of at most `limit` originals, spread over splits and over each split.

    `jpeg_of` gives a member's picture. Raises `UnusableError` when it does.
    """
    copies = {member.copy_of: member for member in version.members if member.copy_of}
    originals = {split: [member for member in version.of(split) if not member.copy_of] for split in _SPLITS}
    total = sum(map(len, originals.values()))
    sections_of = {split: _replay_last(members) for split, members in originals.items()}
    chosen = _shares({split: len(members) for split, members in sections_of.items()}, limit)
    sections = [
        (split, len(originals[split]), [_Tile(one, copies.get(one.name)) for one in _spread(members, chosen[split])])
        for split, members in sections_of.items()
        if chosen[split]
    ]
    shown = sum(chosen.values())
    placed = [(split, of, _flow(tiles)) for split, of, tiles in sections]
    height = _HEADER + sum(_SECTION + (rows[-1][0] + 1) * (_TILE[1] + _GAP) for _, _, rows in placed)
    sheet: Image = np.full((height, _GAP + COLUMNS * (_TILE[0] + _GAP), 3), PAPER, np.uint8)
    more = total - shown
    _draw_header(sheet, version, title=title or f"dataset version {version.digest[:12]}", more=more)
    top = _HEADER
    for split, of, rows in placed:
        _draw_section(sheet, split, shown=len(rows), of=of, top=top)
        top += _SECTION
        for row, column, tile in rows:
            x, y = _GAP + column * (_TILE[0] + _GAP), top + row * (_TILE[1] + _GAP)
            width = tile.columns * _TILE[0] + (tile.columns - 1) * _BETWEEN
            _draw_tile(sheet[y : y + _TILE[1], x : x + width], tile, jpeg_of)
        top += (rows[-1][0] + 1) * (_TILE[1] + _GAP)
    return Sheet(cv2.imencode(".png", sheet)[1].tobytes(), shown, more)


def _shares(counts: dict[Split, int], limit: int) -> dict[Split, int]:
    """Return how many originals of each split are shown: all, or shares of the limit, at least one of each."""
    total = sum(counts.values())
    if total <= limit:
        return counts
    return {split: min(count, max(1, limit * count // total)) if count else 0 for split, count in counts.items()}


def _replay_last(members: Sequence[Member]) -> list[Member]:
    """Return the labelled ones, then a few of those for replay."""
    replay = [member for member in members if _is_replay(member)]
    return [member for member in members if member.labels] + _spread(replay, min(len(replay), REPLAY_SHOWN))


def _spread(members: Sequence[Member], count: int) -> list[Member]:
    """Return `count` members, evenly over their order."""
    return [members[at * len(members) // count] for at in range(count)]


def _flow(tiles: Sequence[_Tile]) -> list[tuple[int, int, _Tile]]:
    """Give each tile its row and column; one that does not fit begins a row."""
    placed, row, column = [], 0, 0
    for tile in tiles:
        if column + tile.columns > COLUMNS:
            row, column = row + 1, 0
        placed.append((row, column, tile))
        column += tile.columns
    return placed


def _draw_header(sheet: Image, version: Version, *, title: str, more: int) -> None:
    rest = f", {counted(more, 'more image')} not shown" if more else ""
    write_line(sheet, f"{title}{rest}", at=(_GAP, _GAP + 22), big=True)
    boxes = [box for member in version.members if not member.copy_of for box in member.boxes]
    x, y = _GAP, _GAP + 56
    for origin, text in _LEGEND.items():
        count = sum(not box.ignored and _COLOURS[box.origin] == _COLOURS[origin] for box in boxes)
        if count:
            cv2.rectangle(sheet, (x, y - 12), (x + 18, y + 2), _COLOURS[origin], 2)
            x += 26 + write_line(sheet, f"{text} ({count})", at=(x + 26, y)) + 24
    if ignored := sum(box.ignored for box in boxes):
        _dashed(sheet, (x, y - 12, x + 18, y + 2), INK)
        x += 26 + write_line(sheet, f"uncertain, ignored ({ignored})", at=(x + 26, y)) + 24
    if copies := sum(bool(member.copy_of) for member in version.members):
        text = f"{counted(copies, 'noisy copy').replace('copys', 'copies')}: each beside its original"
        x += write_line(sheet, text, at=(x, y), colour=FAINT_INK) + 24
    write_line(sheet, "a dark picture again in its corner, lit up", at=(x, y), colour=FAINT_INK)


def _draw_section(sheet: Image, split: Split, *, shown: int, of: int, top: int) -> None:
    text = f"{split}: {counted(of, 'image')}" if shown == of else f"{split}: {shown} of {counted(of, 'image')}"
    right = _GAP + write_line(sheet, text, at=(_GAP, top + 20))
    cv2.line(sheet, (right + 12, top + 15), (sheet.shape[1] - _GAP, top + 15), GREY, 1)


def _draw_tile(canvas: Image, tile: _Tile, jpeg_of: Callable[[Member], bytes]) -> None:
    level = _draw_panel(canvas[: _PANEL[1], : _PANEL[0]], tile.original, jpeg_of)
    _captions(canvas[:, : _PANEL[0]], _named(tile.original), _about(tile.original, level))
    if tile.copy is not None:
        left = _PANEL[0] + _BETWEEN
        dark = _draw_panel(canvas[: _PANEL[1], left:], tile.copy, jpeg_of)
        _captions(canvas[:, left:], ", ".join(tile.copy.noise), _about(tile.copy, dark))


def _draw_panel(panel: Image, member: Member, jpeg_of: Callable[[Member], bytes]) -> float | None:
    """Draw a member with its boxes; return how bright it is, None when it cannot be shown."""
    panel[:] = GREY
    jpeg = jpeg_of(member)
    try:
        image = decode_jpeg(jpeg)
    except UnusableError as error:
        for line, text in enumerate(wrap(str(error), _PANEL[0] - 16)):
            write_line(panel, text, at=(8, 24 + line * _LINE))
        return None
    level = float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean())
    place, scale = fit(panel, image)
    if level < _DARK:
        _draw_lit_up(place, image, level)
    for box in member.boxes:
        _draw_box(place, box, scale)
    return level


def _draw_lit_up(place: Image, image: Image, level: float) -> None:
    height, width = round(place.shape[0] * _INSET), round(place.shape[1] * _INSET)
    inset = place[-height:, -width:]
    bright = np.clip(image.astype(np.float32) * (_LIT_UP / max(level, 1.0)), 0, 255).astype(np.uint8)
    inset[:] = cv2.resize(bright, (width, height), interpolation=cv2.INTER_AREA)
    inset[0], inset[:, 0] = INK, INK


def _draw_box(place: Image, box: MemberBox, scale: float) -> None:
    colour = _COLOURS[box.origin]
    if box.ignored:
        _dashed(place, scaled(box.xyxy, scale), colour)
    else:
        outline(place, scaled(box.xyxy, scale), colour)


def _dashed(place: Image, xyxy: tuple[float, float, float, float], colour: Colour) -> None:
    height, width = place.shape[:2]
    x1, x2 = (int(np.clip(round(x), 0, width - 1)) for x in (xyxy[0], xyxy[2]))
    y1, y2 = (int(np.clip(round(y), 0, height - 1)) for y in (xyxy[1], xyxy[3]))
    for x in range(x1, x2 + 1):
        if (x - x1) % (2 * _DASH_PX) < _DASH_PX:
            place[y1, x] = place[y2, x] = colour
    for y in range(y1, y2 + 1):
        if (y - y1) % (2 * _DASH_PX) < _DASH_PX:
            place[y, x1] = place[y, x2] = colour


def _captions(canvas: Image, said: str, about: str) -> None:
    """Write what is said, on two lines at most, and below it what the picture is like."""
    lines = wrap(said, canvas.shape[1] - 8)
    if len(lines) >= _LINES:
        lines = [lines[0], f"{lines[1]} ..."]
    for at, text in enumerate((*lines, about)):
        write_line(canvas, text, at=(1, _PANEL[1] + 19 + at * _LINE), colour=INK if at < len(lines) else FAINT_INK)


def _named(member: Member) -> str:
    if _is_replay(member):
        return f"replay {member.name}"
    return member.camera or member.name


def _about(member: Member, level: float | None) -> str:
    boxes = len(member.boxes) - (ignored := sum(box.ignored for box in member.boxes))
    said = [] if level is None else [f"brightness {level:.0f}"]
    if member.labels and not member.copy_of:
        said.append(f"{boxes} box{'es' * (boxes != 1)}" + (f" + {ignored} ignored" if ignored else ""))
    return ", ".join(said)


def _is_replay(member: Member) -> bool:
    return not member.labels
