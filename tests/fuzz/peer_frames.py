"""The bytes of a peer or tracker as frames: messages come out, or ProtocolError, in little memory; and they go back.

The first byte says in what portions the bytes come.
"""

from __future__ import annotations

import trio

from p2pd.peers.frames import ConnectionLost, FrameReader
from p2pd.swarm.messages import FRAME_SIZE_MAX, ProtocolError, Run, decode, encode


class _Bytes:
    """What of a transport a FrameReader uses."""

    def __init__(self, data: bytes, portion: int) -> None:
        self._data = memoryview(data)
        self._portion = portion
        self.asked_max = 0

    async def receive_into(self, view: memoryview, promised: bool = False) -> int:
        self.asked_max = max(self.asked_max, len(view))
        portion = self._data[: min(self._portion, len(view))]
        if not portion:
            raise ConnectionLost("closed by the other side")
        view[: len(portion)] = portion
        self._data = self._data[len(portion) :]
        return len(portion)


def check(data: bytes) -> None:
    transport = _Bytes(data[1:], data[0] + 1 if data else 1)
    trio.run(_read, transport)
    assert transport.asked_max <= FRAME_SIZE_MAX + 4


async def _read(transport: _Bytes) -> None:
    frames = FrameReader(transport)  # type: ignore[arg-type]
    try:
        while True:
            message = await frames.message()
            again = encode(message)
            assert decode(again[4:]) == message
            if isinstance(message, Run):
                await frames.skip(message.length)
    except (ProtocolError, ConnectionLost):
        pass
