"""One way of running a model, opened and timed in a process of its own: `python -m edge.detector.measuring`.

Owns what goes through the pipe: a question a line, an answer a line (edge.detector.child).
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from edge.contract.errors import UnusableError
from edge.detector.checking import made_picture
from edge.detector.child import Child
from edge.detector.detector import Detector, open_detector
from edge.detector.golden import Parity, parity, read_golden
from edge.detector.letterbox import Size
from edge.detector.tuned import Choice
from edge.frame import Image

_WARM_UP = 3


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Open a model this way, warm it up and hold it against its golden set."""

    model: str
    choice: Choice
    size: Size
    score_threshold: float | None


class Run(msgspec.Struct, frozen=True, kw_only=True, tag="run"):
    """Detect on `count` pictures in turn, from the `first`, and tell the milliseconds of each."""

    first: int
    count: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer.

    Attributes:
        error: why it cannot be done; "" when it was.
        version: of the runtime.
        parity: None where no golden set has boxes for this input size.
        spent_ms: one number a detection.
    """

    error: str = ""
    version: str = ""
    parity: Parity | None = None
    spent_ms: tuple[float, ...] = ()


class Measured:
    """One way of running a model, in a process of its own, which `close` ends."""

    def __init__(self) -> None:
        self._child = Child([sys.executable, "-m", "edge.detector.measuring"])

    def open(self, question: Open, *, within_s: float) -> Answer:
        """Open it. Raises `UnusableError` when it cannot be run here, crashes or hangs."""
        return self._ask(question, within_s=within_s)

    def run(self, *, first: int, count: int, within_s: float) -> tuple[float, ...]:
        """Return the milliseconds of `count` detections. Raises `UnusableError`."""
        return self._ask(Run(first=first, count=count), within_s=within_s).spent_ms

    def close(self) -> None:
        """End the process."""
        self._child.close()

    def _ask(self, question: Open | Run, *, within_s: float) -> Answer:
        answer = msgspec.json.decode(self._child.ask(msgspec.json.encode(question), within_s=within_s), type=Answer)
        if answer.error:
            raise UnusableError(answer.error)
        return answer


def _open(question: Open) -> tuple[Detector, Sequence[Image], Answer]:
    model, choice = Path(question.model), question.choice
    detector = open_detector(
        model,
        variant=choice.variant,
        runtime=choice.runtime,
        precision=choice.precision,
        threads=choice.threads,
        input_size=question.size,
    )
    golden = read_golden(model)
    images = [made_picture()] if golden is None else list(golden.images.values())
    for index in range(_WARM_UP):
        detector.detect(images[index % len(images)])
    width, height = question.size
    held = golden is not None and f"{width}x{height}" in golden.golden.inputs
    kept = parity(detector, golden, score_threshold=question.score_threshold) if golden is not None and held else None
    return detector, images, Answer(version=detector.runtime.version, parity=kept)


def _run(detector: Detector, images: Sequence[Image], question: Run) -> Answer:
    spent: list[float] = []
    for index in range(question.first, question.first + question.count):
        start = time.perf_counter()
        detector.detect(images[index % len(images)])
        spent.append((time.perf_counter() - start) * 1e3)
    return Answer(spent_ms=tuple(spent))


def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    opened: tuple[Detector, Sequence[Image]] | None = None
    for line in questions:
        question = msgspec.json.decode(line, type=Open | Run)
        try:
            if isinstance(question, Open):
                detector, images, answer = _open(question)
                opened = detector, images
            elif opened is None:
                answer = Answer(error="nothing is open")
            else:
                answer = _run(*opened, question)
        except UnusableError as error:
            answer = Answer(error=str(error))
        answers.write(msgspec.json.encode(answer) + b"\n")
        answers.flush()


def main() -> None:
    """Answer until the questions end. What a vendor prints goes to the complaints."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
