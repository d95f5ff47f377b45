"""From an assignment to a model that serves: fetched, verified, staged, held against the old one, confirmed or left.

Laws (5, 6 and 7 of the house; which state may follow which stands in edge.slot_work):

1. The state is on the disk before anything acts on it. So a start repeats what was unfinished, a bake from its begin.
   But a model is left at once, whatever the disk does: a start that finds it on trial still leaves it again.
2. What the state calls active is what serves: after each change the cameras are given that model, between two frames.
   The old one serves until then; nothing here makes a camera wait.
3. Nothing is reported before it is so: a model that was left is told of when the other one serves.
4. No step is so long that a stop, a newer order or a person waits for its end, or that a good start is not counted.
5. What the repository gets wrong fails no release: it is asked again, and the reason told. A release fails by what it
   is, or by what this device cannot do with it.
6. One that hangs on trial is left by the end of the process, with the status `HUNG`; its start is never a good one.
"""

import logging
import os
import threading
import time
from collections import deque
from typing import Final

import msgspec
import numpy as np

from edge.config import EdgeConfig
from edge.contract.errors import UnreachableError, UntrustedError, UnusableError, WeakspotError
from edge.contract.rollout import Assignment, RolloutReport
from edge.contract.samples import plain_text
from edge.contract.status import decode, encode
from edge.detection import Detection
from edge.opening import factory_line, open_slot
from edge.publisher import Publisher
from edge.serving import open_serving, warm
from edge.slot_state import Slots, Work, revert, settled, start, told
from edge.slot_work import accept, advance, assign, hold, is_way_back, nothing_assigned, rename, report_of, roll_back
from edge.slots import SlotStore, models_folder
from edge.updating.broken_off import NewerError, StoppedError, UnwrittenError
from edge.updating.fetching import Fetcher, clear_downloads, open_fetcher
from edge.updating.proving import Proving, release_folder
from edge.updating.seen_time import SURE_S, Pulse, SeenTime
from edge.updating.time_floor import ExpiredError
from edge.updating.way_back import turn_back

SETTLED_S: Final = 30.0
SWAP_S: Final = 30.0
STOP_S: Final = 5.0
RETRY_S: Final = 30.0
LONGEST_S: Final = 3600.0
HUNG: Final = 70
_IDLE_S: Final = 5.0
_PROVING_S: Final = 0.5
_DARK: Final = "it waits: no camera gives a frame to judge it by"

_log = logging.getLogger(__name__)


def begin_start(config: EdgeConfig) -> SlotStore:
    """Open what the device holds, and count this start before a model is loaded: three that fail revert.

    A disk that takes no word costs the count, not the start; but a release on trial is not loaded then: one that ends
    the process at each start would never be left. Raises `UnusableError`.
    """
    store = SlotStore(models_folder(config.data_dir), factory_line(config))
    store.write(rename(store.slots, f"{config.site}/{config.device}"), at_once=True)
    before = store.slots
    slots, number = start(before, now_ms=_now_ms())
    if number != before.active:
        _log.error("release %d failed to start %d times: going back to %d", before.active, before.starts, number)
    try:
        store.write(slots, at_once=number != before.active)
    except WeakspotError as error:
        _log.warning("the start could not be counted: %s", error)
        if slots.on_trial:
            store.write(roll_back(before, f"its start could not be counted: {error}", now_ms=_now_ms()), at_once=True)
    return store


class Updater:
    """The thread. `start` once, `stop` once; `take` from any thread.

    Attributes:
        fault: why the daemon must start anew; "" as long as it need not.
        last_report: what was last told; None before the first.
    """

    def __init__(
        self, config: EdgeConfig, store: SlotStore, *, detection: Detection, publisher: Publisher, boot_id: str
    ) -> None:
        self.fault = ""
        self.last_report: RolloutReport | None = None
        self._config = config
        self._store = store
        self._detection = detection
        self._publisher = publisher
        self._boot_id = boot_id
        self._begun_s = time.monotonic()
        self._place = f"{config.site}/{config.device}"
        self._seen = SeenTime(detection.looked)
        self._pulse = Pulse(lambda: detection.beat_s)
        self._proving = Proving(config, store, detection, clock=self._seen.now_s)
        self._refused = 0
        self._fetcher: Fetcher | None = None
        self._told_why = ""
        self._has_said = False
        self._orders: deque[Assignment] = deque()
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._steps = {
            "assigned": self._ask,
            "downloading": self._download,
            "verified": self._stage,
            "staged": self._begin_golden,
            "golden": self._hold_golden,
            "shadow": self._prove,
            "trial": self._prove,
        }
        self._thread = threading.Thread(target=self._run, name="updater", daemon=True)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to follow; what is unfinished goes on."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. A daemon that was stopped in order has started well, but not with a trial that hangs."""
        self._stopping.set()
        self._woken.set()
        self._thread.join(STOP_S)
        if self._thread.is_alive() or (self._store.slots.on_trial and self._detection.silent_s >= SURE_S):
            return
        try:
            self._store.write(settled(self._store.slots))
        except WeakspotError as error:
            _log.warning("%s", error)

    def take(self, payload: bytes) -> None:
        """Take an assignment as it came from the hub; an empty one withdraws. Raises `UnusableError` and waits not."""
        self._orders.append(decode(payload, Assignment) if payload else nothing_assigned(self._store.slots.model))
        self._woken.set()

    # The thread.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._woken.clear()
                self._rest(self._guarded_turn())
        except StoppedError:
            pass
        finally:
            self._proving.close()

    def _rest(self, wait_s: float) -> None:
        """Wait, but not while a person asks; a start that was good is counted, and what the disk lacks is written."""
        end_s = time.monotonic() + wait_s
        while (left_s := end_s - time.monotonic()) > 0 and not self._woken.wait(min(left_s, _IDLE_S)):
            self._settle()
            self._store.catch_up()
            if self._store.is_asked():
                return

    def _guarded_turn(self) -> float:
        poll_s = RETRY_S if self._config.updates is None else self._config.updates.poll_s
        try:
            wait_s = self._turn()
        except NewerError:
            return 0.0
        except UnwrittenError as error:
            self._tell_why(str(error))
            return _IDLE_S
        except (UnreachableError, ExpiredError) as error:  # it mends itself
            self._tell_why(str(error))
            return poll_s
        except WeakspotError as error:  # what is wrong may be wrong again: it is not fetched anew every minute
            self._tell_why(str(error))
            self._fetcher = None  # what it trusts may be what is wrong
            self._refused += 1
            return min(max(poll_s, LONGEST_S), poll_s * 2.0 ** min(self._refused - 1, 10))
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - the loop counts and goes on
            self._detection.count_fault("update_error", "an update could not go on", error)
            return min(poll_s, RETRY_S)
        self._refused = 0
        return wait_s

    def _turn(self) -> float:
        """Obey, let serve what is to serve, tell, and do the next step; return how long it may rest."""
        self._store.catch_up()
        self._obey()
        self._follow()
        self._settle()
        self._say()
        slots = self._store.slots
        if slots.work is None or slots.work.ended:
            self._proving.close()
            self._let_go()
            return _IDLE_S
        if self._orders and not slots.on_trial:  # the disk does not take it
            return _IDLE_S
        return self._steps[slots.work.phase](slots, slots.work)

    def _obey(self) -> None:
        """Take what the hub ordered last, and what a person asked for at the device.

        An order that the disk does not take stays for the next turn; what is on trial is judged meanwhile.
        """
        if self._orders:
            ordered, done = self._orders[-1], True
            try:
                self._put(assign(self._store.slots, ordered, now_ms=_now_ms(), place=self._place))
            except UnwrittenError as error:
                done = False
                _log.debug("the order waits: %s", error)
            finally:
                while done and self._orders.popleft() is not ordered:
                    pass
        by_hand = self._store.asked()
        if by_hand is not None:
            try:
                self._put(revert(self._store.slots, to=by_hand.to, why="a person went back", now_ms=_now_ms()))
            except ValueError as error:
                _log.warning("what was asked for by hand is not done: %s", error)

    def _follow(self) -> None:
        """Give the cameras the model that is active, if they look through another one."""
        slots = self._store.slots
        if self._detection.serving.number == slots.active:
            return
        self._proving.close()
        try:
            detector = open_slot(self._config, release_folder(self._store, slots.active))
            sizes = self._detection.sizes().values() or [detector.input_size]
            warm(detector, [np.full((height, width, 3), 114, np.uint8) for width, height in set(sizes)])
            serving = open_serving(self._config, detector, number=slots.active)
            self._detection.swap(serving, within_s=SWAP_S)
            self._publisher.serve_as(serving.release)
        except Exception as error:  # whatever a model does when it is opened tells of the model
            if self._stopping.is_set():
                raise StoppedError from error
            if not slots.on_trial:
                self.fault = f"{slots.active} cannot be gone back to without a new start: {error}"
                raise
            self._put(roll_back(slots, f"it could not be taken up: {error}", now_ms=_now_ms()))

    def _settle(self) -> None:
        """Count the start as good when the model has served for a while; one on trial has its verdict for that."""
        slots = self._store.slots
        old_enough = time.monotonic() - self._begun_s >= SETTLED_S and self._detection.looked().frames > 0
        if slots.starts and not slots.on_trial and old_enough:
            try:
                self._put(settled(slots))
            except UnwrittenError as error:
                _log.warning("the start is not counted as good: %s", error)
                self._begun_s = time.monotonic()

    def _let_go(self) -> None:
        """Remove what nothing needs any more, also what a start that ended in between had fetched."""
        try:
            self._store.prune()
            clear_downloads(self._store.folder)
        except WeakspotError as error:
            raise UnwrittenError(str(error)) from error

    def _say(self) -> None:
        slots, serving, last = self._store.slots, self._detection.serving.release, self.last_report
        dark = slots.work is not None and slots.work.reason == _DARK
        report = report_of(slots, boot_id=self._boot_id, serving=serving, at_ms=_now_ms(), no_frames=dark)
        if slots.work is None or report is None:
            if last is not None or not self._has_said:  # before this start, too: what is retained says it for ever
                self.last_report, self._has_said = None, True
                self._publisher.offer_report(b"")
            return
        if last is not None and (last.sequence, last.serving) == (report.sequence, serving):
            return
        self.last_report = report = msgspec.structs.replace(report, figures=self._proving.figures(slots.work))
        self._publisher.offer_report(encode(report))
        _log.info("%s is %s%s", report.release, report.phase, f": {report.reason}" if report.reason else "")

    def _tell_why(self, reason: str) -> None:
        """Tell why it does not go on, once for each reason."""
        work = self._store.slots.work
        if work is None or work.ended or work.reason == plain_text(reason) or self._stopping.is_set():
            return
        if reason != self._told_why:
            self._told_why = reason
            _log.warning("the update of %s waits: %s", work.assignment.release, reason)
        try:
            self._put(told(self._store.slots, msgspec.structs.replace(work, reason=plain_text(reason))))
        except UnwrittenError:
            return
        if self._detection.serving.number == self._store.slots.active:
            self._say()

    # One step each: what it does, then the state that follows. What it returns is how long to rest.

    def _ask(self, _slots: Slots, work: Work) -> float:
        """Learn what is signed of the release, and whether there is room."""
        if self._config.updates is None:
            return self._fail("this device takes no updates: its edge.toml has no [updates]")
        fetcher = self._open_fetcher()
        fetcher.refresh()
        offered = fetcher.release(work.assignment.target)
        try:
            accepted = accept(self._store.slots, offered.signed, now_ms=_now_ms())
            self._store.require_room(offered.archive_bytes + offered.signed.unpacked_bytes)
        except (ValueError, WeakspotError) as error:
            return self._fail(str(error))
        self._put(accepted)
        return 0.0

    def _download(self, _slots: Slots, work: Work) -> float:
        self._open_fetcher().fetch(
            work.assignment.target, require_room=self._store.require_room, on_bytes=self._meanwhile
        )
        self._put(advance(self._store.slots, "verified", now_ms=_now_ms()))
        return 0.0

    def _stage(self, _slots: Slots, work: Work) -> float:
        """Unpack what was verified. The archive is verified again: a start may lie between."""
        assert work.signed is not None
        archive = self._open_fetcher().fetch(work.assignment.target, on_bytes=self._meanwhile)
        try:
            self._store.stage(archive, work.signed)
        except (UntrustedError, UnusableError) as error:
            return self._fail(str(error))
        self._put(hold(self._store.slots, now_ms=_now_ms()))
        self._open_fetcher().clear()
        return 0.0

    def _begin_golden(self, slots: Slots, _work: Work) -> float:
        self._put(advance(slots, "golden", now_ms=_now_ms()))
        return 0.0

    def _hold_golden(self, _slots: Slots, work: Work) -> float:
        if fault := self._proving.arrive(work, on_wait=self._meanwhile):
            return self._fail(fault)
        self._put(advance(self._store.slots, "shadow", now_ms=_now_ms()))
        return 0.0

    def _prove(self, slots: Slots, work: Work) -> float:
        if slots.on_trial and self._pulse.hangs():
            self._fail(f"it hangs: it has been at one frame for {self._detection.silent_s:.0f} s")
            _log.critical(
                "the process ends, for nothing else ends a model that hangs; the next start serves the old one"
            )
            os._exit(HUNG)
        dark = self._seen.is_dark
        if not dark and work.reason == _DARK:
            slots = told(slots, msgspec.structs.replace(work, reason=""))
        try:
            if is_way_back(slots):
                following = turn_back(slots, self._detection.looked(), now_ms=_now_ms())
            else:
                following = self._proving.turn(slots, now_ms=_now_ms())
        except ValueError as error:  # a person, or a fall, changed what it was to replace
            return self._fail(str(error))
        self._put(following)
        if dark and following is slots:
            self._tell_why(_DARK)
        return _PROVING_S if following is slots else 0.0

    def _fail(self, reason: str) -> float:
        self._put(roll_back(self._store.slots, reason, now_ms=_now_ms()))
        return 0.0

    def _open_fetcher(self) -> Fetcher:
        if self._fetcher is None:
            self._fetcher = open_fetcher(models_folder(self._config.data_dir), self._config.updates)
        return self._fetcher

    def _meanwhile(self, *_: int) -> None:
        """Break a long step off for whom it would keep waiting; count a good start."""
        if self._stopping.is_set():
            raise StoppedError
        if self._orders or self._store.is_asked():
            raise NewerError
        self._settle()

    def _put(self, slots: Slots) -> None:
        """Make a state the device's: law 1. Raises `UnwrittenError` when the disk does not take it: then it is not."""
        if self._stopping.is_set():
            raise StoppedError
        before = self._store.slots
        if slots is before:
            return
        try:
            self._store.write(slots, at_once=slots.active != before.active and not slots.on_trial)
        except WeakspotError as error:
            raise UnwrittenError(str(error)) from error


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
