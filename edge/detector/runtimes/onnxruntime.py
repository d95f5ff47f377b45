"""ONNX Runtime: CPU by default; CUDA and TensorRT when asked for and usable. It multiplies in the numbers of the file.

The GPU paths follow ONNX Runtime's documented provider options. What this process really runs on is read back from
`session.get_providers()`, because ONNX Runtime drops a provider that it cannot load and goes on without it.
"""

import functools
import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from edge.contract.errors import UnusableError
from edge.detector.detections import Floats
from edge.detector.runtime import HALVES, Binding, Outputs, RuntimeOptions

_LOG = logging.getLogger(__name__)
_ERRORS_TOO, _FATAL_ONLY = 3, 4
_PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
}
_DEVICES = {
    "TensorrtExecutionProvider": "TensorRT",
    "CUDAExecutionProvider": "CUDA",
    "CPUExecutionProvider": "CPU",
}

# the native errors share no parent but Exception; RuntimeError and ValueError come from the Python layer
_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    ValueError,
    *(
        kind
        for kind in vars(native).values()
        if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == native.__name__
    ),
)


class OnnxRuntime:
    """A graph in an ONNX Runtime session."""

    name = "onnxruntime"

    def __init__(self, path: Path, binding: Binding, *, options: RuntimeOptions) -> None:
        self.version: str = onnxruntime.__version__
        self._binding = binding
        self._feeds: dict[str, Any] = dict(binding.constants)
        if HALVES.get(options.precision, binding.floats) != binding.floats:
            msg = (
                f"onnxruntime multiplies in the numbers of the file, and {path} is {binding.floats}: "
                f"{options.precision} needs OpenVINO, or a file of its own"
            )
            raise UnusableError(msg)
        try:
            self._session = _open_session(path, options)
        except _ERRORS as error:
            msg = f"onnxruntime cannot load {path}: {_one_line(error)}"
            raise UnusableError(msg) from error
        used = self._session.get_providers()[0]
        self.device = _DEVICES.get(used, used)

    def infer(self, tensor: Floats) -> Outputs:
        """Run the graph on one tensor. See `Runtime.infer`."""
        self._feeds[self._binding.image] = tensor.astype(self._binding.element, copy=False)
        try:
            arrays = self._session.run(self._binding.outputs, self._feeds)
        except _ERRORS as error:
            msg = f"onnxruntime cannot run the graph on an input of shape {tensor.shape}: {_one_line(error)}"
            raise UnusableError(msg) from error
        return {
            name: array.astype(np.float32) if array.dtype == np.float16 else array
            for name, array in zip(self._binding.outputs, arrays, strict=True)
        }


def _open_session(path: Path, options: RuntimeOptions) -> Any:
    """Open the session on the wanted providers, and say so when it runs on less."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.thread_count
    settings.inter_op_num_threads = 1
    settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    before_cpu = itertools.takewhile(lambda name: name.lower() != "cpu", options.providers)
    wanted = [_provider(name, options) for name in before_cpu]
    settings.log_severity_level = _ERRORS_TOO if wanted else _FATAL_ONLY  # why a GPU cannot be used is only logged
    available = set(onnxruntime.get_available_providers())
    cpu: tuple[str, dict[str, str]] = ("CPUExecutionProvider", {})
    usable = [*(provider for provider in wanted if provider[0] in available), cpu]
    session = None
    while session is None:
        try:
            session = onnxruntime.InferenceSession(str(path), settings, providers=usable, enable_fallback=0)
        except _ERRORS as error:
            if usable == [cpu]:
                raise
            _warn_once(f"onnxruntime cannot use {usable[0][0]}: {_one_line(error)}")
            usable = usable[1:]
    used = session.get_providers()
    missing = [name for name, _ in wanted if name not in used]
    if missing:
        _warn_once(f"onnxruntime has no usable {', '.join(missing)} here; the model runs on {used[0]}")
    return session


def _provider(name: str, options: RuntimeOptions) -> tuple[str, dict[str, str]]:
    """Return ONNX Runtime's name and options of a provider."""
    full = _PROVIDERS.get(name.lower())
    if full is None:
        msg = f"there is no provider {name!r}; known: {', '.join(_PROVIDERS)}, cpu"
        raise UnusableError(msg)
    if name.lower() == "tensorrt" and options.cache_dir is not None:
        return full, {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(options.cache_dir)}
    return full, {}


@functools.cache
def _warn_once(message: str) -> None:
    """Log a warning; the same one is not repeated in this process."""
    _LOG.warning("%s", message)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
