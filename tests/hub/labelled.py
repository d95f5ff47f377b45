"""A database with a frozen batch whose frames are here, and ways to draw on it."""

from collections.abc import Mapping, Sequence

from edge.contract.samples import Box, Reason
from edge.contract.topics import Kind
from hub.annotation import Annotation
from hub.store import BatchMember, Store
from hub.store_labels import LabelSet
from tests.hub.made import HEIGHT, WIDTH, arrival, event_id, event_payload, jpeg
from tests.hub.sighted import group

NOW = 1_700_000_100_000


def person(x: float, y: float = 4.0, *, size: float = 10.0, label: str = "person", **more) -> Annotation:
    """A square box."""
    return Annotation((x, y, x + size, y + size), label, **more)


def put(store: Store, *numbers: int, pictures: Mapping[int, bytes] | None = None, **changes) -> None:
    """Commit findings of these numbers with their frames, and group them, each by itself.

    `pictures` has JPEGs in place of `made.jpeg(number)`; give `width` and `height` where they are of another size.
    """
    arrivals = []
    for number in numbers:
        picture = jpeg(number) if pictures is None else pictures[number]
        changed = {"captured_at_ms": NOW + 60_000 * number, "track": f"t{number}", **changes}
        payload = event_payload(number, picture=picture, **changed)
        arrivals.append(arrival(Kind.EVENT, payload + picture, device=changes.get("device", "box")))
    store.commit(arrivals, now_ms=NOW)
    group(store)


def freeze(store: Store, *numbers: int, **changes) -> int:
    """Freeze a batch of these findings, in this order, and return its number."""
    members = []
    for number in numbers:
        row = store.finding(event_id(number))
        assert row.group_id is not None
        members.append(BatchMember(event_id=row.event_id, group_id=row.group_id, why="chosen", gain=1.0))
    return store.freeze_batch(members, now_ms=NOW, title=changes.pop("title", "dark"), **changes)


def made_batch(store: Store, count: int = 4, *, first: int = 1, **changes) -> int:
    """Put and freeze `count` findings numbered from `first` on."""
    numbers = range(first, first + count)
    put(store, *numbers, **changes)
    return freeze(store, *numbers)


def draw(
    store: Store,
    batch_id: int | None,
    images: Mapping[int, Sequence[Annotation]],
    *,
    annotator: str = "ann",
    kind: str = "person",
    label_pass: str = "",
    labels: tuple[str, ...] = ("person", "head"),
    minutes: float | None = None,
) -> int:
    """Store what someone drew, number of the finding to boxes."""
    made = LabelSet(0, batch_id, kind, annotator, label_pass, labels, NOW, "test", minutes)
    return store.labels.add(made, {event_id(number): boxes for number, boxes in images.items()})


__all__ = ["HEIGHT", "NOW", "WIDTH", "Box", "Reason", "draw", "event_id", "freeze", "made_batch", "person", "put"]
