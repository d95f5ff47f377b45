"""The labelled images as what a training can see: every box with who says so, every image with its weak spots and tags.

Laws:

1. What counts is hub.truth's answer. A place where annotators do not agree is neither an object nor background.
2. What was drawn at random measures, as the test share does: both are `test`, and nothing of either is trained on.
3. An image that the test knows (hub.leaks) is on no side.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from edge.contract.samples import Reason, Xyxy
from hub.annotation import MIN_SIDE_PX, Annotation
from hub.datasets.version import Member, MemberBox, Origin, Split
from hub.label_table import label_table
from hub.leaks import leaks
from hub.store import FindingRow, Store
from hub.store_health import LabelledRow
from hub.tags import Taggable, Tagger, join_tags
from hub.testshare import is_test
from hub.truth import Truth, truths
from hub.weakspots import WeakSpot, belongs

_RANKS: tuple[Origin, ...] = ("review", "person", "machine")


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame of the hub's and what is known of it.

    Attributes:
        row: its finding; `test` and `random` as they count.
        truth: what leaks are told by.
        boxes: of `truth.labels`, each with its origin.
        by: the highest rank among those who say so.
        sha256: of the JPEG, hexadecimal.
        weak_spots: of which it is.
        tags: of the device, the hub and the user.
    """

    row: LabelledRow
    truth: Truth
    boxes: tuple[MemberBox, ...]
    by: Origin
    sha256: str
    weak_spots: tuple[int, ...]
    tags: tuple[str, ...]

    @property
    def event_id(self) -> str:
        """Of its finding."""
        return self.row.event_id

    @property
    def is_test(self) -> bool:
        """Whether it is never trained on."""
        return self.row.random or bool(self.row.test)

    @property
    def camera(self) -> str:
        """The camera as "site/device/camera"."""
        return f"{self.row.site}/{self.row.device}/{self.row.camera}"


class Marks:
    """Tells the weak spots and the tags of findings."""

    def __init__(self, spots: Sequence[WeakSpot], tagger: Tagger) -> None:
        self._spots = spots
        self._tagger = tagger

    def of(self, one: FindingRow) -> tuple[tuple[int, ...], tuple[str, ...]]:
        """Return the numbers of the weak spots, ascending, and the tags; of a `control` also those of its objects."""
        things: list[Taggable] = [one, *(_objects(one) if one.reason is Reason.CONTROL else ())]
        spots = tuple(spot.id for spot in self._spots if any(self.has(spot, thing) for thing in things))
        return spots, tuple(dict.fromkeys(tag for thing in things for tag in self._tagger.tags(thing)))

    def has(self, spot: WeakSpot, one: Taggable) -> bool:
        """Whether a finding, or one object of it, is of the weak spot."""
        return belongs(spot, one, self._tagger)


def labelled_shots(store: Store, marks: Marks) -> tuple[list[Shot], int]:
    """Return every labelled image whose frame is here, in order of coming, and how many frames are not."""
    answers = truths(store)
    origins = _origins(store)
    spot_of = {row.id: row.weak_spot_id for row in store.batches()}
    found, gone = [], 0
    for row in store.labelled.images():
        truth = answers.get(row.event_id)
        if truth is None:
            continue
        if not row.here:
            gone += 1
            continue
        known = store.finding(row.event_id)
        spots, tags = marks.of(known)
        of_batch = spot_of.get(row.batch_id) if row.batch_id is not None else None
        found.append(
            Shot(
                row=row._replace(test=_is_test(row)),
                truth=truth,
                boxes=tuple(_boxes(truth, origins[row.event_id])),
                by=truth.by,
                sha256=known.finding().frame_sha256,
                weak_spots=tuple(sorted({*spots, *(() if of_batch is None else (of_batch,))})),
                tags=tags,
            )
        )
    return found, gone


def taught_shot(
    store: Store, event_id: str, boxes: tuple[MemberBox, ...], *, labels: Iterable[str], marks: Marks
) -> Shot:
    """Return an unlabelled frame with the boxes that a detector's second look has found for these labels."""
    known = store.finding(event_id)
    finding = known.finding()
    spots, tags = marks.of(known)
    row = LabelledRow(
        event_id=event_id,
        site=known.site,
        device=known.device,
        camera=known.camera,
        captured_at_ms=known.captured_at_ms,
        reason=known.reason,
        region=known.region,
        width=known.width,
        height=known.height,
        tags=known.tags,
        frame_hash=known.frame_hash,
        model=known.model,
        group_id=known.group_id,
        here=True,
        batch_id=None,
        test=False,
        random=False,
        light=finding.light,
        boxes=finding.boxes,
        score_threshold=finding.score_threshold,
    )
    sure = tuple(Annotation(box.xyxy, box.label) for box in boxes if not box.ignored and _can_be_drawn(box.xyxy))
    truth = Truth(event_id, sure, frozenset(labels), "machine", ())
    return Shot(row, truth, boxes, "self", finding.frame_sha256, spots, tags)


def leaking(shots: Sequence[Shot], *, tagger: Tagger) -> frozenset[str]:
    """Return the event ids of those that are no test and that the test knows."""
    rows = [shot.row._replace(random=False, test=shot.is_test) for shot in shots]
    answers = {shot.event_id: shot.truth for shot in shots}
    table = label_table(rows, answers, zone=tagger.zone, input_size=(1, 1), stated={})  # no size of it is asked for
    return frozenset(leak.train for leak in leaks(table))


def member_of(shot: Shot, split: Split, *, order: Mapping[str, int]) -> Member:
    """Return the member; `order` has the place of each label."""
    return Member(
        name=shot.event_id,
        sha256=shot.sha256,
        width=shot.row.width,
        height=shot.row.height,
        split=split,
        labels=tuple(sorted(shot.truth.labels, key=order.__getitem__)),
        boxes=shot.boxes,
        by=shot.by if shot.truth.labels else "",
        camera=shot.camera,
        captured_at_ms=shot.row.captured_at_ms,
        event_id=shot.event_id,
        weak_spots=shot.weak_spots,
        tags=shot.tags,
    )


def label_order(known: Collection[str], model_labels: Sequence[str]) -> tuple[str, ...]:
    """Return the known labels: those of the model in its order, then the others by the alphabet."""
    return (*(label for label in dict.fromkeys(model_labels) if label in known), *sorted({*known} - {*model_labels}))


class _Object(NamedTuple):
    """One object of a `control` frame, as tags can be told of it."""

    site: str
    device: str
    camera: str
    label: str
    captured_at_ms: int
    place: Xyxy
    tags: str


def _objects(one: FindingRow) -> Iterator[_Object]:
    for box in one.finding().boxes:
        if box.tags:
            x1, y1, x2, y2 = box.xyxy
            place = x1 / one.width, y1 / one.height, x2 / one.width, y2 / one.height
            yield _Object(one.site, one.device, one.camera, box.label, one.captured_at_ms, place, join_tags(box.tags))


def _origins(store: Store) -> dict[str, dict[str, Origin]]:
    """Return who answers each label of each image, by event id and label: see law 1 of hub.truth."""
    found: dict[str, dict[str, Origin]] = {}
    for one in store.labels.answers():
        known = found.setdefault(one.event_id, {})
        for label in one.label_set.labels:
            kind = one.label_set.kind
            if label not in known or _RANKS.index(kind) < _RANKS.index(known[label]):
                known[label] = kind
    return found


def _boxes(truth: Truth, origins: Mapping[str, Origin]) -> Iterator[MemberBox]:
    doubtful = {dispute.xyxy for dispute in truth.disputes}
    for box in truth.boxes:
        ignored = box.xyxy in doubtful
        yield MemberBox(
            xyxy=box.xyxy, label=box.label, origin=origins[box.label], score=_score(box, origins), ignored=ignored
        )
    for dispute in truth.disputes:
        if not dispute.kept:
            label = dispute.labels[0]
            yield MemberBox(xyxy=dispute.xyxy, label=label, origin=origins[label], ignored=True)


def _score(box: Annotation, origins: Mapping[str, Origin]) -> float | None:
    return box.score if origins[box.label] == "machine" else None


def _is_test(row: LabelledRow) -> bool:
    if row.test is not None:
        return row.test
    return is_test(site=row.site, device=row.device, camera=row.camera, captured_at_ms=row.captured_at_ms)


def _can_be_drawn(xyxy: Xyxy) -> bool:
    return min(xyxy[2] - xyxy[0], xyxy[3] - xyxy[1]) >= MIN_SIDE_PX + 0.01
