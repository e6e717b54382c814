"""Those that have called and wait to be let in: who came last goes first.

TLS's handshakes fill a core when a whole fleet comes back at once, and a caller hangs up after a few seconds. First
come, first served would then answer only those that are about to hang up, or have, and let in next to nobody for as
long as they keep calling. The last caller has the most patience left, so each handshake that is begun comes to its end
(https://queue.acm.org/detail.cfm?id=2839461 calls it adaptive LIFO); the others call again.
"""

from __future__ import annotations

import logging
import socket
from collections import deque

import trio

from p2pd.peers.handshake import TIMEOUT_S

log = logging.getLogger("p2pd.tracker")

CALLERS_MAX = 4096  # that wait; the one that has waited the longest is sent away for one more
WAIT_S = TIMEOUT_S * 0.6  # after that a caller's patience does not last for a handshake under such a load
ACCEPTED_AT_ONCE = 64  # without letting the others have their turn: well under a millisecond
ACCEPT_PAUSE_S = 0.1  # after an error, such as no descriptors


class WaitingRoom:
    """Callers, each with the moment at which it came."""

    def __init__(self) -> None:
        self._callers: deque[tuple[float, socket.socket]] = deque()
        self._came = trio.Event()

    def __len__(self) -> int:
        return len(self._callers)

    async def gather(self, listener: trio.SocketListener) -> None:
        """Accept callers, for ever. Takes the listener over."""
        with socket.socket(fileno=listener.socket.detach()) as sock:
            sock.setblocking(False)
            while True:
                await trio.lowlevel.wait_readable(sock)
                try:
                    for _ in range(ACCEPTED_AT_ONCE):
                        self.add(sock.accept()[0], trio.current_time())
                except BlockingIOError:
                    pass
                except OSError as error:
                    log.warning("can't accept a node: %s", error.strerror)
                    await trio.sleep(ACCEPT_PAUSE_S)

    def add(self, caller: socket.socket, now: float) -> None:
        """One more, at `now`. Those that have waited too long, or are too many, are hung up on."""
        caller.setblocking(False)
        self._callers.append((now, caller))
        while self._callers[0][0] < now - WAIT_S or len(self._callers) > CALLERS_MAX:
            self._callers.popleft()[1].close()
        self._came.set()

    async def newest(self) -> trio.socket.SocketType:
        """Whoever came last. The caller's from then on."""
        while True:
            while self._callers:
                since, caller = self._callers.pop()
                if trio.current_time() - since <= WAIT_S:
                    return trio.socket.from_stdlib_socket(caller)
                caller.close()
            self._came = trio.Event()
            await self._came.wait()

    def close(self) -> None:
        """Hang up on all of them."""
        while self._callers:
            self._callers.pop()[1].close()
