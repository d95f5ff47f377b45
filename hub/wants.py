"""Which frames to ask the devices for: a rule over values, without I/O.

A *need* is what frames are for: a weak spot that is to get a batch, `control` frames beside those, and, while no weak
spot needs frames, exploring: enough pictures for a first look and a first batch of anything. Frames that are here or on
their way, and in no batch, fill it.

Laws:

1. What is asked of one device within 24 hours stays within its byte budget.
2. Only living devices are asked, and at most `outstanding_per_device` wants of a device wait for an answer.
3. A frame is asked for a need that has room. A need of size s of which n events are known has room for `sqrt(n s) / 2`
   frames, at most s: of a few all, then a part, the whole size of `4 s` and more. So the first to come do not fill it,
   and there is no hurry: the devices keep the frames.
4. No device fills more of a need than twice its even share, or more where the others cannot fill it; frames that nobody
   asked for fill no more either. A device that gave less than half an even share is asked although the need is full.
5. One picture is asked for once, however many findings it shows.
6. Within a need the frame goes first that adds most to those that are here, on their way, or in a batch: by severity,
   and by how unlike them it is (facility location, as in hub.selection). Hard and easy ones are mixed as in a batch.

A near-duplicate group counts as one frame. Junk is neither asked for nor counted: hub.store_groups. Of `control` frames
those go first that show an object of a weak spot that needs frames, since a batch of it takes these first.

Which weak spots need frames: open, not fixed and regressed ones. One that is batched only what its newest batch lacks
of a pool: whether a first batch helped is to be seen before a second is made, but a batch that came out small can be
followed by another. An annotated, trained or fixed one needs none.
"""

import heapq
import math
import operator
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, NamedTuple

import numpy as np

from edge.contract.samples import Reason
from hub.config import WantsConfig
from hub.likeness import Floats, Traits, codes, describe
from hub.selection import even_cap
from hub.store_groups import DeviceKey, DeviceSpend, FrameDetail, FrameRow
from hub.thinning import in_turn
from hub.weakspots import SpotState, WeakSpot

DAY_MS: Final = 24 * 60 * 60 * 1000
SHORTLIST: Final = 1000
HARD_SHARE: Final = 2 / 3  # of what is not `control`
LEAST_WEIGHT: Final = 0.25
ASKED_STATES: Final = frozenset({SpotState.OPEN, SpotState.NOT_FIXED, SpotState.REGRESSED})
_HARD: Final = frozenset({Reason.MISSED.value, Reason.SUSPECT.value})
_OF: Final = operator.itemgetter(1, 2)  # the site and the device of a `FrameRow`, of very many faster than its `of`


@dataclass(frozen=True)
class Need:
    """What frames are for.

    Attributes:
        size: how many frames fill it.
        held: what may be asked for it, of living devices.
        here: what fills it.
        batched: what a batch has of it already.
        at_once: whether all of it is asked for however few are known: `control` is as good today as tomorrow.
    """

    size: int
    held: Sequence[FrameRow]
    here: Sequence[FrameRow]
    batched: Sequence[FrameRow] = ()
    at_once: bool = False

    @property
    def room(self) -> int:
        """How many frames it has room for in all: law 3."""
        known = len(self.held) + len(self.here)
        return self.size if self.at_once else min(self.size, math.ceil(math.sqrt(known * self.size) / 2))


class Told(NamedTuple):
    """Frames by what they are of.

    Attributes:
        events: all that are not `control`.
        of_spot: of them those of each weak spot, by its number.
        telling: `control` frames with an object of a weak spot.
        by_chance: the other `control` frames.
    """

    events: Sequence[FrameRow]
    of_spot: Mapping[int, Sequence[FrameRow]]
    telling: Sequence[FrameRow]
    by_chance: Sequence[FrameRow]


class Asked(NamedTuple):
    """A want to send."""

    event_id: str
    site: str
    device: str


def sizes(spots: Iterable[WeakSpot], newest_batch: Mapping[int, int], rule: WantsConfig) -> dict[int, int]:
    """Return how many frames fill each weak spot that needs any; `newest_batch` has the images of its newest batch."""
    found = {}
    for spot in spots:
        if spot.state in ASKED_STATES:
            found[spot.id] = rule.pool
        elif spot.state is SpotState.BATCHED and newest_batch.get(spot.id, 0) < rule.pool:
            found[spot.id] = rule.pool - newest_batch.get(spot.id, 0)
    return found


def needs_of(size_of: Mapping[int, int], *, held: Told, here: Told, batched: Told, rule: WantsConfig) -> list[Need]:
    """Return what frames are needed for now.

    Args:
        size_of: the weak spots that need frames, by number, see `sizes`.
        held: what living devices may be asked for.
        here: what is here or on its way, in no batch.
        batched: of the newest batches.
        rule: the limits.
    """
    if size_of:
        needs = [
            Need(size, held.of_spot.get(n, ()), here.of_spot.get(n, ()), batched.of_spot.get(n, ()))
            for n, size in size_of.items()
        ]
    else:
        needs = [Need(rule.explore, held.events, here.events, batched.events)]
    beside = math.ceil(rule.control_share * sum(need.room for need in needs))
    lacking = max(0, beside - len(held.telling) - len(here.telling))
    return [
        *needs,
        Need(beside, held.telling, here.telling, at_once=True),
        Need(lacking, held.by_chance, here.by_chance, at_once=True),
    ]


def told(parts: Iterable[tuple[bool, Iterable[int], Iterable[FrameRow]]]) -> Told:
    """Return frames by what they are of.

    Args:
        parts: whether they are `control` frames, the numbers of the weak spots they are of, the frames.
    """
    events: list[FrameRow] = []
    of_spot: defaultdict[int, list[FrameRow]] = defaultdict(list)
    telling: list[FrameRow] = []
    by_chance: list[FrameRow] = []
    for is_control, spots, frames in parts:
        if is_control:
            (telling if spots else by_chance).extend(frames)
            continue
        events.extend(frames)
        for number in spots:
            of_spot[number].extend(frames)
    return Told(events, of_spot, telling, by_chance)


def choose(
    needs: Sequence[Need],
    spent: Mapping[DeviceKey, DeviceSpend],
    *,
    look: Callable[[Sequence[int]], Mapping[int, FrameDetail]],
    rule: WantsConfig,
) -> list[Asked]:
    """Apply the laws, need by need. What does not fit stays open for a later call.

    Args:
        needs: what frames are for.
        spent: of the last 24 hours, by site and device.
        look: returns, by the finding's number, what is known of frames; it leaves out those whose picture is here.
        rule: the limits.
    """
    till = _Till(spent, rule)
    for need in needs:
        _fill(need, till, look)
    return list(till.asked.values())


class _Till:
    """What may still be asked for, and what has been: laws 1, 2 and 5."""

    def __init__(self, spent: Mapping[DeviceKey, DeviceSpend], rule: WantsConfig) -> None:
        self._spent = dict(spent)
        self._rule = rule
        self._pictures: set[tuple[DeviceKey, bytes]] = set()
        self.asked: dict[int, Asked] = {}

    def serves(self, device: DeviceKey) -> bool:
        """Whether anything more may be asked of a device."""
        spend = self._spent.get(device, DeviceSpend())
        within = spend.bytes < self._rule.bytes_per_day_per_device
        return within and spend.outstanding < self._rule.outstanding_per_device

    def ask(self, frame: FrameRow, known: FrameDetail) -> bool:
        """Ask for a frame if the laws allow it."""
        device, picture = frame.of, (frame.of, known.picture)
        spend = self._spent.get(device, DeviceSpend())
        total = spend.bytes + known.frame_bytes
        twice = picture in self._pictures and frame.reason != Reason.CONTROL
        if twice or not self.serves(device) or total > self._rule.bytes_per_day_per_device:
            return False
        self._spent[device] = DeviceSpend(total, spend.outstanding + 1)
        self._pictures.add(picture)
        self.asked[frame.id] = Asked(known.event_id, frame.site, frame.device)
        return True


class _Filling:
    """How full a need is, by device and by kind: laws 3, 4 and 6."""

    def __init__(self, need: Need, here: Sequence[FrameRow]) -> None:
        known = Counter(map(_OF, chain(need.held, need.here)))
        self._room = need.room
        self._cap = even_cap(list(known.values()), need.room)
        self._part = need.room // (2 * max(1, len(known)))
        self._known = known
        self._given: Counter[DeviceKey] = Counter()
        self._kinds: Counter[bool] = Counter()
        self._total = 0
        for frame in here:
            self.add(frame)

    @property
    def open(self) -> bool:
        """Whether any device could still be asked."""
        return self._part > 0 or self._total < self._room

    @property
    def takers(self) -> set[DeviceKey]:
        """The devices that may give more."""
        return {device for device in self._known if self.takes(device)}

    def add(self, frame: FrameRow) -> None:
        self._given[frame.of] += 1
        if self._given[frame.of] <= self._cap:
            self._total += 1
            self._kinds[frame.reason in _HARD] += 1

    def takes(self, device: DeviceKey) -> bool:
        given = self._given[device]
        return given < self._part or (self._total < self._room and given < self._cap)

    def has_its_kind(self, frame: FrameRow) -> bool:
        """Whether there are enough of the frame's kind, hard or easy."""
        hard = frame.reason in _HARD
        return self._kinds[hard] >= math.ceil(self._room * (HARD_SHARE if hard else 1 - HARD_SHARE))


def _fill(need: Need, till: _Till, look: Callable[[Sequence[int]], Mapping[int, FrameDetail]]) -> None:
    """Ask for what fills a need, best first."""
    here = [*need.here, *(frame for frame in need.held if frame.id in till.asked)] if till.asked else need.here
    filling = _Filling(need, here)
    if not filling.open:
        return
    devices = {device for device in filling.takers if till.serves(device)}
    open_frames = [f for f in need.held if _OF(f) in devices and f.id not in till.asked] if devices else []
    if not open_frames:
        return
    closely, covering = _shortlist(open_frames), [*here, *need.batched][:SHORTLIST]
    known = look([frame.id for frame in (*closely, *covering)])
    closely, covering = ([f for f in frames if f.id in known] for frames in (closely, covering))
    if not closely:
        return
    similarity = _similarity(describe(_traits([*closely, *covering], known)))
    order = _Order(
        similarity[: len(closely), : len(closely)],
        np.array([LEAST_WEIGHT + (1 - LEAST_WEIGHT) * min(1.0, max(0.0, f.severity)) for f in closely], np.float32),
        covered=similarity[len(closely) :, : len(closely)].max(axis=0, initial=0.0),
    )
    passed_over: list[int] = []
    while (number := order.next()) is not None and filling.open:
        frame = closely[number]
        if not filling.takes(frame.of):
            continue
        if filling.has_its_kind(frame):
            passed_over.append(number)
        elif till.ask(frame, known[frame.id]):
            filling.add(frame)
            order.take(number)
    for number in passed_over:  # best first: there are too few of the other kind
        frame = closely[number]
        if filling.takes(frame.of) and till.ask(frame, known[frame.id]):
            filling.add(frame)


def _shortlist(frames: Sequence[FrameRow]) -> list[FrameRow]:
    """Return the frames to look at closely: of each camera and set of tags the most severe first, then the second."""
    if len(frames) <= SHORTLIST:
        return list(frames)
    places = codes([(frame.of, frame.camera, frame.label, frame.tags) for frame in frames])
    first = in_turn(places, np.array([frame.severity for frame in frames]))[:SHORTLIST]
    return [frames[number] for number in np.sort(first)]


def _traits(frames: Sequence[FrameRow], known: Mapping[int, FrameDetail]) -> Traits:
    details = [known[frame.id] for frame in frames]
    return Traits(
        features=[one.features for one in details],
        space=[one.model for one in details],
        place=[frame.place for frame in frames],
        size_px=[one.size_px for one in details],
        label=[frame.label for frame in frames],
    )


class _Order:
    """Candidates by what each would add, the most first (lazy greedy: a gain can only fall; Minoux, 1978)."""

    def __init__(self, similarity: Floats, weight: Floats, *, covered: Floats) -> None:
        self._similarity = similarity
        self._weight = weight
        self._covered = covered
        self._taken = 0
        gains = np.maximum(similarity - covered, 0.0) @ weight
        self._heap = [(-float(gain), -float(weight[number]), number, 0) for number, gain in enumerate(gains)]
        heapq.heapify(self._heap)

    def next(self) -> int | None:
        """Return the candidate that adds most, each once; None when there is none left."""
        while self._heap:
            _, severe, number, computed_at = heapq.heappop(self._heap)
            if computed_at == self._taken:
                return number
            gain = np.maximum(self._similarity[number] - self._covered, 0.0) @ self._weight
            heapq.heappush(self._heap, (-float(gain), severe, number, self._taken))
        return None

    def take(self, number: int) -> None:
        """Take a candidate: what is like it adds less from now on."""
        self._covered = np.maximum(self._covered, self._similarity[number])
        self._taken += 1


def _similarity(vectors: Floats) -> Floats:
    """Return `[n, n]` cosines less their mean, 1 for a vector with itself, never negative."""
    cosine = vectors @ vectors.T
    average = min(max(float(cosine.mean(dtype=np.float64)), 0.0), 0.99)
    similarity: Floats = np.clip((cosine - average) / np.float32(1.0 - average), 0.0, 1.0)
    np.fill_diagonal(similarity, 1.0)
    return similarity
