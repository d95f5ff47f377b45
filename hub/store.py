"""The hub's database: one SQLite file, several processes. Outside the `store` modules no SQL stands.

Laws:

1. What a method that writes has returned from is on disk: WAL with `synchronous = FULL`.
2. Every write is one `BEGIN IMMEDIATE` transaction: several processes may use one file.

A `Store` belongs to the thread that opened it; each thread opens its own.
"""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from edge.contract.errors import UnusableError
from edge.contract.policy import Policy
from hub import (
    store_batches,
    store_check,
    store_groups,
    store_ingest,
    store_policies,
    store_sightings,
    store_status,
)
from hub.arrivals import Arrival, Outcome
from hub.migrations import migrate
from hub.store_batches import Candidate
from hub.store_cvat import CvatTasks
from hub.store_datasets import Datasets
from hub.store_file import insist, open_connection
from hub.store_groups import DeviceKey, DeviceSpend, FrameDetail, FrameRow, Overdue
from hub.store_health import Labelled
from hub.store_labels import Labels
from hub.store_light import Lights
from hub.store_plots import Series
from hub.store_policies import DeviceWord, PolicyRow
from hub.store_rollouts import Rollouts
from hub.store_rows import BatchMember, BatchRow, FindingRow, FrameState, GroupAssignment, LeaderRow, immediate
from hub.store_sightings import SightingRow
from hub.store_status import HubStatus
from hub.store_upkeep import Upkeep
from hub.store_weakspots import Spots, StepRow

__all__ = ["BatchMember", "BatchRow", "Candidate", "FindingRow", "FrameState", "GroupAssignment", "LeaderRow", "Store"]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Store:
    """An open database. Use as a context manager."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """`path` is the file that the connection has open."""
        self._connection = connection
        self._path = path.absolute()
        self._file = _identity(self._path)

    @classmethod
    def open(cls, path: Path | str, *, create: bool = True) -> Self:
        """Open and migrate. Raises `UnusableError` when it is missing (without `create`), unreadable or not ours."""
        connection = open_connection(Path(path), create=create)
        try:
            insist(lambda: migrate(connection))
        except sqlite3.Error as error:
            connection.close()
            msg = f"cannot use the database {path}: {error}"
            raise UnusableError(msg) from error
        except UnusableError:
            connection.close()
            raise
        return cls(connection, Path(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what was written is safe without this."""
        self._connection.close()

    # Ingest

    def commit(self, arrivals: Sequence[Arrival], *, now_ms: int) -> list[Outcome]:
        """Store messages in one transaction; return, in order, what may be acknowledged.

        Raises `sqlite3.Error`, and `UnusableError` when the file is no longer where it was opened: then they were
        stored where nobody will find them.
        """
        outcomes = store_ingest.commit(self._connection, arrivals, now_ms=now_ms)
        if self._file is None or _identity(self._path) != self._file:
            msg = f"the database {self._path} was deleted or moved while it was in use: nothing of this is acknowledged"
            raise UnusableError(msg)
        return outcomes

    # Near-duplicate groups

    def ungrouped(self, limit: int = 1000) -> list[FindingRow]:
        """Return findings without a group, in the order in which they were committed."""
        return store_groups.ungrouped(self._connection, limit)

    def leaders(self) -> Iterator[LeaderRow]:
        """Yield the leaders of all groups, in order of group."""
        return store_groups.leaders_after(self._connection, 0, seen_since_ms=0)

    def leaders_after(self, group_id: int, *, seen_since_ms: int = 0) -> Iterator[LeaderRow]:
        """Yield the leaders of the groups above `group_id`, in order of group: what an index has not seen yet.

        `seen_since_ms` leaves out the groups whose newest member was captured before.
        """
        return store_groups.leaders_after(self._connection, group_id, seen_since_ms=seen_since_ms)

    def last_group(self) -> int:
        """Return the highest number of a group, 0 when there is none."""
        return store_groups.last_group(self._connection)

    def assign_groups(
        self, assignments: Sequence[GroupAssignment], *, forgettings: tuple[int, int] | None = None
    ) -> None:
        """Group findings, all or none. The caller numbers new groups on from the highest leader it has read.

        `forgettings` are those counted before leaders were read, by who holds them in memory.

        Raises `StaleError` when another process was faster: read the leaders again and repeat.
        """
        store_groups.assign_groups(self._connection, assignments, forgettings=forgettings)

    def group_sizes(self, group_ids: Iterable[int]) -> dict[int, int]:
        """Return how many findings each group counts."""
        return store_groups.group_sizes(self._connection, group_ids)

    # Sightings

    def sightings(self, *, since_ms: int, until_ms: int, limit: int) -> Iterator[SightingRow]:
        """Yield the newest `limit` sightings captured since and until then, newest first."""
        return store_sightings.sightings(self._connection, since_ms=since_ms, until_ms=until_ms, limit=limit)

    # Wants

    def held_numbers(self, *, received_since_ms: int) -> set[int]:
        """Return the numbers of the findings whose frames may be asked for, one a group, that came since then."""
        return store_groups.held_numbers(self._connection, received_since_ms=received_since_ms)

    def frames(self, finding_ids: Iterable[int]) -> list[FrameRow]:
        """Return frames by the numbers of their findings, in order of number."""
        return store_groups.frames(self._connection, finding_ids)

    def held_frames(self, *, received_since_ms: int) -> list[FrameRow]:
        """Return the frames that may be asked for, one a group, of findings that came since then."""
        return self.frames(self.held_numbers(received_since_ms=received_since_ms))

    def pooled_frames(self, limit_per_device: int, *, alive_since_ms: int) -> list[FrameRow]:
        """Return the frames here, or on their way from a living device, whose group is in no batch; one a group."""
        return store_groups.pooled_frames(self._connection, limit_per_device, alive_since_ms=alive_since_ms)

    def batched_frames(self, limit: int) -> list[FrameRow]:
        """Return the frames of the newest batches, `control` aside."""
        return store_groups.batched_frames(self._connection, limit)

    def frame_details(self, finding_ids: Iterable[int]) -> dict[int, FrameDetail]:
        """Return what it takes to compare frames and to ask for them, by the number of their finding.

        A held one whose picture is here or on its way under another finding is left out, `control` aside.
        """
        return store_groups.frame_details(self._connection, finding_ids)

    def living(self, *, alive_since_ms: int) -> set[DeviceKey]:
        """Return the `(site, device)` that are online or were heard since then."""
        return store_groups.living(self._connection, alive_since_ms=alive_since_ms)

    def objects(self, finding_ids: Sequence[int]) -> list[SightingRow]:
        """Return the objects that were seen in `control` frames, by the numbers of their findings."""
        return store_sightings.objects(self._connection, finding_ids)

    def spent_since(self, since_ms: int) -> Mapping[DeviceKey, DeviceSpend]:
        """Return what was asked of each `(site, device)` since then, and how many wants of any age wait."""
        return store_groups.spent_since(self._connection, since_ms)

    def mark_wanted(self, event_ids: Sequence[str], *, now_ms: int) -> set[str]:
        """Record that these frames are asked for; return those that were held until then: the others are not."""
        return store_groups.mark_wanted(self._connection, event_ids, now_ms=now_ms)

    def overdue_wants(self, *, asked_before_ms: int, alive_since_ms: int, limit_per_device: int) -> list[Overdue]:
        """Return unanswered wants of devices that are online or were heard since `alive_since_ms`."""
        return store_groups.overdue_wants(
            self._connection, asked_before_ms=asked_before_ms, alive_since_ms=alive_since_ms, limit=limit_per_device
        )

    def mark_asked(self, event_ids: Sequence[str], *, now_ms: int) -> None:
        """Record that these wants were sent again."""
        store_groups.mark_asked(self._connection, event_ids, now_ms=now_ms)

    def give_up(self, *, wanted_before_ms: int, parts_before_ms: int) -> int:
        """Call frames gone that never came, and delete parts that were never completed; return how many wants."""
        store_groups.prune_parts(self._connection, received_before_ms=parts_before_ms)
        return store_groups.give_up_wants(self._connection, wanted_before_ms=wanted_before_ms)

    # Findings, frames and batches

    def finding(self, event_id: str) -> FindingRow:
        """Return one finding. Raises `UnusableError` when there is none."""
        return store_batches.finding(self._connection, event_id)

    def frame(self, event_id: str) -> bytes:
        """Return the JPEG of a finding. Raises `UnusableError` when it is not here."""
        return store_batches.frame(self._connection, event_id)

    def candidates(self) -> list[Candidate]:
        """Return one finding of every group that has a frame here and no member in a batch; junk does not count.

        It is the group's leader, or, when the leader's frame is not here, the most severe member whose frame is. What a
        machine has labelled is none.
        """
        return store_batches.candidates(self._connection)

    def population(self) -> list[Candidate]:
        """Return the candidates, and what a machine has labelled: all that no person has been given."""
        return store_batches.candidates(self._connection, machine_labelled=True)

    def machine_labelled(self, source: str) -> dict[str, int]:
        """Return the group of each image that a machine has labelled outside any batch in the sets of this source."""
        return store_batches.machine_labelled(self._connection, source)

    def batched(self, limit: int) -> list[Candidate]:
        """Return the images of the newest batches, at most `limit`."""
        return store_batches.batched(self._connection, limit)

    def on_the_way(self) -> list[Candidate]:
        """Return the findings of groups in no batch whose frame is asked for and not here yet."""
        return store_batches.on_the_way(self._connection)

    def freeze_batch(
        self,
        members: Sequence[BatchMember],
        *,
        now_ms: int,
        title: str,
        weak_spot_id: int | None = None,
        step: StepRow | None = None,
        from_states: Collection[str] = (),
        model: str = "",
        random: bool = False,
    ) -> int:
        """Freeze a batch, in order of rank, and return its number.

        The weak spot takes `step` with it if it is in one of `from_states`. Raises `UnusableError`, and stores nothing
        at all, when it is in none, a frame is not here, or a group is already in a batch. `random`: its images were
        drawn from all, each as likely as the others.
        """
        batch = BatchRow(
            id=0, created_at_ms=now_ms, size=0, title=title, weak_spot_id=weak_spot_id, model=model, random=random
        )
        with immediate(self._connection):
            if weak_spot_id is not None and step and (state := self.spots.one(weak_spot_id).state) not in from_states:
                msg = f"weak spot {weak_spot_id} is `{state}` now: it cannot get a batch"
                raise UnusableError(msg)
            number = store_batches.freeze_batch(self._connection, members, batch)
            if weak_spot_id is not None and step:
                self.spots.move(weak_spot_id, step._replace(batch_id=number))
        return number

    def batches(self) -> list[BatchRow]:
        """Return every batch, oldest first."""
        return store_batches.batches(self._connection)

    def batch(self, batch_id: int) -> BatchRow:
        """Return one batch. Raises `UnusableError` when there is none."""
        return store_batches.batch(self._connection, batch_id)

    def batch_members(self, batch_id: int) -> list[BatchMember]:
        """Return the members of a batch in order of rank."""
        return store_batches.batch_members(self._connection, batch_id)

    def at_once(self) -> AbstractContextManager[None]:
        """Return one write transaction around several calls: all of what they store, or nothing on an exception."""
        return immediate(self._connection)

    # What is kept, and what is forgotten

    @property
    def upkeep(self) -> Upkeep:
        """What keeps the file small, and forgets."""
        return Upkeep(self._connection)

    @property
    def spots(self) -> Spots:
        """The weak spots."""
        return Spots(self._connection)

    @property
    def labels(self) -> Labels:
        """What people and machines drew."""
        return Labels(self._connection)

    @property
    def cvat(self) -> CvatTasks:
        """The tasks on CVAT servers."""
        return CvatTasks(self._connection)

    @property
    def labelled(self) -> Labelled:
        """The labelled images, for the data set's health."""
        return Labelled(self._connection)

    @property
    def lights(self) -> Lights:
        """What cameras saw under which light."""
        return Lights(self._connection)

    @property
    def datasets(self) -> Datasets:
        """The dataset versions."""
        return Datasets(self._connection, self._path.parent)

    @property
    def series(self) -> Series:
        """Numbers over time, for pictures."""
        return Series(self._connection)

    @property
    def rollouts(self) -> Rollouts:
        """The rollouts, and what the devices were ordered."""
        return Rollouts(self._connection)

    # Policies

    def policies(self) -> list[PolicyRow]:
        """Return what was set for every site and device, a site's own before its devices'."""
        return store_policies.policies(self._connection)

    def edit_policy(self, site: str, device: str, edit: Callable[[Policy], Policy], *, now_ms: int) -> None:
        """Set the policy of a device, or of its site where `device` is empty, to what `edit` makes of the present one.

        With no present one `edit` gets an empty one. Raises `UnusableError` when one of the names cannot be used, or
        when a device could not read the policy.
        """
        store_policies.edit_policy(self._connection, site, device, edit, now_ms=now_ms)

    def device_words(self) -> list[DeviceWord]:
        """Return what every device's last heartbeat says of policies."""
        return store_policies.device_words(self._connection)

    # Looking at it

    def status(self, *, now_ms: int) -> HubStatus:
        """Return what is here, counted."""
        return store_status.hub_status(self._connection, now_ms=now_ms)

    def violations(self) -> Iterator[str]:
        """Yield one sentence for every law that does not hold. Reads everything."""
        return store_check.violations(self._connection)

    def frame_count(self) -> int:
        """Return how many frames are here."""
        return store_check.frames_checked(self._connection)
