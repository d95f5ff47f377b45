"""What `hub dataset health` prints, in lines of at most 80 characters: what is wrong first, then the tables."""

import dataclasses
import textwrap
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from hub.health import BatchHealth, Health
from hub.label_counts import CameraCount, ClassCount, Group
from hub.leaks import Leak
from hub.lines import cut
from hub.spot_names import camera_names, printable

HOW_TO_BEGIN: Final = (
    "nothing is labelled yet: `hub batch new` chooses images, `hub batch export ID --format cvat --out DIR` hands them"
    " out, and `hub labels import FILE --batch ID` takes the labels back"
)
ONLY_RANDOM: Final = (
    "only images that were drawn at random are labelled; they measure the machine's labels and are never trained on:"
    " `hub batch new` chooses images to train on"
)
_BAR: Final = 24
_CLASSES: Final = 30
_CAMERAS: Final = 15
_BATCHES: Final = 10
_LEAKS: Final = 10
_SHARES: Final = "each row: how many in all, then the shares of the images, or labels, to train on and of the test"
_BLOCK: Final = 39
_SPANS: Final = tuple(range(0, 24, 4))


def health_lines(health: Health, *, zone_name: str) -> list[str]:
    """Return the whole report of a data set that has images. `zone_name` is that of the hours."""
    lines = _wrapped(
        f"data set: {health.train:,} images to train on with {health.train_boxes:,} labels, {health.test:,} of the test"
        f" share with {health.test_boxes:,}"
    )
    if health.random:
        lines += _wrapped(
            f"apart: {health.random:,} images drawn at random with {health.random_boxes:,} labels; they measure the"
            " machine's labels, are never trained on, and are in no count below"
        )
    for advice in health.warnings:
        lines += [*_wrapped(advice.what, first="! ", rest="  "), *_wrapped(advice.do, first="  -> ", rest="     ")]
    if health.newest is not None:
        new = health.newest
        told = f"the newest batch of a weak spot, {new.batch_id}: {new.images} of {health.train:,} images to train on"
        lines += _wrapped(f"{told}, {_percent(new.share)}")
    lines += ["", *_class_lines(health.classes, health.aim), ""]
    for left, right in zip(health.groups[::2], (*health.groups[1::2], None), strict=False):
        lines += [*_side_by_side(_group_lines(left, health), _group_lines(right, health) if right else []), ""]
    lines += [
        *_wrapped(_inputs(health)),
        "",
        *_camera_lines(health.cameras, zone_name),
        "",
        *_batch_lines(health.batches),
    ]
    if health.leaks:
        lines += ["", *_leak_lines(health.leaks)]
    return lines


def health_as_json(health: Health) -> str:
    """Return `hub dataset health --json`: one object."""
    whole = {field.name: getattr(health, field.name) for field in dataclasses.fields(health)}
    return msgspec.json.encode(whole | {"leaks": [leak._asdict() for leak in health.leaks]}).decode()


def _class_lines(classes: Sequence[ClassCount], aim: int) -> list[str]:
    lines = [f"{'class':20} {'to train on':>11} {f'of {aim:,}':>8} {'':{_BAR}} {'test':>5} {'images':>7}"]
    for one in classes[:_CLASSES]:
        filled = min(_BAR, round(one.share * _BAR))
        bar = "#" * filled + "." * (_BAR - filled)
        name = cut(printable(one.label), 20)
        lines.append(f"{name:20} {one.train:>11,} {_percent(one.share):>8} {bar} {one.test:>5,} {one.images:>7,}")
    more = len(classes) - _CLASSES
    return lines + [f"and {more} more: --json"] * (more > 0)


def _group_lines(group: Group, health: Health) -> list[str]:
    boxes = group.of == "boxes"
    train, test = (health.train_boxes, health.test_boxes) if boxes else (health.train, health.test)
    unit = "labels" if boxes else "images"
    lines = [f"{cut(f'{group.title} ({unit})', 27):27}{'train':>6}{'test':>6}"]
    for row in group.rows:
        parts = (_percent(row.train / train) if train else "-", _percent(row.test / test) if test else "-")
        lines.append(f"{row.name:20}{row.train + row.test:>7,}{parts[0]:>6}{parts[1]:>6}")
    return lines


def _side_by_side(left: Sequence[str], right: Sequence[str]) -> list[str]:
    height = max(len(left), len(right))
    columns = ([*side, *[""] * (height - len(side))] for side in (left, right))
    return [f"{a:{_BLOCK}}  {b}".rstrip() for a, b in zip(*columns, strict=True)]


def _inputs(health: Health) -> str:
    known = [f"{side:g} px for {printable(name)}" for name, side in health.sides.items() if side is not None]
    if not known:
        return _SHARES
    return f"{_SHARES}; input px: the longer side of a frame counts {', '.join(known)}; --input tells another"


def _camera_lines(cameras: Sequence[CameraCount], zone_name: str) -> list[str]:
    spans = "".join(f"{f'{hour:02}-{hour + 4:02}':>6}" for hour in _SPANS)
    lines = [f"{'':41} {f'images by hour of day, {zone_name}':>36}"]
    lines += [f"{'camera':19} {'train':>6} {'test':>6} {'labels':>8} {spans}"]
    names = camera_names([(one.site, one.device, one.camera) for one in cameras])
    for one in cameras[:_CAMERAS]:
        name = cut(names[one.site, one.device, one.camera], 19)
        hours = "".join(f"{sum(one.hours[hour : hour + 4]) or '.':>6}" for hour in _SPANS)
        lines.append(f"{name:19} {one.train:>6} {one.test:>6} {one.boxes:>8} {hours}")
    more = len(cameras) - _CAMERAS
    return lines + [f"and {more} more: --json"] * (more > 0)


def _batch_lines(batches: Sequence[BatchHealth]) -> list[str]:
    if not batches:
        return ["no batch to train on has labels: they are the machine's, of images in no batch"]
    lines = [f"{'batch':>5} {'images':>6} {'labelled':>8} {'second look':>11} {'newest (UTC)':12}  weak point"]
    lines += [
        f"{one.batch_id:>5} {one.size:>6} {one.labelled:>8} {one.reviewed:>11} {_day(one.labelled_at_ms):12} "
        f" {cut(printable(one.title), 31)}"
        for one in batches[-_BATCHES:]
    ]
    more = len(batches) - _BATCHES
    return lines + [f"and {more} before: --json"] * (more > 0)


def _leak_lines(leaks: Sequence[Leak]) -> list[str]:
    lines = [f"{'leave out':32} {'because of (test)':32} {'by':7} {'apart':>6}"]
    lines += [f"{one.train} {one.test} {one.why:7} {_apart(one.apart_ms):>6}" for one in leaks[:_LEAKS]]
    more = len(leaks) - _LEAKS
    lines += [f"and {more:,} more: --json"] * (more > 0)
    return [*lines, "the name of an image in an export ends with the last 8 letters of these"]


def _apart(apart_ms: int) -> str:
    seconds = abs(apart_ms) / 1000
    for most, unit, size in ((100, "s", 1), (6000, "min", 60), (172_800, "h", 3600)):
        if seconds < most:
            told = seconds / size
            return f"{told:.1f} {unit}" if told < 10 and unit == "s" else f"{told:.0f} {unit}"
    return f"{min(seconds / 86_400, 9999):.0f} d"


def _percent(share: float) -> str:
    percent = 100 * share
    return "<1 %" if 0 < percent < 1 else f"{percent:.0f} %"


def _day(at_ms: int) -> str:
    try:
        return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        return "?"


def _wrapped(text: str, *, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(text, 80, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
