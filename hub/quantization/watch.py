"""Who looks on while a model is quantized, for that takes minutes."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hub.lines import counted, spell_seconds

_PACED_ON: Final = 3  # steps, before it is said how long all take


@dataclass(frozen=True, slots=True)
class Watch:
    """Who looks on: `shown(what, done, total)` for bars, `said(line)` for news."""

    shown: Callable[[str, int, int], None] = lambda _what, _done, _total: None
    said: Callable[[str], None] = lambda _line: None


def paced(watch: Watch, what: str) -> Callable[[int, int], None]:
    """Return what shows steps, done and of how many, and says after the first few how long all take."""
    began = time.monotonic()

    def step(done: int, total: int) -> None:
        if done == _PACED_ON:
            seconds = (time.monotonic() - began) / done * total
            watch.said(f"{what}: {counted(total, 'step')}, about {spell_seconds(seconds)}")
        watch.shown(what, done, total)

    return step
