"""OpenVINO on the CPU, in float32 unless told otherwise, so that it gives the boxes that every other runtime gives.

Its CPU plugin gives the thread that loads it a signal stack of 11.8 kB. Once AMX tiles are in use, the kernel's frame
fills it, and Python's handler runs over its end: SIGTERM becomes a segmentation fault (seen with OpenVINO 2026.4, Linux
6.18, Sapphire Rapids). So the stack of this thread is dropped, and handlers run on the thread's own.
"""

import ctypes
import sys
from pathlib import Path
from typing import Any, Final

import numpy as np
import openvino

from edge.contract.errors import UnusableError
from edge.detector.detections import Floats
from edge.detector.runtime import Binding, Outputs, RuntimeOptions

_SS_DISABLE: Final = 2
_CAPABILITY: Final = {"bf16": "BF16", "f16": "FP16"}


class OpenvinoRuntime:
    """A graph compiled by OpenVINO for one input shape, with one request."""

    name = "openvino"
    device = "CPU"

    def __init__(self, path: Path, binding: Binding, *, options: RuntimeOptions) -> None:
        self.version: str = openvino.__version__.split("-")[0]
        self._binding = binding
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": options.thread_count,
            "INFERENCE_PRECISION_HINT": "f32" if options.precision == "int8" else options.precision,
        }
        if options.cache_dir is not None:
            settings["CACHE_DIR"] = str(options.cache_dir)
        try:
            compiled = _compile(path, binding, settings)
            self._request = compiled.create_infer_request()
            _drop_signal_stack()
            self._outputs = {name: compiled.output(name) for name in binding.outputs}
            for name, array in binding.constants.items():
                self._request.set_tensor(name, openvino.Tensor(array))
        except RuntimeError as error:
            msg = f"openvino cannot load {path}: {_one_line(error)}"
            raise UnusableError(msg) from error

    def infer(self, tensor: Floats) -> Outputs:
        """Run the graph on one tensor. See `Runtime.infer`."""
        fed = tensor.astype(self._binding.element, copy=False)
        try:
            self._request.infer({self._binding.image: fed}, share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            msg = f"openvino cannot run the graph on an input of shape {tensor.shape}: {_one_line(error)}"
            raise UnusableError(msg) from error
        arrays = {name: self._request.get_tensor(port).data for name, port in self._outputs.items()}
        return {
            name: array.astype(np.float32) if array.dtype == np.float16 else array for name, array in arrays.items()
        }


def _compile(path: Path, binding: Binding, settings: dict[str, Any]) -> Any:
    """Fix the graph to its input shape, which is what makes a dynamic one fast, and compile it."""
    vendor = openvino.Core()
    needed = _CAPABILITY.get(settings["INFERENCE_PRECISION_HINT"])
    able = vendor.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if needed is not None and needed not in able:  # OpenVINO would do it in float32, without a word
        msg = f"this CPU cannot multiply in {settings['INFERENCE_PRECISION_HINT']}"
        raise UnusableError(msg)
    model = vendor.read_model(str(path))
    shapes: dict[str, Any] = {name: list(array.shape) for name, array in binding.constants.items()}
    model.reshape({binding.image: list(binding.shape), **shapes})
    return vendor.compile_model(model, "CPU", settings)


class _SignalStack(ctypes.Structure):
    """`stack_t` of <signal.h> on Linux."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


def _drop_signal_stack() -> None:
    """Let handlers run on this thread's own stack."""
    if sys.platform == "linux":
        ctypes.CDLL(None).sigaltstack(ctypes.byref(_SignalStack(None, _SS_DISABLE, 0)), None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
