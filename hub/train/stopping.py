"""Ctrl-C and SIGTERM: between two steps a training stops by itself; anywhere else it is interrupted at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Stop:
    """Whether the user wants an end.

    Attributes:
        asked: a signal came while it was held back.
    """

    def __init__(self) -> None:
        self.asked = False
        self._held = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold a first signal back until whoever looks at `asked` ends; a second one interrupts."""
        self._held = True
        try:
            yield
        finally:
            self._held = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Take a signal. Raises `KeyboardInterrupt` where nobody looks at `asked`."""
        if not self._held or self.asked:
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def stoppable() -> Iterator[Stop]:
    """Take Ctrl-C and SIGTERM for the time of the block. In a thread that is not the main one, neither comes."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    earlier = [signal.signal(number, stop.note) for number in _SIGNALS]
    try:
        yield stop
    finally:
        for number, handler in zip(_SIGNALS, earlier, strict=True):
            signal.signal(number, handler)
