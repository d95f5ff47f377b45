"""Dataset versions as what the commands print. Lines have at most 80 characters, but for what names files."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from hub.datasets.forgetting import Holding
from hub.datasets.layouts import SPLITS, Exported, Layout
from hub.datasets.version import Member, Plain, Split, Version
from hub.lines import WIDTH, counted, cut, utc, wrapped
from hub.store_datasets import DatasetRow

_BYS: Final = {
    "person": "people",
    "review": "second look of people",
    "machine": "certified machine",
    "self": "self-taught",
    "": "for replay",
}
_MOST: Final = 12  # rows of one table


class SplitCount(msgspec.Struct, frozen=True):
    """What is in one split: originals, noisy copies, and the boxes of both, of which some are ignored."""

    images: int
    copies: int
    boxes: int
    ignored: int


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What `hub dataset show` tells.

    Attributes:
        by: originals by who says what is on them ("": nothing is known, for replay), then by split.
        boxes: by origin, then by split; copies aside.
        labels, cameras, weak_spots, tags: originals (of labels: boxes) by name, then by split.
        noise: copies by what was done to them.
    """

    folder: str
    digest: str
    parent: str
    created_at_ms: int
    recipe: dict[str, Plain]
    splits: dict[Split, SplitCount]
    by: dict[str, dict[Split, int]]
    boxes: dict[str, dict[Split, int]]
    labels: dict[str, dict[Split, int]]
    cameras: dict[str, dict[Split, int]]
    weak_spots: dict[str, dict[Split, int]]
    tags: dict[str, dict[Split, int]]
    noise: dict[str, int]


def shown(folder: Path, version: Version) -> Shown:
    """Count what is in a version."""
    originals = [one for one in version.members if not one.copy_of]
    boxes = [(one, box) for one in originals for box in one.boxes]
    return Shown(
        folder=str(folder),
        digest=version.digest,
        parent=version.parent,
        created_at_ms=version.created_at_ms,
        recipe=version.recipe,
        splits={split: _split_count(version.of(split)) for split in SPLITS},
        by=_table((one.by, one.split) for one in originals),
        boxes=_table((box.origin, one.split) for one, box in boxes if not box.ignored),
        labels=_table((box.label, one.split) for one, box in boxes if not box.ignored),
        cameras=_table((one.camera, one.split) for one in originals if one.camera),
        weak_spots=_table((str(spot), one.split) for one in originals for spot in one.weak_spots),
        tags=_table((tag, one.split) for one in originals for tag in one.tags if ":" not in tag),
        noise=dict(Counter(word.split(" ")[0] for one in version.members for word in one.noise).most_common()),
    )


def shown_lines(told: Shown) -> list[str]:
    """Return `hub dataset show`."""
    lines = [
        *wrapped(f"dataset version {told.digest[:12]}, frozen {utc(told.created_at_ms)} UTC"),
        told.folder,
        *_after(told),
        "",
        f"{'':30}{'train':>10}{'val':>10}{'test':>10}",
        _row("images", {split: one.images for split, one in told.splits.items()}),
        _row("noisy copies", {split: one.copies for split, one in told.splits.items()}),
        _row("boxes", {split: one.boxes - one.ignored for split, one in told.splits.items()}),
        _row("uncertain boxes, ignored", {split: one.ignored for split, one in told.splits.items()}),
    ]
    lines += _rows("images by who labelled them", {_BYS[by]: row for by, row in told.by.items()})
    lines += _rows("boxes by label, copies aside", told.labels)
    lines += _rows("images by camera", told.cameras)
    lines += _rows("images of weak spots", {f"weak spot {spot}": row for spot, row in told.weak_spots.items()})
    lines += _rows("images by tag", told.tags)
    if told.noise:
        lines += ["", *wrapped("noise: " + ", ".join(f"{word} {number}" for word, number in told.noise.items()))]
    recipe = ", ".join(f"{name} {_plain(value)}" for name, value in told.recipe.items() if not _is_count(name))
    return [*lines, "", *wrapped(f"recipe: {recipe}")]


def _after(told: Shown) -> list[str]:
    if not told.parent:
        return []
    return [f"after {told.parent[:12]}" + (", with the same content" if told.parent == told.digest else "")]


def list_lines(rows: Sequence[DatasetRow], recipes: Sequence[dict[str, Any]]) -> list[str]:
    """Return `hub dataset list`, oldest first; `recipes` in the order of the rows."""
    if not rows:
        return ["no dataset version yet: `hub dataset freeze` makes one"]
    lines = [f"{'id':>4}  {'frozen (UTC)':16}  {'for':12}  {'train':>6} {'val':>5} {'test':>5}  {'after':>5}  digest"]
    for row, recipe in zip(rows, recipes, strict=True):
        aim = "self-taught" if not recipe.get("people", True) else "all"
        aim = aim if row.weak_spot_id is None else f"weak spot {row.weak_spot_id}"
        after = "-" if row.parent_id is None else str(row.parent_id)
        lines.append(
            f"{row.id:>4}  {utc(row.created_at_ms)}  {cut(aim, 12):12}  {row.train:>6} {row.val:>5} {row.test:>5}"
            f"  {after:>5}  {row.digest[:12]}"
        )
        lines += [f"{'':6}{line}" for line in wrapped(_by_origin(recipe), width=WIDTH - 6)]
        if row.forgotten_at_ms is None:
            lines.append(f"{'':6}{row.folder}")
        else:
            lines.append(f"{'':6}removed {utc(row.forgotten_at_ms)}: something in it was forgotten")
    return lines


def list_as_json(rows: Sequence[DatasetRow]) -> str:
    """Return the versions as one JSON list."""
    return msgspec.json.encode(
        [row._asdict() | {"folder": str(row.folder), "recipe": msgspec.json.decode(row.recipe)} for row in rows]
    ).decode()


def frozen_lines(told: Shown, *, number: int) -> list[str]:
    """Return what `hub dataset freeze` prints: what was frozen, and what comes next."""
    train, val, test = (told.splits[split] for split in SPLITS)
    lines = wrapped(
        f"dataset version {number}, {told.digest[:12]}: {counted(train.images, 'image')} to train on and"
        f" {train.copies} noisy copies, {val.images} for validation, {test.images} for the test"
    )
    for by, row in told.by.items():
        parts = [f"{row[split]} {split}" for split in SPLITS if row[split]]
        lines.append(f"  {_BYS[by]:24} {', '.join(parts)}")
    repeat = told.recipe.get("weak_spot_repeat", 1)
    if isinstance(repeat, int) and repeat > 1:
        lines += wrapped(
            f"its weak spot has {told.recipe['weak_spot_images']} images, under 1 % of what people labelled: a training"
            f" shows each {repeat} times"
        )
    left_out = {name.removeprefix("left_out_"): value for name, value in told.recipe.items() if "left_out_" in name}
    if left_out:
        lines += wrapped("left out: " + ", ".join(f"{value} {_WHY[why]}" for why, value in left_out.items()))
    if not test.images:
        lines += wrapped("no image measures what a training brings: label images marked `test`")
    return [*lines, f"folder: {told.folder}", f"next: hub train --dataset {number}"]


def holding_lines(versions: Sequence[Holding]) -> list[str]:
    """Return what `hub forget` says before it asks: which folders go."""
    lines: list[str] = []
    for one in versions:
        name = "a dataset version without a number" if one.number is None else f"dataset version {one.number}"
        if one.is_there:
            lines += [
                f"{name} holds pictures of it: its folder goes, {one.pictures} pictures",
                f"          {one.folder}",
            ]
        else:
            lines += [
                f"{name} held pictures of it and was moved: delete it where it is now, was in",
                f"          {one.folder}",
            ]
    return lines


def exported_lines(done: Exported, *, layout: Layout, out: Path) -> list[str]:
    """Return what `hub dataset export` prints."""
    parts = ", ".join(f"{number} {split}" for split, number in done.images.items())
    return [f"{layout.value}: {parts}", *(line for note in done.notes for line in wrapped(note)), f"folder: {out}"]


_WHY: Final = {
    "leaks": "that the test knows",
    "beside_val": "beside validation",
    "gone": "whose frame is not here",
    "unreadable": "unreadable",
}


def _by_origin(recipe: Mapping[str, Any]) -> str:
    """Return "train: 20 people, 19 noisy copies; test: 5 people" of the counts in a recipe."""
    words = {by: word for by, word in _BYS.items() if by} | {"noisy": "noisy copies", "replay": "for replay"}
    parts = []
    for split in SPLITS:
        counts = [(recipe[key], word) for by, word in words.items() if (key := f"{split}_{by}") in recipe]
        if counts:
            parts.append(f"{split}: " + ", ".join(f"{number} {word}" for number, word in counts))
    return "; ".join(parts)


def _is_count(name: str) -> bool:
    return name.startswith(tuple(f"{split}_" for split in SPLITS))


def _split_count(members: Sequence[Member]) -> SplitCount:
    boxes = [box for member in members for box in member.boxes]
    copies = sum(bool(member.copy_of) for member in members)
    return SplitCount(len(members) - copies, copies, len(boxes), sum(box.ignored for box in boxes))


def _table(pairs: Iterable[tuple[str, Split]]) -> dict[str, dict[Split, int]]:
    counts = Counter(pairs)
    totals: Counter[str] = Counter()
    for (name, _), number in counts.items():
        totals[name] += number
    names = sorted(totals, key=lambda name: (-totals[name], name))
    return {name: {split: counts[name, split] for split in SPLITS} for name in names}


def _rows(title: str, table: dict[str, dict[Split, int]]) -> list[str]:
    if not table:
        return []
    lines = ["", title, *(_row(f"  {name}", row) for name, row in list(table.items())[:_MOST])]
    more = len(table) - _MOST
    return [*lines, *([f"  and {more} more: --json has all"] if more > 0 else [])]


def _row(name: str, row: dict[Split, int]) -> str:
    line = f"{_end(name, 30):30}" + "".join(f"{row[split]:>10,}" for split in SPLITS)
    return line[:WIDTH]


def _end(name: str, width: int) -> str:
    """Return a name that is too long by its end: of a camera it tells more."""
    return name if len(name) < width else f"  ...{name[len(name) - width + 6 :]}"


def _plain(value: Plain) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return cut(str(value), 24)
