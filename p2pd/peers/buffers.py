"""The memory that pieces arrive in: reused, and bounded over all connections of the node. Imports nothing of p2pd."""

from __future__ import annotations

import trio

CHUNK_SIZE_MAX = 4 * 1024 * 1024  # bytes: one worker-thread hop for each; larger ones gain nothing more
TOTAL_MAX = 20 * 1024 * 1024  # bytes in use at a time; with the pulls' buffers below 32 MiB


class Buffers:
    """Lends buffers. Who finds none free waits, and with it the connection that it reads from."""

    def __init__(self, total_max: int = TOTAL_MAX) -> None:
        self._total_max = total_max
        self._used = 0
        self._free: dict[int, list[bytearray]] = {}
        self._waiting = trio.lowlevel.ParkingLot()

    async def take(self, size: int) -> bytearray:
        """A buffer of `size` bytes, with whatever was in it before. Cancel-safe."""
        while self._used and self._used + size > self._total_max:
            await self._waiting.park()
        self._used += size
        free = self._free.get(size)
        return free.pop() if free else bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        self._used -= len(buffer)
        free = self._free.setdefault(len(buffer), [])
        if (len(free) + 1) * len(buffer) + self._idle_of_others(len(buffer)) <= self._total_max // 2:
            free.append(buffer)
        self._waiting.unpark_all()

    def _idle_of_others(self, size: int) -> int:
        return sum(other * len(free) for other, free in self._free.items() if other != size)
