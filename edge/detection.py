"""The detection thread: the newest frame of each camera, looked at in turn. It waits for frames and the detector only.

Owns what serves and the way of a finding as far as the writer's queue, which overflows and counts what is lost.

Laws:

1. What serves is exchanged as a whole and between two frames. The new model is opened and warm before; the pause is
   what the old pipelines take to hand on what they hold.
2. Nobody waits for a model that hangs: `silent_s` tells of it, and `stop` leaves it behind.
"""

import logging
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple

from edge.camera import CameraState
from edge.contract.errors import UnusableError
from edge.contract.samples import Reason
from edge.eye import Eye
from edge.frame import Frame
from edge.observation import Mined
from edge.policy import PolicyBox, Rules, closed
from edge.quota import Quota
from edge.serving import Serving, follow, move_places
from edge.spool import Spool
from edge.stream import DetectionStream

WRITER_QUEUE: Final = 16
PATIENCE_S: Final = 5.0
HALT_S: Final = 10.0
_WAIT_S: Final = 0.5

_log = logging.getLogger(__name__)


class Sighted(NamedTuple):
    """What was mined, and what served when it was: a finding is described in that model's words."""

    mined: Mined
    serving: Serving


class Looked(NamedTuple):
    """What the model that serves has done since it was taken up: frames looked at, and those that it failed on.

    `moving`: frames that it was given, of cameras whose picture does not stand still: only those can be judged.
    """

    number: int
    frames: int
    failed: int
    not_finite: int
    moving: int


@dataclass(slots=True, eq=False)
class _Order:
    """A model that is to serve, and what became of it."""

    serving: Serving
    done: threading.Event = field(default_factory=threading.Event)
    fault: str = ""


class Detection:
    """The thread. `start` once, `stop` once; `swap`, `watch_with` and `hand_in` from any thread.

    Attributes:
        queue: what was mined, for the writer; None at the end is the daemon's.
        beat_s: when the thread last turned to a camera, monotonic.
        pause_ms: how long the last swap kept the cameras waiting.

    Args:
        eyes: with the pipelines of `serving`.
        woken: set by whoever has a new frame.
    """

    def __init__(
        self,
        eyes: Sequence[Eye],
        serving: Serving,
        *,
        quota: Quota,
        policies: PolicyBox,
        rules: Rules,
        spool: Spool,
        stream: DetectionStream,
        woken: threading.Event,
    ) -> None:
        self.queue: queue.Queue[Sighted | None] = queue.Queue(WRITER_QUEUE)
        self.beat_s = time.monotonic()
        self.pause_ms = 0.0
        self._eyes = eyes
        self._serving = serving
        self._quota = quota
        self._policies = policies
        self._rules = rules
        self._spool = spool
        self._stream = stream
        self._woken = woken
        self._halting = threading.Event()
        self._order: _Order | None = None
        self._ordering = threading.Lock()
        self._watch: Callable[[Frame], object] | None = None
        self._handed_in: queue.SimpleQueue[Sighted] = queue.SimpleQueue()
        self._looked: Counter[str] = Counter()
        self._faults: Counter[str] = Counter()
        self._thread = threading.Thread(target=self._run, name="detection", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look at what is left, finish every camera and end the thread; one that hangs for `HALT_S` is left behind."""
        self._halting.set()
        self._woken.set()
        self._thread.join(_WAIT_S)
        while self._thread.is_alive() and self.silent_s < HALT_S:
            self._thread.join(_WAIT_S)
        if self._thread.is_alive():
            _log.error("%s hangs: what it was looking at is lost", self._serving.release)

    @property
    def serving(self) -> Serving:
        """What serves now."""
        return self._serving

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    @property
    def silent_s(self) -> float:
        """How long the thread has been at one frame; without frames it turns all the same."""
        return time.monotonic() - self.beat_s

    def swap(self, serving: Serving, *, within_s: float) -> float:
        """Let another model serve from the next frame on; it is open and warm. Return the milliseconds of the pause.

        Raises `UnusableError` when it cannot be taken up, or is not in time: the one before goes on.
        """
        order = _Order(serving)
        with self._ordering:
            self._order = order
        self._woken.set()
        if not order.done.wait(within_s):
            with self._ordering:
                withdrawn = self._order is order
                self._order = None if withdrawn else self._order
            if withdrawn:
                msg = f"the cameras did not take {serving.release} up within {within_s:.0f} s"
                raise UnusableError(msg)
            order.done.wait()
        if order.fault:
            msg = f"{serving.release} could not be taken up: {order.fault}"
            raise UnusableError(msg)
        return self.pause_ms

    def watch_with(self, watch: Callable[[Frame], object] | None) -> None:
        """Give every frame to `watch` as well, before it is looked at; it must not wait. None ends it."""
        self._watch = watch

    def hand_in(self, mined: list[Mined]) -> None:
        """Take what another has mined of this device's frames, in the labels of the model that serves."""
        for one in mined:
            self._handed_in.put(Sighted(one, self._serving))

    def looked(self) -> Looked:
        """Return what the model that serves has done."""
        n = self._looked
        return Looked(self._serving.number, n["frames"], n["failed"], n["not_finite"], n["moving"])

    def sizes(self) -> dict[str, tuple[int, int]]:
        """Return (width, height) of each camera's last frame."""
        return {eye.camera.name: eye.size for eye in self._eyes if eye.size is not None}

    def count_fault(self, reason: str, text: str, error: Exception | None = None) -> None:
        """Count a fault; log the 1st, 2nd, 4th, 8th ... so that a fault of every frame does not fill the disk."""
        self._spool.count(reason)
        self._faults[reason] += 1
        n = self._faults[reason]
        if n & (n - 1) == 0:
            _log.error("%s (%d so far)", text, n, exc_info=error)

    # The thread: nothing here waits for disk or network.

    def _run(self) -> None:
        self._follow()
        while not self._halting.is_set():
            self._woken.wait(_WAIT_S)
            self._woken.clear()
            self.beat_s = time.monotonic()
            self._exchange()
            self._follow()
            for eye in self._eyes:
                self._serve(eye)
            self._take_in()
        for eye in self._eyes:
            while not eye.finished:
                self._serve(eye)

    def _exchange(self) -> None:
        """Take up what is to serve now, between two frames."""
        with self._ordering:
            order, self._order = self._order, None
        if order is None:
            return
        begun_s = time.perf_counter()
        coming = order.serving
        try:
            follow(coming, self._rules)
            move_places(self._serving, coming)
        except Exception as error:  # noqa: BLE001 - the one before goes on
            order.fault = str(error)
            self.count_fault("swap_error", "another model could not be taken up", error)
            order.done.set()
            return
        for eye in self._eyes:
            self._let_go(eye)
            eye.adopt(coming.pipelines[eye.camera.name], coming.redactions[eye.camera.name])
        self._stream.adopt(labels=coming.detector.labels, score_threshold=coming.score_threshold)
        self._serving, self._looked = coming, Counter()
        self.pause_ms = (time.perf_counter() - begun_s) * 1e3
        order.done.set()
        _log.info("%s serves; the cameras waited %.1f ms", coming.release, self.pause_ms)

    def _let_go(self, eye: Eye) -> None:
        """Hand on what a pipeline holds that leaves."""
        try:
            mined = eye.pipeline.finish()
            self._hand_over(eye.camera.name, _drawn(mined) if eye.frozen else mined, wait_s=0.0)
        except Exception as error:  # noqa: BLE001 - the loop counts and goes on
            self.count_fault("detection_error", "a camera could not be finished with", error)

    def _follow(self) -> None:
        """Take up what the policies have changed, between two frames."""
        if self._policies.rules is self._rules:
            return
        self._rules = rules = self._policies.rules
        try:
            self._quota.adopt(rules.quota, now_s=time.monotonic())
            follow(self._serving, rules)
        except Exception as error:  # noqa: BLE001 - the loop counts and goes on
            self.count_fault("policy_error", "a policy could not be followed", error)

    def _take_in(self) -> None:
        while not self._handed_in.empty():
            mined, serving = self._handed_in.get()
            if not self._is_closed():
                self._put(mined.at.frame.camera, mined, serving, wait_s=0.0)

    def _serve(self, eye: Eye) -> None:
        """Look at a camera's newest frame; once there are no more, finish with it."""
        self.beat_s = time.monotonic()
        try:
            is_last = self._halting.is_set() or eye.camera.state is CameraState.ENDED  # before its last frame is taken
            frame = eye.camera.newest()
            if frame is not None:
                self._woken.set()
                self.look(eye, frame)
            elif is_last and not eye.finished:
                eye.finished = True
                self.finish(eye)
        except Exception as error:  # noqa: BLE001 - the loop counts and goes on
            self._looked["failed"] += 1
            self.count_fault("detection_error", "a frame could not be looked at", error)

    def look(self, eye: Eye, frame: Frame) -> None:
        """Look at one frame of a camera. For the thread, or before it is started."""
        eye.watch(frame)
        watch = self._watch
        if not eye.frozen:
            self._looked["moving"] += 1
            if watch is not None:
                watch(frame)
        eye.pipeline.wanted = not eye.frozen and not self._is_closed()
        begun_s = time.monotonic()
        step = eye.pipeline.step(frame)
        now_s = time.monotonic()
        self._looked["frames"] += 1
        if not step.inference.finite:
            self._looked["not_finite"] += 1
            self.count_fault("not_finite", "the model gave numbers that are not finite")
        eye.meter.note(now_s=now_s, detect_ms=(now_s - begun_s) * 1e3)
        self._stream.offer(frame, step.detections, merged=step.merged)
        self._hand_over(frame.camera, _drawn(step.mined) if eye.frozen else step.mined, wait_s=0.0)

    def finish(self, eye: Eye) -> None:
        """Take what is still open when a recording ends or the daemon stops. Waits only when no camera is left."""
        nothing_left = self._halting.is_set() or all(other.finished for other in self._eyes)
        mined = eye.pipeline.finish()
        mined = _drawn(mined) if eye.frozen else mined
        self._hand_over(eye.camera.name, mined, wait_s=PATIENCE_S if nothing_left else 0.0)

    def _hand_over(self, camera: str, mined: list[Mined], *, wait_s: float) -> None:
        if mined and self._is_closed():  # nothing is counted of what is left out: nobody wants findings now
            mined = _drawn(mined)
        for one in mined:
            self._put(camera, one, self._serving, wait_s=wait_s)
            self.beat_s = time.monotonic()

    def _put(self, camera: str, mined: Mined, serving: Serving, *, wait_s: float) -> None:
        if not self._quota.admit(camera, mined.reason, now_s=time.monotonic()):
            self._spool.count(f"quota_{mined.reason}")
            return
        try:
            self.queue.put(Sighted(mined, serving), block=wait_s > 0, timeout=wait_s or None)
        except queue.Full:
            self._spool.count("writer_busy")

    def _is_closed(self) -> bool:
        return closed(self._rules, local=datetime.now(UTC).astimezone()) is not None


def _drawn(mined: list[Mined]) -> list[Mined]:
    """Return the `control` frames: while nothing is mined none is drawn, and those that waited are not lost."""
    return [one for one in mined if one.reason is Reason.CONTROL]
