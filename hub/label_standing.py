"""How the labels of a batch stand: who drew what and when, what is missing, where annotators do not agree.

Laws:

1. A label is missing on an image until a person has looked for it there, in a pass or with all others.
2. A set counts for an image as long as no newer one of its kind, annotator and pass has that image.
3. A dispute is one of hub.truth's: a second look has ended it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from hub.agreement import Agreement, agreement_of
from hub.annotation import Xyxy
from hub.batch_view import Member, image_names
from hub.batches import read_batch
from hub.rechecked import is_looked_through, measure
from hub.store import Store
from hub.store_labels import Drawn, Kind
from hub.truth import truths
from hub.viewing import unopened_view


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One import, or one round of machine labels.

    Attributes:
        label_pass: the one label that was looked for; empty: all at once.
        labels: those that were looked for.
        at_ms: UTC milliseconds.
        source: format and file.
        minutes: of people's work; None: not told.
        images: that it has.
        boxes: on all of them.
        counts: the images for which it still counts.
    """

    set_id: int
    kind: Kind
    annotator: str
    label_pass: str
    labels: tuple[str, ...]
    at_ms: int
    source: str
    minutes: float | None
    images: int
    boxes: int
    counts: int


class Missing(msgspec.Struct, frozen=True, kw_only=True):
    """The images on which no person has looked for a label yet, by rank."""

    label: str
    images: tuple[str, ...]


class DisputedPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A dispute of hub.consolidate and the image that it is on."""

    event_id: str
    image: str
    rank: int
    xyxy: Xyxy
    labels: tuple[str, ...]
    annotators: tuple[str, ...]
    kept: bool
    why: str


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """How the labels of a batch stand.

    Attributes:
        images: of the batch, without the known answers mixed into it.
        honeypots: images with known answers.
        minutes: of people's work, of all imports that told them; None: none did.
        labels: those that are asked for, in their fixed order.
        history: every set, oldest first.
        looked_at: how many images of the batch were looked at by how many annotators.
        missing: by label, in their order; only those with missing images.
        agreement: see hub.agreement.
        disputes: by rank.
        rechecks: of the newest list of the audit.
        rechecks_open: of those, not looked at again yet.
        audit_again: the list is looked through, but its images at random say that errors are left, or labels have come
            since.
    """

    batch_id: int
    title: str
    images: int
    honeypots: int
    minutes: float | None
    labels: tuple[str, ...]
    history: tuple[Round, ...]
    looked_at: dict[int, int]
    missing: tuple[Missing, ...]
    agreement: Agreement
    disputes: tuple[DisputedPlace, ...]
    rechecks: int
    rechecks_open: int
    audit_again: bool


def standing(store: Store, batch_id: int, *, labels: tuple[str, ...] = ()) -> Standing:
    """Return how the labels of a batch stand; `labels` are those asked for, without any those that it proposes.

    Raises `UnusableError` when there is no such batch.
    """
    batch = read_batch(store, batch_id)
    view = unopened_view(store, batch.row, batch.members, labels=labels)
    name_of = dict(zip((member.event_id for member in view.members), image_names(view), strict=True))
    drawn = store.labels.drawn(batch_id)
    honeypots = store.labels.honeypots(batch_id)
    rechecks = store.labels.rechecks(batch_id)
    looked = _looked_at(drawn)
    return Standing(
        batch_id=batch_id,
        title=batch.title,
        images=batch.size,
        honeypots=len(honeypots),
        minutes=batch.row.minutes,
        labels=view.asked,
        history=_history(store, batch_id, drawn),
        looked_at=dict(sorted(Counter(len(looked[event_id]) for event_id in name_of).items())),
        missing=_missing(view.asked, drawn, name_of),
        agreement=agreement_of(drawn, honeypots),
        disputes=_disputes(store, batch_id, view.members, name_of),
        rechecks=len(rechecks),
        rechecks_open=sum(one.wrong is None for one in rechecks),
        audit_again=_is_to_audit_again(store, batch_id),
    )


def _is_to_audit_again(store: Store, batch_id: int) -> bool:
    measured = measure(store, batch_id)
    if measured is None or measured.others == measured.drawn.settled:
        return False
    left = 0.0 if measured.remaining is None else measured.remaining[0]
    return left >= 1 or not is_looked_through(store, batch_id)


def _history(store: Store, batch_id: int, drawn: Iterable[Drawn]) -> tuple[Round, ...]:
    sizes = store.labels.sizes(batch_id)
    counts = Counter(one.label_set.id for one in drawn)
    return tuple(
        Round(
            set_id=one.id,
            kind=one.kind,
            annotator=one.annotator,
            label_pass=one.label_pass,
            labels=one.labels,
            at_ms=one.at_ms,
            source=one.source,
            minutes=one.minutes,
            images=sizes.get(one.id, (0, 0))[0],
            boxes=sizes.get(one.id, (0, 0))[1],
            counts=counts[one.id],
        )
        for one in store.labels.sets(batch_id)
    )


def _looked_at(drawn: Iterable[Drawn]) -> Mapping[str, set[str]]:
    """Return the annotators by image."""
    looked: defaultdict[str, set[str]] = defaultdict(set)
    for one in drawn:
        if one.label_set.kind == "person":
            looked[one.event_id].add(one.label_set.annotator)
    return looked


def _missing(labels: Sequence[str], drawn: Iterable[Drawn], name_of: Mapping[str, str]) -> tuple[Missing, ...]:
    looked: defaultdict[str, set[str]] = defaultdict(set)
    for one in drawn:
        if one.label_set.kind != "machine":
            for label in one.label_set.labels:
                looked[label].add(one.event_id)
    found = (
        Missing(label=label, images=tuple(name for event_id, name in name_of.items() if event_id not in looked[label]))
        for label in labels
    )
    return tuple(one for one in found if one.images)


def _disputes(
    store: Store, batch_id: int, members: Sequence[Member], name_of: Mapping[str, str]
) -> tuple[DisputedPlace, ...]:
    known = truths(store, batch_id)
    return tuple(
        DisputedPlace(
            event_id=member.event_id,
            image=name_of[member.event_id],
            rank=member.rank,
            xyxy=one.xyxy,
            labels=one.labels,
            annotators=one.annotators,
            kept=one.kept,
            why=one.why,
        )
        for member in members
        if member.event_id in known
        for one in known[member.event_id].disputes
    )
