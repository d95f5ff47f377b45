"""Batches that are drawn, not chosen: what rates are measured on.

Laws:

1. Each picture that can be opened, and that no person has been given, is in the batch with the same probability,
   whatever is on it and whatever a machine said of it.
2. It is frozen as every batch, with `BatchRow.random`.

What is measured on such a batch is true of the images that were here when it was drawn. A model that was trained on it
cannot be measured on it.
"""

import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

from edge.contract.errors import UnusableError, WeakspotError
from hub.batch_titles import by_count
from hub.batches import Batch, NothingToChooseError, read_batch
from hub.candidates import pictures, require_useful
from hub.store import BatchMember, Candidate, Store

TITLE: Final = "drawn at random"
DEFAULT_SIZE: Final = 200


def random_batch(
    store: Store, *, size: int = DEFAULT_SIZE, rng: random.Random | None = None, now_ms: int | None = None
) -> Batch:
    """Draw `size` images and freeze them. `rng` is for tests: without one the draw cannot be foretold.

    Raises `NothingToChooseError` when there is none, `UnusableError` when the size is not at least 1.
    """
    if size < 1:
        msg = f"a batch of {size} images: the size must be at least 1"
        raise UnusableError(msg)
    drawn: list[Candidate] = []
    refused = 0
    for row in shuffled(store, rng or random.SystemRandom()):
        if can_be_opened(store, row):
            drawn.append(row)
        else:
            refused += 1
        if len(drawn) == size:
            break
    if not drawn:
        msg = "nothing to draw from: no frame is here that no person has; let `hub serve` and the devices run"
        raise NothingToChooseError(msg)
    models = sorted(Counter(row.model for row in drawn).items(), key=by_count)
    number = store.freeze_batch(
        [BatchMember(row.event_id, row.group_id, TITLE, 0.0) for row in drawn],
        now_ms=time.time_ns() // 1_000_000 if now_ms is None else now_ms,
        title=TITLE,
        model=", ".join(model for model, _ in models),
        random=True,
    )
    batch = read_batch(store, number)
    return Batch(batch.row, batch.members, tuple(_notes(len(drawn), size=size, refused=refused)))


def shuffled(store: Store, rng: random.Random) -> Iterator[Candidate]:
    """Yield what no person has been given, each picture once, in random order."""
    rows = store.population()
    once = dict(zip(reversed(pictures(rows)), reversed(rows), strict=True))
    left = [once[picture] for picture in sorted(once)]
    rng.shuffle(left)
    yield from left


def can_be_opened(store: Store, row: Candidate) -> bool:
    """Whether an annotator can work on it."""
    try:
        require_useful(store.finding(row.event_id).finding(), store.frame(row.event_id))
    except WeakspotError:
        return False
    return True


def _notes(drawn: int, *, size: int, refused: int) -> Iterator[str]:
    if drawn < size:
        yield f"asked for {size}: there is no other picture here that no person has"
    if refused:
        yield f"{refused} frame{'s' * (refused != 1)} passed over that nobody can annotate"
    yield "each picture was as likely as the others: label all of them, and train on none"
