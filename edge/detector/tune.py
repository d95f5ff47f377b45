"""Which way of running a model is the fastest ON THIS DEVICE, of those that give the boxes they should.

Measures variant x runtime x precision x threads: whole detections on the golden pictures, each way in a process of its
own, so that one that crashes or hangs is one that cannot be used, and says why.

Laws:

1. Only what keeps parity on the golden set can be picked. Where there is none, parity is unknown, and only the card's
   own file in float32 can be picked: runtime and threads are left to choose.
2. A gain under 5 % over what runs anyway is not worth a change.

Every way is timed briefly; then the default and the fastest take turns, so that what else the device does hits them
alike. They are compared round by round.
"""

import contextlib
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from edge.contract.card import ModelCard, Precision, Variant
from edge.contract.errors import UnusableError
from edge.detector.golden import GoldenSet, Parity, read_golden
from edge.detector.letterbox import Size
from edge.detector.measuring import Measured, Open
from edge.detector.opening import ModelFile, choose_size, guess_input, read_model
from edge.detector.runtime import RuntimeOptions
from edge.detector.runtimes import installed_runtimes
from edge.detector.tuned import Choice, Machine, Tuned, card_sha256, this_machine
from edge.detector.written import write_whole

WORTH_A_CHANGE: Final = 0.05
_FINALISTS: Final = 3  # beside the default: each is a process with the model in its memory
_VARIED: Final = 2  # of how many the threads are varied
_BRIEF: Final = 12
_A_TURN: Final = 6
_LEAST_ROUNDS, _MOST_ROUNDS = 5, 60
_OPEN_S: Final = 180.0
_RUN_S: Final = 60.0

Step = Callable[[int, int, str], None]


@dataclass(slots=True)
class Way:
    """One way of running the model, and what was measured of it.

    Attributes:
        version: of its runtime; "" where it could not be opened.
        parity: None where it is unknown.
        spent_ms: of whole detections, the longer measurement's where there was one.
        against_default: the median of its time divided by the default's, round by round; None where not compared.
        fault: why it cannot be picked; "" when it can.
    """

    choice: Choice
    version: str = ""
    parity: Parity | None = None
    spent_ms: tuple[float, ...] = ()
    against_default: float | None = None
    fault: str = ""
    rounds_ms: list[tuple[float, ...]] = field(default_factory=list, repr=False)

    @property
    def median_ms(self) -> float | None:
        """Milliseconds of a whole detection at the median; None where it did not run."""
        return statistics.median(self.spent_ms) if self.spent_ms else None

    @property
    def p95_ms(self) -> float | None:
        """Milliseconds that 95 % of the detections stay under; None where it did not run."""
        if not self.spent_ms:
            return None
        ordered = sorted(self.spent_ms)
        return ordered[math.ceil(0.95 * len(ordered)) - 1]


@dataclass(frozen=True, slots=True)
class TuneReport:
    """What was measured, and what was picked.

    Attributes:
        model: the ONNX file, the card's own.
        golden: the digest of the golden set; "" where the card names none, or none of this input size.
        pictures: how many were detected on.
        ways: in the order of measuring; the default is the first.
        picked: None when nothing can be.
    """

    model: Path
    release: str
    input_size: Size
    golden: str
    pictures: int
    machine: Machine
    ways: tuple[Way, ...]
    picked: Way | None

    @property
    def default(self) -> Way:
        """What runs when nothing is picked."""
        return self.ways[0]


def tune(
    model: Path | None = None,
    *,
    input_size: Size | None = None,
    score_threshold: float | None = None,
    seconds: float = 60.0,
    on_step: Step = lambda _done, _all, _what: None,
) -> TuneReport:
    """Measure every way of running a model here and pick one.

    Args:
        model: as in `open_detector`.
        input_size: (width, height); None is the card's.
        score_threshold: the working threshold at which parity is judged; None is the card's.
        seconds: of measuring; opening comes on top.
        on_step: called with steps done, steps in all, and what is measured now.

    Raises `UnusableError` when the model cannot be read, its golden set is broken, or no runtime is installed.
    """
    found = read_model(model)
    size = choose_size(found, input_size, guess_input(found))
    golden = _golden_of(found, size)
    ways = [Way(choice) for choice in choices(found, size=size)]
    questions = _Questions(str(found.path), size, score_threshold, golden is not None)
    each_s = seconds / 2 / (len(ways) + _VARIED)
    for done, way in enumerate(ways):
        on_step(done, 2 * len(ways), str(way.choice))
        _screen(way, questions, seconds=each_s)
    varied = [Way(choice) for choice in _other_threads(_fastest(ways)[:_VARIED])]
    for way in varied:
        on_step(len(ways), 2 * len(ways), str(way.choice))
        _screen(way, questions, seconds=each_s)
    ways += varied
    for share in _take_turns(_finalists(ways), questions, seconds=seconds / 2):
        on_step(round((1 + share) * len(ways)), 2 * len(ways), "the fastest take turns")
    return TuneReport(
        model=found.path,
        release=found.card.release if found.card is not None else found.path.name,
        input_size=size,
        golden=golden.digest if golden is not None else "",
        pictures=len(golden.images) if golden is not None else 1,
        machine=this_machine(),
        ways=tuple(ways),
        picked=pick(ways),
    )


def choices(found: ModelFile, *, size: Size) -> list[Choice]:
    """Return what there is to measure, the default first. Raises `UnusableError` when no runtime is installed."""
    installed = installed_runtimes()
    if not installed:
        msg = 'no runtime is installed; run: pip install "weakspot[openvino]" (or "weakspot[onnxruntime]")'
        raise UnusableError(msg)
    threads = RuntimeOptions().thread_count
    listed = _variants(found.card, size)
    own: list[tuple[str, str, Precision]] = [("", name, "f32") for name in installed]
    own += [("", "openvino", half) for half in ("bf16", "f16") if "openvino" in installed]
    named: list[tuple[str, str, Precision]] = [
        (one.name, name, one.precision) for one in listed for name in installed if name in one.runtimes
    ]
    same = {(name, one.precision) for one in listed for name in one.runtimes if one.sha256 == found.sha256}
    kept = [own[0], *(one for one in own[1:] if one[1:] not in same), *named]
    return [
        Choice(variant=variant, runtime=runtime, precision=precision, threads=threads)
        for variant, runtime, precision in kept
    ]


def pick(ways: Sequence[Way]) -> Way | None:
    """Return the fastest that can be picked; the first, which is the default, where none is faster by enough."""
    able = [way for way in ways if not way.fault and way.spent_ms]
    default = ways[0]
    if default not in able:
        return min(able, key=_median, default=None)
    compared = [way for way in able if way.against_default is not None]
    best = min(compared, key=lambda way: way.against_default or 1.0, default=default)
    return best if (best.against_default or 1.0) < 1 - WORTH_A_CHANGE else default


def write_tuned(report: TuneReport, path: Path, *, at_ms: int) -> None:
    """Write what was picked.

    Raises `UnusableError` when nothing was picked or it cannot be written there.
    """
    if report.picked is None:
        msg = f"no way of running {report.release} keeps parity here"
        raise UnusableError(msg)
    found = read_model(report.model)
    width, height = report.input_size
    picked = report.picked
    tuned = Tuned(
        release=report.release,
        card_sha256=card_sha256(found),
        file_sha256=found.sha256,
        golden=report.golden,
        input=f"{width}x{height}",
        machine=report.machine,
        runtime_version=picked.version,
        choice=picked.choice,
        median_ms=round(_median(picked), 3),
        default=report.default.choice,
        default_ms=round(_median(report.default), 3) if report.default.spent_ms else None,
        at_ms=at_ms,
    )
    write_whole(path, msgspec.json.format(msgspec.json.encode(tuned), indent=1) + b"\n")


@dataclass(frozen=True, slots=True)
class _Questions:
    """What is the same for every way."""

    model: str
    size: Size
    score_threshold: float | None
    has_golden: bool

    def open(self, choice: Choice) -> Open:
        return Open(model=self.model, choice=choice, size=self.size, score_threshold=self.score_threshold)


def _golden_of(found: ModelFile, size: Size) -> GoldenSet | None:
    """Return the golden set when it has boxes of this input size."""
    golden = read_golden(found.path)
    return golden if golden is not None and f"{size[0]}x{size[1]}" in golden.golden.inputs else None


def _variants(card: ModelCard | None, size: Size) -> list[Variant]:
    """Return the variants that run at this input size."""
    if card is None:
        return []
    own = f"{card.input.width}x{card.input.height}"
    return [one for one in card.variants if (one.input or own) == f"{size[0]}x{size[1]}"]


def _screen(way: Way, questions: _Questions, *, seconds: float) -> None:
    """Open a way, hold it against the golden set and time it briefly; what goes wrong is its fault."""
    measured = Measured()
    try:
        answer = measured.open(questions.open(way.choice), within_s=_OPEN_S)
        way.version, way.parity = answer.version, answer.parity
        spent = measured.run(first=0, count=_BRIEF, within_s=_RUN_S)
        more = int(seconds * 1e3 / statistics.median(spent)) - _BRIEF
        way.spent_ms = spent + (measured.run(first=_BRIEF, count=min(more, 500), within_s=_RUN_S) if more > 0 else ())
    except UnusableError as error:
        way.fault = str(error)
        return
    finally:
        measured.close()
    if way.parity is not None and way.parity.known:
        way.fault = way.parity.fault
    elif way.choice.variant or way.choice.precision != "f32":
        way.fault = "parity unknown: there is no golden set" if not questions.has_golden else "parity unknown"


def _fastest(ways: Sequence[Way]) -> list[Way]:
    """Return those that can be picked, the fastest first."""
    return sorted((way for way in ways if not way.fault and way.spent_ms), key=_median)


def _other_threads(ways: Sequence[Way]) -> list[Choice]:
    """Return each way with half the threads and with one."""
    return [
        msgspec.structs.replace(way.choice, threads=threads)
        for way in ways
        for threads in sorted({1, way.choice.threads // 2} - {0, way.choice.threads}, reverse=True)
    ]


def _finalists(ways: Sequence[Way]) -> list[Way]:
    """Return the default and the fastest others; none when the default cannot be compared with."""
    default = ways[0]
    able = _fastest(ways)
    if default not in able:
        return []
    return [default, *[way for way in able if way is not default][:_FINALISTS]]


def _take_turns(ways: Sequence[Way], questions: _Questions, *, seconds: float) -> Iterator[float]:
    """Let the ways, the default first, run in turns; yield how much of it is done. One that fails is out."""
    with contextlib.ExitStack() as stack:
        running: dict[int, Measured] = {}
        for index, way in enumerate(ways):
            measured = Measured()
            stack.callback(measured.close)
            with _at_fault(way):
                measured.open(questions.open(way.choice), within_s=_OPEN_S)
                running[index] = measured
        turn_s = sum(_median(way) for way in ways) * _A_TURN / 1e3
        rounds = min(_MOST_ROUNDS, max(_LEAST_ROUNDS, int(seconds / turn_s))) if turn_s else 0
        for round_ in range(rounds):
            for index in _rotated(list(running), round_):
                with _at_fault(ways[index]):
                    spent = running[index].run(first=round_ * _A_TURN, count=_A_TURN, within_s=_RUN_S)
                    ways[index].rounds_ms.append(spent)
            running = {index: measured for index, measured in running.items() if not ways[index].fault}
            yield (round_ + 1) / rounds
    _compare(ways)


def _compare(ways: Sequence[Way]) -> None:
    """Compare each way with the first, round by round, by the turns that both have finished."""
    for way in ways:
        if way.fault or ways[0].fault:
            continue
        way.spent_ms = tuple(spent for one in way.rounds_ms for spent in one)
        ratios = [
            statistics.median(mine) / statistics.median(default)
            for mine, default in zip(way.rounds_ms, ways[0].rounds_ms, strict=True)
        ]
        way.against_default = statistics.median(ratios)


@contextlib.contextmanager
def _at_fault(way: Way) -> Iterator[None]:
    """Make what goes wrong the way's fault."""
    try:
        yield
    except UnusableError as error:
        way.fault = str(error)


def _rotated(items: list[int], by: int) -> list[int]:
    """Begin with another one each time."""
    start = by % len(items) if items else 0
    return items[start:] + items[:start]


def _median(way: Way) -> float:
    return statistics.median(way.spent_ms)
