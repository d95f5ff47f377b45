"""Ctrl-C and SIGTERM: between two steps a training stops by itself; anywhere else it is interrupted at once.

OpenVINO's CPU plugin gives the thread that loads it a signal stack of 11.8 kB. Once AMX tiles are in use, the kernel's
frame fills it, and Python's handler runs over its end: SIGTERM becomes a segmentation fault (seen with OpenVINO 2026.4,
Linux 6.18, Sapphire Rapids). So the stack of this thread is dropped, and handlers run on the thread's own.
"""

import ctypes
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_SS_DISABLE: Final = 2


class _SignalStack(ctypes.Structure):
    """`stack_t` of <signal.h> on Linux."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


def drop_signal_stack() -> None:
    """Let handlers run on this thread's own stack. To be called after a detector was opened."""
    if sys.platform == "linux":
        ctypes.CDLL(None).sigaltstack(ctypes.byref(_SignalStack(None, _SS_DISABLE, 0)), None)


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
        drop_signal_stack()
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
