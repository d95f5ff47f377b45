"""The child of the judge: `python -m edge.updating.judging FD`. It opens both models and looks with both.

Owns what goes through the pipe (a question a line, an answer a line: edge.detector.child) and the shared picture FD:
`HEAD_BYTES`, of which the first says whose turn it is, then `[height, width, 3]` uint8.

Laws:

1. What a vendor's code does here, the daemon survives: whose turn it was when this died stands in the first byte.
2. Both models look at the same frames, through pipelines that began with the same frame. Who is first alternates.
3. It ends with its parent.
"""

import mmap
import os
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec
import numpy as np

from edge.config import MiningConfig, Polygon
from edge.contract.errors import UnusableError
from edge.contract.judgement import Figures
from edge.detector.checking import made_picture
from edge.detector.detector import Detector
from edge.detector.following import open_tuned
from edge.detector.golden import LOWEST_SCORE, Parity, parity, read_golden
from edge.detector.letterbox import Size
from edge.detector.tune import tune, write_tuned
from edge.frame import Frame, Image
from edge.privacy import Blur
from edge.updating.pairing import Boxes, Pair, Peer, pack

HEAD_BYTES: Final = 64
OLD, NEW = 1, 2
Which = Literal["old", "new"]
TURNS: Final[dict[Which, int]] = {"old": OLD, "new": NEW}
_NICE: Final = 10
_WARM_UP: Final = 3
_WATCH_S: Final = 1.0


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """How a device opens a model: see `open_tuned`, whose arguments these are.

    Attributes:
        score_threshold: the working threshold; None is the card's.
    """

    model: str | None
    runtime: str
    input_size: Size | None
    threads: int | None
    providers: tuple[str, ...]
    cache_dir: str | None
    tuned: str | None
    score_threshold: float | None


class View(msgspec.Struct, frozen=True, kw_only=True):
    """How the device mines: the rules, what is blurred, and the zones of each camera."""

    mining: MiningConfig
    blur: Blur
    zones: dict[str, tuple[Polygon, ...]]
    serving: Which


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Open one of the two models."""

    which: Which
    way: Way
    view: View


class Look(msgspec.Struct, frozen=True, kw_only=True, tag="look"):
    """Look with both at the shared picture."""

    camera: str
    sequence: int
    captured_at_ms: int
    time_s: float
    width: int
    height: int


class Hold(msgspec.Struct, frozen=True, kw_only=True, tag="hold"):
    """Open a model and hold it against its golden set."""

    way: Way


class Measure(msgspec.Struct, frozen=True, kw_only=True, tag="measure"):
    """Tune a model and write what was picked to `way.tuned`."""

    way: Way
    seconds: float


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer.

    Attributes:
        error: why it cannot be done; "" when it was.
        blameless: whether that is no fault of the model.
        device: what runs the model that was opened.
        parity: None where the model has no golden set for this input size.
        figures: of the frame.
        peers: what only the model sees that does not serve; the boxes and features beside are of the frame.
        serving: all boxes of the model that serves; empty without peers.
        other: all boxes of the other one, in the labels of the first.
        hidden: where people are beside them, see edge.privacy.
        features: of the model that serves.
        score_threshold: of the model that serves.
        spent_s: of all processors.
    """

    error: str = ""
    blameless: bool = False
    device: str = ""
    parity: Parity | None = None
    figures: Figures = Figures()
    peers: tuple[Peer, ...] = ()
    serving: Boxes = ()
    other: Boxes = ()
    hidden: tuple[tuple[float, float, float, float], ...] = ()
    features: tuple[float, ...] = ()
    score_threshold: float = 0.0
    spent_s: float = 0.0


Question = Open | Look | Hold | Measure


def open_way(way: Way) -> Detector:
    """Open a model as the device would. Raises `UnusableError`."""
    return open_tuned(
        _path(way.model),
        runtime=way.runtime,
        input_size=way.input_size,
        threads=way.threads,
        providers=way.providers,
        cache_dir=_path(way.cache_dir),
        tuned=_path(way.tuned) if way.tuned is not None and Path(way.tuned).is_file() else None,
    )


class _Bench:
    """The two models, and the shared picture."""

    def __init__(self, picture_fd: int) -> None:
        self._fd = picture_fd
        self._memory = mmap.mmap(picture_fd, HEAD_BYTES)
        self._opened: dict[Which, Detector] = {}
        self._pair: Pair | None = None

    def answer(self, question: Question) -> Answer:
        begun_s = time.process_time()
        if isinstance(question, Open):
            return self._open(question)
        if isinstance(question, Hold):
            return _hold(question)
        if isinstance(question, Measure):
            return _measure(question)
        if self._pair is None:
            return Answer(error="nothing is open")
        frame = Frame(
            self._picture(question), question.camera, question.sequence, question.captured_at_ms, question.time_s
        )
        figures, sight = self._pair.look(frame)
        told = (
            Answer()
            if sight is None
            else Answer(
                peers=sight.peers,
                serving=pack(sight.serving),
                other=pack(sight.other),
                hidden=tuple(map(tuple, sight.hidden.tolist())),
                features=tuple(sight.features.tolist()),
                score_threshold=sight.score_threshold,
            )
        )
        return msgspec.structs.replace(told, figures=figures, spent_s=time.process_time() - begun_s)

    def _open(self, question: Open) -> Answer:
        self._turn(TURNS[question.which])
        detector = open_way(question.way)
        for _ in range(_WARM_UP):
            detector.detect(made_picture())
        self._opened[question.which] = detector
        if len(self._opened) == len(TURNS):
            view = question.view
            self._pair = Pair(
                old=self._opened["old"],
                new=self._opened["new"],
                score_threshold=question.way.score_threshold,
                mining=view.mining,
                blur=view.blur,
                zones=view.zones,
                new_serves=view.serving == "new",
                turn=self._turn,
            )
        return Answer(device=detector.runtime.device)

    def _turn(self, whose: int) -> None:
        self._memory[0] = whose

    def _picture(self, question: Look) -> Image:
        shape = (question.height, question.width, 3)
        needed = HEAD_BYTES + question.height * question.width * 3
        if len(self._memory) < needed:
            self._memory.close()
            self._memory = mmap.mmap(self._fd, needed)
        return np.frombuffer(self._memory, np.uint8, count=needed - HEAD_BYTES, offset=HEAD_BYTES).reshape(shape).copy()


def _hold(question: Hold) -> Answer:
    detector = open_way(question.way)
    golden = read_golden(_path(question.way.model))
    width, height = detector.input_size
    if golden is None or f"{width}x{height}" not in golden.golden.inputs:
        detector.detect(made_picture(), score_threshold=LOWEST_SCORE)
        return Answer(device=detector.runtime.device)
    kept = parity(detector, golden, score_threshold=question.way.score_threshold)
    return Answer(device=detector.runtime.device, parity=kept)


def _measure(question: Measure) -> Answer:
    way = question.way
    report = tune(
        _path(way.model), input_size=way.input_size, score_threshold=way.score_threshold, seconds=question.seconds
    )
    if way.tuned is None:
        return Answer(error="nobody says where to write what is picked", blameless=True)
    if report.picked is None:
        faults = "; ".join(dict.fromkeys(one.fault for one in report.ways if one.fault))
        return Answer(error=f"no way of running it is good here: {faults}")
    try:
        write_tuned(report, Path(way.tuned), at_ms=time.time_ns() // 1_000_000)
    except UnusableError as error:
        return Answer(error=str(error), blameless=True)
    return Answer()


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def _serve(bench: _Bench, questions: BinaryIO, answers: BinaryIO) -> None:
    for line in questions:
        try:
            answer = bench.answer(msgspec.json.decode(line, type=Question))
        except UnusableError as error:
            answer = Answer(error=str(error))
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()


def _end_with(parent: int) -> None:
    """End when the parent is gone, whatever the main thread hangs in."""
    while os.getppid() == parent:
        time.sleep(_WATCH_S)
    os._exit(1)


def main() -> None:
    """Answer until the questions end. What a vendor prints goes to the complaints."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.nice(_NICE)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    _serve(_Bench(int(sys.argv[1])), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
