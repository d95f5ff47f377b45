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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple, Protocol, Self

from edge.contract.errors import UnusableError
from edge.contract.status import Want
from hub.config import HOUR_MS, WantsConfig
from hub.dedupe import joinable_since_ms
from hub.store import FindingRow, GroupAssignment, LeaderRow, Store
from hub.store_groups import StaleError
from hub.wants import DAY_MS, OpenFinding, Overdue, choose

PAGE: Final = 500
ALIVE_MS: Final = 10 * 60 * 1000
WANTS_A_MESSAGE: Final = 100
ASKING_SHARE: Final = 0.1  # of the time, at most, goes into choosing what to ask for
log = logging.getLogger(__name__)


class LeaderIndex(Protocol):
    """What finds the group of a finding: hub.dedupe.DuplicateIndex."""

    def add_leader(self, leader: LeaderRow, *, first_at_ms: int | None = None, last_at_ms: int | None = None) -> None:
        """Know one more group, seen from then to then."""

    def match(self, finding: FindingRow) -> int | None:
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
        pace_s: float = 0.5,
    ) -> None:
        """`pace_s`: the least time between two rounds of wants; grouping is not held back."""
        self._store = store
        self._pace_s = pace_s
        self._ask_from_s = 0.0
        self._make_index = make_index
        self._index: LeaderIndex | None = None
        self._last_group = 0
        self._known_since_ms = 0
        self._line = line
        self._wants = wants
        self._rule = wants.rule()
        self._tidied_at_ms: int | None = None

    def step(self, now_ms: int) -> Did:
        """Group one page, ask for what is worth it, repeat what was not answered, give up what is too old."""
        self._tidy(now_ms)
        grouped = self._group()
        wanted = resent = 0
        if time.monotonic() >= self._ask_from_s:
            started_s = time.monotonic()
            wanted = self._ask(now_ms)
            resent = self._ask_again(now_ms)
            took_s = time.monotonic() - started_s
            self._ask_from_s = started_s + max(self._pace_s, took_s / ASKING_SHARE)
        return Did(grouped, wanted, resent, grouped == PAGE)

    def _group(self) -> int:
        rows = self._store.ungrouped(PAGE)
        if not rows:
            return 0
        # Until the transaction stands the index knows groups that do not exist: on any failure it is built again.
        index, self._index = self._index, None
        since_ms = joinable_since_ms(min(row.captured_at_ms for row in rows))
        if index is None or since_ms < self._known_since_ms:
            index, self._last_group, self._known_since_ms = self._make_index(), 0, since_ms
        # The number first: a group made after this makes ours collide, and everything is read again.
        last_group, assignments = self._store.last_group(), []
        for leader in self._store.leaders_after(self._last_group, seen_since_ms=self._known_since_ms):
            index.add_leader(leader, first_at_ms=leader.first_at_ms, last_at_ms=leader.last_at_ms)
        for row in rows:
            group_id = index.match(row)
            if group_id is None:
                last_group += 1
                index.add_leader(as_leader(row, last_group))
            assignments.append(GroupAssignment(row.event_id, group_id or last_group, new=group_id is None))
        try:
            self._store.assign_groups(assignments)
        except StaleError as error:
            log.info("the groups were changed by another process, reading them again: %s", error)
            return 0
        self._index, self._last_group = index, last_group
        return len(rows)

    def _ask(self, now_ms: int) -> int:
        open_findings = self._store.open_findings(10 * self._wants.outstanding_per_device)
        if not open_findings:
            return 0
        choice = choose(
            open_findings,
            self._store.spent_since(now_ms - DAY_MS),
            pooled=self._store.pooled(self._rule.pool, alive_since_ms=now_ms - ALIVE_MS),
            living=self._store.living(alive_since_ms=now_ms - ALIVE_MS),
            now_ms=now_ms,
            rule=self._rule,
        )
        if choice.expired:
            self._store.close_wants([finding.event_id for finding in choice.expired])
        if choice.want:
            self._store.mark_wanted([finding.event_id for finding in choice.want], now_ms=now_ms)
            self._send(choice.want)
        return len(choice.want)

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
        too_old_ms = now_ms - self._rule.max_age_ms
        given_up = self._store.give_up(wanted_before_ms=too_old_ms, parts_before_ms=too_old_ms)
        if given_up:
            log.warning("%d frames were asked for and never came: given up", given_up)

    def _send(self, wants: Iterable[OpenFinding | Overdue]) -> None:
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
