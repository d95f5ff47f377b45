"""The labelled images as columns: one row an image, one row a box, so that a hundred thousand are counted at once.

Laws:

1. Only images whose frame is here have a row: nothing can be trained or tested on the others. Nor have those that were
   drawn at random: they are for measuring a machine's labels, and are counted by themselves.
2. The boxes of an image stand together, in the order of the images.
3. An image is of the test share as its batch has frozen it; where it is in no batch, as hub.testshare says.

How large an object is for the model depends on the model's input, and a finding does not name that. The device's tags
of size do: each says between which two sizes the shorter side of its region was, in pixels of the input (edge/TAGS.md).
The input that agrees with most of a release's tags is taken for its own.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge.contract.samples import Box, Reason, Xyxy
from hub.candidates import kind_of
from hub.hashing import Packed, pack
from hub.store_health import LabelledRow
from hub.tags import split_tags
from hub.testshare import is_test
from hub.truth import By, Truth

Camera = tuple[str, str, str]
Mask = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

BYS: Final[tuple[By, ...]] = ("person", "review", "machine")
SIZE_EDGES: Final = {"tiny": (0.0, 8.0), "small": (8.0, 16.0), "medium": (16.0, 32.0), "big": (32.0, np.inf)}
"""Pixels of the model's input, of the shorter side: from, to below."""
FOUND_IOU: Final = 0.5
SIDES: Final = np.arange(64, 2049, 32)
AGREEING: Final = 0.9  # of the tags; some regions are cut, or a device has another input
MAX_SPREAD: Final = 1.5
MIN_TOLD: Final = 12
_QUARTER_MS: Final = 900_000
_CHUNK: Final = 20_000


@dataclass(frozen=True, slots=True, eq=False)
class LabelTable:
    """`[n]` images and `[m]` boxes of `k` labels.

    Attributes:
        cameras: all of them; `camera` `[n]` are places in it.
        kind: `[n]`, of `hub.selection.Kind`: how the detector did.
        by: `[n]`, places in `BYS`.
        hour: `[n]`, of the day, 0..23, in the zone given.
        group, batch: `[n]`, -1: none.
        hashes: `[n, 4]`, of the whole frame; zeros say nothing.
        scale: `[n]`, pixels of the model's input for one of the frame; NaN where the input is not known.
        size: `[n, 2]`, width and height of the frame, pixels.
        brightness, noise: `[n]`, at the finding's region, grey levels.
        tags: `[n]` each, by the tag: the finding has it, or one of the objects of a `control`.
        looked_for: `[n, k]`: the label was looked for in the image.
        image: `[m]`, ascending.
        label: `[m]`, places in `labels`.
        xyxy: `[m, 4]`, pixels of the frame.
        found: `[m]`: the device's detector had found it: same label, IoU >= `FOUND_IOU`.
        gone: how many labelled images have no frame here.
        random: how many images with a frame were drawn at random; `random_boxes` are in their answers.
        sides: what the longer side of a frame is scaled to by each release; None where it is not known. Empty where the
            input was given.
    """

    event_ids: tuple[str, ...]
    cameras: tuple[Camera, ...]
    labels: tuple[str, ...]
    camera: Ints
    at_ms: Ints
    hour: Ints
    kind: Ints
    test: Mask
    by: Ints
    group: Ints
    batch: Ints
    hashes: Packed
    scale: Floats
    size: Floats
    brightness: Floats
    noise: Floats
    tags: Mapping[str, Mask]
    looked_for: Mask
    image: Ints
    label: Ints
    xyxy: Floats
    found: Mask
    gone: int
    random: int
    random_boxes: int
    sides: Mapping[str, float | None]

    def __len__(self) -> int:
        return len(self.event_ids)

    @property
    def shorter_px(self) -> Floats:
        """`[m]`, the shorter side of each box in pixels of the model's input; NaN where that is not known."""
        return np.asarray((self.xyxy[:, 2:] - self.xyxy[:, :2]).min(axis=1, initial=np.inf) * self.scale[self.image])


def label_table(
    rows: Iterable[LabelledRow],
    truths: Mapping[str, Truth],
    *,
    zone: tzinfo,
    input_size: tuple[int, int] | None = None,
    stated: Mapping[str, float],
) -> LabelTable:
    """Return the columns of the images that have a truth.

    Args:
        rows: each image once.
        truths: by event id; images without one are left out.
        zone: of the hours of day.
        input_size: width and height of the model's input for all; None: told by the tags.
        stated: of releases, what the longer side of a frame is scaled to, as their cards say.
    """
    every = [row for row in rows if row.event_id in truths]
    here = [row for row in every if row.here]
    kept = [row for row in here if not row.random]
    n = len(kept)
    answers = [truths[row.event_id] for row in kept]
    labels = tuple(sorted({name for one in answers for name in (*one.labels, *(box.label for box in one.boxes))}))
    label_code = {name: code for code, name in enumerate(labels)}
    cameras = tuple(sorted({(row.site, row.device, row.camera) for row in kept}))
    camera_code = {camera: code for code, camera in enumerate(cameras)}
    looked_for = np.zeros((n, len(labels)), np.bool_)
    for at, one in enumerate(answers):
        looked_for[at, [label_code[name] for name in one.labels]] = True
    counts = [len(one.boxes) for one in answers]
    image = np.repeat(np.arange(n), counts)
    label = np.array([label_code[box.label] for one in answers for box in one.boxes], np.int64)
    xyxy = np.array([box.xyxy for one in answers for box in one.boxes], np.float64).reshape(-1, 4)
    sides = _sides(kept, stated) if input_size is None else {}
    return LabelTable(
        event_ids=tuple(row.event_id for row in kept),
        cameras=cameras,
        labels=labels,
        camera=np.array([camera_code[row.site, row.device, row.camera] for row in kept], np.int64),
        at_ms=np.array([row.captured_at_ms for row in kept], np.int64),
        hour=_hours(kept, zone),
        kind=np.array([kind_of(row.reason) for row in kept], np.int64),
        test=np.array([_is_test(row) for row in kept], np.bool_),
        by=np.array([BYS.index(one.by) for one in answers], np.int64),
        group=np.array([-1 if row.group_id is None else row.group_id for row in kept], np.int64),
        batch=np.array([-1 if row.batch_id is None else row.batch_id for row in kept], np.int64),
        hashes=pack([row.frame_hash for row in kept]),
        scale=_scales(kept, sides, input_size),
        size=np.array([(row.width, row.height) for row in kept], np.float64).reshape(-1, 2),
        brightness=np.array([row.light.brightness for row in kept], np.float64),
        noise=np.array([row.light.noise for row in kept], np.float64),
        tags=_tags(kept),
        looked_for=looked_for,
        image=image,
        label=label,
        xyxy=xyxy,
        found=_found(kept, label_code, image=image, label=label, xyxy=xyxy),
        gone=len(every) - len(here),
        random=len(here) - n,
        random_boxes=sum(len(truths[row.event_id].boxes) for row in here if row.random),
        sides=sides,
    )


def pairs(a: Ints, b: Ints) -> Iterator[tuple[Ints, Ints]]:
    """Yield, part by part, which rows of `a` and `b` are of the same image; both are images in ascending order."""
    for start in range(0, len(a), _CHUNK):
        here = a[start : start + _CHUNK]
        first = np.searchsorted(b, here, "left")
        counts = np.searchsorted(b, here, "right") - first
        of_a = np.repeat(np.arange(start, start + len(here)), counts)
        within = np.arange(len(of_a)) - np.repeat(np.cumsum(counts) - counts, counts)
        yield of_a, np.repeat(first, counts) + within


def overlaps(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """Return the pixels that each box of `a` `[n, 4]` shares with that of `b` at the same place, and their IoU."""
    sides = np.maximum(np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2]), 0.0)
    both = sides[:, 0] * sides[:, 1]
    return both, both / np.maximum(areas(a) + areas(b) - both, 1e-9)


def areas(xyxy: Floats) -> Floats:
    """Return the area of each box `[n, 4]`."""
    return np.asarray((xyxy[:, 2] - xyxy[:, 0]) * (xyxy[:, 3] - xyxy[:, 1]))


def input_side(told: Iterable[tuple[str, float]], *, stated: float | None = None) -> float | None:
    """Return what the longer side of a frame is scaled to, as tags of size tell; None where nothing does.

    Args:
        told: a tag of size and the shorter side of its region as a part of the frame's longer side.
        stated: what the release's card says; it counts where the tags are few, and where it agrees as well as any.
    """
    known = [(SIZE_EDGES[tag], part) for tag, part in told if part > 0]
    if len(known) < MIN_TOLD:
        return stated
    low, high = (np.sort([edges[end] / part for edges, part in known]) for end in (0, 1))
    agree = np.searchsorted(low, SIDES, "right") - np.searchsorted(high, SIDES, "right")
    best = SIDES[agree == agree.max()]
    if agree.max() < AGREEING * len(known):
        return None
    if stated in best:
        return stated
    return float(best[len(best) // 2]) if best[-1] <= MAX_SPREAD * best[0] else None


def _sides(rows: Iterable[LabelledRow], stated: Mapping[str, float]) -> dict[str, float | None]:
    told: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
    for row in rows:
        longer = max(row.width, row.height)
        regions: list[tuple[Iterable[str], Xyxy]] = (
            [(box.tags, box.xyxy) for box in row.boxes]
            if row.reason is Reason.CONTROL
            else [(split_tags(row.tags), row.region)]
        )
        told[row.model] += [
            (tag, min(x2 - x1, y2 - y1) / longer)
            for tags, (x1, y1, x2, y2) in regions
            for tag in tags
            if tag in SIZE_EDGES
        ]
    return {model: input_side(mine, stated=stated.get(model)) for model, mine in sorted(told.items())}


def _scales(
    rows: Iterable[LabelledRow], sides: Mapping[str, float | None], input_size: tuple[int, int] | None
) -> Floats:
    if input_size is not None:
        width, height = input_size
        return np.array([min(width / row.width, height / row.height) for row in rows], np.float64)
    return np.array([(sides[row.model] or np.nan) / max(row.width, row.height) for row in rows], np.float64)


def _is_test(row: LabelledRow) -> bool:
    if row.test is not None:
        return row.test
    return is_test(site=row.site, device=row.device, camera=row.camera, captured_at_ms=row.captured_at_ms)


def _hours(rows: Iterable[LabelledRow], zone: tzinfo) -> Ints:
    quarters = np.array([row.captured_at_ms // _QUARTER_MS for row in rows], np.int64)
    different, which = np.unique(quarters, return_inverse=True)
    return np.array([_hour(int(quarter), zone) for quarter in different], np.int64)[which]


def _hour(quarter: int, zone: tzinfo) -> int:
    try:
        return datetime.fromtimestamp(quarter * _QUARTER_MS / 1000, zone).hour
    except (ValueError, OverflowError, OSError):  # beyond all calendars
        return quarter // 4 % 24


def _tags(rows: list[LabelledRow]) -> dict[str, Mask]:
    tagged: dict[str, Mask] = {}
    for at, row in enumerate(rows):
        of_objects = (tag for box in row.boxes for tag in box.tags) if row.reason is Reason.CONTROL else ()
        for tag in (*split_tags(row.tags), *of_objects):
            if tag not in tagged:
                tagged[tag] = np.zeros(len(rows), np.bool_)
            tagged[tag][at] = True
    return tagged


def _found(rows: list[LabelledRow], label_code: Mapping[str, int], *, image: Ints, label: Ints, xyxy: Floats) -> Mask:
    """Return which boxes `[m]` the detector of the device had found."""
    seen = [
        (at, label_code[box.label], *box.xyxy)
        for at, row in enumerate(rows)
        for box in row.boxes
        if _is_detection(box, row.score_threshold) and box.label in label_code
    ]
    of_detector = np.array(seen, np.float64).reshape(-1, 6)
    found = np.zeros(len(image), np.bool_)
    for mine, theirs in pairs(image, of_detector[:, 0].astype(np.int64)):
        _, iou = overlaps(xyxy[mine], of_detector[theirs, 2:])
        found[mine[(iou >= FOUND_IOU) & (label[mine] == of_detector[theirs, 1])]] = True
    return found


def _is_detection(box: Box, score_threshold: float) -> bool:
    return box.witness is None and box.score >= score_threshold
