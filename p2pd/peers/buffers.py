"""The memory that pieces arrive in: reused, and bounded over all connections of the node. Imports nothing of p2pd."""

from __future__ import annotations

import trio

CHUNK_SIZE_MAX = 1024 * 1024  # bytes: one worker-thread hop for each; 4 MiB are no faster, and wait longer in memory
CHUNK_SIZE_SMALL = 256 * 1024  # bytes: lent when the large ones are out; one run of a piece
LARGE_MAX = 12 * 1024 * 1024  # bytes lent in large buffers; the rest is for small ones, one for each request
TOTAL_MAX = 20 * 1024 * 1024  # bytes lent at a time; with the pulls' buffers below 32 MiB


class Buffers:
    """Lends buffers. When much is lent out they get smaller, so that a few peers that send a little and then nothing
    take the others' speed at most; only when all is lent out does a borrower wait, and with it its connection.
    """

    def __init__(self, total_max: int = TOTAL_MAX, large_max: int = LARGE_MAX) -> None:
        self._total_max = total_max
        self._large_max = large_max
        self._free: dict[int, list[bytearray]] = {}
        self._waiting = trio.lowlevel.ParkingLot()
        self.lent = 0
        self.lent_large = 0
        self.idle = 0  # bytes kept for the next borrower, at most half of the total

    async def take(self, size: int) -> bytearray:
        """A buffer of `size` bytes, or a smaller one; with whatever was in it before. Cancel-safe."""
        size = min(size, CHUNK_SIZE_MAX)
        while True:
            if size > CHUNK_SIZE_SMALL and self.lent_large + size > self._large_max:
                size = CHUNK_SIZE_SMALL
            if not self.lent or self.lent + size <= self._total_max:
                break
            await self._waiting.park()
        self.lent += size
        if size > CHUNK_SIZE_SMALL:
            self.lent_large += size
        free = self._free.get(size)
        if not free:
            return bytearray(size)
        self.idle -= size
        return free.pop()

    def give_back(self, buffer: bytearray) -> None:
        size = len(buffer)
        self.lent -= size
        if size > CHUNK_SIZE_SMALL:
            self.lent_large -= size
        if self.idle + size > self._total_max // 2:
            self._free.clear()  # of sizes that were in use once: the last pieces of blobs have any size
            self.idle = 0
        if size <= self._total_max // 2:
            self._free.setdefault(size, []).append(buffer)
            self.idle += size
        self._waiting.unpark_all()
