"""What time it is for certificates of time: a device's clock may stand at 1970, or at ten years from now.

Laws:

1. Expiry is judged at the newest of: the clock; the floor and the time that this process has run since it was read.
   A clock that was set back does not make expired metadata valid again.
2. The floor is the newest time at which signed metadata was accepted (and this version's date before that). So it
   never passes the expiry of what was accepted: a clock that ran ahead makes everything expired while it does so, and
   leaves no trace once it is mended.
3. The floor only rises. It is on the disk but for the last hour; a file that cannot be read counts as none.
"""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from edge.contract.errors import UnusableError
from edge.detector.written import write_whole

BUILT_S: Final = datetime(2026, 11, 1, tzinfo=UTC).timestamp()
_LATEST_S: Final = datetime(9000, 1, 1, tzinfo=UTC).timestamp()
_STEP_S: Final = 3600.0

_log = logging.getLogger(__name__)


class ExpiredError(UnusableError):
    """What is signed has run out, or this device's clock is wrong. Either may be mended: ask again later."""


class TimeFloor:
    """The newest time that signed metadata bore out, kept in a file.

    Args:
        path: of the file; it need not be there.
        clock: seconds since 1970, as the device believes.
        uptime: seconds that only rise.
    """

    def __init__(
        self, path: Path, *, clock: Callable[[], float] = time.time, uptime: Callable[[], float] = time.monotonic
    ) -> None:
        self._path, self._clock, self._uptime = path, clock, uptime
        self._written_s = _read(path)
        self._floor_s = max(BUILT_S, self._written_s)
        self._since_s = uptime()

    def now_s(self) -> float:
        """Return the time to judge expiry at, in seconds since 1970."""
        return min(_LATEST_S, max(self._clock(), self._floor_s + self._uptime() - self._since_s))

    def clock_is_behind(self) -> bool:
        """Whether the clock says less than what is certain, by more than an hour."""
        return self._clock() < self.now_s() - _STEP_S

    def accept(self, now_s: float) -> None:
        """Raise the floor to a time at which metadata was accepted. Raises `UnusableError` when it cannot be kept."""
        if now_s >= self._written_s + _STEP_S:  # a write an hour is enough, and spares the flash
            write_whole(self._path, f"{int(now_s)}\n".encode())
            self._written_s = now_s
        if now_s > self._floor_s:
            self._floor_s, self._since_s = now_s, self._uptime()


def _read(path: Path) -> float:
    try:
        found = float(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0.0
    except (OSError, ValueError) as error:
        _log.warning("the time floor %s cannot be read (%s): begun anew", path, error)
        return 0.0
    return found if 0.0 <= found <= _LATEST_S else 0.0
