"""Ctrl-C and SIGTERM while something is done that should not be cut in two."""

import signal
import threading

import pytest

from hub.train.stopping import stoppable


def test_a_signal_waits_for_the_end_of_a_step_and_a_second_one_does_not() -> None:
    with stoppable() as stop:
        with stop.held():
            signal.raise_signal(signal.SIGTERM)
            assert stop.asked
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    found = []
    thread = threading.Thread(target=lambda: found.append(entered()))
    thread.start()
    thread.join()
    assert found == [False]


def entered() -> bool:
    with stoppable() as stop:
        return stop.asked
