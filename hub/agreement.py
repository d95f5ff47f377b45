"""How far annotators agree: with each other, with the answer of the others, and with known answers.

Two annotators are compared on the images that both drew in the same pass, on the labels that both looked for. What is
one object is hub.consolidate's to say. `f1` is the share of all boxes of both that have a partner of the same label,
2 x same / boxes; it is what each would score against the other.

There is no chance correction for finding objects: two people hardly ever draw the same box by chance, and an image has
no number of places where both saw nothing, which such a figure needs. What chance can bring about is that two who drew
the same object give it the same label. So Krippendorff's alpha (nominal, with missing values) is told for the labels of
the objects that two or more drew, as Tschirschwitz and Rodehorst localise first and compare then (2024); Braylan,
Alonso and Lease (2022) show how little an alpha over boxes themselves can be read.

Laws:

1. Figures of pairs do not depend on who is the first of the two, nor on the order of the images.
2. Where there are fewer than hub.shares.LEAST objects, no figure is told.
3. A place where the others do not agree counts neither for nor against an annotator.
4. Reviews and machines are no annotators.
"""

import itertools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from hub.annotation import Annotation
from hub.consolidate import Consensus, consolidate, objects
from hub.shares import LEAST, Share, share_of
from hub.store import Store
from hub.store_labels import Drawn, Honeypot

Looks = Mapping[str, Drawn]
"""Of one image in one pass: what each annotator drew."""


class Pairs(msgspec.Struct, frozen=True, kw_only=True):
    """What pairs of annotators drew on the same images.

    Attributes:
        images: that a pair drew; one that three drew counts three times.
        boxes: of both.
        objects: that one or both drew; of a label: that one or both called so.
        matched: of those, drawn by both, whatever they called them.
        same: those that both called the same.
        f1: 0..1; None: too few.
        mean_iou: of the matched; None: too few.
    """

    images: int
    boxes: int
    objects: int
    matched: int
    same: int
    f1: float | None
    mean_iou: float | None


class PairOf(msgspec.Struct, frozen=True, kw_only=True):
    """Two annotators, in the order of the alphabet."""

    first: str
    second: str
    pairs: Pairs


class Confusion(msgspec.Struct, frozen=True):
    """Objects that one called `first` and another `second`, in the order of the alphabet, and how often."""

    first: str
    second: str
    count: int


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """An annotator against an answer.

    Attributes:
        images: that were compared.
        known: boxes of the answer.
        found: of those, drawn with the right label.
        wrong_label: of those, drawn with another.
        missed: of those, not drawn.
        extra: drawn, and not in the answer.
        found_share: `found` of `known`; None: too few.
        right_share: `found` of all that was drawn; None: too few.
        mean_iou: of what was drawn of `known`; None: too few.
    """

    images: int
    known: int
    found: int
    wrong_label: int
    missed: int
    extra: int
    found_share: Share | None
    right_share: Share | None
    mean_iou: float | None


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How far the annotators of a batch agree.

    Attributes:
        annotators: each with all others.
        labels: by label; a pair of boxes of two labels counts for both.
        passes: by pass, empty for all labels at once.
        pairs: of two and two.
        confusions: the most frequent first.
        label_alpha: Krippendorff's alpha of the labels; None: too few objects, or one label alone.
        others: each against the answer of the others.
        honeypots: each against the known answers.
    """

    annotators: dict[str, Pairs]
    labels: dict[str, Pairs]
    passes: dict[str, Pairs]
    pairs: list[PairOf]
    confusions: list[Confusion]
    label_alpha: float | None
    others: dict[str, Score]
    honeypots: dict[str, Score]


@dataclass(slots=True)
class _Counts:
    """Of pairs: as `Pairs`, to be added to."""

    images: int = 0
    boxes: int = 0
    objects: int = 0
    matched: int = 0
    same: int = 0
    ious: list[float] = field(default_factory=list)

    def told(self) -> Pairs:
        return Pairs(
            images=self.images,
            boxes=self.boxes,
            objects=self.objects,
            matched=self.matched,
            same=self.same,
            f1=round(2 * self.same / self.boxes, 4) if self.objects >= LEAST else None,
            mean_iou=_mean(self.ious),
        )


@dataclass(slots=True)
class _Scored:
    """Of one annotator: as `Score`, to be added to."""

    images: int = 0
    found: int = 0
    wrong_label: int = 0
    missed: int = 0
    extra: int = 0
    ious: list[float] = field(default_factory=list)

    def told(self) -> Score:
        known = self.found + self.wrong_label + self.missed
        return Score(
            images=self.images,
            known=known,
            found=self.found,
            wrong_label=self.wrong_label,
            missed=self.missed,
            extra=self.extra,
            found_share=share_of(self.found, known),
            right_share=share_of(self.found, self.found + self.wrong_label + self.extra),
            mean_iou=_mean(self.ious),
        )


def agreement(store: Store, batch_id: int) -> Agreement:
    """Return how far the annotators of a batch agree. Raises `UnusableError` when there is no such batch."""
    store.batch(batch_id)
    return agreement_of(store.labels.drawn(batch_id), store.labels.honeypots(batch_id))


def agreement_of(drawn: Iterable[Drawn], honeypots: Sequence[Honeypot] = ()) -> Agreement:
    """Return how far those agree who drew this; of sets of one annotator, image and pass only one is given."""
    looks: defaultdict[tuple[str, str], dict[str, Drawn]] = defaultdict(dict)
    for one in drawn:
        if one.label_set.kind == "person":
            looks[one.label_set.label_pass, one.event_id][one.label_set.annotator] = one
    answer_of = {pot.event_id: pot.boxes for pot in honeypots}
    by_name: defaultdict[str, _Counts] = defaultdict(_Counts)
    by_label: defaultdict[str, _Counts] = defaultdict(_Counts)
    by_pass: defaultdict[str, _Counts] = defaultdict(_Counts)
    by_pair: defaultdict[tuple[str, str], _Counts] = defaultdict(_Counts)
    confusions: Counter[tuple[str, str]] = Counter()
    others: defaultdict[str, _Scored] = defaultdict(_Scored)
    pots: defaultdict[str, _Scored] = defaultdict(_Scored)
    named: list[list[str]] = []
    for (label_pass, event_id), look in sorted(looks.items()):
        for first, second in itertools.combinations(sorted(look), 2):
            counts = [by_name[first], by_name[second], by_pass[label_pass], by_pair[first, second]]
            _compare(look[first], look[second], counts=counts, by_label=by_label, confusions=confusions)
        if len(look) > 1:
            named += _names_given(look)
            for name in look:
                _score_by_others(look, name, others[name])
        if event_id in answer_of:
            for name, one in look.items():
                known = [box for box in answer_of[event_id] if box.label in one.label_set.labels]
                _score(one.boxes, known, pots[name])
    return Agreement(
        annotators={name: counts.told() for name, counts in sorted(by_name.items())},
        labels={label: counts.told() for label, counts in sorted(by_label.items())},
        passes={label: counts.told() for label, counts in sorted(by_pass.items())},
        pairs=[PairOf(first=a, second=b, pairs=counts.told()) for (a, b), counts in sorted(by_pair.items())],
        confusions=[
            Confusion(*labels, count) for labels, count in sorted(confusions.items(), key=lambda item: (-item[1], item))
        ],
        label_alpha=label_alpha(named) if len(named) >= LEAST else None,
        others={name: scored.told() for name, scored in sorted(others.items())},
        honeypots={name: scored.told() for name, scored in sorted(pots.items())},
    )


def label_alpha(named: Iterable[Sequence[str]]) -> float | None:
    """Return Krippendorff's alpha, nominal, of the labels that each object was given; None: there is one label alone.

    1 is agreement, 0 is what chance brings. Objects that one annotator drew are left out. (Krippendorff 2011, Computing
    Krippendorff's Alpha-Reliability, section C.)
    """
    units = [Counter(labels) for labels in named if len(labels) > 1]
    of_label: Counter[str] = Counter()
    for unit in units:
        of_label += unit
    total = of_label.total()
    expected = total * total - sum(count * count for count in of_label.values())
    if not expected:
        return None
    unlike = sum(
        (unit.total() ** 2 - sum(count * count for count in unit.values())) / (unit.total() - 1) for unit in units
    )
    return round(1 - (total - 1) * unlike / expected, 4)


def _compare(
    first: Drawn,
    second: Drawn,
    *,
    counts: Sequence[_Counts],
    by_label: Mapping[str, _Counts],
    confusions: Counter[tuple[str, str]],
) -> None:
    """Add what two drew on an image to all that it counts for."""
    labels = _common((first, second))
    for one in (*counts, *(by_label[label] for label in labels)):
        one.images += 1
    for thing in objects({str(at): _of(one.boxes, labels) for at, one in enumerate((first, second))}):
        drew = list(thing.values())
        iou = _iou(*drew) if len(drew) == 2 else None
        given = sorted(box.label for box in drew)
        for one in counts:
            _add(one, boxes=len(drew), same=len(drew) == 2 and given[0] == given[1], iou=iou)
        for label in set(given):
            _add(by_label[label], boxes=given.count(label), same=given.count(label) == 2, iou=iou)
        if len(drew) == 2 and given[0] != given[1]:
            confusions[given[0], given[1]] += 1


def _add(counts: _Counts, *, boxes: int, same: bool, iou: float | None) -> None:
    counts.boxes += boxes
    counts.objects += 1
    counts.same += same
    if iou is not None:
        counts.matched += 1
        counts.ious.append(iou)


def _names_given(look: Looks) -> list[list[str]]:
    """Return the labels that each object of an image was given, of those that two or more drew."""
    labels = _common(look.values())
    things = objects({name: _of(one.boxes, labels) for name, one in look.items()})
    return [[box.label for box in thing.values()] for thing in things if len(thing) > 1]


def _score_by_others(look: Looks, name: str, scored: _Scored) -> None:
    """Add how an annotator stands against the answer of the others; see law 3."""
    labels = _common(look.values())
    rest = consolidate({other: _of(one.boxes, labels) for other, one in look.items() if other != name})
    disputed = [Annotation(one.xyxy, one.labels[0]) for one in rest.disputes]
    _score(_of(look[name].boxes, labels), _undisputed(rest), scored, disputed)


def _undisputed(consensus: Consensus) -> list[Annotation]:
    disputed = {one.xyxy for one in consensus.disputes}
    return [box for box in consensus.boxes if box.xyxy not in disputed]


def _score(
    drew: Iterable[Annotation], known: Sequence[Annotation], scored: _Scored, disputed: Sequence[Annotation] = ()
) -> None:
    scored.images += 1
    for thing in objects({"drawn": list(drew), "known": [*known, *disputed]}):
        answer, box = thing.get("known"), thing.get("drawn")
        if answer in disputed:
            continue
        if answer is None:
            scored.extra += 1
        elif box is None:
            scored.missed += 1
        else:
            scored.ious.append(_iou(answer, box))
            scored.found += answer.label == box.label
            scored.wrong_label += answer.label != box.label


def _common(looks: Iterable[Drawn]) -> list[str]:
    """Return the labels that all looked for."""
    sets = [frozenset(one.label_set.labels) for one in looks]
    return sorted(frozenset.intersection(*sets))


def _of(boxes: Iterable[Annotation], labels: Sequence[str]) -> list[Annotation]:
    return [box for box in boxes if box.label in labels]


def _iou(a: Annotation, b: Annotation) -> float:
    (ax1, ay1, ax2, ay2), (bx1, by1, bx2, by2) = a.xyxy, b.xyxy
    both = max(0.0, min(ax2, bx2) - max(ax1, bx1)) * max(0.0, min(ay2, by2) - max(ay1, by1))
    return both / ((ax2 - ax1) * (ay2 - ay1) + (bx2 - bx1) * (by2 - by1) - both)


def _mean(ious: Sequence[float]) -> float | None:
    return round(math.fsum(ious) / len(ious), 4) if len(ious) >= LEAST else None
