"""The audit of a batch: what is probably wrong in its labels, which images to look at again, whether that was right.

    onlooker = Onlooker.open()
    found = audit(store, onlooker, batch_id)      # every image, the list, and what an earlier list has shown
    ...                                           # a person looks again: a label set of kind `review`
    settle(store, batch_id, event_ids)
    audit(store, onlooker, batch_id).enough

Laws:

1. A list of re-checks ends with `RANDOM` images drawn at random from all that the audit did not pick, or all of them
   where there are fewer: so it shows what the audit overlooks.
2. A list depends on the labels and the opinions, and on nothing else: asked twice, there is one list.
3. What people drew on images with known answers is not audited: their answers are known.
4. It is enough once people have looked through a list, and both its images at random and the audit expect that fewer
   than `FEW` of the rest, or fewer than one image, are wrong. Labels that came after the list begin anew.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from edge.contract.errors import UnusableError
from hub.inspection import Inspected, inspect
from hub.opinions import Onlooker, opinions
from hub.rechecked import Measured, is_looked_through, measure, settle
from hub.refitting import odds_of, page_of
from hub.store import Store
from hub.store_labels import Recheck
from hub.truth import truths

__all__ = ["Audit", "audit", "audit_batch", "chosen", "list_rechecks", "measure", "settle"]

RANDOM: Final = 5
PICKS: Final = 0.2  # of the images
FEW: Final = 0.1  # of the images that nobody looks at again


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What the labels of a batch are worth, and what is to be done.

    Attributes:
        model: the name of the opinions, hub.opinions.
        audited: every labelled image, the likeliest wrong first.
        left: those that nobody has looked at again.
        rechecks: the list of images to look at again; empty when it is enough and none was asked for.
        measured: how good the list was that people looked through; None before.
        enough: law 4.
    """

    batch_id: int
    model: str
    audited: tuple[Inspected, ...]
    left: tuple[Inspected, ...]
    rechecks: tuple[Recheck, ...]
    measured: Measured | None
    enough: bool

    @property
    def expected(self) -> float:
        """How many of the images left the audit expects to be wrong."""
        return sum(one.score for one in self.left)

    @property
    def expected_at_most(self) -> float:
        """The larger of what the audit expects and what the last images at random say."""
        return max(self.expected, _by_drawn(self.measured))


def audit(
    store: Store,
    onlooker: Onlooker,
    batch_id: int,
    *,
    size: int | None = None,
    more: bool = False,
    on_image: Callable[[], None] = lambda: None,
) -> Audit:
    """Audit a batch and list what to look at again; where it is enough, only when `size` or `more` asks for it.

    Raises `UnusableError` as `audit_batch`.
    """
    audited = tuple(audit_batch(store, onlooker, batch_id, on_image=on_image))
    left = tuple(not_again(store, batch_id, audited))
    measured = measure(store, batch_id)
    enough = is_enough(left, measured, looked_through=is_looked_through(store, batch_id))
    wanted = more or size is not None or not enough
    rechecks = tuple(list_rechecks(store, batch_id, audited, size=size)) if wanted and left else ()
    return Audit(
        batch_id=batch_id,
        model=onlooker.name,
        audited=audited,
        left=left,
        rechecks=rechecks,
        measured=measured,
        enough=enough,
    )


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
    left = not_again(store, batch_id, audited)
    wanted = max(1, round(PICKS * len(audited))) if size is None else size
    rechecks = chosen(left, size=wanted, seed=f"{batch_id}:{len(audited) - len(left)}", now_ms=now_ms)
    newest = store.labels.rechecks(batch_id)
    if [one._replace(at_ms=now_ms) for one in newest] == rechecks:
        return newest
    store.labels.add_rechecks(batch_id, rechecks)
    return rechecks


def not_again(store: Store, batch_id: int, audited: Sequence[Inspected]) -> list[Inspected]:
    """Return the images of a batch that nobody has looked at again, in the same order."""
    again = {one.event_id for one in store.labels.answers(batch_id) if one.label_set.kind == "review"}
    return [one for one in audited if one.page.name not in again]


def is_enough(left: Sequence[Inspected], measured: Measured | None, *, looked_through: bool) -> bool:
    """Return whether nobody needs to look at more images of a batch (law 4).

    `left` are those that nobody has looked at again; `looked_through` whether people have done all of the newest list.
    """
    if not left:
        return True
    if measured is None or not looked_through:
        return False
    return max(_by_drawn(measured), sum(one.score for one in left)) < max(1.0, FEW * len(left))


def _by_drawn(measured: Measured | None) -> float:
    """Return how many of the images left are wrong, by those drawn at random; 0 where none was looked at."""
    return 0.0 if measured is None or measured.remaining is None else measured.remaining[0]


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
