"""The bytes of a body straight off their socket, into the caller's buffer.

httpx, httpcore and h11 hand a body on through five generators and copy it four times, into memory that is new for each
part: more work than hashing and storing it. So they parse the head, and what follows is read here. Not here: when a
body may be read so, and where it ends (transport.py). Imports nothing of p2pd.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress

import trio

LOW_WATER = 512 * 1024  # bytes that are worth waking up for: each waking costs some 50 us
COMPANY_S = 0.02  # how long fewer bytes wait for company, where upstream is slow
TURN_BYTES = 1024 * 1024  # received without letting the other tasks have their turn: well under a millisecond


class RawBody:
    """Reads what nobody else reads meanwhile. `close` gives the socket back as it was."""

    def __init__(self, sock: trio.socket.SocketType | socket.socket, receive: Callable[[memoryview], int]) -> None:
        """`receive` gives what is there, 0 at the end, BlockingIOError if nothing is."""
        self._socket = sock
        self._receive = receive
        self._low_water = 1
        self._is_drained = False
        self._moved = 0  # bytes since the other tasks had their turn

    async def receive_into(self, view: memoryview, timeout_s: float) -> int:
        """The number of bytes received, 0 if the other side has closed. OSError; trio.TooSlowError if nothing came.

        Cancel-safe: no byte is lost. A checkpoint, but a schedule point only now and then.
        """
        if self._moved >= TURN_BYTES:
            self._moved = 0
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            if self._is_drained:
                await self._wait(min(len(view), LOW_WATER), timeout_s)
                self._is_drained = False
            try:
                count = self._receive(view)
            except BlockingIOError:
                self._is_drained = True
                continue
            self._is_drained = count < len(view)
            self._moved += count
            return count

    def close(self) -> None:
        """Whoever reads on must be woken by a single byte again."""
        self._set_low_water(1)

    async def _wait(self, count: int, timeout_s: float) -> None:
        self._set_low_water(count)
        with trio.move_on_after(min(COMPANY_S, timeout_s)):
            await trio.lowlevel.wait_readable(self._socket)
            return
        self._set_low_water(1)
        with trio.fail_after(timeout_s):
            await trio.lowlevel.wait_readable(self._socket)

    def _set_low_water(self, count: int) -> None:
        if count != self._low_water:
            with suppress(OSError):  # gone: the next read finds that out
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)
                self._low_water = count
