"""Frames out of a stream of bytes: the reading half of the wire, without decisions.

Reads ahead into one small buffer; the raw bytes behind a Run frame are taken from it first, then straight from the
socket into where they belong.
"""

from __future__ import annotations

from p2pd.peers.transport import ConnectionLost, PlainTransport
from p2pd.swarm.messages import FRAME_HEADER, FRAME_SIZE_MAX, Message, ProtocolError, decode

BUFFER_SIZE = 64 * 1024  # bytes read ahead; grows up to one frame where a larger one comes


class FrameReader:
    """One connection's incoming side."""

    def __init__(self, transport: PlainTransport) -> None:
        self._transport = transport
        self._buffer = bytearray(BUFFER_SIZE)
        self._start = self._end = 0

    async def message(self) -> Message:
        """The next message. ProtocolError, ConnectionLost."""
        await self._need(FRAME_HEADER.size)
        (length,) = FRAME_HEADER.unpack_from(self._buffer, self._start)
        if not 0 < length <= FRAME_SIZE_MAX:
            raise ProtocolError(f"a frame of {length} bytes: 1 to {FRAME_SIZE_MAX} are allowed")
        await self._need(FRAME_HEADER.size + length)
        begin = self._start + FRAME_HEADER.size
        self._start = begin + length
        with memoryview(self._buffer) as view:
            return decode(view[begin : begin + length])

    async def raw_into(self, view: memoryview) -> int:
        """Some of the raw bytes behind a Run: at least one."""
        ready = min(self._end - self._start, len(view))
        if ready:
            view[:ready] = memoryview(self._buffer)[self._start : self._start + ready]
            self._start += ready
            return ready
        return await self._transport.receive_into(view)

    async def skip(self, count: int) -> None:
        """Throw raw bytes away."""
        while count:
            ready = min(self._end - self._start, count)
            self._start += ready
            count -= ready
            if count:
                self._start = self._end = 0
                space = memoryview(self._buffer)[: min(count, len(self._buffer))]
                self._end = await self._transport.receive_into(space)

    async def _need(self, count: int) -> None:
        while self._end - self._start < count:
            if self._start:
                self._buffer[: self._end - self._start] = self._buffer[self._start : self._end]
                self._end -= self._start
                self._start = 0
            if len(self._buffer) < count:
                self._buffer.extend(bytes(count - len(self._buffer)))
            self._end += await self._transport.receive_into(memoryview(self._buffer)[self._end :])


__all__ = ["ConnectionLost", "FrameReader", "ProtocolError"]
