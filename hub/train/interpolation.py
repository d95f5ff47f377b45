"""How much of the new weights is released: between old and new lies a line, and validation chooses the place on it.

Weights between two models of one family find nearly what the new one finds and forget less (Wortsman et al., "Robust
fine-tuning of zero-shot models", CVPR 2022). Each place is judged as it would run: written as a model folder and opened
by edge.detector.

What is forgotten is seen on pictures without labels: their truth is what the old model sees when it may look closer.
On them a candidate first gains, for it learns to see its own resolution, and then loses: forgetting begins at the peak,
not where the gain is used up. (On pictures that lay aside, AP50 by people's labels fell from about there on.)

A dozen pictures waver from share to share by more than the tolerance, though what they measure changes evenly. So each
is looked at in four views, and what they show is read off a parabola through all shares. (Six trainings on folds: what
is kept from a quarter to three quarters of the new weights wavered, between sets of 13 pictures, by .042 in one view,
.023 in four, .018 with the parabola. Two sets that have no picture in common chose the same share in .59 of the trials,
in .46 with one view; shares two steps apart in .03, not .13.)

To refuse a share only where it loses more than one standard error beyond the tolerance is no rule for so few: of 13
pictures that error is as large as the tolerance, and the largest share was taken in .95 of the trials.

Laws:

1. Of the shares that stay within the recipe's tolerance of the peak, the one that finds most is chosen, of equals the
   larger.
2. What is true on a picture goes with it into each view.
3. Where nothing was looked for on any validation picture, no share above the recipe's own is chosen, and the largest of
   the others that fit; where there is no picture without labels, nothing is known of forgetting, and its limit is not
   applied.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.detector.detector import Detector, open_detector
from edge.detector.letterbox import Size
from edge.detector.opening import ModelFile
from edge.frame import Image
from hub.datasets.teaching import open_teacher, taught
from hub.datasets.version import Member, Xyxy, read_image
from hub.evaluation.ap import precisions
from hub.evaluation.columns import columns
from hub.evaluation.seen import Seen, see
from hub.train.recipe import Recipe

_PARABOLA: Final = 2
_SMALLER: Final = (0.85, 0.65)

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True, eq=False)
class Chosen:
    """What is released.

    Attributes:
        alpha: the share of the new weights; the rest is the old.
        state: the weights.
        validation: `found_A` and `kept_A`, AP50 in all views at the share A (0: the old model) on labelled pictures and
            on pictures for replay, and how many pictures of each there were, as far as there were any.
    """

    alpha: float
    state: Weights
    validation: dict[str, float]


class Interpolation:
    """The validation pictures of one training."""

    def __init__(
        self,
        members: Sequence[Member],
        *,
        folder: Path,
        model: ModelFile,
        input_size: Size,
        recipe: Recipe,
        threads: int,
    ) -> None:
        originals = [member for member in members if not member.copy_of]
        self._folder, self._model, self._input_size = folder, model, input_size
        self._recipe, self._threads = recipe, threads
        self._labelled = [member for member in originals if member.labels]
        self._replay = [member for member in originals if not member.labels]

    def choose(self, old: Weights, new: Weights, write: Callable[[Weights], Path]) -> Chosen:
        """Return the chosen weights. `write` makes a model folder, over the one before. Raises `UnusableError`."""
        recipe = self._recipe
        validation = {"labelled_pictures": float(len(self._labelled)), "replay_pictures": float(len(self._replay))}
        if not self._labelled and not self._replay:
            return Chosen(recipe.alpha, mixed(old, new, recipe.alpha), validation)
        replay = self._with_truth()
        found, kept = {}, {}
        for alpha in (0.0, *recipe.alphas):
            detector = open_detector(write(mixed(old, new, alpha)), input_size=self._input_size, threads=self._threads)
            found[alpha] = seen_share(look_in_views(detector, self._folder, self._labelled))
            kept[alpha] = seen_share(look_in_views(detector, self._folder, replay))
            validation |= {
                f"{name}_{alpha:g}": round(value, 4)
                for name, value in (("found", found[alpha]), ("kept", kept[alpha]))
                if not math.isnan(value)
            }
        alpha = best_share(recipe, found=even(found), kept=even(kept))
        return Chosen(alpha, mixed(old, new, alpha), validation)

    def _with_truth(self) -> list[Member]:
        """Return the pictures for replay with what the old model sees when it may look closer."""
        if not self._replay:
            return []
        teacher = open_teacher(self._model.path)
        return [
            msgspec.structs.replace(
                member,
                labels=teacher.labels,
                boxes=taught(teacher, read_image(self._folder, member)),
                by="self",
            )
            for member in self._replay
        ]


def mixed(old: Weights, new: Weights, alpha: float) -> Weights:
    """Return the weights at a share of the new."""
    return {name: (old[name] + np.float32(alpha) * (new[name] - old[name])).astype(np.float32) for name in new}


def views(member: Member, image: Image, *, pad_value: int) -> Iterator[tuple[Member, Image]]:
    """Yield a picture `[h, w, 3]` as it is, mirrored, and in two smaller sizes, each with what is true on it."""
    yield member, image
    mirrored = tuple(msgspec.structs.replace(box, xyxy=_mirrored(box.xyxy, member.width)) for box in member.boxes)
    yield msgspec.structs.replace(member, boxes=mirrored), np.ascontiguousarray(image[:, ::-1])
    for scale in _SMALLER:
        width, height = (round(side / scale) for side in (member.width, member.height))
        pad = np.full((height, width, 3), pad_value, np.uint8)
        pad[: member.height, : member.width] = image
        yield msgspec.structs.replace(member, width=width, height=height), pad


def look_in_views(detector: Detector, folder: Path, members: Iterable[Member]) -> list[Seen]:
    """Run a detector over each view of the pictures. Raises `UnusableError` as hub.evaluation.seen.look does."""
    pad_value = detector.card.input.pad_value
    return [
        see(detector, shown, image)
        for member in members
        for shown, image in views(member, read_image(folder, member), pad_value=pad_value)
    ]


def seen_share(seen: Sequence[Seen]) -> float:
    """Return AP50, each label by how many true boxes it has; NaN where there is none."""
    if not seen:
        return math.nan
    by_label = precisions(columns(seen, labels=None))
    boxes = Counter(box.label for one in seen for box in one.member.boxes if not box.ignored)
    total = sum(boxes[label] for label in by_label)
    return sum(one.ap50 * boxes[label] for label, one in by_label.items()) / total if total else math.nan


def even(measured: dict[float, float]) -> dict[float, float]:
    """Return what was measured at each share as a parabola has it (least squares); itself where there is NaN or few."""
    if len(measured) <= _PARABOLA + 1 or any(math.isnan(one) for one in measured.values()):
        return measured
    shares, values = np.array(list(measured)), np.array(list(measured.values()))
    smooth = np.polyval(np.polyfit(shares, values, _PARABOLA), shares)
    return dict(zip(measured, smooth.tolist(), strict=True))


def _mirrored(xyxy: Xyxy, width: int) -> Xyxy:
    x1, y1, x2, y2 = xyxy
    return width - x2, y1, width - x1, y2


def best_share(recipe: Recipe, *, found: dict[float, float], kept: dict[float, float]) -> float:
    """Return the share that is chosen; see laws 1 and 3. Where every share forgets too much, the smallest."""
    unknown = math.isnan(found[0.0])
    shares = sorted(one for one in recipe.alphas if not unknown or one <= recipe.alpha) or [min(recipe.alphas)]
    least = max(kept[one] for one in (0.0, *shares)) - recipe.tolerance
    fit = [one for one in shares if math.isnan(least) or kept[one] >= least]
    if not fit:
        return shares[0]
    return max(fit) if unknown else max(fit, key=lambda one: (round(found[one], 3), one))
