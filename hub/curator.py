"""What happens to findings after they are committed: they are grouped, and the frames worth having are asked for.

Laws:

1. One process at a time curates a database: it holds a lock on a file beside it. Every write is checked again inside
   its transaction, so a second curator would be slow, not wrong.
2. A want is recorded before it is sent; what was recorded and not answered is sent again while the device is alive.
3. The same findings in the same order give the same groups, whether or not a restart lies between: the index knows
   every group that a finding of the page could join. Where a finding is older than any before, it is read anew.
"""

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self

from edge.contract.errors import UnusableError
from edge.contract.status import Want
from hub.config import HOUR_MS, KeepConfig, WantsConfig
from hub.dedupe import Joined, joinable_since_ms
from hub.naming import refresh
from hub.retention import keep_within
from hub.spot_memory import SpotMemory
from hub.store import FindingRow, GroupAssignment, LeaderRow, Store
from hub.store_groups import Overdue, StaleError
from hub.tags import Tagger
from hub.wants import DAY_MS, Asked, choose, needs_of, sizes
from hub.weakspots import SpotState, weak_spots

PAGE: Final = 500
ALIVE_MS: Final = 10 * 60 * 1000
WANTS_A_MESSAGE: Final = 100
ASKING_SHARE: Final = 0.1  # of the time, at most, goes into choosing what to ask for
IDLE_SHARE: Final = 0.03  # of the time, after a round that has asked for nothing
NAMING_SHARE: Final = 0.1
POOLED_PER_DEVICE: Final = 500  # frames that are here count for more needs than one, but not without end
BATCHED: Final = 500  # images of the newest batches: what is like them is not new
log = logging.getLogger(__name__)


class LeaderIndex(Protocol):
    """What finds the group of a finding: hub.dedupe.DuplicateIndex."""

    def add_leader(self, leader: LeaderRow) -> None:
        """Know one more group."""

    def match(self, row: FindingRow) -> Joined | None:
        """Return the group that the finding belongs to, or None when it is like no leader."""


class WantLine(Protocol):
    """The way to the devices: hub.link over MQTT, a list in tests."""

    def want(self, site: str, device: str, want: Want) -> None:
        """Ask a device for frames. Does not raise."""


class Did(NamedTuple):
    """What one step has done. `more`: a full page was grouped, so another step is due at once."""

    grouped: int
    wanted: int
    resent: int
    more: bool


class Curator:
    """Groups findings and sends wants, a step at a time. It belongs to the thread of its store."""

    def __init__(
        self,
        store: Store,
        *,
        make_index: Callable[[], LeaderIndex],
        line: WantLine,
        wants: WantsConfig,
        tagger: Tagger,
        pace_s: float = 0.5,
        name_pace_s: float = 3.0,
        keep: KeepConfig | None = None,
    ) -> None:
        """`pace_s`, `name_pace_s`: the least time between two rounds of wants, of naming; grouping is not held back.

        `keep`: which frames are deleted, once an hour and a short transaction a step; None keeps all.
        """
        self._store = store
        self._pace_s = pace_s
        self._ask_from_s = 0.0
        self._make_index = make_index
        self._index: LeaderIndex | None = None
        self._last_group = 0
        self._known_since_ms = 0
        self._line = line
        self._wants = wants
        self._max_age_ms = int(wants.max_age_h * HOUR_MS)
        self._memory = SpotMemory(tagger)
        self._remembered_since = (0, 0)
        self._tagger = tagger
        self._name_pace_s = name_pace_s
        self._name_from_s = 0.0
        self._named_to = 0
        self._regressed: dict[int, str] = {}
        self._keep = keep
        self._sweeping: Iterator[object] = iter(())
        self._forgettings = (0, 0)
        self._tidied_at_ms: int | None = None

    def step(self, now_ms: int) -> Did:
        """Group one page, ask for what is worth it, repeat what was not answered, give up what is too old."""
        self._tidy(now_ms)
        next(self._sweeping, None)
        grouped = self._group()
        self._name(now_ms)
        wanted = resent = 0
        if time.monotonic() >= self._ask_from_s:
            started_s = time.monotonic()
            wanted = self._ask(now_ms)
            resent = self._ask_again(now_ms)
            took_s = time.monotonic() - started_s
            self._ask_from_s = started_s + max(self._pace_s, took_s / (ASKING_SHARE if wanted else IDLE_SHARE))
        return Did(grouped, wanted, resent, grouped == PAGE)

    def _group(self) -> int:
        rows = self._store.ungrouped(PAGE)
        if not rows:
            return 0
        # Until the transaction stands the index knows groups that do not exist: on any failure it is built again.
        index, self._index = self._index, None
        if (forgettings := self._store.upkeep.forgettings()) != self._forgettings:
            index, self._forgettings = None, forgettings
        since_ms = joinable_since_ms(min(row.captured_at_ms for row in rows))
        if index is None or since_ms < self._known_since_ms:
            index, self._last_group, self._known_since_ms = self._make_index(), 0, since_ms
        # The number first: a group made after this makes ours collide, and everything is read again.
        last_group, assignments = self._store.last_group(), []
        for leader in self._store.leaders_after(self._last_group, seen_since_ms=self._known_since_ms):
            index.add_leader(leader)
        for row in rows:
            joined = index.match(row)
            if joined is None:
                last_group += 1
                index.add_leader(as_leader(row, last_group))
                assignments.append(GroupAssignment(row.event_id, last_group, new=True))
            else:
                assignments.append(
                    GroupAssignment(
                        row.event_id, joined.group_id, new=False, tracked=joined.tracked, looks=joined.looks
                    )
                )
        try:
            self._store.assign_groups(assignments, forgettings=self._forgettings)
        except StaleError as error:
            log.info("the groups were changed by another process, reading them again: %s", error)
            return 0
        self._index, self._last_group = index, last_group
        return len(rows)

    def _name(self, now_ms: int) -> None:
        """Name the weak spots anew when there are new sightings; say which of those that were fixed have come back."""
        newest = self._store.spots.last_sighting()
        if newest == self._named_to or time.monotonic() < self._name_from_s:
            return
        started_s = time.monotonic()
        spots = refresh(self._store, self._tagger, now_ms).spots
        took_s = time.monotonic() - started_s
        self._named_to, self._name_from_s = newest, started_s + max(self._name_pace_s, took_s / NAMING_SHARE)
        regressed = {spot.id: spot.name for spot in spots if spot.state is SpotState.REGRESSED}
        for number in sorted(regressed.keys() - self._regressed.keys()):
            log.warning("weak spot %d, %s, had been fixed and came back", number, regressed[number])
        self._regressed = regressed

    def _ask(self, now_ms: int) -> int:
        alive_since_ms = now_ms - ALIVE_MS
        living = self._store.living(alive_since_ms=alive_since_ms)
        if (forgettings := self._store.upkeep.forgettings()) != self._remembered_since:
            self._memory, self._remembered_since = SpotMemory(self._tagger), forgettings
        self._memory.hold(self._store.held_numbers(received_since_ms=now_ms - self._max_age_ms), self._store.frames)
        if not living or not self._memory.holds_any:
            return 0
        spots = weak_spots(self._store)
        newest_batch = {batch.weak_spot_id: batch.size for batch in self._store.batches() if batch.weak_spot_id}
        size_of = sizes(spots, newest_batch, self._wants)
        here = self._store.pooled_frames(POOLED_PER_DEVICE, alive_since_ms=alive_since_ms)
        batched = self._store.batched_frames(BATCHED)
        self._memory.begin([spot for spot in spots if spot.id in size_of], here, self._store.objects)
        needs = needs_of(
            size_of,
            held=self._memory.held(living),
            here=self._memory.told(here),
            batched=self._memory.told(batched),
            rule=self._wants,
        )
        want = choose(needs, self._store.spent_since(now_ms - DAY_MS), look=self._store.frame_details, rule=self._wants)
        if want:
            marked = self._store.mark_wanted([one.event_id for one in want], now_ms=now_ms)
            want = [one for one in want if one.event_id in marked]
            self._send(want)
        return len(want)

    def _ask_again(self, now_ms: int) -> int:
        overdue = self._store.overdue_wants(
            asked_before_ms=now_ms - int(self._wants.resend_s * 1000),
            alive_since_ms=now_ms - ALIVE_MS,
            limit_per_device=self._wants.outstanding_per_device,
        )
        if overdue:
            self._store.mark_asked([want.event_id for want in overdue], now_ms=now_ms)
            self._send(overdue)
        return len(overdue)

    def _tidy(self, now_ms: int) -> None:
        if self._tidied_at_ms is not None and now_ms - self._tidied_at_ms < HOUR_MS:
            return
        self._tidied_at_ms = now_ms
        too_old_ms = now_ms - self._max_age_ms
        given_up = self._store.give_up(wanted_before_ms=too_old_ms, parts_before_ms=too_old_ms)
        if given_up:
            log.warning("%d frames were asked for and never came: given up", given_up)
        if self._keep is not None:
            self._sweeping = keep_within(self._store, self._keep, now_ms=now_ms)

    def _send(self, wants: Iterable[Asked | Overdue]) -> None:
        of_device: dict[tuple[str, str], list[str]] = {}
        for want in wants:
            of_device.setdefault((want.site, want.device), []).append(want.event_id)
        for (site, device), event_ids in of_device.items():
            for start in range(0, len(event_ids), WANTS_A_MESSAGE):
                part = tuple(event_ids[start : start + WANTS_A_MESSAGE])
                self._line.want(site, device, Want(event_ids=part))


def as_leader(row: FindingRow, group_id: int) -> LeaderRow:
    """Return the finding as the leader of a new group."""
    return LeaderRow(
        group_id=group_id,
        event_id=row.event_id,
        site=row.site,
        device=row.device,
        camera=row.camera,
        label=row.label,
        captured_at_ms=row.captured_at_ms,
        first_at_ms=row.captured_at_ms,
        last_at_ms=row.captured_at_ms,
        region=row.region,
        width=row.width,
        height=row.height,
        track=row.track,
        track_at_ms=row.captured_at_ms,
        crop_hash=row.crop_hash,
        frame_hash=row.frame_hash,
        features=row.features,
    )


class FileLock:
    """A lock that ends with its process: held by one process of this machine at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None

    def acquire(self) -> bool:
        """Take it, or return False when another process has it. Raises `UnusableError` when the file cannot be made."""
        if self._file is not None:
            return True
        try:
            number = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            msg = f"cannot make {self._path}: {error.strerror}"
            raise UnusableError(msg) from error
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(number)
            return False
        self._file = number
        return True

    def release(self) -> None:
        """Let it go. The file stays: removing it would let two processes hold two files of one name."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
