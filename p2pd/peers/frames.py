"""Frames out of a stream of bytes: the reading half of the wire, without decisions.

Reads ahead into one small buffer; the raw bytes behind a Run frame are taken from it first, then straight from the
socket into where they belong.
"""

from __future__ import annotations

from p2pd.peers.transport import ConnectionLost, Transport
from p2pd.swarm.messages import FRAME_HEADER, FRAME_SIZE_MAX, Message, ProtocolError, decode

# Bytes read ahead. Small, since each connection has one (a tracker: 10,000), and since what is read of a piece in this
# way is copied once more. It grows to one frame where a larger one comes, and shrinks again behind it.
BUFFER_SIZE = 4 * 1024
TLS_HANDSHAKE = 0x1603  # how a TLS connection begins, and no frame
SKIP_SIZE = 64 * 1024  # bytes thrown away at a time


class FrameReader:
    """One connection's incoming side. After an error or a cancelled `message` the stream can't be used further."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._buffer = bytearray(BUFFER_SIZE)
        self._start = self._end = 0

    async def message(self) -> Message:
        """The next message. ProtocolError, ConnectionLost."""
        await self._need(FRAME_HEADER.size)
        (length,) = FRAME_HEADER.unpack_from(self._buffer, self._start)
        if length >> 16 == TLS_HANDSHAKE:
            raise ProtocolError("speaks TLS, and this side is insecure")
        if not 0 < length <= FRAME_SIZE_MAX:
            raise ProtocolError(f"a frame of {length} bytes: 1 to {FRAME_SIZE_MAX} are allowed")
        await self._need(FRAME_HEADER.size + length)
        begin = self._start + FRAME_HEADER.size
        self._start = begin + length
        with memoryview(self._buffer) as view:
            return decode(view[begin : begin + length])

    def has_message(self) -> bool:
        """Whether the next frame is here already, whole."""
        ready = self._end - self._start - FRAME_HEADER.size
        return ready >= 0 and ready >= FRAME_HEADER.unpack_from(self._buffer, self._start)[0]

    async def raw_into(self, view: memoryview) -> int:
        """Some of the raw bytes behind a Run, of which as many as `view` has room for are to come: at least one. If it
        is cancelled, no byte is lost."""
        ready = min(self._end - self._start, len(view))
        if ready:
            view[:ready] = memoryview(self._buffer)[self._start : self._start + ready]
            self._start += ready
            return ready
        return await self._transport.receive_into(view, promised=True)

    async def skip(self, count: int) -> None:
        """Throw raw bytes away."""
        ready = min(self._end - self._start, count)
        self._start += ready
        count -= ready
        if count:
            space = memoryview(bytearray(min(count, SKIP_SIZE)))
            while count:
                count -= await self._transport.receive_into(space[: min(count, len(space))])

    async def _need(self, count: int) -> None:
        if self._end - self._start >= count:
            return
        size = max(count, BUFFER_SIZE)
        if self._start + count > len(self._buffer) or len(self._buffer) > size:
            rest = self._buffer[self._start : self._end]
            if len(self._buffer) != size:
                self._buffer = bytearray(size)
            self._buffer[: len(rest)] = rest
            self._start, self._end = 0, len(rest)
        while self._end - self._start < count:
            self._end += await self._transport.receive_into(memoryview(self._buffer)[self._end :])


__all__ = ["ConnectionLost", "FrameReader", "ProtocolError"]
