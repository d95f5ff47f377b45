"""From an assignment to a model that serves: fetched, verified, staged, held against the old one, confirmed or left.

Laws (5, 6 and 7 of the house; which state may follow which stands in edge.slot_work):

1. The state is on the disk before anything acts on it. So a start repeats what was unfinished, at any point.
2. What the state calls active is what serves: after each change the cameras are given that model, between two frames.
   The old one serves until then; nothing here makes a camera wait.
3. Nothing is reported before it is so: a model that was left is told of when the other one serves.
4. What the repository gets wrong fails no release: it is asked again, and the reason told. A release fails by what it
   is, or by what this device cannot do with it.
"""

import logging
import threading
import time
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
from edge.slot_work import accept, advance, assign, hold, report_of, roll_back
from edge.slots import SlotStore, models_folder
from edge.updating.fetching import Fetcher
from edge.updating.judge import hold_golden, tune_on_arrival
from edge.updating.proving import Proving, release_folder
from edge.updating.time_floor import ExpiredError

SETTLED_S: Final = 30.0
SWAP_S: Final = 30.0
STOP_S: Final = 5.0
RETRY_S: Final = 30.0
LONGEST_S: Final = 3600.0
_IDLE_S: Final = 5.0
_PROVING_S: Final = 0.5

_log = logging.getLogger(__name__)


class _StoppedError(Exception):
    """The daemon stops: nothing more is written."""


class _NewerError(Exception):
    """Another assignment waits."""


def begin_start(config: EdgeConfig) -> SlotStore:
    """Open what the device holds, and count this start before a model is loaded: three that fail revert.

    A disk that takes no word is told in the log and costs the count, not the start. Raises `UnusableError`.
    """
    store = SlotStore(models_folder(config.data_dir), factory_line(config))
    before = store.slots
    slots, number = start(before, now_ms=_now_ms())
    if number != before.active:
        _log.error("release %d failed to start %d times: going back to %d", before.active, before.starts, number)
    try:
        store.write(slots)
    except WeakspotError as error:
        _log.warning("the start could not be counted: %s", error)
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
        self._proving = Proving(config, store, detection)
        self._refused = 0
        self._fetcher: Fetcher | None = None
        self._ordered: Assignment | None = None
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

    def start(self) -> None:
        """Begin to follow; what is unfinished goes on."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread. A daemon that was stopped in order has started well."""
        self._stopping.set()
        self._woken.set()
        self._thread.join(STOP_S)
        if self._thread.is_alive():
            return
        try:
            self._store.write(settled(self._store.slots))
        except WeakspotError as error:
            _log.warning("%s", error)

    def take(self, payload: bytes) -> None:
        """Take an assignment as it came from the hub; an empty one withdraws. Raises `UnusableError` and waits not."""
        nothing = Assignment(
            rollout="", action="install", model=self._store.slots.model, release="", number=0, target="", at_ms=0
        )
        self._ordered = decode(payload, Assignment) if payload else nothing
        self._woken.set()

    # The thread.

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._woken.clear()
                wait_s = self._guarded_turn()
                if wait_s:
                    self._woken.wait(wait_s)
        except _StoppedError:
            pass
        finally:
            self._proving.close()

    def _guarded_turn(self) -> float:
        poll_s = RETRY_S if self._config.updates is None else self._config.updates.poll_s
        try:
            wait_s = self._turn()
        except _NewerError:
            return 0.0
        except (UnreachableError, ExpiredError) as error:  # it mends itself
            self._tell_why(str(error))
            return poll_s
        except WeakspotError as error:  # what is wrong may be wrong again: it is not fetched anew every minute
            self._tell_why(str(error))
            self._refused += 1
            return min(max(poll_s, LONGEST_S), poll_s * 2.0 ** min(self._refused - 1, 10))
        except _StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - the loop counts and goes on
            self._detection.count_fault("update_error", "an update could not go on", error)
            return poll_s
        self._refused = 0
        return wait_s

    def _turn(self) -> float:
        """Obey, let serve what is to serve, tell, and do the next step; return how long it may rest."""
        self._obey()
        self._follow()
        self._settle()
        self._say()
        slots = self._store.slots
        if slots.work is None or slots.work.ended:
            self._proving.close()
            self._store.prune()
            return _IDLE_S
        return self._steps[slots.work.phase](slots, slots.work)

    def _obey(self) -> None:
        """Take what the hub ordered, and what a person asked for at the device."""
        ordered, self._ordered = self._ordered, None
        if ordered is not None:
            self._put(assign(self._store.slots, ordered, now_ms=_now_ms()))
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
                raise _StoppedError from error
            if not slots.on_trial:
                self.fault = f"{slots.active} cannot be gone back to without a new start: {error}"
                raise
            self._put(roll_back(slots, f"it could not be taken up: {error}", now_ms=_now_ms()))

    def _settle(self) -> None:
        """Count the start as good when the model has served for a while; one on trial has its verdict for that."""
        slots = self._store.slots
        old_enough = time.monotonic() - self._begun_s >= SETTLED_S and self._detection.looked().frames > 0
        if slots.starts and not slots.on_trial and old_enough:
            self._put(settled(slots))

    def _say(self) -> None:
        slots, serving, last = self._store.slots, self._detection.serving.release, self.last_report
        report = report_of(slots, boot_id=self._boot_id, serving=serving, at_ms=_now_ms())
        if slots.work is None or report is None:
            self.last_report = None
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
        _log.warning("the update of %s waits: %s", work.assignment.release, reason)
        try:
            self._put(told(self._store.slots, msgspec.structs.replace(work, reason=plain_text(reason))))
            if self._detection.serving.number == self._store.slots.active:
                self._say()
        except WeakspotError as error:
            _log.warning("%s", error)

    # One step each: what it does, then the state that follows. What it returns is how long to rest.

    def _ask(self, slots: Slots, work: Work) -> float:
        """Learn what is signed of the release, and whether there is room."""
        if self._config.updates is None:
            return self._fail(slots, "this device takes no updates: its edge.toml has no [updates]")
        fetcher = self._open_fetcher()
        fetcher.refresh()
        offered = fetcher.release(work.assignment.target)
        try:
            accepted = accept(slots, offered.signed, now_ms=_now_ms())
        except ValueError as error:
            return self._fail(slots, str(error))
        try:
            self._store.require_room(offered.archive_bytes + offered.signed.unpacked_bytes)
        except WeakspotError as error:
            return self._fail(slots, str(error))
        self._put(accepted)
        return 0.0

    def _download(self, slots: Slots, work: Work) -> float:
        self._open_fetcher().fetch(
            work.assignment.target, require_room=self._store.require_room, on_bytes=self._break_off
        )
        self._put(advance(slots, "verified", now_ms=_now_ms()))
        return 0.0

    def _stage(self, slots: Slots, work: Work) -> float:
        """Unpack what was verified. The archive is verified again: a start may lie between."""
        assert work.signed is not None
        archive = self._open_fetcher().fetch(work.assignment.target, on_bytes=self._break_off)
        try:
            self._store.stage(archive, work.signed)
        except (UntrustedError, UnusableError) as error:
            return self._fail(slots, str(error))
        self._put(hold(slots, now_ms=_now_ms()))
        self._open_fetcher().clear()
        return 0.0

    def _begin_golden(self, slots: Slots, _work: Work) -> float:
        self._put(advance(slots, "golden", now_ms=_now_ms()))
        return 0.0

    def _hold_golden(self, slots: Slots, work: Work) -> float:
        """Measure on arrival which way of running it is the fastest good one, then hold that against its golden set."""
        folder = self._store.path(work.assignment.number)
        for judged in (tune_on_arrival, hold_golden):
            verdict = judged(self._config, folder)
            if verdict.outcome == "fail":
                return self._fail(slots, verdict.reason)
        self._put(advance(slots, "shadow", now_ms=_now_ms()))
        return 0.0

    def _prove(self, slots: Slots, _work: Work) -> float:
        following = self._proving.turn(slots, now_ms=_now_ms())
        self._put(following)
        return _PROVING_S if following is slots else 0.0

    def _fail(self, slots: Slots, reason: str) -> float:
        self._put(roll_back(slots, reason, now_ms=_now_ms()))
        return 0.0

    def _open_fetcher(self) -> Fetcher:
        updates = self._config.updates
        if updates is None:
            msg = "edge.toml has no [updates] any more"
            raise UnusableError(msg)
        if self._fetcher is None:
            try:
                root = updates.root.read_bytes()
            except OSError as error:
                msg = f"cannot read the trusted root {updates.root}: {error.strerror}"
                raise UnusableError(msg) from error
            self._fetcher = Fetcher(models_folder(self._config.data_dir), updates.url, root)
        return self._fetcher

    def _break_off(self, _here: int, _whole: int) -> None:
        if self._stopping.is_set():
            raise _StoppedError
        if self._ordered is not None:
            raise _NewerError

    def _put(self, slots: Slots) -> None:
        """Make a state the device's. Raises `WeakspotError` when the disk does not take it: then it is not."""
        if self._stopping.is_set():
            raise _StoppedError
        if slots is not self._store.slots:
            self._store.write(slots)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
