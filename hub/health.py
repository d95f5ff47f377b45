"""How the labelled images are as a data set: what is in them, what is missing, and whether the test is fair.

What is wrong comes as advice, the worst first: what it is and what to do. Rules over values that are given: it reads
nothing. A data set is sound (`Health.is_sound`) when something is labelled and nothing of the test share leaks.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from hub.label_counts import AIM, CameraCount, ClassCount, Group, cameras, classes, groups
from hub.label_table import BYS, LabelTable
from hub.leaks import Leak, leaks
from hub.store_labels import LabelSet
from hub.store_rows import BatchRow

DROWNED: Final = 0.01
"""A batch with a smaller share of what is trained on is not noticed by the training."""
OLD_DAYS: Final = 365
DAY_MS: Final = 24 * 3600 * 1000
_NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest batch of a weak spot that has labelled images to train on.

    Attributes:
        images: of it to train on.
        share: of all images to train on.
        repeat: how often each must be shown so that the batch is `DROWNED` of the whole; 1 where it is already.
    """

    batch_id: int
    title: str
    images: int
    share: float
    repeat: int


@dataclass(frozen=True, slots=True)
class BatchHealth:
    """What was labelled of one batch.

    Attributes:
        size: its images that were not forgotten.
        labelled: of them with a truth and a frame.
        reviewed: of them that a person looked at again.
        labelled_at_ms: when the newest labels came.
    """

    batch_id: int
    title: str
    size: int
    labelled: int
    reviewed: int
    labelled_at_ms: int


@dataclass(frozen=True, slots=True)
class Advice:
    """What is wrong, and what to do."""

    what: str
    do: str


@dataclass(frozen=True, slots=True)
class Health:
    """All of it.

    Attributes:
        train, test: images.
        train_boxes, test_boxes: truth boxes.
        aim: `AIM`.
        gone: labelled images whose frame is not here.
        random: images that were drawn at random, with `random_boxes`; they are in no other count.
        sides: as in `LabelTable`.
    """

    train: int
    test: int
    train_boxes: int
    test_boxes: int
    aim: int
    gone: int
    random: int
    random_boxes: int
    sides: Mapping[str, float | None]
    classes: tuple[ClassCount, ...]
    groups: tuple[Group, ...]
    cameras: tuple[CameraCount, ...]
    batches: tuple[BatchHealth, ...]
    newest: Newest | None
    leaks: tuple[Leak, ...]
    warnings: tuple[Advice, ...]

    @property
    def is_sound(self) -> bool:
        """Something is labelled, and no image to train on is known to the test share."""
        return self.train + self.test > 0 and not self.leaks


def newest(table: LabelTable, batches: Sequence[BatchRow]) -> Newest | None:
    """Return the newest batch of a weak spot that has images to train on; None where none has."""
    train = table.batch[~table.test]
    for row in sorted(batches, key=lambda row: -row.id):
        images = int((train == row.id).sum())
        if row.weak_spot_id is not None and images:
            return Newest(row.id, row.title, images, images / len(train), repeats(images, len(train) - images))
    return None


def repeats(images: int, others: int) -> int:
    """Return how often each of `images` must be shown so that they are at least `DROWNED` of all that is shown."""
    times = max(1, math.floor(DROWNED * others / ((1 - DROWNED) * images)))
    while times * images < DROWNED * (times * images + others):
        times += 1
    return times


def labelled_batches(
    table: LabelTable, batches: Sequence[BatchRow], sets: Sequence[LabelSet]
) -> tuple[BatchHealth, ...]:
    """Return what was labelled of each batch, oldest first; those without labels and random ones are left out."""
    at_ms: dict[int, int] = {}
    for one in sets:
        if one.batch_id is not None:
            at_ms[one.batch_id] = max(one.at_ms, at_ms.get(one.batch_id, 0))
    review = table.by == BYS.index("review")
    return tuple(
        BatchHealth(
            batch_id=row.id,
            title=row.title,
            size=row.size - row.forgotten,
            labelled=int((table.batch == row.id).sum()),
            reviewed=int(((table.batch == row.id) & review).sum()),
            labelled_at_ms=at_ms[row.id],
        )
        for row in batches
        if row.id in at_ms and not row.random
    )


def health(
    table: LabelTable,
    *,
    batches: Sequence[BatchRow],
    sets: Sequence[LabelSet],
    names: Sequence[str] = (),
    now_ms: int,
) -> Health:
    """Return the health of what is labelled.

    Args:
        table: the images; may have none.
        batches: all of them.
        sets: every label set, for when labels came.
        names: the labels that annotators are asked for; empty: those that occur.
        now_ms: UTC.
    """
    test = table.test[table.image]
    counted = classes(table)
    brought = newest(table, batches)
    of_batches = labelled_batches(table, batches, sets)
    leaking = leaks(table)
    advice = [
        *_unfair(table, counted, leaking),
        *_drowning(brought, len(table) - int(table.test.sum())),
        *_unseen(table, counted, names),
        *_unchecked(of_batches, now_ms),
        *_lacking(table, counted),
    ]
    return Health(
        train=int((~table.test).sum()),
        test=int(table.test.sum()),
        train_boxes=int((~test).sum()),
        test_boxes=int(test.sum()),
        aim=AIM,
        gone=table.gone,
        random=table.random,
        random_boxes=table.random_boxes,
        sides=table.sides,
        classes=counted,
        groups=groups(table),
        cameras=cameras(table),
        batches=of_batches,
        newest=brought,
        leaks=leaking,
        warnings=tuple(advice) if len(table) else (),
    )


def _unfair(table: LabelTable, counted: Sequence[ClassCount], leaking: Sequence[Leak]) -> Iterator[Advice]:
    if leaking:
        why = Counter(leak.why for leak in leaking)
        told = ", ".join(f"{why[name]} by {name}" for name in ("group", "moment", "picture") if why[name])
        yield Advice(
            f"the split leaks: {_images(len(leaking))} to train on {_have(len(leaking))} a near-duplicate in the test"
            f" share ({told})",
            "leave them out of the training, else the test measures memory; they are listed at the end",
        )
    if not table.test.any():
        yield Advice(
            "no image of the test share is labelled: no training can be measured",
            "annotate the images marked `test` too; about one in five is, in a small batch perhaps none",
        )
    if table.test.all():
        yield Advice("every labelled image is of the test share: there is nothing to train on", "label more images")
    machine = int((table.test & (table.by == BYS.index("machine"))).sum())
    if machine:
        yield Advice(
            f"{_images(machine)} of the test share {_have(machine)} labels of the machine only: a test on them asks"
            " the machine about itself",
            "let a person label them",
        )
    untested = [one.label for one in counted if one.train and not one.test]
    if untested and table.test.any():
        yield Advice(
            f"no label in the test share: {_listed(untested)}",
            "what a training brings for them cannot be measured; label more images",
        )


def _drowning(brought: Newest | None, train: int) -> Iterator[Advice]:
    if brought is not None and brought.repeat > 1:
        yield Advice(
            f"the newest batch of a weak spot, {brought.batch_id}, drowns: {brought.images} of {train:,} images to"
            f" train on, {100 * brought.share:.2g} %",
            f"show each of them {brought.repeat} times in a training: then they are {DROWNED:.0%} of it".replace(
                "%", " %"
            ),
        )


def _unseen(table: LabelTable, counted: Sequence[ClassCount], names: Sequence[str]) -> Iterator[Advice]:
    unseen = {one.label: one.unseen for one in counted}
    unseen |= {name: len(table) for name in names if name not in unseen}
    lacking = sorted((name for name in unseen if unseen[name]), key=lambda name: (-unseen[name], name))
    if lacking:
        yield Advice(
            "nobody has looked for some labels in some images: "
            + _listed([f"{name} in {unseen[name]:,}" for name in lacking]),
            f"export that pass: hub batch export ID --pass {lacking[0]}; until then these images do not say that there"
            " is none",
        )


def _unchecked(batches: Sequence[BatchHealth], now_ms: int) -> Iterator[Advice]:
    never = [f"{one.batch_id}" for one in batches if one.labelled and not one.reviewed]
    if never:
        yield Advice(
            f"{len(never)} of {len(batches)} labelled batch{'es' * (len(batches) != 1)} {_have(len(never))} had no"
            f" second look: batch {_listed(never)}",
            f"hub labels audit {never[-1]} lists what is likely wrong in it",
        )
    old = [f"{one.batch_id}" for one in batches if now_ms - one.labelled_at_ms > OLD_DAYS * DAY_MS]
    if old:
        yield Advice(
            f"labelled more than a year ago: batch {_listed(old)}",
            "look whether the rules of labelling, and the places, are still the same",
        )


def _lacking(table: LabelTable, counted: Sequence[ClassCount]) -> Iterator[Advice]:
    if table.gone:
        yield Advice(
            f"{_images(table.gone)} that {_are(table.gone)} labelled {_have(table.gone)} no frame here: not counted",
            "keep frames for longer: [keep] in hub.toml; those in batches stay in any case",
        )
    unknown = int(np.isnan(table.scale).sum())
    if unknown:
        releases = [release for release, side in table.sides.items() if side is None]
        yield Advice(
            f"the sizes of objects are not known in {_images(unknown)}: the devices' tags do not tell the input of"
            f" {_listed(releases)}",
            "name the input of the model: --input 320x320",
        )
    few = sorted((one.train, one.label) for one in counted if one.train < AIM)
    if few:
        yield Advice(
            f"{len(few)} of {len(counted)} class{'es' * (len(counted) != 1)} {_have(len(few))} under {AIM:,} labels to"
            f" train on; fewest: {_listed([f'{label} ({train:,})' for train, label in few])}",
            "ask for more of them, or let the machine label the easy ones: hub autolabel certify",
        )


def _images(count: int) -> str:
    return f"{count:,} image{'s' * (count != 1)}"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
