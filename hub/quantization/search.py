"""Which layers stay in float: ranked by the harm each does alone, put back until the budget holds.

The harm of a layer is the error it alone makes at the heads' outputs over some calibration pictures (1 / SQNR). The
worst are put back first: 1, 2, 4, 8 ... until the budget holds, then the fewest that hold are found by halving. When
the file is no faster than float32 any more, the search ends without one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.detector.runtime import Outputs
from hub.quantization.layers import Layer
from hub.quantization.report import Judged

Ways = Callable[[frozenset[str]], "Opened"]


@dataclass(frozen=True, slots=True, eq=False)
class Opened:
    """A file with some layers in float, opened.

    Attributes:
        infer: runs the graph on one tensor.
        judge: what it lost on the pictures for choosing.
        fault: what the golden set says against it; "" for nothing.
        ratio: its time over that of float32.
    """

    infer: Callable[[NDArray[np.float32]], Outputs]
    judge: Callable[[], Judged]
    fault: Callable[[], str]
    ratio: Callable[[], float]


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """Where the search ended: the layers in float, what it lost, what the golden set says; if it holds and is fast."""

    float_layers: tuple[Layer, ...]
    judged: Judged
    fault: str
    holds: bool
    fast: bool

    @property
    def badness(self) -> tuple[bool, float]:
        """What is least for the best: a fault on the golden set weighs more than any loss."""
        return bool(self.fault), self.judged.worst


def harm(opened: Opened, *, tensors: Sequence[NDArray[np.float32]], meant: Sequence[Outputs]) -> float:
    """Return the error at the outputs as a share of their power, the mean over outputs; infinite where not finite."""
    wrong = dict.fromkeys(meant[0], 0.0)
    power = dict.fromkeys(meant[0], 0.0)
    for tensor, right in zip(tensors, meant, strict=True):
        outputs = opened.infer(tensor)
        for name, values in right.items():
            difference = outputs[name].astype(np.float64) - values
            wrong[name] += float((difference * difference).sum())
            power[name] += float((values.astype(np.float64) ** 2).sum())
    share = float(np.mean([wrong[name] / max(power[name], 1e-12) for name in wrong]))
    return share if np.isfinite(share) else float("inf")


def ranked(
    layers: Sequence[Layer],
    *,
    way: Ways,
    tensors: Sequence[NDArray[np.float32]],
    meant: Sequence[Outputs],
    on_layer: Callable[[], None] = lambda: None,
) -> tuple[Layer, ...]:
    """Return the layers, the most harmful first; of each the file is opened in which it alone is in 8 bits."""
    every = frozenset(node for layer in layers for node in layer.nodes)
    harms = []
    for layer in layers:
        harms.append(harm(way(every - set(layer.nodes)), tensors=tensors, meant=meant))
        on_layer()
    worst_first = sorted(range(len(layers)), key=lambda at: (-harms[at], at))
    return tuple(layers[at] for at in worst_first)


def fewest(
    rank: Callable[[], Sequence[Layer]],
    *,
    way: Ways,
    budget: float,
    slowest: float,
    on_try: Callable[[], None] = lambda: None,
) -> Found:
    """Put back the worst layers until at most `budget` points are lost and the golden set says nothing against it.

    `slowest` is the most time over float32's. `rank` gives the layers, the most harmful first; it is asked only where
    8 bits everywhere lose too much. The answer holds, or is the one that lost the least of those that were fast enough,
    or the first when none was.
    """
    ranking: Sequence[Layer] = ()

    def attempt(count: int) -> Found:
        floats = tuple(ranking[:count])
        opened = way(frozenset(node for layer in floats for node in layer.nodes))
        judged = opened.judge()
        on_try()
        fault = opened.fault()
        return Found(floats, judged, fault, judged.worst <= budget and not fault, opened.ratio() <= slowest)

    best = attempt(0)
    if best.holds or not best.fast:
        return best
    ranking = rank()
    tried = 0
    while tried < len(ranking) - 1:
        more = min(max(1, 2 * tried), len(ranking) - 1)
        found = attempt(more)
        if not found.fast:
            break
        if found.holds:
            return _between(tried, found, attempt)
        best, tried = min(best, found, key=lambda one: one.badness), more
    return best


def _between(failed: int, found: Found, attempt: Callable[[int], Found]) -> Found:
    """Return the one with the fewest layers in float that holds, above `failed`."""
    low, best = failed, found
    while len(best.float_layers) - low > max(1, len(best.float_layers) // 8):
        middle = (low + len(best.float_layers)) // 2
        between = attempt(middle)
        if between.holds and between.fast:
            best = between
        else:
            low = middle
    return best
