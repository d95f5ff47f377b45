"""The audit's built-in weights; see hub.fault_odds. `python -m tests.benchmarks audit` fits and prints them."""

from typing import Final

from hub.evidence import OF_ANNOTATION, OF_BOX, Usual
from hub.fault_odds import OF_BOXES_DRAWN, Odds

_USUAL: Final = Usual(annotated=(1.51, 2.81, 0.51), seen=(0.51, 0.19))
_ANNOTATION: Final = {  # swapped, badly placed, extra
    "one": (-11.13, -10.33, -16.15),
    "own": (-2.36, 0.03, -2.39),
    "fit": (-0.15, -3.38, 0.14),
    "loose": (-0.75, 1.65, -1.16),
    "other": (0.24, -0.86, -0.6),
    "other_over": (1.38, -0.14, -3.6),
    "near": (-0.5, -0.47, -0.48),
    "near_over": (-1.53, 1.74, -1.54),
    "usual": (0.95, 0.5, 0.67),
    "unseen": (-0.36, 0.64, 2.5),
    "any": (0.37, 0.2, -1.04),
    "size": (0.03, 0.28, 0.42),
    "crowd": (-2.23, -0.54, -0.99),
    "before": (-0.14, -0.01, -0.16),
}
_BOX: Final = {
    "one": -3.69,
    "usual": 0.87,
    "record": 1.28,
    "same": -1.27,
    "other": -4.42,
    "inside": -1.92,
    "around": -0.81,
    "size": 0.4,
    "crowd": -0.15,
    "second": 0.02,
    "double": 1.27,
    "image": 0.5,
    "again": 1.8,
}

BUILT_IN: Final = Odds(
    _USUAL,
    tuple(tuple(_ANNOTATION[sign][at] for sign in OF_ANNOTATION) for at in range(len(OF_BOXES_DRAWN))),
    tuple(_BOX[sign] for sign in OF_BOX),
)
