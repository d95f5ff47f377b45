"""The audit's built-in weights: see hub.fault_odds."""

from typing import Final

from hub.fault_odds import NONE, Odds

BUILT_IN: Final[Odds] = NONE
