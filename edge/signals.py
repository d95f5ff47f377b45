"""SIGTERM and SIGINT as an event."""

import os
import signal
import threading


def stop_on_signals() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set. For the main thread.

    The signal is written to a pipe and a thread sets the event: set by a handler, it could meet its own lock, held by
    the thread that the handler interrupts. Blocking the signals instead would not reach the threads that numpy and
    OpenCV start when they are imported.
    """
    stop = threading.Event()
    heard, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        os.read(heard, 1)
        stop.set()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stop
