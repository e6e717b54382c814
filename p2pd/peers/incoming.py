"""A piece on its way in: bytes into a buffer, then hashed and written in one worker-thread hop a chunk.

May know p2pd.hashing. The file is handed in.
"""

from __future__ import annotations

from typing import Protocol

import trio

from p2pd.hashing import Compression
from p2pd.peers.buffers import CHUNK_SIZE_MAX, Buffers
from p2pd.peers.frames import FrameReader
from p2pd.swarm.messages import ProtocolError, Run


class Sink(Protocol):
    """Where the bytes of a blob go: `p2pd.store.Partial` is one."""

    def write(self, offset: int, data: memoryview) -> None: ...


class Incoming:
    """What one request brings. `offset` and `length` in bytes within the blob; `last`: it is the blob's last piece."""

    def __init__(self, rid: int, sink: Sink, offset: int, length: int, last: bool, buffers: Buffers) -> None:
        self.rid = rid
        self.received = 0
        self.length = length
        self._sink = sink
        self._offset = offset
        self._last = last
        self._buffers = buffers
        self._buffer: bytearray | None = None
        self._filled = 0
        self._compression: Compression | None = None
        self._after = b""

    def begin(self, link: tuple[bytes, bytes]) -> None:
        """The piece's link is known now; needed before the first run."""
        self._compression = Compression(link[0], self._offset)
        self._after = link[1]

    async def take_run(self, run: Run, frames: FrameReader) -> None:
        """One run's raw bytes. ProtocolError if it is not the next one; what the sink raises."""
        if run.offset != self.received or run.offset + run.length > self.length:
            raise ProtocolError("a run that does not follow the one before")
        left = run.length
        while left:
            if self._buffer is None:
                self._buffer = await self._buffers.take(min(CHUNK_SIZE_MAX, self.length - self.received))
                self._filled = 0
            room = memoryview(self._buffer)[self._filled :]
            count = await frames.raw_into(room[: min(left, self.length - self.received)])
            left -= count
            self._filled += count
            self.received += count
            if self._filled == len(self._buffer) or self.received == self.length:
                await trio.to_thread.run_sync(self._store)
                self.close()

    @property
    def whole(self) -> bool:
        return self.received == self.length

    def holds(self) -> bool:
        """Whether compressing the piece took the state before to the state after."""
        assert self._compression and self.whole
        result = self._compression.digest() if self._last else self._compression.state()
        return result == self._after

    def close(self) -> None:
        """Give the buffer back."""
        if self._buffer is not None:
            self._buffers.give_back(self._buffer)
            self._buffer = None

    def _store(self) -> None:
        assert self._compression and self._buffer is not None
        chunk = memoryview(self._buffer)[: self._filled]
        self._compression.update(chunk)
        self._sink.write(self._offset + self.received - self._filled, chunk)
