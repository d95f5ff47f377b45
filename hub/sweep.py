"""The input size as a dial: accuracy and milliseconds of a model at several sizes, beside those of its baseline.

A size is picked: the fastest at which the model keeps a share of what its baseline reaches at the size it runs at.

Laws:

1. Milliseconds are of the whole `Detector.detect`: letterbox, inference and head.
2. All models and sizes are timed in turn, picture by picture, so that what else the machine does hits all alike; what
   is told is the median.
3. A size is written to the card of a candidate only: one that no gate has judged, and that has no quantized files.
"""

import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edge.contract.card import ModelCard
from edge.contract.errors import UnusableError
from edge.detector.detector import Detector, open_detector
from edge.detector.golden import read_golden, write_golden
from edge.detector.letterbox import Size
from edge.detector.opening import CARD_NAME, read_model
from edge.detector.runtime import RuntimeOptions
from edge.detector.written import write_card
from edge.frame import Image
from hub.datasets.version import Member, Split, read_image, read_version
from hub.evaluation.compare import Change, compare
from hub.evaluation.evaluate import Estimate, evaluate
from hub.evaluation.report import Baseline, require_labels
from hub.evaluation.seen import Seen, look, members_to_test
from hub.sweep_sizes import choose_sizes, written_size

SCHEMA: Final = 1
KEEP: Final = 0.95
JUDGED: Final = "gate.json"
_ROUNDS: Final = 24
_WARM: Final = 2
_RESAMPLES: Final = 300

OnStep = Callable[[str, int, int], None]
"""What is done, how much of it, out of how much."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One model at one size.

    Attributes:
        input: WIDTHxHEIGHT.
        ap: mean over IoU .50 to .95.
        recall, precision: at the model's working threshold.
        ms: of one detection, the median.
        low_ms, high_ms: the quartiles.
    """

    input: str
    ap: float | None
    ap50: Estimate
    recall: Estimate
    precision: Estimate
    ms: float
    low_ms: float
    high_ms: float


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One model.

    Attributes:
        runs_at: the size that its card states, or, of a baseline, that the devices run it at.
        rows: from the largest input to the smallest.
    """

    release: str
    sha256: str
    score_threshold: float
    runs_at: str
    rows: tuple[Row, ...]

    def at(self, size: str) -> Row | None:
        """Return the row of a size."""
        return next((row for row in self.rows if row.input == size), None)


class Picked(msgspec.Struct, frozen=True, kw_only=True):
    """The size that is picked.

    Attributes:
        input: WIDTHxHEIGHT.
        change: of AP50, against the baseline at the size it runs at, on the same pictures.
        speedup: milliseconds of the baseline at the size it runs at, over those of the pick.
    """

    input: str
    change: Change
    speedup: float


class Sweep(msgspec.Struct, frozen=True, kw_only=True):
    """What `sweep.json` holds.

    Attributes:
        dataset: the digest of the version.
        frame: WIDTHxHEIGHT of most pictures.
        baseline: None where the model is its own.
        keep: the share of the baseline's AP50 that is to be kept.
        needed: that AP50; None where the baseline's is not defined.
        picked: None where no size keeps it.
        notes: what is to be known of the sizes.
    """

    schema: int = SCHEMA
    dataset: str
    split: Split
    images: int
    objects: int
    frame: str
    runtime: str
    threads: int
    model: Line
    baseline: Line | None
    keep: float
    needed: float | None
    picked: Picked | None
    notes: tuple[str, ...]


class Running(NamedTuple):
    """How the models are run and timed.

    Attributes:
        runtime: `auto`, `openvino` or `onnxruntime`.
        threads: of one inference; None takes the usable CPUs, at most four.
        clock_ns: what a whole detection is timed with; None: its own timings, in real time.
    """

    runtime: str = "auto"
    threads: int | None = None
    clock_ns: Callable[[], int] | None = None

    @property
    def thread_count(self) -> int:
        """The threads of one inference."""
        return RuntimeOptions(self.runtime, self.threads).thread_count

    def open(self, model: Path, size: Size | None) -> Detector:
        """Open a model at a size; None is its card's."""
        return open_detector(model, runtime=self.runtime, input_size=size, threads=self.thread_count)


class _Opened(NamedTuple):
    """A model at every size at which it runs."""

    detectors: dict[Size, Detector]
    card: ModelCard
    runs_at: Size


def sweep(
    folder: Path,
    *,
    model: Path,
    against: Baseline | None = None,
    sizes: Sequence[Size] = (),
    split: Split = "test",
    keep: float = KEEP,
    running: Running | None = None,
    on_step: OnStep = lambda *_: None,
) -> Sweep:
    """Measure a model, and its baseline, at several input sizes on the pictures of a version.

    Args:
        folder: of the dataset version.
        model: an ONNX file or a folder with a card.
        against: the baseline, such as the model before it was fine-tuned; None: the model is its own.
        sizes: (width, height); () are those of `hub.sweep_sizes.choose_sizes`. The sizes that the models run at come
            with them.
        split: of the version.
        keep: the share of the baseline's AP50, at the size it runs at, that the pick has to keep.
        running: how the models are run and timed.
        on_step: called after each picture and each round.

    Raises `UnusableError` when the split has no labelled image, a model cannot be used, or cannot take a named size.
    """
    version = read_version(folder)
    members = members_to_test(version, split)
    frame = _usual_frame(members)
    running = running or Running()
    models = [Baseline(model)] if against is None else [Baseline(model), against]
    opened, notes = _open_all(models, sizes, frame=frame, running=running)
    for one in opened:
        require_labels(one.detectors[one.runs_at], members)
    looks = _look_at_all(opened, folder, members, on_step)
    pictures = [read_image(folder, member) for member in members[:: max(1, len(members) // _ROUNDS)]]
    timings = _time_all(opened, pictures, running.clock_ns, on_step)
    lines = [_line(one, seen, timed) for one, seen, timed in zip(opened, looks, timings, strict=True)]
    base = len(lines) - 1
    goal = lines[base].at(lines[base].runs_at)
    reached = None if goal is None else goal.ap50.value
    needed = None if reached is None else keep * reached
    first = opened[0].detectors[opened[0].runs_at]
    done = Sweep(
        dataset=version.digest,
        split=split,
        images=len(members),
        objects=sum(not box.ignored for member in members for box in member.boxes),
        frame=written_size(frame),
        runtime=f"{first.runtime_name} {first.runtime.version}",
        threads=running.thread_count,
        model=lines[0],
        baseline=None if against is None else lines[1],
        keep=keep,
        needed=needed,
        picked=None,
        notes=tuple(notes),
    )
    row = None if needed is None else pick(lines[0].rows, needed=needed)
    if row is None or goal is None:
        return done
    of = dict(zip(map(written_size, looks[0]), looks[0].values(), strict=True))
    change = compare(
        looks[base][opened[base].runs_at],
        of[row.input],
        score_threshold=lines[0].score_threshold,
        baseline_threshold=lines[base].score_threshold,
    ).overall.ap50
    picked = Picked(input=row.input, change=change, speedup=goal.ms / row.ms)
    return msgspec.structs.replace(done, picked=picked)


def pick(rows: Sequence[Row], *, needed: float) -> Row | None:
    """Return the fastest row whose AP50 reaches what is needed; None when none does."""
    good = [row for row in rows if row.ap50.value is not None and row.ap50.value >= needed]
    return min(good, key=lambda row: row.ms) if good else None


def write_input(model: Path, size: Size) -> None:
    """Write an input size to the card of a candidate, and to its golden set; the card is whole or as it was.

    Raises `UnusableError` when it is no folder with a card, was judged already, has quantized files, or cannot take
    the size.
    """
    path = model / CARD_NAME
    if not path.is_file():
        msg = f"{model} is no model folder with a {CARD_NAME}: there is no card to write {written_size(size)} to"
        raise UnusableError(msg)
    if (model / JUDGED).exists():
        msg = (
            f"{model} was judged by a gate at the input of its card, and keeps it: train a candidate anew, or copy the "
            f"folder without {JUDGED}"
        )
        raise UnusableError(msg)
    card = read_model(model).card
    if card is None:
        msg = f"the card in {model} names another file"
        raise UnusableError(msg)
    if card.variants:
        msg = f"{model} was quantized for the input of its card: sweep first, quantize after"
        raise UnusableError(msg)
    open_detector(model, input_size=size)  # what cannot run is not written
    golden = read_golden(model)
    width, height = size
    spec = msgspec.structs.replace(card.input, width=width, height=height)
    write_card(path, msgspec.structs.replace(card, input=spec))
    if golden is not None:
        kept = {one.name: (model / card.golden / f"{one.name}.jpg").read_bytes() for one in golden.golden.pictures}
        write_golden(model, kept)


def _open_all(
    models: Sequence[Baseline], sizes: Sequence[Size], *, frame: Size, running: Running
) -> tuple[list[_Opened], list[str]]:
    """Open every model at every size; return them with what is to be said. A named size that fails is raised."""
    as_run = [running.open(one.model, one.input_size) for one in models]
    notes: list[str] = []
    wanted = [one.input_size for one in as_run]
    wanted += sizes or [
        size for one in as_run for size in choose_sizes(one.input_size, multiple=one.card.input.multiple, frame=frame)
    ]
    opened = []
    for (path, _), first in zip(models, as_run, strict=True):
        detectors, refused = {first.input_size: first}, []
        for size in dict.fromkeys(wanted):
            if size in detectors:
                continue
            try:
                detectors[size] = running.open(path, size)
            except UnusableError:
                if sizes and size in sizes:
                    raise
                refused.append(size)
        if len(detectors) == 1 and refused:
            fixed = written_size(first.input_size)
            notes.append(f"{first.card.release} takes {fixed} only: its graph fixes the size, or its card the multiple")
        elif refused:
            several = ", ".join(map(written_size, refused))
            notes.append(f"{first.card.release} cannot take {several}")
        opened.append(_Opened(detectors, first.card, first.input_size))
    return opened, notes


def _look_at_all(
    opened: Sequence[_Opened], folder: Path, members: Sequence[Member], on_step: OnStep
) -> list[dict[Size, list[Seen]]]:
    total = len(members) * sum(len(one.detectors) for one in opened)
    done = itertools.count(1)

    def step() -> None:
        on_step("looking", next(done), total)

    return [{size: look(detector, folder, members, step) for size, detector in one.detectors.items()} for one in opened]


def _time_all(
    opened: Sequence[_Opened], pictures: Sequence[Image], clock_ns: Callable[[], int] | None, on_step: OnStep
) -> list[dict[Size, list[float]]]:
    """Return, of each model and size, the milliseconds of each round."""
    found: list[dict[Size, list[float]]] = [{size: [] for size in one.detectors} for one in opened]
    for number in range(_WARM + _ROUNDS):
        picture = pictures[number % len(pictures)]
        for one, timed in zip(opened, found, strict=True):
            for size, detector in one.detectors.items():
                begun_ns = 0 if clock_ns is None else clock_ns()
                timings = detector.detect(picture).timings_ms
                if number >= _WARM:
                    timed[size].append(sum(timings) if clock_ns is None else (clock_ns() - begun_ns) / 1e6)
        on_step("timing", number + 1, _WARM + _ROUNDS)
    return found


def _line(opened: _Opened, looks: dict[Size, list[Seen]], timings: dict[Size, list[float]]) -> Line:
    card = opened.card
    rows = []
    for size, seen in looks.items():
        counted = evaluate(seen, score_threshold=card.score_threshold, resamples=_RESAMPLES).overall
        low, middle, high = statistics.quantiles(timings[size], n=4)
        rows.append(
            Row(
                input=written_size(size),
                ap=counted.ap,
                ap50=counted.ap50,
                recall=counted.recall,
                precision=counted.precision,
                ms=middle,
                low_ms=low,
                high_ms=high,
            )
        )
    order = sorted(zip(looks, rows, strict=True), key=lambda pair: (-pair[0][0] * pair[0][1], pair[0]))
    return Line(
        release=card.release,
        sha256=card.sha256,
        score_threshold=card.score_threshold,
        runs_at=written_size(opened.runs_at),
        rows=tuple(row for _, row in order),
    )


def _usual_frame(members: Sequence[Member]) -> Size:
    """Return the size of most pictures; the larger where two are as frequent."""
    return max(_counted(members), key=lambda pair: (pair[1], pair[0]))[0]


def _counted(members: Sequence[Member]) -> Iterator[tuple[Size, int]]:
    sizes = [(member.width, member.height) for member in members]
    for size in dict.fromkeys(sizes):
        yield size, sizes.count(size)
