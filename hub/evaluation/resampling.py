"""How far a measured figure may be off: the bootstrap over moments.

Frames of one camera within 20 s show the same things: they are drawn together or not at all, or the interval would be
that of many more pictures than there are. A picture of which the camera or the time is not known is a moment of its
own. With fewer than `FEW` moments single pictures are drawn, and that is said; with fewer than two of them there is no
interval.

Intervals are percentile intervals, expanded for few units (Hesterberg 2015, "What Teachers Should Know About the
Bootstrap"): the quantiles are those of Student's t with as many degrees of freedom as there are units less one, times
sqrt(n / (n - 1)). Every interval is 95 %.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from hub.datasets.version import Member
from hub.label_table import Floats, Ints

MOMENT_MS: Final = 20_000
FEW: Final = 5
RESAMPLES: Final = 1000
_Z: Final = 1.959964
_MOST_LOST: Final = 0.1  # of the resamples, those in which a figure is not defined
_HAIR: Final = 1e-9

Weights = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Units:
    """What is drawn.

    Attributes:
        of: `[n]`, the unit of each picture.
        count: of units.
        kind: moments, single pictures, or too few of both.
    """

    of: Ints
    count: int
    kind: Literal["moments", "pictures", "too few"]


def units(members: Sequence[Member]) -> Units:
    """Return what is drawn of these pictures."""
    keys = [
        (member.camera, member.captured_at_ms // MOMENT_MS)
        if member.camera and member.captured_at_ms
        else (member.name, -1)
        for member in members
    ]
    code = {key: at for at, key in enumerate(dict.fromkeys(keys))}
    if len(code) >= FEW:
        return Units(np.array([code[key] for key in keys], np.int64), len(code), "moments")
    n = len(members)
    return Units(np.arange(n), n, "pictures" if n > 1 else "too few")


def draw(units: Units, *, seed: int, resamples: int = RESAMPLES) -> Weights:
    """Return how often each picture is drawn in each resample, `[n, resamples]`."""
    rng = np.random.default_rng(seed)
    times = rng.multinomial(units.count, np.full(units.count, 1 / max(1, units.count)), size=resamples)
    return np.ascontiguousarray(times.T.astype(np.float32)[units.of])


def interval(samples: Floats, *, units: int) -> tuple[float, float] | None:
    """Return the 95 % interval of a figure from its resamples `[r]`; None where they do not tell.

    Args:
        samples: NaN where a resample does not define it.
        units: in how many units there is something to count.
    """
    finite = samples[np.isfinite(samples)]
    if units < 2 or len(finite) < (1 - _MOST_LOST) * len(samples):
        return None
    tail = NormalDist().cdf(-_student(units - 1) * math.sqrt(units / (units - 1)))
    low, high = np.quantile(finite, [tail, 1 - tail]).tolist()
    return low, high


def share_interval(samples: Floats, *, value: float, units: int) -> tuple[float, float] | None:
    """Return the interval of a share. All or nothing is never certain: then it is Wilson's, each unit counted once."""
    found = interval(samples, units=units)
    if found is None or found[1] - found[0] > _HAIR or _HAIR < value < 1 - _HAIR:
        return found
    reach = _Z * _Z / (units + _Z * _Z)
    return (0.0, reach) if value < 0.5 else (1 - reach, 1.0)


def _student(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t; Cornish and Fisher's expansion, off by less than .5 % from 4 on."""
    if freedom < 4:
        return (12.706, 4.303, 3.182)[freedom - 1]
    z, v = _Z, float(freedom)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / v + second / v**2 + third / v**3
