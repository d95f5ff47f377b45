"""The audit of a batch: what is probably wrong in its labels, which images to look at again, whether that was right.

    onlooker = Onlooker.open()
    audited = audit_batch(store, onlooker, batch_id)        # every image, the likeliest wrong first
    rechecks = list_rechecks(store, batch_id, audited, now_ms=now_ms)
    ...                                                     # a person looks again: a label set of kind `review`
    settle(store, batch_id, event_ids)
    measured = measure(store, batch_id)

Laws:

1. A list of re-checks ends with `RANDOM` images drawn at random from all that the audit did not pick, or all of them
   where there are fewer: so it shows what the audit overlooks.
2. A list depends on the labels and the opinions, and on nothing else: asked twice, there is one list.
3. What people drew on images with known answers is not audited: their answers are known.
"""

import random
import time
from collections.abc import Callable, Sequence
from typing import Final

from edge.contract.errors import UnusableError
from hub.inspection import Inspected, inspect
from hub.opinions import Onlooker, opinions
from hub.rechecked import measure, settle
from hub.refitting import odds_of, page_of
from hub.store import Store
from hub.store_labels import Recheck
from hub.truth import truths

__all__ = ["audit_batch", "chosen", "list_rechecks", "measure", "settle"]

RANDOM: Final = 5
PICKS: Final = 0.2  # of the images


def audit_batch(
    store: Store, onlooker: Onlooker, batch_id: int, *, on_image: Callable[[], None] = lambda: None
) -> list[Inspected]:
    """Return what the labels of a batch are worth, the image that is likeliest wrong first.

    The model looks at the images that it has not seen yet; `on_image` is called after each. Raises `UnusableError` when
    nobody has labelled an image of the batch, or a frame is not here.
    """
    batch = store.batch(batch_id)
    known = truths(store, batch.id)
    if not known:
        msg = f"nobody has labelled an image of batch {batch_id} yet: `hub labels import FILE --batch {batch_id}`"
        raise UnusableError(msg)
    seen = opinions(store, onlooker, known, on_image=on_image)
    pages = [page_of(store, truth, seen[event_id]) for event_id, truth in known.items()]
    labels = frozenset(onlooker.labels)
    found = inspect(
        pages,
        known=labels,
        odds=odds_of(store, onlooker.name, known=labels),
        disputes={event_id: truth.disputes for event_id, truth in known.items()},
    )
    return sorted(found, key=lambda one: (-one.score, -one.expected, one.page.name))


def list_rechecks(
    store: Store, batch_id: int, audited: Sequence[Inspected], *, size: int | None = None, now_ms: int | None = None
) -> list[Recheck]:
    """Return the list of a batch's images to look at again; store it unless the newest one says the same.

    Images that were looked at again are not on it. `audited` as `audit_batch` returns it; `size` is how many images the
    audit picks, None: a fifth of all; those at random come beside.
    """
    now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    again = {one.event_id for one in store.labels.answers(batch_id) if one.label_set.kind == "review"}
    left = [one for one in audited if one.page.name not in again]
    wanted = max(1, round(PICKS * len(audited))) if size is None else size
    rechecks = chosen(left, size=wanted, seed=f"{batch_id}:{len(again)}", now_ms=now_ms)
    newest = store.labels.rechecks(batch_id)
    if [one._replace(at_ms=now_ms) for one in newest] == rechecks:
        return newest
    store.labels.add_rechecks(batch_id, rechecks)
    return rechecks


def chosen(audited: Sequence[Inspected], *, size: int, seed: str, now_ms: int) -> list[Recheck]:
    """Return the first `size` images, and `RANDOM` of the others (law 1); of few images at least one is picked.

    What is drawn at random depends on `seed` and on the names of the images alone.
    """
    count = max(min(size, len(audited) - RANDOM), min(1, len(audited)))
    others = sorted(audited[count:], key=lambda one: random.Random(f"{seed}:{one.page.name}").random())  # noqa: S311
    rechecks = [_pick(one, rank, now_ms) for rank, one in enumerate(audited[:count], 1)]
    why = "measures the audit"
    return rechecks + [
        Recheck(one.page.name, rank, "random", "", None, round(one.score, 4), why, now_ms)
        for rank, one in enumerate(others[:RANDOM], count + 1)
    ]


def _pick(one: Inspected, rank: int, now_ms: int) -> Recheck:
    if not one.faults:
        return Recheck(one.page.name, rank, "missing", "", None, 0.0, "nothing speaks against it", now_ms)
    worst = one.faults[0]
    more = len([fault for fault in one.faults[1:] if fault.probability >= 0.1])
    why = worst.why + (f"; {more} more place{'s' * (more != 1)}" if more else "")
    return Recheck(one.page.name, rank, worst.kind, worst.label, worst.xyxy, round(one.score, 4), why, now_ms)
