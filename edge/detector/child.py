"""A process of our own that answers questions, so that its death or its silence is an answer too.

A vendor's native code can crash or hang; only a process of its own keeps that from whoever asks. Question and answer
are one line each, through the child's standard input and output.
"""

import contextlib
import os
import select
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self

from edge.contract.errors import UnusableError

_CHUNK: Final = 65536
_LONGEST: Final = 300
_TURN_S: Final = 0.25


class Child:
    """A running process. Leaving the context ends it.

    Args:
        command: what to run.
        leads: whether the processes that it starts itself end with it.
        pass_fds: file descriptors that it shall have, too.
    """

    def __init__(self, command: Sequence[str], *, leads: bool = False, pass_fds: Sequence[int] = ()) -> None:
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        self._leads = leads
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            bufsize=0,
            start_new_session=leads,
            pass_fds=pass_fds,
        )
        self._rest = b""

    def __enter__(self) -> Self:
        """Return the child."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self.close()

    def ask(self, question: bytes, *, within_s: float, on_wait: Callable[[], None] = lambda: None) -> bytes:
        """Return the line that answers a line. Raises `UnusableError` when it dies or does not answer in time.

        `on_wait` is called now and then meanwhile; what it raises ends the waiting, and not the process.
        """
        asked, answered = self._process.stdin, self._process.stdout
        assert asked is not None
        assert answered is not None
        end = time.monotonic() + within_s
        try:
            asked.write(question + b"\n")
        except BrokenPipeError as error:
            raise UnusableError(self._death()) from error
        while b"\n" not in self._rest:
            left = end - time.monotonic()
            if left <= 0:
                self.kill()
                msg = f"it did not answer within {within_s:.0f} s"
                raise UnusableError(msg)
            if not select.select([answered], [], [], min(left, _TURN_S))[0]:
                on_wait()
                continue
            chunk = os.read(answered.fileno(), _CHUNK)
            if not chunk:
                raise UnusableError(self._death())
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def kill(self) -> None:
        """End the process, from any thread; whoever waits for an answer learns of its death."""
        if not self._leads:
            self._process.kill()
        elif self._process.returncode is None:  # not waited for: its number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process, whatever it does."""
        self.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._complaints.close()

    def _death(self) -> str:
        """Return how the process ended, and the last line of its complaints."""
        status = self._process.wait()
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"its process {how}{f': {last[:_LONGEST]}' if last else ''}"
