"""Runtimes: they run a graph and know nothing of boxes. Each vendor is imported by its own module only.

`auto` takes the first installed of `AUTO_ORDER`: the starter model at 320x320 takes 10.6 ms on OpenVINO and 12.9 ms on
ONNX Runtime, on two cores of a Xeon with AVX-512. GPU providers belong to ONNX Runtime, so asking for one selects it.
"""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from edge.contract.errors import UnusableError
from edge.detector.detections import Floats

RuntimeName = Literal["openvino", "onnxruntime"]
Outputs = dict[str, NDArray[Any]]

AUTO_ORDER: tuple[RuntimeName, ...] = ("openvino", "onnxruntime")
_MOST_DEFAULT_THREADS = 4


class Runtime(Protocol):
    """A graph that is loaded for one input shape."""

    @property
    def name(self) -> str:
        """The runtime's name, as `open_runtime` takes it."""

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
    """

    name: str = "auto"
    threads: int | None = None
    providers: tuple[str, ...] = ()
    cache_dir: Path | None = None

    @property
    def thread_count(self) -> int:
        """The threads to run with."""
        return self.threads or min(_MOST_DEFAULT_THREADS, _usable_cpus())


@dataclass(frozen=True, slots=True)
class Binding:
    """What goes into a graph and what comes out.

    Attributes:
        image: the image input's name.
        shape: the tensor's full shape; a dynamic graph is fixed to it.
        element: `float32` or `float16`; the tensor is converted to it.
        outputs: the outputs' names.
        constants: the graph's other inputs, the same at every inference.
    """

    image: str
    shape: tuple[int, int, int, int]
    element: str
    outputs: tuple[str, ...]
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)


def installed_runtimes() -> tuple[RuntimeName, ...]:
    """Return the runtimes that are installed, the preferred one first."""
    return tuple(name for name in AUTO_ORDER if importlib.util.find_spec(name) is not None)


def open_runtime(path: Path, binding: Binding, *, options: RuntimeOptions | None = None) -> Runtime:
    """Load an ONNX file for one input shape.

    Raises `UnusableError` when no runtime, or not the named one, is installed, or when it cannot load the graph.
    """
    options = options or RuntimeOptions()
    if options.threads is not None and options.threads < 1:
        msg = f"threads must be at least 1, got {options.threads}"
        raise UnusableError(msg)
    name = _choose(options)
    if name == "openvino":
        from edge.detector.runtimes.openvino import OpenvinoRuntime

        return OpenvinoRuntime(path, binding, options=options)
    from edge.detector.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime(path, binding, options=options)


def _usable_cpus() -> int:
    """Return how many CPUs this process may use; only Linux tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _choose(options: RuntimeOptions) -> RuntimeName:
    """Return the runtime to use, or raise with the command that installs it."""
    installed = installed_runtimes()
    wanted = options.name
    if wanted == "auto" and any(provider.lower() != "cpu" for provider in options.providers):
        wanted = "onnxruntime"
    if wanted == "auto":
        if installed:
            return installed[0]
        msg = 'no runtime is installed; run: pip install "weakspot[openvino]" (or "weakspot[onnxruntime]")'
        raise UnusableError(msg)
    for name in AUTO_ORDER:
        if name == wanted and name in installed:
            return name
        if name == wanted:
            msg = f'the runtime {name} is not installed; run: pip install "weakspot[{name}]"'
            raise UnusableError(msg)
    msg = f"there is no runtime {wanted!r}; known: auto, {', '.join(AUTO_ORDER)}"
    raise UnusableError(msg)
