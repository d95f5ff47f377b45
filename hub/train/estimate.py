"""How long a training will take and how much memory it needs, said before it starts.

Memory is measured twice: one picture through the graph, forward and backward, before anything is built (which tells
whether it can fit at all), and the first real steps. Time is that of the second real step: the first one warms up.
"""

import math
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edge.contract.card import InputSpec
from edge.contract.errors import UnusableError
from edge.detector.letterbox import Size, tensor_shape
from hub.train.batch import LEAST

_PROC: Final = Path("/proc/self")
_CGROUP: Final = Path("/sys/fs/cgroup")
_RESET_PEAK: Final = "5"  # Documentation/filesystems/proc.rst: clear_refs
_RESERVE: Final = 0.95  # of what is free; the rest is for the system


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is still to come.

    Attributes:
        steps: still to do, at most.
        seconds: for them.
        peak_bytes: the most memory that the process has held so far, which the other steps need too.
    """

    steps: int
    seconds: float
    peak_bytes: int


def rss_bytes() -> int:
    """Return the memory that this process holds now; 0 where the system does not tell."""
    return _status("VmRSS:")


def peak_bytes() -> int:
    """Return the most memory that this process has held since its start, or since `reset_peak`."""
    found = _status("VmHWM:")
    if found:
        return found
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def reset_peak() -> None:
    """Count the peak from now on, where the system can."""
    try:
        (_PROC / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return


def free_bytes() -> int | None:
    """Return the memory that this process may still take; None where the system does not tell.

    The least of what the machine has, what its control group leaves, and its own address space limit.
    """
    found = [free for free in (_machine(), _group(), _address_space()) if free is not None]
    return min(found) if found else None


def grown_bytes(run: Callable[[], object]) -> int:
    """Return by how much memory rises at most while `run` runs."""
    reset_peak()
    before = rss_bytes()
    run()
    return max(0, peak_bytes() - before)


def picture_bytes(onnx: Path, spec: InputSpec, *, input_size: Size) -> int:
    """Return the memory that one picture takes in a step: through the graph, forward and backward.

    Raises `UnusableError` for a graph that cannot be trained.
    """
    import torch

    from hub.train.graph import TorchGraph

    graph = TorchGraph.open(onnx)

    def step() -> None:
        outputs = graph(torch.full(tensor_shape(spec, input_size), 0.5))
        sum(output.square().mean() for output in outputs.values()).backward()

    return grown_bytes(step)


def require_memory(needed: int, free: int | None, *, batch: int, input_size: Size) -> None:
    """Raise `UnusableError`, saying what to do, when less is free than is needed."""
    if free is None or needed <= free * _RESERVE:
        return
    width, height = input_size
    smaller = f"--input {_smaller(width)}x{_smaller(height)}"
    if batch > LEAST:
        fitting = max(LEAST, min(batch - 1, math.floor(batch * free * _RESERVE / needed)))
        smaller = f"--batch {fitting} or {smaller}"
    msg = (
        f"the training needs about {gigabytes(needed)} and {gigabytes(free)} are free: try {smaller},"
        " or end other programs"
    )
    raise UnusableError(msg)


def gigabytes(count: int) -> str:
    """Return "1.2 GB", or "300 MB" below one."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _smaller(side: int) -> int:
    """Return a side of about three quarters, a multiple of 32."""
    return max(32, side * 3 // 4 // 32 * 32)


def _status(key: str) -> int:
    try:
        lines = (_PROC / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), 0)


def _machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def _group() -> int | None:
    """Return what the control group (version 2) leaves; files that are only cached count as free."""
    try:
        limit = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text())
        stat = (_CGROUP / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):
        return None
    if limit == "max":
        return None
    cached = next((int(line.split()[1]) for line in stat if line.startswith("inactive_file ")), 0)
    return max(0, int(limit) - used + cached)


def _address_space() -> int | None:
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft == resource.RLIM_INFINITY:
        return None
    return max(0, soft - _status("VmSize:"))


def usable_cpus() -> int:
    """Return how many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
