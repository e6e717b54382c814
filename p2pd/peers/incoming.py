"""A piece on its way in: bytes into a buffer, then hashed and written in one worker-thread hop a chunk.

Two peers may be sending the same piece, so a piece has one writer at a time, from its first byte to its last: else a
wrong byte of one could follow the right ones of the other into the file, after those were checked. Who is not the
writer is `overtaken`, and given up.

May know p2pd.hashing. The file is handed in.
"""

from __future__ import annotations

from typing import Protocol

import trio

from p2pd.hashing import Compression
from p2pd.peers.buffers import Buffers
from p2pd.peers.frames import FrameReader
from p2pd.swarm.messages import ProtocolError, Run

STORING_MAX = 8  # worker threads that hash and write: a disk that hangs must not take all of the process's threads

Key = tuple[bytes, int]  # a piece: its blob's digest, its index


class Sink(Protocol):
    """Where the bytes of a blob go: `p2pd.store.Partial` is one."""

    def write(self, offset: int, data: memoryview) -> None: ...


class Intake:
    """What all pieces that come in share: memory, threads, and who writes which piece."""

    def __init__(self) -> None:
        self.buffers = Buffers()
        self.threads = trio.CapacityLimiter(STORING_MAX)
        self.writers: dict[Key, Incoming] = {}


class Incoming:
    """What one request brings. `offset` and `length` in bytes within the blob; `last`: it is the blob's last piece."""

    def __init__(self, rid: int, key: Key, sink: Sink, offset: int, length: int, last: bool, intake: Intake) -> None:
        self.rid = rid
        self.length = length
        self.received = 0
        self.is_abandoned = False
        self.is_overtaken = False
        self._key = key
        self._sink = sink
        self._offset = offset
        self._last = last
        self._intake = intake
        self._buffer: bytearray | None = None
        self._filled = 0
        self._compression: Compression | None = None
        self._after = b""
        self._held = False
        self._began = 0.0
        self._stored_at = 0.0
        self._is_storing = False
        self._scope: trio.CancelScope | None = None

    @property
    def whole(self) -> bool:
        return self.received == self.length

    @property
    def held(self) -> bool:
        """Whether compressing the piece took the state before to the state after. Of a whole piece."""
        assert self.whole
        return self._held

    def begin(self, link: tuple[bytes, bytes]) -> None:
        """The piece's link is known now; needed before the first run."""
        self._compression = Compression(link[0], self._offset)
        self._after = link[1]
        self._began = trio.current_time()

    async def take_run(self, run: Run, frames: FrameReader) -> None:
        """One run's raw bytes; if the piece is abandoned or overtaken meanwhile, the rest of the run is thrown away.

        ProtocolError if it is not the next run; what the sink raises. Afterwards, whole or not, it may be closed.
        """
        if run.offset != self.received or run.offset + run.length > self.length:
            raise ProtocolError("a run that does not follow the one before")
        end = run.offset + run.length
        self._scope = trio.CancelScope()
        try:
            with self._scope:
                while self.received < end and not self.is_overtaken:
                    await self._take_some(end - self.received, frames)
        finally:
            self._scope = None
        if self.is_abandoned or self.is_overtaken:
            self.close()
            await frames.skip(end - self.received)

    def abandon(self) -> None:
        """The piece is not wanted any more: let go of its memory, even while a run is coming."""
        self.is_abandoned = True
        if self._scope:
            self._scope.cancel()  # `take_run` closes it, after the thread that may be writing
        else:
            self.close()

    def close(self) -> None:
        """Give the buffer back, and the right to write."""
        if self._buffer is not None:
            self._intake.buffers.give_back(self._buffer)
            self._buffer = None
        if self._intake.writers.get(self._key) is self:
            del self._intake.writers[self._key]

    async def _take_some(self, most: int, frames: FrameReader) -> None:
        if self._buffer is None:
            self._buffer = await self._intake.buffers.take(self.length - self.received)
            self._filled = 0
        room = memoryview(self._buffer)[self._filled :]
        count = await frames.raw_into(room[:most])
        self._filled += count
        self.received += count
        if self._filled == len(self._buffer) or self.whole:
            if self._becomes_writer():
                await self._store()
            else:
                self.is_overtaken = True

    def _becomes_writer(self) -> bool:
        """Whoever has a chunk first, unless it has stood still ever since another one began."""
        writer = self._intake.writers.get(self._key)
        if writer is self:
            return True
        stands_still = writer is None or (not writer._is_storing and writer._stored_at < self._began)
        if self.received != self._filled or not stands_still:
            return False
        self._intake.writers[self._key] = self
        return True

    async def _store(self) -> None:
        assert self._buffer is not None
        self._is_storing = True
        try:
            await trio.to_thread.run_sync(self._hash_and_write, limiter=self._intake.threads)
        finally:
            self._is_storing = False
        self._stored_at = trio.current_time()
        self._intake.buffers.give_back(self._buffer)
        self._buffer = None

    def _hash_and_write(self) -> None:
        """In a worker thread, never abandoned half-way. A bad piece that came in one chunk is not even written."""
        assert self._compression and self._buffer is not None
        chunk = memoryview(self._buffer)[: self._filled]
        self._compression.update(chunk)
        if self.whole:
            result = self._compression.digest() if self._last else self._compression.state()
            self._held = result == self._after
        if self._held or not self.whole:
            self._sink.write(self._offset + self.received - self._filled, chunk)
