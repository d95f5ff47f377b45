"""`hub quantize`: make 8-bit files of a release, keep in float what must be, and list only what is worth it.

Laws:

1. A variant is listed for a runtime on which it lost no more than the budget and, unless asked otherwise, was measured
   faster than float32 by `FASTER`.
2. Files first, card last; until the card is renamed the folder is what it was. A file's name holds its sha256.
3. What was measured is written down, also of what was not listed.
"""

import functools
import hashlib
import importlib.metadata
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import onnx

from edge.contract.card import ModelCard, Precision
from edge.contract.errors import UnusableError
from edge.detector.golden import GoldenSet, read_golden
from edge.detector.letterbox import Size
from edge.detector.opening import ModelFile, choose_size, guess_input, read_model
from edge.detector.runtime import RuntimeOptions
from edge.detector.runtimes import installed_runtimes
from edge.frame import Image
from hub.datasets.version import Member, Version, read_image, read_jpeg, read_version
from hub.quantization.bench import Bench, Floated, fault_of, outputs_of
from hub.quantization.calibration import pictures_to_calibrate, pictures_to_tune_on, spread, tensors_of
from hub.quantization.judging import Judge, judge_by, pictures_to_choose_on, pictures_to_judge_on
from hub.quantization.layers import Layer, Model, layers, put_back, with_weights
from hub.quantization.report import Judged, Quantization, Runtime, Tried
from hub.quantization.search import fewest, ranked
from hub.quantization.speed import cpu_name, milliseconds
from hub.quantization.vendors import Tensors, Vendor, by_nncf, by_onnxruntime, read_float
from hub.quantization.watch import Watch, paced
from hub.quantization.writing import write_release

FASTER: Final = 0.95  # of float32's time
AIM: Final = 0.5  # of the budget, where layers are chosen: the rest is for pictures that were not chosen on
_RANKED_ON: Final = 8
_TIMED_ON: Final = 8
_METHODS: Final[dict[Runtime, tuple[str, Vendor]]] = {
    "openvino": ("nncf", by_nncf),
    "onnxruntime": ("onnxruntime", by_onnxruntime),
}
_HALVES: Final[tuple[Precision, ...]] = ("bf16", "f16")


@dataclass(frozen=True, slots=True)
class Terms:
    """What is asked of a variant.

    Attributes:
        budget: points of 100 of AP50 and of recall at the working threshold that may be lost, overall and of each size.
        aware: fine-tune for 8 bits in any case; else only where plain quantization misses the budget.
        keep_slow: list what keeps the budget though it is no faster here: another device may be.
        threads: of one inference; None as on a device.
        steps: of the fine-tune; 0 for none at all.
    """

    budget: float = 1.0
    aware: bool = False
    keep_slow: bool = False
    threads: int | None = None
    steps: int = 60

    @property
    def slowest(self) -> float:
        """The most time over float32's that is still searched on."""
        return float("inf") if self.keep_slow else FASTER


@dataclass(frozen=True, slots=True, eq=False)
class _Task:
    """What every way shares."""

    model: ModelFile
    card: ModelCard
    original: Model
    size: Size
    tensors: Tensors
    images: Sequence[Image]
    terms: Terms
    bench: Bench
    golden: GoldenSet | None
    to_tune_on: Callable[[], Tensors]
    watch: Watch


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """A way that was tried, and its file's bytes; b"" for the card's own file."""

    tried: Tried
    content: bytes = b""


def quantize(
    model: Path,
    version_folder: Path,
    *,
    input_size: Size | None = None,
    terms: Terms | None = None,
    watch: Watch | None = None,
) -> Quantization:
    """Quantize a model folder on a dataset version; write the files, `quantization.json` and the card.

    Raises `UnusableError` when the model is not a float32 release with a card, when a vendor is missing or cannot take
    the graph, or when the version has no pictures for it; the folder is as it was then.
    """
    terms, watch = terms or Terms(), watch or Watch()
    found = read_model(model)
    if found.card is None:
        msg = f"{model} has no card that could list variants: give a folder with a model.json"
        raise UnusableError(msg)
    size = choose_size(found, input_size, guess_input(found))
    original = read_float(found.path)
    version = read_version(version_folder)
    pictures = pictures_to_calibrate(version)
    golden = {one.name: read_jpeg(version_folder, one) for one in _golden(version)}
    bench = Bench(found.path, found.card, size=size, threads=terms.threads)
    try:
        task = _Task(
            model=found,
            card=found.card,
            original=original,
            size=size,
            tensors=tensors_of(version_folder, pictures, spec=found.card.input, size=size),
            images=_images(version_folder, spread(pictures, _TIMED_ON)),
            terms=terms,
            bench=bench,
            to_tune_on=functools.partial(
                tensors_of, version_folder, pictures_to_tune_on(version), spec=found.card.input, size=size
            ),
            golden=_golden_set(found.path.parent, size) or bench.golden(golden),
            watch=watch,
        )
        made = [
            one
            for runtime in installed_runtimes()
            for one in _on_runtime(task, runtime, version=version, folder=version_folder)
        ]
    finally:
        bench.close()
    report = Quantization(
        release=found.card.release,
        model_sha256=found.sha256,
        dataset=version.digest,
        input=_words(size),
        score_threshold=found.card.score_threshold,
        budget=terms.budget,
        calibrated=len(pictures),
        cpu=cpu_name(),
        threads=RuntimeOptions(threads=terms.threads).thread_count,
        versions={name: importlib.metadata.version(name) for name in _vendors()},
        tried=tuple(one.tried for one in made),
    )
    contents = {one.tried.file: one.content for one in made if one.tried.released and one.content}
    write_release(found.path.parent, report, contents=contents, golden=golden)
    return report


def _on_runtime(task: _Task, runtime: Runtime, *, version: Version, folder: Path) -> list[_Made]:
    """Try every way on one runtime."""
    task.watch.shown(f"{runtime}: float32", 0, 1)
    detector = task.bench.float_detector(runtime)
    asked, judged = pictures_to_choose_on(version, task.card.labels), pictures_to_judge_on(version, task.card.labels)
    floated = Floated(
        detector,
        judge_by(detector, asked, folder),
        None if judged is None else judge_by(detector, judged, folder),
        task.golden,
    )
    made = []
    for precision in _HALVES:
        try:
            task.bench.float_detector(runtime, precision)
        except UnusableError:  # the runtime or this CPU cannot: nothing to measure
            continue
        made.append(_half(task, runtime, precision, floated))
    return [*made, *_eight_bits(task, runtime, floated)]


def _half(task: _Task, runtime: Runtime, precision: Precision, floated: Floated) -> _Made:
    """Judge the card's own file at another precision."""
    detector = task.bench.float_detector(runtime, precision)
    name = _name(task, precision)
    looks = [judge(detector) for judge in _judges(floated)]
    ms, float_ms = milliseconds([detector, floated.detector], task.images)
    tried = Tried(
        name=name,
        runtime=runtime,
        precision=precision,
        file=task.card.file,
        sha256=task.card.sha256,
        verdict=looks[-1],
        parity=fault_of(detector, floated.golden),
        ms=ms,
        float_ms=float_ms,
    )
    return _Made(_concluded(tried, looks, task.terms))


def _eight_bits(task: _Task, runtime: Runtime, floated: Floated) -> list[_Made]:
    """Quantize for one runtime; where that misses the budget, or when asked, fine-tune for 8 bits too."""
    method, vendor = _METHODS[runtime]
    task.watch.shown(f"{runtime}: calibrating ({method})", 0, 1)
    quantized = vendor(task.original, task.model.image.name, task.tensors)
    plain = _searched(task, runtime, quantized, floated)
    made = [plain]
    wanted = task.terms.steps > 0 and (plain.tried.fast or task.terms.keep_slow)
    if wanted and (task.terms.aware or not plain.tried.kept or plain.tried.parity):
        task.watch.said(f"{runtime}: {plain.tried.why}; fine-tuning for 8 bits")
        try:
            made.append(_fine_tuned(task, runtime, quantized, plain.tried, floated=floated))
        except UnusableError as error:
            if task.terms.aware:
                raise
            task.watch.said(f"no fine-tune: {error}")
    best = _best(made)
    return [one if one is best else _Made(_dropped(one.tried)) for one in made]


def _searched(task: _Task, runtime: Runtime, quantized: Model, floated: Floated) -> _Made:
    """Search which layers stay in float, and judge the file."""
    known = layers(quantized, task.original)
    way = task.bench.ways(quantized, task.original, floated=floated, runtime=runtime, images=task.images)

    def rank() -> tuple[Layer, ...]:
        tensors = task.tensors[:: max(1, len(task.tensors) // _RANKED_ON)][:_RANKED_ON]
        meant = [outputs_of(floated.detector, tensor) for tensor in tensors]
        step, done = paced(task.watch, f"{runtime}: ranking layers"), itertools.count(1)
        return ranked(known, way=way, tensors=tensors, meant=meant, on_layer=lambda: step(next(done), len(known)))

    tries = itertools.count(1)
    found = fewest(
        rank,
        way=way,
        budget=task.terms.budget * AIM,
        slowest=task.terms.slowest,
        on_try=lambda: task.watch.shown(f"{runtime}: choosing layers, try {next(tries)}", 0, 1),
    )
    floats = tuple(layer.name for layer in found.float_layers)
    model = put_back(quantized, task.original, {node for layer in found.float_layers for node in layer.nodes})
    start = Tried(
        name=_name(task, f"int8-{runtime}"),
        runtime=runtime,
        precision="int8",
        method=_METHODS[runtime][0],
        layers=len(known),
        float_layers=floats,
        chosen=found.judged,
    )
    return _judged(task, start, model, floated)


def _fine_tuned(task: _Task, runtime: Runtime, quantized: Model, plain: Tried, *, floated: Floated) -> _Made:
    """Fine-tune the weights with the layers in 8 bits that the search left there."""
    try:
        from hub.quantization.aware import fine_tuned
        from hub.train.heads import taught
    except ModuleNotFoundError as error:
        msg = f'{error.name} is not installed; run: pip install "weakspot[train]"'
        raise UnusableError(msg) from error
    known = layers(quantized, task.original)
    floats = {node for layer in known if layer.name in plain.float_layers for node in layer.nodes}
    model = put_back(quantized, task.original, floats)
    weights = fine_tuned(
        task.model.path,
        quantized=model,
        original=task.original,
        tensors=task.to_tune_on(),
        head=taught(floated.detector.head_name).loss,
        classes=len(task.card.labels),
        steps=task.terms.steps,
        on_step=paced(task.watch, f"{runtime}: fine-tuning for 8 bits"),
    )
    tuned = with_weights(model, task.original, weights)
    detector = task.bench.detector(tuned.SerializeToString(), runtime)
    start = Tried(
        name=plain.name,
        runtime=runtime,
        precision="int8",
        method=plain.method,
        layers=plain.layers,
        float_layers=plain.float_layers,
        aware=True,
        chosen=floated.choosing(detector),
    )
    return _judged(task, start, tuned, floated)


def _judged(task: _Task, start: Tried, model: Model, floated: Floated) -> _Made:
    """Measure a file and say whether it is worth it."""
    content = model.SerializeToString()
    onnx.checker.check_model(content)
    sha256 = hashlib.sha256(content).hexdigest()
    detector = task.bench.detector(content, start.runtime)
    looks = [start.chosen] if start.chosen is not None else []
    if floated.verdict is not None:
        task.watch.shown(f"{start.runtime}: the verdict", 0, 1)
        looks.append(floated.verdict(detector))
    ms, float_ms = milliseconds([detector, floated.detector], task.images)
    changed: dict[str, object] = {
        "file": f"{start.name}-{sha256[:8]}.onnx",
        "sha256": sha256,
        "verdict": looks[-1],
        "parity": fault_of(detector, floated.golden),
        "ms": ms,
        "float_ms": float_ms,
    }
    return _Made(_concluded(msgspec.structs.replace(start, **changed), looks, task.terms), content)


def _concluded(tried: Tried, looks: Sequence[Judged], terms: Terms) -> Tried:
    """Say whether a way is released, and why."""
    missed = [(loss.points, loss, look.of) for look in looks if (loss := look.missed(terms.budget))]
    kept = not missed
    fast = tried.ms <= FASTER * tried.float_ms
    if not kept:
        _, loss, pictures = max(missed, key=lambda one: one[0])
        named = "recall" if loss.measure == "recall" else "AP50"
        of = "" if loss.group == "all" else f" of {loss.group} boxes"
        why = f"it loses {loss.points:.1f} points of {named}{of} on {pictures}, not {terms.budget:g}"
    elif tried.parity:
        why = f"on the golden set {tried.parity}"
    elif not fast:
        why = f"it takes {tried.ratio:.2f} of float32's time here, not {FASTER:g}"
    else:
        why = f"it loses no more than {terms.budget:g} and takes {tried.ratio:.2f} of float32's time"
    released = kept and not tried.parity and (fast or terms.keep_slow)
    return msgspec.structs.replace(tried, kept=kept, fast=fast, released=released, why=why)


def _best(made: Sequence[_Made]) -> _Made:
    """Return what is released if any, else what lost the least."""
    return max(made, key=lambda one: (one.tried.released, -_lost(one.tried)))


def _lost(tried: Tried) -> float:
    return max(look.worst for look in (tried.chosen, tried.verdict) if look is not None)


def _dropped(tried: Tried) -> Tried:
    return msgspec.structs.replace(tried, released=False, file="", sha256="")


def _judges(floated: Floated) -> list[Judge]:
    return [floated.choosing, *([floated.verdict] if floated.verdict is not None else [])]


def _golden_set(folder: Path, size: Size) -> GoldenSet | None:
    """Return the golden set that the folder has, if it has boxes of this input size."""
    known = read_golden(folder)
    return known if known is not None and _words(size) in known.golden.inputs else None


def _golden(version: Version) -> tuple[Member, ...]:
    """Return pictures for a golden set: never of the test split; those with boxes, where there are."""
    known = [one for one in version.members if one.split != "test" and not one.copy_of]
    boxed = [one for one in known if one.boxes]
    return spread(boxed or known, 12)


def _images(folder: Path, members: Sequence[Member]) -> list[Image]:
    return [read_image(folder, one) for one in members]


def _name(task: _Task, name: str) -> str:
    spec = task.card.input
    return name if task.size == (spec.width, spec.height) else f"{name}-{_words(task.size)}"


def _words(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _vendors() -> list[str]:
    known = {one.metadata["Name"] for one in importlib.metadata.distributions()}
    return [name for name in ("nncf", "onnx", "onnxruntime", "openvino", "torch") if name in known]
