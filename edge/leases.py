"""Which samples of the spool are on their way, and when those that were not acknowledged are due again.

Kept in memory: a lease means nothing after a restart, and so costs no write. There is no clock and no lock here:
`now_s` is the caller's monotonic time, and calls come one at a time.
"""

import math
import random
from typing import Final, NamedTuple

RETRY_S: Final = 5.0
RETRY_MAX_S: Final = 300.0


class _Turn(NamedTuple):
    """`due_s` is None while the sample is leased, else when it may be leased again."""

    attempts: int
    due_s: float | None


class Leases:
    """The leases of one spool. A sample that it does not know is due at once."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._turns: dict[str, _Turn] = {}

    def is_due(self, event_id: str, *, now_s: float) -> bool:
        """Whether the sample may be leased."""
        due_s = self._turn(event_id).due_s
        return due_s is not None and due_s <= now_s

    def is_out(self, event_id: str) -> bool:
        """Whether the sample is on its way."""
        return self._turn(event_id).due_s is None

    def attempts(self, event_id: str) -> int:
        """Return how often the sample was leased in vain."""
        return self._turn(event_id).attempts

    def take(self, event_id: str) -> None:
        """Lease the sample."""
        self._turns[event_id] = _Turn(self.attempts(event_id), None)

    def retry(self, event_id: str, *, now_s: float) -> None:
        """End a lease without an ack: the sample is due again later, each time later than before, with jitter."""
        turn = self._turn(event_id)
        if turn.due_s is None:
            wait_s = min(RETRY_MAX_S, RETRY_S * 2.0 ** min(turn.attempts, 16)) * self._rng.uniform(0.5, 1.5)
            self._turns[event_id] = _Turn(turn.attempts + 1, now_s + wait_s)

    def forget(self, event_id: str) -> None:
        """The sample is gone, or its next step begins: it is due at once."""
        self._turns.pop(event_id, None)

    def clear(self) -> None:
        """End every lease."""
        self._turns.clear()

    def _turn(self, event_id: str) -> _Turn:
        return self._turns.get(event_id, _Turn(0, -math.inf))
