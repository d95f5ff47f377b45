"""Detector: letterbox, infer, head. The same on the camera and on the hub.

    detector = open_detector()                          # the starter model
    found = detector.detect(cv2.imread("street.jpg"))
    found.detections.xyxy, found.detections.score, [detector.labels[i] for i in found.detections.class_id]

A box whose score or corner is NaN or infinite is dropped, and `Inference.finite` is False so that the caller can count
it: a model that breaks on some frames must not look like an empty street.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.contract.card import InputSpec, ModelCard, Precision
from edge.contract.errors import UnusableError
from edge.detector.detections import Detections, Floats
from edge.detector.heads import HEADS, recognise
from edge.detector.heads.head import Head, Shapes
from edge.detector.letterbox import Letterbox, Placement, Size, tensor_shape
from edge.detector.opening import ModelFile, choose_size, guess_input, make_card, read_model
from edge.detector.runtime import Binding, Outputs, Runtime, RuntimeOptions
from edge.detector.runtimes import installed_runtimes, open_runtime

FEATURES = "features"
_NO_FEATURES = np.zeros(0, np.float32)
_ROUNDED_UP = 1.001  # what half precision and quantization make of a 1
_ORIGINAL_SIZES = "orig_target_sizes"  # the second input of finished DETR exports


class Timings(NamedTuple):
    """Milliseconds of one detection's steps."""

    letterbox: float
    infer: float
    head: float


@dataclass(frozen=True, slots=True, eq=False)
class Inference:
    """What one detection gives.

    Attributes:
        detections: boxes in pixels of the frame, clipped to it, best first.
        features: the graph's output `features`, `[C]` float32 of length 1; `[0]` when the graph has none; zeros where
            they were broken.
        timings_ms: how long the steps took.
        finite: False when the graph gave NaN or infinity for a box, which was dropped, or for a feature.
    """

    detections: Detections
    features: Floats
    timings_ms: Timings
    finite: bool = True


class Detector:
    """A model that is loaded for one input size. One thread at a time may call `detect`.

    Attributes:
        card: the model's card, written or made.
        input_size: (width, height).
        runtime: what runs the graph.
        variant: the name of the card's variant that runs; "" for the card's own file.
        precision: of the numbers that are multiplied.
    """

    def __init__(
        self,
        card: ModelCard,
        *,
        head: Head,
        runtime: Runtime,
        input_size: Size,
        variant: str = "",
        precision: Precision = "f32",
    ) -> None:
        self.card = card
        self.variant = variant
        self.precision = precision
        self.input_size = input_size
        self.runtime = runtime
        self._head = head
        self._letterbox = Letterbox(card.input, input_size=input_size)

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; `Detections.class_id` points into them."""
        return self.card.labels

    @property
    def runtime_name(self) -> str:
        """The runtime's name: `openvino` or `onnxruntime`."""
        return self.runtime.name

    @property
    def head_name(self) -> str:
        """The head's name."""
        return self._head.NAME

    @property
    def score_threshold(self) -> float:
        """The score from which the card counts a box as found."""
        return self.card.score_threshold

    def detect(self, image: NDArray[np.uint8], *, score_threshold: float = 0.05) -> Inference:
        """Find the objects of a BGR image `[height, width, 3]` uint8 whose score reaches `score_threshold`.

        Raises `ValueError` when the image is not of that kind, `UnusableError` when the graph fails or its outputs
        are not what the card says.
        """
        _check_image(image)
        start = time.perf_counter()
        tensor, placement = self._letterbox(image)
        placed = time.perf_counter()
        outputs = self.runtime.infer(tensor)
        inferred = time.perf_counter()
        with np.errstate(all="ignore"):  # what is not finite is told by `finite`
            features = _unit_length(outputs.pop(FEATURES, _NO_FEATURES))
            found = self._head.decode(outputs, input_size=self.input_size, score_threshold=score_threshold)
            usable = np.isfinite(found.xyxy.sum(axis=1) + found.score)  # a sum is finite only where every part is
            detections = self._in_frame(found, placement, usable=usable)
            finite = bool(usable.all() and np.isfinite(features).all())
            features = features if finite else np.nan_to_num(features)
        done = time.perf_counter()
        timings = Timings((placed - start) * 1e3, (inferred - placed) * 1e3, (done - inferred) * 1e3)
        return Inference(detections, features, timings, finite)

    def _in_frame(self, found: Detections, placement: Placement, *, usable: NDArray[np.bool_]) -> Detections:
        """Carry the usable boxes to the frame; drop those that have no area there."""
        xyxy = placement.to_frame(found.xyxy)
        has_area = (xyxy[:, 2] > xyxy[:, 0]) & (xyxy[:, 3] > xyxy[:, 1])
        detections = Detections(xyxy, found.score, found.class_id).take(usable & has_area)
        self._check_outputs(detections)
        np.minimum(detections.score, 1, out=detections.score)
        return detections

    def _check_outputs(self, found: Detections) -> None:
        """Raise `UnusableError` when a score is no probability or a class has no label."""
        if len(found) == 0:
            return
        if found.score[0] > _ROUNDED_UP:
            msg = f"{self.card.file} gives scores up to {found.score[0]:.1f}: it was exported before its sigmoid"
            raise UnusableError(msg)
        low, high = int(found.class_id.min()), int(found.class_id.max())
        if low < 0 or high >= len(self.labels):
            msg = f"{self.card.file} gives class {low if low < 0 else high}, but has {len(self.labels)} labels"
            raise UnusableError(msg)


def open_detector(
    model: Path | None = None,
    *,
    runtime: str = "auto",
    input_size: Size | None = None,
    threads: int | None = None,
    providers: Sequence[str] = (),
    cache_dir: Path | None = None,
    variant: str = "",
    precision: Precision | None = None,
) -> Detector:
    """Open a model for detection and run it once.

    Args:
        model: an ONNX file, or a folder with a `model.json`; None is the starter model.
        runtime: `auto`, `openvino` or `onnxruntime`.
        input_size: (width, height); None takes the card's.
        threads: threads of one inference; None takes the usable CPUs, at most four.
        providers: ONNX Runtime's, in order of preference: `tensorrt`, `cuda`, `cpu`.
        cache_dir: where compiled graphs are kept between starts.
        variant: one that the model's card lists; "" is the card's own file. `auto` then takes a runtime on which the
            variant was measured.
        precision: of the numbers that are multiplied; None takes the variant's, `f32` for the card's own file.

    A `model.json` in the ONNX file's folder is its card when it names the file; else a card is made from the graph.
    Raises `UnusableError` with one sentence for whatever makes the model unusable here.
    """
    found = read_model(model, variant=variant)
    precision = precision or found.precision
    options = RuntimeOptions(_runtime_of(found, runtime), threads, tuple(providers), cache_dir, precision)
    guessed = guess_input(found)
    size = choose_size(found, input_size, guessed)
    spec = found.card.input if found.card is not None else guessed
    running = open_runtime(found.path, _bind(found, spec, size), options=options)
    shapes = _run_once(found, running, spec=spec, size=size)
    card, head = _card_and_head(found, shapes, guessed=guessed, size=size)
    return Detector(card, head=head, runtime=running, input_size=size, variant=variant, precision=precision)


def _runtime_of(model: ModelFile, wanted: str) -> str:
    """Return the runtime to ask for: for a variant `auto` is the first installed one on which it was measured."""
    if wanted != "auto" or not model.runtimes:
        return wanted
    for name in installed_runtimes():
        if name in model.runtimes:
            return name
    only, first = " and ".join(model.runtimes), model.runtimes[0]
    msg = f'the variant {model.variant} was measured on {only} only; run: pip install "weakspot[{first}]"'
    raise UnusableError(msg)


def _bind(model: ModelFile, spec: InputSpec, size: Size) -> Binding:
    """Say what goes into the graph at this size, and what comes out."""
    constants: dict[str, NDArray[Any]] = {}
    for port in model.graph.inputs:
        if port.name == _ORIGINAL_SIZES:
            constants[port.name] = np.array([size], port.element)
        elif port.name != model.image.name:
            msg = f"{model.path} has an input {port.name} {list(port.shape)} that nothing here can feed"
            raise UnusableError(msg)
    outputs = tuple(port.name for port in model.graph.outputs)
    shape = tensor_shape(spec, size)
    return Binding(model.image.name, shape, model.image.element, outputs, constants, model.graph.floats)


def _run_once(model: ModelFile, runtime: Runtime, *, spec: InputSpec, size: Size) -> Shapes:
    """Run the graph on grey; return the shapes of its outputs but the features. Refuses outputs that are not finite."""
    grey = (114.0 - np.mean(spec.mean)) / np.mean(spec.std)
    outputs = runtime.infer(np.full(tensor_shape(spec, size), grey, np.float32))
    if not _is_finite(outputs):
        msg = f"{model.path} gives NaN or infinity on a grey image"
        raise UnusableError(msg)
    return {name: array.shape for name, array in outputs.items() if name != FEATURES}


def _card_and_head(model: ModelFile, shapes: Shapes, *, guessed: InputSpec, size: Size) -> tuple[ModelCard, Head]:
    """Return the card and the head, checked against each other and against the outputs."""
    task = model.graph.metadata.get("task", "detect")
    if task != "detect":
        msg = f"{model.path} is made for the task {task!r}; only detection models can be used"
        raise UnusableError(msg)
    named = model.card.head if model.card is not None else None
    head = HEADS[named] if named is not None else recognise(shapes, input_size=size)
    classes = head.class_count(shapes)
    card = model.card or make_card(model, head=head, guessed=guessed, class_count=classes)
    if classes is not None and classes != len(card.labels):
        msg = f"{model.path} tells {classes} classes apart, but has {len(card.labels)} labels"
        raise UnusableError(msg)
    return msgspec.structs.replace(card, head=head.NAME), head


def _check_image(image: NDArray[np.uint8]) -> None:
    shape = getattr(image, "shape", None)
    if shape is None or image.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        got = f"{image.dtype} {list(shape)}" if shape is not None else type(image).__name__
        msg = f"an image is uint8 [height, width, 3] in BGR; got {got}"
        raise ValueError(msg)


def _unit_length(features: Floats) -> Floats:
    """Return a copy of the features `[1, C]` as `[C]` of length 1; zeros stay zeros, and NaN makes all of them NaN."""
    flat = features.reshape(-1)
    length = np.sqrt(np.dot(flat, flat))
    return flat.copy() if length == 0 else flat / length


def _is_finite(outputs: Outputs) -> bool:
    """Return whether every floating output is finite."""
    return all(np.isfinite(array).all() for array in outputs.values() if array.dtype == np.float32)
