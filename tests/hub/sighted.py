"""A database with sightings, through the ingest and the curator: what is missed where, and what is found there."""

from collections.abc import Iterator, Sequence
from itertools import count

from edge.contract.samples import Box, Reason, WitnessKind
from edge.contract.topics import Kind
from hub.config import WantsConfig
from hub.curator import Curator
from hub.dedupe import DuplicateIndex
from hub.store import Store
from hub.tags import Tagger, TagsConfig
from tests.hub.made import arrival, event_payload

NOW = 1_700_000_000_000
BOXES = 20
TAGGER = Tagger(TagsConfig())
_numbers: Iterator[int] = count(1)


class Silent:
    """The way to devices that nobody asks."""

    def want(self, site, device, want) -> None:
        pass


def curator(store: Store, **changes) -> Curator:
    return Curator(store, make_index=DuplicateIndex, line=Silent(), wants=WantsConfig(), tagger=TAGGER, **changes)


def group(store: Store) -> None:
    """Group all that was committed, as the curator does."""
    now = curator(store)
    while now._group():
        pass


def sight(
    store: Store,
    *,
    missed: Sequence[tuple[str, int]] = (),
    found: Sequence[tuple[str, int]] = (),
    overlooked: Sequence[tuple[str, int]] = (),
    at_ms: int = NOW,
    step_ms: int = 1000,
    device: str = "box",
    **changes,
) -> None:
    """Commit and group: missed events and objects of control frames, so many of each kind (its tags in one string).

    Each event, or frame with up to `BOXES` objects, is captured `step_ms` after the one before, from `at_ms` on.
    """
    moments = count(at_ms, step_ms)
    payloads = [
        _event(moments, device=device, reason=Reason.MISSED, tags=tuple(tags.split()), **changes)
        for tags, times in missed
        for _ in range(times)
    ]
    for objects, witness in ((found, None), (overlooked, WitnessKind.ZOOM)):
        boxes = [
            Box((1.0, 2.0, 30.0, 40.0), "person", 0.9, witness=witness, tags=tuple(tags.split()))
            for tags, times in objects
            for _ in range(times)
        ]
        for start in range(0, len(boxes), BOXES):
            control = {"reason": Reason.CONTROL, "looked_twice": True, "boxes": tuple(boxes[start : start + BOXES])}
            payloads.append(_event(moments, device=device, **control, **changes))
    store.commit([arrival(Kind.EVENT, payload, device=device) for payload in payloads], now_ms=NOW)
    group(store)


def _event(moments: Iterator[int], **changes) -> bytes:
    return event_payload(next(_numbers), captured_at_ms=next(moments), **changes)


def weak(store: Store, *, at_ms: int = NOW, times: int = 1, **changes) -> None:
    """Sight what is small in the dark missed often, anything else seldom."""
    sight(
        store,
        missed=[("dark small", 60 * times), ("dark medium", 30 * times), ("medium", 40 * times), ("small", 20 * times)],
        found=[("dark small", 20 * times), ("dark medium", 60 * times), ("medium", 150 * times), ("small", 60 * times)],
        overlooked=[("dark small", 20 * times), ("medium", 10 * times)],
        at_ms=at_ms,
        **changes,
    )


def mended(store: Store, *, at_ms: int, times: int = 3, **changes) -> None:
    """Sight what is small in the dark missed as seldom as the rest."""
    alike = [("dark small", 30 * times), ("dark medium", 20 * times), ("medium", 30 * times), ("small", 20 * times)]
    sight(store, missed=alike, found=alike, overlooked=[("dark small", 4 * times)], at_ms=at_ms, **changes)
