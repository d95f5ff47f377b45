"""What labels have cost: money and minutes of each batch and weak spot, and what it all would have cost by hand.

Laws:

1. An image is paid for when an annotator draws on it and when they change it. What a later import of theirs brings back
   as it was costs nothing; of a changed image the boxes cost that were not there before. Each pass is work of its own.
2. Known answers that were mixed in cost as any other image.
3. A box costs where a person draws or keeps it. What a person checks again (`review`) costs an image of review, what
   the machine labels an image of the machine, whatever is in it.
4. Minutes are those of the batch: told with an import or with `hub weakspots mark`.
5. The sum of the parts is the whole: every paid image and minute is in exactly one line of the account.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from hub.config import CostsConfig
from hub.store_labels import Drawn

Prices = CostsConfig
"""What an image, a box, a review, a machine's image and an hour cost."""

_HOUR_MINUTES: Final = 60.0


@dataclass(frozen=True, slots=True)
class Work:
    """What was done.

    Attributes:
        images: that people labelled, each time they did.
        boxes: that people drew or kept.
        reviews: images that people checked again.
        machine: images that the machine labelled.
        minutes: of people's work, as far as it was told.
    """

    images: int = 0
    boxes: int = 0
    reviews: int = 0
    machine: int = 0
    minutes: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.images + other.images,
            self.boxes + other.boxes,
            self.reviews + other.reviews,
            self.machine + other.machine,
            self.minutes + other.minutes,
        )


def cost_of(
    prices: Prices, *, images: int = 0, boxes: int = 0, reviews: int = 0, machine: int = 0, minutes: float = 0.0
) -> float:
    """Return what so much work costs, in the currency of the prices; see `Work`."""
    return (
        images * prices.image
        + boxes * prices.box
        + reviews * prices.review
        + machine * prices.machine
        + minutes / _HOUR_MINUTES * prices.hour
    )


def cost_of_work(prices: Prices, work: Work) -> float:
    """Return what this work costs."""
    return cost_of(
        prices,
        images=work.images,
        boxes=work.boxes,
        reviews=work.reviews,
        machine=work.machine,
        minutes=work.minutes,
    )


def by_hand(prices: Prices, work: Work, *, images: int, boxes: int) -> float:
    """Return what `work` would have cost had people labelled these machine's images, too.

    `images` with `boxes` on them are those that no person labelled. They take the minutes that the others took.
    """
    people = Work(work.images, work.boxes, work.reviews, 0, work.minutes)
    minutes = work.minutes * images / work.images if work.images else 0.0
    return cost_of_work(prices, people) + cost_of(prices, images=images, boxes=boxes, minutes=minutes)


def work_by_batch(history: Iterable[Drawn]) -> dict[int | None, Work]:
    """Return what was done for each batch, None: outside any, without minutes; `history` as `paid` wants it."""
    done: defaultdict[int | None, Work] = defaultdict(Work)
    for one, work in paid(history):
        done[one.label_set.batch_id] += work
    return dict(done)


def paid(history: Iterable[Drawn]) -> Iterator[tuple[Drawn, Work]]:
    """Yield what is to be paid for, without minutes, of all that was ever drawn, in the order of storing."""
    newest: dict[tuple[object, ...], Counter[object]] = {}
    for one in history:
        by = one.label_set
        who = (by.batch_id, by.kind, by.annotator, by.label_pass, one.event_id)
        boxes: Counter[object] = Counter((box.label, box.xyxy) for box in one.boxes)
        before = newest.get(who)
        newest[who] = boxes
        if boxes == before:
            continue
        new = (boxes - (before or Counter())).total()
        yield (
            one,
            Work(
                images=int(by.kind == "person"),
                boxes=new if by.kind == "person" else 0,
                reviews=int(by.kind == "review"),
                machine=int(by.kind == "machine"),
            ),
        )
