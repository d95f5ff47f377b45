"""The place where files are tried: a scratch folder that looks like the model folder, with one variant at a time.

Owns the folder; it is gone when the bench is closed.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge.contract.card import ModelCard, Precision, Variant
from edge.detector.detector import FEATURES, Detector, open_detector
from edge.detector.golden import GoldenSet, parity, read_golden, write_golden
from edge.detector.letterbox import Size
from edge.detector.opening import CARD_NAME
from edge.detector.runtime import Outputs
from edge.detector.written import write_card
from edge.frame import Image
from hub.quantization.judging import Judge
from hub.quantization.layers import Model, put_back
from hub.quantization.report import Runtime
from hub.quantization.search import Opened, Ways
from hub.quantization.speed import milliseconds

_NAME: Final = "tried"
_FILE: Final = "tried.onnx"


@dataclass(frozen=True, slots=True, eq=False)
class Floated:
    """Float32 on one runtime, the judges that saw it, and the golden set of the release."""

    detector: Detector
    choosing: Judge
    verdict: Judge | None
    golden: GoldenSet | None


class Bench:
    """A scratch folder with the model's card and file."""

    def __init__(self, path: Path, card: ModelCard, *, size: Size, threads: int | None) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="weakspot-quantize-"))
        self._card = msgspec.structs.replace(card, golden="", variants=())
        self._size = size
        self._threads = threads
        shutil.copyfile(path, self._folder / card.file)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def float_detector(self, runtime: Runtime, precision: Precision = "f32") -> Detector:
        """Open the card's own file. Raises `UnusableError` where the runtime cannot at this precision."""
        write_card(self._folder / CARD_NAME, self._card)
        return open_detector(
            self._folder, runtime=runtime, input_size=self._size, threads=self._threads, precision=precision
        )

    def detector(self, content: bytes, runtime: Runtime) -> Detector:
        """Open a quantized file. Raises `UnusableError` when the runtime cannot load or run it."""
        (self._folder / _FILE).write_bytes(content)
        variant = Variant(
            name=_NAME,
            file=_FILE,
            sha256=hashlib.sha256(content).hexdigest(),
            precision="int8",
            runtimes=(runtime,),
            input=f"{self._size[0]}x{self._size[1]}",
        )
        write_card(self._folder / CARD_NAME, msgspec.structs.replace(self._card, variants=(variant,)))
        return open_detector(self._folder, runtime=runtime, input_size=self._size, threads=self._threads, variant=_NAME)

    def golden(self, pictures: Mapping[str, bytes]) -> GoldenSet | None:
        """Make the golden set that the release will have. Raises `UnusableError`."""
        write_card(self._folder / CARD_NAME, self._card)
        write_golden(self._folder, pictures, sizes=[self._size])
        return read_golden(self._folder)

    def ways(
        self, quantized: Model, original: Model, *, floated: Floated, runtime: Runtime, images: Sequence[Image]
    ) -> Ways:
        """Return what opens the quantized file with some of its nodes in float."""

        def opened(nodes: Collection[str]) -> Opened:
            detector = self.detector(put_back(quantized, original, nodes).SerializeToString(), runtime)
            return Opened(
                infer=lambda tensor: outputs_of(detector, tensor),
                judge=lambda: floated.choosing(detector),
                fault=lambda: fault_of(detector, floated.golden),
                ratio=lambda: ratio(detector, floated.detector, images),
            )

        return opened


def ratio(detector: Detector, floated: Detector, images: Sequence[Image]) -> float:
    """Return a detector's time over that of float32."""
    ms, float_ms = milliseconds([detector, floated], images)
    return ms / float_ms


def fault_of(detector: Detector, golden: GoldenSet | None) -> str:
    """Return what a golden set says against a detector, as a device will ask; "" where it has no boxes."""
    if golden is None:
        return ""
    held = parity(detector, golden)
    return held.fault if held.known else ""


def outputs_of(detector: Detector, tensor: NDArray[np.float32]) -> Outputs:
    """Return copies of the floating outputs of the heads."""
    outputs = detector.runtime.infer(tensor)
    return {name: one.copy() for name, one in outputs.items() if name != FEATURES and one.dtype == np.float32}
