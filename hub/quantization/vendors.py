"""The two ways into 8 bits: NNCF, and ONNX Runtime's static quantization. Each gives an ONNX file for any runtime.

Both write QuantizeLinear and DequantizeLinear, with one scale a channel for weights and one a tensor for what flows
through. (NNCF's own choice of a scale a channel before depthwise layers cannot be read by OpenVINO where a
concatenation lies in between, nor be computed in 8 bits by ONNX Runtime.) NNCF also corrects the biases, and leaves
squeeze-and-excite in float.
"""

import contextlib
import io
import logging
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from edge.contract.errors import UnusableError
from hub.quantization.layers import Model, is_quantized

Tensors = Sequence[NDArray[np.float32]]
Vendor = Callable[[Model, str, Tensors], Model]

_LEAST_OPSET: Final = 13  # the first with one scale a channel
_FLOAT16: Final = 10
_NNCF: Final = "NNCF"
_ONNXRUNTIME: Final = "ONNX Runtime"


def read_float(path: Path) -> Model:
    """Read a float32 file that can be quantized. Raises `UnusableError` for one that is not, saying why."""
    try:
        model = onnx.load(path)
    except (OSError, ValueError, RuntimeError) as error:
        raise _cannot(path, error) from error
    if is_quantized(model):
        msg = f"{path} is quantized already; give the float32 model that it was made from"
        raise UnusableError(msg)
    if any(one.data_type == _FLOAT16 for one in model.graph.initializer):
        msg = f"{path} is float16; give the float32 model that it was made from"
        raise UnusableError(msg)
    opset = next((one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}), 0)
    if opset < _LEAST_OPSET:
        try:
            model = onnx.version_converter.convert_version(model, _LEAST_OPSET)
        except (RuntimeError, ValueError) as error:
            raise _cannot(path, error) from error
    return model


def by_nncf(model: Model, image: str, tensors: Tensors) -> Model:
    """Quantize with NNCF; `tensors` are fed to the input `image`. Raises `UnusableError`."""
    with _silent():
        try:
            sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
            import nncf
            from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters
        except ModuleNotFoundError as error:
            msg = f'{error.name} is not installed; run: pip install "weakspot[quantize]"'
            raise UnusableError(msg) from error
        nncf.set_log_level(logging.ERROR)
        try:
            return nncf.quantize(
                _copy(model),
                nncf.Dataset([{image: tensor} for tensor in tensors]),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(tensors),
                advanced_parameters=AdvancedQuantizationParameters(
                    activations_quantization_params=QuantizationParameters(per_channel=False)
                ),
            )
        except Exception as error:  # NNCF's errors, and those of what it calls, share no parent
            raise _cannot(_NNCF, error) from error


def by_onnxruntime(model: Model, image: str, tensors: Tensors) -> Model:
    """Quantize with ONNX Runtime: min and max over the pictures. Raises `UnusableError`."""
    try:
        from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    except ModuleNotFoundError as error:
        msg = f'{error.name} is not installed; run: pip install "weakspot[quantize]"'
        raise UnusableError(msg) from error

    class Pictures(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left = iter(tensors)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            tensor = next(self._left, None)
            return None if tensor is None else {image: tensor}

    named = _named(model)
    outputs = {port.name for port in named.graph.output}
    last = [node.name for node in named.graph.node if outputs & set(node.output)]  # an output keeps its name and place
    with _silent(), tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "int8.onnx"
        try:
            quantize_static(
                named,
                path,
                Pictures(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=last,
                extra_options={"QDQKeepRemovableActivations": True},
            )
            return onnx.load(path)
        except Exception as error:  # ONNX Runtime's errors share no parent
            raise _cannot(_ONNXRUNTIME, error) from error


def _named(model: Model) -> Model:
    """Return a copy in which every node has a name of its own."""
    made = _copy(model)
    for at, node in enumerate(made.graph.node):
        node.name = f"{at}:{node.output[0]}"
    return made


def _copy(model: Model) -> Model:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Keep banners, bars and warnings of the vendors from the terminal."""
    root, level = logging.getLogger(), logging.getLogger().level
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        root.setLevel(logging.ERROR)
        try:
            yield
        finally:
            root.setLevel(level)


def _cannot(who: Any, error: Exception) -> UnusableError:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    return UnusableError(f"{who} cannot be quantized: {reason}" if isinstance(who, Path) else f"{who} failed: {reason}")
