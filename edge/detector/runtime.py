"""What a runtime is: it runs a graph and knows nothing of boxes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from numpy.typing import NDArray

from edge.contract.card import Precision
from edge.detector.detections import Floats

Outputs = dict[str, NDArray[Any]]

HALVES: Final[dict[Precision, str]] = {"bf16": "bfloat16", "f16": "float16"}
_MOST_DEFAULT_THREADS = 4


class Runtime(Protocol):
    """A graph that is loaded for one input shape."""

    @property
    def name(self) -> str:
        """The runtime's name, `openvino` or `onnxruntime`."""

    @property
    def version(self) -> str:
        """The vendor's version."""

    @property
    def device(self) -> str:
        """What really runs the graph after all falling back: `CPU`, `CUDA` or `TensorRT`."""

    def infer(self, tensor: Floats) -> Outputs:
        """Run the graph on one input tensor; return its outputs by name, floating ones as float32.

        The arrays are valid until the next call. Raises `UnusableError` when the graph fails.
        """


@dataclass(frozen=True, slots=True)
class RuntimeOptions:
    """How to run a graph.

    Attributes:
        name: `auto`, or one runtime.
        threads: threads of one inference; None takes the usable CPUs, at most four.
        providers: ONNX Runtime's, in order of preference: `tensorrt`, `cuda`, `cpu`. What is missing falls back to
            the CPU with a warning.
        cache_dir: where compiled graphs are kept between starts; None keeps none.
        precision: of the numbers that are multiplied. `int8` is of a quantized file, whose other numbers are float32;
            `bf16` and `f16` of a float32 file are OpenVINO's to do, where the device can.
    """

    name: str = "auto"
    threads: int | None = None
    providers: tuple[str, ...] = ()
    cache_dir: Path | None = None
    precision: Precision = "f32"

    @property
    def thread_count(self) -> int:
        """The threads to run with."""
        return self.threads or min(_MOST_DEFAULT_THREADS, usable_cpus())


@dataclass(frozen=True, slots=True)
class Binding:
    """What goes into a graph and what comes out.

    Attributes:
        image: the image input's name.
        shape: the tensor's full shape; a dynamic graph is fixed to it.
        element: `float32` or `float16`; the tensor is converted to it.
        outputs: the outputs' names.
        constants: the graph's other inputs, the same at every inference.
        floats: what most of the file's floating weights are, `float32`, `float16` or `bfloat16`.
    """

    image: str
    shape: tuple[int, int, int, int]
    element: str
    outputs: tuple[str, ...]
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    floats: str = "float32"


def usable_cpus() -> int:
    """Return how many CPUs this process may use; only Linux tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
