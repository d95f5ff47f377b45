"""What annotators bring back, taken into the database: strict, and kind about it.

A file answers one batch. Its images are found by the names that the export gave them, whatever folder or suffix a tool
has put around them. Every fault is named before anything is refused.

What is stored is a label set: who drew, which labels were looked for, the boxes of each image that the file has, also
of those with none. What a person returns is the person's: score and origin of the box that it started from are gone. A
later import replaces an earlier one of the same annotator and pass image by image; both stay in the history.

Laws:

1. All of a file is stored, with all that follows from it, or nothing.
2. What was exported and comes back untouched is stored as it was written, but for score and origin.
3. What the batch does not have, has in another size, or was not asked for is never stored.
4. A weak spot is annotated when a person has looked at every image of the batch for every label asked for.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edge.contract.errors import UnusableError
from hub.annotation import Annotation
from hub.batch_view import BatchView
from hub.batches import batch_view
from hub.export import Format, open_picture
from hub.formats import Source
from hub.label_answers import Answer, Boxes, read_answer
from hub.label_faults import SAME_IOU, FaultsError, overlap
from hub.pre_labels import pre_labels
from hub.rechecked import changes, settle
from hub.store import Store
from hub.store_labels import Kind, LabelSet
from hub.truth import truths
from hub.weakspots import SpotState, advance, weak_spot

__all__ = ["Changed", "FaultsError", "ImportReport", "import_labels"]


@dataclass(frozen=True, slots=True)
class Changed:
    """What an import changed against the earlier one of the same annotator: how many images and boxes."""

    images: int
    added: int
    removed: int
    moved: int
    relabelled: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportReport:
    """What an import stored.

    Attributes:
        batch_id: of the batch.
        format: of the file.
        set_ids: a label set for each annotator.
        annotators: who drew, in the same order.
        labels: those that were looked for.
        images: how many were answered, for each annotator anew.
        boxes: how many boxes they have.
        proposed: how many boxes the annotators started from, on these images and of these labels.
        kept: how many of those came back untouched.
        missing: names of the images of the batch that nobody answered in this file.
        changed: against the earlier import; None where there was none.
        fixed: what was repaired, a line for each image.
        notes: what whoever imported should know, one sentence each.
    """

    batch_id: int
    format: str
    set_ids: tuple[int, ...]
    annotators: tuple[str, ...]
    labels: tuple[str, ...]
    images: int
    boxes: int
    proposed: int
    kept: int
    missing: tuple[str, ...]
    changed: Changed | None
    fixed: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def set_id(self) -> int:
        """The number of the first label set, of most files the only one."""
        return self.set_ids[0]


def import_labels(  # noqa: PLR0913  # all that can be told of an import
    store: Store,
    source: Source,
    *,
    batch_id: int,
    annotator: str = "",
    label_pass: str = "",
    review: bool = False,
    minutes: float | None = None,
    fmt: Format | None = None,
    fix: bool = False,
    labels: Sequence[str] = (),
    now_ms: int,
    source_name: str = "",
    alongside: Callable[[], None] = lambda: None,
) -> ImportReport:
    """Take an annotator's file, ZIP, folder, or its files by path, into the database.

    Args:
        store: the database.
        source: what the annotator returned.
        batch_id: the batch that it answers.
        annotator: who drew. Of a file that says who drew what (Label Studio), the one whose work is taken; empty: each
            annotator of the file gets a label set.
        label_pass: the one label that was asked for; empty: all at once.
        review: it is a second look at what the audit pointed to: it outranks annotators.
        minutes: of people's work; several annotators share them evenly.
        fmt: None: recognised by content.
        fix: repair what is safe; see hub.label_faults.
        labels: those that are asked for, in their fixed order; empty: those that its boxes propose.
        now_ms: UTC milliseconds.
        source_name: what the file is called in the history; empty: its name.
        alongside: is called within the one transaction that stores it all; what it raises undoes it.

    Raises:
        FaultsError: with everything that is wrong in the file; nothing is stored then.
        UnusableError: when there is no such batch, or the file as a whole cannot be read.
    """
    view = batch_view(store, batch_id, labels=tuple(labels), label_pass=label_pass)
    answer = read_answer(source, view, fmt=fmt, annotator=annotator, fix=fix, gone=_gone(store, view))
    kind: Kind = "review" if review else "person"
    if review:
        answer = _reviewed(store, view, answer)
    earlier = _earlier(store, view, kind=kind)
    name = source_name or (source.name if isinstance(source, Path) else "files")
    each = None if minutes is None else minutes / len(answer.drawn)
    about = LabelSet(0, batch_id, kind, "", label_pass, answer.labels, now_ms, f"{answer.format}: {name}", each)
    left_out = {
        name: why for name, member in answer.missing if (why := _unusable(member.jpeg, member.width, member.height))
    }
    notes = [*answer.notes, *(f"{name} was never exported: {why}" for name, why in left_out.items())]
    with store.at_once():
        set_ids = store.labels.add_all([(about._replace(annotator=who), drawn) for who, drawn in answer.drawn.items()])
        if review:
            settled = settle(store, batch_id, {event_id for drawn in answer.drawn.values() for event_id in drawn})
            notes.append(f"{settled} re-checks of the audit are settled")
        passed = {member.event_id for name, member in answer.missing if name in left_out}
        notes += _advanced(store, view, passed=passed, now_ms=now_ms)
        alongside()
    missing = tuple(name for name, _ in answer.missing if name not in left_out)
    return _report(view, answer, set_ids=set_ids, missing=missing, changed=_changed(earlier, answer), notes=notes)


def _gone(store: Store, view: BatchView) -> frozenset[int]:
    """Return the ranks under which images may have been forgotten after the batch was frozen."""
    row = store.batch(view.id)
    ranks = frozenset(range(1, row.size + 1))
    if row.forgotten_honeypots:  # they were mixed in under the ranks of others
        return ranks
    return ranks - {member.rank for member in view.members} if row.forgotten else frozenset()


def _report(
    view: BatchView,
    answer: Answer,
    *,
    set_ids: Sequence[int],
    missing: tuple[str, ...],
    changed: Changed | None,
    notes: Sequence[str],
) -> ImportReport:
    proposed, kept = _kept(view, answer)
    return ImportReport(
        batch_id=view.id,
        format=answer.format.value,
        set_ids=tuple(set_ids),
        annotators=tuple(answer.drawn),
        labels=answer.labels,
        images=sum(map(len, answer.drawn.values())),
        boxes=sum(len(boxes) for drawn in answer.drawn.values() for boxes in drawn.values()),
        proposed=proposed,
        kept=kept,
        missing=missing,
        changed=changed,
        fixed=answer.fixed,
        notes=tuple(notes),
    )


def _reviewed(store: Store, view: BatchView, answer: Answer) -> Answer:
    """Leave out what nobody looked at again: images that the audit did not point to and that are as they were."""
    pointed_to = {one.event_id for one in store.labels.rechecks(view.id)}
    if not pointed_to:
        return answer
    known = truths(store, view.id)

    def looked_at(event_id: str, boxes: Sequence[Annotation]) -> bool:
        if event_id in pointed_to or event_id not in known:
            return True
        before = [box for box in known[event_id].boxes if box.label in answer.labels]
        return _untouched(before, boxes) < max(len(before), len(boxes))

    drawn: dict[str, Boxes] = {
        who: {event_id: boxes for event_id, boxes in images.items() if looked_at(event_id, boxes)}
        for who, images in answer.drawn.items()
    }
    left = sum(map(len, answer.drawn.values())) - sum(map(len, drawn.values()))
    drawn = {who: images for who, images in drawn.items() if images}
    if not drawn:
        msg = f"no image of the re-check list of batch {view.id} is in it, and nothing else has changed"
        raise UnusableError(msg)
    note = f"{left} images are not on the re-check list and as they were: they do not count as reviewed"
    return replace(answer, drawn=drawn, notes=(*answer.notes, *[note] * bool(left)))


def _earlier(store: Store, view: BatchView, *, kind: Kind) -> dict[tuple[str, str], Sequence[Annotation]]:
    """Return what counts of the imports before this one, by annotator and event id."""
    return {
        (one.label_set.annotator, one.event_id): one.boxes
        for one in store.labels.drawn(view.id)
        if one.label_set.kind == kind and one.label_set.label_pass == view.label_pass
    }


def _changed(earlier: dict[tuple[str, str], Sequence[Annotation]], answer: Answer) -> Changed | None:
    counts: Counter[str] = Counter()
    known = False
    for who, images in answer.drawn.items():
        for event_id, boxes in images.items():
            before = earlier.get((who, event_id))
            known |= before is not None
            left, right = Counter(before or ()), Counter(boxes)
            gone, new = list((left - right).elements()), list((right - left).elements())
            kinds = Counter(change.kind for change in changes(gone, new))
            counts["images"] += bool(gone or new)
            counts["moved"] += len(new) - kinds["added"] - kinds["relabelled"]
            counts += Counter({kind: kinds[kind] for kind in ("added", "removed", "relabelled")})
    if not known:
        return None
    return Changed(*(counts[one] for one in ("images", "added", "removed", "moved", "relabelled")))


def _kept(view: BatchView, answer: Answer) -> tuple[int, int]:
    """Return how many boxes were proposed on the images that were answered, and how many came back untouched."""
    members = {member.event_id: member for member in view.members}
    proposed = kept = 0
    for images in answer.drawn.values():
        for event_id, boxes in images.items():
            before = pre_labels(members[event_id], labels=answer.labels, dropped=Counter())
            proposed += len(before)
            kept += _untouched(before, boxes)
    return proposed, kept


def _untouched(before: Sequence[Annotation], after: Sequence[Annotation]) -> int:
    """Return how many boxes have the same label and, but for rounding, the same place in both."""
    alike = overlap([box.xyxy for box in before], [box.xyxy for box in after]) >= SAME_IOU
    return sum(
        any(same and box.label == other.label for same, other in zip(row, after, strict=True))
        for row, box in zip(alike, before, strict=True)
    )


def _unusable(jpeg: bytes, width: int, height: int) -> str:
    """Return why an export leaves the image out; empty when it does not."""
    try:
        open_picture(jpeg, width=width, height=height)
    except UnusableError as error:
        return str(error)
    return ""


def _advanced(store: Store, view: BatchView, *, passed: set[str], now_ms: int) -> list[str]:
    """Take the weak spot of the batch to `annotated` when nothing is left to look at, and say what is left.

    `passed` are the event ids of images that no export can have.
    """
    looked: defaultdict[str, set[str]] = defaultdict(set)
    for one in store.labels.drawn(view.id):
        if one.label_set.kind != "machine":
            looked[one.event_id] |= set(one.label_set.labels)
    own = [m.event_id for m in view.members if not m.honeypot and m.event_id not in passed]
    left = Counter(label for event_id in own for label in view.asked if label not in looked[event_id])
    if left:
        images = ", ".join(f"{label} on {count}" for label, count in left.items())
        return [f"not yet looked for in the batch: {images} of {len(own)} images"]
    spot_id = store.batch(view.id).weak_spot_id
    if spot_id is None or weak_spot(store, spot_id).state is not SpotState.BATCHED:
        return []
    advance(store, spot_id, SpotState.ANNOTATED, now_ms=now_ms, note=f"labels of batch {view.id} imported")
    return [f"the batch is complete: weak spot {spot_id} is `annotated`"]
