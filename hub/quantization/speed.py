"""How long a whole detection takes, of several detectors in turn: what slows the machine down slows all of them."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from edge.detector.detector import Detector
from edge.frame import Image

_WARM_UP: Final = 3
ROUNDS: Final = 40
_FLAGS: Final = ("avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16", "amx_bf16", "avx512_fp16", "asimddp", "i8mm")


def milliseconds(detectors: Sequence[Detector], images: Sequence[Image], *, rounds: int = ROUNDS) -> tuple[float, ...]:
    """Return the milliseconds of each detector's whole `detect`, letterbox and boxes included.

    It is the lower quartile: what slows the machine for moments does not decide which of two is the faster.
    """
    spent = np.empty((rounds + _WARM_UP, len(detectors)))
    for turn in range(len(spent)):
        image = images[turn % len(images)]
        for at, detector in enumerate(detectors):
            start = time.perf_counter()
            detector.detect(image, score_threshold=detector.score_threshold)
            spent[turn, at] = time.perf_counter() - start
    return tuple((np.quantile(spent[_WARM_UP:], 0.25, axis=0) * 1e3).tolist())


def cpu_name() -> str:
    """Return the name of the CPU and which instructions for 8 and 16 bits it has, as far as Linux tells."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return os.uname().machine if hasattr(os, "uname") else "unknown"
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    named = {name.strip(): value.strip() for name, value in fields.items()}
    flags = set((named.get("flags") or named.get("Features") or "").split())
    name = named.get("model name") or os.uname().machine
    return f"{name}; {', '.join(one for one in _FLAGS if one in flags) or 'no 8-bit instructions'}"
