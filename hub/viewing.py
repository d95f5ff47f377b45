"""A batch as an annotator is to see it: its frames, what is known of them, and the known answers mixed in.

Law: the same database gives the same view. Only the first view with honeypots writes: it draws them for good.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from hub.annotation import Annotation
from hub.batch_view import BatchView, Earlier, Member
from hub.honeypots import draw, known_before
from hub.passes import Pass
from hub.store import BatchMember, BatchRow, Store
from hub.store_labels import Annotated, Drawn, Honeypot
from hub.truth import Truth, truth_of, truths

_NONE_SETTLED: Final = (
    "no honeypots: no image of an earlier batch has a settled answer for all labels yet; a second look"
    " (`hub labels import --review`) or a second annotator settles one"
)


def view_of(
    store: Store,
    batch: BatchRow,
    frozen: Sequence[BatchMember],
    *,
    labels: tuple[str, ...],
    label_pass: str,
    honeypots: int,
) -> BatchView:
    """Return the view of a frozen batch. Raises `UnusableError`; see `hub.batches.batch_view` for the arguments."""
    plain = replace(unopened_view(store, batch, frozen, labels=labels), label_pass=label_pass)
    turn = plain.this_pass
    pots, notes = _honeypots(store, plain, honeypots)
    everyone = _for_measuring(batch, _mixed(store, plain.members, pots))  # known answers, too: nothing tells them apart
    view = replace(plain, members=tuple(replace(one, jpeg=store.frame(one.event_id)) for one in everyone))
    if turn is not None:
        view = _with_context(store, view, turn)
        notes += [
            f"the pass {label} comes before and has no answer yet for {count} of {len(view.members)} images:"
            " nothing of it is shown there"
            for label, count in view.unanswered
        ]
    return replace(view, members=_with_earlier(store, view), notes=tuple(notes))


def unopened_view(
    store: Store, batch: BatchRow, frozen: Sequence[BatchMember], *, labels: tuple[str, ...]
) -> BatchView:
    """Return a frozen batch without its pictures and known answers, for the names of its images and its labels."""
    return BatchView(
        id=batch.id,
        title=batch.title,
        model=batch.model,
        members=_for_measuring(batch, [_member(store, member) for member in frozen]),
        size=batch.size,
        random=batch.random,
        labels=labels,
    )


def _for_measuring(batch: BatchRow, members: Sequence[Member]) -> tuple[Member, ...]:
    """Mark every image of a random batch as one that is never trained on."""
    return tuple(replace(member, test=True) for member in members) if batch.random else tuple(members)


def _member(store: Store, member: BatchMember) -> Member:
    """Return the member without its picture."""
    row = store.finding(member.event_id)
    return Member(
        event_id=row.event_id,
        site=row.site,
        device=row.device,
        camera=row.camera,
        captured_at_ms=row.captured_at_ms,
        reason=row.reason.value,
        severity=row.severity,
        why=member.why,
        region=row.region,
        label=row.label,
        boxes=row.finding().boxes,
        jpeg=b"",
        width=row.width,
        height=row.height,
        test=member.test,
        rank=member.rank,
    )


def _honeypots(store: Store, view: BatchView, wanted: int) -> tuple[list[Honeypot], list[str]]:
    """Return those of the batch, drawn now where it has none yet, and what is to be said of them."""
    there = store.labels.honeypots(view.id)
    fresh = not there
    if fresh and wanted:
        known = known_before(store, view.id, view.asked)
        store.labels.freeze_honeypots(view.id, draw(known, wanted, batch_id=view.id, members=view.members))
        there = store.labels.honeypots(view.id)
    if not there:
        return [], [_NONE_SETTLED] * (wanted > 0)
    notes = [
        f"{len(there)} of the images are honeypots, the same in every export of this batch; the annotator is not told"
    ]
    if fresh and len(there) < wanted:
        notes.append(f"asked for {wanted} honeypots: no more images of earlier batches have a settled answer yet")
    elif wanted not in {0, len(there)}:
        notes.append(f"asked for {wanted} honeypots: those of this batch were drawn before, and stay")
    return there, notes


def _mixed(store: Store, members: Sequence[Member], pots: Sequence[Honeypot]) -> tuple[Member, ...]:
    """Return members and honeypots by rank. The latter say why they were chosen for the batch that they are of."""
    once = {
        member.event_id: member
        for batch in store.batches()
        for member in (store.batch_members(batch.id) if pots else ())
    }
    mixed = [replace(_member(store, once[pot.event_id]), rank=pot.rank, honeypot=True) for pot in pots]
    return tuple(sorted([*members, *mixed], key=lambda member: (member.rank, member.event_id)))


def _with_context(store: Store, view: BatchView, turn: Pass) -> BatchView:
    """Return the view with what the passes before have drawn, and with the labels that are missing.

    A honeypot shows what was drawn on it in this batch, as the others do, and not what is known of it.
    """
    known = truths(store, view.id)
    drawn_here = defaultdict[str, list[Drawn]](list)
    pots = {member.event_id for member in view.members if member.honeypot}
    for one in store.labels.drawn(view.id):
        if one.event_id in pots and one.label_set.labels:
            drawn_here[one.event_id].append(one)
    known |= {event_id: truth_of(event_id, drawn) for event_id, drawn in drawn_here.items()}
    members = tuple(replace(one, context=turn.context(_boxes(known.get(one.event_id)))) for one in view.members)
    all_of_them = [known.get(one.event_id) for one in members]
    missing = ((label, sum(not truth or label not in truth.labels for truth in all_of_them)) for label in turn.before)
    return replace(view, members=members, unanswered=tuple((label, count) for label, count in missing if count))


def _boxes(truth: Truth | None) -> tuple[Annotation, ...]:
    return () if truth is None else truth.boxes


def _with_earlier(store: Store, view: BatchView) -> tuple[Member, ...]:
    """Return the members with the annotated frames that each may carry boxes over from."""
    of_camera = defaultdict[tuple[str, str, str], list[Annotated]](list)
    for one in store.labels.annotated():
        of_camera[one.site, one.device, one.camera].append(one)
    answers: dict[int, dict[str, Truth]] = {}
    asked = (view.label_pass,) if view.label_pass else view.asked
    found = []
    for member in view.members:
        annotated = of_camera[member.site, member.device, member.camera]
        labels = defaultdict[tuple[int, str], set[str]](set)
        for label in asked:
            if (source := nearest(annotated, member, label)) is not None:
                labels[source.batch_id, source.event_id].add(label)
        earlier = []
        for (batch_id, event_id), wanted in sorted(labels.items()):
            if batch_id not in answers:
                answers[batch_id] = truths(store, batch_id)
            boxes = tuple(box for box in _boxes(answers[batch_id].get(event_id)) if box.label in wanted)
            if boxes:
                earlier.append(Earlier(event_id, store.frame(event_id), boxes))
        found.append(replace(member, earlier=tuple(earlier)))
    return tuple(found)


def nearest(annotated: Sequence[Annotated], member: Member, label: str) -> Annotated | None:
    """Return the last frame of a camera that was annotated for `label` before this one was taken, else the first after.

    Never the member itself.
    """
    at = member.captured_at_ms
    others = [one for one in annotated if one.event_id != member.event_id and label in one.labels]
    before = [one for one in others if one.captured_at_ms <= at]
    if before:
        return max(before, key=lambda one: (one.captured_at_ms, one.event_id))
    return min(others, key=lambda one: (one.captured_at_ms, one.event_id), default=None)
