"""The runtimes that there are. Each vendor is imported by its own module only, and only when it is used.

`auto` takes the first installed of `AUTO_ORDER`: the starter model at 320x320 takes 10.6 ms on OpenVINO and 12.9 ms on
ONNX Runtime, on two cores of a Xeon with AVX-512. GPU providers belong to ONNX Runtime, so asking for one selects it.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Final, Literal, get_args

from edge.contract.card import Precision
from edge.contract.errors import UnusableError
from edge.detector.runtime import Binding, Runtime, RuntimeOptions

RuntimeName = Literal["openvino", "onnxruntime"]

AUTO_ORDER: Final[tuple[RuntimeName, ...]] = ("openvino", "onnxruntime")


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
    if options.precision not in get_args(Precision):
        msg = f"there is no precision {options.precision!r}; known: {', '.join(get_args(Precision))}"
        raise UnusableError(msg)
    name = _choose(options)
    if name == "openvino":
        # OpenVINO reports its import to its makers. A device reports to its hub alone: OpenVINO then uses its own stub.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        from edge.detector.runtimes.openvino import OpenvinoRuntime

        return OpenvinoRuntime(path, binding, options=options)
    from edge.detector.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime(path, binding, options=options)


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
