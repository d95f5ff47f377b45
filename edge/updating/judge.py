"""Judges a release on this device: a child opens it beside the model that it is to replace; both look at the frames.

Owns the child's life, the shared picture and the sum of the figures; what is counted, and how it is judged, stands in
edge.updating.pairing and edge.contract.judgement.

Laws:

1. A model is opened for the first time, tuned and looked through in a child. Its crash and its hanging are answers.
2. `offer` never waits. The child gets the frames for which it has time: at most `share` of one processor.
3. What goes wrong while the new model has its turn is the release's fault; what goes wrong else tells nothing of it.
   A SIGKILL is the system's, for want of memory: nobody's fault.
"""

import collections
import mmap
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

import msgspec
import numpy as np

from edge.config import EdgeConfig
from edge.contract.errors import UnusableError
from edge.contract.judgement import NOTHING, Figures, Verdict, add, judge
from edge.contract.samples import Reason, Witness, WitnessKind, plain_text
from edge.detector.child import Child
from edge.frame import Frame
from edge.observation import Mined, Observation
from edge.opening import cache_path, tuned_path
from edge.updating.judging import HEAD_BYTES, NEW, Answer, Hold, Look, Measure, Open, Question, View, Way, Which
from edge.updating.pairing import unpack

OPEN_S: Final = 180.0
LOOK_S: Final = 30.0
KILLED: Final = "its process was killed by SIGKILL"
_MOST_KEPT: Final = 64
_STALE_S: Final = 1.0
OnWait = Callable[[], None]


class Judge:
    """Compares two models on the frames that it is offered. Leaving the context ends it.

    Attributes:
        share: see below; it may be changed at any time, and holds from the next frame on.

    Args:
        config: of the device: how models are opened, what is mined, the cameras.
        old: the folder of the model that is to be replaced; None is the one of the configuration.
        new: the folder of the one that is judged; None likewise.
        serving: which of them the device serves with.
        counted: what is to be gone on from: the figures of one that ended before.
        share: of one processor, all that both take together, on average.
        open_s: how long opening one model may take.
        look_s: how long both may look at one frame.
    """

    def __init__(
        self,
        config: EdgeConfig,
        *,
        old: Path | None,
        new: Path | None,
        serving: Which,
        counted: Figures = NOTHING,
        share: float = 0.5,
        open_s: float = OPEN_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._config = config
        self._ways: dict[Which, Way] = {"old": way_of(config, old), "new": way_of(config, new)}
        self._serving: Which = serving
        self.share = share
        self._open_s, self._look_s = open_s, look_s
        self._figures = counted
        self._fault = self._trouble = ""  # written once, by the thread
        self._mined: collections.deque[Mined] = collections.deque(maxlen=_MOST_KEPT)
        self._offered: dict[str, float] = {}
        self._judged: dict[str, int] = {}
        self._turns = 0
        self._frame: Frame | None = None
        self._free = False
        self._lock = threading.Lock()
        self._woken = threading.Event()
        self._leaving = threading.Event()
        self._bench: _Bench
        self._thread = threading.Thread(target=self._run, name="judge", daemon=True)

    def __enter__(self) -> Self:
        """Start the child; opening goes on while frames may be offered. Raises `UnusableError` when it cannot."""
        self._bench = _Bench()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it, whatever it does."""
        self._leaving.set()
        self._woken.set()
        self._bench.kill()
        self._thread.join()

    def offer(self, frame: Frame) -> bool:
        """Take a frame to be judged on; False when there is no time for it. Never waits."""
        with self._lock:
            now_s = time.monotonic()
            self._offered[frame.camera] = now_s
            if not self._free or not self._is_its_turn(frame.camera, now_s):
                return False
            self._free = False
            self._turns += 1
            self._judged[frame.camera] = self._turns
            self._frame = frame
        self._woken.set()
        return True

    @property
    def figures(self) -> Figures:
        """What was counted so far, with what it goes on from."""
        with self._lock:
            return self._figures

    @property
    def fault(self) -> str:
        """Why the new model cannot be run here; "" as long as it can."""
        return self._fault

    @property
    def trouble(self) -> str:
        """Why judging itself cannot go on, through no fault of the new model; "" as long as it does."""
        return self._trouble

    def verdict(self, enough: int | None) -> Verdict:
        """Judge by what was counted so far, `enough` frames being asked for; None is more than there are: no `pass`."""
        if self._fault:
            return Verdict(outcome="fail", reason=plain_text(self._fault))
        figures = self.figures
        found = judge(figures, enough=figures.frames + 1 if enough is None else enough)
        if self._trouble and found.outcome != "fail":
            return Verdict(outcome="insufficient", reason=plain_text(f"it could not be judged: {self._trouble}"))
        return found

    def disagreements(self) -> list[Mined]:
        """Return what only the model saw that does not serve, since the last call; of very many the newest."""
        found: list[Mined] = []
        while self._mined:
            found.append(self._mined.popleft())
        return found

    def _is_its_turn(self, camera: str, now_s: float) -> bool:
        """Return whether no other camera that delivers has waited longer."""
        mine = self._judged.get(camera, 0)
        waiting = [name for name, at_s in self._offered.items() if now_s - at_s < _STALE_S]
        return all(self._judged.get(name, 0) >= mine for name in waiting)

    # The thread.

    def _run(self) -> None:
        try:
            self._open_both()
            while not self._leaving.is_set():
                with self._lock:
                    self._free = True
                self._woken.wait()
                self._woken.clear()
                with self._lock:
                    frame, self._frame = self._frame, None
                if frame is not None:
                    self._look(frame)
        except UnusableError as error:
            self._note(str(error))
        except Exception as error:  # noqa: BLE001 - the thread is a loop; what it cannot do tells nothing of the release
            self._trouble = f"{type(error).__name__}: {error}"
        finally:
            with self._lock:
                self._free = False
            self._bench.close()

    def _open_both(self) -> None:
        view = View(
            mining=self._config.mining,
            blur=self._config.privacy.blur,
            zones={camera.name: camera.ignore for camera in self._config.camera},
            serving=self._serving,
        )
        for which, way in self._ways.items():
            self._bench.ask(Open(which=which, way=way, view=view), within_s=self._open_s)

    def _look(self, frame: Frame) -> None:
        begun_s = time.monotonic()
        height, width = frame.image.shape[:2]
        self._bench.show(frame)
        look = Look(
            camera=frame.camera,
            sequence=frame.sequence,
            captured_at_ms=frame.captured_at_ms,
            time_s=frame.time_s,
            width=width,
            height=height,
        )
        answer = self._bench.ask(look, within_s=self._look_s)
        with self._lock:
            self._figures = add(self._figures, answer.figures)
        self._mined.extend(_mined(answer, frame))
        self._leaving.wait(max(0.0, answer.spent_s / self.share - (time.monotonic() - begun_s)))

    def _note(self, reason: str) -> None:
        if self._leaving.is_set():
            return
        if self._bench.turn == NEW and not _is_the_systems(reason):
            self._fault = reason
        else:
            self._trouble = reason


def tune_on_arrival(
    config: EdgeConfig, folder: Path, *, seconds: float = 30.0, within_s: float = 900.0, on_wait: OnWait = lambda: None
) -> Verdict:
    """Measure a release's variants in a child, and write the fastest good one into `tuned.json` in its folder.

    Where the device's configuration names a runtime, threads or providers, these win, and nothing is measured.
    `fail`: it cannot be opened, or no way of running it is good here. `insufficient`: it was not done within
    `within_s`, or could not be written; the release then opens as its card says. `on_wait` is called now and then;
    what it raises ends it all. Raises `UnusableError` when no process can be started.
    """
    way = way_of(config, folder)
    if (way.runtime, way.threads, way.providers) != ("auto", None, ()):
        return Verdict(outcome="pass")
    question = Measure(way=way, seconds=seconds)  # it opens nothing itself: its own death tells nothing of the release
    return _once(
        question, within_s=within_s, on_wait=on_wait, read=lambda _: Verdict(outcome="pass"), died="insufficient"
    )


def hold_golden(
    config: EdgeConfig, folder: Path, *, within_s: float = OPEN_S, on_wait: OnWait = lambda: None
) -> Verdict:
    """Open a release in a child as the device would, and hold it against its golden set, where it has one.

    `pass` with a reason: it has none for this input size. `insufficient`: it could not be held against it, through no
    fault of its own. `on_wait`, and what is raised: as for `tune_on_arrival`.
    """
    return _once(Hold(way=way_of(config, folder)), within_s=within_s, on_wait=on_wait, read=_golden, died="fail")


def way_of(config: EdgeConfig, folder: Path | None) -> Way:
    """Return how this device opens a release's folder; None is the model of the configuration."""
    model = config.model
    path = model.path if folder is None else folder
    return Way(
        model=None if path is None else str(path),
        runtime=model.runtime,
        input_size=model.input_size,
        threads=model.threads,
        providers=model.providers,
        cache_dir=str(cache_path(config, folder)),
        tuned=str(tuned_path(config, folder)),
        score_threshold=model.score_threshold,
    )


class _Bench:
    """The child and the picture that it shares. Raises `UnusableError` when the device has no room for a process."""

    def __init__(self) -> None:
        with ExitStack() as undoing:
            try:
                self._fd = _memory_fd()
                undoing.callback(os.close, self._fd)
                self._size = HEAD_BYTES
                os.ftruncate(self._fd, self._size)
                self._memory = mmap.mmap(self._fd, self._size)
                command = [sys.executable, "-m", "edge.updating.judging", str(self._fd)]
                self._child = Child(command, leads=True, pass_fds=(self._fd,))
            except OSError as error:
                msg = f"no process could be started to judge it: {error.strerror}"
                raise UnusableError(msg) from error
            undoing.pop_all()

    @property
    def turn(self) -> int:
        """Whose turn it is or was: `OLD`, `NEW`, or 0 for nobody's."""
        return self._memory[0]

    def show(self, frame: Frame) -> None:
        """Put a picture where the child sees it."""
        needed = HEAD_BYTES + frame.image.size
        if needed > self._size:
            os.ftruncate(self._fd, needed)
            self._memory.close()
            self._memory, self._size = mmap.mmap(self._fd, needed), needed
        self._memory[HEAD_BYTES:needed] = np.ascontiguousarray(frame.image).tobytes()

    def ask(self, question: Question, *, within_s: float, on_wait: OnWait = lambda: None) -> Answer:
        """Return the answer. Raises `UnusableError`."""
        line = self._child.ask(msgspec.json.encode(question), within_s=within_s, on_wait=on_wait)
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error:
            raise _RefusedError(answer)
        return answer

    def kill(self) -> None:
        """End the child, from any thread."""
        self._child.kill()

    def close(self) -> None:
        """End the child and give the memory back; `turn` stays."""
        self._child.close()
        os.close(self._fd)


class _RefusedError(UnusableError):
    """The child lives, and says why it cannot do what is asked."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.error)
        self.blameless = answer.blameless


def _once(
    question: Hold | Measure,
    *,
    within_s: float,
    on_wait: OnWait,
    read: Callable[[Answer], Verdict],
    died: Literal["fail", "insufficient"],
) -> Verdict:
    """Ask one question of a child of its own; `died` is the outcome where it ends by itself or is not in time."""
    bench = _Bench()
    try:
        return read(bench.ask(question, within_s=within_s, on_wait=on_wait))
    except _RefusedError as error:
        return Verdict(outcome="insufficient" if error.blameless else "fail", reason=plain_text(str(error)))
    except UnusableError as error:
        return Verdict(outcome="insufficient" if _is_the_systems(str(error)) else died, reason=plain_text(str(error)))
    finally:
        bench.close()


def _is_the_systems(reason: str) -> bool:
    return reason.startswith(KILLED)


def _golden(answer: Answer) -> Verdict:
    if answer.parity is None or not answer.parity.known:
        return Verdict(outcome="pass", reason="the release has no golden set to hold it against")
    return Verdict(outcome="fail" if answer.parity.fault else "pass", reason=plain_text(answer.parity.fault))


def _mined(answer: Answer, frame: Frame) -> list[Mined]:
    """Return what only the other model saw, as findings of the frame."""
    if not answer.peers:
        return []
    at = Observation(
        frame=frame,
        detections=unpack(answer.serving),
        features=np.array(answer.features, np.float32),
        score_threshold=answer.score_threshold,
        tracks=[],
        ended=[],
        hidden=np.array(answer.hidden, np.float32).reshape(-1, 4),
        enlarged=[unpack(answer.other)],
    )
    return [
        Mined(
            at=at,
            reason=Reason.MISSED,
            severity=round(peer.score, 4),
            region=peer.xyxy,
            class_id=peer.class_id,
            witnesses=(Witness(WitnessKind.PEER, round(peer.score, 4)),),
        )
        for peer in answer.peers
    ]


def _memory_fd() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("weakspot-judge", 0)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
