"""A rate limit for bytes that arrive: a token bucket in the form of a debt.

Imports nothing of p2pd.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

BURST_S = 0.1  # how much of an idle time may be made up for: a tenth of a second's bytes


class RateLimit:
    """`rate` bytes/s over all that share it; None for no limit.

    A chunk is paid after it came, so that nothing is lost when a task is cancelled while it waits.
    """

    def __init__(self, rate: float | None, clock: Callable[[], float] = trio.current_time) -> None:
        self._rate = rate
        self._clock = clock
        self._paid_at = float("-inf")  # when all that came is paid for

    async def ready(self) -> None:
        """Wait until what came before is paid for. Safe to cancel."""
        if (debt := self.debt()) > 0:
            await trio.sleep(debt)

    def debt(self) -> float:
        """Seconds until what came before is paid for; 0 or less when it is."""
        return 0.0 if self._rate is None else self._paid_at - self._clock()

    def spend(self, count: int) -> None:
        """`count` bytes came."""
        if self._rate is not None:
            self._paid_at = max(self._paid_at, self._clock() - BURST_S) + count / self._rate
