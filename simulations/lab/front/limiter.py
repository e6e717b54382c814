"""A rate shared by all answers of the front: each sender books its bytes and is told how long to wait. Thread-safe."""

from __future__ import annotations

import threading
import time

BURST_S = 0.02  # idle time that is made up for; short, so that the rate holds over any tenth of a second
CHUNK_MAX = 256 * 1024
CHUNK_MIN = 4 * 1024
CHUNKS_PER_S = 100  # fine enough that a kill "at 50 %" is one


class Limiter:
    """`rate` in bytes a second; None is unlimited. It may be changed at any time."""

    def __init__(self, rate: float | None = None) -> None:
        self.rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0

    def chunk(self) -> int:
        """How many bytes to send at once, so that answers share the rate evenly."""
        return CHUNK_MAX if self.rate is None else int(min(CHUNK_MAX, max(CHUNK_MIN, self.rate / CHUNKS_PER_S)))

    def book(self, count: int) -> float:
        """Takes `count` bytes of the rate; seconds to wait before they may be sent."""
        rate = self.rate
        if rate is None:
            return 0.0
        with self._lock:
            now = time.monotonic()
            start = max(self._free_at, now - BURST_S)
            self._free_at = start + count / rate
        return max(0.0, start - now)
